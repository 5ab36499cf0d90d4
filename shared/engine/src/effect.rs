//! What an engine asks for, and what it is told.
//!
//! [`Engine::poll`](crate::Engine::poll) answers one [`Effect`] after the other. The driver (the runtime's tokio
//! loop, the simulator's virtual time) carries each out, in any order and side by side, and gives the
//! [`Answer`] back with the effect's id. An answer may come late, twice or never:
//!
//! * an id that is not waited for (a duplicate, or a unit that was lost meanwhile) is ignored;
//! * an effect that is never answered keeps its unit waiting, so a driver answers with a fault when it gave up.
//!
//! The kind of the answer must fit the effect; one that does not counts as a fault.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::{Change, Epoch, Revision, Status};

use crate::agent::{Agent, Unit};
use crate::target::{Applied, Batch, Fault, Observed};
use crate::{Millis, Moment};

/// Something to be done outside, once.
pub struct Effect<A: Agent> {
    /// To be repeated with the answer.
    pub id: u64,
    /// What.
    pub act: Act<A>,
}

/// What is to be done.
pub enum Act<A: Agent> {
    /// Say the first ledger key of this agent after `after`, if there is one ([`Answer::NextKey`]).
    NextKey {
        /// `<agent>/`.
        prefix: String,
        /// Where to go on.
        after: Option<String>,
    },
    /// Say that this instance is there, for so long, and ask which others are and who holds which unit ([`Answer::Roster`]).
    Join {
        /// How long it counts as there unless it says so again.
        ttl: Millis,
    },
    /// Say that it is not there any more ([`Answer::Done`]).
    Leave,
    /// Take or renew the claim `unit/<agent>/<unit>` ([`Answer::Claim`]).
    Claim {
        /// For which unit.
        unit: Unit,
        /// How long it shall last.
        ttl: Millis,
    },
    /// Give the claim back ([`Answer::Done`]).
    Release {
        /// Of which unit.
        unit: Unit,
        /// Its fencing number.
        number: u64,
    },
    /// Read the unit's ledger rows, all of them, and ask the target where it has the unit ([`Answer::Ledger`]).
    ReadLedger {
        /// Of which unit.
        unit: Unit,
        /// `<agent>/<unit>/`.
        prefix: String,
    },
    /// Write these ledger rows, all or none, if the claim is still held ([`Answer::Done`]).
    WriteLedger {
        /// Of which unit.
        unit: Unit,
        /// The claim's number.
        number: u64,
        /// What to write.
        rows: Vec<LedgerRow>,
    },
    /// Look at the target ([`Answer::Observed`]).
    Observe {
        /// Which unit.
        unit: Unit,
        /// These items at least; `None`: the whole unit.
        keys: Option<Vec<A::Key>>,
    },
    /// Change the target ([`Answer::Applied`]). Must not begin after `not_after`.
    Apply {
        /// Which unit.
        unit: Unit,
        /// The changes.
        batch: Arc<Batch<A>>,
        /// The claim's number.
        number: u64,
        /// No effect starts later.
        not_after: Moment,
        /// The database that it is done for.
        epoch: Epoch,
    },
    /// Commit these facts, if the claim is still held ([`Answer::Done`]).
    Facts {
        /// Of which unit.
        unit: Unit,
        /// The claim's number.
        number: u64,
        /// What to write.
        facts: Vec<Change>,
    },
    /// Say this to the store ([`Answer::Done`]).
    Report(Box<Status>),
}

/// One ledger row to write; no value: delete it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    /// `<agent>/<unit>/<page>`.
    pub key: String,
    /// The page as JSON.
    pub value: Option<Vec<u8>>,
}

/// What became of an effect.
pub enum Answer<A: Agent> {
    /// To [`Act::NextKey`].
    NextKey(Option<String>),
    /// To [`Act::Join`].
    Roster(Roster),
    /// To [`Act::Claim`].
    Claim(Claimed),
    /// To [`Act::ReadLedger`].
    Ledger {
        /// Keys and values, in key order, all of them.
        rows: Vec<(String, Vec<u8>)>,
        /// Where the target has the unit ([`Target::location`](crate::Target::location)); empty: it does not say.
        location: String,
    },
    /// To [`Act::Observe`].
    Observed(Observed<A>),
    /// To [`Act::Apply`].
    Applied(Applied<A>),
    /// To [`Act::WriteLedger`], [`Act::Facts`], [`Act::Release`], [`Act::Report`]: done.
    Done,
    /// The store says that the claim is no longer held. Nothing was written.
    Fenced,
    /// It failed; whether it happened is not known.
    Fault(Fault),
}

/// The instances of the agent that share its units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// Those that are there, this one among them.
    pub instances: BTreeSet<String>,
    /// The longest lease that any of them says so under.
    pub lease: Millis,
    /// Which units are held, and by whom; need not be filled in when nobody else is there.
    pub holders: BTreeMap<Unit, String>,
}

/// What became of a request for a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Held. `until` counts from *before* it was asked for.
    Held {
        /// The fencing number.
        number: u64,
        /// When it ends unless renewed.
        until: Moment,
        /// The database's epoch and newest revision after it was granted; for a renewal they do not matter. The last holder may
        /// have acted on anything up to it, so nothing is done before it has been seen here; and nothing by what a database
        /// said that another one has taken the place of.
        head: Option<(Epoch, Revision)>,
    },
    /// Somebody else has it; ask again then.
    Taken {
        /// When it may be free.
        look_again: Moment,
    },
}

impl<A: Agent> std::fmt::Debug for Act<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NextKey { after, .. } => write!(f, "NextKey(after {after:?})"),
            Self::Join { .. } => write!(f, "Join"),
            Self::Leave => write!(f, "Leave"),
            Self::Claim { unit, .. } => write!(f, "Claim({unit})"),
            Self::Release { unit, number } => write!(f, "Release({unit}, {number})"),
            Self::ReadLedger { unit, .. } => write!(f, "ReadLedger({unit})"),
            Self::WriteLedger { unit, rows, .. } => write!(f, "WriteLedger({unit}, {} rows)", rows.len()),
            Self::Observe { unit, keys: None } => write!(f, "Observe({unit})"),
            Self::Observe { unit, keys: Some(keys) } => write!(f, "Observe({unit}, {keys:?})"),
            Self::Apply { unit, batch, .. } => write!(f, "Apply({unit}, {} changes)", batch.changes.len()),
            Self::Facts { unit, facts, .. } => write!(f, "Facts({unit}, {})", facts.len()),
            Self::Report(status) => write!(f, "Report(seen {})", status.seen),
        }
    }
}

impl<A: Agent> std::fmt::Debug for Effect<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {:?}", self.id, self.act)
    }
}
