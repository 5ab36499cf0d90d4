//! Several instances share the units: what one of them asks for, lets go of, and takes late.

use super::agent::{Toys, tag, toys};
use crate::effect::{Effect, Roster};
use crate::{Act, Fault, Moment};

const LEASE: Moment = 60_000;
const UNITS: [&str; 4] = ["a", "b", "c", "d"];

/// Four units of one item each.
fn shared() -> Toys {
    let mut world = toys();
    world.options.share = true;
    say(&mut world, "hi");
    world
}

fn say(world: &mut Toys, text: &str) {
    for unit in UNITS {
        let mut document = tag(text);
        document["document"]["fixed"] = serde_json::json!(["x"]);
        world.set(&format!("toy/{unit}"), document);
    }
}

/// Who is there beside this one, and what is held by others.
fn others(there: &[&str], held: &[(&str, &str)]) -> Roster {
    let instances = there.iter().map(|who| (*who).to_owned()).collect();
    let holders = held.iter().map(|(unit, who)| ((*unit).into(), (*who).to_owned())).collect();
    Roster { instances, lease: LEASE, holders }
}

fn held(world: &mut Toys) -> Vec<String> {
    let units = world.engine().status(0, false).units.into_iter();
    units.filter(|(_, said)| !said.elsewhere).map(|(unit, _)| unit).collect()
}

/// How often this was done since the last time it was asked.
fn since(world: &mut Toys, what: &str) -> usize {
    let count = world.count(what);
    world.trace.clear();
    count
}

#[test]
fn nothing_is_claimed_before_it_is_known_who_else_is_there() {
    let mut world = shared();
    world.others = others(&["other"], &[]);
    let first: Vec<Effect<_>> = world.effects().into();
    assert!(first.iter().any(|effect| matches!(effect.act, Act::Join { .. })));
    assert!(first.iter().all(|effect| !matches!(effect.act, Act::Claim { .. })), "{first:?}");
    for effect in first {
        let (now, answer) = (world.now(), world.carry_out(&effect));
        world.engine().answer(effect.id, answer, now);
    }
    world.run();
    assert_eq!(held(&mut world).len(), 2, "half of what is free");
}

#[test]
fn one_that_is_alone_asks_for_everything() {
    let mut world = shared();
    world.converge();
    assert_eq!(held(&mut world), UNITS);
}

#[test]
fn the_surplus_goes_between_two_batches_and_one_at_a_time() {
    let mut world = shared();
    world.converge();
    // A change of every unit is under way when another one comes.
    say(&mut world, "yo");
    let mut batches = Vec::new();
    let mut begin = |world: &mut Toys| {
        for effect in world.effects() {
            if matches!(effect.act, Act::Apply { .. }) {
                batches.push(effect);
            } else {
                let (now, answer) = (world.now(), world.carry_out(&effect));
                world.trace.push(format!("{:?}", effect.act));
                world.engine().answer(effect.id, answer, now);
            }
        }
    };
    begin(&mut world);
    world.others = others(&["other"], &[]);
    world.trace.clear();
    world.advance(LEASE / 3);
    assert_eq!((batches.len(), since(&mut world, "Release")), (UNITS.len(), 0), "all of them are busy");
    for effect in batches {
        let (now, answer) = (world.now(), world.carry_out(&effect));
        world.engine().answer(effect.id, answer, now);
    }
    world.run();
    assert_eq!(since(&mut world, "Release"), 1);
    world.advance(LEASE / 12);
    assert_eq!(since(&mut world, "Release"), 1);
    assert_eq!(held(&mut world).len(), 2);
    let mine = held(&mut world);
    let gone: Vec<_> = UNITS.into_iter().filter(|unit| !mine.contains(&(*unit).to_owned())).collect();
    world.others = others(&["other"], &[(gone[0], "other"), (gone[1], "other")]);
    world.advance(LEASE);
    assert_eq!((held(&mut world), since(&mut world, "Release")), (mine, 0), "it is even");
}

#[test]
fn what_a_dead_one_still_holds_is_not_made_up_for() {
    let mut world = shared();
    let theirs = [("c", "other"), ("d", "other")];
    world.others = others(&["other"], &theirs);
    world.run();
    assert_eq!(held(&mut world), ["a", "b"]);
    // It died and is there again under another name; its claims still run.
    world.others = others(&["again"], &theirs);
    world.advance(LEASE);
    assert_eq!((held(&mut world).len(), since(&mut world, "Release")), (2, 0));
    // Whoever holds something for longer than a lease and is never there shares nothing: two are left, for two.
    world.advance(LEASE / 2);
    assert_eq!(since(&mut world, "Release"), 1);
}

#[test]
fn what_stands_free_for_long_is_taken_and_kept() {
    let mut world = shared();
    world.others = others(&["other"], &[]);
    world.run();
    world.advance(LEASE * 5 / 12);
    assert_eq!(held(&mut world).len(), 2, "the other one has half a lease to come");
    world.advance(LEASE / 2);
    assert!(since(&mut world, "Claim") > 0);
    let late = world.engine().units.values().filter(|unit| unit.kept_until > 0).count();
    assert_eq!(late, 2, "somebody has to work on it");
    // What was taken so is not let go of again at once; of the own share, one after the other may be, and is taken late as well.
    world.advance(LEASE * 3);
    let kept = world.engine().units.values().filter(|unit| unit.kept_until > 0).count();
    assert_eq!((kept, held(&mut world).len()), (4, 4));
    world.trace.clear();
    world.advance(LEASE * 3);
    assert_eq!(since(&mut world, "Release"), 0, "it does not go to and fro");
}

#[test]
fn who_ends_says_so_before_it_gives_its_units_back() {
    let mut world = shared();
    world.converge();
    world.trace.clear();
    world.engine().drain();
    world.run();
    let at = |what: &str| world.trace.iter().position(|act| act.starts_with(what)).unwrap();
    assert!(at("Leave") < at("Release"), "{:?}", world.trace);
    assert_eq!(world.count("Release"), UNITS.len());
    assert!(world.engine().is_drained());
}

#[test]
fn what_others_work_on_is_not_behind_here() {
    let mut world = shared();
    world.others = others(&["other"], &[("c", "other"), ("d", "other")]);
    world.run();
    say(&mut world, "yo");
    world.run();
    let now = world.now();
    let units = world.engine().status(now, false).units;
    for unit in ["c", "d"] {
        let said = &units[unit];
        assert!(said.elsewhere && said.behind.is_empty() && said.behind_total == 0, "{said:?}");
    }
    assert_eq!(world.engine().sizes().behind, 0);
    let troubles = world.engine().troubles();
    assert!(troubles.iter().all(|(_, _, why)| why == "another instance works on it"), "{troubles:?}");
    assert_eq!(world.engine().verdict(), crate::Verdict::Converged);
}

#[test]
fn who_gets_no_answer_asks_ever_later_but_before_others_think_it_gone() {
    let mut world = shared();
    world.store_fault = Some(Fault::new("join", "nobody answers"));
    let mut asked = Vec::new();
    for at in 0..3 * LEASE / 250 {
        world.advance(250);
        asked.extend(vec![at * 250; since(&mut world, "Join")]);
    }
    let pauses: Vec<Moment> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(pauses[0] < 2_000 && pauses[3] > 4 * pauses[0], "{pauses:?}");
    assert!(pauses.len() > 8 && pauses.iter().all(|pause| *pause <= LEASE / 3 + 250), "{pauses:?}");
    world.store_fault = None;
    world.advance(LEASE / 2);
    assert_eq!(held(&mut world), UNITS);
}
