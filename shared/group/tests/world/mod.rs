//! A database in memory without a store, on a clock that is set, in which groups are decided for.
#![allow(dead_code, unreachable_pub, reason = "each user takes some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shoal_core::{
    Document, Edit, Expect, HostId, HostName, Key, Lifecycle, Pre, Proposal, Revision, View, prepare_as,
};
use shoal_group::{Act, At, Groups, decide, written, written_of};
use shoal_machine::Life;

pub struct World {
    pub view: View,
    pub now: Timestamp,
    /// What was measured, by group.
    pub measured: BTreeMap<String, Result<f64, String>>,
    /// What was waited for, in words, when it was decided last.
    pub waits: Vec<String>,
    pub most: usize,
    /// Hosts about which nothing can be written.
    pub refused: BTreeMap<HostName, String>,
    ids: u32,
}

impl World {
    pub fn new() -> Self {
        Self {
            view: View::new(),
            now: "2026-07-01T10:00:00Z".parse().unwrap(),
            measured: BTreeMap::new(),
            waits: Vec::new(),
            most: usize::MAX,
            refused: BTreeMap::new(),
            ids: 0,
        }
    }

    pub fn commit(&mut self, edits: Vec<Edit>) {
        let next = Revision(self.view.revision().0 + 1);
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            HostId(format!("id{ids}"))
        };
        let proposal = Proposal::new("ann", "a step", edits);
        let (_, after) = prepare_as(&self.view, &proposal, &mut new_id, next).unwrap();
        self.view = after;
    }

    pub fn tag(&mut self, name: &str, document: &Value) {
        self.commit(vec![tag(name, document)]);
    }

    /// Changes a field of a group.
    pub fn group(&mut self, name: &str, patch: &Value) {
        let patch = json!({"document": {"group": patch}});
        let key = name.parse().unwrap();
        self.commit(vec![Edit::Patch { key, patch, expect: Expect::Any }]);
    }

    pub fn state(&mut self, host: &str, state: Lifecycle) {
        let host = host.parse().unwrap();
        self.commit(vec![Edit::SetState { host, state, expect: Expect::Any }]);
    }

    pub fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// Decides for all groups and commits it. Says what was done.
    pub fn step(&mut self) -> Vec<String> {
        let mut groups = Groups::read(&self.view);
        let (mut done, mut all) = (Vec::new(), Vec::new());
        self.waits = groups.trouble.iter().map(|one| format!("{}: {}", one.what, one.why)).collect();
        for group in &groups.groups {
            let measured = self.measured.get(group.tag.as_str());
            let at = At { now: self.now, measured, seed: 0, most: self.most, refused: Some(&self.refused) };
            let decision = decide(&self.view, group, &mut groups.ranges, &at);
            for step in &decision.steps {
                let act = match &step.act {
                    Act::Make { again: false, .. } => "make".to_owned(),
                    Act::Make { again: true, .. } => "make anew".to_owned(),
                    Act::Drain(wish) => format!("drain as {}", json!(wish).as_str().unwrap()),
                    Act::Keep => "keep".to_owned(),
                    Act::Retire => "retire".to_owned(),
                    Act::Release => "release".to_owned(),
                };
                done.push(format!("{act} {}", step.host.as_str().trim_end_matches(".example.com")));
            }
            self.waits.extend(decision.waits.iter().map(|wait| {
                let host = wait.host.as_ref().map_or_else(|| group.tag.to_string(), ToString::to_string);
                format!("{host}: {}", wait.why)
            }));
            let mut one = written(&self.view, group, &decision, "life").unwrap();
            all.append(&mut one.edits);
            self.holds(&one.pre);
        }
        let ranges = written_of(&self.view, &groups.ranges).unwrap();
        self.holds(&ranges.pre);
        all.extend(ranges.edits);
        if !all.is_empty() {
            self.commit(all);
        }
        done
    }

    /// What a step rests on is so where it was decided.
    fn holds(&self, pre: &[Pre]) {
        for pre in pre {
            let holds = match pre {
                Pre::At(key, at) => self.view.revision_of(key) == Some(*at),
                Pre::Absent(key) => !self.view.exists(key),
                Pre::Unchanged(_, at) => *at == self.view.revision(),
                other => panic!("{other:?} is none of a group's"),
            };
            assert!(holds, "{pre:?} at {}", self.view.revision());
        }
    }

    /// What others do: machines are made of what is requested, and destroyed where that is said.
    pub fn others(&mut self) -> bool {
        let mut edits = Vec::new();
        for host in self.view.hosts() {
            let state = match host.state {
                Lifecycle::Requested => Lifecycle::Active,
                Lifecycle::Draining if Life::of(host).unwrap().wish.is_some() => Lifecycle::Retired,
                _ => continue,
            };
            edits.push(Edit::SetState { host: host.name.clone(), state, expect: Expect::Any });
        }
        let some = !edits.is_empty();
        if some {
            self.commit(edits);
        }
        some
    }

    /// Until nothing is done any more. Says all that was.
    pub fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..200 {
            let done = self.step();
            let others = self.others();
            if done.is_empty() && !others {
                return all;
            }
            all.extend(done);
        }
        panic!("it goes round and round: {all:?}");
    }

    /// The hosts that are not retired, with their states, by name.
    pub fn alive(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .view
            .hosts()
            .filter(|host| host.state != Lifecycle::Retired)
            .map(|host| format!("{} {}", host.name.as_str().trim_end_matches(".example.com"), host.state))
            .collect();
        all.sort();
        all
    }

    pub fn field(&self, host: &str, field: &str) -> Value {
        self.view.host(host).unwrap().field(field).unwrap_or_default()
    }

    pub fn held(&self, range: &str) -> BTreeMap<String, String> {
        let key: Key = format!("facts/placement/ranges/{range}").parse().unwrap();
        let held = self.view.row(&key).map(|row| row.value()["held"].clone()).unwrap_or_default();
        let held = held.as_object().cloned().unwrap_or_default();
        held.into_iter().map(|(what, by)| (what, by["host"].as_str().unwrap().to_owned())).collect()
    }
}

pub fn tag(name: &str, document: &Value) -> Edit {
    Edit::PutTag {
        tag: name.parse().unwrap(),
        owner: Some("data team".to_owned()),
        environment: None,
        expires: None,
        document: Document::of(document).unwrap(),
        members: None,
        expect: Expect::Any,
    }
}

/// Five brokers with numbers and addresses in two sites.
pub fn kafka() -> World {
    let mut world = World::new();
    world.tag("dns/example.com", &json!({}));
    world.tag("ranges/brokers", &json!({"ids": {"first": 1001, "last": 1020}}));
    world.tag("ranges/lan-a", &json!({"addresses": {"net": "192.0.2.0/25"}}));
    world.tag("ranges/lan-c", &json!({"addresses": {"net": "192.0.2.128/25"}}));
    world.tag(
        "vm/kafka",
        &json!({
            "image": "debian-12",
            "networks": [{"name": "lan", "gateways": ["192.0.2.1"]}],
            "group": {
                "count": 5,
                "size": {"cpu": 4},
                "host": {"role": "broker"},
                "layout": {"sites": {"a": 1, "c": 2}},
                "apart": [{"tag": "vm/kafka", "level": "box"}],
                "tags": ["dns/example.com"],
                "slots": {
                    "name": "kafka-{slot}.example.com",
                    "ids": {"broker_id": "brokers"},
                    "addresses": {"address": {
                        "ranges": {"a": {"range": "lan-a", "offset": 10}, "c": {"range": "lan-c", "offset": 10}},
                        "network": "lan",
                    }},
                },
                "replace": {"after": "1m"},
            },
        }),
    );
    world
}
