//! What wakes what, what waits, and what the watermark says.

use serde_json::json;
use shoal_core::Revision;

use super::agent::{host, name, tag, toys};
use crate::{Act, Verdict};

#[test]
fn what_a_key_read_of_another_host_wakes_it() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.set("hosts/box.example.com", host(9, json!({"note": "1"})));
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"parent": "box.example.com"})));
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi1"));
    let before = world.engine().counters();
    world.set("hosts/box.example.com", host(9, json!({"note": "2"})));
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi2"));
    assert_eq!(
        world.engine().counters().desired - before.desired,
        2,
        "that key, and once more when it is made"
    );
}

#[test]
fn what_another_host_blocks_is_woken_when_that_host_is_mended() {
    for restarts in [false, true] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        world.converge();
        // The first decision that reads the other host is the one that is blocked by it.
        world.set("hosts/box.example.com", host(9, json!({"unclear": true})));
        world.set(&format!("hosts/{}", name(0)), host(0, json!({"parent": "box.example.com"})));
        assert_eq!(world.run(), Verdict::Held);
        if restarts {
            world.restart();
        }
        world.set("hosts/box.example.com", host(9, json!({"note": "1"})));
        world.converge();
        assert_eq!(world.at("a", 0), Some("hi1"));
        // Blocked again and gone, nobody reads it any more.
        world.set("hosts/box.example.com", host(9, json!({"unclear": true})));
        assert_eq!(world.run(), Verdict::Held);
        world.set("toy/a", json!(null));
        world.converge();
        assert!(world.engine().readers.is_empty());
    }
}

#[test]
fn what_came_and_went_while_nothing_was_heard_is_found_in_the_ledger() {
    for epoch in [1, 7] {
        let mut other = toys();
        other.fleet("b", 2, "hi");
        other.converge();
        let mut world = toys();
        world.fleet("a", 1, "hi");
        world.converge();
        // Another instance has made a unit and died; all that is heard of it is that its tag is gone.
        world.ledger.append(&mut other.ledger);
        world.place.1.items.append(&mut other.place.1.items);
        world.set("toy/b", json!(null));
        world.restore(shoal_core::Epoch(epoch));
        world.set("approvals/toy", json!({"digest": "0000000000000007"}));
        world.advance(70_000);
        world.converge();
        assert_eq!((world.at("a", 0), world.at("b", 0)), (Some("hi"), None));
        assert!(!world.ledger.keys().any(|key| key.starts_with("toy/b/")));
    }
}

#[test]
fn a_source_that_cannot_be_understood_freezes_its_items_also_after_a_restart() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    let garbled = host(0, json!({"garbled": true, "note": "?"}));
    world.set(&format!("hosts/{}", name(0)), garbled);
    assert_eq!(world.run(), Verdict::Held);
    world.restart();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    assert!(world.trouble("a", 0).contains("garbled"));
    // The others go on.
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"note": "!"})));
    world.run();
    assert_eq!(world.at("a", 1), Some("hi!"));
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "ok"})));
    world.converge();
    assert_eq!(world.at("a", 0), Some("hiok"));
}

#[test]
fn a_tag_that_cannot_be_read_is_quarantined_and_the_others_go_on() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.fleet("b", 1, "hi");
    world.converge();
    world.set("toy/a", json!({"document": {"txt": "slip"}}));
    world.set("toy/b", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("b", 0)), (Some("hi"), Some("yo")));
    let status = world.engine().status(0, false);
    assert!(status.quarantined.iter().any(|q| q.what == "toy/a" && q.why.contains("txt")), "{status:?}");
}

#[test]
fn one_bad_member_is_left_out_and_one_blocked_item_stays() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"unclear": 1})));
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("yo")));
    assert!(world.trouble("a", 0).contains("nobody can say"));
}

#[test]
fn items_without_members_exist() {
    let mut world = toys();
    world.set("toy/a", json!({"document": {"text": "hi", "fixed": ["soa"]}}));
    world.converge();
    assert_eq!(world.place.1.items["a/soa"], "hi");
    world.set("toy/a", tag("hi"));
    world.converge();
    assert!(world.place.1.items.is_empty());
}

#[test]
fn the_first_change_goes_at_once_and_later_ones_join_while_it_is_in_flight() {
    let mut world = toys();
    world.fleet("a", 5, "hi");
    world.converge();
    let applies = world.place.1.batches.len();
    world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "1"})));
    let mut effects = world.effects();
    let first = effects.pop_front().unwrap();
    assert!(matches!(&first.act, Act::Apply { batch, .. } if batch.changes.len() == 1), "{first:?}");
    for n in 1..4 {
        world.set(&format!("hosts/{}", name(n)), host(n, json!({"note": "1"})));
        let more = world.effects();
        assert!(more.iter().all(|e| !matches!(e.act, Act::Apply { .. })), "one batch at a time");
    }
    let now = world.now();
    let Act::Apply { batch, .. } = &first.act else { unreachable!() };
    for edit in &batch.changes {
        world.place.1.put(edit.key.clone(), edit.to.as_ref().unwrap());
    }
    let answer = crate::Answer::Applied(crate::Applied::all(batch));
    world.engine().answer(first.id, answer, now);
    world.run();
    assert_eq!(world.place.1.batches.len() - applies, 1, "the other three went together");
    assert_eq!(world.place.1.batches.last().unwrap().changes.len(), 3);
}

#[test]
fn waiting_is_behind_and_goes_on_when_its_time_has_come() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.set("toy/a", tag("drain"));
    assert_eq!(world.run(), Verdict::Waiting);
    assert!(world.trouble("a", 0).contains("a minute"));
    world.advance(30_000);
    assert_eq!(world.at("a", 0), Some("hi"));
    // What it remembers survives the process.
    world.crash();
    world.advance(75_000);
    assert_eq!(world.at("a", 0), Some("drain"));
}

#[test]
fn the_watermark_names_what_is_behind_since_when_and_why() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.advance(1_000);
    let status = world.status.clone().unwrap();
    assert_eq!((status.seen, status.units["a"].behind_total), (Revision(1), 0));
    world.set("pauses/tag/toy/a", json!({"why": "x"}));
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"note": "!"})));
    world.run();
    world.advance(1_000);
    let status = world.status.clone().unwrap();
    let behind = &status.units["a"].behind[0];
    assert_eq!((status.seen, behind.since), (Revision(3), Revision(3)));
    assert!(behind.why.contains("paused") && behind.hosts[0].as_str() == name(1), "{behind:?}");
}

#[test]
fn draining_finishes_gives_back_and_says_a_last_word() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.engine().drain();
    world.run();
    assert!(world.engine().is_drained());
    assert_eq!(world.count("Release"), 1);
    let last = world.status.clone().unwrap();
    assert_eq!(last.expires, Some(last.at), "nobody would ever mend what an ended daemon says");
}

#[test]
fn the_last_word_of_a_single_run_stands_until_the_next() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.engine().options_mut().once = true;
    world.engine().drain();
    world.run();
    assert!(world.engine().is_drained());
    let last = world.status.clone().unwrap();
    assert_eq!((last.expires, last.units["a"].behind_total, last.units["a"].items), (None, 0, 2));
    // The next run on this node takes its place, and not that of one that was asked for something else.
    assert_eq!(last.instance, "model/once");
    world.engine().options_mut().instance = "model/another-process".to_owned();
    let said_by = |world: &mut super::agent::Toys| world.engine().status(0, true).instance;
    assert_eq!(said_by(&mut world), "model/once");
    world.engine().options_mut().tags = Some(["toy/a".parse().unwrap()].into());
    assert_eq!(said_by(&mut world), "model/once:toy/a");
    // One that did not get to work on it does not say that it is behind.
    world.crash();
    world.steal_claim(&"a".into());
    world.options.once = true;
    world.run();
    world.engine().drain();
    world.run();
    let last = world.status.clone().unwrap();
    assert_eq!((last.expires, last.units["a"].behind_total, last.units["a"].elsewhere), (None, 0, true));
}

#[test]
fn an_engine_that_never_read_anything_ends_at_once() {
    let world = toys();
    let mut engine = crate::Engine::new(world.agent, world.options).unwrap();
    engine.drain();
    while let Some(effect) = engine.poll(0) {
        engine.answer(effect.id, crate::Answer::Done, 0);
    }
    assert!(engine.is_drained());
}

#[test]
fn a_plan_writes_nothing_and_says_what_would_run() {
    let mut world = toys();
    world.options.write = false;
    world.fleet("a", 2, "hi");
    world.run();
    let plan = world.engine().plan();
    assert_eq!(plan.units[0].steps.len(), 2);
    assert_eq!(plan.units[0].steps[0].host.as_ref().unwrap().as_str(), name(0));
    assert!(
        world
            .trace
            .iter()
            .all(|act| ["NextKey", "ReadLedger", "Observe"].iter().any(|ok| act.starts_with(ok))),
        "{:?}",
        world.trace
    );
    assert!(world.ledger.is_empty() && world.place.1.items.is_empty());
}

#[test]
fn a_plan_names_the_revision_the_host_and_the_field() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"note": "!"})));
    let mut options = world.options.clone();
    options.write = false;
    world.crash();
    world.options = options;
    world.run();
    let plan = world.engine().plan();
    let step = &plan.units[0].steps[0];
    assert_eq!((step.revision, step.host.as_ref().unwrap().as_str()), (Revision(2), &*name(1)));
    assert_eq!(plan.units[0].resting, None);
}

#[test]
fn a_plan_ends_also_when_the_ledger_would_be_written() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.crash();
    // The same items from another source as well: nothing to change, but the ledger would say so.
    let other: Vec<_> = (0..2).map(|n| (format!("toy/b/members/{}", name(n)), json!({}))).collect();
    let other: Vec<_> = other.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(super::agent::rows(&other));
    world.options.write = false;
    let ledger = world.ledger.clone();
    assert_eq!(world.run(), Verdict::Converged);
    assert!(world.engine().plan().is_empty());
    assert_eq!(world.ledger, ledger);
}

#[test]
fn nothing_is_kept_of_who_read_a_host_once_the_item_is_gone() {
    for taken in [false, true] {
        let mut world = toys();
        world.fleet("a", 2, "hi");
        world.set(&format!("hosts/{}", name(0)), host(0, json!({"parent": name(7)})));
        world.converge();
        assert!(!world.engine().readers.is_empty());
        if taken {
            // Another instance has the unit: what is known of it is forgotten.
            world.steal_claim(&"a".into());
            world.set("toy/a", tag("yo"));
            world.advance(20_000);
        }
        world.set("toy/a", json!(null));
        world.run();
        assert!(world.engine().readers.is_empty(), "{taken}");
    }
}
