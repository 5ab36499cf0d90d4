//! Whatever happens, and wherever it is stopped, the end is the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::agent::{Toys, host, name, tag, toys_of};
use crate::{Nature, Verdict};

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    Host(usize, &'static str),
    NoHost(usize),
    Member(usize),
    NoMember(usize),
    Tag(&'static str),
    NoTag,
    Drift(usize),
    Crash,
    Time(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let n = 0usize..4;
    prop_oneof![
        (n.clone(), prop_oneof![Just("a"), Just("b"), Just("")]).prop_map(|(n, note)| Event::Host(n, note)),
        n.clone().prop_map(Event::NoHost),
        n.clone().prop_map(Event::Member),
        n.clone().prop_map(Event::NoMember),
        prop_oneof![Just("x"), Just("y")].prop_map(Event::Tag),
        Just(Event::NoTag),
        n.prop_map(Event::Drift),
        Just(Event::Crash),
        (0i64..100_000).prop_map(Event::Time),
    ]
}

fn happen(world: &mut Toys, event: &Event) {
    match event {
        Event::Host(n, note) => world.set(&format!("hosts/{}", name(*n)), host(*n, json!({"note": note}))),
        Event::NoHost(n) => {
            world.set(&format!("toy/t/members/{}", name(*n)), Value::Null);
            world.set(&format!("hosts/{}", name(*n)), Value::Null);
        }
        Event::Member(n) => world.set(&format!("toy/t/members/{}", name(*n)), json!({})),
        Event::NoMember(n) => world.set(&format!("toy/t/members/{}", name(*n)), Value::Null),
        Event::Tag(text) => world.set("toy/t", tag(text)),
        Event::NoTag => world.set("toy/t", Value::Null),
        Event::Drift(n) => {
            if let Some(have) = world.place.1.items.get_mut(&format!("t/{}", name(*n))) {
                *have = "scribble".into();
            }
        }
        Event::Crash => world.crash(),
        Event::Time(by) => world.advance(*by),
    }
}

/// What should be there, said by a world that sees only the end.
fn expected(world: &Toys, nature: Nature) -> std::collections::BTreeMap<String, String> {
    let mut other = toys_of(nature);
    let rows = world.live_rows();
    other.commit(rows);
    other.converge();
    other.place.1.items
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_end_is_the_same_however_it_was_reached(
        whole in any::<bool>(),
        events in proptest::collection::vec((event(), 0usize..40, any::<bool>()), 1..25),
    ) {
        let nature = Nature { whole, ..Nature::default() };
        let mut world = toys_of(nature);
        world.options.max_change = crate::MaxChange(100);
        world.set("toy/t", json!({"document": {"text": "x", "fixed": ["soa"]}}));
        for (event, fuse, run) in &events {
            happen(&mut world, event);
            if *run {
                world.light_fuse(*fuse);
                world.run();
            }
        }
        world.light_fuse(usize::MAX);
        world.crash();
        world.advance(400_000);
        world.engine().resync();
        world.advance(400_000);
        let want = expected(&world, nature);
        let verdict = world.run();
        // All members of a tag that stands may have gone: that is held, rightly.
        prop_assume!(verdict != Verdict::Held);
        prop_assert_eq!(verdict, Verdict::Converged, "{:?}", world.engine().troubles());
        prop_assert_eq!(&world.place.1.items, &want);
        let changes = world.engine().counters().changes;
        world.engine().resync();
        world.advance(1_000);
        prop_assert_eq!(world.engine().counters().changes, changes, "nothing is left to do");
    }
}
