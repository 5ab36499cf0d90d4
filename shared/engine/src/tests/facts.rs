//! What targets tell arrives in the database, whoever dies on the way.

use serde_json::json;
use shoal_core::{Change, Document, Status, standing};

use super::agent::{Toys, name, tag, toys};
use crate::{Act, Edit, Fault, Verdict};

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

/// Runs until nothing can be done, and shows what is said each time that facts are to be committed; answers how often that was.
fn at_each_commit(world: &mut Toys, look: impl Fn(&Status)) -> usize {
    let (now, mut asked) = (world.now(), 0);
    loop {
        let Some(effect) = world.engine().poll(now) else {
            if world.engine().next_wake().is_some_and(|at| at <= now) {
                continue;
            }
            return asked;
        };
        if matches!(effect.act, Act::Facts { .. }) {
            asked += 1;
            look(&world.engine().status(now, false));
        }
        let answer = world.carry_out(&effect);
        world.engine().answer(effect.id, answer, now);
    }
}

/// Others may have to answer them, so nobody is told before that all is done.
#[test]
fn a_unit_is_behind_until_its_facts_are_committed() {
    let mut world = telling();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    let asked = at_each_commit(&mut world, |status| assert!(status.units["a"].behind_total > 0));
    let now = world.now();
    let behind = world.engine().status(now, false).units["a"].behind_total;
    assert_eq!((asked, told(&world, 0).as_deref(), behind), (1, Some("yo"), 0));
}

/// Nor, where all else is held, that it goes on with a person alone.
#[test]
fn what_is_held_does_not_hide_that_facts_are_due() {
    let mut world = telling();
    world.fleet("a", 2, "hi");
    world.converge();
    world.set(&format!("pauses/host/{}", name(0)), json!({"why": "hands off"}));
    world.set("toy/a", tag("yo"));
    let rests = |status: &Status| {
        standing(std::slice::from_ref(status), status.epoch, status.seen, &[], status.at).rests()
    };
    let asked = at_each_commit(&mut world, |status| {
        let unit = &status.units["a"];
        assert!(unit.held_total == 1 && unit.behind_total >= 2, "{unit:?}");
        assert!(unit.behind.iter().any(|behind| behind.why.contains("not committed yet")), "{unit:?}");
        assert!(!rests(status));
    });
    let now = world.now();
    let status = world.engine().status(now, false);
    assert_eq!((asked, told(&world, 1).as_deref()), (1, Some("yo")));
    assert!(status.units["a"].behind_total == 1 && rests(&status), "{status:?}");
}

#[test]
fn a_plan_ends_though_facts_are_due_and_leaves_them() {
    let stopped = |fuse| {
        let mut world = telling();
        world.fleet("a", 1, "hi");
        world.light_fuse(fuse);
        world.run();
        world
    };
    let mut all = (0..).map(stopped).take_while(|world| world.stopped_at().is_some());
    let due = |world: &Toys| world.stopped_at().is_some_and(|at| at.starts_with("before Facts"));
    let mut world = all.find(due).unwrap();
    world.crash();
    world.options.write = false;
    let ledger = world.ledger.clone();
    assert!(ledger.keys().any(|key| key.contains("/facts-")), "{:?}", ledger.keys());
    assert_eq!(world.run(), Verdict::Converged);
    assert!(world.engine().plan().is_empty());
    assert_eq!((world.ledger == ledger, told(&world, 0)), (true, None));
    // Whoever writes commits them.
    world.options.write = true;
    world.restart();
    world.converge();
    assert_eq!(told(&world, 0).as_deref(), Some("hi"));
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
