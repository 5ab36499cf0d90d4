//! What a commit rests on: which of its preconditions a change by somebody else may have broken.
//!
//! A large commit has its preconditions checked before it is written, while others go on. What they write meanwhile is held
//! against this, at the price of some look-ups a change, and only what it touches is checked again. Pure, and small beside the
//! commit: four octets a precondition.

use std::collections::BTreeSet;

use shoal_core::{Key, Pre, Range};

/// The preconditions of a commit, by what may break them. All that answers is their places, as in the commit.
#[derive(Debug, Default)]
pub(crate) struct Rests {
    /// Of one key, by that.
    keys: Vec<u32>,
    /// Of all keys that start so, by the start; and how long those are.
    prefixes: Vec<u32>,
    lengths: BTreeSet<usize>,
    /// Of all rows that name a member, by that.
    naming: Vec<u32>,
    /// Those that any change breaks.
    all: Vec<u32>,
    /// Those that no change breaks, but time.
    held: Vec<u32>,
}

/// What a precondition is filed by.
fn text(pre: &Pre) -> &str {
    match pre {
        Pre::At(key, _) | Pre::Exists(key) | Pre::Absent(key) | Pre::Unchanged(Range::Key(key), _) => {
            key.as_str()
        }
        Pre::Unchanged(Range::Prefix(prefix), _) => prefix,
        Pre::Unchanged(Range::Naming(member), _) => member.as_str(),
        Pre::Unchanged(Range::All | Range::Concerning(_), _) | Pre::Held { .. } => "",
    }
}

impl Rests {
    /// What these rest on; no more than commits may have.
    pub(crate) fn on(pre: &[Pre]) -> Self {
        let mut rests = Self::default();
        for (place, one) in (0..).zip(pre) {
            match one {
                Pre::At(..) | Pre::Exists(_) | Pre::Absent(_) | Pre::Unchanged(Range::Key(_), _) => {
                    rests.keys.push(place);
                }
                Pre::Unchanged(Range::Prefix(prefix), _) => {
                    rests.prefixes.push(place);
                    rests.lengths.insert(prefix.len());
                }
                Pre::Unchanged(Range::Naming(_), _) => rests.naming.push(place),
                Pre::Unchanged(Range::All | Range::Concerning(_), _) => rests.all.push(place),
                Pre::Held { .. } => rests.held.push(place),
            }
        }
        for part in [&mut rests.keys, &mut rests.prefixes, &mut rests.naming] {
            part.sort_by(|a, b| text(&pre[*a as usize]).cmp(text(&pre[*b as usize])));
        }
        rests
    }

    /// Takes down the places of those that a change of `key` may have broken. `pre` are those that this was made of.
    pub(crate) fn touched(&self, pre: &[Pre], key: &Key, places: &mut BTreeSet<u32>) {
        let mut filed = |part: &[u32], name: &str| {
            let from = part.partition_point(|place| text(&pre[*place as usize]) < name);
            places.extend(part[from..].iter().take_while(|place| text(&pre[**place as usize]) == name));
        };
        filed(&self.keys, key.as_str());
        for length in &self.lengths {
            if let Some(start) = key.as_str().get(..*length) {
                filed(&self.prefixes, start);
            }
        }
        if let Some((_, member)) = key.as_member() {
            filed(&self.naming, member);
        }
        places.extend(&self.all);
    }

    /// The places of those that time may have broken.
    pub(crate) fn held(&self) -> &[u32] {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::Revision;

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn what_a_change_may_break_is_what_the_ranges_contain() {
        let keys = [
            "hosts/a",
            "hosts/é",
            "dns/x",
            "dns/x/members/a",
            "dns/x/members/@b",
            "dns/xy",
            "lb/x/members/a",
        ];
        let ranges =
            ["", "hosts/", "dns/", "dns/x/", "dns/x/members/", "dns/x", "l"].map(|p| Range::Prefix(p.into()));
        let members = ["a", "@b", "none"].map(|m| Range::Naming(m.parse().unwrap()));
        let mut pre =
            vec![Pre::Held { name: "c".into(), number: 1 }, Pre::Unchanged(Range::All, Revision(1))];
        for text in keys {
            pre.extend([Pre::Exists(key(text)), Pre::Absent(key(text)), Pre::At(key(text), Revision(3))]);
            pre.push(Pre::Unchanged(Range::Key(key(text)), Revision(2)));
        }
        pre.extend(ranges.into_iter().chain(members).map(|range| Pre::Unchanged(range, Revision(1))));
        let rests = Rests::on(&pre);
        for text in keys.into_iter().chain(["vm/other", "dns/x/members/none"]) {
            let mut touched = BTreeSet::new();
            rests.touched(&pre, &key(text), &mut touched);
            let expected = (0..).zip(&pre).filter(|(_, pre)| match pre {
                Pre::At(at, _) | Pre::Exists(at) | Pre::Absent(at) => *at == key(text),
                Pre::Unchanged(range, _) => range.contains(&key(text)),
                Pre::Held { .. } => false,
            });
            assert_eq!(touched, expected.map(|(place, _)| place).collect(), "{text}");
        }
        assert_eq!(rests.held(), [0]);
    }
}
