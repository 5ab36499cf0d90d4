//! An inventory out of rows, without a view of them: where groups name their hosts and nest each other, and nothing else, the rows say it
//! by themselves, in their order. A view would index what is never asked.

use shoal_core::{HOSTS, Key, Lifecycle, Namespace, Row, allows_override, host_row, raw_field, tag_row};

use super::text::{Group, Written};
use super::{exists, overridden, said};

/// The rows of the hosts, and of one namespace with its schema.
pub struct Rows {
    namespace: Namespace,
    hosts: Vec<Row>,
    tags: Vec<Row>,
    members: Vec<Row>,
    overrides: bool,
}

impl Rows {
    /// None yet.
    #[must_use]
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, hosts: Vec::new(), tags: Vec::new(), members: Vec::new(), overrides: true }
    }

    /// Takes a row that stands; those of a range come in the order of their keys. `false`: the inventory does not follow from these
    /// rows, because a rule, or a tag of another namespace, is a member.
    #[must_use]
    pub fn take(&mut self, row: Row) -> bool {
        if let Some((_, member)) = row.key.as_member() {
            if member.starts_with("select:") || (member.starts_with('@') && member.contains('/')) {
                return false;
            }
            self.members.push(row);
        } else if row.key.namespace() == HOSTS {
            self.hosts.push(row);
        } else if row.key == Key::schema(&self.namespace) {
            self.overrides = row.value.as_ref().is_none_or(allows_override);
        } else {
            self.tags.push(row);
        }
        true
    }

    /// The inventory, as JSON: what [`list`](super::list) writes of a view of all rows.
    #[must_use]
    pub fn list(&self) -> String {
        let hosts = self.hosts.iter().filter_map(|row| Some((name(row), host_row(row.value.as_ref()?)?)));
        let hosts: Vec<(&str, (Lifecycle, &str))> = hosts.filter(|(_, (state, _))| exists(*state)).collect();
        let mut groups: Vec<Group<'_>> = self
            .tags
            .iter()
            .filter_map(|row| {
                let document = tag_row(row.value.as_ref()?)?;
                Some(Group { name: name(row), hosts: Vec::new(), nested: Vec::new(), said: said(document) })
            })
            .collect();
        let names: Vec<&str> = groups.iter().map(|group| group.name).collect();
        let mut grouped = vec![false; hosts.len()];
        for of_tag in self.members.chunk_by(|a, b| tag(a) == tag(b)) {
            let of = of_tag.first().map(tag).unwrap_or_default();
            let Ok(group) = names.binary_search(&of) else { continue };
            let group = &mut groups[group];
            // Both are in order: the next is mostly near the last.
            let mut from = 0;
            for member in of_tag.iter().filter_map(|row| row.key.as_member()).map(|(_, member)| member) {
                if let Some(nested) = member.strip_prefix('@') {
                    group.nested.extend(names.binary_search(&nested).ok().map(|at| names[at]));
                    continue;
                }
                from = ahead(&hosts, from, |(name, _)| *name < member);
                if let Some((name, _)) = hosts.get(from).filter(|(name, _)| *name == member) {
                    group.hosts.push(name);
                    grouped[from] = true;
                }
            }
        }
        let loose = hosts.iter().zip(&grouped).filter(|(_, grouped)| !**grouped).map(|((name, _), _)| *name);
        let loose = loose.collect();
        let variables = hosts.into_iter().map(|(name, (_, document))| {
            let over = raw_field(document, self.namespace.as_str());
            let over = over.filter(|raw| self.overrides && raw.starts_with('{'));
            (name, overridden(said(document), over, &self.namespace))
        });
        Written { groups, hosts: variables.collect(), loose, unsure: 0 }.text()
    }
}

/// The part of a key behind its namespace.
fn name(row: &Row) -> &str {
    row.key.as_str().split_once('/').map_or("", |(_, name)| name)
}

/// The key of the tag that a member row is of.
fn tag(row: &Row) -> &str {
    let tag = row.key.as_member().map_or("", |(tag, _)| tag);
    tag.split_once('/').map_or("", |(_, key)| key)
}

/// The first place from `from` on of which `before` does not hold, at the price of the way there.
fn ahead<T>(all: &[T], from: usize, before: impl Fn(&T) -> bool) -> usize {
    let (mut low, mut step) = (from, 1);
    while all.get(low + step - 1).is_some_and(&before) {
        low += step;
        step *= 2;
    }
    let high = all.len().min(low + step);
    low + all[low.min(high)..high].partition_point(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_ahead_finds_what_a_search_finds() {
        let all: Vec<u32> = (0..50).map(|n| n * 2).collect();
        for from in 0..=all.len() {
            for wanted in 0..110 {
                let expected = from + all[from..].partition_point(|n| *n < wanted);
                assert_eq!(ahead(&all, from, |n| *n < wanted), expected, "{wanted} from {from}");
            }
        }
    }
}
