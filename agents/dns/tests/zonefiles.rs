//! Real servers of every kind serve what the agent wrote to files, and survive what they did not like. What is special to
//! BIND is in `bind.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::fleet::Fleet;
use common::scratch::{Daemon, Scratch};
use common::{Primary, converge, dig, files, here, observe, step, tools, until, until_async};
use serde_json::{Value, json};
use shoal_agent::{Outcome, Revision, Why};
use shoal_dns::target::{ServerKind, ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";

fn wanted() -> Why {
    Why::Wanted(Revision(7))
}

/// A zone with this member at this address.
fn zone(member: &str, address: &str, statics: &[Value]) -> BTreeMap<Key, Node> {
    let mut all = vec![json!({"name": "ns1", "type": "A", "data": "192.0.2.53"})];
    all.extend_from_slice(statics);
    Fleet::default()
        .tag("dns/example.com", json!({"soa": {"primary": "ns1"}, "ttl": 300, "static": all}), &[member])
        .host(member, json!({"address": address}))
        .zone(ZONE)
}

fn web1(address: &str) -> BTreeMap<Key, Node> {
    zone("web1.example.com", address, &[])
}

fn serial(primary: &Primary) -> String {
    let answer = dig(primary.address, "example.com SOA").answer();
    answer.first().and_then(|soa| soa.split(' ').nth(5)).unwrap_or("none").to_owned()
}

fn status(primary: &Primary, words: &str) -> String {
    dig(primary.address, words).status().to_owned()
}

macro_rules! each_kind {
    ($($test:ident: $bind:ident $nsd:ident $knot:ident;)*) => {$(
        each_kind! { @ $test $bind Bind }
        each_kind! { @ $test $nsd Nsd }
        each_kind! { @ $test $knot Knot }
    )*};
    (@ $test:ident $name:ident $kind:ident) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if here(stringify!($name), tools(ServerKind::$kind)) {
                $test(Primary::start(ServerKind::$kind)).await;
            }
        }
    };
}

each_kind! {
    follows: bind_follows nsd_follows knot_follows;
    goes_back: bind_goes_back nsd_goes_back knot_goes_back;
    is_broken_before: bind_is_broken_before nsd_is_broken_before knot_is_broken_before;
    is_edited: bind_is_edited nsd_is_edited knot_is_edited;
    forgets: bind_forgets nsd_forgets knot_forgets;
    is_ahead: bind_is_ahead nsd_is_ahead knot_is_ahead;
    refuses: bind_refuses nsd_refuses knot_refuses;
    takes_more_than_a_hundred: bind_takes_a_hundred nsd_takes_more_than_a_hundred knot_takes_more_than_a_hundred;
    is_told_of_many: bind_is_told_of_many nsd_is_told_of_many knot_is_told_of_many;
}

/// A host is added, changed, renamed and removed, and the zone goes.
async fn follows(primary: Primary) {
    let target = ZoneFiles::open(primary.settings()).unwrap();
    assert_eq!(status(&primary, "example.com SOA"), "REFUSED");
    converge(&target, ZONE, &web1("192.0.2.1")).await;
    assert_eq!((primary.web1(), serial(&primary)), (vec!["192.0.2.1".to_owned()], "1".to_owned()));
    assert_eq!(files(&primary.zones()), ["example.com.zone"]);
    converge(&target, ZONE, &web1("192.0.2.2")).await;
    assert_eq!((primary.web1(), serial(&primary)), (vec!["192.0.2.2".to_owned()], "2".to_owned()));
    // No change: no serial.
    assert_eq!(converge(&target, ZONE, &web1("192.0.2.2")).await, 0);
    assert_eq!(serial(&primary), "2");
    converge(&target, ZONE, &zone("web2.example.com", "192.0.2.2", &[])).await;
    assert_eq!(status(&primary, "web1.example.com A"), "NXDOMAIN");
    assert_eq!(dig(primary.address, "web2.example.com A").answer(), ["web2.example.com. 300 A 192.0.2.2"]);
    let mut empty = web1("192.0.2.2");
    empty.retain(|key, _| key.owner() != "web1");
    converge(&target, ZONE, &empty).await;
    assert_eq!(status(&primary, "web2.example.com A"), "NXDOMAIN");
    let gone = Why::TagGone("dns/example.com".parse().unwrap(), Revision(8));
    step(&target, ZONE, &BTreeMap::new(), &gone).await.unwrap();
    assert_eq!(status(&primary, "example.com SOA"), "REFUSED");
    assert!(files(&primary.zones()).is_empty());
    // And comes again.
    converge(&target, ZONE, &web1("192.0.2.3")).await;
    assert_eq!(primary.web1(), ["192.0.2.3"]);
}

/// What no server loads: data of no type's, behind a checker that lets everything pass.
fn broken(mut settings: ZoneFileSettings, within: u64) -> ZoneFiles {
    // The address becomes one that is none between the check and the reload.
    settings.check = ["sed", "-i", "s/192.0.2.9$/192.0.2.999/", "{file}"].map(str::to_owned).to_vec();
    settings.within = within;
    ZoneFiles::open(settings).unwrap()
}

/// A file that the server does not load: the last good one is back, and served, soon.
async fn goes_back(primary: Primary) {
    // What fails at once is not waited for; BIND says nothing and goes on with what it had.
    let within = if primary.kind == ServerKind::Bind { 3 } else { 120 };
    let good = ZoneFiles::open(primary.settings()).unwrap();
    converge(&good, ZONE, &web1("192.0.2.1")).await;
    let before = fs::read_to_string(primary.file(ZONE)).unwrap();
    let start = Instant::now();
    let fault =
        step(&broken(primary.settings(), within), ZONE, &web1("192.0.2.9"), &wanted()).await.unwrap_err();
    assert!(fault.next.as_ref().unwrap().contains("the last good file is back"), "{fault}");
    assert!(start.elapsed() < Duration::from_secs(60), "{fault}");
    assert_eq!(fs::read_to_string(primary.file(ZONE)).unwrap(), before);
    until(|| primary.web1() == ["192.0.2.1"]).await;
    assert_eq!(files(&primary.zones()), ["example.com.zone"]);
    converge(&good, ZONE, &web1("192.0.2.9")).await;
    assert_eq!(primary.web1(), ["192.0.2.9"]);
}

/// Writes into a zone's file as somebody does by hand, later. The clock of files goes in steps of some milliseconds, and BIND leaves a file that
/// is not newer than its last look at it.
fn edit(primary: &Primary, text: &str) {
    std::thread::sleep(Duration::from_millis(30));
    fs::write(primary.file(ZONE), text).unwrap();
}

/// A zone that is new and broken, and one that somebody broke, are made good.
async fn is_broken_before(primary: Primary) {
    let fault = step(&broken(primary.settings(), 2), ZONE, &web1("192.0.2.9"), &wanted()).await.unwrap_err();
    assert!(fault.next.unwrap().contains("there is no earlier file"));
    let target = ZoneFiles::open(primary.settings()).unwrap();
    converge(&target, ZONE, &web1("192.0.2.1")).await;
    assert_eq!(primary.web1(), ["192.0.2.1"]);
    let text = fs::read_to_string(primary.file(ZONE)).unwrap();
    edit(&primary, &text.replace("192.0.2.1\n", "192.0.2.999\n"));
    primary.control(&["reload", ZONE]);
    primary.control(&["zone-reload", ZONE]);
    converge(&target, ZONE, &web1("192.0.2.1")).await;
    assert_eq!(primary.web1(), ["192.0.2.1"]);
}

/// A server that serves a later serial than the file has, say because it loaded an edit that is gone again.
async fn is_ahead(primary: Primary) {
    let target = ZoneFiles::open(primary.settings()).unwrap();
    converge(&target, ZONE, &web1("192.0.2.1")).await;
    let text = fs::read_to_string(primary.file(ZONE)).unwrap();
    edit(&primary, &text.replace(" 1 7200", " 9 7200").replace("192.0.2.1\n", "192.0.2.66\n"));
    primary.control(&["reload", ZONE]);
    primary.control(&["zone-reload", ZONE]);
    until(|| serial(&primary) == "9").await;
    edit(&primary, &text);
    converge(&target, ZONE, &web1("192.0.2.1")).await;
    assert_eq!((primary.web1(), serial(&primary)), (vec!["192.0.2.1".to_owned()], "10".to_owned()));
}

const FLEET: &str = "
{host: web1.example.com, document: {address: 192.0.2.1}}
---
{tag: dns/example.com, document: {soa: {primary: web1}}, members: [web1.example.com]}
";

/// The daemon undoes an edit by hand, and tells a server that lost the zone of it again.
async fn is_edited(primary: Primary) {
    let scratch = Scratch::new(&format!("resync = '1s'\n{}", primary.config()));
    scratch.apply(FLEET).await;
    let _daemon = Daemon::start(&scratch);
    until(|| primary.web1() == ["192.0.2.1"]).await;
    until_async(async || scratch.status().await.contains("\"behind\":[]")).await;
    let text = fs::read_to_string(primary.file(ZONE)).unwrap();
    edit(&primary, &text.replace("192.0.2.1\n", "192.0.2.66\nextra.example.com. 60 IN A 192.0.2.67\n"));
    primary.control(&["reload", ZONE]);
    primary.control(&["zone-reload", ZONE]);
    until(|| !fs::read_to_string(primary.file(ZONE)).unwrap().contains("192.0.2.6")).await;
    until(|| primary.web1() == ["192.0.2.1"]).await;
    assert_eq!(status(&primary, "extra.example.com A"), "NXDOMAIN");
    // Somebody takes the zone away from the server.
    for words in
        [&["delzone", ZONE][..], &["conf-begin"], &["conf-unset", "zone[example.com]"], &["conf-commit"]]
    {
        primary.control(words);
    }
    until(|| primary.web1() == ["192.0.2.1"]).await;
}

/// A zone's file stays for as long as the server serves the zone.
async fn forgets(primary: Primary) {
    let mut settings = primary.settings();
    converge(&ZoneFiles::open(settings.clone()).unwrap(), ZONE, &web1("192.0.2.1")).await;
    settings.remove = vec!["true".to_owned()];
    settings.within = 4;
    let gone = Why::TagGone("dns/example.com".parse().unwrap(), Revision(8));
    let deaf = ZoneFiles::open(settings).unwrap();
    let fault = step(&deaf, ZONE, &BTreeMap::new(), &gone).await.unwrap_err();
    assert!(fault.to_string().contains("still serves example.com"), "{fault}");
    assert_eq!((primary.web1(), files(&primary.zones()).len()), (vec!["192.0.2.1".to_owned()], 1));
    // Without its file it is there all the same.
    fs::remove_file(primary.file(ZONE)).unwrap();
    let target = ZoneFiles::open(primary.settings()).unwrap();
    assert_eq!(observe(&target, ZONE).await.seen.len(), 1);
    step(&target, ZONE, &BTreeMap::new(), &gone).await.unwrap();
    assert_eq!(status(&primary, "example.com SOA"), "REFUSED");
}

fn failed(outcomes: &BTreeMap<String, Outcome>) -> Vec<String> {
    let faults = outcomes.iter().filter_map(|(key, outcome)| match outcome {
        Outcome::Failed(fault) => Some(format!("{key}: {fault}")),
        _ => None,
    });
    faults.collect()
}

/// What the server's own checker refuses is named and left out, and so is what the server does not load below a DNAME;
/// everything else goes live.
async fn refuses(primary: Primary) {
    let mut settings = primary.settings();
    let script = "sed -i 's/192.0.2.9$/192.0.2.999/' \"$0\"; exec \"$@\"";
    let before = ["sh", "-c", script, "{file}"].map(str::to_owned);
    settings.check = before.into_iter().chain(settings.check).collect();
    let target = ZoneFiles::open(settings).unwrap();
    let statics = [
        json!({"name": "bad", "type": "A", "data": ["192.0.2.8", "192.0.2.9"]}),
        json!({"name": "sub", "type": "NS", "data": "ns.sub.example.com."}),
        json!({"name": "d", "type": "DNAME", "data": "example.net."}),
        json!({"name": "a.b.d", "type": "A", "data": "192.0.2.5"}),
        json!({"name": "c,d+e", "type": "TXT", "data": "odd"}),
    ];
    let want = zone("web1.example.com", "192.0.2.1", &statics);
    let outcomes = step(&target, ZONE, &want, &wanted()).await.unwrap();
    let faults = failed(&outcomes);
    let mut bad = faults.iter().filter(|fault| !fault.contains("below the DNAME"));
    assert!(
        bad.next().is_some_and(|fault| fault.contains("bad.example.com: the checker refuses it: ")),
        "{faults:#?}"
    );
    assert_eq!(bad.next(), None);
    // BIND loads such names and answers without them.
    let hidden = primary.kind != ServerKind::Bind;
    assert_eq!(faults.iter().any(|fault| fault.starts_with("example.com/a.b.d: ")), hidden, "{faults:#?}");
    assert_eq!(primary.web1(), ["192.0.2.1"]);
    let answer = |words: &str| dig(primary.address, words).answer();
    assert_eq!(answer("bad.example.com A"), ["bad.example.com. 300 A 192.0.2.8"]);
    assert_eq!(answer("a.b.d.example.com A").len(), 2);
    assert_eq!(answer("c\\044d\\043e.example.com TXT").len(), 1);
    // A delegation without glue is served by all of them, whatever their checkers think of it.
    assert_eq!(dig(primary.address, "x.sub.example.com A").section("AUTHORITY").len(), 1);
}

/// BIND's bound is nobody else's.
async fn takes_more_than_a_hundred(primary: Primary) {
    let data: Vec<String> = (1..=250).map(|n| format!("198.51.100.{n}")).collect();
    let want = zone("web1.example.com", "192.0.2.1", &[json!({"name": "pool", "type": "A", "data": data})]);
    let settings = primary.settings();
    let bound = if settings.max_records == 0 { 250 } else { settings.max_records };
    step(&ZoneFiles::open(settings).unwrap(), ZONE, &want, &wanted()).await.unwrap();
    assert_eq!(dig(primary.address, "pool.example.com +tcp").answer().len(), bound);
    assert_eq!(bound == 100, primary.kind == ServerKind::Bind);
}

/// Many new zones at once: the server is told of one after the other.
async fn is_told_of_many(primary: Primary) {
    let target = Arc::new(ZoneFiles::open(primary.settings()).unwrap());
    let zones: Vec<String> = (0..8).map(|n| format!("z{n}.example")).collect();
    let start = |name: &String| {
        let tag = json!({"soa": {"primary": "ns.example.net."}});
        let want = Fleet::default().tag(&format!("dns/{name}"), tag, &[]).zone(name);
        let (target, name) = (target.clone(), name.clone());
        tokio::spawn(async move { step(&*target, &name, &want, &wanted()).await })
    };
    for running in zones.iter().map(start).collect::<Vec<_>>() {
        let outcomes = running.await.unwrap().unwrap();
        assert!(outcomes.values().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
    }
    for name in &zones {
        assert_eq!(status(&primary, &format!("{name} SOA")), "NOERROR");
    }
}
