//! Items that others write into as well: what is Shoal's of one is what it made, and never what is merely equal to what is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::agent::{Spec, tag};
use crate::model::{Place, World};
use crate::{
    Act, Agent, Applied, At, Batch, Blocked, Desired, Edit, Effect, Fault, Fence, Known, Look, Moment,
    Nature, Observed, Outcome, Seen, Source, Step, Unit, Verdict,
};

/// One name with values by type, `a=1 txt=x`, as a name server has them. A tag is one name.
struct Sets;

type Node = BTreeMap<String, String>;

fn node(text: &str) -> Node {
    text.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

fn is_known(known: &Known<'_, Node>, one: (&String, &String)) -> bool {
    known.last.is_some_and(|last| last.contains_key(one.0))
        || known.tried.iter().any(|tried| tried.get(one.0) == Some(one.1))
}

impl Agent for Sets {
    type Spec = Spec;
    type Key = String;
    type Item = Node;
    type Have = Node;

    fn namespace(&self) -> &str {
        "toy"
    }
    fn unit(&self, _: &String) -> Unit {
        "a".into()
    }
    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<String>, Blocked> {
        Ok(vec![from.tag.key().to_owned()])
    }
    fn desired(&self, _: &String, from: &[Source<'_, Spec>], _: &dyn Look) -> Result<Desired<Node>, Blocked> {
        Ok(Desired::item(node(&from[0].spec.text)))
    }
    fn made(&self, item: &Node) -> Option<Node> {
        Some(item.clone())
    }
    fn part(&self, _: &String, have: &Node, known: Known<'_, Node>) -> Seen<Node> {
        let mut part = have.clone();
        part.retain(|k, v| known.want.is_some_and(|w| w.contains_key(k)) || is_known(&known, (k, v)));
        if part.is_empty() { Seen::Nothing } else { Seen::There(part) }
    }
    fn step(&self, _: &String, at: At<'_, Self>, _: Moment) -> Step {
        let known = Known { want: at.want, last: at.last, tried: at.tried };
        let judged = at.want.is_some() && (at.last.is_some() || !at.tried.is_empty());
        match at.have.and_then(|have| have.iter().find(|one| judged && !is_known(&known, *one))) {
            Some((k, _)) => Step::Clash { why: format!("{k} is somebody's") },
            None => at.by_default(),
        }
    }
}

/// A server whose updates have what they were decided from as their condition.
#[derive(Default)]
struct Server(BTreeMap<String, Node>);

impl Server {
    fn change(&mut self, edit: &Edit<Sets>) -> Outcome {
        let (from, to) = (edit.from.clone().unwrap_or_default(), edit.to.clone().unwrap_or_default());
        let there = self.0.entry(edit.key.clone()).or_default();
        let stands = from.iter().all(|(k, v)| there.get(k) == Some(v));
        let free = to.keys().all(|k| from.contains_key(k) || !there.contains_key(k));
        if !stands || !free {
            return Outcome::Stale;
        }
        there.retain(|k, _| !from.contains_key(k));
        there.extend(to);
        Outcome::Done
    }
}

impl Place<Sets> for Server {
    fn nature(&self) -> Nature {
        Nature { shared: true, conditional: true, ..Nature::default() }
    }
    fn observe(&mut self, _: &Unit, _: Option<&[String]>) -> Result<Observed<Sets>, Fault> {
        let there = self.0.iter().filter(|(_, node)| !node.is_empty());
        let seen = there.map(|(key, node)| (key.clone(), Seen::There(node.clone()))).collect();
        Ok(Observed { seen, complete: true })
    }
    fn apply(
        &mut self,
        _: &Unit,
        batch: &Batch<Sets>,
        _: &Fence,
        boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<Sets>, Fault> {
        let mut each = Vec::new();
        for edit in &batch.changes {
            if boundary(&format!("before {} {}", edit.verb, edit.key)) {
                break;
            }
            each.push((edit.key.clone(), self.change(edit)));
        }
        Ok(Applied { each, facts: Vec::new() })
    }
}

type Names = World<Sets, Server>;

/// Shoal's `a=1`, and somebody's `srv=s` beside it.
fn made() -> Names {
    let mut world = World::new(Arc::new(Sets), Server::default());
    wants(&mut world, "a=1");
    converge(&mut world);
    theirs(&mut world, "srv=s");
    world
}

fn wants(world: &mut Names, text: &str) {
    world.commit(Names::rows(&[("toy/web", tag(text))]));
}

/// Somebody else's update.
fn theirs(world: &mut Names, text: &str) {
    world.place.0.entry("web".to_owned()).or_default().extend(node(text));
}

fn there(world: &Names) -> Node {
    world.place.0.get("web").cloned().unwrap_or_default()
}

fn converge(world: &mut Names) {
    let verdict = world.run();
    assert_eq!(verdict, Verdict::Converged, "{:?}", world.engine().troubles());
}

fn restart(world: &mut Names) {
    world.crash();
    world.advance(70_000);
}

/// The batch, before the target has it.
fn batch(world: &mut Names) -> Effect<Sets> {
    loop {
        for effect in world.effects() {
            if matches!(effect.act, Act::Apply { .. }) {
                return effect;
            }
            finish(world, &effect);
        }
    }
}

fn finish(world: &mut Names, effect: &Effect<Sets>) {
    let answer = world.carry_out(effect);
    let now = world.now();
    world.engine().answer(effect.id, answer, now);
}

fn adopt(world: &mut Names) {
    let now = world.now();
    let clashes = world.engine().status(now, false).units.remove("a").unwrap_or_default().clashes;
    let adopt: serde_json::Map<_, _> =
        clashes.into_iter().map(|clash| (clash.key, json!(clash.digest))).collect();
    assert_eq!(adopt.len(), 1);
    world.commit(Names::rows(&[("approvals/toy/a", json!({ "adopt": adopt }))]));
}

#[test]
fn what_is_equal_to_what_is_wanted_is_not_shoals_before_it_is_adopted() {
    let mut world = made();
    theirs(&mut world, "txt=x");
    wants(&mut world, "a=1 txt=x");
    assert_eq!(world.run(), Verdict::Held);
    wants(&mut world, "a=2");
    converge(&mut world);
    assert_eq!(there(&world), node("a=2 txt=x srv=s"));
    wants(&mut world, "a=2 txt=x");
    assert_eq!(world.run(), Verdict::Held);
    adopt(&mut world);
    converge(&mut world);
    restart(&mut world);
    wants(&mut world, "a=2");
    converge(&mut world);
    assert_eq!(there(&world), node("a=2 srv=s"));
}

#[test]
fn a_stop_in_the_middle_of_a_change_that_gains_something_loses_nothing() {
    for (theirs_is, fuse) in
        (0..30).flat_map(|fuse| [(None, fuse), (Some("txt=x"), fuse), (Some("txt=y"), fuse)])
    {
        let mut world = made();
        if let Some(text) = theirs_is {
            theirs(&mut world, text);
        }
        wants(&mut world, "a=1 txt=x");
        if theirs_is.is_some() {
            assert_eq!(world.run(), Verdict::Held);
            adopt(&mut world);
        }
        world.light_fuse(fuse);
        world.run();
        restart(&mut world);
        converge(&mut world);
        assert_eq!(there(&world), node("a=1 txt=x srv=s"), "{theirs_is:?}, fuse {fuse}");
        wants(&mut world, "a=1");
        converge(&mut world);
        assert_eq!(there(&world), node("a=1 srv=s"), "{theirs_is:?}, fuse {fuse}");
    }
}

#[test]
fn what_is_not_wanted_any_more_when_it_turns_out_to_be_made_goes() {
    let mut world = made();
    wants(&mut world, "a=1 txt=x");
    let apply = batch(&mut world);
    // It is made, and whoever had it made never hears of it.
    world.carry_out(&apply);
    world.crash();
    wants(&mut world, "a=1");
    world.advance(70_000);
    converge(&mut world);
    assert_eq!(there(&world), node("a=1 srv=s"));
}

#[test]
fn what_came_before_the_change_is_not_shoals() {
    // It comes between the look and the change: the target refuses, or nobody asks it any more.
    for (text, dies) in [("txt=x", false), ("txt=y", false), ("txt=y", true)] {
        let mut world = made();
        wants(&mut world, "a=1 txt=x");
        let apply = batch(&mut world);
        theirs(&mut world, text);
        if dies {
            restart(&mut world);
        } else {
            finish(&mut world, &apply);
        }
        world.advance(70_000);
        assert_eq!(world.run(), Verdict::Held, "{text}, dies {dies}");
        wants(&mut world, "a=1");
        converge(&mut world);
        restart(&mut world);
        wants(&mut world, "b=1");
        converge(&mut world);
        let mut left = node("b=1 srv=s");
        left.extend(node(text));
        assert_eq!(there(&world), left, "{text}, dies {dies}");
    }
}

#[test]
fn a_change_that_gains_nothing_costs_no_write_before_it() {
    for (text, before) in [("a=2", 0), ("a=1 txt=x", 1)] {
        let mut world = made();
        let begun = world.trace.len();
        wants(&mut world, text);
        converge(&mut world);
        let acts = world.trace[begun..].iter().take_while(|act| !act.starts_with("Apply"));
        assert_eq!(acts.filter(|act| act.starts_with("WriteLedger")).count(), before, "{text}");
    }
}

#[test]
fn what_was_about_to_go_gains_as_well() {
    for fuse in 0..30 {
        let mut world = made();
        world.commit(Names::rows(&[("toy/web", json!(null))]));
        // The ledger says that it goes, and nobody has it removed.
        batch(&mut world);
        world.crash();
        wants(&mut world, "a=1 txt=x");
        world.light_fuse(fuse);
        world.advance(70_000);
        restart(&mut world);
        converge(&mut world);
        assert_eq!(there(&world), node("a=1 txt=x srv=s"), "fuse {fuse}");
        wants(&mut world, "a=1");
        converge(&mut world);
        assert_eq!(there(&world), node("a=1 srv=s"), "fuse {fuse}");
    }
}
