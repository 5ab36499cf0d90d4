//! Rows, now and as they stood.

use rusqlite::{Connection, Row as SqlRow, params};
use shoal_core::{Document, Epoch, Key, Range, Revision, Row};
use shoal_store::{Head, MAX_PAGE_BYTES, Page, Query, Result, StoreError};

use crate::fault::{Stop, damaged};

/// A number as SQLite keeps it; larger ones do not occur and sort last.
pub(crate) fn int(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// A revision as it was kept.
pub(crate) fn revision(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Revision> {
    row.get::<_, i64>(column).map(|n| Revision(n.unsigned_abs()))
}

/// A key as it was kept.
pub(crate) fn key(text: &str) -> Result<Key, Stop> {
    text.parse().map_err(damaged)
}

/// The database's identity and newest revision.
pub(crate) fn head(connection: &Connection) -> rusqlite::Result<Head> {
    newest(connection).map(|(head, _)| head)
}

/// The head, and the id that the next change gets.
pub(crate) fn newest(connection: &Connection) -> rusqlite::Result<(Head, i64)> {
    let sql = "SELECT m.epoch, coalesce(c.revision, 0), coalesce(c.first + c.count, 1) FROM meta m
        LEFT JOIN (SELECT revision, first, count FROM commits ORDER BY revision DESC LIMIT 1) c";
    connection.prepare_cached(sql)?.query_row([], |row| {
        let epoch = Epoch(row.get::<_, i64>(0)?.cast_unsigned());
        Ok((Head { epoch, revision: revision(row, 1)? }, row.get(2)?))
    })
}

/// The keys of a range as SQL sees them: from the first text on, before the second.
pub(crate) fn bounds(range: &Range, after: Option<&str>) -> (String, String) {
    let past = |text: &str| format!("{text}\0");
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
    let (from, to) = bounds(&query.range, query.after.as_ref().map(Key::as_str));
    let member = match &query.range {
        Range::Naming(member) => member.as_str(),
        Range::All | Range::Key(_) | Range::Prefix(_) => "",
    };
    let mut sql = connection.prepare_cached(sql(matches!(query.range, Range::Naming(_)), at == newest))?;
    let mut found = sql.query(params![from, to, query.tombstones, int(at), member])?;
    let mut page = Page { at, rows: Vec::new(), next: None };
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        let value: Option<&str> = row.get_ref(1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        bytes += value.map_or(0, str::len);
        if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
            page.next = page.rows.last().map(|row| row.key.clone());
            break;
        }
        let moved: Option<&str> = row.get_ref(3)?.as_str_or_null().map_err(rusqlite::Error::from)?;
        page.rows.push(Row {
            key: key(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?,
            value: value.map(Document::trusted),
            revision: revision(row, 2)?,
            moved: moved.map(key).transpose()?,
        });
    }
    Ok(page)
}

/// ?1 from, ?2 to, ?3 tombstones too, ?4 at, ?5 member. `CROSS JOIN` keeps the order of the loops.
fn sql(naming: bool, now: bool) -> &'static str {
    match (naming, now) {
        (false, true) => {
            "SELECT r.key, c.value, c.revision, c.moved FROM rows r CROSS JOIN changes c ON c.id = r.change
             WHERE r.key >= ?1 AND r.key < ?2 AND (?3 OR r.live) AND ?4 >= 0 AND ?5 = '' ORDER BY r.key"
        }
        (true, true) => {
            "SELECT r.key, c.value, c.revision, c.moved FROM naming n CROSS JOIN rows r ON r.key = n.key
             CROSS JOIN changes c ON c.id = r.change
             WHERE n.member = ?5 AND n.key >= ?1 AND n.key < ?2 AND (?3 OR r.live) AND ?4 >= 0 ORDER BY n.key"
        }
        (false, false) => {
            "SELECT r.key, c.value, c.revision, c.moved FROM rows r CROSS JOIN changes c ON c.id =
             (SELECT id FROM changes WHERE key = r.key AND revision <= ?4 ORDER BY revision DESC LIMIT 1)
             WHERE r.key >= ?1 AND r.key < ?2 AND (?3 OR c.value IS NOT NULL) AND ?5 = '' ORDER BY r.key"
        }
        (true, false) => {
            "SELECT n.key, c.value, c.revision, c.moved FROM naming n CROSS JOIN changes c ON c.id =
             (SELECT id FROM changes WHERE key = n.key AND revision <= ?4 ORDER BY revision DESC LIMIT 1)
             WHERE n.member = ?5 AND n.key >= ?1 AND n.key < ?2 AND (?3 OR c.value IS NOT NULL) ORDER BY n.key"
        }
    }
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
