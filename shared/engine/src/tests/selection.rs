//! `--tag` and `--host`: whole units, and no others.

use serde_json::{Value, json};

use super::agent::{Toys, host, name, rows, tag, toys};
use crate::{Fault, Options, Verdict};

/// Two units with two hosts each, host 1 in both; host 9 in neither.
fn two_units() -> Toys {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.commit(rows(&[
        ("toy/b", tag("hi")),
        (&format!("hosts/{}", name(2)), host(2, json!({}))),
        (&format!("toy/b/members/{}", name(1)), json!({})),
        (&format!("toy/b/members/{}", name(2)), json!({})),
    ]));
    world
}

fn only(world: &mut Toys, narrow: impl Fn(&mut Options)) {
    let mut options = world.options.clone();
    (options.tags, options.host, options.units) = (None, None, None);
    narrow(&mut options);
    world.options = options;
    world.restart();
}

fn host_only(world: &mut Toys, n: usize) {
    only(world, |options| options.host = Some(name(n).parse().unwrap()));
}

#[test]
fn a_host_selects_the_units_that_it_feeds_whole() {
    let mut world = two_units();
    host_only(&mut world, 0);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1), world.at("b", 2)), (Some("hi"), Some("hi"), None));
    let status = world.engine().status(0, false);
    assert_eq!(status.units.keys().collect::<Vec<_>>(), ["a"]);
    // Nothing of it is taken for gone because only one host was asked for.
    host_only(&mut world, 1);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("b", 2)), (Some("hi"), Some("hi")));
    // Both at once narrow both.
    world.set("toy/b", tag("yo"));
    world.set("toy/a", tag("yo"));
    only(&mut world, |options| {
        options.host = Some(name(1).parse().unwrap());
        options.tags = Some(["toy/b".parse().unwrap()].into());
    });
    world.converge();
    assert_eq!((world.at("a", 0), world.at("b", 1)), (Some("hi"), Some("yo")));
    assert_eq!(world.engine().sizes().items, 2);
}

#[test]
fn a_host_that_is_gone_selects_what_the_ledger_says_it_fed() {
    let mut world = two_units();
    world.converge();
    world.crash();
    world.commit(rows(&[
        (&format!("hosts/{}", name(0)), Value::Null),
        (&format!("toy/a/members/{}", name(0)), Value::Null),
        (&format!("hosts/{}", name(2)), Value::Null),
        (&format!("toy/b/members/{}", name(2)), Value::Null),
    ]));
    host_only(&mut world, 0);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1), world.at("b", 2)), (None, Some("hi"), Some("hi")));
    // Also the last line of it was written down, though nothing of the host is left by then.
    assert!(world.ledger.values().all(|page| !String::from_utf8_lossy(page).contains(&name(0))));
}

#[test]
fn a_unit_that_nobody_asked_for_is_left_to_others_and_taken_up_when_the_host_joins_it() {
    let mut world = two_units();
    world.converge();
    let (claims, reads) = (world.count("Claim(b"), world.count("ReadLedger(b"));
    host_only(&mut world, 0);
    world.converge();
    assert_eq!(world.count("ReadLedger(b"), reads + 1);
    assert_eq!(world.count("Claim(b"), claims, "its ledger was read, and says nothing of the host");
    // Meanwhile somebody else works on it.
    world.steal_claim(&"b".into());
    world.set(&format!("toy/b/members/{}", name(0)), json!({}));
    world.run();
    assert_eq!(world.at("b", 0), None);
    world.advance(70_000);
    world.converge();
    assert_eq!(world.at("b", 0), Some("hi"));
    world.set(&format!("toy/b/members/{}", name(0)), Value::Null);
    world.converge();
    assert_eq!(world.at("b", 0), None);
    assert_eq!(world.count("Release(b"), 1);
}

#[test]
fn what_others_hold_is_not_asked_for_and_holds_nobody_up() {
    let mut world = two_units();
    world.converge();
    world.crash();
    // Another instance works on `b` for as long as this one lives.
    world.steal_claim(&"b".into());
    world.trace.clear();
    host_only(&mut world, 0);
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!((world.count("Claim(b"), world.count("ReadLedger(b")), (0, 1));
    assert_eq!(world.engine().status(0, false).units.keys().collect::<Vec<_>>(), ["a"]);
    for _ in 0..20 {
        world.steal_claim(&"b".into());
        world.advance(30_000);
    }
    assert_eq!((world.count("Claim(b"), world.count("ReadLedger(b")), (0, 1), "nor is it ever again");
}

#[test]
fn a_unit_whose_ledger_cannot_be_read_is_named_and_tried_again() {
    let mut world = two_units();
    world.converge();
    world.crash();
    let pages = world.ledger.clone();
    world
        .ledger
        .iter_mut()
        .filter(|(key, _)| key.contains("/b/"))
        .for_each(|(_, page)| *page = b"rubbish".into());
    host_only(&mut world, 0);
    assert_eq!(world.run(), Verdict::Failed);
    let status = world.engine().status(0, false);
    assert_eq!(status.units.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(status.seen, shoal_core::Revision(0), "nobody may take its word for what it has not read");
    world.ledger = pages;
    world.advance(400_000);
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!(world.engine().status(0, false).units.keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_others_have_to_mend_does_not_hold_up_who_was_not_asked_for() {
    let mut world = two_units();
    world.set(&format!("hosts/{}", name(2)), host(2, json!({"garbled": true})));
    world.set("hosts/odd.example.com", json!("rubbish"));
    world.place.1.failing.insert(format!("b/{}", name(1)), Fault::new("write", "no"));
    host_only(&mut world, 0);
    assert_eq!(world.run(), Verdict::Converged);
    host_only(&mut world, 2);
    assert_ne!(world.run(), Verdict::Converged);
    let status = world.engine().status(0, false);
    assert_eq!(status.quarantined.len(), 1, "{:?}", status.quarantined);
}

#[test]
fn a_unit_is_selected_by_its_name_and_by_what_else_was_asked_for() {
    let mut world = two_units();
    only(&mut world, |options| options.units = Some(["b".into()].into()));
    world.converge();
    assert_eq!((world.at("a", 0), world.at("b", 1), world.at("b", 2)), (None, Some("hi"), Some("hi")));
    only(&mut world, |options| {
        options.units = Some(["b".into()].into());
        options.host = Some(name(0).parse().unwrap());
    });
    world.commit(rows(&[("toy/b", tag("yo")), ("toy/a", tag("yo"))]));
    world.converge();
    assert_eq!((world.at("a", 0), world.at("b", 1)), (None, Some("hi")));
}

#[test]
fn a_unit_that_is_out_of_reach_is_left_to_others() {
    let mut world = two_units();
    world.converge();
    let claims = world.count("Claim(b") + world.count("Claim(a");
    assert!(claims > 0, "this counts nothing");
    world.place.0.near.set("a").unwrap();
    only(&mut world, |_| {});
    let claims = world.count("Claim(b");
    world.set("toy/b", tag("yo"));
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!((world.at("a", 0), world.at("b", 2)), (Some("yo"), Some("hi")));
    assert_eq!(world.count("Claim(b"), claims);
    let status = world.engine().status(0, false);
    assert_eq!(status.units.keys().collect::<Vec<_>>(), ["a"]);
}
