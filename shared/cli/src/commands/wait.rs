//! `shoal wait`: until every running agent has done what the database says, or who has not and why.
//!
//! Agents answer a commit with others: what is requested is placed, made, and known by name then. So where no revision is asked
//! for, it is waited until all have done the newest one and left nothing else behind: the newest revision is read after the reports, and is
//! still the same. Who has seen it, and is not behind, has nothing more to commit for it.
//!
//! Reports change without a commit and no store announces them, so they are read again after 25 ms at first and 200 ms
//! at most; each read costs some ten microseconds. [`standing`] says what they come to.
//!
//! What waits for a person is not waited for to the end of the time: where all that is left is held or cannot be understood, of whichever agent, and
//! that is the same in each look for three seconds in which nothing was committed, it is told then.

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
/// How long nothing must have been committed for `--settle`.
const CALM: Duration = Duration::from_millis(750);
/// For how long, and in how many looks, what waits for a person has to be the same: agents that have just begun, or answer a commit, may say
/// something else next.
const SAME: (Duration, u32) = (Duration::from_secs(3), 5);
/// How many units, and how many instances that died, are named.
const GROUPS: usize = 20;
/// How many letters of a reason are shown while it is waited.
const GLANCE: usize = 100;

#[derive(Serialize)]
struct Done {
    revision: Revision,
    agents: BTreeSet<Namespace>,
    /// Instances that died, and were not waited for.
    dead: Vec<String>,
    /// How much was left out of items, which hold nothing up.
    left_out: u64,
    /// Units that are done as far as anybody knows, and cannot be looked at.
    failing: Vec<String>,
}

/// For how long what is left has been the same, and waits for a person.
#[derive(Default)]
struct Resting {
    /// The newest revision then, and what is left.
    what: Option<(Revision, Vec<Group>)>,
    since: Option<Instant>,
    looks: u32,
}

impl Resting {
    /// Takes a look; whether this is how it stays.
    fn look(&mut self, newest: Revision, standing: &Standing) -> bool {
        let now = Instant::now();
        let same = |(at, left): &(Revision, Vec<Group>)| *at == newest && *left == standing.waiting;
        if !self.what.as_ref().is_some_and(same) {
            *self = Self { what: Some((newest, standing.waiting.clone())), since: Some(now), looks: 0 };
        }
        self.looks += 1;
        self.looks >= SAME.1 && self.since.is_some_and(|since| now.duration_since(since) >= SAME.0)
    }
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
    let follows = args.settle || args.revision.is_none();
    let (mut pause, mut calm_since) = (PAUSES.0, Instant::now());
    let mut resting = Resting::default();
    loop {
        let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
        let now = (session.env.now)();
        let standing = standing(&reports, head.epoch, target, &args.agents, now);
        let (looked, is_done) = (target, standing.waiting.is_empty());
        let mut rests = standing.rests();
        if (is_done && follows) || rests {
            let newest = session.store.head().await.map_err(Failure::reading("the database"))?.revision;
            // What others have still to do may be what lets these go on, and so may what was committed after the target.
            rests = rests && shoal_core::standing(&reports, head.epoch, newest, &[], now).rests();
            if follows && newest > target {
                (target, calm_since, pause) = (newest, Instant::now(), PAUSES.0);
            } else if rests && resting.look(newest, &standing) {
                return Err(left(looked, None, &standing));
            }
        }
        if !rests {
            resting = Resting::default();
        }
        if is_done && looked == target && (!args.settle || calm_since.elapsed() >= CALM) {
            return done(session, target, standing);
        }
        session.out.say(|| meanwhile(target, &standing));
        if Instant::now() >= deadline {
            return Err(left(looked, Some(args.timeout), &standing));
        }
        tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// What is said on a terminal while it is waited: how much, and the first reason.
fn meanwhile(target: Revision, standing: &Standing) -> String {
    let units = standing.waiting.len();
    let s = if units == 1 { "" } else { "s" };
    let first = standing.waiting.first().and_then(|group| Some((&group.of, group.lines.first()?)));
    let first = first.map(|(of, line)| format!(": {of}: {line}")).unwrap_or_default();
    let cut = if first.chars().count() > GLANCE { "…" } else { "" };
    let first: String = first.chars().take(GLANCE).collect();
    format!("waiting for revision {target}: {units} unit{s}{first}{cut}")
}

fn done(session: &mut Session, revision: Revision, standing: Standing) -> Outcome {
    let Standing { agents, dead: died, left_out, failing: unseen, .. } = standing;
    let done = Done { revision, agents, dead: died, left_out, failing: unseen };
    session.out.print(&done, |_| {
        let names: Vec<&str> = done.agents.iter().map(Namespace::as_str).collect();
        let beside = match done.left_out {
            0 => String::new(),
            some => format!("; {some} left out, see `shoal status`"),
        };
        let mut text = format!("revision {revision} is done: {}{beside}\n", names.join(", "));
        failing(done.failing.iter(), "", &mut text);
        dead(&done.dead, "", &mut text);
        text
    })
}

/// Why it is not done: `after` so long, or what a person has to do before it can be.
fn left(target: Revision, after: Option<Duration>, standing: &Standing) -> Failure {
    let waiting = &standing.waiting;
    if waiting.is_empty() {
        let why = format!(
            "revision {target} is done, but new ones keep coming; see `shoal log`, or wait for one alone by --revision"
        );
        return Failure::Waiting(why);
    }
    let mut text = match after {
        Some(after) => format!("revision {target} is not done after {} s:\n", after.as_secs_f32()),
        None => format!("revision {target} is not done, and what is left waits for a person:\n"),
    };
    for Group { of, lines, more, next, .. } in waiting.iter().take(GROUPS) {
        text.push_str(&format!("  {of}:\n"));
        lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        if *more > 0 {
            text.push_str(&format!("    and {more} more; see `shoal status -v`\n"));
        }
        if let Some(next) = next {
            text.push_str(&format!("    {next}\n"));
        }
    }
    if waiting.len() > GROUPS {
        text.push_str(&format!("  and {} more units: `shoal status` shows all\n", waiting.len() - GROUPS));
    }
    // Of the others it is said with what is behind.
    let named = |line: &&String| waiting.iter().any(|group| line.starts_with(&format!("{}: ", group.of)));
    failing(standing.failing.iter().filter(|line| !named(line)), "  ", &mut text);
    dead(&standing.dead, "  ", &mut text);
    text.truncate(text.trim_end().len());
    let held = waiting.iter().all(|group| group.held);
    if held { Failure::Held(text) } else { Failure::Waiting(text) }
}

/// Units of which nobody knows whether they are as they were made.
fn failing<'l>(lines: impl Iterator<Item = &'l String>, indent: &str, text: &mut String) {
    let lines: Vec<&String> = lines.collect();
    for line in lines.iter().take(GROUPS) {
        text.push_str(&format!(
            "{indent}note: the last look failed, so what was made may not stand any more: {line}\n"
        ));
    }
    if lines.len() > GROUPS {
        text.push_str(&format!("{indent}and {} more that fail\n", lines.len() - GROUPS));
    }
}

fn dead(dead: &[String], indent: &str, text: &mut String) {
    dead.iter().take(GROUPS).for_each(|line| text.push_str(&format!("{indent}{line}\n")));
    if dead.len() > GROUPS {
        text.push_str(&format!("{indent}and {} more that died\n", dead.len() - GROUPS));
    }
}
