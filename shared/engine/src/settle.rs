//! What an answer means for a unit: the ledger read, a look, a journal write, a batch.

use std::sync::Arc;

use serde_json::Value;

use crate::agent::Agent;
use crate::effect::Answer;
use crate::engine::Engine;
use crate::item::{Item, Open, REMAKE, Sight, Trouble};
use crate::ledger::{self, Stage};
use crate::retry::Tried;
use crate::sorted::Map;
use crate::target::{Applied, Batch, Edit, Fault, Observed, Outcome, Why};
use crate::unit::{Looking, Phase, Stage as FlightStage, State};
use crate::{Moment, work};

impl<A: Agent> Engine<A> {
    /// Takes an answer in. One that the unit does not wait for any more is ignored.
    pub(crate) fn settle(&mut self, unit: &mut State<A>, id: u64, answer: Answer<A>, now: Moment) {
        if unit.ending.remove(&id) {
            // What became of it, the ledger and a look will tell.
        } else if unit.claiming == Some(id) {
            self.claimed(unit, answer, now);
        } else if unit.reading == Some(id) {
            unit.reading = None;
            self.read(unit, answer, now);
        } else if unit.peeking == Some(id) {
            unit.peeking = None;
            self.peeked(unit, answer, now);
        } else if let Some(looking) = unit.looking.take_if(|looking| looking.id == id) {
            self.looked(unit, looking, answer, now);
        } else if let Some(flight) = unit.flight.take_if(|flight| flight.id == id) {
            match flight.at {
                FlightStage::Journal => self.journalled(unit, flight.batch, &flight.rows, answer, now),
                FlightStage::Apply => {
                    if let Some(batch) = flight.batch {
                        self.applied(unit, &batch, answer, now);
                    }
                }
            }
            let postponed = std::mem::take(&mut unit.postponed);
            unit.dirty.extend(postponed);
        } else if let Some((_, facts)) = unit.committing.take_if(|(asked, _)| *asked == id) {
            match answer {
                Answer::Done => {
                    unit.facts.committed(&facts);
                    self.mended(unit, "facts");
                }
                Answer::Fenced => self.forget(unit, now),
                other => self.unit_failed(unit, "facts", &fault(other), now),
            }
        }
        self.reporter.changed();
    }

    /// Something that concerns the whole unit failed: nothing of it is tried for a while.
    pub(crate) fn unit_failed(&mut self, unit: &mut State<A>, what: &str, fault: &Fault, now: Moment) {
        what.clone_into(&mut unit.backoff.what);
        unit.backoff.why = fault.to_string();
        unit.backoff.failed(&self.options, &unit.name.0, false, now);
        unit.backoff.at = unit.backoff.at.min(now.saturating_add(self.options.retry_most / 5));
        self.count.add(|c| c.failures += 1);
    }

    /// The claim is lost: only what the sources say is kept.
    pub(crate) fn forget(&mut self, unit: &mut State<A>, ask_at: Moment) {
        self.left_out_changes += u64::from(!unit.left_out.is_empty());
        for (key, item) in unit.items.iter() {
            self.readers.reads(&unit.name, key, &item.reads, &[]);
        }
        unit.forget(ask_at);
        unit.asks = self.asks_for_lost();
    }

    /// `what` works again.
    fn mended(&mut self, unit: &mut State<A>, what: &str) {
        if unit.backoff.what == what {
            unit.backoff = crate::retry::Retry::default();
        }
    }

    fn read(&mut self, unit: &mut State<A>, answer: Answer<A>, now: Moment) {
        let Some(loaded) = self.loaded(unit, answer, now) else { return };
        unit.pages = loaded.pages;
        // A plan commits none, so it would wait for them for ever.
        if self.options.write {
            unit.facts = loaded.facts;
        }
        unit.other_life = loaded.other_life;
        for (key, entry) in loaded.entries {
            // An entry of a key that another version of the agent put elsewhere is left alone.
            if self.agent.unit(&key) == unit.name {
                unit.items.get_or_insert_with(&key, Item::default).entry = Some(entry);
                unit.entries += 1;
            }
        }
        (unit.listed, unit.asked_for) = (false, false);
        unit.phase = if unit.items.is_empty() { Phase::Ready } else { Phase::Known };
    }

    /// The ledger of a unit was read without a claim: it shows whether the unit is one of those that were asked for. Where it is,
    /// it is read again under the claim; what stands here may be old by then.
    fn peeked(&mut self, unit: &mut State<A>, answer: Answer<A>, now: Moment) {
        if !self.is_unread(unit) {
            return;
        }
        let Some(loaded) = self.loaded(unit, answer, now) else { return };
        let entries = loaded.entries.iter().filter(|(key, _)| self.agent.unit(key) == unit.name);
        let from: Vec<_> = entries.flat_map(|(_, entry)| entry.from.iter()).collect();
        unit.asked_for = self.asks_for(unit, &|fits| from.iter().any(|id| fits(id)));
        unit.listed = unit.asked_for;
    }

    fn loaded(
        &mut self,
        unit: &mut State<A>,
        answer: Answer<A>,
        now: Moment,
    ) -> Option<ledger::Loaded<A::Key, A::Item>> {
        let prefix = unit.pages.prefix().to_owned();
        let loaded = match answer {
            Answer::Ledger { rows, location } => {
                ledger::load::<A::Key, A::Item>(&prefix, &rows, self.fleet.epoch(), &location)
            }
            other => Err(fault(other)),
        };
        match loaded {
            Ok(loaded) => {
                self.mended(unit, "ledger");
                Some(loaded)
            }
            Err(fault) => {
                self.unit_failed(unit, "ledger", &fault, now);
                None
            }
        }
    }

    fn looked(&mut self, unit: &mut State<A>, looking: Looking<A::Key>, answer: Answer<A>, now: Moment) {
        let observed = match answer {
            Answer::Observed(observed) => observed,
            other => {
                match looking.keys {
                    Some(keys) => unit.look.extend(keys),
                    None => unit.look_all = true,
                }
                return self.unit_failed(unit, "look", &fault(other), now);
            }
        };
        self.mended(unit, "look");
        let Observed { mut seen, complete } = observed;
        for key in looking.tainted.iter() {
            seen.remove(key);
        }
        let trusts = self.options.nature.marks_own || self.options.nature.whole;
        let mut all = false;
        let asked = looking.asked;
        let absent = |item: Option<&Item<A>>| match item.and_then(Item::shows) {
            Some(shows) if asked < shows => Sight::NotYet(shows),
            _ => Sight::Nothing,
        };
        let missing = |item: Option<&Item<A>>| {
            if complete { absent(item) } else { Sight::Unknown("the look did not reach it".to_owned()) }
        };
        let sight = |item: Option<&Item<A>>, seen| match Sight::of(seen, trusts) {
            Sight::Nothing => absent(item),
            other => other,
        };
        if let Some(keys) = looking.keys {
            for key in keys.into_iter().filter(|key| !looking.tainted.contains(key)) {
                let item = unit.items.get(&key);
                let sight = seen.remove(&key).map_or_else(|| missing(item), |seen| sight(item, seen));
                unit.saw(&key, sight);
                unit.dirty.insert(key);
            }
            seen.retain(|key, _| unit.items.contains_key(key));
        } else {
            for (key, item) in unit.items.iter_mut() {
                if !seen.contains_key(key) && !looking.tainted.contains(key) {
                    item.sight = missing(Some(&*item));
                }
            }
            if unit.phase != Phase::Ready {
                unit.phase = Phase::Ready;
                unit.next_sweep = now.saturating_add(self.options.resync);
            }
            all = true;
        }
        let whole = all && complete;
        for (key, seen) in seen {
            let sight = sight(unit.items.get(&key), seen);
            self.noticed(unit, key, sight);
        }
        if whole {
            self.find_lost(unit);
        }
        if all {
            unit.wake_all();
        }
    }

    /// Where nothing of a unit is as Shoal made it, nobody took single items out: the target lost all of it.
    fn find_lost(&self, unit: &mut State<A>) {
        let as_made = |item: &Item<A>| {
            let last = item.entry.as_ref().and_then(|entry| entry.last.as_ref());
            last.zip(item.sight.have()).is_some_and(|(last, have)| **have == **last)
        };
        if !self.options.nature.whole || unit.items.values().any(as_made) {
            return;
        }
        let ctx = self.context();
        for item in unit.items.values_mut() {
            item.lost |= ctx.missing(item).is_some();
            unit.lost |= item.lost;
        }
    }

    /// Something stands there that was not asked for by name.
    fn noticed(&mut self, unit: &mut State<A>, key: A::Key, sight: Sight<A::Have>) {
        let wanted = unit.items.contains_key(&key);
        let keep = match &sight {
            Sight::Ours(_) => true,
            // What a unit that is written as a whole holds has to be written again.
            Sight::There(_) | Sight::Unknown(_) => self.options.nature.whole,
            Sight::Nothing | Sight::NotYet(_) | Sight::Unlooked | Sight::New => false,
        };
        if wanted || keep && self.agent.unit(&key) == unit.name {
            unit.saw(&key, sight);
        }
    }

    fn journalled(
        &mut self,
        unit: &mut State<A>,
        batch: Option<Arc<Batch<A>>>,
        rows: &[String],
        answer: Answer<A>,
        now: Moment,
    ) {
        let back = |unit: &mut State<A>, batch: Option<Arc<Batch<A>>>| {
            unit.dirty.extend(batch.iter().flat_map(|b| b.changes.iter().map(|edit| edit.key.clone())));
        };
        match answer {
            Answer::Done => {
                self.mended(unit, "ledger");
                let Some(batch) = batch else { return };
                match unit.may_act(now, self.options.margin) {
                    Some((number, not_after)) if !self.is_ending(unit) => {
                        self.send_batch(unit, batch, number, not_after);
                    }
                    _ => back(unit, Some(batch)),
                }
            }
            Answer::Fenced => self.forget(unit, now),
            other => {
                unit.pages.again(rows);
                unit.facts.again(rows);
                back(unit, batch);
                self.unit_failed(unit, "ledger", &fault(other), now);
            }
        }
    }

    fn applied(&mut self, unit: &mut State<A>, batch: &Batch<A>, answer: Answer<A>, now: Moment) {
        let taken = |edit: &Edit<A>| {
            edit.from.as_ref().is_some_and(|have| self.agent.takes_unit(&edit.key, have, edit.to.as_ref()))
        };
        if batch.changes.iter().any(taken) {
            // Done or not, what else there was is not known any more to be what it was.
            unit.look_all = true;
        }
        let Applied { each, facts } = match answer {
            Answer::Applied(applied) => applied,
            other => return self.batch_failed(unit, batch, &fault(other), now),
        };
        self.mended(unit, "apply");
        let mut each: Map<A::Key, Outcome> = each.into_iter().collect();
        for edit in &batch.changes {
            if edit.verb == REMAKE {
                let outcome = each.remove(&edit.key);
                self.remade(unit, edit, outcome, now);
                continue;
            }
            let first = unit.items.get_mut(&edit.key).is_some_and(|item| std::mem::take(&mut item.first));
            match each.remove(&edit.key) {
                Some(Outcome::Done) => self.made(unit, edit, now),
                Some(Outcome::Running { memo, look_again }) => began(unit, edit, memo, look_again),
                Some(Outcome::Stale) => {
                    if first && self.options.nature.conditional {
                        Self::never_tried(unit, &edit.key);
                    }
                    let fault = Fault::new(
                        format!("{} {}", edit.verb, edit.key),
                        "what is there had changed meanwhile",
                    );
                    self.failed(unit, edit, &fault, now);
                    // The first time it is simply decided anew.
                    if let Some(Tried { retry, .. }) = unit.retries.get_mut(&edit.key)
                        && retry.failures == 1
                    {
                        retry.at = now;
                    }
                }
                Some(Outcome::Refused(fault)) => {
                    if first {
                        Self::never_tried(unit, &edit.key);
                    }
                    self.failed(unit, edit, &fault, now);
                }
                Some(Outcome::Failed(fault)) => self.failed(unit, edit, &fault, now),
                None => {
                    let why = "the target did not say what became of it";
                    let fault = Fault::new(format!("{} {}", edit.verb, edit.key), why);
                    self.failed(unit, edit, &fault, now);
                }
            }
        }
        for (key, _) in each {
            Self::moved(unit, key, now);
        }
        let own = format!("facts/{}/", self.namespace);
        for fact in facts.into_iter().filter(|fact| fact.key.as_str().starts_with(&own)) {
            unit.facts.add(fact);
        }
    }

    /// The only attempt at it was refused: what stands there is not what it made, whatever that looks like.
    fn never_tried(unit: &mut State<A>, key: &A::Key) {
        let Some(item) = unit.items.get_mut(key) else { return };
        match &mut item.entry {
            None => return,
            Some(entry) if entry.last.is_some() && !matches!(entry.stage, Stage::Creating { .. }) => {
                entry.tried.clear();
            }
            Some(_) => {
                item.entry = None;
                unit.entries -= 1;
            }
        }
        unit.pages.touch(key);
    }

    /// A batch failed as a whole, and what of it was done is not known.
    fn batch_failed(&mut self, unit: &mut State<A>, batch: &Batch<A>, fault: &Fault, now: Moment) {
        for edit in &batch.changes {
            if let Some(item) = unit.items.get_mut(&edit.key) {
                item.first = false;
            }
        }
        if let ([edit], false) = (&batch.changes[..], self.options.nature.whole) {
            // Alone in its batch, it is the one at fault; the others go on.
            self.mended(unit, "apply");
            match edit.verb {
                REMAKE => self.remade(unit, edit, Some(Outcome::Failed(fault.clone())), now),
                _ => self.failed(unit, edit, fault, now),
            }
            return;
        }
        for edit in &batch.changes {
            unit.saw(&edit.key, Sight::Unlooked);
            unit.look.insert(edit.key.clone());
            if let Some(open) = unit.open.get_mut(&edit.key) {
                open.trouble = Trouble::Failed(fault.to_string());
            }
        }
        self.unit_failed(unit, "apply", fault, now);
    }

    /// A batch touched an item that it does not name: what was seen of it is old, and so is what was decided.
    fn moved(unit: &mut State<A>, key: A::Key, now: Moment) {
        let Some(item) = unit.items.get_mut(&key) else { return };
        item.sight = Sight::Unlooked;
        let (since, trouble) = (item.revision, Trouble::Dirty);
        // Until it has been looked at nobody may take it for done.
        unit.open.get_or_insert_with(&key, || Open { since, trouble, planned: None });
        unit.ready.remove(&key);
        unit.later.remove(&key);
        if let Some(tried) = unit.retries.get_mut(&key) {
            tried.retry.at = now;
        }
        if let Some(looking) = &mut unit.looking {
            looking.tainted.insert(key.clone());
        }
        unit.look.insert(key);
    }

    /// What a target had lost was put back as it was, and is held as before; or not, and is tried again later. It is not
    /// tried again at once in any case, or a target that goes on losing it would be told for ever at full speed.
    fn remade(&mut self, unit: &mut State<A>, edit: &Edit<A>, outcome: Option<Outcome>, now: Moment) {
        let fault = match outcome {
            Some(Outcome::Done | Outcome::Running { .. }) => None,
            Some(Outcome::Failed(fault) | Outcome::Refused(fault)) => Some(fault),
            Some(Outcome::Stale) | None => {
                let why = "the target did not put it back";
                Some(Fault::new(format!("{} {}", edit.verb, edit.key), why))
            }
        };
        let retry = unit.remakes.entry(edit.key.clone()).or_default();
        retry.why = fault.as_ref().map(ToString::to_string).unwrap_or_default();
        retry.failed(&self.options, &edit.key.to_string(), fault.is_some_and(|f| f.permanent), now);
        if retry.why.is_empty() {
            self.count_made(&edit.because);
        } else {
            self.count.add(|c| c.failures += 1);
        }
        let made = edit.to.as_ref().filter(|_| retry.why.is_empty()).and_then(|to| self.agent.made(to));
        if let Some(item) = unit.items.get_mut(&edit.key) {
            item.sight = made.map_or(Sight::Unlooked, |have| self.sight(have));
        }
        self.look_or_decide(unit, &edit.key);
        unit.made.remove(&edit.key);
        unit.dirty.insert(edit.key.clone());
    }

    /// What a look would show of what was made.
    fn sight(&self, have: A::Have) -> Sight<A::Have> {
        if self.options.nature.marks_own || self.options.nature.whole {
            Sight::Ours(Arc::new(have))
        } else {
            Sight::There(Arc::new(have))
        }
    }

    fn count_made(&self, because: &Why) {
        self.count.add(|c| match because {
            Why::Drift => c.drift += 1,
            Why::Restart | Why::Restored { .. } | Why::Moved { .. } => c.anew += 1,
            _ => c.intended += 1,
        });
    }

    fn made(&mut self, unit: &mut State<A>, edit: &Edit<A>, now: Moment) {
        let planned = unit.open.get(&edit.key).and_then(|open| open.planned.as_ref());
        let to = planned.and_then(|planned| planned.to.clone());
        // Of the decision, not of now: a source that left while this was under way must still be found as the reason to undo it.
        let sources = planned.map(|planned| planned.sources.clone()).unwrap_or_default();
        let revision = planned.map(|planned| planned.revision);
        let logic = self.agent.logic();
        self.count_made(&edit.because);
        self.done_again(unit, edit, now);
        unit.agreed.remove(&edit.key);
        if let Some(Item { sight, entry, lost, .. }) = unit.items.get_mut(&edit.key) {
            *lost = false;
            match to {
                Some(to) => {
                    *sight = self.agent.made(&to).map_or(Sight::Unlooked, |have| self.sight(have));
                    if let Some(entry) = entry {
                        entry.stage = Stage::Made;
                        entry.last = Some(to);
                        entry.from = sources;
                        entry.revision = revision.unwrap_or(entry.revision).max(entry.revision);
                        entry.by = logic;
                        entry.changing = false;
                        entry.tried.clear();
                        entry.agreed = None;
                        unit.pages.touch(&edit.key);
                    }
                }
                None => *sight = Sight::Nothing,
            }
        }
        self.look_or_decide(unit, &edit.key);
    }

    /// The same change once more, although it was made: that is a failure, too, or it would go on at full speed for ever.
    fn done_again(&self, unit: &mut State<A>, edit: &Edit<A>, now: Moment) {
        let planned = unit.open.get(&edit.key).and_then(|open| open.planned.as_deref());
        match unit.retries.get_mut(&edit.key).filter(|tried| tried.is(planned)) {
            Some(Tried { retry, .. }) => {
                retry.why =
                    format!("{} {}: it was made, and a look shows something else", edit.verb, edit.key);
                retry.failed(&self.options, &edit.key.to_string(), false, now);
            }
            None => drop(unit.retries.insert(edit.key.clone(), Tried::of(planned, now))),
        }
    }

    /// What has to be looked at is decided on when it has been.
    fn look_or_decide(&self, unit: &mut State<A>, key: &A::Key) {
        let unlooked = unit.items.get(key).is_some_and(|item| matches!(item.sight, Sight::Unlooked));
        let set = if unlooked { &mut unit.look } else { &mut unit.made };
        set.insert(key.clone());
    }

    fn failed(&mut self, unit: &mut State<A>, edit: &Edit<A>, fault: &Fault, now: Moment) {
        self.count.add(|c| c.failures += 1);
        let planned = unit.open.get(&edit.key).and_then(|open| open.planned.as_deref());
        let tried = unit.retries.get_or_insert_with(&edit.key, Default::default);
        let Tried { retry, .. } = tried.again(planned);
        retry.why = fault.to_string();
        retry.failed(&self.options, &edit.key.to_string(), fault.permanent, now);
        if let Some(open) = unit.open.get_mut(&edit.key) {
            open.trouble = Trouble::Failed(fault.to_string());
        }
        unit.saw(&edit.key, Sight::Unlooked);
        unit.look.insert(edit.key.clone());
    }
}

/// It was begun, and goes on by itself.
fn began<A: Agent>(unit: &mut State<A>, edit: &Edit<A>, memo: Value, look_again: Moment) {
    let planned = unit.open.get(&edit.key).and_then(|open| open.planned.as_ref());
    let sources = planned.map(|planned| planned.sources.clone()).unwrap_or_default();
    if let Some(entry) = unit.items.get_mut(&edit.key).and_then(|i| i.entry.as_mut()) {
        entry.memo = memo;
        // It is being made from these as well: if it is to go before it is done, each needs its reason.
        entry.from.extend(sources);
        entry.from.sort_unstable();
        entry.from.dedup();
        if let Stage::Creating { begun, .. } = &mut entry.stage {
            *begun = Some(look_again);
        }
        unit.pages.touch(&edit.key);
    }
    unit.retries.remove(&edit.key);
    unit.saw(&edit.key, Sight::Unlooked);
    unit.set_timer(&edit.key, Some(look_again));
    if let Some(open) = unit.open.get_mut(&edit.key) {
        open.trouble = Trouble::Waiting(format!("{} goes on by itself", edit.verb));
    }
}

fn fault<A: Agent>(answer: Answer<A>) -> Fault {
    match answer {
        Answer::Fault(fault) => fault,
        other => Fault::new("go on with the unit", work::reason(&other)),
    }
}
