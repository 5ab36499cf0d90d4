//! One backup: what is there is looked at, dumps are made, restic runs, and what it says is held against what was asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use serde_json::Value;
use shoal_agent::Fault;

use super::program::{Caller, Ended, Stop, failed};
use super::runs::{Run, Site};
use super::ssh::{self, Way};
use super::{facts, locks, remote, sources};
use crate::item::{Begun, Job, Key, Last, Size};
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

    /// Whether it is known to lack files.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.has(INCOMPLETE)
    }

    /// Of which run.
    pub(crate) fn run(&self) -> Option<&str> {
        self.tags.iter().flatten().find_map(|tag| tag.strip_prefix("run:"))
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

/// What became of a backup.
pub(crate) enum Made {
    /// All of it.
    Good(Last),
    /// A snapshot stands that lacks something, and what.
    Partly(Fault),
}

/// Backs it up. Of a good backup answers what it was.
///
/// # Errors
/// It was not backed up, and why.
pub(crate) async fn run(run: &Run<'_>, job: &Job, begun: &Begun, stop: &mut Stop) -> Result<Made, Fault> {
    let Key::Backup { host, policy, repository } = run.key else {
        return Err(Fault::new(format!("back up {}", run.key), "it is no host").permanent());
    };
    let site = run.work.site(host)?;
    let restic = run.work.caller_at(repository, &site)?;
    run.say("looks at what is there");
    let settings = &run.work.settings;
    let name = facts::name(policy, repository);
    let (root, mut sizes, spool) = match &site {
        Site::Here(root) => {
            let sizes = sources::measure(settings, root.as_deref(), job, run.last.as_ref(), stop).await?;
            (root.as_deref(), sizes, run.work.records.of_host(host).join("spool").join(name))
        }
        Site::Over(over) => {
            let sizes = remote::measure(settings, over, job, run.last.as_ref(), stop).await?;
            (None, sizes, format!("{}/spool/{name}", over.folder()).into())
        }
    };
    // Whatever becomes of them: a dump is not left lying about.
    let _spool = matches!(site, Site::Here(_)).then(|| sources::Cleared(&spool));
    run.say("makes dumps");
    let dumps = dump(run, &site, job, &spool, stop).await;
    let taken = match dumps {
        Ok(dumps) => {
            let dumped: Vec<AbsPath> = dumps.keys().cloned().collect();
            sizes.extend(dumps);
            let paths = job.paths.iter().map(|path| sources::place(root, path).display().to_string());
            let paths: BTreeSet<String> = paths.chain(dumped.iter().map(ToString::to_string)).collect();
            let args = arguments(host.as_str(), policy, root, job, begun, &paths);
            match sources::shrunk(job, run.last.as_ref(), &sizes) {
                Ok(()) => back_up(run, &restic, &args, stop).await.map(|taken| (taken, paths)),
                Err(fault) => Err(fault),
            }
        }
        Err(fault) => Err(fault),
    };
    if let (Site::Over(over), false) = (&site, job.dumps.is_empty()) {
        // Whether it is backed up is known by now: what is left lying there is one thing more to be told.
        if let Err(fault) = remote::clear(over, &text(&spool), false, Way::Alone { leaves: None }, stop).await
        {
            tracing::warn!(item = %run.key, "dumps may still lie on {host}: {fault}");
        }
    }
    let ((summary, ended), paths) = taken?;
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
        let why = format!("some files could not be read: {}", ended.last());
        let next =
            "the snapshot stands and is not taken for a good one; let the agent read them, or exclude them";
        return Ok(Made::Partly(Fault::new(what, why).next(next)));
    }
    let held: BTreeSet<String> = snapshot.paths.into_iter().collect();
    if held != paths {
        let missing: Vec<&str> = paths.difference(&held).map(String::as_str).collect();
        return Ok(Made::Partly(Fault::new(what, format!("the snapshot lacks {}", missing.join(", ")))));
    }
    // What was looked at is not what counts, but what restic took: patterns may leave out more than was meant.
    let all = Size { bytes: summary.total_bytes_processed, files: summary.total_files_processed };
    if let Err(fault) = sources::much_smaller(job, run.last.as_ref(), all) {
        return Ok(Made::Partly(fault));
    }
    Ok(Made::Good(Last {
        snapshot: snapshot.id,
        began: begun.at,
        took: run.elapsed(),
        files: summary.total_files_processed,
        bytes: summary.total_bytes_processed,
        added: summary.data_added,
        sizes,
        purged: Size::default(),
    }))
}

/// Makes dumps where the files are.
async fn dump(
    run: &Run<'_>,
    site: &Site,
    job: &Job,
    spool: &Path,
    stop: &mut Stop,
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    match site {
        Site::Here(_) => sources::dump(&run.work.settings, job, spool, stop).await,
        Site::Over(over) => remote::dump(&run.work.settings, over, job, &text(spool), stop).await,
    }
}

/// The mark of a run.
fn run_mark(begun: &Begun) -> String {
    format!("run:{}", begun.run)
}

fn arguments(
    host: &str,
    policy: &Label,
    root: Option<&Path>,
    job: &Job,
    begun: &Begun,
    paths: &BTreeSet<String>,
) -> Vec<String> {
    let mut args = words(&["backup", "--json", "--host", host]);
    for mark in [MARK.to_owned(), policy_mark(policy), run_mark(begun)] {
        args.push("--tag".to_owned());
        args.push(mark);
    }
    args.extend(job.one_file_system.then(|| "--one-file-system".to_owned()));
    args.extend(job.excludes.iter().map(|pattern| format!("--exclude={}", sources::pattern(root, pattern))));
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
        run.left.store(true, Ordering::Relaxed);
        let ended = restic
            .lines_to_the_end(args, run.work.settings.limit, stop, |line| {
                let Ok(value) = serde_json::from_str::<Value>(line) else { return };
                match value["message_type"].as_str() {
                    Some("status") => run.say(&progress(&value)),
                    Some("summary") => summary = serde_json::from_value(value).ok(),
                    _ => {}
                }
            })
            .await?;
        run.left.store(summary.is_some() || may_leave(ended.code), Ordering::Relaxed);
        let ended = restic.judge(args, ended)?;
        match (ended.code, summary) {
            (Some(0 | 3), Some(summary)) => return Ok((summary, ended)),
            _ if !again && is_locked(&ended) && locks::break_dead(restic, stop).await? => {}
            _ => return Err(failed(&what, &ended)),
        }
    }
    Err(Fault::new(what, "the repository is locked"))
}

/// Whether a backup that ended so may have left a snapshot: restic says by its code that there is none, and so does what never came to it.
/// [Exit status codes](https://restic.readthedocs.io/en/stable/040_backup.html#exit-status-codes)
fn may_leave(code: Option<i32>) -> bool {
    // Fatal; no repository; it is locked; a wrong password.
    !matches!(code, Some(1 | 10..=12)) && !ssh::never_began(code)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_restic_says_that_it_left_nothing_is_believed_and_nothing_else() {
        for code in [1, 10, 11, 12, 96, 97, 98, 127].map(Some) {
            assert!(!may_leave(code), "{code:?}");
        }
        // Files that could not be read; interrupted; killed; what nobody knows.
        for code in [Some(0), Some(3), Some(130), Some(2), Some(255), None] {
            assert!(may_leave(code), "{code:?}");
        }
    }
}
