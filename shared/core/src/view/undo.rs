//! Taking a whole view back to an old revision.
//!
//! What stood then of the keys that were written since is put in the place of what stands now. It costs what following so many
//! commits does, and the rest of the view is shared with the one that it comes from.

use std::collections::BTreeSet;

use super::View;
use crate::{Key, Kind, Revision, Row, TagName};

/// What stood of everything that was written after a revision.
#[derive(Clone, Debug, Default)]
pub struct Stood {
    /// Each key that was written since, with its row then, tombstones too; `None`: nothing ever stood there.
    pub rows: Vec<(Key, Option<Row>)>,
    /// For each tag of which the row or a member was: the newest revision until then that wrote or deleted one of those.
    pub tags: Vec<(TagName, Revision)>,
}

impl View {
    /// The view as it was at `to`. `None`: a row that stood then cannot be understood, so that it needs to be read anew.
    ///
    /// The view must have been loaded with tombstones, and must not be older than `to`.
    #[must_use]
    pub fn undone(&self, to: Revision, stood: &Stood) -> Option<Self> {
        let mut view = self.clone();
        let about_host = |(key, _): &(Key, _)| match key.kind() {
            Kind::Host(name) => self.host_sym(name.as_str()),
            Kind::Fact(_, subject) => self.host_sym(&subject),
            _ => None,
        };
        let hosts: BTreeSet<_> = stood.rows.iter().filter_map(about_host).collect();
        let rows = stood.rows.iter().map(|(key, row)| {
            let row = row.as_ref();
            (
                key,
                row.and_then(|r| r.value.as_ref()),
                row.and_then(|r| r.moved.as_ref()),
                row.map_or(to, |r| r.revision),
            )
        });
        view.write(hosts, rows);
        for (key, row) in &stood.rows {
            if view.broken.contains_key(key) {
                return None;
            }
            if row.is_none() {
                view.graves.remove(key);
            }
        }
        for (tag, changed) in &stood.tags {
            if let Some(slot) = view.tag_sym(tag.as_str()).and_then(|sym| view.tag_slot_mut(sym)) {
                slot.changed = *changed;
            }
        }
        view.revision = to;
        Some(view)
    }
}
