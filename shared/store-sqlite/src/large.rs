//! The thread that writes large commits, one after the other, in slices (see `stage`) between which everybody else writes.
//!
//! A large commit first has its turn: of all that have the file open, one writes a large commit. What it rests on and what of it
//! changes anything is found out beside everybody, in one look at the file as it stands. Then each slice begins with what others
//! committed since the last one: a precondition that does not hold any more is the end of it, and where a change would not
//! change anything any more, or would now, it is begun anew. The last slice makes it a commit, so it
//! is decided as of that moment, like any other.
//!
//! A slice takes some milliseconds, on a slower machine it is made smaller. After each the lock is given away for as long as
//! the slice took, within bounds: other processes look again and again
//! whether it is free, and would find it taken for ever. A slice is synced like a commit, so that the last one has no more to sync
//! than any other.
//!
//! The thread also clears away what a dead writer left: when the file is opened, and when a commit comes upon it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shoal_core::{Change, Commit, Committed, Key, LogEntry, Revision};
use shoal_store::{MAX_SKIP, Result, StoreError};
use tokio::sync::mpsc;

use crate::commit::{info, print};
use crate::fault::Stop;
use crate::files::Files;
use crate::open::{Options, reopen};
use crate::read::{self, int};
use crate::rests::Rests;
use crate::scopes;
use crate::shared::Shared;
use crate::stage::{clear, slice, slices};
use crate::transact::Tx;
use crate::turn::{Asked, Turn};
use crate::writer::{Answer, Desk, Job, Task, lock, thread};

/// How many changes of a large commit are written at a time, if nothing else is said.
const CHANGES: u32 = 1000;
/// How long the lock is given away after a slice, at least and at most. The most is twice what another process waits before it looks
/// again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(10));
/// How long the work of one slice may take, its sync apart, until the next ones are made smaller; and how much smaller they get.
const WORK: Duration = Duration::from_millis(6);
const SMALLEST: usize = 8;
/// How many revisions are left, for each slice, for those that commit meanwhile: more than the fastest need.
const ROOM: u64 = 256;
/// How many are left for all slices together at most.
const MOST_ROOM: u64 = MAX_SKIP / 2;
/// A revision that was asked for leaves at least so many, or another one is taken.
const LEAST_ROOM: u64 = 256;
/// How often it is begun anew when others write the same rows; then it is written at once.
const ATTEMPTS: u32 = 3;
/// How long others may write large commits before that is an error: some of the largest.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the thread is to do.
pub(crate) enum Order {
    Commit(Box<Job>),
    /// Something is staged: if its writer is dead, it is cleared away.
    Look,
}

/// The thread. Dropping it finishes the commits that wait.
pub(crate) struct Large {
    pub(crate) orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Large {
    /// Starts it. Who holds `desk` commits.
    pub(crate) fn start(
        shared: &Shared,
        desk: &Arc<Mutex<Desk>>,
        orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    ) -> Result<Self> {
        let (files, options) = (Arc::clone(&shared.files), shared.options.clone());
        let size = Size { most: most(&options), room: options.room };
        let worker = Worker { files, size, options, desk: Arc::clone(desk), reader: None };
        let thread = thread("shoal-large", &shared.files.place, move || worker.run(orders.1))?;
        Ok(Self { orders: Some(orders.0), thread: Some(thread) })
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How many changes are written at a time.
pub(crate) fn most(options: &Options) -> usize {
    usize::try_from(options.slice.unwrap_or(CHANGES).max(1)).unwrap_or(usize::MAX)
}

/// How large the slices are, and how many revisions are left for others if that is not to follow from it.
#[derive(Clone, Copy)]
struct Size {
    most: usize,
    room: Option<u64>,
}

struct Worker {
    files: Arc<Files>,
    options: Options,
    size: Size,
    desk: Arc<Mutex<Desk>>,
    /// For what is read beside the others.
    reader: Option<Connection>,
}

/// A commit that is being written.
struct Plan {
    /// Its changes are in the two that follow, in key order.
    commit: Commit,
    written: Vec<Change>,
    /// Those that change nothing.
    same: Vec<Change>,
    print: Option<[u8; 32]>,
    rests: Rests,
    least: Revision,
    /// Up to which revision it was held against what others committed.
    seen: Revision,
    /// Its own, once something is written, and the place of the change that is written next. The first one is the last.
    staged: Option<(Revision, usize)>,
}

/// What came of a slice.
enum Slice {
    More,
    Done(Committed),
    /// It would change other rows by now.
    Other,
}

impl Size {
    /// The size of the next slice, after the work of one of this size took so long.
    fn after(self, worked: Duration, most: usize) -> Self {
        let next = match worked {
            long if long > WORK => self.most / 2,
            short if short < WORK / 2 => self.most + self.most / 4,
            _ => self.most,
        };
        Self { most: next.clamp((most / SMALLEST).max(1), most), ..self }
    }
}

impl Worker {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::Commit(job) => {
                    let (task, answer) = job.apart();
                    let done = match task {
                        Task::Commit(commit, least) => self.commit(commit, least),
                        other => self.at_once(&other),
                    };
                    answer.send(done);
                }
                Order::Look => {
                    let cleared = match Turn::ask(&self.files.log) {
                        // Who goes leaves the rest to the next one.
                        Ok(Asked::Mine(turn)) => self.clear(&turn, || orders.is_closed()),
                        Ok(Asked::Taken | Asked::Nowhere) => Ok(()),
                        Err(error) => Err(error),
                    };
                    if let Err(error) = cleared {
                        tracing::warn!(%error, "what is left of a large commit could not be cleared away yet");
                    }
                }
            }
        }
    }

    fn commit(&mut self, mut commit: Commit, least: Revision) -> Result<Answer> {
        let Some(turn) = self.turn()? else { return self.at_once(&Task::Commit(commit, least)) };
        self.clear(&turn, || false)?;
        let print = print(&commit);
        for _ in 0..ATTEMPTS {
            match self.stage(&turn, commit, print, least)? {
                Ok(done) => return Ok(Answer::Committed(done)),
                Err(back) => commit = back,
            }
        }
        self.at_once(&Task::Commit(commit, least))
    }

    /// Waits for the turn; `None` where there is none.
    fn turn(&self) -> Result<Option<Turn>> {
        let begun = Instant::now();
        loop {
            self.files.check()?;
            match Turn::ask(&self.files.log)? {
                Asked::Mine(turn) => return Ok(Some(turn)),
                Asked::Nowhere => return Ok(None),
                Asked::Taken if begun.elapsed() < PATIENCE => sleep(PAUSE.1),
                Asked::Taken => {
                    return Err(StoreError::Unavailable {
                        place: self.files.place.display().to_string(),
                        why: format!(
                            "writing: others have been writing large commits for {} s; try again",
                            PATIENCE.as_secs()
                        ),
                    });
                }
            }
        }
    }

    /// In one transaction, for which everybody waits.
    fn at_once(&self, task: &Task) -> Result<Answer> {
        let done = lock(&self.desk).transactor.attempt(std::iter::once(task));
        done.map_err(|stop| self.at(stop))?.swap_remove(0)
    }

    fn at(&self, stop: Stop) -> StoreError {
        stop.at(&self.files.place, "writing")
    }

    /// Runs `f` with what stands in the file at one moment.
    fn looking<T>(&mut self, f: impl FnOnce(&Tx<'_>) -> Result<T, Stop>) -> Result<T> {
        self.files.check()?;
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => reopen(&self.files.place, &self.options)?,
        };
        let looked = || -> Result<T, Stop> {
            let moment = reader.unchecked_transaction()?;
            f(&Tx::new(&moment)?)
        };
        let looked = looked().map_err(|stop| stop.at(&self.files.place, "reading"));
        // One that failed is not used again.
        if !matches!(looked, Err(StoreError::Corrupt { .. } | StoreError::Unavailable { .. })) {
            self.reader = Some(reader);
        }
        looked
    }

    /// Clears away what is staged, a slice at a time, until there is no more of it or `enough` says so.
    fn clear(&mut self, _: &Turn, enough: impl Fn() -> bool) -> Result<()> {
        if self.looking(|tx| Ok(tx.staged))?.is_none() {
            return Ok(());
        }
        while !enough() {
            let begun = Instant::now();
            let cleared = lock(&self.desk).transactor.within(|tx| match tx.staged {
                Some(staged) => clear(tx.connection, staged, self.size.most.div_ceil(2)),
                None => Ok(false),
            });
            if !cleared.map_err(|stop| self.at(stop))? {
                break;
            }
            pause(begun);
        }
        Ok(())
    }

    /// Does the commit, refuses it, or gives it back because others wrote rows that it writes. Leaves nothing of it behind then.
    fn stage(
        &mut self,
        turn: &Turn,
        commit: Commit,
        print: Option<[u8; 32]>,
        least: Revision,
    ) -> Result<Result<Committed, Commit>> {
        let mut plan = match self.looking(|tx| Plan::of(tx, commit, print, least))? {
            Ok(plan) => plan,
            Err(done) => return Ok(Ok(done)),
        };
        let slices = self.slices(&mut plan);
        if plan.staged.is_some()
            && let Err(error) = self.clear(turn, || false)
        {
            // Nobody sees it, and the next one that comes upon it tries again.
            tracing::warn!(%error, "what was written of a large commit could not be cleared away yet");
        }
        Ok(slices?.ok_or_else(|| plan.whole()))
    }

    /// Writes it; `None`: it would change other rows by now.
    fn slices(&self, plan: &mut Plan) -> Result<Option<Committed>> {
        let mut size = self.size;
        loop {
            let (begun, mut worked) = (Instant::now(), Duration::ZERO);
            let slice = lock(&self.desk).transactor.within(|tx| {
                let begun = Instant::now();
                let slice = plan.slice(tx, size);
                worked = begun.elapsed();
                slice
            });
            size = size.after(worked, self.size.most);
            match slice.map_err(|stop| self.at(stop))? {
                Slice::More => pause(begun),
                Slice::Done(done) => return Ok(Some(done)),
                Slice::Other => return Ok(None),
            }
        }
    }
}

/// Gives the lock away for as long as it was held, about.
fn pause(begun: Instant) {
    sleep(begun.elapsed().clamp(PAUSE.0, PAUSE.1));
}

impl Plan {
    /// What is to be done, as things stand; or what came of it when it was done before.
    fn of(
        tx: &Tx<'_>,
        mut commit: Commit,
        print: Option<[u8; 32]>,
        least: Revision,
    ) -> Result<Result<Self, Committed>, Stop> {
        if let Some(done) = tx.done_before(&commit, print.as_ref())? {
            return Ok(Err(done));
        }
        tx.check(&commit.pre)?;
        let changes = std::mem::take(&mut commit.changes);
        let (mut written, mut same) = (Vec::with_capacity(changes.len()), Vec::new());
        for change in changes {
            let list = if tx.changes_nothing(&change)? { &mut same } else { &mut written };
            list.push(change);
        }
        let rests = Rests::on(&commit.pre);
        let seen = tx.head.revision;
        Ok(Ok(Self { commit, written, same, print, rests, least, seen, staged: None }))
    }

    /// The commit as it was asked for.
    fn whole(mut self) -> Commit {
        self.written.append(&mut self.same);
        self.written.sort_by(|a, b| a.key.cmp(&b.key));
        Commit { changes: self.written, ..self.commit }
    }

    /// Writes some of it, or the rest.
    fn slice(&mut self, tx: &mut Tx<'_>, size: Size) -> Result<Slice, Stop> {
        if !self.is_still_so(tx)? {
            return Ok(Slice::Other);
        }
        let (revision, place) = match self.staged {
            None if self.written.is_empty() || slice(&self.written, size.most) == self.written.len() => {
                return self.finish(tx, None);
            }
            None => {
                let revision = self.number(tx.head.revision, size);
                tx.reserve(revision)?;
                (revision, 1)
            }
            Some((revision, _)) if tx.staged != Some(int(revision)) => return Ok(Slice::Other),
            Some(staged) => staged,
        };
        let rest = &self.written[place..];
        let end = place + slice(rest, size.most).min(rest.len());
        tx.stage(revision, place, &self.written[place..end])?;
        self.staged = Some((revision, end));
        if end < self.written.len() { Ok(Slice::More) } else { self.finish(tx, Some(revision)) }
    }

    /// Its revision: far enough from the head.
    fn number(&self, head: Revision, size: Size) -> Revision {
        let slices = slices(&self.written, size.most).try_into().unwrap_or(u64::MAX);
        let room = size.room.unwrap_or_else(|| ROOM.saturating_mul(slices).min(MOST_ROOM));
        let next = head.0 + 1;
        let asked = (next + room.min(LEAST_ROOM)..next + MAX_SKIP).contains(&self.least.0);
        if asked { self.least } else { Revision(next + room) }
    }

    /// Makes it a commit. If that fails it is not to be tried again.
    fn finish(&mut self, tx: &mut Tx<'_>, staged: Option<Revision>) -> Result<Slice, Stop> {
        if let Some(done) = tx.done_before(&self.commit, self.print.as_ref())? {
            return Ok(Slice::Done(done)); // by another process, meanwhile
        }
        tx.check(self.rests.held().iter().filter_map(|place| self.commit.pre.get(*place as usize)))?;
        let changes = std::mem::take(&mut self.written);
        let mut done = Committed { revision: tx.head.revision, changed: changes.len(), replayed: false };
        if !changes.is_empty() {
            done.revision = match staged {
                Some(revision) => revision,
                None => tx.number(self.least)?,
            };
            let entry = LogEntry { info: info(&self.commit, done.revision), changes };
            if staged.is_some() { tx.publish(entry)? } else { tx.write(entry)? }
        }
        tx.remember(&self.commit, self.print.as_ref(), done)?;
        Ok(Slice::Done(done))
    }

    /// Holds it against what others committed since: whether it would change the same rows as before.
    fn is_still_so(&mut self, tx: &Tx<'_>) -> Result<bool, Stop> {
        let (mut touched, mut same) = (BTreeSet::new(), true);
        scopes::newer(tx.connection, int(self.seen), |_, text| {
            let key: Key = read::key(text)?;
            self.rests.touched(&self.commit.pre, &key, &mut touched);
            for (changes, nothing) in [(&self.written, false), (&self.same, true)] {
                if let Ok(at) = changes.binary_search_by(|change| change.key.cmp(&key)) {
                    same &= tx.changes_nothing(&changes[at])? == nothing;
                }
            }
            Ok(())
        })?;
        if !touched.is_empty() {
            // In their order: the first that does not hold is told.
            touched.extend(self.rests.held());
            tx.check(touched.iter().filter_map(|place| self.commit.pre.get(*place as usize)))?;
        }
        self.seen = tx.head.revision;
        Ok(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_as_large_as_time_allows() {
        let mut size = Size { most: 1000, room: None };
        for _ in 0..9 {
            size = size.after(WORK * 2, 1000);
        }
        assert_eq!(size.most, 125);
        assert_eq!(size.after(WORK, 1000).most, 125);
        for _ in 0..20 {
            size = size.after(WORK / 4, 1000);
        }
        assert_eq!(size.most, 1000);
        assert_eq!(Size { most: 1, room: None }.after(WORK * 2, 1).most, 1);
    }
}
