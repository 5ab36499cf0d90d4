//! The real program in front of a real nginx: who answers is who the tag says, connections are waited for, and what fails leaves
//! what was there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Nginx, Scratch, WEB, answering, fleet, free, get, hold, left, named, others, retire, until, waits, web,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_is_who_the_tag_says() {
    if !Nginx::is_here("nginx::who_answers_is_who_the_tag_says") {
        return;
    }
    let own = "  upstream own { server 127.0.0.1:9; }\n";
    let (nginx, backends, port) = (Nginx::start(own), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends[..2]), ", balance: random")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..2]);
    // One joins, one gets no work by a weight, one leaves.
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB);
    let weightless = format!(
        "host: {}\ndocument: {{address: 127.0.0.1, lb: {{port: {}, weight: 0}}}}",
        WEB[0], backends[0].port
    );
    scratch.apply(&weightless).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[1..]);
    scratch.edit(json!([{"edit": "set_state", "host": WEB[1], "state": "draining"}])).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[2..]);
    assert_eq!(scratch.fact(WEB[1]).await, json!({"drained": true, "pools": {"web": "drained"}}));
    assert_eq!(scratch.fact(WEB[2]).await, json!({"drained": false, "pools": {"web": "serving"}}));
    // Somebody else's reload changes nothing, and nothing is to be done after it.
    let file = nginx.file("web");
    nginx.reload();
    assert_eq!((nginx.file("web"), answering(port)), (file, vec![WEB[2].to_owned()]));
    let reloads = nginx.reloads();
    scratch.converge();
    assert_eq!(nginx.reloads(), reloads, "it was reloaded for nothing");
    // It comes back.
    scratch.edit(json!([{"edit": "set_state", "host": WEB[1], "state": "active"}])).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[1..]);
    assert_eq!(scratch.fact(WEB[1]).await, json!({"drained": false, "pools": {"web": "serving"}}));
    // The pool goes, and nothing answers there.
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    scratch.converge();
    assert!(nginx.file("web").is_empty() && answering(port)[0].starts_with("FAILED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_servers_is_one_and_what_nginx_lacks_is_said() {
    if !Nginx::is_here("a_pool_without_servers_is_one_and_what_nginx_lacks_is_said") {
        return;
    }
    let (nginx, port) = (Nginx::start(""), free());
    let scratch = Scratch::new(&nginx.table(""));
    let more = "check: {path: /health, interval: 3, fall: 4}, slow_start: 10";
    scratch
        .apply(&format!("tag: lb/web\ndocument: {{port: 80, frontends: ['127.0.0.1:{port}'], {more}}}"))
        .await;
    scratch.converge();
    assert!(get(port, "/").unwrap_err().contains("502"));
    let (code, said) = scratch.run(&["--plan"]);
    assert!(
        code == 0 && said.contains("check: nginx") && said.contains("slow_start: nginx"),
        "{code} {said}"
    );
    let backend = common::Backend::start(WEB[0]);
    let host = format!("host: {}\ndocument: {{address: 127.0.0.1, lb: {{port: {}}}}}", WEB[0], backend.port);
    scratch.apply(&host).await;
    scratch.edit(json!([{"edit": "add_members", "tag": "lb/web", "members": [WEB[0]]}])).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..1]);
    assert!(nginx.file("web").contains(" max_fails=4 fail_timeout=12s;"), "{}", nginx.file("web"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_connection_is_waited_for_across_reloads_and_restarts() {
    if !Nginx::is_here("an_open_connection_is_waited_for_across_reloads_and_restarts") {
        return;
    }
    let (mut nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), ", drain: 300")).await;
    scratch.converge();
    let (at, request) = hold(port, &backends);
    retire(&scratch, WEB[at]).await;
    waits(&scratch, &format!("waiting: 1 connection on {}, ", WEB[at]));
    let (_, said) = scratch.run(&["--plan"]);
    assert!(said.contains(&format!("waiting: 1 connection on {}, ", WEB[at])), "{said}");
    assert_eq!(answering(port), others(at));
    assert_eq!(scratch.fact(WEB[at]).await["pools"]["web"], "draining");
    // The process that has the connection is left behind, twice.
    nginx.reload();
    assert_eq!(answering(port), others(at));
    waits(&scratch, &format!("waiting: 1 connection on {}", WEB[at]));
    backends[at].release();
    assert_eq!(request.join().unwrap().unwrap(), WEB[at]);
    scratch.converge();
    assert_eq!(answering(port), others(at));
    assert!(!nginx.file("web").contains(WEB[at]));
    assert_eq!(scratch.fact(WEB[at]).await["drained"], true);
    // Another one, held for longer than it may: the deadline is that of when it began, whoever is restarted.
    scratch.apply(&fleet(port, &named(&backends), ", drain: 60")).await;
    scratch.converge();
    let (next, request) = loop {
        let (next, request) = hold(port, &backends);
        if next != at {
            break (next, request);
        }
    };
    retire(&scratch, WEB[next]).await;
    let begun = Instant::now();
    let before = left(&waits(&scratch, "waiting: 1 connection"));
    nginx.reload();
    // Nearer by these seconds at least, and not as far away as at first.
    thread::sleep(Duration::from_secs(3));
    let after = left(&waits(&scratch, "waiting: 1 connection"));
    assert!(after + 2 <= before, "{before} s, then {after} s");
    scratch.converge();
    // Converging gives up after a minute and a half, so the deadline came; and not too early, by two clocks.
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(57), "{took:?}");
    assert!(!nginx.file("web").contains(WEB[next]));
    // nginx closes no connection of a server: what is left goes on.
    backends[next].release();
    assert_eq!(request.join().unwrap().unwrap(), WEB[next]);
    // Started anew, it is as it was.
    nginx.kill();
    let (code, said) = scratch.once(1, 5, "find nginx");
    assert!(code != 0 && said.contains("find nginx"), "{code} {said}");
    nginx.run();
    assert_eq!(answering(port), [WEB[3 - at - next]]);
    scratch.converge();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_leaves_that_the_pool_cannot_do_without() {
    if !Nginx::is_here("nginx::nobody_leaves_that_the_pool_cannot_do_without") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), ", least: 2")).await;
    scratch.converge();
    for host in &WEB[..2] {
        scratch.edit(json!([{"edit": "set_state", "host": host, "state": "draining"}])).await;
    }
    waits(&scratch, "a server to spare");
    assert_eq!(answering(port).len(), 2);
    scratch.edit(json!([{"edit": "set_state", "host": WEB[0], "state": "active"}])).await;
    scratch.converge();
    assert_eq!(answering(port), [WEB[0], WEB[2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nginx_refuses_leaves_what_it_had() {
    if !Nginx::is_here("what_nginx_refuses_leaves_what_it_had") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start("  upstream taken { server 127.0.0.1:9; }\n"), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let file = nginx.file("web");
    // The checker accepts the port; that another process has it, only the reload finds.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let also = format!(", '127.0.0.1:{}'", taken.local_addr().unwrap().port());
    scratch.apply(&fleet(port, &named(&backends), "").replace("']", &format!("'{also}]"))).await;
    let (code, said) = scratch.once(20, 5, "reload nginx");
    assert!((code == 1 || code == 5) && said.contains("reload nginx"), "{code} {said}");
    assert!(said.contains("Address already in use") || said.contains("could not bind"), "{said}");
    // Where the time was over in the middle of another attempt, what is good stands beside it.
    let beside = fs::read_to_string(nginx.pools().join(".web.before")).ok();
    let beside =
        beside.map(|text| serde_json::from_str::<Value>(&text).unwrap()["http"].as_str().unwrap().to_owned());
    assert_eq!(
        (beside.unwrap_or_else(|| nginx.file("web")), answering(port)),
        (file.clone(), WEB.map(str::to_owned).to_vec())
    );
    // Its port is free, and the next attempt succeeds.
    drop(taken);
    scratch.converge();
    assert!(nginx.file("web") != file && answering(port) == WEB);
    // A name that nginx's own configuration has.
    let file = nginx.file("web");
    scratch.apply("tag: lb/taken\ndocument: {port: 80}\n").await;
    let (code, said) = scratch.once(2, 5, "duplicate upstream");
    assert!(code != 0 && said.contains("duplicate upstream"), "{code} {said}");
    assert_eq!((nginx.file("taken"), nginx.file("web")), (String::new(), file.clone()));
    scratch.edit(json!([{"edit": "delete", "key": "lb/taken"}])).await;
    scratch.converge();
    // Killed in the middle of a check, it leaves what nginx does not take, and beside it what was good.
    let path = nginx.pools().join("web.http");
    fs::write(nginx.pools().join(".web.before"), json!({"http": file, "stream": null}).to_string()).unwrap();
    fs::write(&path, file.replace("server ", "sirver ")).unwrap();
    scratch.converge();
    assert_eq!((nginx.file("web"), answering(port)), (file, WEB.map(str::to_owned).to_vec()));
    assert!(!nginx.pools().join(".web.before").exists());
    // A name that is more than one word to somebody is no pool's.
    scratch.apply("tag: lb/a;b\ndocument: {port: 80}\n").await;
    let (code, said) = scratch.once(2, 4, "letters, digits");
    assert!(code == 4 && said.contains("letters, digits"), "{code} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edits_is_made_right() {
    if !Nginx::is_here("nginx::what_somebody_edits_is_made_right") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let (file, path) = (nginx.file("web"), nginx.pools().join("web.http"));
    let without =
        |text: &str| -> String { file.split_inclusive('\n').filter(|line| !line.contains(text)).collect() };
    let edits = [file.replace("weight=100", "weight=1"), without(WEB[1]), without("proxy_set_header")];
    for (at, edit) in edits.iter().enumerate() {
        assert_ne!(*edit, file, "{at}");
        fs::write(&path, edit).unwrap();
        nginx.reload();
        let (code, said) = scratch.run(&["--plan"]);
        assert!(code == 3 && said.contains("drift"), "{at} {code} {said}");
        scratch.converge();
        assert_eq!(
            (nginx.file("web"), answering(port)),
            (file.clone(), WEB.map(str::to_owned).to_vec()),
            "{at}"
        );
    }
    // Put in place, and never read by nginx: as where the agent was killed between the two.
    let reloads = nginx.reloads();
    let status = nginx.pools().join("+status.http");
    fs::write(
        &status,
        fs::read_to_string(&status).unwrap().replace("# shoal pool web ", "# shoal pool other "),
    )
    .unwrap();
    scratch.converge();
    assert_eq!(nginx.reloads(), reloads + 1);
    fs::write(&path, "# mine\n").unwrap();
    let (code, said) = scratch.once(1, 1, "Shoal did not write it");
    assert!(code == 1 && said.contains("Shoal did not write it"), "{code} {said}");
    assert_eq!(nginx.file("web"), "# mine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_paused_keeps_its_work_where_somebody_removes_the_file() {
    if !Nginx::is_here("nginx::who_is_paused_keeps_its_work_where_somebody_removes_the_file") {
        return;
    }
    let (nginx, backends, port) = (Nginx::start(""), web(), free());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(port, &named(&backends), "")).await;
    scratch.converge();
    let file = nginx.file("web");
    scratch.pause(WEB[1], true).await;
    fs::remove_file(nginx.pools().join("web.http")).unwrap();
    // A run ends with 4: somebody is paused. Or the time was over before anything was looked at.
    until("the file is there again", || {
        scratch.run(&["--once", "--wait", "4s"]);
        nginx.file("web") == file
    });
    assert_eq!(answering(port), WEB);
    scratch.pause(WEB[1], false).await;
    // A pool that goes leaves nothing that would come back with one of its name.
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    scratch.converge();
    assert!(!nginx.pools().join(".web.runs").exists());
    scratch.apply(&fleet(port, &named(&backends[..1]), "")).await;
    scratch.converge();
    assert_eq!(answering(port), WEB[..1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_that_change_together_share_reloads() {
    if !Nginx::is_here("nginx::pools_that_change_together_share_reloads") {
        return;
    }
    let (nginx, backends) = (Nginx::start(""), web());
    let scratch = Scratch::new(&nginx.table(""));
    scratch.apply(&fleet(free(), &named(&backends), "")).await;
    for n in 0..10 {
        scratch.apply(&format!("tag: lb/more{n}\ndocument: {{port: 80}}\nmembers: [{}]\n", WEB[n % 3])).await;
    }
    scratch.converge();
    let reloads = nginx.reloads();
    assert!((1..=5).contains(&reloads), "{reloads} reloads for 11 pools");
    assert!(nginx.file("more9").contains("upstream more9 {"));
}
