//! Leaving a real nginx while a request is under way: whoever is started anew, however the host leaves.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::{
    Backend, Daemon, Nginx, Scratch, WEB, answering, fleet, free, hold, leaves_by, named, others, retire,
    waits, web,
};
use serde_json::json;

/// nginx with a pool of three, all at work.
async fn working() -> (Nginx, [Backend; 3], u16, Scratch) {
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    // One that is killed keeps its claim for so long.
    let scratch = Scratch::new(&nginx.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), ", drain: 300")).await;
    scratch.converge();
    (nginx, backends, port, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drains_gets_no_work_of_an_nginx_that_is_started_anew() {
    if !Nginx::is_here("who_drains_gets_no_work_of_an_nginx_that_is_started_anew") {
        return;
    }
    let (mut nginx, backends, port, scratch) = working().await;
    let (at, request) = hold(port, &backends);
    retire(&scratch, WEB[at]).await;
    waits(&scratch, "waiting: 1 connection");
    nginx.kill();
    assert!(request.join().unwrap().is_err());
    nginx.run();
    // No agent runs: what it knows stands in its files.
    assert_eq!(answering(port), others(at));
    assert!(nginx.file("web").contains(WEB[at]));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], false);
    scratch.converge();
    assert_eq!(answering(port), others(at));
    assert!(!nginx.file("web").contains(WEB[at]));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_member_any_more_or_deleted_is_waited_for_while_others_change() {
    const TEST: &str = "nginx::who_is_no_member_any_more_or_deleted_is_waited_for_while_others_change";
    if !Nginx::is_here(TEST) {
        return;
    }
    let (nginx, backends, port, scratch) = working().await;
    let file = || nginx.file("web");
    let daemon = Daemon::start(&scratch);
    let remove = |host: &str| json!({"edit": "remove_members", "tag": "lb/web", "members": [host]});
    let removed = leaves_by(&scratch, port, &backends, file, remove).await;
    let delete = |host: &str| json!({"edit": "delete", "key": format!("hosts/{host}")});
    let deleted = leaves_by(&scratch, port, &backends, file, delete).await;
    drop(daemon);
    scratch.converge();
    let last = WEB[3 - removed - deleted];
    assert_eq!(answering(port), [last]);
    assert!(file().contains(&format!(" weight={} ", 40 + deleted)), "{}", file());
    for at in [removed, deleted] {
        assert_eq!(scratch.fact(WEB[at]).await["drained"], true, "{}", WEB[at]);
    }
}
