//! Many hosts at once, with real restic: never more than so many run, killed in between, and everything comes back; and what is too old shows
//! in metrics and status in time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_store::Store as _;
use support::{Daemon, HOST, Scratch, here, tree, until};

fn name(n: usize) -> String {
    format!("ct{n}.example.com")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_backed_up_so_many_at_once_and_killed_in_between() {
    if !here("fleet") {
        return;
    }
    let long = std::env::var("SHOAL_LONG").is_ok_and(|long| !long.is_empty());
    let count = if long { 50 } else { 9 };
    let scratch = Scratch::new();
    let roots: Vec<String> = (0..count)
        .map(|n| {
            scratch.fill(&format!("roots/{n}/srv"), 5 + n % 4, n as u64);
            format!("{:?} = {:?}", name(n), scratch.text(&format!("roots/{n}")))
        })
        .collect();
    scratch.configure(&format!("per_box = 1\nroots = {{ {} }}", roots.join(", ")), "");
    let mut edits: Vec<Value> = (0..count)
        .map(|n| json!({"edit": "put_host", "host": name(n), "document": {"box": format!("box{}", n % 2)}}))
        .collect();
    let members: Vec<String> = (0..count).map(name).collect();
    let document = json!({"paths": ["/srv"], "repositories": ["main"]});
    edits.push(json!({"edit": "put_tag", "tag": "backup/nightly", "document": document, "members": members}));
    scratch.edit(json!(edits)).await;
    let store = scratch.store().await;
    let done = || {
        let all = scratch.path("state/hosts");
        let good = |n: &usize| {
            let path = all.join(name(*n)).join("nightly@main.json");
            fs::read_to_string(path).is_ok_and(|text| text.contains("\"good\""))
        };
        (0..count).filter(good).count()
    };
    let (mut most, mut kills, end) = (0, 0, Instant::now() + Duration::from_secs(60 + 10 * count as u64));
    let mut daemon = Daemon::start(&scratch, &[]);
    while done() < count {
        assert!(Instant::now() < end, "{} of {count} are done", done());
        for name in ["slot/backup/box/box0", "slot/backup/box/box1"] {
            assert!(store.claims(name).await.unwrap().len() <= 1, "{name}");
        }
        most = most.max(store.claims("slot/backup/repository/main").await.unwrap().len());
        if kills < 2 && done() > kills * count / 3 {
            kills += 1;
            drop(daemon);
            // As if their leases had run out.
            for claim in store.claims("").await.unwrap() {
                store.release(&claim).await.unwrap();
            }
            daemon = Daemon::start(&scratch, &[]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(daemon);
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!(kills, 2);
    for n in 0..count {
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
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _daemon = Daemon::start(&scratch, &["--listen", &format!("127.0.0.1:{port}")]);
    let behind =
        |text: &str, count: u32| text.contains(&format!("shoal_behind{{agent=\"backup\"}} {count}\n"));
    until("it is backed up, and nothing is behind", || {
        let text = metrics(port);
        behind(&text, 0) && text.contains("cause=\"due\",verb=\"note\",")
    });
    let began = scratch.record(|_| {})["main"]["good"].as_i64().unwrap();
    until("it is too old", || behind(&metrics(port), 1));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let late = i64::try_from(now.as_millis()).unwrap() - began - 25_000;
    assert!((0..3_000).contains(&late), "it shows {late} ms after it became too old");
    let end = Instant::now() + Duration::from_secs(30);
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
