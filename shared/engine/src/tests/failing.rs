//! What fails is tried again, later each time, and stops nobody else; what cannot be seen is not touched.

use serde_json::json;

use super::agent::{host, name, rows, tag, toys, toys_of};
use crate::{Fault, Nature, OnDrift, Verdict};

fn key(n: usize) -> String {
    format!("a/{}", name(n))
}

#[test]
fn one_failing_item_does_not_stop_the_others_and_is_tried_later_and_later() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.place.1.failing.insert(key(1), Fault::new("write web1", "disk full"));
    assert_eq!(world.run(), Verdict::Failed);
    assert_eq!((world.at("a", 0), world.at("a", 2)), (Some("hi"), Some("hi")));
    assert!(world.trouble("a", 1).contains("disk full"));
    let tries = |world: &super::agent::Toys| {
        world.place.1.batches.iter().filter(|b| b.changes.iter().any(|e| e.key == key(1))).count()
    };
    world.advance(600_000);
    let after_ten_minutes = tries(&world);
    assert!((8..=12).contains(&after_ten_minutes), "{after_ten_minutes}");
    let tokens: std::collections::BTreeSet<_> = world
        .place
        .1
        .batches
        .iter()
        .flat_map(|b| &b.changes)
        .filter(|e| e.key == key(1))
        .map(|e| &e.token)
        .collect();
    assert_eq!(tokens.len(), 1, "every attempt at the same creation has the same token");
    world.place.1.failing.clear();
    world.advance(300_000);
    world.converge();
}

#[test]
fn a_fault_that_cannot_pass_waits_for_a_change() {
    let mut world = toys();
    world.options.resync = i64::MAX / 4;
    world.fleet("a", 1, "hi");
    world.place.1.failing.insert(key(0), Fault::new("write", "refused").permanent());
    world.run();
    world.advance(3_600_000);
    assert_eq!(world.place.1.batches.len(), 1);
    world.place.1.failing.clear();
    world.set("toy/a", tag("other"));
    world.converge();
}

#[test]
fn a_new_wish_does_not_wait_out_an_old_failure() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.place.1.failing.insert(key(0), Fault::new("write", "busy"));
    world.advance(60_000);
    world.place.1.failing.clear();
    world.set("toy/a", tag("yo"));
    world.converge();
    assert_eq!(world.at("a", 0), Some("yo"));
}

#[test]
fn a_real_change_does_not_wait_out_what_failed_before_it() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    for what in ["look", "batch"] {
        let fault = Some(Fault::new(what, "busy"));
        if what == "look" {
            world.place.1.look_fault = fault;
            world.engine().resync();
        } else {
            world.place.1.batch_fault = fault;
            world.set("toy/a", tag("x"));
        }
        // Long enough for the longest wait.
        world.run();
        world.advance(600_000);
        (world.place.1.look_fault, world.place.1.batch_fault) = (None, None);
        world.set("toy/a", tag(what));
        world.run();
        world.advance(1_000);
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some(what), Some(what)));
    }
}

#[test]
fn many_changes_do_not_try_a_failing_unit_more_than_once_a_second() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.place.1.look_fault = Some(Fault::new("look", "503"));
    world.engine().resync();
    world.run();
    world.advance(600_000);
    let looks = world.count("Observe");
    for n in 0..600 {
        world.set("toy/a", tag(&format!("text {n}")));
        world.run();
        world.advance(100);
    }
    let tries = world.count("Observe") - looks;
    assert!((30..=61).contains(&tries), "{tries} in a minute");
}

#[test]
fn what_could_not_be_seen_is_looked_at_when_somebody_changes_it() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    world.place.1.unknown.insert(key(0));
    world.engine().resync();
    world.run();
    world.advance(3_000_000);
    world.place.1.unknown.clear();
    world.set("toy/a", tag("yo"));
    world.converge();
    assert_eq!(world.at("a", 0), Some("yo"));
}

#[test]
fn what_cannot_be_seen_is_not_touched() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.place.1.unknown.insert(key(0));
    world.engine().resync();
    world.run();
    world.set("toy/a", json!(null));
    world.run();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), None));
    world.place.1.unknown.clear();
    world.advance(60_000);
    assert_eq!(world.at("a", 0), None);
}

#[test]
fn a_failed_or_partial_look_removes_and_makes_nothing() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    let batches = world.place.1.batches.len();
    for (fault, sight) in [(Some(Fault::new("look", "503")), None), (None, Some(1))] {
        world.place.1.look_fault = fault;
        world.place.1.short_sight = sight;
        world.restart();
        assert_eq!(world.place.1.batches.len(), batches);
    }
    world.place.1.short_sight = None;
    world.advance(60_000);
    world.converge();
    assert_eq!(world.place.1.batches.len(), batches);
}

#[test]
fn a_whole_unit_is_not_written_while_some_of_it_is_unseen() {
    let mut world = toys_of(Nature { whole: true, ..Nature::default() });
    world.fleet("a", 3, "hi");
    world.converge();
    world.place.1.unknown.insert(key(0));
    world.engine().resync();
    world.run();
    world.set(&format!("hosts/{}", name(2)), host(2, json!({"note": "!"})));
    world.run();
    assert_eq!(world.at("a", 0), Some("hi"));
    assert_eq!(world.at("a", 2), Some("hi"), "it would have lost what was not seen");
    world.place.1.unknown.clear();
    world.advance(60_000);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 2)), (Some("hi"), Some("hi!")));
}

#[test]
fn a_batch_that_fails_as_a_whole_is_halved_until_the_culprit_stands_alone() {
    #[derive(Clone)]
    struct Picky(crate::model::Model<super::agent::Toy>, std::sync::Arc<super::agent::Toy>);
    impl crate::model::Place<super::agent::Toy> for Picky {
        fn nature(&self) -> Nature {
            Nature::default()
        }
        fn observe(
            &mut self,
            unit: &crate::Unit,
            keys: Option<&[String]>,
        ) -> Result<crate::Observed<super::agent::Toy>, Fault> {
            let mut pair = (self.1.clone(), self.0.clone());
            crate::model::Place::observe(&mut pair, unit, keys)
        }
        fn apply(
            &mut self,
            unit: &crate::Unit,
            batch: &crate::Batch<super::agent::Toy>,
            fence: &crate::Fence,
            boundary: &mut dyn FnMut(&str) -> bool,
        ) -> Result<crate::Applied<super::agent::Toy>, Fault> {
            if batch.changes.iter().any(|edit| edit.key == key(5)) {
                return Err(Fault::new("change the set", "one of it is refused"));
            }
            let mut pair = (self.1.clone(), self.0.clone());
            let applied = crate::model::Place::apply(&mut pair, unit, batch, fence, boundary);
            self.0 = pair.1;
            applied
        }
    }
    let agent = std::sync::Arc::new(super::agent::Toy { logic: 1, ..Default::default() });
    let model = crate::model::Model::new(Nature::default(), |item: &String| item.clone());
    let mut world = crate::model::World::new(agent.clone(), Picky(model, agent));
    let mut all = vec![("toy/a".to_owned(), tag("hi"))];
    for n in 0..10 {
        all.push((format!("hosts/{}", name(n)), host(n, json!({}))));
        all.push((format!("toy/a/members/{}", name(n)), json!({})));
    }
    let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    world.commit(super::agent::rows(&all));
    world.options.max_batch = 16;
    world.run();
    world.advance(600_000);
    assert_eq!(world.place.0.items.len(), 9);
    assert_eq!(world.run(), Verdict::Failed);
}

#[test]
fn retries_of_all_items_together_have_a_rate() {
    let mut world = toys();
    world.options.retry_rate = 1;
    world.options.retry_most = 1_000;
    world.fleet("a", 200, "hi");
    for n in 0..200 {
        world.place.1.failing.insert(key(n), Fault::new("write", "busy"));
    }
    world.run();
    let first: usize = world.place.1.batches.iter().map(|b| b.changes.len()).sum();
    world.advance(60_000);
    let all: usize = world.place.1.batches.iter().map(|b| b.changes.len()).sum();
    assert_eq!(first, 200);
    assert!(all - first <= 10 + 61, "{}", all - first);
}

#[test]
fn what_is_made_and_yet_never_right_is_not_made_at_full_speed() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.converge();
    let agent = world.agent.clone();
    let items = world.place.1.items.clone();
    world.place = (agent, crate::model::Model::new(Nature::default(), |item: &String| format!("{item}!")));
    world.place.1.items = items;
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Failed);
    assert!(world.trouble("a", 0).contains("a look shows something else"));
    world.advance(600_000);
    assert!(world.place.1.batches.len() < 16, "{}", world.place.1.batches.len());
}

#[test]
fn what_only_the_ledger_knows_is_none_of_what_a_removal_leaves() {
    let mut world = toys();
    world.options.drift = OnDrift::Report;
    world.restart();
    world.fleet("a", 3, "hi");
    world.converge();
    world.place.1.items.remove(&key(0));
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    // The only two that are there go, and one that somebody took away is to come back.
    let mut changes = rows(&[(&*format!("hosts/{}", name(0)), host(0, json!({"note": "!"})))]);
    for n in [1, 2] {
        changes.extend(rows(&[(&format!("toy/a/members/{}", name(n)), json!(null))]));
    }
    world.commit(changes);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 1), world.at("a", 2)), (Some("hi"), Some("hi")));
    assert!(!world.digest().is_empty(), "{:?}", world.engine().troubles());
}
