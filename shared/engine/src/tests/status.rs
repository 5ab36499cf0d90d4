//! What an engine says of itself.

use serde_json::json;
use shoal_core::{MAX_BEHIND, Revision};

use super::agent::{Toys, host, name, rows, toys};
use crate::Verdict;

/// What was last reported, once a report was due.
fn said(world: &mut Toys) -> shoal_core::Status {
    world.run();
    world.advance(1_000);
    world.status.clone().unwrap()
}

#[test]
fn who_is_left_out_is_reported_and_holds_nothing_up() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    assert_eq!(said(&mut world).units["a"].left_out_total, 0);
    let changes = world.engine().left_out_changes();
    world.set(&format!("hosts/{}", name(5)), host(5, json!({"bad": true})));
    world.set(&format!("toy/a/members/{}", name(5)), json!({}));
    world.converge();
    let status = said(&mut world);
    let unit = &status.units["a"];
    assert_eq!((unit.behind_total, unit.left_out_total), (0, 1));
    let left_out = &unit.left_out[0];
    assert_eq!(left_out.key, format!("a/{}", name(5)));
    assert_eq!(left_out.who, [format!("toy/a: {}", name(5))]);
    assert_eq!(left_out.why, "it is bad");
    assert_eq!((world.engine().sizes().left_out, world.engine().left_out().count()), (1, 1));
    assert_eq!(world.engine().left_out_changes(), changes + 1);
    // A look at everything again is no news.
    world.engine().resync();
    world.converge();
    assert_eq!(world.engine().left_out_changes(), changes + 1);
    world.set(&format!("hosts/{}", name(5)), host(5, json!({})));
    world.converge();
    assert_eq!(said(&mut world).units["a"].left_out_total, 0);
    assert_eq!(world.engine().left_out_changes(), changes + 2);
}

#[test]
fn lists_are_cut_and_say_of_how_many() {
    let mut world = toys();
    let mut all = vec![("toy/a".to_owned(), super::agent::tag("hi"))];
    for n in 0..MAX_BEHIND + 20 {
        let odd = if n % 2 == 0 { json!({"bad": true}) } else { json!({"garbled": true}) };
        for n in [n, n + 1_000] {
            all.push((format!("hosts/{}", name(n)), host(n, odd.clone())));
            all.push((format!("toy/a/members/{}", name(n)), json!({})));
        }
    }
    let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(rows(&all));
    let status = said(&mut world);
    assert_eq!((status.quarantined.len(), status.quarantined_total), (MAX_BEHIND, 120));
    assert_eq!((status.units["a"].left_out.len(), status.units["a"].left_out_total), (MAX_BEHIND, 120));
}

#[test]
fn rows_that_cannot_be_read_are_quarantined_and_the_oldest_come_first() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.set(&format!("toy/a/members/{}", name(7)), json!({}));
    world.set(&format!("hosts/{}", name(7)), json!({"rubbish": true}));
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"garbled": true})));
    world.set("toy/a/members/@tags/x", json!({}));
    world.set("tags/x", json!("rubbish"));
    // Of no concern to this agent.
    world.set("lb/web", json!("rubbish"));
    assert_eq!(world.run(), Verdict::Held);
    let status = said(&mut world);
    let what: Vec<_> = status.quarantined.iter().map(|q| (q.what.clone(), q.since)).collect();
    let expected = [
        (name(7), Revision(3)),
        (format!("toy/a: {}", name(1)), Revision(4)),
        ("tags/x".to_owned(), Revision(6)),
    ];
    assert_eq!(what, expected);
    assert!(status.quarantined[0].why.contains("cannot be understood"), "{status:?}");
    assert_eq!((world.engine().plan().quarantined.len(), status.quarantined_total), (3, 3));
}

#[test]
fn what_is_paused_counts_as_held() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("pauses/host/{}", name(0)), json!({"why": "hands off"}));
    world.set("toy/a", super::agent::tag("yo"));
    let status = said(&mut world);
    let unit = &status.units["a"];
    assert_eq!((unit.behind_total, unit.held_total, unit.held.is_none()), (1, 1, true));
}

#[test]
fn a_unit_that_another_instance_works_on_is_elsewhere_and_not_behind() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.steal_claim(&"a".into());
    let status = said(&mut world);
    let unit = &status.units["a"];
    assert_eq!((unit.elsewhere, unit.behind_total), (true, 0), "{unit:?}");
    // The other one is gone.
    world.advance(70_000);
    world.converge();
    assert!(!said(&mut world).units["a"].elsewhere);
}
