//! nginx under load: every server is drained and replaced, the agent is killed and nginx reloaded on the way, and no request fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod common;

use std::thread;
use std::time::Duration;

use common::{Backend, Daemon, Nginx, Scratch, WEB, Wrk, answering, fleet, free, has, named, until, web};
use serde_json::json;

/// The fewest requests, each with a connection of its own.
const REQUESTS: u64 = 100_000;

/// Replaces a server by a new one, while the agent is killed and nginx reloaded.
async fn replace(nginx: &Nginx, scratch: &Scratch, old: &str, new: &str) -> Backend {
    let mut daemon = Daemon::start(scratch);
    // The new one first: two have to be left at work.
    let backend = Backend::start(new);
    let document = format!("document: {{address: 127.0.0.1, lb: {{port: {}}}}}", backend.port);
    scratch.apply(&format!("host: {new}\n{document}")).await;
    scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [new]}])).await;
    scratch.edit(json!([{"edit": "set_state", "host": old, "state": "draining"}])).await;
    thread::sleep(Duration::from_millis(400));
    drop(daemon);
    nginx.reload();
    daemon = Daemon::start(scratch);
    until("the old one is gone", || !nginx.file("web").contains(&format!("\"{old}\"")));
    nginx.reload();
    drop(daemon);
    backend
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_every_server_is_replaced() {
    const TEST: &str = "nginx::no_request_fails_while_every_server_is_replaced";
    if !Nginx::is_here(TEST) || !has(TEST, "wrk") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), ", least: 2")).await;
    scratch.converge();
    let load = Wrk::start(port, REQUESTS, true);
    let mut replacements = Vec::new();
    for (turn, old) in WEB.iter().enumerate() {
        replacements.push(replace(&nginx, &scratch, old, &format!("new{turn}.example.com")).await);
    }
    scratch.converge();
    let asked = load.end();
    println!("{asked:?}, a connection each, {} reloads", nginx.reloads());
    assert!(asked.answers >= REQUESTS, "{asked:?}");
    assert_eq!((asked.failed, asked.closed), (0, 0), "{asked:?}");
    for old in WEB {
        assert_eq!(scratch.fact(old).await["drained"], true);
    }
    assert_eq!(answering(port).len(), 3);
    // Connections that are kept: one that is idle may be closed by a reload while a request is on its way to it, and is counted apart.
    let load = Wrk::start(port, 1, false);
    let more = replace(&nginx, &scratch, "new0.example.com", "more0.example.com").await;
    scratch.converge();
    let asked = load.end();
    println!("{asked:?}, connections kept: {} closed by reloads while idle", asked.closed);
    assert_eq!(asked.failed, 0, "{asked:?}");
    assert!(answering(port).contains(&"more0.example.com".to_owned()));
    drop((replacements, more));
}
