//! The examples of `docs/agents/placement.md` and the configuration that is installed: every document is committed, understood and acted on, and what the
//! page promises of the groups is so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![cfg(feature = "agent")]

mod database;

use std::collections::BTreeMap;
use std::fs;

use database::{how, open, put};
use serde_json::json;
use shoal_agent::chooser::{Chooser as _, How, pass};
use shoal_core::docs::Entry;
use shoal_core::{Document, Edit, Expect, Key, Lifecycle};
use shoal_placement::agent::{Placement, Settings};

fn blocks(kind: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/agents/placement.md");
    let text = fs::read_to_string(path).unwrap();
    let fences = text.split("\n```").skip(1).step_by(2);
    fences.filter_map(|block| block.strip_prefix(&format!("{kind}\n")).map(str::to_owned)).collect()
}

#[tokio::test]
async fn the_examples_are_understood_and_done() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    // The schema is published first, so that hosts are held against what the page says.
    let key = Key::schema(&"placement".parse().unwrap());
    let value = Document::of(&Placement::default().schema()).unwrap();
    put(&database, vec![Edit::Write { key, value, expect: Expect::Any }]).await;
    let examples = blocks("yaml");
    assert_eq!(examples.len(), 4);
    for example in examples {
        let edits = Entry::all(example.as_bytes()).unwrap().into_iter().map(Entry::into_edit).collect();
        put(&database, edits).await;
    }
    // What makes machines takes the documents, too.
    for tag in database.view().tags_in("vm") {
        serde_json::from_str::<shoal_machine::Spec>(tag.document.as_str()).unwrap();
    }
    // A Wednesday in the morning.
    let at = Some("2026-07-01T10:00:00Z".parse().unwrap());
    let mut passes = 0;
    let choice = loop {
        passes += 1;
        assert!(passes < 20, "it goes round and round");
        let choice = pass(&database, &Placement::default(), &How { at, ..how(0) }).await.unwrap().choice;
        assert_eq!(choice.quarantined, vec![]);
        if choice.edits.is_empty() {
            break choice;
        }
    };
    let view = database.view();
    let states: BTreeMap<&str, Lifecycle> =
        view.hosts().map(|host| (host.name.as_str().split('.').next().unwrap(), host.state)).collect();
    assert_eq!(states["kafka1"], Lifecycle::Placed);
    let named = |start: &str| states.iter().filter(|(name, _)| name.starts_with(start)).collect::<Vec<_>>();
    // By the schedule there are three, and a metric that nobody measures moves nothing.
    assert_eq!(named("resolver-").len(), 3);
    let brokers = named("broker-");
    assert_eq!(brokers.len(), 3);
    assert_eq!(
        brokers.iter().filter(|(_, state)| **state == Lifecycle::Placed).count(),
        1,
        "one site has a box"
    );
    assert_eq!(choice.behind.len(), 2, "{:?}", choice.behind);
    let first = view.host("broker-0.example.com").unwrap();
    assert_eq!(first.field("broker_id"), Some(json!(1001)));
    let networks = first.field("vm").unwrap()["networks"].clone();
    let address = first.text("address").unwrap();
    assert!(address == "192.0.2.10" || address == "192.0.2.138", "{address}");
    assert_eq!(networks, json!([{"name": "lan", "addresses": [format!("{address}/25")]}]));
    assert_eq!(view.members(&"dns/example.com".parse().unwrap()).len(), 3);
}

fn settings(text: &str) -> Settings {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("placement.toml");
    fs::write(&path, text).unwrap();
    shoal_agent::settings::<Settings>(&path).unwrap().0
}

#[test]
fn the_configurations_are_understood() {
    let settings_of_page = settings(&blocks("toml").concat());
    let placement = Placement::new(settings_of_page).unwrap();
    let writes = placement.schema().writes.unwrap();
    assert!(writes.makes_hosts && writes.members.contains("motd") && writes.members.contains("dns"));
    assert!(!Placement::default().schema().writes.unwrap().members.contains("motd"));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/placement.toml");
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(settings(&text).prometheus, None);
    // With every setting that stands behind a #; the store is shown twice.
    let all: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with('[') || rest.split(' ').nth(1) == Some("=") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let all = all.lines().filter(|line| !line.starts_with("store = ")).collect::<Vec<_>>().join("\n");
    let all = settings(&all);
    assert_eq!(all.prometheus.as_deref(), Some("http://127.0.0.1:9090"));
    assert!(Placement::new(all).is_ok());
    let wrong =
        Settings { prometheus: Some("https://prometheus.example.com".to_owned()), ..Settings::default() };
    assert!(Placement::new(wrong).is_err());
}
