//! What one changed host costs does not grow with the fleet: counted in files, octets, and calls of the kernel, at the target itself.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::traced;
use serde_json::{Value, json};
use shoal_agent::secrets::Secrets;
use shoal_agent::{Batch, Clock, Edit, Epoch, Fence, Moment, Outcome, Scope, Seen, Target as _, Unit, Why};
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

/// Servers with a fleet of so many hosts in their files below this folder.
async fn fleet(dir: &Path, server: Server, hosts: usize) -> Servers {
    let at = dir.join("shoal");
    fs::create_dir(&at).unwrap();
    let config = dir.join("nagios.cfg");
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
    servers
}

/// The files and octets that a change of one host writes in a fleet of so many.
async fn written(server: Server, hosts: usize) -> (usize, u64) {
    let dir = tempfile::tempdir().unwrap();
    let servers = fleet(dir.path(), server, hosts).await;
    let at = dir.path().join("shoal");
    let before = files(&at);
    apply(
        &servers,
        server,
        vec![(key(server, 7), Some(item(server, "192.0.2.1")), item(server, "192.0.2.7"))],
    )
    .await;
    let after = files(&at);
    let new: Vec<_> = after.iter().filter(|(inode, _)| !before.contains_key(inode)).collect();
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

/// The calls that are counted, by what they are for. Not every machine has all of them.
const CALLS: [(&str, &[&str]); 6] = [
    ("link", &["link", "linkat"]),
    ("symlink", &["symlink", "symlinkat"]),
    ("rename", &["rename", "renameat", "renameat2"]),
    ("remove", &["unlink", "unlinkat", "rmdir"]),
    ("folder", &["mkdir", "mkdirat"]),
    ("sync", &["fsync", "fdatasync", "syncfs"]),
];
/// Which server and how many hosts the test below has this program, run once more, change one host of.
const TRACED: &str = "SHOAL_TEST_TRACED";
/// A folder that cannot be made: where a trace begins and ends to be counted.
const MARK: &str = "/proc/shoal-test-mark";

/// Does nothing unless the test below has it done, which traces it.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_for_whoever_traces_it() {
    let Ok(asked) = std::env::var(TRACED) else { return };
    let (name, hosts) = asked.split_once(' ').unwrap();
    let all = [Server::Nagios, Server::Icinga2];
    let server = all.into_iter().find(|server| server.name() == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let servers = fleet(dir.path(), server, hosts.parse().unwrap()).await;
    // The first finds nothing to use again, the second has to wait until there is something; the third is what all others are.
    for n in 7..10 {
        if n == 9 {
            fs::create_dir(MARK).unwrap_err();
        }
        let (from, to) = (item(server, "192.0.2.1"), item(server, "192.0.2.7"));
        apply(&servers, server, vec![(key(server, n), Some(from), to)]).await;
    }
    fs::create_dir(MARK).unwrap_err();
}

/// How often each of the calls is made for a change of one host.
fn calls(server: Server, hosts: usize) -> BTreeMap<&'static str, usize> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("calls");
    let names: Vec<String> =
        CALLS.iter().flat_map(|(_, names)| *names).map(|name| format!("?{name}")).collect();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e"]).arg(format!("trace={}", names.join(","))).arg("-o").arg(&out);
    strace.arg(std::env::current_exe().unwrap()).args(["--exact", "a_change_for_whoever_traces_it"]);
    let done = strace.env(TRACED, format!("{server} {hosts}")).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    let text = fs::read_to_string(&out).unwrap();
    let parts: Vec<&str> = text.split(MARK).collect();
    assert_eq!(parts.len(), 3, "{text}");
    let mut counted: BTreeMap<&str, usize> = CALLS.iter().map(|(what, _)| (*what, 0)).collect();
    // After the number of a thread; what a thread was stopped in has no name where it goes on. The last line is the beginning of the mark.
    let lines = parts[1].lines().skip(1);
    let called =
        lines.filter_map(|line| line.split_whitespace().nth(1)?.split_once('(').map(|(name, _)| name));
    for name in called {
        if let Some((what, _)) = CALLS.iter().find(|(_, names)| names.contains(&name)) {
            *counted.entry(*what).or_default() += 1;
        }
    }
    // The mark itself.
    *counted.entry("folder").or_default() -= 1;
    counted
}

#[test]
fn one_host_makes_as_many_links_and_syncs_whatever_the_fleet() {
    if !traced("one_host_makes_as_many_links_and_syncs_whatever_the_fleet") {
        return;
    }
    for server in [Server::Nagios, Server::Icinga2] {
        let (small, large) = (calls(server, 300), calls(server, 1_500));
        assert_eq!(small, large, "{server}");
        // What leads to the set that the change before wrote, and the file that the last change in this set wrote.
        assert!(small["link"] <= 2, "{server}: {small:?}");
        // What leads to this set, and `current`.
        assert!(small["symlink"] <= 2, "{server}: {small:?}");
        // The folder of the generation, and `current`.
        assert_eq!(small["rename"], 2, "{server}: {small:?}");
        // Those that are replaced, what the checker has read, and twice what is not there.
        assert!(small["remove"] <= 9, "{server}: {small:?}");
        assert_eq!(small["folder"], 0, "{server}: {small:?}");
        // Two files and the folders that they are in, the one that the generation is in, and after the switch the whole.
        assert_eq!(small["sync"], 6, "{server}: {small:?}");
    }
}

/// Which hosts a look at one host tells of, and whether that one is odd.
async fn looked(servers: &Servers, server: Server, scope: Scope<'_, Key>) -> (Vec<Key>, bool) {
    let seen = servers.observe(&Unit::from(server.name()), scope).await.unwrap().seen;
    let odd = matches!(seen.get(&key(server, 7)), Some(Seen::Ours(have)) if have.odd);
    (seen.into_keys().collect(), odd)
}

/// A host that is new is looked at before it is made.
#[tokio::test]
async fn a_look_at_one_host_is_about_no_other_as_long_as_its_file_is_as_it_was_left() {
    for server in [Server::Nagios, Server::Icinga2] {
        let dir = tempfile::tempdir().unwrap();
        let servers = fleet(dir.path(), server, 500).await;
        let one = [key(server, 7)];
        let whole = looked(&servers, server, Scope::All).await;
        assert_eq!((whole.0.len(), whole.1), (501, false), "the hosts and the server itself");
        assert_eq!(looked(&servers, server, Scope::Keys(&one)).await, (one.to_vec(), false));
        let none = [key(server, 1_000)];
        assert_eq!(looked(&servers, server, Scope::Keys(&none)).await, (Vec::new(), false));
        // The server's own item is about all of it.
        let both = [one[0].clone(), Key { server, subject: Subject::Server }];
        assert_eq!(looked(&servers, server, Scope::Keys(&both)).await, whole);
        // Somebody edits the file in which it is.
        let mut found = files(&dir.path().join("shoal")).into_values().map(|(path, _)| path);
        let of_host = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("web7.example.com");
        let path = found.find(of_host).unwrap();
        let mut text = fs::read_to_string(&path).unwrap();
        let comment = text.find("web7.example.com").unwrap();
        let end = comment + text[comment..].find('\n').unwrap();
        text.insert_str(end + 1, "# edited\n");
        fs::write(&path, text).unwrap();
        let edited = looked(&servers, server, Scope::Keys(&one)).await;
        assert_eq!((edited.0.len(), edited.1), (501, true), "{server}: what stands there is read");
    }
}
