//! An inventory out of rows, without a view of them: where groups name their hosts and nest each other, and nothing else, the rows say it
//! by themselves, in their order. A view would index what is never asked.

use shoal_core::{Document, HOSTS, Key, Namespace, Range, allows_override, host_row, raw_field, tag_row};
use shoal_store::Texts;

use super::text::{Group, Written};
use super::{exists, overridden, said};

/// The rows that [`plain`] goes by, in this order: the schema of the namespace, its tags, and the hosts.
#[must_use]
pub fn ranges(namespace: &Namespace) -> [Range; 3] {
    [Range::Key(Key::schema(namespace)), Range::namespace(namespace.as_str()), Range::hosts()]
}

/// Whether the inventory does not follow from those rows, because a group has this member: a rule, or a tag of another namespace.
#[must_use]
pub fn beyond(member: &str) -> bool {
    member.starts_with("select:") || (member.starts_with('@') && member.contains('/'))
}

/// The inventory out of its [rows](ranges), as JSON: what [`list`](super::list) writes of a view of all rows. `None`: it does not follow from
/// them (see [`beyond`]), or what the namespace holds is no tags. Costs a look at each host's row.
#[must_use]
pub fn plain(rows: &Texts, namespace: &Namespace) -> Option<String> {
    if namespace.is_reserved() {
        return None;
    }
    let (mut hosts, mut groups, mut members) = (Vec::new(), Vec::new(), Vec::new());
    let (schema, mut overrides) = (Key::schema(namespace), true);
    for (key, value) in rows.iter() {
        if let Some((tag, member)) = Key::member_in(key) {
            if beyond(member) {
                return None;
            }
            members.push((name(tag), member));
        } else if key.split_once('/').is_some_and(|(first, _)| first == HOSTS) {
            let host = host_row(value).filter(|(state, _)| exists(*state));
            hosts.extend(host.map(|(_, document)| (name(key), document)));
        } else if key == schema.as_str() {
            overrides = allows_override(&Document::trusted(value));
        } else if let Some(document) = tag_row(value) {
            groups.push(Group {
                name: name(key),
                hosts: Vec::new(),
                nested: Vec::new(),
                said: said(document),
            });
        }
    }
    let loose = join(&mut groups, &hosts, &members);
    let variables = hosts.into_iter().map(|(name, document)| {
        let over = raw_field(document, namespace.as_str());
        let over = over.filter(|raw| overrides && raw.starts_with('{'));
        (name, overridden(said(document), over, namespace))
    });
    Some(Written { groups, hosts: variables.collect(), loose, unsure: 0 }.text())
}

/// Puts the members, each with its tag, into the groups, and answers the hosts that are in none. All of them are in order.
fn join<'r>(
    groups: &mut [Group<'r>],
    hosts: &[(&'r str, &'r str)],
    members: &[(&'r str, &'r str)],
) -> Vec<&'r str> {
    let names: Vec<&str> = groups.iter().map(|group| group.name).collect();
    let mut grouped = vec![false; hosts.len()];
    for of_tag in members.chunk_by(|(a, _), (b, _)| a == b) {
        let of = of_tag.first().map_or("", |&(tag, _)| tag);
        let Ok(at) = names.binary_search(&of) else { continue };
        let group = &mut groups[at];
        // Both are in order: the next is mostly near the last.
        let mut from = 0;
        for (_, member) in of_tag {
            if let Some(nested) = member.strip_prefix('@') {
                group.nested.extend(names.binary_search(&nested).ok().map(|at| names[at]));
                continue;
            }
            from = ahead(hosts, from, |(name, _)| name < member);
            if let Some(&(name, _)) = hosts.get(from).filter(|(name, _)| name == member) {
                group.hosts.push(name);
                grouped[from] = true;
            }
        }
    }
    let loose = hosts.iter().zip(&grouped).filter(|(_, grouped)| !**grouped);
    loose.map(|((name, _), _)| *name).collect()
}

/// The part of a key behind its namespace.
fn name(key: &str) -> &str {
    key.split_once('/').map_or("", |(_, name)| name)
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
