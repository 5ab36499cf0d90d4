//! Leaving a real HAProxy: no new work, connections go on until they end or the deadline comes, whoever restarts meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{
    Backend, Daemon, HaProxy, Scratch, WEB, answering, fleet, free, get, has, hold, leaves_by, left, named,
    others, retire, until, waits, web,
};
use serde_json::json;

/// HAProxy with a pool of three, all at work.
async fn working(more: &str) -> (HaProxy, [Backend; 3], u16, Scratch) {
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    // One that is killed keeps its claim for so long.
    let scratch = Scratch::new(&haproxy.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), more)).await;
    scratch.converge();
    (haproxy, backends, port, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_is_waited_for_across_a_reload() {
    if !has("an_open_connection_is_waited_for_across_a_reload", "haproxy") {
        return;
    }
    let (haproxy, backends, port, scratch) = working(", drain: 300").await;
    let (at, request) = hold(port, &backends);
    retire(&scratch, WEB[at]).await;
    waits(&scratch, &format!("waiting: 1 connection on {}, ", WEB[at]));
    let (_, said) = scratch.run(&["--plan"]);
    assert!(said.contains(&format!("waiting: 1 connection on {}, ", WEB[at])), "{said}");
    assert_eq!(answering(port), others(at));
    assert_eq!(scratch.fact(WEB[at]).await["pools"]["web"], "draining");
    // The process that has the connection is left behind; the new one gives the server no work.
    haproxy.reload();
    assert_eq!(answering(port), others(at));
    waits(&scratch, &format!("waiting: 1 connection on {}", WEB[at]));
    assert_eq!((answering(port), haproxy.servers("web").len()), (others(at), 3));
    backends[at].release();
    assert_eq!(request.join().unwrap().unwrap(), WEB[at]);
    scratch.converge();
    assert_eq!((answering(port), haproxy.servers("web").len()), (others(at), 2));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_loses_nothing_and_the_deadline_does_not_begin_anew() {
    if !has("a_restart_loses_nothing_and_the_deadline_does_not_begin_anew", "haproxy") {
        return;
    }
    let (mut haproxy, backends, port, scratch) = working(", drain: 60").await;
    let (at, request) = hold(port, &backends);
    retire(&scratch, WEB[at]).await;
    let begun = Instant::now();
    let before = left(&waits(&scratch, "waiting: 1 connection"));
    // Made ready behind Shoal's back, it drains again until the same deadline, which has come nearer by these seconds at least.
    thread::sleep(Duration::from_secs(3));
    haproxy.tell(&format!("set server web/{} state ready", WEB[at]));
    let after = left(&waits(&scratch, "waiting: 1 connection"));
    assert!(after + 2 <= before, "{before} s, then {after} s");
    assert_eq!(answering(port), others(at));
    scratch.converge();
    // Converging gives up after a minute and a half, so the deadline came; and not too early, by two clocks.
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(57), "{took:?}");
    // Neither the backend nor who asks has given up: HAProxy closed it.
    assert!(request.join().unwrap().is_err(), "its connection was not closed");
    assert_eq!((answering(port), haproxy.servers("web").len()), (others(at), 2));
    // Another one; HAProxy dies in the middle, and what it had with it.
    backends.iter().for_each(Backend::release);
    let next = (at + 1) % 3;
    let (code, _) = {
        retire(&scratch, WEB[next]).await;
        haproxy.kill();
        scratch.run(&["--once", "--wait", "1s"])
    };
    assert_ne!(code, 0, "nobody can say that it has drained");
    haproxy.run();
    let last = 3 - at - next;
    scratch.converge();
    assert_eq!((answering(port), haproxy.servers("web").len()), (vec![WEB[last].to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drains_gets_no_work_of_an_haproxy_that_is_started_anew() {
    if !has("who_drains_gets_no_work_of_an_haproxy_that_is_started_anew", "haproxy") {
        return;
    }
    let (mut haproxy, backends, port, scratch) = working(", drain: 300").await;
    let (at, request) = hold(port, &backends);
    retire(&scratch, WEB[at]).await;
    waits(&scratch, "waiting: 1 connection");
    haproxy.kill();
    assert!(request.join().unwrap().is_err());
    haproxy.run();
    // No agent runs: what it knows stands in its files.
    assert_eq!((answering(port), haproxy.servers("web").len()), (others(at), 3));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], false);
    scratch.converge();
    assert_eq!((answering(port), haproxy.servers("web").len()), (others(at), 2));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_any_more_or_deleted_is_waited_for_while_others_change() {
    if !has("who_is_no_member_any_more_or_deleted_is_waited_for_while_others_change", "haproxy") {
        return;
    }
    let (haproxy, backends, port, scratch) = working(", drain: 300").await;
    let (worker, file) = (haproxy.pid(), || haproxy.file("web"));
    let daemon = Daemon::start(&scratch);
    let remove = |host: &str| json!({"edit": "remove_members", "tag": "lb/web", "members": [host]});
    let removed = leaves_by(&scratch, port, &backends, file, remove).await;
    let delete = |host: &str| json!({"edit": "delete", "key": format!("hosts/{host}")});
    let deleted = leaves_by(&scratch, port, &backends, file, delete).await;
    drop(daemon);
    scratch.converge();
    let last = WEB[3 - removed - deleted];
    assert_eq!(answering(port), [last]);
    let servers = haproxy.servers("web");
    let weight = format!(" weight {} ", 40 + deleted);
    assert!(servers.len() == 1 && servers[0].contains(&weight), "{servers:?}");
    assert_eq!(haproxy.pid(), worker, "it was reloaded");
    for at in [removed, deleted] {
        assert_eq!(scratch.fact(WEB[at]).await["drained"], true, "{}", WEB[at]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_that_the_pool_cannot_do_without() {
    if !has("nobody_leaves_that_the_pool_cannot_do_without", "haproxy") {
        return;
    }
    let (haproxy, _backends, port, scratch) = working(", least: 2").await;
    retire(&scratch, WEB[0]).await;
    retire(&scratch, WEB[1]).await;
    waits(&scratch, "a server to spare");
    assert_eq!(answering(port).len(), 2);
    // Not the other one either, one after the other.
    waits(&scratch, "a server to spare");
    assert_eq!((answering(port).len(), haproxy.servers("web").len()), (2, 2));
    // One comes back, and the other may go.
    scratch.edit(json!([{"edit": "set_state", "host": WEB[0], "state": "active"}])).await;
    scratch.converge();
    assert_eq!(answering(port), [WEB[0], WEB[2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_nobody_to_fall_back_on() {
    if !has("a_server_that_is_down_is_nobody_to_fall_back_on", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    let check = ", check: {path: /health, interval: 1, rise: 1, fall: 5}, slow_start: 1";
    scratch.apply(&fleet(port, &named(&backends[..1]), check)).await;
    scratch.converge();
    // The second is added at run time, is checked as the first, and does not answer.
    let dead = format!("document: {{address: 127.0.0.1, lb: {{port: {}}}}}", free());
    scratch.apply(&format!("host: {}\n{dead}", WEB[1])).await;
    scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [WEB[1]]}])).await;
    scratch.converge();
    until("it is down", || {
        haproxy.tell("show stat web 4 -1").lines().any(|l| l.contains(WEB[1]) && l.contains("DOWN"))
    });
    retire(&scratch, WEB[0]).await;
    waits(&scratch, "a server to spare");
    assert_eq!(answering(port), [WEB[0]]);
    // The dead one may go at any time.
    scratch.edit(json!([{"edit": "set_state", "host": WEB[0], "state": "active"}])).await;
    retire(&scratch, WEB[1]).await;
    scratch.converge();
    assert_eq!(haproxy.servers("web").len(), 1);
}

/// Asks again and again until it is told to stop: how many answers there were, and which failures.
fn ask_on(port: u16) -> (Arc<AtomicBool>, JoinHandle<(usize, Vec<String>)>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let asks = move || {
        let (mut good, mut bad) = (0, Vec::new());
        while !told.load(Ordering::Relaxed) || (good <= 1_000 && bad.is_empty()) {
            match get(port, "/") {
                Ok(_) => good += 1,
                Err(why) => bad.push(why),
            }
        }
        (good, bad)
    };
    (stop, thread::spawn(asks))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_at_any_time_ends_where_it_would_have() {
    if !has("an_agent_that_is_killed_at_any_time_ends_where_it_would_have", "haproxy") {
        return;
    }
    let (haproxy, _backends, port, scratch) = working(", drain: 30, balance: random").await;
    let (stop, asks) = ask_on(port);
    static TURN: AtomicUsize = AtomicUsize::new(0);
    for round in 0..4 {
        let at = round % 3;
        for state in ["draining", "active"] {
            scratch.edit(json!([{"edit": "set_state", "host": WEB[at], "state": state}])).await;
            for _ in 0..4 {
                let daemon = Daemon::start(&scratch);
                // Another moment each time: from before it has read anything to when all is done.
                thread::sleep(Duration::from_millis(
                    60 + 45 * (TURN.fetch_add(1, Ordering::Relaxed) as u64 % 8),
                ));
                drop(daemon);
            }
            if round == 2 {
                haproxy.reload();
            }
            scratch.converge();
            let expected = if state == "draining" { others(at) } else { WEB.map(str::to_owned).to_vec() };
            let found = (answering(port), haproxy.file("web"), haproxy.tell("show stat web 4 -1"));
            assert_eq!(found.0, expected, "round {round}, {state}: {}\n{}", found.1, found.2);
            assert_eq!(haproxy.servers("web").len(), expected.len());
            assert_eq!(scratch.fact(WEB[at]).await["drained"], state == "draining");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (good, bad) = asks.join().unwrap();
    assert!(good > 1_000 && bad.is_empty(), "{good} answers, and {bad:?}");
}
