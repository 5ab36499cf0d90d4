//! The one thread that writes, and group commit.
//!
//! Everything that writes goes through a bounded queue to this thread. It takes all that is waiting, does it in
//! one transaction, syncs once and then answers each: with many writers the price of a sync is shared, with one
//! writer nothing waits. Each task first checks everything it must, then writes; so one that is refused leaves
//! nothing behind and the others go on. If SQLite itself stops (a full disk, a damaged page), the whole group is
//! undone and each of its tasks is tried again alone: only those that cannot be done fail.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shoal_core::{Commit, Committed, Epoch, LogEntry, Status};
use shoal_store::parts::Hub;
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Head, LedgerWrite, MAX_COMMIT, Result, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::ahead::Ahead;
use crate::fault::Stop;
use crate::files::Files;
use crate::shared::{Shared, tell};
use crate::{bell, read};

/// The most tasks that wait; who comes later waits for room.
const QUEUE: usize = 1024;
/// The most tasks of one transaction.
const GROUP: usize = 512;
/// Which part of the last transaction's time is waited at most for those who come back.
const PATIENCE: u32 = 4;
/// The most that is waited, however slow the disk.
const LONGEST: Duration = Duration::from_millis(1);
/// The most octets of all tasks that wait, in KiB: two of the largest commits.
const ROOM: usize = 2 * (MAX_COMMIT >> 10);

/// Something to write.
#[derive(Debug)]
pub(crate) enum Task {
    /// A commit that was validated.
    Commit(Commit),
    Claim(ClaimRequest),
    Release(Claim),
    Ledger(Vec<LedgerWrite>, Claim),
    Report(Box<Status>),
    Epoch(Epoch),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Committed(Committed),
    Claimed(ClaimAnswer),
    Epoch(Epoch),
    Done,
}

struct Job {
    task: Task,
    answer: oneshot::Sender<Result<Answer>>,
    _room: OwnedSemaphorePermit,
}

/// The thread and its queue. Dropping it finishes what waits.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    room: Arc<Semaphore>,
    files: Arc<Files>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(connection: Connection, shared: &Shared) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let loops = Loop {
            connection,
            files: Arc::clone(&shared.files),
            hub: Arc::clone(&shared.hub),
            telling: Arc::clone(&shared.telling),
        };
        let thread = std::thread::Builder::new().name("shoal-writer".into()).spawn(move || loops.run(jobs));
        let thread = thread.map_err(|error| StoreError::Unavailable {
            place: shared.files.place.display().to_string(),
            why: format!("starting a thread: {error}"),
        })?;
        let room = Arc::new(Semaphore::new(ROOM));
        Ok(Self { queue: Some(queue), room, files: Arc::clone(&shared.files), thread: Some(thread) })
    }

    /// Queues the task and waits for its answer. If the caller goes away, the task is done all the same.
    pub(crate) async fn run(&self, task: Task) -> Result<Answer> {
        let closed = |_| StoreError::Unavailable {
            place: self.files.place.display().to_string(),
            why: "its writer has stopped; open it again".into(),
        };
        let need = u32::try_from((size(&task) >> 10) + 1).unwrap_or(u32::MAX).min(ROOM as u32);
        let room =
            Arc::clone(&self.room).acquire_many_owned(need).await.map_err(|e| closed(e.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(|| closed(String::new()))?;
        queue.send(Job { task, answer, _room: room }).await.map_err(|e| closed(e.to_string()))?;
        answered.await.map_err(|e| closed(e.to_string()))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// About how many octets the task holds.
fn size(task: &Task) -> usize {
    match task {
        Task::Commit(commit) => {
            let changes = commit.changes.iter();
            changes
                .map(|c| 64 + c.key.as_str().len() + c.value.as_ref().map_or(0, |v| v.as_str().len()))
                .sum()
        }
        Task::Ledger(rows, _) => rows.iter().map(|r| 64 + r.value.as_ref().map_or(0, Vec::len)).sum(),
        Task::Claim(_) | Task::Release(_) | Task::Report(_) | Task::Epoch(_) => 256,
    }
}

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

/// How many clients there were lately, and how long their transaction took.
///
/// Those that were answered together come back one after the other. Who began at once with the first of them would
/// make the others wait for a sync and then for their own; a moment's patience halves what most of them wait.
#[derive(Debug, Default)]
struct Pace {
    clients: usize,
    took: Duration,
}

impl Pace {
    /// Takes more tasks, until as many are there as were lately, for at most a fraction of what a transaction takes.
    fn gather(&self, jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Job>) {
        let begun = Instant::now();
        while group.len() < self.clients && begun.elapsed() < (self.took / PATIENCE).min(LONGEST) {
            match jobs.try_recv() {
                Ok(job) => group.push(job),
                // Lets those run who are to come.
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    fn last(&mut self, size: usize, took: Duration) {
        // When clients go away, it is noticed within a few groups; a single one is not waited for at all.
        self.clients = if size > 1 { size.max(self.clients - self.clients / 4) } else { 0 };
        self.took = took;
    }
}

struct Loop {
    connection: Connection,
    files: Arc<Files>,
    hub: Arc<Hub>,
    telling: Arc<Mutex<()>>,
}

impl Loop {
    fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP);
        let (mut pace, mut ahead) = (Pace::default(), Ahead::default());
        while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
            pace.gather(&mut jobs, &mut group);
            let (size, begun) = (group.len(), Instant::now());
            self.group(&mut group);
            pace.last(size, begun.elapsed());
            ahead.keep(&self.connection, &self.files.log);
        }
    }

    fn group(&self, group: &mut Vec<Job>) {
        match self.attempt(group.iter().map(|job| &job.task)) {
            Ok(answers) => {
                for (job, answer) in group.drain(..).zip(answers) {
                    // Whoever asked may have gone.
                    let _ = job.answer.send(answer);
                }
            }
            // Nobody got in for long: trying each would take as long again and again.
            Err(stop) if group.len() == 1 || stop.is_busy() => {
                let why = stop.at(&self.files.place, "writing");
                for job in group.drain(..) {
                    let _ = job.answer.send(Err(why.clone()));
                }
            }
            Err(_) => {
                for job in group.drain(..) {
                    let alone = self.attempt(std::iter::once(&job.task));
                    let answer = alone.map(|mut answers| answers.swap_remove(0));
                    let answer = answer.unwrap_or_else(|stop| Err(stop.at(&self.files.place, "writing")));
                    let _ = job.answer.send(answer);
                }
            }
        }
    }

    /// Does the tasks in one transaction: all that are not refused, durably, or none.
    fn attempt<'t>(&self, tasks: impl Iterator<Item = &'t Task>) -> Result<Vec<Result<Answer>>, Stop> {
        self.files.check()?;
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let done = self.transact(tasks);
        if done.is_err() && !self.connection.is_autocommit() {
            // Where SQLite has not undone it already. If this fails, the next BEGIN does, and says so.
            let _ = self.connection.prepare_cached("ROLLBACK").and_then(|mut s| s.execute([]));
        }
        let (before, entries, answers, told) = done?;
        if told || !entries.is_empty() {
            tell(&self.hub, &self.telling, before, entries);
            bell::ring(&self.files.log);
        }
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
            Task::Commit(commit) => self.commit(commit).map(Answer::Committed),
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
