//! What tags and hosts become, by example and by property.

use insta::assert_snapshot;
use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_agent::Agent as _;
use shoal_core::{Checker, Schema};

use crate::fleet::Fleet;
use crate::{Dns, Spec};

fn soa() -> Value {
    json!({"primary": "ns1", "mailbox": "host.master@example.com"})
}

#[test]
fn a_zone_of_every_kind_of_record() {
    let fleet = Fleet::default()
        .tag(
            "dns/example.com",
            json!({
                "soa": soa(), "ns": ["ns1", "ns.example.net."], "ttl": 600,
                "reverse": ["2.0.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"],
                "aliases": ["{label}-{site}"],
                "records": {
                    "ssh": {"name": "_ssh._tcp", "type": "SRV", "data": "0 5 22 {name}."},
                    "where": {"type": "TXT", "data": "site={site}; by {owner} \"{note}\""},
                    "quoted": {"name": "q-{label}", "type": "TXT", "data": "\"{note}\" \"x\""},
                },
                "static": [
                    {"name": "@", "type": "MX", "data": ["10 mail", "20 mail.example.net."]},
                    {"type": "CAA", "data": "0 issue \"letsencrypt.org\""},
                    {"name": "*.dev", "type": "A", "data": "192.0.2.99", "ttl": 60},
                    {"name": "ns1", "type": "A", "data": "192.0.2.53"},
                    {"name": "old", "type": "DNAME", "data": "new"},
                    {"name": "odd", "type": "TYPE65280", "data": "\\# 2 beef"},
                ],
            }),
            &["web1.example.com", "web2.example.com", "mail.example.com", "db.other.org", "example.com"],
        )
        .tag("dns/2.0.192.in-addr.arpa", json!({"soa": {"primary": "ns1.example.com."}}), &["db.other.org"])
        .tag(
            "dns/www",
            json!({"zone": "example.com", "name": "www", "ttl": 30}),
            &["web1.example.com", "web2.example.com"],
        )
        .tag("dns/only-a-group", json!({"ttl": 5}), &["web1.example.com"])
        .host(
            "web1.example.com",
            json!({"address": "192.0.2.1", "address6": "2001:db8::1", "site": "ams", "note": "a\"b\\"}),
        )
        .host(
            "web2.example.com",
            json!({"address": ["192.0.2.2", "192.0.2.3"], "dns": {"aliases": ["second"], "ttl": 30,
              "records": {"fp": {"type": "SSHFP", "data": "4 3 00ff"}}}}),
        )
        .host("mail.example.com", json!({"inside": "192.0.2.25", "dns": {"addresses": ["inside"]}}))
        .host("example.com", json!({"address": "192.0.2.80"}))
        .host("db.other.org", json!({"address": "192.0.2.4"}));
    assert_snapshot!(fleet.text());
}

#[test]
fn offenders_are_left_out_and_both_sides_named() {
    let long = "x".repeat(64);
    let fleet = Fleet::default()
        .tag(
            "dns/example.com",
            json!({
                "soa": soa(),
                "reverse": ["example.com", "a..b"],
                "static": [
                    {"name": "web1", "type": "CNAME", "data": "web2"},
                    {"name": "fixed", "type": "CNAME", "data": "web2"},
                    {"name": "x.example.net.", "type": "A", "data": "192.0.2.1"},
                    {"name": "bad", "type": "A", "data": "192.0.2"},
                    {"name": "bad", "type": "A", "data": "192.0.2.7"},
                    {"name": "soa", "type": "SOA", "data": "x"},
                    {"type": "DS", "data": "1 8 1 123456789abcdef67890123456789abcdef67890"},
                    {"name": "*.cut", "type": "NS", "data": "ns.example.net."},
                    {"name": "slow", "type": "TXT", "data": "a", "ttl": 10},
                    {"name": "slow", "type": "TXT", "data": "b", "ttl": 20},
                ],
            }),
            &["web1.example.com", "web2.example.com", "web0.example.com", "web3.example.com"],
        )
        .tag("dns/a..b", json!({"soa": soa()}), &[])
        .tag("dns/example.org", json!({"soa": soa(), "zone": "example.net"}), &[])
        .host(
            "web1.example.com",
            json!({"address": "192.0.2.1", "dns": {"aliases": ["www", "web2", "fixed"]}}),
        )
        .host(
            "web2.example.com",
            json!({"address": ["192.0.2.300", 7, "192.0.2.2"], "dns": {"aliases": [long, "web2"]}}),
        )
        .host(
            "web0.example.com",
            json!({"address": "0.0.0.0", "dns": {"aliases": ["www", "{", "w.example.net."]}}),
        )
        .host("web3.example.com", json!({"address": "192.0.2.5", "dns": {"omit": true}}));
    assert_snapshot!(fleet.text());
}

/// Of a tag or a host: what is wrong costs the record, and the schema says so before it comes so far.
#[test]
fn a_type_that_is_none_costs_its_record_alone() {
    let tag = json!({
        "soa": soa(),
        "static": [
            {"name": "a", "type": "NOPE", "data": "192.0.2.1"},
            {"name": "a", "type": "a", "data": "192.0.2.2"},
        ],
        "records": {"mail": {"type": "MX", "data": "10 mail"}},
    });
    let over = json!({"records": {"x": {"type": "TYPE65536", "data": "x"}, "mail": {"type": "SAO"}}});
    let fleet = Fleet::default()
        .tag("dns/example.com", tag.clone(), &["web1.example.com", "web2.example.com"])
        .host("web1.example.com", json!({"address": "192.0.2.3", "dns": over}))
        .host("web2.example.com", json!({"address": "192.0.2.4"}));
    let said = fleet.text();
    for line in [
        "left out: dns/example.com: static[0]: \"NOPE\" is not a record type; write one that is not known as TYPEnnn",
        "left out: dns/example.com: web1.example.com: records.x: \"TYPE65536\" is not a record type",
        "left out: dns/example.com: web1.example.com: records.mail: \"SAO\" is not a record type",
        "example.com/a 3600 A 192.0.2.2\n",
        "example.com/web1 3600 A 192.0.2.3\n",
        "example.com/web2 3600 MX 10 mail.example.com.\n",
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
    let tag_schema = serde_json::to_value(schemars::schema_for!(Spec)).unwrap();
    let host = Dns.overrides().map(|schema| serde_json::to_value(schema).unwrap());
    let checker = Checker::compile(&Schema { tag: tag_schema, host, agent: None, writes: None }).unwrap();
    let fault = checker.check_tag(&tag).unwrap_err().to_string();
    assert!(
        fault.contains("/static/0/type") && fault.contains("[\"A\",\"NS\",") && fault.contains("NOPE"),
        "{fault}"
    );
    assert!(checker.check_host(&over).is_err());
    for good in ["A", "cname", "Type65280", "SVCB"] {
        let record = json!({"static": [{"type": good, "data": "x"}]});
        assert_eq!(checker.check_tag(&record), Ok(()), "{good}");
    }
}

#[test]
fn a_host_touches_only_its_own_names() {
    let fleet = |address: &str| {
        let mut fleet = Fleet::default().tag(
            "dns/example.com",
            json!({"soa": soa(), "reverse": ["2.0.192.in-addr.arpa"]}),
            &["a.example.com", "b.example.com"],
        );
        fleet = fleet.host("a.example.com", json!({"address": address}));
        fleet.host("b.example.com", json!({"address": "192.0.2.2"}))
    };
    let (before, after) = (fleet("192.0.2.1").keys().0, fleet("192.0.2.9").keys().0);
    let changed: Vec<String> = before.symmetric_difference(&after).map(ToString::to_string).collect();
    assert_eq!(changed, ["2.0.192.in-addr.arpa/1", "2.0.192.in-addr.arpa/9"]);
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["web1", "www", "@", "*.dev", "{name}", "{label}", "{site}", "a.b", "web2.example.com.", "_x._tcp"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,12}",
    ]
}

fn record() -> impl Strategy<Value = Value> {
    let rtype =
        prop::sample::select(vec!["A", "AAAA", "CNAME", "TXT", "MX", "NS", "SRV", "DNAME", "CAA", "TYPE999"]);
    let data = prop_oneof![
        prop::sample::select(vec![
            "192.0.2.1",
            "2001:db8::1",
            "web1",
            "10 mail",
            "0 1 2 web1",
            "0 issue x",
            "\\# 1 ff",
            "{address}"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,30}",
    ];
    (word(), rtype, data, prop::option::of(0u32..5))
        .prop_map(|(name, rtype, data, ttl)| json!({"name": name, "type": rtype, "data": data, "ttl": ttl}))
}

fn fleet() -> impl Strategy<Value = Fleet> {
    let host = (
        prop_oneof![
            Just(json!("192.0.2.1")),
            Just(json!(["192.0.2.2", "2001:db8::2"])),
            Just(json!("x")),
            Just(json!(1))
        ],
        prop::option::of("\\PC{0,8}"),
        prop::collection::vec(word(), 0..3),
        prop::option::of(record()),
    );
    (prop::collection::vec(host, 3), prop::collection::vec(record(), 0..8), word()).prop_map(|(hosts, statics, name)| {
        let names = ["web1.example.com", "web2.example.com", "x.example.org"];
        let mut fleet = Fleet::default()
            .tag("dns/example.com", json!({"soa": soa(), "static": statics, "reverse": ["2.0.192.in-addr.arpa"]}), &names)
            .tag("dns/other", json!({"zone": "example.com", "name": name}), &names);
        for (name, (address, site, aliases, record)) in names.iter().zip(hosts) {
            let records = record.map_or(json!({}), |record| json!({"r": record}));
            fleet = fleet.host(name, json!({"address": address, "site": site, "dns": {"aliases": aliases, "records": records}}));
        }
        fleet
    })
}

proptest! {
    #[test]
    fn whatever_is_written_the_zone_is_valid(fleet in fleet()) {
        let desired = fleet.desired();
        for (key, desired) in &desired {
            let Some(node) = &desired.item else { continue };
            prop_assert!(key.name().len() <= 253);
            prop_assert!(node.sets.is_sorted_by(|a, b| a.rtype < b.rtype));
            let alias = node.set(crate::Rtype::CNAME);
            prop_assert!(alias.is_none() || node.sets.len() == 1, "{} has a CNAME and more", key);
            prop_assert!(alias.is_none_or(|set| set.data.len() == 1));
            let given_away = !key.is_apex() && node.set(crate::Rtype::NS).is_some();
            prop_assert!(!given_away || node.set(crate::Rtype::DNAME).is_none(), "{} has NS and DNAME", key);
            for set in node.sets.iter() {
                prop_assert!(!set.data.is_empty());
                for data in &set.data {
                    prop_assert!(crate::rdata::wire(set.rtype, data).is_ok(), "{} {}", set.rtype, data);
                }
            }
        }
        // The zone itself always stands.
        let apex = desired.iter().find(|(key, _)| key.to_string() == "example.com/@").unwrap().1.item.clone().unwrap();
        prop_assert!(apex.set(crate::Rtype::SOA).is_some() && apex.set(crate::Rtype::NS).is_some());
    }

    #[test]
    fn the_ledger_keeps_items_as_they_are(fleet in fleet()) {
        for (key, desired) in fleet.desired() {
            let text = serde_json::to_string(&(&key, &desired.item)).unwrap();
            let (key_again, item_again): (crate::Key, Option<crate::Node>) = serde_json::from_str(&text).unwrap();
            prop_assert_eq!((key_again, item_again), (key, desired.item));
        }
    }
}

#[test]
fn a_pointer_that_may_belong_elsewhere_is_left_out_with_its_host() {
    let zone = "16-30.2.0.192.in-addr.arpa";
    let fleet = |holds: Value| {
        Fleet::default()
            .tag(
                "dns/example.com",
                json!({"soa": soa(), "reverse": ["2.0.192.in-addr.arpa", zone], "holds": holds}),
                &["a.example.com", "b.example.com"],
            )
            .tag(&format!("dns/{zone}"), json!({"soa": {"primary": "ns1.example.com."}}), &[])
            .tag("dns/2.0.192.in-addr.arpa", json!({"soa": {"primary": "ns1.example.com."}}), &[])
            .host("a.example.com", json!({"address": "192.0.2.17"}))
            .host("b.example.com", json!({"address": "192.0.2.25"}))
    };
    let pointers = |text: &str| {
        let found: Vec<String> =
            text.lines().filter(|line| line.contains(" PTR ")).map(str::to_owned).collect();
        found.join("\n")
    };
    let unsaid = fleet(json!({})).text();
    assert_eq!(pointers(&unsaid), format!("{zone}/17 3600 PTR a.example.com."));
    let told: Vec<&str> = unsaid.lines().filter(|line| line.contains("left out")).collect();
    assert!(
        matches!(told[..], [one] if one.contains("b.example.com") && one.contains("say which: holds:")),
        "{told:?}"
    );
    let range = fleet(json!({zone: "192.0.2.16-192.0.2.30"})).text();
    assert_eq!(
        pointers(&range),
        format!("{zone}/17 3600 PTR a.example.com.\n{zone}/25 3600 PTR b.example.com.")
    );
    let prefix = fleet(json!({zone: "192.0.2.16/30"})).text();
    assert!(prefix.contains("2.0.192.in-addr.arpa/25 3600 PTR b.example.com."), "{prefix}");
    assert!(!range.contains("left out") && !prefix.contains("left out"), "{range}{prefix}");
}

#[test]
fn a_reverse_zone_whose_name_says_nothing_says_so_where_it_is_fed() {
    let text = Fleet::default()
        .tag(
            "dns/customer-a.2.0.192.in-addr.arpa",
            json!({"soa": {"primary": "ns1.example.com."}}),
            &["a.example.com"],
        )
        .tag(
            "dns/example.com",
            json!({"soa": soa(), "reverse": ["customer-a.2.0.192.in-addr.arpa"], "holds": {"b.2.0.192.in-addr.arpa": "192.0.2.0/29"}}),
            &["a.example.com"],
        )
        .host("a.example.com", json!({"address": "192.0.2.1"}))
        .text();
    assert_eq!(text.matches("does not say which addresses it holds").count(), 2, "{text}");
    assert!(text.contains("b.2.0.192.in-addr.arpa is neither this zone nor listed under reverse"), "{text}");
}

#[test]
fn what_no_answer_has_room_for_is_left_out() {
    let long = |n: u32| json!({"text": format!("{n}{}", "x".repeat(9_000))});
    let mut fleet = Fleet::default();
    let names: Vec<String> = (0..10).map(|n| format!("h{n}.example.com")).collect();
    for (name, n) in names.iter().zip(0..) {
        fleet = fleet.host(name, long(n));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let text = fleet
        .tag(
            "dns/example.com",
            json!({
                "soa": soa(), "records": {"all": {"name": "all", "type": "TXT", "data": "{text}"}},
                "static": [
                    {"name": "all", "type": "TXT", "data": "y".repeat(9_000)},
                    {"name": "huge", "type": "TXT", "data": "z".repeat(65_000)},
                    {"name": "huge", "type": "A", "data": "192.0.2.1"},
                ],
            }),
            &names,
        )
        .text();
    assert_eq!(text.lines().filter(|line| line.starts_with("example.com/all ")).count(), 7);
    let told: Vec<&str> = text.lines().filter(|line| line.contains("no answer has room for it")).collect();
    assert_eq!(told.len(), 5, "{told:?}");
    assert!(
        told.iter().any(|line| line.contains("dns/example.com: static[1] (TXT of huge.example.com)")),
        "{told:?}"
    );
    // The oldest stay.
    for n in 6..10 {
        assert!(told.iter().any(|line| line.contains(&format!("h{n}.example.com"))), "{told:?}");
    }
    assert!(text.contains("example.com/huge 3600 A 192.0.2.1"));
}

#[test]
fn a_zone_is_not_led_away_from_its_own_name_servers() {
    let of = |primary: &str| {
        let statics = json!([{"type": "DNAME", "data": "example.net."}, {"name": "ns1", "type": "A", "data": "192.0.2.53"}]);
        Fleet::default()
            .tag("dns/example.com", json!({"soa": {"primary": primary}, "static": statics}), &[])
            .text()
    };
    let inside = of("ns1");
    assert!(
        inside.contains("the name server ns1.example.com. (soa.primary) of dns/example.com below it"),
        "{inside}"
    );
    assert!(!inside.contains("example.com/@ 3600 DNAME"), "{inside}");
    for elsewhere in ["ns.example.org.", "@"] {
        let text = of(elsewhere);
        assert!(text.contains("example.com/@ 3600 DNAME example.net."), "{text}");
    }
}

/// RFC 6672, section 2.3: no server loads a zone with both, or they do not agree on which of them counts.
#[test]
fn a_name_that_is_given_away_leads_nowhere_else() {
    let text = Fleet::default()
        .tag(
            "dns/example.com",
            json!({"soa": {"primary": "ns.example.net."}, "static": [
                {"name": "b.c", "type": "DNAME", "data": "dev"},
                {"name": "b.c", "type": "TXT", "data": "stays"},
                {"name": "alone", "type": "DNAME", "data": "dev"},
                {"type": "DNAME", "data": "example.org."},
            ]}),
            &["web1.example.com"],
        )
        .tag("dns/feeder", json!({"zone": "example.com", "static": [{"name": "b.c", "type": "NS", "data": "ns.example.net."}]}), &[])
        .host("web1.example.com", json!({"address": "192.0.2.1"}))
        .text();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("left out")).collect();
    let why = "b.c.example.com: the DNAME to dev.example.com. (static[0]) cannot stand beside the delegation to ns.example.net. (static[0]) \
               of dns/feeder; drop one of them";
    assert_eq!(told, [format!("  left out: dns/example.com + dns/feeder: {why}")]);
    for stays in
        ["b.c 3600 NS ns.example.net.", "b.c 3600 TXT", "alone 3600 DNAME", "@ 3600 DNAME", "web1 3600 A"]
    {
        assert!(text.contains(&format!("example.com/{stays}")), "{stays}: {text}");
    }
    assert!(!text.contains("b.c 3600 DNAME"), "{text}");
}

#[cfg(feature = "route53")]
#[test]
fn what_went_is_asked_about_after_a_restart_and_then_forgotten() {
    use std::sync::Arc;
    use std::time::Duration;

    use shoal_agent::{At, Moment, Step};

    use super::{CONFIRM, Submitted};
    use crate::record::{Have, Key, Node, RecordSet, Spread};

    let key: Key = serde_json::from_value(json!("example.com/www")).unwrap();
    let set = RecordSet::plain(crate::Rtype::A, 60, vec!["192.0.2.1".to_owned()]);
    let last = Node { sets: Arc::new(vec![set]) };
    let step = |have: Option<&Have>, memo: &Value, now: Moment| {
        Dns.step(&key, At { want: None, last: Some(&last), tried: &[], have, memo }, now)
    };
    let told = |spread: Spread| Have { spread, ..Have::of(Node::default()) };
    let memo = Submitted { change: "C1".to_owned(), until: 600_000, asked: false, gone: true };
    let known = Submitted { asked: true, ..memo.clone() }.memo();
    // Whoever begins anew knows nothing of it. What the removal wrote down stays, or it would be counted as another one.
    assert_eq!(step(None, &memo.memo(), 1_000), Step::Run { verb: CONFIRM, memo: memo.memo() });
    let under = told(Spread::Under { what: "the change C1".to_owned(), pause: Duration::from_secs(2) });
    let why = "the change C1 to reach all name servers".to_owned();
    assert_eq!(
        step(Some(&under), &memo.memo(), 1_000),
        Step::Wait { until: Some(3_000), why, memo: memo.memo() }
    );
    let went = step(Some(&told(Spread::Done)), &memo.memo(), 9_000);
    assert!(matches!(&went, Step::Wait { until: Some(9_001), memo, .. } if *memo == known), "{went:?}");
    assert_eq!(step(None, &known, 9_001), Step::rest());
    // Not for ever, and not of what only had been made so.
    assert_eq!(step(None, &memo.memo(), 600_000), Step::rest());
    assert_eq!(step(None, &Submitted { gone: false, ..memo }.memo(), 1_000), Step::rest());
}
