//! What a person has to agree to, on a real database, with zone files and with the built-in server.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::fs;
use std::net::SocketAddr;

use common::scratch::{Daemon, FILES, Scratch};
use common::{dig, files, free, here, until, until_async};
use serde_json::{Value, json};
use shoal_core::Edit;

const REVERSE: &str = "2.0.192.in-addr.arpa";

/// A zone of `n` hosts, whose addresses a second tag's reverse zone holds.
fn fleet(n: usize) -> String {
    let host = |n| format!("host: web{n}.example.com\ndocument: {{address: 192.0.2.{n}}}\n---\n");
    let members: Vec<_> = (1..=n).map(|n| format!("web{n}.example.com")).collect();
    (1..=n).map(host).collect::<String>()
        + &format!(
            "tag: dns/example.com\ndocument: {{soa: {{primary: web1}}, reverse: [{REVERSE}]}}\nmembers: [{}]\n---\n",
            members.join(", ")
        )
        + &format!("tag: dns/{REVERSE}\ndocument: {{soa: {{primary: web1.example.com.}}}}\n")
}

fn edit(value: Value) -> Vec<Edit> {
    vec![serde_json::from_value(value).unwrap()]
}

fn pause(scope: &str) -> Vec<Edit> {
    edit(json!({"edit": "write", "key": format!("pauses/{scope}"), "value": {"why": "hands off"}}))
}

fn leave(members: std::ops::Range<usize>) -> Vec<Edit> {
    let all: Vec<_> = members.map(|n| format!("web{n}.example.com")).collect();
    edit(json!({"edit": "remove_members", "tag": "dns/example.com", "members": all}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_zone_file_comes_back_with_all_that_is_held() {
    let scratch = Scratch::new(FILES);
    scratch.apply(&fleet(30)).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let file = scratch.path().join("zones/example.com");
    let names = || scratch.zone("example.com").matches("\tA\t").count();
    scratch.commit(leave(2..22)).await;
    scratch.commit(pause("host/web30.example.com")).await;
    scratch.apply("{host: web30.example.com, document: {address: 192.0.2.130}}").await;
    for _ in 0..2 {
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!((code, names()), (4, 30), "{said}");
        assert!(scratch.zone("example.com").contains("192.0.2.30\n"), "the paused one is as it was");
        fs::remove_file(&file).unwrap();
        let (code, plan) = scratch.run(&["--plan"]);
        assert!(plan.contains("remake example.com/web30"), "{code}: {plan}");
    }
    scratch.run(&["--once"]);
    scratch.approve("example.com").await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, names()), (4, 10), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_made_is_not_said_to_be_and_much_is_told_in_few_lines() {
    let scratch = Scratch::new(FILES);
    scratch.apply(&fleet(60)).await;
    let foreign = scratch.path().join("zones/example.com");
    fs::write(&foreign, "example.com. 60 IN SOA a. b. 1 2 3 4 5\n").unwrap();
    let (code, said) = scratch.run(&["--once"]);
    let of_zone = |said: &str, word: &str| {
        said.lines().filter(|line| line.contains("unit=\"example.com\"") && line.contains(word)).count()
    };
    assert_ne!(code, 0, "{said}");
    assert_eq!(of_zone(&said, "create"), 0, "{said}");
    assert!(said.lines().count() < 60, "{said}");
    fs::remove_file(&foreign).unwrap();
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, of_zone(&said, "create")), (0, 20), "{said}");
    scratch.commit(leave(2..50)).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(
        code == 4 && said.lines().count() < 60 && said.contains("more are not as they should be"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_built_in_server_forgets_nothing_that_is_held() {
    if !here("a_restart_of_the_built_in_server_forgets_nothing_that_is_held", &["dig"]) {
        return;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], free()));
    let scratch = Scratch::new(&format!("claim = '3s'\n[agent.server]\nlisten = '{address}'\n"));
    scratch.apply(&fleet(30)).await;
    let answers = |n: usize| {
        let right = format!("web{n}.example.com. 3600 A 192.0.2.{n}");
        dig(address, &format!("+tries=1 web{n}.example.com A")).answer() == [right]
    };
    let daemon = Daemon::start(&scratch);
    until(|| answers(1) && answers(30)).await;
    scratch.commit(leave(2..22)).await;
    until_async(async || scratch.status().await.contains("would change 0 and remove 20 of 31")).await;
    drop(daemon);
    let daemon = Daemon::start(&scratch);
    until(|| answers(1)).await;
    assert!((1..=30).all(answers), "what is held is answered as before");
    scratch.commit(pause("agent/dns")).await;
    drop(daemon);
    let _daemon = Daemon::start(&scratch);
    until(|| answers(1)).await;
    assert!((1..=30).all(answers), "what is paused is answered as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_host_keeps_its_names_when_it_is_renamed_or_deleted() {
    let key = |key: &str| key.parse().unwrap();
    let rename = Edit::Rename {
        from: key("hosts/web2.example.com"),
        to: key("hosts/webtwo.example.com"),
        expect: Default::default(),
    };
    let delete = |host: &str| edit(json!({"edit": "delete", "key": format!("hosts/{host}.example.com")}));
    for (change, scope) in [(vec![rename], "webtwo"), (delete("web2"), "web2")] {
        let scratch = Scratch::new(FILES);
        scratch.apply(&fleet(3)).await;
        assert_eq!(scratch.run(&["--once"]).0, 0);
        let before = scratch.zone("example.com");
        scratch.commit(pause("host/web2.example.com")).await;
        scratch.commit(change).await;
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!((code, scratch.zone("example.com")), (4, before), "{said}");
        scratch
            .commit(edit(json!({"edit": "delete", "key": format!("pauses/host/{scope}.example.com")})))
            .await;
        let (code, said) = scratch.run(&["--once"]);
        assert_eq!((code, scratch.zone("example.com").contains("web2.")), (0, false), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_others_feed_does_not_go_with_its_soa_unasked() {
    let tag = format!("dns/{REVERSE}");
    for n in [2, 40] {
        for change in [
            json!({"edit": "delete", "key": tag}),
            json!({"edit": "patch", "key": tag, "patch": {"document": {"soa": null}}}),
        ] {
            let scratch = Scratch::new(FILES);
            scratch.apply(&fleet(n)).await;
            assert_eq!(scratch.run(&["--once"]).0, 0);
            let before = scratch.zone(REVERSE);
            scratch.commit(edit(change)).await;
            let (code, plan) = scratch.run(&["--plan"]);
            let takes = format!("takes {n} more items with it: {REVERSE}/1");
            assert!(code == 4 && plan.contains(&takes), "{code}: {plan}");
            assert!(plan.contains(&format!("takes the whole unit with it: all {} items", n + 1)), "{plan}");
            let (code, said) = scratch.run(&["--once"]);
            assert_eq!((code, scratch.zone(REVERSE)), (4, before), "{said}");
            scratch.approve(REVERSE).await;
            scratch.run(&["--once"]);
            assert_eq!(files(&scratch.path().join("zones")), ["example.com"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_with_a_paused_name_does_not_go_at_all() {
    let scratch = Scratch::new(FILES);
    scratch.apply(&fleet(2)).await;
    assert_eq!(scratch.run(&["--once"]).0, 0);
    let before = scratch.zone(REVERSE);
    scratch
        .commit(edit(
            json!({"edit": "write", "key": "pauses/tag/dns/example.com", "value": {"why": "hands off"}}),
        ))
        .await;
    scratch.commit(edit(json!({"edit": "delete", "key": format!("dns/{REVERSE}")}))).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, scratch.zone(REVERSE)), (4, before), "{said}");
    assert!(said.contains("is paused: tag/dns/example.com: hands off"), "{said}");
}
