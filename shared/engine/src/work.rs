//! What a unit does next, as far as it can without waiting.
//!
//! [`Engine::work`] is called whenever something happened to a unit. It looks at the state only, never at what
//! happened, and goes as far as it can: claim, ledger, look, decisions, batch, writing down, giving back.

use shoal_core::{Epoch, Revision};

use crate::Moment;
use crate::agent::{Agent, Unit};
use crate::effect::{Act, Answer, Claimed};
use crate::engine::{Engine, Listing};
use crate::item::{Decision, Open, Planned, Sight, Trouble};
use crate::ledger::{Entry, Stage};
use crate::sorted::Set;
use crate::target::Fault;
use crate::unit::{Claim, Looking, Phase, Stage as FlightStage, State};

/// Why an item is decided on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Something happened that concerns it.
    Woken,
    /// A batch made it. Nothing woke it since, so what is wanted is what was wanted, and is not asked again.
    Made,
    /// A sweep passes.
    Swept,
}

/// Looks at more single items than this become a look at the whole unit.
const MAX_LOOK: usize = 1_000;

impl<A: Agent> Engine<A> {
    /// Does what can be done now. Answers whether there is more to do right away.
    pub(crate) fn work(&mut self, name: &Unit, now: Moment) -> bool {
        let Some(mut unit) = self.units.remove(name) else { return false };
        let more = self.advance(&mut unit, now);
        if self.is_ending(&unit) {
            self.rest(&mut unit);
        }
        if unit.leaving && unit.number().is_none() {
            self.handed_over(&mut unit);
        }
        if unit.is_empty() && self.leave(&mut unit) {
            self.sleep(name, None);
            return false;
        }
        let idle =
            self.draining && unit.number().is_none() || !self.options.write && unit.phase == Phase::Ready;
        let at = unit.next_wake(now).filter(|_| !idle);
        if self.options.is_narrowed() && unit.is_blank() {
            self.sleep(name, None);
            return false;
        }
        let waits = self.selected_now(&unit) || self.is_unread(&unit);
        self.sleep(name, if waits { at } else { None });
        self.units.insert(name.clone(), unit);
        more
    }

    fn selected_now(&self, unit: &State<A>) -> bool {
        // What was begun is brought to an end, the last line in the ledger included.
        unit.has_begun() || self.selected(unit)
    }

    /// Whether only the ledger can say if this is one of the units that were asked for.
    pub(crate) fn is_unread(&self, unit: &State<A>) -> bool {
        unit.phase == Phase::Cold && unit.listed && self.agent.reaches(&unit.name) && !self.selected(unit)
    }

    /// Reads the ledger of a unit that may be none of those that were asked for. Without a claim: whoever works on it is not
    /// asked, and of ten thousand instances with a host each none takes the units of all others.
    fn peek(&mut self, unit: &mut State<A>, now: Moment) {
        if unit.number().is_some() && self.options.write {
            self.release(unit);
            self.forget(unit, Moment::MIN);
        }
        let waits = unit.backoff.failures > 0 && unit.backoff.at > now;
        if unit.peeking.is_none() && !waits && !self.draining {
            let (name, prefix) = (unit.name.clone(), unit.pages.prefix().to_owned());
            unit.peeking = Some(self.out.send(Some(&unit.name), Act::ReadLedger { unit: name, prefix }));
        }
    }

    /// Lets go of a unit that nobody asked for (any more). What the ledger says of it may be old when it is asked for.
    fn let_go(&mut self, unit: &mut State<A>) {
        if unit.number().is_some() && self.options.write {
            self.release(unit);
            self.forget(unit, Moment::MIN);
            unit.listed = false;
        }
    }

    fn advance(&mut self, unit: &mut State<A>, now: Moment) -> bool {
        unit.now = now;
        if !self.selected_now(unit) {
            match self.is_unread(unit) {
                true => self.peek(unit, now),
                false => self.let_go(unit),
            }
            return false;
        }
        self.hurry(unit, now);
        self.keep_claim(unit, now);
        let late = unit.least > self.seen;
        if late
            || !unit.ending.is_empty()
            || unit.number().is_none()
            || unit.backoff.at > now && unit.backoff.failures > 0
        {
            return false;
        }
        match unit.phase {
            Phase::Cold if unit.reading.is_none() && !self.is_ending(unit) => {
                let (name, prefix) = (unit.name.clone(), unit.pages.prefix().to_owned());
                unit.reading = Some(self.out.send(Some(&unit.name), Act::ReadLedger { unit: name, prefix }));
            }
            Phase::Known if unit.looking.is_none() && !self.is_ending(unit) => {
                unit.look_all = true;
                self.look(unit, now);
            }
            Phase::Ready => return self.ready(unit, now),
            _ => {}
        }
        false
    }

    /// A unit that fails is tried again soon when somebody changed something of it, and no more often than after a first
    /// failure: the change may be what mends it, and does not wait for what failed before.
    fn hurry(&self, unit: &mut State<A>, now: Moment) {
        if !std::mem::take(&mut unit.hurry) || unit.backoff.failures == 0 {
            return;
        }
        unit.backoff.at = unit.backoff.at.min(now.saturating_add(self.options.retry_first));
        if let Claim::None { ask_at } = &mut unit.claim
            && unit.backoff.what == "claim"
        {
            *ask_at = unit.backoff.at;
        }
    }

    fn ready(&mut self, unit: &mut State<A>, now: Moment) -> bool {
        self.timers(unit, now);
        let more = !self.is_ending(unit) && self.decide_some(unit, now);
        if unit.flight.is_none() {
            let started = !self.is_ending(unit) && self.launch(unit, now);
            if !started && (unit.pages.is_dirty() || unit.facts.is_dirty()) {
                self.write_down(unit, now);
            }
        }
        if !self.is_ending(unit) {
            self.look(unit, now);
        }
        self.tell_facts(unit, now);
        more
    }

    /// Takes, renews or loses the claim.
    fn keep_claim(&mut self, unit: &mut State<A>, now: Moment) {
        if let Claim::Held { until, .. } = unit.claim
            && until <= now
        {
            self.forget(unit, now);
            self.reporter.changed();
        }
        let due = match unit.claim {
            Claim::None { ask_at } => unit.asks && ask_at <= now && !self.draining,
            Claim::Held { renew_at, .. } => renew_at <= now,
        };
        if due && unit.claiming.is_none() {
            let act = Act::Claim { unit: unit.name.clone(), ttl: self.options.ttl };
            unit.claiming = Some(self.out.send(Some(&unit.name), act));
        }
    }

    pub(crate) fn claimed(&mut self, unit: &mut State<A>, answer: Answer<A>, now: Moment) {
        unit.claiming = None;
        let held = unit.number();
        match answer {
            Answer::Claim(Claimed::Held { number, until, head }) => {
                if held.is_some_and(|old| old != number) {
                    // It passed through other hands: what is known is old.
                    self.forget(unit, now);
                }
                unit.elsewhere = false;
                if unit.backoff.what == "claim" || unit.backoff.failures == 0 {
                    unit.backoff = crate::retry::Retry::default();
                }
                if let Some(least) = head.filter(|_| held != Some(number)).map(|head| self.least(head))
                    && self.seen < least
                {
                    unit.least = least;
                    self.lagging.insert((least, unit.name.clone()));
                }
                let renew_at = now.max(until - self.options.ttl) + self.options.ttl / 3;
                unit.asks = true;
                unit.claim = Claim::Held { number, until, renew_at };
            }
            Answer::Claim(Claimed::Taken { look_again }) => {
                self.forget(unit, look_again.max(now + 1));
                unit.elsewhere = true;
                unit.backoff.why = "another instance works on it".to_owned();
            }
            other => {
                let again = now + self.options.retry_first;
                match unit.claim {
                    Claim::Held { ref mut renew_at, .. } => *renew_at = again,
                    Claim::None { .. } => {
                        unit.elsewhere = false;
                        let fault = Fault::new(format!("claim {}", unit.name), reason(&other));
                        self.unit_failed(unit, "claim", &fault, now);
                        unit.claim = Claim::None { ask_at: unit.backoff.at };
                    }
                }
            }
        }
        self.reporter.changed();
    }

    /// What must have been seen of the database that granted a claim. Of another than the one that is followed no revision is
    /// enough: once it is read, every unit begins anew.
    fn least(&self, (epoch, head): (Epoch, Revision)) -> Revision {
        if epoch == self.fleet.epoch() { head } else { Revision(u64::MAX) }
    }

    /// Wakes items whose time has come: they are looked at, then decided on.
    fn timers(&mut self, unit: &mut State<A>, now: Moment) {
        while let Some((at, key)) = unit.timers.first().cloned() {
            if at > now {
                break;
            }
            unit.set_timer(&key, None);
            unit.look.insert(key);
        }
        if unit.next_sweep <= now && !self.is_ending(unit) && self.options.write {
            unit.next_sweep = now.saturating_add(self.options.resync);
            unit.look_all = true;
            for tried in unit.retries.values_mut().filter(|tried| tried.retry.at == Moment::MAX) {
                tried.retry.at = now;
            }
        }
    }

    /// Starts a look, if one is needed and can be believed.
    fn look(&mut self, unit: &mut State<A>, now: Moment) {
        let busy = unit.looking.is_some() || unit.flight.as_ref().is_some_and(|f| f.batch.is_some());
        if busy || unit.backoff.failures > 0 && unit.backoff.at > now {
            return;
        }
        let keys = if unit.look_all || unit.look.len() > MAX_LOOK {
            self.count.add(|c| c.looks += 1);
            None
        } else if unit.look.is_empty() {
            return;
        } else {
            self.count.add(|c| c.looked += unit.look.len() as u64);
            Some(unit.look.iter().cloned().collect::<Vec<_>>())
        };
        unit.look_all = false;
        unit.look.clear();
        let act = Act::Observe { unit: unit.name.clone(), keys: keys.clone() };
        let id = self.out.send(Some(&unit.name), act);
        unit.looking = Some(Looking { id, keys, asked: now, tainted: Set::new() });
    }

    /// Decides on all that is dirty, then on a slice of the sweep. Answers whether some of the sweep is left.
    fn decide_some(&mut self, unit: &mut State<A>, now: Moment) -> bool {
        for key in std::mem::take(&mut unit.dirty) {
            self.decide(unit, &key, now, How::Woken);
        }
        for key in std::mem::take(&mut unit.made) {
            self.decide(unit, &key, now, How::Made);
        }
        let rest = unit.sweep.len().saturating_sub(self.options.sweep_slice);
        for key in unit.sweep.split_off(rest).into_iter().rev() {
            self.decide(unit, &key, now, How::Swept);
        }
        if unit.sweep.is_empty() {
            unit.lost = false;
            let later = std::mem::take(&mut unit.later);
            unit.ready.extend(later);
            if std::mem::take(&mut unit.fresh) {
                self.reporter.changed();
            }
        }
        !unit.sweep.is_empty()
    }

    fn decide(&mut self, unit: &mut State<A>, key: &A::Key, now: Moment, how: How) {
        // What is being changed right now is decided on when that is over.
        if let Some(batch) = unit.flight.as_ref().and_then(|f| f.batch.as_ref())
            && batch.changes.binary_search_by(|edit| edit.key.cmp(key)).is_ok()
        {
            unit.postponed.insert(key.clone());
            return;
        }
        let Some(item) = unit.items.get_mut(key) else { return };
        let ctx = crate::decide::Context {
            agent: &*self.agent,
            fleet: &self.fleet,
            sources: &self.sources,
            options: &self.options,
            count: &self.count,
            other_life: Some(&unit.other_life),
        };
        // What was ready stays so: taken apart, a batch that the guard holds would pass it piece by piece.
        let swept = !unit.ready.remove(key) && how == How::Swept;
        unit.made.remove(key);
        unit.later.remove(key);
        if let Some(why) = ctx.frozen(item) {
            let since = unit.open.get(key).map_or(self.seen, |open| open.since);
            unit.open.insert(key.clone(), Open { since, trouble: Trouble::Blocked(why), planned: None });
            return self.reporter.changed();
        }
        let crate::Nature { sole, conditional, .. } = self.options.nature;
        if matches!(item.sight, Sight::New) && item.entry.is_none() && (sole || conditional) {
            item.sight = Sight::Nothing;
        }
        if matches!(item.sight, Sight::Unlooked | Sight::New) {
            unit.look.insert(key.clone());
            return;
        }
        // A mark is made of what stood: what the sources want besides is worked out once it is there.
        if how == How::Made && !ctx.is_host_paused(item) {
            let wanted = crate::decide::Context::known(item);
            let decision = ctx.decide(key, item, &wanted, now);
            return self.decided(unit, key, decision, wanted.revision, now, swept);
        }
        let wanted = match ctx.wanted(key, item) {
            Ok(wanted) => wanted,
            Err(unclear) => {
                // What mends it may be a change of one that it read and is not made from.
                self.readers.reads(&unit.name, key, &item.reads, &unclear.reads);
                let why = unclear.to_string();
                item.reads = unclear.reads;
                let since = unit.open.get(key).map_or(self.seen, |open| open.since);
                unit.open.insert(key.clone(), Open { since, trouble: Trouble::Blocked(why), planned: None });
                return self.reporter.changed();
            }
        };
        let wanted = ctx.marked(item, wanted);
        item.want = wanted.item.clone();
        item.revision = wanted.revision;
        self.readers.reads(&unit.name, key, &item.reads, &wanted.reads);
        item.reads.clone_from(&wanted.reads);
        let decision = ctx.decide(key, item, &wanted, now);
        let before = if wanted.left_out.is_empty() {
            unit.left_out.remove(key)
        } else {
            unit.left_out.insert(key.clone(), wanted.left_out)
        };
        self.decided(unit, key, decision, wanted.revision, now, swept);
        self.left_out_changes += u64::from(unit.left_out.get(key) != before.as_ref());
    }

    fn decided(
        &mut self,
        unit: &mut State<A>,
        key: &A::Key,
        decision: Decision<A>,
        revision: Revision,
        now: Moment,
        swept: bool,
    ) {
        let since = unit.open.get(key).map_or(revision, |open| open.since);
        if let Decision::Act(planned) | Decision::Stay { planned: Some(planned), .. } = &decision {
            unit.plans(key, planned);
        }
        match decision {
            Decision::Rest { look_again } => {
                self.reached(unit, key, revision);
                unit.close(key);
                unit.set_timer(key, look_again);
                if let Some(item) = unit.prune(key, self.options.nature.whole) {
                    self.readers.reads(&unit.name, key, &item.reads, &[]);
                }
            }
            Decision::Look => {
                unit.look.insert(key.clone());
            }
            Decision::Act(planned) => self.plan_act(unit, key, planned, since, now, swept),
            Decision::Stay { trouble, planned, memo, until } => {
                if let (Some(memo), Some(entry)) =
                    (memo, unit.items.get_mut(key).and_then(|i| i.entry.as_mut()))
                    && entry.memo != memo
                {
                    entry.memo = memo;
                    unit.pages.touch(key);
                }
                let unseen = matches!(trouble, Trouble::Unseen(_));
                unit.open.insert(key.clone(), Open { since, trouble, planned });
                let again = if unseen { self.retry_look(unit, key, now) } else { until };
                unit.set_timer(key, again);
            }
        }
        self.reporter.changed();
    }

    /// When to look again at what could not be seen.
    fn retry_look(&mut self, unit: &mut State<A>, key: &A::Key, now: Moment) -> Option<Moment> {
        let retry = &mut unit.retries.get_or_insert_with(key, Default::default).retry;
        if retry.at <= now {
            retry.failed(&self.options, &key.to_string(), false, now);
        }
        Some(retry.at)
    }

    fn plan_act(
        &mut self,
        unit: &mut State<A>,
        key: &A::Key,
        planned: Box<Planned<A>>,
        since: Revision,
        now: Moment,
        swept: bool,
    ) {
        let mut trouble = Trouble::Changing;
        let mut go = true;
        if let Some(tried) = unit.retries.get_mut(key) {
            let same = tried.is(Some(&planned));
            let retry = &mut tried.retry;
            if !same {
                unit.retries.remove(key);
            } else if retry.at > now {
                (go, trouble) = (false, Trouble::Failed(retry.why.clone()));
            } else if let Err(at) = self.bucket.take(now) {
                retry.at = at;
                (go, trouble) = (false, Trouble::Failed(retry.why.clone()));
            }
        }
        let at = unit.retries.get(key).map(|tried| tried.retry.at).filter(|_| !go);
        unit.set_timer(key, at);
        unit.open.insert(key.clone(), Open { since, trouble, planned: Some(planned) });
        if go && swept {
            unit.later.insert(key.clone());
        } else if go {
            unit.ready.insert(key.clone());
        }
    }

    /// It is as it should be: the ledger is to say so, from which sources, and nothing more.
    fn reached(&mut self, unit: &mut State<A>, key: &A::Key, revision: Revision) {
        if unit.other_life.moved.is_some() {
            // Here, and not where the ledger speaks of.
            return;
        }
        let logic = self.agent.logic();
        let part = unit.items.get(key).and_then(|item| self.context().part(key, item));
        let replaced = unit.items.get(key).is_some_and(|item| self.context().replaced(item, &item.sight));
        let Some(item) = unit.items.get_mut(key) else { return };
        match (&item.want, part.as_ref().unwrap_or(&item.sight), &mut item.entry) {
            (None, sight, entry @ Some(_)) if replaced || matches!(sight, Sight::Nothing) => {
                *entry = None;
                unit.entries -= 1;
                unit.pages.touch(key);
            }
            (Some(want), Sight::Ours(_) | Sight::There(_), Some(entry)) => {
                let same = entry.stage == Stage::Made
                    && entry.from == item.sources
                    && entry.last.as_ref() == Some(want)
                    && entry.by == logic
                    && !entry.changing
                    && entry.tried.is_empty()
                    && entry.agreed.is_none();
                if !same {
                    entry.stage = Stage::Made;
                    entry.from.clone_from(&item.sources);
                    entry.last = Some(want.clone());
                    entry.revision = revision;
                    entry.by = logic;
                    entry.changing = false;
                    entry.tried.clear();
                    entry.agreed = None;
                    unit.pages.touch(key);
                }
            }
            // Marked as ours, or equal to what is wanted and adopted.
            (Some(want), Sight::Ours(_) | Sight::There(_), None) => {
                let from = item.sources.clone();
                let last = Some(want.clone());
                item.entry = Some(Entry {
                    from,
                    revision,
                    stage: Stage::Made,
                    last,
                    token: String::new(),
                    memo: serde_json::Value::Null,
                    by: logic,
                    changing: false,
                    tried: Vec::new(),
                    agreed: None,
                });
                unit.entries += 1;
                unit.pages.touch(key);
            }
            _ => {}
        }
    }

    /// Facts that wait, and that the ledger holds by now, are committed.
    fn tell_facts(&mut self, unit: &mut State<A>, now: Moment) {
        let writing = unit.flight.as_ref().is_some_and(|flight| flight.at == FlightStage::Journal);
        if unit.committing.is_some() || writing || !self.options.write {
            return;
        }
        let facts = unit.facts.written();
        if facts.is_empty() {
            return;
        }
        let Some((number, _)) = unit.may_act(now, self.options.margin) else { return };
        let act = Act::Facts { unit: unit.name.clone(), number, facts: facts.clone() };
        unit.committing = Some((self.out.send(Some(&unit.name), act), facts));
    }

    /// Whether nothing of it is begun any more: what is under way is brought to its end, then it is given back.
    pub(crate) fn is_ending(&self, unit: &State<A>) -> bool {
        self.draining || unit.leaving
    }

    /// While draining, or for another instance: gives the claim back once nothing is in flight.
    fn rest(&mut self, unit: &mut State<A>) {
        let busy = unit.flight.is_some()
            || unit.committing.is_some()
            || unit.claiming.is_some()
            || unit.phase == Phase::Ready
                && unit.number().is_some()
                && unit.backoff.failures == 0
                && (unit.pages.is_dirty() || !unit.facts.is_settled());
        if !busy {
            self.release(unit);
        }
    }

    fn release(&mut self, unit: &mut State<A>) {
        if let (Some(number), true) = (unit.number(), self.options.write) {
            self.out.send(None, Act::Release { unit: unit.name.clone(), number });
            unit.claim = Claim::None { ask_at: Moment::MAX };
        }
    }

    /// Nothing is left of the unit: it is given back and forgotten. Answers whether it may be.
    fn leave(&mut self, unit: &mut State<A>) -> bool {
        if self.listing != Listing::Done || unit.claiming.is_some() {
            return false;
        }
        self.release(unit);
        self.reporter.changed();
        true
    }
}

/// What an answer that is no answer says.
pub(crate) fn reason<A: Agent>(answer: &Answer<A>) -> String {
    match answer {
        Answer::Fault(fault) => fault.to_string(),
        Answer::Fenced => "the claim is no longer held".to_owned(),
        _ => Fault::new("take an answer", "it does not fit what was asked").to_string(),
    }
}
