//! A database as a whole, for who copies it: all that stands in it, in pages, and the side that takes them.
//!
//! Beside what a [`Store`](crate::Store) shows, a copy needs the idempotency keys, how far the fencing numbers are, and commits at exactly their
//! revisions. What lasts no longer than a process does not travel: leases and reports.
//!
//! A [`Draft`] is the copy while it is being made. Where it stands, nobody can open it as a database; it becomes one in a single step, at the end.

use std::sync::Arc;

use shoal_core::{LogEntry, Revision, Status};

use crate::{Claim, Fut, Head, LedgerPage, Page, Query, Result};

/// How a database stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stand {
    /// Which database it is, and its newest revision.
    pub head: Head,
    /// No fencing number above this was given out. It may rise without a claim.
    pub fence: u64,
    /// Whether a large commit or write of the ledger is being written: it moves `head` at its end at the earliest.
    pub busy: bool,
}

/// What an idempotency key was used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The key.
    pub key: String,
    /// Of the commit; see [`digest`](crate::parts::digest).
    pub digest: [u8; 32],
    /// What the commit was answered.
    pub revision: Revision,
    /// How many rows it changed.
    pub changed: usize,
}

/// Everything that stands in a database, in pages, each of which fits comfortably in memory (but for a commit that is larger).
/// Object-safe. A database that is written to meanwhile may be read by half.
///
/// Every method may fail as those of a [`Store`](crate::Store) do.
pub trait Whole: Send + Sync {
    /// How it stands. What was decided and is not visible yet is finished first.
    fn stand(&self) -> Fut<'_, Result<Stand>>;

    /// Whole commits after `after`, in order, without gaps: none if there is none, otherwise at least one.
    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>>;

    /// See [`Store::read`](crate::Store::read).
    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>>;

    /// Rows of the ledger after `after`, in key order.
    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>>;

    /// Idempotency keys after the place `after` (0: from the first), the oldest first, each with its place; none at the end. Places mean
    /// nothing elsewhere.
    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>>;

    /// All held claims, by name and slot.
    fn held(&self) -> Fut<'_, Result<Vec<Claim>>>;

    /// What agents last said of themselves.
    fn said(&self) -> Fut<'_, Result<Vec<Status>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// A part of a database.
#[derive(Clone, Debug)]
pub enum Piece {
    /// The next commits, whole and in order; they keep their revisions.
    Commits(Vec<Arc<LogEntry>>),
    /// The next idempotency keys, the oldest first.
    Retries(Vec<Retry>),
    /// Rows of the ledger: key and value.
    Ledger(Vec<(String, Vec<u8>)>),
    /// Claims without an end; they keep their numbers.
    Claims(Vec<Claim>),
}

/// A database that is being made from another one: nobody can open it, and what was taken is kept when the process dies.
///
/// It has the epoch of what it is made from, from the beginning on, and says how far it is by its newest revision. One process
/// makes it at a time: where another one takes it up, this one is refused.
pub trait Draft: Whole {
    /// Takes a part, durably, or not at all: but that of a very large one some may be written that does not count, and is written over when the
    /// part is taken again.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](crate::StoreError::Invalid) for commits that are not newer than what is there, and for a draft that somebody else took up.
    fn take(&self, piece: Piece) -> Fut<'_, Result<()>>;

    /// Takes away all that stands beside the history: it changes, so it is copied again from its beginning.
    fn clear(&self) -> Fut<'_, Result<()>>;

    /// Makes it a database, in one step, if its newest revision is this one. Its fencing numbers go on above `fence`. Nothing else may be asked
    /// of it afterwards.
    ///
    /// # Errors
    /// As for [`Draft::take`].
    fn finish(&self, upto: Revision, fence: u64) -> Fut<'_, Result<()>>;
}
