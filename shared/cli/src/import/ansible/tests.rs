//! Imports into rows, again and again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shoal_core::{HostRecord, MemberKind, Revision, Row};

use super::*;

const MAPPING: &str = "
name: fleet
hosts:
  domain: example.com
  environment: env
  state: {var: status, values: {leaving: draining}}
  fields:
    address: {var: ip, as: ipv4}
    memory: {var: mem, as: size}
    box: {var: vmhost, as: host}
    site: dc
tags:
  - tag: dns/example.com
    document: {ttl: 300}
    members: ['@tags/all']
";

fn inventory() -> Value {
    json!({
        "_meta": {"hostvars": {
            "web1": {"ip": "192.0.2.1", "mem": 2048, "vmhost": "box1", "env": "production", "dc": "north"},
            "web2": {"ip": "192.0.2.2", "mem": "4g", "vmhost": "box9", "env": "staging", "status": "leaving"},
            "box1": {"dc": "north"},
        }},
        "all": {"children": ["north", "web", "gone", "ungrouped"]},
        "north": {"children": ["web"], "hosts": ["box1"]},
        "web": {"hosts": ["web1", "web2"]},
    })
}

/// A database of rows only: what it was told, at rising revisions.
#[derive(Default)]
struct Db(Rows, u64, usize);

impl Db {
    fn import(&mut self, inventory: &Value, mapping: &str, prune: bool) -> Import {
        let reading = read(&inventory.to_string(), mapping).unwrap();
        let ids = &mut self.2;
        let import = reading
            .against(&self.0, prune, || {
                *ids += 1;
                HostId(format!("id{ids}"))
            })
            .unwrap();
        self.write(&import.changes);
        import
    }

    fn write(&mut self, changes: &[Change]) {
        self.1 += u64::from(!changes.is_empty());
        for Change { key, value, .. } in changes {
            match value {
                Some(_) => {
                    let row = Row {
                        key: key.clone(),
                        value: value.clone(),
                        revision: Revision(self.1),
                        moved: None,
                    };
                    self.0.insert(key.clone(), row);
                }
                None => drop(self.0.remove(key)),
            }
        }
    }

    fn record(&self, host: &str) -> Option<HostRecord> {
        self.0
            .get(&format!("hosts/{host}").parse::<Key>().unwrap())
            .map(|r| r.value.as_ref().unwrap().to().unwrap())
    }

    fn edit(&mut self, host: &str, edit: impl FnOnce(&mut HostRecord)) {
        let mut record = self.record(host).unwrap();
        edit(&mut record);
        let change =
            Change::put(format!("hosts/{host}").parse().unwrap(), shoal_core::Document::of(&record).unwrap());
        self.write(&[change]);
    }

    /// Each host's tags of one namespace, nested ones included.
    fn tags(&self, namespace: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut up: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for key in self.0.keys().filter(|k| k.namespace() == namespace) {
            let shoal_core::Kind::Member(tag, member) = key.kind() else { continue };
            match member.kind() {
                MemberKind::Nested(child) => {
                    up.entry(child.to_owned()).or_default().insert(tag.key().to_owned())
                }
                _ => out.entry(member.to_string()).or_default().insert(tag.key().to_owned()),
            };
        }
        for tags in out.values_mut() {
            let mut todo: Vec<String> = tags.iter().cloned().collect();
            while let Some(tag) = todo.pop() {
                todo.extend(
                    up.get(&tag).into_iter().flatten().filter(|t| tags.insert((*t).clone())).cloned(),
                );
            }
        }
        out
    }
}

#[test]
fn an_inventory_becomes_hosts_and_tags_once() {
    let mut db = Db::default();
    let first = db.import(&inventory(), MAPPING, false);
    assert_eq!((first.report.hosts.new, first.report.tags.new), (3, 4));
    let web1 = db.record("web1.example.com").unwrap();
    let expected = json!({"address": "192.0.2.1", "box": "box1.example.com", "memory": 2_147_483_648_u64, "site": "north"});
    assert_eq!((web1.document.value(), web1.environment.as_deref()), (expected, Some("production")));
    let web2 = db.record("web2.example.com").unwrap();
    assert_eq!(
        (web2.state.as_str(), &web2.document.value()["memory"]),
        ("draining", &json!(4_294_967_296_u64))
    );
    let tags = db.tags("tags");
    assert_eq!(tags["web1.example.com"], ["all", "north", "web"].map(str::to_owned).into());
    let about: Vec<_> = first.report.notes.iter().map(|n| n.about.as_str()).collect();
    assert_eq!(about, ["group gone", "group ungrouped", "web2.example.com"]);

    let second = db.import(&inventory(), MAPPING, true);
    assert_eq!(
        (second.changes, second.report.hosts.same, db.1),
        (vec![], 3, 1),
        "nothing changed, so nothing is committed"
    );
}

#[test]
fn what_people_wrote_stays() {
    let mut db = Db::default();
    db.import(&inventory(), MAPPING, false);
    db.edit("web1.example.com", |record| {
        record.document =
            json!({"address": "198.51.100.9", "rack": "r7", "site": "north", "lb": {"weight": 2}}).into();
        record.owner = Some("ann".into());
        record.state = shoal_core::Lifecycle::Draining;
    });
    db.write(&[Change::put(
        "tags/mine/members/web1.example.com".parse().unwrap(),
        shoal_core::Document::empty(),
    )]);
    let mut next = inventory();
    next["_meta"]["hostvars"]["web1"].as_object_mut().unwrap().remove("dc");
    next["_meta"]["hostvars"]["web1"]["mem"] = json!("much");
    let import = db.import(&next, MAPPING, true);
    let web1 = db.record("web1.example.com").unwrap();
    // The importer's own fields are as in the inventory again, what it did not write is untouched; `memory` cannot be read, so it
    // is left as it was: somebody had removed it.
    let expected =
        json!({"address": "192.0.2.1", "rack": "r7", "lb": {"weight": 2}, "box": "box1.example.com"});
    assert_eq!(web1.document.value(), expected);
    assert_eq!((web1.owner.as_deref(), web1.state.as_str()), (Some("ann"), "draining"));
    assert!(db.tags("tags")["web1.example.com"].contains("mine"));
    assert!(import.report.notes.iter().any(|n| n.what.contains("memory: mem: \"much\" is not a size")));
}

#[test]
fn membership_follows_and_absence_is_no_reason() {
    let mut db = Db::default();
    db.import(&inventory(), MAPPING, false);
    let mut next = inventory();
    next["_meta"]["hostvars"].as_object_mut().unwrap().remove("web2");
    // web1 changes its group; web is empty, so Ansible names it only as a child of all and north.
    next["north"]["hosts"] = json!(["box1", "web1"]);
    next.as_object_mut().unwrap().remove("web");
    let import = db.import(&next, MAPPING, false);
    assert_eq!(import.report.vanished, ["web2.example.com"]);
    assert!(db.record("web2.example.com").is_some());
    let tags = db.tags("tags");
    assert_eq!(tags["web1.example.com"], ["all", "north"].map(str::to_owned).into());
    assert_eq!(
        tags["web2.example.com"],
        ["all", "north", "web"].map(str::to_owned).into(),
        "nobody said that it left"
    );
    assert_eq!(db.import(&next, MAPPING, false).changes, vec![], "it settles");
    let import = db.import(&next, MAPPING, true);
    assert!(db.record("web2.example.com").is_none() && !db.tags("tags").contains_key("web2.example.com"));
    assert_eq!((import.report.hosts.gone, db.import(&next, MAPPING, true).changes), (1, vec![]));
}

#[test]
fn pruning_spares_what_others_use() {
    let mut db = Db::default();
    db.import(&inventory(), MAPPING, false);
    db.write(&[Change::put("lb/web/members/@tags/web".parse().unwrap(), shoal_core::Document::empty())]);
    let mut next = inventory();
    next.as_object_mut().unwrap().remove("web");
    next["north"]["children"] = json!([]);
    next["all"] = json!({"children": ["north"], "hosts": ["web1", "web2"]});
    let import = db.import(&next, MAPPING, true);
    assert!(import.report.notes.iter().any(|n| n.about == "tags/web" && n.what.contains("lb/web")));
    db.write(&[Change::delete("lb/web/members/@tags/web".parse().unwrap())]);
    assert_eq!(db.import(&next, MAPPING, true).report.tags.gone, 1);
    assert_eq!(db.import(&next, MAPPING, true).changes, vec![]);
}

#[test]
fn every_row_has_its_precondition() {
    let mut db = Db::default();
    let first = db.import(&inventory(), MAPPING, false);
    assert!(first.pre.iter().all(|p| matches!(p, Pre::Absent(_))));
    let mut next = inventory();
    next["_meta"]["hostvars"]["web1"]["dc"] = json!("south");
    let second = db.import(&next, MAPPING, false);
    assert_eq!(second.pre, [Pre::At("hosts/web1.example.com".parse().unwrap(), Revision(1))]);
    assert_eq!(second.report.changes[0].detail, "site: \"north\" -> \"south\"");
}

#[test]
fn variables_are_kept_as_they_are_but_for_secrets() {
    let inventory = json!({
        "_meta": {"hostvars": {"web1": {
            "mem": "4g", "motd": "{{ greeting }}", "db_password": "hunter2", "key": {"__ansible_vault": "x"}, "note": null,
        }}},
        "all": {"hosts": ["web1"]},
    });
    let mapping = |keep: &str| {
        format!("name: fleet\nhosts: {{variables: {keep}, fields: {{memory: {{var: mem, as: size}}}}}}\n")
    };
    let kept = |keep: &str| {
        let mut db = Db::default();
        let import = db.import(&inventory, &mapping(keep), false);
        assert!(db.import(&inventory, &mapping(keep), false).changes.is_empty(), "again");
        (db.record("web1").unwrap().document.value(), import.report.notes.len())
    };
    let memory = 4_294_967_296_u64;
    let all = json!({"memory": memory, "variables": {"mem": "4g", "motd": "{{ greeting }}", "note": null}});
    assert_eq!(kept("all"), (all, 2));
    let named = json!({"memory": memory, "variables": {"mem": "4g", "db_password": "hunter2"}});
    assert_eq!(kept("[mem, db_password, key, other]"), (named, 1));
    assert_eq!(kept("none"), (json!({"memory": memory}), 0));
}

#[test]
fn values_become_tags_with_the_hosts_that_have_them() {
    let mapping = format!(
        "{MAPPING}each:
  - from: {{var: ports, as: integer}}
    only: reachable
    tag: monitoring/tcp-{{value}}
    document: {{checks: {{'tcp-{{value}}': {{command: check_tcp, args: ['{{value}}', '{{name}}']}}}}, port: '{{value}}'}}
  - {{from: checks, tag: 'monitoring/{{value}}'}}
"
    );
    let mut next = inventory();
    let vars = |next: &mut Value, host: &str, more: Value| {
        let vars = next["_meta"]["hostvars"][host].as_object_mut().unwrap();
        vars.extend(more.as_object().unwrap().clone());
    };
    vars(
        &mut next,
        "web1",
        json!({"ports": [80, "443", "6881-6999"], "reachable": true, "checks": {"mail": true, "nrpe": false}}),
    );
    vars(&mut next, "web2", json!({"ports": [80], "reachable": false}));
    vars(&mut next, "box1", json!({"ports": 80, "reachable": "yes", "checks": {"mail": true}}));
    let mut db = Db::default();
    let first = db.import(&next, &mapping, false);
    let own = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let tags = db.tags("monitoring");
    assert_eq!(tags["web1.example.com"], own(&["mail", "tcp-80", "tcp-443"]));
    assert_eq!(tags["box1.example.com"], own(&["mail", "tcp-80"]));
    assert!(!tags.contains_key("web2.example.com"));
    assert!(first.report.notes.iter().any(|note| note.what.contains("\"6881-6999\" is not a whole number")));
    let tag: shoal_core::TagRecord =
        db.0[&"monitoring/tcp-443".parse::<Key>().unwrap()].value.as_ref().unwrap().to().unwrap();
    let expected =
        json!({"checks": {"tcp-443": {"command": "check_tcp", "args": [443, "{name}"]}}, "port": 443});
    assert_eq!(tag.document.value(), expected);
    assert_eq!(db.import(&next, &mapping, false).changes, vec![], "it settles");
    // What cannot be read is not absent; what is gone is.
    vars(&mut next, "web1", json!({"ports": "{{ ports }}", "checks": {"mail": false}}));
    db.import(&next, &mapping, false);
    assert_eq!(db.tags("monitoring")["web1.example.com"], own(&["tcp-80", "tcp-443"]));
}
