//! What changed: the log of several ranges at once, differences between revisions, and who said what.
//!
//! A tag's history is that of its document and of its members.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_core::{Blame, CommitInfo, Document, Key, Kind, Line, LogEntry, Range, Revision, Row};
use shoal_store::{Query, Store, StoreError};

/// How many commits of a key are read at once when its values are traced back.
const STRIDE: usize = 64;

/// The ranges that hold everything that is said of a key: for a tag, its document and its members.
#[must_use]
pub fn ranges_of(key: &Key) -> Vec<Range> {
    let mut ranges = vec![Range::Key(key.clone())];
    if let Kind::Tag(tag) = key.kind() {
        ranges.push(Range::members(&tag));
    }
    ranges
}

/// Commits that wrote in any of `ranges` (none: everywhere), newest first, at most `limit`, before `before`; each
/// with its changes in all of them. The second part is where to go on; `None`: this was all. Costs reading each range once, and sorting.
///
/// # Errors
/// What the store says.
pub async fn log(
    store: &dyn Store,
    ranges: &[Range],
    before: Option<Revision>,
    limit: usize,
) -> Result<(Vec<LogEntry>, Option<Revision>), StoreError> {
    let ranges = &distinct(ranges);
    let mut merged: BTreeMap<Revision, LogEntry> = BTreeMap::new();
    // Below this revision one of the ranges may have more than what was read of it.
    let mut floor = Revision::default();
    for range in ranges {
        let entries = store.log(range, before, limit).await?;
        if let Some(last) = entries.last().map(|e| e.info.revision) {
            // A short page is the end, or was cut by its size: the next one says.
            let more = entries.len() >= limit || !store.log(range, Some(last), 1).await?.is_empty();
            floor = if more { floor.max(last) } else { floor };
        }
        for entry in entries {
            match merged.entry(entry.info.revision) {
                Entry::Vacant(none) => drop(none.insert(entry)),
                Entry::Occupied(have) => have.into_mut().changes.extend(entry.changes),
            }
        }
    }
    let all_read = floor == Revision::default() && merged.len() <= limit;
    let mut list: Vec<LogEntry> =
        merged.into_values().rev().filter(|e| e.info.revision >= floor).take(limit).collect();
    for entry in &mut list {
        // What is in several ranges is there once.
        entry.changes.sort_by(|a, b| a.key.cmp(&b.key));
        entry.changes.dedup_by(|a, b| a.key == b.key);
    }
    let next = list.last().map(|e| e.info.revision).filter(|_| !all_read);
    Ok((list, next))
}

/// Each of these ranges once; none: everything.
#[must_use]
pub fn distinct(ranges: &[Range]) -> Vec<Range> {
    if ranges.is_empty() || ranges.contains(&Range::All) {
        return vec![Range::All];
    }
    let mut some: Vec<Range> = Vec::new();
    for range in ranges {
        if !some.contains(range) {
            some.push(range.clone());
        }
    }
    some
}

/// The revision before which this one is the last: what [`log`] is given to begin with it.
#[must_use]
pub fn after(revision: Revision) -> Revision {
    Revision(revision.0.saturating_add(1))
}

/// The commit of this revision, whole; `None`: there is none.
///
/// # Errors
/// What the store says.
pub async fn commit(store: &dyn Store, revision: Revision) -> Result<Option<LogEntry>, StoreError> {
    let found = store.log(&Range::All, Some(after(revision)), 1).await?.pop();
    Ok(found.filter(|entry| entry.info.revision == revision))
}

/// One row before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Changed {
    /// Which row.
    pub key: Key,
    /// What stood there.
    pub before: Option<Document>,
    /// What stands there afterwards.
    pub after: Option<Document>,
    /// The other end of a rename.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Key>,
}

/// The rows of `ranges` (none: all) that differ between two revisions, by key. Costs reading the ranges twice.
///
/// # Errors
/// What the store says, such as [`StoreError::Future`].
pub async fn between(
    store: &dyn Store,
    ranges: &[Range],
    from: Revision,
    to: Revision,
) -> Result<Vec<Changed>, StoreError> {
    let ranges = &distinct(ranges);
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    for range in ranges {
        rows(store, range, from, &mut old).await?;
        rows(store, range, to, &mut new).await?;
    }
    let mut changed = Vec::new();
    for (key, row) in &new {
        let before: Option<Document> = old.remove(key).and_then(|row: Row| row.value);
        if before != row.value {
            let moved = if before.is_none() { row.moved.clone() } else { None };
            changed.push(Changed { key: key.clone(), before, after: row.value.clone(), moved });
        }
    }
    let gone = old.into_iter().map(|(key, row)| Changed { key, before: row.value, after: None, moved: None });
    changed.extend(gone);
    changed.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(changed)
}

async fn rows(
    store: &dyn Store,
    range: &Range,
    at: Revision,
    into: &mut BTreeMap<Key, Row>,
) -> Result<(), StoreError> {
    let mut query = Query { at: Some(at), ..Query::new(range.clone()) };
    loop {
        let page = store.read(&query).await?;
        into.extend(page.rows.into_iter().map(|row| (row.key.clone(), row)));
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Who last said each value of the row at `key`, by path; through renames. For a tag, its members are rows of their
/// own, each with its revision; as of `at` (`None`: now). `None`: nothing stands there. Reads no more of the history than it needs.
///
/// # Errors
/// What the store says.
pub async fn blame(
    store: &dyn Store,
    key: &Key,
    at: Option<Revision>,
) -> Result<Option<Vec<Line<CommitInfo>>>, StoreError> {
    let (mut key, mut before) = (key.clone(), at.map(after));
    let mut blame: Option<Blame<CommitInfo>> = None;
    loop {
        let entries = store.log(&Range::Key(key.clone()), before, STRIDE).await?;
        if entries.is_empty() {
            return Ok(blame.map(Blame::lines));
        }
        for entry in entries {
            before = Some(entry.info.revision);
            let Some(change) = entry.changes.into_iter().find(|c| c.key == key) else { continue };
            let value = change.value.as_ref().map(Document::value).map(said);
            match (&mut blame, value) {
                (None, Some(newest)) => blame = Some(Blame::new(entry.info, &newest)),
                (None, None) => return Ok(None),
                (Some(blame), value) => blame.older(entry.info, value.as_ref()),
            }
            if blame.as_ref().is_some_and(Blame::is_done) {
                return Ok(blame.map(Blame::lines));
            }
            if let (Some(from), true) = (change.moved, change.value.is_some()) {
                // The same document, under its older name.
                key = from;
                break;
            }
        }
    }
}

/// What people said in a row: its id is the database's.
fn said(mut row: Value) -> Value {
    if let Some(map) = row.as_object_mut() {
        map.shift_remove("id");
    }
    row
}
