//! By how much the backups of a host become smaller when files are purged.
//!
//! Of the policy that purges, each file is in the last good snapshot of each of its repositories. Of another policy of the same host
//! that is not looked up: only what has certainly been in its last good backup is taken off, or what came and went since would make it
//! easier to take an empty source for a good one. What is not taken off is missed at its next backup, if it is much.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shoal_agent::{Moment, Unit};

use super::{Found, Holder, Site};
use crate::item::{Item, Job, Key, Last, Size};
use crate::name::AbsPath;
use crate::target::runs::Run;
use crate::target::sources::{pattern, place, whole};

/// By how much files make a good backup smaller: each of its paths, and all of it.
#[derive(Debug, Default)]
pub(super) struct Less {
    all: Size,
    paths: BTreeMap<AbsPath, Size>,
}

impl Less {
    /// Of a backup of these paths that holds all of these files.
    pub(super) fn of<'f>(paths: &[(&AbsPath, PathBuf)], files: impl IntoIterator<Item = &'f Found>) -> Self {
        let mut less = Self::default();
        for one in files {
            add(&mut less.all, one);
            for (path, _) in paths.iter().filter(|(_, at)| one.path.starts_with(at)) {
                add(less.paths.entry((*path).clone()).or_default(), one);
            }
        }
        less
    }

    /// Of the backup of another policy, begun then: files that it holds for certain.
    pub(super) fn of_other<'f>(
        root: Option<&Path>,
        job: &Job,
        began: Moment,
        files: impl IntoIterator<Item = &'f Found>,
    ) -> Self {
        let out: Vec<PathBuf> = whole(job).map(|path| PathBuf::from(pattern(root, path))).collect();
        // What a pattern leaves out only restic can tell.
        if out.len() < job.excludes.len() {
            return Self::default();
        }
        let paths: Vec<(&AbsPath, PathBuf)> =
            job.paths.iter().map(|path| (path, place(root, path))).collect();
        let same_device = |one: &Found, at: &Path| {
            !job.one_file_system || fs::metadata(at).is_ok_and(|meta| meta.dev() == one.was.dev)
        };
        let is_in = |one: &&Found| {
            let (seconds, nanos) = one.was.ctime;
            // No later than that it got its name and what is in it.
            let since = seconds.saturating_mul(1_000).saturating_add(nanos / 1_000_000);
            since < began
                && !out.iter().any(|out| one.path.starts_with(out))
                && paths.iter().any(|(_, at)| one.path.starts_with(at))
                && paths.iter().all(|(_, at)| !one.path.starts_with(at) || same_device(one, at))
        };
        Self::of(&paths, files.into_iter().filter(is_in))
    }

    /// Takes it off what the next backup is held against.
    pub(super) fn off(&self, last: &mut Last) {
        last.purged.bytes = last.purged.bytes.saturating_add(self.all.bytes);
        last.purged.files = last.purged.files.saturating_add(self.all.files);
        for (path, less) in &self.paths {
            let Some(size) = last.sizes.get_mut(path) else { continue };
            size.bytes = size.bytes.saturating_sub(less.bytes);
            size.files = size.files.saturating_sub(less.files);
        }
    }

    /// Gives it back: it was not removed.
    pub(super) fn back(&self, last: &mut Last) {
        last.purged.bytes = last.purged.bytes.saturating_sub(self.all.bytes);
        last.purged.files = last.purged.files.saturating_sub(self.all.files);
        for (path, more) in &self.paths {
            let Some(size) = last.sizes.get_mut(path) else { continue };
            size.bytes = size.bytes.saturating_add(more.bytes);
            size.files = size.files.saturating_add(more.files);
        }
    }
}

fn add(size: &mut Size, one: &Found) {
    (size.bytes, size.files) = (size.bytes.saturating_add(one.was.size), size.files + 1);
}

/// An item whose backups become smaller.
pub(super) struct Whose {
    pub(super) key: Key,
    /// Another policy's job, and when its last good backup began; `None`: the policy's own.
    other: Option<(Arc<Job>, Moment)>,
}

impl Whose {
    pub(super) fn less<'f>(&self, site: &Site<'_>, files: impl IntoIterator<Item = &'f Found>) -> Less {
        match &self.other {
            None => Less::of(&site.paths, files),
            Some((job, began)) => Less::of_other(site.root.as_deref(), job, *began, files),
        }
    }
}

/// The policy's own items, and the host's others that have a good backup. One that cannot be read is held against what it was.
pub(super) fn whose(run: &Run<'_>, holders: &[Holder]) -> Vec<Whose> {
    let mut all: Vec<Whose> = holders.iter().map(|one| Whose { key: one.key.clone(), other: None }).collect();
    let Key::Backup { host, .. } = run.key else { return all };
    for key in run.work.records.keys(&Unit::from(host.as_str())).unwrap_or_default() {
        if all.iter().any(|one| one.key == key) {
            continue;
        }
        let Ok(Some(record)) = run.work.records.read(&key) else { continue };
        if let (Item::Backup(job), Some(last)) = (&record.item, &record.last) {
            all.push(Whose { key, other: Some((Arc::clone(job), last.began)) });
        }
    }
    all
}
