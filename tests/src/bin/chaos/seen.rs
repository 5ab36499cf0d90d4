//! What clients asked, when, and what they were answered: all that is judged afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use stateright::semantics::register::{RegisterOp, RegisterRet};

use crate::checks;

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It stands at this revision.
    Done(u64),
    /// Nothing was written.
    Refused,
    /// There was no room for it. It may be there all the same: a first attempt whose answer was lost.
    Full,
    /// Nobody said. It may be there, and may come later.
    Unknown,
}

/// A commit, by the text that no other has.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) id: String,
    pub(crate) answer: Answer,
}

/// A moment of a register's life, in the order in which they were seen. Threads do one thing at a time; what was never answered ends
/// its thread.
#[derive(Clone, Debug)]
pub(crate) enum Moment {
    Begins(u64, RegisterOp<u64>),
    /// Which server answered the read that ends next, where that is known.
    At(u64, usize),
    Ends(u64, RegisterRet<u64>),
}

/// A claim as its holder saw it, in time since the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) name: String,
    pub(crate) holder: u64,
    pub(crate) number: u64,
    pub(crate) asked: Duration,
    pub(crate) granted: Duration,
    /// Until then it may count on it.
    pub(crate) until: Duration,
}

/// What became of a write under a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The store said that it stands.
    Done,
    /// The claim was over: the store said so, and nothing was written.
    Fenced,
    /// Nobody said, or there was no room.
    Unknown,
}

/// A write to the ledger.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) name: String,
    pub(crate) number: u64,
    pub(crate) begun: Duration,
    pub(crate) taken: Taken,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) said: Vec<Said>,
    /// By window: each has a register of its own.
    pub(crate) registers: BTreeMap<u64, Vec<Moment>>,
    /// IDs that were taken, and by whom.
    pub(crate) taken: Vec<(u64, u64)>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: u64,
    /// Those that servers answered from memory.
    pub(crate) views: u64,
    /// When somebody asked, and was told that there is no room.
    pub(crate) full: Vec<(Duration, Duration)>,
    /// From when to when the disk was full.
    pub(crate) filled: Vec<(Duration, Option<Duration>)>,
    /// By watcher, the revisions as they came.
    pub(crate) watched: BTreeMap<usize, Vec<u64>>,
    /// What must not happen, as it happened.
    pub(crate) wrong: Vec<String>,
}

/// Where everybody notes what they see.
#[derive(Debug)]
pub(crate) struct Board {
    began: Instant,
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), stop: AtomicBool::new(false), seen: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wrong(&self, what: String) {
        println!("at {:?}: {what}", self.now());
        self.seen().wrong.push(what);
    }

    /// A claim was given, which lasts for so long from when it was asked for. Answers where that is noted.
    pub(crate) fn granted(
        &self,
        name: &str,
        holder: u64,
        number: u64,
        asked: Duration,
        lasts: Duration,
    ) -> usize {
        let granted = self.now();
        let grant = Grant { name: name.to_owned(), holder, number, asked, granted, until: asked + lasts };
        let mut seen = self.seen();
        seen.grants.push(grant);
        seen.grants.len() - 1
    }

    /// The holder counts on it no longer.
    pub(crate) fn lets_go(&self, grant: usize) {
        let now = self.now();
        if let Some(grant) = self.seen().grants.get_mut(grant) {
            grant.until = grant.until.min(now);
        }
    }

    /// A watch that told everything up to `told` gives the commit of this revision. One that may not come there is said at once.
    pub(crate) fn gives(&self, watcher: usize, told: u64, revision: u64) {
        let wrong = {
            let mut seen = self.seen();
            let wrong = checks::follows(watcher, told, revision, &seen.watched);
            seen.watched.entry(watcher).or_default().push(revision);
            wrong
        };
        if let Some(why) = wrong {
            self.wrong(why);
        }
    }

    /// Who asked then is told that there is no room.
    pub(crate) fn no_room(&self, asked: Duration) {
        let answered = self.now();
        self.seen().full.push((asked, answered));
    }

    /// The disk is about to be full.
    pub(crate) fn fills(&self) {
        let now = self.now();
        self.seen().filled.push((now, None));
    }

    /// There is room again.
    pub(crate) fn empties(&self) {
        let now = self.now();
        if let Some((_, until)) = self.seen().filled.last_mut() {
            *until = Some(now);
        }
    }

    pub(crate) fn begins(&self, window: u64, thread: u64, op: RegisterOp<u64>) {
        self.seen().registers.entry(window).or_default().push(Moment::Begins(thread, op));
    }

    pub(crate) fn at(&self, window: u64, thread: u64, server: usize) {
        self.seen().registers.entry(window).or_default().push(Moment::At(thread, server));
    }

    pub(crate) fn ends(&self, window: u64, thread: u64, ret: RegisterRet<u64>) {
        self.seen().registers.entry(window).or_default().push(Moment::Ends(thread, ret));
    }

    /// A read that was not answered says nothing.
    pub(crate) fn forgets(&self, window: u64, thread: u64) {
        let mut seen = self.seen();
        let moments = seen.registers.entry(window).or_default();
        let last =
            moments.iter().rposition(|moment| matches!(moment, Moment::Begins(who, _) if *who == thread));
        if let Some(last) = last {
            moments.remove(last);
        }
    }
}
