//! Rows, now and as they stood.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use shoal_core::{Document, Epoch, Key, Member, Range, Revision, Row};
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
        Range::All | Range::Naming(_) | Range::Concerning(_) => (String::new(), char::MAX.to_string()),
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
    let mut lookup = connection.prepare_cached("SELECT id, value, moved FROM changes WHERE id = ?1")?;
    // One key has few rows, most of which are older versions.
    let joined = matches!(query.range, Range::All | Range::Prefix(_));
    each_version(connection, query, int(at), joined, |found| {
        if !found.live && !query.tombstones {
            return Ok(true);
        }
        found.change(&mut lookup, |row, from| {
            let value: Option<&str> =
                row.get_ref(from + 1)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            bytes += value.map_or(0, str::len);
            if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
                page.next = page.rows.last().map(|row| row.key.clone());
                return Ok(false);
            }
            let moved: Option<&str> =
                row.get_ref(from + 2)?.as_str_or_null().map_err(rusqlite::Error::from)?;
            page.rows.push(Row {
                key: key(found.name)?,
                value: value.map(Document::trusted),
                revision: written(found.id),
                moved: moved.map(key).transpose()?,
            });
            Ok(true)
        })
    })?;
    Ok(page)
}

/// A key that a query asks for, and the change that stood there.
pub(crate) struct Found<'r> {
    pub(crate) name: &'r str,
    pub(crate) id: i64,
    /// Whether that was a value.
    pub(crate) live: bool,
    /// Where the walk has the change itself: its columns begin at [`BESIDE`], as those of a look-up do at 0.
    beside: Option<&'r rusqlite::Row<'r>>,
}

/// The first column of a change beside the walk: its id, and then its value.
const BESIDE: usize = 3;

impl Found<'_> {
    /// Calls `f` with the row that has the change, and the column in which it begins there: its id, then its value. What the walk has not,
    /// `lookup` selects by the id: the same columns, from the first.
    pub(crate) fn change<T>(
        &self,
        lookup: &mut rusqlite::Statement<'_>,
        f: impl FnOnce(&rusqlite::Row<'_>, usize) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut looked;
        let (row, from) = match self.beside {
            Some(row) => (row, BESIDE),
            None => {
                looked = lookup.query([self.id])?;
                (looked.next()?.ok_or_else(|| self.missing())?, 0)
            }
        };
        if row.get_ref(from)? == ValueRef::Null {
            return Err(self.missing());
        }
        f(row, from)
    }

    /// That there is no change where a version names one.
    fn missing(&self) -> Stop {
        damaged(format!("the change {} of {} is missing", self.id, self.name))
    }
}

/// The versions of a range of keys; the values are looked up.
const VERSIONS: &str =
    "SELECT key, change, live FROM versions WHERE key >= ?1 AND key < ?2 ORDER BY key, change DESC";
/// The same with the values: what was written together stands together, so that each is mostly right behind the last, and a
/// statement for each would cost several times as much. `LEFT`, so that a change that is missing is seen.
const JOINED: &str = "SELECT versions.key, change, live, id, value, changes.moved
    FROM versions LEFT JOIN changes ON id = change
    WHERE versions.key >= ?1 AND versions.key < ?2 ORDER BY versions.key, change DESC";

/// What is read with a walk, and whether that pays: the values of older versions, too, which nobody asked for.
#[derive(Default)]
struct Spent {
    asked: usize,
    passed: usize,
}

impl Spent {
    /// What a row costs beside its value, in octets that could be read instead.
    const ROW: usize = 256;
    /// How much may be read in vain before it is asked whether it pays.
    const FREE: usize = 16 << 10;

    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<usize> {
        Ok(match row.get_ref(BESIDE + 1)? {
            ValueRef::Text(octets) | ValueRef::Blob(octets) => Self::ROW + octets.len(),
            _ => Self::ROW,
        })
    }

    fn pays(&self) -> bool {
        self.passed <= self.asked + Self::FREE
    }
}

/// Calls `f` with each key that the query asks for, in order, and the change that stood there at the revision `at`; for as long as it
/// answers yes. With `joined` the values come with the walk, for as long as that pays.
pub(crate) fn each_version(
    connection: &Connection,
    query: &Query,
    at: i64,
    joined: bool,
    mut f: impl FnMut(Found<'_>) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let (mut from, to) = bounds(&query.range, query.after.as_ref().map(Key::as_str));
    let bound = first(at.saturating_add(1));
    if let Range::Naming(member) = &query.range {
        return each_naming(connection, member, (from.as_str(), to.as_str()), bound, f);
    }
    let mut joined = joined.then(Spent::default);
    let mut versions = connection.prepare_cached(if joined.is_some() { JOINED } else { VERSIONS })?;
    let (mut seen, mut stood, mut passed) = (String::new(), false, 0);
    'walk: loop {
        if joined.as_ref().is_some_and(|spent| !spent.pays()) {
            joined = None;
            versions = connection.prepare_cached(VERSIONS)?;
        }
        let mut rows = versions.query(params![from, to])?;
        while let Some(row) = rows.next()? {
            let name = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
            if name != seen {
                if name < seen.as_str() {
                    return Err(damaged(format!("the key {name} stands behind {seen}")));
                }
                let others = match &query.range {
                    Range::Concerning(_) => query.range.beyond(&key(name)?),
                    _ => None,
                };
                if let Some(beyond) = others {
                    from = beyond;
                    continue 'walk;
                }
                name.clone_into(&mut seen);
                (stood, passed) = (false, 0);
            }
            let id = row.get(1)?;
            if !stood && id < bound {
                stood = true;
                let beside = joined.is_some().then_some(row);
                if let Some(spent) = &mut joined {
                    spent.asked += Spent::of(row)?;
                }
                if !f(Found { name, id, live: row.get(2)?, beside })? {
                    return Ok(());
                }
                continue;
            }
            passed += 1;
            if let Some(spent) = &mut joined {
                spent.passed += Spent::of(row)?;
            }
            if passed < PASSED && joined.as_ref().is_none_or(Spent::pays) {
                continue;
            }
            // A key of many versions: found by looking it up, and the walk is taken up behind it.
            if !stood
                && let Some((id, live)) = version(connection, &seen, bound)?
                && !f(Found { name: &seen, id, live, beside: None })?
            {
                return Ok(());
            }
            from = past(&seen);
            continue 'walk;
        }
        return Ok(());
    }
}

/// The same of the keys that name a member, between two bounds.
fn each_naming(
    connection: &Connection,
    member: &Member,
    (from, to): (&str, &str),
    bound: i64,
    mut f: impl FnMut(Found<'_>) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let mut names = connection
        .prepare_cached("SELECT key FROM naming WHERE member = ?1 AND key >= ?2 AND key < ?3 ORDER BY key")?;
    let mut names = names.query(params![member.as_str(), from, to])?;
    while let Some(name) = names.next()? {
        let name = name.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        if let Some((id, live)) = version(connection, name, bound)?
            && !f(Found { name, id, live, beside: None })?
        {
            break;
        }
    }
    Ok(())
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
    use crate::schema;

    /// Keys of which each is written, or every third time removed, by every other revision, with values of so many octets.
    fn filled(keys: i64, revisions: i64, octets: usize) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(schema::CREATE).unwrap();
        connection.execute("INSERT INTO meta (id, epoch, claimed, scoped) VALUES (1, 1, 0, 0)", []).unwrap();
        for revision in 1..=revisions {
            for place in (0..keys).filter(|place| writes(revision, *place)) {
                let (id, key) = (first(revision) + place, format!("hosts/h{place:02}"));
                let value = value(revision, place, octets);
                let live = value.is_some();
                let sql = "INSERT INTO changes (id, key, value) VALUES (?1, ?2, ?3)";
                connection.execute(sql, params![id, key, value]).unwrap();
                let sql = "INSERT INTO versions (key, change, live) VALUES (?1, ?2, ?3)";
                connection.execute(sql, params![key, id, live]).unwrap();
            }
        }
        connection
    }

    fn writes(revision: i64, place: i64) -> bool {
        (revision + place) % 2 == 0
    }

    fn value(revision: i64, place: i64, octets: usize) -> Option<String> {
        (revision % 3 != 0).then(|| format!("{{\"id\":\"{revision}.{place}{}\"}}", "x".repeat(octets)))
    }

    /// All rows as of a revision, read in pages.
    fn all(
        connection: &Connection,
        at: i64,
        tombstones: bool,
        limit: usize,
    ) -> Vec<(String, Option<String>)> {
        let at = Some(Revision(at.unsigned_abs()));
        let mut query = Query { at, tombstones, ..Query::new(Range::hosts()) };
        let mut all = Vec::new();
        loop {
            let page = page(connection, &query, limit).unwrap();
            let text = |row: Row| (row.key.to_string(), row.value.map(|value| value.to_string()));
            all.extend(page.rows.into_iter().map(text));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return all,
            }
        }
    }

    #[test]
    fn a_range_is_what_stood_there_whether_its_values_come_with_the_walk_or_not() {
        // Few octets: the values come with the walk to its end. Many: it is given up among the older ones.
        for (keys, revisions, octets) in [(20, 7, 8), (20, 60, 8), (12, 40, 3_000)] {
            let connection = filled(keys, revisions, octets);
            for at in 1..=revisions {
                for (tombstones, limit) in [(false, 1000), (true, 1000), (true, 3)] {
                    let stood = |place| {
                        let wrote = (1..=at).rev().find(|revision| writes(*revision, place))?;
                        Some((format!("hosts/h{place:02}"), value(wrote, place, octets)))
                    };
                    let expected: Vec<_> = (0..keys)
                        .filter_map(stood)
                        .filter(|(_, value)| tombstones || value.is_some())
                        .collect();
                    let found = all(&connection, at, tombstones, limit);
                    assert!(found == expected, "{keys} {revisions} {octets} at {at}, {limit} at once");
                }
            }
        }
    }

    #[test]
    fn no_more_is_read_in_vain_than_was_asked_for() {
        let mut spent = Spent::default();
        assert!(spent.pays());
        spent.passed = Spent::FREE + 1;
        assert!(!spent.pays());
        spent.asked = 1;
        assert!(spent.pays());
    }

    #[test]
    fn a_change_that_is_missing_is_named_wherever_it_is_looked_for() {
        let connection = filled(4, 2, 8);
        connection.execute("DELETE FROM changes WHERE key = 'hosts/h02'", []).unwrap();
        for range in [Range::hosts(), Range::Key("hosts/h02".parse().unwrap())] {
            let stop = page(&connection, &Query::new(range.clone()), 1000).unwrap_err();
            let error = stop.at(std::path::Path::new("x.db"), "reading");
            let said = error.to_string();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{range}: {said}");
            assert!(said.contains("hosts/h02 is missing"), "{range}: {said}");
        }
    }

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
