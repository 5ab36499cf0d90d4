//! A look at everything in the file, also while it is in use: whether it can be read, and its parts agree. A value that was
//! altered and still is JSON is not noticed: nothing else says what it was.
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
use crate::schema::{UNSEEN, UNSEEN_REVISION, first, revision_of};

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
        Stop::Waits => "a large commit is being written".to_owned(),
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
    let stand = read::stand(connection)?;
    verified.head = Some(stand.head);
    if let Some(staged) = stand.staged {
        let sql = "SELECT count(*) FROM changes WHERE id >= ?1";
        let beyond: i64 = connection.query_row(sql, [first(staged + 1)], |row| row.get(0))?;
        if beyond > 0 {
            let what = format!("{beyond} changes are newer than the large commit that is being written");
            verified.found(format!("revision {staged}"), what);
        }
    }
    Ok(())
}

/// Every change decodes, is of a commit, and is filed where it can be found.
fn history(
    connection: &Connection,
    verified: &mut Verified,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let of = count(connection, &format!("changes WHERE id < {UNSEEN}"))?;
    let last = read::stand(connection)?.scoped;
    let mut all = connection.prepare(&format!(
        "SELECT c.id, c.key, c.value, c.moved, v.live FROM changes c
         LEFT JOIN versions v ON v.key = c.key AND v.change = c.id WHERE c.id < {UNSEEN} ORDER BY c.id"
    ))?;
    let mut filed =
        connection.prepare("SELECT EXISTS (SELECT 1 FROM scopes WHERE scope = ?1 AND revision = ?2)")?;
    let mut changes = all.query([])?;
    let (mut touched, mut scoped, mut now): (BTreeSet<String>, u64, i64) = (BTreeSet::new(), 0, i64::MIN);
    while let Some(row) = changes.next()? {
        verified.changes += 1;
        if verified.changes.is_multiple_of(1000) {
            progress(verified.changes, of);
        }
        let revision = revision_of(row.get(0)?);
        let text = String::from_utf8_lossy(row.get_ref(1)?.as_bytes().unwrap_or_default()).into_owned();
        let place = format!("{text} at revision {revision}");
        let value = row.get_ref(2)?.as_bytes_or_null().map_err(rusqlite::Error::from)?;
        let moved: Option<String> = row.get(3)?;
        if revision != now {
            scoped += touched.len() as u64;
            (touched, now) = (BTreeSet::new(), revision);
        }
        match row.get::<_, Option<bool>>(4)? {
            None => verified.found(&place, "the index `versions` does not have it"),
            Some(live) if live != value.is_some() => {
                verified.found(&place, "it is deleted in the history and stands now, or the other way round");
            }
            Some(_) => {}
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
        for scope in scopes(&key).filter(|_| revision <= last) {
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
    let there = count(connection, &format!("scopes WHERE revision < {UNSEEN_REVISION}"))?;
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

/// Every commit has all of its changes, and says what it is.
fn commits(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let mut all = connection.prepare(&format!(
        "SELECT id, count, author IS NOT NULL AND message IS NOT NULL AND time IS NOT NULL FROM changes
         WHERE id < {UNSEEN} ORDER BY id"
    ))?;
    let mut found = all.query([])?;
    let mut now: Option<Counted> = None;
    while let Some(row) = found.next()? {
        let (id, count, whole): (i64, Option<i64>, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let revision = revision_of(id);
        if now.as_ref().is_none_or(|now| now.revision != revision) {
            if let Some(now) = now.take() {
                now.told(verified);
            }
            verified.commits += 1;
        }
        let now = now.get_or_insert(Counted { revision, count: None, there: 0, gaps: false });
        if id == first(revision) && whole {
            now.count = count;
        }
        now.gaps |= id != first(revision) + now.there;
        now.there += 1;
    }
    if let Some(now) = now {
        now.told(verified);
    }
    Ok(())
}

/// A commit of whose changes so many were seen.
struct Counted {
    revision: i64,
    count: Option<i64>,
    there: i64,
    gaps: bool,
}

impl Counted {
    fn told(self, verified: &mut Verified) {
        let place = format!("the commit of revision {}", self.revision);
        match self.count {
            None => verified.found(&place, "it does not say who made it, when and why"),
            Some(count) if count != self.there => {
                verified.found(&place, format!("it should have {count} changes, {} are there", self.there));
            }
            Some(_) if self.gaps => verified.found(&place, "its changes do not follow each other"),
            Some(_) => {}
        }
    }
}

/// What stands at each key is of the history.
fn standing(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    verified.rows =
        count(connection, &format!("(SELECT DISTINCT key FROM versions WHERE change < {UNSEEN})"))?;
    let mut wrong = connection.prepare(
        "SELECT v.key, v.change, c.key IS NULL FROM versions v LEFT JOIN changes c ON c.id = v.change
         WHERE c.key IS NOT v.key",
    )?;
    let mut found = wrong.query([])?;
    while let Some(row) = found.next()? {
        let (key, change, missing): (String, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let what = if missing { "is not in the history" } else { "is the history of something else" };
        verified.found(key, format!("what it had at revision {} {what}", revision_of(change)));
    }
    Ok(())
}

/// The member rows are filed by the member they name, also those that are not to be seen yet, and each that stands is of a tag
/// that is there.
fn indexes(
    connection: &Connection,
    verified: &mut Verified,
    _: &mut dyn FnMut(u64, u64),
) -> Result<(), Stop> {
    let mut all = connection.prepare("SELECT DISTINCT key FROM versions ORDER BY key")?;
    let mut filed =
        connection.prepare("SELECT EXISTS (SELECT 1 FROM naming WHERE member = ?1 AND key = ?2)")?;
    let mut found = all.query([])?;
    let bound = read::stand(connection)?.staged.map_or(i64::MAX, first);
    let (mut members, mut known): (u64, Option<(String, bool)>) = (0, None);
    while let Some(row) = found.next()? {
        let text: String = row.get(0)?;
        // One that is no key was told with the history.
        let Ok(key) = text.parse::<Key>() else { continue };
        let Some((tag, member)) = key.as_member() else { continue };
        members += 1;
        let there: bool = filed.query_row(params![member, text], |row| row.get(0))?;
        if !there {
            verified.found(&text, "the index `naming` does not have it");
        }
        let live = |key: &str| read::version(connection, key, bound).map(|v| v.is_some_and(|(_, live)| live));
        if !live(&text)? {
            continue;
        }
        if known.as_ref().is_none_or(|(known, _)| known != tag) {
            known = Some((tag.to_owned(), live(tag)?));
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
