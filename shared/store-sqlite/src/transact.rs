//! The one connection that writes, and a transaction on it.
//!
//! A task first checks everything it must, then writes; so one that is refused leaves nothing behind and the others of its
//! transaction go on. Whoever holds this may write; what it costs beside the sync is some microseconds a task.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shoal_core::LogEntry;
use shoal_store::parts::Hub;
use shoal_store::{Head, Result};
use tokio::sync::mpsc::WeakSender;

use crate::bell;
use crate::fault::Stop;
use crate::files::Files;
use crate::keeper::Wake;
use crate::large::Order;
use crate::read::{self, Stand};
use crate::shared::{Shared, Unsaid, tell};
use crate::writer::{Answer, Task};

/// What the tasks of one transaction work on.
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    /// How the database stands, with what was done in this transaction so far.
    pub(crate) head: Head,
    /// Up to which revision the scopes are filed.
    pub(crate) scoped: i64,
    /// The revision of the large commit that is being written, if one is.
    pub(crate) staged: Option<i64>,
    /// The commits of this transaction.
    pub(crate) entries: Vec<Arc<LogEntry>>,
}

/// What came of a transaction.
struct Done<T> {
    /// How the database stood before it, in its new life if it began one.
    before: Head,
    entries: Vec<Arc<LogEntry>>,
    value: T,
    /// There where others are to be told: of commits, or of a new life.
    unsaid: Option<Unsaid>,
}

/// How long it takes until a large commit is looked after again, if it is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The writing connection and what is told of its commits.
pub(crate) struct Transactor {
    connection: Connection,
    files: Arc<Files>,
    hub: Arc<Hub>,
    telling: Arc<Mutex<()>>,
    unsaid: Arc<AtomicUsize>,
    /// How many pages the log had after the last commit.
    pages: Arc<AtomicU32>,
    keeper: Wake,
    /// Who clears away what a dead writer left, and when that was asked for last.
    large: WeakSender<Order>,
    asked: Option<Instant>,
}

impl<'a> Tx<'a> {
    /// On what stands there now.
    pub(crate) fn new(connection: &'a Connection) -> rusqlite::Result<Self> {
        let Stand { head, scoped, staged } = read::stand(connection)?;
        Ok(Self { connection, head, scoped, staged, entries: Vec::new() })
    }
}

impl Transactor {
    pub(crate) fn new(
        mut connection: Connection,
        shared: &Shared,
        keeper: Wake,
        large: WeakSender<Order>,
    ) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&pages);
        // In place of SQLite's own, which would copy the log within a commit.
        connection.wal_hook(Some(move |_: &mut _, pages| {
            count.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (files, hub, telling) = (&shared.files, &shared.hub, &shared.telling);
        let (files, hub, telling) = (Arc::clone(files), Arc::clone(hub), Arc::clone(telling));
        let unsaid = Arc::clone(&shared.unsaid);
        Ok(Self { connection, files, hub, telling, unsaid, pages, keeper, large, asked: None })
    }

    /// Does the tasks in one transaction: all that are not refused, durably, or none.
    pub(crate) fn attempt<'t>(
        &mut self,
        tasks: impl Iterator<Item = &'t Task>,
    ) -> Result<Vec<Result<Answer>>, Stop> {
        self.within(|tx| {
            let mut answers = Vec::new();
            for task in tasks {
                answers.push(match tx.perform(task) {
                    Ok(answer) => Ok(answer),
                    Err(Stop::Refused(why)) => Err(why),
                    Err(stop @ (Stop::Sql(_) | Stop::Waits)) => return Err(stop),
                });
            }
            Ok(answers)
        })
    }

    /// Runs `f` in one transaction, durable when this answers, and tells of its commits; or does nothing.
    pub(crate) fn within<T>(&mut self, f: impl FnOnce(&mut Tx<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        self.files.check()?;
        if !self.connection.is_autocommit() {
            // Left by one that panicked.
            self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut staged = false;
        let done = self.transact(&mut staged, f);
        if staged {
            self.look();
        }
        if done.is_err() && !self.connection.is_autocommit() {
            // Where SQLite has not undone it already. If this fails, the next BEGIN does, and says so.
            let _ = self.connection.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]));
        }
        let Done { before, entries, value, unsaid } = done?;
        if unsaid.is_some() {
            tell(&self.hub, &self.telling, &self.connection, before, entries);
            bell::ring(&self.files.log);
        }
        drop(unsaid);
        self.keeper.after(self.pages.load(Ordering::Relaxed));
        Ok(value)
    }

    /// Has somebody look whether the writer of what is staged lives.
    fn look(&mut self) {
        if self.asked.is_none_or(|asked| asked.elapsed() > LOOK_AGAIN) {
            self.asked = Some(Instant::now());
            // One that finds no room is not the last.
            if let Some(large) = self.large.upgrade() {
                let _ = large.try_send(Order::Look);
            }
        }
    }

    fn transact<T>(
        &self,
        staged: &mut bool,
        f: impl FnOnce(&mut Tx<'_>) -> Result<T, Stop>,
    ) -> Result<Done<T>, Stop> {
        let mut tx = Tx::new(&self.connection)?;
        *staged = tx.staged.is_some();
        let head = tx.head;
        let value = f(&mut tx)?;
        let before = Head { epoch: tx.head.epoch, ..head };
        let entries = tx.entries;
        let tells = before.epoch != head.epoch || !entries.is_empty();
        // Readers may see it before the hub knows: what they saw must not be newer than what is then said to be the newest.
        let unsaid = tells.then(|| Unsaid::raise(&self.unsaid));
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(Done { before, entries, value, unsaid })
    }
}

impl Tx<'_> {
    fn perform(&mut self, task: &Task) -> Result<Answer, Stop> {
        match task {
            Task::Commit(commit, least) => self.commit(commit, *least).map(Answer::Committed),
            Task::Claim(want) => self.claim(want).map(Answer::Claimed),
            Task::Release(claim) => self.release(claim).map(|()| Answer::Done),
            Task::Ledger(rows, held) => self.write_ledger(rows, held).map(|()| Answer::Done),
            Task::Report(status) => self.report(status).map(|()| Answer::Done),
            Task::Epoch(epoch) => {
                let mut sql = self.connection.prepare_cached("UPDATE meta SET epoch = ?1")?;
                sql.execute([epoch.0.cast_signed()])?;
                self.head.epoch = *epoch;
                Ok(Answer::Epoch(*epoch))
            }
        }
    }
}
