//! `shoal wait`: until every running agent has done what the database says, or who has not and why.
//!
//! Reports change without a commit and no store announces them, so they are read again after 25 ms at first and 200 ms
//! at most; each read costs some ten microseconds. [`standing`] says what they come to.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use shoal_core::{Group, Namespace, Revision, Standing, standing};
use tokio::time::Instant;

use crate::args::Wait;
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(200));
/// How long nothing must have been committed for `--settle`: longer than an agent takes to answer a commit with one.
const CALM: Duration = Duration::from_millis(750);
/// How many units, and how many instances that died, are named.
const GROUPS: usize = 20;

#[derive(Serialize)]
struct Done {
    revision: Revision,
    agents: BTreeSet<Namespace>,
    /// Instances that died, and were not waited for.
    dead: Vec<String>,
}

pub(crate) async fn run(session: &mut Session, args: Wait) -> Outcome {
    session.out.begin("waiting for the agents");
    let deadline = Instant::now() + args.timeout;
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let mut target = args.revision.map_or(head.revision, Revision);
    if target > head.revision {
        return Err(Failure::Missing(format!(
            "revision {target} does not exist: the newest is {}; without --revision it is waited for that one",
            head.revision
        )));
    }
    let (mut pause, mut calm_since) = (PAUSES.0, Instant::now());
    loop {
        if args.settle {
            let head = session.store.head().await.map_err(Failure::reading("the database"))?;
            if head.revision > target {
                (target, calm_since) = (head.revision, Instant::now());
            }
        }
        let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
        let standing = standing(&reports, head.epoch, target, &args.agents, (session.env.now)());
        let calm = !args.settle || calm_since.elapsed() >= CALM;
        if standing.waiting.is_empty() && calm {
            return done(session, target, standing);
        }
        session.out.say(|| {
            let units = standing.waiting.len();
            format!("waiting for revision {target}: {units} unit{}", if units == 1 { "" } else { "s" })
        });
        if Instant::now() >= deadline {
            return Err(late(target, args.timeout, &standing));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn done(session: &mut Session, revision: Revision, standing: Standing) -> Outcome {
    let done = Done { revision, agents: standing.agents, dead: standing.dead };
    session.out.print(&done, |_| {
        let names: Vec<&str> = done.agents.iter().map(Namespace::as_str).collect();
        let mut text = format!("revision {revision} is done: {}\n", names.join(", "));
        dead(&done.dead, "", &mut text);
        text
    })
}

fn late(target: Revision, timeout: Duration, standing: &Standing) -> Failure {
    let waiting = &standing.waiting;
    if waiting.is_empty() {
        let why = format!(
            "revision {target} is done, but new ones keep coming; see `shoal log`, or wait without --settle"
        );
        return Failure::Waiting(why);
    }
    let mut text = format!("revision {target} is not done after {} s:\n", timeout.as_secs_f32());
    for Group { of, lines, more, .. } in waiting.iter().take(GROUPS) {
        text.push_str(&format!("  {of}:\n"));
        lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        if *more > 0 {
            text.push_str(&format!("    and {more} more\n"));
        }
    }
    if waiting.len() > GROUPS {
        text.push_str(&format!("  and {} more units: `shoal status` shows all\n", waiting.len() - GROUPS));
    }
    dead(&standing.dead, "  ", &mut text);
    text.truncate(text.trim_end().len());
    let held = waiting.iter().all(|group| group.held);
    if held { Failure::Held(text) } else { Failure::Waiting(text) }
}

fn dead(dead: &[String], indent: &str, text: &mut String) {
    dead.iter().take(GROUPS).for_each(|line| text.push_str(&format!("{indent}{line}\n")));
    if dead.len() > GROUPS {
        text.push_str(&format!("{indent}and {} more that died\n", dead.len() - GROUPS));
    }
}
