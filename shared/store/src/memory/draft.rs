//! Copies in memory: what one is made of, and one that is being made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::{Epoch, LogEntry, Revision, Status};

use super::{AFTER, Inner, Memory, MemoryStore, ready};
use crate::parts::{Hub, occupied, of_another, overtaken, unfinished};
use crate::{
    Claim, Clock, Draft, Fut, LedgerPage, MAX_PAGE, Page, Piece, Query, Result, Retry, Stand, SystemClock,
    Whole,
};

/// What errors call it.
const PLACE: &str = "the copy in memory";
/// How to be rid of it.
const REMOVE: &str = "drop it";

impl Whole for MemoryStore {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        ready(Ok(stand(&self.0.memory())))
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        ready(Ok(self.0.memory().after(after, AFTER)))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        ready(self.0.memory().read(query))
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        ready(Ok(self.0.memory().ledger("", after, MAX_PAGE)))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        ready(Ok(self.0.memory().retries(after, MAX_PAGE)))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        ready(Ok(self.0.memory().claims("", self.0.clock.uptime())))
    }

    fn said(&self) -> Fut<'_, Result<Vec<Status>>> {
        ready(Ok(self.0.memory().reports()))
    }
}

fn stand(memory: &Memory) -> Stand {
    Stand { head: memory.head(), fence: memory.fence(), busy: false }
}

/// A database in memory that is being made from another one. A clone is another handle of it.
///
/// It is kept for as long as there is a handle, and so may be gone on with, as one on a disk is.
#[derive(Clone)]
pub struct MemoryDraft {
    state: Arc<Mutex<State>>,
    /// How often it had been taken up when this handle was made.
    turn: u64,
}

struct State {
    memory: Memory,
    /// How often it was taken up again. Who did so last makes it.
    turn: u64,
    /// What it has become.
    made: Option<MemoryStore>,
}

impl MemoryDraft {
    /// One of a database of this epoch, in which nothing is yet.
    #[must_use]
    pub fn new(of: Epoch) -> Self {
        let state = State { memory: Memory::new(of), turn: 0, made: None };
        Self { state: Arc::new(Mutex::new(state)), turn: 0 }
    }

    /// The same again, to go on with a copy of this database. Handles that were there before do nothing more.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid): it is finished, or of another database.
    pub fn again(&self, of: Epoch) -> Result<Self> {
        let mut state = self.state();
        if let Some(made) = &state.made {
            return Err(occupied(PLACE, made.0.memory().head().revision));
        }
        let there = state.memory.head().epoch;
        if there != of {
            return Err(of_another(PLACE, there, of, REMOVE));
        }
        state.turn += 1;
        Ok(Self { state: Arc::clone(&self.state), turn: state.turn })
    }

    /// The database that it has become.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid): it is not finished.
    pub fn store(&self) -> Result<MemoryStore> {
        self.state().made.clone().ok_or_else(|| unfinished(PLACE, REMOVE))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there, as long as it is not finished and nobody else took it up.
    fn with<T: Send + 'static>(&self, f: impl FnOnce(&mut Memory) -> Result<T>) -> Fut<'static, Result<T>> {
        let mut state = self.state();
        ready(if self.is_over(&state) { Err(overtaken(PLACE)) } else { f(&mut state.memory) })
    }

    fn is_over(&self, state: &State) -> bool {
        state.made.is_some() || state.turn != self.turn
    }
}

impl Whole for MemoryDraft {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        self.with(|memory| Ok(stand(memory)))
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        self.with(|memory| Ok(memory.after(after, AFTER)))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        self.with(|memory| memory.read(query))
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        self.with(|memory| Ok(memory.ledger("", after, MAX_PAGE)))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        self.with(|memory| Ok(memory.retries(after, MAX_PAGE)))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        // None of them has an end.
        self.with(|memory| Ok(memory.claims("", SystemClock.uptime())))
    }
}

impl Draft for MemoryDraft {
    fn take(&self, piece: Piece) -> Fut<'_, Result<()>> {
        self.with(|memory| memory.take(piece))
    }

    fn clear(&self) -> Fut<'_, Result<()>> {
        self.with(|memory| {
            memory.clear_beside();
            Ok(())
        })
    }

    fn finish(&self, upto: Revision, fence: u64) -> Fut<'_, Result<()>> {
        let mut state = self.state();
        if self.is_over(&state) || state.memory.head().revision != upto {
            return ready(Err(overtaken(PLACE)));
        }
        let epoch = state.memory.head().epoch;
        let mut memory = std::mem::replace(&mut state.memory, Memory::new(epoch));
        memory.go_on_above(fence);
        let hub = Arc::new(Hub::new(memory.head()));
        let inner = Inner { memory: Mutex::new(memory), clock: Arc::new(SystemClock), hub };
        state.made = Some(MemoryStore(Arc::new(inner)));
        ready(Ok(()))
    }
}
