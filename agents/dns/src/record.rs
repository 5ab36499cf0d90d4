//! Items: one name of a zone with all its record sets.
//!
//! An item is a *name*, not a record set: whether a CNAME stands beside other data, and who is to blame, is one
//! decision about one name, and every source of that name is at hand when it is taken. It costs nothing: a host touches
//! the names it feeds and no others.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::{Known, Seen};

use crate::name::Zone;
use crate::rdata::Rtype;
use crate::route::{Policy, Routing};

/// One name of a zone: `example.com/www`, `example.com/@`. Sorts in the canonical order of
/// [RFC 4034, section 6.1](https://www.rfc-editor.org/rfc/rfc4034#section-6.1), the zone itself first.
///
/// Maps of a whole zone compare keys millions of times, so what a key sorts by stands behind its text: the zone, then the
/// labels from the last to the first, each after an octet that no name holds and that sorts before all that names do.
#[derive(Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The key of an owner name that is relative to its zone.
    pub(crate) fn new(zone: &Zone, owner: &str) -> Self {
        let zone = zone.as_str();
        let mut both = String::with_capacity(2 * (zone.len() + 1 + owner.len()));
        both.extend([zone, "/", owner, zone]);
        if owner == "@" {
            both.push('\0');
        } else {
            both.extend(owner.rsplit('.').flat_map(|label| ["\0", label]));
        }
        Self(both.into())
    }

    /// The key of the zone itself.
    #[must_use]
    pub fn apex(zone: &Zone) -> Self {
        Self::new(zone, "@")
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &str {
        self.parts().0
    }

    /// The name relative to the zone; `@` is the zone itself.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.parts().1
    }

    /// Whether it is the zone itself.
    #[must_use]
    pub fn is_apex(&self) -> bool {
        self.owner() == "@"
    }

    /// The complete name, without the trailing dot.
    #[must_use]
    pub fn name(&self) -> String {
        match self.parts() {
            (zone, "@") => zone.to_owned(),
            (zone, owner) => format!("{owner}.{zone}"),
        }
    }

    /// `zone/owner`.
    fn text(&self) -> &str {
        &self.0[..self.middle()]
    }

    fn sorts_by(&self) -> &[u8] {
        &self.0.as_bytes()[self.middle()..]
    }

    /// Where the text ends. What it sorts by is as long, or one octet shorter for the zone itself.
    fn middle(&self) -> usize {
        self.0.len().div_ceil(2)
    }

    fn parts(&self) -> (&str, &str) {
        let text = self.text();
        text.split_once('/').unwrap_or((text, "@"))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        // Mostly it is the same key, from another map: then neither text has to be fetched.
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.sorts_by().cmp(other.sorts_by())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (zone, owner) = text.split_once('/').ok_or_else(|| format!("{text:?} is not zone/name"))?;
        let zone = Zone::parse(zone)?;
        // Complete, so that `example.com.example.com` stays what it is.
        let complete = if owner == "@" { format!("{zone}.") } else { format!("{owner}.{zone}.") };
        Ok(Self::new(&zone, &crate::name::owner(&complete, &zone)?))
    }
}

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

/// All record sets of one name, by type. Without the SOA's serial, which is the target's business and written as 0.
///
/// Copies share the sets: one name stands in what is wanted, in what is there, in the ledger, in the change between them and in
/// what is known of the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Node {
    /// In order of type number, each type once; several of one type only where each has a [`Routing`] of its own, in its order.
    pub sets: Arc<Vec<RecordSet>>,
}

impl Node {
    /// The sets, to be changed in this copy alone.
    pub(crate) fn sets_mut(&mut self) -> &mut Vec<RecordSet> {
        Arc::make_mut(&mut self.sets)
    }

    /// The set of a type.
    #[must_use]
    pub fn set(&self, rtype: Rtype) -> Option<&RecordSet> {
        self.sets.binary_search_by_key(&rtype, |set| set.rtype).ok().map(|at| &self.sets[at])
    }

    /// The set that this one is a form of.
    pub(crate) fn same(&self, one: &RecordSet) -> Option<&RecordSet> {
        self.sets.binary_search_by(|set| set.id().cmp(&one.id())).ok().map(|at| &self.sets[at])
    }
}

/// The records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordSet {
    /// Their type.
    #[serde(rename = "type")]
    pub rtype: Rtype,
    /// How long, in seconds, an answer may be kept.
    pub ttl: u32,
    /// Their data in canonical text, in the canonical order of RFC 4034, section 6.3.
    pub data: Vec<String>,
    /// What only Route 53 knows of a set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Box<Routing>>,
}

impl RecordSet {
    /// A set that is nothing but its records.
    #[must_use]
    pub fn plain(rtype: Rtype, ttl: u32, data: Vec<String>) -> Self {
        Self { rtype, ttl, data, routing: None }
    }

    /// What tells it from others under its name.
    pub(crate) fn id(&self) -> (Rtype, Option<&str>) {
        (self.rtype, self.routing.as_ref().and_then(|routing| routing.set.as_deref()))
    }

    /// Whether both cannot stand: they are one set, one is the only one of its type, or they are chosen in different ways.
    fn excludes(&self, other: &Self) -> bool {
        let (one, two) = (self.id(), other.id());
        one.0 == two.0
            && (one.1 == two.1 || one.1.is_none() || two.1.is_none() || self.kind() != other.kind())
    }

    /// How it is chosen among others of its name and type.
    fn kind(&self) -> Option<&'static str> {
        self.routing.as_ref()?.policy.as_ref().map(Policy::kind)
    }
}

/// What is there under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The records.
    pub records: Node,
    /// The file holds this, and the server does not serve the file as it is (a reload failed or never happened).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unserved: bool,
    /// Who else writes there.
    #[serde(skip)]
    pub(crate) others: Others,
    /// Whether what was last done about it has come everywhere.
    #[serde(skip)]
    pub(crate) spread: Spread,
}

/// How far a change has come that a service takes at once and brings to its servers by and by.
#[cfg_attr(not(feature = "route53"), expect(dead_code, reason = "only Route 53 is such a service"))]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Spread {
    /// Nothing is known of one.
    #[default]
    Unknown,
    /// It has come everywhere. Without any records: it took them out.
    Done,
    /// Not yet: of which change, and when to look again.
    Under {
        /// For people: `the change C123 (PENDING) of Route 53`.
        what: String,
        /// How long to wait before the next look.
        pause: std::time::Duration,
    },
}

/// Who else writes under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Others {
    /// Nobody.
    #[default]
    Nobody,
    /// Others may, and what is told is a part.
    Beside,
    /// It is the zone itself, somebody else made it, and its SOA and name servers are theirs. They are left out.
    Hosting,
}

impl Have {
    /// These records, served.
    #[must_use]
    pub fn of(records: Node) -> Self {
        Self { records, unserved: false, others: Others::Nobody, spread: Spread::Unknown }
    }

    /// What of this concerns Shoal where others write beside it: the record sets of the types that Shoal wants or last made, and
    /// those that are exactly as it tried to make them. A CNAME stands alone, so where something is wanted and one is on either
    /// side, all of it is in the way. The zone itself is there as long as the server has it, whatever else stands under its name.
    pub(crate) fn part(&self, key: &Key, known: &Known<'_, Node>) -> Seen<Self> {
        let alone = |node: &Node| node.set(Rtype::CNAME).is_some();
        let all = known.want.is_some_and(|want| alone(want) || alone(&self.records));
        let mut records = self.records.clone();
        records.sets_mut().retain(|set| {
            let wanted = |want: &Node| want.sets.iter().any(|one| one.excludes(set));
            let named = all || known.want.is_some_and(wanted);
            (named || is_known(set, known)) && !(key.is_apex() && is_of_the_host(set.rtype))
        });
        let nothing = records.sets.is_empty();
        let others = if key.is_apex() { Others::Hosting } else { Others::Beside };
        let part = Self { others, spread: self.spread.clone(), ..Self::of(records) };
        let told = match self.spread {
            // It goes, and is still answered somewhere.
            Spread::Under { .. } => true,
            // It went, and nobody read yet what else there is.
            Spread::Done => self.records.sets.is_empty(),
            Spread::Unknown => false,
        };
        match others {
            _ if nothing && told => Seen::There(part),
            Others::Hosting if nothing => Seen::Ours(part),
            _ if nothing => Seen::Nothing,
            _ => Seen::There(part),
        }
    }
}

impl Have {
    /// A type of which somebody else has records under the name, in the way of what Shoal wants: Shoal never made a set of it, nor
    /// tried to make this one. That it is equal to what is wanted does not make it Shoal's.
    pub(crate) fn foreign_set(&self, known: &Known<'_, Node>) -> Option<Rtype> {
        let nothing = known.last.is_none() && known.tried.is_empty();
        if self.others == Others::Nobody || known.want.is_none() || nothing {
            return None;
        }
        self.records.sets.iter().find(|set| !is_known(set, known)).map(|set| set.rtype)
    }
}

/// Whether Shoal made a set of this type, or may have made exactly this one.
fn is_known(set: &RecordSet, known: &Known<'_, Node>) -> bool {
    known.last.is_some_and(|last| last.same(set).is_some())
        || known.tried.iter().any(|one| one.same(set) == Some(set))
}

/// Whether sets of this type at the zone itself belong to whoever made the zone at the server.
pub(crate) fn is_of_the_host(rtype: Rtype) -> bool {
    matches!(rtype, Rtype::SOA | Rtype::NS)
}

impl PartialEq<Node> for Have {
    fn eq(&self, want: &Node) -> bool {
        let hosted = self.others == Others::Hosting;
        let wanted = want.sets.iter().filter(|set| !(hosted && is_of_the_host(set.rtype)));
        !self.unserved && wanted.eq(self.records.sets.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_canonically() {
        // The example of RFC 4034, section 6.1, as far as owner names of ours go.
        let zone = Zone::parse("example").unwrap();
        let sorted: Vec<Key> = ["@", "a", "yljkjljk.a", "z.a", "zabc.a", "z", "*.z"]
            .iter()
            .map(|o| Key::new(&zone, o))
            .collect();
        let mut mixed = sorted.clone();
        mixed.reverse();
        mixed.sort();
        assert_eq!(mixed, sorted);
    }

    #[test]
    fn zones_sort_as_their_names_do_and_keep_together() {
        let zones = ["a.b", "a.b-c", "a.b.c", "b"].map(|zone| Zone::parse(zone).unwrap());
        let keys: Vec<Key> = zones
            .iter()
            .flat_map(|zone| ["@", "-x.a", "a", "b.a", "a-b", "b"].map(|o| Key::new(zone, o)))
            .collect();
        for (at, one) in keys.iter().enumerate() {
            for (place, other) in keys.iter().enumerate() {
                let labels = |key: &Key| match key.owner() {
                    "@" => Vec::new(),
                    owner => owner.rsplit('.').map(str::to_owned).collect(),
                };
                let slowly = (one.zone(), labels(one)).cmp(&(other.zone(), labels(other)));
                assert_eq!(one.cmp(other), slowly, "{one} {other}");
                assert_eq!(one == other, at == place);
            }
        }
    }

    #[test]
    fn sets_exclude_each_other_where_a_service_takes_only_one_of_them() {
        let set = |set: &str, policy: Policy| {
            let routing = Routing { set: Some(set.to_owned()), policy: Some(policy), ..Routing::default() };
            RecordSet { routing: Some(Box::new(routing)), ..RecordSet::plain(Rtype::A, 60, Vec::new()) }
        };
        let weight = |name| set(name, Policy::Weight(1));
        let region = |name| set(name, Policy::Region("eu-west-1".to_owned()));
        let plain = RecordSet::plain(Rtype::A, 60, Vec::new());
        for (one, other, excludes) in [
            (weight("a"), weight("b"), false),
            (weight("a"), weight("a"), true),
            (weight("a"), plain, true),
            // Others of the name may have another policy: Route 53 takes no second kind.
            (weight("a"), region("b"), true),
            (region("a"), region("b"), false),
            (weight("a"), set("b", Policy::Other("geoproximity".to_owned())), true),
            (weight("a"), RecordSet { rtype: Rtype::AAAA, ..region("b") }, false),
        ] {
            assert_eq!(one.excludes(&other), excludes, "{one:?} {other:?}");
            assert_eq!(other.excludes(&one), excludes, "{other:?} {one:?}");
        }
    }

    #[test]
    fn keys_are_text() {
        let key: Key = serde_json::from_str("\"example.com/www\"").unwrap();
        assert_eq!(
            (key.zone(), key.owner(), key.name()),
            ("example.com", "www", "www.example.com".to_owned())
        );
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"example.com/www\"");
        assert!(serde_json::from_str::<Key>("\"example.com\"").is_err());
        assert!(Key::apex(&Zone::parse("a.b").unwrap()).is_apex());
    }
}
