//! Many hosts at once, with real restic: never more of its processes than so many, killed in between, and everything comes back; what is
//! too old shows in metrics and status in time, and how far a run is; and who works for one host does for no other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_core::Proposal;
use shoal_store::{Database, Store as _};
use support::repository::running;
use support::{Daemon, HOST, Scratch, free, here, name, now, tree, until};

/// How many hosts, on two physical machines.
const HOSTS: usize = 8;

/// How many ran at once at most: of all, on one physical machine, of one host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Most {
    all: usize,
    machine: usize,
    host: usize,
}

/// Counts until it is told to end.
fn count(repository: &str, done: &AtomicBool) -> Most {
    let mut most = Most::default();
    while !done.load(Ordering::Relaxed) {
        let all = running(repository);
        let of = |words: &Vec<String>| words.iter().skip_while(|word| *word != "--host").nth(1).cloned();
        let hosts: Vec<String> = all.iter().filter_map(of).collect();
        let on = |box_: usize| (0..HOSTS).filter(|n| n % 2 == box_).map(|n| times(&hosts, n)).sum();
        most = Most {
            all: most.all.max(all.len()),
            machine: most.machine.max(on(0)).max(on(1)),
            host: (0..HOSTS).map(|n| times(&hosts, n)).fold(most.host, usize::max),
        };
        std::thread::sleep(Duration::from_millis(5));
    }
    most
}

fn times(hosts: &[String], n: usize) -> usize {
    hosts.iter().filter(|host| **host == name(n)).count()
}

/// restic, slowed down, so that those that may run at once do (two seconds for what a host has new); and these limits.
fn configure(scratch: &Scratch, per_box: usize, parallel: usize) {
    let roots: Vec<String> =
        (0..HOSTS).map(|n| format!("{:?} = {:?}", name(n), scratch.text(&format!("roots/{n}")))).collect();
    let restic = ["setpriv", "--pdeathsig", "INT", "restic", "--limit-upload", "50"];
    scratch.configure(
        &format!("restic = {restic:?}\nper_box = {per_box}\nroots = {{ {} }}", roots.join(", ")),
        "",
    );
    let path = scratch.path("backup.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("parallel = 3", &format!("parallel = {parallel}"))).unwrap();
}

/// Writes a file that cannot be made smaller, new each time.
fn noise(file: &Path, octets: u32) {
    let script = format!("head -c {octets} /dev/urandom > \"$0\"");
    assert!(Command::new("sh").args(["-c", &script]).arg(file).status().unwrap().success());
}

/// The same, of this host.
fn noise_of(scratch: &Scratch, n: usize) {
    noise(&scratch.path(&format!("roots/{n}/srv/noise")), 150_000);
}

/// Runs the daemon until all hosts have a good backup of this night, killed so often in between; answers how many of restic ran at once.
async fn night(scratch: &Scratch, kills: usize) -> Most {
    let (repository, since, done) = (scratch.text("repo"), now(), Arc::new(AtomicBool::new(false)));
    let counting = std::thread::spawn({
        let (repository, done) = (repository.clone(), done.clone());
        move || count(&repository, &done)
    });
    let end = Instant::now() + Duration::from_secs(400);
    let (mut killed, mut daemon) = (0, Daemon::start(scratch, &[]));
    while scratch.done(HOSTS, since) < HOSTS {
        assert!(Instant::now() < end, "{} of {HOSTS} are done", scratch.done(HOSTS, since));
        if killed < kills && scratch.done(HOSTS, since) > killed * HOSTS / 3 {
            killed += 1;
            until("restic is at it", || !running(&repository).is_empty());
            drop(daemon);
            until("restic ends with the agent", || running(&repository).is_empty());
            scratch.release_claims().await;
            daemon = Daemon::start(scratch, &[]);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(daemon);
    until("restic ends with the agent", || running(&repository).is_empty());
    scratch.release_claims().await;
    assert_eq!(killed, kills);
    done.store(true, Ordering::Relaxed);
    counting.join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_backed_up_so_many_at_once_and_killed_in_between() {
    if !here("fleet") {
        return;
    }
    let scratch = Scratch::new();
    for n in 0..HOSTS {
        scratch.fill(&format!("roots/{n}/srv"), 4 + n % 4, n as u64);
        noise_of(&scratch, n);
    }
    let mut edits: Vec<Value> = (0..HOSTS)
        .map(|n| json!({"edit": "put_host", "host": name(n), "document": {"box": format!("box{}", n % 2)}}))
        .collect();
    let members: Vec<String> = (0..HOSTS).map(name).collect();
    let document = json!({"paths": ["/srv"], "repositories": ["main"]});
    edits.push(json!({"edit": "put_tag", "tag": "backup/nightly", "document": document, "members": members}));
    scratch.edit(json!(edits)).await;
    // Each machine may have five at once, and the repository three: it is three, and no more.
    configure(&scratch, 5, 3);
    let most = night(&scratch, 2).await;
    assert!(most.all == 3 && most.machine >= 2 && most.host == 1, "{most:?}");
    // The repository may have five, and each machine one: it is one on each.
    configure(&scratch, 1, 5);
    for n in 0..HOSTS {
        scratch.age_of(&name(n), 48);
        noise_of(&scratch, n);
    }
    let most = night(&scratch, 0).await;
    assert_eq!(most, Most { all: 2, machine: 1, host: 1 });
    for n in 0..HOSTS {
        let to = format!("out{n}");
        let (code, said) = scratch.restore(&[&name(n)], &to);
        assert_eq!(code, 0, "{said}");
        let root = scratch.text(&format!("roots/{n}/srv"));
        let there = scratch.path(&to).join(root.trim_start_matches('/'));
        assert_eq!(tree(&there), tree(&scratch.path(&format!("roots/{n}/srv"))));
    }
}

fn metrics(port: u16) -> String {
    let mut text = String::new();
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return text };
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    if asked.is_ok() {
        let _ = stream.read_to_string(&mut text);
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_shows_in_metrics_and_status_in_time() {
    if !here("fleet") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"schedule": {"cron": "0 1 1 1 *"}, "fresh": "25s"})).await;
    let port = free();
    let _daemon = Daemon::start(&scratch, &["--listen", &format!("127.0.0.1:{port}")]);
    let behind =
        |text: &str, count: u32| text.contains(&format!("shoal_behind{{agent=\"backup\"}} {count}\n"));
    until("it is backed up, and nothing is behind", || {
        let text = metrics(port);
        behind(&text, 0) && text.contains("cause=\"due\",verb=\"note\",")
    });
    // Nobody has restored it, and that can be asked for. It is written down after it is counted.
    let end = Instant::now() + Duration::from_secs(60);
    while scratch.fact().await["nightly@main"]["restored"] != json!("never") {
        assert!(Instant::now() < end, "{}", scratch.fact().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let began = scratch.record(|_| {})["main"]["good"].as_i64().unwrap();
    until("it is too old", || behind(&metrics(port), 1));
    let late = now() - began - 25_000;
    // Never before; and not when everything is looked at next, which is every ten minutes.
    assert!((0..45_000).contains(&late), "it shows {late} ms after it became too old");
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let status = scratch.status().await;
        if status.contains("the last good backup is of") && status.contains("older than 25s") {
            assert!(status.contains(&format!("{HOST} nightly@main")), "{status}");
            break;
        }
        assert!(Instant::now() < end, "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How far a backup is, in percent, and how many MiB there are of it, where that is said.
fn far(said: &str) -> Option<(u64, u64)> {
    let (percent, rest) = said.split_once("backing up: ")?.1.split_once(" %, ")?;
    let (all, _) = rest.split_once(" of ")?.1.split_once(" MiB")?;
    Some((percent.parse().ok()?, all.parse().ok()?))
}

/// A backup that takes a minute and more, and one that takes two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn how_far_it_is_and_how_long_it_took_are_told() {
    if !here("fleet") {
        return;
    }
    let scratch = Scratch::new();
    noise(&scratch.path("files/large"), 8_000_000);
    let sizes: Vec<u64> = tree(&scratch.path("files")).values().map(|file| file.len() as u64).collect();
    let (files, bytes) = (sizes.len() as u64, sizes.iter().sum::<u64>());
    let is_told = |said: &str| far(said).is_some_and(|(percent, all)| percent > 0 && all == bytes >> 20);
    scratch.policy(json!({"schedule": {"cron": "0 1 1 1 *"}})).await;
    let slow = ["setpriv", "--pdeathsig", "KILL", "restic", "--limit-upload", "100"];
    scratch.configure(&format!("restic = {slow:?}"), "");
    // It looks at what runs each second, and not only after ten.
    let daemon = Daemon::start(&scratch, &["--resync", "1s"]);
    let mut plan = String::new();
    until("a plan that is made beside it says how far it is", || {
        plan = scratch.run(&["--plan"]).1;
        is_told(&plan)
    });
    let line = plan.lines().find(|line| is_told(line)).unwrap();
    assert!(line.contains(&format!("{HOST} nightly@main: waiting: ")), "{plan}");
    assert!(line.contains("back-up since ") && line.contains("in another process"), "{plan}");
    let end = Instant::now() + Duration::from_secs(60);
    while !is_told(&scratch.status().await) {
        assert!(Instant::now() < end, "{}", scratch.status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(daemon);
    until("restic ends with the agent", || running(&scratch.text("repo")).is_empty());
    scratch.release_claims().await;
    assert!(scratch.snapshots().is_empty(), "it was not made to its end");
    let script = "restic \"$@\"; code=$?; [ \"$1\" != backup ] || sleep 2; exit $code";
    scratch.configure(&format!("restic = {:?}", ["sh", "-c", script, "sh"]), "");
    let begun = Instant::now();
    scratch.converge();
    let most = begun.elapsed().as_secs();
    let fact = &scratch.fact().await["nightly@main"];
    assert!(fact["seconds"].as_u64().is_some_and(|took| (2..=most).contains(&took)), "{fact} in {most} s");
    assert_eq!((&fact["files"], &fact["bytes"]), (&json!(files), &json!(bytes)));
    assert_eq!(scratch.snapshots(), [fact["snapshot"].as_str().unwrap()]);
}

/// A number among what the agent of this port tells.
fn number(port: u16, name: &str) -> Option<u64> {
    let line = format!("shoal_{name}{{agent=\"backup\"}} ");
    metrics(port).lines().find_map(|told| told.strip_prefix(&line)?.parse().ok())
}

/// How often it was told something, decided something, and looked.
fn woken(port: u16) -> [u64; 3] {
    ["commits_total", "decisions_total", "looks_total"].map(|name| number(port, name).unwrap())
}

/// Two hosts that an agent of this machine could back up: this machine, which it is not told the name of, and another one.
async fn two_hosts(scratch: &Scratch, own: &str, other: &str) {
    scratch.fill("roots/1/srv", 4, 1);
    scratch.configure(&format!("roots = {{ {other:?} = {:?} }}", scratch.text("roots/1")), "");
    let config = scratch.path("backup.toml");
    let text = fs::read_to_string(&config).unwrap();
    let line = format!("host = {HOST:?}\n");
    assert!(text.contains(&line));
    fs::write(config, text.replace(&line, "")).unwrap();
    let policy = json!({"repositories": ["main"], "schedule": {"cron": "0 1 1 1 *"}});
    scratch
        .edit(json!([
            {"edit": "put_host", "host": own, "document": {"backup": {"paths": [scratch.text("files")]}}},
            {"edit": "put_host", "host": other, "document": {"backup": {"paths": ["/srv"]}}},
            {"edit": "put_tag", "tag": "backup/nightly", "document": policy, "members": [own, other]},
        ]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_for_its_own_host_backs_up_that_and_wakes_for_no_other() {
    if !here("fleet") {
        return;
    }
    let scratch = Scratch::new();
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_lowercase();
    let other = name(1);
    two_hosts(&scratch, &own, &other).await;
    let port = free();
    let daemon = Daemon::start(&scratch, &["--host", "self", "--listen", &format!("127.0.0.1:{port}")]);
    let end = Instant::now() + Duration::from_secs(60);
    while !scratch.fact_of(&own).await["nightly@main"]["good"].is_string() {
        assert!(Instant::now() < end, "{}", scratch.status().await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What it wrote itself, it hears of.
    let database = Database::open(Arc::new(scratch.store().await)).await.unwrap();
    let head = scratch.store().await.head().await.unwrap().revision.0;
    until("it rests", || {
        number(port, "seen_revision").is_some_and(|seen| seen >= head) && number(port, "converged") == Some(1)
    });
    assert_eq!(number(port, "items"), Some(1));
    let before = woken(port);
    for n in 0..100 {
        let document = json!({"backup": {"paths": ["/srv"]}, "n": n});
        let edits = json!([{"edit": "put_host", "host": other, "document": document}]);
        let edits = serde_json::from_value(edits).unwrap();
        database.transact(Proposal::new("test", "a test", edits)).await.unwrap();
    }
    let head = scratch.store().await.head().await.unwrap().revision.0;
    until("it knows that they passed", || number(port, "seen_revision").is_some_and(|seen| seen >= head));
    assert_eq!(woken(port), before, "none of them concerns it");
    // One that does is heard.
    let document = json!({"backup": {"paths": [scratch.text("files")]}, "n": 1});
    scratch.edit(json!([{"edit": "put_host", "host": own, "document": document}])).await;
    until("it hears of it", || woken(port)[0] == before[0] + 1);
    drop(daemon);
    scratch.release_claims().await;
    assert!(!scratch.path("state/hosts").join(&other).exists(), "nothing was begun of the other");
    assert_eq!(scratch.snapshots().len(), 1);
    let (code, said) = scratch.restore(&[&own], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
    // It would have been due, and could have been made here.
    let (code, said) = scratch.run(&["--once", "--wait", "90s", "--host", &other]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(scratch.snapshots().len(), 2);
}
