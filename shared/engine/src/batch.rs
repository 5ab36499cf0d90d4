//! From changes that are ready to a batch on its way: guard, fence, intent, and what stays.

use std::iter::Peekable;
use std::slice;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Moment;
use crate::agent::Agent;
use crate::decide::{have_digest, hex};
use crate::effect::{Act, LedgerRow};
use crate::engine::Engine;
use crate::guard::{Gate, Said, asks_as_it_is, falls, gate, moves, takers};
use crate::item::{ADOPT, Item, Kind, Planned, REMAKE, REMOVE, Sight, Trouble};
use crate::ledger::{Entry, MAX_TRIED, SourceId, Stage};
use crate::options::OnDrift;
use crate::target::{Batch, Edit, Fault, Line};
use crate::unit::{Flight, Stage as FlightStage, State};

impl<A: Agent> Engine<A> {
    /// Sends what is ready, if the guard, the claim and the target's nature allow it. Answers whether something was sent.
    pub(crate) fn launch(&mut self, unit: &mut State<A>, now: Moment) -> bool {
        if self.options.write && self.take_over(unit) {
            // Before anything is done there, the ledger is to say that it stands there.
            return false;
        }
        if unit.ready.is_empty() {
            let hold = asks_as_it_is(&self.context(), unit);
            if unit.hold != hold {
                unit.hold = hold;
                self.reporter.changed();
            }
        }
        // What a target has forgotten is told it in one go: a part of it must not be taken for all.
        let partial = self.options.nature.sole && unit.fresh || unit.lost && !unit.sweep.is_empty();
        if !self.options.write || partial {
            return false;
        }
        if unit.ready.is_empty() && self.to_remake(unit, &[], now).is_empty() {
            self.spend_what_is_left(unit);
            return false;
        }
        if self.options.nature.whole && !self.all_seen(unit) {
            return false;
        }
        let mut keys = if unit.ready.is_empty() { Vec::new() } else { self.let_through(unit) };
        let Some((number, not_after)) = unit.may_act(now, self.options.margin) else { return false };
        self.let_go_of_missing(unit, &mut keys);
        if !self.options.nature.whole && !self.options.nature.sole {
            // Where a batch fails as a whole, halves of it find the change that makes it fail. Not so where the target may
            // know nothing yet: it would answer from a part as if that were all.
            keys.truncate((self.options.max_batch >> unit.backoff.failures.min(16)).max(1));
        }
        let back = self.to_remake(unit, &keys, now);
        if keys.is_empty() && back.is_empty() {
            return false;
        }
        let batch = Arc::new(self.make_batch(unit, &keys, &back, number));
        for key in &keys {
            unit.ready.remove(key);
            if let Some(open) = unit.open.get_mut(key) {
                open.trouble = Trouble::Changing;
            }
        }
        match self.rows(unit) {
            Ok(rows) if rows.is_empty() => self.send_batch(unit, batch, number, not_after),
            Ok(rows) => self.send_rows(unit, Some(batch), rows, number),
            Err(fault) => {
                self.unit_failed(unit, "ledger", &fault, now);
                unit.dirty.extend(keys);
                return false;
            }
        }
        true
    }

    /// A unit that is written as a whole is not written while some of it is not seen: that would lose it.
    fn all_seen(&mut self, unit: &mut State<A>) -> bool {
        let unseen = unit.items.iter().find_map(|(key, item)| match &item.sight {
            Sight::Unlooked | Sight::New => Some((key, None)),
            Sight::Unknown(why) => Some((key, Some(why))),
            _ => None,
        });
        let Some((key, why)) = unseen else { return true };
        if let Some(why) = why {
            let why = format!("{key} of the same unit cannot be seen: {why}");
            for key in unit.ready.iter() {
                if let Some(open) = unit.open.get_mut(key) {
                    open.trouble = Trouble::Unseen(why.clone());
                }
            }
        } else {
            unit.look.insert(key.clone());
        }
        false
    }

    /// Asks the guard, and keeps what it says. Answers the keys that may go.
    fn let_through(&mut self, unit: &mut State<A>) -> Vec<A::Key> {
        let before = unit.hold.take();
        let mut keys: Vec<A::Key> = unit.ready.iter().cloned().collect();
        let Said { withheld, gate } = gate(&self.context(), unit);
        for (key, why) in withheld {
            if let Some(open) = unit.open.get_mut(&key) {
                open.trouble = Trouble::Held(why);
            }
            keys.retain(|one| *one != key);
        }
        match gate {
            Gate::Open => {}
            Gate::Agreed(agreed, digest) => {
                for key in agreed {
                    agree(unit, &key);
                }
                unit.pages.spend(&digest);
            }
            Gate::Ask(asked, hold) => {
                let why = format!("guard: {}; shoal approve agrees to digest {}", hold.why, hold.digest);
                for key in &asked {
                    if let Some(open) = unit.open.get_mut(key) {
                        open.trouble = Trouble::Held(why.clone());
                    }
                }
                keys.retain(|key| asked.binary_search(key).is_err());
                unit.hold = Some(hold);
            }
        }
        if unit.other_life.epoch.is_some() && unit.hold.is_none() {
            unit.other_life.epoch = None;
            unit.pages.touch_all();
        }
        if unit.hold != before {
            self.reporter.changed();
        }
        keys
    }

    /// A person agreed that what the ledger speaks of stands here: it does from now on. What differs from what the ledger says was then
    /// not changed behind Shoal's back, so it is noted as being changed.
    fn take_over(&mut self, unit: &mut State<A>) -> bool {
        let Some(digest) = moves(&self.context(), unit) else { return false };
        unit.hold = None;
        if let Some(moved) = unit.other_life.moved.take() {
            unit.pages.move_to(&moved.to);
        }
        unit.pages.spend(&digest);
        for entry in unit.items.values_mut().filter_map(|item| item.entry.as_mut()) {
            entry.changing |= entry.stage == Stage::Made;
        }
        unit.wake_all();
        self.reporter.changed();
        true
    }

    /// All is as it should be, so there is nothing that an approval could still be meant for: what it named was undone
    /// before it came. It must not let the same changes through at another time.
    fn spend_what_is_left(&self, unit: &mut State<A>) {
        if unit.fresh || !unit.open.is_empty() || !unit.is_quiet() || unit.other_life.moved.is_some() {
            return;
        }
        if let Some(digest) = self.fleet.approval(self.namespace.as_str(), Some(&unit.name)) {
            unit.pages.spend(digest);
        }
    }

    /// What is held as it is and missing, because the target lost it: it is put back as it was. A file that lacks a line or
    /// two was edited: what somebody did there to what is paused is left alone, but not what the guard still asks about. While the
    /// ledger is one of another life, what it says is as old as the database or stands elsewhere, and nothing is put back.
    pub(crate) fn to_remake(&self, unit: &State<A>, going: &[A::Key], now: Moment) -> Vec<A::Key> {
        let crate::Nature { whole, sole, .. } = self.options.nature;
        let shown = sole || whole && self.options.drift == OnDrift::Correct;
        if !shown || !unit.other_life.is_none() {
            return Vec::new();
        }
        let ctx = self.context();
        // Of most nothing is missing, so that is asked first.
        let missing = unit.open.iter().filter_map(|(key, open)| {
            let item = unit.items.get(key).filter(|item| ctx.missing(item).is_some())?;
            Some((key, open, item))
        });
        let lost = missing.filter(|(key, open, item)| {
            let ready = unit.ready.contains(key);
            let held = ready || matches!(open.trouble, Trouble::Held(_) | Trouble::Blocked(_));
            let due = unit.remakes.get(key).is_none_or(|retry| retry.at <= now);
            held && (sole || item.lost || ready) && due && going.binary_search(key).is_err()
        });
        lost.map(|(key, ..)| key.clone()).collect()
    }

    /// What is to be removed and is missing needs nobody to remove it. What else an agent does about it then, it still does; but not
    /// about what no look ever showed: once it is said to go, whatever stands there would be Shoal's.
    fn let_go_of_missing(&mut self, unit: &mut State<A>, keys: &mut Vec<A::Key>) {
        let missing = |key: &A::Key| {
            let planned = unit.open.get(key).and_then(|open| open.planned.as_ref());
            let entry = unit.items.get(key).and_then(|item| item.entry.as_ref());
            // What was made once was seen, also where it was lost and could not be made again.
            let made = |entry: &Entry<A::Item>| {
                entry.last.is_some() || !matches!(entry.stage, Stage::Creating { .. })
            };
            let seen = entry.is_some_and(made);
            planned.is_some_and(|planned| {
                planned.from.is_none() && planned.to.is_none() && (planned.verb == REMOVE || !seen)
            })
        };
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(keys).into_iter().partition(missing);
        *keys = rest;
        for key in gone {
            if unit.items.get(&key).is_some_and(counts) {
                unit.pages.count_removed(unit.now, self.options.max_change_within);
            }
            if unit.items.get_mut(&key).is_some_and(|item| item.entry.take().is_some()) {
                unit.entries -= 1;
                unit.pages.touch(&key);
            }
            unit.close(&key);
            if let Some(item) = unit.prune(&key, self.options.nature.whole) {
                self.readers.reads(&unit.name, &key, &item.reads, &[]);
            }
            self.reporter.changed();
        }
    }

    fn make_batch(&mut self, unit: &mut State<A>, keys: &[A::Key], back: &[A::Key], number: u64) -> Batch<A> {
        self.intend_to_take(unit, keys);
        let mut changes = Vec::with_capacity(keys.len() + back.len());
        changes.extend(back.iter().filter_map(|key| self.remake(unit, key)));
        for key in keys {
            let State { open, items, pages, entries, name, now, .. } = unit;
            let (Some(planned), Some(item)) =
                (open.get(key).and_then(|o| o.planned.as_deref()), items.get_mut(key))
            else {
                continue;
            };
            self.tokens += 1;
            let fresh = || {
                let text = format!("{name}\0{key}\0{number}\0{}\0{}", self.options.seed, self.tokens);
                hex(&Sha256::digest(text)[..16])
            };
            let gains = self.context().gains(key, item, planned, *now);
            let before = item.entry.as_ref().map(|entry| entry.tried.len());
            if planned.kind() == Kind::Remove && counts(item) {
                pages.count_removed(*now, self.options.max_change_within);
            }
            let alone = self.options.nature.whole || self.options.nature.sole;
            let careful = self.options.drift == OnDrift::Report;
            if intend(item, planned, self.agent.logic(), (alone, careful, gains), fresh) {
                pages.touch(key);
            }
            item.first |= item.entry.as_ref().is_some_and(|entry| match before {
                None => true,
                Some(0) => entry.last.is_some() && !entry.tried.is_empty(),
                Some(_) => false,
            });
            *entries += usize::from(item.entry.is_some()) - usize::from(before.is_some());
            changes.push(Edit {
                key: key.clone(),
                verb: planned.verb,
                from: planned.from.as_deref().cloned(),
                to: planned.to.as_deref().cloned(),
                memo: planned.memo.clone(),
                token: item.entry.as_ref().map(|e| e.token.clone()).unwrap_or_default(),
                because: planned.because.clone(),
            });
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let after = if self.options.nature.whole { after(unit, keys, back) } else { Vec::new() };
        self.count.add(|c| c.lines += after.len() as u64);
        Batch { changes, after, revision: self.seen }
    }

    /// The change that puts an item back as it was.
    pub(crate) fn remake(&self, unit: &State<A>, key: &A::Key) -> Option<Edit<A>> {
        let item = unit.items.get(key)?;
        let because = self.context().strayed();
        let entry = item.entry.as_ref();
        Some(Edit {
            key: key.clone(),
            verb: REMAKE,
            from: None,
            to: entry.and_then(|entry| entry.last.as_deref().cloned()),
            memo: entry.map(|entry| entry.memo.clone()).unwrap_or_default(),
            token: entry.map(|entry| entry.token.clone()).unwrap_or_default(),
            because,
        })
    }

    /// What a change takes with it is removed as well, and the ledger is to say so before: what is missing from then on was
    /// not lost.
    fn intend_to_take(&self, unit: &mut State<A>, keys: &[A::Key]) {
        let by = takers(&self.context(), unit, keys).next();
        let why = by.and_then(|key| Some(unit.open.get(key)?.planned.as_ref()?.because.clone()));
        let Some(why) = why else { return };
        for key in falls(unit, keys).into_iter().filter(|key| keys.binary_search(key).is_err()) {
            if let Some(entry) = unit.items.get_mut(&key).and_then(|item| item.entry.as_mut()) {
                entry.stage = Stage::Removing { why: why.clone() };
                unit.pages.touch(&key);
            }
        }
    }

    /// The ledger rows that are to be written now.
    pub(crate) fn rows(&self, unit: &mut State<A>) -> Result<Vec<LedgerRow>, Fault> {
        let State { pages, items, facts, other_life, .. } = unit;
        // Held for another epoch, it stays so after a restart: what is written meanwhile does not say otherwise.
        let epoch = other_life.epoch.unwrap_or(self.fleet.epoch());
        let mut rows = pages.take(epoch, |from, to| {
            items.range(from, to).filter_map(|(key, item)| Some((key, item.entry.as_ref()?)))
        })?;
        rows.extend(facts.take(pages.prefix())?);
        let bytes: usize = rows.iter().filter_map(|row| row.value.as_ref().map(Vec::len)).sum();
        self.count.add(|c| {
            c.ledger_rows += rows.len() as u64;
            c.ledger_bytes += bytes as u64;
        });
        Ok(rows)
    }

    fn send_rows(
        &mut self,
        unit: &mut State<A>,
        batch: Option<Arc<Batch<A>>>,
        rows: Vec<LedgerRow>,
        number: u64,
    ) {
        let keys = rows.iter().map(|row| row.key.clone()).collect();
        let act = Act::WriteLedger { unit: unit.name.clone(), number, rows };
        let id = self.out.send(Some(&unit.name), act);
        unit.flight = Some(Flight { id, at: FlightStage::Journal, batch, rows: keys });
    }

    pub(crate) fn send_batch(
        &mut self,
        unit: &mut State<A>,
        batch: Arc<Batch<A>>,
        number: u64,
        not_after: Moment,
    ) {
        self.count.add(|c| {
            c.batches += 1;
            c.changes += batch.changes.len() as u64;
        });
        for edit in &batch.changes {
            *self.changes_by.entry((edit.verb, edit.because.cause())).or_default() += 1;
        }
        if let Some(looking) = &mut unit.looking {
            looking.tainted.extend(batch.changes.iter().map(|edit| edit.key.clone()));
        }
        let epoch = self.fleet.epoch();
        let act = Act::Apply { unit: unit.name.clone(), batch: batch.clone(), number, not_after, epoch };
        let id = self.out.send(Some(&unit.name), act);
        unit.flight = Some(Flight { id, at: FlightStage::Apply, batch: Some(batch), rows: Vec::new() });
    }

    /// Writes down what became of earlier batches, when no other write does it on its way.
    pub(crate) fn write_down(&mut self, unit: &mut State<A>, now: Moment) {
        if !self.options.write {
            return unit.pages.leave();
        }
        if unit.other_life.moved.is_some() {
            unit.pages.leave();
        }
        let Some((number, _)) = unit.may_act(now, 0) else { return };
        match self.rows(unit) {
            Ok(rows) if rows.is_empty() => {}
            Ok(rows) => self.send_rows(unit, None, rows, number),
            Err(fault) => self.unit_failed(unit, "ledger", &fault, now),
        }
    }
}

/// Whether a removal of this item is one that nobody was asked about, and that was not counted before: it is begun once.
fn counts<A: Agent>(item: &Item<A>) -> bool {
    let begun = |entry: &Entry<A::Item>| matches!(entry.stage, Stage::Removing { .. });
    item.entry.as_ref().is_some_and(|entry| entry.agreed.is_none() && !begun(entry))
}

/// Notes that a person agreed to the change that is planned.
fn agree<A: Agent>(unit: &mut State<A>, key: &A::Key) {
    let planned = unit.open.get(key).and_then(|open| open.planned.as_ref());
    let Some(digest) = planned.map(|planned| planned.digest()) else { return };
    match unit.items.get_mut(key).and_then(|item| item.entry.as_mut()) {
        Some(entry) => {
            entry.agreed = Some(digest);
            unit.pages.touch(key);
        }
        None => drop(unit.agreed.insert(key.clone(), digest)),
    }
}

/// Notes in the entry what is about to be done. Answers whether that has to be written before it is done: a creation
/// and a removal, what the step remembers, and an update that makes it from more than before. A plain update is not: whose
/// the item is does not change by it. Only where it does for a part (`gains`), and where drift stays as it is (`careful`): what Shoal
/// began itself must never be taken for somebody else's, nor for that.
fn intend<A: Agent>(
    item: &mut Item<A>,
    planned: &Planned<A>,
    logic: u32,
    (alone, careful, gains): (bool, bool, bool),
    token: impl FnOnce() -> String,
) -> bool {
    if item.entry.is_none() && planned.kind() == Kind::Remove {
        // Somebody wrote it into what is Shoal's as a whole: there is nothing of Shoal's own to remember.
        return false;
    }
    let from = planned.sources.clone();
    let entry = item.entry.get_or_insert_with(|| Entry {
        from,
        revision: planned.revision,
        stage: Stage::Made,
        last: None,
        token: String::new(),
        memo: serde_json::Value::Null,
        by: logic,
        changing: false,
        tried: Vec::new(),
        agreed: None,
    });
    let mut touched = entry.memo != planned.memo;
    entry.memo.clone_from(&planned.memo);
    match (planned.kind(), &planned.to) {
        // It was made before and the target lost it: whose it is, nobody asks, and what it was has to stay known.
        (Kind::Create, _) if alone && entry.stage == Stage::Made && entry.last.is_some() => {}
        (Kind::Create, Some(to)) => {
            let (mut tried, begun) = attempts(entry);
            if tried.is_empty() {
                // One token until it is known what became of it: an attempt that no look shows yet may have succeeded.
                entry.token = token();
            }
            if tried.last() != Some(to) {
                try_too(&mut tried, to);
                touched = true;
            }
            entry.stage = Stage::Creating { tried, begun, adopted: None };
            if entry.from != planned.sources {
                entry.from.clone_from(&planned.sources);
                touched = true;
            }
        }
        // Not Shoal's before it is changed: what else may stand there by then is as little so as ever.
        (Kind::Update, Some(to)) if planned.verb == ADOPT && entry.last.is_none() => {
            let (mut tried, begun) = attempts(entry);
            try_too(&mut tried, to);
            let adopted = planned.from.as_ref().map(|have| have_digest::<A>(have));
            entry.stage = Stage::Creating { tried, begun, adopted };
            entry.from.clone_from(&planned.sources);
            touched = true;
        }
        (Kind::Remove, _) => {
            note_seen(entry, planned);
            let stage = Stage::Removing { why: planned.because.clone() };
            touched |= entry.stage != stage;
            entry.stage = stage;
        }
        (Kind::Update, _) if matches!(entry.stage, Stage::Creating { .. }) => {
            // A look showed that it is there and ours. Once changed, no attempt tells that any more, so it is noted before.
            let (tried, _) = attempts(entry);
            if gains && entry.last.is_none() {
                entry.last =
                    tried.into_iter().find(|one| planned.from.as_ref().is_some_and(|h| **h == **one));
            }
            touched = true;
        }
        _ => touched |= entry.token.is_empty() && entry.last.is_none(),
    }
    touched |= planned.kind() == Kind::Update && made_from_too(entry, &planned.sources);
    touched |= gains && attempt(entry, planned);
    if planned.kind() != Kind::Remove && entry.stage == Stage::Made && !entry.changing {
        entry.changing = true;
        touched |= careful;
    }
    touched
}

/// Which attempt at its creation made what is there: once it is said to go, none tells any more what of it is Shoal's. Of one that goes
/// on by itself, and need not look so yet, it is the newest.
fn note_seen<A: Agent>(entry: &mut Entry<A::Item>, planned: &Planned<A>) {
    let (None, Stage::Creating { tried, .. }, Some(have)) = (&entry.last, &entry.stage, &planned.from) else {
        return;
    };
    let made = tried.iter().rev().find(|one| **have == ***one).or(tried.last()).cloned();
    entry.last = made;
}

/// Once it is made from these too, each must be found as the reason to undo it, or as what keeps it as it is. Answers whether one of
/// them is new.
fn made_from_too<I>(entry: &mut Entry<I>, sources: &[SourceId]) -> bool {
    let more = sources.iter().any(|source| !entry.from.contains(source));
    if more {
        entry.from.extend(sources.iter().cloned());
        entry.from.sort_unstable();
        entry.from.dedup();
    }
    more
}

/// Remembers a change that makes more of it Shoal's than the ledger says. Answers whether that is new.
fn attempt<A: Agent>(entry: &mut Entry<A::Item>, planned: &Planned<A>) -> bool {
    let creating = matches!(entry.stage, Stage::Creating { .. });
    let Some(to) = planned.to.as_ref().filter(|to| !creating && entry.tried.last() != Some(*to)) else {
        return false;
    };
    try_too(&mut entry.tried, to);
    true
}

/// What was tried to make it so far, and when a look is to show it.
fn attempts<I: Clone>(entry: &mut Entry<I>) -> (Vec<Arc<I>>, Option<Moment>) {
    match std::mem::replace(&mut entry.stage, Stage::Made) {
        Stage::Creating { tried, begun, .. } => (tried, begun),
        _ => (Vec::new(), None),
    }
}

/// Remembers this attempt as the newest. Too many there are only where a mark tells what is Shoal's: elsewhere nothing more is
/// decided on.
fn try_too<I: PartialEq>(tried: &mut Vec<Arc<I>>, to: &Arc<I>) {
    tried.retain(|one| one != to);
    tried.push(to.clone());
    let surplus = tried.len().saturating_sub(MAX_TRIED);
    tried.drain(..surplus);
}

/// The whole unit as it shall stand: what is changed, and everything else as it is.
fn after<A: Agent>(unit: &State<A>, changed: &[A::Key], back: &[A::Key]) -> Vec<(A::Key, Line<A>)> {
    let mut lines = Vec::with_capacity(unit.items.len());
    let (mut changed, mut back) = (changed.iter().peekable(), back.iter().peekable());
    // Both are in order, as the items are.
    let among = |keys: &mut Peekable<slice::Iter<'_, A::Key>>, key: &A::Key| {
        while keys.next_if(|one| *one < key).is_some() {}
        keys.next_if(|one| *one == key).is_some()
    };
    for (key, item) in unit.items.iter() {
        if among(&mut changed, key) {
            let to = unit.open.get(key).and_then(|o| o.planned.as_ref()?.to.clone());
            lines.extend(to.map(|to| (key.clone(), Line::Want(to))));
            continue;
        }
        if among(&mut back, key) {
            let last = item.entry.as_ref().and_then(|entry| entry.last.clone());
            lines.extend(last.map(|last| (key.clone(), Line::Want(last))));
            continue;
        }
        let Some(have) = item.sight.have() else { continue };
        let line = match &item.want {
            Some(want) if **have == **want => Line::Want(want.clone()),
            _ => Line::Keep(have.clone()),
        };
        lines.push((key.clone(), line));
    }
    lines
}
