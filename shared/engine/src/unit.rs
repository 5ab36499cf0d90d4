//! One unit: its items, its claim, its ledger pages, what is in flight, and what is still to be decided.
//!
//! A unit goes through these phases, and falls back to the first whenever its claim is lost:
//!
//! 1. `Cold`: nothing is known. It needs its claim, then its ledger.
//! 2. `Known`: the ledger is read. It needs a look at everything.
//! 3. `Ready`: decisions may be made.
//!
//! At most one batch of a unit is in flight, and at most one look. What a batch touches while a look is under way is
//! not believed from that look: it may have been seen before the change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::{Change, Hold, LeftOut, Revision};

use crate::Moment;
use crate::agent::{Agent, Blocked, Unit};
use crate::facts::Due;
use crate::item::{Item, Open, Planned, Sight, Trouble};
use crate::ledger::{OtherLife, Pages, SourceId};
use crate::retry::{Retry, Tried};
use crate::sorted::{Map, Set};
use crate::target::Batch;

/// How far a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Cold,
    Known,
    Ready,
}

/// The right to work on the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    None { ask_at: Moment },
    Held { number: u64, until: Moment, renew_at: Moment },
}

/// A batch on its way.
pub(crate) struct Flight<A: Agent> {
    pub(crate) id: u64,
    pub(crate) at: Stage,
    pub(crate) batch: Option<Arc<Batch<A>>>,
    /// The keys of the ledger rows being written.
    pub(crate) rows: Vec<String>,
}

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its intent is being written; without a batch, what became of earlier ones.
    Journal,
    /// The target is at it.
    Apply,
}

/// A look on its way.
pub(crate) struct Looking<K> {
    pub(crate) id: u64,
    pub(crate) keys: Option<Vec<K>>,
    pub(crate) asked: Moment,
    /// Keys that a batch has touched since the look began.
    pub(crate) tainted: Set<K>,
}

/// One unit.
pub(crate) struct State<A: Agent> {
    pub(crate) name: Unit,
    pub(crate) phase: Phase,
    pub(crate) claim: Claim,
    pub(crate) claiming: Option<u64>,
    pub(crate) reading: Option<u64>,
    pub(crate) items: Map<A::Key, Item<A>>,
    /// How many items the ledger holds.
    pub(crate) entries: usize,
    pub(crate) pages: Pages<A::Key>,
    /// Items that a commit, a look or a timer woke.
    pub(crate) dirty: Set<A::Key>,
    /// Items that a batch made and that nothing else woke: what is wanted of them is known.
    pub(crate) made: Set<A::Key>,
    /// Items to decide on again when the batch that changes them is done.
    pub(crate) postponed: Set<A::Key>,
    /// Items that a sweep still has to pass, last first.
    pub(crate) sweep: Vec<A::Key>,
    /// Items to look at before they are decided on.
    pub(crate) look: Set<A::Key>,
    pub(crate) look_all: bool,
    pub(crate) looking: Option<Looking<A::Key>>,
    /// Items with a change that may go.
    pub(crate) ready: Set<A::Key>,
    /// Items with a change that a sweep found; they go when it is through.
    pub(crate) later: Set<A::Key>,
    /// Items that are not known to be as they should be.
    pub(crate) open: Map<A::Key, Open<A>>,
    pub(crate) left_out: BTreeMap<A::Key, Vec<Blocked>>,
    pub(crate) flight: Option<Flight<A>>,
    /// Facts that targets told and that are not committed yet.
    pub(crate) facts: Due,
    pub(crate) committing: Option<(u64, Vec<Change>)>,
    /// Writes and batches that were under way when what was known was forgotten. Nothing is begun before they are over: one
    /// that lands late would write over what was written since, or change what was looked at.
    pub(crate) ending: BTreeSet<u64>,
    pub(crate) timers: BTreeSet<(Moment, A::Key)>,
    pub(crate) retries: Map<A::Key, Tried<A>>,
    /// Items that were put back as they were, and when that may be tried again. Cleared by a look that shows them.
    pub(crate) remakes: BTreeMap<A::Key, Retry>,
    /// The last look showed that the target lost the unit: it is told everything at once, when all of it is decided on.
    pub(crate) lost: bool,
    /// Failures of the unit as a whole: nothing of it is tried before `at`.
    pub(crate) backoff: Retry,
    /// Somebody changed something since: the next try is not to wait as long as the failures say.
    pub(crate) hurry: bool,
    pub(crate) hold: Option<Hold>,
    /// Digests of changes that a person agreed to, of what the ledger has no entry of.
    pub(crate) agreed: BTreeMap<A::Key, String>,
    /// The ledger is of this other life.
    pub(crate) other_life: OtherLife,
    pub(crate) next_sweep: Moment,
    /// When it was last worked on.
    pub(crate) now: Moment,
    /// What must have been seen before anything is done: the last holder may have acted on it.
    pub(crate) least: Revision,
    /// It is this instance's to ask for.
    pub(crate) asks: bool,
    /// It is another instance's to have: it is given back as soon as nothing of it is under way.
    pub(crate) leaving: bool,
    /// It is not let go of for others before.
    pub(crate) kept_until: Moment,
    /// Another instance has the claim, or is to have it.
    pub(crate) elsewhere: bool,
    /// Not every item has been decided on since the claim was taken.
    pub(crate) fresh: bool,
    /// The ledger lists it, though no source feeds it now.
    pub(crate) listed: bool,
    /// Its ledger is read without a claim, to learn whether it is one of those that were asked for.
    pub(crate) peeking: Option<u64>,
    /// It is one of those, as its ledger said. Told until the ledger is read under the claim.
    pub(crate) asked_for: bool,
}

impl<A: Agent> State<A> {
    pub(crate) fn new(name: Unit, prefix: String) -> Self {
        Self {
            name,
            phase: Phase::Cold,
            claim: Claim::None { ask_at: Moment::MIN },
            claiming: None,
            reading: None,
            items: Map::new(),
            entries: 0,
            pages: Pages::new(prefix),
            dirty: Set::new(),
            made: Set::new(),
            postponed: Set::new(),
            sweep: Vec::new(),
            look: Set::new(),
            look_all: false,
            looking: None,
            ready: Set::new(),
            later: Set::new(),
            open: Map::new(),
            left_out: BTreeMap::new(),
            flight: None,
            facts: Due::default(),
            committing: None,
            ending: BTreeSet::new(),
            timers: BTreeSet::new(),
            retries: Map::new(),
            remakes: BTreeMap::new(),
            lost: false,
            backoff: Retry::default(),
            hurry: false,
            hold: None,
            agreed: BTreeMap::new(),
            other_life: OtherLife::default(),
            next_sweep: Moment::MAX,
            now: Moment::MIN,
            least: Revision(0),
            asks: true,
            leaving: false,
            kept_until: Moment::MIN,
            elsewhere: false,
            fresh: true,
            listed: false,
            peeking: None,
            asked_for: false,
        }
    }

    /// The source feeds this item from now on.
    pub(crate) fn link(&mut self, key: &A::Key, source: &SourceId) {
        let new = || {
            let sight = if self.phase == Phase::Ready { Sight::New } else { Sight::Unlooked };
            Item { sight, ..Item::default() }
        };
        let item = self.items.get_or_insert_with(key, new);
        if let Err(at) = item.sources.binary_search(source) {
            if item.sources.is_empty() {
                // Most have one, and a vector that grows by itself begins with room for four.
                item.sources.reserve_exact(1);
            }
            item.sources.insert(at, source.clone());
        }
    }

    /// The source does not feed this item any more.
    pub(crate) fn unlink(&mut self, key: &A::Key, source: &SourceId) {
        if let Some(item) = self.items.get_mut(key) {
            item.sources.retain(|id| id != source);
        }
    }

    /// A commit touched it.
    pub(crate) fn wake(&mut self, key: &A::Key, since: Revision) {
        let Some(item) = self.items.get_mut(key) else { return };
        item.woken();
        self.hurry = true;
        self.dirty.add(key);
        self.open.get_or_insert_with(key, || Open { since, trouble: Trouble::Dirty, planned: None });
    }

    /// Wakes everything that sources feed.
    pub(crate) fn wake_fed(&mut self, since: Revision) {
        let Self { items, dirty, open, hurry, .. } = self;
        for (key, item) in items.iter_mut().filter(|(_, item)| !item.sources.is_empty()) {
            item.woken();
            *hurry = true;
            dirty.add(key);
            open.get_or_insert_with(key, || Open { since, trouble: Trouble::Dirty, planned: None });
        }
    }

    /// Every item is decided on again, real changes first: those are not swept as well.
    pub(crate) fn wake_all(&mut self) {
        let rest = self.items.keys().rev().filter(|key| !self.dirty.contains(*key));
        self.sweep = rest.cloned().collect();
    }

    /// The fencing number, if the claim allows an effect to start now.
    pub(crate) fn may_act(&self, now: Moment, margin: Moment) -> Option<(u64, Moment)> {
        match self.claim {
            Claim::Held { number, until, .. } if now < until.saturating_sub(margin) => {
                Some((number, until.saturating_sub(margin)))
            }
            _ => None,
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        match self.claim {
            Claim::Held { number, .. } => Some(number),
            Claim::None { .. } => None,
        }
    }

    /// Decide about `key` again at `at`, after a look.
    pub(crate) fn set_timer(&mut self, key: &A::Key, at: Option<Moment>) {
        let Some(item) = self.items.get_mut(key) else { return };
        if let Some(old) = item.again.take() {
            self.timers.remove(&(old, key.clone()));
        }
        if let Some(at) = at.filter(|at| *at < Moment::MAX) {
            item.again = Some(at);
            self.timers.insert((at, key.clone()));
        }
    }

    /// The digest of the change that a person agreed to, if it is not made yet.
    pub(crate) fn agreed(&self, key: &A::Key) -> Option<&String> {
        let entry = self.items.get(key).and_then(|item| item.entry.as_ref());
        entry.and_then(|entry| entry.agreed.as_ref()).or_else(|| self.agreed.get(key))
    }

    /// Another change is planned than the one that a person agreed to: that one is not agreed to any more.
    pub(crate) fn plans(&mut self, key: &A::Key, planned: &Planned<A>) {
        if self.agreed(key).is_none_or(|agreed| *agreed == planned.digest()) {
            return;
        }
        self.agreed.remove(key);
        if let Some(entry) = self.items.get_mut(key).and_then(|item| item.entry.as_mut()) {
            entry.agreed = None;
            self.pages.touch(key);
        }
    }

    /// It is as it should be, or no item at all any more.
    pub(crate) fn close(&mut self, key: &A::Key) {
        self.agreed.remove(key);
        self.open.remove(key);
        self.ready.remove(key);
        self.later.remove(key);
        self.retries.remove(key);
    }

    /// Forgets an item that nothing feeds, that the ledger does not hold, and of which nothing is there: it is given back.
    pub(crate) fn prune(&mut self, key: &A::Key, whole: bool) -> Option<Item<A>> {
        let item = self.items.get(key)?;
        let there = item.sight.have().is_some() && whole;
        if !item.sources.is_empty() || item.entry.is_some() || there {
            return None;
        }
        self.set_timer(key, None);
        self.close(key);
        self.left_out.remove(key);
        self.remakes.remove(key);
        self.look.remove(key);
        self.dirty.remove(key);
        self.made.remove(key);
        self.items.remove(key)
    }

    /// The claim is lost, or everything is to be learned anew: only what the sources say is kept.
    pub(crate) fn forget(&mut self, ask_at: Moment) {
        let name = std::mem::replace(&mut self.name, Unit(String::new()));
        let items = std::mem::take(&mut self.items);
        let prefix = self.pages.prefix().to_owned();
        let backoff = std::mem::take(&mut self.backoff);
        let mut fresh = Self::new(name, prefix);
        fresh.claim = Claim::None { ask_at };
        fresh.listed = true;
        fresh.asks = self.asks;
        fresh.backoff = backoff;
        fresh.hurry = self.hurry;
        fresh.ending = std::mem::take(&mut self.ending);
        fresh.ending.extend(self.flight.as_ref().map(|flight| flight.id));
        fresh.ending.extend(self.committing.as_ref().map(|(id, _)| *id));
        fresh.items = items
            .into_iter()
            .filter(|(_, item)| !item.sources.is_empty())
            .map(|(key, item)| (key, Item { sources: item.sources, want: item.want, ..Item::default() }))
            .collect();
        *self = fresh;
    }

    /// Whether nothing is known of it, and nothing of it is under way.
    pub(crate) fn is_blank(&self) -> bool {
        self.phase == Phase::Cold
            && self.items.is_empty()
            && self.number().is_none()
            && self.claiming.is_none()
            && self.peeking.is_none()
            && self.ending.is_empty()
            && !self.listed
    }

    /// Another instance is to work on it.
    pub(crate) fn yields(&mut self) {
        (self.asks, self.elsewhere) = (false, true);
        self.backoff = Retry { why: "another instance works on it".to_owned(), ..Retry::default() };
    }

    /// Whether nothing can be done for it now but wait.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase == Phase::Ready
            && self.flight.is_none()
            && self.looking.is_none()
            && self.committing.is_none()
            && self.dirty.is_empty()
            && self.made.is_empty()
            && self.sweep.is_empty()
            && self.look.is_empty()
            && !self.look_all
            && self.facts.is_settled()
            && !self.pages.is_dirty()
    }

    /// Whether something of it is under way or still to be written down.
    pub(crate) fn has_begun(&self) -> bool {
        self.claiming.is_some()
            || self.number().is_some()
                && (self.reading.is_some()
                    || self.flight.is_some()
                    || self.looking.is_some()
                    || self.committing.is_some()
                    || !self.facts.is_settled()
                    || self.pages.is_dirty())
    }

    /// Whether there is nothing left to work on.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.is_quiet()
    }

    /// When something of it is due by itself. What is due now and was not done waits for an answer, which wakes it.
    pub(crate) fn next_wake(&self, now: Moment) -> Option<Moment> {
        let claim = match self.claim {
            Claim::None { ask_at } if self.claiming.is_none() && self.asks => Some(ask_at),
            Claim::Held { until, .. } if self.claiming.is_some() => Some(until),
            Claim::Held { renew_at, .. } => Some(renew_at),
            Claim::None { .. } => None,
        };
        let timer = self.timers.first().map(|(at, _)| *at);
        let retry = (self.backoff.failures > 0).then_some(self.backoff.at);
        let sweep = (self.phase == Phase::Ready).then_some(self.next_sweep);
        let remake = self.remakes.values().map(|retry| retry.at).filter(|at| *at > now).min();
        [claim, timer, retry, sweep, remake]
            .into_iter()
            .flatten()
            .filter(|at| *at > now && *at < Moment::MAX)
            .min()
    }

    /// Who was left out of which item, in key order.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        self.left_out.iter().flat_map(|(key, all)| {
            all.iter().map(move |b| LeftOut { key: key.to_string(), who: b.who.clone(), why: b.why.clone() })
        })
    }

    /// What was seen of one item.
    pub(crate) fn saw(&mut self, key: &A::Key, sight: Sight<A::Have>) {
        let item = self.items.get_or_insert_with(key, Item::default);
        if sight.have().is_some() {
            item.lost = false;
            self.remakes.remove(key);
        }
        item.sight = sight;
    }
}
