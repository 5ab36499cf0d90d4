//! A small fleet for tests: tags and hosts in, the whole of what should be out. The tests against real servers
//! include this file too.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shoal_agent::{Agent, Blocked, Desired, Look, Source};
use shoal_core::{Document, Host, HostId, Lifecycle, Revision, TagName};

use shoal_dns::{Dns, Key, Node, Spec};

/// Tags with their members, and hosts.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    tags: Vec<(TagName, Value, Vec<String>)>,
    hosts: BTreeMap<String, Host>,
}

struct Blind;

impl Look for Blind {
    fn host(&self, _: &str) -> Option<&Host> {
        None
    }
}

impl Fleet {
    pub(crate) fn tag(mut self, name: &str, document: Value, members: &[&str]) -> Self {
        self.tags.push((name.parse().unwrap(), document, members.iter().map(|&m| m.to_owned()).collect()));
        self.tags.sort_by(|a, b| a.0.cmp(&b.0));
        self
    }

    /// Hosts are as old as they are early here.
    pub(crate) fn host(mut self, name: &str, document: Value) -> Self {
        let host = Host {
            name: name.parse().unwrap(),
            revision: Revision(1),
            id: HostId(format!("{:04}", self.hosts.len())),
            state: Lifecycle::Active,
            owner: Some("ann".into()),
            environment: None,
            expires: None,
            document: Document::from(document),
        };
        self.hosts.insert(name.to_owned(), host);
        self
    }

    /// Every source with its effective spec.
    fn sources(&self) -> Vec<(&TagName, Spec, Option<&Host>)> {
        let mut sources = Vec::new();
        for (tag, document, members) in &self.tags {
            let spec = |document: &Value| serde_json::from_value::<Spec>(document.clone()).unwrap();
            sources.push((tag, spec(document), None));
            let mut members = members.clone();
            members.sort();
            for member in members {
                let host = &self.hosts[&member];
                let mut effective = document.clone();
                merge(&mut effective, host.document.value()["dns"].clone());
                sources.push((tag, spec(&effective), Some(host)));
            }
        }
        sources
    }

    /// The keys of every source, and those that could not say.
    pub(crate) fn keys(&self) -> (BTreeSet<Key>, Vec<Blocked>) {
        let (mut keys, mut blocked) = (BTreeSet::new(), Vec::new());
        for (tag, spec, host) in &self.sources() {
            match Dns.keys(&Source { tag, spec, host: *host, facts: &[], revision: Revision(1) }) {
                Ok(some) => keys.extend(some),
                Err(why) => blocked.push(why),
            }
        }
        (keys, blocked)
    }

    /// Everything that should be, each item decided from the sources that feed it and no others.
    pub(crate) fn desired(&self) -> BTreeMap<Key, Desired<Node>> {
        let sources = self.sources();
        let mut feeding: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        let of = |at: usize| {
            let (tag, spec, host) = &sources[at];
            Source { tag, spec, host: *host, facts: &[], revision: Revision(1) }
        };
        for at in 0..sources.len() {
            for key in Dns.keys(&of(at)).unwrap_or_default() {
                feeding.entry(key).or_default().push(at);
            }
        }
        feeding
            .into_iter()
            .map(|(key, from)| {
                let from: Vec<_> = from.into_iter().map(of).collect();
                let desired = Dns.desired(&key, &from, &Blind).unwrap();
                (key, desired)
            })
            .collect()
    }

    /// The records that one zone should have, whatever is left out.
    #[allow(dead_code, reason = "not every test that includes this needs it")]
    pub(crate) fn lenient(&self, zone: &str) -> BTreeMap<Key, Node> {
        let in_zone = self.desired().into_iter().filter(|(key, _)| key.zone() == zone);
        in_zone.filter_map(|(key, desired)| Some((key, desired.item?))).collect()
    }

    /// The records that one zone should have; nothing may be left out.
    pub(crate) fn zone(&self, zone: &str) -> BTreeMap<Key, Node> {
        let in_zone = self.desired().into_iter().filter(|(key, _)| key.zone() == zone);
        let in_zone = in_zone
            .inspect(|(key, desired)| assert!(desired.left_out.is_empty(), "{key}: {:?}", desired.left_out));
        in_zone.filter_map(|(key, desired)| Some((key, desired.item?))).collect()
    }

    /// As text: `name ttl type data`, then what was left out.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for (key, desired) in self.desired() {
            for set in desired.item.iter().flat_map(|node| node.sets.iter()) {
                for data in &set.data {
                    out.push_str(&format!("{key} {} {} {data}\n", set.ttl, set.rtype));
                }
            }
            for Blocked { who, why } in desired.left_out {
                out.push_str(&format!("  left out: {}: {why}\n", who.join(" + ")));
            }
        }
        for Blocked { who, why } in self.keys().1 {
            out.push_str(&format!("blocked: {}: {why}\n", who.join(" + ")));
        }
        out
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field).or_insert(json!(null)), value);
            }
        }
        (into, from) => *into = from,
    }
}
