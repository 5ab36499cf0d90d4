//! Rows, now and as they stood.
//!
//! A page is of one revision, but not of one moment: a row that was written since says so by its revision, and what stood
//! there before is looked up in the history. So pages need nothing of etcd's own history, which it throws away.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use shoal_core::{Document, Key, Range, Revision, Row};
use shoal_store::{MAX_PAGE, MAX_PAGE_BYTES, Page, Query, Result, StoreError};

use crate::history::{self, Past};
use crate::keys::{Keys, Span, end_of, revision_of};
use crate::known::naming;
use crate::link::{Found, Link, OPS, first, get, names};
use crate::record::{RowRecord, damaged, parse};

/// The most rows that are asked for at once. Etcd counts a range to its end for every page of it, so pages are large.
const AT_ONCE: usize = MAX_PAGE;
/// How many are, where most are passed over.
const FEW: usize = 64;
/// For how many rows the past is asked at once.
const PAST: usize = 16;

/// How many ends of pages are remembered.
const ENDS: usize = 64;

/// Where pages ended, and how much of their keys was the same from the first to the last.
///
/// Etcd counts a range to its end for every page of it, so reading all of a large range would cost its square. The next page is therefore asked
/// for up to the end of what starts as the last page did, and only then further: a character less, some times, then to the end of what starts the same
/// up to the `/` before. What is not remembered is asked for up to the end of the range: that costs time and is as right.
#[derive(Default)]
pub(crate) struct Pages(Mutex<VecDeque<(Vec<u8>, usize)>>);

impl Pages {
    fn ended(&self, keys: &Keys, page: &Page) {
        let (Some(first), Some(last)) = (page.rows.first(), &page.next) else { return };
        let (first, last) = (keys.row(first.key.as_str()), keys.row(last.as_str()));
        let same = first.iter().zip(&last).take_while(|(a, b)| a == b).count();
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push_back((last, same));
        if ends.len() > ENDS {
            ends.pop_front();
        }
    }

    fn same(&self, last: &[u8]) -> Option<usize> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().rev().find(|(key, _)| key == last).map(|(_, same)| *same)
    }
}

/// See [`Store::read`](shoal_store::Store::read).
pub(crate) async fn page(
    link: &Link,
    keys: &Keys,
    pages: &Pages,
    query: &Query,
    limit: usize,
) -> Result<Page> {
    let newest = history::head(link, keys).await?.0.revision;
    let at = query.at.unwrap_or(newest);
    if at > newest {
        return Err(StoreError::Future { asked: at, newest });
    }
    let mut page = Page { at, rows: Vec::new(), next: None };
    let (mut bytes, mut past) = (0, Past::default());
    let mut walk = Walk::new(link, keys, pages, query).await?;
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
                    pages.ended(keys, &page);
                    return Ok(page);
                }
                page.rows.push(row);
            }
        }
    }
}

/// The rows of a range in order, some at a time.
enum Walk {
    Range(Span, Option<Near>),
    /// What of it is in a range that holds only some of it.
    Among(Range, Span),
    Keys(VecDeque<Key>),
    Done,
}

/// Up to where it is looked first: to the end of what starts as so much of this key.
struct Near {
    key: Vec<u8>,
    same: usize,
    /// How often it was looked further.
    steps: usize,
}

/// How often it is looked only a character further. Names that are counted go on there; where they do not, each look finds nothing.
const STEPS: usize = 3;

impl Near {
    fn end(&self) -> Vec<u8> {
        end_of(self.key[..self.same].to_vec())
    }

    /// Further.
    fn wider(self) -> Option<Self> {
        let less = self.same.checked_sub(1)?;
        let slash = || self.key[..less].iter().rposition(|octet| *octet == b'/').map(|at| at + 1);
        let same = if self.steps < STEPS { Some(less).filter(|less| *less > 0) } else { slash() };
        same.map(|same| Self { key: self.key, same, steps: self.steps + 1 })
    }
}

impl Walk {
    async fn new(link: &Link, keys: &Keys, pages: &Pages, query: &Query) -> Result<Self> {
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
            Range::All | Range::Concerning(_) => "",
            Range::Prefix(prefix) => prefix,
        };
        let ((mut from, to), mut near) = (keys.rows(prefix), None);
        if let Some(after) = after.filter(|after| *after >= prefix) {
            from = keys.row(after);
            near = pages.same(&from).map(|same| Near { key: from.clone(), same, steps: 0 });
            from.push(0);
        }
        Ok(match &query.range {
            _ if from >= to => Self::Done,
            range @ Range::Concerning(_) => Self::Among(range.clone(), (from, to)),
            _ => Self::Range((from, to), near),
        })
    }

    /// The next rows, about as many as are wanted; none at the end.
    async fn next(&mut self, link: &Link, keys: &Keys, wanted: usize) -> Result<Vec<(Key, RowRecord)>> {
        let wanted = wanted.clamp(PAST, AT_ONCE);
        let found = match self {
            Self::Done => return Ok(Vec::new()),
            Self::Range((from, to), near) => loop {
                let end = near.as_ref().map_or_else(|| to.clone(), |near| near.end().min(to.clone()));
                let mut found = Found::default();
                if *from < end {
                    let ops = vec![first((from.clone(), end.clone()), wanted)];
                    found = link.read("reading rows", ops).await?.take(0);
                }
                match found.kvs.last() {
                    Some(last) if found.more => {
                        *from = last.key().to_vec();
                        from.push(0);
                    }
                    _ if end == *to => *self = Self::Done,
                    _ => {
                        *from = end;
                        *near = near.take().and_then(Near::wider);
                        if found.kvs.is_empty() {
                            continue;
                        }
                    }
                }
                break found.kvs;
            },
            Self::Among(range, (from, to)) => {
                let mut kept = Vec::new();
                while kept.is_empty() && from < to {
                    let ops = vec![first((from.clone(), to.clone()), FEW)];
                    let found = link.read("reading rows", ops).await?.take(0);
                    let more = found.more;
                    for kv in found.kvs {
                        // What is passed over came along.
                        if kv.key() < &from[..] {
                            continue;
                        }
                        *from = kv.key().to_vec();
                        from.push(0);
                        let key: Key = keys
                            .of_row(kv.key())
                            .unwrap_or_default()
                            .parse()
                            .map_err(|e| damaged(&link.place, kv.key(), &e))?;
                        match range.beyond(&key) {
                            Some(beyond) => *from = keys.row(&beyond),
                            None if range.contains(&key) => kept.push(kv),
                            None => {}
                        }
                    }
                    if !more {
                        from.clone_from(to);
                    }
                }
                kept
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Most steps end where a part of a name does: each of them is a question, and names may be long.
    #[test]
    fn it_is_looked_further_in_few_steps() {
        let key = b"x/row/dns/example.com/members/web-0001.example.com".to_vec();
        let mut near = Some(Near { same: key.len() - 10, key, steps: 0 });
        let mut seen = Vec::new();
        while let Some(now) = near {
            seen.push(String::from_utf8(now.key[..now.same].to_vec()).unwrap());
            near = now.wider();
        }
        let (some, rest) = seen.split_at(STEPS + 1);
        let name = "x/row/dns/example.com/members/web-0001.e";
        assert_eq!(some, [0, 1, 2, 3].map(|less| &name[..name.len() - less]));
        let parts =
            ["x/row/dns/example.com/members/", "x/row/dns/example.com/", "x/row/dns/", "x/row/", "x/"];
        assert_eq!(rest, parts);
        // One that is counted is found a step further, and not at the end of all.
        let key = b"x/row/lb/web0999".to_vec();
        let near = Near { same: key.len() - 3, key, steps: 0 };
        assert_eq!(near.wider().unwrap().end(), b"x/row/lb/wec");
    }
}
