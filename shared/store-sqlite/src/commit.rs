//! One commit inside the writing transaction.

use std::sync::Arc;

use jiff::{Timestamp, Unit};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use shoal_core::{Change, Commit, CommitInfo, Committed, LogEntry, Revision};
use shoal_store::parts::digest;
use shoal_store::{MAX_SKIP, REMEMBERED, StoreError};

use crate::fault::Stop;
use crate::read::int;
use crate::schema::first;
use crate::scopes;
use crate::transact::Tx;

impl Tx<'_> {
    /// Does the commit, which was validated, or refuses it before anything is written. Its
    /// revision is not below `least`, if that skips few.
    pub(crate) fn commit(&mut self, commit: &Commit, least: Revision) -> Result<Committed, Stop> {
        let print = print(commit);
        if let Some(done) = self.done_before(commit, print.as_ref())? {
            return Ok(done);
        }
        self.check(&commit.pre)?;
        let mut written = Vec::with_capacity(commit.changes.len());
        for change in &commit.changes {
            if !self.changes_nothing(change)? {
                written.push(change.clone());
            }
        }
        let mut done = Committed { revision: self.head.revision, changed: written.len(), replayed: false };
        if !written.is_empty() {
            done.revision = self.number(least)?;
            self.write(LogEntry { info: info(commit, done.revision), changes: written })?;
        }
        self.remember(commit, print.as_ref(), done)?;
        Ok(done)
    }

    /// The revision of the next commit: not below `least`, if that skips few. Beside a large commit that is being written, the
    /// numbers up to its own have to last.
    pub(crate) fn number(&self, least: Revision) -> Result<Revision, Stop> {
        let next = self.head.revision.0 + 1;
        match self.staged {
            None if least.0 < next + MAX_SKIP => Ok(Revision(next.max(least.0))),
            Some(staged) if next >= staged.unsigned_abs() => Err(Stop::Waits),
            _ => Ok(Revision(next)),
        }
    }

    /// Whether what the change says stands there already.
    pub(crate) fn changes_nothing(&self, change: &Change) -> Result<bool, Stop> {
        if change.moved.is_some() {
            return Ok(false);
        }
        let value = change.value.as_ref().map(|v| v.as_str());
        match self.standing(&change.key)? {
            Some(now) if now.live => match value {
                Some(_) => self.stands(now.change, value),
                None => Ok(false),
            },
            _ => Ok(value.is_none()),
        }
    }

    /// Writes the commit, all at once.
    pub(crate) fn write(&mut self, entry: LogEntry) -> Result<(), Stop> {
        let mut rows = Rows::new(self.connection)?;
        // What the commit is stands with its first change.
        let mut of = Some((&entry.info, entry.changes.len()));
        for (id, change) in (first(int(entry.info.revision))..).zip(&entry.changes) {
            rows.put(id, change, of.take())?;
        }
        self.head.revision = entry.info.revision;
        scopes::file(self, entry.changes.len())?;
        self.entries.push(Arc::new(entry));
        Ok(())
    }

    /// What came of the commit when it was done before, if that is remembered. `print` is its own.
    pub(crate) fn done_before(
        &self,
        commit: &Commit,
        print: Option<&[u8; 32]>,
    ) -> Result<Option<Committed>, Stop> {
        let (Some(key), Some(print)) = (&commit.idempotency, print) else { return Ok(None) };
        let mut sql = self
            .connection
            .prepare_cached("SELECT digest, revision, changed FROM remembered WHERE key = ?1")?;
        let known = sql.query_row([key], |row| {
            let changed = row.get::<_, i64>(2)?;
            let revision = Revision(row.get::<_, i64>(1)?.unsigned_abs());
            Ok((row.get::<_, Vec<u8>>(0)?, revision, usize::try_from(changed).unwrap_or_default()))
        });
        match known.optional()? {
            None => Ok(None),
            Some((known, revision, _)) if known != print => {
                Err(StoreError::Reused { key: key.clone(), revision }.into())
            }
            Some((_, revision, changed)) => Ok(Some(Committed { revision, changed, replayed: true })),
        }
    }

    /// Remembers what came of the commit.
    pub(crate) fn remember(
        &self,
        commit: &Commit,
        print: Option<&[u8; 32]>,
        done: Committed,
    ) -> Result<(), Stop> {
        let (Some(key), Some(print)) = (&commit.idempotency, print) else { return Ok(()) };
        let changed = i64::try_from(done.changed).unwrap_or(i64::MAX);
        let mut sql = self.connection.prepare_cached(
            "INSERT INTO remembered (key, digest, revision, changed) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let id = sql.insert(params![key, print, int(done.revision), changed])?;
        // Ids rise by one: nothing but the oldest is ever removed.
        let mut sql = self.connection.prepare_cached("DELETE FROM remembered WHERE id <= ?1")?;
        sql.execute([id - i64::try_from(REMEMBERED).unwrap_or(i64::MAX)])?;
        Ok(())
    }
}

/// What the commit is remembered by, if it has an idempotency key.
pub(crate) fn print(commit: &Commit) -> Option<[u8; 32]> {
    commit.idempotency.is_some().then(|| digest(commit))
}

/// What is said of the commit, as of now.
pub(crate) fn info(commit: &Commit, revision: Revision) -> CommitInfo {
    let time = Timestamp::now();
    CommitInfo {
        revision,
        author: commit.author.clone(),
        principal: commit.principal.clone(),
        origin: commit.origin.clone(),
        message: commit.message.clone(),
        time: time.round(Unit::Millisecond).unwrap_or(time),
    }
}

/// Writes changes, with their entries in the indexes; not those in `scopes`.
pub(crate) struct Rows<'c> {
    change: CachedStatement<'c>,
    version: CachedStatement<'c>,
    naming: CachedStatement<'c>,
}

impl<'c> Rows<'c> {
    pub(crate) fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            change: connection.prepare_cached(
                "INSERT INTO changes (id, key, moved, value, count, time, author, principal, origin, message)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?,
            version: connection
                .prepare_cached("INSERT INTO versions (key, change, live) VALUES (?1, ?2, ?3)")?,
            naming: connection
                .prepare_cached("INSERT OR IGNORE INTO naming (member, key) VALUES (?1, ?2)")?,
        })
    }

    /// One change; the first of its commit with what that is and how many changes it has.
    pub(crate) fn put(
        &mut self,
        id: i64,
        Change { key, value, moved }: &Change,
        of: Option<(&CommitInfo, usize)>,
    ) -> rusqlite::Result<()> {
        let text = key.as_str();
        let info = of.map(|(info, _)| info);
        self.change.execute(params![
            id,
            text,
            moved.as_ref().map(|k| k.as_str()),
            value.as_ref().map(|v| v.as_str()),
            of.map(|(_, count)| i64::try_from(count).unwrap_or(i64::MAX)),
            info.map(|i| i.time.as_millisecond()),
            info.map(|i| &i.author),
            info.and_then(|i| i.principal.as_ref()),
            info.and_then(|i| i.origin.as_ref()),
            info.map(|i| &i.message),
        ])?;
        self.version.execute(params![text, id, value.is_some()])?;
        if let Some((_, member)) = key.as_member() {
            self.naming.execute([member, text])?;
        }
        Ok(())
    }
}
