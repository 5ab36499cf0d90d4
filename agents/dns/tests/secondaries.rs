//! The built-in server as a hidden primary: real secondaries (BIND, NSD, Knot) have each change at once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use common::fleet::Fleet;
use common::{Named, Running, SECRET, converge, dig, free, here, step, until};
use serde_json::json;
use shoal_agent::{Outcome, Revision, Target as _, Why};
use shoal_dns::target::{Algorithm, KeySettings, Listen, Server, ServerSettings, TransferSettings};
use shoal_dns::{Key, Node};
use tempfile::TempDir;

const ZONE: &str = "example.com";

/// A zone of so many names, of which the first has this address.
fn zone(names: u32, first: &str) -> BTreeMap<Key, Node> {
    let address = |n: u32| format!("10.{}.{}.{}", n >> 16, (n >> 8) & 255, n & 255);
    let mut statics = vec![
        json!({"name": "ns1", "type": "A", "data": "192.0.2.53"}),
        json!({"name": "first", "type": "A", "data": [first, "192.0.2.77"]}),
        json!({"type": "MX", "data": "10 mail.example.net."}),
        json!({"name": "odd", "type": "TYPE65280", "data": "\\# 2 beef"}),
        json!({"name": "big", "type": "TXT", "data": (0..40).map(|n| format!("{n} {}", "x".repeat(90))).collect::<Vec<_>>()}),
    ];
    statics.extend((0..names).map(|n| json!({"name": format!("h{n}"), "type": "A", "data": address(n)})));
    let document = json!({"soa": {"primary": "ns1", "refresh": 3600}, "static": statics});
    Fleet::default().tag("dns/example.com", document, &[]).zone(ZONE)
}

fn settings(at: SocketAddr, dir: &Path, notify: &[SocketAddr]) -> ServerSettings {
    let secret_file = dir.join("secret");
    fs::write(&secret_file, SECRET).unwrap();
    let key = KeySettings { name: "k".into(), algorithm: Algorithm::HmacSha256, secret_file };
    let transfer =
        TransferSettings { notify: notify.to_vec(), allow: vec!["127.0.0.1".into()], key: Some(key) };
    ServerSettings { listen: Listen::One(at), state: Some(dir.join("state")), transfer }
}

/// A server that answers. One that was dropped at this address lets go of it a moment later.
async fn open(settings: ServerSettings) -> Server {
    let server = Server::open(settings).unwrap();
    server.start().await.unwrap();
    common::until_async(async || {
        common::observe(&server, ZONE).await;
        !server.addresses().is_empty()
    })
    .await;
    server
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn serial(at: SocketAddr) -> u32 {
    let found = dig(at, "+tries=1 +timeout=1 example.com SOA").answer();
    found.first().and_then(|line| line.split(' ').nth(5)?.parse().ok()).unwrap_or(0)
}

/// The whole zone as a server gives it away, sorted.
fn all(at: SocketAddr, key: bool) -> Vec<String> {
    let sign = if key { format!("-y hmac-sha256:k:{SECRET} ") } else { String::new() };
    let text = dig(at, &format!("{sign}example.com AXFR")).text;
    assert!(!text.contains("WARNING") && !text.contains("ouldn't verify"), "{text}");
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(';') && !line.contains("\tTSIG\t"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase())
        .collect();
    lines.sort();
    lines.dedup();
    lines
}

fn nsd(port: u16, primary: SocketAddr) -> Running {
    let config = format!(
        "server:\n ip-address: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n zonesdir: DIR\n database: \"\"\n \
         pidfile: DIR/pid\n xfrdfile: DIR/xfrd\n xfrdir: DIR\n zonelistfile: DIR/list\n logfile: DIR/log\n \
         server-count: 1\nremote-control:\n control-enable: no\nkey:\n name: k\n algorithm: hmac-sha256\n secret: {SECRET}\n\
         zone:\n name: {ZONE}\n zonefile: DIR/zone\n allow-notify: 127.0.0.1 k\n request-xfr: 127.0.0.1@{} k\n \
         provide-xfr: 127.0.0.1 NOKEY\n",
        primary.port()
    );
    Running::start("nsd", &["-d", "-c"], &config, TempDir::new().unwrap())
}

fn knot(port: u16, primary: SocketAddr) -> Running {
    let config = format!(
        "server:\n  listen: 127.0.0.1@{port}\n  rundir: DIR\n  user: root:root\ndatabase:\n  storage: DIR\nkey:\n  - id: k\n    \
         algorithm: hmac-sha256\n    secret: {SECRET}\nremote:\n  - id: primary\n    address: 127.0.0.1@{}\n    key: k\nacl:\n  \
         - id: told\n    address: 127.0.0.1\n    key: k\n    action: notify\n  - id: all\n    address: 127.0.0.1\n    \
         action: transfer\ntemplate:\n  - id: default\n    storage: DIR\nzone:\n  - domain: {ZONE}\n    master: primary\n    \
         acl: [told, all]\n",
        primary.port()
    );
    Running::start("knotd", &["-c"], &config, TempDir::new().unwrap())
}

/// Changes of every kind, after each of which the secondary has the same zone.
async fn follows(test: &str, start: impl Fn(u16, SocketAddr) -> Running) {
    let (at, secondary) = (local(free()), local(free()));
    let dir = TempDir::new().unwrap();
    let settings = settings(at, dir.path(), &[secondary]);
    let server = open(settings.clone()).await;
    converge(&server, ZONE, &zone(400, "192.0.2.1")).await;
    let _running = start(secondary.port(), at);
    let same = |what: &str| {
        assert_eq!(all(at, true), all(secondary, false), "{test}: {what}");
    };
    until(|| serial(secondary) == serial(at)).await;
    same("as it began");
    for (names, first) in [(400, "192.0.2.2"), (399, "192.0.2.2"), (450, "192.0.2.3"), (10, "192.0.2.3")] {
        converge(&server, ZONE, &zone(names, first)).await;
        until(|| serial(secondary) == serial(at)).await;
        same(&format!("{names} names, {first}"));
    }
    // It ends and begins again from its copies; the secondary need not be told anything else.
    drop(server);
    let server = open(settings).await;
    converge(&server, ZONE, &zone(11, "192.0.2.4")).await;
    until(|| serial(secondary) == serial(at)).await;
    same("after a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn nsd_follows() {
    if here("nsd_follows", &["nsd", "dig"]) {
        follows("nsd", nsd).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn knot_follows() {
    if here("knot_follows", &["knotd", "dig"]) {
        follows("knot", knot).await;
    }
}

/// What BIND says of its transfers: messages, records, octets.
fn transfers(named: &Named) -> Vec<[u64; 3]> {
    let log = named.log();
    let completed = log.lines().filter(|line| line.contains("Transfer completed:"));
    let numbers = |line: &str| {
        let rest = line.split("Transfer completed:").nth(1).unwrap_or_default();
        let mut words = rest.split([' ', ',']).filter_map(|word| word.parse().ok());
        [words.next().unwrap_or(0), words.next().unwrap_or(0), words.next().unwrap_or(0)]
    };
    completed.map(numbers).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_large_zone_travels_as_some_hundred_octets() {
    if !here("a_change_of_a_large_zone_travels_as_some_hundred_octets", &["named", "rndc", "dig"]) {
        return;
    }
    const NAMES: u32 = 100_000;
    let (at, secondary) = (local(free()), local(free()));
    let dir = TempDir::new().unwrap();
    let server = open(settings(at, dir.path(), &[secondary])).await;
    let mut want = zone(NAMES, "192.0.2.1");
    converge(&server, ZONE, &want).await;
    let named = Named::secondary(secondary.port(), ZONE, at);
    until(|| serial(secondary) == serial(at)).await;
    assert_eq!(all(at, true), all(secondary, false));
    for last in 2..7 {
        // Only the one name, or the test would spend its time on making all of them again.
        want.extend(zone(0, &format!("192.0.2.{last}")));
        let outcomes = step(&server, ZONE, &want, &Why::Wanted(Revision(7))).await.unwrap();
        assert_eq!(outcomes.into_values().collect::<Vec<_>>(), [Outcome::Done]);
        until(|| serial(secondary) == serial(at)).await;
        let found = dig(secondary, "first.example.com A").answer();
        assert!(found.contains(&format!("first.example.com. 3600 A 192.0.2.{last}")), "{found:?}");
    }
    let sizes = transfers(&named);
    println!("messages, records and octets of each transfer of a zone of {NAMES} names: {sizes:?}");
    let (cold, changes) = sizes.split_first().unwrap();
    assert!(cold[1] > u64::from(NAMES) && cold[0] > 10, "{sizes:?}");
    assert_eq!(changes.len(), 5, "one transfer a change: {sizes:?}");
    for [messages, records, octets] in changes {
        assert!(*messages == 1 && *records <= 6 && *octets < 600, "{sizes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_a_zone() {
    if !here("nobody_else_gets_a_zone", &["dig"]) {
        return;
    }
    let at = local(free());
    let dir = TempDir::new().unwrap();
    let server = open(settings(at, dir.path(), &[])).await;
    converge(&server, ZONE, &zone(3, "192.0.2.1")).await;
    let asked = |words: &str| dig(at, &format!("{words} +nostats")).text;
    assert!(asked("example.com AXFR").contains("Transfer failed"), "no key");
    assert!(asked("+tcp example.com IXFR=1").contains("Transfer failed"), "no key");
    assert!(asked(&format!("-y hmac-sha256:other:{SECRET} example.com AXFR")).contains("BADKEY"));
    assert!(asked("-y hmac-sha256:k:d3Jvbmc= example.com AXFR").contains("BADSIG"));
    assert!(asked(&format!("-y hmac-sha256:k:{SECRET} example.org AXFR")).contains("Transfer failed"));
    // A signed question has a signed answer, and a badly signed one none.
    let signed = asked(&format!("-y hmac-sha256:k:{SECRET} first.example.com A"));
    assert!(
        signed.contains("192.0.2.1") && signed.contains("TSIG") && !signed.contains("verify"),
        "{signed}"
    );
    let bad = asked("-y hmac-sha256:k:d3Jvbmc= first.example.com A");
    assert!(bad.contains("NOTAUTH") && !bad.contains("192.0.2.1"), "{bad}");
    // What is up to date gets the SOA alone; what is unknown gets everything.
    let ixfr = |serial: u32| asked(&format!("-y hmac-sha256:k:{SECRET} +tcp example.com IXFR={serial}"));
    let count = |text: &str| text.lines().filter(|line| line.contains("\tIN\t")).count();
    let current = serial(at);
    assert_eq!(count(&ixfr(current)), 1);
    assert!(count(&ixfr(current.wrapping_sub(5))) > 40);
    converge(&server, ZONE, &zone(3, "192.0.2.9")).await;
    // SOA, old SOA, what went, new SOA, what came, SOA.
    assert_eq!(count(&ixfr(current)), 6, "{}", ixfr(current));
    // Not from elsewhere, key or not.
    drop(server);
    let mut other = settings(at, dir.path(), &[]);
    other.transfer.allow = vec!["192.0.2.0/24".into()];
    let _server = open(other).await;
    assert!(asked(&format!("-y hmac-sha256:k:{SECRET} example.com AXFR")).contains("Transfer failed"));
}
