//! Who writes when: at once where nobody else does, otherwise one thread and group commit.
//!
//! A small task that comes while nobody writes is done by who asks, on his own thread: handed to another it would wait for two
//! threads to wake, which takes a quarter as long as the sync. That blocks a thread of the runtime for as long as a commit
//! takes; so it is done only while commits take less than a millisecond, and never waits: neither for a commit of this
//! process, nor for one of another, nor for the log to be copied.
//!
//! Everything else goes through a bounded queue to one thread. It takes all that is waiting, does it in
//! one transaction, syncs once and then answers each: with many writers the price of a sync is shared. A large task is done
//! by itself, after the small ones that came with it; a large commit by another thread, in slices between which this one goes on (see
//! `large`). If SQLite itself stops (a full disk, a damaged page), the whole group is
//! undone and each of its tasks is tried again alone: only those that cannot be done fail.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shoal_core::{Commit, Committed, Epoch, Revision, Status};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, MAX_COMMIT, Result, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::fault::{Stop, fault};
use crate::files::Files;
use crate::keeper::{Idle, Keeper};
use crate::large::{self, Large, Order};
use crate::shared::Shared;
use crate::transact::Transactor;
use crate::{open, read};

/// The most tasks that wait; who comes later waits for room.
const QUEUE: usize = 1024;
/// The most tasks of one transaction.
const GROUP: usize = 512;
/// Which part of the last transaction's time is waited at most for those who come back.
const PATIENCE: u32 = 4;
/// The most that is waited, however slow the disk; and the longest that a commit may take which is done at once.
const LONGEST: Duration = Duration::from_millis(1);
/// The most octets of all tasks that wait, in KiB, and again of the large commits among them: one of the largest each. Apart, so that no
/// task waits for a large commit to be done.
const ROOM: usize = MAX_COMMIT >> 10;
/// The most octets of a task that is done at once, about.
const SMALL: usize = 64 << 10;
/// A task of more octets than this has a transaction of its own, or several where it is a commit.
const LARGE: usize = 1 << 20;
/// How long a task waits at a time for a large commit that has the next revision.
const NEXT: Duration = Duration::from_millis(1);

/// Starts a thread of this store.
pub(crate) fn thread(name: &str, place: &Path, f: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(f).map_err(|error| StoreError::Unavailable {
        place: place.display().to_string(),
        why: format!("starting a thread: {error}"),
    })
}

/// Something to write.
#[derive(Debug)]
pub(crate) enum Task {
    /// A commit that was validated, and the revision that it gets at least.
    Commit(Commit, Revision),
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

pub(crate) struct Job {
    task: Task,
    answer: Asker,
}

/// Who waits for an answer, and the room that the task takes until then.
pub(crate) struct Asker {
    answer: oneshot::Sender<Result<Answer>>,
    _room: OwnedSemaphorePermit,
}

impl Asker {
    pub(crate) fn send(self, answer: Result<Answer>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

impl Job {
    pub(crate) fn apart(self) -> (Task, Asker) {
        (self.task, self.answer)
    }
}

/// The thread and its queue. Dropping it finishes what waits.
pub(crate) struct Writer {
    queue: Option<mpsc::Sender<Job>>,
    room: Arc<Semaphore>,
    large_room: Arc<Semaphore>,
    files: Arc<Files>,
    thread: Option<JoinHandle<()>>,
    desk: Arc<Mutex<Desk>>,
    /// Commits of more changes than this are large.
    most: usize,
    large: Large,
    // Goes after the threads.
    _keeper: Keeper,
}

impl Writer {
    pub(crate) fn start(connection: Connection, shared: &Shared) -> Result<Self> {
        let failed = |error| fault(&shared.files.place, "opening the database", &error);
        let (queue, jobs) = mpsc::channel(QUEUE);
        let (keeper, wake) = Idle::new(&shared.options);
        let orders = mpsc::channel(QUEUE);
        if read::stand(&connection).map_err(&failed)?.staged.is_some() {
            // There is room for one.
            let _ = orders.0.try_send(Order::Look);
        }
        let transactor = Transactor::new(connection, shared, wake, orders.0.downgrade()).map_err(failed)?;
        let desk = Arc::new(Mutex::new(Desk { transactor, pace: Pace::default() }));
        let keeper = keeper.start(shared, desk.clone())?;
        let (large, most) = (Large::start(shared, &desk, orders)?, large::most(&shared.options));
        let (work, files) = (Arc::clone(&desk), Arc::clone(&shared.files));
        let thread = thread("shoal-writer", &shared.files.place, move || run(&work, &files.place, jobs))?;
        let [room, large_room] = [(); 2].map(|()| Arc::new(Semaphore::new(ROOM)));
        let files = Arc::clone(&shared.files);
        Ok(Self {
            queue: Some(queue),
            room,
            large_room,
            files,
            thread: Some(thread),
            desk,
            most,
            large,
            _keeper: keeper,
        })
    }

    /// Does the task, at once or when its turn comes. If the caller goes away, it is done all the same.
    pub(crate) async fn run(&self, task: Task) -> Result<Answer> {
        if let Some(answer) = self.at_once(&task) {
            return answer;
        }
        let closed = |_| StoreError::Unavailable {
            place: self.files.place.display().to_string(),
            why: "its writer has stopped; open it again".into(),
        };
        let need = u32::try_from((size(&task) >> 10) + 1).unwrap_or(u32::MAX).min(ROOM as u32);
        let large = self.is_large(&task);
        let room = Arc::clone(if large { &self.large_room } else { &self.room });
        let room = room.acquire_many_owned(need).await.map_err(|e| closed(e.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let job = Job { task, answer: Asker { answer, _room: room } };
        let sent = match (&self.queue, &self.large.orders) {
            (_, Some(orders)) if large => {
                orders.send(Order::Commit(Box::new(job))).await.map_err(|e| e.to_string())
            }
            (Some(queue), _) => queue.send(job).await.map_err(|e| e.to_string()),
            (None, _) => Err(String::new()),
        };
        sent.map_err(closed)?;
        answered.await.map_err(|e| closed(e.to_string()))?
    }

    /// Whether it is written in slices.
    fn is_large(&self, task: &Task) -> bool {
        let Task::Commit(commit, _) = task else { return false };
        commit.changes.len() > self.most || commit.pre.len() > self.most || size(task) > LARGE
    }

    /// Does the task now, on this thread, if it is small, nobody else writes, and the disk is fast.
    fn at_once(&self, task: &Task) -> Option<Result<Answer>> {
        let waiting = self.queue.as_ref().is_none_or(|queue| queue.capacity() < queue.max_capacity());
        if waiting || size(task) > SMALL || self.is_large(task) {
            return None;
        }
        let mut desk = match self.desk.try_lock() {
            Ok(desk) => desk,
            Err(TryLockError::Poisoned(desk)) => desk.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if desk.pace.clients > 0 || desk.pace.took > LONGEST {
            return None;
        }
        let begun = Instant::now();
        let done = open::without_waiting(|| desk.transactor.attempt(std::iter::once(task)));
        desk.pace.last(1, begun.elapsed());
        match done {
            Ok(mut answers) => Some(answers.swap_remove(0)),
            // Another process writes, or has the next revision: that is waited for elsewhere.
            Err(stop) if stop.is_busy() || matches!(stop, Stop::Waits) => None,
            Err(stop) => Some(Err(stop.at(&self.files.place, "writing"))),
        }
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
        Task::Commit(commit, _) => {
            let changes = commit.changes.iter();
            changes
                .map(|c| 64 + c.key.as_str().len() + c.value.as_ref().map_or(0, |v| v.as_str().len()))
                .sum()
        }
        Task::Ledger(rows, _) => rows.iter().map(|r| 64 + r.value.as_ref().map_or(0, Vec::len)).sum(),
        Task::Claim(_) | Task::Release(_) | Task::Report(_) | Task::Epoch(_) => 256,
    }
}

/// How many clients there were lately, and how long their transaction took.
///
/// Those that were answered together come back one after the other. Who began at once with the first of them would
/// make the others wait for a sync and then for their own; a moment's patience halves what most of them wait.
#[derive(Clone, Copy, Debug, Default)]
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

/// Who may write now, and how long it took lately.
pub(crate) struct Desk {
    pub(crate) transactor: Transactor,
    pace: Pace,
}

pub(crate) fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what waits, until nobody can ask for more.
fn run(desk: &Mutex<Desk>, place: &Path, mut jobs: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let pace = lock(desk).pace;
        pace.gather(&mut jobs, &mut group);
        let large = group.extract_if(.., |job| size(&job.task) > LARGE).collect::<Vec<_>>();
        for mut part in
            std::iter::once(std::mem::take(&mut group)).chain(large.into_iter().map(|job| vec![job]))
        {
            if part.is_empty() {
                continue;
            }
            let first = Instant::now();
            loop {
                let mut desk = lock(desk);
                let (size, begun) = (part.len(), Instant::now());
                let done = desk.transactor.group(place, &mut part);
                desk.pace.last(size, begun.elapsed());
                drop(desk);
                match done {
                    Ok(()) => break,
                    Err(_) if first.elapsed() < open::BUSY => std::thread::sleep(NEXT),
                    Err(stop) => {
                        refuse(&mut part, &stop.at(place, "writing"));
                        break;
                    }
                }
            }
        }
    }
}

fn refuse(group: &mut Vec<Job>, why: &StoreError) {
    for job in group.drain(..) {
        job.answer.send(Err(why.clone()));
    }
}

impl Transactor {
    /// Does them and answers each. An error: they are to be tried again.
    fn group(&mut self, place: &Path, group: &mut Vec<Job>) -> Result<(), Stop> {
        match self.attempt(group.iter().map(|job| &job.task)) {
            Ok(answers) => {
                for (job, answer) in group.drain(..).zip(answers) {
                    job.answer.send(answer);
                }
            }
            Err(stop @ Stop::Waits) => return Err(stop),
            // Nobody got in for long: trying each would take as long again and again.
            Err(stop) if group.len() == 1 || stop.is_busy() => {
                refuse(group, &stop.at(place, "writing"));
            }
            Err(_) => {
                for job in group.drain(..) {
                    let alone = self.attempt(std::iter::once(&job.task));
                    let answer = alone.map(|mut answers| answers.swap_remove(0));
                    job.answer.send(answer.unwrap_or_else(|stop| Err(stop.at(place, "writing"))));
                }
            }
        }
        Ok(())
    }
}
