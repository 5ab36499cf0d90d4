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

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::ptr;

use serde_json::{Map, Value};
use shoal_core::{Contents, Document, Host, HostName, Lifecycle, Namespace, Rule, TagName, View};

/// The namespace whose tags are the groups, where none is named: where `shoal import ansible` puts them by itself.
pub const DEFAULT_NAMESPACE: &str = "tags";
/// The field whose map is the variables, instead of the whole document.
const VARIABLES: &str = "variables";
/// The group of all hosts.
const ALL: &str = "all";
/// The group of those that are in no other.
const UNGROUPED: &str = "ungrouped";
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
    let loose: Vec<&Host> =
        hosts.iter().copied().filter(|host| !grouped.contains(&ptr::from_ref(*host))).collect();

    let mut out = String::with_capacity(64 + hosts.len() * 512);
    out.push('{');
    for group in &mut groups {
        if group.tag.name.key() == UNGROUPED {
            group.hosts.extend(&loose);
        }
        write_group(&mut out, group);
    }
    let has = |name: &str| groups.iter().any(|group| group.tag.name.key() == name);
    if !has(UNGROUPED) && !loose.is_empty() {
        quoted(&mut out, UNGROUPED);
        out.push(':');
        write_hosts(&mut out, &loose);
        out.push_str("},");
    }
    if !has(ALL) {
        let nested: BTreeSet<&TagName> =
            groups.iter().flat_map(|group| group.nested.iter().copied()).collect();
        let roots = groups.iter().map(|group| &group.tag.name).filter(|name| !nested.contains(name));
        let mut roots: Vec<&str> = roots.map(TagName::key).collect();
        if !has(UNGROUPED) && !loose.is_empty() {
            roots.push(UNGROUPED);
        }
        quoted(&mut out, ALL);
        out.push(':');
        write_hosts(&mut out, &[]);
        write_children(&mut out, roots.into_iter());
        out.push_str("},");
    }
    out.push_str("\"_meta\":{\"hostvars\":{");
    for (n, host) in hosts.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        quoted(&mut out, host.name.as_str());
        out.push(':');
        out.push_str(&variables(view, host, namespace));
    }
    out.push('}');
    if unsure > 0 {
        out.push_str(&format!(",{UNSURE}{unsure}"));
    }
    out.push_str("}}");
    out
}

/// What stands before the number of hosts for which the rule could not be evaluated.
const UNSURE: &str = "\"unsure\":";

/// For how many hosts it is not known whether they belong to an inventory that [`list`] wrote.
#[must_use]
pub fn unsure(written: &[u8]) -> usize {
    // At its very end, or nowhere.
    let tail = &written[written.len().saturating_sub(48)..];
    let tail = String::from_utf8_lossy(tail);
    let number = tail.strip_suffix("}}").and_then(|tail| tail.rsplit_once(&format!(",{UNSURE}")));
    number.and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
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
fn said(document: &Document) -> &str {
    document.raw(VARIABLES).filter(|raw| raw.starts_with('{')).unwrap_or(document.as_str())
}

fn variables<'v>(view: &View, host: &'v Host, namespace: &Namespace) -> Cow<'v, str> {
    let said = said(&host.document);
    let Some(over) = view.override_of(host, namespace.as_str()) else { return Cow::Borrowed(said) };
    let map = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut all = map(said);
    all.shift_remove(namespace.as_str());
    all.extend(map(over));
    Cow::Owned(Value::Object(all).to_string())
}

/// A group and the comma behind it.
fn write_group(out: &mut String, group: &Contents<'_>) {
    // It would be taken for what it is not.
    if group.tag.name.key() == "_meta" {
        return;
    }
    quoted(out, group.tag.name.key());
    out.push(':');
    write_hosts(out, &group.hosts);
    if !group.nested.is_empty() {
        write_children(out, group.nested.iter().map(|name| name.key()));
    }
    let said = said(&group.tag.document);
    if said != "{}" {
        out.push_str(",\"vars\":");
        out.push_str(said);
    }
    out.push_str("},");
}

/// The beginning of a group. Without `hosts` and all the rest, Ansible would take the group for a host.
fn write_hosts(out: &mut String, hosts: &[&Host]) {
    out.push_str("{\"hosts\":[");
    for (n, host) in hosts.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        quoted(out, host.name.as_str());
    }
    out.push(']');
}

fn write_children<'n>(out: &mut String, names: impl Iterator<Item = &'n str>) {
    out.push_str(",\"children\":[");
    for (n, name) in names.enumerate() {
        if n > 0 {
            out.push(',');
        }
        quoted(out, name);
    }
    out.push(']');
}

fn quoted(out: &mut String, text: &str) {
    if text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_core::{Change, Revision};

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
