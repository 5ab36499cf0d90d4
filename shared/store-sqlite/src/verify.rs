//! A look at everything in the file, also while it is in use: whether it is what was written.
//!
//! SQLite's own check comes first (pages, its indexes, constraints), then what only this store knows: every row of the history
//! decodes, every commit has its changes, what stands now is what the history says, and the indexes of our own (`naming`,
//! `scopes`) hold every row and nothing else. All of it is as of one moment. Nothing is changed, and the check goes on after
//! what it finds, as far as the file can be read.
//!
//! Costs a reading of the whole file, some seconds a million changes, and little memory.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};
use serde::de::IgnoredAny;
use shoal_core::{Document, HostRecord, Key, Kind, Status, TagRecord};
use shoal_store::parts::scopes;
use shoal_store::{Head, Result, StoreError};

use crate::copies::{exists, look_at, open};
use crate::fault::Stop;
use crate::open::{absolute, marks, recognise};
use crate::read;

/// How many faults are named.
const NAMED: usize = 100;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which row: its key and revision, or the part of the file.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// As of when; `None`: it cannot be read.
    pub head: Option<Head>,
    /// Commits that were looked at.
    pub commits: u64,
    /// Changes that were looked at.
    pub changes: u64,
    /// Keys at which something stands or stood.
    pub rows: u64,
    /// The first faults.
    pub damage: Vec<Damage>,
    /// How many faults there are; where part of the file cannot be read, there may be more.
    pub damage_total: u64,
}

impl Verified {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage_total == 0
    }

    fn found(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.damage_total += 1;
        if self.damage.len() < NAMED {
            self.damage.push(Damage { place: place.into(), what: what.into() });
        }
    }
}

/// Looks at everything in the database, or the backup, in the file `path`. `progress` is told how many changes of how many
/// were looked at. Blocks.
///
/// # Errors
/// What is not a Shoal database, or cannot be opened. Damage is not an error.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified> {
    let path = absolute(path)?;
    if !exists(&path)? {
        return Err(StoreError::Invalid(format!(
            "there is no database at {}: mend the path",
            path.display()
        )));
    }
    look_at(&path)?;
    let mut checked = || -> Result<Verified, Stop> {
        let connection = open(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(crate::open::BUSY)?;
        let (application, version) = marks(&connection)?;
        recognise(&path, application, version)?;
        let moment = connection.unchecked_transaction()?;
        let mut verified = Verified::default();
        let steps: [(&str, Step); 7] = [
            ("the file", file),
            ("the head", head),
            ("the history", history),
            ("the commits", commits),
            ("what stands now", standing),
            ("the indexes", indexes),
            ("the reports of agents", reports),
        ];
        for (what, step) in steps {
            if let Err(stop) = step(&moment, &mut verified, progress) {
                verified.found(what, format!("cannot be read: {}", said(stop)));
            }
        }
        Ok(verified)
    };
    checked().map_err(|stop| stop.at(&path, "checking it"))
}

type Step = fn(&Connection, &mut Verified, &mut dyn FnMut(u64, u64)) -> Result<(), Stop>;

fn count(connection: &Connection, table: &str) -> rusqlite::Result<u64> {
    let sql = format!("SELECT count(*) FROM {table}");
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}

fn said(stop: Stop) -> String {
    match stop {
        Stop::Refused(error) => error.to_string(),
        Stop::Sql(error) => error.to_string(),
    }
}

fn file(connection: &Connection, verified: &mut Verified, _: &mut dyn FnMut(u64, u64)) -> Result<(), Stop> {
    let mut sql = connection.prepare(&format!("PRAGMA integrity_check({NAMED})"))?;
    let mut found = sql.query([])?;
    while let Some(row) = found.next()? {
        let said: String = row.get(0)?;
        // One answer may hold several lines, the first of which names the database.
        for line in said.lines().filter(|line| *line != "ok" && !line.starts_with("***")) {
            verified.found("the file", line);
        }
    }
    Ok(())
}

fn head(connection: &Connection, verified: &mut Verified, _: &mut dyn FnMut(u64, u64)) -> Result<(), Stop> {
    verified.head = Some(read::head(connection)?);
    Ok(())
}

/// Every change decodes, is of a commit, and is filed where it can be found.
fn history(
    connection: &Connection,
    verified: &mut Verified,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let of = count(connection, "changes")?;
    let mut all = connection.prepare(
        "SELECT c.id, c.revision, c.key, c.value, c.moved, m.first, m.count FROM changes c
         LEFT JOIN commits m ON m.revision = c.revision ORDER BY c.id",
    )?;
    let mut filed =
        connection.prepare("SELECT EXISTS (SELECT 1 FROM scopes WHERE scope = ?1 AND revision = ?2)")?;
    let mut changes = all.query([])?;
    let (mut touched, mut scoped, mut now): (BTreeSet<String>, u64, i64) = (BTreeSet::new(), 0, i64::MIN);
    while let Some(row) = changes.next()? {
        verified.changes += 1;
        if verified.changes.is_multiple_of(1000) {
            progress(verified.changes, of);
        }
        let (id, revision): (i64, i64) = (row.get(0)?, row.get(1)?);
        let text = String::from_utf8_lossy(row.get_ref(2)?.as_bytes().unwrap_or_default()).into_owned();
        let place = format!("{text} at revision {revision}");
        let value = row.get_ref(3)?.as_bytes_or_null().map_err(rusqlite::Error::from)?;
        let moved: Option<String> = row.get(4)?;
        if revision != now {
            scoped += touched.len() as u64;
            (touched, now) = (BTreeSet::new(), revision);
        }
        let range: (Option<i64>, Option<i64>) = (row.get(5)?, row.get(6)?);
        match range {
            (Some(first), Some(count)) if (first..first + count).contains(&id) => {}
            (Some(_), _) => verified.found(&place, "it does not stand among the changes of its commit"),
            (None, _) => verified.found(&place, "its commit is missing"),
        }
        let key: Key = match text.parse() {
            Ok(key) => key,
            Err(error) => {
                verified.found(&place, format!("its key is none: {error}"));
                continue;
            }
        };
        if let Some(why) = value.and_then(|value| undecoded(&key, value)) {
            verified.found(&place, why);
        }
        if moved.is_some_and(|other| other.parse::<Key>().is_err()) {
            verified.found(&place, "the other end of its renaming is no key");
        }
        for scope in scopes(&key) {
            if touched.contains(&scope) {
                continue;
            }
            let there: bool = filed.query_row(params![scope, revision], |row| row.get(0))?;
            if !there {
                verified.found(&place, format!("the index `scopes` does not have it under {scope}"));
            }
            touched.insert(scope);
        }
    }
    scoped += touched.len() as u64;
    let there = count(connection, "scopes")?;
    if there > scoped {
        verified
            .found("the index `scopes`", format!("{} of its entries belong to no change", there - scoped));
    }
    Ok(())
}

/// Why a value is none of its key's kind.
fn undecoded(key: &Key, value: &[u8]) -> Option<String> {
    let Ok(text) = std::str::from_utf8(value) else { return Some("its value is not UTF-8".to_owned()) };
    let decoded = match key.kind() {
        Kind::Host(_) => serde_json::from_str::<HostRecord>(text).map(drop),
        Kind::Tag(_) => serde_json::from_str::<TagRecord>(text).map(drop),
        _ => serde_json::from_str::<IgnoredAny>(text).map(drop),
    };
    if let Err(error) = decoded {
        return Some(format!("its value cannot be read: {error}"));
    }
    // Documents are compact, or equal ones would not be equal.
    match Document::parse(text) {
        Ok(document) if document.as_str() == text => None,
        _ => Some("its value is not written as documents are".to_owned()),
    }
}

/// Commits follow each other, each with all of its changes.
fn commits(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let mut all = connection.prepare("SELECT revision, first, count FROM commits ORDER BY revision")?;
    let mut there =
        connection.prepare("SELECT count(*) FROM changes WHERE id >= ?1 AND id < ?2 AND revision = ?3")?;
    let mut found = all.query([])?;
    let mut next: Option<i64> = None;
    while let Some(row) = found.next()? {
        verified.commits += 1;
        let (revision, first, count): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let place = format!("the commit of revision {revision}");
        if next.is_some_and(|next| next != first) {
            verified.found(&place, "its changes do not follow those of the commit before it");
        }
        next = Some(first + count);
        let has: i64 = there.query_row(params![first, first + count, revision], |row| row.get(0))?;
        if has != count {
            verified.found(&place, format!("it should have {count} changes, {has} are there"));
        }
    }
    Ok(())
}

/// What stands at each key is the newest of its history.
fn standing(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    verified.rows = count(connection, "rows")?;
    let mut wrong = connection.prepare(
        "SELECT r.key, c.key IS NULL, c.key IS NOT r.key OR c.revision IS NOT r.revision,
                (c.value IS NOT NULL) IS NOT (r.live <> 0)
         FROM rows r LEFT JOIN changes c ON c.id = r.change
         WHERE c.key IS NOT r.key OR c.revision IS NOT r.revision OR (c.value IS NOT NULL) IS NOT (r.live <> 0)",
    )?;
    let mut found = wrong.query([])?;
    while let Some(row) = found.next()? {
        let (key, missing, other): (String, bool, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let what = match (missing, other) {
            (true, _) => "what stands there now is not in the history",
            (_, true) => "what stands there now is the history of something else",
            _ => "it is deleted in the history and stands now, or the other way round",
        };
        verified.found(key, what);
    }
    let mut older = connection.prepare(
        "SELECT h.key, h.newest, r.revision FROM (SELECT key, max(revision) AS newest FROM changes GROUP BY key) h
         LEFT JOIN rows r ON r.key = h.key WHERE r.revision IS NOT h.newest",
    )?;
    let mut found = older.query([])?;
    while let Some(row) = found.next()? {
        let (key, newest, now): (String, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let now = now.map_or("nothing".to_owned(), |now| format!("what revision {now} wrote"));
        verified.found(key, format!("revision {newest} wrote it last, and {now} stands there"));
    }
    Ok(())
}

/// The member rows are filed by the member they name, and each is of a tag that is there.
fn indexes(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let mut all = connection.prepare("SELECT key, live FROM rows ORDER BY key")?;
    let mut filed =
        connection.prepare("SELECT EXISTS (SELECT 1 FROM naming WHERE member = ?1 AND key = ?2)")?;
    let mut tags = connection.prepare("SELECT EXISTS (SELECT 1 FROM rows WHERE key = ?1 AND live)")?;
    let mut found = all.query([])?;
    let (mut members, mut known): (u64, Option<(String, bool)>) = (0, None);
    while let Some(row) = found.next()? {
        let (text, live): (String, bool) = (row.get(0)?, row.get(1)?);
        // One that is no key was told with the history.
        let Ok(key) = text.parse::<Key>() else { continue };
        let Some((tag, member)) = key.as_member() else { continue };
        members += 1;
        let there: bool = filed.query_row(params![member, text], |row| row.get(0))?;
        if !there {
            verified.found(&text, "the index `naming` does not have it");
        }
        if !live {
            continue;
        }
        if known.as_ref().is_none_or(|(known, _)| known != tag) {
            known = Some((tag.to_owned(), tags.query_row([tag], |row| row.get(0))?));
        }
        if known.as_ref().is_some_and(|(_, there)| !there) {
            verified.found(&text, format!("it is a member of {tag}, which does not exist"));
        }
    }
    let there = count(connection, "naming")?;
    if there > members {
        verified
            .found("the index `naming`", format!("{} of its entries belong to no member", there - members));
    }
    Ok(())
}

fn reports(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let mut all = connection.prepare("SELECT agent, instance, status FROM reports")?;
    let mut found = all.query([])?;
    while let Some(row) = found.next()? {
        let (agent, instance, status): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if let Err(error) = serde_json::from_str::<Status>(&status) {
            verified
                .found(format!("the report of {agent} {instance}"), format!("it cannot be read: {error}"));
        }
    }
    Ok(())
}
