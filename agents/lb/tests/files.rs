//! HAProxy by its files alone: every change is a reload, and no request is lost with it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::thread;

use common::{HaProxy, Scratch, WEB, answering, fleet, free, get, has, named, until, web};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_drains_by_files_and_reloads() {
    if !has("a_server_drains_by_files_and_reloads", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&(haproxy.table("") + "runtime = false\n"));
    scratch.apply(&fleet(port, &named(&backends[..2]), ", drain: 300")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    let worker = haproxy.pid();
    scratch.apply(&fleet(port, &named(&backends), ", drain: 300")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB);
    assert_ne!(haproxy.pid(), worker, "it was not reloaded");
    // The connection stays in the process that the reload leaves behind.
    let request = thread::spawn(move || get(port, "/hold"));
    until("a backend holds the request", || backends.iter().any(|backend| backend.held() > 0));
    let at = backends.iter().position(|backend| backend.held() > 0).unwrap();
    scratch.edit(json!([{"edit": "set_state", "host": WEB[at], "state": "draining"}])).await;
    let (code, said) = scratch.once(5, 5, "waiting: 1 connection on");
    assert!(code == 5 && said.contains("waiting: 1 connection on"), "{code} {said}");
    assert!(!answering(port).contains(&WEB[at].to_owned()));
    backends[at].release();
    assert_eq!(request.join().unwrap().unwrap(), WEB[at]);
    scratch.converge();
    assert_eq!(haproxy.servers("web").len(), 2);
    assert_eq!(scratch.fact(WEB[at]).await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_change_together_share_reloads() {
    if !has("pools_that_change_together_share_reloads", "haproxy") {
        return;
    }
    let (haproxy, backends) = (HaProxy::start(""), web());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    for n in 0..10 {
        scratch.apply(&format!("tag: lb/more{n}\ndocument: {{port: 80}}\nmembers: [{}]\n", WEB[n % 3])).await;
    }
    scratch.converge();
    let reloads: u32 = haproxy
        .master("show proc")
        .lines()
        .find(|line| line.contains("master"))
        .and_then(|line| line.split_whitespace().nth(2)?.parse().ok())
        .unwrap();
    assert!((1..=4).contains(&reloads), "{reloads} reloads for 11 pools");
    assert_eq!(haproxy.servers("more9").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_come_back_together() {
    if !has("files_that_are_gone_come_back_together", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&(haproxy.table("") + "runtime = false\n"));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.apply(&format!("tag: lb/api\ndocument: {{port: 80}}\nmembers: [{}]\n", WEB[0])).await;
    scratch.converge();
    let files = [haproxy.file("api"), haproxy.file("web")];
    for name in ["api.cfg", "web.cfg"] {
        std::fs::remove_file(haproxy.pools().join(name)).unwrap();
    }
    scratch.converge();
    assert_eq!([haproxy.file("api"), haproxy.file("web")], files);
    assert_eq!((answering(port), haproxy.servers("api").len()), (WEB.map(str::to_owned).to_vec(), 1));
}
