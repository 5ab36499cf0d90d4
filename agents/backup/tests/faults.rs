//! Faults with real restic: killed at random, a full disk, a broken pack, locks of the dead and of others. What was good comes back octet for
//! octet after each.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use support::{Daemon, HOST, Scratch, here, until};

/// How often the program is killed.
const KILLS: u64 = 8;

#[tokio::test]
async fn killed_at_random_it_goes_on_and_everything_comes_back() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    let document = json!({"schedule": {"cron": "* * * * *"}, "keep": {"last": 2, "cron": "* * * * *"}});
    scratch.policy(document.clone()).await;
    let mut lot = 0x9e37_79b9_u64;
    for round in 0..KILLS {
        scratch.fill("files", 60, round);
        let daemon = Daemon::start(&scratch, &[]);
        lot = lot.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(400 + lot % 4_000));
        drop(daemon);
        // Each of its claims would last a minute.
        release_claims(&scratch).await;
        if scratch.path("state/hosts").join(HOST).join("nightly@main.json").exists() {
            scratch.age(1);
        }
    }
    scratch.policy(json!({"schedule": {"cron": "0 1 * * *"}, "keep": {"last": 2}})).await;
    if scratch.path("state/hosts").join(HOST).join("nightly@main.json").exists() {
        scratch.age(48);
    }
    scratch.upkeep_due("main");
    release_claims(&scratch).await;
    scratch.converge();
    scratch.restic(&["check", "--read-data"]);
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
    let fact = &scratch.fact().await["nightly@main"];
    assert!(scratch.snapshots().contains(&fact["snapshot"].as_str().unwrap().to_owned()), "{fact}");
}

/// As if their leases had run out.
async fn release_claims(scratch: &Scratch) {
    use shoal_store::Store as _;
    let store = scratch.store().await;
    for claim in store.claims("").await.unwrap() {
        store.release(&claim).await.unwrap();
    }
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
    until("it begins its lock", || fs::read_dir(scratch.path("repo/locks")).unwrap().next().is_some());
    // A lock that is half written is none.
    std::thread::sleep(Duration::from_secs(2));
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
    let said = scratch.fails();
    assert!(said.contains("on elsewhere") && said.contains("restic unlock"), "{said}");
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
    let said = scratch.fails();
    assert!(said.contains("check") && said.contains("repository main"), "{said}");
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
    scratch.restic(&["init"]);
    scratch.policy(json!({"fresh": "26h"})).await;
    scratch.converge();
    let before = support::tree(&scratch.path("files"));
    let noise = Command::new("sh")
        .args(["-c", "head -c 8000000 /dev/urandom > \"$0\""])
        .arg(scratch.path("files/large"))
        .status();
    assert!(noise.unwrap().success());
    scratch.age(48);
    let said = scratch.fails();
    assert!(said.contains("no space left") && said.contains("the repository is full"), "{said}");
    scratch.fails_and_reports("older than 26h").await;
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    let out = scratch.path("out").join(scratch.text("files").trim_start_matches('/'));
    assert_eq!(support::tree(&out), before);
}

/// A file system, taken away when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn told_to_stop_it_ends_what_runs_in_order() {
    if !here("faults") {
        return;
    }
    let scratch = Scratch::new();
    let noise = Command::new("sh")
        .args(["-c", "head -c 300000000 /dev/urandom > \"$0\""])
        .arg(scratch.path("files/large"))
        .status();
    assert!(noise.unwrap().success());
    scratch.policy(json!({})).await;
    let mut daemon = Daemon::start(&scratch, &[]);
    until("restic is at it", || fs::read_dir(scratch.path("repo/locks")).unwrap().next().is_some());
    std::thread::sleep(Duration::from_secs(1));
    let told = Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]).status();
    assert!(told.unwrap().success() && daemon.0.wait().unwrap().success());
    assert_eq!(fs::read_dir(scratch.path("repo/locks")).unwrap().count(), 0, "restic took its lock back");
    let record = scratch.record(|_| {});
    assert!(scratch.snapshots().is_empty(), "300 MB take longer than that");
    // It did not fail, and is due as before.
    assert!(record["begun"].is_null() && record["main"]["failures"] == json!(0), "{record}");
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
}
