//! What crosses on the way: commits, answers and stops that meet effects under way. The simulator found these first.

use serde_json::{Value, json};
use shoal_core::{Epoch, Revision};

use super::agent::{Toy, Toys, host, name, rows, tag, toys};

use crate::{Act, Answer, Applied, Claimed, Effect, OnDrift, Outcome, Verdict, Why};

/// The effect among those that the engine asks for at this point; the others are carried out.
pub(super) fn ask(world: &mut Toys, wanted: impl Fn(&Act<Toy>) -> bool) -> Effect<Toy> {
    for _ in 0..100 {
        let (mut found, mut others) = (None, Vec::new());
        for effect in world.effects() {
            if found.is_none() && wanted(&effect.act) { found = Some(effect) } else { others.push(effect) }
        }
        for effect in others {
            finish(world, &effect);
        }
        if let Some(found) = found {
            return found;
        }
    }
    unreachable!("it is never asked for");
}

/// Carries it out, and tells the engine.
fn finish(world: &mut Toys, effect: &Effect<Toy>) {
    let answer = world.carry_out(effect);
    tell(world, effect, answer);
}

pub(super) fn tell(world: &mut Toys, effect: &Effect<Toy>, answer: Answer<Toy>) {
    let now = world.now();
    world.engine().answer(effect.id, answer, now);
}

pub(super) fn is_apply(act: &Act<Toy>) -> bool {
    matches!(act, Act::Apply { .. })
}

fn applied(effect: &Effect<Toy>) -> Answer<Toy> {
    let Act::Apply { batch, .. } = &effect.act else { unreachable!("{effect:?}") };
    Answer::Applied(Applied::all(batch))
}

#[test]
fn a_look_is_not_believed_about_what_was_changed_since_it_began() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.engine().resync();
    let look = ask(&mut world, |act| matches!(act, Act::Observe { keys: None, .. }));
    let seen = world.carry_out(&look);
    world.set("toy/a", tag("yo"));
    let apply = ask(&mut world, is_apply);
    finish(&mut world, &apply);
    let batches = world.place.1.batches.len();
    tell(&mut world, &look, seen);
    world.converge();
    assert_eq!(world.place.1.batches.len(), batches, "what is old is no drift");
    assert_eq!(world.engine().counters().drift, 0);
    assert_eq!(world.at("a", 0), Some("yo"));
}

#[test]
fn answers_that_come_after_the_claim_was_lost_say_nothing() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    let apply = ask(&mut world, is_apply);
    let writes = world.count("WriteLedger");
    // The claim runs out while it is under way; somebody else has the unit for a while.
    world.steal_claim(&"a".into());
    world.advance(59_000);
    assert!(world.engine().status(0, false).units["a"].elsewhere);
    tell(&mut world, &apply, applied(&apply));
    world.run();
    assert_eq!(world.count("WriteLedger"), writes, "it is not its own any more");
    world.advance(10_000);
    world.converge();
    assert_eq!(world.at("a", 0), Some("yo"), "it looked, and nothing had been done");
}

#[test]
fn nothing_is_begun_anew_while_a_write_or_a_batch_of_before_is_under_way() {
    for wanted in [is_apply, |act: &Act<Toy>| matches!(act, Act::WriteLedger { .. })] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        let under_way = ask(&mut world, wanted);
        // The claim passes through other hands, and comes back before it has ended.
        world.steal_claim(&"a".into());
        world.advance(59_000);
        let reads = world.count("ReadLedger");
        world.advance(20_000);
        assert_eq!(world.count("ReadLedger"), reads, "{under_way:?}");
        finish(&mut world, &under_way);
        world.converge();
        assert_eq!((world.count("ReadLedger"), world.at("a", 0)), (reads + 1, Some("hi")));
    }
}

#[test]
fn what_the_store_fences_off_is_not_begun() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.steal_claim(&"a".into());
    let more = (format!("hosts/{}", name(5)), format!("toy/a/members/{}", name(5)));
    world.commit(rows(&[(&more.0, host(5, json!({}))), (&more.1, json!({}))]));
    let batches = world.place.1.batches.len();
    world.run();
    assert!(world.trace.iter().any(|act| act.starts_with("WriteLedger")));
    assert_eq!((world.at("a", 5), world.place.1.batches.len()), (None, batches));
    world.advance(70_000);
    world.converge();
    assert_eq!(world.at("a", 5), Some("hi"));
}

#[test]
fn a_process_that_ends_begins_nothing_more_and_the_next_one_goes_on() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    let write = ask(&mut world, |act| matches!(act, Act::WriteLedger { .. }));
    world.engine().drain();
    finish(&mut world, &write);
    world.run();
    assert!(world.engine().is_drained());
    assert_eq!((world.place.1.batches.len(), world.count("Release")), (0, 1));
    world.crash();
    world.converge();
    assert_eq!(world.at("a", 1), Some("hi"));
}

#[test]
fn a_process_that_is_told_to_end_before_it_read_anything_asks_for_nothing_after() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    let mut engine = crate::Engine::new(world.agent.clone(), world.options.clone()).unwrap();
    engine.drain();
    engine.load(crate::Snapshot::of(Epoch(1), world.revision(), []));
    let mut asked = Vec::new();
    while let Some(effect) = engine.poll(0) {
        asked.push(format!("{:?}", effect.act));
        engine.answer(effect.id, Answer::Done, 0);
    }
    assert!(engine.is_drained() && asked.iter().all(|act| act.starts_with("Report")), "{asked:?}");
}

#[test]
fn a_source_that_leaves_while_its_item_is_made_is_the_reason_to_undo_it() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    let apply = ask(&mut world, is_apply);
    world.set(&format!("toy/a/members/{}", name(1)), Value::Null);
    finish(&mut world, &apply);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), None));
    let undone = &world.place.1.batches.last().unwrap().changes[0];
    assert!(matches!(undone.because, Why::NotMember(..)), "{:?}", undone.because);
    assert!(!world.ledger.values().any(|page| String::from_utf8_lossy(page).contains(&name(1))));
}

#[test]
fn what_changes_while_it_is_changed_is_decided_on_when_that_is_over() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("one"));
    let first = ask(&mut world, is_apply);
    for text in ["two", "three"] {
        world.set("toy/a", tag(text));
        assert!(world.effects().iter().all(|effect| !is_apply(&effect.act)), "one batch at a time");
    }
    finish(&mut world, &first);
    world.converge();
    assert_eq!(world.at("a", 0), Some("three"));
    let texts: Vec<_> = world.place.1.batches.iter().map(|b| b.changes[0].to.clone().unwrap()).collect();
    assert_eq!(texts, ["hi", "one", "three"]);
    let last = &world.place.1.batches.last().unwrap().changes[0];
    assert_eq!(last.from.as_deref(), Some("one"), "decided from what the first one left");
}

#[test]
fn what_the_guard_holds_does_not_slip_out_piece_by_piece() {
    let mut world = toys();
    world.fleet("a", 20, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    for n in 0..20 {
        world.set(&format!("hosts/{}", name(n)), host(n, json!({"touched": n})));
        assert_eq!(world.run(), Verdict::Held);
    }
    world.engine().options_mut().sweep_slice = 1;
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert!((0..20).all(|n| world.at("a", n) == Some("hi")));
}

#[test]
fn a_new_holder_waits_until_it_has_seen_what_the_last_one_may_have_acted_on() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    let claim = ask(&mut world, |act| matches!(act, Act::Claim { .. }));
    let until = world.now() + 60_000;
    tell(
        &mut world,
        &claim,
        Answer::Claim(Claimed::Held { number: 1, until, head: Some((Epoch(1), Revision(3))) }),
    );
    let asks = |world: &mut Toys| world.effects().iter().any(|e| matches!(e.act, Act::ReadLedger { .. }));
    assert!(!asks(&mut world));
    world.engine().upto(Revision(2));
    assert!(!asks(&mut world));
    world.engine().upto(Revision(3));
    assert!(asks(&mut world));
}

#[test]
fn nothing_is_done_by_a_database_that_another_one_has_taken_the_place_of() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.crash();
    world.set("toy/a", tag("yo"));
    // Restored, and nobody has told it yet: the claim is the first that it hears of it.
    let claim = ask(&mut world, |act| matches!(act, Act::Claim { .. }));
    let until = world.now() + 60_000;
    let head = Some((Epoch(7), Revision(1)));
    tell(&mut world, &claim, Answer::Claim(Claimed::Held { number: 9, until, head }));
    let reads = world.count("ReadLedger");
    for _ in 0..2 {
        world.run();
        assert_eq!(world.count("ReadLedger"), reads);
        world.engine().upto(Revision(99));
    }
    // Once it is read, it begins anew.
    world.restore(Epoch(7));
    world.advance(70_000);
    assert_eq!((world.run(), world.at("a", 0)), (Verdict::Held, Some("hi")));
}

#[test]
fn what_was_begun_is_ours_whatever_it_looks_like_also_for_the_next_process() {
    let key = format!("a/{}", name(0));
    for dies in [false, true] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        let apply = ask(&mut world, is_apply);
        world.place.1.put(key.clone(), &"half done".to_owned());
        let running = Outcome::Running { memo: Value::Null, look_again: world.now() + 5_000 };
        let answer = Applied { each: vec![(key.clone(), running)], facts: Vec::new() };
        tell(&mut world, &apply, Answer::Applied(answer));
        world.run();
        assert!(world.trouble("a", 0).contains("goes on by itself"));
        if dies {
            world.restart();
        }
        world.advance(10_000);
        world.converge();
        assert_eq!(world.at("a", 0), Some("hi"), "dies {dies}");
    }
}

#[test]
fn what_was_begun_is_not_given_up_before_it_is_to_show() {
    for dies in [false, true] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        let apply = ask(&mut world, is_apply);
        let running = Outcome::Running { memo: Value::Null, look_again: world.now() + 600_000 };
        let answer = Applied { each: vec![(format!("a/{}", name(0)), running)], facts: Vec::new() };
        tell(&mut world, &apply, Answer::Applied(answer));
        world.set(&format!("toy/a/members/{}", name(0)), json!(null));
        world.run();
        if dies {
            world.restart();
        }
        // Looks before then show nothing: neither is it made a second time, nor forgotten.
        world.engine().resync();
        world.run();
        assert!(world.trouble("a", 0).contains("does not show yet"), "dies {dies}");
        world.place.1.put(format!("a/{}", name(0)), &"hi".to_owned());
        world.advance(601_000);
        world.converge();
        assert_eq!(world.at("a", 0), None, "dies {dies}: it shows, is known as ours, and goes");
    }
}

#[test]
fn what_is_ready_when_everything_is_read_anew_is_decided_on_again_first() {
    let mut world = toys();
    world.options.sweep_slice = 1;
    world.restart();
    world.fleet("a", 5, "hi");
    world.converge();
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "!"})));
    let apply = ask(&mut world, is_apply);
    // Ready, and waits for what is under way. No source leads to them any more: only the ledger knows them.
    for n in 1..5 {
        world.set(&format!("toy/a/members/{}", name(n)), json!(null));
    }
    world.run();
    world.commit_unheard(&rows(&[("pauses/tag/toy/a", json!({"why": "hands off"}))]));
    finish(&mut world, &apply);
    assert_eq!(world.run(), Verdict::Held);
    assert!((1..5).all(|n| world.at("a", n) == Some("hi")));
}

#[test]
fn what_shoal_began_itself_is_no_drift_when_it_is_wanted_as_before() {
    for (dies, drift) in [(false, OnDrift::Correct), (false, OnDrift::Report), (true, OnDrift::Report)] {
        let key = format!("a/{}", name(0));
        let mut world = toys();
        world.options.drift = drift;
        world.restart();
        world.fleet("a", 1, "hi");
        world.converge();
        world.set("toy/a", tag("yo"));
        let apply = ask(&mut world, is_apply);
        world.place.1.put(key.clone(), &"yo".to_owned());
        if dies {
            world.restart();
        } else {
            let running = Outcome::Running { memo: Value::Null, look_again: world.now() + 5_000 };
            tell(
                &mut world,
                &apply,
                Answer::Applied(Applied { each: vec![(key, running)], facts: Vec::new() }),
            );
        }
        world.set("toy/a", tag("hi"));
        world.run();
        world.advance(70_000);
        world.converge();
        assert_eq!(world.at("a", 0), Some("hi"), "dies {dies}, {drift:?}");
        assert_eq!(world.engine().counters().drift, 0, "dies {dies}, {drift:?}");
    }
}

#[test]
fn what_goes_on_by_itself_is_known_to_come_from_all_its_sources() {
    let key = format!("a/{}", name(0));
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.commit(rows(&[
        ("toy/second", json!({"document": {"text": "two", "unit": "a"}})),
        (&format!("toy/second/members/{}", name(0)), json!({})),
    ]));
    let apply = ask(&mut world, is_apply);
    world.place.1.put(key.clone(), &"hi;two".to_owned());
    let running = Outcome::Running { memo: Value::Null, look_again: world.now() + 5_000 };
    tell(&mut world, &apply, Answer::Applied(Applied { each: vec![(key, running)], facts: Vec::new() }));
    world.run();
    // Before it is done, neither tag wants it there any more, and of one nobody can say what it wants.
    world.commit(rows(&[
        ("toy/a", json!({"document": {"text": "hi", "unit": "b"}})),
        ("toy/second", json!({"document": {"text": "two", "unit": "b"}})),
    ]));
    world.set("toy/second", json!({"document": {"txt": "slip"}}));
    world.advance(10_000);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi;two"));
}

#[test]
fn what_a_batch_took_along_is_behind_at_once_and_decided_on_again() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "!"})));
    let apply = ask(&mut world, is_apply);
    let Answer::Applied(mut answer) = world.carry_out(&apply) else { unreachable!("{apply:?}") };
    let other = format!("a/{}", name(1));
    world.place.1.items.remove(&other);
    answer.each.push((other, Outcome::Stale));
    answer.each.push(("a/nobody".to_owned(), Outcome::Stale));
    tell(&mut world, &apply, Answer::Applied(answer));
    let now = world.now();
    let behind = &world.engine().status(now, false).units["a"].behind;
    assert!(behind.iter().any(|b| b.key.ends_with(&name(1)) && b.since == Revision(1)), "{behind:?}");
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi!"), Some("hi")));
}

#[test]
fn what_waits_for_a_person_is_decided_on_again_when_what_it_was_made_from_is_not_understood_any_more() {
    let mut world = toys();
    world.fleet("a", 12, "hi");
    let second = |document: Value| {
        let mut all = vec![("toy/second".to_owned(), json!({ "document": document }))];
        all.extend((0..12).map(|n| (format!("toy/second/members/{}", name(n)), json!({}))));
        all
    };
    let put = |world: &mut Toys, all: Vec<(String, Value)>| {
        all.iter().for_each(|(key, value)| world.set(key, value.clone()));
    };
    put(&mut world, second(json!({"text": "two", "unit": "a"})));
    let digest = {
        world.run();
        world.digest()
    };
    world.set("approvals/toy/a", json!({ "digest": digest }));
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi;two"));
    // It goes to another unit, which the guard asks about; then nobody can tell what it is.
    world.set("toy/second", json!({"document": {"text": "two", "unit": "b"}}));
    assert_eq!(world.run(), Verdict::Held);
    assert!(world.trouble("a", 0).contains("guard"), "{}", world.trouble("a", 0));
    world.set("toy/second", json!({"document": {"txt": "slip"}}));
    world.run();
    assert!(world.trouble("a", 0).contains("blocked"), "{}", world.trouble("a", 0));
    assert_eq!(world.at("a", 0), Some("hi;two"));
}
