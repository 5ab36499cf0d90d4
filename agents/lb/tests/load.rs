//! HAProxy under load: every server is drained and replaced, the agent is killed and HAProxy reloaded on the way, and no request fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::{Backend, Daemon, HaProxy, Scratch, WEB, fleet, free, get, has, named, until, web};
use serde_json::json;

/// The fewest requests, each with a connection of its own.
const REQUESTS: usize = 100_000;
/// How many ask side by side.
const ASK: usize = 12;

/// Many who ask, again and again, until there were enough answers and they are told that it is over.
struct Load {
    over: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    askers: Vec<JoinHandle<(Vec<String>, BTreeSet<String>)>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (over, good): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let ask = |_| {
            let (over, good) = (over.clone(), good.clone());
            thread::spawn(move || {
                let (mut bad, mut who) = (Vec::new(), BTreeSet::new());
                while !over.load(Ordering::Relaxed) || good.load(Ordering::Relaxed) < REQUESTS {
                    match get(port, "/") {
                        Ok(name) => {
                            who.insert(name);
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(why) => bad.push(why),
                    }
                    if bad.len() > 100 {
                        break;
                    }
                }
                (bad, who)
            })
        };
        let askers = (0..ASK).map(ask).collect();
        Self { over, good, askers }
    }

    /// How many answers there were, what failed, and who answered.
    fn end(self) -> (usize, Vec<String>, BTreeSet<String>) {
        self.over.store(true, Ordering::Relaxed);
        let (mut bad, mut who) = (Vec::new(), BTreeSet::new());
        for asker in self.askers {
            let (failed, answered) = asker.join().unwrap();
            bad.extend(failed);
            who.extend(answered);
        }
        (self.good.load(Ordering::Relaxed), bad, who)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_every_server_is_replaced() {
    if !has("no_request_fails_while_every_server_is_replaced", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), ", least: 2")).await;
    scratch.converge();
    let load = Load::start(port);
    let mut daemon = Daemon::start(&scratch);
    let mut replacements = Vec::new();
    for (turn, name) in WEB.iter().enumerate() {
        // The new one first: two have to be left at work.
        let new = format!("new{turn}.example.com");
        let backend = Backend::start(&new);
        let document = format!("document: {{address: 127.0.0.1, lb: {{port: {}}}}}", backend.port);
        scratch.apply(&format!("host: {new}\n{document}")).await;
        scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [new]}])).await;
        replacements.push((new, backend));
        scratch.edit(json!([{"edit": "set_state", "host": name, "state": "draining"}])).await;
        thread::sleep(Duration::from_millis(300));
        drop(daemon);
        haproxy.reload();
        daemon = Daemon::start(&scratch);
        until("the old one is gone", || !haproxy.file("web").contains(name));
        haproxy.reload();
    }
    drop(daemon);
    scratch.converge();
    let (good, bad, who) = load.end();
    assert!(bad.is_empty(), "{} of {good} failed: {:?}", bad.len(), &bad[..bad.len().min(5)]);
    assert!(good >= REQUESTS, "{good}");
    assert_eq!(who.len(), 6, "{who:?}");
    assert_eq!(haproxy.servers("web").len(), 3);
    for name in WEB {
        assert_eq!(scratch.fact(name).await["drained"], true);
    }
}
