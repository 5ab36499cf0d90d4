//! A whole swarm: its instances, the database, the targets, the people, and time.
//!
//! [`Swarm::run`] goes through three parts. In the first, people change the fleet while things go wrong. Then
//! nothing goes wrong any more, and the world has to come to what the database says, but for what people hold. At
//! last people resume, mend and agree to everything, and the world has to be exactly what the database says.

use std::collections::VecDeque;

use shoal_core::{Change, Document, Key};
use shoal_engine::Moment;

use crate::agent::{ItemKey, Kind};
use crate::broken::Breakage;
use crate::check::Checker;
use crate::dice::Dice;
use crate::faults::{FaultKind, Faults};
use crate::fleet::Fleet;
use crate::job::Job;
use crate::node::{Effect, Node, Reply};
use crate::queue::{Queue, START};
use crate::restore::{Backup, Plan};
use crate::setup::{Failure, Setup, Summary};
use crate::store::{SimStore, time};
use crate::word::Asked;
use crate::world::World;

/// The longest that a swarm may take to come to rest once nothing goes wrong any more.
const PATIENCE: Moment = 1_800_000;
/// More events than this in one run: something never rests.
const MANY: u64 = 300_000;

/// Everything that happens.
pub(crate) enum Event {
    /// Somebody commits.
    People,
    /// Somebody looks at what is held, and may agree.
    Operator,
    /// Something happens to an instance or a target from outside.
    Trouble,
    /// An instance begins.
    Start(usize),
    /// An instance is polled because its engine asked for it.
    Wake(usize, u64),
    /// The watch has something for an instance.
    Feed(usize, u64),
    /// An instance reads everything anew.
    Read(usize, u64),
    /// The database is there again, as of a backup.
    Restored,
    /// The rows of the first reading, or after a reset, reach an instance.
    Loaded(usize, u64, Box<crate::node::Snapshot>),
    /// An effect that was sent at that time reaches the store or the target.
    Arrive(usize, u64, Moment, Box<Effect>),
    /// A batch goes on.
    Begin(usize, u64, Box<Job>),
    /// Some changes of a batch land.
    Land(usize, u64, Box<Job>),
    /// An answer reaches an instance.
    Answer(usize, u64, u64, Box<Reply>),
    /// A partition ends.
    Heal(usize),
    /// An instance that was told to end has not: it is killed.
    Kill(usize, u64),
    /// What `wait` would say is checked.
    Audit,
}

/// A run under way.
pub(crate) struct Swarm {
    pub(crate) setup: Setup,
    pub(crate) queue: Queue<Event>,
    pub(crate) store: SimStore,
    pub(crate) worlds: Vec<World>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) faults: Faults,
    pub(crate) check: Checker,
    pub(crate) summary: Summary,
    pub(crate) corrects: bool,
    pub(crate) fleet: Fleet,
    people: Dice,
    /// How many commits of people are still to come.
    pub(crate) steps: usize,
    /// Nobody reaches the store: it is being restored.
    pub(crate) outage: bool,
    pub(crate) plan: Option<Plan>,
    pub(crate) backup: Option<Backup>,
    /// People agree to everything at once.
    agreeable: bool,
    trace: VecDeque<String>,
}

/// Runs it.
///
/// # Errors
/// An invariant was broken.
pub fn simulate(setup: &Setup) -> Result<Summary, Box<Failure>> {
    Swarm::new(setup.clone()).run()
}

impl Swarm {
    fn new(setup: Setup) -> Self {
        let seed = setup.seed;
        let mut dice = Dice::new(seed, "world");
        let worlds: Vec<_> = setup.kinds.iter().map(|kind| World::new(*kind, &mut dice)).collect();
        let corrects = dice.chance(850);
        let mut options = Dice::new(seed, "options");
        let nodes = (0..worlds.len())
            .flat_map(|world| (0..setup.instances).map(move |n| (world, n)))
            .map(|(world, n)| Node::new(world, n, &mut options))
            .collect();
        Self {
            queue: Queue::new(),
            store: SimStore::new(),
            nodes,
            faults: Faults::new(setup.faults.clone(), Dice::new(seed, "faults")),
            check: Checker::default(),
            summary: Summary::default(),
            corrects,
            fleet: Fleet::new(setup.kinds.clone(), Dice::new(seed, "fleet")),
            people: Dice::new(seed, "people"),
            steps: setup.steps,
            outage: false,
            plan: Some(Plan::new(setup.steps, &mut Dice::new(seed, "restore"))),
            backup: None,
            agreeable: false,
            trace: VecDeque::new(),
            worlds,
            setup,
        }
    }

    /// Notes what happened, if anybody wants to know.
    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.setup.trace == 0 {
            return;
        }
        let line = format!("{:>10.3} {}", (self.queue.now() - START) as f64 / 1000.0, what(self));
        if self.trace.len() == self.setup.trace {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn run(mut self) -> Result<Summary, Box<Failure>> {
        let founding = self.fleet.found();
        self.commit("ann", founding);
        for node in 0..self.nodes.len() {
            let delay = self.people.between(0, 3_000);
            self.queue.after(delay, Event::Start(node));
        }
        self.queue.after(1_000, Event::People);
        self.queue.after(5_000, Event::Operator);
        self.queue.after(3_000, Event::Trouble);
        self.queue.after(2_000, Event::Audit);
        while self.steps > 0 || self.outage {
            self.turn(Moment::MAX)?;
        }
        let end = self.queue.now() + self.people.between(1_000, 90_000);
        while self.turn(end)? {}
        self.calm();
        self.come_to_rest(true)?;
        self.note(|_| "people resume, mend and agree to everything".to_owned());
        let tidy = self.fleet.tidy();
        self.commit("ann", tidy);
        self.agreeable = true;
        self.come_to_rest(false)?;
        self.share()?;
        self.summary.revision = self.store.head().revision.0;
        self.summary.waited = self.check.waits;
        self.summary.struck = self.faults.struck;
        Ok(self.summary)
    }

    /// One event. Answers whether there was one before `end`.
    pub(crate) fn turn(&mut self, end: Moment) -> Result<bool, Box<Failure>> {
        let Some(event) = self.queue.next(end) else { return Ok(false) };
        self.summary.events += 1;
        if self.summary.events > MANY || self.queue.len() > 10_000 {
            let (events, waiting) = (self.summary.events, self.queue.len());
            self.check.fail(format!("it never rests: {events} events, {waiting} still to come"));
        }
        self.happen(event);
        match self.check.broken.take() {
            None => Ok(true),
            Some(why) => Err(self.failed(why)),
        }
    }

    pub(crate) fn failed(&mut self, why: String) -> Box<Failure> {
        let trace = std::mem::take(&mut self.trace).into();
        Box::new(Failure { setup: self.setup.clone(), why, at: self.queue.now() - START, trace })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::People => self.somebody_commits(),
            Event::Operator => self.somebody_agrees(),
            Event::Trouble => self.trouble(),
            Event::Audit => {
                for world in self.worlds.iter().filter(|_| !self.outage) {
                    self.check.waited(world, &self.store, self.queue.now());
                }
                self.queue.after(1_700, Event::Audit);
            }
            Event::Start(node) => self.start(node),
            Event::Read(node, life) => {
                if self.awake(node, life).is_some() {
                    self.reread(node);
                }
            }
            Event::Restored => self.restored(),
            Event::Wake(node, life) => self.wake(node, life),
            Event::Feed(node, life) => self.feed(node, life),
            Event::Loaded(node, life, snapshot) => self.loaded(node, life, snapshot),
            Event::Arrive(node, life, sent, effect) => self.arrive(node, life, sent, *effect),
            Event::Begin(node, life, job) => self.begin(node, life, job),
            Event::Land(node, life, job) => self.land(node, life, job),
            Event::Answer(node, life, id, reply) => self.answer(node, life, id, reply),
            Event::Heal(node) => {
                self.note(|s| format!("{} is joined again", s.nodes[node].name()));
                self.nodes[node].cut_store = false;
                self.nodes[node].cut_target = false;
                self.offer(node);
            }
            Event::Kill(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].engine.is_some() {
                    self.crash(node, "end");
                }
            }
        }
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        self.note(|_| "nothing goes wrong any more".to_owned());
        self.faults.calm();
        for world in &mut self.worlds {
            world.refused.clear();
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].cut_store = false;
            self.nodes[node].cut_target = false;
            self.offer(node);
        }
    }

    /// Waits until the world is what the database says.
    pub(crate) fn come_to_rest(&mut self, held: bool) -> Result<(), Box<Failure>> {
        let end = self.queue.now() + PATIENCE;
        let mut good = 0;
        loop {
            let until = (self.queue.now() + 4_000).min(end);
            while self.turn(until)? {}
            let now = self.queue.now();
            let mut wrong = Vec::new();
            for world in &self.worlds {
                wrong.extend(self.check.rest(world, &self.store, held, now, self.corrects));
            }
            if wrong.is_empty() && self.nodes.iter().all(Node::is_idle) {
                good += 1;
                if good == 2 {
                    return Ok(());
                }
                continue;
            }
            good = 0;
            if now >= end {
                let minutes = PATIENCE / 60_000;
                let first = wrong.into_iter().take(3).collect::<Vec<_>>().join("; ");
                let why = format!("{minutes} minutes without a fault, and it has not come to rest: {first}");
                let states = self.nodes.iter().map(Node::describe).collect::<Vec<_>>().join("\n      ");
                return Err(self.failed(format!("{why}\n      {states}")));
            }
        }
    }

    /// Commits, and tells every watcher.
    pub(crate) fn commit(&mut self, author: &str, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let now = self.queue.now();
        match self.store.write(author, changes.clone(), now) {
            Ok(done) if done.changed > 0 => {
                self.note(|_| {
                    let keys: Vec<_> = changes
                        .iter()
                        .map(|c| match &c.value {
                            Some(value) => format!("{} = {value}", c.key),
                            None => format!("{} gone", c.key),
                        })
                        .collect();
                    format!("revision {} by {author}: {}", done.revision, keys.join(", "))
                });
                self.committed();
            }
            Ok(_) => {}
            Err(why) => self.check.fail(format!("the store refused what {author} wrote: {why}")),
        }
    }

    /// Tells every watcher that there is something new.
    pub(crate) fn committed(&mut self) {
        for node in 0..self.nodes.len() {
            self.offer(node);
        }
    }

    fn somebody_commits(&mut self) {
        if self.steps == 0 {
            return;
        }
        if self.outage {
            return self.queue.after(1_000, Event::People);
        }
        self.steps -= 1;
        self.before_the_next_commit();
        if self.outage {
            return self.queue.after(1_000, Event::People);
        }
        let changes = self.fleet.step();
        self.commit("ann", changes);
        let pause = match self.people.below(20) {
            0..8 => self.people.between(0, 150),
            8..16 => self.people.between(0, 6_000),
            _ => self.people.between(5_000, 90_000),
        };
        self.queue.after(pause, Event::People);
    }

    /// Somebody reads what is held and may agree.
    fn somebody_agrees(&mut self) {
        let pause = if self.agreeable { 3_000 } else { self.people.between(5_000, 60_000) };
        self.queue.after(pause, Event::Operator);
        if !self.agreeable && !self.people.chance(400) || self.outage {
            return;
        }
        let now = self.queue.now();
        let mut agreed = Vec::new();
        for status in self.store.memory.reports() {
            if status.expires.is_some_and(|end| end <= time(now)) {
                continue;
            }
            for (unit, hold) in
                status.units.iter().filter_map(|(name, unit)| Some((name, unit.held.as_ref()?)))
            {
                let epoch = hold.digest == format!("{:016x}", self.store.head().epoch.0);
                let scope = Some(unit.as_str()).filter(|_| !epoch);
                let Ok(key) = Key::approval(&status.agent, scope) else { continue };
                // What was looked at a while ago and is not held any more is not agreed to.
                let Some((kind, changes)) = self.asked(status.agent.as_str(), unit, &hold.digest) else {
                    continue;
                };
                let value = Document::from(serde_json::json!({ "digest": hold.digest }));
                if epoch {
                    self.check.goes_by_the_epoch(kind);
                }
                let replayed = self.setup.breakage == Some(Breakage::ApprovalReplayed);
                if !epoch && (!replayed || !self.check.words.has(kind, unit)) {
                    self.check.words.agree(kind, unit, &hold.digest, changes);
                }
                agreed.push(Change::put(key, value));
            }
        }
        agreed.sort_by(|a, b| a.key.cmp(&b.key));
        agreed.dedup_by(|a, b| a.key == b.key);
        self.summary.agreed += agreed.len() as u64;
        self.commit("operator", agreed);
    }

    /// What exactly a hold of this digest holds: each item, and what it would become.
    fn asked(&self, agent: &str, unit: &str, digest: &str) -> Option<(Kind, Asked)> {
        let of = |node: &&Node| self.worlds[node.world].kind.namespace() == agent;
        self.nodes.iter().filter(of).find_map(|node| {
            let plan = node.engine.as_ref()?.plan();
            let unit = plan.units.into_iter().find(|one| one.unit == unit)?;
            unit.hold.filter(|hold| hold.digest == digest)?;
            let guarded = |held: &Option<String>| held.as_ref().is_some_and(|why| why.starts_with("guard"));
            let held = unit.steps.into_iter().filter(|step| guarded(&step.held));
            Some((self.worlds[node.world].kind, held.map(|step| (step.key, step.to)).collect()))
        })
    }

    /// What goes wrong from outside.
    fn trouble(&mut self) {
        let pause = self.people.between(1_000, 12_000);
        self.queue.after(pause, Event::Trouble);
        if self.faults.is_calm() {
            return;
        }
        for node in 0..self.nodes.len() {
            self.trouble_of(node);
        }
        for world in 0..self.worlds.len() {
            let host = ItemKey::new(&self.fleet.any_tag(), &self.fleet.any_host());
            let what = self.faults.dice.below(12);
            if self.faults.strikes(FaultKind::Refuse) {
                self.worlds[world].refused.insert(host.name().to_owned());
            } else if what < 4 {
                self.worlds[world].refused.clear();
            }
            // What is there and not yet known to be Shoal's would not be known any more.
            let kind = self.worlds[world].kind;
            let ledger = self.store.whole_ledger(kind);
            let made = ledger.get(&host).is_some_and(|entry| entry.stage == "made");
            if self.faults.strikes(FaultKind::Meddle) && (made || self.worlds[world].nature.marks_own) {
                self.note(|s| {
                    format!("by hand in {}: {host} ({})", s.worlds[world].kind.namespace(), what % 3)
                });
                if what == 11 {
                    self.worlds[world].lose(host.unit());
                }
                self.worlds[world].meddle(&host, what);
            }
            // Not where Shoal has something or is about to: nobody could tell whose it is.
            if self.faults.strikes(FaultKind::Foreign) && !ledger.contains_key(&host) {
                self.note(|s| format!("somebody else makes {host} in {}", s.worlds[world].kind.namespace()));
                self.worlds[world].intrude(&host);
            }
        }
    }

    fn trouble_of(&mut self, node: usize) {
        if self.nodes[node].engine.is_none() {
            return;
        }
        let (long, side) = (self.faults.dice.between(500, 90_000), self.faults.dice.below(3));
        if self.faults.strikes(FaultKind::Partition) {
            let it = &mut self.nodes[node];
            it.cut_store = side != 0;
            it.cut_target = side != 1;
            self.note(|s| format!("{} is cut off for {long} ms ({side})", s.nodes[node].name()));
            self.queue.after(long, Event::Heal(node));
        }
        if self.faults.strikes(FaultKind::Stall) {
            self.nodes[node].stalled_until = self.queue.now() + long;
            self.note(|s| format!("{} stands still for {long} ms", s.nodes[node].name()));
        }
        if self.faults.strikes(FaultKind::Restart) {
            self.note(|s| format!("{} is told to end", s.nodes[node].name()));
            self.drain(node);
        }
        if self.faults.strikes(FaultKind::WatchReset) {
            self.reread(node);
        }
    }
}
