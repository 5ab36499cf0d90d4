//! The embedded default store: one SQLite file.
//!
//! # What it promises
//!
//! * An acknowledged commit survives `kill -9` and power loss: write-ahead log, `synchronous=FULL`, and an answer
//!   only after the sync. Shown by tests that kill writers and that drop every write not yet synced.
//! * Commits that arrive together share one transaction and one sync (see `writer`), each with its own
//!   answer.
//! * A large commit is whole like any other, and holds others up for no longer than a slice of it takes (see `large` and `stage`).
//! * Several processes of one machine may open the same file, through any mix of commits, claims and watches.
//!   A commit of another process wakes watchers through `inotify` (see `bell`); nothing is polled.
//! * Claims expire by the time since boot, so neither a wall clock that is set nor a suspended laptop makes two
//!   holders of one claim; after a reboot, every claim with an end has ended.
//!
//! # What it assumes
//!
//! Linux; a local file system (the write-ahead log needs shared memory between the processes); a disk that
//! does not lie about syncs; and that all processes share one time namespace.
//!
//! How the tables are laid out and why stands in `docs/decisions/0002-sqlite-store.md`.

mod ahead;
mod around;
mod bell;
mod boot;
mod claims;
mod commit;
mod copies;
mod draft;
mod fault;
mod files;
mod keeper;
mod large;
mod ledger;
mod log;
mod open;
mod pre;
mod read;
mod readers;
mod rests;
mod schema;
mod scopes;
mod shared;
mod stage;
mod texts;
mod transact;
mod turn;
mod verify;
mod whole;
mod writer;

use std::path::Path;
use std::sync::Arc;

use shoal_core::{Commit, Committed, Epoch, HostName, LogEntry, Range, Revision, Status};
use shoal_store::parts::{Chorus, History, validate, validate_claim, validate_ledger, validate_query};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, LedgerPage, LedgerWrite, Page, Position,
    Query, Result, Store, StoreError, Texts, Whole,
};

pub use copies::{Restored, backup, restore};
pub use draft::SqliteDraft;
pub use open::Options;
use shared::Shared;
pub use verify::{Damage, Verified, verify};
use writer::{Answer, Task, Writer};

/// Commits of more changes than this are checked beside the runtime's own threads.
const LARGE: usize = 1000;

/// A [`Store`] in one SQLite file. A clone is another handle of the same connection.
///
/// Needs a tokio runtime. The last handle to go finishes what was begun and closes the file; watches that are
/// still listened to keep it open for reading.
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    writer: Writer,
    /// How new the file is, for all who want to know while the hub cannot tell.
    newest: Chorus<Head>,
    /// There once the file was checked whole: [`Options::brief()`] leaves that to the first who writes.
    checked: tokio::sync::OnceCell<()>,
}

impl SqliteStore {
    /// Opens the database in the file `path`, and makes it where there is none.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a file that is something else or was written by a newer version,
    /// [`StoreError::Corrupt`] for a damaged one, [`StoreError::ReadOnly`], [`StoreError::Full`],
    /// [`StoreError::Unavailable`]: each names the file, the reason and the way out.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default()).await
    }

    /// [`SqliteStore::open`], otherwise than by default.
    ///
    /// # Errors
    /// As there.
    pub async fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let opened = blocking(move || {
            let open::Opened { place, connection, head, checked } = open::open(&path, &options)?;
            let checked = tokio::sync::OnceCell::new_with(checked.then_some(()));
            let shared = Arc::new(Shared::new(place, options, head));
            let writer = Writer::start(connection, &shared)?;
            Ok(Inner { shared, writer, newest: Chorus::default(), checked })
        });
        opened.await.map(|inner| Self(Arc::new(inner)))
    }

    /// Makes this another life of the database and answers its new epoch: for a backup that was restored. What
    /// follows the database, in this process or another, is told to read anew.
    ///
    /// # Errors
    /// As for a commit.
    pub async fn new_epoch(&self) -> Result<Epoch> {
        match self.write(Task::Epoch(open::random_epoch()?)).await? {
            Answer::Epoch(epoch) => Ok(epoch),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs `f` with a reader connection, beside the runtime's own threads.
    async fn reading<T: Send + 'static>(
        &self,
        f: impl FnOnce(&rusqlite::Connection) -> Result<T, fault::Stop> + Send + 'static,
    ) -> Result<T> {
        self.0.shared.reading(f).await
    }

    /// Does the task, in a file that was checked whole.
    async fn write(&self, task: Task) -> Result<Answer> {
        if !self.0.checked.initialized() {
            let check = || {
                let place = self.0.shared.files.place.clone();
                self.reading(move |c| open::whole(c, &place))
            };
            self.0.checked.get_or_try_init(check).await?;
        }
        self.0.writer.run(task).await
    }
}

/// Runs what blocks beside the runtime's own threads.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|error| {
        Err(StoreError::Unavailable { place: "the store".into(), why: format!("it stopped inside: {error}") })
    })
}

fn unexpected(answer: &Answer) -> StoreError {
    StoreError::Unavailable { place: "the store".into(), why: format!("it answered out of turn: {answer:?}") }
}

impl Store for SqliteStore {
    fn head(&self) -> Fut<'_, Result<Head>> {
        Box::pin(self.reading(|c| Ok(read::head(c)?)))
    }

    fn newest(&self) -> Fut<'_, Result<Head>> {
        if let Some(head) = self.0.shared.heard() {
            return Box::pin(std::future::ready(Ok(head)));
        }
        let ask = || {
            let shared = Arc::clone(&self.0.shared);
            async move { shared.reading(|c| Ok(read::head(c)?)).await }
        };
        Box::pin(self.0.newest.ask(ask))
    }

    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let query = query.clone();
        Box::pin(async move {
            let limit = validate_query(&query)?;
            self.reading(move |c| read::page(c, &query, limit)).await
        })
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        self.commit_at(commit, Revision(0))
    }

    fn commit_at(&self, commit: Commit, least: Revision) -> Fut<'_, Result<Committed>> {
        Box::pin(async move {
            let commit = if commit.changes.len() > LARGE {
                blocking(move || validate(commit)).await?
            } else {
                validate(commit)?
            };
            match self.write(Task::Commit(commit, least)).await? {
                Answer::Committed(done) => Ok(done),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        let range = range.clone();
        Box::pin(self.reading(move |c| log::log(c, &range, before, limit)))
    }

    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let history: Arc<dyn History> = Arc::clone(&self.0.shared) as _;
        self.0.shared.hub.watch(history, filter, after)
    }

    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        let want = want.clone();
        Box::pin(async move {
            validate_claim(&want)?;
            match self.write(Task::Claim(want)).await? {
                Answer::Claimed(answer) => Ok(answer),
                other => Err(unexpected(&other)),
            }
        })
    }

    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        let claim = claim.clone();
        Box::pin(async move { self.write(Task::Release(claim)).await.map(drop) })
    }

    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        let prefix = prefix.to_owned();
        Box::pin(self.reading(move |c| claims::list(c, &prefix)))
    }

    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(self.reading(move |c| ledger::page(c, &prefix, after.as_deref(), limit)))
    }

    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        let held = held.clone();
        Box::pin(async move {
            validate_ledger(&rows)?;
            self.write(Task::Ledger(rows, held)).await.map(drop)
        })
    }

    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        Box::pin(async move { self.write(Task::Report(Box::new(status))).await.map(drop) })
    }

    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        Box::pin(self.reading(ledger::reports))
    }

    fn whole(&self) -> Option<&dyn Whole> {
        Some(self)
    }

    fn texts(&self, ranges: &[Range], last: fn(&str) -> bool) -> Fut<'_, Result<Option<Texts>>> {
        let ranges = ranges.to_vec();
        Box::pin(self.reading(move |c| texts::texts(c, &ranges, last).map(Some)))
    }

    fn around(&self, host: &HostName, at: Option<Revision>) -> Fut<'_, Result<Option<Page>>> {
        let host = host.clone();
        Box::pin(self.reading(move |c| around::around(c, &host, at).map(Some)))
    }
}

#[cfg(test)]
mod suite {
    async fn store() -> shoal_store::conformance::Made {
        let folder = tempfile::tempdir().unwrap();
        let store = super::SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
        shoal_store::conformance::Made::new(store, folder)
    }
    shoal_store::conformance!(store);
}

/// The same, with every commit of more than one change written in slices, and few revisions for those that come between.
#[cfg(test)]
mod sliced {
    async fn store() -> shoal_store::conformance::Made {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shoal.db");
        let options = super::Options { room: Some(3), ..super::Options::default().slices_of(1) };
        let store = super::SqliteStore::open_with(path, options).await.unwrap();
        shoal_store::conformance::Made::new(store, folder)
    }
    shoal_store::conformance!(store);
}
