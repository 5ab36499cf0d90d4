//! Mass changes, approvals, pauses, and another epoch.

use serde_json::json;
use shoal_core::Epoch;

use super::agent::{host, name, rows, tag, toys, toys_of};
use crate::{MaxChange, Nature, Verdict};

#[test]
fn a_mass_change_is_held_until_exactly_it_is_agreed_to() {
    let mut world = toys();
    world.fleet("a", 20, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    let digest = world.digest();
    assert!(!digest.is_empty());
    // Another change in between is another batch.
    world.set("toy/a", tag("yo yo"));
    world.set("approvals/toy/a", json!({"digest": digest}));
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    world.converge();
    assert_eq!(world.at("a", 19), Some("yo yo"));
    // An old approval lets nothing through.
    world.set("toy/a", tag("hi"));
    assert_eq!(world.run(), Verdict::Held);
}

#[test]
fn a_stop_in_the_middle_of_what_was_agreed_to_does_not_ask_again() {
    let mut world = toys();
    world.fleet("a", 40, "hi");
    world.options.max_batch = 13;
    world.converge();
    world.set("toy/a", tag("yo"));
    world.run();
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    // The ledger is written, the first batch goes, then the process dies.
    world.light_fuse(24);
    world.run();
    assert!(world.stopped_at().is_some());
    assert!((0..40).any(|n| world.at("a", n) == Some("hi")));
    world.restart();
    world.converge();
    assert!((0..40).all(|n| world.at("a", n) == Some("yo")));
}

#[test]
fn creations_are_never_too_many_and_small_changes_go() {
    let mut world = toys();
    world.fleet("a", 100, "hi");
    world.converge();
    let few: Vec<_> =
        (0..30).map(|n| (format!("hosts/{}", name(n)), host(n, json!({"note": "!"})))).collect();
    let few: Vec<_> = few.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(rows(&few));
    world.converge();
}

#[test]
fn removing_all_is_held_while_the_tag_stands() {
    let gone = |n| (format!("toy/a/members/{}", name(n)), json!(null));
    let mut world = toys();
    world.fleet("a", 5, "hi");
    world.converge();
    let all: Vec<_> = (0..5).map(gone).collect();
    let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(rows(&all));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    // With the tag they go.
    world.set("toy/a", json!(null));
    world.converge();
    assert_eq!(world.at("a", 0), None);
}

#[test]
fn a_setting_raises_the_share_for_a_tag() {
    let mut world = toys();
    world.options.max_change_by_tag.insert("toy/a".parse().unwrap(), MaxChange(100));
    world.fleet("a", 20, "hi");
    world.fleet("b", 20, "hi");
    world.converge();
    world.commit(rows(&[("toy/a", tag("yo")), ("toy/b", tag("yo"))]));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("b", 0)), (Some("yo"), Some("hi")));
}

#[test]
fn a_sweep_cannot_slip_past_the_guard_in_slices() {
    let mut world = toys();
    world.options.sweep_slice = 3;
    world.fleet("a", 20, "hi");
    world.converge();
    for n in 0..20 {
        world.place.1.put(format!("a/{}", name(n)), &"scribble".to_owned());
    }
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert!((0..20).all(|n| world.at("a", n) == Some("scribble")));
}

#[test]
fn pauses_hold_and_plans_go_on() {
    for scope in [format!("host/{}", name(0)), "tag/toy/a".to_owned(), "agent/toy".to_owned()] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        world.converge();
        world.set(&format!("pauses/{scope}"), json!({"why": "hands off"}));
        world.set("toy/a", tag("yo"));
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.at("a", 0), Some("hi"));
        let plan = world.engine().plan();
        let step = &plan.units[0].steps[0];
        assert!(step.held.as_ref().unwrap().contains("hands off"), "{step:?}");
        assert_eq!(step.verb, "update");
        // What is paused is not removed either.
        world.set(&format!("toy/a/members/{}", name(0)), json!(null));
        world.run();
        assert_eq!(world.at("a", 0), Some("hi"), "{scope}");
        world.set(&format!("pauses/{scope}"), json!(null));
        world.converge();
        assert_eq!(world.at("a", 0), None);
    }
}

#[test]
fn of_a_unit_that_several_tags_feed_a_pause_holds_what_it_has_a_part_in() {
    for whole in [false, true] {
        let mut world = toys_of(Nature { whole, ..Nature::default() });
        let second = |text: &str| json!({"document": {"text": text, "unit": "a"}});
        world.fleet("a", 3, "hi");
        // Host 1 is in both, host 3 in the second tag only.
        world.commit(rows(&[
            ("toy/second", second("two")),
            (&format!("hosts/{}", name(3)), host(3, json!({}))),
            (&format!("toy/second/members/{}", name(1)), json!({})),
            (&format!("toy/second/members/{}", name(3)), json!({})),
        ]));
        world.converge();
        let then = |world: &super::agent::Toys| {
            (0..4).map(|n| world.at("a", n).map(str::to_owned)).collect::<Vec<_>>()
        };
        let before = then(&world);
        assert_eq!(before[1].as_deref(), Some("hi;two"));
        world.set("pauses/tag/toy/second", json!({"why": "hands off"}));
        world.commit(rows(&[("toy/a", tag("yo")), ("toy/second", second("three"))]));
        // Taken out, it is still what the paused tag made.
        world.set(&format!("toy/second/members/{}", name(3)), json!(null));
        assert_eq!(world.run(), Verdict::Held);
        let now = then(&world);
        assert_eq!((now[0].as_deref(), now[2].as_deref()), (Some("yo"), Some("yo")));
        assert_eq!((&now[1], &now[3]), (&before[1], &before[3]));
        assert_eq!(world.engine().status(0, false).units["a"].held_total, 2);
        // The same of a host.
        world.commit(rows(&[
            ("pauses/tag/toy/second", json!(null)),
            (&format!("pauses/host/{}", name(1)), json!({"why": "x"})),
        ]));
        world.set("toy/a", tag("four"));
        assert_eq!(world.run(), Verdict::Held);
        let now = then(&world);
        assert_eq!(
            (now[0].as_deref(), now[1].as_deref(), now[3].as_deref()),
            (Some("four"), Some("hi;two"), None)
        );
    }
}

#[test]
fn another_epoch_holds_until_a_person_agrees() {
    for live in [true, false] {
        let mut world = toys();
        world.fleet("a", 2, "hi");
        world.converge();
        if !live {
            world.crash();
        }
        world.restore(Epoch(7));
        world.advance(70_000);
        assert_eq!(world.run(), Verdict::Converged, "nothing to do, nothing to ask");
        world.set("toy/a", tag("old"));
        assert_eq!(world.run(), Verdict::Held, "live {live}");
        assert_eq!(world.at("a", 0), Some("hi"));
        assert_eq!(world.digest(), "0000000000000007");
        world.set("approvals/toy/epoch", json!({"digest": "0000000000000007"}));
        world.converge();
        assert_eq!(world.at("a", 0), Some("old"));
        world.restart();
        world.set("toy/a", tag("new"));
        world.converge();
    }
}
