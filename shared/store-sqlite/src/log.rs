//! The past: which commits wrote where, and what.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow, params};
use shoal_core::{Change, CommitInfo, Document, LogEntry, Range, Revision};
use shoal_store::parts::Where;
use shoal_store::{MAX_PAGE, MAX_PAGE_BYTES};

use crate::fault::{Stop, damaged};
use crate::read::{bounds, int, key, revision};

/// The most commits that a watcher reads at once, and about the most octets.
const BATCH: i64 = 512;
const BATCH_BYTES: usize = 8 << 20;
/// Commits of more changes than this are searched, not scanned, for the keys of a prefix.
const SCANNED: i64 = 16;

/// A commit without its changes: who, when and why; the id of its first change, and how many it has.
struct Head {
    info: CommitInfo,
    first: i64,
    count: i64,
}

fn commit(row: &SqlRow<'_>) -> Result<Head, Stop> {
    let time = Timestamp::from_millisecond(row.get(6)?).map_err(damaged)?;
    let info = CommitInfo {
        revision: revision(row, 0)?,
        author: row.get(3)?,
        principal: row.get(4)?,
        message: row.get(5)?,
        time,
    };
    Ok(Head { info, first: row.get(1)?, count: row.get(2)? })
}

fn change(row: &SqlRow<'_>) -> Result<Change, Stop> {
    let text = |column| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
    let name = text(0)?.ok_or_else(|| damaged("a change has no key"))?;
    Ok(Change {
        key: key(name)?,
        value: text(1)?.map(Document::trusted),
        moved: text(2)?.map(key).transpose()?,
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
    each_revision(connection, range, before.map_or(i64::MAX, int), |number| {
        if log.len() == limit {
            return Ok(false);
        }
        let sql = "SELECT revision, first, count, author, principal, message, time FROM commits WHERE revision = ?1";
        let mut sql = connection.prepare_cached(sql)?;
        let mut rows = sql.query([number])?;
        let row = rows.next()?.ok_or_else(|| damaged(format!("revision {number} has no commit")))?;
        let head = commit(row)?;
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

/// Calls `f` with the revisions below `before` that may have written in the range, newest first, for as long as it
/// answers yes.
pub(crate) fn each_revision(
    connection: &Connection,
    range: &Range,
    before: i64,
    mut f: impl FnMut(i64) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let (sql, name) = match Where::of(range) {
        Where::All => (
            "SELECT revision FROM commits WHERE revision < ?1 AND ?2 = '' ORDER BY revision DESC",
            String::new(),
        ),
        Where::Key(key) => (
            "SELECT revision FROM changes WHERE revision < ?1 AND key = ?2 ORDER BY revision DESC",
            key.to_string(),
        ),
        Where::Scope(name) | Where::Within(name) => {
            ("SELECT revision FROM scopes WHERE revision < ?1 AND scope = ?2 ORDER BY revision DESC", name)
        }
    };
    let mut sql = connection.prepare_cached(sql)?;
    let mut rows = sql.query(params![before, name])?;
    while let Some(row) = rows.next()? {
        if !f(row.get(0)?)? {
            break;
        }
    }
    Ok(())
}

/// The newest revision that wrote in the range.
pub(crate) fn last_write(connection: &Connection, range: &Range) -> Result<Option<Revision>, Stop> {
    let mut last = None;
    let exact = !matches!(Where::of(range), Where::Within(_));
    each_revision(connection, range, i64::MAX, |number| {
        let mut wrote = exact;
        if !wrote {
            let (from, to) = bounds(range, None);
            let sql = "SELECT 1 FROM changes WHERE key >= ?1 AND key < ?2 AND revision = ?3 LIMIT 1";
            wrote = connection.prepare_cached(sql)?.exists(params![from, to, number])?;
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
            let sql = "SELECT key, value, moved FROM changes WHERE key = ?1 AND revision = ?2";
            collect(connection, sql, params![key.as_str(), int(of.info.revision)])?
        }
        Range::Naming(member) if of.count > SCANNED => {
            let sql = "SELECT c.key, c.value, c.moved FROM naming n CROSS JOIN changes c
                ON c.key = n.key AND c.revision = ?2 WHERE n.member = ?1 ORDER BY n.key";
            collect(connection, sql, params![member.as_str(), int(of.info.revision)])?
        }
        Range::Prefix(_) if of.count > SCANNED => {
            let (from, to) = bounds(range, None);
            let from = search(connection, of.first, end, &from)?;
            collect(connection, by_ids, params![from, search(connection, from, end, &to)?])?
        }
        Range::All | Range::Prefix(_) | Range::Naming(_) => {
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

/// Whole commits after `after`, in order: some, at least one if there is one.
pub(crate) fn after(connection: &Connection, after: Revision) -> Result<Vec<Arc<LogEntry>>, Stop> {
    let sql = "SELECT revision, first, count, author, principal, message, time FROM commits
        WHERE revision > ?1 ORDER BY revision LIMIT ?2";
    let mut sql = connection.prepare_cached(sql)?;
    let mut rows = sql.query(params![int(after), BATCH])?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let head = commit(row)?;
        let changes = changes(connection, &Range::All, &head)?;
        let entry = LogEntry { info: head.info, changes };
        bytes += size(&entry);
        entries.push(Arc::new(entry));
        if bytes > BATCH_BYTES {
            break;
        }
    }
    Ok(entries)
}
