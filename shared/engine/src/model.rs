//! A whole world in memory, for tests and for the laws: a database, a ledger, claims, a target and a clock, with an
//! engine that can be stopped at every boundary between two effects.
//!
//! It is pure like the engine: time stands still until somebody moves it, and the same calls give the same world. It
//! carries out one effect at a time, in order; the simulator does them side by side and lets them go wrong.

mod target;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use shoal_core::{Change, Document, Epoch, Key, Revision, Row, Status};

use crate::effect::{Act, Answer, Claimed, Effect, LedgerRow, Roster};
use crate::{
    Agent, Applied, Batch, Clock, Engine, Fault, Fence, Moment, Observed, Options, Snapshot, Unit, Verdict,
};

pub use target::Model;

/// A target as the model world uses it: at once, and without a runtime.
pub trait Place<A: Agent> {
    /// What kind of target it is.
    fn nature(&self) -> crate::Nature;

    /// See [`Target::observe`](crate::Target::observe); no keys: the whole unit.
    ///
    /// # Errors
    /// As there.
    fn observe(&mut self, unit: &Unit, keys: Option<&[A::Key]>) -> Result<Observed<A>, Fault>;

    /// See [`Target::apply`](crate::Target::apply). `boundary` is to be asked between two effects; when it says `true`,
    /// the process dies there: nothing more is done, and what is answered is lost.
    ///
    /// # Errors
    /// As there.
    fn apply(
        &mut self,
        unit: &Unit,
        batch: &Batch<A>,
        fence: &Fence,
        boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<A>, Fault>;
}

/// A clock that somebody moves.
#[derive(Debug)]
pub struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Moment {
        self.0.load(Ordering::Relaxed)
    }
}

/// Database, ledger, claims, target, clock, and one engine. See the [module](self).
pub struct World<A: Agent, P> {
    /// The agent that new engines get.
    pub agent: Arc<A>,
    /// The options that new engines get.
    pub options: Options,
    /// The target.
    pub place: P,
    /// Where the target says that it is.
    pub location: String,
    /// The ledger's rows.
    pub ledger: BTreeMap<String, Vec<u8>>,
    /// What was last reported.
    pub status: Option<Status>,
    /// What was carried out since the world began.
    pub trace: Vec<String>,
    /// Commits of facts are refused with this fault, if there is one; so are writes of the ledger, and who asks for the others.
    pub store_fault: Option<Fault>,
    /// The other instances of the agent, and what they hold: engines that share are told of them.
    pub others: Roster,
    units: std::collections::BTreeSet<Unit>,
    rows: BTreeMap<Key, Row>,
    epoch: Epoch,
    revision: Revision,
    claims: BTreeMap<Unit, (u64, Moment)>,
    numbers: u64,
    clock: Arc<Hands>,
    engine: Option<Engine<A>>,
    fuse: Option<usize>,
    stopped_at: Option<String>,
}

/// More effects than this without a rest are a loop.
const MANY: usize = 200_000;

impl<A: Agent, P: Place<A>> World<A, P> {
    /// An empty database, and no engine yet.
    pub fn new(agent: Arc<A>, place: P) -> Self {
        let options = Options::new("model", place.nature(), 1);
        Self {
            agent,
            options,
            place,
            location: String::new(),
            ledger: BTreeMap::new(),
            status: None,
            trace: Vec::new(),
            store_fault: None,
            others: Roster::default(),
            units: std::collections::BTreeSet::new(),
            rows: BTreeMap::new(),
            epoch: Epoch(1),
            revision: Revision(0),
            claims: BTreeMap::new(),
            numbers: 0,
            clock: Arc::new(Hands(AtomicI64::new(1_000_000))),
            engine: None,
            fuse: None,
            stopped_at: None,
        }
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Every unit that was ever looked at.
    #[must_use]
    pub fn units_seen(&self) -> &std::collections::BTreeSet<Unit> {
        &self.units
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The engine, started if need be.
    pub fn engine(&mut self) -> &mut Engine<A> {
        let engine = match self.engine.take() {
            Some(engine) => engine,
            None => self.fresh(self.options.clone()),
        };
        self.engine.insert(engine)
    }

    /// Another engine on the same world, with these options, that knows the database as it stands.
    #[must_use]
    pub fn fresh(&self, options: Options) -> Engine<A> {
        let mut engine = match Engine::new(self.agent.clone(), options) {
            Ok(engine) => engine,
            Err(error) => unusable(&error),
        };
        engine.load(Snapshot::of(self.epoch, self.revision, self.rows.values().cloned()));
        engine
    }

    fn put(&mut self, changes: &[Change]) {
        self.revision = Revision(self.revision.0 + 1);
        for Change { key, value, moved } in changes {
            let row =
                Row { key: key.clone(), value: value.clone(), revision: self.revision, moved: moved.clone() };
            self.rows.insert(key.clone(), row);
        }
    }

    /// Commits; the engine, which had lost its place, reads everything anew and finds this in it.
    #[cfg(test)]
    pub(crate) fn commit_unheard(&mut self, changes: &[Change]) {
        self.put(changes);
        self.restore(self.epoch);
    }

    /// Commits, and tells the engine.
    pub fn commit(&mut self, changes: Vec<Change>) -> Revision {
        self.put(&changes);
        if let Some(engine) = &mut self.engine {
            engine.apply(self.revision, &changes);
        }
        self.revision
    }

    /// The rows that stand, as changes that would write them.
    #[must_use]
    pub fn live_rows(&self) -> Vec<Change> {
        let put = |row: &Row| Some(Change::put(row.key.clone(), row.value.clone()?));
        self.rows.values().filter_map(put).collect()
    }

    /// Takes a row away without a trace, as a broken restore would.
    pub fn lose(&mut self, key: &Key) {
        self.rows.remove(key);
    }

    /// The database is another life of itself from now on.
    pub fn restore(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        let rows: Vec<_> = self.rows.values().cloned().collect();
        if let Some(engine) = &mut self.engine {
            engine.load(Snapshot::of(epoch, self.revision, rows));
        }
    }

    /// The process dies: what the engine knew is gone, and the answers that it waited for.
    pub fn crash(&mut self) {
        self.engine = None;
        self.fuse = None;
        self.stopped_at = None;
    }

    /// The process will die at the `n`th boundary from now, counted from 0.
    pub fn light_fuse(&mut self, n: usize) {
        self.fuse = Some(n);
        self.stopped_at = None;
    }

    /// At which boundary it died, if it did since the fuse was lit.
    #[must_use]
    pub fn stopped_at(&self) -> Option<&str> {
        self.stopped_at.as_deref()
    }

    /// Somebody else takes the unit's claim.
    pub fn steal_claim(&mut self, unit: &Unit) {
        self.numbers += 1;
        self.claims.insert(unit.clone(), (self.numbers, self.now() + self.options.ttl));
    }

    /// Time passes; what becomes due by the way is done.
    pub fn advance(&mut self, by: Moment) {
        let end = self.now() + by;
        loop {
            self.run();
            let due = self.engine.as_ref().and_then(Engine::next_wake);
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.clock.0.store(at.max(self.now()), Ordering::Relaxed);
            if at <= self.now() && self.engine.is_none() {
                break;
            }
        }
        self.clock.0.store(end, Ordering::Relaxed);
        self.run();
    }

    /// Carries out everything that can be done without time passing. Answers how the engine stands.
    pub fn run(&mut self) -> Verdict {
        self.engine();
        for _ in 0..MANY {
            let now = self.now();
            let Some(engine) = &mut self.engine else { return Verdict::Busy };
            let Some(effect) = engine.poll(now) else {
                if engine.next_wake().is_some_and(|at| at <= now) {
                    continue;
                }
                return engine.verdict();
            };
            self.trace.push(format!("{:?}", effect.act));
            if self.boundary("before", &effect) {
                break;
            }
            let id = effect.id;
            let answer = self.carry_out(&effect);
            if self.stopped_at.is_some() && self.fuse.is_none() || self.boundary("after", &effect) {
                break;
            }
            if let Some(engine) = &mut self.engine {
                engine.answer(id, answer, now);
            }
        }
        if self.engine.is_some() && self.stopped_at.is_none() {
            self.trace.push("it does not come to rest".to_owned());
        }
        if self.stopped_at.is_some() {
            self.engine = None;
        }
        Verdict::Busy
    }

    fn boundary(&mut self, when: &str, effect: &Effect<A>) -> bool {
        burn(&mut self.fuse, &mut self.stopped_at, || format!("{when} {:?}", effect.act))
    }

    pub(crate) fn carry_out(&mut self, effect: &Effect<A>) -> Answer<A> {
        let held = |number: u64, unit: &Unit| self.claims.get(unit).is_some_and(|(have, _)| *have == number);
        if let Act::Observe { unit, .. } = &effect.act {
            self.units.insert(unit.clone());
        }
        match &effect.act {
            Act::NextKey { prefix, after } => {
                let from = after.clone().unwrap_or_else(|| prefix.clone());
                let next = self.ledger.keys().find(|key| **key > from && key.starts_with(prefix.as_str()));
                Answer::NextKey(next.cloned())
            }
            Act::Join { .. } => match &self.store_fault {
                Some(fault) => Answer::Fault(fault.clone()),
                None => {
                    let mut roster = self.others.clone();
                    roster.instances.insert(self.options.instance.clone());
                    Answer::Roster(roster)
                }
            },
            Act::Leave => Answer::Done,
            Act::Claim { unit, ttl } => self.claim(unit, *ttl),
            Act::Release { unit, number } => {
                if held(*number, unit) {
                    self.claims.remove(unit);
                }
                Answer::Done
            }
            Act::ReadLedger { prefix, .. } => {
                let rows = self.ledger.iter().filter(|(key, _)| key.starts_with(prefix.as_str()));
                let rows = rows.map(|(key, value)| (key.clone(), value.clone())).collect();
                Answer::Ledger { rows, location: self.location.clone() }
            }
            Act::WriteLedger { unit, number, .. } | Act::Facts { unit, number, .. }
                if !held(*number, unit) =>
            {
                Answer::Fenced
            }
            Act::WriteLedger { .. } | Act::Facts { .. } if self.store_fault.is_some() => {
                Answer::Fault(self.store_fault.clone().unwrap_or_else(|| Fault::new("write", "no")))
            }
            Act::WriteLedger { rows, .. } => {
                self.write(rows);
                Answer::Done
            }
            Act::Facts { facts, .. } => {
                self.commit(facts.clone());
                Answer::Done
            }
            Act::Observe { unit, keys } => match self.place.observe(unit, keys.as_deref()) {
                Ok(observed) => Answer::Observed(observed),
                Err(fault) => Answer::Fault(fault),
            },
            Act::Apply { unit, batch, number, not_after, epoch } => {
                let (number, not_after, epoch) = (*number, *not_after, *epoch);
                let fence = Fence { number, not_after, epoch, clock: self.clock.clone() };
                let (fuse, stopped) = (&mut self.fuse, &mut self.stopped_at);
                let mut boundary = |name: &str| burn(fuse, stopped, || format!("within {unit}, {name}"));
                match self.place.apply(unit, batch, &fence, &mut boundary) {
                    Ok(applied) => Answer::Applied(applied),
                    Err(fault) => Answer::Fault(fault),
                }
            }
            Act::Report(status) => {
                self.status = Some((**status).clone());
                Answer::Done
            }
        }
    }

    fn claim(&mut self, unit: &Unit, ttl: Moment) -> Answer<A> {
        let now = self.now();
        match self.claims.get(unit) {
            // The engine that asks is the only one here: what it does not hold, a dead one or a thief does.
            Some((number, until)) if *until > now && !self.mine(*number) => {
                Answer::Claim(Claimed::Taken { look_again: *until })
            }
            Some((number, until)) if *until > now => {
                let number = *number;
                self.claims.insert(unit.clone(), (number, now + ttl));
                Answer::Claim(Claimed::Held {
                    number,
                    until: now + ttl,
                    head: Some((self.epoch, Revision(0))),
                })
            }
            _ => {
                self.numbers += 1;
                self.claims.insert(unit.clone(), (self.numbers, now + ttl));
                Answer::Claim(Claimed::Held {
                    number: self.numbers,
                    until: now + ttl,
                    head: Some((self.epoch, Revision(0))),
                })
            }
        }
    }

    fn mine(&self, number: u64) -> bool {
        self.engine.as_ref().is_some_and(|engine| engine.holds_claim(number))
    }

    fn write(&mut self, rows: &[LedgerRow]) {
        for row in rows {
            match &row.value {
                Some(value) => self.ledger.insert(row.key.clone(), value.clone()),
                None => self.ledger.remove(&row.key),
            };
        }
    }

    /// Rows for a commit, from text and JSON; `null` deletes.
    pub fn rows(rows: &[(&str, serde_json::Value)]) -> Vec<Change> {
        let change = |(key, value): &(&str, serde_json::Value)| {
            Some(Change {
                key: key.parse().ok()?,
                value: (!value.is_null()).then(|| Document::from(value.clone())),
                moved: None,
            })
        };
        rows.iter().filter_map(change).collect()
    }

    /// The actions that were carried out and whose name begins with `what`.
    #[must_use]
    pub fn count(&self, what: &str) -> usize {
        self.trace.iter().filter(|line| line.starts_with(what)).count()
    }

    /// Answers that the engine waits for, for tests that carry effects out themselves.
    pub fn effects(&mut self) -> VecDeque<Effect<A>> {
        let now = self.now();
        let engine = self.engine();
        std::iter::from_fn(|| engine.poll(now)).collect()
    }
}

fn burn(fuse: &mut Option<usize>, stopped: &mut Option<String>, name: impl FnOnce() -> String) -> bool {
    match fuse {
        None => false,
        Some(0) => {
            *fuse = None;
            *stopped = Some(name());
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
    }
}

#[allow(
    clippy::panic,
    reason = "only tests and laws come here, and an agent without a namespace cannot run at all"
)]
fn unusable(error: &shoal_core::BadName) -> ! {
    panic!("the agent cannot be run: {error}")
}
