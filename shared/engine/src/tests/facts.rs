//! What targets tell arrives in the database, whoever dies on the way.

use serde_json::json;
use shoal_core::{Change, Document};

use super::agent::{Toys, name, tag, toys};
use crate::{Act, Edit, Fault};

fn tell(edit: &Edit<super::agent::Toy>) -> Change {
    let (_, host) = edit.key.split_once('/').unwrap();
    let said = json!({ "text": edit.to });
    Change::put(format!("facts/toy/{host}").parse().unwrap(), Document::from(said))
}

fn telling() -> Toys {
    let mut world = toys();
    world.place.1.tell = Some(tell);
    world
}

fn told(world: &Toys, n: usize) -> Option<String> {
    let key = format!("facts/toy/{}", name(n));
    let rows = world.live_rows();
    let row = rows.iter().find(|row| row.key.as_str() == key)?;
    row.value
        .as_ref()
        .map(|value| value.to::<serde_json::Value>().unwrap()["text"].as_str().unwrap().to_owned())
}

#[test]
fn facts_arrive_and_leave_nothing_in_the_ledger() {
    let mut world = telling();
    world.fleet("a", 2, "hi");
    world.converge();
    assert_eq!((told(&world, 0).as_deref(), told(&world, 1).as_deref()), (Some("hi"), Some("hi")));
    assert_eq!(world.ledger.keys().collect::<Vec<_>>(), ["toy/a/00000000"]);
    world.set("toy/a", json!(null));
    world.converge();
    assert!(world.ledger.is_empty());
}

#[test]
fn facts_of_what_was_settled_survive_the_process() {
    let mut seen = Vec::new();
    for fuse in 0.. {
        let mut world = telling();
        world.fleet("a", 2, "hi");
        world.converge();
        world.set("toy/a", tag("yo"));
        world.light_fuse(fuse);
        world.run();
        let Some(at) = world.stopped_at().map(str::to_owned) else { break };
        // Before the answer was written down, nobody but the target knows them.
        let settled =
            world.ledger.values().any(|page| String::from_utf8_lossy(page).contains(r#""last":"yo""#));
        world.restart();
        world.converge();
        if settled {
            assert_eq!(told(&world, 1).as_deref(), Some("yo"), "stopped {at}");
            seen.push(at);
        }
        assert_eq!(world.ledger.len(), 1);
    }
    assert!(seen.iter().any(|at| at.starts_with("before Facts")), "{seen:?}");
}

#[test]
fn an_old_fact_is_never_written_over_a_new_one() {
    let mut world = telling();
    world.fleet("a", 1, "hi");
    world.converge();
    for fuse in 0.. {
        world.set("toy/a", tag(&format!("text {fuse}")));
        world.converge();
        world.set("toy/a", tag(&format!("next {fuse}")));
        world.light_fuse(fuse);
        world.run();
        if world.stopped_at().is_none() {
            break;
        }
        let before = told(&world, 0);
        world.restart();
        world.converge();
        let after = told(&world, 0);
        assert!(after == before || after == Some(format!("next {fuse}")), "{before:?}, then {after:?}");
    }
}

#[test]
fn facts_are_committed_once_the_store_is_back() {
    let mut world = telling();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    world.store_fault = Some(Fault::new("write", "no"));
    world.run();
    assert_eq!((world.at("a", 0), told(&world, 0).as_deref()), (Some("yo"), Some("hi")));
    assert_eq!(world.count("Facts"), 1, "not before the ledger holds them");
    world.store_fault = None;
    world.advance(60_000);
    world.converge();
    assert_eq!(told(&world, 0).as_deref(), Some("yo"));
}

/// Others may have to answer them, so nobody is told before that all is done.
#[test]
fn a_unit_is_behind_until_its_facts_are_committed() {
    let mut world = telling();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    let (now, mut asked) = (world.now(), 0);
    let behind = |world: &mut Toys| world.engine().status(now, false).units["a"].behind_total;
    loop {
        let Some(effect) = world.engine().poll(now) else {
            if world.engine().next_wake().is_some_and(|at| at <= now) {
                continue;
            }
            break;
        };
        if matches!(effect.act, Act::Facts { .. }) {
            asked += 1;
            assert!(behind(&mut world) > 0);
        }
        let answer = world.carry_out(&effect);
        world.engine().answer(effect.id, answer, now);
    }
    assert_eq!((asked, told(&world, 0).as_deref(), behind(&mut world)), (1, Some("yo"), 0));
}

#[test]
fn facts_of_a_last_removal_arrive_though_the_unit_is_not_asked_for_any_more() {
    let mut world = telling();
    world.fleet("a", 2, "hi");
    world.converge();
    world.options.host = Some(name(0).parse().unwrap());
    world.restart();
    world.set(&format!("toy/a/members/{}", name(0)), json!(null));
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (None, Some("hi")));
    let told: Vec<_> = world.live_rows().into_iter().filter(|row| *row == gone(0)).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(world.ledger.keys().collect::<Vec<_>>(), ["toy/a/00000000"]);
}

fn gone(n: usize) -> Change {
    let key = format!("facts/toy/{}", name(n)).parse().unwrap();
    Change::put(key, Document::from(json!({ "text": null })))
}
