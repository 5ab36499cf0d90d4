//! What becomes of effects where they arrive: at the store and at the targets.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use shoal_core::{Change, Commit, Epoch, Pre};
use shoal_engine::{Act, Answer, Applied, Batch, Claimed, Edit, Fault, Moment, Outcome};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, StoreError};

use crate::agent::{ItemKey, SimAgent};
use crate::broken::{Breakage, absence_is_delete};
use crate::check::Sent;
use crate::faults::FaultKind;
use crate::node::{Effect, Reply, boundary};
use crate::store::{FIRST, time, uptime};
use crate::swarm::{Event, Swarm};
use crate::world::Sight;

/// A batch under way, some changes at a time.
pub(crate) struct Job {
    id: u64,
    unit: String,
    batch: Arc<Batch<SimAgent>>,
    number: u64,
    not_after: Moment,
    /// The life of the database that it was decided in.
    epoch: Option<Epoch>,
    /// How many changes have landed, and how many are landing now.
    next: usize,
    some: usize,
    each: Vec<(ItemKey, Outcome)>,
}

/// The facts that these rows of a ledger hold.
fn written_facts(rows: &[LedgerWrite]) -> Vec<Change> {
    #[derive(Deserialize)]
    struct Due {
        facts: Vec<Change>,
    }
    let values = rows.iter().filter(|row| row.key.contains("/facts-")).filter_map(|row| row.value.as_ref());
    values.filter_map(|value| serde_json::from_slice::<Due>(value).ok()).flat_map(|due| due.facts).collect()
}

fn down(what: &str) -> Reply {
    Answer::Fault(Fault::new(what, "the store is not there"))
}

impl Swarm {
    /// The name of a unit's claim.
    fn claim_name(&self, node: usize, unit: &str) -> String {
        format!("unit/{}/{unit}", self.worlds[self.nodes[node].world].kind.namespace())
    }

    /// An effect reaches the store, or a look the target. It was sent when its instance lived; that it may have died
    /// since changes nothing.
    pub(crate) fn arrive(&mut self, node: usize, life: u64, sent: Moment, effect: Effect) {
        let name = boundary(&effect.act);
        let looks = matches!(effect.act, Act::Observe { .. });
        let it = &self.nodes[node];
        if (looks && it.cut_target) || (!looks && (it.cut_store || self.outage)) {
            return self.lose(node, life, effect.id, name);
        }
        let id = effect.id;
        let reply = if looks {
            self.look(node, effect.act)
        } else if self.faults.strikes(FaultKind::StoreError) {
            down(name)
        } else {
            self.at_store(node, life, sent, effect.act)
        };
        self.reply(node, life, id, name, reply);
    }

    fn look(&mut self, node: usize, act: Act<SimAgent>) -> Reply {
        let Act::Observe { unit, keys } = act else { return down("look") };
        let blind = self.setup.breakage == Some(Breakage::AbsenceIsDelete);
        let failed = self.faults.strikes(FaultKind::FailedLook);
        let partial = self.faults.strikes(FaultKind::PartialLook);
        let sight = match self.faults.dice.below(2) {
            0 if partial => Sight::Partial,
            _ if partial => Sight::Blurred,
            _ => Sight::Clear,
        };
        if failed && !blind {
            return Answer::Fault(Fault::new("look at the target", "it does not answer"));
        }
        let now = self.queue.now();
        let world = &self.worlds[self.nodes[node].world];
        let mut observed = world.observe(&unit.0, keys.as_deref(), sight, now, &mut self.faults.dice);
        if blind {
            absence_is_delete(&mut observed);
        }
        Answer::Observed(observed)
    }

    fn at_store(&mut self, node: usize, life: u64, sent: Moment, act: Act<SimAgent>) -> Reply {
        let now = self.queue.now();
        match act {
            Act::NextKey { prefix, after } => {
                let page = self.store.memory.ledger(&prefix, after.as_deref(), 1);
                Answer::NextKey(page.rows.into_iter().next().map(|(key, _)| key))
            }
            Act::Join { ttl } => self.join(node, ttl),
            Act::Leave => self.leave_others(node),
            Act::Claim { unit, ttl } => self.claim(node, &unit.0, sent + ttl, ttl),
            Act::Release { unit, number } => {
                let name = self.claim_name(node, &unit.0);
                if let Some(claim) = self.store.claim(&name, number, now) {
                    self.store.memory.release(&claim);
                }
                Answer::Done
            }
            Act::ReadLedger { prefix, .. } => {
                Answer::Ledger { rows: self.store.ledger_rows(&prefix), location: String::new() }
            }
            Act::WriteLedger { unit, number, rows } => {
                if self.setup.breakage == Some(Breakage::LedgerAfterEffect)
                    && self.awake(node, life).is_some()
                {
                    let held = self.nodes[node].held_back.entry(unit.0).or_insert((number, Vec::new()));
                    held.0 = number;
                    held.1.extend(rows);
                    return Answer::Done;
                }
                self.write_ledger(node, life, &unit.0, number, rows)
            }
            Act::Facts { unit, number, facts } => {
                let name = self.claim_name(node, &unit.0);
                let commit = Commit {
                    pre: vec![Pre::Held { name, number }],
                    ..Commit::new("agent", "simulated", facts)
                };
                let done = self.store.commit(commit, now);
                self.committed();
                self.fenced(done.map(|_| ()))
            }
            Act::Report(status) => {
                let said = self.store.memory.report(*status, time(now));
                let world = &self.worlds[self.nodes[node].world];
                self.check.waited(world, &self.store, now);
                said.map_or_else(
                    |error| Answer::Fault(Fault::new("report", error.to_string())),
                    |()| Answer::Done,
                )
            }
            Act::Observe { .. } | Act::Apply { .. } => down("an effect of the target"),
        }
    }

    fn claim(&mut self, node: usize, unit: &str, until: Moment, ttl: i64) -> Reply {
        let now = self.queue.now();
        let holder = self.holder(node);
        let want = ClaimRequest {
            name: self.claim_name(node, unit),
            of: 1,
            holder,
            ttl: Some(Duration::from_millis(ttl.unsigned_abs())),
        };
        let ignores = self.setup.breakage == Some(Breakage::FenceIgnored);
        match self.store.memory.claim(&want, uptime(now)) {
            Ok(ClaimAnswer::Granted(claim)) => {
                self.nodes[node].believes.insert(unit.to_owned(), claim.number);
                let head = self.store.head();
                let ignores = self.setup.breakage == Some(Breakage::EpochIgnored);
                let epoch = if ignores { FIRST } else { head.epoch };
                let head = Some((epoch, head.revision));
                Answer::Claim(Claimed::Held { number: claim.number, until, head })
            }
            Ok(ClaimAnswer::Taken { look_again, .. }) => match self.nodes[node].believes.get(unit) {
                Some(number) if ignores => {
                    Answer::Claim(Claimed::Held { number: *number, until, head: None })
                }
                _ => {
                    let wait = look_again.map_or(1_000, |d| i64::try_from(d.as_millis()).unwrap_or(1_000));
                    Answer::Claim(Claimed::Taken { look_again: now + wait })
                }
            },
            Err(why) => Answer::Fault(Fault::new("claim a unit", why)),
        }
    }

    fn write_ledger(
        &mut self,
        node: usize,
        life: u64,
        unit: &str,
        number: u64,
        mut rows: Vec<shoal_engine::LedgerRow>,
    ) -> Reply {
        if self.setup.breakage == Some(Breakage::FactsForgotten) {
            rows.retain(|row| !row.key.contains("/facts-"));
        }
        let rows: Vec<_> =
            rows.into_iter().map(|row| LedgerWrite { key: row.key, value: row.value }).collect();
        let held =
            Claim { name: self.claim_name(node, unit), slot: 0, holder: String::new(), number, ttl: None };
        let now = self.queue.now();
        let mut facts = written_facts(&rows);
        let done = self.store.memory.write_ledger(rows, &held, uptime(now));
        if done.is_ok() {
            // From here on the facts outlive the process: those that it took in, and those of one that has died since.
            if self.awake(node, life).is_some() {
                facts.extend(self.nodes[node].owing.remove(unit).unwrap_or_default());
            }
            for fact in facts {
                self.check.owed.entry(fact.key.clone()).or_default().insert(unit.to_owned(), fact);
            }
        }
        let world = &mut self.worlds[self.nodes[node].world];
        let ledger = self.store.ledger(world.kind, unit);
        world.forget(unit, |key| ledger.contains_key(key), now);
        self.check.written(world.kind, unit, &ledger);
        self.fenced(done)
    }

    fn fenced(&self, done: Result<(), StoreError>) -> Reply {
        match done {
            Ok(()) => Answer::Done,
            Err(StoreError::Fenced { .. }) if self.setup.breakage == Some(Breakage::FenceIgnored) => {
                Answer::Done
            }
            Err(StoreError::Fenced { .. }) => Answer::Fenced,
            Err(why) => Answer::Fault(Fault::new("write to the store", why)),
        }
    }

    /// A batch leaves the instance.
    pub(crate) fn job(&mut self, node: usize, effect: Effect, delay: i64) {
        let Act::Apply { unit, batch, number, not_after, .. } = effect.act else { return };
        let batch = if self.setup.breakage == Some(Breakage::RetryWithoutToken) {
            let mut other = (*batch).clone();
            for edit in &mut other.changes {
                edit.token = format!("{}-{}-{}", edit.token, self.nodes[node].name(), effect.id);
            }
            Arc::new(other)
        } else {
            batch
        };
        let job = Job {
            id: effect.id,
            unit: unit.0,
            batch,
            number,
            not_after,
            epoch: self.nodes[node].follows,
            next: 0,
            some: 0,
            each: Vec::new(),
        };
        self.queue.after(delay, Event::Begin(node, self.nodes[node].life, Box::new(job)));
    }

    /// The instance starts the next changes of a batch, if it still may.
    pub(crate) fn begin(&mut self, node: usize, life: u64, mut job: Box<Job>) {
        let Some(at) = self.awake(node, life) else { return };
        let now = self.queue.now();
        if at > now {
            return self.queue.at(at, Event::Begin(node, life, job));
        }
        let ignores = self.setup.breakage == Some(Breakage::FenceIgnored);
        if now > job.not_after && !ignores {
            let fault = Fault::new("start an effect", "the claim may have passed to another instance");
            return self.reply(node, life, job.id, "apply", Answer::Fault(fault));
        }
        if self.nodes[node].cut_target {
            return self.lose(node, life, job.id, "apply");
        }
        let name = self.claim_name(node, &job.unit);
        if !self.store.holds(&name, job.number, now) {
            let (who, number) = (self.nodes[node].name(), job.number);
            self.check
                .fail(format!("{who} began to change unit {} without the right to ({number})", job.unit));
        }
        if job.epoch.is_some_and(|epoch| epoch != self.store.head().epoch) {
            let who = self.nodes[node].name();
            self.check
                .fail(format!("{who} began to change unit {} by a database that was replaced", job.unit));
        }
        let world = &self.worlds[self.nodes[node].world];
        if job.next == 0 {
            let sent = Sent { kind: world.kind, unit: &job.unit, batch: &job.batch, late: false };
            self.check.begins(sent, &self.store);
        }
        job.some = if world.nature.whole { job.batch.changes.len() } else { 1 + self.faults.dice.below(12) };
        let most = if self.faults.strikes(FaultKind::Late) { 45_000 } else { 4_000 };
        let delay = if most > 4_000 { self.faults.dice.between(1, most) } else { self.faults.latency(most) };
        self.queue.after(delay, Event::Land(node, life, job));
    }

    /// Changes land in the target, whether or not whoever sent them still lives.
    pub(crate) fn land(&mut self, node: usize, life: u64, mut job: Box<Job>) {
        let now = self.queue.now();
        let at = self.nodes[node].world;
        let number = if self.setup.breakage == Some(Breakage::FenceIgnored) { u64::MAX } else { job.number };
        if let Err(fault) = self.worlds[at].admit(&job.unit, number) {
            return self.reply(node, life, job.id, "apply", Answer::Fault(fault));
        }
        let late = !self.store.holds(&self.claim_name(node, &job.unit), job.number, now);
        let end = (job.next + job.some).min(job.batch.changes.len());
        let changes = &job.batch.changes[job.next..end];
        let (each, landed) =
            self.worlds[at].apply(&job.unit, &job.batch, changes, now, &mut self.faults.dice);
        self.summary.landed += landed.len() as u64;
        let sent = Sent { kind: self.worlds[at].kind, unit: &job.unit, batch: &job.batch, late };
        self.check.landed(sent, &landed, &self.worlds[at], &self.store);
        for one in &landed {
            self.note(|_| format!("{} is now {:?}{}", one.key, one.after, if late { " (late)" } else { "" }));
            let world = &mut self.worlds[at];
            if late {
                world.tampered.insert(one.key.clone());
                world.late.insert(one.key.clone());
                continue;
            }
            world.late.remove(&one.key);
            // Drift is behind no revision, and what a file brings back unmeant is as it was seen before: until it is intended
            // again, only the end has to be right.
            let meant = |edit: &Edit<SimAgent>| edit.key == one.key && !edit.because.is_strayed();
            if job.batch.changes.iter().any(meant) {
                world.tampered.remove(&one.key);
            }
        }
        job.each.extend(each);
        job.next = end;
        if end < job.batch.changes.len() {
            if self.awake(node, life).is_some() && self.faults.strikes(FaultKind::Crash) {
                return self.crash(node, "within apply");
            }
            return self.begin(node, life, job);
        }
        if let Some((number, rows)) = self.nodes[node].held_back.remove(&job.unit)
            && self.awake(node, life).is_some()
        {
            self.write_ledger(node, life, &job.unit, number, rows);
        }
        let made: Vec<_> =
            job.each.iter().filter(|(_, o)| *o == Outcome::Done).map(|(key, _)| key.clone()).collect();
        let facts = self.worlds[at].facts(&made);
        let applied = Applied { each: std::mem::take(&mut job.each), facts };
        self.reply(node, life, job.id, "apply", Answer::Applied(applied));
    }
}
