//! Who gets how much of the work: by weights, by the client, by the path, and by how long it has been up. Counted by who answers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use common::{HaProxy, Nginx, Scratch, WEB, fleet, free, get, get_over, has, named, shares, until, web};
use tokio::net::TcpSocket;

/// Gives the first server another weight than the others have.
async fn weigh(scratch: &Scratch, port: u16, weight: u16) {
    let document = format!("document: {{address: 127.0.0.1, lb: {{port: {port}, weight: {weight}}}}}");
    scratch.apply(&format!("host: {}\n{document}", WEB[0])).await;
}

/// Sees that of two servers one has twice as much of the work as the other one: 200 of 300 requests. Of equal ones each has 150.
fn twice_as_much(port: u16, much: &str, little: &str) {
    let shares = shares(port, 300);
    let of = |name: &str| shares.get(name).copied().unwrap_or(0);
    assert!((180..=220).contains(&of(much)) && of(much) + of(little) == 300, "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_a_share_of_the_work() {
    if !has("a_weight_is_a_share_of_the_work", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), "")).await;
    weigh(&scratch, backends[0].port, 50).await;
    scratch.converge();
    twice_as_much(port, WEB[1], WEB[0]);
    let worker = haproxy.pid();
    weigh(&scratch, backends[0].port, 200).await;
    scratch.converge();
    twice_as_much(port, WEB[0], WEB[1]);
    assert_eq!(haproxy.pid(), worker, "a weight was changed by a reload");
    haproxy.reload();
    twice_as_much(port, WEB[0], WEB[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weight_is_a_share_of_the_work_of_nginx() {
    if !Nginx::is_here("a_weight_is_a_share_of_the_work_of_nginx") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), "")).await;
    weigh(&scratch, backends[0].port, 50).await;
    scratch.converge();
    twice_as_much(port, WEB[1], WEB[0]);
    weigh(&scratch, backends[0].port, 200).await;
    scratch.converge();
    twice_as_much(port, WEB[0], WEB[1]);
}

/// Who answers a client that has this address.
async fn answers(client: [u8; 4], port: u16, path: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((client, 0))).unwrap();
    let stream = socket.connect(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    get_over(stream, path).unwrap()
}

/// Who answers each of forty clients.
async fn by_client(port: u16) -> Vec<String> {
    let mut all = Vec::new();
    for n in 1..=40 {
        all.push(answers([127, 0, 1, n], port, "/").await);
    }
    all
}

/// Who answers for each of forty paths.
fn by_path(port: u16) -> Vec<String> {
    (0..40).map(|n| get(port, &format!("/{n}")).unwrap()).collect()
}

fn distinct(all: &[String]) -> usize {
    all.iter().collect::<BTreeSet<_>>().len()
}

/// Sees that the third server took some of the work over, and that whatever it did not take stayed where it was.
fn only_the_third_took(before: &[String], after: &[String]) {
    let changed: Vec<_> = before.iter().zip(after).filter(|(before, after)| before != after).collect();
    let taken = changed.iter().all(|(_, after)| *after == WEB[2]);
    assert!(!changed.is_empty() && changed.len() < before.len() && taken, "{before:?}, then {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_one_server() {
    if !has("a_client_has_one_server", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), ", balance: source")).await;
    scratch.converge();
    let before = by_client(port).await;
    assert_eq!((by_client(port).await, distinct(&before)), (before.clone(), 2));
    // Whatever it asks for.
    assert_eq!(distinct(&by_path(port)), 1);
    let worker = haproxy.pid();
    scratch.apply(&fleet(port, &named(&backends), ", balance: source")).await;
    scratch.converge();
    only_the_third_took(&before, &by_client(port).await);
    assert_eq!(haproxy.pid(), worker, "a server was added by a reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_has_one_server() {
    if !has("a_path_has_one_server", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), ", balance: uri")).await;
    scratch.converge();
    let before = by_path(port);
    assert_eq!((by_path(port), distinct(&before)), (before.clone(), 2));
    // Whoever asks for it.
    assert_eq!(distinct(&by_client(port).await), 1);
    let worker = haproxy.pid();
    scratch.apply(&fleet(port, &named(&backends), ", balance: uri")).await;
    scratch.converge();
    only_the_third_took(&before, &by_path(port));
    assert_eq!(haproxy.pid(), worker, "a server was added by a reload");
}

/// Waits until these are up, and sees that they get less of the work than the first server, which was up all the time.
fn begin_slowly(haproxy: &HaProxy, port: u16, hosts: &[&str]) {
    for host in hosts {
        until("it is up", || haproxy.stat("web", host, "status").starts_with("UP"));
        let throttle = haproxy.stat("web", host, "throttle");
        assert!(throttle.parse::<u32>().is_ok_and(|share| share < 100), "{host}: {throttle:?}");
    }
    let shares = shares(port, 300);
    let of = |name: &str| shares.get(name).copied().unwrap_or(0);
    // A sixteenth of its share at first, and more by a sixteenth every 40 s.
    assert!(hosts.iter().all(|host| of(host) * 3 < of(WEB[0])), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_up_begins_slowly() {
    if !has("who_comes_up_begins_slowly", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    // So slowly that the first tenth of it is longer than the test.
    let slow = ", check: {path: /health, interval: 1, rise: 1, fall: 5}, slow_start: 600";
    scratch.apply(&fleet(port, &named(&backends[..2]), slow)).await;
    scratch.converge();
    // The one that the others are compared with is never down from here on, however slow the machine.
    let first = format!("disable health web/{}", WEB[0]);
    haproxy.tell(&first);
    // One that is added at run time.
    let worker = haproxy.pid();
    scratch.apply(&fleet(port, &named(&backends), slow)).await;
    scratch.converge();
    begin_slowly(&haproxy, port, &WEB[2..]);
    assert_eq!(haproxy.pid(), worker, "a server was added by a reload");
    // HAProxy itself begins with everybody at work. Then two go down and come up again: one of them it was told of at run time, before.
    haproxy.reload();
    let whole = |host: &&str| {
        haproxy.stat("web", host, "status").starts_with("UP")
            && haproxy.stat("web", host, "throttle").is_empty()
    };
    // Of the process before, which ends, somebody may hear for a moment yet.
    until("everybody has a whole share", || WEB.iter().all(whole));
    haproxy.tell(&first);
    backends[1..].iter().for_each(|backend| backend.sicken(true));
    for host in &WEB[1..] {
        until("it is down", || haproxy.stat("web", host, "status").starts_with("DOWN"));
    }
    backends[1..].iter().for_each(|backend| backend.sicken(false));
    begin_slowly(&haproxy, port, &WEB[1..]);
}
