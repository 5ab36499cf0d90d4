//! The thread that looks after the write-ahead log, so that no commit has to: room before it is needed (see `ahead`), and
//! copies of the log into the file.
//!
//! SQLite by itself copies the log within the commit that made it long enough, and everybody waits for that. Here a
//! connection of its own copies it while commits go on; then commits are held up for what was written
//! meanwhile, which is little: a log that is copied to its end is begun anew by the next commit, and one that is never
//! would grow for ever. What does not succeed, for a full disk or another process that does the same, is tried again
//! when the log has grown further: it only costs room.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use shoal_store::Result;

use crate::ahead::Ahead;
use crate::fault::fault;
use crate::files::Files;
use crate::open::{CHECKPOINT, Options, keeper};
use crate::shared::Shared;
use crate::writer::thread;

/// A page with the head of its frame, in octets.
const FRAME: u64 = 4096 + 24;
/// So many pages are copied while commits of this process wait: some milliseconds.
const LITTLE: i64 = 256;
/// How often more than that is copied beside commits: a slower disk than that never gets there.
const PASSES: u32 = 6;
/// By which part of its limit the log has to grow until a copy is tried again that did not lead to its end.
const AGAIN: u32 = 8;

/// What commits tell the keeper, and it them.
#[derive(Debug)]
struct Told {
    /// The log has become long enough to be copied.
    copy: AtomicBool,
    /// How long the log is, in octets, as far as is known.
    room: AtomicU64,
}

/// How a commit wakes the keeper.
pub(crate) struct Wake {
    wanted: SyncSender<Want>,
    told: Arc<Told>,
    limit: u32,
    /// From how many pages on the log is to be copied.
    due: u32,
    last: u32,
}

#[derive(Debug)]
enum Want {
    Look,
    End,
}

/// One that was not started yet.
pub(crate) struct Idle {
    wanted: (SyncSender<Want>, Receiver<Want>),
    told: Arc<Told>,
}

/// The thread. Dropping it finishes what it is at.
pub(crate) struct Keeper {
    wanted: SyncSender<Want>,
    thread: Option<JoinHandle<()>>,
}

impl Idle {
    pub(crate) fn new(options: &Options) -> (Self, Wake) {
        // One that was not heard yet is enough.
        let wanted = sync_channel(1);
        let told = Arc::new(Told { copy: AtomicBool::new(false), room: AtomicU64::new(0) });
        let limit = options.checkpoint.unwrap_or(CHECKPOINT);
        let wake = Wake { wanted: wanted.0.clone(), told: told.clone(), limit, due: limit, last: 0 };
        (Self { wanted, told }, wake)
    }

    /// Starts it. Who holds `desk` commits.
    pub(crate) fn start<T: Send + 'static>(self, shared: &Shared, desk: Arc<Mutex<T>>) -> Result<Keeper> {
        let Self { wanted: (wanted, wants), told } = self;
        let (files, options) = (Arc::clone(&shared.files), shared.options.clone());
        let mut keeping = Keeping { files, options, told, desk, connection: None, ahead: Ahead::default() };
        let run = move || {
            while let Ok(Want::Look) = wants.recv() {
                if let Err(error) = keeping.look() {
                    // The log grows meanwhile, and is read as well as before.
                    tracing::warn!(%error, "the write-ahead log could not be looked after");
                }
            }
        };
        let thread = Some(thread("shoal-keeper", &shared.files.place, run)?);
        Ok(Keeper { wanted, thread })
    }
}

impl Wake {
    /// Called after each commit, with the pages that the log has then.
    pub(crate) fn after(&mut self, pages: u32) {
        if pages < self.last {
            self.due = self.limit; // it was begun anew
        }
        self.last = pages;
        let copy = pages >= self.due;
        if copy {
            self.due = pages.saturating_add(1 + self.limit / AGAIN);
            self.told.copy.store(true, Ordering::SeqCst);
        }
        if copy || u64::from(pages) * FRAME > self.told.room.load(Ordering::Relaxed) {
            let _ = self.wanted.try_send(Want::Look);
        }
    }
}

struct Keeping<T> {
    files: Arc<Files>,
    options: Options,
    told: Arc<Told>,
    desk: Arc<Mutex<T>>,
    connection: Option<Connection>,
    ahead: Ahead,
}

impl<T> Keeping<T> {
    fn look(&mut self) -> Result<()> {
        self.files.check()?;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => keeper(&self.files.place, &self.options)?,
        };
        let copied = self.told.copy.swap(false, Ordering::SeqCst).then(|| self.copy(&connection));
        let room = {
            let _held = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
            self.ahead.keep(&connection, &self.files.log)
        };
        self.told.room.store(self.ahead.length(), Ordering::Relaxed);
        if let Some(room) = room {
            // What does not succeed is left to the commits' own syncs.
            let _ = room.sync_data();
        }
        self.connection = Some(connection);
        copied.unwrap_or(Ok(())).map_err(|error| fault(&self.files.place, "copying its log into it", &error))
    }

    /// Copies the log while commits go on, again until they add little meanwhile, and then what they added.
    fn copy(&self, connection: &Connection) -> rusqlite::Result<()> {
        // How many pages the log has, and how many of them are copied then.
        let copy = || {
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
        };
        let (_, mut done) = copy()?;
        for _ in 0..PASSES {
            let (pages, now) = copy()?;
            if pages - done <= LITTLE {
                break;
            }
            done = now;
        }
        let _held = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        copy().map(drop)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.wanted.send(Want::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::{Change, Commit, Document, Key};
    use shoal_store::Store;

    use crate::open::{Options, log_of};
    use crate::{SqliteStore, files};

    #[tokio::test]
    async fn the_log_is_copied_and_begun_anew_while_commits_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shoal.db");
        let store = SqliteStore::open_with(&path, Options::default().checkpoint_after(100)).await.unwrap();
        let before = files::length(&path).unwrap();
        for n in 0..3000 {
            let host = Key::host(&format!("h{}.example.com", n % 50).parse().unwrap());
            let value = Document::parse(&format!("{{\"id\":\"{n}\"}}")).unwrap();
            let commit = Commit::new("a", "m", vec![Change::put(host, value)]);
            store.commit(commit).await.unwrap();
        }
        // Two pages a commit and more: 24 MiB, if it were never begun anew.
        let log = files::length(&log_of(&path)).unwrap();
        assert!(log < 8 << 20, "the log has {log} octets");
        assert!(files::length(&path).unwrap() > before + 100_000, "nothing was copied into the file");
    }
}
