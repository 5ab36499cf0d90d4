//! Names of a zone that no tag declares any more, while another tag still feeds it.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::scratch::{Daemon, FILES, Scratch};
use common::until_async;
use serde_json::json;
use shoal_core::{Edit, Revision, UnitStatus};
use shoal_store::{Database, Store};
use shoal_store_sqlite::SqliteStore;

const REVERSE: &str = "2.0.192.in-addr.arpa";
const DECLARED: &str = "{tag: dns/2.0.192.in-addr.arpa, document: {soa: {primary: web1.example.com.}}}";
const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2}
---
tag: dns/example.com
document: {soa: {primary: web1}, reverse: [2.0.192.in-addr.arpa]}
members: [web1.example.com, web2.example.com]
";

/// How the reverse zone stands, once the agent has seen everything: `None`, if it is no unit any more.
async fn stands(scratch: &Scratch) -> Option<Option<UnitStatus>> {
    let store = SqliteStore::open(scratch.path().join("db")).await.unwrap();
    let head = Database::open(Arc::new(store)).await.unwrap();
    let head: Revision = head.store().head().await.unwrap().revision;
    let store = SqliteStore::open(scratch.path().join("db")).await.unwrap();
    let report = store.reports().await.unwrap().into_iter().next()?;
    (report.seen == head).then(|| report.units.get(REVERSE).cloned())
}

async fn done(scratch: &Scratch) {
    until_async(async || {
        stands(scratch).await.is_some_and(|unit| unit.is_none_or(|unit| unit.behind_total == 0))
    })
    .await;
}

/// How long [`done`] takes from now on.
async fn until_done(scratch: &Scratch) -> Duration {
    let start = Instant::now();
    done(scratch).await;
    start.elapsed()
}

fn commit(value: serde_json::Value) -> Vec<Edit> {
    vec![serde_json::from_value(value).unwrap()]
}

/// Deletes the tag of the zone, and agrees that what others feed into it goes along.
async fn undeclare(scratch: &Scratch) {
    scratch.commit(commit(json!({"edit": "delete", "key": "dns/2.0.192.in-addr.arpa"}))).await;
    until_async(async || stands(scratch).await.flatten().is_some_and(|unit| unit.held.is_some())).await;
    scratch.approve(REVERSE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_tags_feed_into_a_zone_that_went_waits_and_says_for_what() {
    for config in ["[agent.server]\nlisten = '127.0.0.1:0'\n", FILES] {
        let scratch = Scratch::new(config);
        scratch.apply(&format!("{FLEET}---\n{DECLARED}")).await;
        let _daemon = Daemon::start(&scratch);
        done(&scratch).await;
        undeclare(&scratch).await;
        let says = |unit: &UnitStatus, key: &str| {
            let why = format!("no tag declares the zone {REVERSE}");
            unit.behind.iter().any(|b| b.key == format!("{REVERSE}/{key}") && b.why.contains(&why))
        };
        // At no time is it done.
        until_async(async || {
            let Some(unit) = stands(&scratch).await else { return false };
            let unit = unit.unwrap();
            assert!(unit.behind_total > 0, "{config}: {unit:?}");
            says(&unit, "1") && says(&unit, "2")
        })
        .await;
        // A newcomer is not made in a zone that is not there, either.
        scratch.apply("{host: web7.example.com, document: {address: 192.0.2.7}}").await;
        scratch
            .commit(commit(
                json!({"edit": "add_members", "tag": "dns/example.com", "members": ["web7.example.com"]}),
            ))
            .await;
        until_async(async || stands(&scratch).await.flatten().is_some_and(|unit| says(&unit, "7"))).await;
        let mut all = ["web1", "web2", "web7"].map(|name| format!("{name}.example.com")).to_vec();
        // Declared again, all of them are there, soon: it is not waited for another try. A machine that stalls is late once, and not each
        // time; one that is busy takes as long for a newcomer, whom nobody tried before.
        let mut late = Vec::new();
        loop {
            scratch.apply(DECLARED).await;
            let took = until_done(&scratch).await;
            if took.as_secs() < 3 {
                break;
            }
            let (n, name) = (80 + late.len(), format!("web{}.example.com", 80 + late.len()));
            scratch.apply(&format!("{{host: {name}, document: {{address: 192.0.2.{n}}}}}")).await;
            scratch
                .commit(commit(json!({"edit": "add_members", "tag": "dns/example.com", "members": [name]})))
                .await;
            let newcomer = until_done(&scratch).await;
            all.push(name);
            if took < 3 * newcomer {
                break;
            }
            late.push((took, newcomer));
            assert!(late.len() < 4, "{config}: {late:?}");
            undeclare(&scratch).await;
            until_async(async || stands(&scratch).await.flatten().is_some_and(|unit| says(&unit, "7"))).await;
        }
        // What is not there is no removal that somebody would have to agree to.
        undeclare(&scratch).await;
        until_async(async || stands(&scratch).await.flatten().is_some_and(|unit| says(&unit, "2"))).await;
        scratch
            .commit(commit(json!({"edit": "remove_members", "tag": "dns/example.com", "members": all})))
            .await;
        until_async(async || {
            let unit = stands(&scratch).await;
            assert!(unit.iter().flatten().all(|unit| unit.held.is_none()), "{config}: {unit:?}");
            unit.is_some_and(|unit| unit.is_none_or(|unit| unit.items == 0))
        })
        .await;
    }
}
