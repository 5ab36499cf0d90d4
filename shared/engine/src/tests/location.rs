//! An agent that is started for another target than the one that its ledger speaks of.

use serde_json::{Value, json};
use shoal_core::Epoch;

use super::agent::{Toys, name, rows, tag, toys, toys_of};
use crate::model::Model;
use crate::{Nature, OnDrift, Verdict};

/// A location, and what stands there.
type There = (&'static str, Model<super::agent::Toy>);

fn empty(location: &'static str, nature: Nature) -> There {
    (location, Model::new(nature, |item: &String| item.clone()))
}

/// Starts the agent for what is there. Answers where it ran before.
fn go(world: &mut Toys, to: There, before: &'static str) -> There {
    world.crash();
    let left = std::mem::replace(&mut world.place.1, to.1);
    to.0.clone_into(&mut world.location);
    world.advance(70_000);
    (before, left)
}

/// Two items at A.
fn at_a(nature: Nature) -> Toys {
    let mut world = toys_of(nature);
    world.location = "A".into();
    world.fleet("a", 2, "hi");
    world.converge();
    world
}

fn of_others(location: &'static str) -> There {
    let mut there = empty(location, Nature::default());
    there.1.put(format!("a/{}", name(0)), &"somebody's".to_owned());
    there
}

fn locations(world: &Toys) -> Vec<Value> {
    let page = |page: &Vec<u8>| serde_json::from_slice::<Value>(page).unwrap()["location"].clone();
    world.ledger.values().map(page).collect()
}

fn approve(world: &mut Toys) -> String {
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    digest
}

#[test]
fn at_another_location_nothing_is_done_nor_written_down_and_the_way_back_is_free() {
    for nature in [Nature::default(), Nature { whole: true, ..Nature::default() }] {
        let mut world = at_a(nature);
        let ledger = world.ledger.clone();
        let there = of_others("B");
        let before = there.1.items.clone();
        let a = go(&mut world, there, "A");
        for restart in [false, true] {
            assert_eq!(world.run(), Verdict::Held);
            let (_, hold) = world.engine().holds().next().unwrap();
            assert!(hold.why.contains("location, A") && hold.why.contains("for B"), "{}", hold.why);
            assert!(hold.why.contains("shoal approve toy/a"), "{}", hold.why);
            // Not what is gone there and wanted no more, either: at A it stands.
            world.set(&format!("toy/a/members/{}", name(1)), json!(null));
            world.engine().resync();
            assert_eq!((world.run(), &world.place.1.items), (Verdict::Held, &before), "{restart}");
            assert_eq!(world.ledger, ledger);
            world.restart();
        }
        let b = go(&mut world, a, "B");
        world.converge();
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), None), "of A it was removed");
        assert_eq!((locations(&world), b.1.items), (vec![json!("A")], before));
    }
}

#[test]
fn nothing_that_happens_elsewhere_ends_the_hold_or_makes_it_another() {
    let mut world = at_a(Nature::default());
    go(&mut world, empty("B", Nature::default()), "A");
    assert_eq!(world.run(), Verdict::Held);
    let (digest, ledger) = (world.digest(), world.ledger.clone());
    let same = |world: &mut Toys, what: &str| {
        for restart in [false, true] {
            assert_eq!((world.run(), world.digest()), (Verdict::Held, digest.clone()), "{what}, {restart}");
            assert_eq!(world.ledger, ledger, "{what}");
            world.restart();
        }
    };
    // A word about something else.
    world.set("approvals/toy/a", json!({"digest": "0123456789abcdef"}));
    same(&mut world, "changes");
    for n in 0..2 {
        world.place.1.put(format!("a/{}", name(n)), &"hi".to_owned());
    }
    world.engine().resync();
    same(&mut world, "as it should be");
    // Nothing of it is wanted any more, and nothing is there.
    world.place.1.items.clear();
    world.set("toy/a", json!(null));
    world.engine().resync();
    same(&mut world, "gone");
}

#[test]
fn it_is_held_also_where_all_is_as_it_should_be_and_everywhere_it_is_said() {
    let mut world = at_a(Nature::default());
    let same = ("B", world.place.1.clone());
    go(&mut world, same, "A");
    assert_eq!(world.run(), Verdict::Held);
    let status = world.engine().status(0, false);
    let unit = &status.units["a"];
    assert!(unit.held.is_some() && unit.behind_total == 1 && unit.behind[0].why.contains("location, A"));
    let plan = |world: &Toys| {
        let mut options = world.options.clone();
        options.write = false;
        let mut engine = world.fresh(options);
        let now = world.now();
        let mut other = at_a(Nature::default());
        (other.ledger, other.place) = (world.ledger.clone(), world.place.clone());
        other.location.clone_from(&world.location);
        while let Some(effect) = engine.poll(now) {
            let answer = other.carry_out(&effect);
            engine.answer(effect.id, answer, now);
        }
        engine.plan()
    };
    let held = plan(&world);
    assert!(held.is_held() && held.units[0].resting.as_deref() == Some("guarded"), "{held:?}");
    world.place.1.items.clear();
    let held = plan(&world);
    let (hold, step) = (held.units[0].hold.as_ref().unwrap(), &held.units[0].steps[0]);
    assert!(hold.why.contains("location, A") && hold.create == 2, "{hold:?}");
    assert!(held.is_empty() && step.because.to_string().contains("made at A, and this is B"), "{step:?}");
    // A plan sees that it was agreed to.
    approve(&mut world);
    world.crash();
    assert!(!plan(&world).is_held());
}

#[test]
fn once_a_person_agreed_it_goes_on_there_and_for_the_place_of_before_asks_anew() {
    for (restarts, nature) in [
        (false, Nature::default()),
        (true, Nature::default()),
        (true, Nature { whole: true, ..Nature::default() }),
        (false, Nature { sole: true, marks_own: true, ..Nature::default() }),
    ] {
        let mut world = at_a(nature);
        let mut a = go(&mut world, empty("B", nature), "A");
        let mut digests = std::collections::BTreeSet::new();
        for (here, there) in [("B", "A"), ("A", "B"), ("B", "A")] {
            assert_eq!(world.run(), Verdict::Held);
            assert!(digests.insert(approve(&mut world)), "an old word is no new one");
            if restarts {
                world.restart();
            }
            world.converge();
            assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("hi")));
            assert!(locations(&world).iter().all(|location| location == here));
            world.set("toy/a", tag("hi"));
            world.restart();
            world.converge();
            a.0 = there;
            a = go(&mut world, a, here);
        }
    }
}

#[test]
fn the_ledger_names_the_place_before_anything_is_done_there() {
    let mut world = at_a(Nature::default());
    let same = ("B", world.place.1.clone());
    go(&mut world, same, "A");
    world.set("toy/a", tag("yo"));
    approve(&mut world);
    // It dies at every boundary.
    for n in 0.. {
        world.light_fuse(n);
        world.run();
        if world.at("a", 0) == Some("yo") || world.at("a", 1) == Some("yo") {
            assert_eq!(locations(&world), ["B"]);
        }
        if world.stopped_at().is_none() {
            break;
        }
        world.restart();
    }
    world.converge();
    assert_eq!(world.at("a", 1), Some("yo"));
}

#[test]
fn what_a_wrong_run_made_elsewhere_is_no_claim_on_what_others_have_here() {
    let mut world = toys();
    world.location = "A".into();
    for n in 0..2 {
        world.place.1.put(format!("a/{}", name(n)), &"somebody's".to_owned());
    }
    world.fleet("a", 2, "hi");
    assert_eq!((world.run(), world.ledger.len()), (Verdict::Held, 0), "a clash");
    // What holds nothing is free to begin anywhere.
    let sole = Nature { sole: true, marks_own: true, ..Nature::default() };
    for fails in [true, false] {
        let mut wrong = empty("B", sole);
        wrong.1.batch_fault = fails.then(|| crate::Fault::new("begin", "no"));
        let a = go(&mut world, wrong, "A");
        world.run();
        assert_eq!(locations(&world), ["B"]);
        go(&mut world, a, "B");
        assert_eq!((world.run(), world.at("a", 0)), (Verdict::Held, Some("somebody's")));
        assert_eq!(locations(&world), ["B"]);
    }
}

#[test]
fn a_mass_change_there_is_asked_about_by_itself() {
    let mut world = toys();
    world.location = "A".into();
    world.fleet("a", 20, "hi");
    world.converge();
    let same = ("B", world.place.1.clone());
    go(&mut world, same, "A");
    world.set("toy/a", tag("yo"));
    let first = approve(&mut world);
    assert_eq!((world.run(), world.at("a", 0)), (Verdict::Held, Some("hi")));
    assert_eq!(locations(&world), ["B"]);
    assert_ne!(approve(&mut world), first);
    world.converge();
    assert_eq!(world.at("a", 19), Some("yo"));
}

#[test]
fn what_is_other_there_is_no_drift_once_it_was_agreed_to() {
    let mut world = at_a(Nature::default());
    world.options.drift = OnDrift::Report;
    go(&mut world, of_others("B"), "A");
    approve(&mut world);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("hi")));
    assert_eq!(world.engine().counters().drift, 0);
    // From then on it is.
    world.place.1.put(format!("a/{}", name(0)), &"scribble".to_owned());
    world.engine().resync();
    assert_eq!((world.run(), world.at("a", 0)), (Verdict::Held, Some("scribble")));
}

#[test]
fn pages_that_say_nothing_are_taken_as_they_are() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.fleet("b", 2, "hi");
    world.converge();
    assert_eq!(locations(&world), [Value::Null, Value::Null]);
    let same = ("A", world.place.1.clone());
    go(&mut world, same, "");
    world.converge();
    world.set("toy/a", tag("yo"));
    world.converge();
    assert_eq!(locations(&world), [json!("A"), Value::Null], "at their next write");
    // A target that says nothing any more does not make it forgotten.
    let same = ("", world.place.1.clone());
    go(&mut world, same, "A");
    world.set("toy/a", tag("hi"));
    world.converge();
    assert_eq!(locations(&world), [json!("A"), Value::Null]);
    let same = ("B", world.place.1.clone());
    go(&mut world, same, "");
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.engine().holds().map(|(unit, _)| unit.0.clone()).collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_ledger_that_fell_empty_and_was_begun_anew_asks_anew() {
    let mut world = at_a(Nature::default());
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..2 {
        go(&mut world, empty("B", Nature::default()), "A");
        assert!(asked.insert(approve(&mut world)), "the word of last time still stands");
        world.converge();
        world.set("toy/a", json!(null));
        world.converge();
        assert!(world.ledger.is_empty());
        go(&mut world, empty("A", Nature::default()), "B");
        world.set("toy/a", tag("hi"));
        world.converge();
        assert_eq!(locations(&world), ["A"]);
    }
}

#[test]
fn a_restored_database_and_another_location_are_two_questions() {
    let mut world = at_a(Nature::default());
    world.restore(Epoch(7));
    world.advance(70_000);
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    let same = ("B", world.place.1.clone());
    go(&mut world, same, "A");
    let why = |world: &mut Toys| world.engine().holds().next().unwrap().1.why.clone();
    assert_eq!(world.run(), Verdict::Held);
    assert!(why(&mut world).contains("location, A"));
    approve(&mut world);
    for restart in [false, true] {
        assert_eq!(world.run(), Verdict::Held);
        assert!(why(&mut world).contains("restored"));
        assert_eq!((world.digest(), world.at("a", 0)), ("0000000000000007".into(), Some("hi")));
        if restart {
            world.restart();
        }
    }
    world.commit(rows(&[("approvals/toy", json!({"digest": "0000000000000007"}))]));
    world.converge();
    assert_eq!((world.at("a", 0), locations(&world)), (Some("yo"), vec![json!("B")]));
}
