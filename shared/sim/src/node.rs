//! One instance: a real engine, and a driver that carries out its effects in virtual time.
//!
//! The driver does what the runtime's does, and where something may go wrong, throws for it: before an effect leaves the
//! instance, when it arrives at the store or the target, and before the answer is taken in.

use std::collections::BTreeMap;
use std::sync::Arc;

use shoal_core::{Change, Epoch, Revision, Row};
use shoal_engine::{
    Act, Answer, Applied, Claimed, Counters, Engine, Fault, LedgerRow, Moment, OnDrift, Options,
};

use crate::agent::SimAgent;
use crate::broken::{Breakage, without_guard};
use crate::dice::Dice;
use crate::faults::FaultKind;
use crate::queue::START;
use crate::store::FIRST;
use crate::swarm::{Event, Swarm};

/// After how long an instance gives up waiting for an answer.
const GIVE_UP: i64 = 10_000;
/// More effects than this without an answer: some queue has no bound.
const OUTSTANDING: usize = 100;
/// How long an instance may take to end in good order.
const GRACE: i64 = 90_000;

pub(crate) type Effect = shoal_engine::Effect<SimAgent>;
pub(crate) type Reply = Answer<SimAgent>;

/// One instance of one agent, through all its lives.
pub(crate) struct Node {
    pub(crate) world: usize,
    number: usize,
    pub(crate) life: u64,
    /// `None`: it is down.
    pub(crate) engine: Option<Engine<SimAgent>>,
    pub(crate) options: Options,
    pub(crate) cut_store: bool,
    pub(crate) cut_target: bool,
    pub(crate) stalled_until: Moment,
    /// The life of the database that it last read.
    pub(crate) follows: Option<Epoch>,
    /// How far its watch has delivered; `None`: it is still reading.
    position: Option<(Epoch, Revision)>,
    feeding: bool,
    wake_at: Option<Moment>,
    /// Effects without an answer.
    waiting: usize,
    ending: bool,
    /// Polls at this one moment.
    polls: (Moment, u32),
    /// For the broken engines: what they hold back, and what they believe to hold.
    pub(crate) held_back: BTreeMap<String, (u64, Vec<LedgerRow>)>,
    pub(crate) believes: BTreeMap<String, u64>,
    /// Facts that the engine took in and that no write of the ledger has settled yet, by unit.
    pub(crate) owing: BTreeMap<String, Vec<Change>>,
}

/// Every row of the database at one revision.
pub(crate) struct Snapshot {
    pub(crate) epoch: Epoch,
    pub(crate) at: Revision,
    pub(crate) rows: Vec<Row>,
}

impl Node {
    pub(crate) fn new(world: usize, number: usize, dice: &mut Dice) -> Self {
        let mut options = Options::new("", shoal_engine::Nature::default(), dice.number());
        options.ttl = dice.between(15_000, 60_000);
        options.margin = 5_000;
        options.share = true;
        options.resync = dice.between(40_000, 180_000);
        options.retry_first = dice.between(200, 2_000);
        options.retry_most = dice.between(5_000, 40_000);
        options.max_batch = [1, 3, 20, 5_000][dice.below(4)];
        options.sweep_slice = [1, 7, 2_000][dice.below(3)];
        Self {
            world,
            number,
            life: 0,
            engine: None,
            options,
            cut_store: false,
            cut_target: false,
            stalled_until: START,
            follows: None,
            position: None,
            feeding: false,
            wake_at: None,
            waiting: 0,
            ending: false,
            polls: (START, 0),
            held_back: BTreeMap::new(),
            believes: BTreeMap::new(),
            owing: BTreeMap::new(),
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("{}.{}.{}", self.world, self.number, self.life)
    }

    /// Whether it waits for nothing that it asked for.
    pub(crate) fn is_idle(&self) -> bool {
        self.engine.is_some() && self.waiting == 0
    }

    /// How it stands, for people.
    pub(crate) fn describe(&self) -> String {
        let Some(engine) = &self.engine else { return format!("{}: down", self.name()) };
        let troubles: Vec<_> =
            engine.troubles().into_iter().take(6).map(|(u, k, why)| format!("{u} {k}: {why}")).collect();
        let (waiting, seen) = (self.waiting, engine.seen());
        let units = engine.status(START, false).units;
        let held: Vec<_> =
            units.iter().filter_map(|(name, u)| Some(format!("{name}: {:?}", u.held.as_ref()?))).collect();
        format!(
            "{}: seen {seen}, {waiting} effects without an answer; held {held:?}; {}",
            self.name(),
            troubles.join(" | ")
        )
    }
}

impl Swarm {
    pub(crate) fn start(&mut self, node: usize) {
        if self.nodes[node].engine.is_some() {
            return;
        }
        let world = &self.worlds[self.nodes[node].world];
        let (kind, nature) = (world.kind, world.nature);
        let it = &mut self.nodes[node];
        it.life += 1;
        let mut options = it.options.clone();
        options.instance = format!("{}-{}", kind.namespace(), it.name());
        options.nature = nature;
        options.drift = if self.corrects { OnDrift::Correct } else { OnDrift::Report };
        options.seed ^= it.life;
        if self.setup.breakage == Some(Breakage::GuardSkipped) {
            without_guard(&mut options);
        }
        options.share &= self.setup.breakage != Some(Breakage::ShareIgnored);
        let blind = self.setup.breakage == Some(Breakage::TakingUncounted);
        let overdone = self.setup.breakage == Some(Breakage::MarkOverdone);
        match Engine::new(Arc::new(SimAgent { kind, blind, overdone }), options) {
            Ok(engine) => it.engine = Some(engine),
            Err(why) => return self.check.fail(format!("no engine: {why}")),
        }
        (it.follows, it.position, it.feeding, it.wake_at, it.waiting, it.ending) =
            (None, None, false, None, 0, false);
        it.held_back.clear();
        it.believes.clear();
        it.owing.clear();
        self.note(|s| format!("{} starts as {}", s.nodes[node].name(), kind.namespace()));
        self.reread(node);
    }

    /// Reads the whole database, page by page.
    pub(crate) fn reread(&mut self, node: usize) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        let head = self.store.head();
        self.nodes[node].position = None;
        if self.outage {
            let life = self.nodes[node].life;
            return self.queue.after(1_000, Event::Read(node, life));
        }
        let limit = 1 + self.faults.dice.below(40);
        let stale = self.setup.breakage == Some(Breakage::StaleRead) && self.faults.dice.chance(300);
        let at = if stale { Revision(head.revision.0.saturating_sub(3)) } else { head.revision };
        let rows = self.store.rows(at, limit);
        let snapshot = Snapshot { epoch: head.epoch, at: head.revision, rows };
        let (life, delay) = (self.nodes[node].life, self.faults.latency(4_000));
        self.queue.after(delay, Event::Loaded(node, life, Box::new(snapshot)));
    }

    pub(crate) fn loaded(&mut self, node: usize, life: u64, snapshot: Box<Snapshot>) {
        let Some(at) = self.awake(node, life) else { return };
        if at > self.queue.now() || self.nodes[node].cut_store {
            // The answer is lost with the connection: it asks again.
            if at > self.queue.now() {
                self.queue.at(at, Event::Loaded(node, life, snapshot));
            } else {
                self.queue.after(1_000, Event::Loaded(node, life, snapshot));
            }
            return;
        }
        let Snapshot { epoch, at, rows } = *snapshot;
        self.note(|s| format!("{} has read everything at revision {at}", s.nodes[node].name()));
        let ignores = self.setup.breakage == Some(Breakage::EpochIgnored);
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.load(shoal_engine::Snapshot::of(if ignores { FIRST } else { epoch }, at, rows));
        }
        self.nodes[node].follows = Some(epoch);
        self.nodes[node].position = Some((epoch, at));
        self.offer(node);
        self.pump(node);
    }

    /// If the watch has something new for the instance, it is on its way.
    pub(crate) fn offer(&mut self, node: usize) {
        let head = self.store.head();
        let it = &self.nodes[node];
        let news = it.position.is_some_and(|(epoch, at)| epoch != head.epoch || at < head.revision);
        if it.engine.is_none() || it.feeding || it.cut_store || self.outage || !news {
            return;
        }
        let life = it.life;
        self.nodes[node].feeding = true;
        let delay = self.faults.latency(3_000);
        self.queue.after(delay, Event::Feed(node, life));
    }

    pub(crate) fn feed(&mut self, node: usize, life: u64) {
        let Some(at) = self.awake(node, life) else { return };
        if at > self.queue.now() {
            return self.queue.at(at, Event::Feed(node, life));
        }
        self.nodes[node].feeding = false;
        let Some((epoch, position)) = self.nodes[node].position else { return };
        if self.nodes[node].cut_store || self.outage {
            return;
        }
        if epoch != self.store.head().epoch || self.faults.strikes(FaultKind::WatchReset) {
            self.note(|s| format!("{} has lost its place", s.nodes[node].name()));
            return self.reread(node);
        }
        let some = 1 + self.faults.dice.below(6);
        for entry in self.store.memory.after(position, some) {
            if let Some(engine) = &mut self.nodes[node].engine {
                engine.apply(entry.info.revision, &entry.changes);
            }
            self.nodes[node].position = Some((epoch, entry.info.revision));
        }
        self.offer(node);
        self.pump(node);
    }

    /// Whether this life of the instance still lasts, and from when on it does something again.
    pub(crate) fn awake(&self, node: usize, life: u64) -> Option<Moment> {
        let it = &self.nodes[node];
        (it.life == life && it.engine.is_some()).then_some(it.stalled_until)
    }

    pub(crate) fn wake(&mut self, node: usize, life: u64) {
        let Some(at) = self.awake(node, life) else { return };
        let now = self.queue.now();
        if self.nodes[node].wake_at.is_none_or(|due| due > now) {
            return;
        }
        if at > now {
            return self.queue.at(at, Event::Wake(node, life));
        }
        self.nodes[node].wake_at = None;
        self.pump(node);
    }

    /// Takes every effect that the engine has, and asks when to come back.
    pub(crate) fn pump(&mut self, node: usize) {
        let now = self.queue.now();
        let it = &mut self.nodes[node];
        it.polls = if it.polls.0 == now { (now, it.polls.1 + 1) } else { (now, 1) };
        if it.polls.1 > 1_000 {
            let name = it.name();
            return self.check.fail(format!("{name} never comes to an end at one moment"));
        }
        while let Some(effect) = self.nodes[node].engine.as_mut().and_then(|engine| engine.poll(now)) {
            self.leave(node, effect);
        }
        let it = &mut self.nodes[node];
        let Some(engine) = &it.engine else { return };
        if it.waiting > OUTSTANDING {
            let why = format!("{} waits for {} answers at once", it.name(), it.waiting);
            return self.check.fail(why);
        }
        if it.ending && engine.is_drained() {
            return self.ended(node);
        }
        let due = engine.next_wake().filter(|at| *at < Moment::MAX).map(|at| at.max(now));
        if let Some(at) = due
            && it.wake_at.is_none_or(|old| at < old || old <= now)
        {
            it.wake_at = Some(at);
            let life = it.life;
            self.queue.at(at, Event::Wake(node, life));
        }
    }

    /// An effect leaves the instance.
    fn leave(&mut self, node: usize, effect: Effect) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        if !matches!(effect.act, Act::Report(_) | Act::Claim { .. } | Act::NextKey { .. } | Act::Join { .. })
        {
            self.note(|s| format!("{} {}", s.nodes[node].name(), ask(&effect)));
        }
        if self.faults.strikes(FaultKind::Crash) {
            return self.crash(node, &format!("before {}", boundary(&effect.act)));
        }
        if let Act::ReadLedger { unit, .. } = &effect.act {
            // It begins anew with this unit.
            self.nodes[node].owing.remove(&unit.0);
        }
        self.nodes[node].waiting += 1;
        let (life, delay) = (self.nodes[node].life, self.faults.latency(4_000));
        if let Act::Apply { .. } = effect.act {
            return self.job(node, effect, delay);
        }
        self.queue.after(delay, Event::Arrive(node, life, self.queue.now(), Box::new(effect)));
    }

    /// An answer is on its way back.
    pub(crate) fn reply(&mut self, node: usize, life: u64, id: u64, boundary: &str, reply: Reply) {
        if self.awake(node, life).is_none() {
            return;
        }
        if self.faults.strikes(FaultKind::Crash) {
            return self.crash(node, &format!("after {boundary}"));
        }
        if self.faults.strikes(FaultKind::LostReply) {
            return self.lose(node, life, id, boundary);
        }
        let delay = self.faults.latency(4_000);
        if self.faults.strikes(FaultKind::Duplicate)
            && let Some(copy) = again(&reply)
        {
            let later = delay + self.faults.latency(20_000);
            self.queue.after(later, Event::Answer(node, life, id, Box::new(copy)));
        }
        self.queue.after(delay, Event::Answer(node, life, id, Box::new(reply)));
    }

    /// No answer comes: some time later the instance gives up.
    pub(crate) fn lose(&mut self, node: usize, life: u64, id: u64, boundary: &str) {
        let fault = Fault::new(boundary, "no answer came in time");
        self.queue.after(GIVE_UP, Event::Answer(node, life, id, Box::new(Answer::Fault(fault))));
    }

    pub(crate) fn answer(&mut self, node: usize, life: u64, id: u64, reply: Box<Reply>) {
        let Some(at) = self.awake(node, life) else { return };
        let now = self.queue.now();
        if at > now {
            return self.queue.at(at, Event::Answer(node, life, id, reply));
        }
        if let Some(said) = say(&reply) {
            self.note(|s| format!("{} answer #{id}: {said}", s.nodes[node].name()));
        }
        let it = &mut self.nodes[node];
        it.waiting = it.waiting.saturating_sub(1);
        let told = match &*reply {
            Answer::Applied(Applied { each, facts }) => {
                each.first().map(|(key, _)| (key.unit().to_owned(), facts.clone()))
            }
            _ => None,
        };
        if let Some(engine) = &mut it.engine {
            let made = |c: Counters| c.intended + c.drift + c.anew;
            let before = made(engine.counters());
            engine.answer(id, *reply, now);
            // An answer that nobody waits for any more makes nothing.
            if let Some((unit, facts)) = told.filter(|_| made(engine.counters()) > before) {
                it.owing.entry(unit).or_default().extend(facts);
            }
        }
        self.pump(node);
    }

    /// The instance is gone, and with it all that it knew.
    pub(crate) fn crash(&mut self, node: usize, place: &str) {
        self.note(|s| format!("{} dies {place}", s.nodes[node].name()));
        self.summary.crashes.insert(place.to_owned());
        self.ended(node);
    }

    fn ended(&mut self, node: usize) {
        self.nodes[node].engine = None;
        let pause = self.faults.dice.between(50, 40_000);
        self.queue.after(pause, Event::Start(node));
    }

    /// Tells the instance to end in good order.
    pub(crate) fn drain(&mut self, node: usize) {
        let life = self.nodes[node].life;
        if let Some(engine) = &mut self.nodes[node].engine {
            engine.drain();
            self.nodes[node].ending = true;
            self.queue.after(GRACE, Event::Kill(node, life));
            self.pump(node);
        }
    }
}

/// The name of an effect's boundaries.
pub(crate) fn boundary(act: &Act<SimAgent>) -> &'static str {
    match act {
        Act::NextKey { .. } => "next key",
        Act::Join { .. } => "join",
        Act::Leave => "leave",
        Act::Claim { .. } => "claim",
        Act::Release { .. } => "release",
        Act::ReadLedger { .. } => "ledger read",
        Act::WriteLedger { .. } => "ledger write",
        Act::Observe { .. } => "look",
        Act::Apply { .. } => "apply",
        Act::Facts { .. } => "facts",
        Act::Report(_) => "report",
    }
}

/// The same answer once more.
fn again(reply: &Reply) -> Option<Reply> {
    Some(match reply {
        Answer::NextKey(key) => Answer::NextKey(key.clone()),
        Answer::Roster(roster) => Answer::Roster(roster.clone()),
        Answer::Claim(claimed) => Answer::Claim(*claimed),
        Answer::Ledger { rows, location } => {
            Answer::Ledger { rows: rows.clone(), location: location.clone() }
        }
        Answer::Observed(observed) => Answer::Observed(observed.clone()),
        Answer::Applied(applied) => Answer::Applied(applied.clone()),
        Answer::Done => Answer::Done,
        Answer::Fenced => Answer::Fenced,
        Answer::Fault(fault) => Answer::Fault(fault.clone()),
    })
}

/// An effect for people.
fn ask(effect: &Effect) -> String {
    let Act::Apply { batch, number, .. } = &effect.act else { return format!("{effect:?}") };
    let one = |edit: &shoal_engine::Edit<SimAgent>| {
        let to = edit.to.as_ref().map(|thing| &thing.parts);
        format!("{} {} to {to:?} because {}, token {:.6}", edit.verb, edit.key, edit.because, edit.token)
    };
    let all: Vec<_> = batch.changes.iter().map(one).collect();
    format!("#{} Apply as {number} at revision {}: {}", effect.id, batch.revision, all.join("; "))
}

/// An answer for people; `None`: nothing worth telling.
fn say(reply: &Reply) -> Option<String> {
    Some(match reply {
        Answer::Roster(roster) if roster.instances.len() > 1 => format!("{roster:?}"),
        Answer::NextKey(_) | Answer::Roster(_) | Answer::Done | Answer::Claim(Claimed::Taken { .. }) => {
            return None;
        }
        Answer::Claim(Claimed::Held { number, until, .. }) => {
            format!("held as {number} until {}", until - START)
        }
        Answer::Ledger { rows, .. } => {
            let text: Vec<_> = rows.iter().map(|(_, value)| String::from_utf8_lossy(value)).collect();
            format!("ledger {}", text.join(", "))
        }
        Answer::Observed(seen) => format!("seen {:?}, complete: {}", seen.seen, seen.complete),
        Answer::Applied(applied) => format!("{:?}", applied.each),
        Answer::Fenced => "fenced".to_owned(),
        Answer::Fault(fault) => fault.to_string(),
    })
}
