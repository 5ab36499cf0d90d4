//! What one changed host writes does not grow with the fleet: counted in files and octets, at the target itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_agent::secrets::Secrets;
use shoal_agent::{Batch, Clock, Edit, Epoch, Fence, Moment, Outcome, Target as _, Unit, Why};
use shoal_core::Revision;
use shoal_monitoring::{Have, Item, Key, Monitoring, Server, Servers, Settings, Subject};

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}

fn key(server: Server, n: usize) -> Key {
    Key { server, subject: Subject::Host(format!("web{n}.example.com").parse().unwrap()) }
}

/// A host with two checks, or with one job.
fn item(server: Server, address: &str) -> Item {
    let timing = json!({"interval": 300, "retry": 60, "attempts": 3});
    let check = json!({"check": "check_echo!a"});
    let host = json!({"address": address, "timing": timing, "services": {"a": check, "b": check}});
    let jobs = json!({"node": {"target": format!("{address}:9100"), "labels": {"instance": "x"}}});
    let item = if server == Server::Prometheus { json!({"targets": jobs}) } else { json!({"host": host}) };
    serde_json::from_value(item).unwrap()
}

async fn apply(servers: &Servers, server: Server, changes: Vec<(Key, Option<Item>, Item)>) {
    let edit = |(key, from, to): (Key, Option<Item>, Item)| Edit::<Monitoring> {
        key,
        verb: "update",
        from: from.map(Have::from),
        to: Some(to),
        memo: Value::Null,
        token: String::new(),
        because: Why::Wanted(Revision(1)),
    };
    let changes: Vec<_> = changes.into_iter().map(edit).collect();
    let batch = Batch { changes, after: Vec::new(), revision: Revision(1) };
    let fence = Fence { number: 1, not_after: Moment::MAX, epoch: Epoch(1), clock: Arc::new(Still) };
    let applied = servers.apply(&Unit::from(server.name()), &batch, &fence).await.unwrap();
    assert!(applied.each.iter().all(|(_, outcome)| *outcome == Outcome::Done), "{:?}", applied.each);
}

/// Every file below a folder, by its inode, with its size; links are not followed. What was before is removed meanwhile.
fn files(folder: &Path) -> BTreeMap<u64, (PathBuf, u64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap()) {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        } else if meta.is_file() {
            found.insert(meta.ino(), (entry.path(), meta.len()));
        }
    }
    found
}

/// The files and octets that a change of one host writes in a fleet of so many.
async fn written(server: Server, hosts: usize) -> (usize, u64) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("shoal");
    fs::create_dir(&at).unwrap();
    let config = dir.path().join("nagios.cfg");
    let own = format!(
        "command_file=cmd\nstatus_file=status\nobject_cache_file=cache\ncfg_dir={}\n",
        at.join("current").display()
    );
    fs::write(&config, own).unwrap();
    let table = match server {
        Server::Nagios => json!({"directory": at, "config": config, "check": ["true"], "tell": false}),
        Server::Icinga2 => json!({"directory": at, "check": ["true", "{candidate}"], "tell": false}),
        Server::Prometheus => json!({"directory": at}),
    };
    let settings: Settings = serde_json::from_value(json!({server.name(): table})).unwrap();
    let (_, servers) = settings.open(Secrets::default()).unwrap();
    let mut all: Vec<_> = (0..hosts).map(|n| (key(server, n), None, item(server, "192.0.2.1"))).collect();
    if server != Server::Prometheus {
        all.insert(0, (Key { server, subject: Subject::Server }, None, Item::Server));
    }
    apply(&servers, server, all).await;
    let before = files(&at);
    apply(
        &servers,
        server,
        vec![(key(server, 7), Some(item(server, "192.0.2.1")), item(server, "192.0.2.7"))],
    )
    .await;
    let after = files(&at);
    let new: Vec<_> = after
        .iter()
        .filter(|(inode, (path, _))| !before.contains_key(inode) && path.file_name().unwrap() != "check.cfg")
        .collect();
    (new.len(), new.iter().map(|(_, (_, size))| size).sum())
}

#[tokio::test]
async fn one_host_writes_one_small_file_whatever_the_fleet() {
    // A file of hosts, and one with the mark.
    for (server, files, shards) in
        [(Server::Nagios, 2, 256), (Server::Icinga2, 2, 256), (Server::Prometheus, 1, 64)]
    {
        for hosts in [500, 5_000] {
            let (count, octets) = written(server, hosts).await;
            assert_eq!(count, files, "{server} at {hosts} hosts");
            // Its share of the fleet, and no more: some shards have more hosts than others.
            let share = u64::try_from(hosts / shards + 1).unwrap() * 700 * 3;
            assert!(
                octets <= share + 500,
                "{server} at {hosts} hosts: {octets} octets, and its share is {share}"
            );
        }
    }
}
