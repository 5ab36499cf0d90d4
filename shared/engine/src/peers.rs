//! The other instances of the agent: who is there, and which units are this one's to ask for.
//!
//! Each instance says under a lease of its own that it is there, and with the same question hears who else is and who holds which unit.
//! That question is asked again after a third of the lease, or a twelfth of it while something is about to move; nothing else
//! is asked about the units of others. What follows from the answer says [`share`](crate::share). An instance takes its share of
//! what is free at once; what is over its share it lets go of between two batches, an eighth of its share at a time.
//!
//! What stands free although it is somebody's share (that one does not know of the unit yet, or cannot claim it) is taken by
//! whoever waited longest, and kept for a while, so that it does not go to and fro.
//!
//! An instance that is alone asks for every unit at once, and of those that a dead one still has it is told when to ask again.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::{Agent, Unit};
use crate::effect::{Act, Answer, Roster};
use crate::engine::Engine;
use crate::retry::Retry;
use crate::share::{Census, rank};
use crate::unit::{Claim, State};
use crate::{Millis, Moment};

/// How much of its share an instance lets go of at a time.
const PART: usize = 8;
/// For how many leases a unit is kept that was somebody else's to take.
const KEPT: Millis = 10;

/// What is known of the other instances.
pub(crate) struct Peers {
    asked: Option<u64>,
    next: Moment,
    /// Something happened that the next answer has to sort out.
    soon: bool,
    /// How often in a row there was no answer.
    failed: Retry,
    /// The store may say of this instance that it is there.
    joined: bool,
    heard: Option<Heard>,
    /// Holders that are not there, and since when.
    absent: BTreeMap<String, Moment>,
    /// Units that nobody holds, and since when.
    free: BTreeMap<Unit, Moment>,
}

/// The last answer.
enum Heard {
    /// Nobody else is there.
    Alone,
    /// How many units each instance has or is to have, and which are held.
    Among { load: BTreeMap<String, usize>, held: BTreeSet<Unit> },
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            asked: None,
            next: Moment::MIN,
            soon: false,
            failed: Retry::default(),
            joined: false,
            heard: None,
            absent: BTreeMap::new(),
            free: BTreeMap::new(),
        }
    }

    /// Nothing is known any more: the database is another one.
    pub(crate) fn forget(&mut self) {
        (self.heard, self.next) = (None, Moment::MIN);
        self.absent.clear();
        self.free.clear();
    }

    fn is_alone(&self) -> bool {
        matches!(self.heard, Some(Heard::Alone))
    }

    /// Whether a unit that has just come up is this instance's to ask for, as far as was last heard: everybody thinks of the
    /// same instance, the one with the fewest.
    fn is_for_me(&mut self, unit: &Unit, me: &str) -> bool {
        match &mut self.heard {
            None => false,
            Some(Heard::Alone) => true,
            Some(Heard::Among { load, held }) => {
                let free = held.insert(unit.clone());
                let least = load
                    .iter_mut()
                    .filter(|_| free)
                    .min_by_key(|(who, load)| (**load, std::cmp::Reverse(rank(&unit.0, who))));
                let Some((who, load)) = least else { return false };
                *load += 1;
                self.soon |= who != me;
                who == me
            }
        }
    }
}

impl<A: Agent> Engine<A> {
    /// Whether this unit may be asked for from the start.
    pub(crate) fn asks_for_new(&mut self, unit: &Unit) -> bool {
        !self.options.shares() || self.peers.is_for_me(unit, &self.options.instance)
    }

    /// Whether a unit that was lost may be asked for at once. Among others it may not: it is somebody else's by now, or it
    /// is sorted out with the next answer.
    pub(crate) fn asks_for_lost(&mut self) -> bool {
        let at_once = !self.options.shares() || self.peers.is_alone();
        self.peers.soon |= !at_once;
        at_once
    }

    /// Says that it is there, when it is time to; when draining, that it is not.
    pub(crate) fn meet(&mut self, now: Moment) {
        if !self.options.shares() || self.peers.asked.is_some() {
            return;
        }
        if self.draining {
            if std::mem::take(&mut self.peers.joined) {
                self.out.send(None, Act::Leave);
            }
            return;
        }
        if std::mem::take(&mut self.peers.soon) {
            self.peers.next = self.peers.next.min(now.saturating_add(self.options.ttl / 12));
        }
        if self.peers.next <= now {
            self.peers.joined = true;
            self.peers.asked = Some(self.out.send(None, Act::Join { ttl: self.options.ttl }));
        }
    }

    /// When it is time to.
    pub(crate) fn next_meeting(&self) -> Option<Moment> {
        if !self.options.shares() || self.peers.asked.is_some() {
            return None;
        }
        if self.draining {
            return self.peers.joined.then_some(Moment::MIN);
        }
        Some(if self.peers.soon { Moment::MIN } else { self.peers.next })
    }

    /// Whether this is the answer to what was asked of the others; then it is taken in.
    pub(crate) fn met(&mut self, id: u64, answer: &Answer<A>, now: Moment) -> bool {
        if self.peers.asked != Some(id) {
            return false;
        }
        self.peers.asked = None;
        match answer {
            Answer::Roster(_) if self.draining => {}
            Answer::Roster(roster) => {
                self.peers.failed = Retry::default();
                let settled = self.sort_out(roster, now);
                let wait = self.options.ttl / if settled { 3 } else { 12 };
                let apart = rank(&now.to_string(), &self.options.instance) % 64;
                let less = wait / 4 * Millis::try_from(apart).unwrap_or(0) / 64;
                self.peers.next = now.saturating_add((wait - less).max(1));
            }
            _ => {
                // Ever later, but not so late that others think it gone when the store is back.
                self.peers.failed.failed(&self.options, &"join", false, now);
                self.peers.next = self.peers.failed.at.min(now.saturating_add(self.options.ttl / 3));
            }
        }
        true
    }

    /// Who works on what from now on. Answers whether nothing has to move.
    fn sort_out(&mut self, roster: &Roster, now: Moment) -> bool {
        let me = self.options.instance.clone();
        if roster.instances.iter().all(|one| *one == me) {
            self.alone(now);
            return true;
        }
        // Others may be set up otherwise: nobody is ahead of what the slowest may take.
        let lease = roster.lease.max(self.options.ttl);
        let (load, coming) = self.count_held(roster, lease, now);
        let agent = &self.agent;
        let unheld = |unit: &&State<A>| {
            !is_mine(unit) && !roster.holders.contains_key(&unit.name) && agent.reaches(&unit.name)
        };
        let free: BTreeMap<Unit, Moment> = (self.units.values().filter(unheld))
            .map(|unit| (unit.name.clone(), *self.peers.free.get(&unit.name).unwrap_or(&now)))
            .collect();
        let (fed, left): (Vec<&Unit>, Vec<&Unit>) =
            free.keys().partition(|unit| self.units.get(*unit).is_some_and(is_fed));
        let census = Census {
            me: &me,
            held: load.iter().map(|(who, load)| (who.as_str(), *load)).collect(),
            free: fed.iter().map(|unit| unit.0.as_str()).collect(),
            coming,
        };
        let share = census.share();
        let mut take: BTreeSet<Unit> = share.take.iter().map(|name| Unit((*name).to_owned())).collect();
        let best =
            |unit: &Unit| load.keys().max_by_key(|who| rank(&unit.0, who)).is_some_and(|who| *who == me);
        take.extend(left.iter().filter(|unit| best(unit)).map(|unit| Unit::clone(unit)));
        let late: BTreeSet<Unit> = (free.iter())
            .filter(|(unit, since)| now - **since >= self.patience(unit, lease) && !take.contains(unit))
            .map(|(unit, _)| unit.clone())
            .collect();
        let (settled, give) = (share.settled && free.is_empty(), share.give.min((share.most / PART).max(1)));
        let held = roster.holders.keys().chain(free.keys()).cloned().collect();
        self.peers.heard = Some(Heard::Among { load, held });
        self.peers.free = free;
        self.take(&take, &late, now);
        self.give(give, now);
        settled
    }

    /// Nobody else is there.
    fn alone(&mut self, now: Moment) {
        self.peers.heard = Some(Heard::Alone);
        self.peers.free.clear();
        self.peers.absent.clear();
        let all: Vec<Unit> = self.units.keys().cloned().collect();
        all.iter().for_each(|name| self.ask(name, now));
        self.units.values_mut().for_each(|unit| unit.leaving = false);
    }

    /// How many units each instance holds, and how many will come free by themselves.
    fn count_held(
        &mut self,
        roster: &Roster,
        lease: Millis,
        now: Moment,
    ) -> (BTreeMap<String, usize>, usize) {
        let me = &self.options.instance;
        let mut load: BTreeMap<String, usize> = roster.instances.iter().map(|one| (one.clone(), 0)).collect();
        let own = self.units.values().filter(|unit| is_mine(unit) && is_fed(unit));
        load.insert(me.clone(), own.count());
        let mut absent = BTreeMap::new();
        let mut coming = 0;
        for (unit, holder) in &roster.holders {
            let reached = self.agent.reaches(unit);
            if !self.units.get(unit).is_some_and(|unit| reached && is_fed(unit) && !is_mine(unit)) {
                continue;
            }
            match load.get_mut(holder.as_str()) {
                // It was given back, or the answer was lost: it comes free by itself.
                Some(_) if holder == me => coming += 1,
                Some(load) => *load += 1,
                None => {
                    // Who is not there and yet holds something for longer than a lease works on its own (`--once`,
                    // `--tag`), and shares nothing.
                    let since = *self.peers.absent.get(holder).unwrap_or(&now);
                    absent.insert(holder.clone(), since);
                    coming += usize::from(now - since < lease);
                }
            }
        }
        self.peers.absent = absent;
        (load, coming)
    }

    /// These are this instance's to claim; the latter though they are not its share. All others are somebody else's.
    fn take(&mut self, share: &BTreeSet<Unit>, late: &BTreeSet<Unit>, now: Moment) {
        share.iter().chain(late).for_each(|name| self.ask(name, now));
        for name in late {
            if let Some(unit) = self.units.get_mut(name) {
                unit.kept_until = now.saturating_add(KEPT * self.options.ttl);
            }
        }
        let others: Vec<Unit> = (self.units.values().filter(|unit| !is_mine(unit)))
            .map(|unit| unit.name.clone())
            .filter(|name| !share.contains(name) && !late.contains(name))
            .collect();
        others.iter().for_each(|name| self.leave_to_others(name));
    }

    /// How long a unit may stand free before anybody takes it: longer than it takes whose share it is to hear of it, and not
    /// all at once.
    fn patience(&self, unit: &Unit, lease: Millis) -> Millis {
        let apart = rank(&unit.0, &self.options.instance) % (lease / 6).max(1).unsigned_abs();
        lease / 2 + Millis::try_from(apart).unwrap_or(0)
    }

    /// The unit is this instance's to claim.
    fn ask(&mut self, name: &Unit, now: Moment) {
        let Some(unit) = self.units.get_mut(name).filter(|unit| !unit.asks) else { return };
        unit.asks = true;
        unit.backoff = Retry::default();
        if let Claim::None { ask_at } = &mut unit.claim {
            *ask_at = now;
        }
        self.awake.insert(name.clone());
    }

    /// The unit is somebody else's.
    fn leave_to_others(&mut self, name: &Unit) {
        let Some(unit) = self.units.get_mut(name).filter(|unit| unit.asks || !unit.elsewhere) else { return };
        unit.yields();
        self.sleep(name, None);
        self.reporter.changed();
    }

    /// Lets go of so many units: those that are on their way out already, then those with nothing to do.
    fn give(&mut self, some: usize, now: Moment) {
        let shared = |unit: &&State<A>| unit.number().is_some() && unit.kept_until <= now && is_fed(unit);
        let held = self.units.values().filter(shared);
        let busy = |unit: &State<A>| (!unit.is_quiet(), !unit.open.is_empty());
        let mut order: Vec<_> = held.map(|unit| (!unit.leaving, busy(unit), unit.name.clone())).collect();
        order.sort_unstable();
        let go: BTreeSet<Unit> = order.into_iter().take(some).map(|(_, _, name)| name).collect();
        for (name, unit) in &mut self.units {
            let leaving = go.contains(name);
            if leaving || unit.leaving {
                unit.leaving = leaving;
                self.awake.insert(name.clone());
            }
        }
    }

    /// What was let go of is in nobody's hands now, and what is known of it is old.
    pub(crate) fn handed_over(&mut self, unit: &mut State<A>) {
        self.forget(unit, Moment::MAX);
        unit.yields();
        self.reporter.changed();
    }
}

/// Whether any source feeds it. Of what none feeds, only some may know, and nobody knows whether anything is left: it is no part
/// of a share, neither free nor held, or it would go to and fro.
fn is_fed<A: Agent>(unit: &State<A>) -> bool {
    unit.items.values().any(|item| !item.sources.is_empty())
}

/// Whether this instance holds it, or has asked for it.
fn is_mine<A: Agent>(unit: &State<A>) -> bool {
    unit.number().is_some() || unit.claiming.is_some()
}
