//! The text of an inventory, wherever it was found.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::Value;

/// The group of all hosts.
const ALL: &str = "all";
/// The group of those that are in no other.
const UNGROUPED: &str = "ungrouped";

/// A group, by names.
pub(super) struct Group<'a> {
    pub(super) name: &'a str,
    /// In order.
    pub(super) hosts: Vec<&'a str>,
    pub(super) nested: Vec<&'a str>,
    /// Its variables, as JSON.
    pub(super) said: &'a str,
}

/// What is to be written.
pub(super) struct Written<'a> {
    /// By name.
    pub(super) groups: Vec<Group<'a>>,
    /// The hosts by name, with their variables as JSON.
    pub(super) hosts: Vec<(&'a str, Cow<'a, str>)>,
    /// Those that are in no group.
    pub(super) loose: Vec<&'a str>,
    /// For how many more it is not known whether they are meant.
    pub(super) unsure: usize,
}

impl Written<'_> {
    /// As JSON.
    pub(super) fn text(mut self) -> String {
        let variables: usize = self.hosts.iter().map(|(name, said)| 2 * name.len() + said.len() + 16).sum();
        let groups: usize =
            self.groups.iter().map(|group| 64 + group.hosts.len() * 24 + group.said.len()).sum();
        let mut out = String::with_capacity(256 + variables + groups + self.loose.len() * 24);
        out.push('{');
        for group in &mut self.groups {
            if group.name == UNGROUPED {
                group.hosts.extend(&self.loose);
            }
            write_group(&mut out, group);
        }
        let has = |name: &str| self.groups.iter().any(|group| group.name == name);
        if !has(UNGROUPED) && !self.loose.is_empty() {
            quoted(&mut out, UNGROUPED);
            out.push(':');
            write_hosts(&mut out, &self.loose);
            out.push_str("},");
        }
        if !has(ALL) {
            let nested: HashSet<&str> =
                self.groups.iter().flat_map(|group| group.nested.iter().copied()).collect();
            let roots = self.groups.iter().map(|group| group.name).filter(|name| !nested.contains(name));
            let mut roots: Vec<&str> = roots.collect();
            if !has(UNGROUPED) && !self.loose.is_empty() {
                roots.push(UNGROUPED);
            }
            quoted(&mut out, ALL);
            out.push(':');
            write_hosts(&mut out, &[]);
            write_children(&mut out, &roots);
            out.push_str("},");
        }
        out.push_str("\"_meta\":{\"hostvars\":{");
        for (n, (name, said)) in self.hosts.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            quoted(&mut out, name);
            out.push(':');
            out.push_str(said);
        }
        out.push('}');
        if self.unsure > 0 {
            out.push_str(&format!(",{UNSURE}{}", self.unsure));
        }
        out.push_str("}}");
        out
    }
}

/// What stands before the number of hosts for which the rule could not be evaluated.
const UNSURE: &str = "\"unsure\":";

/// For how many hosts it is not known whether they belong to an inventory that [`list`](super::list) wrote.
#[must_use]
pub fn unsure(written: &[u8]) -> usize {
    // At its very end, or nowhere.
    let tail = &written[written.len().saturating_sub(48)..];
    let tail = String::from_utf8_lossy(tail);
    let number = tail.strip_suffix("}}").and_then(|tail| tail.rsplit_once(&format!(",{UNSURE}")));
    number.and_then(|(_, number)| number.parse().ok()).unwrap_or_default()
}

/// A group and the comma behind it.
fn write_group(out: &mut String, group: &Group<'_>) {
    // It would be taken for what it is not.
    if group.name == "_meta" {
        return;
    }
    quoted(out, group.name);
    out.push(':');
    write_hosts(out, &group.hosts);
    if !group.nested.is_empty() {
        write_children(out, &group.nested);
    }
    if group.said != "{}" {
        out.push_str(",\"vars\":");
        out.push_str(group.said);
    }
    out.push_str("},");
}

/// The beginning of a group. Without `hosts` and all the rest, Ansible would take the group for a host.
fn write_hosts(out: &mut String, hosts: &[&str]) {
    out.push_str("{\"hosts\":[");
    write_names(out, hosts);
}

fn write_children(out: &mut String, names: &[&str]) {
    out.push_str(",\"children\":[");
    write_names(out, names);
}

fn write_names(out: &mut String, names: &[&str]) {
    for (n, name) in names.iter().enumerate() {
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
