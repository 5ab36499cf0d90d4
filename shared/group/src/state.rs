//! What is known of a group beside what people wrote: the fact `facts/placement/vm/<group>`. Whoever chooses for groups writes it, and
//! nobody else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shoal_core::{HostId, HostName, MAX_ROW};

/// Nothing is added to what is remembered in one row beyond so many octets: the rest is for what changes of what stands there.
pub(crate) const FULL: usize = MAX_ROW / 16 * 15;
/// So many of those are remembered that had a slot before.
pub(crate) const BEFORE: usize = 2;
/// How many octets an id has where none is given yet.
const ID: usize = 36;
/// How many octets a slot has at most beside its names: its number, a time, and the words and signs.
const AROUND: usize = 128;

/// What a group remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// How many are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u32>,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The number that the document had when it was last looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said: Option<u32>,
    /// When that number was seen first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub said_at: Option<Timestamp>,
    /// When `wanted` changed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Timestamp>,
    /// Who has which slot.
    pub slots: BTreeMap<u32, Slot>,
    /// In which life of the database that was last written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
}

/// Who has a slot. It is theirs until their host is `retired`, whatever else becomes of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// What the host was called then.
    pub host: HostName,
    /// The host's id, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<HostId>,
    /// The site where its machines are, where the layout says sites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Since when it looks dead, or has not been well again; or, of one of which nothing was made, when its host was first seen to be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Timestamp>,
    /// Whether its host is deleted, and whoever made its machine said that it is gone, which is said only as long as its room is kept for
    /// it; or nothing is known to have been made of it, and the group's quarantine is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// Whether its host was only ever seen `requested` since it was written for this slot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// The box where its disks are, by the name that it had then; whoever takes it over goes there. Only where slots have disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The ids of the last that had it before and whose hosts were deleted: their machines are gone, and the slot's disks are for whoever has it
    /// now. Only where slots have disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<HostId>,
}

impl State {
    /// How many octets it has as it is written, or a few more.
    pub(crate) fn octets(&self) -> usize {
        // Beside the slots: numbers, times and words of a bounded length, and the reason, of which signs may be escaped.
        512 + 2 * self.why.len() + self.slots.values().map(Slot::octets).sum::<usize>()
    }

    /// How many octets it has as it is written.
    pub(crate) fn written(&self) -> usize {
        serde_json::to_string(self).map_or(usize::MAX, |text| text.len())
    }
}

impl Slot {
    /// How many octets it has as it is written, whatever is remembered of it later, or a few more.
    pub(crate) fn octets(&self) -> usize {
        let id = self.id.as_ref().map_or(ID, |id| id.0.len().max(ID));
        let room = self.room.as_ref().map_or(0, |room| 16 + 2 * room.len());
        let before = self.before.iter().map(|id| 3 + id.0.len()).sum::<usize>();
        let before = if before > 0 { 12 + before } else { 0 };
        let site = self.site.as_ref().map_or(0, |site| 2 * site.len());
        AROUND + self.host.as_str().len() + id + site + room + before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_octets_are_written_than_are_counted() {
        let slot = |n: u32| Slot {
            host: format!("kafka-{n}.example.com").parse().unwrap(),
            id: Some(HostId("0198c1f2-6f3e-7cc1-9d43-8a4f5a1b2c3d".to_owned())),
            site: Some("ams".to_owned()),
            failed: Some("2026-07-01T10:00:00.123456789Z".parse().unwrap()),
            gone: true,
            fresh: true,
            room: Some("box1.example.com".to_owned()),
            before: vec![HostId("0198c1f2-6f3e-7cc1-9d43-8a4f5a1b2c3e".to_owned()); BEFORE],
        };
        let now = Some("2026-07-01T10:00:00.123456789Z".parse().unwrap());
        let mut state = State {
            wanted: Some(5_000),
            why: "the metric \"cpu\" says so".to_owned(),
            said: Some(5_000),
            said_at: now,
            scaled: now,
            slots: (u32::MAX - 2_000..u32::MAX).map(|n| (n, slot(n))).collect(),
            epoch: Some("0123456789abcdef".to_owned()),
        };
        assert!(state.written() <= state.octets() && state.octets() < state.written() + 200_000);
        state.slots.clear();
        assert!(state.written() <= state.octets());
    }
}
