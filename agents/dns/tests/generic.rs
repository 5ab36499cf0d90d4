//! Data in the generic form of RFC 3597 for every type: what is served is what BIND loads.
//!
//! A record that BIND refuses would be answered by the built-in server, and would keep BIND from loading the zone. So
//! nothing may pass the agent that `named-checkzone` refuses, whatever octets somebody gives for whatever type.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use common::fleet::Fleet;
use common::wire::{self, Sets};
use common::{Primary, converge, here, step, tools};
use serde_json::{Value, json};
use shoal_agent::{Outcome, Revision, Why};
use shoal_dns::target::{ServerKind, ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";

/// The checkers of the servers that read zone files. What names are like is another matter.
const CHECKERS: [(ServerKind, &[&str]); 3] = [
    (ServerKind::Bind, &["named-checkzone", "-i", "local", "-k", "ignore", "{zone}", "{file}"]),
    (ServerKind::Nsd, &["nsd-checkzone", "{zone}", "{file}"]),
    (ServerKind::Knot, &["kzonecheck", "-v", "-o", "{zone}", "{file}"]),
];

/// Good data of every type that BIND knows, as text.
const EVERY_TYPE: &str = include_str!("common/every_type.zone");

/// BIND's own reading of [`EVERY_TYPE`].
fn every_type() -> Sets {
    let dir = tempfile::tempdir().unwrap();
    let (file, raw) = (dir.path().join("zone"), dir.path().join("raw"));
    let head = "$TTL 60\n@ SOA ns.example.net. host.example.net. 1 1 1 1 1\n@ NS ns.example.net.\n";
    std::fs::write(&file, format!("{head}{EVERY_TYPE}")).unwrap();
    let run = Command::new("named-compilezone")
        .args(["-k", "ignore", "-i", "none", "-F", "raw", "-o"])
        .args([raw.as_path(), ZONE.as_ref(), file.as_path()])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let mut sets = wire::raw(&std::fs::read(raw).unwrap());
    sets.retain(|(name, _), _| *name != wire::name(ZONE));
    sets
}

/// Numbers that look like chance and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }

    fn octet(&mut self) -> u8 {
        const LIKELY: [u8; 12] = [0, 1, 2, 3, 4, 32, 64, 127, 128, 192, 253, 255];
        if self.below(2) == 0 {
            LIKELY[self.below(LIKELY.len())]
        } else {
            u8::try_from(self.below(256)).unwrap()
        }
    }

    fn octets(&mut self) -> Vec<u8> {
        (0..self.below(24)).map(|_| self.octet()).collect()
    }

    /// The same octets with something wrong, mostly.
    fn changed(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut octets = octets.to_vec();
        for _ in 0..=self.below(2) {
            let at = self.below(octets.len().clamp(1, 24));
            match self.below(5) {
                0 => octets.truncate(at),
                1 => octets.push(self.octet()),
                2 if at < octets.len() => drop(octets.remove(at)),
                3 if at < octets.len() => octets.insert(at, self.octet()),
                _ if at < octets.len() => octets[at] = self.octet(),
                _ => {}
            }
        }
        octets
    }
}

/// Each under a name of its own.
fn zone(records: &[(u16, Vec<u8>)]) -> BTreeMap<Key, Node> {
    let statics: Vec<Value> = records
        .iter()
        .enumerate()
        .map(|(at, (rtype, octets))| {
            let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            json!({"name": format!("n{at}"), "type": format!("TYPE{rtype}"), "data": format!("\\# {} {hex}", octets.len())})
        })
        .collect();
    let tag = json!({"soa": {"primary": "ns.example.net."}, "static": statics});
    Fleet::default().tag("dns/example.com", tag, &[]).lenient(ZONE)
}

/// How many names of the zone this checker refuses, and why.
fn refused(kind: ServerKind, check: &[&str], want: &BTreeMap<Key, Node>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = ZoneFileSettings::files(dir.path());
    settings.kind = kind;
    settings.check = check.iter().map(|word| (*word).to_owned()).collect();
    let bind = ZoneFiles::open(settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcomes = runtime.block_on(step(&bind, ZONE, want, &Why::Wanted(Revision(7)))).unwrap();
    let failed = outcomes.into_iter().filter_map(|(key, outcome)| match outcome {
        Outcome::Failed(fault) => Some(format!("{:?}: {fault}", want[&key.try_into().unwrap()])),
        _ => None,
    });
    failed.collect()
}

#[test]
fn good_data_of_every_type_is_taken() {
    if !here("good_data_of_every_type_is_taken", &["named-compilezone"]) {
        return;
    }
    let sets = every_type();
    let records: Vec<(u16, Vec<u8>)> = sets
        .iter()
        .flat_map(|((_, rtype), set)| set.data.iter().map(|data| (*rtype, data.clone())))
        .collect();
    assert_eq!(records.len(), EVERY_TYPE.lines().count());
    let want = zone(&records);
    let missing: Vec<_> = records
        .iter()
        .enumerate()
        .filter(|(at, _)| !want.keys().any(|key| key.owner() == format!("n{at}")))
        .map(|(_, record)| record)
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
    for (kind, check) in CHECKERS {
        if here(&format!("good_data_of_every_type_is_taken by {kind:?}"), &check[..1]) {
            assert_eq!(refused(kind, check, &want), Vec::<String>::new(), "{kind:?}");
        }
    }
}

/// What the servers themselves answer is, octet for octet, what was written.
#[tokio::test(flavor = "multi_thread")]
async fn good_data_of_every_type_is_answered() {
    if !here("good_data_of_every_type_is_answered", &["named-compilezone"]) {
        return;
    }
    let records: Vec<(u16, Vec<u8>)> = every_type()
        .into_iter()
        .flat_map(|((_, rtype), set)| set.data.into_iter().map(move |data| (rtype, data)))
        .collect();
    let want = zone(&records);
    for kind in [ServerKind::Bind, ServerKind::Nsd, ServerKind::Knot] {
        if !here(&format!("good_data_of_every_type_is_answered by {kind:?}"), tools(kind)) {
            continue;
        }
        let primary = Primary::start(kind);
        converge(&ZoneFiles::open(primary.settings()).unwrap(), ZONE, &want).await;
        let mut connection = wire::Connection::open(primary.address);
        for (at, (rtype, data)) in records.iter().enumerate() {
            let name = wire::name(&format!("n{at}.{ZONE}"));
            let answer = connection.ask(&name, *rtype);
            // A delegation.
            let found = if *rtype == 2 { &answer.authority } else { &answer.answer };
            let found = found.get(&(name, *rtype)).map(|set| set.data.iter().collect::<Vec<_>>());
            assert_eq!(found, Some(vec![data]), "{kind:?}: TYPE{rtype}: {answer:?}");
        }
    }
}

#[test]
fn what_a_checker_refuses_is_left_out_before() {
    if !here("what_a_checker_refuses_is_left_out_before", &["named-compilezone"]) {
        return;
    }
    let long = std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty());
    let seed = std::env::var("SHOAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_317);
    let rounds = if long { 20 } else { 1 };
    let mut chance = Chance(seed << 1 | 1);
    let sets = every_type();
    let types: Vec<u16> = (1..=300).chain(32_760..32_780).chain([65_280, 65_534, 65_535]).collect();
    for _ in 0..rounds {
        let mut records = Vec::new();
        for ((_, rtype), set) in &sets {
            for data in &set.data {
                records.extend((0..60).map(|_| (*rtype, chance.changed(data))));
            }
        }
        for rtype in &types {
            records.extend((0..12).map(|_| (*rtype, chance.octets())));
        }
        let want = zone(&records);
        assert!(want.len() > 1000, "only {} of {} were taken", want.len(), records.len());
        for (kind, check) in CHECKERS {
            if here(&format!("what_a_checker_refuses_is_left_out_before: {kind:?}"), &check[..1]) {
                assert_eq!(refused(kind, check, &want), Vec::<String>::new(), "{kind:?}, of seed {seed}");
            }
        }
    }
}
