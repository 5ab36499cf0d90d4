//! The host database as everything else sees it: the [`Store`] trait, its in-memory form, and the conformance
//! suite that every store passes.
//!
//! A store keeps four things apart:
//!
//! * **rows**, with their whole history: hosts, tags, members, facts, schemas, pauses, approvals;
//! * **claims**: who may work on what, with fencing numbers that only rise;
//! * **the ledger**: what agents made, outside history and rollback, waking no watcher;
//! * **reports**: what agents say of themselves, volatile.
//!
//! It does not know what a host or a tag means. [`shoal_core`] checks what a commit means before it gets here,
//! and states what it read as preconditions.
//!
//! [`MemoryStore`] is a whole store for tests and the simulator; its synchronous heart is [`Memory`]. Who
//! writes another store finds the parts that all of them share in [`parts`], and holds it to the contract with
//! the `conformance` module (cargo feature of the same name).
//!
//! [`migrate()`] copies a database from one store into another, with all that belongs to it ([`Whole`], [`Draft`]).

use std::pin::Pin;
use std::time::Duration;

mod address;
mod clock;
mod contract;
mod database;
mod error;
mod forward;
mod memory;
mod migrate;
pub mod parts;
mod types;
mod whole;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use address::without_password;
pub use clock::{Clock, ManualClock, SystemClock};
pub use contract::Store;
pub use database::{Database, Judge, Outcome, TransactError};
pub use error::StoreError;
pub use memory::{Memory, MemoryDraft, MemoryStore};
pub use migrate::{MigrateError, Migrated, Step, Told, migrate};
pub use types::{
    Asked, Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Head, Inventory, LedgerPage, LedgerWrite, Listed,
    ListedCommit, ListedLog, May, NewPassword, OwnToken, Page, Position, Proposed, Query, Search, Texts, Who,
};
pub use whole::{Draft, Piece, Retry, Stand, Whole};

/// A future that a store answers with.
pub type Fut<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A stream that a store answers with.
pub type Flow<T> = Pin<Box<dyn futures::Stream<Item = T> + Send>>;
/// What stores answer.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The most rows of a page; a larger limit is cut to this.
pub const MAX_PAGE: usize = 10_000;
/// The most octets of values in a page, but for its first row: a page of large rows ends early and says where
/// the next one starts.
pub const MAX_PAGE_BYTES: usize = 16 << 20;
/// The largest value of one row, in octets.
pub const MAX_VALUE: usize = 1 << 20;
/// The most changes of one commit, and the most rows of one write to the ledger.
pub const MAX_CHANGES: usize = 500_000;
/// The most revisions that a commit may skip.
pub const MAX_SKIP: u64 = 1 << 16;
/// The largest commit, all keys and values together, in octets.
pub const MAX_COMMIT: usize = 256 << 20;
/// The longest author, principal, origin, idempotency key, claim name and holder, in octets.
pub const MAX_NAME: usize = 1024;
/// The longest message of a commit, in octets.
pub const MAX_MESSAGE: usize = 64 << 10;
/// How many idempotency keys a store remembers: the newest, in order of commit. A retry that comes after so
/// many other commits with keys is taken for a new commit.
pub const REMEMBERED: usize = 100_000;
/// How long a report is kept after it expired.
pub const REPORT_GRACE: Duration = Duration::from_secs(3600);
/// How many reports of one agent are kept at most of instances that do not live any more, and of single runs: those said last.
pub const MAX_REPORTS: usize = 256;
/// How many instances of one agent may report at once. What a living one says is never forgotten for those of others: one more is
/// refused.
pub const MAX_INSTANCES: usize = 50_000;
