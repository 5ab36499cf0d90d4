//! Targets that refuse a creation where something is in its way: nothing is looked at for it before.

use serde_json::json;

use super::agent::{Toys, name, toys_of};
use crate::{Fault, Nature, Verdict};

const CONDITIONAL: Nature = Nature {
    whole: false,
    checks_fence: false,
    marks_own: false,
    sole: false,
    conditional: true,
    shared: false,
};

/// What was asked of store and target since, but for reports.
fn acts(world: &Toys, since: usize) -> Vec<&str> {
    let words = world.trace[since..].iter().filter_map(|act| act.split('(').next());
    words.filter(|word| *word != "Report").collect()
}

#[test]
fn what_comes_later_is_made_without_a_look() {
    let made = |nature| {
        let mut world = toys_of(nature);
        world.fleet("a", 1, "hi");
        world.converge();
        let since = world.trace.len();
        world.fleet("a", 2, "hi");
        world.converge();
        assert_eq!(world.at("a", 1), Some("hi"));
        acts(&world, since).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(made(CONDITIONAL), ["WriteLedger", "Apply", "WriteLedger", "Observe"]);
    assert_eq!(made(Nature::default()), ["Observe", "WriteLedger", "Apply", "WriteLedger", "Observe"]);
}

#[test]
fn what_is_in_the_way_is_a_clash_as_anywhere() {
    let mut world = toys_of(CONDITIONAL);
    world.fleet("a", 1, "hi");
    world.converge();
    // Not even what looks just like what is wanted.
    let theirs = ["theirs", "hi"];
    for (n, text) in (1..).zip(theirs) {
        world.place.1.put(format!("a/{}", name(n)), &text.to_owned());
        world.fleet("a", n + 1, "hi");
        assert_eq!(world.run(), Verdict::Held);
        assert!(world.trouble("a", n).contains("Shoal did not make it"), "{}", world.trouble("a", n));
        assert_eq!(world.at("a", n), Some(text));
    }
    // Nobody wants it any more: it is nobody's business.
    let member = |n| format!("toy/a/members/{}", name(n));
    world.commit(super::agent::rows(&[(&member(1), json!(null)), (&member(2), json!(null))]));
    world.advance(70_000);
    world.converge();
    assert_eq!((world.at("a", 1), world.at("a", 2)), (Some("theirs"), Some("hi")));
}

#[test]
fn what_was_refused_was_never_tried() {
    for refused in [true, false] {
        let mut world = toys_of(CONDITIONAL);
        world.fleet("a", 1, "hi");
        world.converge();
        let key = format!("a/{}", name(1));
        let model = &mut world.place.1;
        let faults = if refused { &mut model.refusing } else { &mut model.failing };
        faults.insert(key.clone(), Fault::new("make it", "not now"));
        world.fleet("a", 2, "hi");
        assert_eq!(world.run(), Verdict::Failed);
        assert!(world.trouble("a", 1).contains("make it: not now"), "{}", world.trouble("a", 1));
        // Somebody makes just what was wanted.
        let model = &mut world.place.1;
        (model.refusing, model.failing) = Default::default();
        model.put(key.clone(), &"hi".to_owned());
        world.advance(700_000);
        // Of an attempt that may have been done, nobody can tell it.
        let (verdict, trouble) = (world.run(), world.trouble("a", 1));
        assert_eq!(verdict, if refused { Verdict::Held } else { Verdict::Converged }, "{trouble}");
        assert_eq!(trouble.contains("Shoal did not make it"), refused, "{trouble}");
    }
}
