//! `shoal import ansible`: an Ansible inventory becomes hosts and tags.
//!
//! Groups become tags with nested members, host variables become host documents, by a [`Mapping`] that people write;
//! afterwards every host's set of tags in the groups' namespace is what Ansible says its groups are. Doing it again with the same
//! inventory changes nothing, not even a revision. What people added in Shoal stays: the
//! import owns what it wrote, remembers it as facts under its own name, and touches nothing else.
//!
//! Everything here is pure: [`read`] turns two texts into what is wanted, [`Reading::against`] compares it with rows that the caller read
//! ([`rows::read`](super::rows::read) of [`Reading::ranges`]) and answers the edits of one proposal, with the precondition that each
//! row is as it was read. A caller that loses a race reads again.

mod each;
mod edits;
mod inventory;
mod mapping;
mod merge;
mod report;
mod value;
mod wanted;

pub use inventory::{Group, Inventory};
pub use mapping::{Mapping, Pools};
pub use merge::Rows;
pub use report::{Line, Note, Report, Tally};

use std::collections::BTreeSet;

use shoal_core::{Change, Edit, HostId, Key, Namespace, Pre, Range};
pub(in crate::import) use wanted::{Wanted, WantedTag, renamed_by};

/// Why an import did not happen. What is odd in the data is never one of these; it is a [`Note`].
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The inventory is not JSON.
    #[error("the inventory is not JSON: {0}; `ansible-inventory -i … --list` prints what is expected")]
    Json(#[source] serde_json::Error),
    /// The inventory is JSON, and no inventory.
    #[error("this is not what `ansible-inventory --list` prints: {0}")]
    NotAnInventory(&'static str),
    /// This is no description of pools.
    #[error(
        "this is no description of HAProxy's frontends and backends: {0}; docs/agents/lb.md shows its form"
    )]
    NotPools(#[source] serde_json::Error),
    /// The mapping file is wrong.
    #[error("the mapping file: {0}")]
    Mapping(String),
    /// A row of the database is not what it should be.
    #[error("the row {key} cannot be read or written: {why}")]
    Row {
        /// Which.
        key: Key,
        /// Why.
        why: serde_json::Error,
    },
}

/// An inventory and a mapping, read: what is wanted, before anybody looked at the database.
#[derive(Debug)]
pub struct Reading {
    mapping: Mapping,
    wanted: Wanted,
    notes: Vec<Note>,
}

/// The changes of an import.
#[derive(Clone, Debug)]
pub struct Import {
    /// The rows that are written, in key order; empty when everything stands there already.
    pub changes: Vec<Change>,
    /// The same as edits, to be proposed.
    pub edits: Vec<Edit>,
    /// That each of these rows is as it was read, for [`Proposal::pre`](shoal_core::Proposal::pre).
    pub pre: Vec<Pre>,
    /// For people.
    pub report: Report,
}

/// Reads an inventory and a mapping.
///
/// # Errors
/// An inventory that is none, a mapping file that is wrong.
pub fn read(inventory: &str, mapping: &str) -> Result<Reading, ImportError> {
    let mapping = Mapping::parse(mapping)?;
    let mut notes = Vec::new();
    let inventory = Inventory::parse(inventory, &mut notes)?;
    let wanted = wanted::wanted(&inventory, &mapping, &mut notes);
    Ok(Reading { mapping, wanted, notes })
}

impl Reading {
    /// What the import calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        self.mapping.name.as_str()
    }

    /// The rows that [`Self::against`] needs, all of one revision. `prune` needs to see every membership of a host.
    #[must_use]
    pub fn ranges(&self, prune: bool) -> Vec<Range> {
        if prune {
            return vec![Range::All];
        }
        let tags = self.wanted.tags.keys().map(|t| t.namespace());
        let mut namespaces: BTreeSet<&str> = tags.collect();
        namespaces.insert(self.mapping.groups.namespace.as_str());
        let facts = Range::Prefix(format!("{}/{}/", shoal_core::FACTS, self.mapping.name));
        let namespaces = namespaces.into_iter().map(Range::namespace);
        [Range::hosts(), facts].into_iter().chain(namespaces).collect()
    }

    /// The changes that make `rows` as they are wanted. `id` makes an id that no host ever had. Proportional to the
    /// inventory and the rows.
    ///
    /// # Errors
    /// A row that cannot be read as what its key says.
    pub fn against(
        &self,
        rows: &Rows,
        prune: bool,
        mut id: impl FnMut() -> HostId,
    ) -> Result<Import, ImportError> {
        merged(&self.mapping.name, &self.wanted, self.notes.clone(), rows, prune, &mut id)
    }
}

/// The changes that make rows as they are wanted, for an import of this name.
pub(in crate::import) fn merged(
    name: &Namespace,
    wanted: &Wanted,
    notes: Vec<Note>,
    rows: &Rows,
    prune: bool,
    id: &mut dyn FnMut() -> HostId,
) -> Result<Import, ImportError> {
    let (changes, pre, report) = merge::Merge::new(name, rows, notes).run(wanted, prune, id)?;
    let edits = edits::edits(&changes)?;
    Ok(Import { changes, edits, pre, report })
}

#[cfg(test)]
mod tests;
