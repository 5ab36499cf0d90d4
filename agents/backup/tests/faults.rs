//! Faults with real restic: killed at random and while space is freed, a full disk, a broken pack, locks of the dead, the living and of
//! others. What was good comes back octet for octet after each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::repository::{self, lay_old_lock, locks, running};
use support::{Daemon, HOST, Lot, Mounted, Scratch, here, until};

/// How often the program is killed.
const KILLS: u64 = 8;

/// As if it had never failed: it is tried again at once. Answers whether it was cut off.
fn forgive(record: &Path) -> bool {
    let Ok(text) = fs::read_to_string(record) else { return false };
    let mut kept: Value = serde_json::from_str(&text).unwrap();
    kept["main"]["failures"] = json!(0);
    fs::write(record, kept.to_string()).unwrap();
    kept["begun"].is_object()
}

/// Writes a file that cannot be made smaller, new each time.
fn noise(file: &Path, octets: u32) {
    let script = format!("head -c {octets} /dev/urandom > \"$0\"");
    assert!(Command::new("sh").args(["-c", &script]).arg(file).status().unwrap().success());
}

#[tokio::test]
async fn killed_at_random_it_goes_on_and_everything_comes_back() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    let document = json!({"schedule": {"cron": "* * * * *"}, "keep": {"last": 2, "cron": "* * * * *"}});
    scratch.policy(document.clone()).await;
    // restic, which writes down that it is called.
    let script = format!("echo >>'{}'; exec restic \"$@\"", scratch.text("calls"));
    let restic = ["setpriv", "--pdeathsig", "INT", "sh", "-c", script.as_str(), "sh"];
    scratch.configure(&format!("restic = {restic:?}"), "");
    let called = || fs::read_to_string(scratch.path("calls")).unwrap_or_default().lines().count();
    let kept = scratch.path("state/hosts").join(HOST).join("nightly@main.json");
    let (mut lot, mut cut) = (Lot(0x9e37_79b9), 0);
    for round in 0..KILLS {
        scratch.fill("files", 60, round);
        // A backup and the upkeep after it are four calls at least. It is killed in one of them, or between two.
        let call = called() + 1 + lot.below(4) as usize;
        let daemon = Daemon::start(&scratch, &[]);
        until("restic is called", || called() >= call);
        std::thread::sleep(Duration::from_millis(lot.below(300)));
        drop(daemon);
        scratch.release_claims().await;
        let cut_off = [&kept, &scratch.path("state/repositories/main.json")].map(|record| forgive(record));
        cut += u64::from(cut_off.contains(&true));
        if kept.exists() {
            scratch.age(1);
        }
        scratch.upkeep_due("main");
    }
    assert!(cut >= KILLS / 4, "of {KILLS} kills {cut} came while something was under way");
    scratch.policy(json!({"schedule": {"cron": "0 1 * * *"}, "keep": {"last": 2}})).await;
    if kept.exists() {
        scratch.age(48);
    }
    scratch.upkeep_due("main");
    scratch.release_claims().await;
    scratch.converge();
    scratch.restic(&["check", "--read-data"]);
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
    let fact = &scratch.fact().await["nightly@main"];
    assert!(scratch.snapshots().contains(&fact["snapshot"].as_str().unwrap().to_owned()), "{fact}");
}

/// How many octets the packs of a repository have; and those that restic is writing: they have another name until they are whole.
fn packed(repository: &Path) -> (u64, u64) {
    let (mut whole, mut half) = (0, 0);
    for folder in fs::read_dir(repository.join("data")).unwrap().flatten() {
        for pack in fs::read_dir(folder.path()).unwrap().flatten() {
            // It may have got its name just now.
            let octets = pack.metadata().map_or(0, |meta| meta.len());
            let of = if pack.file_name().to_string_lossy().contains('-') { &mut half } else { &mut whole };
            *of += octets;
        }
    }
    (whole, half)
}

/// restic of which `prune` says who it is, and nothing else, and is slow: of what this limits, 50 KiB go in a second.
fn prune_slowly(scratch: &Scratch, limit: &str) {
    let script = format!(
        "[ \"$1\" != prune ] || {{ echo $$ >'{}'; set -- \"$@\" -q {limit} 50; }}; exec restic \"$@\"",
        scratch.text("pid")
    );
    let restic = ["setpriv", "--pdeathsig", "INT", "sh", "-c", script.as_str(), "sh"];
    scratch.configure(&format!("restic = {restic:?}"), "");
}

/// Waits until space has been freed for a second, and this is so. What has gone on for that long would for a minute.
fn in_the_middle_of_a_prune(scratch: &Scratch, so: impl Fn() -> bool) {
    let repository = scratch.text("repo");
    let prunes = || running(&repository).iter().any(|words| words.get(1).is_some_and(|word| word == "prune"));
    until("it prunes", prunes);
    let seen = Instant::now();
    until("it is in the middle of it", || seen.elapsed() > Duration::from_secs(1) && so());
    assert!(prunes(), "it is at it still");
}

/// Whatever lies about there: all that the repository has is whole, and the files are what they were.
fn assert_all_is_there(scratch: &Scratch, to: &str) {
    scratch.restic(&["check", "--read-data", "--no-lock"]);
    let (code, said) = scratch.restore(&[HOST], to);
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", to);
}

/// What is kept shares a pack with what goes, so it is read, and written anew. In the middle of the one the agent is killed, in the middle
/// of the other restic is, outright.
#[tokio::test]
async fn killed_while_space_is_freed_nothing_is_lost_and_it_is_freed_after_all() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    let (repository, repo) = (scratch.text("repo"), scratch.path("repo"));
    let upkeep = scratch.path("state/repositories/main.json");
    noise(&scratch.path("files/kept"), 3_000_000);
    noise(&scratch.path("files/gone"), 1_000_000);
    let yearly = json!({"cron": "0 1 1 1 *"});
    scratch.policy(json!({"schedule": yearly})).await;
    scratch.converge();
    fs::remove_file(scratch.path("files/gone")).unwrap();
    scratch.age(9_000);
    scratch.converge();
    let (made, before) = (scratch.snapshots(), packed(&repo).0);
    assert_eq!(made.len(), 2);
    scratch.policy(json!({"schedule": yearly, "keep": {"last": 1}})).await;

    prune_slowly(&scratch, "--limit-download");
    let daemon = Daemon::start(&scratch, &[]);
    in_the_middle_of_a_prune(&scratch, || true);
    drop(daemon);
    until("restic ends with the agent", || running(&repository).is_empty());
    scratch.release_claims().await;
    let kept: Value = serde_json::from_str(&fs::read_to_string(&upkeep).unwrap()).unwrap();
    assert_eq!(kept["begun"]["verb"], json!("prune"), "it was cut off in that: {kept}");
    assert_eq!(locks(&repo), 0, "restic took its lock back");
    assert_all_is_there(&scratch, "after the first");

    prune_slowly(&scratch, "--limit-upload");
    let (half, daemon) = (packed(&repo).1, Daemon::start(&scratch, &[]));
    in_the_middle_of_a_prune(&scratch, || packed(&repo).1 > half);
    let pid = fs::read_to_string(scratch.path("pid")).unwrap();
    assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
    let log = || fs::read_to_string(scratch.path("log")).unwrap();
    until("it is told", || log().contains("restic prune"));
    drop(daemon);
    until("restic ends with the agent", || running(&repository).is_empty());
    scratch.release_claims().await;
    assert_all_is_there(&scratch, "after the second");

    scratch.configure("", "");
    forgive(&upkeep);
    let said = log() + &scratch.converge();
    assert!(said.contains("broke 1 lock"), "of the one that was killed outright: {said}");
    assert_eq!(scratch.snapshots(), made[1..]);
    let after = packed(&repo).0;
    assert!(after + 900_000 < before, "the space of what is gone is free: {before}, {after}");
    assert_eq!(locks(&repo), 0);
    assert_all_is_there(&scratch, "after all");
}

/// restic that is killed in the middle of a backup, here or (as far as its lock says) on another machine.
fn killed_with_its_lock(scratch: &Scratch, elsewhere: bool) {
    let (repo, password) = (scratch.text("repo"), scratch.text("password"));
    let restic =
        format!("exec restic -r '{repo}' --password-file '{password}' backup -q --stdin --stdin-filename x");
    let mut command = match elsewhere {
        true => {
            let mut command = Command::new("unshare");
            command.args(["--uts", "sh", "-c", &format!("hostname elsewhere; {restic}")]);
            command
        }
        false => {
            let mut command = Command::new("sh");
            command.args(["-c", &restic]);
            command
        }
    };
    let mut child =
        command.env("RESTIC_CACHE_DIR", scratch.path("cache")).stdin(Stdio::piped()).spawn().unwrap();
    until("it has its lock", || locks(&scratch.path("repo")) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read_dir(scratch.path("repo/locks")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_dead_process_lock_is_broken_and_anothers_is_not() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"keep": {"last": 1}})).await;
    // Removing needs the repository alone: any lock is in its way.
    killed_with_its_lock(&scratch, false);
    let said = scratch.converge();
    assert!(said.contains("broke 1 lock"), "{said}");
    assert_eq!(fs::read_dir(scratch.path("repo/locks")).unwrap().count(), 0);
    if !Command::new("unshare").args(["--uts", "true"]).status().is_ok_and(|status| status.success()) {
        println!("SKIPPED: a lock of another machine: no name of one's own can be had here");
        return;
    }
    killed_with_its_lock(&scratch, true);
    scratch.upkeep_due("main");
    let said = scratch.fails_with("on elsewhere");
    assert!(said.contains("restic unlock"), "{said}");
    assert_eq!(fs::read_dir(scratch.path("repo/locks")).unwrap().count(), 1, "it stays");
}

/// restic that backs up what it is told, by hand, and has its lock until no more is said.
fn alive_with_its_lock(scratch: &Scratch) -> Child {
    let mut command = Command::new("restic");
    command.args(["-r", &scratch.text("repo"), "--password-file", &scratch.text("password")]);
    command.args(["backup", "-q", "--stdin", "--stdin-filename", "x"]).stdin(Stdio::piped());
    let mut child = command.env("RESTIC_CACHE_DIR", scratch.path("cache")).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    until("it has its lock", || locks(&scratch.path("repo")) > 0);
    child
}

#[tokio::test]
async fn the_lock_of_one_that_lives_is_in_the_way_until_it_has_ended() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"keep": {"last": 1}})).await;
    let mut other = alive_with_its_lock(&scratch);
    let said = scratch.fails_with("is in the way");
    assert!(said.contains(&format!("a lock of process {} on ", other.id())), "{said}");
    assert!(!said.contains("broke "), "{said}");
    assert!(other.try_wait().unwrap().is_none(), "it goes on");
    assert_eq!(locks(&scratch.path("repo")), 1, "and has its lock");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2, "its own, and the other's");
}

#[tokio::test]
async fn a_dead_process_lock_stays_where_restic_would_break_anothers_with_it() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"keep": {"last": 1}})).await;
    killed_with_its_lock(&scratch, false);
    lay_old_lock(&scratch.path("repo"));
    let said =
        scratch.fails_with("a lock of process 7 on elsewhere since 2020-01-01T00:00:00Z is in the way");
    assert!(said.contains("restic unlock") && !said.contains("broke "), "{said}");
    assert_eq!(locks(&scratch.path("repo")), 2, "both stay");
    // A person who knows better has restic do it, which does not ask.
    scratch.restic(&["unlock"]);
    assert_eq!(locks(&scratch.path("repo")), 0);
    scratch.converge();
}

#[tokio::test]
async fn a_broken_pack_is_found_by_a_check_that_reads() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"verify": {"check": "0 5 * * *", "read": 100}})).await;
    scratch.converge();
    let pack =
        support::tree(&scratch.path("repo/data")).into_iter().max_by_key(|(_, octets)| octets.len()).unwrap();
    let path = scratch.path("repo/data").join(pack.0);
    let mut octets = pack.1;
    let middle = octets.len() / 2;
    octets[middle] ^= 0x40;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, octets).unwrap();
    scratch.upkeep_due("proof");
    let said = scratch.fails_with("check failed");
    assert!(said.contains("repository main"), "{said}");
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 1, "a restore does not pass off broken files as good ones: {said}");
}

#[tokio::test]
async fn a_repository_that_is_full_says_so_and_what_was_good_comes_back() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    let small = scratch.path("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "none"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIPPED: a full disk: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(small.clone());
    fs::remove_dir_all(scratch.path("repo")).unwrap();
    fs::create_dir(small.join("repo")).unwrap();
    std::os::unix::fs::symlink(small.join("repo"), scratch.path("repo")).unwrap();
    repository::lay(&scratch.path("repo"));
    scratch.policy(json!({"fresh": "26h"})).await;
    scratch.converge();
    let before = support::tree(&scratch.path("files"));
    noise(&scratch.path("files/large"), 8_000_000);
    scratch.age(48);
    let said = scratch.fails_with("no space left");
    assert!(said.contains("the repository is full"), "{said}");
    scratch.fails_and_reports("older than 26h").await;
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    let out = scratch.path("out").join(scratch.text("files").trim_start_matches('/'));
    assert_eq!(support::tree(&out), before);
}

#[tokio::test]
async fn told_to_stop_it_ends_what_runs_in_order() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    noise(&scratch.path("files/large"), 100_000_000);
    // 100 MB take at least ten seconds, whatever the machine.
    let restic = ["setpriv", "--pdeathsig", "INT", "restic", "--limit-upload", "9000"];
    scratch.configure(&format!("restic = {restic:?}"), "");
    scratch.policy(json!({})).await;
    let mut daemon = Daemon::start(&scratch, &[]);
    until("restic is at it", || locks(&scratch.path("repo")) > 0);
    std::thread::sleep(Duration::from_secs(1));
    let told = Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]).status();
    assert!(told.unwrap().success() && daemon.0.wait().unwrap().success());
    assert_eq!(fs::read_dir(scratch.path("repo/locks")).unwrap().count(), 0, "restic took its lock back");
    let record = scratch.record(|_| {});
    assert!(scratch.snapshots().is_empty(), "it was not made to its end");
    // It did not fail, and is due as before.
    assert!(record["begun"].is_null() && record["main"]["failures"] == json!(0), "{record}");
    scratch.configure("", "");
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
}
