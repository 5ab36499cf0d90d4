//! What is done because its time has come: no drift, no mass change, and a pause holds it.

use std::sync::Arc;

use serde_json::json;

use super::agent::{host, name};
use crate::model::{Model, World};
use crate::{Agent, At, Blocked, Desired, Look, Moment, Nature, OnDrift, Source, Step, Unit, Verdict};

/// Rings every item once in each hour.
struct Bell;

const HOUR: Moment = 3_600_000;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Spec {
    text: String,
}

impl Agent for Bell {
    type Spec = Spec;
    type Key = String;
    type Item = String;
    type Have = String;

    fn namespace(&self) -> &str {
        "bell"
    }
    fn unit(&self, _: &String) -> Unit {
        "tower".into()
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<String>, Blocked> {
        Ok(from.host.map(|host| host.name.to_string()).into_iter().collect())
    }
    fn desired(
        &self,
        _: &String,
        from: &[Source<'_, Spec>],
        _: &dyn Look,
    ) -> Result<Desired<String>, Blocked> {
        Ok(Desired { item: from.first().map(|source| source.spec.text.clone()), left_out: vec![] })
    }
    fn step(&self, _: &String, at: At<'_, Self>, now: Moment) -> Step {
        let (hour, rung) = (now / HOUR, at.memo.as_i64());
        match at.by_default() {
            Step::Rest { .. } if at.want.is_some() && rung != Some(hour) => {
                Step::Run { verb: "ring", memo: json!(hour) }
            }
            Step::Rest { .. } => Step::Rest { look_again: Some((hour + 1) * HOUR) },
            Step::Act { verb, .. } => Step::Act { verb, memo: at.memo.clone() },
            other => other,
        }
    }
}

type Bells = World<Bell, (Arc<Bell>, Model<Bell>)>;

fn bells(n: usize) -> Bells {
    let agent = Arc::new(Bell);
    let mut world =
        World::new(agent.clone(), (agent, Model::new(Nature::default(), |item: &String| item.clone())));
    let mut all = vec![("bell/all".to_owned(), json!({"document": {"text": "ding"}}))];
    for n in 0..n {
        all.push((format!("hosts/{}", name(n)), host(n, json!({}))));
        all.push((format!("bell/all/members/{}", name(n)), json!({})));
    }
    let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    world.commit(Bells::rows(&all));
    world
}

fn rung(world: &mut Bells) -> u64 {
    world.engine().changes().iter().filter(|((verb, _), _)| *verb == "ring").map(|(_, count)| count).sum()
}

#[test]
fn what_is_due_goes_whatever_the_guard_and_drift_say() {
    let mut world = bells(40);
    world.options.drift = OnDrift::Report;
    assert_eq!(world.run(), Verdict::Converged);
    assert_eq!(rung(&mut world), 40);
    for hour in 2..5 {
        world.advance(HOUR);
        assert_eq!(world.run(), Verdict::Converged, "{:?}", world.engine().troubles());
        assert_eq!(rung(&mut world), 40 * hour);
    }
    assert!(world.engine().changes().keys().all(|(verb, cause)| (*verb == "ring") == (*cause == "due")));
    // A mass change is asked for all the same.
    world.commit(Bells::rows(&[("bell/all", json!({"document": {"text": "dong"}}))]));
    assert_eq!(world.run(), Verdict::Held);
}

#[test]
fn a_pause_holds_it() {
    let mut world = bells(2);
    assert_eq!(world.run(), Verdict::Converged);
    let pause = format!("pauses/host/{}", name(0));
    world.commit(Bells::rows(&[(pause.as_str(), json!({"why": "hush"}))]));
    world.advance(HOUR);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(rung(&mut world), 3);
}
