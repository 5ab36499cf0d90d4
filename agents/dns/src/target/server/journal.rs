//! What changed from one version of a zone to the next, for secondaries that have an earlier one
//! ([RFC 1995](https://www.rfc-editor.org/rfc/rfc1995)).
//!
//! A step holds the names that changed, as they were and as they are, by reference: it costs what changed, not what the zone
//! holds. The journal is bounded; who comes from before it gets the whole zone. It is memory of this process: after a
//! restart it begins anew.

use std::collections::VecDeque;
use std::sync::Arc;

use hickory_proto::rr::{Name, Record};

use super::zone::{Set, Stored};
use crate::rdata::Rtype;

/// The most changed names that a zone's journal holds.
const MOST: usize = 20_000;

/// One name, as it was and as it is.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    pub(super) old: Option<Arc<Stored>>,
    pub(super) new: Option<Arc<Stored>>,
}

/// From one version of the zone to the next.
#[derive(Debug)]
pub(super) struct Step {
    from: u32,
    apex: Name,
    old: Set,
    new: Set,
    names: Vec<Changed>,
}

/// The newest steps, each beginning where the one before it ends.
#[derive(Debug, Default)]
pub(super) struct Journal {
    steps: VecDeque<Arc<Step>>,
    names: usize,
}

impl Journal {
    /// Adds a step, and forgets the oldest that there is no room for.
    pub(super) fn add(&mut self, from: u32, apex: &Name, old: Set, new: Set, names: Vec<Changed>) {
        self.names += names.len();
        self.steps.push_back(Arc::new(Step { from, apex: apex.clone(), old, new, names }));
        while self.names > MOST {
            let Some(oldest) = self.steps.pop_front() else { break };
            self.names -= oldest.names.len();
        }
    }

    /// No earlier version leads here.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The steps from this version to the newest; `None`: it is not known any more, or never was.
    pub(super) fn since(&self, serial: u32) -> Option<Vec<Arc<Step>>> {
        let at = self.steps.iter().position(|step| step.from == serial)?;
        Some(self.steps.range(at..).cloned().collect())
    }
}

impl Step {
    /// The step as a transfer says it: the old SOA, what went, the new SOA, what came.
    pub(super) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        soa(&mut records, &self.apex, &self.old);
        for name in &self.names {
            beyond(&mut records, name.old.as_deref(), name.new.as_deref());
        }
        soa(&mut records, &self.apex, &self.new);
        for name in &self.names {
            beyond(&mut records, name.new.as_deref(), name.old.as_deref());
        }
        records
    }
}

fn soa(records: &mut Vec<Record>, apex: &Name, set: &Set) {
    records.extend(set.data.iter().map(|data| Record::from_rdata(apex.clone(), set.ttl, data.clone())));
}

/// The records of one that the other has not. With another TTL it is another record.
fn beyond(records: &mut Vec<Record>, one: Option<&Stored>, other: Option<&Stored>) {
    let Some(one) = one else { return };
    for set in one.sets.iter().filter(|set| set.rtype != Rtype::SOA) {
        let same = other.and_then(|other| other.set(set.rtype)).filter(|other| other.ttl == set.ttl);
        let alone = set.data.iter().filter(|data| same.is_none_or(|same| !same.data.contains(data)));
        records.extend(alone.map(|data| Record::from_rdata(one.name.clone(), set.ttl, data.clone())));
    }
}
