//! nginx under load: every server is drained and replaced, the agent is killed and nginx reloaded on the way, and no request fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod common;
#[path = "common/held.rs"]
mod held;
#[path = "common/kept.rs"]
mod kept;

use common::{Backend, Daemon, Nginx, Scratch, WEB, Wrk, answering, fleet, free, has, named, until, web};
use held::Held;
use kept::Keepers;
use serde_json::json;

/// The fewest requests, each with a connection of its own.
const REQUESTS: u64 = 100_000;
/// The fewest requests over connections that are kept.
const OVER_KEPT: u64 = 10_000;
/// How many are kept at once.
const KEPT: u64 = 12;
/// nginx's processes that take requests.
const WORKERS: u64 = 2;

/// What is under load.
struct Stage {
    nginx: Nginx,
    scratch: Scratch,
    port: u16,
    /// Those that have left, too.
    servers: Vec<Backend>,
    held: Held,
}

impl Stage {
    /// Whether a server gets no new work, by the file that nginx would read, and is there.
    fn drains(&self, host: &str) -> bool {
        let host = format!("\"{host}\"");
        self.nginx.file("web").lines().any(|line| line.contains(&host) && line.contains(" down;"))
    }

    /// Replaces a server by a new one, while the agent is killed and nginx reloaded.
    async fn replace(&mut self, at: usize, old: &str, new: &str) {
        let mut daemon = Daemon::start(&self.scratch);
        // The new one first: two have to be left at work.
        let backend = Backend::start(new);
        let document = format!("document: {{address: 127.0.0.1, lb: {{port: {}}}}}", backend.port);
        self.scratch.apply(&format!("host: {new}\n{document}")).await;
        self.scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [new]}])).await;
        self.servers.push(backend);
        self.held.at(self.port, &self.servers, at);
        self.scratch.edit(json!([{"edit": "set_state", "host": old, "state": "draining"}])).await;
        until("it drains", || self.drains(old));
        drop(daemon);
        // It holds a request, so whoever was killed was in the middle of taking it out.
        assert!(self.drains(old), "{}", self.nginx.file("web"));
        assert_eq!(self.scratch.fact(old).await["drained"], false);
        self.nginx.reload();
        daemon = Daemon::start(&self.scratch);
        self.servers[at].release();
        until("the old one is gone", || !self.nginx.file("web").contains(&format!("\"{old}\"")));
        self.nginx.reload();
        drop(daemon);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_every_server_is_replaced() {
    const TEST: &str = "nginx::no_request_fails_while_every_server_is_replaced";
    if !Nginx::is_here(TEST) || !has(TEST, "wrk") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), ", least: 2, drain: 300")).await;
    scratch.converge();
    let mut stage = Stage { nginx, scratch, port, servers: Vec::from(backends), held: Held::default() };
    let load = Wrk::start(port, REQUESTS);
    for (turn, old) in WEB.iter().enumerate() {
        stage.replace(turn, old, &format!("new{turn}.example.com")).await;
    }
    stage.scratch.converge();
    let asked = load.end();
    println!("{asked:?}, a connection each, {} reloads", stage.nginx.reloads());
    assert!(asked.answers >= REQUESTS, "{asked:?}");
    assert_eq!((asked.failed, asked.closed), (0, 0), "{asked:?}");
    for old in WEB {
        assert_eq!(stage.scratch.fact(old).await["drained"], true);
    }
    // Connections that are kept: a reload closes one that is idle, also where a request is on its way to it. That is counted apart.
    let before = stage.nginx.reloads();
    let load = Keepers::start(port, KEPT, OVER_KEPT);
    stage.replace(WEB.len(), "new0.example.com", "more0.example.com").await;
    stage.scratch.converge();
    let asked = load.end().await;
    let reloads = u64::try_from(stage.nginx.reloads() - before).unwrap();
    println!("{asked:?}, connections kept, {reloads} reloads");
    assert!(asked.whole >= OVER_KEPT && (asked.cut, asked.failed) == (0, 0), "{asked:?}");
    // They were kept, and nothing but reloads closed them: each of its processes once.
    assert!(asked.opened * 10 <= asked.whole, "{asked:?}");
    assert!(asked.idle <= KEPT * WORKERS * reloads, "{asked:?}, {reloads} reloads");
    println!("{} requests were held meanwhile", stage.held.end(&stage.servers));
    let all = ["more0", "new1", "new2"].map(|name| format!("{name}.example.com"));
    assert_eq!(answering(port), all);
}
