//! What is reported of a host that is in several pools, whoever is first, and whoever is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::{Direct, HaProxy, Nginx, Scratch, WEB, fleet, free, has, named, web};
use serde_json::json;

/// A second pool of the same servers.
fn also(pool: &str) -> String {
    format!("tag: lb/{pool}\ndocument: {{port: 80}}\nmembers: [{}]\n", WEB.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_in_two_pools_has_drained_when_it_has_left_both() {
    if !has("a_host_in_two_pools_has_drained_when_it_has_left_both", "haproxy") {
        return;
    }
    let (haproxy, backends) = (HaProxy::start(""), web());
    // A check takes so long that both pools have said that they are done before either has removed anything.
    let slow = haproxy
        .table("")
        .replace("'haproxy', '-c'", "'sh', '-c', 'sleep 0.5; exec haproxy \"$@\"', 'sh', '-c'");
    let scratch = Scratch::new(&slow);
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    scratch.apply(&also("api")).await;
    scratch.converge();
    scratch.edit(json!([{"edit": "set_state", "host": WEB[0], "state": "draining"}])).await;
    scratch.converge();
    assert_eq!((haproxy.servers("web").len(), haproxy.servers("api").len()), (2, 2));
    assert_eq!(scratch.fact(WEB[0]).await["drained"], true, "{}", scratch.fact(WEB[0]).await);
    assert_eq!(scratch.fact(WEB[1]).await["drained"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_a_pool_goes_reports_its_hosts_all_the_same() {
    if !has("who_is_killed_while_a_pool_goes_reports_its_hosts_all_the_same", "haproxy") {
        return;
    }
    let (haproxy, backends) = (HaProxy::start(""), web());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    scratch.converge();
    assert_eq!(scratch.fact(WEB[0]).await["drained"], false);
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    // As one that is killed before it could write down what it did.
    Direct::open(&haproxy, "").remove_pool("web").await.unwrap();
    assert!(haproxy.file("web").is_empty() && haproxy.servers("web").is_empty());
    scratch.converge();
    for host in WEB {
        assert_eq!(scratch.fact(host).await, json!({"drained": true, "pools": {}}), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_a_pool_of_nginx_goes_reports_its_hosts_all_the_same() {
    if !Nginx::is_here("who_is_killed_while_a_pool_of_nginx_goes_reports_its_hosts_all_the_same") {
        return;
    }
    let (nginx, backends) = (Nginx::start(""), web());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    scratch.converge();
    assert_eq!(scratch.fact(WEB[0]).await["drained"], false);
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    Direct::of(&nginx.table(""), &nginx.pools()).remove_pool("web").await.unwrap();
    assert!(nginx.file("web").is_empty());
    scratch.converge();
    for host in WEB {
        assert_eq!(scratch.fact(host).await, json!({"drained": true, "pools": {}}), "{host}");
    }
    assert!(!nginx.pools().join(".web.before").exists());
}
