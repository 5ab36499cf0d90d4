//! Claims and fences.

use serde_json::json;

use super::agent::{host, name, tag, toys};
use crate::{Act, Answer, Applied};

#[test]
fn nothing_happens_before_claim_ledger_and_look() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    let acts: Vec<_> = world.trace.iter().map(|act| act.split('(').next().unwrap().to_owned()).collect();
    let at = |what: &str| acts.iter().position(|act| act == what).unwrap();
    assert!(at("Claim") < at("ReadLedger") && at("ReadLedger") < at("Observe"));
    assert!(at("Observe") < at("WriteLedger") && at("WriteLedger") < at("Apply"));
}

#[test]
fn a_lost_claim_stops_everything_and_a_new_holder_looks_again() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.steal_claim(&"a".into());
    world.set("toy/a", tag("yo"));
    let looks = world.count("Observe");
    // The write of the ledger, or the renewal, says that it is lost.
    world.advance(25_000);
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"note": "!"})));
    world.run();
    world.advance(70_000);
    assert!(world.count("Observe") > looks);
    world.converge();
    assert_eq!(world.at("a", 1), Some("yo!"));
}

#[test]
fn no_effect_is_issued_after_the_fence() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    // Renewals are not answered from now on.
    let start = world.now();
    for step in 1..=12 {
        world.set("toy/a", tag(&format!("{step}")));
        let now = start + step * 6_000;
        for effect in std::iter::from_fn(|| world.engine().poll(now)).collect::<Vec<_>>() {
            let Act::Apply { batch, not_after, .. } = &effect.act else { continue };
            assert!(now <= *not_after && *not_after <= start + 55_000, "{now} {not_after}");
            let applied = Answer::Applied(Applied::all(batch));
            world.engine().answer(effect.id, applied, now);
        }
    }
    let acts: Vec<_> = std::iter::from_fn(|| world.engine().poll(start + 100_000)).collect();
    assert!(acts.iter().all(|e| !matches!(e.act, Act::Apply { .. })), "{acts:?}");
}

#[test]
fn late_and_repeated_answers_are_ignored() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    let apply = world.effects().pop_front().unwrap();
    let Act::Apply { batch, .. } = &apply.act else { unreachable!("{apply:?}") };
    let now = world.now();
    for _ in 0..3 {
        let answer = Answer::Applied(Applied::all(batch));
        world.engine().answer(apply.id, answer, now);
    }
    world.engine().answer(9_999, Answer::Fenced, now);
    // Nothing was really done: the look that follows says so.
    world.run();
    assert_eq!(world.at("a", 0), Some("yo"));
}
