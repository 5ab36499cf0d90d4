//! The one connection that writes, and a transaction on it.
//!
//! A task first checks everything it must, then writes; so one that is refused leaves nothing behind and the others of its
//! transaction go on. Whoever holds this may write; what it costs beside the sync is some microseconds a task.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use shoal_core::LogEntry;
use shoal_store::parts::Hub;
use shoal_store::{Head, Result};

use crate::fault::Stop;
use crate::files::Files;
use crate::keeper::Wake;
use crate::shared::{Shared, tell};
use crate::writer::{Answer, Task};
use crate::{bell, read};

/// What the tasks of one transaction work on.
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    /// How the database stands, with what was done in this transaction so far.
    pub(crate) head: Head,
    /// Up to which revision the scopes are filed.
    pub(crate) scoped: i64,
    /// The commits of this transaction.
    pub(crate) entries: Vec<Arc<LogEntry>>,
}

/// The writing connection and what is told of its commits.
pub(crate) struct Transactor {
    connection: Connection,
    files: Arc<Files>,
    hub: Arc<Hub>,
    telling: Arc<Mutex<()>>,
    /// How many pages the log had after the last commit.
    pages: Arc<AtomicU32>,
    keeper: Wake,
}

impl Transactor {
    pub(crate) fn new(mut connection: Connection, shared: &Shared, keeper: Wake) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&pages);
        // In place of SQLite's own, which would copy the log within a commit.
        connection.wal_hook(Some(move |_: &mut _, pages| {
            count.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (files, hub, telling) = (&shared.files, &shared.hub, &shared.telling);
        let (files, hub, telling) = (Arc::clone(files), Arc::clone(hub), Arc::clone(telling));
        Ok(Self { connection, files, hub, telling, pages, keeper })
    }

    /// Does the tasks in one transaction: all that are not refused, durably, or none.
    pub(crate) fn attempt<'t>(
        &mut self,
        tasks: impl Iterator<Item = &'t Task>,
    ) -> Result<Vec<Result<Answer>>, Stop> {
        self.files.check()?;
        if !self.connection.is_autocommit() {
            // Left by one that panicked.
            self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        }
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = self.transact(tasks);
        if done.is_err() && !self.connection.is_autocommit() {
            // Where SQLite has not undone it already. If this fails, the next BEGIN does, and says so.
            let _ = self.connection.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]));
        }
        let (before, entries, answers, told) = done?;
        if told || !entries.is_empty() {
            tell(&self.hub, &self.telling, &self.connection, before, entries);
            bell::ring(&self.files.log);
        }
        self.keeper.after(self.pages.load(Ordering::Relaxed));
        Ok(answers)
    }

    #[allow(clippy::type_complexity, reason = "it goes nowhere but into the next lines")]
    fn transact<'t>(
        &self,
        tasks: impl Iterator<Item = &'t Task>,
    ) -> Result<(Head, Vec<Arc<LogEntry>>, Vec<Result<Answer>>, bool), Stop> {
        let (head, scoped) = read::newest(&self.connection)?;
        let mut before = head;
        let mut told = false;
        let mut tx = Tx { connection: &self.connection, head, scoped, entries: Vec::new() };
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(match tx.perform(task) {
                Ok(answer) => Ok(answer),
                Err(Stop::Refused(why)) => Err(why),
                Err(stop @ Stop::Sql(_)) => return Err(stop),
            });
        }
        if tx.head.epoch != head.epoch {
            before.epoch = tx.head.epoch;
            told = true;
        }
        let entries = tx.entries;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok((before, entries, answers, told))
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
