//! The simulated host database: the real in-memory store's synchronous heart on virtual time.
//!
//! Beside the rows it keeps the view of every revision, so that the checker can ask what the database said when a
//! decision was made. Views share what they have in common.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use shoal_core::{Change, Commit, Committed, Epoch, Range, Revision, Row, View};
use shoal_engine::Moment;
use shoal_store::{Claim, Head, Memory, Query, StoreError};

use crate::agent::{ItemKey, Kind, Thing};
use crate::queue::START;

/// Which life of the database every run begins in.
pub(crate) const FIRST: Epoch = Epoch(7);

/// The database.
pub(crate) struct SimStore {
    pub(crate) memory: Memory,
    /// The view of revision `n` stands at `n`.
    views: Vec<View>,
}

/// What the ledger says of one item, as far as the checker reads it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    /// What it was last made as.
    #[serde(default)]
    pub(crate) last: Option<Thing>,
    pub(crate) from: Vec<(String, Option<String>)>,
    pub(crate) stage: serde_json::Value,
    #[serde(default)]
    pub(crate) agreed: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    entries: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    key: ItemKey,
    entry: Entry,
}

/// The store's clock: how long it has run.
pub(crate) fn uptime(now: Moment) -> Duration {
    Duration::from_millis(now.saturating_sub(START).unsigned_abs())
}

/// The time of day.
pub(crate) fn time(now: Moment) -> Timestamp {
    Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Entry {
    /// Whether an engine that finds this where the ledger has the entry takes it for its own.
    pub(crate) fn knows(&self, thing: &Thing) -> bool {
        let Some(creating) = self.stage.get("creating") else { return true };
        let tried: Vec<Thing> = serde_json::from_value(creating["tried"].clone()).unwrap_or_default();
        creating["shows"].is_number() || tried.contains(thing)
    }
}

impl SimStore {
    pub(crate) fn new() -> Self {
        Self { memory: Memory::new(FIRST), views: vec![View::new()] }
    }

    pub(crate) fn head(&self) -> Head {
        self.memory.head()
    }

    pub(crate) fn commit(&mut self, commit: Commit, now: Moment) -> Result<Committed, StoreError> {
        let done = self.memory.commit(commit, time(now), uptime(now))?;
        for entry in self.memory.after(Revision(self.views.len() as u64 - 1), usize::MAX) {
            let mut view = self.newest().clone();
            view.apply(entry.info.revision, &entry.changes);
            self.views.push(view);
        }
        Ok(done)
    }

    /// A commit of a person or an agent that nothing stands against.
    pub(crate) fn write(
        &mut self,
        author: &str,
        changes: Vec<Change>,
        now: Moment,
    ) -> Result<Committed, StoreError> {
        let commit = Commit::new(author, "simulated", changes);
        self.commit(commit, now)
    }

    /// The database at a revision; at the newest, when that one is not there yet.
    pub(crate) fn view(&self, at: Revision) -> &View {
        let at = usize::try_from(at.0).unwrap_or(usize::MAX);
        self.views.get(at).unwrap_or_else(|| self.newest())
    }

    /// The database now.
    pub(crate) fn newest(&self) -> &View {
        // There is one from the start, and none is ever taken away.
        &self.views[self.views.len() - 1]
    }

    /// Every row as of `at`, tombstones included, page by page.
    pub(crate) fn rows(&self, at: Revision, limit: usize) -> Vec<Row> {
        let mut query =
            Query { at: Some(at), limit: limit.max(1), tombstones: true, ..Query::new(Range::All) };
        let mut rows = Vec::new();
        while let Ok(page) = self.memory.read(&query) {
            rows.extend(page.rows);
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        rows
    }

    /// Whether the claim of this name is held under this number.
    pub(crate) fn holds(&self, name: &str, number: u64, now: Moment) -> bool {
        self.memory.claims(name, uptime(now)).iter().any(|c| c.name == name && c.number == number)
    }

    /// The claim itself.
    pub(crate) fn claim(&self, name: &str, number: u64, now: Moment) -> Option<Claim> {
        self.memory.claims(name, uptime(now)).into_iter().find(|c| c.name == name && c.number == number)
    }

    /// A backup takes the place of what is there, as another life of it.
    pub(crate) fn restore(&mut self, backup: &Memory) {
        let epoch = Epoch(self.head().epoch.0 + 1);
        self.memory = backup.restored(&self.memory, epoch);
        self.views.truncate(usize::try_from(self.head().revision.0).unwrap_or(usize::MAX).saturating_add(1));
    }

    /// Every ledger row under the prefix.
    pub(crate) fn ledger_rows(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
        loop {
            let page = self.memory.ledger(prefix, rows.last().map(|(key, _)| key.as_str()), 100);
            rows.extend(page.rows);
            if !page.more {
                return rows;
            }
        }
    }

    /// What the ledger says of a unit's items.
    pub(crate) fn ledger(&self, kind: Kind, unit: &str) -> BTreeMap<ItemKey, Entry> {
        self.entries(&format!("{}/{unit}/", kind.namespace()))
    }

    /// What the ledger says of all items of an agent.
    pub(crate) fn whole_ledger(&self, kind: Kind) -> BTreeMap<ItemKey, Entry> {
        self.entries(&format!("{}/", kind.namespace()))
    }

    fn entries(&self, prefix: &str) -> BTreeMap<ItemKey, Entry> {
        let pages = self.ledger_rows(prefix).into_iter();
        pages
            .filter_map(|(_, value)| serde_json::from_slice::<Page>(&value).ok())
            .flat_map(|page| page.entries)
            .map(|line| (line.key, line.entry))
            .collect()
    }
}
