//! A change costs what it touches, in a fleet of any size.

use serde_json::json;

use super::agent::{host, name, toys, toys_of};
use crate::sorted::COMPARED;
use crate::{Counters, Nature};

fn cost(hosts: usize) -> Counters {
    let mut world = toys();
    world.fleet("a", hosts, "hi");
    world.converge();
    let before = world.engine().counters();
    world.set(&format!("hosts/{}", name(3)), host(3, json!({"note": "!"})));
    world.converge();
    let after = world.engine().counters();
    Counters {
        keys: after.keys - before.keys,
        desired: after.desired - before.desired,
        sources: after.sources - before.sources,
        steps: after.steps - before.steps,
        specs: after.specs - before.specs,
        looks: after.looks - before.looks,
        looked: after.looked - before.looked,
        batches: after.batches - before.batches,
        changes: after.changes - before.changes,
        ledger_rows: after.ledger_rows - before.ledger_rows,
        ..Counters::default()
    }
}

#[test]
fn one_host_of_a_thousand_costs_what_one_of_a_hundred_does() {
    let small = cost(100);
    assert_eq!(small, cost(1000));
    assert_eq!((small.keys, small.changes, small.ledger_rows), (1, 1, 1));
}

#[test]
fn a_cold_unit_costs_the_same_per_item_at_any_size() {
    let cold = |hosts: usize| {
        let mut world = toys();
        world.fleet("a", hosts, "hi");
        world.converge();
        world.engine().counters()
    };
    let (small, large) = (cold(400), cold(4000));
    // Once to make it, once when a look shows it.
    assert_eq!((large.keys, large.desired, large.changes), (4001, 8000, 4000));
    for (what, few, many) in [
        ("keys", small.keys, large.keys),
        ("desired", small.desired, large.desired),
        ("sources", small.sources, large.sources),
        ("steps", small.steps, large.steps),
        ("lines", small.lines, large.lines),
        ("octets of the ledger", small.ledger_bytes, large.ledger_bytes),
    ] {
        assert!(many.abs_diff(10 * few) <= few / 5, "{what}: {few} at 400, {many} at 4000");
    }
}

/// All of it is in key order, so nothing is looked for: what is compared of an item does not grow with their number.
#[test]
fn a_cold_unit_compares_few_keys_an_item() {
    let cold = |hosts: usize| {
        let mut world = toys_of(Nature { whole: true, ..Nature::default() });
        world.fleet("a", hosts, "hi");
        let before = COMPARED.get();
        world.converge();
        (COMPARED.get() - before) / hosts
    };
    let (small, large) = (cold(400), cold(4000));
    assert!(small.abs_diff(large) <= 1 && large <= 90, "{small} at 400, {large} at 4000");
}
