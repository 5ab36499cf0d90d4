//! What Shoal did not make becomes its own only where a person says so, of exactly what is there and what is wanted.

use serde_json::json;

use super::agent::{Toys, host, name, rows, tag, toys, toys_of};
use super::races::{ask, is_apply, tell};
use crate::{Answer, Applied, MaxChange, Nature, Outcome, Verdict};

fn key(n: usize) -> String {
    format!("a/{}", name(n))
}

/// Three items are wanted; of the first two, something of somebody else's is there: another thing, and the very same.
fn clashing() -> Toys {
    let mut world = toys();
    world.place.1.put(key(0), &"theirs".to_owned());
    world.place.1.put(key(1), &"hi".to_owned());
    world.fleet("a", 3, "hi");
    assert_eq!(world.run(), Verdict::Held);
    world
}

/// Item and digest of each clash that is told.
fn told(world: &mut Toys) -> Vec<(String, String)> {
    let now = world.now();
    let unit = world.engine().status(now, false).units.remove("a").unwrap_or_default();
    assert_eq!(unit.clashes_total, unit.clashes.len() as u64);
    unit.clashes.into_iter().map(|clash| (clash.key, clash.digest)).collect()
}

fn adopt(world: &mut Toys, items: &[(String, String)]) {
    let adopt: serde_json::Map<_, _> =
        items.iter().map(|(key, digest)| (key.clone(), json!(digest))).collect();
    world.set("approvals/toy/a", json!({ "adopt": adopt }));
}

#[test]
fn what_is_adopted_is_shoals_from_then_on_and_nothing_else_is() {
    let mut world = clashing();
    let all = told(&mut world);
    assert_eq!(all.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key(0), key(1)]);
    assert!(world.trouble("a", 0).contains("shoal adopt"), "{}", world.trouble("a", 0));
    adopt(&mut world, &all[..1]);
    assert_eq!(world.run(), Verdict::Held, "the other was not named");
    assert_eq!(world.at("a", 0), Some("hi"));
    assert_eq!(told(&mut world).len(), 1);
    assert_eq!(world.engine().changes().get(&("adopt", "intended")), Some(&1));
    adopt(&mut world, &all[1..]);
    world.converge();
    world.restart();
    world.converge();
    world.set("toy/a", json!(null));
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!(world.place.1.items.len(), 0, "they were Shoal's, and went with the tag");
}

#[test]
fn a_word_about_something_else_adopts_nothing() {
    // Changed there, or wanted otherwise, since it was looked at.
    for there in [true, false] {
        let mut world = clashing();
        let all = told(&mut world);
        if there {
            world.place.1.put(key(0), &"theirs, too".to_owned());
            world.engine().resync();
        } else {
            world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "!"})));
        }
        world.run();
        let before = world.place.1.items[&key(0)].clone();
        adopt(&mut world, &all[..1]);
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.place.1.items[&key(0)], before, "there {there}");
    }
}

#[test]
fn an_adoption_is_good_for_one_occasion() {
    let mut world = clashing();
    let all = told(&mut world);
    adopt(&mut world, &all);
    world.converge();
    let member = format!("toy/a/members/{}", name(0));
    world.set(&member, json!(null));
    world.converge();
    assert_eq!(world.at("a", 0), None);
    // The same is there once more, and wanted once more: that is another occasion.
    world.place.1.put(key(0), &"theirs".to_owned());
    world.set(&member, json!({}));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("theirs"));
    assert_eq!(told(&mut world).len(), 1);
}

#[test]
fn many_that_are_adopted_are_asked_for_once() {
    let mut world = toys();
    for n in 0..40 {
        world.place.1.put(key(n), &"theirs".to_owned());
    }
    world.options.max_change = MaxChange::default();
    world.restart();
    world.fleet("a", 40, "hi");
    assert_eq!(world.run(), Verdict::Held);
    let all = told(&mut world);
    adopt(&mut world, &all);
    world.converge();
    assert!((0..40).all(|n| world.at("a", n) == Some("hi")));
    // What is changed later is asked for as ever.
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
}

#[test]
fn a_stop_in_the_middle_of_an_adoption_loses_nothing() {
    for fuse in 0..12 {
        let mut world = clashing();
        let all = told(&mut world);
        adopt(&mut world, &all);
        world.light_fuse(fuse);
        world.run();
        world.restart();
        world.converge();
        assert_eq!(world.at("a", 0), Some("hi"), "fuse {fuse}");
        world.commit(rows(&[("toy/a", json!(null))]));
        world.converge();
        assert_eq!(world.place.1.items.len(), 0, "fuse {fuse}");
    }
}

#[test]
fn what_took_the_place_of_shoals_is_somebody_elses_where_marks_tell() {
    let mut world = toys_of(Nature { marks_own: true, ..Nature::default() });
    world.fleet("a", 2, "hi");
    world.converge();
    // Each was removed by hand, and something else made under its name.
    for n in [0, 1] {
        world.place.1.unmarked.insert(key(n));
        world.place.1.put(key(n), &"theirs".to_owned());
    }
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("theirs"), Some("theirs")));
    // Adopted, it is marked, and goes with the tag; the other was never Shoal's.
    let all = told(&mut world);
    adopt(&mut world, &all[..1]);
    world.run();
    assert_eq!(world.at("a", 0), Some("yo"));
    world.restart();
    world.set("toy/a", json!(null));
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (None, Some("theirs")));
    assert!(world.ledger.is_empty(), "{:?}", world.ledger.keys());
}

#[test]
fn what_came_after_the_look_that_was_shown_is_not_adopted() {
    let mut world = clashing();
    let all = told(&mut world);
    // Nobody has looked since.
    world.place.1.put(key(0), &"theirs, too".to_owned());
    adopt(&mut world, &all[..1]);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("theirs, too"));
}

#[test]
fn what_changes_while_it_is_adopted_is_not_shoals() {
    for dies in [false, true] {
        let mut world = clashing();
        let all = told(&mut world);
        adopt(&mut world, &all[..1]);
        let apply = ask(&mut world, is_apply);
        // The ledger says that it is about to be changed; the target finds another thing, or nobody asks it any more.
        world.place.1.put(key(0), &"theirs, too".to_owned());
        if dies {
            world.restart();
        } else {
            let each = vec![(key(0), Outcome::Stale)];
            tell(&mut world, &apply, Answer::Applied(Applied { each, facts: Vec::new() }));
        }
        world.advance(70_000);
        assert_eq!(world.run(), Verdict::Held, "dies {dies}");
        assert_eq!(world.at("a", 0), Some("theirs, too"), "dies {dies}");
        world.set("toy/a", json!(null));
        world.run();
        assert_eq!(world.at("a", 0), Some("theirs, too"), "dies {dies}");
    }
}
