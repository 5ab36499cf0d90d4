//! The real program in front of a real HAProxy: who answers is who the tag says, whoever stops or restarts on the way.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use common::{Backend, HaProxy, Scratch, WEB, answering, fleet, free, has, named, retire, waits, web};
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_moves_is_asked_where_it_is_without_a_reload() {
    if !has("a_server_that_moves_is_asked_where_it_is_without_a_reload", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let moved = Backend::start_at("127.0.0.2", "moved");
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), "")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    let worker = haproxy.pid();
    let document = format!("document: {{address: 127.0.0.2, lb: {{port: {}}}}}", moved.port);
    scratch.apply(&format!("host: {}\n{document}", WEB[0])).await;
    scratch.converge();
    assert_eq!(answering(port), ["moved", WEB[1]]);
    assert_eq!(haproxy.pid(), worker, "an address was changed by a reload");
    // What runs is what the file says.
    let servers = haproxy.servers("web");
    assert!(servers[0].starts_with(&format!("{} 127.0.0.2:{} ", WEB[0], moved.port)), "{servers:?}");
    haproxy.reload();
    assert_eq!(haproxy.servers("web"), servers);
    assert_eq!(answering(port), ["moved", WEB[1]]);
}

/// Who answers what is no request of HTTP, over a connection that stays.
fn say(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
    stream.write_all(b"no request\n\n").unwrap();
    // What each backend says, its name at the end.
    let mut said = [0; "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n".len() + WEB[0].len()];
    stream.read_exact(&mut said).unwrap();
    String::from_utf8_lossy(&said[said.len() - WEB[0].len()..]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_tcp_are_passed_as_they_are_and_waited_for() {
    if !has("connections_of_tcp_are_passed_as_they_are_and_waited_for", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    let tcp = ", protocol: tcp, drain: 300";
    scratch.apply(&fleet(port, &named(&backends[..2]), tcp)).await;
    scratch.converge();
    let all = || {
        let fresh = |_| say(&TcpStream::connect(("127.0.0.1", port)).unwrap());
        let mut all: Vec<String> = (0..30).map(fresh).collect();
        all.sort();
        all.dedup();
        all
    };
    assert_eq!(all(), WEB[..2]);
    let worker = haproxy.pid();
    scratch.apply(&fleet(port, &named(&backends), tcp)).await;
    scratch.converge();
    assert_eq!(all(), WEB);
    let open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let name = say(&open);
    retire(&scratch, &name).await;
    waits(&scratch, &format!("waiting: 1 connection on {name}, "));
    assert_eq!((all().contains(&name), say(&open)), (false, name.clone()));
    drop(open);
    scratch.converge();
    assert_eq!((all().len(), haproxy.servers("web").len(), haproxy.pid()), (2, 2, worker));
    assert_eq!(scratch.fact(&name).await["drained"], true);
}
