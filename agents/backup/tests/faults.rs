//! Faults with real restic: killed at random, a full disk, a broken pack, locks of the dead and of others. What was good comes back octet for
//! octet after each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::repository::{self, locks};
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
    let noise = Command::new("sh")
        .args(["-c", "head -c 8000000 /dev/urandom > \"$0\""])
        .arg(scratch.path("files/large"))
        .status();
    assert!(noise.unwrap().success());
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
    let noise = Command::new("sh")
        .args(["-c", "head -c 100000000 /dev/urandom > \"$0\""])
        .arg(scratch.path("files/large"))
        .status();
    assert!(noise.unwrap().success());
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
