//! The examples of `docs/agents/dns.md`: every document is committed, every record it promises is there, every
//! configuration is one.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use common::scratch::{FILES, Scratch};
use shoal_dns::target::{Bind, Settings};

/// The fenced blocks of the manual, with what stands after the fence.
fn blocks() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/dns.md");
    let text = std::fs::read_to_string(path).unwrap();
    let fences = text.split("\n```").skip(1).step_by(2);
    fences
        .map(|block| block.split_once('\n').map(|(kind, text)| (kind.to_owned(), text.to_owned())).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_give_what_they_promise() {
    let mut scratch = Scratch::new(FILES);
    let mut promised = 0;
    for (kind, text) in blocks() {
        if kind == "yaml" {
            scratch = Scratch::new(FILES);
            scratch.apply(&text).await;
            let (code, said) = scratch.run(&["--once"]);
            assert_eq!(code, 0, "{said}");
        } else if let Some(zone) = kind.strip_prefix("zone ") {
            let found = scratch.zone(zone).replace('\t', " ");
            for line in text.lines() {
                assert!(found.lines().any(|l| l == line), "{line} is not in\n{found}");
                promised += 1;
            }
        }
    }
    assert!(promised > 15);
}

#[test]
fn the_configurations_are_ones() {
    let mut found = 0;
    for (kind, text) in blocks() {
        if kind == "toml" {
            let mut table: toml::Table = toml::from_str(&text).unwrap();
            let settings: Settings = table.remove("agent").unwrap().try_into().unwrap();
            if let Some(bind) = settings.bind {
                Bind::open(bind).unwrap();
            }
            found += 1;
        }
    }
    assert_eq!(found, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_fleet_leaves_nobody_out() {
    let scratch = Scratch::new(FILES);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/example");
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    let all = ["hosts.yaml", "tags.yaml", "dns.yaml"].map(read).join("\n---\n");
    scratch.apply(&all).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    let (code, plan) = scratch.run(&["--plan", "--output", "json"]);
    assert_eq!(code, 0, "{plan}");
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let units = plan["units"].as_array().unwrap();
    assert_eq!(units.len(), 6);
    for unit in units {
        assert_eq!(unit["left_out"], serde_json::json!([]));
    }
}
