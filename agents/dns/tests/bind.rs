//! A real BIND serves what the agent wrote, and survives what it did not like.

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::fleet::Fleet;
use common::{Named, converge, dig, fence, files, here, observe, step};
use serde_json::{Value, json};
use shoal_agent::Revision;
use shoal_agent::{Outcome, Seen, Target, Unit, Why};
use shoal_dns::target::{ZoneFileSettings, ZoneFiles};
use shoal_dns::{Key, Node};

const ZONE: &str = "example.com";
const TOOLS: &[&str] = &["named", "rndc", "named-checkzone", "dig"];

fn wanted() -> Why {
    Why::Wanted(Revision(7))
}

fn zone(web1: &str, statics: Value) -> BTreeMap<Key, Node> {
    let mut all = vec![json!({"name": "ns1", "type": "A", "data": "192.0.2.53"})];
    if let Value::Array(statics) = statics {
        all.extend(statics);
    }
    Fleet::default()
        .tag(
            "dns/example.com",
            json!({"soa": {"primary": "ns1"}, "ttl": 300, "static": all, "aliases": ["www-{label}"]}),
            &["web1.example.com", "web2.example.com"],
        )
        .host("web1.example.com", json!({"address": web1, "address6": "2001:db8::1"}))
        .host("web2.example.com", json!({"address": "192.0.2.2"}))
        .zone(ZONE)
}

fn serial(named: &Named) -> String {
    let answer = dig(named.address, "example.com SOA").answer();
    answer.first().and_then(|soa| soa.split(' ').nth(5)).unwrap_or("none").to_owned()
}

#[tokio::test]
async fn bind_answers_what_was_written() {
    if !here("bind_answers_what_was_written", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let bind = ZoneFiles::open(named.settings()).unwrap();
    let statics = json!([
        {"name": "*.dev", "type": "A", "data": "192.0.2.99"},
        {"name": "t", "type": "TXT", "data": "v=spf1; \"quoted\" ü ".repeat(20)},
        {"name": "odd", "type": "TYPE65280", "data": "\\# 2 beef"},
        {"name": "svc", "type": "HTTPS", "data": "1 . alpn=h2 port=8443"},
        {"name": "b\u{fc}cher", "type": "CAA", "data": "0 issue \"ca.example;x=1\""},
        {"name": "_443._tcp.web1", "type": "TLSA", "data": "3 1 1 00ff"},
        {"name": "n", "type": "NAPTR", "data": "100 10 \"U\" \"E2U+sip\" \"!^.*$!sip:a@b!\" ."},
        {"name": "sub", "type": "NS", "data": "ns.example.net."},
    ]);
    converge(&bind, ZONE, &zone("192.0.2.1", statics)).await;
    assert_eq!(serial(&named), "1");
    let answer = |words: &str| dig(named.address, words).answer();
    assert_eq!(answer("web1.example.com A"), ["web1.example.com. 300 A 192.0.2.1"]);
    assert_eq!(answer("web1.example.com AAAA"), ["web1.example.com. 300 AAAA 2001:db8::1"]);
    assert_eq!(answer("www-web2.example.com CNAME"), ["www-web2.example.com. 300 CNAME web2.example.com."]);
    assert_eq!(answer("x.dev.example.com A"), ["x.dev.example.com. 300 A 192.0.2.99"]);
    assert_eq!(answer("svc.example.com HTTPS"), ["svc.example.com. 300 HTTPS 1 . alpn=\"h2\" port=8443"]);
    assert_eq!(
        answer("_443._tcp.web1.example.com TLSA"),
        ["_443._tcp.web1.example.com. 300 TLSA 3 1 1 00FF"]
    );
    assert!(answer("xn--bcher-kva.example.com CAA")[0].ends_with("0 issue \"ca.example;x=1\""));
    assert_eq!(answer("t.example.com TXT")[0].matches("quoted").count(), 20);
    assert_eq!(files(&named.zones()), ["example.com.zone"]);

    // A change: one more serial. No change: none.
    converge(&bind, ZONE, &zone("192.0.2.10", json!([]))).await;
    assert_eq!((serial(&named), dig(named.address, "web1.example.com").answer().len()), ("2".to_owned(), 1));
    assert_eq!(converge(&bind, ZONE, &zone("192.0.2.10", json!([]))).await, 0);
    assert_eq!(serial(&named), "2");
}

#[tokio::test]
async fn a_bad_record_is_named_and_the_rest_goes_live() {
    if !here("a_bad_record_is_named_and_the_rest_goes_live", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let bind = ZoneFiles::open(named.settings()).unwrap();
    let statics = json!([
        {"name": "un_der", "type": "A", "data": "192.0.2.3"},
        {"name": "o_o", "type": "AAAA", "data": "2001:db8::2"},
        {"name": "@", "type": "NS", "data": "nowhere"},
    ]);
    let outcomes = step(&bind, ZONE, &zone("192.0.2.1", statics), &wanted()).await.unwrap();
    let bad: Vec<String> = outcomes
        .iter()
        .filter_map(|(key, outcome)| match outcome {
            Outcome::Failed(fault) => Some(format!("{key}: {fault}")),
            _ => None,
        })
        .collect();
    assert_eq!(bad.len(), 3, "{bad:#?}");
    assert!(
        bad[1].contains("o_o.example.com: the checker refuses it: o_o.example.com: bad owner"),
        "{bad:#?}"
    );
    assert!(
        bad[0].starts_with("example.com/@: ") && bad[0].contains("nowhere.example.com. is a name server"),
        "{bad:#?}"
    );
    assert!(
        bad[2].contains("un_der.example.com: the checker refuses it: un_der.example.com: bad owner"),
        "{bad:#?}"
    );
    assert_eq!(dig(named.address, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.1"]);
    // The address of the only name server is not taken away.
    let mut want = zone("192.0.2.7", json!([]));
    want.retain(|key, _| key.owner() != "ns1");
    let outcomes = step(&bind, ZONE, &want, &wanted()).await.unwrap();
    assert!(
        matches!(&outcomes["example.com/ns1"], Outcome::Failed(fault) if fault.to_string().contains("name server"))
    );
    assert_eq!(dig(named.address, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.7"]);
}

#[tokio::test]
async fn a_failed_reload_puts_the_last_good_file_back() {
    if !here("a_failed_reload_puts_the_last_good_file_back", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let mut settings = named.settings();
    converge(&ZoneFiles::open(settings.clone()).unwrap(), ZONE, &zone("192.0.2.1", json!([]))).await;
    let before = fs::read_to_string(named.file(ZONE)).unwrap();
    // A checker that lets everything pass, and a record that BIND itself does not load; rndc exits 0 all the same.
    settings.check = Vec::new();
    let patient = ZoneFiles::open(settings.clone()).unwrap();
    settings.within = 2;
    let bind = ZoneFiles::open(settings).unwrap();
    let bad = zone("192.0.2.9", json!([{"name": "un_der", "type": "A", "data": "192.0.2.3"}]));
    let fault = step(&bind, ZONE, &bad, &wanted()).await.unwrap_err();
    assert!(fault.to_string().contains("serves serial 1, not 2"), "{fault}");
    assert!(fault.next.unwrap().contains("the last good file is back"));
    assert_eq!(fs::read_to_string(named.file(ZONE)).unwrap(), before);
    assert_eq!(dig(named.address, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.1"]);
    converge(&patient, ZONE, &zone("192.0.2.9", json!([]))).await;
    assert_eq!(dig(named.address, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.9"]);
}

#[tokio::test]
async fn edits_by_hand_are_seen_and_undone_or_kept() {
    if !here("edits_by_hand_are_seen_and_undone_or_kept", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let want = zone("192.0.2.1", json!([]));
    let bind = ZoneFiles::open(named.settings()).unwrap();
    converge(&bind, ZONE, &want).await;
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(named.file(ZONE)).unwrap();
        fs::write(named.file(ZONE), text.replace(from, to)).unwrap();
    };
    edit("192.0.2.2\n", "192.0.2.66\nextra.example.com. 60 IN A 192.0.2.67\n");
    let seen = observe(&bind, ZONE).await;
    let held = common::keep(&seen, &want, &["example.com/extra"]);
    // What the engine only reports is written again as it is.
    let unit = Unit::from(ZONE);
    bind.apply(&unit, &held, &fence(1)).await.unwrap();
    let text = fs::read_to_string(named.file(ZONE)).unwrap();
    assert!(text.contains("192.0.2.67") && !text.contains("192.0.2.66"));
    let outcomes = step(&bind, ZONE, &want, &Why::Drift).await.unwrap();
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["example.com/extra"]);
    // A batch that was decided from another file is not carried out.
    let old = common::batch(&seen, &want, &Why::Drift).unwrap();
    let applied = bind.apply(&unit, &old, &fence(1)).await.unwrap();
    assert!(applied.each.iter().all(|(_, outcome)| *outcome == Outcome::Stale));
    assert_eq!(converge(&bind, ZONE, &want).await, 0);
    assert_eq!(dig(named.address, "web2.example.com").answer(), ["web2.example.com. 300 A 192.0.2.2"]);
    // Rubbish too.
    edit("www-web1.example.com.", "$GENERATE 1-9 x$ A 192.0.2.$\nwww-web1.example.com.");
    assert_eq!(converge(&bind, ZONE, &want).await, 1);
    assert!(!fs::read_to_string(named.file(ZONE)).unwrap().contains("GENERATE"));
}

#[tokio::test]
async fn a_foreign_file_is_left_alone_until_adopted() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = "@ 300 IN SOA ns1 h 5 1 1 1 1\n@ IN NS ns1\nns1 A 192.0.2.1\n";
    fs::write(dir.path().join("example.com.zone"), foreign).unwrap();
    let mut settings = shoal_dns::target::ZoneFileSettings::files(dir.path());
    let bind = ZoneFiles::open(settings.clone()).unwrap();
    let want = zone("192.0.2.1", json!([]));
    assert!(observe(&bind, ZONE).await.seen.values().all(|seen| matches!(seen, Seen::There(_))));
    let fault = step(&bind, ZONE, &want, &wanted()).await.unwrap_err();
    assert!(fault.permanent && fault.to_string().contains("adopt = [\"example.com\"]"), "{fault}");
    assert_eq!(fs::read_to_string(dir.path().join("example.com.zone")).unwrap(), foreign);
    settings.adopt = vec!["example.com".to_owned()];
    let bind = ZoneFiles::open(settings).unwrap();
    assert!(observe(&bind, ZONE).await.seen.values().all(|seen| matches!(seen, Seen::Ours(_))));
    converge(&bind, ZONE, &want).await;
    assert!(
        fs::read_to_string(dir.path().join("example.com.zone")).unwrap().contains(" 6 7200 "),
        "the serial goes on"
    );
}

#[tokio::test]
async fn a_zone_goes_only_for_a_named_reason() {
    if !here("a_zone_goes_only_for_a_named_reason", TOOLS) {
        return;
    }
    // BIND does not know the zone: it is told.
    let named = Named::start(&[]);
    let mut settings = named.settings();
    (settings.add, settings.remove) = (named.addzone(), named.delzone());
    let bind = ZoneFiles::open(settings).unwrap();
    let want = zone("192.0.2.1", json!([]));
    converge(&bind, ZONE, &want).await;
    assert_eq!(dig(named.address, "web1.example.com").answer().len(), 1);
    let nothing = BTreeMap::new();
    let fault = step(&bind, ZONE, &nothing, &Why::Drift).await.unwrap_err();
    assert!(fault.to_string().contains("nothing says that the zone should go"), "{fault}");
    assert!(named.file(ZONE).exists());
    let gone = Why::TagGone("dns/example.com".parse().unwrap(), Revision(8));
    step(&bind, ZONE, &nothing, &gone).await.unwrap();
    assert!(files(&named.zones()).is_empty());
    // What other tags still feed into it waits for a zone.
    let mut pool = want.clone();
    pool.retain(|key, _| key.owner() == "web1");
    let outcomes = step(&bind, ZONE, &pool, &wanted()).await.unwrap();
    assert!(
        matches!(&outcomes["example.com/web1"], Outcome::Failed(f) if f.to_string().contains("make a tag dns/example.com"))
    );
}

/// Stops the target between two of its steps, as a kill would, and lets a new one go on.
#[tokio::test]
async fn stopped_anywhere_the_next_one_converges() {
    if !here("stopped_anywhere_the_next_one_converges", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let good = named.settings();
    converge(&ZoneFiles::open(good.clone()).unwrap(), ZONE, &zone("192.0.2.1", json!([]))).await;
    let hang = vec!["sleep".to_owned(), "600".to_owned()];
    for (round, stop) in ["check", "reload", "fence"].into_iter().enumerate() {
        let want = zone(&format!("192.0.2.{}", 100 + round), json!([]));
        let mut settings = good.clone();
        match stop {
            "check" => settings.check = hang.clone(),
            "reload" => settings.reload = hang.clone(),
            _ => {}
        }
        let bind = ZoneFiles::open(settings).unwrap();
        let batch = common::batch(&observe(&bind, ZONE).await, &want, &wanted()).unwrap();
        let unit = Unit::from(ZONE);
        let before = serial(&named);
        if stop == "fence" {
            let fault = bind.apply(&unit, &batch, &fence(-1)).await.unwrap_err();
            assert!(fault.to_string().contains("claim"), "{fault}");
        } else {
            // Until the step is reached, which shows on disk; then the work is dropped where it is.
            let left = format!(".example.com.zone.{}", if stop == "check" { "new" } else { "good" });
            let right = fence(1);
            let work = bind.apply(&unit, &batch, &right);
            tokio::select! {
                done = work => panic!("{stop} did not hang: {done:?}"),
                () = common::until(|| named.zones().join(&left).exists()) => {}
            }
        }
        assert_eq!(serial(&named), before, "{stop}");
        let next = ZoneFiles::open(good.clone()).unwrap();
        assert!(converge(&next, ZONE, &want).await > 0, "{stop}");
        assert_eq!(
            dig(named.address, "web1.example.com").answer(),
            [format!("web1.example.com. 300 A 192.0.2.{}", 100 + round)]
        );
        assert_eq!(files(&named.zones()), ["example.com.zone"], "{stop}");
    }
}

/// Whatever people write: what the agent makes of it, BIND's own checker accepts.
#[test]
fn every_zone_passes_the_checker() {
    use proptest::prelude::*;
    if !here("every_zone_passes_the_checker", &["named-checkzone"]) {
        return;
    }
    let name = prop::sample::select(vec![
        "web1",
        "www",
        "@",
        "*.dev",
        "a.b",
        "x-{label}",
        "_x._tcp",
        "{site}",
        "bücher",
    ]);
    let rtype = prop::sample::select(vec![
        "A", "AAAA", "CNAME", "TXT", "MX", "SRV", "DNAME", "CAA", "SSHFP", "TLSA", "NAPTR", "HTTPS", "URI",
        "TYPE999", "HINFO", "RP", "CERT", "DS",
    ]);
    let data = prop_oneof![
        prop::sample::select(vec![
            "192.0.2.1",
            "2001:db8::1",
            "web1",
            "10 mail",
            "0 1 2 web1",
            "0 issue \"x;y\"",
            "\\# 1 ff",
            "1 2 00ff",
            "3 1 1 00ff",
            "1 . alpn=h2,h3 port=1 ipv4hint=192.0.2.1",
            "100 10 u x \"!^.*$!a!\" .",
            "1 1 \"https://x/\"",
            "a b",
            "h h",
            "1 2 3 AAAA",
            "12345 8 2 00ff",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,300}",
        "[\\\\\"(); a-z0-9.]{0,40}",
    ];
    let record = (name, rtype, data)
        .prop_map(|(name, rtype, data)| json!({"name": name, "type": rtype, "data": data}));
    let records = prop::collection::vec(record, 0..12);
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() };
    let config = proptest::test_runner::contextualize_config(config);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = shoal_dns::target::ZoneFileSettings::files(dir.path());
    // Names with underscores are another matter, and named by another test.
    settings.check =
        ["named-checkzone", "-i", "local", "-k", "ignore", "{zone}", "{file}"].map(str::to_owned).to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (statics, site) = (records, "\\PC{0,10}");
    runner
        .run(&(statics, site), |(statics, site)| {
            let spec =
                json!({"soa": {"primary": "ns.example.net."}, "static": statics, "aliases": ["{site}"]});
            let want = Fleet::default()
                .tag("dns/example.com", spec, &["web1.example.com"])
                .host("web1.example.com", json!({"address": "192.0.2.1", "site": site}))
                .lenient(ZONE);
            let bind = ZoneFiles::open(settings.clone()).unwrap();
            let outcomes = runtime.block_on(step(&bind, ZONE, &want, &wanted())).unwrap();
            for (key, outcome) in outcomes {
                prop_assert_eq!(outcome, Outcome::Done, "{}", key);
            }
            Ok(())
        })
        .unwrap();
}

/// What makes BIND refuse a whole zone without naming a line of its file.
#[tokio::test]
async fn a_name_server_whose_address_is_not_found_holds_nothing_up() {
    if !here("a_name_server_whose_address_is_not_found_holds_nothing_up", &["named-checkzone"]) {
        return;
    }
    let rows = |rows: &[(&str, &str, &str)]| {
        let one =
            |(name, rtype, data): &(&str, &str, &str)| json!({"name": name, "type": rtype, "data": data});
        rows.iter().map(one).collect::<Vec<_>>()
    };
    for (server, statics, stays) in [
        ("ns1.old", rows(&[("old", "DNAME", "new.example.net."), ("ns1.old", "A", "192.0.2.5")]), false),
        (
            "ns.x.d",
            rows(&[
                ("d", "DNAME", "e.example.net."),
                ("x.d", "NS", "ns.example.net."),
                ("ns.x.d", "A", "192.0.2.5"),
            ]),
            false,
        ),
        ("ns.dc", rows(&[("*", "A", "192.0.2.5"), ("x.dc", "A", "192.0.2.5")]), false),
        ("dc", rows(&[("*", "A", "192.0.2.5"), ("x.dc", "A", "192.0.2.5")]), false),
        ("ns.dc", rows(&[("*", "CNAME", "web1"), ("x", "A", "192.0.2.5")]), false),
        ("ns.dc", rows(&[("*", "A", "192.0.2.5")]), true),
        ("ns.a.dc", rows(&[("*.dc", "A", "192.0.2.5"), ("x.dc", "A", "192.0.2.5")]), true),
        ("ns1.sub", rows(&[("sub", "NS", "ns.example.net.")]), true),
        ("sub", rows(&[("sub", "NS", "ns.example.net.")]), true),
        ("ns.d.x", rows(&[("x", "NS", "ns.example.net."), ("d.x", "DNAME", "e.example.net.")]), true),
        ("old", rows(&[("old", "DNAME", "new.example.net."), ("old", "A", "192.0.2.5")]), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = ZoneFileSettings::files(dir.path());
        settings.check =
            ["named-checkzone", "-i", "local", "-k", "fail", "{zone}", "{file}"].map(str::to_owned).to_vec();
        let server = format!("{server}.example.com.");
        let tag = json!({"soa": {"primary": "ns.example.net."}, "ns": ["ns.example.net.", server], "static": statics});
        let want = Fleet::default().tag("dns/example.com", tag, &[]).zone(ZONE);
        let outcomes = step(&ZoneFiles::open(settings).unwrap(), ZONE, &want, &wanted()).await;
        let outcomes = outcomes.unwrap_or_else(|fault| panic!("{server}: {fault}"));
        assert_eq!(outcomes["example.com/@"] == Outcome::Done, stays, "{server}: {outcomes:?}");
        let file = fs::read_to_string(dir.path().join("example.com.zone")).unwrap();
        assert_eq!(file.contains(&format!("NS\t{server}")), stays, "{server}: {file}");
    }
}

#[tokio::test]
async fn more_records_than_bind_takes_hold_up_nothing_but_themselves() {
    if !here("more_records_than_bind_takes_hold_up_nothing_but_themselves", TOOLS) {
        return;
    }
    let named = Named::start(&[ZONE]);
    let mut settings = named.settings();
    let pool = |many: u8| {
        let data: Vec<String> = (1..=many).map(|n| format!("198.51.100.{n}")).collect();
        zone("192.0.2.1", json!([{"name": "pool", "type": "A", "data": data}]))
    };
    let bind = ZoneFiles::open(settings.clone()).unwrap();
    converge(&bind, ZONE, &pool(100)).await;
    let outcomes = step(&bind, ZONE, &pool(101), &wanted()).await.unwrap();
    assert_eq!(outcomes.values().filter(|outcome| **outcome != Outcome::Done).count(), 1, "{outcomes:?}");
    assert!(
        matches!(&outcomes["example.com/pool"], Outcome::Failed(fault) if fault.to_string().contains("101 A records")),
        "{outcomes:?}"
    );
    // Others go on, and so does the pool itself.
    let mut want = pool(101);
    want.extend(zone("192.0.2.77", json!([])).into_iter().filter(|(key, _)| key.owner() == "web1"));
    step(&bind, ZONE, &want, &wanted()).await.unwrap();
    assert_eq!(dig(named.address, "web1.example.com").answer(), ["web1.example.com. 300 A 192.0.2.77"]);
    assert_eq!(dig(named.address, "pool.example.com +tcp").answer().len(), 100);
    // A server that takes more is told more.
    let named = Named::start_with(&[ZONE], "max-records-per-type 0;");
    settings = named.settings();
    settings.max_records = 0;
    converge(&ZoneFiles::open(settings).unwrap(), ZONE, &pool(250)).await;
    assert_eq!(dig(named.address, "pool.example.com +tcp").answer().len(), 250);
}
