//! Servers that leave while a request is under way, whatever the load balancer.

use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use super::{Backend, Scratch, WEB, answering, get, until};

/// Opens a request that its backend holds: which one does, and what becomes of it.
pub(crate) fn hold(port: u16, backends: &[Backend; 3]) -> (usize, JoinHandle<Result<String, String>>) {
    let before = backends.each_ref().map(Backend::held);
    let request = thread::spawn(move || get(port, "/hold"));
    let at = || backends.iter().zip(&before).position(|(backend, before)| backend.held() > *before);
    until("a backend holds the request", || at().is_some());
    (at().unwrap(), request)
}

/// Takes a host out of work.
pub(crate) async fn retire(scratch: &Scratch, host: &str) {
    scratch.edit(json!([{"edit": "set_state", "host": host, "state": "draining"}])).await;
}

/// Converges for a moment: it waits for this. Answers what it said.
pub(crate) fn waits(scratch: &Scratch, what: &str) -> String {
    let (code, said) = scratch.once(4, 5, what);
    assert!(code == 5 && said.contains(what), "{code} {said}");
    said
}

/// All but this one.
pub(crate) fn others(at: usize) -> Vec<String> {
    WEB.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, name)| (*name).to_owned()).collect()
}

/// Has the server that holds a request leave by this edit, beside a daemon: it is waited for, and another one gets a new weight
/// meanwhile; then it is answered for, and goes. Answers which it was. `file`: what stands in the pool's file.
pub(crate) async fn leaves_by(
    scratch: &Scratch,
    port: u16,
    backends: &[Backend; 3],
    file: impl Fn() -> String,
    edit: impl FnOnce(&str) -> Value,
) -> usize {
    let (at, request) = hold(port, backends);
    let waiting = format!("waiting: 1 connection on {}, ", WEB[at]);
    let waits = || scratch.run(&["--plan"]).1.contains(&waiting);
    scratch.edit(json!([edit(WEB[at])])).await;
    until("it is waited for", waits);
    assert_ne!(scratch.fact(WEB[at]).await["drained"], true);
    let serving = answering(port);
    assert!(!serving.contains(&WEB[at].to_owned()), "{serving:?}");
    // Another one changes, by another weight each time.
    let other = WEB.iter().position(|name| *name == serving[0]).unwrap();
    let (own, weight) = (backends[other].port, 40 + at);
    let document = format!("document: {{address: 127.0.0.1, lb: {{port: {own}, weight: {weight}}}}}");
    scratch.apply(&format!("host: {}\n{document}", WEB[other])).await;
    until("another one has its new weight", || file().contains(&format!("\"weight\":{weight},")));
    until("the first one is waited for all the same", waits);
    assert!(file().contains(WEB[at]) && !request.is_finished(), "{}", file());
    backends[at].release();
    assert_eq!(request.join().unwrap().unwrap(), WEB[at]);
    until("it is gone", || !file().contains(WEB[at]));
    at
}
