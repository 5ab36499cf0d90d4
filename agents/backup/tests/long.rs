//! Fifty hosts through everything at once, with real restic: killed at random during backups and while snapshots are removed, a full disk, a
//! lock of the dead, and a broken pack. Everything comes back octet for octet. With `SHOAL_LONG` only.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::repository::{self, locks, running};
use support::{Daemon, Lot, Mounted, Scratch, here, long, name, now, tree, until, until_within};

const HOSTS: usize = 50;

/// What it is at when it is killed.
#[derive(Clone, Copy)]
enum At {
    Backups,
    Removing,
    /// `prune` alone, slowed down: so it is surely at it.
    Pruning,
}

/// While this file is there, `prune` is slow.
const SLOW: &str = "prune slowly";

/// restic, and what slows its `prune` down: of what it reads again, 5 KiB come in a second.
fn configure(scratch: &Scratch) {
    let script = format!(
        "[ \"$1\" = prune ] && [ -e '{}' ] && set -- \"$@\" --limit-download 5; exec restic \"$@\"",
        scratch.text(SLOW)
    );
    let restic = ["setpriv", "--pdeathsig", "INT", "sh", "-c", script.as_str(), "sh"];
    let roots: Vec<String> =
        (0..HOSTS).map(|n| format!("{:?} = {:?}", name(n), scratch.text(&format!("roots/{n}")))).collect();
    scratch.configure(&format!("restic = {restic:?}\nroots = {{ {} }}", roots.join(", ")), "");
}

fn fill(scratch: &Scratch, night: u64) {
    for n in 0..HOSTS {
        scratch.fill(&format!("roots/{n}/srv"), 4 + n % 3, night * 100 + n as u64);
    }
}

/// Runs the daemon until all hosts have a backup that began after `since` and `more` is so, and kills it in between, each time while
/// restic is at this.
async fn night(scratch: &Scratch, lot: &mut Lot, kills: &[At], since: i64, more: impl Fn() -> bool) {
    let repository = scratch.text("repo");
    for at in kills {
        // Whatever is done by now: there is something left of what it is to be at.
        let (what, commands, least) = match at {
            At::Backups => {
                make_all_due(scratch);
                ("it backs up", &["backup"][..], 0)
            }
            At::Removing => {
                scratch.upkeep_due("main");
                ("it removes", &["forget", "prune"][..], 0)
            }
            At::Pruning => {
                scratch.upkeep_due("main");
                fs::write(scratch.path(SLOW), "").unwrap();
                ("it has pruned for a second", &["prune"][..], 1)
            }
        };
        let is_it = |words: &Vec<String>| words.get(1).is_some_and(|word| commands.contains(&word.as_str()));
        let is_at_it = || running(&repository).iter().any(is_it);
        let daemon = Daemon::start(scratch, &[]);
        let mut seen: Option<Instant> = None;
        until(what, || {
            seen = is_at_it().then(|| seen.unwrap_or_else(Instant::now));
            seen.is_some_and(|seen| seen.elapsed() >= Duration::from_secs(least))
        });
        tokio::time::sleep(Duration::from_millis(lot.below(400))).await;
        if fs::remove_file(scratch.path(SLOW)).is_ok() {
            assert!(is_at_it(), "it prunes as it is killed");
        }
        drop(daemon);
        until("restic ends with the agent", || running(&repository).is_empty());
        scratch.release_claims().await;
    }
    let end = Instant::now() + Duration::from_secs(600);
    let daemon = Daemon::start(scratch, &[]);
    while scratch.done(HOSTS, since) < HOSTS || !more() {
        assert!(
            Instant::now() < end,
            "{} of {HOSTS}; {}",
            scratch.done(HOSTS, since),
            scratch.status().await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    drop(daemon);
    scratch.release_claims().await;
}

async fn policy(scratch: &Scratch, keep: Value) {
    let members: Vec<String> = (0..HOSTS).map(name).collect();
    let document = json!({"paths": ["/srv"], "repositories": ["main"], "keep": keep, "schedule": {"cron": "0 1 * * *"},
        "verify": {"check": "0 5 1 1 *", "read": 100}});
    scratch
        .edit(json!([{"edit": "put_tag", "tag": "backup/nightly", "document": document, "members": members}]))
        .await;
}

/// What was never done is due anyway.
fn make_all_due(scratch: &Scratch) {
    for n in 0..HOSTS {
        if scratch.path("state/hosts").join(name(n)).join("nightly@main.json").exists() {
            scratch.age_of(&name(n), 48);
        }
    }
    scratch.upkeep_due("main");
}

/// A repository of 60 MB in a file system of its own; `None`: none can be mounted here.
fn small_disk(scratch: &Scratch) -> Option<Mounted> {
    let small = scratch.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=60m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIPPED: long: no file system can be mounted here");
        return None;
    }
    let mounted = Mounted(small.clone());
    fs::remove_dir_all(scratch.path("repo")).unwrap();
    fs::create_dir(small.join("repo")).unwrap();
    std::os::unix::fs::symlink(small.join("repo"), scratch.path("repo")).unwrap();
    repository::lay(&scratch.path("repo"));
    Some(mounted)
}

/// restic dies and leaves a lock, for which it was alone in the repository.
fn dead_lock(scratch: &Scratch) {
    // Who was killed in the night may have left one as well, and restic would not be alone.
    until("restic ends with the agent", || running(&scratch.text("repo")).is_empty());
    scratch.restic(&["unlock", "--remove-all"]);
    let mut check = Command::new("restic");
    check.args(["-r", &scratch.text("repo"), "--password-file", &scratch.text("password")]);
    check
        .args(["--limit-download", "1", "check", "--read-data"])
        .env("RESTIC_CACHE_DIR", scratch.path("slow"));
    let mut check = check.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it has its lock", || locks(&scratch.path("repo")) > 0);
    check.kill().unwrap();
    check.wait().unwrap();
}

fn all_come_back(scratch: &Scratch, to: &str) {
    std::thread::scope(|scope| {
        for part in 0..3 {
            scope.spawn(move || {
                for n in (part..HOSTS).step_by(3) {
                    let to = format!("{to}{n}");
                    let (code, said) = scratch.restore(&[&name(n)], &to);
                    assert_eq!(code, 0, "{said}");
                    let from = scratch.path(&format!("roots/{n}/srv"));
                    let there = scratch.path(&to).join(from.display().to_string().trim_start_matches('/'));
                    assert_eq!(tree(&there), tree(&from), "{}", name(n));
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_hosts_through_kills_a_full_disk_a_dead_lock_and_a_broken_pack() {
    if !long("fifty hosts") || !here("long") {
        return;
    }
    let scratch = Scratch::new();
    let Some(_disk) = small_disk(&scratch) else { return };
    configure(&scratch);
    let edits: Vec<Value> = (0..HOSTS)
        .map(|n| json!({"edit": "put_host", "host": name(n), "document": {"box": format!("box{}", n % 5)}}))
        .collect();
    scratch.edit(json!(edits)).await;
    let mut lot = Lot(20_260);
    // The first night: killed during backups.
    fill(&scratch, 1);
    policy(&scratch, json!({})).await;
    night(&scratch, &mut lot, &[At::Backups; 4], 0, || true).await;
    // The second: one host has more than there is room for, the lock of a dead one lies there, and of each host one snapshot is kept, so
    // that it is killed as it removes, too.
    fill(&scratch, 2);
    let large = scratch.path("roots/7/srv/large");
    let noise =
        Command::new("sh").args(["-c", "head -c 80000000 /dev/urandom > \"$0\""]).arg(&large).status();
    assert!(noise.unwrap().success());
    let since = now();
    make_all_due(&scratch);
    policy(&scratch, json!({"last": 1, "cron": "* * * * *"})).await;
    dead_lock(&scratch);
    let mut said = String::new();
    let daemon = Daemon::start(&scratch, &["--tag", "backup/nightly"]);
    // Fifty hosts have their turn, a few at once, and it is one of them that has too much.
    until_within(300, "the full disk is told", || {
        said = fs::read_to_string(scratch.path("log")).unwrap();
        said.contains("no space left") && said.contains("the repository is full")
    });
    drop(daemon);
    fs::remove_file(large).unwrap();
    scratch.release_claims().await;
    let kills = [At::Backups, At::Removing, At::Pruning, At::Backups, At::Pruning, At::Backups];
    night(&scratch, &mut lot, &kills, since, || scratch.snapshots().len() == HOSTS).await;
    assert!(fs::read_to_string(scratch.path("log")).unwrap().contains("broke 1 lock"));
    // What the last one had begun is interrupted, and takes its lock back; of a dead one it is stale, and goes.
    until("nobody is at the repository any more", || {
        scratch.try_restic(&["unlock"]);
        fs::read_dir(scratch.path("repo/locks")).unwrap().next().is_none()
    });
    scratch.restic(&["check", "--read-data"]);
    all_come_back(&scratch, "out");
    // One octet of a pack is another: a check that reads says so, and so does a restore.
    policy(&scratch, json!({})).await;
    let packs = tree(&scratch.path("repo/data"));
    let (pack, mut octets) = packs.into_iter().max_by_key(|(_, octets)| octets.len()).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 0x40;
    let path = scratch.path("repo/data").join(pack);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, octets).unwrap();
    scratch.upkeep_due("proof");
    let (code, said) = scratch.run(&["--once", "--wait", "20s", "--unit", "@main"]);
    assert!(code != 0 && said.contains("check"), "{said}");
}
