//! What a person has to agree to, on a real database, with zone files and with the built-in server.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use common::files;
use common::scratch::{FILES, Scratch};
use serde_json::json;
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

fn edit(value: serde_json::Value) -> Vec<Edit> {
    vec![serde_json::from_value(value).unwrap()]
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
