//! The directory of zone files, watched: an edit by hand is looked at when it is made, not at the next resync.
//!
//! What the system tells is a hint and nothing more. Hints are gathered until it is quiet for a moment; too many of them,
//! or one that was lost, mean every file. Whether a file is another than the one that is known is then seen from its
//! inode, time and size, so that what Shoal wrote itself wakes nobody.
//!
//! A directory that cannot be watched (it is not there, the system has no watches left) is tried again; meanwhile edits
//! are noticed at the resync.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// How long it must be quiet before files are looked at.
const QUIET: Duration = Duration::from_millis(200);
/// How long that is waited for at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// When a directory that could not be watched is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How many names are remembered one by one.
const MAX_NAMES: usize = 1_000;

/// Which files may have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Any of them.
    All,
    /// These names.
    Names(BTreeSet<OsString>),
}

impl Hint {
    /// Whether the file of this name is meant.
    pub(super) fn means(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(std::ffi::OsStr::new(name)),
        }
    }
}

/// What the system told since it was last asked.
#[derive(Debug, Default)]
struct Told {
    names: Mutex<Names>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Names {
    some: BTreeSet<OsString>,
    all: bool,
    /// The directory itself went away: nothing more will be told.
    lost: bool,
}

impl Told {
    fn note(&self, change: impl FnOnce(&mut Names)) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut names);
        if names.some.len() > MAX_NAMES {
            names.some.clear();
            names.all = true;
        }
        drop(names);
        self.bell.notify_one();
    }

    fn hear(&self, directory: &Path, event: notify::Result<notify::Event>) {
        let Ok(event) = event else { return self.note(|names| names.all = true) };
        if event.need_rescan() {
            return self.note(|names| names.all = true);
        }
        // Looking at a file changes nothing.
        if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        for path in &event.paths {
            if path == directory {
                self.note(|names| names.lost |= !directory.exists() || event.kind.is_remove());
            } else if let Some(name) = path.file_name() {
                self.note(|names| {
                    names.some.insert(name.to_owned());
                });
            }
        }
    }

    /// What was told, once it is quiet; nothing if the directory was lost.
    async fn hint(&self) -> Option<Hint> {
        self.bell.notified().await;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && timeout(QUIET, self.bell.notified()).await.is_ok() {}
        let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
        if names.lost {
            return None;
        }
        Some(if names.all { Hint::All } else { Hint::Names(names.some) })
    }
}

/// The eye on the directory.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    told: Arc<Told>,
    watcher: tokio::sync::Mutex<Option<RecommendedWatcher>>,
}

impl Watch {
    /// Nothing is watched before the first [`Watch::next`].
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, told: Arc::default(), watcher: tokio::sync::Mutex::default() }
    }

    /// Waits for the next hint.
    pub(super) async fn next(&self) -> Hint {
        let mut watcher = self.watcher.lock().await;
        let mut said = false;
        loop {
            if watcher.is_some() {
                if let Some(hint) = self.told.hint().await {
                    return hint;
                }
                *watcher = None;
            }
            match self.start() {
                Ok(new) => {
                    *watcher = Some(new);
                    // What happened before is not told.
                    return Hint::All;
                }
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(
                            "{} cannot be watched, edits in it are noticed at the next resync: {error}",
                            self.directory.display()
                        );
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }

    /// Gives a name back that could not be looked at now.
    pub(super) fn again(&self, name: String) {
        self.told.note(|names| {
            names.some.insert(name.into());
        });
    }

    fn start(&self) -> notify::Result<RecommendedWatcher> {
        let (told, directory) = (self.told.clone(), self.directory.clone());
        let mut watcher = notify::recommended_watcher(move |event| told.hear(&directory, event))?;
        watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    }
}
