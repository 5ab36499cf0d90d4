//! Agents that choose over the whole fleet and write to the database alone.
//!
//! An [`Agent`](crate::Agent) says of one item what it should be. Where what is right for one hangs on all others (room for
//! machines), that is no question about items. A [`Chooser`] gets the whole view and answers with what is to be committed; [`pass`] commits
//! it on the conditions that it names, and chooses anew where somebody else was faster. [`main`] makes a program of it that is used as
//! all agents are: a daemon, `--once`, `--plan`, `--host`, reports for `shoal wait`, metrics, systemd.
//!
//! **Guaranteed**: nothing is committed that rests on what has changed meanwhile; a restored database is not chosen for before a person
//! agrees; what is paused is left alone; one host that may not be written holds nobody else up. **Assumed**: the conditions in [`Choice::pre`] hold all that the choice rests on. No claim is
//! taken: any number of instances may run, and who loses does its work again. Each pass costs a look at the whole fleet.

mod ask;
mod daemon;
mod pass;
mod program;
mod said;

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use shoal_core::{Behind, Edit, Epoch, Hold, HostName, Pre, Quarantined, Schema, View};
use shoal_engine::Fault;

pub use ask::{Answer, Word, question};
pub use pass::{How, NotDone, Passed, pass};
pub use program::main;

/// What was measured outside of the database, by names that the chooser gives: numbers, or why there are none.
pub type Measured = BTreeMap<String, Result<f64, String>>;

/// An agent that chooses over the whole fleet. The pure half: it decides, and [`pass`] acts.
pub trait Chooser: Send + Sync + 'static {
    /// The namespace of its rules, facts and schema.
    fn namespace(&self) -> &'static str;

    /// What its tags and what hosts say under the namespace's name must look like, and what it writes beside its own facts.
    fn schema(&self) -> Schema;

    /// What is to be committed as things stand.
    ///
    /// # Errors
    /// Nothing can be decided, and why.
    fn decide(&self, world: &World<'_>) -> Result<Choice, Fault>;

    /// The other half, of those that need more than the database: what is measured before it is decided. It is asked for once in a pass, and
    /// bounds its time itself. What cannot be measured is said, and left to the decision.
    fn look(&self, view: &View) -> impl Future<Output = Measured> + Send {
        let _ = view;
        std::future::ready(Measured::new())
    }
}

/// What a choice is made of.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The database, at one revision.
    pub view: &'a View,
    /// Which life of the database.
    pub epoch: Epoch,
    /// The time.
    pub now: Timestamp,
    /// What was measured ([`Chooser::look`]).
    pub measured: &'a Measured,
    /// A number of this instance's own: instances that begin at different places meet less often.
    pub instance: u64,
    /// How many may be chosen for in one commit.
    pub most: usize,
    /// Only for this host, if one was asked for.
    pub only: Option<&'a HostName>,
    /// Hosts about which nothing may be written, and why: they are left out and named.
    pub refused: Option<&'a BTreeMap<HostName, String>>,
}

/// What is to be committed, on which conditions, and what is not as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// What was chosen, for people.
    pub chosen: Vec<Chosen>,
    /// What is to be written; nothing: there is nothing to do.
    pub edits: Vec<Edit>,
    /// For whom something is written: no more than [`World::most`], and each is left out where it is in [`World::refused`].
    pub about: Vec<HostName>,
    /// What all of it rests on.
    pub pre: Vec<Pre>,
    /// What the commit says.
    pub message: String,
    /// Who still waits, and why; by name.
    pub behind: Vec<Behind>,
    /// How many of those a person holds: a pause, a restored database.
    pub held: usize,
    /// What waits for a person as a whole.
    pub hold: Option<Hold>,
    /// Hosts that cannot be understood.
    pub quarantined: Vec<Quarantined>,
    /// What is worth knowing beside that, and holds nothing up: what a plan shows.
    pub notes: Vec<String>,
    /// How many have been chosen for in all.
    pub items: usize,
    /// Whether there is more to choose once this is committed: [`World::most`] was reached.
    pub more: bool,
}

/// One choice, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    /// For whom.
    pub host: String,
    /// What is done: `place`.
    pub verb: &'static str,
    /// With what: the box.
    pub with: String,
    /// Why.
    pub why: String,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, verb, with, why } = self;
        write!(f, "{verb} {host} {with} ({why})")
    }
}
