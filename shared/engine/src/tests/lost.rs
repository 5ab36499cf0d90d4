//! What a target lost while a person held it: it is put back as it was, and held as before.

use serde_json::json;

use super::agent::{Toys, host, name, rows, tag, toys_of};
use crate::{Nature, OnDrift, Verdict};

const WHOLE: Nature = Nature {
    whole: true,
    checks_fence: false,
    marks_own: true,
    sole: false,
    conditional: false,
    shared: false,
};
const SOLE: Nature = Nature {
    whole: false,
    checks_fence: true,
    marks_own: true,
    sole: true,
    conditional: false,
    shared: false,
};

/// The target forgets everything, while an engine runs or while none does.
fn lose_all(world: &mut Toys, live: bool) {
    if !live {
        world.crash();
    }
    world.place.1.items.clear();
    if live {
        world.engine().resync();
    } else {
        world.advance(70_000);
    }
}

fn there(world: &Toys) -> usize {
    world.place.1.items.len()
}

fn leave(world: &mut Toys, members: std::ops::Range<usize>) {
    let gone: Vec<_> = members.map(|n| format!("toy/a/members/{}", name(n))).collect();
    let gone: Vec<_> = gone.iter().map(|key| (key.as_str(), json!(null))).collect();
    world.commit(rows(&gone));
}

fn agree(world: &mut Toys) {
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
}

#[test]
fn a_held_removal_is_not_lost_when_the_target_forgets() {
    for nature in [WHOLE, SOLE] {
        for live in [true, false] {
            let mut world = toys_of(nature);
            world.fleet("a", 42, "hi");
            world.converge();
            leave(&mut world, 0..20);
            assert_eq!(world.run(), Verdict::Held);
            let digest = world.digest();
            for _ in 0..2 {
                lose_all(&mut world, live);
                assert_eq!((world.run(), there(&world)), (Verdict::Held, 42), "{nature:?} {live}");
                assert_eq!(world.digest(), digest);
                let (_, hold) = world.engine().holds().next().unwrap();
                assert_eq!((hold.remove, hold.create, hold.of), (20, 0, 42));
            }
            // All at once, or it would be served in parts.
            assert_eq!(world.place.1.batches.last().unwrap().changes.len(), 42);
            agree(&mut world);
            world.converge();
            assert_eq!(there(&world), 22);
        }
    }
}

#[test]
fn a_held_change_is_not_made_by_forgetting_either() {
    for nature in [WHOLE, SOLE] {
        let mut world = toys_of(nature);
        world.fleet("a", 20, "hi");
        world.converge();
        world.set("toy/a", tag("yo"));
        assert_eq!(world.run(), Verdict::Held);
        let digest = world.digest();
        lose_all(&mut world, false);
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.digest(), digest);
        assert_eq!((world.at("a", 3), there(&world)), (Some("hi"), 20));
        agree(&mut world);
        world.converge();
        assert_eq!(world.at("a", 3), Some("yo"));
    }
}

#[test]
fn what_was_agreed_to_needs_nobody_when_it_is_gone_already() {
    for nature in [WHOLE, SOLE] {
        let mut world = toys_of(nature);
        world.fleet("a", 42, "hi");
        world.converge();
        leave(&mut world, 0..20);
        world.run();
        world.crash();
        // A few go unasked, and what was agreed to goes, also where nothing is left to remove.
        world.place.1.items.retain(|key, _| (20..42).any(|n| key.ends_with(&name(n))));
        world.advance(70_000);
        assert_eq!(world.run(), Verdict::Held);
        agree(&mut world);
        world.converge();
        leave(&mut world, 20..23);
        world.crash();
        world.place.1.items.clear();
        world.advance(70_000);
        world.converge();
        assert_eq!((there(&world), world.at("a", 20), world.at("a", 23)), (19, None, Some("hi")));
        world.restart();
        world.converge();
    }
}

#[test]
fn what_is_paused_is_put_back_as_it_was() {
    for nature in [WHOLE, SOLE] {
        for scope in [format!("host/{}", name(1)), "tag/toy/a".to_owned(), "agent/toy".to_owned()] {
            for live in [true, false] {
                let mut world = toys_of(nature);
                world.fleet("a", 3, "hi");
                world.converge();
                world.set(&format!("pauses/{scope}"), json!({"why": "hands off"}));
                // Still wanted, wanted otherwise, not wanted any more.
                for change in [tag("hi"), tag("yo"), json!(null)] {
                    world.set("toy/a", change.clone());
                    world.run();
                    lose_all(&mut world, live);
                    world.run();
                    assert_eq!(world.at("a", 1), Some("hi"), "{nature:?} {scope} {live} {change}");
                }
                world.set(&format!("pauses/{scope}"), json!(null));
                world.converge();
                assert_eq!(there(&world), 0);
            }
        }
    }
}

#[test]
fn what_cannot_be_understood_is_put_back_as_it_was() {
    for nature in [WHOLE, SOLE] {
        let mut world = toys_of(nature);
        world.fleet("a", 3, "hi");
        world.converge();
        world.set(&format!("hosts/{}", name(0)), host(0, json!({"garbled": 1})));
        world.set(&format!("hosts/{}", name(1)), host(1, json!({"unclear": 1})));
        lose_all(&mut world, false);
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!((world.at("a", 0), world.at("a", 1), there(&world)), (Some("hi"), Some("hi"), 3));
    }
}

#[test]
fn what_somebody_took_out_of_a_file_while_it_was_paused_stays_out() {
    let mut world = toys_of(WHOLE);
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("pauses/host/{}", name(1)), json!({"why": "hands off"}));
    world.place.1.items.remove(&format!("a/{}", name(1)));
    world.place.1.items.remove(&format!("a/{}", name(2)));
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 1), world.at("a", 2)), (None, Some("hi")));
    world.set(&format!("pauses/host/{}", name(1)), json!(null));
    world.converge();
    assert_eq!(world.at("a", 1), Some("hi"));
}

#[test]
fn where_drift_is_only_reported_a_lost_file_is_too() {
    let mut world = toys_of(WHOLE);
    world.options.drift = OnDrift::Report;
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("pauses/host/{}", name(1)), json!({"why": "hands off"}));
    lose_all(&mut world, true);
    assert_eq!((world.run(), there(&world)), (Verdict::Held, 0));
}

#[test]
fn nothing_is_put_back_by_the_ledger_of_a_restored_database_before_somebody_agrees() {
    for nature in [WHOLE, SOLE] {
        let mut world = toys_of(nature);
        world.fleet("a", 3, "hi");
        world.converge();
        // The newer database had taken one out.
        world.crash();
        world.place.1.items.remove(&format!("a/{}", name(1)));
        world.restore(shoal_core::Epoch(7));
        world.advance(70_000);
        assert_eq!((world.run(), world.at("a", 1)), (Verdict::Held, None));
        world.set("approvals/toy", json!({"digest": "0000000000000007"}));
        world.converge();
        assert_eq!(world.at("a", 1), Some("hi"));
    }
}

#[test]
fn a_target_that_goes_on_losing_what_is_paused_is_not_told_at_full_speed() {
    let mut world = toys_of(SOLE);
    world.fleet("a", 3, "hi");
    world.converge();
    world.set("pauses/agent/toy", json!({"why": "hands off"}));
    let key = format!("a/{}", name(1));
    world.place.1.items.remove(&key);
    world.place.1.failing.insert(key.clone(), crate::Fault::new("put", "no"));
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Failed);
    let before = world.place.1.batches.len();
    world.advance(60_000);
    let tries = world.place.1.batches.len() - before;
    assert!((3..8).contains(&tries), "{tries}");
    world.place.1.failing.clear();
    world.advance(60_000);
    assert_eq!((world.run(), world.at("a", 1)), (Verdict::Converged, Some("hi")));
}

#[test]
fn a_plan_says_what_is_put_back() {
    let mut world = toys_of(SOLE);
    world.fleet("a", 42, "hi");
    world.converge();
    leave(&mut world, 0..20);
    world.run();
    world.crash();
    world.place.1.items.clear();
    world.options.write = false;
    world.run();
    let plan = world.engine().plan();
    let puts = plan.units[0].steps.iter().filter(|step| step.verb == "remake" && step.held.is_none()).count();
    assert_eq!((puts, plan.is_held()), (42, true));
}
