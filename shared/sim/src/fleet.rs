//! Histories of fleets: what people do to hosts and tags.
//!
//! A small model of the fleet makes every step mean something: a rename moves the members too, what is deleted
//! was there, tags nest without cycles. Names come from small sets, so that steps collide: hosts come back under
//! old names, several tags feed one item, a pause meets a deletion.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use shoal_core::{Change, Document, Key};

use crate::agent::Kind;
use crate::dice::Dice;

/// How many tags a namespace may have.
const TAGS: usize = 4;
const SITES: [&str; 3] = ["ams", "rdu", "syd"];
const STATES: [&str; 6] = ["requested", "building", "active", "draining", "retired", "failed"];
const RULES: [&str; 4] = [
    "select: site == 'ams'",
    "select: site == 'rdu' && state == 'active'",
    "select: state == 'draining'",
    "select: big",
];

/// The fleet as its people know it.
#[derive(Clone)]
pub(crate) struct Fleet {
    kinds: Vec<Kind>,
    dice: Dice,
    /// How many names there are for hosts.
    names: usize,
    next_id: u64,
    hosts: BTreeMap<String, Value>,
    tags: BTreeMap<String, Tag>,
    pauses: BTreeSet<String>,
    /// Rows that hold rubbish just now.
    rubbish: BTreeSet<String>,
}

#[derive(Clone, Default)]
struct Tag {
    document: Map<String, Value>,
    members: BTreeSet<String>,
}

fn key(text: &str) -> Option<Key> {
    text.parse().ok()
}

fn put(text: &str, value: Value) -> Option<Change> {
    Some(Change::put(key(text)?, Document::from(value)))
}

fn gone(text: &str) -> Option<Change> {
    Some(Change::delete(key(text)?))
}

impl Fleet {
    pub(crate) fn new(kinds: Vec<Kind>, mut dice: Dice) -> Self {
        let names = 4 + dice.below(36);
        Self {
            kinds,
            dice,
            names,
            next_id: 1,
            hosts: BTreeMap::new(),
            tags: BTreeMap::new(),
            pauses: BTreeSet::new(),
            rubbish: BTreeSet::new(),
        }
    }

    /// A fleet to start from.
    pub(crate) fn found(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..self.names * 2 / 3 {
            changes.extend(self.add_host());
        }
        for _ in 0..2 + self.kinds.len() {
            changes.extend(self.add_tag());
        }
        for _ in 0..self.tags.len() * self.names / 2 {
            changes.extend(self.add_member());
        }
        once(changes)
    }

    /// What somebody does next; may be nothing.
    pub(crate) fn step(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            changes.extend(match self.dice.below(100) {
                0..10 => self.add_host(),
                10..18 => self.delete_host(),
                18..24 => self.rename_host(),
                24..36 => self.edit_host(),
                36..40 => self.add_tag(),
                40..43 => self.delete_tag(),
                43..55 => self.edit_tag(),
                55..70 => self.add_member(),
                70..82 => self.remove_member(),
                82..85 => self.empty_tag(),
                85..88 => self.many_hosts(),
                88..93 => self.pause(),
                93..97 => self.resume(),
                97..99 => self.scribble(),
                _ => self.mend(),
            });
        }
        once(changes)
    }

    /// What they know is what they knew then. Chance goes on, and no id is given twice.
    pub(crate) fn go_back_to(&mut self, then: Self) {
        let now = std::mem::replace(self, then);
        (self.dice, self.next_id) = (now.dice, now.next_id);
    }

    /// Resumes everything that is paused and mends all rubbish.
    pub(crate) fn tidy(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        while !self.pauses.is_empty() {
            changes.extend(self.resume());
        }
        while !self.rubbish.is_empty() {
            changes.extend(self.mend());
        }
        for name in self.tags.keys().cloned().collect::<Vec<_>>() {
            let Some(tag) = self.tags.get_mut(&name) else { continue };
            let text = tag.document.get("text").and_then(Value::as_str).unwrap_or_default();
            if !matches!(text, "bad" | "stuck" | "refused" | "") {
                continue;
            }
            tag.document.insert("text".into(), json!("mended"));
            changes.extend(self.tag_row(&name));
        }
        for name in self.hosts.keys().cloned().collect::<Vec<_>>() {
            let Some(Value::Object(host)) = self.hosts.get_mut(&name) else { continue };
            if let Some(Value::Object(document)) = host.get_mut("document") {
                for kind in &self.kinds {
                    document.remove(kind.namespace());
                }
            }
            changes.extend(self.host_row(&name));
        }
        once(changes)
    }

    /// The name of any host there may be.
    pub(crate) fn any_host(&mut self) -> String {
        format!("h{}.example", self.dice.below(self.names))
    }

    /// The key of any tag there may be in the namespace.
    pub(crate) fn any_tag(&mut self) -> String {
        format!("t{}", self.dice.below(TAGS))
    }

    fn host_row(&self, name: &str) -> Option<Change> {
        put(&format!("hosts/{name}"), self.hosts.get(name)?.clone())
    }

    fn tag_row(&self, name: &str) -> Option<Change> {
        put(name, json!({ "document": self.tags.get(name)?.document }))
    }

    fn some_host(&mut self) -> Option<String> {
        let all: Vec<_> = self.hosts.keys().cloned().collect();
        self.dice.pick(&all).cloned()
    }

    fn some_tag(&mut self) -> Option<String> {
        let all: Vec<_> = self.tags.keys().cloned().collect();
        self.dice.pick(&all).cloned()
    }

    fn add_host(&mut self) -> Vec<Change> {
        let name = self.any_host();
        if self.hosts.contains_key(&name) {
            return Vec::new();
        }
        let id = format!("id-{}", self.next_id);
        self.next_id += 1;
        let site = SITES[self.dice.below(SITES.len())];
        let host = json!({ "id": id, "document": { "site": site, "big": self.dice.chance(300) } });
        self.hosts.insert(name.clone(), host);
        self.rubbish.remove(&format!("hosts/{name}"));
        self.host_row(&name).into_iter().collect()
    }

    fn delete_host(&mut self) -> Vec<Change> {
        let Some(name) = self.some_host() else { return Vec::new() };
        self.hosts.remove(&name);
        self.rubbish.remove(&format!("hosts/{name}"));
        let mut changes: Vec<_> = gone(&format!("hosts/{name}")).into_iter().collect();
        // Some take its memberships along, some forget.
        if self.dice.chance(600) {
            for (tag, model) in &mut self.tags {
                if model.members.remove(&name) {
                    changes.extend(gone(&format!("{tag}/members/{name}")));
                }
            }
        }
        changes
    }

    fn rename_host(&mut self) -> Vec<Change> {
        let (Some(old), new) = (self.some_host(), self.any_host()) else { return Vec::new() };
        if self.hosts.contains_key(&new) || self.rubbish.contains(&format!("hosts/{old}")) {
            return Vec::new();
        }
        let Some(host) = self.hosts.remove(&old) else { return Vec::new() };
        self.hosts.insert(new.clone(), host);
        self.rubbish.remove(&format!("hosts/{new}"));
        let (from, to) = (key(&format!("hosts/{old}")), key(&format!("hosts/{new}")));
        let mut changes = Vec::new();
        if let (Some(mut left), Some(mut came)) = (gone(&format!("hosts/{old}")), self.host_row(&new)) {
            (left.moved, came.moved) = (to, from);
            changes.extend([left, came]);
        }
        for (tag, model) in &mut self.tags {
            if model.members.remove(&old) {
                model.members.insert(new.clone());
                changes.extend(gone(&format!("{tag}/members/{old}")));
                changes.extend(put(&format!("{tag}/members/{new}"), json!({})));
            }
        }
        changes
    }

    fn edit_host(&mut self) -> Vec<Change> {
        let Some(name) = self.some_host() else { return Vec::new() };
        let (what, site) = (self.dice.below(7), SITES[self.dice.below(SITES.len())]);
        let state = STATES[self.dice.below(STATES.len())];
        let text = self.text();
        let namespace = self.kinds[self.dice.below(self.kinds.len())].namespace();
        let Some(Value::Object(host)) = self.hosts.get_mut(&name) else { return Vec::new() };
        match (what, host.get_mut("document")) {
            (0 | 1, _) => {
                host.insert("state".into(), json!(state));
            }
            (2, _) => {
                host.insert("state".into(), json!("active"));
            }
            (3, Some(Value::Object(document))) => {
                document.insert(namespace.into(), json!({ "text": text }));
            }
            (4, Some(Value::Object(document))) => {
                document.remove(namespace);
            }
            (5, Some(Value::Object(document))) => {
                // Not what the agent's documents look like.
                document.insert(namespace.into(), json!({ "txet": text }));
            }
            (_, Some(Value::Object(document))) => {
                document.insert("site".into(), json!(site));
            }
            _ => {}
        }
        if self.rubbish.contains(&format!("hosts/{name}")) {
            return Vec::new();
        }
        self.host_row(&name).into_iter().collect()
    }

    fn text(&mut self) -> String {
        match self.dice.below(24) {
            0 => "bad".into(),
            1 => "clash".into(),
            2 => "none".into(),
            3 => "stuck".into(),
            4 => "refused".into(),
            _ => format!("text {}", self.dice.below(8)),
        }
    }

    fn add_tag(&mut self) -> Vec<Change> {
        let namespace = match self.dice.below(self.kinds.len() + 1) {
            n if n < self.kinds.len() => self.kinds[n].namespace(),
            _ => "tags",
        };
        let name = format!("{namespace}/{}", self.any_tag());
        if self.tags.contains_key(&name) {
            return Vec::new();
        }
        let mut document = Map::new();
        if namespace != "tags" {
            document.insert("text".into(), json!(self.text()));
        }
        self.tags.insert(name.clone(), Tag { document, members: BTreeSet::new() });
        self.rubbish.remove(&name);
        self.tag_row(&name).into_iter().collect()
    }

    fn delete_tag(&mut self) -> Vec<Change> {
        let Some(name) = self.some_tag() else { return Vec::new() };
        let Some(tag) = self.tags.remove(&name) else { return Vec::new() };
        self.rubbish.remove(&name);
        let members = tag.members.iter().filter_map(|member| gone(&format!("{name}/members/{member}")));
        gone(&name).into_iter().chain(members).collect()
    }

    fn edit_tag(&mut self) -> Vec<Change> {
        let Some(name) = self.some_tag() else { return Vec::new() };
        if name.starts_with("tags/") || self.rubbish.contains(&name) {
            return Vec::new();
        }
        let (text, beside, unit) = (self.text(), self.any_host(), self.any_tag());
        let what = self.dice.below(10);
        let some = self.dice.below(3);
        let Some(tag) = self.tags.get_mut(&name) else { return Vec::new() };
        let document = &mut tag.document;
        match what {
            0..4 => document.insert("text".into(), json!(text)),
            4 => document.insert("fixed".into(), json!(["a", "b", "c"][..some])),
            5 => document.insert("shared".into(), json!("s1")),
            6 => document.remove("shared"),
            7 => document.insert("beside".into(), json!(beside)),
            8 => document.insert("unit".into(), json!(unit)),
            _ => document.remove("unit"),
        };
        self.tag_row(&name).into_iter().collect()
    }

    fn add_member(&mut self) -> Vec<Change> {
        let Some(name) = self.some_tag() else { return Vec::new() };
        let (namespace, own) = name.split_once('/').unwrap_or_default();
        let nested = self.any_tag();
        let member = match self.dice.below(20) {
            0 => RULES[self.dice.below(RULES.len())].to_owned(),
            // Only ever downwards: no cycle can come of it.
            1 if *nested < *own => format!("@{nested}"),
            2 if namespace != "tags" => format!("@tags/{nested}"),
            _ => match self.some_host() {
                Some(host) => host,
                None => return Vec::new(),
            },
        };
        let change = put(&format!("{name}/members/{member}"), json!({}));
        if let Some(tag) = self.tags.get_mut(&name) {
            tag.members.insert(member);
        }
        change.into_iter().collect()
    }

    fn remove_member(&mut self) -> Vec<Change> {
        let Some(name) = self.some_tag() else { return Vec::new() };
        let members: Vec<_> =
            self.tags.get(&name).into_iter().flat_map(|tag| tag.members.iter().cloned()).collect();
        let Some(member) = self.dice.pick(&members) else { return Vec::new() };
        if let Some(tag) = self.tags.get_mut(&name) {
            tag.members.remove(member);
        }
        gone(&format!("{name}/members/{member}")).into_iter().collect()
    }

    /// Takes most members out of a tag in one go.
    fn empty_tag(&mut self) -> Vec<Change> {
        let Some(name) = self.some_tag() else { return Vec::new() };
        let Some(tag) = self.tags.get_mut(&name) else { return Vec::new() };
        let keep = self.dice.below(3);
        let leaving: Vec<_> = tag.members.iter().skip(keep).cloned().collect();
        tag.members.retain(|member| !leaving.contains(member));
        leaving.iter().filter_map(|member| gone(&format!("{name}/members/{member}"))).collect()
    }

    fn many_hosts(&mut self) -> Vec<Change> {
        (0..self.names / 2)
            .flat_map(|n| if n % 2 == 0 { self.add_host() } else { self.add_member() })
            .collect()
    }

    fn pause(&mut self) -> Vec<Change> {
        let scope = match self.dice.below(5) {
            0 => format!("agent/{}", self.kinds[self.dice.below(self.kinds.len())].namespace()),
            1 | 2 => match self.some_tag() {
                Some(tag) => format!("tag/{tag}"),
                None => return Vec::new(),
            },
            _ => format!("host/{}", self.any_host()),
        };
        self.pauses.insert(scope.clone());
        put(&format!("pauses/{scope}"), json!({ "why": "simulated" })).into_iter().collect()
    }

    fn resume(&mut self) -> Vec<Change> {
        let all: Vec<_> = self.pauses.iter().cloned().collect();
        let Some(scope) = self.dice.pick(&all) else { return Vec::new() };
        self.pauses.remove(scope);
        gone(&format!("pauses/{scope}")).into_iter().collect()
    }

    /// Writes a row that cannot be understood, as only a broken writer would.
    fn scribble(&mut self) -> Vec<Change> {
        let row = if self.dice.chance(700) {
            self.some_host().map(|host| format!("hosts/{host}"))
        } else {
            self.some_tag()
        };
        let Some(row) = row else { return Vec::new() };
        self.rubbish.insert(row.clone());
        put(&row, json!({ "rubbish": true })).into_iter().collect()
    }

    fn mend(&mut self) -> Vec<Change> {
        let Some(row) = self.rubbish.pop_first() else { return Vec::new() };
        match row.strip_prefix("hosts/") {
            Some(host) => self.host_row(host).into_iter().collect(),
            None => self.tag_row(&row).into_iter().collect(),
        }
    }
}

/// At most one change a row: the last one counts.
fn once(changes: Vec<Change>) -> Vec<Change> {
    let mut by_key: BTreeMap<Key, Change> = BTreeMap::new();
    for change in changes {
        by_key.insert(change.key.clone(), change);
    }
    by_key.into_values().collect()
}
