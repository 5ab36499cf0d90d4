//! A target in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_core::Change;

use super::Place;
use crate::{Agent, Applied, Batch, Edit, Fault, Fence, Line, Nature, Observed, Outcome, Seen, Unit};

type Make<A> = Arc<dyn Fn(&<A as Agent>::Item) -> <A as Agent>::Have + Send + Sync>;

/// A target in memory, which can be told to misbehave.
pub struct Model<A: Agent> {
    /// What is there.
    pub items: BTreeMap<A::Key, A::Have>,
    /// Keys where what is there bears no mark of Shoal's, in a target that marks what is.
    pub unmarked: BTreeSet<A::Key>,
    /// Keys whose look fails.
    pub unknown: BTreeSet<A::Key>,
    /// Keys whose change fails, and how.
    pub failing: BTreeMap<A::Key, Fault>,
    /// Keys whose change is refused, and how.
    pub refusing: BTreeMap<A::Key, Fault>,
    /// Every look fails so.
    pub look_fault: Option<Fault>,
    /// Every batch fails so, before anything is done.
    pub batch_fault: Option<Fault>,
    /// Looks see only this many items and say that they are incomplete.
    pub short_sight: Option<usize>,
    /// What it tells of each change that was made.
    pub tell: Option<fn(&Edit<A>) -> Change>,
    /// The batches that were given.
    pub batches: Vec<Arc<Batch<A>>>,
    nature: Nature,
    make: Make<A>,
}

impl<A: Agent> Clone for Model<A> {
    fn clone(&self) -> Self {
        Self {
            items: self.items.clone(),
            unmarked: self.unmarked.clone(),
            unknown: self.unknown.clone(),
            failing: self.failing.clone(),
            refusing: self.refusing.clone(),
            look_fault: self.look_fault.clone(),
            batch_fault: self.batch_fault.clone(),
            short_sight: self.short_sight,
            tell: self.tell,
            batches: self.batches.clone(),
            nature: self.nature,
            make: self.make.clone(),
        }
    }
}

impl<A: Agent> Model<A> {
    /// An empty target of this kind; `make` says what a look shows of an item that was made.
    pub fn new(nature: Nature, make: impl Fn(&A::Item) -> A::Have + Send + Sync + 'static) -> Self {
        Self {
            items: BTreeMap::new(),
            unmarked: BTreeSet::new(),
            unknown: BTreeSet::new(),
            failing: BTreeMap::new(),
            refusing: BTreeMap::new(),
            look_fault: None,
            batch_fault: None,
            short_sight: None,
            tell: None,
            batches: Vec::new(),
            nature,
            make: Arc::new(make),
        }
    }

    /// Somebody else puts something there.
    pub fn put(&mut self, key: A::Key, item: &A::Item) {
        let have = (self.make)(item);
        self.items.insert(key, have);
    }

    fn change(&mut self, edit: &Edit<A>) -> Outcome {
        if let Some(fault) = self.failing.get(&edit.key) {
            return Outcome::Failed(fault.clone());
        }
        if let Some(fault) = self.refusing.get(&edit.key) {
            return Outcome::Refused(fault.clone());
        }
        let taken = edit.from.is_none() && self.items.contains_key(&edit.key);
        if self.nature.conditional && taken && edit.to.is_some() {
            return Outcome::Stale;
        }
        self.unmarked.remove(&edit.key);
        match &edit.to {
            Some(item) => self.put(edit.key.clone(), item),
            None => {
                self.items.remove(&edit.key);
            }
        }
        Outcome::Done
    }

    /// A unit that is written as a whole: all of `after`, or nothing.
    fn replace(&mut self, batch: &Batch<A>, in_it: impl Fn(&A::Key) -> bool) {
        self.items.retain(|key, _| !in_it(key));
        for (key, line) in &batch.after {
            let have = match line {
                Line::Want(item) => (self.make)(item),
                Line::Keep(have) => (**have).clone(),
            };
            self.items.insert(key.clone(), have);
        }
    }
}

/// A model target with the agent that says which unit a key is in.
impl<A: Agent> Place<A> for (Arc<A>, Model<A>) {
    fn nature(&self) -> Nature {
        self.1.nature
    }

    fn observe(&mut self, unit: &Unit, keys: Option<&[A::Key]>) -> Result<Observed<A>, Fault> {
        let (agent, model) = self;
        if let Some(fault) = &model.look_fault {
            return Err(fault.clone());
        }
        let asked = |key: &A::Key| match keys {
            Some(keys) => keys.contains(key),
            None => agent.unit(key) == *unit,
        };
        let marks = model.nature.whole || model.nature.marks_own;
        let mark = |key: &A::Key, have: &A::Have| {
            let marked = marks && !model.unmarked.contains(key);
            if marked { Seen::Ours(have.clone()) } else { Seen::There(have.clone()) }
        };
        let mut seen: BTreeMap<_, _> = model
            .items
            .iter()
            .filter(|(key, _)| asked(key) && !model.unknown.contains(*key))
            .take(model.short_sight.unwrap_or(usize::MAX))
            .map(|(key, have)| (key.clone(), mark(key, have)))
            .collect();
        for key in model.unknown.iter().filter(|key| asked(key)) {
            seen.insert(key.clone(), Seen::Unknown("it does not answer".to_owned()));
        }
        Ok(Observed { seen, complete: model.short_sight.is_none() })
    }

    fn apply(
        &mut self,
        unit: &Unit,
        batch: &Batch<A>,
        fence: &Fence,
        boundary: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Applied<A>, Fault> {
        let (agent, model) = self;
        model.batches.push(Arc::new(batch.clone()));
        if let Some(fault) = &model.batch_fault {
            return Err(fault.clone());
        }
        let mut applied = Applied { each: Vec::new(), facts: Vec::new() };
        let takes = |edit: &Edit<A>| {
            edit.from.as_ref().is_some_and(|have| agent.takes_unit(&edit.key, have, edit.to.as_ref()))
        };
        if batch.changes.iter().any(takes) {
            fence.check()?;
            let of_unit = |key: &&A::Key| agent.unit(key) == *unit;
            let named = |key: &&A::Key| batch.changes.binary_search_by(|edit| edit.key.cmp(key)).is_ok();
            let others: Vec<A::Key> =
                model.items.keys().filter(|key| of_unit(key) && !named(key)).cloned().collect();
            model.items.retain(|key, _| agent.unit(key) != *unit);
            applied = Applied::all(batch);
            for edit in batch.changes.iter().filter(|edit| takes(edit)) {
                edit.to.iter().for_each(|to| model.put(edit.key.clone(), to));
            }
            applied.each.extend(others.into_iter().map(|key| (key, Outcome::Stale)));
            return Ok(applied);
        }
        if model.nature.whole {
            fence.check()?;
            model.replace(batch, |key| agent.unit(key) == *unit);
            return Ok(Applied::all(batch));
        }
        for edit in &batch.changes {
            fence.check()?;
            if boundary(&format!("before {} {}", edit.verb, edit.key)) {
                break;
            }
            let outcome = model.change(edit);
            if let (Outcome::Done, Some(tell)) = (&outcome, model.tell) {
                applied.facts.push(tell(edit));
            }
            applied.each.push((edit.key.clone(), outcome));
        }
        Ok(applied)
    }
}
