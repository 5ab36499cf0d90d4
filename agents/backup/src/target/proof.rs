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
use super::runs::{Run, Site};
use super::ssh::Way;
use super::{facts, remote, sources};
use crate::item::{Begun, Job, Key};
use crate::restore::escaped;
use crate::schedule::seed;

/// The most octets that one test restores.
const MOST: u64 = 1 << 30;

/// A file of a snapshot.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) size: u64,
    pub(crate) mtime: Timestamp,
}

pub(crate) async fn run(run: &Run<'_>, job: &Job, begun: &Begun, stop: &mut Stop) -> Result<(), Fault> {
    let Key::Backup { host, policy, repository } = run.key else {
        return Err(Fault::new(format!("test {}", run.key), "it is no host").permanent());
    };
    let what = format!("restore some files of {host} as a test");
    let Some(last) = &run.last else { return Err(Fault::new(what, "there is no good backup yet")) };
    let site = run.work.site(host)?;
    let restic = run.work.caller_at(repository, &site)?;
    run.say("chooses files to restore as a test");
    let sample = choose(&restic, &last.snapshot, job, begun, stop).await?;
    if sample.is_empty() {
        return Err(Fault::new(
            what,
            format!("snapshot {} holds no file that could be restored", last.snapshot),
        ));
    }
    let name = facts::name(policy, repository);
    let folder = match &site {
        Site::Here(_) => text(&run.work.records.of_host(host).join("test").join(name)),
        Site::Over(over) => format!("{}/test/{name}", over.folder()),
    };
    clear(&site, &folder, true, stop).await?;
    let local = PathBuf::from(&folder);
    let _local = matches!(site, Site::Here(_)).then(|| sources::Cleared(&local));
    let free = match &site {
        Site::Here(_) => free(Path::new(&folder)).map_err(|why| Fault::new(&what, why))?,
        Site::Over(over) => remote::free(over, &folder, stop).await?,
    };
    room(&folder, free, &sample).map_err(|why| Fault::new(&what, why))?;
    run.say(&format!("restores {} files as a test", sample.len()));
    let mut args = words(&["restore", &last.snapshot, "--no-lock", "--verify", "--target", &folder]);
    args.extend(sample.iter().flat_map(|node| ["--include".to_owned(), escaped(&node.path)]));
    let limit = run.work.settings.limit;
    let ended = restic.lines(&args, limit, stop, |_| {}).await?;
    let compared = match (ended.code, &site) {
        (Some(0), Site::Here(_)) => {
            let within = PathBuf::from(&folder);
            let done = tokio::task::spawn_blocking(move || compare(&within, &sample)).await;
            done.map_err(|e| Fault::new(&what, e))?.map_err(|why| Fault::new(&what, why))
        }
        (Some(0), Site::Over(over)) => remote::compare(over, &folder, &sample, limit, stop).await,
        _ => Err(failed(&what, &ended)),
    };
    // What was found out stands, whatever becomes of the copies.
    if let (Site::Over(_), Err(fault)) = (&site, clear(&site, &folder, false, stop).await) {
        tracing::warn!(item = %run.key, "what was restored as a test may still lie on {host}: {fault}");
    }
    let (same, changed) = compared?;
    tracing::info!(item = %run.key, "restored as a test: {same} files are the same, {changed} changed here since");
    Ok(())
}

/// Clears the folder of a test away, or makes it anew.
async fn clear(site: &Site, folder: &str, anew: bool, stop: &mut Stop) -> Result<(), Fault> {
    match site {
        Site::Here(_) => {
            sources::clear(Path::new(folder))?;
            if anew { sources::make(Path::new(folder)) } else { Ok(()) }
        }
        Site::Over(over) => remote::clear(over, folder, anew, Way::Beside { leaves: None }, stop).await,
    }
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
            if node.kind != "file" || node.path.chars().any(char::is_control) {
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
    Ok(that_fit(drawn.into_iter().map(|(_, node)| node).collect()))
}

/// Of the files that were drawn those that together are no more than [`MOST`]; where each is larger, the smallest of them.
fn that_fit(drawn: Vec<Node>) -> Vec<Node> {
    let smallest = drawn.iter().min_by_key(|node| node.size).cloned();
    let mut octets = 0u64;
    let mut sample = drawn;
    sample.retain(|node| {
        let fits = octets.saturating_add(node.size) <= MOST;
        octets += if fits { node.size } else { 0 };
        fits
    });
    if sample.is_empty() {
        sample.extend(smallest);
    }
    sample
}

/// How many octets have room in a folder.
fn free(folder: &Path) -> Result<u64, String> {
    let there = rustix::fs::statvfs(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(there.f_bavail.saturating_mul(there.f_frsize))
}

/// Whether there is room for them where so many octets are free, with as much to spare.
fn room(folder: &str, free: u64, sample: &[Node]) -> Result<(), String> {
    let octets = sample.iter().fold(0_u64, |sum, node| sum.saturating_add(node.size));
    if free / 2 >= octets {
        return Ok(());
    }
    Err(format!(
        "{} files have {octets} octets, and {folder} has room for {free}: a test takes no more than half of it",
        sample.len()
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_takes_no_more_than_half_of_the_room() {
        let node = |size| Node {
            path: "/srv/a".to_owned(),
            kind: "file".to_owned(),
            size,
            mtime: Timestamp::UNIX_EPOCH,
        };
        assert!(room("/x", 200, &[node(60), node(40)]).is_ok());
        assert!(room("/x", 199, &[node(60), node(40)]).unwrap_err().contains("has room for 199"));
        assert!(room("/x", u64::MAX, &[node(u64::MAX), node(u64::MAX)]).is_err());
        // One alone where each is larger than a test is.
        assert_eq!(
            that_fit(vec![node(MOST + 2), node(MOST + 1)]).iter().map(|one| one.size).sum::<u64>(),
            MOST + 1
        );
    }
}
