//! The laws, the steps of a server that leaves, and what passes as a path.

use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_agent::laws::{Broken, Laws};
use shoal_agent::{Agent, At, Moment, Step};

use super::Lb;
use crate::item::{Have, Item, Key, Path, Server, Standing, bad_pool};
use crate::leave::Leaving;
use crate::spec::{Overrides, Spec};

fn laws() -> Laws<Lb> {
    let document = |drain: u32| json!({"port": 80, "drain": drain, "check": {"path": "/health"}, "least": 0});
    Laws::new(Lb::default, "lb/web", document(60))
        .then(document(30))
        .then(json!({"port": 81, "balance": "source", "frontends": ["192.0.2.1:80"]}))
        .host(|n| json!({"address": format!("192.0.2.{}", n % 200 + 1)}))
        .edited(|n| json!({"address": "198.51.100.1", "lb": {"weight": n}}))
}

#[test]
fn it_keeps_the_laws() -> Result<(), Broken> {
    laws().check()
}

#[test]
fn virtual_addresses_keep_the_laws() -> Result<(), Broken> {
    let document = |router: u8, more: &str| json!({"virtual_address": {"addresses": ["192.0.2.100/24"], "router": router, "checks": [more]}});
    Laws::new(Lb::default, "lb/address:front", document(51, "web"))
        .then(document(51, "other"))
        .then(document(52, "web"))
        .host(|n| json!({"n": n}))
        .edited(|n| json!({"lb": {"priority": 100 + n % 100}}))
        .check()
}

#[test]
fn what_a_virtual_address_says_is_checked() {
    let address = |value: Value| {
        let spec: Spec = serde_json::from_value(json!({"virtual_address": value})).unwrap();
        super::virtual_address(&spec)
    };
    let one = address(json!({"addresses": ["192.0.2.100/24"], "router": 1, "advertise": 255})).unwrap();
    assert_eq!((one.priority, one.advertise), (100, 250));
    for (bad, why) in [
        (json!({"addresses": ["192.0.2.100"], "router": 1}), "192.0.2.100/24"),
        (json!({"addresses": ["192.0.2.100/33"], "router": 1}), "no address"),
        (json!({"addresses": ["192.0.2.1/24", "2001:db8::1/64"], "router": 1}), "two families"),
        (json!({"addresses": [], "router": 1}), "none"),
        (json!({"addresses": ["192.0.2.1/24"], "router": 0}), "1 to 255"),
        (json!({"addresses": ["192.0.2.1/24"], "router": 1, "checks": ["a b"]}), "no name"),
        (json!({"addresses": ["192.0.2.1/24"], "router": 1, "network": "eth0;"}), "no name"),
    ] {
        let said = address(bad).unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}

fn key() -> Key {
    Key { pool: "lb/web".parse().unwrap(), host: Some("web4.example.com".parse().unwrap()), at: None }
}

fn server() -> Server {
    Server { address: "192.0.2.4".parse().unwrap(), port: 80, weight: 100, backup: false, drain: 60 }
}

fn standing(draining: bool, connections: u64) -> Standing {
    let Have::Server(standing) = Have::from(Item::Server(server())) else { unreachable!() };
    Standing { draining, connections, serves: !draining, spare: Some(1), ..standing }
}

/// What is done next about a server that shall go.
fn leaving(standing: Standing, memo: &Value, now: Moment) -> Step {
    let (last, have) = (Item::Server(server()), Have::Server(standing));
    Lb::default().step(&key(), At { want: None, last: Some(&last), tried: &[], have: Some(&have), memo }, now)
}

fn verb(step: &Step) -> &'static str {
    match step {
        Step::Act { verb, .. } => verb,
        _ => "",
    }
}

#[test]
fn a_server_drains_waits_and_goes_and_says_what_for() {
    let first = leaving(standing(false, 3), &Value::Null, 1_000);
    let memo = Leaving { until: 61_000, drained: false }.memo();
    assert_eq!(first, Step::Act { verb: "drain", memo: memo.clone() });
    let wait = leaving(standing(true, 3), &memo, 21_500);
    let why = "3 connections on web4.example.com, 40 s left".to_owned();
    assert_eq!(wait, Step::Wait { until: Some(22_500), why, memo: memo.clone() });
    // Its connections are gone, or its time is over.
    assert_eq!(verb(&leaving(standing(true, 0), &memo, 21_500)), "finish");
    assert_eq!(verb(&leaving(standing(true, 3), &memo, 61_000)), "finish");
    let drained = Leaving { until: 61_000, drained: true }.memo();
    assert_eq!(verb(&leaving(standing(true, 0), &drained, 21_500)), "remove");
    // Somebody made it ready again: it is drained again, and the deadline is what it was.
    assert_eq!(leaving(standing(false, 3), &memo, 50_000), Step::Act { verb: "drain", memo });
}

#[test]
fn a_server_that_cannot_be_spared_stays_in_work() {
    let last = Standing { spare: Some(0), ..standing(false, 0) };
    let step = leaving(last.clone(), &Value::Null, 1_000);
    assert!(matches!(&step, Step::Wait { why, .. } if why.contains("web4.example.com")), "{step:?}");
    // One that does nothing can be.
    let down = Standing { serves: false, ..last };
    assert_eq!(verb(&leaving(down, &Value::Null, 1_000)), "drain");
}

#[test]
fn the_name_of_a_pool_is_one_word_to_everybody() {
    let longest = "a".repeat(200);
    for name in ["web", "_web", "9", "a.b-c_D", &longest] {
        assert_eq!(bad_pool(name), None, "{name}");
    }
    for (name, why) in [
        ("a;b", "';'"),
        ("a b", "' '"),
        ("a:front", "':'"),
        ("a\nb", "'\\n'"),
        ("caf\u{e9}", "'\u{e9}'"),
        ("../a", "'/'"),
        ("-a", "begins"),
        (".a", "begins"),
        ("", "begins"),
        (&format!("{longest}a"), "at most 200"),
    ] {
        let said = bad_pool(name).unwrap();
        assert!(said.contains(why) && said.contains("another one"), "{name:?} {said}");
    }
}

proptest! {
    /// Whatever is there and whatever is remembered: nothing is removed that has not drained, nothing is drained that cannot
    /// be spared, and no wait outlives the deadline.
    #[test]
    fn no_server_is_removed_before_its_time(
        draining: bool, drained: bool, known: bool, serves: bool, connections in 0..3u64, spare in proptest::option::of(0..2u32),
        until in 0..100_000i64, now in 0..100_000i64, remembers: bool,
    ) {
        let have = Standing { draining, known, serves, connections, spare, ..standing(draining, connections) };
        let memo = if remembers { Leaving { until, drained }.memo() } else { Value::Null };
        match leaving(have.clone(), &memo, now) {
            Step::Act { verb: "remove", .. } => prop_assert!(remembers && drained && (draining || !known)),
            Step::Act { verb: "finish", .. } => prop_assert!(connections == 0 || now >= until),
            Step::Act { verb: "drain", .. } => prop_assert!(!(serves && spare == Some(0))),
            Step::Wait { until: Some(at), .. } => {
                prop_assert!(at > now && (at <= until || have.spare == Some(0)));
            }
            other => prop_assert!(false, "{other:?}"),
        }
    }

    /// What passes as a path has nothing in it that a configuration reads as anything else.
    #[test]
    fn a_path_is_one_word(text in "/[ -~\n\t]{0,12}") {
        if let Ok(path) = Path::try_from(text) {
            let word = path.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"\"'\\#$;{}%".contains(&b));
            prop_assert!(word);
        }
    }
}

#[test]
fn the_documents_of_the_manual_are_read() {
    let spec = |value| serde_json::from_value::<Spec>(value);
    assert!(spec(json!({"port": 80, "protocol": "tcp", "balance": "least_connections"})).is_ok());
    assert!(spec(json!({"port": 80, "server": "x"})).is_err());
    assert!(spec(json!({"port": 80, "frontends": ["web:80"]})).is_err());
    assert!(serde_json::from_value::<Overrides>(json!({"weight": 3, "drain": 5})).is_ok());
    assert!(serde_json::from_value::<Overrides>(json!({"least": 0})).is_err());
}
