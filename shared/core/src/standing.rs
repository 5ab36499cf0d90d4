//! How far the agents are, from what their instances say: what `shoal wait` answers, and what the simulator holds it to.
//!
//! An agent has done revision N when an instance of it has seen N and of each unit one that has seen N says that nothing
//! is behind, and nothing quarantined, since N or earlier. Instances of one agent share its units, so the best word on
//! a unit counts: who has not come so far yet, or waits for another's claim, says nothing against it. What rests on
//! schedule is not behind. What an instance says of another life of the database says nothing of this one. An instance that ended on purpose is not waited for; one that died is not either, but is
//! named, unless others work on all that it had. If nobody works on a unit any more, nobody knows how it stands, and that is not done. Who
//! has no unit may get one by what it has not seen, which others may not reach: so each such instance is waited for.
//!
//! What holds nothing up is told beside it: what was left out of items, and units of which a look failed since. What a unit cannot see it does not
//! know to be otherwise, so it is not behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Behind, Epoch, Life, Namespace, Revision, Status as Report, UnitStatus};
use jiff::Timestamp;

/// How agents begin what waits for a person: a pause, a clash, a guard.
const HELD: &str = "held:";
/// How they begin what waits until something that cannot be understood is mended.
const BLOCKED: &str = "blocked:";
/// How they begin what somebody paused.
const PAUSED: &str = "held: paused:";
/// How many reasons are named of each unit.
const LINES: usize = 5;

/// How far it is.
#[derive(Debug, Default, PartialEq)]
pub struct Standing {
    /// The agents that run, of those that were asked for.
    pub agents: BTreeSet<Namespace>,
    /// What is not done; empty: everything is.
    pub waiting: Vec<Group>,
    /// Instances that died, one line each.
    pub dead: Vec<String>,
    /// How much was left out of items, of the units that these agents work on. It holds nothing up.
    pub left_out: u64,
    /// Units of which the last look or attempt failed, one line each. What is not behind was done before that, and nobody knows whether it
    /// still stands.
    pub failing: Vec<String>,
}

impl Standing {
    /// Whether something is not done, and all of that waits for a person: it is held, or cannot be understood.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.waiting.is_empty() && self.waiting.iter().all(|group| group.rests)
    }
}

/// Why a unit, or an agent, is not done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// Of what.
    pub of: String,
    /// Some reasons.
    pub lines: Vec<String>,
    /// How many more there are.
    pub more: u64,
    /// Whether only a person can help, by letting it go.
    pub held: bool,
    /// Whether none of it goes on without a person: each is held, or waits for a commit that mends what cannot be understood.
    pub rests: bool,
    /// What a person does next, if it is known.
    pub next: Option<String>,
}

impl Group {
    fn one(of: impl Into<String>, line: impl Into<String>) -> Self {
        Self { of: of.into(), lines: vec![line.into()], ..Self::default() }
    }
}

/// How far `asked`, or all that run, are on the way to `target` in this life of the database.
#[must_use]
pub fn standing(
    reports: &[Report],
    epoch: Epoch,
    target: Revision,
    asked: &[Namespace],
    now: Timestamp,
) -> Standing {
    let mut live: BTreeMap<&Namespace, Vec<&Report>> = BTreeMap::new();
    let mut standing = Standing::default();
    let mut dead = Vec::new();
    for report in reports.iter().filter(|r| asked.is_empty() || asked.contains(&r.agent)) {
        match Life::of(report, now) {
            Life::Live => live.entry(&report.agent).or_default().push(report),
            Life::Dead => dead.push(report),
            Life::Ended | Life::Stopped => {}
        }
    }
    let taken_over = |report: &Report| {
        let live = live.get(&report.agent);
        live.is_some_and(|live| report.units.keys().all(|unit| live.iter().any(|r| r.works_on(unit))))
    };
    let say = |r: &Report| format!("{} ({}): dead since {}; not waited for", r.agent, r.instance, r.at);
    standing.dead = dead.into_iter().filter(|report| !taken_over(report)).map(say).collect();
    for (agent, instances) in &live {
        standing.agents.insert(Namespace::clone(agent));
        standing.waiting.extend(agent_waits(agent, instances, epoch, target));
        remarks(agent, instances, epoch, &mut standing);
    }
    for agent in asked.iter().filter(|agent| !live.contains_key(agent)) {
        standing
            .waiting
            .push(Group::one(agent.as_str(), format!("no instance of it runs; start shoal-{agent}")));
    }
    if live.is_empty() && asked.is_empty() {
        let why = "start one, or see `shoal status` for what became of it";
        standing.waiting.push(Group::one("no agent runs", why));
    }
    standing
}

/// Why what the instance says is not enough, if it is not.
fn lags(report: &Report, epoch: Epoch, target: Revision) -> Option<String> {
    if report.epoch != epoch {
        return Some(format!("{} does not follow the restored database yet", report.instance));
    }
    (report.seen < target).then(|| format!("{} has seen revision {} only", report.instance, report.seen))
}

fn agent_waits(agent: &Namespace, instances: &[&Report], epoch: Epoch, target: Revision) -> Vec<Group> {
    let mut waiting = Vec::new();
    // Whoever has seen most, and of those the last to speak, knows best what cannot be understood.
    let Some(newest) = instances.iter().max_by_key(|r| (r.epoch == epoch, r.seen, r.at)) else {
        return waiting;
    };
    if let Some(line) = lags(newest, epoch, target) {
        return vec![Group::one(agent.as_str(), line)];
    }
    let idle = instances.iter().filter(|report| report.units.is_empty());
    waiting.extend(idle.filter_map(|r| lags(r, epoch, target)).map(|line| Group::one(agent.as_str(), line)));
    let units: BTreeSet<&String> = instances.iter().flat_map(|r| r.units.keys()).collect();
    for name in units {
        waiting.extend(unit_waits(agent, name, instances, epoch, target));
    }
    let odd: Vec<_> = newest.quarantined.iter().filter(|q| q.since <= target).collect();
    if !odd.is_empty() {
        let lines = odd.iter().take(LINES);
        let lines = lines.map(|q| format!("{} is quarantined since revision {}: {}", q.what, q.since, q.why));
        // Only the oldest are named one by one; of the others, some may be older than the target.
        let unnamed = newest.quarantined_total.saturating_sub(newest.quarantined.len() as u64);
        let unnamed = if odd.len() == newest.quarantined.len() { unnamed } else { 0 };
        waiting.push(Group {
            of: agent.to_string(),
            lines: lines.collect(),
            more: odd.len().saturating_sub(LINES) as u64 + unnamed,
            held: false,
            rests: true,
            next: Some("it goes on when what is written there is mended".to_owned()),
        });
    }
    waiting
}

/// What is said of the agent's units beside what is behind, by who of those that work on each has seen most.
fn remarks(agent: &Namespace, instances: &[&Report], epoch: Epoch, standing: &mut Standing) {
    let mut best: BTreeMap<&String, (&Report, &UnitStatus)> = BTreeMap::new();
    let here = instances.iter().filter(|report| report.epoch == epoch);
    for (report, (name, unit)) in here.flat_map(|&report| report.units.iter().map(move |unit| (report, unit)))
    {
        let known = best.get(name).is_some_and(|(by, _)| (by.seen, by.at) >= (report.seen, report.at));
        if !unit.elsewhere && !known {
            best.insert(name, (report, unit));
        }
    }
    for (name, (_, unit)) in best {
        standing.left_out += unit.left_out_total.max(unit.left_out.len() as u64);
        standing.failing.extend(unit.failing.iter().map(|why| format!("{agent}/{name}: {why}")));
    }
}

/// Why the unit is not done, as the best of those says that work on it; `None`: it is.
fn unit_waits(
    agent: &Namespace,
    name: &str,
    instances: &[&Report],
    epoch: Epoch,
    target: Revision,
) -> Option<Group> {
    let of = format!("{agent}/{name}");
    let said = instances.iter().filter_map(|&report| Some((report, report.units.get(name)?)));
    let all: Vec<(&Report, &UnitStatus)> = said.collect();
    let mut at_work: Vec<_> = all.iter().filter(|(_, unit)| !unit.elsewhere).collect();
    at_work.sort_by_key(|(report, _)| std::cmp::Reverse((report.epoch == epoch, report.seen)));
    let mut first = None;
    for (report, unit) in at_work {
        let waits = match lags(report, epoch, target) {
            Some(line) => Some(Group::one(&of, line)),
            None => behind(&of, unit, target),
        };
        // The first has seen most: what it says is shown.
        first = Some(first.unwrap_or(waits?));
    }
    let nobody = || {
        let who = all.first().map_or("an instance", |(report, _)| report.instance.as_str());
        Group::one(&of, format!("{who} waits for the claim of an instance that is silent"))
    };
    Some(first.unwrap_or_else(nobody))
}

fn behind(of: &str, unit: &UnitStatus, target: Revision) -> Option<Group> {
    let named: Vec<_> = unit.behind.iter().filter(|b| b.since <= target).collect();
    if named.is_empty() {
        return None;
    }
    let line = |b: &&Behind| format!("{} since revision {}: {}", b.key, b.since, unit.why(b));
    // Only the oldest are reported one by one; of the others, some may be older than the target.
    let unnamed = unit.behind_total.saturating_sub(unit.behind.len() as u64);
    let unnamed = if named.len() == unit.behind.len() { unnamed } else { 0 };
    Some(Group {
        of: of.to_owned(),
        lines: named.iter().take(LINES).map(line).collect(),
        more: named.len().saturating_sub(LINES) as u64 + unnamed,
        held: unit.held.is_some() || named.iter().all(|b| b.why.starts_with(HELD)),
        rests: rests(unit, &named, unnamed),
        next: next(of, unit, &named),
    })
}

/// Whether nothing of what is behind goes on without a person. Of what is not named only how much of it is held is known.
fn rests(unit: &UnitStatus, named: &[&Behind], unnamed: u64) -> bool {
    let asked = |why: &str| unit.held.as_ref().is_some_and(|hold| hold.why == why);
    let waits = |b: &&Behind| b.why.starts_with(HELD) || b.why.starts_with(BLOCKED) || asked(&b.why);
    let known = unnamed == 0 || unit.held_total >= unit.behind_total;
    known && unit.failing.is_none() && named.iter().all(waits)
}

/// What a person does about it.
fn next(of: &str, unit: &UnitStatus, named: &[&Behind]) -> Option<String> {
    if unit.held.is_some() {
        return Some(format!("look with `shoal approve {of} --plan`"));
    }
    if !unit.clashes.is_empty() {
        return Some(format!("look with `shoal adopt {of} --plan`"));
    }
    let paused = named.iter().any(|b| b.why.starts_with(PAUSED));
    paused.then(|| "`shoal resume` ends a pause; `shoal get pauses` lists them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;
    const LIVE: &str = "2030-01-01T00:00:00Z";
    const DEAD: &str = "2020-01-01T00:00:00Z";

    fn report(agent: &str, seen: u64, expires: &str, units: Value) -> Report {
        let (agent, instance) = agent.split_once(' ').unwrap_or((agent, "i"));
        let expires = if expires.is_empty() { Value::Null } else { json!(expires) };
        serde_json::from_value(json!({
            "agent": agent, "instance": instance, "epoch": 1, "seen": seen, "at": "2026-01-01T00:00:00Z",
            "expires": expires, "units": units, "quarantined": []
        }))
        .unwrap()
    }

    /// A unit `a` that is behind since a revision.
    fn behind(since: u64) -> Value {
        let item = json!({"key": "k", "since": since, "why": "slow"});
        json!({"a": {"items": 1, "behind": [item], "behind_total": 1}})
    }

    fn converged() -> Value {
        json!({"a": {"items": 1, "behind": [], "behind_total": 0}})
    }

    fn elsewhere() -> Value {
        json!({"a": {"items": 0, "behind": [], "behind_total": 0, "elsewhere": true}})
    }

    fn stands(reports: &[Report], target: u64, asked: &[&str]) -> Standing {
        let asked: Vec<Namespace> = asked.iter().map(|a| a.parse().unwrap()).collect();
        standing(reports, Epoch(1), Revision(target), &asked, Timestamp::from_second(NOW).unwrap())
    }

    fn why(reports: &[Report], target: u64) -> String {
        said(&stands(reports, target, &[]))
    }

    fn said(standing: &Standing) -> String {
        let lines = |g: &Group| format!("{}: {} +{}", g.of, g.lines.join("; "), g.more);
        standing.waiting.iter().map(lines).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn seen_and_not_behind_is_done() {
        assert_eq!(why(&[report("dns", 5, LIVE, converged())], 5), "");
        assert_eq!(why(&[report("dns", 4, LIVE, converged())], 5), "dns: i has seen revision 4 only +0");
        // What became due after the target is not its business.
        assert_eq!(why(&[report("dns", 9, LIVE, behind(6))], 5), "");
        assert_eq!(why(&[report("dns", 9, LIVE, behind(5))], 5), "dns/a: k since revision 5: slow +0");
        let mut odd = report("dns", 9, LIVE, converged());
        odd.quarantined = (1..=9)
            .map(|n| json!({"what": format!("dns/x: web{n}"), "why": "bad", "since": n}))
            .map(|q| serde_json::from_value(q).unwrap())
            .collect();
        odd.quarantined_total = 250;
        let some = why(&[odd.clone()], 2);
        assert!(some.contains("dns/x: web2 is quarantined since revision 2: bad"), "{some}");
        assert!(!some.contains("web3") && some.ends_with("+0"), "{some}");
        // All that are named are older than the target: so may be the 241 that are not.
        assert!(why(&[odd], 9).ends_with("+245"));
    }

    #[test]
    fn instances_of_one_agent_are_one() {
        let (first, second) = ("dns one", "dns two");
        // One lags, or is behind with what the other has done: the unit is done.
        for other in [
            report(second, 3, LIVE, elsewhere()),
            report(second, 4, LIVE, behind(4)),
            report(second, 5, LIVE, behind(4)),
            report(second, 5, LIVE, elsewhere()),
        ] {
            assert_eq!(why(&[report(first, 5, LIVE, converged()), other.clone()], 5), "");
            assert_eq!(why(&[other, report(first, 5, LIVE, converged())], 5), "");
        }
        // Nobody says that it is done: what the one says that has seen most.
        let both = [report(first, 4, LIVE, behind(2)), report(second, 5, LIVE, behind(3))];
        assert_eq!(why(&both, 5), "dns/a: k since revision 3: slow +0");
        // The one that works on it has not come so far; the other only says that it is not his.
        let lags = [report(first, 4, LIVE, converged()), report(second, 5, LIVE, elsewhere())];
        assert_eq!(why(&lags, 5), "dns/a: one has seen revision 4 only +0");
    }

    #[test]
    fn who_has_no_unit_may_get_one_by_what_it_has_not_seen() {
        let first = report("vm one", 5, LIVE, converged());
        let second = |seen, expires| report("vm two", seen, expires, json!({}));
        for all in [[first.clone(), second(4, LIVE)], [second(4, LIVE), first.clone()]] {
            assert_eq!(why(&all, 5), "vm: two has seen revision 4 only +0");
        }
        assert_eq!(why(&[first.clone(), second(5, LIVE)], 5), "");
        assert_eq!(why(&[first, second(4, "")], 5), "", "it ended");
    }

    #[test]
    fn who_follows_another_life_of_the_database_says_nothing_of_this_one() {
        let mut old = report("dns one", 9, LIVE, converged());
        old.epoch = Epoch(7);
        assert_eq!(why(&[old.clone()], 5), "dns: one does not follow the restored database yet +0");
        // Nor does it speak for a unit that it works on, whoever else has come so far.
        let other = report("dns two", 5, LIVE, elsewhere());
        assert_eq!(why(&[old.clone(), other], 5), "dns/a: one does not follow the restored database yet +0");
        assert_eq!(why(&[old, report("dns two", 5, LIVE, converged())], 5), "");
    }

    #[test]
    fn a_unit_that_nobody_works_on_is_not_done() {
        let second = report("dns two", 5, LIVE, elsewhere());
        for first in [report("dns one", 5, DEAD, converged()), report("dns one", 5, "", converged())] {
            let said = why(&[first, second.clone()], 5);
            assert_eq!(said, "dns/a: two waits for the claim of an instance that is silent +0");
        }
    }

    #[test]
    fn the_dead_and_the_ended_are_not_waited_for() {
        let all = [
            report("dns", 5, LIVE, converged()),
            report("lb", 1, DEAD, json!({})),
            report("vm", 1, "", json!({})),
        ];
        let done = stands(&all, 5, &[]);
        assert_eq!(said(&done), "");
        assert_eq!(done.dead, ["lb (i): dead since 2026-01-01T00:00:00Z; not waited for"]);
        assert_eq!(stands(&all, 6, &[]).dead.len(), 1);
        assert!(said(&stands(&all, 5, &["vm"])).contains("vm: no instance of it runs"));
        assert!(said(&stands(&[], 5, &[])).contains("no agent runs"));
    }

    #[test]
    fn who_stopped_is_past_and_who_died_is_named_until_others_have_what_it_had() {
        let stopped = report("dns one", 5, "2026-01-01T00:00:00Z", behind(5));
        assert_eq!(stands(&[stopped.clone(), report("dns two", 5, LIVE, converged())], 5, &[]).dead, [""; 0]);
        assert!(why(&[stopped], 5).contains("no agent runs"));
        let died = report("dns one", 5, DEAD, behind(5));
        for (units, named) in [(converged(), 0), (elsewhere(), 1), (json!({}), 1)] {
            let stands = stands(&[died.clone(), report("dns two", 5, LIVE, units)], 5, &[]);
            assert_eq!(stands.dead.len(), named, "{stands:?}");
        }
    }

    #[test]
    fn a_unit_with_many_behind_takes_a_few_lines() {
        let items: Vec<Value> =
            (0..100).map(|n| json!({"key": format!("k{n}"), "since": 1, "why": "slow"})).collect();
        let unit = json!({"a": {"items": 5000, "behind": items, "behind_total": 5000}});
        let stands = stands(&[report("dns", 5, LIVE, unit)], 5, &[]);
        assert_eq!((stands.waiting[0].lines.len(), stands.waiting[0].more), (LINES, 4995));
    }

    #[test]
    fn what_only_a_person_can_solve_is_held() {
        let item = json!({"key": "k", "since": 1, "why": "held: paused: host/web1: disk"});
        let paused = json!({"a": {"items": 1, "behind": [item], "behind_total": 1}});
        assert!(stands(&[report("dns", 5, LIVE, paused)], 5, &[]).waiting[0].held);

        let unit = json!({"a": {
            "items": 1, "behind": [{"key": "k", "since": 1, "why": "guard"}], "behind_total": 1,
            "held": {"digest": "d", "why": "too much", "create": 0, "update": 0, "remove": 9, "of": 9, "sample": []}
        }});
        assert!(stands(&[report("dns", 5, LIVE, unit)], 5, &[]).waiting[0].held);
        assert!(!stands(&[report("dns", 5, LIVE, behind(1))], 5, &[]).waiting[0].held);
    }

    /// A unit with these reasons, of which so many are held in all.
    fn waits(whys: &[&str], held_total: u64) -> Value {
        let item = |why: &&str| json!({"key": "k", "since": 1, "why": why});
        let items: Vec<Value> = whys.iter().map(item).collect();
        json!({"a": {"items": 9, "behind": items, "behind_total": items.len(), "held_total": held_total}})
    }

    #[test]
    fn what_goes_on_by_itself_does_not_rest() {
        let rests = |units: Value| stands(&[report("dns", 5, LIVE, units)], 5, &[]).rests();
        assert!(rests(waits(&["held: paused: host/web1", "blocked: dns/a cannot be understood"], 1)));
        for other in
            ["", "waiting: 3 connections", "failed: timeout", "not looked at yet", "cannot be seen: gone"]
        {
            assert!(!rests(waits(&["held: paused: host/web1", other], 1)), "{other}");
        }
        assert!(!rests(converged()), "it is done");
        let mut failing = waits(&["held: paused: host/web1"], 1);
        failing["a"]["failing"] = json!("no answer");
        assert!(!rests(failing));
        // Of those that are not named it has to be known.
        let mut many = waits(&["held: guard: too much"], 3);
        many["a"]["behind_total"] = json!(3);
        assert!(rests(many.clone()));
        many["a"]["behind_total"] = json!(4);
        assert!(!rests(many));
        // Nothing is to be changed, and it is asked about all the same.
        let hold = json!({"digest": "d", "why": "elsewhere", "create": 0, "update": 0, "remove": 0, "of": 9, "sample": []});
        let mut asked = waits(&["elsewhere"], 0);
        asked["a"]["held"] = hold;
        assert!(rests(asked));
        let mut odd = report("dns", 5, LIVE, converged());
        odd.quarantined =
            vec![serde_json::from_value(json!({"what": "x", "why": "bad", "since": 1})).unwrap()];
        assert!(stands(&[odd.clone()], 5, &[]).rests());
        assert!(!stands(&[odd, report("lb", 4, LIVE, converged())], 5, &[]).rests(), "another one lags");
    }

    #[test]
    fn what_a_person_does_next_is_said() {
        let next = |units: Value| stands(&[report("dns", 5, LIVE, units)], 5, &[]).waiting.remove(0).next;
        assert!(next(waits(&["held: paused: host/web1"], 1)).unwrap().contains("`shoal resume`"));
        let clash = json!([{"key": "k", "there": 1, "wanted": 2, "digest": "d"}]);
        let mut adopts = waits(&["held: k is there already"], 1);
        adopts["a"]["clashes"] = clash;
        assert_eq!(next(adopts).unwrap(), "look with `shoal adopt dns/a --plan`");
        assert_eq!(next(behind(1)), None);
    }

    #[test]
    fn what_holds_nothing_up_is_told() {
        let out = json!([{"key": "k", "who": ["dns/a: web1"], "why": "bad address"}]);
        let unit = |seen: u64| {
            json!({"a": {
                "items": 1, "behind": [], "behind_total": 0, "left_out": out, "left_out_total": seen, "failing": "gone"
            }})
        };
        let all = [
            report("dns one", 5, LIVE, unit(3)),
            report("dns two", 4, LIVE, unit(7)),
            report("dns three", 6, LIVE, elsewhere()),
            report("lb", 5, LIVE, converged()),
        ];
        let done = stands(&all, 5, &[]);
        assert_eq!(said(&done), "");
        assert_eq!((done.left_out, done.failing), (3, vec!["dns/a: gone".to_owned()]));
    }
}
