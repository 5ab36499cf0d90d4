//! The past: which commits wrote where, and what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, params};
use shoal_core::{Change, CommitInfo, Document, Key, LogEntry, Range, Revision};
use shoal_store::parts::{Found, Where};
use shoal_store::{Filter, MAX_PAGE, MAX_PAGE_BYTES};

use crate::fault::{Stop, damaged};
use crate::read::{self, bounds, int, key, written};
use crate::schema::{UNSEEN, first, revision_of};
use crate::scopes;

/// The most commits that a watcher reads at once, and about the most octets.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 << 20;
/// The columns that say what a commit is.
const COMMIT: &str = "id, count, time, author, principal, origin, message";
/// The most commits of one range that a filtered watcher reads at once.
const FEW: usize = 64;
/// Commits of more changes than this are searched, not scanned, for the keys of a prefix.
const SCANNED: i64 = 16;

/// A commit without its changes: who, when and why; the id of its first change, and how many it has.
struct Head {
    info: CommitInfo,
    first: i64,
    count: i64,
}

/// What the first change of a commit says of it, in the columns of [`COMMIT`].
fn commit(row: &SqlRow<'_>) -> Result<Head, Stop> {
    let first: i64 = row.get(0)?;
    let revision = written(first);
    let (count, time): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
    let (Some(count), Some(time)) = (count, time) else {
        return Err(damaged(format!("revision {revision} has no commit")));
    };
    let info = CommitInfo {
        revision,
        author: row.get(3)?,
        principal: row.get(4)?,
        origin: row.get(5)?,
        message: row.get(6)?,
        time: Timestamp::from_millisecond(time).map_err(damaged)?,
    };
    Ok(Head { info, first, count })
}

fn change(row: &SqlRow<'_>) -> Result<Change, Stop> {
    let text = |column: &str| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
    let name = text("key")?.ok_or_else(|| damaged("a change has no key"))?;
    Ok(Change {
        key: key(name)?,
        value: text("value")?.map(Document::trusted),
        moved: text("moved")?.map(key).transpose()?,
    })
}

fn size(entry: &LogEntry) -> usize {
    entry.changes.iter().map(|c| c.value.as_ref().map_or(0, |v| v.as_str().len())).sum()
}

/// See [`Store::log`](shoal_store::Store::log).
pub(crate) fn log(
    connection: &Connection,
    range: &Range,
    before: Option<Revision>,
    limit: usize,
) -> Result<Vec<LogEntry>, Stop> {
    let (mut log, mut bytes) = (Vec::new(), 0);
    let limit = limit.min(MAX_PAGE);
    let newest = int(read::head(connection)?.revision);
    each_revision(connection, range, before.map_or(i64::MAX, int).min(newest + 1), |number| {
        if log.len() == limit {
            return Ok(false);
        }
        let head = numbered(connection, number)?;
        let changes = changes(connection, range, &head)?;
        if changes.is_empty() {
            return Ok(true); // a deep prefix, and this commit wrote beside it
        }
        let entry = LogEntry { info: head.info, changes };
        bytes += size(&entry);
        if bytes > MAX_PAGE_BYTES && !log.is_empty() {
            return Ok(false);
        }
        log.push(entry);
        Ok(true)
    })?;
    Ok(log)
}

fn numbered(connection: &Connection, number: i64) -> Result<Head, Stop> {
    let mut sql = connection.prepare_cached(&format!("SELECT {COMMIT} FROM changes WHERE id = ?1"))?;
    let mut rows = sql.query([first(number)])?;
    commit(rows.next()?.ok_or_else(|| damaged(format!("revision {number} has no commit")))?)
}

/// Calls `f` with the revisions below `before` that may have written in the range, newest first, for as long as it
/// answers yes. What is newer than the head is not for anybody: `before` leaves it out.
pub(crate) fn each_revision(
    connection: &Connection,
    range: &Range,
    before: i64,
    mut f: impl FnMut(i64) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    match Where::of(range) {
        Where::All => {
            let mut sql = connection.prepare_cached("SELECT max(id) FROM changes WHERE id < ?1")?;
            let mut bound = first(before);
            while let Some(id) = sql.query_row([bound], |row| row.get::<_, Option<i64>>(0))? {
                let number = revision_of(id);
                if !f(number)? {
                    break;
                }
                bound = first(number);
            }
            Ok(())
        }
        Where::Key(key) => {
            let sql = "SELECT change FROM versions WHERE key = ?1 AND change < ?2 ORDER BY change DESC";
            let mut sql = connection.prepare_cached(sql)?;
            let mut rows = sql.query(params![key.as_str(), first(before)])?;
            while let Some(row) = rows.next()? {
                if !f(revision_of(row.get(0)?))? {
                    break;
                }
            }
            Ok(())
        }
        Where::Scope(name) | Where::Within(name) => scopes::each(connection, &name, before, f),
    }
}

/// The newest revision below `before` that wrote in the range.
pub(crate) fn last_write(
    connection: &Connection,
    range: &Range,
    before: i64,
) -> Result<Option<Revision>, Stop> {
    let mut last = None;
    let exact = !matches!(Where::of(range), Where::Within(_));
    each_revision(connection, range, before, |number| {
        let mut wrote = exact;
        if !wrote {
            let (from, to) = bounds(range, None);
            let sql = "SELECT 1 FROM versions WHERE key >= ?1 AND key < ?2 AND change >= ?3 AND change < ?4 LIMIT 1";
            let ids = (first(number), first(number + 1));
            wrote = connection.prepare_cached(sql)?.exists(params![from, to, ids.0, ids.1])?;
        }
        if wrote {
            last = Some(Revision(number.unsigned_abs()));
        }
        Ok(!wrote)
    })?;
    Ok(last)
}

/// What a commit wrote in the range, in key order.
fn changes(connection: &Connection, range: &Range, of: &Head) -> Result<Vec<Change>, Stop> {
    let by_ids = "SELECT key, value, moved FROM changes WHERE id >= ?1 AND id < ?2 ORDER BY id";
    let end = of.first + of.count;
    let mut found = match range {
        Range::Key(key) => {
            let sql = "SELECT c.key, c.value, c.moved FROM versions v CROSS JOIN changes c ON c.id = v.change
                WHERE v.key = ?1 AND v.change >= ?2 AND v.change < ?3";
            collect(connection, sql, params![key.as_str(), of.first, end])?
        }
        Range::Naming(member) if of.count > SCANNED => {
            let sql = "SELECT c.key, c.value, c.moved FROM naming n
                CROSS JOIN versions v ON v.key = n.key AND v.change >= ?2 AND v.change < ?3
                CROSS JOIN changes c ON c.id = v.change WHERE n.member = ?1 ORDER BY n.key";
            collect(connection, sql, params![member.as_str(), of.first, end])?
        }
        Range::Prefix(_) if of.count > SCANNED => {
            let (from, to) = bounds(range, None);
            let from = search(connection, of.first, end, &from)?;
            collect(connection, by_ids, params![from, search(connection, from, end, &to)?])?
        }
        Range::All | Range::Prefix(_) | Range::Naming(_) | Range::Concerning(_) => {
            collect(connection, by_ids, params![of.first, end])?
        }
    };
    found.retain(|c| range.contains(&c.key));
    Ok(found)
}

fn collect(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Change>, Stop> {
    let mut sql = connection.prepare_cached(sql)?;
    let mut rows = sql.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(change(row)?);
    }
    Ok(found)
}

/// The first id in `first..end` whose key is not below `bound`: a commit's changes stand in key order.
fn search(connection: &Connection, mut first: i64, mut end: i64, bound: &str) -> Result<i64, Stop> {
    let mut sql = connection.prepare_cached("SELECT key < ?2 FROM changes WHERE id = ?1")?;
    while first < end {
        let middle = first + (end - first) / 2;
        if sql.query_row(params![middle, bound], |row| row.get(0))? {
            first = middle + 1;
        } else {
            end = middle;
        }
    }
    Ok(first)
}

/// See [`History::passing`](shoal_store::parts::History::passing): a look-up for each range of the filter, and one for each commit that
/// passes.
pub(crate) fn passing(
    connection: &Connection,
    filter: &Filter,
    after: Revision,
    upto: Revision,
) -> Result<Option<Found>, Stop> {
    // What is newer than that the scopes do not say.
    let mut looked = int(upto).min(read::stand(connection)?.scoped);
    if looked <= int(after) {
        return Ok(None);
    }
    let (from, mut numbers) = (int(after) + 1, BTreeSet::new());
    for range in &filter.ranges {
        let found = match Where::of(range) {
            Where::All => return Ok(None),
            Where::Key(key) => few_versions(connection, &key, from, looked)?,
            Where::Scope(name) | Where::Within(name) => scopes::few(connection, &name, from, looked, FEW)?,
        };
        // There may be more, and nothing is known of what comes after these.
        if let Some(last) = found.last().filter(|_| found.len() == FEW) {
            looked = looked.min(*last);
        }
        numbers.extend(found);
    }
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for number in numbers.into_iter().take_while(|number| *number <= looked) {
        let head = numbered(connection, number)?;
        let mut passing = BTreeMap::new();
        for range in &filter.ranges {
            let changes = changes(connection, range, &head)?;
            passing.extend(changes.into_iter().map(|change| (change.key.clone(), change)));
        }
        if passing.is_empty() {
            continue; // a deep prefix, and this commit wrote beside it
        }
        let entry = LogEntry { info: head.info, changes: passing.into_values().collect() };
        bytes += size(&entry);
        entries.push(Arc::new(entry));
        if bytes > BATCH_BYTES || entries.len() == FEW {
            return Ok(Some((entries, Revision(number.unsigned_abs()))));
        }
    }
    Ok(Some((entries, Revision(looked.unsigned_abs()))))
}

/// The first revisions in `from..=upto` that wrote the key, in order.
fn few_versions(connection: &Connection, key: &Key, from: i64, upto: i64) -> Result<Vec<i64>, Stop> {
    let sql = "SELECT change FROM versions WHERE key = ?1 AND change >= ?2 AND change < ?3
        ORDER BY change LIMIT ?4";
    let mut sql = connection.prepare_cached(sql)?;
    let found =
        sql.query_map(params![key.as_str(), first(from), first(upto + 1), FEW as i64], |row| row.get(0))?;
    Ok(found.map(|id| id.map(revision_of)).collect::<Result<_, _>>()?)
}

/// Whole commits after `after`, in order: some, at least one if there is one.
pub(crate) fn after(connection: &Connection, after: Revision) -> Result<Vec<Arc<LogEntry>>, Stop> {
    let sql = format!(
        "SELECT {COMMIT}, key, value, moved FROM changes WHERE id >= ?1 AND id < {UNSEEN} ORDER BY id"
    );
    let mut sql = connection.prepare_cached(&sql)?;
    let mut rows = sql.query([first(int(after).saturating_add(1))])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let Head { info, first, count } = commit(row)?;
        let mut entry = LogEntry { info, changes: vec![change(row)?] };
        for place in 1..count {
            let next = rows.next()?.filter(|row| row.get(0) == Ok(first + place));
            let next = next.ok_or_else(|| {
                damaged(format!(
                    "revision {} should have {count} changes, {place} are there",
                    entry.info.revision
                ))
            })?;
            entry.changes.push(change(next)?);
        }
        bytes += size(&entry);
        entries.push(Arc::new(entry));
        if bytes > BATCH_BYTES || entries.len() == BATCH {
            break;
        }
    }
    Ok(entries)
}
