//! The rows around one host: a view of them alone says of the host what the whole view says.
//!
//! Who asks about one host need not have the whole database: a server picks these rows out of its view, and who asked
//! makes a small view of them, which answers by the same code. They are the host's row and facts, every tag that contains it or may
//! contain it, the member rows between them, the rules that select it or cannot be evaluated for it, and the tags' schemas.

use std::collections::BTreeSet;

use super::View;
use crate::{HostName, Key, Member, Namespace, Row};

impl View {
    /// The rows around a host, in key order; none for a host that does not exist. Costs the host's tags, not their members.
    ///
    /// A view of them answers as this one: memberships and ways, effective documents with origins and conflicts, facts, and doubts.
    #[must_use]
    pub fn around(&self, host: &HostName) -> Vec<Row> {
        let Some(sym) = self.host_sym(host.as_str()) else { return Vec::new() };
        let Some(slot) = self.host_slot(sym).filter(|slot| slot.host.is_some()) else { return Vec::new() };
        let mut keys = vec![Key::host(host)];
        keys.extend(slot.facts().iter().filter_map(|fact| Key::fact(&fact.namespace, host.as_str()).ok()));
        let mut tags = self.containing(sym);
        tags.extend(self.maybe_containing(sym));
        // What it says under a namespace's name counts, or not, also where it is in no tag of it.
        let own = slot.host.iter().flat_map(|host| host.document.fields());
        let mut namespaces: BTreeSet<Namespace> = own.filter_map(|(name, _)| name.parse().ok()).collect();
        for tag in &tags {
            let Some(of) = self.tag_slot(*tag) else { continue };
            keys.push(Key::tag(&of.name));
            let namespace = of.name.namespace();
            namespaces.extend(namespace.parse::<Namespace>());
            if slot.tags.get(*tag).is_some() {
                keys.push(Key::member(&of.name, &Member::host(host)));
            }
            let rules = slot.rules.iter().chain(slot.unsure.iter());
            let rules = rules.filter(|rule| of.rules.contains_key(rule));
            let rules = rules.filter_map(|rule| self.rules.slot(rule));
            keys.extend(rules.map(|rule| Key::member(&of.name, &Member::rule(&rule.text))));
            let nested = of.nested.keys().filter(|nested| tags.contains(nested));
            let nested = nested.filter_map(|nested| self.tag_slot(*nested));
            keys.extend(nested.map(|nested| Key::member(&of.name, &Member::nested(&nested.name, namespace))));
        }
        keys.extend(namespaces.iter().map(Key::schema));
        keys.sort_unstable();
        let row = |key: Key| {
            let (value, revision) = (Some(self.row(&key)?), self.revision_of(&key)?);
            Some(Row { key, value, revision, moved: None })
        };
        keys.into_iter().filter_map(row).collect()
    }
}
