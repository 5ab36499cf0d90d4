//! A test of restoring: some files of the last good backup are restored elsewhere, read back by restic, and compared.
//!
//! Which ones is drawn by the run's own number, so that over time it is all of them. A file that is here as it was then (size and time) has
//! to be the same octet for octet; of one that changed since, its size in the snapshot.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;
use shoal_agent::Fault;

use super::backup::{text, words};
use super::program::{SHORT, Stop, failed};
use super::runs::Run;
use super::sources;
use crate::item::{Begun, Job, Key};
use crate::schedule::seed;

/// The most octets that one test restores.
const MOST: u64 = 1 << 30;

/// A file of a snapshot.
#[derive(Clone, Debug, Deserialize)]
struct Node {
    path: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: u64,
    mtime: Timestamp,
}

pub(crate) async fn run(run: &Run<'_>, job: &Job, begun: &Begun, stop: &mut Stop) -> Result<(), Fault> {
    let Key::Backup { host, policy, repository } = run.key else {
        return Err(Fault::new(format!("test {}", run.key), "it is no host").permanent());
    };
    let what = format!("restore some files of {host} as a test");
    let Some(last) = &run.last else { return Err(Fault::new(what, "there is no good backup yet")) };
    let restic = run.work.caller(repository, false)?;
    run.say("chooses files to restore as a test");
    let sample = choose(&restic, &last.snapshot, job, begun, stop).await?;
    if sample.is_empty() {
        return Err(Fault::new(
            what,
            format!("snapshot {} holds no file that could be restored", last.snapshot),
        ));
    }
    let folder = run.work.records.of_host(host).join("test").join(format!("{policy}@{repository}"));
    sources::clear(&folder)?;
    sources::make(&folder)?;
    run.say(&format!("restores {} files as a test", sample.len()));
    let mut args = words(&["restore", &last.snapshot, "--no-lock", "--verify", "--target", &text(&folder)]);
    args.extend(sample.iter().flat_map(|node| ["--include".to_owned(), node.path.clone()]));
    let ended = restic.lines(&args, run.work.settings.limit, stop, |_| {}).await?;
    let compared = match ended.code {
        Some(0) => {
            let within = folder.clone();
            let done = tokio::task::spawn_blocking(move || compare(&within, &sample)).await;
            done.map_err(|e| Fault::new(&what, e))?.map_err(|why| Fault::new(&what, why))
        }
        _ => Err(failed(&what, &ended)),
    };
    sources::clear(&folder)?;
    let (same, changed) = compared?;
    tracing::info!(item = %run.key, "restored as a test: {same} files are the same, {changed} changed here since");
    Ok(())
}

/// Draws files: those whose paths, with the run's number, come first.
async fn choose(
    restic: &super::program::Caller,
    snapshot: &str,
    job: &Job,
    begun: &Begun,
    stop: &mut Stop,
) -> Result<Vec<Node>, Fault> {
    let count = job.test.map_or(20, |test| test.files) as usize;
    let mut drawn: Vec<(u64, Node)> = Vec::new();
    let ended = restic
        .lines(&words(&["ls", "--json", "--no-lock", snapshot]), SHORT, stop, |line| {
            let Ok(node) = serde_json::from_str::<Node>(line) else { return };
            // restic reads these as patterns.
            let odd = |c: char| matches!(c, '*' | '?' | '[' | '\\') || c.is_control();
            if node.kind != "file" || node.path.contains(odd) {
                return;
            }
            let lot = seed(&format!("{} {}", begun.run, node.path));
            let at = drawn.partition_point(|(other, _)| *other < lot);
            if at < count {
                drawn.insert(at, (lot, node));
                drawn.truncate(count);
            }
        })
        .await?;
    if ended.code != Some(0) {
        return Err(failed("list the files of a snapshot", &ended));
    }
    let mut octets = 0;
    let mut fits = |node: &Node| {
        octets += node.size;
        octets <= MOST
    };
    let first = drawn.first().map(|(_, node)| node.clone());
    let mut sample: Vec<Node> = drawn.into_iter().map(|(_, node)| node).filter(|node| fits(node)).collect();
    if sample.is_empty() {
        // Each is larger than the most: one is restored all the same.
        sample.extend(first);
    }
    Ok(sample)
}

/// How many are the same as here, and how many changed here since.
fn compare(folder: &Path, sample: &[Node]) -> Result<(usize, usize), String> {
    let (mut same, mut changed) = (0, 0);
    for node in sample {
        let restored = folder.join(node.path.trim_start_matches('/'));
        let size = fs::metadata(&restored).map_err(|e| format!("{}: {e}", node.path))?.len();
        if size != node.size {
            return Err(format!("{} has {size} octets, and {} in the snapshot", node.path, node.size));
        }
        let here = PathBuf::from(&node.path);
        if !as_then(&here, node) {
            changed += 1;
            continue;
        }
        if equal(&restored, &here).map_err(|e| format!("{}: {e}", node.path))? {
            same += 1;
        } else if as_then(&here, node) {
            return Err(format!("{} was restored otherwise than it is here", node.path));
        } else {
            changed += 1;
        }
    }
    Ok((same, changed))
}

/// Whether a file is here as it was in the snapshot, by size and time.
fn as_then(here: &Path, node: &Node) -> bool {
    let Ok(meta) = fs::symlink_metadata(here) else { return false };
    let time = meta.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
    meta.is_file() && meta.len() == node.size && time == Some(node.mtime)
}

fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) =
        (io::BufReader::new(fs::File::open(one)?), io::BufReader::new(fs::File::open(other)?));
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(other.read(&mut b)? == 0);
        }
        match other.read_exact(&mut b[..read]) {
            Ok(()) if a[..read] == b[..read] => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => return Ok(false),
        }
    }
}
