//! What is to be backed up, looked at before anything is: whether it is there, mounted, allowed, and not suddenly much smaller.
//!
//! restic skips a path that is missing and reports success when another one is there; a folder whose file system is not mounted is an
//! empty folder to it. Either would push good copies out. So every path is measured first: a walk over names and sizes, which
//! reads no file. What is excluded is measured along, each time alike.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use shoal_agent::Fault;

use super::program::{Stop, into_file};
use super::settings::Settings;
use crate::item::{Job, Last, Size};
use crate::name::{AbsPath, Label};

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
) -> Result<BTreeMap<AbsPath, Size>, Fault> {
    let what = "look at what is to be backed up";
    for path in job.paths.iter().chain(&job.mounted) {
        if !settings.allow.iter().any(|folder| path.is_in(folder.as_str())) {
            let next = "add it to `allow` in this node's configuration, or take it out of the policy";
            return Err(Fault::new(what, format!("{path} may not be backed up from here")).next(next));
        }
    }
    allowed(settings, root, job)?;
    for path in &job.mounted {
        let there = place(root, path);
        let mounted = is_mounted(&there).map_err(|e| Fault::new(what, format!("{path}: {e}")))?;
        if !mounted {
            return Err(Fault::new(what, format!("{path} is not mounted")).next("mount it"));
        }
    }
    let mut sizes = BTreeMap::new();
    for path in &job.paths {
        let (there, one) = (place(root, path), job.one_file_system);
        let walked = tokio::task::spawn_blocking(move || walk(&there, one)).await;
        let walked = walked.map_err(|e| Fault::new(what, e))?;
        let size = walked.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Fault::new(what, format!("{path} is missing")),
            _ => Fault::new(what, format!("{path}: {e}")),
        })?;
        sizes.insert(path.clone(), size);
    }
    shrunk(job, last, &sizes)?;
    Ok(sizes)
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
    let least = 100 - u64::from(job.shrink.min(100));
    let much = |before: u64, now: u64, small: u64| {
        before > small && u128::from(now) * 100 < u128::from(before) * u128::from(least)
    };
    for (path, now) in sizes {
        let Some(before) = last.and_then(|last| last.sizes.get(path)) else { continue };
        if much(before.bytes, now.bytes, SMALL.bytes) || much(before.files, now.files, SMALL.files) {
            let why = format!(
                "{path} has {} octets in {} files; at the last good backup it had {} in {}",
                now.bytes, now.files, before.bytes, before.files
            );
            let next = format!(
                "put it right, or where it is meant, raise `shrink` (now {} %) for the host until one backup is made",
                job.shrink
            );
            return Err(Fault::new("look at what is to be backed up", why).next(next));
        }
    }
    Ok(())
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    let (own, above) = (fs::metadata(path)?, fs::metadata(path.join(".."))?);
    Ok(own.dev() != above.dev() || own.ino() == above.ino())
}

/// Octets and files below a path. Folders that vanish meanwhile are passed over; the path itself has to be there.
fn walk(path: &Path, one_file_system: bool) -> io::Result<Size> {
    let top = fs::symlink_metadata(path)?;
    let mut size = Size::default();
    if !top.is_dir() {
        return Ok(Size { bytes: top.len(), files: 1 });
    }
    let mut open = vec![path.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if folder != path && e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let Ok(meta) = entry.metadata() else { continue };
            if one_file_system && meta.dev() != top.dev() {
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
    if job.dumps.is_empty() {
        return Ok(sizes);
    }
    clear(spool)?;
    make(spool)?;
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
        for word in words {
            let (path, size) = one_dump(settings, name, command, word, spool, stop).await?;
            sizes.insert(path, size);
        }
    }
    Ok(sizes)
}

async fn one_dump(
    settings: &Settings,
    name: &Label,
    command: &[String],
    word: &str,
    spool: &Path,
    stop: &mut Stop,
) -> Result<(AbsPath, Size), Fault> {
    let file = if word.is_empty() { name.to_string() } else { format!("{name}.{word}") };
    let what = format!("make the dump {file}");
    let path = spool.join(&file);
    let into = File::create(&path).map_err(|e| Fault::new(&what, e))?;
    let program: Vec<String> = command.iter().map(|arg| arg.replace("{name}", word)).collect();
    into_file(&what, &program, into, settings.limit, stop).await?;
    let bytes = fs::metadata(&path).map_err(|e| Fault::new(&what, e))?.len();
    if bytes == 0 {
        return Err(Fault::new(what, "it is empty"));
    }
    let path = path.to_str().unwrap_or_default().parse().map_err(|e: String| Fault::new(what, e))?;
    Ok((path, Size { bytes, files: 1 }))
}

/// Makes a folder that is its owner's alone.
pub(crate) fn make(folder: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|e| Fault::new(format!("make {}", folder.display()), e))
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
