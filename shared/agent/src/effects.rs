//! Carries out what the engine asks for, on the store and on the target.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::{Change, Commit};
use shoal_engine::{
    Act, Agent, Answer, Claimed, Clock, Effect, Fault, Fence, LedgerRow, Millis, Roster, Scope, Target, Unit,
};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, Store, StoreError};
use tokio::sync::Semaphore;

/// How many looks and batches are under way at once.
const PARALLEL: usize = 16;
/// How many instances of one agent may share its units. One more waits until another is gone.
const INSTANCES: u32 = 1_000;
/// How often it is said that other instances have units, at most.
const TOLD: Millis = 10_000;
/// How many ledger rows are read at once.
const LEDGER_PAGE: usize = 256;

/// The store, the target, and the claims that are held.
pub(crate) struct Hands<T> {
    pub(crate) namespace: String,
    pub(crate) holder: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) target: T,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timeout: Duration,
    claims: Mutex<BTreeMap<Unit, Claim>>,
    /// Claims under which something was written of which nobody knows what became, by their numbers: see [`Hands::under_claim`].
    doubts: Mutex<BTreeMap<Unit, u64>>,
    /// The lease under which this instance counts as there.
    presence: Mutex<Option<Claim>>,
    slots: Semaphore,
    /// When it was last said that somebody else has a unit; 0: never.
    told: AtomicI64,
    /// Whether the last claim that was asked for was refused.
    refused: AtomicBool,
}

impl<T> Hands<T> {
    pub(crate) fn new(
        namespace: String,
        holder: String,
        store: Arc<dyn Store>,
        target: T,
        clock: Arc<dyn Clock>,
        timeout: Duration,
    ) -> Self {
        let slots = Semaphore::new(PARALLEL);
        Self {
            namespace,
            holder,
            store,
            target,
            clock,
            timeout,
            claims: Mutex::default(),
            doubts: Mutex::default(),
            presence: Mutex::default(),
            slots,
            told: AtomicI64::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// Whether the database does not let it work: a claim was refused, which does not pass by itself.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    fn asked(&self, answer: &Result<ClaimAnswer, StoreError>) {
        self.refused.store(matches!(answer, Err(StoreError::Denied { .. })), Ordering::Relaxed);
    }

    /// Carries out one effect. Never fails: a failure is an answer, too.
    pub(crate) async fn carry_out<A: Agent>(self: Arc<Self>, effect: Effect<A>) -> (u64, Answer<A>)
    where
        T: Target<A>,
    {
        let id = effect.id;
        // In a task of its own, so that a panic in a target is an answer and not the end of the daemon.
        let answer = match tokio::spawn(self.act(effect.act)).await {
            Ok(answer) => answer,
            Err(error) => Answer::Fault(
                Fault::new("carry out an effect", error)
                    .next("this is a fault in the agent's target; see the log"),
            ),
        };
        (id, answer)
    }

    async fn act<A: Agent>(self: Arc<Self>, act: Act<A>) -> Answer<A>
    where
        T: Target<A>,
    {
        let what = name_of(&act);
        match act {
            Act::Observe { unit, keys } => self.observe(unit, keys).await,
            Act::Apply { unit, batch, number, not_after, epoch } => {
                let fence = Fence { number, not_after, epoch, clock: self.clock.clone() };
                let _slot = self.slots.acquire().await;
                if let Err(fault) = fence.check() {
                    return Answer::Fault(fault);
                }
                let apply = self.target.apply(&unit, &batch, &fence);
                match tokio::time::timeout(self.timeout, apply).await {
                    Ok(Ok(applied)) => Answer::Applied(applied),
                    Ok(Err(fault)) => Answer::Fault(fault),
                    Err(_) => Answer::Fault(self.too_long("change", &unit)),
                }
            }
            // One that the store does after all is done: claims are renewed, the ledger is read again.
            act => match tokio::time::timeout(self.timeout, self.ask(act)).await {
                Ok(answer) => answer,
                Err(_) => Answer::Fault(Fault::new(what, "the database did not answer in time")),
            },
        }
    }

    /// What the store does.
    async fn ask<A: Agent>(&self, act: Act<A>) -> Answer<A>
    where
        T: Target<A>,
    {
        match act {
            Act::NextKey { prefix, after } => match self.store.ledger(&prefix, after.as_deref(), 1).await {
                Ok(page) => Answer::NextKey(page.rows.into_iter().next().map(|(key, _)| key)),
                Err(error) => failed("list the units in the ledger", error),
            },
            Act::Join { ttl } => self.join(ttl).await,
            Act::Leave => self.leave().await,
            Act::Claim { unit, ttl } => self.claim(unit, ttl).await,
            Act::Release { unit, number } => self.release(&unit, number).await,
            Act::ReadLedger { unit, prefix } => self.read_ledger(&unit, &prefix).await,
            Act::WriteLedger { unit, number, rows } => self.write_ledger(&unit, number, rows).await,
            Act::Facts { unit, number, facts } => self.facts(&unit, number, facts).await,
            Act::Report(status) => match self.store.report(*status).await {
                Ok(()) => Answer::Done,
                Err(error) => failed("report", error),
            },
            Act::Observe { .. } | Act::Apply { .. } => {
                Answer::Fault(Fault::new("ask the store", "that is for the target"))
            }
        }
    }

    fn too_long(&self, what: &str, unit: &Unit) -> Fault {
        Fault::new(format!("{what} {unit}"), format!("it took longer than {:?}", self.timeout))
            .next("raise `timeout` in the configuration if that is normal")
    }

    async fn observe<A: Agent>(&self, unit: Unit, keys: Option<Vec<A::Key>>) -> Answer<A>
    where
        T: Target<A>,
    {
        let _slot = self.slots.acquire().await;
        let scope = keys.as_deref().map_or(Scope::All, Scope::Keys);
        match tokio::time::timeout(self.timeout, self.target.observe(&unit, scope)).await {
            Ok(Ok(observed)) => Answer::Observed(observed),
            Ok(Err(fault)) => Answer::Fault(fault),
            Err(_) => Answer::Fault(self.too_long("look at", &unit)),
        }
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, BTreeMap<Unit, Claim>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claim of this number, as the store gave it.
    fn held(&self, unit: &Unit, number: u64) -> Option<Claim> {
        self.claims().get(unit).filter(|claim| claim.number == number).cloned()
    }

    fn presence(&self) -> std::sync::MutexGuard<'_, Option<Claim>> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that it is there. The instances hold the places of one counted claim, so that nothing is left of those that died.
    async fn join<A: Agent>(&self, ttl: Millis) -> Answer<A> {
        let ttl = Duration::from_millis(ttl.unsigned_abs());
        let name = format!("instances/{}", self.namespace);
        let want =
            ClaimRequest { name: name.clone(), of: INSTANCES, holder: self.holder.clone(), ttl: Some(ttl) };
        let answer = self.store.claim(&want).await;
        self.asked(&answer);
        match answer {
            Ok(ClaimAnswer::Granted(claim)) => *self.presence() = Some(claim),
            Ok(ClaimAnswer::Taken { .. }) => {
                let many = format!("there are {INSTANCES} of {} already", self.namespace);
                return Answer::Fault(Fault::new("join the other instances", many).next("stop some"));
            }
            Err(error) => return failed("join the other instances", error),
        }
        let there = match self.store.claims(&name).await {
            Ok(there) => there,
            Err(error) => return failed("ask for the other instances", error),
        };
        let mut roster = Roster::default();
        for claim in there.into_iter().filter(|claim| claim.name == name) {
            roster.lease = roster.lease.max(claim.ttl.map_or(0, millis));
            roster.instances.insert(claim.holder);
        }
        if roster.instances.iter().any(|one| *one != self.holder) {
            let units = format!("unit/{}/", self.namespace);
            match self.store.claims(&units).await {
                Ok(held) => {
                    let unit = |claim: Claim| Some((claim.name.strip_prefix(&units)?.into(), claim.holder));
                    roster.holders = held.into_iter().filter_map(unit).collect();
                }
                Err(error) => return failed("ask who works on what", error),
            }
        }
        Answer::Roster(roster)
    }

    async fn leave<A: Agent>(&self) -> Answer<A> {
        let Some(claim) = self.presence().take() else { return Answer::Done };
        match self.store.release(&claim).await {
            Ok(()) => Answer::Done,
            Err(error) => failed("leave the other instances", error),
        }
    }

    async fn claim<A: Agent>(&self, unit: Unit, ttl: Millis) -> Answer<A> {
        let ttl = Duration::from_millis(ttl.unsigned_abs());
        let name = format!("unit/{}/{unit}", self.namespace);
        let want = ClaimRequest { name, of: 1, holder: self.holder.clone(), ttl: Some(ttl) };
        let asked = self.clock.now();
        let answer = self.store.claim(&want).await;
        self.asked(&answer);
        match answer {
            Ok(ClaimAnswer::Granted(claim)) => {
                let number = claim.number;
                let lasts = claim.ttl.unwrap_or(ttl);
                // Taken for held only once it is known what the last holder may have acted on.
                let head = match self.held(&unit, number) {
                    Some(_) => None,
                    None => match self.store.head().await {
                        Ok(head) => Some((head.epoch, head.revision)),
                        Err(error) => return failed("ask for the newest revision", error),
                    },
                };
                self.claims().insert(unit, claim);
                Answer::Claim(Claimed::Held { number, until: asked + millis(lasts), head })
            }
            Ok(ClaimAnswer::Taken { by, look_again }) => {
                let wait = look_again.unwrap_or(ttl).min(ttl);
                self.say_taken(&unit, &by, wait);
                Answer::Claim(Claimed::Taken { look_again: self.clock.now() + millis(wait).max(100) })
            }
            Err(error) => failed(&format!("claim {unit}"), error),
        }
    }

    /// Says, now and then, that somebody else has a unit: after a crash that is the instance that died, until its lease ends.
    fn say_taken(&self, unit: &Unit, by: &[Claim], wait: Duration) {
        let (now, last) = (self.clock.now(), self.told.load(Ordering::Relaxed));
        if last != 0 && now < last + TOLD {
            return;
        }
        self.told.store(now.max(1), Ordering::Relaxed);
        let holder = by.first().map_or("another instance", |claim| claim.holder.as_str());
        tracing::info!(
            %unit,
            "{holder} works on it; asked again in {} s: were it killed, its claim ends then",
            wait.as_secs()
        );
    }

    async fn release<A: Agent>(&self, unit: &Unit, number: u64) -> Answer<A> {
        let Some(claim) = self.held(unit, number) else { return Answer::Done };
        match self.store.release(&claim).await {
            Ok(()) => {
                self.claims().remove(unit);
                Answer::Done
            }
            Err(error) => failed(&format!("give back the claim on {unit}"), error),
        }
    }

    async fn read_ledger<A: Agent>(&self, unit: &Unit, prefix: &str) -> Answer<A>
    where
        T: Target<A>,
    {
        let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            let after = rows.last().map(|(key, _)| key.clone());
            match self.store.ledger(prefix, after.as_deref(), LEDGER_PAGE).await {
                Ok(page) => {
                    rows.extend(page.rows);
                    if !page.more {
                        return Answer::Ledger { rows, location: self.target.location(unit) };
                    }
                }
                Err(error) => return failed(&format!("read the ledger of {unit}"), error),
            }
        }
    }

    async fn write_ledger<A: Agent>(&self, unit: &Unit, number: u64, rows: Vec<LedgerRow>) -> Answer<A> {
        let rows = rows.into_iter().map(|row| LedgerWrite { key: row.key, value: row.value }).collect();
        let write = async |claim: &Claim| self.store.write_ledger(rows, claim).await;
        self.under_claim(unit, number, "the ledger", write).await
    }

    async fn facts<A: Agent>(&self, unit: &Unit, number: u64, facts: Vec<Change>) -> Answer<A> {
        let commit = async |claim: &Claim| {
            let commit = Commit {
                pre: vec![claim.held()],
                ..Commit::new(format!("agent {}", self.namespace), format!("facts of {unit}"), facts)
            };
            self.store.commit(commit).await.map(drop)
        };
        self.under_claim(unit, number, "the facts", commit).await
    }

    /// Writes something that stands under the claim of this number.
    ///
    /// A write whose answer is lost may still be on its way. Were another one made under the same number, the late one would
    /// overwrite it, so nothing more is written under it: the claim is given back, and whoever takes the unit next, this
    /// instance mostly, has another number and reads what stands there.
    async fn under_claim<A: Agent>(
        &self,
        unit: &Unit,
        number: u64,
        what: &str,
        write: impl AsyncFnOnce(&Claim) -> Result<(), StoreError>,
    ) -> Answer<A> {
        let Some(claim) = self.held(unit, number) else { return Answer::Fenced };
        if self.doubts().get(unit) == Some(&number) {
            return self.give_up(unit, &claim).await;
        }
        // Before it is sent: whoever asked may have no more time for the answer.
        self.doubts().insert(unit.clone(), number);
        let written = write(&claim).await;
        if let Err(error @ StoreError::Unavailable { .. }) = &written {
            tracing::warn!(%unit, "the claim is given back, because an answer to writing {what} was lost: {error}");
            return self.give_up(unit, &claim).await;
        }
        self.doubts().remove(unit);
        match written {
            Ok(()) => Answer::Done,
            Err(StoreError::Fenced { .. } | StoreError::Conflict { .. }) => Answer::Fenced,
            Err(error) => failed(&format!("write {what} of {unit}"), error),
        }
    }

    async fn give_up<A: Agent>(&self, unit: &Unit, claim: &Claim) -> Answer<A> {
        match self.store.release(claim).await {
            Ok(()) => {
                self.doubts().remove(unit);
                self.claims().remove(unit);
                Answer::Fenced
            }
            Err(error) => {
                failed(&format!("give back the claim on {unit}, of which an answer was lost"), error)
            }
        }
    }

    fn doubts(&self) -> std::sync::MutexGuard<'_, BTreeMap<Unit, u64>> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;

/// What an effect does, for people.
pub(crate) fn name_of<A: Agent>(act: &Act<A>) -> String {
    match act {
        Act::NextKey { .. } => "list the units in the ledger".to_owned(),
        Act::Join { .. } => "ask for the other instances".to_owned(),
        Act::Leave => "leave the other instances".to_owned(),
        Act::Claim { unit, .. } => format!("claim {unit}"),
        Act::Release { unit, .. } => format!("give back the claim on {unit}"),
        Act::ReadLedger { unit, .. } => format!("read the ledger of {unit}"),
        Act::WriteLedger { unit, .. } => format!("write the ledger of {unit}"),
        Act::Observe { unit, .. } => format!("look at {unit}"),
        Act::Apply { unit, .. } => format!("change {unit}"),
        Act::Facts { unit, .. } => format!("write the facts of {unit}"),
        Act::Report(_) => "report".to_owned(),
    }
}

fn failed<A: Agent>(what: &str, error: StoreError) -> Answer<A> {
    Answer::Fault(Fault::new(what, error))
}

/// A span of time in milliseconds.
pub(crate) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX / 4)
}
