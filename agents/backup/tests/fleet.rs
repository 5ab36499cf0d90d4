//! Many hosts at once, with real restic: never more of its processes than so many, killed in between, and everything comes back; and what is
//! too old shows in metrics and status in time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
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

/// Writes a file of this host that cannot be made smaller, new each time.
fn noise(scratch: &Scratch, n: usize) {
    let file = scratch.path(&format!("roots/{n}/srv/noise"));
    let made = Command::new("sh").args(["-c", "head -c 150000 /dev/urandom > \"$0\""]).arg(file).status();
    assert!(made.unwrap().success());
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
        noise(&scratch, n);
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
        noise(&scratch, n);
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
