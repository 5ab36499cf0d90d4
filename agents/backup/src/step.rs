//! What to do next about one item: by the state of its last runs, its schedule and the time.
//!
//! What was begun and is not known to have ended is judged first. Then what is due runs, one thing at a time; what failed is tried again
//! later each time, in its window. What rests on schedule is not behind; what failed, or is older than acceptable, is, and says so.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};
use shoal_agent::{At, Millis, Moment, Step};

use crate::agent::Backup;
use crate::item::{Item, Job, Key, Record, Track};
use crate::schedule::Schedule;

/// Makes a backup.
pub(crate) const BACK_UP: &str = "back-up";
/// Restores some files elsewhere and compares them.
pub(crate) const TEST: &str = "test-restore";
/// Removes from the host what is backed up.
pub(crate) const PURGE: &str = "purge";
/// Removes snapshots and frees their space.
pub(crate) const PRUNE: &str = "prune";
/// Checks a repository.
pub(crate) const CHECK: &str = "check";
/// Finds out what became of a run that was cut off.
pub(crate) const JUDGE: &str = "judge";
/// Writes down as facts what the last runs did.
pub(crate) const NOTE: &str = "note";

/// How soon to look again at what runs, in milliseconds. Its end is told at once.
const POLL: Millis = 10_000;
/// How much later than after the first failure something is tried again at most.
const MOST: Millis = 12;

/// How far ahead another node's clock may be.
const AHEAD: Millis = 600_000;

/// When one thing is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Now,
    At(Moment),
    Never,
}

pub(crate) fn step(retry: Millis, key: &Key, at: &At<'_, Backup>, now: Moment) -> Step {
    let (Some(want), Some(have)) = (at.want, at.have) else { return at.by_default() };
    if have != want {
        return Step::Act { verb: "update", memo: at.memo.clone() };
    }
    let record = &have.record;
    if let Some(running) = &have.running {
        let memo = record.begun.as_ref().map_or(Value::Null, |begun| json!(begun));
        let why: Vec<String> =
            [running.said.clone()].into_iter().chain(stale(want, record, now).err()).collect();
        return Step::Wait { until: Some(now + POLL), why: why.join("; "), memo };
    }
    if record.begun.is_some() {
        return Step::Run { verb: JUDGE, memo: at.memo.clone() };
    }
    if !record.told {
        return Step::Run { verb: NOTE, memo: Value::Null };
    }
    let seed = key.seed();
    let all = match want {
        Item::Backup(job) => {
            let schedule = BTreeSet::from([job.schedule.clone()]);
            let proof = match (&job.test, record.main.good) {
                (Some(test), Some(_)) => by_age(retry, &record.proof, test.every, now),
                _ => Next::Never,
            };
            vec![
                (BACK_UP, &record.main, by_schedule(retry, &record.main, &schedule, seed, now)),
                (TEST, &record.proof, proof),
                (PURGE, &record.purge, purge(retry, job, record, now)),
            ]
        }
        Item::Upkeep(upkeep) => vec![
            (PRUNE, &record.main, by_schedule(retry, &record.main, &upkeep.prune, seed, now)),
            (CHECK, &record.proof, by_schedule(retry, &record.proof, &upkeep.check, seed, now)),
        ],
    };
    if let Some((verb, ..)) = all.iter().find(|(.., next)| *next == Next::Now) {
        return Step::Run { verb, memo: Value::Null };
    }
    let next = all.iter().filter_map(|(.., next)| match next {
        Next::At(at) => Some(*at),
        _ => None,
    });
    let next = next.min();
    let mut faults = Vec::new();
    faults.extend(stale(want, record, now).err());
    faults.extend(all.iter().filter_map(|(verb, track, _)| failure(verb, track)));
    if !faults.is_empty() {
        let again = next.map(|next| format!("; next at {}", time(next))).unwrap_or_default();
        let why = format!("{}{again}", faults.join("; "));
        return Step::Wait { until: next, why, memo: Value::Null };
    }
    let stale_at = stale(want, record, now).ok().flatten();
    Step::Rest { look_again: next.into_iter().chain(stale_at).min() }
}

/// When the last good backup becomes too old; or that it is.
fn stale(want: &Item, record: &Record, now: Moment) -> Result<Option<Moment>, String> {
    let Item::Backup(job) = want else { return Ok(None) };
    let Some(fresh) = job.fresh else { return Ok(None) };
    let good = known(record.main.good, now);
    let since = good.unwrap_or(record.since.min(now));
    if now - since <= fresh {
        return Ok(Some(since + fresh + 1));
    }
    let what = match good {
        Some(good) => format!("the last good backup is of {}", time(good)),
        None => format!("there is no good backup, since {}", time(since)),
    };
    Err(format!("{what}: older than {}", span(fresh)))
}

/// When it was done last. What is said to have been done in time to come was not: some clock was wrong, and would silence for as long.
pub(crate) fn known(done: Option<Moment>, now: Moment) -> Option<Moment> {
    done.filter(|done| *done <= now.saturating_add(AHEAD))
}

fn failure(verb: &str, track: &Track) -> Option<String> {
    let why = track.why.as_deref().filter(|_| track.failures > 0)?;
    Some(match track.failures {
        1 => format!("{verb} failed: {why}"),
        times => format!("{verb} failed {times} times, at last: {why}"),
    })
}

/// When what failed may be tried again.
fn retry_at(retry: Millis, track: &Track, now: Moment) -> Moment {
    match (track.failures, track.ended) {
        (1.., Some(ended)) => {
            let ended = ended.min(now.saturating_add(AHEAD));
            let doubled = retry.saturating_mul(1 << (track.failures - 1).min(20));
            ended.saturating_add(doubled.min(retry.saturating_mul(MOST)))
        }
        _ => Moment::MIN,
    }
}

fn by_schedule(retry: Millis, track: &Track, schedules: &BTreeSet<Schedule>, seed: u64, now: Moment) -> Next {
    let due = |schedule: &&Schedule| {
        let done = known(track.good, now).max(known(track.partial, now));
        schedule.last(seed, now).is_some_and(|slot| done.is_none_or(|done| done < slot))
    };
    let from = now.max(retry_at(retry, track, now));
    let begin = |schedule: &Schedule| match due(&schedule) {
        true => schedule.opens(seed, from),
        false => schedule.next(seed, now),
    };
    match schedules.iter().filter_map(begin).min() {
        None => Next::Never,
        Some(at) if at <= now => Next::Now,
        Some(at) => Next::At(at),
    }
}

/// What is purged is what a good backup has: so once after each.
fn purge(retry: Millis, job: &Job, record: &Record, now: Moment) -> Next {
    let (Some(_), Some(good)) = (&job.purge, known(record.main.good, now)) else { return Next::Never };
    match retry_at(retry, &record.purge, now) {
        _ if known(record.purge.good, now).is_some_and(|purged| purged >= good) => Next::Never,
        at if at <= now => Next::Now,
        at => Next::At(at),
    }
}

fn by_age(retry: Millis, track: &Track, every: Millis, now: Moment) -> Next {
    let due = known(track.good, now).map_or(Moment::MIN, |good| good.saturating_add(every));
    match due.max(retry_at(retry, track, now)) {
        at if at <= now => Next::Now,
        at => Next::At(at),
    }
}

/// A moment, for people.
pub(crate) fn time(at: Moment) -> String {
    let at = Timestamp::from_millisecond(at).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// A span of milliseconds, for people.
pub(crate) fn span(millis: Millis) -> String {
    let seconds = millis / 1_000;
    let parts = [(seconds / 3_600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { format!("{millis}ms") } else { text }
}

#[cfg(test)]
mod tests;
