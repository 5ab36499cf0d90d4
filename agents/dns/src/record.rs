//! Items: one name of a zone with all its record sets.
//!
//! An item is a *name*, not a record set: whether a CNAME stands beside other data, and who is to blame, is one
//! decision about one name, and every source of that name is at hand when it is taken. It costs nothing: a host touches
//! the names it feeds and no others.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::Zone;
use crate::rdata::Rtype;

/// One name of a zone: `example.com/www`, `example.com/@`. Sorts in the canonical order of
/// [RFC 4034, section 6.1](https://www.rfc-editor.org/rfc/rfc4034#section-6.1), the zone itself first.
///
/// Maps of a whole zone compare keys millions of times, so what a key sorts by stands behind its text: the zone, then the
/// labels from the last to the first, each after an octet that no name holds and that sorts before all that names do.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.text().to_owned()
    }
}

/// All record sets of one name, by type. Without the SOA's serial, which is the target's business and written as 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Node {
    /// In order of type number, each type once.
    pub sets: Vec<RecordSet>,
}

impl Node {
    /// The set of a type.
    #[must_use]
    pub fn set(&self, rtype: Rtype) -> Option<&RecordSet> {
        self.sets.binary_search_by_key(&rtype, |set| set.rtype).ok().map(|at| &self.sets[at])
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
}

/// What is there under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The records.
    pub records: Node,
    /// The file holds this, and the server does not serve the file as it is (a reload failed or never happened).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unserved: bool,
}

impl Have {
    /// These records, served.
    #[must_use]
    pub fn of(records: Node) -> Self {
        Self { records, unserved: false }
    }
}

impl PartialEq<Node> for Have {
    fn eq(&self, want: &Node) -> bool {
        !self.unserved && self.records == *want
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
