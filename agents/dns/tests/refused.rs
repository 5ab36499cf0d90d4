//! What a checker refuses holds up neither the zone nor, where that can be, the name it stands under.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::fleet::Fleet;
use common::step;
use serde_json::{Value, json};
use shoal_agent::{Outcome, Revision, Why};
use shoal_dns::target::{ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";

/// A checker that complains, as BIND's do, of each line with a word of the file `words`.
fn open(dir: &Path, words: &str) -> ZoneFiles {
    fs::write(dir.join("words"), words).unwrap();
    let script = format!(
        "grep -nFf {}/words \"$1\" | while IFS=: read -r line rest; do echo \"dns_rdata_fromtext: $1:$line: near 'x': not today\"; done | grep . && exit 1; exit 0",
        dir.display()
    );
    let mut settings = ZoneFileSettings::files(dir.join("zones"));
    settings.check = ["sh", "-c", &script, "check", "{file}"].map(str::to_owned).to_vec();
    fs::create_dir_all(dir.join("zones")).unwrap();
    ZoneFiles::open(settings).unwrap()
}

fn zone(statics: Value) -> BTreeMap<Key, Node> {
    let tag = json!({"soa": {"primary": "ns.example.net."}, "static": statics});
    Fleet::default().tag("dns/example.com", tag, &[]).zone(ZONE)
}

async fn failed(bind: &ZoneFiles, want: &BTreeMap<Key, Node>) -> Vec<String> {
    let outcomes = step(bind, ZONE, want, &Why::Wanted(Revision(7))).await.unwrap();
    let failed = outcomes.into_iter().filter_map(|(key, outcome)| match outcome {
        Outcome::Failed(fault) => Some(format!("{key}: {fault}")),
        _ => None,
    });
    failed.collect()
}

fn file(dir: &Path) -> String {
    fs::read_to_string(dir.join("zones/example.com.zone")).unwrap()
}

#[tokio::test]
async fn a_new_zone_goes_live_without_the_bad_records_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let bind = open(dir.path(), "bad\n");
    let statics = json!([
        {"type": "MX", "data": "10 mail.example.net."},
        {"type": "TXT", "data": ["bad", "fine"]},
        {"name": "a", "type": "TXT", "data": ["a-fine", "bad", "bad too"]},
        {"name": "b", "type": "TXT", "data": "bad"},
    ]);
    let failed = failed(&bind, &zone(statics)).await;
    assert_eq!(failed.len(), 3, "{failed:#?}");
    assert!(
        failed[0].starts_with("example.com/@: write example.com: the checker refuses it: near 'x'"),
        "{failed:#?}"
    );
    let file = file(dir.path());
    for there in ["\tSOA\t", "\tMX\t", "\"fine\"", "\"a-fine\""] {
        assert!(file.contains(there), "{there}: {file}");
    }
    assert!(!file.contains("bad"), "{file}");
}

#[tokio::test]
async fn a_live_name_keeps_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let bind = open(dir.path(), "bad\n");
    let statics = |text: &str| json!([{"name": "a", "type": "TXT", "data": text}, {"name": "b", "type": "TXT", "data": "b"}]);
    assert_eq!(failed(&bind, &zone(statics("good"))).await, Vec::<String>::new());
    assert_eq!(failed(&bind, &zone(statics("bad"))).await.len(), 1);
    assert!(file(dir.path()).contains("\"good\""));
}

#[tokio::test]
async fn a_record_that_the_checker_took_before_does_not_hold_up_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let statics = |text: &str| json!([{"type": "TXT", "data": "old"}, {"name": "a", "type": "TXT", "data": ["old", "a"]}, {"name": "b", "type": "TXT", "data": text}]);
    assert_eq!(failed(&open(dir.path(), "bad\n"), &zone(statics("one"))).await, Vec::<String>::new());
    // Another version of the checker.
    let bind = open(dir.path(), "old\n");
    failed(&bind, &zone(statics("two"))).await;
    let file = file(dir.path());
    assert!(file.contains("\"two\"") && file.contains("\"a\"") && !file.contains("old"), "{file}");
    let failed = failed(&bind, &zone(statics("two"))).await;
    assert!(failed.len() == 2 && failed[0].contains("not today"), "{failed:#?}");
}
