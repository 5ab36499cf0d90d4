//! What is to be backed up, looked at before anything is: whether it is there, mounted, allowed, and not suddenly much smaller.
//!
//! restic skips a path that is missing and reports success when another one is there; a folder whose file system is not mounted is an
//! empty folder to it. Either would push good copies out. So every path is measured first: a walk over names and sizes, which
//! reads no file. Folders that are excluded by their whole path are left out; what a pattern excludes is measured along, each time
//! alike. A path that is a link is refused: restic would keep the link, and nothing of what it leads to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shoal_agent::Fault;

use super::program::{Stop, into_file, stopped};
use super::settings::Settings;
use crate::item::{Job, Last, Size};
use crate::name::AbsPath;
use crate::restore::escaped;

/// Below these nobody speaks of much smaller: octets, and files.
const SMALL: Size = Size { bytes: 1 << 20, files: 50 };

/// Where a policy's path is on this machine.
pub(crate) fn place(root: Option<&Path>, path: &AbsPath) -> PathBuf {
    match root {
        Some(root) => root.join(path.as_str().trim_start_matches('/')),
        None => PathBuf::from(path.as_str()),
    }
}

/// Looks at every path.
///
/// # Errors
/// One is missing, not mounted, not allowed, cannot be read, or much smaller than it was.
pub(crate) async fn measure(
    settings: &Settings,
    root: Option<&Path>,
    job: &Job,
    last: Option<&Last>,
    stop: &mut Stop,
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    let what = "look at what is to be backed up";
    named(settings, job)?;
    allowed(settings, root, job)?;
    for path in &job.mounted {
        let there = place(root, path);
        let mounted = is_mounted(&there).map_err(|e| Fault::new(what, format!("{path}: {e}")))?;
        if !mounted {
            return Err(Fault::new(what, format!("{path} is not mounted")).next("mount it"));
        }
    }
    let mut sizes = BTreeMap::new();
    let excluded: Arc<BTreeSet<PathBuf>> =
        Arc::new(whole(job).map(|path| PathBuf::from(pattern(root, path))).collect());
    for path in &job.paths {
        let walk = Walk {
            path: place(root, path),
            one_file_system: job.one_file_system,
            excluded: Arc::clone(&excluded),
            stop: Arc::default(),
        };
        let size = walked(&walk, settings.limit, stop).await.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Fault::new(what, format!("{path} is missing")),
            _ => Fault::new(what, format!("{path}: {e}")),
        })?;
        sizes.insert(path.clone(), size);
    }
    shrunk(job, last, &sizes)?;
    Ok(sizes)
}

/// Refuses a path that is not in one of the folders that are allowed.
pub(crate) fn named(settings: &Settings, job: &Job) -> Result<(), Fault> {
    for path in job.paths.iter().chain(&job.mounted) {
        if !settings.allow.iter().any(|folder| path.is_in(folder.as_str())) {
            let next = "add it to `allow` in this node's configuration, or take it out of the policy";
            let why = format!("{path} may not be backed up from here");
            return Err(Fault::new("look at what is to be backed up", why).next(next));
        }
    }
    Ok(())
}

/// Refuses a path that leads out of the folders that are allowed, by a link that somebody put into one of them.
fn allowed(settings: &Settings, root: Option<&Path>, job: &Job) -> Result<(), Fault> {
    if settings.allow.iter().any(|folder| folder.as_str() == "/") {
        return Ok(());
    }
    let real = |path: &AbsPath| fs::canonicalize(place(root, path)).ok();
    let folders: Vec<PathBuf> = settings.allow.iter().filter_map(real).collect();
    for path in &job.paths {
        // What is missing is said so later.
        let Some(there) = real(path) else { continue };
        if !folders.iter().any(|folder| there.starts_with(folder)) {
            let why = format!("{path} leads to {}, which may not be backed up from here", there.display());
            return Err(Fault::new("look at what is to be backed up", why));
        }
    }
    Ok(())
}

/// Refuses what is much smaller than it was at the last good backup.
pub(crate) fn shrunk(job: &Job, last: Option<&Last>, sizes: &BTreeMap<AbsPath, Size>) -> Result<(), Fault> {
    for (path, now) in sizes {
        let Some(before) = last.and_then(|last| last.sizes.get(path)) else { continue };
        if is_shrunk(job, *before, *now) {
            return Err(smaller(job, path.as_str(), *before, *now));
        }
    }
    Ok(())
}

/// Refuses a snapshot without a file, or one that is much smaller than what the last good one has and was not purged since. Where all of
/// that was purged, one without a file is what is to be expected.
pub(crate) fn much_smaller(job: &Job, last: Option<&Last>, now: Size) -> Result<(), Fault> {
    let before = last.map(Last::left);
    if now.files == 0 && before.is_none_or(|before| before.files > 0) {
        let next = "see the policy's excludes: they leave nothing";
        return Err(Fault::new("back up", "the snapshot has no file").next(next));
    }
    match before {
        Some(before) if is_shrunk(job, before, now) => Err(smaller(job, "the snapshot", before, now)),
        _ => Ok(()),
    }
}

fn is_shrunk(job: &Job, before: Size, now: Size) -> bool {
    let least = 100 - u64::from(job.shrink.min(100));
    let much = |before: u64, now: u64, small: u64| {
        before > small && u128::from(now) * 100 < u128::from(before) * u128::from(least)
    };
    // Of what had something and has nothing now nobody can say whether it is mounted, however little it was.
    let empty = before.files > 0 && now.files == 0 && least > 0;
    empty || much(before.bytes, now.bytes, SMALL.bytes) || much(before.files, now.files, SMALL.files)
}

fn smaller(job: &Job, what: &str, before: Size, now: Size) -> Fault {
    let why = format!(
        "{what} has {} octets in {} files; at the last good backup it had {} in {}",
        now.bytes, now.files, before.bytes, before.files
    );
    let next = format!(
        "put it right, or where it is meant, raise `shrink` (now {} %) for the host until one backup is made",
        job.shrink
    );
    Fault::new("look at what is to be backed up", why).next(next)
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    let (own, above) = (fs::metadata(path)?, fs::metadata(path.join(".."))?);
    Ok(own.dev() != above.dev() || own.ino() == above.ino())
}

/// What is to be measured.
#[derive(Clone)]
struct Walk {
    path: PathBuf,
    one_file_system: bool,
    excluded: Arc<BTreeSet<PathBuf>>,
    /// Set when nobody waits for it any more.
    stop: Arc<AtomicBool>,
}

/// Walks, for no longer than that: a file system that does not answer holds up this backup and no other.
async fn walked(walk: &Walk, limit: Duration, stop: &mut Stop) -> io::Result<Size> {
    let run = walk.clone();
    let task = tokio::task::spawn_blocking(move || run.size());
    let ended = tokio::select! {
        done = task => return done.map_err(io::Error::other)?,
        () = tokio::time::sleep(limit) => format!("it could not be looked through within {} s", limit.as_secs()),
        why = stopped(stop) => why,
    };
    walk.stop.store(true, Ordering::Relaxed);
    Err(io::Error::other(ended))
}

impl Walk {
    /// Octets and files below the path. Folders that vanish meanwhile are passed over; the path itself has to be there.
    fn size(&self) -> io::Result<Size> {
        let top = fs::symlink_metadata(&self.path)?;
        if top.is_symlink() {
            let to = fs::read_link(&self.path)?;
            let why = "it is a link, of which restic would keep nothing but where it leads";
            return Err(io::Error::other(format!("{why}: name {} in the policy", to.display())));
        }
        let mut size = Size::default();
        if !top.is_dir() {
            return Ok(Size { bytes: top.len(), files: 1 });
        }
        let mut open = vec![self.path.clone()];
        while let Some(folder) = open.pop() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(io::Error::other("nobody waits for it any more"));
            }
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(e) if folder != self.path && e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
            };
            for entry in entries {
                let Ok(entry) = entry else { continue };
                if self.excluded.contains(&entry.path()) {
                    continue;
                }
                let Ok(meta) = entry.metadata() else { continue };
                if self.one_file_system && meta.dev() != top.dev() {
                    continue;
                }
                if meta.is_dir() {
                    open.push(entry.path());
                } else {
                    size.bytes += meta.len();
                    size.files += 1;
                }
            }
        }
        Ok(size)
    }
}

/// What a job leaves out by its whole path.
pub(crate) fn whole(job: &Job) -> impl Iterator<Item = &str> {
    let plain = |pattern: &&String| pattern.starts_with('/') && !pattern.contains(['*', '?', '[', '\\']);
    job.excludes.iter().filter(plain).map(|pattern| pattern.trim_end_matches('/'))
}

/// A pattern of what is left out, for where the host's files are on this machine.
pub(crate) fn pattern(root: Option<&Path>, pattern: &str) -> String {
    match root {
        Some(root) if pattern.starts_with('/') => {
            format!("{}{pattern}", escaped(root.display().to_string().trim_end_matches('/')))
        }
        _ => pattern.to_owned(),
    }
}

/// A dump that is to be made.
pub(crate) struct Dump {
    /// What its file is called.
    pub(crate) file: String,
    /// Its command.
    pub(crate) command: Vec<String>,
}

/// The dumps of a job.
///
/// # Errors
/// The configuration does not know one.
pub(crate) fn dumps(settings: &Settings, job: &Job) -> Result<Vec<Dump>, Fault> {
    let mut all = Vec::new();
    for (name, of) in &job.dumps {
        let Some(command) = settings.dumps.get(name) else {
            return Err(Fault::new(
                format!("make the dump {name}"),
                "this node's configuration does not know it",
            )
            .next("write its command into [agent.dumps]"));
        };
        let words: Vec<&str> =
            if of.is_empty() { vec![""] } else { of.iter().map(|word| word.as_str()).collect() };
        all.extend(words.into_iter().map(|word| Dump {
            file: if word.is_empty() { name.to_string() } else { format!("{name}.{word}") },
            command: command.iter().map(|arg| arg.replace("{name}", word)).collect(),
        }));
    }
    Ok(all)
}

/// Makes the dumps of a job in this folder, which is made anew. A dump that fails or says nothing is a fault: half of one is no
/// backup.
///
/// # Errors
/// The configuration does not know a dump, or it failed, and which.
pub(crate) async fn dump(
    settings: &Settings,
    job: &Job,
    spool: &Path,
    stop: &mut Stop,
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    let mut sizes = BTreeMap::new();
    let dumps = dumps(settings, job)?;
    if dumps.is_empty() {
        return Ok(sizes);
    }
    clear(spool)?;
    make(spool)?;
    for one in dumps {
        let what = format!("make the dump {}", one.file);
        let path = spool.join(&one.file);
        let into = File::create(&path).map_err(|e| Fault::new(&what, e))?;
        into_file(&what, &one.command, into, settings.limit, stop).await?;
        let bytes = fs::metadata(&path).map_err(|e| Fault::new(&what, e))?.len();
        if bytes == 0 {
            return Err(Fault::new(what, "it is empty"));
        }
        let path = path.to_str().unwrap_or_default().parse().map_err(|e: String| Fault::new(what, e))?;
        sizes.insert(path, Size { bytes, files: 1 });
    }
    Ok(sizes)
}

/// Makes a folder that is its owner's alone.
pub(crate) fn make(folder: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| Fault::new(format!("make {}", folder.display()), e))
}

/// A folder of the agent's own that is removed when this is dropped, however what needed it ended.
pub(crate) struct Cleared<'p>(pub(crate) &'p Path);

impl Drop for Cleared<'_> {
    fn drop(&mut self) {
        if let Err(fault) = clear(self.0) {
            tracing::warn!("{fault}");
        }
    }
}

/// Removes a folder of the agent's own, with what is in it.
pub(crate) fn clear(folder: &Path) -> Result<(), Fault> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Fault::new(format!("remove {}", folder.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Schedule;

    fn job(shrink: u8) -> Job {
        Job {
            paths: BTreeSet::from(["/srv".parse().unwrap()]),
            excludes: BTreeSet::new(),
            mounted: BTreeSet::new(),
            one_file_system: false,
            dumps: BTreeMap::new(),
            on: "web1.example.com".to_owned(),
            schedule: Schedule::new("0 1 * * *", "UTC", 0, None).unwrap(),
            fresh: None,
            shrink,
            test: None,
            purge: None,
        }
    }

    fn size(bytes: u64, files: u64) -> Size {
        Size { bytes, files }
    }

    /// The last good backup, of a path of this size, of which that was purged since.
    fn last(was: Size, purged: Size) -> Last {
        let left = size(was.bytes - purged.bytes, was.files - purged.files);
        Last {
            snapshot: "a".to_owned(),
            began: 0,
            took: 0,
            files: was.files,
            bytes: was.bytes,
            added: 0,
            sizes: BTreeMap::from([("/srv".parse().unwrap(), left)]),
            purged,
        }
    }

    #[test]
    fn what_is_much_smaller_or_empty_is_refused_and_what_was_purged_is_not_missed() {
        let (mib, none) = (1 << 20, Size::default());
        for (was, purged, now, shrink, good) in [
            (size(10 * mib, 100), none, size(6 * mib, 60), 50, true),
            (size(10 * mib, 100), none, size(4 * mib, 100), 50, false),
            (size(10 * mib, 100), none, size(10 * mib, 40), 50, false),
            // So little may come and go, but not all of it.
            (size(2_000, 20), none, size(100, 1), 50, true),
            (size(2_000, 20), none, none, 50, false),
            (size(2_000, 20), none, none, 99, false),
            (size(10 * mib, 100), size(9 * mib, 90), size(mib, 10), 50, true),
            (size(10 * mib, 100), size(9 * mib, 90), none, 50, false),
            (size(10 * mib, 100), size(10 * mib, 100), none, 50, true),
            (size(10 * mib, 100), none, size(1, 1), 100, true),
        ] {
            let (job, last) = (job(shrink), last(was, purged));
            let sizes = BTreeMap::from([("/srv".parse().unwrap(), now)]);
            let about = format!("{was:?} {purged:?} {now:?} {shrink}");
            assert_eq!(shrunk(&job, Some(&last), &sizes).is_ok(), good, "before: {about}");
            assert_eq!(much_smaller(&job, Some(&last), now).is_ok(), good, "after: {about}");
        }
        // Before there is a good one, and where anything may go, a snapshot without a file is none all the same.
        assert!(much_smaller(&job(50), None, none).is_err());
        assert!(much_smaller(&job(100), Some(&last(size(1, 1), none)), none).is_err());
    }
}
