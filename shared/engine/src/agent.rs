//! What an agent decides: the pure half.
//!
//! An [`Agent`] is a handful of synchronous functions of data. The engine calls them, the runtime and the
//! simulator carry out what comes of it, and the same code runs in `--plan`, in the daemon and in a
//! simulated swarm. An agent never sees a clock, a file or a socket.
//!
//! The engine may call any of them at any time, in any order, as often as it likes, and from another process:
//! equal input must give equal output.

use std::fmt::{Debug, Display};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shoal_core::{Fact, Host, HostId, HostName, Lifecycle, Revision, TagName};

use crate::Moment;
use crate::target::{Seen, Why};

/// The pure half of a daemon: what should be, for the tags of one namespace.
pub trait Agent: Send + Sync + Sized + 'static {
    /// A tag's document as this agent reads it. Its JSON Schema is published under `schemas/<namespace>`.
    type Spec: DeserializeOwned + JsonSchema + Send + Sync;
    /// Names one item. Its text form is stable across versions: the ledger keeps it.
    type Key: Ord + Clone + Debug + Display + Serialize + DeserializeOwned + Send + Sync;
    /// What one item should be.
    type Item: Eq + Clone + Debug + Serialize + DeserializeOwned + Send + Sync;
    /// What one item is. Often the same type; a machine has an id and an address that nobody asked for.
    type Have: Clone + Debug + Serialize + PartialEq<Self::Item> + Send + Sync;

    /// The namespace whose tags it watches, also the agent's name.
    fn namespace(&self) -> &str;

    /// Raised when the same tags would give other items. Changes of items whose sources did not change are
    /// then held until a person agrees ([`Why::NewLogic`](crate::Why::NewLogic)).
    fn logic(&self) -> u32 {
        1
    }

    /// The JSON Schema of what a host may override under the namespace's name; `None`: nothing.
    fn overrides(&self) -> Option<schemars::Schema> {
        None
    }

    /// What the agent writes of hosts and facts besides facts of its own: it stands with its schema, and a server that asks who
    /// may do what lets it write this and no more. `None`: nothing.
    fn writes(&self) -> Option<shoal_core::access::Manifest> {
        None
    }

    /// Whether a host in this state is given to [`keys`](Self::keys) at all.
    fn serves(&self, state: Lifecycle) -> bool {
        matches!(state, Lifecycle::Active | Lifecycle::Draining)
    }

    /// Where an item is worked on. Follows from the key alone.
    fn unit(&self, key: &Self::Key) -> Unit;

    /// The units that hold all items which a source with this host feeds, where they are this host's alone: no other host feeds into
    /// them, and [`desired`](Self::desired) looks nobody else up. One instance for each host (`--host self`) then asks the ledger for
    /// these, and reads and watches what [concerns](shoal_core::Range::Concerning) its host, however many others there are. `None`: it
    /// asks for every unit whether it has something of the host, and reads the whole database.
    fn units_of(&self, host: &HostName) -> Option<Vec<Unit>> {
        let _ = host;
        None
    }

    /// Whether this instance can work on a unit at all. What stands on one machine's own disk, only an instance there can. A unit that it does
    /// not reach is left alone: neither claimed nor reported, and no part of what instances share. By default all are reached.
    fn reaches(&self, unit: &Unit) -> bool {
        let _ = unit;
        true
    }

    /// The items that a source feeds. Called for each tag itself (`host` is `None`) and for each of its members.
    /// Proportional: it looks at this source only.
    ///
    /// # Errors
    /// The source cannot be understood. The items it fed before stay as they are.
    fn keys(&self, from: &Source<'_, Self::Spec>) -> Result<Vec<Self::Key>, Blocked>;

    /// What an item should be, from all sources that feed it, in order of tag, then host. `look` reads other
    /// hosts; what it read is remembered, and their change wakes this item.
    ///
    /// # Errors
    /// Nothing can be said; the item stays as it is. One bad source of several is better left out of the
    /// item and named in [`Desired::left_out`]. `Ok` with [`Desired::nothing`] says that the item should not be,
    /// although sources feed it; it is removed for the reason its sources changed ([`Why::Edited`](crate::Why::Edited)).
    fn desired(
        &self,
        key: &Self::Key,
        from: &[Source<'_, Self::Spec>],
        look: &dyn Look,
    ) -> Result<Desired<Self::Item>, Blocked>;

    /// What a look would show right after this item was made. Agents that can say it save a look after every
    /// change; `None`: the engine looks.
    fn made(&self, item: &Self::Item) -> Option<Self::Have> {
        let _ = item;
        None
    }

    /// What an item that stands is changed to while a person holds one of its hosts as it is, from what it was last made as: a mark
    /// that says so, and nothing else. Given its own answer it says the same, or nothing. By default it stays as it is.
    ///
    /// An item that somebody edited is not marked, nor is one of which a tag or the whole agent is paused.
    fn paused(&self, item: &Self::Item) -> Option<Self::Item> {
        let _ = item;
        None
    }

    /// What of an item concerns Shoal, in a target where others write beside it ([`Nature::shared`](crate::Nature::shared)): the
    /// records of two types under one name, say. Whose the part is, the ledger says, unless the answer is [`Seen::Ours`]. Changes
    /// are then made of that part alone. What is in it, is in the way of what is wanted, and is not Shoal's by what is known, the step
    /// answers with [`Step::Clash`]. By default all of it.
    fn part(&self, key: &Self::Key, have: &Self::Have, known: Known<'_, Self::Item>) -> Seen<Self::Have> {
        let _ = (key, known);
        Seen::There(have.clone())
    }

    /// Whether this change of what is there takes everything else of the unit with it: a zone without its start of authority
    /// is none. The guard then counts the whole unit as removed, and nothing of the kind is done while a person holds any of it.
    fn takes_unit(&self, key: &Self::Key, have: &Self::Have, to: Option<&Self::Item>) -> bool {
        let _ = (key, have, to);
        false
    }

    /// Whether what stands may go for this reason, which the database states. Asked before the step of an item that nobody wants any
    /// more: refused, the item stays as it is, and is shown as held. For what cannot be made again as it was: of a machine, say, nobody
    /// meant the end who took it out of a tag. `look` reads hosts, and nothing is remembered of that. By default it may.
    ///
    /// # Errors
    /// Why not, and what to do about it.
    fn lets_go(&self, key: &Self::Key, because: &Why, look: &dyn Look) -> Result<(), String> {
        let _ = (key, because, look);
        Ok(())
    }

    /// Whether what was last made as `last` stands as it should where `want` is wanted, so that what is due of it ([`Step::Run`]) changes
    /// nothing: for items that also say what is only told of them, such as where their host is in its life. By default where both are the
    /// same.
    fn stands(&self, last: &Self::Item, want: &Self::Item) -> bool {
        last == want
    }

    /// What to do next about one item. Most agents keep the default: create, update, remove.
    fn step(&self, key: &Self::Key, at: At<'_, Self>, now: Moment) -> Step {
        let _ = (key, now);
        at.by_default()
    }
}

/// What is worked on together: a zone, a pool, a monitoring server. Claim, batch, guard and watermark belong to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Unit(pub String);

impl Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl<T: Into<String>> From<T> for Unit {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

/// A tag, or a tag with one member, as an item's origin.
pub struct Source<'a, S> {
    /// The tag.
    pub tag: &'a TagName,
    /// Its effective document for this member; without a member, the tag's own.
    pub spec: &'a S,
    /// The member; `None`: the tag itself.
    pub host: Option<&'a Host>,
    /// What is reported about the member, in all namespaces. When that changes, the source is asked about again.
    pub facts: &'a [Fact],
    /// The newest revision of what this was made from.
    pub revision: Revision,
}

/// Reads other hosts while deciding about one item.
pub trait Look {
    /// The host of this name, in whatever state.
    fn host(&self, name: &str) -> Option<&Host>;

    /// Who has this id. Of a host that was deleted, and written anew as another one, its name says nothing any more. Only
    /// [`Agent::lets_go`] is told: nothing would wake an item for which it was read elsewhere. Costs a look at every host.
    fn holder(&self, id: &HostId) -> Holder<'_> {
        let _ = id;
        Holder::Unknown
    }
}

/// Who has an id.
#[derive(Clone, Copy, Debug)]
pub enum Holder<'a> {
    /// This host, whatever it is called by now, and what is reported about it.
    Host(&'a Host, &'a [Fact]),
    /// No host.
    Nobody,
    /// That cannot be said: not the whole database was read, or there is a host whose row cannot be understood, and that may be it.
    Unknown,
}

/// What an item should be.
#[derive(Clone, Debug)]
pub struct Desired<I> {
    /// The item; `None`: it should not be.
    pub item: Option<I>,
    /// Sources that were left out of it, and why. They are reported; the item goes on without them.
    pub left_out: Vec<Blocked>,
}

impl<I> Desired<I> {
    /// This item, nothing left out.
    pub fn item(item: I) -> Self {
        Self { item: Some(item), left_out: Vec::new() }
    }

    /// No item.
    pub fn nothing(left_out: Vec<Blocked>) -> Self {
        Self { item: None, left_out }
    }
}

/// Who cannot be served, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocked {
    /// The sources at fault, `dns/example.com: web1.example.com`; all sides of a clash.
    pub who: Vec<String>,
    /// Why, and what to do about it.
    pub why: String,
}

impl Blocked {
    /// One source, one reason.
    pub fn new(who: impl Into<String>, why: impl Into<String>) -> Self {
        Self { who: vec![who.into()], why: why.into() }
    }
}

impl<S> Source<'_, S> {
    /// This source for people: `dns/example.com: web1.example.com`.
    #[must_use]
    pub fn name(&self) -> String {
        match self.host {
            Some(host) => format!("{}: {}", self.tag, host.name),
            None => self.tag.to_string(),
        }
    }

    /// The member's name.
    #[must_use]
    pub fn host_name(&self) -> Option<&HostName> {
        self.host.map(|h| &h.name)
    }
}

/// What is known of an item that others write into as well. Never nothing at all.
#[derive(Debug)]
pub struct Known<'a, I> {
    /// What should be.
    pub want: Option<&'a I>,
    /// What it was last made as.
    pub last: Option<&'a I>,
    /// What it may have been made as since: the ledger does not say what became of these. What is there exactly so is Shoal's.
    pub tried: &'a [&'a I],
}

/// All that a step is decided from.
pub struct At<'a, A: Agent> {
    /// What should be; `None`: nothing.
    pub want: Option<&'a A::Item>,
    /// What was wanted when something was last done about it.
    pub last: Option<&'a A::Item>,
    /// What it may have been made as since, see [`Known::tried`].
    pub tried: &'a [&'a A::Item],
    /// What is there and ours; `None`: nothing.
    pub have: Option<&'a A::Have>,
    /// What this item's last step remembered; `Null` at first. Kept in the ledger, at most 4 KiB.
    pub memo: &'a Value,
}

impl<A: Agent> At<'_, A> {
    /// Rests when what is there is what should be; else creates, updates or removes.
    #[must_use]
    pub fn by_default(&self) -> Step {
        match (self.want, self.have) {
            (None, None) => Step::rest(),
            (Some(want), Some(have)) if have == want => Step::rest(),
            (Some(_), None) => Step::act("create"),
            (Some(_), Some(_)) => Step::act("update"),
            (None, Some(_)) => Step::act("remove"),
        }
    }
}

/// What to do next about one item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// It is as it should be; look again at that time, if any. What rests is not behind.
    Rest {
        /// When to look again.
        look_again: Option<Moment>,
    },
    /// It is behind, and nothing can be done yet.
    Wait {
        /// When to decide again, unless something happens before.
        until: Option<Moment>,
        /// For what: `3 connections`.
        why: String,
        /// What to remember.
        memo: Value,
    },
    /// Some of what is there is not Shoal's and is in the way: it stays as it is, unless a person says with `shoal adopt`, of
    /// exactly what is there and what is wanted, that Shoal is to have it. Then it is changed as if it were Shoal's.
    Clash {
        /// What is in the way.
        why: String,
    },
    /// It is behind, and only a person can change that.
    Hold {
        /// Why, and what to do about it.
        why: String,
    },
    /// What stands is as it should be, and its time has come: a backup, a test of one. It changes nothing of what is wanted, so it is
    /// no drift and the guard does not count it; a pause holds it. Where what is wanted is not what was last made
    /// ([`Agent::stands`]), or nothing is there, it is an [`Act`](Self::Act).
    Run {
        /// What, in one word for plans and metrics.
        verb: &'static str,
        /// What to remember.
        memo: Value,
    },
    /// Do something about it now.
    Act {
        /// What, in one word for plans and metrics: `create`, `update`, `remove`, `drain`, ….
        verb: &'static str,
        /// What to remember.
        memo: Value,
    },
}

impl Step {
    /// Nothing to do.
    #[must_use]
    pub fn rest() -> Self {
        Self::Rest { look_again: None }
    }

    /// Do this.
    #[must_use]
    pub fn act(verb: &'static str) -> Self {
        Self::Act { verb, memo: Value::Null }
    }

    /// Decide again when something happens, or at `until`.
    #[must_use]
    pub fn wait(why: impl Into<String>, until: Option<Moment>) -> Self {
        Self::Wait { until, why: why.into(), memo: Value::Null }
    }
}
