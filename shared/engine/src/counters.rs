//! What an engine has done so far, counted, for metrics and for the law that cost follows the change.

use std::cell::Cell;

use serde::Serialize;

/// Counted work since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Calls of [`Agent::keys`](crate::Agent::keys).
    pub keys: u64,
    /// Calls of [`Agent::desired`](crate::Agent::desired).
    pub desired: u64,
    /// Sources handed to `desired`.
    pub sources: u64,
    /// Calls of [`Agent::step`](crate::Agent::step).
    pub steps: u64,
    /// Tag documents parsed.
    pub specs: u64,
    /// Looks at a whole unit.
    pub looks: u64,
    /// Items asked for in looks at single items.
    pub looked: u64,
    /// Batches sent to the target.
    pub batches: u64,
    /// Changes sent to the target.
    pub changes: u64,
    /// Lines of [`Batch::after`](crate::Batch::after) sent to targets that write a unit as a whole.
    pub lines: u64,
    /// Ledger rows written.
    pub ledger_rows: u64,
    /// Their octets.
    pub ledger_bytes: u64,
    /// Commits seen.
    pub commits: u64,
    /// Changes that failed.
    pub failures: u64,
    /// Changes made since the sources asked for them.
    pub intended: u64,
    /// Changes made to correct drift.
    pub drift: u64,
    /// Changes made because the target or the database began anew.
    pub anew: u64,
}

/// Counters that a shared reference can raise: decisions borrow the engine.
#[derive(Default)]
pub(crate) struct Count(Cell<Counters>);

impl Count {
    pub(crate) fn add(&self, change: impl FnOnce(&mut Counters)) {
        let mut now = self.0.get();
        change(&mut now);
        self.0.set(now);
    }

    pub(crate) fn get(&self) -> Counters {
        self.0.get()
    }
}
