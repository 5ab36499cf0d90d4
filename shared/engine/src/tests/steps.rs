//! Removals that take several steps: counted once, asked about once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::HostName;

use super::agent::{name, pages};
use crate::model::{Place, World};
use crate::{
    Agent, Applied, At, Batch, Blocked, Desired, Fault, Fence, Look, Moment, Nature, Observed, Outcome, Seen,
    Source, Step, Unit, Verdict,
};

/// Every member is an item, which is emptied before it goes; or, where it leaves by itself, which is said after it went.
#[derive(Default)]
struct Slow {
    leaves: bool,
    /// Of what stands it is said that it does.
    tells: bool,
}

impl Agent for Slow {
    type Spec = BTreeMap<String, String>;
    type Key = HostName;
    type Item = String;
    type Have = String;

    fn namespace(&self) -> &str {
        "slow"
    }
    fn unit(&self, _: &HostName) -> Unit {
        "all".into()
    }
    fn keys(&self, from: &Source<'_, Self::Spec>) -> Result<Vec<HostName>, Blocked> {
        Ok(from.host_name().cloned().into_iter().collect())
    }
    fn desired(
        &self,
        _: &HostName,
        _: &[Source<'_, Self::Spec>],
        _: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        Ok(Desired::item("full".to_owned()))
    }
    fn step(&self, _: &HostName, at: At<'_, Self>, now: Moment) -> Step {
        match (at.want, at.have.map(String::as_str)) {
            (Some(_), Some("full")) if self.tells && at.memo["told"].is_null() => Step::act("tell"),
            (None, Some("full")) => Step::Act { verb: "empty", memo: json!({"since": now}) },
            (None, None) if self.leaves && at.memo["said"].is_null() => {
                Step::Act { verb: "say", memo: at.memo.clone() }
            }
            (None, Some(_)) => Step::Act { verb: "remove", memo: at.memo.clone() },
            _ => at.by_default(),
        }
    }
}

/// What stands there, and of which it was said that they went, or came.
#[derive(Default)]
struct Shelf {
    items: BTreeMap<HostName, String>,
    said: Vec<HostName>,
    failing: bool,
    /// Whatever is asked for what shall stand is not answered.
    lost: bool,
    /// When what is being emptied is worth another look.
    ready: Moment,
}

impl Place<Slow> for Shelf {
    fn nature(&self) -> Nature {
        Nature::default()
    }
    fn observe(&mut self, _: &Unit, _: Option<&[HostName]>) -> Result<Observed<Slow>, Fault> {
        let seen = self.items.iter().map(|(key, have)| (key.clone(), Seen::There(have.clone())));
        Ok(Observed { seen: seen.collect(), complete: true })
    }
    fn apply(
        &mut self,
        _: &Unit,
        batch: &Batch<Slow>,
        _: &Fence,
        _: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<Slow>, Fault> {
        let mut each = Vec::new();
        for edit in &batch.changes {
            let outcome = match (&edit.to, edit.verb) {
                (Some(_), _) if self.failing => Outcome::Failed(Fault::new("fill it", "not now")),
                (Some(_), "tell") if !self.lost => {
                    self.said.push(edit.key.clone());
                    Outcome::Running { memo: json!({"told": true}), look_again: 0 }
                }
                (Some(to), _) => {
                    self.items.insert(edit.key.clone(), to.clone());
                    let lost = || Outcome::Failed(Fault::new("fill it", "no answer"));
                    if self.lost { lost() } else { Outcome::Done }
                }
                (None, "say") => {
                    self.said.push(edit.key.clone());
                    Outcome::Running { memo: json!({"said": true}), look_again: 0 }
                }
                (None, "empty") => {
                    self.items.insert(edit.key.clone(), "empty".to_owned());
                    Outcome::Running { memo: edit.memo.clone(), look_again: self.ready }
                }
                (None, _) => {
                    self.items.remove(&edit.key);
                    Outcome::Done
                }
            };
            each.push((edit.key.clone(), outcome));
        }
        Ok(Applied { each, facts: Vec::new() })
    }
}

fn world(hosts: usize) -> World<Slow, Shelf> {
    world_of(Slow::default(), hosts)
}

fn world_of(agent: Slow, hosts: usize) -> World<Slow, Shelf> {
    let mut world = World::new(Arc::new(agent), Shelf::default());
    let mut rows = vec![("slow/a".to_owned(), json!({"document": {}}))];
    for n in 0..hosts {
        rows.push((format!("hosts/{}", name(n)), super::agent::host(n, json!({}))));
        rows.push((format!("slow/a/members/{}", name(n)), json!({})));
    }
    commit(&mut world, &rows);
    assert_eq!(world.run(), Verdict::Converged);
    world
}

fn commit(world: &mut World<Slow, Shelf>, rows: &[(String, Value)]) {
    let rows: Vec<(&str, Value)> = rows.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    world.commit(World::<Slow, Shelf>::rows(&rows));
}

fn leave(world: &mut World<Slow, Shelf>, members: std::ops::Range<usize>) -> Verdict {
    let rows: Vec<_> = members.map(|n| (format!("slow/a/members/{}", name(n)), Value::Null)).collect();
    commit(world, &rows);
    world.run()
}

#[test]
fn what_goes_in_steps_is_counted_once() {
    // As many as may go without asking: were the last steps counted again, they would be too many.
    let mut world = world(20);
    assert_eq!(leave(&mut world, 0..10), Verdict::Converged);
    assert_eq!(world.place.items.len(), 10);
    // One more is too many with those that went of late.
    assert_eq!(leave(&mut world, 10..11), Verdict::Held);
    assert_eq!(world.place.items.values().filter(|have| *have == "full").count(), 10);
}

#[test]
fn what_was_agreed_to_is_not_asked_about_again_at_its_end() {
    let mut world = world(30);
    assert_eq!(leave(&mut world, 0..20), Verdict::Held);
    let digest = world.engine().holds().next().map(|(_, hold)| hold.digest.clone()).unwrap();
    commit(&mut world, &[("approvals/slow/all".to_owned(), json!({"digest": digest}))]);
    assert_eq!((world.run(), world.place.items.len()), (Verdict::Converged, 10));
}

#[test]
fn what_is_to_be_done_after_it_went_is_done_once() {
    let mut world = world_of(Slow { leaves: true, ..Slow::default() }, 3);
    let gone = name(1).parse::<HostName>().unwrap();
    // Somebody takes it away, and then nobody wants it any more: there is nothing to remove, and something to say.
    world.place.items.remove(&gone);
    assert_eq!(leave(&mut world, 1..2), Verdict::Converged);
    assert_eq!(world.place.said, std::slice::from_ref(&gone));
    // One that goes in steps is said to have gone at their end.
    assert_eq!(leave(&mut world, 2..3), Verdict::Converged);
    assert_eq!(world.place.said, [gone, name(2).parse().unwrap()]);
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!((world.place.said.len(), world.place.items.len()), (2, 1));
}

#[test]
fn of_what_was_never_seen_nothing_is_said_and_what_comes_to_stand_there_is_not_shoals() {
    let mut world = world_of(Slow { leaves: true, ..Slow::default() }, 1);
    world.place.failing = true;
    let new = name(1);
    let rows = [
        (format!("hosts/{new}"), super::agent::host(1, json!({}))),
        (format!("slow/a/members/{new}"), json!({})),
    ];
    commit(&mut world, &rows);
    world.run();
    assert_eq!(leave(&mut world, 1..2), Verdict::Converged);
    assert_eq!(world.place.said, []);
    // Somebody else puts something there.
    let new = new.parse::<HostName>().unwrap();
    world.place.items.insert(new.clone(), "empty".to_owned());
    world.crash();
    world.advance(700_000);
    world.run();
    assert_eq!(world.place.items.get(&new).map(String::as_str), Some("empty"));
    assert!(!pages(&world.ledger).contains(new.as_str()), "the ledger forgot it");
}

/// Whatever is on its way out was counted when it began; the last of a unit does not follow it unasked.
#[test]
fn the_last_one_is_asked_about_while_the_others_are_on_their_way_out() {
    let mut world = world(9);
    world.place.ready = world.now() + 600_000;
    assert_ne!(leave(&mut world, 0..8), Verdict::Held);
    let full = |world: &World<Slow, Shelf>| world.place.items.values().filter(|have| *have == "full").count();
    assert_eq!((world.place.items.len(), full(&world)), (9, 1));
    assert_eq!(leave(&mut world, 8..9), Verdict::Held);
    let (_, hold) = world.engine().holds().next().unwrap();
    assert!(hold.why.contains("all 9 items"), "{}", hold.why);
    assert_eq!(full(&world), 1);
    // With the tag it is asked for by what went, and goes.
    commit(&mut world, &[("slow/a".to_owned(), Value::Null)]);
    assert_ne!(world.run(), Verdict::Held);
    assert_eq!(full(&world), 0);
}

/// More than may be changed without asking, of which nobody heard that they were made: what is left to do about them changes none.
#[test]
fn creations_that_are_brought_to_their_end_are_no_mass_change() {
    let mut world = world_of(Slow { tells: true, ..Slow::default() }, 0);
    world.place.lost = true;
    let host = |n| (format!("hosts/{}", name(n)), super::agent::host(n, json!({})));
    let member = |n| (format!("slow/a/members/{}", name(n)), json!({}));
    let rows: Vec<_> = (0..12).flat_map(|n| [host(n), member(n)]).collect();
    commit(&mut world, &rows);
    // Neither the creations were answered nor what was done about them after that.
    assert_eq!(world.run(), Verdict::Failed);
    world.place.lost = false;
    world.crash();
    world.advance(700_000);
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!((world.place.items.len(), world.place.said.len()), (12, 12));
}

#[test]
fn what_was_made_once_is_said_to_have_gone_though_it_could_not_be_made_again() {
    let mut world = world_of(Slow { leaves: true, ..Slow::default() }, 2);
    let gone = name(1).parse::<HostName>().unwrap();
    world.place.items.remove(&gone);
    world.place.failing = true;
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Failed);
    assert_eq!(leave(&mut world, 1..2), Verdict::Converged);
    assert_eq!(world.place.said, [gone]);
}
