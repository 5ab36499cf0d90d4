//! What there is in the model: a store with one claim and one ledger entry, a target, instances, and what is on its way between
//! them.
//!
//! Everything is small and has an order, so that a state is found again: instances that could be exchanged for each other stand
//! in one order, and time is not counted but passes as an action.

/// One thing that may be wanted. Contents are bits, so that attempts are a set.
pub(crate) const A: u8 = 1;
/// Another.
pub(crate) const B: u8 = 2;
/// What a person puts there: nobody else would make it.
pub(crate) const FOREIGN: u8 = 4;

/// Something that stands in the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Thing {
    pub(crate) content: u8,
    /// Of its creation; 0: a person's. Only a provider shows it.
    pub(crate) token: u8,
}

impl Thing {
    pub(crate) fn is_foreign(self) -> bool {
        self.token == 0
    }
}

/// How far the item is, as the ledger says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// It may or may not be there: these contents were tried.
    Creating(u8),
    /// It was there, last with this content; 0: nobody noted which.
    Made(u8),
    /// It may or may not be gone.
    Removing,
}

/// The ledger's entry of the item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) stage: Stage,
    pub(crate) token: u8,
}

/// A change of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Change {
    Create(Thing),
    Update { from: Thing, to: u8 },
    Remove(Thing),
}

/// A change on its way to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Effect {
    /// The claim's that it began under.
    pub(crate) number: u8,
    pub(crate) change: Change,
    /// It began in time, and so is over before its claim is, where effects are that fast.
    pub(crate) in_time: bool,
}

/// A write to the ledger whose answer nobody waits for any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Post {
    pub(crate) number: u8,
    pub(crate) entry: Option<Entry>,
}

/// The claim on the unit, as the store has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Claim {
    pub(crate) number: u8,
    /// Past `not_after`: it is still held, and nothing more begins under it unless it is renewed.
    pub(crate) ending: bool,
}

/// What a holder remembers. All of it is lost when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Memory {
    pub(crate) number: u8,
    /// The entry as it should be.
    pub(crate) entry: Option<Entry>,
    /// The entry as it was last read or written.
    pub(crate) written: Option<Entry>,
    /// What the last look showed.
    pub(crate) sight: Option<Thing>,
    /// The change that is under way is the only attempt there ever was.
    pub(crate) first: bool,
}

impl Memory {
    pub(crate) fn new(number: u8) -> Self {
        Self { number, entry: None, written: None, sight: None, first: false }
    }
}

/// How far a holder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    /// The ledger is to be read.
    Taken,
    /// The target is to be looked at.
    Looking,
    /// Both are known.
    Deciding,
    /// The entry is to be written; then this is to be done.
    Writing(Option<Change>),
    /// The intent is written, and the effect not begun.
    Journalled(Change),
    /// The effect is on its way, and its answer is waited for.
    Applying,
}

/// An instance of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Agent {
    Down,
    Idle,
    /// It has the claim, or thinks so.
    Holder(At, Memory),
}

/// How often what may go wrong may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Faults {
    /// An instance dies.
    pub(crate) crashes: u8,
    /// An instance that lives loses its claim: it stands still for too long, is cut off, or hands the unit over.
    pub(crate) losses: u8,
    /// A message or its answer is lost or late.
    pub(crate) lost: u8,
    /// Something else is wanted.
    pub(crate) wishes: u8,
    /// A person puts something there.
    pub(crate) persons: u8,
}

/// What must never have been seen. No step reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Seen {
    /// The store took a write under a claim that was over.
    pub(crate) stale_write: bool,
    /// A number was given that was not higher than all before.
    pub(crate) fell: bool,
    /// An effect was let in after a later holder's, or after there was one.
    pub(crate) overlap: bool,
    /// What a person put there was changed or removed.
    pub(crate) harmed: bool,
}

/// All there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) claim: Option<Claim>,
    /// The highest number that was ever given.
    pub(crate) given: u8,
    pub(crate) ledger: Option<Entry>,
    pub(crate) late: Option<Post>,
    /// What the database wants there.
    pub(crate) wish: Option<u8>,
    pub(crate) target: Vec<Thing>,
    /// The highest number that the target let in, where it checks.
    pub(crate) newest: u8,
    /// The highest token that was ever made up.
    pub(crate) tokens: u8,
    pub(crate) agents: Vec<Agent>,
    pub(crate) sent: Vec<Effect>,
    pub(crate) left: Faults,
    pub(crate) seen: Seen,
}

impl State {
    /// Whether the store has the claim of this number as held.
    pub(crate) fn is_held(&self, number: u8) -> bool {
        self.claim.is_some_and(|claim| claim.number == number)
    }

    /// Whether the claim of this number is held and far enough from its end for an effect to begin.
    pub(crate) fn may_act(&self, number: u8) -> bool {
        self.claim.is_some_and(|claim| claim.number == number && !claim.ending)
    }

    /// Whether an instance lives that holds the claim of this number.
    pub(crate) fn lives(&self, number: u8) -> bool {
        self.agents.iter().any(|agent| matches!(agent, Agent::Holder(_, memory) if memory.number == number))
    }

    /// The instance that waits for what becomes of an effect of this number.
    pub(crate) fn waits(&self, number: u8) -> Option<(usize, Memory)> {
        self.agents.iter().enumerate().find_map(|(i, agent)| match agent {
            Agent::Holder(At::Applying, memory) if memory.number == number => Some((i, *memory)),
            _ => None,
        })
    }
}
