//! Removals that take several steps: counted once, asked about once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::HostName;

use super::agent::name;
use crate::model::{Place, World};
use crate::{
    Agent, Applied, At, Batch, Blocked, Desired, Fault, Fence, Look, Moment, Nature, Observed, Outcome, Seen,
    Source, Step, Unit, Verdict,
};

/// Every member is an item, which is emptied before it goes.
struct Slow;

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
            (None, Some("full")) => Step::Act { verb: "empty", memo: json!({"since": now}) },
            (None, Some(_)) => Step::Act { verb: "remove", memo: at.memo.clone() },
            _ => at.by_default(),
        }
    }
}

#[derive(Default)]
struct Shelf(BTreeMap<HostName, String>);

impl Place<Slow> for Shelf {
    fn nature(&self) -> Nature {
        Nature::default()
    }
    fn observe(&mut self, _: &Unit, _: Option<&[HostName]>) -> Result<Observed<Slow>, Fault> {
        let seen = self.0.iter().map(|(key, have)| (key.clone(), Seen::There(have.clone())));
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
                (Some(to), _) => {
                    self.0.insert(edit.key.clone(), to.clone());
                    Outcome::Done
                }
                (None, "empty") => {
                    self.0.insert(edit.key.clone(), "empty".to_owned());
                    Outcome::Running { memo: edit.memo.clone(), look_again: 0 }
                }
                (None, _) => {
                    self.0.remove(&edit.key);
                    Outcome::Done
                }
            };
            each.push((edit.key.clone(), outcome));
        }
        Ok(Applied { each, facts: Vec::new() })
    }
}

fn world(hosts: usize) -> World<Slow, Shelf> {
    let mut world = World::new(Arc::new(Slow), Shelf::default());
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
    assert_eq!(world.place.0.len(), 10);
    // One more is too many with those that went of late.
    assert_eq!(leave(&mut world, 10..11), Verdict::Held);
    assert_eq!(world.place.0.values().filter(|have| *have == "full").count(), 10);
}

#[test]
fn what_was_agreed_to_is_not_asked_about_again_at_its_end() {
    let mut world = world(30);
    assert_eq!(leave(&mut world, 0..20), Verdict::Held);
    let digest = world.engine().holds().next().map(|(_, hold)| hold.digest.clone()).unwrap();
    commit(&mut world, &[("approvals/slow/all".to_owned(), json!({"digest": digest}))]);
    assert_eq!((world.run(), world.place.0.len()), (Verdict::Converged, 10));
}
