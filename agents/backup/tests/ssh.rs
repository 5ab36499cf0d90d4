//! Hosts that are backed up over SSH, with real sshds: what is made, that no secret shows and no stranger is spoken to, and connections that
//! are lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::repository::{self, PASSWORD, WHISPERED};
use support::sshd::Sshd;
use support::{Daemon, Scratch, here, tamper, until};

fn name(n: usize) -> String {
    format!("far{n}.example.com")
}

/// Machines, each with an sshd of its own, and a control node that knows them. Their files are in folders of their own.
fn machines(scratch: &Scratch, count: usize) -> Vec<Sshd> {
    let all: Vec<Sshd> =
        (0..count).map(|n| Sshd::start(&scratch.path(&format!("sshd{n}")), &name(n))).collect();
    let gather = |of: &dyn Fn(&Sshd) -> String| all.iter().map(of).collect::<String>();
    fs::write(scratch.path("ssh_config"), gather(&|one| fs::read_to_string(&one.config).unwrap())).unwrap();
    fs::write(scratch.path("known_hosts"), gather(&|one| fs::read_to_string(&one.known_hosts).unwrap()))
        .unwrap();
    let ssh = format!(
        "[agent.ssh]\nhosts = [\"*.example.com\"]\nconfig = {:?}\nknown_hosts = {:?}\nstate = {:?}\nconnect = \"5s\"\n\
         restic = [\"restic\", \"--limit-upload\", \"30000\"]\n\
         [agent.dumps]\nsql = [\"sh\", \"-c\", \"seq 1000; echo \\\"$0's\\\"\", \"{{name}}\"]\n",
        scratch.path("ssh_config"),
        scratch.path("known_hosts"),
        scratch.path("over there"),
    );
    scratch.configure("", &ssh);
    all
}

async fn policy(scratch: &Scratch, count: usize, more: Value) {
    let mut document = json!({"repositories": ["main"], "excludes": ["it's not *"]});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut edits: Vec<Value> = Vec::new();
    for n in 0..count {
        let paths = json!([scratch.text(&format!("far{n}/it's here"))]);
        edits.push(json!({"edit": "put_host", "host": name(n), "document": {"backup": {"paths": paths}}}));
    }
    let members: Vec<String> = (0..count).map(name).collect();
    edits.push(json!({"edit": "put_tag", "tag": "backup/nightly", "document": document, "members": members}));
    scratch.edit(json!(edits)).await;
}

fn assert_restored(scratch: &Scratch, n: usize, to: &str) {
    let (code, said) = scratch.restore(&[&name(n)], to);
    assert_eq!(code, 0, "{said}");
    let inner = scratch.text(&format!("far{n}/it's here"));
    assert_eq!(
        support::tree(&scratch.path(to).join(inner.trim_start_matches('/'))),
        support::tree(&scratch.path(&format!("far{n}/it's here")))
    );
}

/// Looks through all processes for the password until told to end; answers where it was seen.
fn watch(done: &AtomicBool, password: &str) -> Vec<String> {
    let mut seen = Vec::new();
    while !done.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            for file in ["cmdline", "environ"] {
                let text = fs::read(process.path().join(file)).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                if text.contains(password) {
                    seen.push(format!("{file}: {text}"));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    seen
}

#[tokio::test]
async fn hosts_are_backed_up_over_ssh_and_come_back_and_no_secret_shows() {
    if !here("ssh") || !Sshd::here("ssh") {
        return;
    }
    let scratch = Scratch::new();
    let all = machines(&scratch, 3);
    for n in 0..3 {
        scratch.fill(&format!("far{n}/it's here"), 12, n as u64);
    }
    policy(&scratch, 3, json!({"dumps": {"sql": ["koji"]}, "verify": {"restore": "720h", "sample": 4}}))
        .await;
    let done = AtomicBool::new(false);
    // On this machine restic gets its password by its environment, of other tests too: never this one.
    scratch.password(WHISPERED);
    let seen = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(&done, WHISPERED));
        scratch.converge();
        done.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    });
    assert_eq!(seen, Vec::<String>::new());
    scratch.password(PASSWORD);
    let listed = scratch.restic(&["snapshots", "--json", "--no-lock"]);
    for n in 0..3 {
        assert!(listed.contains(&format!("\"hostname\":\"{}\"", name(n))), "{listed}");
        assert_restored(&scratch, n, &format!("out{n}"));
        let dump = scratch.path(&format!("out{n}")).join(
            scratch
                .text(&format!("over there/hosts/{}/spool/nightly@main/sql.koji", name(n)))
                .trim_start_matches('/'),
        );
        assert!(fs::read_to_string(dump).unwrap().ends_with("1000\nkoji's\n"));
        let fact = scratch.fact_of(&name(n)).await;
        assert!(fact["nightly@main"]["restored"] != json!("never"), "{fact}");
    }
    // What is not as it should be over there is a fault, and no backup.
    fs::rename(scratch.path("far1/it's here"), scratch.path("away")).unwrap();
    scratch.age_of(&name(1), 48);
    scratch.fails_with("far1/it's here is missing");
    fs::create_dir(scratch.path("far1/it's here")).unwrap();
    scratch.fill("away/more", 60, 1);
    fs::remove_dir(scratch.path("far1/it's here")).unwrap();
    fs::rename(scratch.path("away"), scratch.path("far1/it's here")).unwrap();
    scratch.converge();
    assert_restored(&scratch, 1, "again");
    drop(all);
}

#[tokio::test]
async fn a_test_of_restoring_over_there_that_finds_a_difference_is_a_fault_and_proves_nothing() {
    if !here("ssh") || !Sshd::here("ssh") {
        return;
    }
    let scratch = Scratch::new();
    let _all = machines(&scratch, 1);
    scratch.fill("far0/it's here", 3, 0);
    policy(&scratch, 1, json!({})).await;
    scratch.converge();
    // Other octets than the snapshot has, of the same size and time.
    let file = scratch.path("far0/it's here/file 1");
    tamper(&file);
    policy(&scratch, 1, json!({"verify": {"restore": "720h", "sample": 9}})).await;
    let said = scratch.fails_with("restored otherwise");
    assert!(said.contains(&format!("differs {}", file.display())), "{said}");
    let fact =
        scratch.fails_and_tells(&name(0), |fact| fact["nightly@main"]["restore_failed"].is_object()).await;
    assert_eq!(fact["nightly@main"]["restored"], json!("never"), "{fact}");
    // It was this file alone.
    tamper(&file);
    scratch.record_of(&name(0), |record| record["proof"]["failures"] = json!(0));
    scratch.converge();
    let fact = scratch.fact_of(&name(0)).await;
    assert!(fact["nightly@main"]["restored"] != json!("never"), "{fact}");
    assert_eq!(scratch.snapshots().len(), 1);
}

#[tokio::test]
async fn a_machine_whose_key_is_not_the_known_one_is_not_spoken_to() {
    if !here("ssh") || !Sshd::here("ssh") {
        return;
    }
    let scratch = Scratch::new();
    let _all = machines(&scratch, 2);
    for n in 0..2 {
        scratch.fill(&format!("far{n}/it's here"), 3, n as u64);
    }
    let known = fs::read_to_string(scratch.path("known_hosts")).unwrap();
    // One has another's key; one is not known at all.
    let line = |name: &str| known.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let stranger = line(&name(1)).replace(&name(1), &name(0));
    fs::write(scratch.path("known_hosts"), format!("{stranger}\n")).unwrap();
    policy(&scratch, 2, json!({})).await;
    let said = scratch.fails();
    for n in 0..2 {
        assert!(said.contains(&format!("the connection to {} failed or was lost", name(n))), "{said}");
    }
    assert!(said.contains("nothing was sent"), "{said}");
    assert!(!scratch.path("over there").exists(), "nothing was done there");
    assert_eq!(
        fs::read_to_string(scratch.path("known_hosts")).unwrap(),
        format!("{stranger}\n"),
        "nothing is learnt"
    );
    fs::write(scratch.path("known_hosts"), known).unwrap();
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2);
}

fn locks(scratch: &Scratch) -> usize {
    repository::locks(&scratch.path("repo"))
}

#[tokio::test]
async fn a_lost_connection_a_killed_agent_and_a_dead_lock_are_got_over() {
    if !here("ssh") || !Sshd::here("ssh") {
        return;
    }
    let scratch = Scratch::new();
    let all = machines(&scratch, 1);
    scratch.fill("far0/it's here", 5, 1);
    let large = scratch.path("far0/it's here/large");
    let noise = |octets: u32| {
        let script = format!("head -c {octets} /dev/urandom > \"$0\"");
        assert!(Command::new("sh").args(["-c", &script]).arg(&large).status().unwrap().success());
    };
    // Ten seconds at least, as restic is called over there.
    noise(300_000_000);
    policy(&scratch, 1, json!({})).await;
    // The network goes in the middle.
    let mut daemon = Daemon::start(&scratch, &[]);
    until("restic is at it", || locks(&scratch) > 0);
    std::thread::sleep(Duration::from_millis(700));
    all[0].cut();
    until("the loss is told", || {
        fs::read_to_string(scratch.path("log"))
            .unwrap()
            .contains("the connection to far0.example.com failed or was lost")
    });
    until("restic over there took its lock back", || locks(&scratch) == 0);
    // The agent is killed in the middle.
    all[0].again();
    until("restic is at it again", || locks(&scratch) > 0);
    std::thread::sleep(Duration::from_millis(700));
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    until("restic over there took its lock back", || locks(&scratch) == 0);
    assert!(scratch.snapshots().is_empty());
    noise(1_000);
    // A run of a connection that is lost may go on for a while.
    let lock = scratch.path(&format!("over there/hosts/{}/lock", name(0)));
    let mut other = Command::new("flock");
    other.arg(&lock).args(["sleep", "300"]);
    let mut other = other.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // It calls what it was given once it has the lock.
    let inner = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", other.id())).unwrap();
    until("it has the lock", || !inner().trim().is_empty());
    scratch.release_claims().await;
    scratch.fails_with("a run whose connection was lost is still at it");
    let inner = inner();
    assert!(Command::new("kill").args(inner.split_whitespace()).status().unwrap().success());
    other.wait().unwrap();
    // An exclusive lock of a process over there that is dead. It had a thousand seconds' work to do.
    let ballast = scratch.text("ballast");
    let made = Command::new("sh").args(["-c", "head -c 1000000 /dev/urandom > \"$0\"", &ballast]).status();
    assert!(made.unwrap().success());
    scratch.restic(&["backup", "-q", "--host", "another", &ballast]);
    let mut check = Command::new("restic");
    check.args(["-r", &scratch.text("repo"), "--password-file", &scratch.text("password")]);
    check
        .args(["--limit-download", "1", "check", "--read-data"])
        .env("RESTIC_CACHE_DIR", scratch.path("slow"));
    let mut check = check.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("it has its lock", || locks(&scratch) > 0);
    check.kill().unwrap();
    check.wait().unwrap();
    assert_eq!(locks(&scratch), 1);
    let said = scratch.converge();
    assert!(said.contains("broke 1 lock"), "{said}");
    assert_restored(&scratch, 0, "out");
}
