//! A store so simple that it is right by looking at it: all states that ever were, whole.

use std::collections::{BTreeMap, HashMap};

use shoal_core::{Change, Commit, Key, Pre, Range, Revision, Row};

/// What is expected of a commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Done { revision: usize, changed: usize, replayed: bool },
    Conflict(usize),
    Reused,
}

/// Every state, and what led from one to the next. Revisions are counted by position.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) states: Vec<BTreeMap<Key, Row>>,
    pub(super) commits: Vec<Vec<Change>>,
    /// The store's number of each.
    pub(super) numbers: Vec<Revision>,
    remembered: HashMap<String, (Vec<Change>, usize, usize)>,
}

impl Model {
    pub(super) fn new(empty: Revision) -> Self {
        let (states, commits) = (vec![BTreeMap::new()], vec![Vec::new()]);
        Self { states, commits, numbers: vec![empty], remembered: HashMap::new() }
    }

    pub(super) fn newest(&self) -> usize {
        self.states.len() - 1
    }

    /// What the commit should be answered with, and does it. `number` is what the store called it.
    pub(super) fn commit(&mut self, commit: &Commit, number: Option<Revision>) -> Expected {
        let mut changes = commit.changes.clone();
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        if let Some((known, revision, changed)) =
            commit.idempotency.as_ref().and_then(|k| self.remembered.get(k))
        {
            if *known != changes {
                return Expected::Reused;
            }
            return Expected::Done { revision: *revision, changed: *changed, replayed: true };
        }
        if let Some(failed) = commit.pre.iter().position(|pre| !self.holds(pre)) {
            return Expected::Conflict(failed);
        }
        let now = &self.states[self.newest()];
        let mut written = changes.clone();
        written.retain(|c| c.value.as_ref() != now.get(&c.key).and_then(|r| r.value.as_ref()));
        if !written.is_empty() {
            let mut next = now.clone();
            let revision = number.unwrap_or_default();
            for Change { key, value, moved } in written.clone() {
                next.insert(key.clone(), Row { key, value, revision, moved });
            }
            self.states.push(next);
            self.commits.push(written.clone());
            self.numbers.push(revision);
        }
        let (revision, changed) = (self.newest(), written.len());
        if let Some(key) = &commit.idempotency {
            self.remembered.insert(key.clone(), (changes, revision, changed));
        }
        Expected::Done { revision, changed, replayed: false }
    }

    fn holds(&self, pre: &Pre) -> bool {
        let now = |key: &Key| self.states[self.newest()].get(key).filter(|r| r.value.is_some());
        match pre {
            Pre::At(key, revision) => now(key).is_some_and(|r| r.revision == *revision),
            Pre::Exists(key) => now(key).is_some(),
            Pre::Absent(key) => now(key).is_none(),
            Pre::Unchanged(range, since) => !(0..self.commits.len())
                .any(|n| self.numbers[n] > *since && self.commits[n].iter().any(|c| range.contains(&c.key))),
            Pre::Held { .. } => false,
        }
    }

    /// The rows of a range as of the `n`th state.
    pub(super) fn rows(&self, n: usize, range: &Range, tombstones: bool) -> Vec<Row> {
        let rows = self.states[n].values().filter(|r| range.contains(&r.key));
        rows.filter(|r| tombstones || r.value.is_some()).cloned().collect()
    }

    /// The `n`th commit's changes in a range.
    pub(super) fn changes(&self, n: usize, ranges: &[Range]) -> Vec<Change> {
        let changes = self.commits[n].iter();
        changes.filter(|c| ranges.iter().any(|r| r.contains(&c.key))).cloned().collect()
    }
}
