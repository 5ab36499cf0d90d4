//! What the engine keeps of one item, and what a decision about it can be.

use std::sync::Arc;

use serde_json::Value;
use shoal_core::{HostName, Revision};

use crate::Moment;
use crate::agent::Agent;
use crate::ledger::{Entry, SourceId, Stage};
use crate::target::{Seen, Why};

/// One item. Everything large is shared.
pub(crate) struct Item<A: Agent> {
    /// The sources that feed it, in order.
    pub(crate) sources: Vec<SourceId>,
    /// What the last decision wanted.
    pub(crate) want: Option<Arc<A::Item>>,
    /// What the ledger says.
    pub(crate) entry: Option<Entry<A::Item>>,
    /// What is there.
    pub(crate) sight: Sight<A::Have>,
    /// The newest revision of all that the last decision read.
    pub(crate) revision: Revision,
    /// Other hosts that the last decision read.
    pub(crate) reads: Vec<HostName>,
    /// When it is to be looked at again.
    pub(crate) again: Option<Moment>,
    /// It was missed when nothing of the unit was as Shoal had made it: nobody took it out, the target lost it.
    pub(crate) lost: bool,
    /// No attempt at it was ever sent but the one that is under way.
    pub(crate) first: bool,
}

/// What a change is called that puts back what a target lost, as it was, while it is held.
pub(crate) const REMAKE: &str = "remake";

/// What a change is called that takes something away, and that has nothing to do where it is missing.
pub(crate) const REMOVE: &str = "remove";

/// What a change is called that makes something Shoal's that it did not make.
pub(crate) const ADOPT: &str = "adopt";

impl<A: Agent> Default for Item<A> {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            want: None,
            entry: None,
            sight: Sight::Unlooked,
            revision: Revision(0),
            reads: Vec::new(),
            again: None,
            lost: false,
            first: false,
        }
    }
}

impl<A: Agent> Item<A> {
    /// Something happened that concerns it. What became of an attempt may not have shown yet when it was last looked at, and
    /// what could not be seen may be seen by now.
    pub(crate) fn woken(&mut self) {
        let creating = matches!(self.entry, Some(Entry { stage: Stage::Creating { .. }, .. }));
        if creating || matches!(self.sight, Sight::Unknown(_)) {
            self.sight = Sight::Unlooked;
        }
    }

    /// When a look is to show what was begun, if something was.
    pub(crate) fn shows(&self) -> Option<Moment> {
        match self.entry.as_ref()?.stage {
            Stage::Creating { begun, .. } => begun,
            _ => None,
        }
    }
}

/// What was last seen of an item.
#[derive(Clone)]
pub(crate) enum Sight<H> {
    /// It has to be looked at before anything is decided.
    Unlooked,
    /// It came after its unit was looked at, and nobody looked since.
    New,
    /// Certainly not there.
    Nothing,
    /// Not there, and what was begun is not to show before then: nobody knows whether it will.
    NotYet(Moment),
    /// There, and the target says that Shoal made it.
    Ours(Arc<H>),
    /// There; whose it is, the ledger knows.
    There(Arc<H>),
    /// It could not be seen, and why.
    Unknown(String),
}

impl<H> Sight<H> {
    /// `trusts`: whether the target's own mark counts.
    pub(crate) fn of(seen: Seen<H>, trusts: bool) -> Self {
        match seen {
            Seen::Nothing => Self::Nothing,
            Seen::Ours(have) if trusts => Self::Ours(Arc::new(have)),
            Seen::Ours(have) | Seen::There(have) => Self::There(Arc::new(have)),
            Seen::Unknown(why) => Self::Unknown(why),
        }
    }

    pub(crate) fn have(&self) -> Option<&Arc<H>> {
        match self {
            Self::Ours(have) | Self::There(have) => Some(have),
            _ => None,
        }
    }
}

/// What was decided about one item.
pub(crate) enum Decision<A: Agent> {
    /// It is as it should be.
    Rest { look_again: Option<Moment> },
    /// It has to be looked at first.
    Look,
    /// Change it.
    Act(Box<Planned<A>>),
    /// It is not as it should be, and nothing is done now. The change that would be made, where there is one.
    Stay { trouble: Trouble, planned: Option<Box<Planned<A>>>, memo: Option<Value>, until: Option<Moment> },
}

/// A change that was decided on.
pub(crate) struct Planned<A: Agent> {
    pub(crate) verb: &'static str,
    pub(crate) memo: Value,
    pub(crate) from: Option<Arc<A::Have>>,
    pub(crate) to: Option<Arc<A::Item>>,
    pub(crate) because: Why,
    /// The sources that want `to`. The item's own may be others by the time that it is done, or none.
    pub(crate) sources: Vec<SourceId>,
    /// The newest revision that the decision was made from.
    pub(crate) revision: Revision,
    /// The last thing that was wanted, for saying what differs.
    pub(crate) last: Option<Arc<A::Item>>,
}

impl<A: Agent> Planned<A> {
    pub(crate) fn kind(&self) -> Kind {
        match (&self.from, &self.to) {
            (_, None) => Kind::Remove,
            (None, Some(_)) => Kind::Create,
            (Some(_), Some(_)) => Kind::Update,
        }
    }
}

/// What kind of change it is, whatever the agent calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing is there yet.
    Create,
    /// Something is there and shall be different.
    Update,
    /// It shall go.
    Remove,
}

/// Why an item is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A commit touched it; it is decided on soon.
    Dirty,
    /// It is being changed.
    Changing,
    /// It waits, for this.
    Waiting(String),
    /// The last attempt failed, so.
    Failed(String),
    /// What is there could not be seen.
    Unseen(String),
    /// A person holds it, or has to agree.
    Held(String),
    /// What should be there cannot be said.
    Blocked(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dirty => f.write_str("not looked at yet"),
            Self::Changing => f.write_str("changing"),
            Self::Waiting(why) => write!(f, "waiting: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Unseen(why) => write!(f, "cannot be seen: {why}"),
            Self::Held(why) => write!(f, "held: {why}"),
            Self::Blocked(why) => write!(f, "blocked: {why}"),
        }
    }
}

/// One item that is not known to be as it should be.
pub(crate) struct Open<A: Agent> {
    pub(crate) since: Revision,
    pub(crate) trouble: Trouble,
    pub(crate) planned: Option<Box<Planned<A>>>,
}
