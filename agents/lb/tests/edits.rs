//! What somebody else does to HAProxy and to its files, and what the agent does when it knows nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::process::Command;

use common::{Daemon, Direct, HaProxy, Scratch, WEB, answering, edit, fleet, free, has, named, until, web};
use serde_json::json;
use shoal_lb::Item;

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edits_is_made_right_and_what_is_theirs_stays() {
    if !has("what_somebody_edits_is_made_right_and_what_is_theirs_stays", "haproxy") {
        return;
    }
    let theirs = "backend own\n  server own.example.com 127.0.0.1:9 weight 7\n";
    let (haproxy, backends, port) = (HaProxy::start(theirs), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let (file, servers) = (haproxy.file("web"), haproxy.servers("web"));
    let path = haproxy.pools().join("web.cfg");
    // At run time: one drained, one with another weight, one removed; and one of somebody's own.
    haproxy.tell(&format!("set server web/{} state drain", WEB[0]));
    haproxy.tell(&format!("set server web/{} weight 7", WEB[1]));
    haproxy.tell(&format!("set server web/{0} state maint;del server web/{0}", WEB[2]));
    haproxy.tell("add server web/own.example.com 127.0.0.1:9");
    assert_eq!(haproxy.servers("web").len(), 3);
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    let own = |servers: Vec<String>| -> (Vec<String>, Vec<String>) {
        servers.into_iter().partition(|line| line.starts_with("own"))
    };
    let (foreign, ours) = own(haproxy.servers("web"));
    assert_eq!((foreign.len(), ours), (1, servers.clone()));
    assert_eq!(haproxy.file("web"), file);
    // In the file: a server's weight, a server gone, a setting of the pool.
    for (from, to) in [("weight 100", "weight 1"), ("roundrobin", "leastconn")] {
        fs::write(&path, file.replace(from, to)).unwrap();
        let (code, said) = scratch.run(&["--plan"]);
        assert!(code == 3 && said.contains("drift"), "{from} {code} {said}");
        scratch.converge();
        assert_eq!(haproxy.file("web"), file, "{from}");
    }
    let without: String = file.split_inclusive('\n').filter(|line| !line.contains(WEB[1])).collect();
    fs::write(&path, without).unwrap();
    scratch.converge();
    assert_eq!((haproxy.file("web"), own(haproxy.servers("web")).1), (file, servers));
    assert_eq!(answering(port), WEB);
    assert_eq!(haproxy.servers("own").len(), 1);
    // A file that Shoal did not write is not written over.
    fs::write(&path, "# mine\n").unwrap();
    let (code, said) = scratch.once(1, 1, "Shoal did not write it");
    assert!(code == 1 && said.contains("Shoal did not write it"), "{code} {said}");
    assert_eq!(haproxy.file("web"), "# mine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_name_is_taken_is_held() {
    if !has("a_pool_whose_name_is_taken_is_held", "haproxy") {
        return;
    }
    let theirs = format!("backend web\n  server {} 127.0.0.1:9\n", WEB[0]);
    let (haproxy, backends) = (HaProxy::start(&theirs), web());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    let before = haproxy.servers("web");
    let (code, said) = scratch.once(2, 5, "Shoal did not make it");
    assert!(code != 0 && said.contains("Shoal did not make it"), "{code} {said}");
    assert_eq!((haproxy.servers("web"), haproxy.file("web")), (before, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_haproxy_refuses_leaves_what_it_had() {
    if !has("what_haproxy_refuses_leaves_what_it_had", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let file = haproxy.file("web");
    // The checker accepts the port; that another process has it, only the reload finds.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let also = format!(", '127.0.0.1:{}'", taken.local_addr().unwrap().port());
    scratch.apply(&fleet(port, &named(&backends), "").replace("']", &format!("'{also}]"))).await;
    // 5: the time was over in the middle of another attempt.
    let (code, said) = scratch.once(15, 5, "reload HAProxy");
    assert!((code == 1 || code == 5) && said.contains("reload HAProxy"), "{code} {said}");
    assert_eq!((haproxy.file("web"), answering(port)), (file, WEB.map(str::to_owned).to_vec()));
    // Its port is free, and the next attempt succeeds.
    drop(taken);
    scratch.converge();
    assert!(haproxy.file("web").contains("bind 127.0.0.1") && answering(port) == WEB);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_knows_nothing_changes_nothing() {
    if !has("who_knows_nothing_changes_nothing", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let (file, servers) = (haproxy.file("web"), haproxy.servers("web"));
    let same = |what: &str| {
        assert_eq!((haproxy.file("web"), haproxy.servers("web")), (file.clone(), servers.clone()), "{what}");
    };
    // A database that does not answer, and one that is empty.
    let config = scratch.path().join("lb.toml");
    let nobody = Command::new(env!("CARGO_BIN_EXE_shoal-lb"))
        .args(["--once", "--wait", "2s", "--store", "http://127.0.0.1:1", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(!nobody.status.success());
    same("nobody answers");
    let empty = Scratch::new(&haproxy.table(""));
    empty.run(&["--once", "--wait", "2s"]);
    same("an empty database");
    empty.apply(&fleet(port, &named(&backends[..1]), "")).await;
    let (code, said) = empty.run(&["--once", "--wait", "2s"]);
    assert!(code != 0, "{code} {said}");
    same("another database");
    // A host that is paused stays as it is, and goes when it is no more.
    scratch.pause(WEB[0], true).await;
    scratch.edit(json!([{"edit": "set_state", "host": WEB[0], "state": "draining"}])).await;
    let (code, said) = scratch.once(2, 4, "paused");
    assert!(code == 4 && said.contains("paused"), "{code} {said}");
    same("a paused host");
    scratch.pause(WEB[0], false).await;
    // The database goes while a daemon works: what is there goes on.
    let daemon = Daemon::start(&scratch);
    until("it leaves", || haproxy.servers("web").len() == 2 && !haproxy.file("web").contains(WEB[0]));
    let (file, servers) = (haproxy.file("web"), haproxy.servers("web"));
    for name in ["db", "db-wal", "db-shm"] {
        let _ = fs::remove_file(scratch.path().join(name));
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!((haproxy.file("web"), haproxy.servers("web")), (file, servers));
    assert_eq!(answering(port), WEB[1..]);
    drop(daemon);
}

fn signal(which: &str, pid: u32) {
    assert!(Command::new("kill").args([which, &pid.to_string()]).status().unwrap().success());
}

/// Stops a process, and waits until none of its threads goes on.
fn stop(pid: u32) {
    signal("-STOP", pid);
    let stopped = |task: std::io::Result<fs::DirEntry>| {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses. Of a thread that has just ended there is none.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    };
    until("it has stopped", || fs::read_dir(format!("/proc/{pid}/task")).unwrap().all(stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_in_a_reload_that_fails_goes_back_to_the_last_good_file() {
    if !has("who_is_killed_in_a_reload_that_fails_goes_back_to_the_last_good_file", "haproxy") {
        return;
    }
    let (mut haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table("claim = '3s'"));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let file = haproxy.file("web");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = format!("127.0.0.1:{}", taken.local_addr().unwrap().port());
    scratch.apply(&fleet(port, &named(&backends), "").replace("']", &format!("', '{bad}']"))).await;
    let killed = || {
        let daemon = Daemon::start(&scratch);
        loop {
            until("the file is in place", || haproxy.file("web").contains(&bad));
            // By then the reload may have failed, and all be over until the next attempt.
            stop(daemon.0.id());
            if haproxy.file("web").contains(&bad) {
                break;
            }
            signal("-CONT", daemon.0.id());
        }
        drop(daemon);
        assert!(haproxy.file("web").contains(&bad), "it was not killed in the reload");
    };
    killed();
    let (code, said) = scratch.once(20, 5, "reload HAProxy");
    assert!((code == 1 || code == 5) && said.contains("reload HAProxy"), "{code} {said}");
    until("the last good file is back", || haproxy.file("web") == file);
    assert_eq!(answering(port), WEB);
    // HAProxy is to be started with what it refuses, and nobody can ask it anything.
    killed();
    haproxy.kill();
    until("the last good file is back", || {
        let (code, said) = scratch.run(&["--once", "--wait", "2s"]);
        assert!(code != 0, "{code} {said}");
        haproxy.file("web") == file
    });
    haproxy.run();
    assert_eq!(answering(port), WEB);
    drop(taken);
    scratch.converge();
    assert!(haproxy.file("web").contains(&bad) && answering(port) == WEB);
    let left = fs::read_dir(haproxy.pools()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "web.cfg" && name != ".shoal-database").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_before_a_pool_has_a_file_makes_it() {
    if !has("who_is_killed_before_a_pool_has_a_file_makes_it", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    let beside = haproxy.pools().join(".web.good");
    fs::write(&beside, "").unwrap();
    scratch.converge();
    assert!(answering(port) == WEB && !beside.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_takes_nobody_out_of_work() {
    if !has("a_file_that_is_gone_takes_nobody_out_of_work", "haproxy") {
        return;
    }
    let (haproxy, backends, port) = (HaProxy::start(""), web(), free());
    let scratch = Scratch::new(&haproxy.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let (file, worker) = (haproxy.file("web"), haproxy.pid());
    // One is paused, and one has no address any more: neither is changed, so neither is in any batch.
    scratch.pause(WEB[0], true).await;
    scratch.apply(&format!("host: {}\ndocument: {{lb: {{port: {}}}}}", WEB[1], backends[1].port)).await;
    fs::remove_file(haproxy.pools().join("web.cfg")).unwrap();
    until("the file is there again", || {
        scratch.run(&["--once", "--wait", "5s"]);
        !haproxy.file("web").is_empty()
    });
    assert_eq!((answering(port), haproxy.pid()), (WEB.map(str::to_owned).to_vec(), worker));
    // Nor does a reload, whoever wants it.
    haproxy.reload();
    assert_eq!(answering(port), WEB, "{}", haproxy.file("web"));
    // The pool is changed at the same time.
    let worker = haproxy.pid();
    fs::remove_file(haproxy.pools().join("web.cfg")).unwrap();
    scratch
        .edit(json!([{"edit": "put_tag", "tag": "lb/web", "members": WEB,
        "document": {"port": 80, "frontends": [format!("127.0.0.1:{port}")], "balance": "random"}}]))
        .await;
    until("the pool is as it is wanted", || {
        scratch.run(&["--once", "--wait", "5s"]);
        haproxy.pid() != worker && haproxy.file("web").contains("balance random")
    });
    assert_eq!(answering(port), WEB);
    // Another pool wants a reload before anybody has looked.
    let worker = haproxy.pid();
    fs::remove_file(haproxy.pools().join("web.cfg")).unwrap();
    let pool =
        json!({"protocol": "http", "balance": "round_robin", "slow_start": 0, "least": 1, "frontends": []});
    let pool = Some(Item::Pool(serde_json::from_value(pool).unwrap()));
    let other = vec![edit("api", None, "create", None, pool, json!(null))];
    let fault = Direct::open(&haproxy, "").apply("api", other).await.unwrap_err();
    assert!(fault.to_string().contains("the file of the pool web is gone"), "{fault}");
    assert_eq!(
        (answering(port), haproxy.pid(), haproxy.file("api")),
        (WEB.map(str::to_owned).to_vec(), worker, String::new())
    );
    scratch.pause(WEB[0], false).await;
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    assert_eq!(haproxy.file("web"), file);
}
