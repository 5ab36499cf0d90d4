//! `shoal status`: the agents, and what is not as it should be.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use shoal_core::{Revision, Status as Report};

use crate::args::Status;
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use crate::session::Session;

/// How many items behind are listed for each unit.
const SHOWN: usize = 5;

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Life {
    /// It said so, and will again.
    Live,
    /// It ended on purpose; this is its last word.
    Ended,
    /// It should have spoken again, and did not.
    Dead,
}

impl Life {
    pub(crate) fn of(report: &Report, now: Timestamp) -> Self {
        match report.expires {
            None => Self::Ended,
            Some(expires) if expires > now => Self::Live,
            Some(_) => Self::Dead,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ended => "ended",
            Self::Dead => "dead",
        }
    }
}

#[derive(Serialize)]
struct Instance<'r> {
    life: Life,
    #[serde(flatten)]
    report: &'r Report,
}

pub(crate) async fn run(session: &mut Session, args: Status) -> Outcome {
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let mut reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
    reports.retain(|r| args.agents.is_empty() || args.agents.contains(&r.agent));
    reports.sort_by(|a, b| (&a.agent, &a.instance).cmp(&(&b.agent, &b.instance)));
    let now = (session.env.now)();
    let all: Vec<Instance<'_>> =
        reports.iter().map(|report| Instance { life: Life::of(report, now), report }).collect();
    session.out.print(&all, |out| text(out, head.revision, &all, now))
}

fn text(out: &Out, head: Revision, all: &[Instance<'_>], now: Timestamp) -> String {
    let rows = all.iter().map(|Instance { life, report }| {
        let units = report.units.values();
        let (items, behind) = units.fold((0, 0), |(i, b), u| (i + u.items, b + u.behind_total));
        // A batch that the guard stopped is some items at least, whatever an older agent counts.
        let held: u64 = report.units.values().map(|u| u.held_total.max(u64::from(u.held.is_some()))).sum();
        vec![
            report.agent.to_string(),
            report.instance.clone(),
            life.as_str().to_owned(),
            report.seen.to_string(),
            report.units.values().filter(|u| !u.elsewhere).count().to_string(),
            items.to_string(),
            behind.to_string(),
            held.to_string(),
            report.quarantined_total.max(report.quarantined.len() as u64).to_string(),
            ago(report.at, now),
        ]
    });
    let header =
        ["AGENT", "INSTANCE", "STATE", "SEEN", "UNITS", "ITEMS", "BEHIND", "HELD", "QUARANTINED", "SAID"];
    let mut text = format!("newest revision: {head}\n");
    text.push_str(&out.table(&header, rows.collect(), "no agent has reported; start one, such as shoal-dns"));
    for Instance { life, report } in all {
        if *life != Life::Ended || report.units.values().any(|u| u.held.is_some()) {
            text.push_str(&details(report));
        }
    }
    text
}

/// What one instance has not done, and why.
fn details(report: &Report) -> String {
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
                hold.why, hold.create, hold.update, hold.remove, hold.of
            );
        }
        for behind in unit.behind.iter().take(SHOWN) {
            let hosts: Vec<&str> = behind.hosts.iter().map(|h| h.as_str()).collect();
            let hosts = if hosts.is_empty() { String::new() } else { format!(" ({})", hosts.join(", ")) };
            let _ = writeln!(
                text,
                "behind: {unit_name}: {}{hosts} since {}: {}",
                behind.key, behind.since, behind.why
            );
        }
        let more = unit.behind_total.saturating_sub(unit.behind.len().min(SHOWN) as u64);
        if more > 0 {
            let _ = writeln!(text, "behind: {unit_name}: and {more} more");
        }
    }
    for bad in &report.quarantined {
        let _ =
            writeln!(text, "quarantined: {}: {} since {}: {}", report.agent, bad.what, bad.since, bad.why);
    }
    text
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
