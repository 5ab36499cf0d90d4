//! The simulated targets: what is really there.
//!
//! A target does what a real one of its kind does and judges nothing: it refuses old fencing numbers if it can, makes
//! a second machine when it is asked twice with different tokens, writes a file as a whole, and answers that
//! things are not as the change expected. What really changed ([`Landed`]) is for the checker to judge.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shoal_core::{Change, Document, Key};
use shoal_engine::{Agent, Batch, Edit, Fault, Line, Moment, Nature, Observed, Outcome, Seen};

use crate::agent::{Have, ItemKey, Kind, PEEK, SimAgent, Thing};
use crate::dice::Dice;
use crate::store::Entry;

/// The target of one agent.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) nature: Nature,
    pub(crate) slots: BTreeMap<ItemKey, Slot>,
    /// What others put there, as they left it.
    pub(crate) foreign: BTreeMap<ItemKey, Thing>,
    /// What somebody changed by hand, or what landed late, since Shoal last changed it.
    pub(crate) tampered: BTreeSet<ItemKey>,
    /// What landed after the right to do it may have ended: nobody needs to know that it is there.
    pub(crate) late: BTreeSet<ItemKey>,
    /// What was there when the database was restored, and that its ledger knows nothing of.
    pub(crate) orphans: BTreeSet<ItemKey>,
    /// Names that the target refuses until they are taken out of here.
    pub(crate) refused: BTreeSet<String>,
    fences: BTreeMap<String, u64>,
    tokens: BTreeMap<String, ItemKey>,
    next_id: u64,
}

/// One thing that is there.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) thing: Thing,
    pub(crate) id: u64,
    pub(crate) foreign: bool,
    pub(crate) ready_at: Moment,
    /// Looks do not show it before: providers of machines are often late to tell.
    visible_at: Moment,
    /// Before any look could show it, the ledger let go of it: a new one is rightly made.
    forgotten: bool,
}

/// One thing that really changed.
#[derive(Clone, Debug)]
pub(crate) struct Landed {
    pub(crate) key: ItemKey,
    pub(crate) before: Option<Slot>,
    pub(crate) after: Option<Thing>,
    /// A second one was made while the first stands.
    pub(crate) twice: bool,
}

/// How much of a look gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Clear,
    /// Some things are missing from the answer, and it says so.
    Partial,
    /// Some things are there, and what they are cannot be seen.
    Blurred,
}

impl World {
    pub(crate) fn new(kind: Kind, dice: &mut Dice) -> Self {
        let whole = kind == Kind::Zone;
        let (checks_fence, marks_own) = (dice.chance(400), whole || dice.chance(400));
        let conditional = kind == Kind::Pool;
        let nature = Nature { whole, checks_fence, marks_own, conditional, ..Nature::default() };
        Self {
            kind,
            nature,
            slots: BTreeMap::new(),
            foreign: BTreeMap::new(),
            tampered: BTreeSet::new(),
            late: BTreeSet::new(),
            orphans: BTreeSet::new(),
            refused: BTreeSet::new(),
            fences: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_id: 1,
        }
    }

    /// A look.
    pub(crate) fn observe(
        &self,
        unit: &str,
        keys: Option<&[ItemKey]>,
        sight: Sight,
        now: Moment,
        dice: &mut Dice,
    ) -> Observed<SimAgent> {
        let mut seen = BTreeMap::new();
        let wanted = |key: &ItemKey| keys.is_none_or(|keys| keys.contains(key));
        let shown = |key: &ItemKey, slot: &Slot| key.unit() == unit && wanted(key) && slot.visible_at <= now;
        for (key, slot) in self.slots.iter().filter(|(key, slot)| shown(key, slot)) {
            let unlucky = sight != Sight::Clear && dice.chance(400);
            if unlucky && sight == Sight::Partial {
                continue;
            }
            let have = slot.have(now);
            let what = if unlucky {
                Seen::Unknown("it does not answer".to_owned())
            } else if self.nature.marks_own && !slot.foreign {
                Seen::Ours(have)
            } else {
                Seen::There(have)
            };
            seen.insert(key.clone(), what);
        }
        Observed { seen, complete: sight != Sight::Partial }
    }

    /// Whether an effect with this fencing number is let in.
    pub(crate) fn admit(&mut self, unit: &str, number: u64) -> Result<(), Fault> {
        if !self.nature.checks_fence {
            return Ok(());
        }
        let newest = self.fences.entry(unit.to_owned()).or_default();
        if number < *newest {
            return Err(Fault::new("change the target", format!("number {number} is older than {newest}")));
        }
        *newest = number;
        Ok(())
    }

    /// Does these changes of the batch; for a whole-file target, all of them.
    pub(crate) fn apply(
        &mut self,
        unit: &str,
        batch: &Batch<SimAgent>,
        changes: &[Edit<SimAgent>],
        now: Moment,
        dice: &mut Dice,
    ) -> (Vec<(ItemKey, Outcome)>, Vec<Landed>) {
        if self.nature.whole {
            return self.write(unit, batch, now);
        }
        let (mut each, mut landed) = (Vec::new(), Vec::new());
        for edit in changes {
            let outcome = match refusal(&self.refused, edit) {
                Some(fault) => Outcome::Failed(fault),
                None => self.change(edit, now, dice, &mut landed),
            };
            each.push((edit.key.clone(), outcome));
        }
        (each, landed)
    }

    fn change(
        &mut self,
        edit: &Edit<SimAgent>,
        now: Moment,
        dice: &mut Dice,
        landed: &mut Vec<Landed>,
    ) -> Outcome {
        let again = self.tokens.get(&edit.token) == Some(&edit.key);
        // A second machine, where nobody knows of the first: what is here from now on is the second.
        let nobodys = |slot: &&Slot| slot.forgotten && edit.from.is_none() && self.kind == Kind::Vm && !again;
        let before = self.slots.get(&edit.key).filter(|slot| !nobodys(slot)).cloned();
        let mut note = |before: Option<Slot>, twice| {
            landed.push(Landed { key: edit.key.clone(), before, after: edit.to.clone(), twice });
        };
        match (before, &edit.to) {
            (None, None) => Outcome::Done,
            (None, Some(_)) if edit.from.is_some() => Outcome::Stale,
            (None, Some(thing)) => {
                self.tokens.insert(edit.token.clone(), edit.key.clone());
                let ready_at = self.build(now, dice);
                self.put(&edit.key, thing.clone(), ready_at);
                note(None, false);
                let visible_at =
                    if dice.chance(500) { (now + dice.between(0, 40_000)).min(ready_at) } else { now };
                if let Some(slot) = self.slots.get_mut(&edit.key) {
                    slot.visible_at = visible_at;
                }
                begun(ready_at, visible_at, now)
            }
            (Some(slot), Some(thing)) if edit.from.is_none() => {
                // Names are no obstacle to a provider of machines: only the token tells it that this one is meant.
                if self.kind != Kind::Vm || slot.foreign {
                    return Outcome::Stale;
                }
                if again {
                    let same = slot.thing == *thing;
                    return if same { begun(slot.ready_at, slot.visible_at, now) } else { Outcome::Stale };
                }
                note(Some(slot), true);
                Outcome::Done
            }
            (Some(slot), _) if edit.from.as_ref().is_some_and(|from| from.id != 0 && from.id != slot.id) => {
                Outcome::Stale
            }
            (Some(slot), None) => {
                self.slots.remove(&edit.key);
                note(Some(slot), false);
                Outcome::Done
            }
            (Some(slot), Some(thing)) => {
                let ready_at = self.build(now, dice);
                if let Some(mine) = self.slots.get_mut(&edit.key) {
                    mine.thing.clone_from(thing);
                    mine.ready_at = ready_at;
                }
                note(Some(slot), false);
                begun(ready_at, now, now)
            }
        }
    }

    /// Writes the whole file of a unit. A line that is refused stays as it was.
    fn write(
        &mut self,
        unit: &str,
        batch: &Batch<SimAgent>,
        now: Moment,
    ) -> (Vec<(ItemKey, Outcome)>, Vec<Landed>) {
        let mut file: BTreeMap<ItemKey, Slot> = BTreeMap::new();
        for (key, line) in &batch.after {
            let (thing, id) = match line {
                Line::Want(thing) => ((**thing).clone(), self.next_id),
                Line::Keep(have) => (have.thing.clone(), have.id),
            };
            self.next_id += 1;
            file.insert(key.clone(), Slot::new(thing, id, now));
        }
        let taken = takes(self.kind, batch);
        if taken {
            file.clear();
        }
        let mut each = Vec::new();
        for edit in &batch.changes {
            if taken {
                let outcome = if edit.to.is_none() { Outcome::Done } else { Outcome::Stale };
                each.push((edit.key.clone(), outcome));
                continue;
            }
            let fault = refusal(&self.refused, edit);
            if fault.is_some() {
                match self.slots.get(&edit.key) {
                    Some(slot) => file.insert(edit.key.clone(), slot.clone()),
                    None => file.remove(&edit.key),
                };
            }
            each.push((edit.key.clone(), fault.map_or(Outcome::Done, Outcome::Failed)));
        }
        let mut landed = Vec::new();
        let keys: BTreeSet<ItemKey> =
            self.slots.keys().filter(|key| key.unit() == unit).chain(file.keys()).cloned().collect();
        for key in keys {
            let (before, after) = (self.slots.remove(&key), file.remove(&key));
            let changed = before.as_ref().map(|s| &s.thing) != after.as_ref().map(|s| &s.thing);
            if changed {
                let after = after.as_ref().map(|s| s.thing.clone());
                landed.push(Landed { key: key.clone(), before, after, twice: false });
            }
            if taken && batch.changes.iter().all(|edit| edit.key != key) {
                each.push((key.clone(), Outcome::Stale));
            }
            if let Some(slot) = after {
                self.slots.insert(key, slot);
            }
        }
        (each, landed)
    }

    fn put(&mut self, key: &ItemKey, thing: Thing, ready_at: Moment) {
        let id = self.next_id;
        self.next_id += 1;
        self.slots.insert(key.clone(), Slot::new(thing, id, ready_at));
    }

    /// When what is begun now will be done.
    fn build(&self, now: Moment, dice: &mut Dice) -> Moment {
        if self.kind == Kind::Vm && dice.chance(700) { now + dice.between(1_000, 90_000) } else { now }
    }

    /// The ledger was written: what it does not hold any more, and no look could show yet, nobody knows of.
    pub(crate) fn forget(&mut self, unit: &str, holds: impl Fn(&ItemKey) -> bool, now: Moment) {
        for (key, slot) in &mut self.slots {
            // The look that did not show it is some seconds older than the write.
            slot.forgotten |= key.unit() == unit && slot.visible_at + 15_000 > now && !holds(key);
            if slot.forgotten {
                self.late.insert(key.clone());
            }
        }
    }

    /// The facts that go with an answer: the ids of machines.
    pub(crate) fn facts(&self, keys: &[ItemKey]) -> Vec<Change> {
        if self.kind != Kind::Vm {
            return Vec::new();
        }
        let fact = |key: &ItemKey| {
            let place: Key = format!("facts/vm/{}", key.name()).parse().ok()?;
            let id = self.slots.get(key)?.id;
            Some(Change::put(place, Document::of(&serde_json::json!({ "id": id })).ok()?))
        };
        keys.iter().filter(|key| !key.is_shared() && !key.is_fixed()).filter_map(fact).collect()
    }

    /// The ledger is one of an earlier time: what it does not know, and the target does not mark, is somebody else's from now
    /// on, and what differs from it is as if somebody had changed it by hand. Whatever stands where the ledger has an item is
    /// Shoal's: nobody could tell.
    pub(crate) fn restored(&mut self, ledger: &BTreeMap<ItemKey, Entry>) {
        for (key, slot) in &mut self.slots {
            let entry = ledger.get(key);
            let ours = entry.map_or(self.nature.marks_own, |entry| entry.knows(&slot.thing));
            if entry.is_none() && !slot.foreign {
                self.orphans.insert(key.clone());
            }
            if entry.and_then(|entry| entry.last.as_ref()) != Some(&slot.thing) {
                self.tampered.insert(key.clone());
            }
            if entry.is_some() && ours && slot.foreign {
                slot.foreign = false;
                self.foreign.remove(key);
            } else if !ours && !self.nature.marks_own && !slot.foreign {
                slot.foreign = true;
                self.foreign.insert(key.clone(), slot.thing.clone());
            }
        }
        self.tampered.extend(ledger.keys().filter(|key| !self.slots.contains_key(*key)).cloned());
    }

    /// Somebody else puts something there. Only where nothing is.
    pub(crate) fn intrude(&mut self, key: &ItemKey) {
        if self.slots.contains_key(key) || self.nature.whole {
            return;
        }
        let thing = Thing { parts: [("somebody else".to_owned(), "hands off".to_owned())].into() };
        self.put(key, thing.clone(), 0);
        if let Some(slot) = self.slots.get_mut(key) {
            slot.foreign = true;
        }
        self.foreign.insert(key.clone(), thing);
    }

    /// The whole file of a unit is lost.
    pub(crate) fn lose(&mut self, unit: &str) {
        if !self.nature.whole {
            return;
        }
        let lost: Vec<ItemKey> = self.slots.keys().filter(|key| key.unit() == unit).cloned().collect();
        for key in lost {
            self.slots.remove(&key);
            self.tampered.insert(key);
        }
    }

    /// Somebody edits by hand: changes, removes, or (in a file) adds.
    pub(crate) fn meddle(&mut self, key: &ItemKey, what: usize) {
        if self.foreign.contains_key(key) {
            return;
        }
        match (self.slots.get_mut(key), what % 3) {
            (Some(_), 0) => {
                self.slots.remove(key);
            }
            (Some(slot), _) => {
                slot.thing.parts.insert("by hand".to_owned(), format!("edit {what}"));
            }
            (None, _) if self.nature.whole => {
                self.put(key, Thing { parts: [("by hand".to_owned(), "a line".to_owned())].into() }, 0);
            }
            (None, _) => return,
        }
        self.tampered.insert(key.clone());
    }
}

impl Slot {
    fn new(thing: Thing, id: u64, ready_at: Moment) -> Self {
        Self { thing, id, foreign: false, ready_at, visible_at: 0, forgotten: false }
    }

    /// What a look shows of it.
    pub(crate) fn have(&self, now: Moment) -> Have {
        Have { thing: self.thing.clone(), id: self.id, building: now < self.ready_at }
    }
}

/// Whether a change of this batch takes the whole unit with it.
pub(crate) fn takes(kind: Kind, batch: &Batch<SimAgent>) -> bool {
    batch.changes.iter().any(|edit| {
        edit.from
            .as_ref()
            .is_some_and(|have| SimAgent::of(kind).takes_unit(&edit.key, have, edit.to.as_ref()))
    })
}

/// What is said of something that was begun.
fn begun(ready_at: Moment, visible_at: Moment, now: Moment) -> Outcome {
    if ready_at <= now {
        return Outcome::Done;
    }
    Outcome::Running { memo: Value::from(ready_at), look_again: visible_at.max(now + PEEK) }
}

/// Whether the target will not take this change.
fn refusal(refused: &BTreeSet<String>, edit: &Edit<SimAgent>) -> Option<Fault> {
    let to = edit.to.as_ref()?;
    if to.parts.values().any(|text| text.starts_with("refused")) {
        return Some(Fault::new(format!("write {}", edit.key), "the target does not take it").permanent());
    }
    refused.contains(edit.key.name()).then(|| Fault::new(format!("write {}", edit.key), "not now"))
}
