//! Changes in batches, as few as the limits allow.
//!
//! A batch is done as a whole or not at all. A set is replaced by deleting exactly what was seen and creating what is wanted, in one
//! batch: so it is made of that or not at all, at the price of an UPSERT, which counts twice. Only where the service writes a value
//! otherwise than Shoal does, and a look has just shown that it is the same, is it an UPSERT.
//!
//! [Quotas](https://docs.aws.amazon.com/Route53/latest/DeveloperGuide/DNSLimitations.html#limits-api-requests-changeresourcerecordsets)

use aws_sdk_route53::types::{Change, ChangeAction, ResourceRecordSet};
use shoal_agent::Edit;

use super::sets::Place;
use crate::Dns;
use crate::record::{Key, Node, RecordSet, is_of_the_host};

/// The most records of one batch, and changes.
pub(super) const ELEMENTS: usize = 1_000;
/// The most characters of all values of one batch.
pub(super) const CHARACTERS: usize = 32_000;

/// The changes that one edit comes to. They are made together or not at all.
#[derive(Clone)]
pub(super) struct Work<'a> {
    pub(super) edit: &'a Edit<Dns>,
    pub(super) changes: Vec<Change>,
    size: Size,
    /// It points at another name of the zone, which has to be there before.
    points: bool,
    /// What is there was looked at once more, since it is written otherwise than Shoal writes it.
    pub(super) looked: bool,
}

/// How much of a batch something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    changes: usize,
    elements: usize,
    characters: usize,
}

impl Size {
    fn of(action: &ChangeAction, set: &ResourceRecordSet) -> Self {
        let times = if *action == ChangeAction::Upsert { 2 } else { 1 };
        let characters: usize =
            set.resource_records().iter().map(|record| record.value.chars().count()).sum();
        Self { changes: 1, elements: times * set.resource_records().len(), characters: times * characters }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            changes: self.changes + other.changes,
            elements: self.elements + other.elements,
            characters: self.characters + other.characters,
        }
    }

    fn fits(self) -> bool {
        self.changes <= ELEMENTS && self.elements <= ELEMENTS && self.characters <= CHARACTERS
    }
}

impl<'a> Work<'a> {
    /// What an edit comes to. `raw`: what is there, as it was told, where it has been looked at again.
    ///
    /// # Errors
    /// What Route 53 cannot have.
    pub(super) fn of(
        place: Place<'_>,
        edit: &'a Edit<Dns>,
        raw: Option<&[ResourceRecordSet]>,
    ) -> Result<Self, String> {
        let before = sets(&edit.key, edit.from.as_ref().map(|have| &have.records));
        let after = sets(&edit.key, edit.to.as_ref());
        let same = |sets: &[&RecordSet], one: &RecordSet| sets.iter().any(|set| set.id() == one.id());
        let (mut gone, mut made) = (Vec::new(), Vec::new());
        for set in &before {
            if after.contains(set) || raw.is_some() && same(&after, set) {
                continue;
            }
            let sent = match raw {
                Some(raw) => {
                    raw.iter().find(|one| place.told(one).is_some_and(|(_, told)| told == **set)).cloned()
                }
                None => None,
            };
            gone.push((ChangeAction::Delete, sent.map_or_else(|| place.sent(&edit.key, set), Ok)?));
        }
        for set in after.iter().filter(|set| !before.contains(set)) {
            let action =
                if raw.is_some() && same(&before, set) { ChangeAction::Upsert } else { ChangeAction::Create };
            made.push((action, place.sent(&edit.key, set)?));
        }
        let mut size = Size::default();
        let mut changes = Vec::with_capacity(gone.len() + made.len());
        for (action, set) in gone.into_iter().chain(made) {
            size = size.plus(Size::of(&action, &set));
            changes.push(
                Change::builder()
                    .action(action)
                    .resource_record_set(set)
                    .build()
                    .map_err(|e| e.to_string())?,
            );
        }
        if !size.fits() {
            return Err(format!(
                "the change has {} records with {} characters, and one batch takes {ELEMENTS} with {CHARACTERS}; have fewer or \
                 shorter records under one name",
                size.elements, size.characters
            ));
        }
        let points = after.iter().any(|set| {
            set.routing
                .as_ref()
                .and_then(|routing| routing.alias.as_ref())
                .is_some_and(|alias| alias.zone.is_none())
        });
        Ok(Self { edit, changes, size, points, looked: raw.is_some() })
    }
}

/// The record sets that Shoal may change: not the start of the zone, nor its name servers, which are the hosted zone's.
fn sets<'a>(key: &Key, node: Option<&'a Node>) -> Vec<&'a RecordSet> {
    let all = node.into_iter().flat_map(|node| node.sets.iter());
    all.filter(|set| !(key.is_apex() && is_of_the_host(set.rtype))).collect()
}

/// All of the work in as few batches as a simple rule finds: each goes into the first that has room for it. What points at other names of
/// the zone comes after them.
pub(super) fn pack(work: Vec<Work<'_>>) -> Vec<Vec<Work<'_>>> {
    let (points, plain): (Vec<_>, Vec<_>) = work.into_iter().partition(|one| one.points);
    let mut batches: Vec<(Size, Vec<Work<'_>>)> = Vec::new();
    // Batches before this one are full for all but the smallest.
    let mut first = 0;
    for one in plain {
        put(&mut batches, first, one);
        while batches
            .get(first)
            .is_some_and(|(size, _)| size.elements == ELEMENTS || size.changes == ELEMENTS)
        {
            first += 1;
        }
    }
    for one in points {
        let last = batches.len().saturating_sub(1);
        put(&mut batches, last, one);
    }
    batches.into_iter().map(|(_, batch)| batch).collect()
}

fn put<'a>(batches: &mut Vec<(Size, Vec<Work<'a>>)>, from: usize, one: Work<'a>) {
    match batches.iter_mut().skip(from).find(|(size, _)| size.plus(one.size).fits()) {
        Some((size, batch)) => {
            *size = size.plus(one.size);
            batch.push(one);
        }
        None => batches.push((one.size, vec![one])),
    }
}

#[cfg(test)]
mod tests;
