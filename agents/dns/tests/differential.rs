//! Whatever people write: the zone file means to BIND what the built-in server answers, record set for record set, and
//! both give the same answers, also for names that are not there.
//!
//! A few cases each time; many with `SHOAL_LONG`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::fleet::Fleet;
use common::wire::{self, Sets};
use common::{Named, Primary, converge, here, rubbish, step, tools};
use proptest::prelude::*;
use proptest::test_runner::{TestRunner, contextualize_config};
use serde_json::{Value, json};
use shoal_agent::{Fault, Outcome, Revision, Target, Why};
use shoal_dns::target::{Listen, Server, ServerKind, ServerSettings, ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";
const NS: u16 = 2;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const DNAME: u16 = 39;
const DS: u16 = 43;

/// What names are like is another matter, and looked at by another test.
const CHECK: [&str; 9] =
    ["named-checkzone", "-i", "local", "-k", "ignore", "-n", "ignore", "{zone}", "{file}"];

/// So many cases, and more with `SHOAL_LONG`; `PROPTEST_CASES` says another number.
fn runner(cases: u32) -> TestRunner {
    let long = std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty());
    let cases = if long { cases * 20 } else { cases };
    let config = ProptestConfig { cases, max_shrink_time: 30_000, ..Default::default() };
    let config = contextualize_config(config);
    // One in three has a mailbox that is none, and so no zone.
    let max_global_rejects = config.max_global_rejects.max(config.cases * 4);
    TestRunner::new(ProptestConfig { failure_persistence: None, max_global_rejects, ..config })
}

/// What random cases have found, tried first on every server.
fn found_before() -> Vec<rubbish::Documents> {
    let of = |records: &[(&str, &str, &str)]| {
        let one =
            |(name, rtype, data): &(&str, &str, &str)| json!({"name": name, "type": rtype, "data": data});
        let statics: Vec<Value> = records.iter().map(one).collect();
        rubbish::Documents {
            tag: json!({"soa": {"primary": "ns.example.net."}, "static": statics}),
            pool: json!({"zone": ZONE, "name": "pool"}),
            hosts: vec![json!({"address": "192.0.2.1"}), json!({"address": "192.0.2.2"})],
        }
    };
    // Knot loads no zone with NS beside DNAME.
    vec![of(&[("b.c", "DNAME", "dev"), ("b.c", "NS", "ns.example.net.")])]
}

fn want(documents: &rubbish::Documents) -> BTreeMap<Key, Node> {
    let mut fleet = Fleet::default().tag(
        "dns/example.com",
        documents.tag.clone(),
        &["web1.example.com", "web2.example.com"],
    );
    fleet = fleet.tag("dns/pool", documents.pool.clone(), &["web1.example.com", "web2.example.com"]);
    for (name, host) in ["web1.example.com", "web2.example.com"].into_iter().zip(&documents.hosts) {
        fleet = fleet.host(name, host.clone());
    }
    fleet.lenient(ZONE)
}

async fn serve() -> (Server, SocketAddr) {
    let server = Server::open(ServerSettings {
        listen: Listen::One(([127, 0, 0, 1], 0).into()),
        ..ServerSettings::default()
    })
    .unwrap();
    server.start().await.unwrap();
    let address = server.addresses()[0];
    (server, address)
}

/// What BIND's own compiler makes of the zone file.
fn compiled(file: &Path) -> Result<Sets, String> {
    let raw = file.with_extension("raw");
    let run = Command::new("named-compilezone")
        .args([
            "-k", "ignore", "-n", "ignore", "-m", "ignore", "-r", "ignore", "-i", "none", "-F", "raw", "-o",
        ])
        .args([&raw, Path::new(ZONE), file])
        .output()
        .unwrap();
    if !run.status.success() {
        return Err(format!(
            "{}{}\n{}",
            String::from_utf8_lossy(&run.stdout),
            String::from_utf8_lossy(&run.stderr),
            std::fs::read_to_string(file).unwrap()
        ));
    }
    Ok(wire::raw(&std::fs::read(raw).unwrap()))
}

/// The cut or the DNAME above a name, if it lies below one.
fn hidden<'a>(sets: &'a Sets, apex: &[u8], name: &'a [u8]) -> Option<(u16, &'a [u8])> {
    let above = wire::above(name).filter(|above| above.len() > apex.len() || *above == apex);
    let found = |at: &'a [u8]| {
        let has = |rtype| sets.contains_key(&(at.to_vec(), rtype));
        if at != apex && has(NS) { Some((NS, at)) } else { (at != name && has(DNAME)).then_some((DNAME, at)) }
    };
    // The highest one hides all the others.
    above.filter_map(found).last()
}

/// Asks the built-in server for every set that BIND sees, and compares.
fn compare(sets: &Sets, at: SocketAddr) -> Result<usize, TestCaseError> {
    let apex = wire::name(ZONE);
    let mut connection = wire::Connection::open(at);
    let mut compared = 0;
    for ((name, rtype), set) in sets {
        let answer = connection.ask(name, *rtype);
        let of = |sets: &Sets, name: &[u8], rtype| sets.get(&(name.to_vec(), rtype)).cloned();
        match hidden(sets, &apex, name) {
            Some((NS, cut)) if !(cut == name && *rtype == DS) => {
                prop_assert_eq!(of(&answer.authority, cut, NS), of(sets, cut, NS), "{:?}", answer);
                prop_assert!(!answer.authoritative && answer.answer.is_empty(), "{:?}", answer);
            }
            Some((DNAME, top)) => {
                prop_assert_eq!(of(&answer.answer, top, DNAME), of(sets, top, DNAME), "{:?}", answer);
            }
            _ => {
                prop_assert!(answer.authoritative && answer.code == 0, "{:?}", answer);
                prop_assert_eq!(
                    of(&answer.answer, name, *rtype),
                    Some(set.clone()),
                    "{:?} {}",
                    wire::text(name),
                    rtype
                );
                compared += 1;
            }
        }
    }
    Ok(compared)
}

#[test]
fn the_file_means_what_the_server_answers() {
    if !here("the_file_means_what_the_server_answers", &["named-compilezone"]) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (server, at) = runtime.block_on(serve());
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ZoneFileSettings::files(dir.path());
    settings.check = CHECK.map(str::to_owned).to_vec();
    let bind = ZoneFiles::open(settings).unwrap();
    let compared = std::cell::Cell::new(0);
    let each = |documents: rubbish::Documents| {
        let want = want(&documents);
        let apex = want.iter().find(|(key, _)| key.is_apex());
        prop_assume!(apex.is_some_and(|(_, node)| node.set("SOA".parse().unwrap()).is_some()));
        runtime.block_on(converge(&bind, ZONE, &want));
        runtime.block_on(converge(&server, ZONE, &want));
        let sets = compiled(&dir.path().join("example.com.zone")).map_err(TestCaseError::fail)?;
        // Neither has a set that the other has not.
        let ours: BTreeSet<_> = want
            .iter()
            .flat_map(|(key, node)| node.sets.iter().map(|set| (wire::name(&key.name()), set.rtype.0)))
            .collect();
        prop_assert_eq!(&ours, &sets.keys().cloned().collect());
        compared.set(compared.get() + compare(&sets, at)?);
        Ok(())
    };
    for documents in found_before() {
        each(documents.clone()).unwrap_or_else(|why| panic!("{documents:#?}: {why}"));
    }
    runner(60).run(&rubbish::documents(), each).unwrap();
    assert!(compared.get() > 500, "only {} sets were compared", compared.get());
}

/// What both servers are asked about: every name that is there, the names above and below it, and more rubbish.
fn questions(want: &BTreeMap<Key, Node>, more: &[String]) -> BTreeSet<(Vec<u8>, u16)> {
    const TYPES: [u16; 8] = [1, NS, CNAME, SOA, 16, DNAME, DS, 65_280];
    let apex = wire::name(ZONE);
    let mut names: BTreeSet<Vec<u8>> = want
        .keys()
        .flat_map(|key| {
            let name = wire::name(&key.name());
            let below = [&[1, b'q'][..], &name].concat();
            let deep = [&[1, b'*', 1, b'r'][..], &name].concat();
            let above: Vec<Vec<u8>> = wire::above(&name).map(<[u8]>::to_vec).collect();
            above.into_iter().chain([below, deep])
        })
        .filter(|name| name.len() <= 255 && name.ends_with(&apex))
        .collect();
    let ascii =
        |name: &&String| name.is_ascii() && name.split('.').all(|label| (1..64).contains(&label.len()));
    names.extend(
        more.iter()
            .filter(ascii)
            .map(|name| wire::name(&format!("{name}.{ZONE}")))
            .filter(|n| n.len() <= 255),
    );
    names.into_iter().flat_map(|name| TYPES.map(|rtype| (name.clone(), rtype))).collect()
}

/// What is written for a server that takes no names below a DNAME: those are named and left out, nothing else is.
async fn write(target: &ZoneFiles, want: &BTreeMap<Key, Node>) -> Result<(), TestCaseError> {
    let outcomes = step(target, ZONE, want, &Why::Wanted(Revision(7))).await;
    for (key, outcome) in outcomes.map_err(|fault| TestCaseError::fail(fault.to_string()))? {
        let hidden = |fault: &Fault| fault.to_string().contains("below the DNAME");
        prop_assert!(
            outcome == Outcome::Done || matches!(&outcome, Outcome::Failed(fault) if hidden(fault)),
            "{key}: {outcome:?}"
        );
    }
    Ok(())
}

/// The serial in a zone file.
fn written(file: &Path) -> u32 {
    let text = std::fs::read_to_string(file).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "SOA");
    words.nth(3).and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no serial in {text}"))
}

/// Both answer every question alike, but for what `settle` makes good.
fn same_answers(
    settings: ZoneFileSettings,
    address: SocketAddr,
    settle: impl Fn(&[u8], &wire::Answer, &mut wire::Answer),
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (server, at) = runtime.block_on(serve());
    let file = settings.directory.join(format!("{ZONE}.zone"));
    let target = ZoneFiles::open(settings).unwrap();
    let asked = std::cell::Cell::new(0);
    let more = prop::collection::vec(rubbish::name(), 0..10);
    let each = |(documents, more): (rubbish::Documents, Vec<String>)| {
        let want = want(&documents);
        let apex = want.iter().find(|(key, _)| key.is_apex());
        prop_assume!(apex.is_some_and(|(_, node)| node.set("SOA".parse().unwrap()).is_some()));
        runtime.block_on(write(&target, &want))?;
        runtime.block_on(converge(&server, ZONE, &want));
        let mut ours = wire::Connection::open(at);
        let mut theirs = wire::Connection::to_version(address, ZONE, written(&file));
        for (name, rtype) in questions(&want, &more) {
            let (ours, mut theirs) = (ours.ask(&name, rtype), theirs.ask(&name, rtype));
            settle(&name, &ours, &mut theirs);
            // Aliases without end: each server has its own patience, and BIND fails (2) in the end.
            let aliases = ours.answer.keys().filter(|(_, rtype)| *rtype == CNAME).count();
            if aliases <= 8 && !(aliases > 0 && theirs.code == 2) {
                prop_assert_eq!(ours, theirs, "{} {}", wire::text(&name), rtype);
            }
            asked.set(asked.get() + 1);
        }
        Ok(())
    };
    for documents in found_before() {
        each((documents.clone(), Vec::new())).unwrap_or_else(|why| panic!("{documents:#?}: {why}"));
    }
    runner(20).run(&(rubbish::documents(), more), each).unwrap();
    assert!(asked.get() > 1000, "only {} questions were asked", asked.get());
}

#[test]
fn bind_gives_the_same_answers() {
    if !here("bind_gives_the_same_answers", tools(ServerKind::Bind)) {
        return;
    }
    // As little of its own as can be, and no opinion about names.
    let named =
        Named::start_with(&[ZONE], "minimal-responses yes; zero-no-soa-ttl no; check-names primary ignore;");
    let mut settings = named.settings();
    settings.check = CHECK.map(str::to_owned).to_vec();
    same_answers(settings, named.address, |_, ours, theirs| {
        if theirs.answer.keys().any(|(_, rtype)| *rtype == DNAME) {
            // The code is that of the last name (RFC 6604); after a DNAME, BIND has it of the first.
            theirs.code = ours.code;
        }
    });
}

/// A DNAME that leads into itself: how often one is followed is each server's own business.
fn goes_round(answer: &wire::Answer) -> bool {
    let round = |((name, rtype), set): (&(Vec<u8>, u16), &wire::Set)| {
        *rtype == DNAME && set.data.iter().any(|target| target.ends_with(name))
    };
    answer.answer.iter().any(round)
}

#[test]
fn nsd_gives_the_same_answers() {
    if here("nsd_gives_the_same_answers", tools(ServerKind::Nsd)) {
        let primary = Primary::start(ServerKind::Nsd);
        same_answers(primary.settings(), primary.address, |name, ours, theirs| {
            // What is below a wildcard's own name: NSD says that it is there.
            if goes_round(ours) || wire::above(name).skip(1).any(|above| above.starts_with(b"\x01*")) {
                *theirs = ours.clone();
            }
        });
    }
}

#[test]
fn knot_gives_the_same_answers() {
    if here("knot_gives_the_same_answers", tools(ServerKind::Knot)) {
        let primary = Primary::start(ServerKind::Knot);
        same_answers(primary.settings(), primary.address, |_, ours, theirs| {
            // A DNAME at a wildcard means nothing that is agreed on (RFC 6672, section 3.3): Knot has one for each name.
            let wild = |(name, rtype): &(Vec<u8>, u16)| *rtype == DNAME && name.starts_with(b"\x01*");
            if goes_round(ours) || ours.answer.keys().any(wild) {
                *theirs = ours.clone();
            }
        });
    }
}
