//! One change that takes its whole unit with it.

use serde_json::json;

use super::agent::{Toys, name, tag, toys_of};
use crate::{Nature, Verdict, Why};

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

fn head(text: &str) -> serde_json::Value {
    json!({"document": {"text": text, "unit": "a", "fixed": ["@"]}})
}

/// A unit whose head is of one tag, and `n` items of another.
fn world(nature: Nature, n: usize) -> Toys {
    let mut world = toys_of(nature);
    world.fleet("a", n, "hi");
    world.set("toy/head", head("head"));
    world.converge();
    assert!(world.place.1.items.contains_key("a/@"));
    world
}

fn agree(world: &mut Toys) {
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
}

#[test]
fn what_takes_a_unit_with_it_is_counted_as_the_unit() {
    for nature in [WHOLE, SOLE] {
        // Its tag goes; its tag makes of it what carries nothing; it is edited out. Whatever the share.
        for change in [json!(null), head("headless"), tag("none")] {
            for n in [2, 40] {
                let mut world = world(nature, n);
                world.options.max_change = crate::MaxChange(100);
                world.restart();
                world.set("toy/head", change.clone());
                assert_eq!(world.run(), Verdict::Held, "{change} {n}");
                assert_eq!(world.at("a", 1), Some("hi"));
                let (_, hold) = world.engine().holds().next().unwrap();
                let (why, remove, of, sample) = (hold.why.clone(), hold.remove, hold.of, hold.sample.len());
                assert!(why.contains("a/@ takes the whole unit with it"), "{why}");
                assert_eq!((remove, of, sample), (n as u64 + 1, n as u64 + 1, (n + 1).min(10)));
                let plan = world.engine().plan();
                let step = &plan.units[0].steps[0];
                assert_eq!((step.takes_total, step.takes.len()), (n as u64, n.min(10)));
                assert!(step.held.as_ref().unwrap().contains("guard"), "{step:?}");
                agree(&mut world);
                world.run();
                let gone = world.place.1.batches.iter().any(|b| b.changes.len() == 1);
                assert!(gone, "{change} {n}");
                // What is still wanted is made again where the target takes it, and not as somebody's edit.
                assert_eq!(world.at("a", 1), Some("hi"));
                let last = world.place.1.batches.last().unwrap();
                assert!(last.changes.iter().all(|edit| edit.because != Why::Drift));
            }
        }
    }
}

#[test]
fn a_small_unit_that_is_all_its_tags_own_goes_with_it_unasked() {
    let mut world = toys_of(WHOLE);
    world.set("toy/a", json!({"document": {"text": "x", "fixed": ["@", "one", "two"]}}));
    world.converge();
    world.set("toy/a", json!(null));
    world.converge();
    assert!(world.place.1.items.is_empty() && world.ledger.is_empty());
}

#[test]
fn what_is_held_keeps_the_unit_from_being_taken() {
    for nature in [WHOLE, SOLE] {
        let mut world = world(nature, 3);
        world.options.max_change = crate::MaxChange(100);
        world.set("pauses/tag/toy/a", json!({"why": "hands off"}));
        world.set("toy/head", json!(null));
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.digest(), "", "there is nothing to agree to");
        let plan = world.engine().plan();
        let held = plan.units[0].steps[0].held.clone().unwrap();
        assert!(held.contains("a/web0.example.com is paused: tag/toy/a: hands off"), "{held}");
        assert_eq!((world.at("a", 0), world.place.1.items.len()), (Some("hi"), 4));
        // Nor is it while nobody can say what some of it should be.
        world.set("pauses/tag/toy/a", json!(null));
        assert_eq!(world.run(), Verdict::Held);
        world.set(&format!("hosts/{}", name(1)), super::agent::host(1, json!({"unclear": 1})));
        agree(&mut world);
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.place.1.items.len(), 4);
        // Then that word counts.
        world.set(&format!("hosts/{}", name(1)), super::agent::host(1, json!({})));
        world.run();
        assert!(!world.place.1.items.contains_key("a/@"));
    }
}
