//! Items that bear a mark while a host of theirs is paused, and change no further.

use serde_json::json;

use super::agent::{name, rows, tag, toys};
use crate::Verdict;

fn scope() -> String {
    format!("pauses/host/{}", name(0))
}

#[test]
fn what_is_paused_is_marked_and_changes_no_further() {
    for restarts in [false, true] {
        let mut world = toys();
        world.fleet("a", 3, "mark");
        world.converge();
        world.set(&scope(), json!({"why": "hands off"}));
        world.converge();
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("mark paused"), Some("mark")));
        if restarts {
            world.restart();
            world.converge();
            assert_eq!(world.at("a", 0), Some("mark paused"));
        }
        // What the tag says by now is planned, and waits.
        world.set("toy/a", tag("mark two"));
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("mark paused"), Some("mark two")));
        assert!(world.trouble("a", 0).contains("hands off"), "{}", world.trouble("a", 0));
        world.set(&scope(), json!(null));
        world.converge();
        assert_eq!(world.at("a", 0), Some("mark two"));
    }
}

/// Also what was wanted before the mark was there: nobody is told that all is done.
#[test]
fn what_was_paused_before_its_change_is_marked_and_waits() {
    let mut world = toys();
    world.fleet("a", 3, "mark");
    world.converge();
    world.commit(rows(&[("toy/a", tag("mark two")), (&scope(), json!({"why": "hands off"}))]));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("mark paused"), Some("mark two")));
    assert!(world.trouble("a", 0).contains("hands off"), "{}", world.trouble("a", 0));
    world.set(&scope(), json!(null));
    world.converge();
    assert_eq!(world.at("a", 0), Some("mark two"));
}

#[test]
fn resumed_without_a_change_it_is_as_before() {
    let mut world = toys();
    world.fleet("a", 2, "mark");
    world.converge();
    let before = world.engine().counters();
    world.set(&scope(), json!({"why": "hands off"}));
    world.converge();
    world.set(&scope(), json!(null));
    world.converge();
    assert_eq!(world.at("a", 0), Some("mark"));
    // The other host was asked about by neither.
    let after = world.engine().counters();
    assert_eq!(after.intended - before.intended, 2);
    assert!(after.desired - before.desired <= 4, "{}", after.desired - before.desired);
}

#[test]
fn what_was_edited_or_is_not_there_is_not_marked() {
    let mut world = toys();
    world.fleet("a", 2, "mark");
    world.converge();
    world.place.1.items.insert(format!("a/{}", name(0)), "edited".into());
    world.crash();
    world.set(&scope(), json!({"why": "hands off"}));
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("edited"));
    // Nor is it made.
    let mut world = toys();
    world.set(&scope(), json!({"why": "hands off"}));
    world.fleet("a", 2, "mark");
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (None, Some("mark")));
}

#[test]
fn a_pause_of_the_tag_or_the_agent_marks_nothing() {
    for other in ["pauses/tag/toy/a", "pauses/agent/toy"] {
        let mut world = toys();
        world.fleet("a", 1, "mark");
        world.converge();
        world.set(other, json!({"why": "all of it"}));
        world.set(&scope(), json!({"why": "hands off"}));
        world.run();
        assert_eq!(world.at("a", 0), Some("mark"), "{other}");
    }
}
