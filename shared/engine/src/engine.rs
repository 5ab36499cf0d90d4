//! The engine: inputs in, effects out, nothing else.
//!
//! An [`Engine`] is a state machine in the manner of quinn-proto: it does no I/O and reads no clock. A driver
//!
//! 1. gives it the whole database ([`Reading`](crate::Reading), then [`Engine::load`]), then every commit ([`Engine::apply`]) and how far the watch
//!    has seen ([`Engine::upto`]); after a lost position it pages and loads again;
//! 2. calls [`Engine::poll`] until it answers `None` and carries out each [`Effect`], side by side if it likes;
//! 3. gives each effect's [`Answer`] back ([`Engine::answer`]), and polls again, at the latest at [`Engine::next_wake`].
//!
//! The same engine serves the daemon, `--once`, `--plan` and the simulator, so what a plan shows is what would run.
//!
//! What it guarantees:
//!
//! * A commit costs the keys that its sources fed before and feed now, and the page of each in the ledger.
//! * Nothing is changed before the unit's claim is held, its ledger is read and all of it was looked at once.
//! * The intent to create or remove is in the ledger before the effect begins.
//! * No effect is issued later than the claim's end less [`Options::margin`].
//! * Every queue is bounded by the units and items that there are.
//!
//! It assumes that the clock it is given never goes back, and that an effect which was given up is answered with a fault.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use shoal_core::{BadName, Change, Epoch, Namespace, Revision};

use crate::agent::{Agent, Unit};
use crate::counters::{Count, Counters};
use crate::decide::Context;
use crate::effect::{Act, Answer, Effect};
use crate::fleet::{Fleet, Snapshot, Touched};
use crate::item::{ADOPT, Open, Sight};
use crate::ledger::SourceId;
use crate::options::Options;
use crate::peers::Peers;
use crate::readers::Readers;
use crate::retry::Bucket;
use crate::sources::{Fed, Sources};
use crate::status::Reporter;
use crate::unit::{Claim, State};
use crate::{Moment, ledger};

/// The reconcile machine of one agent.
pub struct Engine<A: Agent> {
    pub(crate) agent: Arc<A>,
    pub(crate) options: Options,
    pub(crate) namespace: Namespace,
    pub(crate) fleet: Fleet,
    pub(crate) seen: Revision,
    pub(crate) sources: Sources<A>,
    pub(crate) units: BTreeMap<Unit, State<A>>,
    /// Which items read this host while they were decided on.
    pub(crate) readers: Readers<A::Key>,
    /// Units with something to do now.
    pub(crate) awake: BTreeSet<Unit>,
    /// When units that sleep are due.
    pub(crate) due: BTreeSet<(Moment, Unit)>,
    pub(crate) due_of: BTreeMap<Unit, Moment>,
    /// Units that wait for a revision to be seen.
    pub(crate) lagging: BTreeSet<(Revision, Unit)>,
    pub(crate) out: Outbox<A>,
    pub(crate) listing: Listing,
    pub(crate) peers: Peers,
    pub(crate) bucket: Bucket,
    pub(crate) count: Count,
    pub(crate) reporter: Reporter,
    pub(crate) tokens: u64,
    pub(crate) draining: bool,
    pub(crate) changes_by: BTreeMap<(&'static str, &'static str), u64>,
    /// Rises whenever somebody is left out of an item, or is not any more.
    pub(crate) left_out_changes: u64,
}

/// Effects that wait to be taken, and those that wait for an answer.
pub(crate) struct Outbox<A: Agent> {
    next: u64,
    queue: VecDeque<Effect<A>>,
    waiting: HashMap<u64, Option<Unit>>,
}

impl<A: Agent> Outbox<A> {
    pub(crate) fn send(&mut self, unit: Option<&Unit>, act: Act<A>) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, unit.cloned());
        self.queue.push_back(Effect { id: self.next, act });
        self.next
    }
}

/// Whether a source is one of those that were asked for.
type Fits<'f> = &'f dyn Fn(&SourceId) -> bool;

/// How far the units that only the ledger knows have been listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listing {
    Start { after: Option<String>, at: Moment, fault: bool },
    Asked { id: u64, after: Option<String> },
    Done,
}

impl<A: Agent> Engine<A> {
    /// An engine that knows nothing yet.
    ///
    /// # Errors
    /// The agent's name is not a namespace, or one that holds no tags.
    pub fn new(agent: Arc<A>, options: Options) -> Result<Self, BadName> {
        let namespace: Namespace = agent.namespace().parse()?;
        // Through a tag's name, which refuses the reserved ones.
        format!("{namespace}/x").parse::<shoal_core::TagName>()?;
        Ok(Self {
            bucket: Bucket::new(options.retry_rate),
            agent,
            namespace,
            options,
            fleet: Fleet::new(),
            seen: Revision(0),
            sources: Sources::new(),
            units: BTreeMap::new(),
            readers: Readers::new(),
            awake: BTreeSet::new(),
            due: BTreeSet::new(),
            due_of: BTreeMap::new(),
            lagging: BTreeSet::new(),
            out: Outbox { next: 0, queue: VecDeque::new(), waiting: HashMap::new() },
            listing: Listing::Start { after: None, at: Moment::MIN, fault: false },
            peers: Peers::new(),
            count: Count::default(),
            reporter: Reporter::default(),
            tokens: 0,
            draining: false,
            changes_by: BTreeMap::new(),
            left_out_changes: 0,
        })
    }

    /// The whole database: at the start, and after a lost position. Costs the fleet.
    pub fn load(&mut self, Snapshot(fleet): Snapshot) {
        let another = self.fleet.epoch() != fleet.epoch() && self.fleet.epoch() != Epoch(0);
        let at = fleet.revision();
        self.fleet = fleet;
        self.saw(at);
        let mut all = self.all_sources();
        all.extend(self.sources.ids());
        all.sort_unstable();
        all.dedup();
        for id in &all {
            self.learn(id);
        }
        if another {
            self.readers.clear();
            self.peers.forget();
        }
        // What came and went since the last commit that was heard of, only the ledger knows.
        self.listing = Listing::Start { after: None, at: Moment::MIN, fault: false };
        for (name, unit) in &mut self.units {
            unit.wake_fed(at);
            if another {
                // The ledger's pages say which epoch they are of.
                self.left_out_changes += u64::from(!unit.left_out.is_empty());
                unit.forget(Moment::MIN);
                unit.asks = !self.options.shares();
            }
            // What was decided on may be paused by now, or wanted no more: none of it goes before that is known.
            unit.dirty.extend(unit.ready.iter().chain(unit.later.iter()).cloned());
            unit.wake_all();
            self.awake.insert(name.clone());
        }
        self.reporter.changed();
    }

    /// One commit that the watch delivered: those of its changes that its filter let through.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) {
        if revision <= self.seen {
            return;
        }
        self.count.add(|c| c.commits += 1);
        let unclear = self.fleet.unreadable_row(self.namespace.as_str()).is_some();
        let touched = self.fleet.apply(revision, changes, self.namespace.as_str());
        self.saw(revision);
        self.touched(touched, unclear, revision);
        self.reporter.changed();
    }

    /// Everything up to here has been delivered.
    pub fn upto(&mut self, revision: Revision) {
        if revision > self.seen {
            self.saw(revision);
            self.reporter.changed();
        }
    }

    fn saw(&mut self, revision: Revision) {
        self.seen = revision;
        while self.lagging.first().is_some_and(|(least, _)| *least <= revision) {
            self.awake.extend(self.lagging.pop_first().map(|(_, unit)| unit));
        }
    }

    /// `unclear`: there were rows that could not be read.
    fn touched(&mut self, touched: Touched, unclear: bool, revision: Revision) {
        let mut again: BTreeSet<SourceId> = BTreeSet::new();
        let unknown = !touched.tags.is_empty() || unclear && !touched.hosts.is_empty();
        for tag in touched.tags {
            self.sources.forget_specs(&tag);
            again.extend(self.sources.of_tag(&tag));
            again.insert(SourceId(tag, None));
        }
        again.extend(touched.pairs.into_iter().map(|(tag, host)| SourceId(tag, Some(host))));
        for id in &again {
            self.refresh(id);
        }
        let hosts = &touched.hosts;
        let gone =
            |id: &SourceId| again.contains(id) || id.1.as_ref().is_some_and(|host| hosts.contains(host));
        self.wake_recorded(|id| gone(id) || again.contains(&SourceId(id.0.clone(), None)), unknown, revision);
        for host in touched.hosts {
            for (unit, key) in self.readers.of(&host) {
                if let Some(state) = self.units.get_mut(unit) {
                    state.wake(key, revision);
                    self.awake.insert(unit.clone());
                }
            }
        }
        if !touched.pauses.is_empty() || !touched.approvals.is_empty() {
            self.released(&touched.pauses, &touched.approvals, revision);
        }
    }

    /// Pauses or approvals changed: what they held is decided on again.
    fn released(&mut self, pauses: &[String], approvals: &[(Namespace, Option<String>)], revision: Revision) {
        for (name, unit) in &mut self.units {
            let mut ours = approvals.iter().filter(|(agent, _)| *agent == self.namespace);
            let approved = ours.any(|(_, unit)| unit.as_ref().is_none_or(|unit| *unit == name.0));
            if !pauses.is_empty() || approved {
                let held: Vec<A::Key> =
                    unit.open.keys().chain(unit.ready.iter()).chain(unit.later.iter()).cloned().collect();
                for key in held {
                    unit.wake(&key, revision);
                }
            }
            if approved {
                // What a person gives away is looked at once more: it may be another thing by now.
                let clash =
                    |open: &Open<A>| open.planned.as_ref().is_some_and(|planned| planned.verb == ADOPT);
                let clashes: Vec<A::Key> =
                    unit.open.iter().filter(|(_, open)| clash(open)).map(|(key, _)| key.clone()).collect();
                clashes.iter().for_each(|key| unit.saw(key, Sight::Unlooked));
            }
            unit.hurry |= approved;
            if approved || !pauses.is_empty() {
                self.awake.insert(name.clone());
            }
        }
    }

    fn all_sources(&self) -> Vec<SourceId> {
        let mut all = Vec::new();
        for tag in self.fleet.tags(self.namespace.as_str()) {
            let members = self.fleet.candidates(&tag);
            all.push(SourceId(tag.clone(), None));
            all.extend(members.into_iter().map(|host| SourceId(tag.clone(), Some(host))));
        }
        all
    }

    /// Asks what a source feeds now, and wakes what it fed and feeds.
    fn refresh(&mut self, id: &SourceId) {
        let since = self.seen;
        for key in self.learn(id) {
            let unit = self.agent.unit(&key);
            if let Some(state) = self.units.get_mut(&unit) {
                state.wake(&key, since);
                self.awake.insert(unit);
            }
        }
    }

    /// Asks what a source feeds now, and wakes what it does not feed any more. Answers what it feeds, to be woken as well.
    fn learn(&mut self, id: &SourceId) -> Vec<A::Key> {
        let Fed { before, now, thawed_or_frozen } =
            self.sources.refresh(&*self.agent, &self.fleet, id, &self.count);
        let since = self.seen;
        for key in before.iter().filter(|key| now.binary_search(key).is_err()) {
            let unit = self.agent.unit(key);
            if let Some(state) = self.units.get_mut(&unit) {
                state.unlink(key, id);
                state.wake(key, since);
                self.awake.insert(unit);
            }
        }
        for key in now.iter().filter(|key| before.binary_search(key).is_err()) {
            let unit = self.agent.unit(key);
            self.state(&unit).link(key, id);
        }
        if thawed_or_frozen {
            self.wake_recorded(|recorded| recorded == id, true, since);
        }
        now
    }

    /// Wakes the items that only the ledger still links to what was touched. They are never as they should be, so it is
    /// enough to go through what is not. With `unknown`, also what nothing is known of: a row could be read again.
    fn wake_recorded(&mut self, touched: impl Fn(&SourceId) -> bool, unknown: bool, since: Revision) {
        for (name, unit) in &mut self.units {
            let items = &unit.items;
            let recorded = |key: &&A::Key| {
                items.get(key).is_some_and(|item| match &item.entry {
                    Some(entry) => entry.from.iter().any(&touched),
                    None => unknown && item.sources.is_empty(),
                })
            };
            let keys: Vec<A::Key> = unit.open.keys().filter(recorded).cloned().collect();
            for key in keys {
                unit.wake(&key, since);
                self.awake.insert(name.clone());
            }
        }
    }

    /// The state of a unit, made if need be.
    pub(crate) fn state(&mut self, name: &Unit) -> &mut State<A> {
        let new = !self.units.contains_key(name);
        let asks = new && self.asks_for_new(name);
        let (namespace, write) = (&self.namespace, self.options.write);
        self.units.entry(name.clone()).or_insert_with(|| {
            let mut state = State::new(name.clone(), ledger::prefix_of(namespace, name));
            state.asks = asks;
            if !write {
                // A plan asks nobody: it only looks.
                state.claim = Claim::Held { number: 0, until: Moment::MAX, renew_at: Moment::MAX };
            }
            state
        })
    }

    /// The next thing to do outside, if there is one now.
    pub fn poll(&mut self, now: Moment) -> Option<Effect<A>> {
        self.wake_due(now);
        self.meet(now);
        self.list(now);
        while self.out.queue.is_empty() {
            let Some(name) = self.awake.pop_first() else { break };
            if self.work(&name, now) {
                // There is more to do; but what came in meanwhile goes first.
                self.awake.insert(name);
                break;
            }
        }
        self.report(now);
        self.out.queue.pop_front()
    }

    /// When to poll again even if nothing happens; a moment that has passed: at once.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        if !self.out.queue.is_empty() || !self.awake.is_empty() {
            return Some(Moment::MIN);
        }
        let listing = match self.listing {
            Listing::Start { at, .. } if self.fleet.epoch() != Epoch(0) && !self.draining => Some(at),
            _ => None,
        };
        let due = self.due.first().map(|(at, _)| *at);
        [listing, due, self.next_meeting(), self.next_report()].into_iter().flatten().min()
    }

    fn wake_due(&mut self, now: Moment) {
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, unit)) = self.due.pop_first() {
                self.due_of.remove(&unit);
                self.awake.insert(unit);
            }
        }
    }

    pub(crate) fn sleep(&mut self, name: &Unit, at: Option<Moment>) {
        if let Some(old) = self.due_of.remove(name) {
            self.due.remove(&(old, name.clone()));
        }
        if let Some(at) = at {
            self.due.insert((at, name.clone()));
            self.due_of.insert(name.clone(), at);
        }
    }

    /// Lists the units that the ledger knows: their sources may all be gone.
    fn list(&mut self, now: Moment) {
        if let Listing::Start { after, at, .. } = &self.listing
            && *at <= now
            && self.fleet.epoch() != Epoch(0)
            && !self.draining
        {
            if let Some(units) = self.options.host.as_ref().and_then(|host| self.agent.units_of(host)) {
                for unit in units {
                    self.is_listed(unit);
                }
                self.listing = Listing::Done;
                return self.reporter.changed();
            }
            let after = after.clone();
            let prefix = format!("{}/", self.namespace);
            let id = self.out.send(None, Act::NextKey { prefix, after: after.clone() });
            self.listing = Listing::Asked { id, after };
        }
    }

    /// The ledger may hold something of this unit.
    fn is_listed(&mut self, unit: Unit) {
        if self.options.units.as_ref().is_none_or(|units| units.contains(&unit)) {
            self.state(&unit).listed = true;
            self.awake.insert(unit);
        }
    }

    fn listed(&mut self, answer: Answer<A>, after: Option<String>, now: Moment) {
        let prefix = format!("{}/", self.namespace);
        match answer {
            Answer::NextKey(Some(key)) => {
                let Some(unit) = ledger::unit_of(&prefix, &key) else {
                    self.listing = Listing::Start { after: Some(key), at: now, fault: false };
                    return;
                };
                // After all pages and facts, so each unit costs one read.
                let after = format!("{}~", ledger::prefix_of(&self.namespace, &unit));
                self.is_listed(unit);
                self.listing = Listing::Start { after: Some(after), at: now, fault: false };
            }
            Answer::NextKey(None) => self.listing = Listing::Done,
            _ => {
                self.listing =
                    Listing::Start { after, at: now.saturating_add(self.options.retry_first), fault: true }
            }
        }
        self.reporter.changed();
    }

    /// What became of an effect. One that nobody waits for is ignored.
    pub fn answer(&mut self, id: u64, answer: Answer<A>, now: Moment) {
        let Some(unit) = self.out.waiting.remove(&id) else { return };
        if let Listing::Asked { id: asked, after } = &self.listing
            && *asked == id
        {
            let after = after.clone();
            return self.listed(answer, after, now);
        }
        if self.met(id, &answer, now) {
            return;
        }
        let Some(name) = unit else { return self.reporter.answered(id) };
        if let Some(mut unit) = self.units.remove(&name) {
            self.settle(&mut unit, id, answer, now);
            self.units.insert(name.clone(), unit);
            self.awake.insert(name);
        }
    }

    /// Starts no more batches, finishes what is in flight, writes down what became of it, and gives the claims back.
    pub fn drain(&mut self) {
        self.draining = true;
        self.awake.extend(self.units.keys().cloned());
    }

    /// Whether draining is done.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.is_idle() && (self.reporter.said_last() || !self.options.write)
    }

    /// Whether no effect is asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.out.queue.is_empty() && self.out.waiting.is_empty()
    }

    /// Something outside may have changed this unit: all of it is looked at again. One that is not known is ignored.
    pub fn look_at(&mut self, unit: &Unit) {
        if let Some(state) = self.units.get_mut(unit) {
            state.look_all = true;
            self.awake.insert(unit.clone());
        }
    }

    /// Looks at everything again, as the resync does after its time.
    pub fn resync(&mut self) {
        for (name, unit) in &mut self.units {
            unit.next_sweep = Moment::MIN;
            self.awake.insert(name.clone());
        }
    }

    /// What has been done so far, counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.count.get()
    }

    /// Changes sent to the target, by verb and cause.
    #[must_use]
    pub fn changes(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        &self.changes_by
    }

    /// The newest revision that was turned into work.
    #[must_use]
    pub fn seen(&self) -> Revision {
        self.seen
    }

    /// What this instance calls itself.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.options.instance
    }

    /// Whether it works under the claim of this number.
    pub(crate) fn holds_claim(&self, number: u64) -> bool {
        self.units.values().any(|unit| unit.number() == Some(number))
    }

    /// How it is set up.
    #[cfg(test)]
    pub(crate) fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// Whether this unit is one that was asked for (`--tag`, `--host`): whole units only. An engine that saw one source
    /// of several would take what the others feed for gone.
    pub(crate) fn selected(&self, unit: &State<A>) -> bool {
        unit.asked_for
            || self.asks_for(unit, &|fits| {
                let recorded = |item: &crate::item::Item<A>| {
                    item.entry.as_ref().is_some_and(|e| e.from.iter().any(fits))
                };
                unit.items.values().any(|item| item.sources.iter().any(fits) || recorded(item))
            })
    }

    /// Whether a unit is one of those that were asked for; `feeds` says whether a source that fits feeds it.
    pub(crate) fn asks_for(&self, unit: &State<A>, feeds: &dyn Fn(Fits<'_>) -> bool) -> bool {
        let Options { tags, host, units, .. } = &self.options;
        self.agent.reaches(&unit.name)
            && units.as_ref().is_none_or(|units| units.contains(&unit.name))
            && tags.as_ref().is_none_or(|tags| feeds(&|id| tags.contains(&id.0)))
            && host.as_ref().is_none_or(|host| feeds(&|id| id.1.as_ref() == Some(host)))
    }

    pub(crate) fn context(&self) -> Context<'_, A> {
        Context {
            agent: &self.agent,
            fleet: &self.fleet,
            sources: &self.sources,
            options: &self.options,
            count: &self.count,
            other_life: None,
        }
    }
}
