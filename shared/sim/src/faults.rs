//! What can go wrong, and whether it does.
//!
//! Every run has its own mixture: each kind of fault is there in about half of all seeds, so that some runs see one
//! kind alone and much of it, and others see everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::dice::Dice;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// An instance dies before an effect leaves it, while it lasts, or before the answer is taken in.
    Crash,
    /// An instance is told to end, and does so in good order.
    Restart,
    /// An effect happened; its answer never arrives.
    LostReply,
    /// An answer arrives twice.
    Duplicate,
    /// Answers take seconds.
    Slow,
    /// An effect lands so late that the right to it may have ended.
    Late,
    /// An instance does not reach the store, the target, or either.
    Partition,
    /// An instance stands still until after its claims have expired, and then goes on.
    Stall,
    /// The watch lost its place: everything is read anew.
    WatchReset,
    /// A look that shows only some of what is there, and says so.
    PartialLook,
    /// A look that fails.
    FailedLook,
    /// The target refuses some items for a while.
    Refuse,
    /// The store answers that it is not there.
    StoreError,
    /// Somebody edits the target by hand.
    Meddle,
    /// Somebody else's things stand in the target.
    Foreign,
    /// The database is restored from a backup: it is another life of itself, and of an earlier time.
    Restore,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::Restart,
        Self::LostReply,
        Self::Duplicate,
        Self::Slow,
        Self::Late,
        Self::Partition,
        Self::Stall,
        Self::WatchReset,
        Self::PartialLook,
        Self::FailedLook,
        Self::Refuse,
        Self::StoreError,
        Self::Meddle,
        Self::Foreign,
        Self::Restore,
    ];

    /// The name as `SHOAL_SIM_WITHOUT` takes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Restart => "restart",
            Self::LostReply => "lost-reply",
            Self::Duplicate => "duplicate",
            Self::Slow => "slow",
            Self::Late => "late",
            Self::Partition => "partition",
            Self::Stall => "stall",
            Self::WatchReset => "watch-reset",
            Self::PartialLook => "partial-look",
            Self::FailedLook => "failed-look",
            Self::Refuse => "refuse",
            Self::StoreError => "store-error",
            Self::Meddle => "meddle",
            Self::Foreign => "foreign",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("{text:?} is no kind of fault: these are {}", all()))
    }
}

/// Throws for every fault.
pub(crate) struct Faults {
    on: BTreeSet<FaultKind>,
    /// Nothing goes wrong any more.
    calm: bool,
    /// How bad this run is, 1 to 3.
    rough: u32,
    /// How often each kind happened.
    pub(crate) struck: BTreeMap<FaultKind, u64>,
    pub(crate) dice: Dice,
}

impl Faults {
    pub(crate) fn new(on: BTreeSet<FaultKind>, mut dice: Dice) -> Self {
        let rough = 1 + u32::try_from(dice.below(3)).unwrap_or(0);
        Self { on, calm: false, rough, struck: BTreeMap::new(), dice }
    }

    /// From now on nothing goes wrong.
    pub(crate) fn calm(&mut self) {
        self.calm = true;
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm
    }

    /// Whether this kind of fault happens now. Thrown even when it cannot, so that leaving one kind out changes as
    /// little as may be of the rest.
    pub(crate) fn strikes(&mut self, kind: FaultKind) -> bool {
        let often = match kind {
            FaultKind::Crash => 6,
            FaultKind::Restart | FaultKind::Stall | FaultKind::Partition => 60,
            FaultKind::LostReply | FaultKind::StoreError => 25,
            FaultKind::Duplicate | FaultKind::Slow => 60,
            FaultKind::Late => 50,
            FaultKind::WatchReset => 15,
            FaultKind::PartialLook | FaultKind::FailedLook => 100,
            FaultKind::Refuse => 100,
            FaultKind::Meddle | FaultKind::Foreign => 250,
            // Once in a run, at most.
            FaultKind::Restore => 1_000,
        };
        let thrown = self.dice.chance(often * self.rough);
        let strikes = thrown && !self.calm && self.on.contains(&kind);
        if strikes {
            *self.struck.entry(kind).or_default() += 1;
        }
        strikes
    }

    /// How long a message takes, in milliseconds; at most `most` when it is slow.
    pub(crate) fn latency(&mut self, most: i64) -> i64 {
        let usual = self.dice.between(1, 40);
        let slow = self.dice.between(40, most);
        if self.strikes(FaultKind::Slow) { slow } else { usual }
    }
}
