//! `shoal wait`: until every running agent has done what the database says, or who has not and why.
//!
//! An agent has done revision N when its instance has seen N and nothing of its units is behind, and no tag or host
//! quarantined, since N or earlier. What rests on schedule is not behind; an instance that ended on purpose is not waited
//! for; one that died is not either, but is named. Reports change without a commit and no store announces them, so they
//! are read again after 25 ms at first and 200 ms at most; each read costs some ten microseconds.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use shoal_core::{Namespace, Revision, Status as Report};
use tokio::time::Instant;

use super::status::Life;
use crate::args::Wait;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(200));
/// How long nothing must have been committed for `--settle`: longer than an agent takes to answer a commit with one.
const CALM: Duration = Duration::from_millis(750);
/// How agents begin what waits for a person: a pause, a clash, a guard.
const HELD: &str = "held:";
/// How many reasons are named.
const SHOWN: usize = 20;

#[derive(Serialize)]
struct Done {
    revision: Revision,
    agents: BTreeSet<Namespace>,
}

/// How far it is.
#[derive(Debug, PartialEq)]
enum Standing {
    Done(BTreeSet<Namespace>),
    /// Why not, one line each; whether only people can help.
    Waiting {
        why: Vec<String>,
        held: bool,
    },
}

pub(crate) async fn run(session: &mut Session, args: Wait) -> Outcome {
    let deadline = Instant::now() + args.timeout;
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let mut target = args.revision.map_or(head.revision, Revision);
    if target > head.revision {
        return Err(Failure::Missing(format!(
            "revision {target} does not exist: the newest is {}",
            head.revision
        )));
    }
    let (mut pause, mut calm_since) = (PAUSES.0, Instant::now());
    loop {
        let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
        let standing = standing(&reports, target, &args.agents, (session.env.now)());
        if args.settle {
            let head = session.store.head().await.map_err(Failure::reading("the database"))?;
            if head.revision > target {
                (target, calm_since) = (head.revision, Instant::now());
                continue;
            }
        }
        match standing {
            Standing::Done(agents) if !args.settle || calm_since.elapsed() >= CALM => {
                return session.out.print(&Done { revision: target, agents: agents.clone() }, |_| {
                    let names: Vec<&str> = agents.iter().map(Namespace::as_str).collect();
                    format!("revision {target} is done: {}\n", names.join(", "))
                });
            }
            Standing::Done(_) if Instant::now() >= deadline => {
                let why = format!("revision {target} is done, but new ones keep coming; see `shoal log`");
                return Err(Failure::Waiting(why));
            }
            Standing::Done(_) => {}
            Standing::Waiting { why, held } if Instant::now() >= deadline => {
                return Err(late(target, args.timeout, &why, held));
            }
            Standing::Waiting { .. } => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn late(target: Revision, timeout: Duration, why: &[String], held: bool) -> Failure {
    let mut text = format!("revision {target} is not done after {} s:", timeout.as_secs_f32());
    for line in why.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if why.len() > SHOWN {
        text.push_str(&format!("\n  and {} more: `shoal status` shows all", why.len() - SHOWN));
    }
    if held { Failure::Held(text) } else { Failure::Waiting(text) }
}

fn standing(reports: &[Report], target: Revision, asked: &[Namespace], now: Timestamp) -> Standing {
    let wanted = |report: &&Report| asked.is_empty() || asked.contains(&report.agent);
    let (mut why, mut agents, mut only_held) = (Vec::new(), BTreeSet::new(), true);
    for report in reports.iter().filter(wanted).filter(|r| Life::of(r, now) == Life::Live) {
        agents.insert(report.agent.clone());
        let mut reasons = behind(report, target);
        reasons.extend(orphans(report, reports, now));
        only_held &= reasons.iter().all(|(_, held)| *held);
        why.extend(reasons.into_iter().map(|(text, _)| text));
    }
    for agent in asked.iter().filter(|a| !agents.contains(*a)) {
        only_held = false;
        why.push(format!("{agent}: no instance of it runs"));
    }
    if agents.is_empty() && asked.is_empty() {
        only_held = false;
        why.push("no agent runs: start one, or see `shoal status` for what became of it".to_owned());
    }
    if why.is_empty() {
        return Standing::Done(agents);
    }
    let dead = reports.iter().filter(wanted).filter(|r| Life::of(r, now) == Life::Dead);
    why.extend(dead.map(|r| format!("{} ({}): dead since {}; not waited for", r.agent, r.instance, r.at)));
    Standing::Waiting { why, held: only_held }
}

/// Units of which this instance says only that another works on them, and no other that runs says so.
fn orphans(report: &Report, all: &[Report], now: Timestamp) -> Vec<(String, bool)> {
    let others = || all.iter().filter(|r| r.agent == report.agent && Life::of(r, now) == Life::Live);
    let tended = |name: &String| others().any(|r| r.units.get(name).is_some_and(|unit| !unit.elsewhere));
    let lost = |name: &String| {
        let who = &report.instance;
        (format!("{}/{name}: {who} waits for the claim of an instance that is silent", report.agent), false)
    };
    report.units.iter().filter(|(name, u)| u.elsewhere && !tended(name)).map(|(name, _)| lost(name)).collect()
}

/// Why this instance has not done `target`; with each reason, whether it waits for a person.
fn behind(report: &Report, target: Revision) -> Vec<(String, bool)> {
    let mut why = Vec::new();
    let agent = &report.agent;
    if report.seen < target {
        why.push((format!("{agent} ({}): has seen revision {} only", report.instance, report.seen), false));
    }
    for (name, unit) in &report.units {
        let mut named = 0;
        for item in unit.behind.iter().filter(|b| b.since <= target) {
            named += 1;
            let held = unit.held.is_some() || item.why.starts_with(HELD);
            why.push((
                format!("{agent}/{name}: {} since revision {}: {}", item.key, item.since, item.why),
                held,
            ));
        }
        // Only the oldest are reported one by one; of the others, some may be older than the target.
        let unnamed = unit.behind_total.saturating_sub(unit.behind.len() as u64);
        if unnamed > 0 && named == unit.behind.len() && named > 0 {
            why.push((format!("{agent}/{name}: and {unnamed} more items"), unit.held.is_some()));
        }
    }
    for bad in report.quarantined.iter().filter(|q| q.since <= target) {
        why.push((
            format!("{agent}: {} is quarantined since revision {}: {}", bad.what, bad.since, bad.why),
            false,
        ));
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;

    fn report(agent: &str, seen: u64, expires: Value, units: Value, quarantined: Value) -> Report {
        serde_json::from_value(json!({
            "agent": agent, "instance": "i", "epoch": 1, "seen": seen, "at": "2026-01-01T00:00:00Z",
            "expires": expires, "units": units, "quarantined": quarantined
        }))
        .unwrap()
    }

    fn stands(reports: &[Report], target: u64, asked: &[&str]) -> Standing {
        let asked: Vec<Namespace> = asked.iter().map(|a| a.parse().unwrap()).collect();
        standing(reports, Revision(target), &asked, Timestamp::from_second(NOW).unwrap())
    }

    fn why(standing: &Standing) -> String {
        match standing {
            Standing::Done(_) => "done".to_owned(),
            Standing::Waiting { why, .. } => why.join("\n"),
        }
    }

    #[test]
    fn seen_and_not_behind_is_done() {
        let live = json!("2030-01-01T00:00:00Z");
        let behind = |since: u64| json!({"a": {"items": 1, "behind": [{"key": "k", "since": since, "why": "slow"}], "behind_total": 1}});
        assert_eq!(why(&stands(&[report("dns", 5, live.clone(), json!({}), json!([]))], 5, &[])), "done");
        let unseen = stands(&[report("dns", 4, live.clone(), json!({}), json!([]))], 5, &[]);
        assert!(why(&unseen).contains("has seen revision 4 only"));
        // What became due after the target is not its business.
        assert_eq!(why(&stands(&[report("dns", 9, live.clone(), behind(6), json!([]))], 5, &[])), "done");
        let slow = stands(&[report("dns", 9, live.clone(), behind(5), json!([]))], 5, &[]);
        assert!(why(&slow).contains("dns/a: k since revision 5: slow"));
        let odd = json!([{"what": "dns/x: web1", "why": "bad address", "since": 2}]);
        let quarantined = stands(&[report("dns", 9, live, json!({}), odd)], 5, &[]);
        assert!(why(&quarantined).contains("dns/x: web1 is quarantined since revision 2: bad address"));
    }

    #[test]
    fn the_dead_and_the_ended_are_not_waited_for() {
        let (live, dead) = (json!("2030-01-01T00:00:00Z"), json!("2020-01-01T00:00:00Z"));
        let all = [
            report("dns", 5, live, json!({}), json!([])),
            report("lb", 1, dead, json!({}), json!([])),
            report("vm", 1, Value::Null, json!({}), json!([])),
        ];
        assert_eq!(why(&stands(&all, 5, &[])), "done");
        let late = why(&stands(&all, 6, &[]));
        assert!(late.contains("lb (i): dead since"), "{late}");
        assert!(why(&stands(&all, 5, &["vm"])).contains("vm: no instance"));
        assert!(why(&stands(&[], 5, &[])).contains("no agent runs"));
    }

    #[test]
    fn a_unit_that_another_instance_works_on_is_its_business() {
        let live = || json!("2030-01-01T00:00:00Z");
        let unit =
            |elsewhere| json!({"a": {"items": 0, "behind": [], "behind_total": 0, "elsewhere": elsewhere}});
        let second = report("dns", 5, live(), unit(true), json!([]));
        let all = [report("dns", 5, live(), unit(false), json!([])), second.clone()];
        assert_eq!(why(&stands(&all, 5, &[])), "done");
        // Its holder has died, or ended: nobody knows how it stands.
        let dead = report("dns", 5, json!("2020-01-01T00:00:00Z"), unit(false), json!([]));
        assert!(why(&stands(&[dead, second.clone()], 5, &[])).contains("dns/a: i waits for the claim"));
        assert!(why(&stands(&[second], 5, &[])).contains("dns/a: i waits for the claim"));
    }

    #[test]
    fn what_only_a_person_can_solve_is_held() {
        let item = json!({"key": "k", "since": 1, "why": "held: paused: host/web1: disk"});
        let paused = json!({"a": {"items": 1, "behind": [item], "behind_total": 1}});
        let paused = stands(&[report("dns", 5, json!("2030-01-01T00:00:00Z"), paused, json!([]))], 5, &[]);
        assert!(matches!(paused, Standing::Waiting { held: true, .. }));

        let unit = json!({"a": {
            "items": 1, "behind": [{"key": "k", "since": 1, "why": "guard"}], "behind_total": 1,
            "held": {"digest": "d", "why": "too much", "create": 0, "update": 0, "remove": 9, "of": 9, "sample": []}
        }});
        let held = stands(&[report("dns", 5, json!("2030-01-01T00:00:00Z"), unit, json!([]))], 5, &[]);
        assert!(matches!(held, Standing::Waiting { held: true, .. }));
    }
}
