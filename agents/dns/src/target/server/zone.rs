//! A zone in memory, changed name by name, and what it holds for a question
//! ([RFC 1034, section 4.3.2](https://www.rfc-editor.org/rfc/rfc1034#section-4.3.2),
//! [RFC 4592](https://www.rfc-editor.org/rfc/rfc4592)).
//!
//! A change costs the depth of its name, whatever the size of the zone; so does a look-up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::journal::{Changed, Journal};
use crate::name::{self, Zone};
use crate::rdata::{self, Rtype};
use crate::record::{Key, Node, RecordSet};
use crate::target::zonefile::with_serial;

/// A zone and its names.
#[derive(Debug)]
pub(super) struct ZoneData {
    pub(super) zone: Zone,
    /// Raised with every batch that changes something.
    pub(super) serial: u32,
    /// By owner name relative to the zone, `@` for the zone itself. Empty non-terminals stand here too.
    names: HashMap<Box<str>, Place>,
    /// The SOA with its serial, if the zone has one and so is served.
    soa: Option<Set>,
    /// Names that could not be put there while there was no SOA.
    pub(super) refused: BTreeSet<Key>,
    /// What was put since the zone was last sealed.
    pending: Vec<Changed>,
    journal: Journal,
}

#[derive(Debug, Default)]
struct Place {
    stored: Option<Arc<Stored>>,
    /// How many names with records lie below.
    below: u32,
}

/// One name with its records, ready to be sent.
#[derive(Debug)]
pub(super) struct Stored {
    /// As the engine knows it.
    pub(super) node: Arc<Node>,
    pub(super) name: Name,
    pub(super) sets: Vec<Set>,
}

/// One record set, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) rtype: Rtype,
    pub(super) ttl: u32,
    pub(super) data: Vec<RData>,
    /// The names that the data points at, complete, without the trailing dot.
    pub(super) targets: Vec<String>,
}

/// What stands at a name.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// These records, at the name itself or made by a wildcard.
    Records(&'a Arc<Stored>),
    /// The name exists and has no records of its own.
    Empty,
    /// The name lies at or below a cut: ask these servers.
    Elsewhere(&'a Arc<Stored>),
    /// Everything below this name has another: its DNAME set.
    Renamed(&'a Arc<Stored>),
    /// There is no such name.
    Missing,
}

impl Stored {
    /// The records of a name, ready to be sent.
    ///
    /// # Errors
    /// Data that is not canonical text.
    pub(super) fn new(key: &Key, node: Arc<Node>) -> Result<Self, String> {
        let name = wire_name(&name::to_wire(&key.name())?)?;
        let sets = node.sets.iter().map(Set::new).collect::<Result<_, _>>()?;
        Ok(Self { node, name, sets })
    }

    pub(super) fn set(&self, rtype: Rtype) -> Option<&Set> {
        self.sets.iter().find(|set| set.rtype == rtype)
    }
}

impl Set {
    fn new(set: &RecordSet) -> Result<Self, String> {
        let mut data = Vec::with_capacity(set.data.len());
        let mut targets = Vec::new();
        for text in &set.data {
            let wire = rdata::wire(set.rtype, text)?;
            let at = match set.rtype {
                Rtype::NS | Rtype::CNAME | Rtype::DNAME => Some(0),
                Rtype(15) => Some(2),
                Rtype(33) => Some(6),
                _ => None,
            };
            if let Some((target, _)) = at.and_then(|at| name::from_wire(wire.get(at..)?)) {
                targets.push(target.trim_end_matches('.').to_owned());
            }
            // `with` will have none of empty data, which is as good as any (RFC 3597).
            let rdata = if wire.is_empty() { NULL::new() } else { NULL::with(wire) };
            data.push(RData::Unknown { code: RecordType::from(set.rtype.0), rdata });
        }
        Ok(Self { rtype: set.rtype, ttl: set.ttl, data, targets })
    }
}

/// A name from its wire octets.
pub(in crate::target) fn wire_name(wire: &[u8]) -> Result<Name, String> {
    Name::read(&mut BinDecoder::new(wire)).map_err(|e| e.to_string())
}

impl ZoneData {
    /// A zone without names.
    pub(super) fn new(zone: Zone, serial: u32) -> Self {
        Self {
            zone,
            serial,
            names: HashMap::new(),
            soa: None,
            refused: BTreeSet::new(),
            pending: Vec::new(),
            journal: Journal::default(),
        }
    }

    /// Puts records under a name, or takes them away. [`ZoneData::seal`] makes them count.
    pub(super) fn put(&mut self, owner: &str, stored: Option<Arc<Stored>>) {
        let there = stored.is_some();
        let place = self.names.entry(owner.into()).or_default();
        let was = place.stored.is_some();
        let old = std::mem::replace(&mut place.stored, stored.clone());
        // Who is told of changes had an earlier version.
        if self.soa.is_some() {
            self.pending.push(Changed { old, new: stored });
        }
        if there != was && owner != "@" {
            for above in above(owner) {
                let place = self.names.entry(above.into()).or_default();
                place.below = if there { place.below + 1 } else { place.below.saturating_sub(1) };
                if place.below == 0 && place.stored.is_none() {
                    self.names.remove(above);
                }
            }
        }
        if self.names.get(owner).is_some_and(|place| place.stored.is_none() && place.below == 0) {
            self.names.remove(owner);
        }
    }

    /// Takes every name away, and says which had records.
    pub(super) fn clear(&mut self) -> BTreeSet<Key> {
        let went = self.nodes().map(|(key, _)| key).collect();
        self.names.clear();
        self.journal.clear();
        went
    }

    /// Raises the serial: what was put is one new version of the zone.
    pub(super) fn seal(&mut self, serial: u32) -> Result<(), String> {
        let node = self.names.get("@").and_then(|place| place.stored.as_ref()).map(|stored| &stored.node);
        let soa = match node.and_then(|node| node.set(Rtype::SOA)) {
            Some(set) => {
                let data = set.data.iter().map(|data| with_serial(data, serial)).collect();
                Some(Set::new(&RecordSet::plain(Rtype::SOA, set.ttl, data))?)
            }
            None => None,
        };
        let (from, pending) = (self.serial, std::mem::take(&mut self.pending));
        self.serial = serial;
        let old = std::mem::replace(&mut self.soa, soa);
        let apex = self.names.get("@").and_then(|place| place.stored.as_ref());
        match (apex, old, &self.soa) {
            (Some(apex), Some(old), Some(new)) => {
                self.journal.add(from, &apex.name, old, new.clone(), pending);
            }
            _ => self.journal.clear(),
        }
        Ok(())
    }

    /// What changed lately.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Every name with its records, ready to be sent, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.names.values().filter_map(|place| place.stored.as_ref())
    }

    /// The SOA, if the zone is served.
    pub(super) fn soa(&self) -> Option<&Set> {
        self.soa.as_ref()
    }

    /// The zone's own name, ready to be sent.
    pub(super) fn apex(&self) -> Option<&Arc<Stored>> {
        self.at("@")
    }

    /// How long, in seconds, the absence of a name may be remembered
    /// ([RFC 2308, section 3](https://www.rfc-editor.org/rfc/rfc2308#section-3)).
    pub(super) fn negative_ttl(&self) -> u32 {
        let node = self.apex().and_then(|apex| apex.node.set(Rtype::SOA));
        let minimum = node.and_then(|set| set.data.first()?.rsplit(' ').next()?.parse().ok());
        node.map_or(0, |set| set.ttl).min(minimum.unwrap_or(0))
    }

    /// The records at a name itself, hidden ones included.
    pub(super) fn at(&self, owner: &str) -> Option<&Arc<Stored>> {
        self.names.get(owner)?.stored.as_ref()
    }

    /// Every name with records.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (Key, &Arc<Node>)> {
        self.names
            .iter()
            .filter_map(|(owner, place)| Some((Key::new(&self.zone, owner), &place.stored.as_ref()?.node)))
    }

    /// What stands at a name, as somebody who asks for this type sees it.
    pub(super) fn find(&self, owner: &str, rtype: Rtype) -> Found<'_> {
        const DS: Rtype = Rtype(43);
        if owner == "@" {
            return self.apex().map_or(Found::Missing, Found::Records);
        }
        if let Some(apex) = self.apex().filter(|apex| apex.set(Rtype::DNAME).is_some()) {
            return Found::Renamed(apex);
        }
        let mut encloser = "@";
        // From the zone down to the name: `c`, `b.c`, `a.b.c`.
        let starts = owner.rmatch_indices('.').map(|(dot, _)| dot + 1).chain([0]);
        for start in starts {
            let name = &owner[start..];
            let Some(place) = self.names.get(name) else { return self.wildcard(encloser) };
            if let Some(stored) = &place.stored {
                // The parent's side of a cut answers for DS itself.
                if stored.set(Rtype::NS).is_some() && !(start == 0 && rtype == DS) {
                    return Found::Elsewhere(stored);
                }
                if start != 0 && stored.set(Rtype::DNAME).is_some() {
                    return Found::Renamed(stored);
                }
            }
            encloser = name;
        }
        self.at(owner).map_or(Found::Empty, Found::Records)
    }

    /// The wildcard below the closest name that exists.
    fn wildcard(&self, encloser: &str) -> Found<'_> {
        let found =
            if encloser == "@" { self.names.get("*") } else { self.names.get(&*format!("*.{encloser}")) };
        match found {
            None => Found::Missing,
            // One without records exists all the same, because of the names below it.
            Some(place) => place.stored.as_ref().map_or(Found::Empty, Found::Records),
        }
    }
}

/// The names above an owner name, the zone itself left out: `b.c` and `c` for `a.b.c`.
fn above(owner: &str) -> impl Iterator<Item = &str> {
    owner.match_indices('.').map(move |(dot, _)| &owner[dot + 1..])
}
