//! A tag's document, understood: what was written becomes what an item holds, or a reason why it cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use shoal_agent::{Host, Millis, TagName};

use crate::item::{Job, Purge, Test};
use crate::name::Label;
use crate::retention::Keep;
use crate::schedule::Schedule;
use crate::spec::{KeepSpec, PurgeSpec, ScheduleSpec, Spec};

/// When backups are made where nothing is said.
const NIGHTLY: &str = "0 1 * * *";
/// When snapshots are removed where nothing is said.
const NOON: &str = "0 12 * * *";
/// By how much a path may shrink where nothing is said, in percent.
const SHRINK: u8 = 50;
/// How many files are restored as a test where nothing is said.
const SAMPLE: u32 = 20;
/// The shortest time, in milliseconds, for which what was removed stays: what is held is let go of by then, and a purge takes a while.
const LEAST: Millis = 3_600_000;
/// The longest pattern.
const MAX_PATTERN: usize = 1_000;

/// The policy's name: the tag's key.
pub(crate) fn label(tag: &TagName) -> Result<Label, String> {
    tag.key().parse().map_err(|why| format!("a policy's name becomes a mark in the repository, and {why}"))
}

/// The repositories.
pub(crate) fn repositories(spec: &Spec) -> Result<BTreeSet<Label>, String> {
    each(&spec.repositories, "repositories")
}

/// What is backed up of this host in this repository.
pub(crate) fn job(spec: &Spec, host: &Host, repository: &Label) -> Result<Job, String> {
    let paths = each(&spec.paths, "paths")?;
    let mounted = each(&spec.mounted, "mounted")?;
    let mut dumps = BTreeMap::new();
    for (name, of) in &spec.dumps {
        let name = name.parse::<Label>().map_err(|why| format!("dumps: {why}"))?;
        dumps.insert(name, each(of, "dumps")?);
    }
    if paths.is_empty() && dumps.is_empty() {
        return Err("it has neither paths nor dumps: there is nothing to back up".to_owned());
    }
    let bad = |pattern: &&String| {
        pattern.is_empty() || pattern.len() > MAX_PATTERN || pattern.chars().any(char::is_control)
    };
    if let Some(pattern) = spec.excludes.iter().find(bad) {
        return Err(format!("excludes: {pattern:?} is no pattern"));
    }
    let every = spec.verify.restore.as_deref().map(|text| span(text, "verify.restore")).transpose()?;
    let files = spec.verify.sample.unwrap_or(SAMPLE);
    Ok(Job {
        paths,
        excludes: spec.excludes.iter().cloned().collect(),
        mounted,
        one_file_system: spec.one_file_system,
        dumps,
        on: host.text("box").map_or_else(|| host.name.to_string(), |on| on.into_owned()),
        schedule: schedule(&spec.schedule, NIGHTLY)?,
        fresh: spec.fresh.as_deref().map(|text| span(text, "fresh")).transpose()?,
        shrink: spec.shrink.unwrap_or(SHRINK).min(100),
        test: every.map(|every| Test { every, files }),
        purge: purge(spec, repository)?,
    })
}

/// What is purged, once for all repositories: with the first of them.
fn purge(spec: &Spec, repository: &Label) -> Result<Option<Purge>, String> {
    let Some(PurgeSpec { older_than, keep_free, archived }) = &spec.purge else { return Ok(None) };
    let older_than = older_than.as_deref().map(|text| span(text, "purge.older_than")).transpose()?;
    if older_than.is_none() && keep_free.is_none() {
        return Err("purge: it says neither `older_than` nor `keep_free`".to_owned());
    }
    let archived = archived.as_deref().map(|text| span(text, "purge.archived")).transpose()?;
    if archived.is_some_and(|archived| archived < LEAST) {
        return Err("purge.archived: less than an hour: what is removed would be held by nothing".to_owned());
    }
    let mut also = repositories(spec)?;
    if also.pop_first().as_ref() != Some(repository) {
        return Ok(None);
    }
    Ok(Some(Purge { older_than, keep_free: keep_free.map(|share| share.clamp(1, 90)), archived, also }))
}

/// For how long a policy's snapshots are kept.
pub(crate) fn keep(spec: &KeepSpec) -> Result<Keep, String> {
    Ok(Keep {
        last: spec.last,
        hourly: spec.hourly,
        daily: spec.daily,
        weekly: spec.weekly,
        monthly: spec.monthly,
        yearly: spec.yearly,
        within: spec.within.as_deref().map(|text| span(text, "keep.within")).transpose()?,
    })
}

/// When a policy's snapshots are removed.
pub(crate) fn prune(spec: &Spec) -> Result<Schedule, String> {
    cron(spec, spec.keep.cron.as_deref().unwrap_or(NOON), "keep.cron")
}

/// When its repositories are checked.
pub(crate) fn check(spec: &Spec) -> Result<Option<Schedule>, String> {
    spec.verify.check.as_deref().map(|text| cron(spec, text, "verify.check")).transpose()
}

fn cron(spec: &Spec, cron: &str, field: &str) -> Result<Schedule, String> {
    let zone = spec.schedule.timezone.as_deref().unwrap_or("UTC");
    Schedule::new(cron, zone, 0, None).map_err(|why| format!("{field}: {why}"))
}

fn schedule(spec: &ScheduleSpec, default: &str) -> Result<Schedule, String> {
    let spread = spec.spread.as_deref().map_or(Ok(0), |text| span(text, "schedule.spread"))?;
    let window = spec.window.as_deref().map(|text| span(text, "schedule.window")).transpose()?;
    let (cron, zone) = (spec.cron.as_deref().unwrap_or(default), spec.timezone.as_deref().unwrap_or("UTC"));
    Schedule::new(cron, zone, spread, window).map_err(|why| format!("schedule: {why}"))
}

fn each<T: FromStr<Err = String> + Ord>(texts: &[String], field: &str) -> Result<BTreeSet<T>, String> {
    texts.iter().map(|text| text.parse().map_err(|why| format!("{field}: {why}"))).collect()
}

fn span(text: &str, field: &str) -> Result<Millis, String> {
    let span = shoal_agent::span(text).map_err(|e| format!("{field}: {text:?}: {e}"))?;
    Ok(Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX / 4))
}
