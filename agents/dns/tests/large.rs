//! The largest set that the agent lets pass is loaded and answered by every server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use common::fleet::Fleet;
use common::{Primary, converge, dig, here, tools};
use serde_json::{Value, json};
use shoal_agent::Target as _;
use shoal_dns::target::{Listen, Server, ServerKind, ServerSettings, ZoneFiles};

const ZONE: &str = "example.com";

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_sets_are_answered_whole() {
    if !here("the_largest_sets_are_answered_whole", &["dig"]) {
        return;
    }
    // One octet a string for its length, twelve around each record: 64,000 in all.
    let many: Vec<Value> = (0..10).map(|n| json!(format!("{n}{}", "x".repeat(6_362)))).collect();
    let statics = json!([
        {"name": "many", "type": "TXT", "data": many},
        {"name": "one", "type": "TYPE65280", "data": format!("\\# 63988 {}", "ab".repeat(63_988))},
        {"name": "long", "type": "TXT", "data": "x".repeat(63_738)},
    ]);
    let tag = json!({"soa": {"primary": "ns.example.net."}, "static": statics});
    let want = Fleet::default().tag("dns/example.com", tag, &[]).zone(ZONE);
    let server = Server::open(ServerSettings {
        listen: Listen::One(([127, 0, 0, 1], 0).into()),
        ..ServerSettings::default()
    })
    .unwrap();
    server.start().await.unwrap();
    converge(&server, ZONE, &want).await;
    let mut primaries = Vec::new();
    for kind in [ServerKind::Bind, ServerKind::Nsd, ServerKind::Knot] {
        if here(&format!("the_largest_sets_are_answered_whole by {kind:?}"), tools(kind)) {
            let primary = Primary::start(kind);
            converge(&ZoneFiles::open(primary.settings()).unwrap(), ZONE, &want).await;
            primaries.push(primary);
        }
    }
    let addresses = primaries.iter().map(|primary| primary.address);
    for address in addresses.chain(server.addresses()) {
        assert_eq!(dig(address, "many.example.com TXT +tcp").answer().len(), 10, "{address}");
        assert_eq!(dig(address, "one.example.com TYPE65280 +tcp").answer().len(), 1, "{address}");
        assert_eq!(dig(address, "long.example.com TXT +tcp").answer().len(), 1, "{address}");
    }
}
