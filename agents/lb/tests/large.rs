//! A pool of thousands of servers: one change is in effect as soon as in a small one, and costs one command.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod common;

use std::time::{Duration, Instant};

use common::{Daemon, HaProxy, Scratch, free, has, until};
use shoal_core::Edit;

/// A pool of so many.
fn pool(name: &str, servers: usize, port: u16) -> Vec<Edit> {
    let host = |n: usize| format!("{name}{n}.example.com");
    let address = |n: usize| format!("127.{}.{}.{}", n / 62_500 + 1, n / 250 % 250, n % 250 + 1);
    let hosts = (0..servers).map(
        |n| serde_json::json!({"edit": "put_host", "host": host(n), "document": {"address": address(n)}}),
    );
    let members: Vec<String> = (0..servers).map(host).collect();
    let tag = serde_json::json!({
        "edit": "put_tag", "tag": format!("lb/{name}"),
        "document": {"port": port}, "members": members,
    });
    hosts.chain([tag]).map(|edit| serde_json::from_value(edit).unwrap()).collect()
}

/// How long it takes until HAProxy gives a server another weight, from before its commit.
async fn change(haproxy: &HaProxy, scratch: &Scratch, name: &str, weight: u16) -> Duration {
    let begun = Instant::now();
    scratch
        .apply(&format!(
            "host: {name}7.example.com\ndocument: {{address: 127.1.0.8, lb: {{weight: {weight}}}}}"
        ))
        .await;
    let told = format!("get weight {name}/{name}7.example.com");
    until("the weight", || haproxy.tell(&told).starts_with(&format!("{weight} ")));
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_a_large_pool_is_one_command() {
    if !has("a_change_in_a_large_pool_is_one_command", "haproxy") {
        return;
    }
    let haproxy = HaProxy::start("");
    let scratch = Scratch::new(&haproxy.table(""));
    let port = free();
    scratch.commit(pool("small", 50, port)).await;
    scratch.commit(pool("big", 5_000, port)).await;
    scratch.converge();
    assert_eq!((haproxy.servers("small").len(), haproxy.servers("big").len()), (50, 5_000));
    let worker = haproxy.pid();
    let _daemon = Daemon::start(&scratch);
    change(&haproxy, &scratch, "small", 1).await;
    change(&haproxy, &scratch, "big", 1).await;
    let mut times = Vec::new();
    for weight in 2..12 {
        let small = change(&haproxy, &scratch, "small", weight).await;
        let big = change(&haproxy, &scratch, "big", weight).await;
        times.push((small, big));
    }
    println!("from before the commit: {times:?}");
    assert_eq!(haproxy.pid(), worker, "it was reloaded");
    until("the file", || {
        haproxy.file("big").contains("weight 11 ") && haproxy.file("small").contains("weight 11 ")
    });
    // Others are as they were.
    let others = haproxy.servers("big").iter().filter(|server| server.contains("weight 100 ")).count();
    assert_eq!(others, 4_999);
}
