//! The real program in front of a real HAProxy: who answers is who the tag says, whoever stops or restarts on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::{HaProxy, Scratch, WEB, answering, fleet, free, has, named, web};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_is_who_the_tag_says() {
    if !has("who_answers_is_who_the_tag_says", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), "")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    let worker = haproxy.pid();
    // One joins, one gets no work by a weight, one leaves: no reload.
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB);
    scratch
        .apply(&format!(
            "host: {}\ndocument: {{address: 127.0.0.1, lb: {{port: {}, weight: 0}}}}",
            WEB[0], backends[0].port
        ))
        .await;
    scratch.converge();
    assert_eq!(answering(port), WEB[1..]);
    scratch.edit(json!([{"edit": "set_state", "host": WEB[1], "state": "draining"}])).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[2..]);
    assert_eq!(haproxy.pid(), worker, "a server was changed by a reload");
    assert_eq!(scratch.fact(WEB[1]).await, json!({"drained": true, "pools": {"web": "drained"}}));
    assert_eq!(scratch.fact(WEB[2]).await, json!({"drained": false, "pools": {"web": "serving"}}));
    // What runs is what the file says, also after a reload.
    let before = haproxy.servers("web");
    assert_eq!(before.len(), 2);
    haproxy.reload();
    assert_eq!((haproxy.servers("web"), answering(port)), (before, vec![WEB[2].to_owned()]));
    scratch.converge();
    // It comes back.
    scratch.edit(json!([{"edit": "set_state", "host": WEB[1], "state": "active"}])).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[1..]);
    assert_eq!(scratch.fact(WEB[1]).await, json!({"drained": false, "pools": {"web": "serving"}}));
    // The pool goes, and nothing answers there.
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    scratch.converge();
    assert!(haproxy.file("web").is_empty() && haproxy.servers("web").is_empty());
    assert!(answering(port)[0].starts_with("FAILED"));
}
