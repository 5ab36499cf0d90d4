//! One odd file: what that means for its own pool, and for the others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;

use common::{HaProxy, Nginx, Scratch, WEB, answering, fleet, free, has, named, web};
use serde_json::json;

/// A pool of the first two.
const API: &str = "tag: lb/api\ndocument: {port: 80}\nmembers: [web1.example.com, web2.example.com]\n";

async fn weigh(scratch: &Scratch, port: u16, weight: u32) {
    let host =
        format!("host: {}\ndocument: {{address: 127.0.0.1, lb: {{port: {port}, weight: {weight}}}}}", WEB[2]);
    scratch.apply(&host).await;
}

async fn leave(scratch: &Scratch, hosts: &[&str]) {
    for host in hosts {
        scratch.edit(json!([{"edit": "set_state", "host": host, "state": "draining"}])).await;
    }
}

/// A server of one pool changes at run time while HAProxy is reloaded for another pool.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_for_another_pool_loses_no_change() {
    if !has("a_reload_for_another_pool_loses_no_change", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.apply(&API.replace("web1.example.com, web2.example.com", WEB[2])).await;
    scratch.converge();
    for round in 1..=12 {
        let balance = if round % 2 == 0 { "random" } else { "least_connections" };
        let document = json!({"port": 80, "frontends": [format!("127.0.0.1:{port}")], "balance": balance});
        let weighs = json!({"address": "127.0.0.1", "lb": {"port": backends[2].port, "weight": round}});
        // One pool gets a new form, and the only server of the other one another weight.
        scratch
            .edit(json!([
                {"edit": "put_tag", "tag": "lb/web", "members": WEB[..2], "document": document},
                {"edit": "put_host", "host": WEB[2], "document": weighs},
            ]))
            .await;
        scratch.converge();
        let has = format!(" weight {round} ");
        assert!(haproxy.file("api").contains(&has), "{round}: {}", haproxy.file("api"));
        let servers = haproxy.servers("api");
        assert!(servers.len() == 1 && servers[0].contains(&has), "{round}: {servers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_file_of_haproxy_stops_its_own_pool_alone() {
    if !has("an_odd_file_of_haproxy_stops_its_own_pool_alone", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.apply(API).await;
    scratch.converge();
    let (api, servers) = (haproxy.file("api"), haproxy.servers("api"));
    let path = haproxy.pools().join("api.cfg");
    let pid = haproxy.pid();
    // Neither Shoal nor HAProxy can read it.
    let broken = format!("# mine\n{}    nonsense\n", api.split_once('\n').unwrap().1);
    fs::write(&path, &broken).unwrap();
    weigh(&scratch, backends[2].port, 7).await;
    let (code, said) = scratch.once(5, 1, "api.cfg");
    assert!(
        code == 1 && said.contains("api.cfg") && said.contains("Shoal did not write it"),
        "{code} {said}"
    );
    assert!(haproxy.file("web").contains(" weight 7 "), "{said}\n{}", haproxy.file("web"));
    assert!(haproxy.servers("web")[2].contains(" weight 7 "), "{:?}", haproxy.servers("web"));
    // Who leaves both serves in the other as long as nobody can take it out of that; who was not in that is not held up.
    leave(&scratch, &[WEB[0], WEB[2]]).await;
    let (code, said) = scratch.once(10, 1, "");
    assert_eq!((code, haproxy.servers("web").len()), (1, 1), "{said}");
    assert_eq!(scratch.fact(WEB[2]).await["drained"], true);
    assert_eq!(
        scratch.fact(WEB[0]).await,
        json!({"drained": false, "pools": {"api": "serving", "web": "drained"}})
    );
    assert_eq!((haproxy.file("api"), haproxy.servers("api"), haproxy.pid()), (broken, servers.clone(), pid));
    // A folder in its place HAProxy passes over: a reload would lose the pool.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let file = haproxy.file("web");
    let pool = json!([{"edit": "put_tag", "tag": "lb/web", "members": WEB,
        "document": {"port": 80, "frontends": [format!("127.0.0.1:{port}")], "balance": "random"}}]);
    scratch.edit(pool).await;
    let (code, said) = scratch.once(20, 5, "the file of the pool api is gone");
    assert!((code == 1 || code == 5) && said.contains("the file of the pool api is gone"), "{code} {said}");
    // Where the time was over in the middle of another attempt, what is good stands beside it.
    let beside = fs::read_to_string(haproxy.pools().join(".web.good")).ok();
    assert_eq!(beside.unwrap_or_else(|| haproxy.file("web")), file);
    assert_eq!((haproxy.servers("api"), haproxy.pid()), (servers, pid));
    assert_eq!(answering(port), [WEB[1]]);
    fs::remove_dir(&path).unwrap();
    fs::write(&path, &api).unwrap();
    scratch.converge();
    assert!(haproxy.file("web").contains("balance random") && haproxy.servers("api").len() == 1);
    assert_eq!(scratch.fact(WEB[0]).await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_file_of_nginx_stops_its_own_pool_alone() {
    if !Nginx::is_here("odd::an_odd_file_of_nginx_stops_its_own_pool_alone") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.apply(API).await;
    scratch.converge();
    let api = nginx.file("api");
    let path = nginx.pools().join("api.http");
    // nginx can read it, and Shoal cannot.
    let broken = format!("# mine\n{}", api.split_once('\n').unwrap().1);
    fs::write(&path, &broken).unwrap();
    leave(&scratch, &[WEB[0], WEB[2]]).await;
    let (code, said) = scratch.once(10, 1, "the pool api");
    assert!(
        code == 1 && said.contains("the pool api") && said.contains("Shoal did not write it"),
        "{code} {said}"
    );
    assert_eq!((answering(port), nginx.file("api")), (vec![WEB[1].to_owned()], broken));
    assert_eq!(scratch.fact(WEB[2]).await["drained"], true);
    assert_eq!(
        scratch.fact(WEB[0]).await,
        json!({"drained": false, "pools": {"api": "unknown", "web": "drained"}})
    );
    fs::write(&path, &api).unwrap();
    scratch.converge();
    assert_eq!(scratch.fact(WEB[0]).await["drained"], true);
}
