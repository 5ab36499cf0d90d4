//! The journal: what stands in the ledger before an effect, and what after.

use serde_json::Value;

use super::agent::{name, tag, toys};
use crate::Fault;

fn stages(world: &super::agent::Toys) -> Vec<String> {
    let mut all = Vec::new();
    for page in world.ledger.values() {
        let page: Value = serde_json::from_slice(page).unwrap();
        for line in page["entries"].as_array().unwrap() {
            let stage = &line["entry"]["stage"];
            let word = stage.as_str().map(str::to_owned);
            all.push(word.unwrap_or_else(|| stage.as_object().unwrap().keys().next().unwrap().clone()));
        }
    }
    all
}

#[test]
fn the_intent_stands_before_the_effect_and_is_settled_after_it() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.place.1.failing.insert(format!("a/{}", name(0)), Fault::new("create", "no"));
    world.run();
    assert_eq!(stages(&world), ["creating"]);
    world.place.1.failing.clear();
    world.advance(60_000);
    assert_eq!(stages(&world), ["made"]);
    world.place.1.failing.insert(format!("a/{}", name(0)), Fault::new("remove", "no"));
    world.set("toy/a", Value::Null);
    world.run();
    assert_eq!(stages(&world), ["removing"]);
    world.place.1.failing.clear();
    world.advance(60_000);
    assert!(world.ledger.is_empty());
}

#[test]
fn what_cannot_be_written_down_is_not_done() {
    let mut world = toys();
    world.store_fault = Some(Fault::new("write the ledger", "disk full"));
    world.fleet("a", 1, "hi");
    world.run();
    assert_eq!(world.at("a", 0), None);
    world.store_fault = None;
    world.advance(60_000);
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi"));
}

#[test]
fn a_plain_update_needs_one_write_after_it_and_none_before() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    let from = world.trace.len();
    world.set("toy/a", tag("yo"));
    world.converge();
    let acts: Vec<_> = world.trace[from..]
        .iter()
        .map(|act| act.split('(').next().unwrap())
        .filter(|a| *a != "Report")
        .collect();
    assert_eq!(acts, ["Apply", "WriteLedger", "Observe"]);
}

#[test]
fn a_damaged_page_stops_the_unit_and_nothing_else() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.fleet("b", 1, "hi");
    world.converge();
    world.crash();
    world.ledger.insert("toy/a/00000000".into(), b"{ half a page".to_vec());
    world.commit(super::agent::rows(&[("toy/a", tag("yo")), ("toy/b", tag("yo"))]));
    world.advance(70_000);
    assert_eq!((world.at("a", 0), world.at("b", 0)), (Some("hi"), Some("yo")));
    assert!(world.engine().troubles().iter().any(|(_, _, why)| why.contains("toy/a/00000000")));
}
