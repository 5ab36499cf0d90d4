//! What is, and how to change it: the effectful half.
//!
//! A [`Target`] may do I/O and knows commands, paths and credentials from the node's own configuration. It
//! decides nothing: it is told what to change, from what, to what, why, and until when it may start doing so.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_core::{Change, Epoch, HostName, Revision, TagName};

use crate::Moment;
use crate::agent::{Agent, Unit};

/// The effectful half of a daemon: a BIND server, a load balancer, a provider of machines.
pub trait Target<A: Agent>: Send + Sync + 'static {
    /// What kind of target it is. By default: items that stand alone, unmarked, and no check of the fence.
    fn nature(&self) -> Nature {
        Nature::default()
    }

    /// Where this unit is, in a few words for people that stay the same for as long as the things do: `zone files in /var/lib/shoal/zones`.
    /// The ledger keeps them. An agent that is started for another location (without its `--config`, with that of something else) would take
    /// what others have there for what Shoal made here; so it holds until a person agrees. All instances that reach the same things must
    /// say the same. By default nothing: then nobody notices.
    fn location(&self, unit: &Unit) -> String {
        let _ = unit;
        String::new()
    }

    /// Opens what the work needs: a port, a folder of its own, a lock. Called once, before the first look, by whatever is
    /// going to work; **never for a plan or a preview**, which open and write nothing: without this, `observe` only reads.
    ///
    /// # Errors
    /// It cannot work at all. What may come right by itself is better said by `observe` and `apply`.
    fn start(&self) -> impl Future<Output = Result<(), Fault>> + Send {
        std::future::ready(Ok(()))
    }

    /// Closes what [`start`](Self::start) opened. Called once, when all is written down, by a program that ends or reloads;
    /// what comes next is not started before this returns, so it finds the port, the folder, the lock free. A program that
    /// is killed does not call it. By default: nothing was opened.
    fn stop(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Waits until units may have been changed from outside, and names them: they are looked at again, now and not at
    /// the next resync. It may name too many, and need not notice everything. A plan does not ask. By default: never.
    fn woken(&self) -> impl Future<Output = Vec<Unit>> + Send {
        std::future::pending()
    }

    /// Looks at what is there. A look at [`Scope::Keys`] may answer for more keys than it was asked for.
    ///
    /// # Errors
    /// Nothing is known, so nothing will be done. What can be seen in part is better answered with
    /// `complete: false` or [`Seen::Unknown`].
    fn observe(
        &self,
        unit: &Unit,
        scope: Scope<'_, A::Key>,
    ) -> impl Future<Output = Result<Observed<A>, Fault>> + Send;

    /// Does the whole batch, or as much of it as can be done, and says of each change what became of it.
    /// Dropped or killed at any point, a later `observe` must tell the truth. A change whose key is missing from
    /// the answer counts as failed.
    ///
    /// # Errors
    /// The batch failed as a whole; whether anything was done is not known, and the unit is observed again.
    fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<A>,
        fence: &Fence,
    ) -> impl Future<Output = Result<Applied<A>, Fault>> + Send;
}

/// What kind of target it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nature {
    /// It writes a unit as a whole and needs [`Batch::after`].
    pub whole: bool,
    /// It refuses a [`Fence::number`] lower than one it has seen. Where it cannot, a stale holder's window is only narrowed.
    pub checks_fence: bool,
    /// Its [`Seen::Ours`] can be trusted without the ledger: it marks what Shoal made.
    pub marks_own: bool,
    /// Nobody else can reach it, and it may forget: memory of this very process. What differs there is nobody's
    /// edit, so it is put right even where drift is only reported, and what the ledger does not know goes. It is told
    /// all that there is to change in one batch, whatever its size: a part of a unit must not be taken for all of it.
    pub sole: bool,
    /// A creation is refused as [`Outcome::Stale`] where anything stands in its way, and nothing of it is done. So what begins to be wanted
    /// after its unit was looked at is made without a look of its own.
    pub conditional: bool,
    /// Others may write into an item beside Shoal, and what they wrote stays: [`Agent::part`] says what of an item counts.
    pub shared: bool,
}

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a, K> {
    /// The whole unit.
    All,
    /// These items at least.
    Keys(&'a [K]),
}

/// What was seen.
pub struct Observed<A: Agent> {
    /// Item by item.
    pub seen: BTreeMap<A::Key, Seen<A::Have>>,
    /// Whether the look reached everything in its scope: only then a key that is missing from `seen` is not there.
    pub complete: bool,
}

impl<A: Agent> Observed<A> {
    /// A complete look at these items.
    pub fn of(
        keys: impl IntoIterator<Item = A::Key>,
        mut look: impl FnMut(&A::Key) -> Seen<A::Have>,
    ) -> Self {
        let seen = keys.into_iter().map(|key| {
            let seen = look(&key);
            (key, seen)
        });
        Self { seen: seen.collect(), complete: true }
    }
}

/// What was seen of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<H> {
    /// Certainly not there.
    Nothing,
    /// There, and it bears a mark that Shoal made it.
    Ours(H),
    /// There. Whose it is, the ledger knows.
    There(H),
    /// Could not be seen, and why. Never a reason to do anything.
    Unknown(String),
}

/// What to do in one go. Never empty.
pub struct Batch<A: Agent> {
    /// The changes, in key order.
    pub changes: Vec<Edit<A>>,
    /// For a target of [`Nature::whole`]: everything of the unit as it shall stand afterwards, in key order, what
    /// is held or blocked included. Empty for others.
    pub after: Vec<(A::Key, Line<A>)>,
    /// The revision that the decision was made at.
    pub revision: Revision,
}

/// One item of a unit that is written as a whole.
pub enum Line<A: Agent> {
    /// As it should be.
    Want(Arc<A::Item>),
    /// As it is: it is held, paused, foreign or not understood.
    Keep(Arc<A::Have>),
}

/// One change.
pub struct Edit<A: Agent> {
    /// Of which item.
    pub key: A::Key,
    /// What the step called it.
    pub verb: &'static str,
    /// What is there now.
    pub from: Option<A::Have>,
    /// What should be there; `None`: nothing.
    pub to: Option<A::Item>,
    /// What the item remembers.
    pub memo: Value,
    /// The same for every attempt at the same creation: give it to providers that take an idempotency token.
    pub token: String,
    /// Because of what.
    pub because: Why,
}

/// What became of a batch.
pub struct Applied<A: Agent> {
    /// What became of each change. [`Outcome::Stale`] for other keys of the unit says that the batch changed what is there
    /// of them, too (what stood inside something that went): they are looked at and decided on again.
    pub each: Vec<(A::Key, Outcome)>,
    /// Facts to write down (`facts/<namespace>/…`). Equal ones are not written again. They survive the process as soon as
    /// what became of the batch is written down.
    pub facts: Vec<Change>,
}

impl<A: Agent> Applied<A> {
    /// Every change was made.
    #[must_use]
    pub fn all(batch: &Batch<A>) -> Self {
        Self {
            each: batch.changes.iter().map(|edit| (edit.key.clone(), Outcome::Done)).collect(),
            facts: Vec::new(),
        }
    }
}

impl<A: Agent> Applied<A> {
    /// Makes each change of the batch by itself, as long as the fence allows one to begin.
    pub fn each(
        batch: &Batch<A>,
        fence: &Fence,
        mut make: impl FnMut(&Edit<A>) -> Result<(), Fault>,
    ) -> Self {
        let mut one = |edit: &Edit<A>| match fence.check().and_then(|()| make(edit)) {
            Ok(()) => Outcome::Done,
            Err(fault) => Outcome::Failed(fault),
        };
        let each = batch.changes.iter().map(|edit| (edit.key.clone(), one(edit))).collect();
        Self { each, facts: Vec::new() }
    }
}

/// What became of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is made, and a look would show it.
    Done,
    /// It was begun and goes on by itself. Look again then; that an earlier look does not show it says nothing.
    Running {
        /// What to remember.
        memo: Value,
        /// When to look again.
        look_again: Moment,
    },
    /// What is there is not what the change was made for. Look again, decide again.
    Stale,
    /// It failed, and nothing of it was done: it was refused, or never asked for. What stands there afterwards is not what this made, also
    /// where it looks just so.
    Refused(Fault),
    /// It failed. Whether some of it was done, a look tells.
    Failed(Fault),
}

/// An effect that failed, for a tired person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}: {why}{}", next.as_deref().map(|n| format!("; {n}")).unwrap_or_default())]
pub struct Fault {
    /// What was attempted, on what.
    pub what: String,
    /// Why it failed.
    pub why: String,
    /// What to do next, where that is known.
    pub next: Option<String>,
    /// Whether trying again without a change can never help (a refused record, a bad credential).
    pub permanent: bool,
}

impl Fault {
    /// A fault that may pass.
    pub fn new(what: impl Into<String>, why: impl ToString) -> Self {
        Self { what: what.into(), why: why.to_string(), next: None, permanent: false }
    }

    /// With what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// That will not pass by itself.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.permanent = true;
        self
    }
}

/// The right to work on a unit, and its end.
#[derive(Clone)]
pub struct Fence {
    /// Rises with every new holder of the unit. Give it to targets that can refuse an older one.
    pub number: u64,
    /// No effect starts later than this.
    pub not_after: Moment,
    /// Which life of which database this is for: numbers of another say nothing here, and a place that one database owns is not
    /// another's to write.
    pub epoch: Epoch,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Fence {
    /// To be asked before every effect.
    ///
    /// # Errors
    /// The right has ended: stop here.
    pub fn check(&self) -> Result<(), Fault> {
        if self.clock.now() <= self.not_after {
            return Ok(());
        }
        Err(Fault::new("start an effect", "the claim on this unit may have passed to another instance"))
    }
}

impl std::fmt::Debug for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fence({}, until {})", self.number, self.not_after)
    }
}

/// What time it is. Never goes back; real in the runtime, virtual in the simulator.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Moment;
}

/// Because of what a change is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The sources want it since this revision: an intentional change.
    Wanted(Revision),
    /// It is as it should be, and its time has come ([`Step::Run`](crate::Step::Run)).
    Due,
    /// It was changed behind Shoal's back.
    Drift,
    /// The target, which nobody else can reach ([`Nature::sole`]), began anew.
    Restart,
    /// The database is another life of itself, a restored backup: what was done since is not in it.
    Restored {
        /// The life that the ledger was written in.
        from: Epoch,
        /// The one that it is now.
        to: Epoch,
    },
    /// The ledger speaks of what stands elsewhere, see [`Target::location`].
    Moved {
        /// Where Shoal made it.
        from: String,
        /// What the agent runs for now.
        to: String,
    },
    /// The host was deleted.
    HostGone(HostName, Revision),
    /// The host was renamed, to the second name.
    HostRenamed(HostName, HostName, Revision),
    /// The tag was deleted.
    TagGone(TagName, Revision),
    /// The host is no longer a member of the tag.
    NotMember(TagName, HostName, Revision),
    /// The host's state is no longer served.
    Lifecycle(HostName, Revision),
    /// The sources stand, and no longer want it.
    Edited(String, Revision),
    /// The sources stand unchanged; another version of the agent decides differently.
    NewLogic {
        /// The logic that made it.
        from: u32,
        /// The logic that would change it.
        to: u32,
    },
}
