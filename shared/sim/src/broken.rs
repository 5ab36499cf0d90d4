//! Engines that are broken on purpose.
//!
//! Each stands between the real engine and the world, and changes what passes: an effect, an answer, a setting. A
//! simulator that does not catch one of them is blind to that kind of mistake.

use std::fmt;
use std::str::FromStr;

use shoal_engine::{MaxChange, Observed, Options, Seen};

use crate::agent::SimAgent;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Breakage {
    /// The ledger is written after the effect.
    LedgerAfterEffect,
    /// The end of a claim and its loss are ignored.
    FenceIgnored,
    /// What a failed or partial look does not show is taken for gone.
    AbsenceIsDelete,
    /// Every attempt at a creation bears another token.
    RetryWithoutToken,
    /// Nothing is ever too much to go without asking.
    GuardSkipped,
    /// An old state of the database is taken for the newest.
    StaleRead,
    /// Facts that are due are not written down with what became of their batch.
    FactsForgotten,
    /// Once a person agreed to something of a unit, all that is held of it later goes as well.
    ApprovalReplayed,
    /// A restored database is taken for the one that it was.
    EpochIgnored,
    /// A change that takes a whole unit with it is counted as one.
    TakingUncounted,
    /// Whatever is free is taken, whoever else is there.
    ShareIgnored,
    /// What is changed of an item that a person holds is more than its mark.
    MarkOverdone,
}

impl Breakage {
    /// All twelve.
    pub const ALL: [Self; 12] = [
        Self::LedgerAfterEffect,
        Self::FenceIgnored,
        Self::AbsenceIsDelete,
        Self::RetryWithoutToken,
        Self::GuardSkipped,
        Self::StaleRead,
        Self::FactsForgotten,
        Self::ApprovalReplayed,
        Self::EpochIgnored,
        Self::TakingUncounted,
        Self::ShareIgnored,
        Self::MarkOverdone,
    ];

    /// The name as `SHOAL_SIM_BREAK` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LedgerAfterEffect => "ledger-after-effect",
            Self::FenceIgnored => "fence-ignored",
            Self::AbsenceIsDelete => "absence-is-delete",
            Self::RetryWithoutToken => "retry-without-token",
            Self::GuardSkipped => "guard-skipped",
            Self::StaleRead => "stale-read",
            Self::FactsForgotten => "facts-forgotten",
            Self::ApprovalReplayed => "approval-replayed",
            Self::EpochIgnored => "epoch-ignored",
            Self::TakingUncounted => "taking-uncounted",
            Self::ShareIgnored => "share-ignored",
            Self::MarkOverdone => "mark-overdone",
        }
    }
}

impl fmt::Display for Breakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Breakage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|one| one.name() == text)
            .ok_or_else(|| format!("{text:?} is no way to be broken: these are {}", all()))
    }
}

/// A guard that lets everything through.
pub(crate) fn without_guard(options: &mut Options) {
    options.max_change = MaxChange(100);
}

/// What was not seen is not there.
pub(crate) fn absence_is_delete(observed: &mut Observed<SimAgent>) {
    observed.complete = true;
    observed.seen.retain(|_, seen| !matches!(seen, Seen::Unknown(_)));
}
