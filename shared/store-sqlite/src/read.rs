//! Rows, now and as they stood.

use rusqlite::{Connection, OptionalExtension, params};
use shoal_core::{Document, Epoch, Key, Range, Revision, Row};
use shoal_store::{Head, MAX_PAGE_BYTES, Page, Query, Result, StoreError};

use crate::fault::{Stop, damaged};
use crate::schema::{first, revision_of};

/// So many versions of one key are passed over before it is looked up instead.
const PASSED: usize = 16;

/// A number as SQLite keeps it; larger ones do not occur and sort last.
pub(crate) fn int(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A key as it was kept.
pub(crate) fn key(text: &str) -> Result<Key, Stop> {
    text.parse().map_err(damaged)
}

/// The revision that wrote the change `id`.
pub(crate) fn written(id: i64) -> Revision {
    Revision(revision_of(id).unsigned_abs())
}

/// How the database stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stand {
    pub(crate) head: Head,
    /// Up to which revision the scopes are filed.
    pub(crate) scoped: i64,
    /// The revision of the large commit that is being written, if one is.
    pub(crate) staged: Option<i64>,
}

/// The database's identity and newest revision.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    stand(connection).map(|stand| stand.head)
}

/// How the database stands: one look-up behind another, as every transaction begins with it.
pub(crate) fn stand(connection: &Connection) -> rusqlite::Result<Stand> {
    let sql = "SELECT epoch, scoped, staged,
        (SELECT max(id) FROM changes WHERE id < ifnull(staged << 20, 9223372036854775807)) FROM meta";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let epoch = Epoch(row.get::<_, i64>(0)?.cast_unsigned());
        let revision = written(row.get::<_, Option<i64>>(3)?.unwrap_or(0));
        Ok(Stand { head: Head { epoch, revision }, scoped: row.get(1)?, staged: row.get(2)? })
    })
}

/// The keys of a range as SQL sees them: from the first text on, before the second.
pub(crate) fn bounds(range: &Range, after: Option<&str>) -> (String, String) {
    let (from, to) = match range {
        Range::All | Range::Naming(_) => (String::new(), char::MAX.to_string()),
        Range::Key(key) => (key.to_string(), past(key.as_str())),
        Range::Prefix(prefix) => (prefix.clone(), end_of(prefix)),
    };
    match after {
        Some(after) if after >= from.as_str() => (past(after), to),
        _ => (from, to),
    }
}

/// The first text behind this one.
fn past(text: &str) -> String {
    format!("{text}\0")
}

/// A text that sorts after everything that starts with `prefix`.
pub(crate) fn end_of(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// One page. `limit` was checked.
pub(crate) fn page(connection: &Connection, query: &Query, limit: usize) -> Result<Page, Stop> {
    let newest = head(connection)?.revision;
    let at = query.at.unwrap_or(newest);
    if at > newest {
        return Err(StoreError::Future { asked: at, newest }.into());
    }
    let mut page = Page { at, rows: Vec::new(), next: None };
    let mut bytes = 0;
    let mut value = connection.prepare_cached("SELECT value, moved FROM changes WHERE id = ?1")?;
    each_version(connection, query, int(at), |name, id, live| {
        if !live && !query.tombstones {
            return Ok(true);
        }
        let mut found = value.query([id])?;
        let row = found.next()?.ok_or_else(|| damaged(format!("the change {id} of {name} is missing")))?;
        let value: Option<&str> = row.get_ref(0)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        bytes += value.map_or(0, str::len);
        if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
            page.next = page.rows.last().map(|row| row.key.clone());
            return Ok(false);
        }
        let moved: Option<&str> = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        page.rows.push(Row {
            key: key(name)?,
            value: value.map(Document::trusted),
            revision: written(id),
            moved: moved.map(key).transpose()?,
        });
        Ok(true)
    })?;
    Ok(page)
}

/// Calls `f` with each key that the query asks for, in order, the change that stood there at the revision `at`, and whether
/// that was a value; for as long as it answers yes.
fn each_version(
    connection: &Connection,
    query: &Query,
    at: i64,
    mut f: impl FnMut(&str, i64, bool) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let (mut from, to) = bounds(&query.range, query.after.as_ref().map(Key::as_str));
    let bound = first(at.saturating_add(1));
    if let Range::Naming(member) = &query.range {
        let mut names = connection.prepare_cached(
            "SELECT key FROM naming WHERE member = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
        )?;
        let mut names = names.query(params![member.as_str(), from, to])?;
        while let Some(name) = names.next()? {
            let name = name.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if let Some((id, live)) = version(connection, name, bound)?
                && !f(name, id, live)?
            {
                break;
            }
        }
        return Ok(());
    }
    let mut versions = connection.prepare_cached(
        "SELECT key, change, live FROM versions WHERE key >= ?1 AND key < ?2 ORDER BY key, change DESC",
    )?;
    let (mut seen, mut stood, mut passed) = (String::new(), false, 0);
    'walk: loop {
        let mut rows = versions.query(params![from, to])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if name != seen {
                name.clone_into(&mut seen);
                (stood, passed) = (false, 0);
            }
            let id = row.get(1)?;
            if !stood && id < bound {
                stood = true;
                if !f(name, id, row.get(2)?)? {
                    return Ok(());
                }
                continue;
            }
            passed += 1;
            if passed < PASSED {
                continue;
            }
            // A key of many versions: found by looking it up, and the walk is taken up behind it.
            if !stood
                && let Some((id, live)) = version(connection, &seen, bound)?
                && !f(&seen, id, live)?
            {
                return Ok(());
            }
            from = past(&seen);
            continue 'walk;
        }
        return Ok(());
    }
}

/// The newest change of `key` below the id `bound`, and whether it is a value.
pub(crate) fn version(connection: &Connection, key: &str, bound: i64) -> Result<Option<(i64, bool)>, Stop> {
    let sql = "SELECT change, live FROM versions WHERE key = ?1 AND change < ?2 ORDER BY change DESC LIMIT 1";
    let mut sql = connection.prepare_cached(sql)?;
    Ok(sql.query_row(params![key, bound], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_what_the_range_contains() {
        let keys = ["dns/a", "dns/a/members/x", "dns/b", "dnsx/a", "hosts/a", "hosts/é"];
        let prefixes = ["", "dns/", "dns/a/", "hosts/"].map(|p| Range::Prefix(p.into()));
        let ones = ["dns/a", "hosts/a"].map(|k| Range::Key(k.parse().unwrap()));
        for range in prefixes.iter().chain(&ones) {
            for text in keys {
                let inside = match range {
                    Range::Prefix(prefix) => text.starts_with(prefix.as_str()),
                    other => other.to_string() == text,
                };
                let (from, to) = bounds(range, None);
                assert_eq!(*text >= *from && *text < *to, inside, "{range} {text}");
                let (from, to) = bounds(range, Some("dns/a"));
                assert_eq!(*text >= *from && *text < *to, inside && text > "dns/a", "{range} {text} after");
            }
        }
    }
}
