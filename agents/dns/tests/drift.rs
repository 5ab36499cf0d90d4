//! Somebody edits a zone file: the daemon sees it at once, and a real BIND answers right again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::fleet::Fleet;
use common::scratch::{Daemon, Scratch};
use common::{Named, converge, dig, here, until, until_async};
use serde_json::json;
use shoal_agent::{Target, Unit};
use shoal_dns::target::{ZoneFileSettings, ZoneFiles};

const ZONE: &str = "example.com";

/// Much longer than a person would wait, and much shorter than the resync.
const SOON: Duration = Duration::from_secs(60);

const FLEET: &str = "
host: web1.example.com
document: {address: 192.0.2.1}
---
tag: dns/example.com
document: {soa: {primary: web1}}
members: [web1.example.com]
";

fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_is_undone_or_reported_at_once() {
    if !here("an_edit_by_hand_is_undone_or_reported_at_once", &["named", "rndc", "named-checkzone", "dig"]) {
        return;
    }
    for report in [false, true] {
        let named = Named::start(&[ZONE]);
        let drift = if report { "report" } else { "correct" };
        let scratch = Scratch::new(&format!("drift = '{drift}'\n{}", named.config(&[], &[])));
        scratch.apply(FLEET).await;
        let _daemon = Daemon::start(&scratch);
        let answers = |address: &str| {
            let right = format!("web1.example.com. 3600 A {address}");
            dig(named.address, "+tries=1 web1.example.com A").answer() == [right]
        };
        until(|| answers("192.0.2.1")).await;
        until_async(async || scratch.status().await.contains("\"behind\":[]")).await;
        let start = Instant::now();
        edit(&named.file(ZONE), "192.0.2.1\n", "192.0.2.66\nextra.example.com. 60 IN A 192.0.2.67\n");
        assert!(named.rndc(&["reload", ZONE]));
        if report {
            until_async(async || scratch.status().await.contains("drift: it was changed")).await;
            assert!(fs::read_to_string(named.file(ZONE)).unwrap().contains("192.0.2.66"));
        } else {
            until(|| !fs::read_to_string(named.file(ZONE)).unwrap().contains("192.0.2.6")).await;
            until(|| answers("192.0.2.1")).await;
            assert_eq!(dig(named.address, "extra.example.com A").status(), "NXDOMAIN");
        }
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_others_do_wakes() {
    let dir = tempfile::tempdir().unwrap();
    let bind = ZoneFiles::open(ZoneFileSettings::files(dir.path())).unwrap();
    let zone = |address: &str| {
        let statics = json!([{"name": "ns1", "type": "A", "data": address}]);
        Fleet::default()
            .tag("dns/example.com", json!({"soa": {"primary": "ns1"}, "static": statics}), &[])
            .zone(ZONE)
    };
    let woken =
        async |within: u64| tokio::time::timeout(Duration::from_millis(within), bind.woken()).await.ok();
    let here = Some(vec![Unit::from(ZONE)]);
    let file = dir.path().join("example.com.zone");
    converge(&bind, ZONE, &zone("192.0.2.1")).await;
    // Its own work, a file that is none of its zones', and one that is only read: nothing.
    let quiet = async {
        converge(&bind, ZONE, &zone("192.0.2.2")).await;
        fs::write(dir.path().join("other.zone"), "x").unwrap();
        fs::read(&file).unwrap();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        found = woken(1500) => assert_eq!(found, None),
        () = quiet => {}
    }
    // An edit in place, another file in its place, none at all.
    edit(&file, "192.0.2.2", "192.0.2.3");
    assert_eq!(woken(60_000).await, here);
    converge(&bind, ZONE, &zone("192.0.2.2")).await;
    let other = dir.path().join("other.zone");
    fs::copy(&file, &other).unwrap();
    fs::rename(other, &file).unwrap();
    assert_eq!(woken(60_000).await, here);
    converge(&bind, ZONE, &zone("192.0.2.4")).await;
    fs::remove_file(&file).unwrap();
    assert_eq!(woken(60_000).await, here);
}
