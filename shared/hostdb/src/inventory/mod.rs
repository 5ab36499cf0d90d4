//! The hosts as an Ansible inventory: what a script prints that Ansible calls with `--list` or `--host`.
//!
//! * The groups are the tags of one namespace. A nested tag of the same namespace is a child group; hosts that a rule selects, or that a
//!   tag of another namespace brings, are hosts of the group. Where no tag is called `all`, there is a group `all` of the groups that no
//!   other one nests; hosts of no group are in `ungrouped`.
//! * A group's variables are the tag's document, a host's are the host's document. Where the document has a map `variables`, it is that
//!   alone: an import that kept the variables as they were put them there. What the host says under the namespace's name, the override
//!   that it has in every namespace, comes on top, name by name.
//! * Hosts that are not there yet or any more (requested, placed, retired) are left out; groups stay, also empty ones.
//!
//! Ansible lays the variables of a child group over those of its parent; Shoal's effective documents have it the other way round. The
//! inventory gives each group what its tag says, and Ansible merges.

mod rows;
mod text;

use std::borrow::Cow;
use std::collections::HashSet;
use std::ptr;

use serde_json::{Map, Value};
use shoal_core::{Contents, Host, HostName, Lifecycle, Namespace, Rule, View, raw_field};

pub use rows::{beyond, plain, ranges};
pub use text::unsure;
use text::{Group, Written};

/// The namespace whose tags are the groups, where none is named: where `shoal import ansible` puts them by itself.
pub const DEFAULT_NAMESPACE: &str = "tags";
/// The field whose map is the variables, instead of the whole document.
const VARIABLES: &str = "variables";
/// How many hosts are searched at once.
const PAGE: usize = 10_000;

/// The whole inventory, as JSON. With a rule, of the hosts that it selects; for how many it could not be evaluated stands in
/// `_meta.unsure`, last of all, where it is not none. Costs some hundred nanoseconds a host and membership, and the rule.
#[must_use]
pub fn list(view: &View, namespace: &Namespace, rule: Option<&Rule>) -> String {
    let (chosen, unsure) = rule.map_or((None, 0), |rule| {
        let (chosen, unsure) = chosen(view, rule);
        (Some(chosen), unsure)
    });
    let there = |host: &Host| {
        exists(host.state) && chosen.as_ref().is_none_or(|chosen| chosen.contains(host.name.as_str()))
    };
    let mut hosts: Vec<&Host> = view.hosts().filter(|host| there(host)).collect();
    hosts.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let mut groups: Vec<Contents<'_>> = view.contents(namespace.as_str()).collect();
    let mut grouped: HashSet<*const Host> = HashSet::with_capacity(hosts.len());
    for group in &mut groups {
        group.hosts.retain(|host| there(host));
        grouped.extend(group.hosts.iter().map(|host| ptr::from_ref(*host)));
    }
    let loose = hosts.iter().filter(|host| !grouped.contains(&ptr::from_ref(**host)));
    let loose = loose.map(|host| host.name.as_str()).collect();
    let groups = groups.into_iter().map(|group| Group {
        name: group.tag.name.key(),
        hosts: group.hosts.iter().map(|host| host.name.as_str()).collect(),
        nested: group.nested.iter().map(|name| name.key()).collect(),
        said: said(group.tag.document.as_str()),
    });
    let variables = hosts.iter().map(|host| (host.name.as_str(), variables(view, host, namespace)));
    Written { groups: groups.collect(), hosts: variables.collect(), loose, unsure }.text()
}

/// The variables of one host, as JSON; `None`: it is not there, or not there yet or any more.
#[must_use]
pub fn host(view: &View, namespace: &Namespace, name: &HostName) -> Option<String> {
    let host = view.host(name.as_str()).filter(|host| exists(host.state))?;
    Some(variables(view, host, namespace).into_owned())
}

/// Whether there is a machine.
fn exists(state: Lifecycle) -> bool {
    match state {
        Lifecycle::Building | Lifecycle::Active | Lifecycle::Draining | Lifecycle::Failed => true,
        Lifecycle::Requested | Lifecycle::Placed | Lifecycle::Retired => false,
    }
}

/// The hosts that a rule selects, and for how many it cannot be evaluated.
fn chosen(view: &View, rule: &Rule) -> (HashSet<HostName>, usize) {
    let (mut hosts, mut unsure, mut after) = (HashSet::new(), 0, None);
    loop {
        let page = view.search(rule, after.as_ref(), PAGE);
        unsure += page.unsure_total;
        hosts.extend(page.items.into_iter().map(|host| host.host));
        match page.next {
            Some(next) => after = Some(next),
            None => return (hosts, unsure),
        }
    }
}

/// What a document says to Ansible.
fn said(document: &str) -> &str {
    raw_field(document, VARIABLES).filter(|raw| raw.starts_with('{')).unwrap_or(document)
}

fn variables<'v>(view: &View, host: &'v Host, namespace: &Namespace) -> Cow<'v, str> {
    overridden(said(host.document.as_str()), view.override_of(host, namespace.as_str()), namespace)
}

/// What a host's document says, with its override over it.
fn overridden<'d>(said: &'d str, over: Option<&str>, namespace: &Namespace) -> Cow<'d, str> {
    let Some(over) = over else { return Cow::Borrowed(said) };
    let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut all = map(said);
    all.shift_remove(namespace.as_str());
    all.extend(map(over));
    Cow::Owned(Value::Object(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_core::{Change, Document, Key, Revision};
    use shoal_store::Texts;

    fn view(rows: &[(&str, Value)]) -> View {
        let changes: Vec<Change> = rows
            .iter()
            .map(|(key, value)| Change::put(key.parse().unwrap(), Document::from(value.clone())))
            .collect();
        let mut view = View::new();
        view.apply(Revision(1), &changes);
        view
    }

    fn fleet() -> View {
        let host =
            |id: &str, state: &str, document: Value| json!({"id": id, "state": state, "document": document});
        view(&[
            ("hosts/a", host("1", "active", json!({"site": "x", "tags": {"port": 1, "site": "y"}}))),
            ("hosts/b", host("2", "draining", json!({"site": "x"}))),
            (
                "hosts/c",
                host("3", "active", json!({"address": "192.0.2.1", "variables": {"ip": "192.0.2.1"}})),
            ),
            ("hosts/d", host("4", "retired", json!({}))),
            ("hosts/e", host("5", "active", json!({"site": 3}))),
            ("tags/web", json!({"document": {"ttl": 5}})),
            ("tags/web/members/@inner", json!({})),
            ("tags/web/members/@dns/x", json!({})),
            ("tags/inner", json!({"document": {}})),
            ("tags/inner/members/a", json!({})),
            ("tags/inner/members/d", json!({})),
            ("tags/inner/members/select: site == \"x\"", json!({})),
            ("dns/x", json!({"document": {"ttl": 9}})),
            ("dns/x/members/c", json!({})),
        ])
    }

    /// What is written of these rows by themselves, in the order in which a store reads them.
    fn of_rows(rows: &[(&str, Value)], namespace: &str) -> Option<String> {
        let namespace: Namespace = namespace.parse().unwrap();
        let mut rows: Vec<_> = rows.to_vec();
        rows.sort_by_key(|(key, _)| *key);
        let mut texts = Texts::default();
        for range in ranges(&namespace) {
            for (key, value) in rows.iter().filter(|(key, _)| range.contains(&key.parse().unwrap())) {
                let member = Key::member_in(key).is_some();
                let value = if member { String::new() } else { Document::from(value.clone()).to_string() };
                texts.push(key, &value);
            }
        }
        plain(&texts, &namespace)
    }

    /// Read from the rows alone it is the same, octet for octet, as from the view.
    #[test]
    fn rows_by_themselves_say_what_the_view_says() {
        let host = |state: &str, document: Value| json!({"id": "i", "state": state, "document": document});
        let over = json!({"site": "x", "tags": {"port": 1, "site": "y"}, "variables": {"a": 1}});
        let mut rows = vec![
            ("hosts/b.example", host("active", json!({"site": "x"}))),
            ("hosts/a.example", host("draining", over)),
            ("hosts/a-b.example", json!({"id": "1"})),
            ("hosts/gone.example", host("retired", json!({}))),
            ("hosts/broken.example", json!({"id": "1", "document": {}, "nonsense": 1})),
            ("hosts/list.example", host("active", json!([1]))),
            ("hosts/c.example", host("failed", json!({"tags": 3, "variables": []}))),
            ("tags/web", json!({"document": {"ttl": 5}})),
            ("tags/web/members/b.example", json!({})),
            ("tags/web/members/a.example", json!({})),
            ("tags/web/members/gone.example", json!({})),
            ("tags/web/members/never.example", json!({})),
            ("tags/web/members/@inner", json!({})),
            ("tags/web/members/@nothing", json!({})),
            // Sorts between a tag and its members.
            ("tags/web-2", json!({})),
            ("tags/web-2/members/@web", json!({})),
            ("tags/inner", json!({"document": {"variables": {"x": "é\n"}}})),
            ("tags/inner/members/a.example", json!({})),
            ("tags/broken", json!({"nonsense": 1})),
            ("tags/broken/members/b.example", json!({})),
            ("tags/no-row/members/c.example", json!({})),
            ("dns/x", json!({"document": {"ttl": 9}})),
        ];
        let tags: Namespace = "tags".parse().unwrap();
        assert_eq!(of_rows(&rows, "tags").unwrap(), list(&view(&rows), &tags, None));
        for more in [
            ("schemas/tags", json!({"tag": true})),
            ("schemas/tags", json!({"tag": true, "host": null})),
            ("schemas/tags", json!({"tag": true, "host": true})),
            ("tags/ungrouped", json!({})),
            ("tags/all", json!({"document": {"y": 1}})),
            ("tags/_meta", json!({})),
        ] {
            rows.retain(|(key, _)| *key != more.0);
            rows.push(more);
            assert_eq!(of_rows(&rows, "tags").unwrap(), list(&view(&rows), &tags, None), "{:?}", rows.last());
        }
        for other in ["tags/web/members/select: true", "tags/web/members/@dns/x"] {
            let with = [&rows[..], &[(other, json!({}))]].concat();
            assert_eq!(of_rows(&with, "tags"), None, "{other}: that takes all rows");
        }
        for none in ["hosts", "facts", "pauses"] {
            assert_eq!(of_rows(&rows, none), None, "{none}: no tags stand there");
        }
    }

    fn listed(view: &View, rule: Option<&str>) -> Value {
        let rule = rule.map(|rule| Rule::compile(rule).unwrap());
        serde_json::from_str(&list(view, &"tags".parse().unwrap(), rule.as_ref())).unwrap()
    }

    #[test]
    fn groups_are_tags_and_variables_are_documents() {
        let expected = json!({
            "all": {"hosts": [], "children": ["web", "ungrouped"]},
            "ungrouped": {"hosts": ["e"]},
            "web": {"hosts": ["c"], "children": ["inner"], "vars": {"ttl": 5}},
            "inner": {"hosts": ["a", "b"]},
            "_meta": {"hostvars": {
                "a": {"site": "y", "port": 1},
                "b": {"site": "x"},
                "c": {"ip": "192.0.2.1"},
                "e": {"site": 3},
            }},
        });
        let view = fleet();
        assert_eq!(listed(&view, None), expected);
        let (tags, name) = ("tags".parse().unwrap(), |name: &str| name.parse().unwrap());
        assert_eq!(host(&view, &tags, &name("c")).unwrap(), r#"{"ip":"192.0.2.1"}"#);
        assert_eq!((host(&view, &tags, &name("d")), host(&view, &tags, &name("z"))), (None, None));
    }

    #[test]
    fn a_rule_chooses_and_says_what_it_does_not_know() {
        let some = listed(&fleet(), Some("site > 2"));
        assert_eq!(some["_meta"], json!({"hostvars": {"e": {"site": 3}}, "unsure": 2}));
        assert_eq!((&some["inner"], &some["ungrouped"]), (&json!({"hosts": []}), &json!({"hosts": ["e"]})));
        let rule = Rule::compile("site > 2").unwrap();
        assert_eq!(unsure(list(&fleet(), &"tags".parse().unwrap(), Some(&rule)).as_bytes()), 2);
        assert_eq!(unsure(list(&fleet(), &"tags".parse().unwrap(), None).as_bytes()), 0);
    }

    /// What Ansible makes by itself is given once, also where tags are called so.
    #[test]
    fn tags_may_be_called_as_ansible_calls_groups() {
        let row = |key: &str| (key.to_owned(), json!({"id": key, "document": {}}));
        let rows = [row("hosts/a"), row("hosts/b")];
        let tags = [
            "tags/all",
            "tags/all/members/@ungrouped",
            "tags/ungrouped",
            "tags/ungrouped/members/a",
            "tags/_meta",
        ];
        let tags = tags.map(|key| (key.to_owned(), json!({})));
        let all: Vec<(&str, Value)> =
            rows.iter().chain(&tags).map(|(key, value)| (key.as_str(), value.clone())).collect();
        let expected = json!({
            "all": {"hosts": [], "children": ["ungrouped"]},
            "ungrouped": {"hosts": ["a", "b"]},
            "_meta": {"hostvars": {"a": {}, "b": {}}},
        });
        assert_eq!(listed(&view(&all), None), expected);
    }
}
