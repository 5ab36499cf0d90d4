//! `shoal status`: the agents, and what is not as it should be.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use shoal_core::{Life, Namespace, Revision, Status as Report, UnitStatus};

use crate::args::Status;
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use crate::session::Session;

/// How many lines of one kind are listed for each unit or agent, unless more is asked for.
const SHOWN: usize = 5;

#[derive(Serialize)]
struct Instance {
    life: Life,
    #[serde(flatten)]
    report: Report,
}

pub(crate) async fn run(session: &mut Session, args: Status) -> Outcome {
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let mut reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
    strangers(&args.agents, &reports)?;
    reports.retain(|r| args.agents.is_empty() || args.agents.contains(&r.agent));
    reports.sort_by(|a, b| (&a.agent, &a.instance).cmp(&(&b.agent, &b.instance)));
    let now = (session.env.now)();
    let known =
        |report: &Report| Instance { life: Life::of(report, now), report: taken_over(report, &reports, now) };
    let all: Vec<Instance> = reports.iter().map(known).collect();
    session.out.print(&all, |out| {
        // Who ended has the last word where nobody of the same name runs.
        let runs = |agent: &Namespace| all.iter().any(|i| i.life == Life::Live && i.report.agent == *agent);
        let past = |one: &Instance| !args.verbose && runs(&one.report.agent);
        let rows = all.iter().filter(|one| one.life != Life::Stopped || !past(one));
        let text = table(out, head.revision, rows, now, args.verbose);
        let most = if args.verbose { usize::MAX } else { SHOWN };
        let tells = |one: &&Instance| !matches!(one.life, Life::Ended | Life::Stopped) || !past(one);
        all.iter().filter(tells).fold(text, |text, one| text + &details(&one.report, most))
    })
}

/// Refuses a name under which nobody reported: an empty table looks like peace.
fn strangers(asked: &[Namespace], reports: &[Report]) -> Outcome {
    let Some(stranger) = asked.iter().find(|asked| reports.iter().all(|report| report.agent != **asked))
    else {
        return Ok(());
    };
    let known: BTreeSet<&str> = reports.iter().map(|report| report.agent.as_str()).collect();
    let known: Vec<&str> = known.into_iter().collect();
    let have =
        if known.is_empty() { "nobody has".to_owned() } else { format!("these have: {}", known.join(", ")) };
    Err(Failure::Missing(format!("no agent {stranger} has reported; {have}")))
}

/// The report; of one that died, without what it said of units that a living instance works on by now.
fn taken_over(report: &Report, all: &[Report], now: Timestamp) -> Report {
    let mut report = report.clone();
    if Life::of(&report, now) == Life::Dead {
        let live: Vec<_> =
            all.iter().filter(|r| r.agent == report.agent && Life::of(r, now) == Life::Live).collect();
        report.units.retain(|name, _| !live.iter().any(|report| report.works_on(name)));
        if !live.is_empty() {
            (report.quarantined, report.quarantined_total) = (Vec::new(), 0);
        }
    }
    report
}

/// The instances; with `whole`, each by its whole name.
fn table<'i>(
    out: &Out,
    head: Revision,
    all: impl Iterator<Item = &'i Instance>,
    now: Timestamp,
    whole: bool,
) -> String {
    let rows = all.map(|Instance { life, report }| {
        let sum = |of: fn(&UnitStatus) -> u64| report.units.values().map(of).sum::<u64>().to_string();
        vec![
            report.agent.to_string(),
            if whole { report.instance.clone() } else { short(&report.instance) },
            life.as_str().to_owned(),
            report.seen.to_string(),
            report.units.values().filter(|u| !u.elsewhere).count().to_string(),
            sum(|u| u.items),
            sum(|u| u.behind_total),
            // A batch that the guard stopped is some items at least, whatever an older agent counts.
            some_of(sum(|u| u.held_total.max(u64::from(u.held.is_some())))),
            some_of(sum(|u| u.left_out_total.max(u.left_out.len() as u64))),
            some_of(report.quarantined_total.max(report.quarantined.len() as u64).to_string()),
            ago(report.at, now),
        ]
    });
    let header = [
        "AGENT",
        "INSTANCE",
        "STATE",
        "SEEN",
        "UNITS",
        "ITEMS",
        "BEHIND",
        "HELD",
        "LEFT OUT",
        "QUARANTINED",
        "SAID",
    ];
    let empty = "no agent has reported; start one, such as shoal-dns";
    format!("newest revision: {head}\n{}", out.table(&header, rows.collect(), empty))
}

/// A number, or nothing where there is none: a column of nothing is not shown, and a terminal has little room.
fn some_of(number: String) -> String {
    if number == "0" { String::new() } else { number }
}

/// `web1/01a22251-16ed-74ed-9abe-f53a512e0805` as `web1/…2e0805`: enough to tell instances apart.
fn short(instance: &str) -> String {
    const KEPT: usize = 6;
    match instance.rsplit_once('/') {
        Some((name, id)) if id.len() > 2 * KEPT && id.is_ascii() => {
            format!("{name}/…{}", &id[id.len() - KEPT..])
        }
        _ => instance.to_owned(),
    }
}

/// What one instance has not done, and why; at most so many lines of one kind for each unit.
fn details(report: &Report, most: usize) -> String {
    let mut text = String::new();
    for (name, unit) in &report.units {
        let unit_name = format!("{}/{name}", report.agent);
        if let Some(why) = &unit.failing {
            let _ = writeln!(text, "failing: {unit_name}: {why}");
        }
        if let Some(hold) = &unit.held {
            let _ = writeln!(
                text,
                "held: {unit_name}: {} (would make {}, change {}, remove {} of {}); look with `shoal approve {unit_name} --plan`",
                hold.briefly(),
                hold.create,
                hold.update,
                hold.remove,
                hold.of
            );
        }
        let behind = unit.behind.iter().map(|behind| {
            let hosts: Vec<&str> = behind.hosts.iter().map(|h| h.as_str()).collect();
            let hosts = if hosts.is_empty() { String::new() } else { format!(" ({})", hosts.join(", ")) };
            format!("{}{hosts} since {}: {}", behind.key, behind.since, unit.why(behind))
        });
        some(&mut text, "behind", &unit_name, behind, unit.behind_total, most);
        let left_out = unit.left_out.iter().map(|l| format!("{}: {}: {}", l.key, l.who.join(" + "), l.why));
        some(&mut text, "left out", &unit_name, left_out, unit.left_out_total, most);
    }
    let odd = report.quarantined.iter().map(|bad| format!("{} since {}: {}", bad.what, bad.since, bad.why));
    some(&mut text, "quarantined", report.agent.as_str(), odd, report.quarantined_total, most);
    text
}

/// Some lines of a kind, and how many more there are.
fn some(
    text: &mut String,
    kind: &str,
    of: &str,
    lines: impl ExactSizeIterator<Item = String>,
    total: u64,
    most: usize,
) {
    let (reported, shown) = (lines.len(), lines.len().min(most));
    for line in lines.take(most) {
        let _ = writeln!(text, "{kind}: {of}: {line}");
    }
    let more = total.max(reported as u64) - shown as u64;
    if more > 0 {
        let hint = if reported > shown { "; `shoal status -v` names more" } else { "" };
        let _ = writeln!(text, "{kind}: {of}: and {more} more{hint}");
    }
}

/// How long ago, roughly.
fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds}s ago"),
        120..=7199 => format!("{}m ago", seconds / 60),
        7200..=172_799 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}
