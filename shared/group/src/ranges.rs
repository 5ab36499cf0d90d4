//! Ranges of numbers and addresses, and who holds which.
//!
//! People write a range as the tag `ranges/<name>`: `{ids: {first: 1, last: 100}}`, or `{addresses: {net: 192.0.2.0/24}}`. Who holds what
//! of it stands in the fact `facts/placement/ranges/<name>`, which only whoever chooses for groups writes, on the condition that nobody wrote one
//! meanwhile. Nothing is leased: what is held is held until a slot is given up, or a person frees it.

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_core::{HostName, MAX_ROW, Revision, TagName};

use crate::state::FULL;

/// The namespace of ranges.
pub const RANGES: &str = "ranges";

/// What a range consists of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Whole numbers.
    Ids(Ids),
    /// Addresses of a network.
    Addresses(Net),
}

/// Whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// Addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The network: `192.0.2.0/24`.
    net: Text,
    /// How far behind its beginning the first is; 1 where nothing is said.
    #[serde(default)]
    first: Option<u32>,
    /// How far behind its beginning the last is; where nothing is said, the last but one of the network.
    #[serde(default)]
    last: Option<u32>,
}

/// A network in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Text(IpNet);

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let net: IpNet =
            text.parse().map_err(|e| format!("{text:?} is no network such as 192.0.2.0/24: {e}"))?;
        Ok(Self(net.trunc()))
    }
}

/// Who holds something of a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// The group.
    pub group: TagName,
    /// The slot in it.
    pub slot: u32,
    /// The field of the member's document.
    pub field: String,
    /// The member.
    pub host: HostName,
}

/// The fact about a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Holdings {
    /// Who holds what.
    pub held: BTreeMap<String, Held>,
}

/// A range, and who holds what of it.
#[derive(Clone, Debug)]
pub struct Range {
    /// The revision of its tag; `None`: the tag is gone.
    pub revision: Option<Revision>,
    /// What it consists of, or why nobody knows.
    pub pool: Result<Pool, String>,
    /// Who holds what.
    pub holdings: Holdings,
    /// Who holds what cannot be understood, and why.
    pub broken: Option<String>,
    /// By whom: what.
    by: BTreeMap<(TagName, u32, String), String>,
    /// Nothing before this one is free.
    from: u128,
    /// How many octets who holds what has as it is written, or a few more.
    octets: usize,
    changed: bool,
}

impl Pool {
    /// Checks what was read.
    ///
    /// # Errors
    /// There is nothing in it.
    pub fn checked(self) -> Result<Self, String> {
        if self.count() == 0 {
            return Err("it is empty: its last comes before its first, or lies beyond its network".to_owned());
        }
        Ok(self)
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> u128 {
        match self {
            Self::Ids(Ids { first, last }) => {
                u128::from(*last).checked_sub(u128::from(*first)).map_or(0, |more| more.saturating_add(1))
            }
            Self::Addresses(net) => net.bounds().map_or(0, |(first, last)| last - first + 1),
        }
    }

    /// The one so far behind the first.
    #[must_use]
    pub fn nth(&self, n: u128) -> Option<String> {
        if n >= self.count() {
            return None;
        }
        match self {
            Self::Ids(ids) => Some((u128::from(ids.first) + n).to_string()),
            Self::Addresses(net) => net.at(net.bounds()?.0 + n).map(|address| address.to_string()),
        }
    }

    /// The address so far behind the beginning of the network, if that is in the range.
    #[must_use]
    pub fn at(&self, offset: u128) -> Option<String> {
        let Self::Addresses(net) = self else { return None };
        let (first, last) = net.bounds()?;
        (first..=last).contains(&offset).then(|| net.at(offset)).flatten().map(|address| address.to_string())
    }

    /// How long the prefix of its network is.
    #[must_use]
    pub fn prefix(&self) -> Option<u8> {
        match self {
            Self::Ids(_) => None,
            Self::Addresses(net) => Some(net.net.0.prefix_len()),
        }
    }
}

impl Net {
    /// How far behind the network's beginning the first and the last are.
    fn bounds(&self) -> Option<(u128, u128)> {
        let net = self.net.0;
        let bits = net.max_prefix_len() - net.prefix_len();
        let end = 1_u128.checked_shl(u32::from(bits)).map_or(u128::MAX, |size| size - 1);
        // The last of a network of the fourth version is everybody; two or fewer are all somebody's.
        let (first, last) = if bits <= 1 { (0, end) } else { (1, end - 1) };
        let (first, last) = (self.first.map_or(first, u128::from), self.last.map_or(last, u128::from));
        (first <= last && last <= end).then_some((first, last))
    }

    /// Of which family it is (whether the sixth), and its first and last address as numbers.
    fn span(&self) -> Option<(bool, u128, u128)> {
        let (first, last) = self.bounds()?;
        let (family, start) = match self.net.0.network() {
            IpAddr::V4(start) => (false, u128::from(u32::from(start))),
            IpAddr::V6(start) => (true, u128::from(start)),
        };
        Some((family, start.checked_add(first)?, start.checked_add(last)?))
    }

    fn at(&self, offset: u128) -> Option<IpAddr> {
        match self.net.0.network() {
            IpAddr::V4(start) => {
                let at = u32::from(start).checked_add(u32::try_from(offset).ok()?)?;
                Some(IpAddr::V4(at.into()))
            }
            IpAddr::V6(start) => Some(IpAddr::V6(u128::from(start).checked_add(offset)?.into())),
        }
    }
}

impl Range {
    /// One of which nobody has taken anything yet.
    #[must_use]
    pub fn new(revision: Option<Revision>, pool: Result<Pool, String>, holdings: Holdings) -> Self {
        let by = holdings.held.iter().map(|(what, held)| (held.by(), what.clone())).collect();
        let octets = holdings.octets();
        Self { revision, pool, holdings, broken: None, by, from: 0, octets, changed: false }
    }

    /// How many are held.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.holdings.held.len()
    }

    fn take(&mut self, offset: Option<u128>, by: &Held) -> Result<String, String> {
        if let Some(why) = &self.broken {
            return Err(format!("who holds what of it cannot be understood: {why}"));
        }
        if let Some(has) = self.by.get(&by.by()) {
            return Ok(has.clone());
        }
        let pool = self.pool.as_ref().map_err(Clone::clone)?;
        let what = match offset {
            Some(offset) => {
                let what = pool
                    .at(offset)
                    .ok_or_else(|| format!("it has no address {offset} behind its beginning"))?;
                if let Some(other) = self.holdings.held.get(&what) {
                    return Err(format!("{what} is held by slot {} of {}", other.slot, other.group));
                }
                what
            }
            None => loop {
                let what = pool.nth(self.from).ok_or("nothing of it is free")?;
                if !self.holdings.held.contains_key(&what) {
                    break what;
                }
                self.from += 1;
            },
        };
        self.put(what.clone(), by.clone())?;
        Ok(what)
    }

    /// Writes it down, where the row has room: one that is too large is refused, and all that is chosen with it.
    fn put(&mut self, what: String, by: Held) -> Result<(), String> {
        let octets = self.octets + by.octets(&what);
        if octets > FULL {
            return Err(format!(
                "who holds what of it fills a row ({octets} octets of {MAX_ROW}): take another range"
            ));
        }
        self.octets = octets;
        self.by.insert(by.by(), what.clone());
        self.holdings.held.insert(what, by);
        self.changed = true;
        Ok(())
    }

    fn give_back(&mut self, group: &TagName, slot: u32) {
        let theirs = |held: &Held| held.group == *group && held.slot == slot;
        let before = self.holdings.held.len();
        self.holdings.held.retain(|_, held| !theirs(held));
        self.by.retain(|(of, number, _), _| of != group || *number != slot);
        self.changed |= self.holdings.held.len() < before;
        self.octets = self.holdings.octets();
        self.from = 0;
    }
}

impl Holdings {
    /// How many octets it has as it is written, or a few more.
    fn octets(&self) -> usize {
        self.held.iter().map(|(what, held)| held.octets(what)).sum::<usize>() + 16
    }
}

impl Held {
    /// How many octets it has as it is written beside what it is of, or a few more.
    fn octets(&self, what: &str) -> usize {
        64 + what.len() + self.group.as_str().len() + 2 * self.field.len() + self.host.as_str().len()
    }

    fn by(&self) -> (TagName, u32, String) {
        (self.group.clone(), self.slot, self.field.clone())
    }
}

/// All ranges, by name.
#[derive(Clone, Debug, Default)]
pub struct Ranges(pub BTreeMap<String, Range>);

impl Ranges {
    /// What this slot's field has of the range: what it has already, else the address at the offset, or the first that is free.
    ///
    /// # Errors
    /// Why there is none.
    pub fn take(&mut self, range: &str, offset: Option<u128>, by: &Held) -> Result<String, String> {
        let name = format!("{RANGES}/{range}");
        let found = self.0.get_mut(range).ok_or_else(|| format!("there is no {name}"))?;
        found.take(offset, by).map_err(|why| format!("{name}: {why}"))
    }

    /// Writes down what somebody has that nobody wrote down, or that the record was lost of. What stands in the place of something else that
    /// is held for it is written down beside that.
    ///
    /// # Errors
    /// Somebody else holds it, or it is not what is held for it.
    pub(crate) fn found(&mut self, range: &str, what: &str, by: &Held) -> Result<(), String> {
        // A range that is not there, or cannot be understood, is a fault of its own.
        let Some(found) = self.0.get_mut(range).filter(|found| found.broken.is_none()) else { return Ok(()) };
        let has = found.by.get(&by.by()).filter(|has| *has != what).cloned();
        // What somebody wrote in its place is the machine's as well, and nobody else's.
        let hand = Held { field: format!("{}, by hand", by.field), ..by.clone() };
        match found.holdings.held.get(what) {
            Some(held) if held.by() == by.by() || held.by() == hand.by() => {}
            Some(other) => {
                let (slot, group) = (other.slot, &other.group);
                return Err(format!("{what} of {RANGES}/{range} is held by slot {slot} of {group}"));
            }
            None => {
                let why = |why: String| format!("{RANGES}/{range}: {why}");
                found.put(what.to_owned(), if has.is_some() { hand } else { by.clone() }).map_err(why)?;
            }
        }
        has.map_or(Ok(()), |has| {
            Err(format!(
                "{what} is not what {RANGES}/{range} holds for it, which is {has}: write that again; both are its own as long as it has its slot"
            ))
        })
    }

    /// Sets ranges aside that have addresses in common: each would give what the other gives. Says which, and why.
    pub(crate) fn part(&mut self) -> Vec<(String, String)> {
        let span = |(name, range): (&String, &Range)| match range.pool.as_ref() {
            Ok(Pool::Addresses(net)) => net.span().map(|(family, from, to)| (family, from, to, name.clone())),
            _ => None,
        };
        let mut spans: Vec<_> = self.0.iter().filter_map(span).collect();
        spans.sort_unstable();
        let mut common: BTreeMap<String, String> = BTreeMap::new();
        // Of those that begin before, the one that ends last.
        let mut before: Option<(bool, u128, String)> = None;
        for (family, from, to, name) in spans {
            if let Some((of, end, other)) = &before
                && *of == family
                && from <= *end
            {
                common.insert(name.clone(), other.clone());
                common.entry(other.clone()).or_insert_with(|| name.clone());
            }
            if before.as_ref().is_none_or(|(of, end, _)| *of != family || *end < to) {
                before = Some((family, to, name));
            }
        }
        let mut parted = Vec::new();
        for (name, other) in common {
            let why =
                format!("it has addresses that {RANGES}/{other} has, too: nothing more is taken of either");
            if let Some(range) = self.0.get_mut(&name) {
                range.pool = Err(why.clone());
            }
            parted.push((name, why));
        }
        parted
    }

    /// What a slot has for somebody who lives, the first of it: of which range, what, and for whom.
    pub(crate) fn left(
        &self,
        group: &TagName,
        slot: u32,
        lives: impl Fn(&Held) -> bool,
    ) -> Option<(String, String, HostName)> {
        let first = (group.clone(), slot, String::new());
        self.0.iter().find_map(|(name, range)| {
            let own = range.by.range(first.clone()..);
            let own = own.take_while(|((of, number, _), _)| of == group && *number == slot);
            let mut own = own.filter_map(|(_, what)| Some((what, range.holdings.held.get(what)?)));
            let (what, held) = own.find(|&(_, held)| lives(held))?;
            Some((name.clone(), what.clone(), held.host.clone()))
        })
    }

    /// How long the prefix of the range's network is.
    ///
    /// # Errors
    /// It has none.
    pub(crate) fn prefix(&self, range: &str) -> Result<u8, String> {
        let none = || format!("{RANGES}/{range} has no addresses");
        let pool = &self.0.get(range).ok_or_else(none)?.pool;
        pool.as_ref().map_err(|why| format!("{RANGES}/{range}: {why}"))?.prefix().ok_or_else(none)
    }

    /// Gives back all that a slot has.
    pub(crate) fn give_back(&mut self, group: &TagName, slot: u32) {
        self.0.values_mut().for_each(|range| range.give_back(group, slot));
    }

    /// The ranges of which something was taken, or given back.
    pub fn changed(&self) -> impl Iterator<Item = (&str, &Range)> {
        self.0.iter().filter(|(_, range)| range.changed).map(|(name, range)| (name.as_str(), range))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(pool: Value) -> Range {
        let pool = serde_json::from_value::<Pool>(pool).map_err(|e| e.to_string()).and_then(Pool::checked);
        Range::new(Some(Revision(1)), pool, Holdings::default())
    }

    fn by(slot: u32) -> Held {
        Held {
            group: "vm/a".parse().unwrap(),
            slot,
            field: "id".to_owned(),
            host: format!("a{slot}").parse().unwrap(),
        }
    }

    #[test]
    fn each_is_held_once_and_kept() {
        let mut ids = range(json!({"ids": {"first": 7, "last": 9}}));
        let take = |ids: &mut Range, slot| ids.take(None, &by(slot));
        assert_eq!([0, 1, 0, 2].map(|slot| take(&mut ids, slot).unwrap()), ["7", "8", "7", "9"]);
        assert_eq!(take(&mut ids, 3).unwrap_err(), "nothing of it is free");
        ids.give_back(&"vm/a".parse().unwrap(), 1);
        assert_eq!(take(&mut ids, 3).unwrap(), "8");
        assert_eq!(ids.holdings.held["8"], by(3));
    }

    #[test]
    fn a_row_that_is_full_takes_nothing_more() {
        let mut ids = range(json!({"ids": {"first": 1, "last": 100_000}}));
        let full = |slot| ids.take(None, &by(slot)).err().map(|why| (slot, why));
        let (held, why) = (0..100_000).find_map(full).unwrap();
        assert!(held > 1_000 && why.contains("fills a row"), "{held}: {why}");
        assert!(serde_json::to_string(&ids.holdings).unwrap().len() <= FULL);
        // What is held is held, and what is given back can be taken anew.
        assert_eq!(ids.take(None, &by(7)).unwrap(), "8");
        for slot in [7, 8] {
            ids.give_back(&"vm/a".parse().unwrap(), slot);
        }
        assert_eq!(ids.take(None, &by(held)).unwrap(), "8");
    }

    #[test]
    fn addresses_lie_in_their_network() {
        let mut lan = range(json!({"addresses": {"net": "192.0.2.64/29", "first": 2}}));
        assert_eq!(lan.pool.as_ref().unwrap().count(), 5);
        assert_eq!(lan.take(None, &by(0)).unwrap(), "192.0.2.66");
        assert_eq!(lan.take(Some(4), &by(1)).unwrap(), "192.0.2.68");
        assert_eq!(lan.take(Some(4), &by(2)).unwrap_err(), "192.0.2.68 is held by slot 1 of vm/a");
        assert!(lan.take(Some(7), &by(2)).unwrap_err().contains("no address 7"));
        assert!(lan.take(Some(1), &by(2)).unwrap_err().contains("no address 1"));
        let rest: Vec<String> = (2..5).map(|slot| lan.take(None, &by(slot)).unwrap()).collect();
        assert_eq!(rest, ["192.0.2.67", "192.0.2.69", "192.0.2.70"]);
        assert!(lan.take(None, &by(5)).is_err(), "the last of the network is everybody");
        let mut wide = range(json!({"addresses": {"net": "2001:db8::/64"}}));
        assert_eq!(wide.take(None, &by(0)).unwrap(), "2001:db8::1");
        assert_eq!(wide.take(Some(0x1_0000), &by(1)).unwrap(), "2001:db8::1:0");
        assert_eq!(range(json!({"addresses": {"net": "::/0"}})).pool.unwrap().count(), u128::MAX - 1);
    }

    #[test]
    fn ranges_that_have_addresses_in_common_are_set_aside() {
        let net = |net: &str, first: u32, last: u32| {
            range(json!({"addresses": {"net": net, "first": first, "last": last}}))
        };
        let mut ranges = Ranges(BTreeMap::from([
            ("all".to_owned(), net("10.0.0.0/16", 0, 65_535)),
            ("alone".to_owned(), net("10.1.0.0/24", 1, 99)),
            ("beside".to_owned(), net("10.1.0.0/24", 100, 200)),
            ("first".to_owned(), net("10.0.0.0/24", 1, 9)),
            ("last".to_owned(), net("10.0.255.0/24", 1, 9)),
            ("numbers".to_owned(), range(json!({"ids": {"first": 1, "last": 9}}))),
            ("others".to_owned(), range(json!({"ids": {"first": 1, "last": 9}}))),
            ("six".to_owned(), net("::/120", 1, 99)),
        ]));
        let parted = ranges.part();
        let names: Vec<&str> = parted.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["all", "first", "last"]);
        assert!(parted[0].1.contains("ranges/first") && parted[2].1.contains("ranges/all"), "{parted:?}");
        assert!(ranges.take("last", None, &by(0)).unwrap_err().contains("ranges/all"));
        assert_eq!(ranges.take("beside", None, &by(0)).unwrap(), "10.1.0.100");
        assert!(ranges.prefix("first").unwrap_err().contains("ranges/all"));
        assert_eq!(ranges.prefix("alone"), Ok(24));
    }

    #[test]
    fn what_makes_no_range_is_said() {
        for pool in [
            json!({"ids": {"first": 2, "last": 1}}),
            json!({"addresses": {"net": "192.0.2.0/24", "last": 256}}),
            json!({"addresses": {"net": "192.0.2.0/24", "first": 9, "last": 8}}),
            json!({"addresses": {"net": "192.0.2.0"}}),
            json!({"ids": {"first": 1, "last": 2}, "addresses": {"net": "192.0.2.0/24"}}),
            json!({}),
        ] {
            assert!(range(pool.clone()).pool.is_err(), "{pool}");
        }
    }
}
