//! A namespace's tags as groups: what each has by itself, what it nests apart.
//!
//! For programs that know groups with hosts and child groups. A nested tag of the same namespace is a child; what a rule selects,
//! and what a tag of another namespace contains, are hosts of the group, because there is no child that has them.

use std::collections::BTreeSet;

use super::host::{Host, Tag};
use super::symbol::HostSym;
use super::{TagSlot, View};
use crate::TagName;

/// A tag with what is in it by itself.
#[derive(Clone, Debug)]
pub struct Contents<'v> {
    /// The tag's own row.
    pub tag: &'v Tag,
    /// The existing hosts that it names, that a rule of its own selects, or that a nested tag of another namespace contains, by name.
    pub hosts: Vec<&'v Host>,
    /// The existing tags of its namespace that it nests, by name.
    pub nested: Vec<&'v TagName>,
}

impl View {
    /// The tags of a namespace, by name, each with what is in it by itself. Costs the members, each for as many tags as have it.
    pub fn contents<'v>(&'v self, namespace: &'v str) -> impl Iterator<Item = Contents<'v>> {
        self.tags_in(namespace).filter_map(move |tag| {
            let slot = self.tag_slot(self.tag_sym(tag.name.as_str())?)?;
            let mut hosts = self.own_hosts(slot);
            // Mostly they are in order already.
            hosts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let nested = slot.nested.keys().filter_map(|nested| self.tag_slot(*nested));
            let nested = nested.filter(|of| of.tag.is_some() && of.name.namespace() == namespace);
            let mut nested: Vec<&TagName> = nested.map(|of| &of.name).collect();
            nested.sort_unstable();
            Some(Contents { tag, hosts, nested })
        })
    }

    fn own_hosts(&self, slot: &TagSlot) -> Vec<&Host> {
        let namespace = slot.name.namespace();
        let foreign =
            |tag: &&super::TagSym| self.tag_slot(**tag).is_some_and(|of| of.name.namespace() != namespace);
        let mut others: BTreeSet<HostSym> = BTreeSet::new();
        for rule in slot.rules.keys().filter_map(|rule| self.rules.slot(*rule)) {
            others.extend(rule.hosts.iter().copied());
        }
        for tag in slot.nested.keys().filter(foreign) {
            others.extend(self.down(*tag));
        }
        others.retain(|host| !slot.hosts.contains(host));
        let all = slot.hosts.iter().copied().chain(others);
        all.filter_map(|host| self.host_slot(host)?.host.as_deref()).collect()
    }
}
