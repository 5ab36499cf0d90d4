//! Rows, now and as they stood.
//!
//! A page is of one revision, but not of one moment: a row that was written since says so by its revision, and what stood
//! there before is looked up in the history. So pages need nothing of etcd's own history, which it throws away.

use std::collections::VecDeque;

use shoal_core::{Document, Key, Range, Revision, Row};
use shoal_store::{MAX_PAGE, MAX_PAGE_BYTES, Page, Query, Result, StoreError};

use crate::history::{self, Past};
use crate::keys::{Keys, Span, revision_of};
use crate::known::naming;
use crate::link::{Link, OPS, first, get, names};
use crate::record::{RowRecord, damaged, parse};

/// The most rows that are asked for at once. Etcd counts a range to its end for every page of it, so pages are large.
const AT_ONCE: usize = MAX_PAGE;
/// For how many rows the past is asked at once.
const PAST: usize = 16;

/// See [`Store::read`](shoal_store::Store::read).
pub(crate) async fn page(link: &Link, keys: &Keys, query: &Query, limit: usize) -> Result<Page> {
    let newest = history::head(link, keys).await?.0.revision;
    let at = query.at.unwrap_or(newest);
    if at > newest {
        return Err(StoreError::Future { asked: at, newest });
    }
    let mut page = Page { at, rows: Vec::new(), next: None };
    let (mut bytes, mut past) = (0, Past::default());
    let mut walk = Walk::new(link, keys, query).await?;
    loop {
        let rows = walk.next(link, keys, limit - page.rows.len() + 1).await?;
        if rows.is_empty() {
            return Ok(page);
        }
        let rows = stood(link, keys, rows, at).await?;
        for some in rows.chunks(PAST) {
            let wanted = some.iter().filter(|(_, row)| row.in_log()).map(|(_, row)| row.revision());
            past.fetch(link, keys, wanted.collect()).await?;
            for (key, row) in some {
                let row = row.whole(link, keys, key, &mut past).await?;
                if row.value.is_none() && !query.tombstones {
                    continue;
                }
                bytes += row.value.as_ref().map_or(0, |v| v.as_str().len());
                if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
                    page.next = page.rows.last().map(|row| row.key.clone());
                    return Ok(page);
                }
                page.rows.push(row);
            }
        }
    }
}

/// The rows of a range in order, some at a time.
enum Walk {
    Range(Span),
    Keys(VecDeque<Key>),
    Done,
}

impl Walk {
    async fn new(link: &Link, keys: &Keys, query: &Query) -> Result<Self> {
        let after = query.after.as_ref().map(Key::as_str);
        let past = |key: &str| after.is_none_or(|after| key > after);
        let prefix = match &query.range {
            Range::Naming(member) => {
                let all = naming(link, keys, member.as_str(), after.unwrap_or("")).await?;
                return Ok(Self::Keys(all.into()));
            }
            Range::Key(key) => {
                return Ok(Self::Keys(past(key.as_str()).then(|| key.clone()).into_iter().collect()));
            }
            Range::All => "",
            Range::Prefix(prefix) => prefix,
        };
        let (mut from, to) = keys.rows(prefix);
        if let Some(after) = after.filter(|after| *after >= prefix) {
            from = keys.row(after);
            from.push(0);
        }
        Ok(if from < to { Self::Range((from, to)) } else { Self::Done })
    }

    /// The next rows, about as many as are wanted; none at the end.
    async fn next(&mut self, link: &Link, keys: &Keys, wanted: usize) -> Result<Vec<(Key, RowRecord)>> {
        let wanted = wanted.clamp(PAST, AT_ONCE);
        let found = match self {
            Self::Done => return Ok(Vec::new()),
            Self::Range((from, to)) => {
                let ops = vec![first((from.clone(), to.clone()), wanted)];
                let found = link.read("reading rows", ops).await?.take(0);
                match found.kvs.last() {
                    Some(last) if found.more => {
                        *from = last.key().to_vec();
                        from.push(0);
                    }
                    _ => *self = Self::Done,
                }
                found.kvs
            }
            // A name may be there before its row: what of them is there counts.
            Self::Keys(names) => {
                let mut found = Vec::new();
                while found.is_empty() && !names.is_empty() {
                    let some = names.drain(..names.len().min(OPS));
                    let ops: Vec<_> = some.map(|key| get(keys.row(key.as_str()))).collect();
                    let count = ops.len();
                    let mut answer = link.read("reading rows", ops).await?;
                    found.extend((0..count).filter_map(|n| answer.one(n)));
                }
                found
            }
        };
        let row = |kv: &etcd_client::KeyValue| {
            let key = keys.of_row(kv.key()).unwrap_or_default().parse();
            let key = key.map_err(|e| damaged(&link.place, kv.key(), &e))?;
            Ok((key, parse(&link.place, kv.key(), kv.value())?))
        };
        found.iter().map(row).collect()
    }
}

/// What stood at a key.
enum Stood {
    /// What stands there now.
    Now(RowRecord),
    /// What this revision wrote.
    Then(Revision),
}

impl Stood {
    fn revision(&self) -> Revision {
        match self {
            Self::Now(row) => row.revision,
            Self::Then(revision) => *revision,
        }
    }

    fn in_log(&self) -> bool {
        match self {
            Self::Now(row) => row.large.is_some(),
            Self::Then(_) => true,
        }
    }

    async fn whole(&self, link: &Link, keys: &Keys, key: &Key, past: &mut Past) -> Result<Row> {
        let (value, moved): (Option<Document>, _) = match self {
            Self::Now(row) if row.large.is_none() => {
                (row.value.as_ref().map(|text| text.0.clone()), row.moved.clone())
            }
            _ => {
                let change = past.change(link, keys, self.revision(), key).await?;
                (change.value, change.moved)
            }
        };
        Ok(Row { key: key.clone(), value, revision: self.revision(), moved })
    }
}

/// What stood at these keys as of `at`; what was not there yet is left out.
async fn stood(
    link: &Link,
    keys: &Keys,
    rows: Vec<(Key, RowRecord)>,
    at: Revision,
) -> Result<Vec<(Key, Stood)>> {
    let newer: Vec<Key> =
        rows.iter().filter(|(_, row)| row.revision > at).map(|(key, _)| key.clone()).collect();
    let mut then = VecDeque::new();
    for some in newer.chunks(OPS) {
        let ops = some.iter().map(|key| names(keys.versions(key, at), 1)).collect();
        let mut answer = link.read("reading versions", ops).await?;
        then.extend((0..some.len()).map(|n| answer.one(n).and_then(|kv| revision_of(kv.key()))));
    }
    let stood = rows.into_iter().filter_map(|(key, row)| match row.revision > at {
        false => Some((key, Stood::Now(row))),
        true => then.pop_front().flatten().map(|revision| (key, Stood::Then(revision))),
    });
    Ok(stood.collect())
}
