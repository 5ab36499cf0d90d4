//! One backup: what is there is looked at, dumps are made, restic runs, and what it says is held against what was asked.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use shoal_agent::{Fault, Millis, Moment};

use super::program::{Caller, Ended, Stop, failed};
use super::runs::Run;
use super::{locks, sources};
use crate::item::{Begun, Job, Key, Last};
use crate::name::{AbsPath, Label};
use crate::step;

/// What every snapshot of ours is marked with.
pub(crate) const MARK: &str = "shoal";
/// The mark of one that lacks files.
pub(crate) const INCOMPLETE: &str = "incomplete";

/// A snapshot as restic lists it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) time: jiff::Timestamp,
    pub(crate) hostname: String,
    #[serde(default)]
    pub(crate) paths: Vec<String>,
    #[serde(default)]
    pub(crate) tags: Option<Vec<String>>,
}

impl Listed {
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.iter().flatten().any(|one| one == tag)
    }

    /// By which policy.
    pub(crate) fn policy(&self) -> Option<Label> {
        self.tags.iter().flatten().find_map(|tag| tag.strip_prefix("policy:")?.parse().ok())
    }
}

/// The mark of a policy.
pub(crate) fn policy_mark(policy: &Label) -> String {
    format!("policy:{policy}")
}

/// The arguments of a command, as restic takes them.
pub(crate) fn words<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}

/// The snapshots of ours that these arguments select.
pub(crate) async fn list(restic: &Caller, select: &[String], stop: &mut Stop) -> Result<Vec<Listed>, Fault> {
    let mut args = words(&["snapshots", "--json", "--no-lock"]);
    args.extend_from_slice(select);
    let text = restic.text(&args, stop).await?;
    serde_json::from_str(text.trim()).map_err(|e| Fault::new("read restic's list of snapshots", e))
}

/// What restic says at the end.
#[derive(Debug, Default, Deserialize)]
struct Summary {
    snapshot_id: String,
    #[serde(default)]
    total_files_processed: u64,
    #[serde(default)]
    total_bytes_processed: u64,
    #[serde(default)]
    data_added: u64,
}

/// Backs it up. Of a good backup answers what it was.
///
/// # Errors
/// It was not backed up, or not all of it, and why.
pub(crate) async fn run(run: &Run<'_>, job: &Job, begun: &Begun, stop: &mut Stop) -> Result<Last, Fault> {
    let Key::Backup { host, policy, repository } = run.key else {
        return Err(Fault::new(format!("back up {}", run.key), "it is no host").permanent());
    };
    let root = run.work.root(host)?;
    run.say("looks at what is there");
    let settings = &run.work.settings;
    let mut sizes = sources::measure(settings, root.as_deref(), job, run.last.as_ref()).await?;
    let spool = run.work.records.of_host(host).join("spool").join(format!("{policy}@{repository}"));
    run.say("makes dumps");
    let dumps = match sources::dump(settings, job, &spool, stop).await {
        Ok(dumps) => dumps,
        Err(fault) => {
            sources::clear(&spool)?;
            return Err(fault);
        }
    };
    let dumped: Vec<AbsPath> = dumps.keys().cloned().collect();
    sizes.extend(dumps);
    sources::shrunk(job, run.last.as_ref(), &sizes)?;
    let restic = run.work.caller(repository, false)?;
    let paths = job.paths.iter().map(|path| sources::place(root.as_deref(), path).display().to_string());
    let paths: BTreeSet<String> = paths.chain(dumped.iter().map(ToString::to_string)).collect();
    let args = arguments(host.as_str(), policy, job, begun, &paths);
    let summary = back_up(run, &restic, &args, stop).await;
    if !dumped.is_empty() {
        sources::clear(&spool)?;
    }
    let (summary, ended) = summary?;
    let select = words(&["--host", host.as_str(), "--tag", &run_mark(begun)]);
    let found =
        list(&restic, &select, stop).await?.into_iter().find(|one| one.id.starts_with(&summary.snapshot_id));
    let what = format!("back up {host}");
    let Some(snapshot) = found else {
        return Err(Fault::new(
            what,
            "restic reports success, and the repository does not have the snapshot",
        ));
    };
    if ended.code != Some(0) {
        mark_incomplete(&restic, &snapshot.id, stop).await;
        return Err(Fault::new(what, format!("some files could not be read: {}", ended.last())).next(
            "the snapshot stands and is not taken for a good one; let the agent read them, or exclude them",
        ));
    }
    let held: BTreeSet<String> = snapshot.paths.into_iter().collect();
    if held != paths {
        mark_incomplete(&restic, &snapshot.id, stop).await;
        let missing: Vec<&str> = paths.difference(&held).map(String::as_str).collect();
        return Err(Fault::new(what, format!("the snapshot lacks {}", missing.join(", "))));
    }
    Ok(Last {
        snapshot: snapshot.id,
        began: begun.at,
        took: took(begun.at),
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        added: summary.data_added,
        sizes,
    })
}

fn took(began: Moment) -> Millis {
    jiff::Timestamp::now().as_millisecond() - began
}

/// The mark of a run.
fn run_mark(begun: &Begun) -> String {
    format!("run:{}", begun.run)
}

fn arguments(host: &str, policy: &Label, job: &Job, begun: &Begun, paths: &BTreeSet<String>) -> Vec<String> {
    let mut args = words(&["backup", "--json", "--host", host]);
    for mark in [MARK.to_owned(), policy_mark(policy), run_mark(begun)] {
        args.push("--tag".to_owned());
        args.push(mark);
    }
    args.extend(job.one_file_system.then(|| "--one-file-system".to_owned()));
    args.extend(job.excludes.iter().map(|pattern| format!("--exclude={pattern}")));
    args.push("--".to_owned());
    args.extend(paths.iter().cloned());
    args
}

/// Runs restic, once more where a dead process's lock was in the way. A code other than 0 or 3 is a fault.
async fn back_up(
    run: &Run<'_>,
    restic: &Caller,
    args: &[String],
    stop: &mut Stop,
) -> Result<(Summary, Ended), Fault> {
    let what = format!("back up {}", run.key);
    for again in [false, true] {
        let mut summary = None;
        let ended = restic
            .lines(args, run.work.settings.limit, stop, |line| {
                let Ok(value) = serde_json::from_str::<Value>(line) else { return };
                match value["message_type"].as_str() {
                    Some("status") => run.say(&progress(&value)),
                    Some("summary") => summary = serde_json::from_value(value).ok(),
                    _ => {}
                }
            })
            .await?;
        match (ended.code, summary) {
            (Some(0 | 3), Some(summary)) => return Ok((summary, ended)),
            _ if !again && is_locked(&ended) && locks::break_dead(restic, stop).await? => {}
            _ => return Err(failed(&what, &ended)),
        }
    }
    Err(Fault::new(what, "the repository is locked"))
}

/// Whether a lock is why it failed.
pub(crate) fn is_locked(ended: &Ended) -> bool {
    ended.said.contains("already locked") || ended.said.contains("unable to create lock")
}

fn progress(status: &Value) -> String {
    let percent = status["percent_done"].as_f64().unwrap_or(0.0) * 100.0;
    let of = |field: &str| status[field].as_u64().unwrap_or(0);
    let left =
        status["seconds_remaining"].as_i64().map(|left| format!(", {} left", step::span(left * 1_000)));
    format!(
        "backing up: {percent:.0} %, {} of {} MiB{}",
        of("bytes_done") >> 20,
        of("total_bytes") >> 20,
        left.unwrap_or_default()
    )
}

/// Marks a snapshot that lacks files, where these credentials allow it. Where they do not, it is told from a good one by the facts.
async fn mark_incomplete(restic: &Caller, id: &str, stop: &mut Stop) {
    if let Err(fault) = restic.text(&words(&["tag", "--add", INCOMPLETE, id]), stop).await {
        tracing::info!("an incomplete snapshot bears no mark: {fault}");
    }
}

/// Runs restic with arguments that need an exclusive lock, once more where a dead process's lock was in the way.
pub(crate) async fn exclusive(
    restic: &Caller,
    args: &[String],
    limit: std::time::Duration,
    stop: &mut Stop,
) -> Result<(), Fault> {
    let what = format!("restic {}", args.first().map_or("", String::as_str));
    for again in [false, true] {
        let ended = restic.lines(args, limit, stop, |_| {}).await?;
        match ended.code {
            Some(0) => return Ok(()),
            _ if !again && is_locked(&ended) && locks::break_dead(restic, stop).await? => {}
            _ => return Err(failed(&what, &ended)),
        }
    }
    Err(Fault::new(what, "the repository is locked"))
}

/// Where something is for restic to restore into or compare with, as text.
pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}
