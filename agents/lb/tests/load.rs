//! HAProxy under load: every server is drained and replaced, the agent is killed and HAProxy reloaded on the way, and no request fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod common;
#[path = "common/held.rs"]
mod held;

use common::{Backend, Daemon, HaProxy, Scratch, WEB, Wrk, answering, fleet, free, has, named, until, web};
use held::Held;
use serde_json::json;

/// The fewest requests, each with a connection of its own.
const REQUESTS: u64 = 100_000;
/// Requests are held for as long as replacing three servers takes.
const PATIENT: &str = "defaults\n  mode http\n  timeout connect 2s\n  timeout client 300s\n  \
    timeout server 300s\n  retries 3\n  option redispatch\n";

/// Whether a server gets no new work, by the file that HAProxy would read, and is there.
fn drains(haproxy: &HaProxy, host: &str) -> bool {
    haproxy.file("web").lines().any(|line| line.contains(host) && line.contains(" weight 0 "))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_every_server_is_replaced() {
    const TEST: &str = "no_request_fails_while_every_server_is_replaced";
    if !has(TEST, "haproxy") || !has(TEST, "wrk") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(PATIENT), web(), free());
    let scratch = Scratch::new(&haproxy.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), ", least: 2, drain: 300")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB);
    let load = Wrk::start(port, REQUESTS);
    let (mut servers, mut held) = (Vec::from(backends), Held::default());
    let mut daemon = Daemon::start(&scratch);
    for (turn, name) in WEB.iter().enumerate() {
        // The new one first: two have to be left at work.
        let new = format!("new{turn}.example.com");
        let backend = Backend::start(&new);
        let document = format!("document: {{address: 127.0.0.1, lb: {{port: {}}}}}", backend.port);
        scratch.apply(&format!("host: {new}\n{document}")).await;
        scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [new]}])).await;
        servers.push(backend);
        held.at(port, &servers, turn);
        scratch.edit(json!([{"edit": "set_state", "host": name, "state": "draining"}])).await;
        until("it drains", || drains(&haproxy, name));
        drop(daemon);
        // It holds a request, so whoever was killed was in the middle of taking it out.
        assert!(drains(&haproxy, name), "{}", haproxy.file("web"));
        assert_eq!(scratch.fact(name).await["drained"], false);
        haproxy.reload();
        daemon = Daemon::start(&scratch);
        servers[turn].release();
        until("the old one is gone", || !haproxy.file("web").contains(name));
        haproxy.reload();
    }
    drop(daemon);
    scratch.converge();
    let asked = load.end();
    println!("{asked:?}, a connection each, {} more were held meanwhile", held.end(&servers));
    assert!(asked.answers >= REQUESTS, "{asked:?}");
    assert_eq!((asked.failed, asked.closed), (0, 0), "{asked:?}");
    assert_eq!(answering(port), [0, 1, 2].map(|turn| format!("new{turn}.example.com")));
    assert_eq!(haproxy.servers("web").len(), 3);
    for name in WEB {
        assert_eq!(scratch.fact(name).await["drained"], true);
    }
}
