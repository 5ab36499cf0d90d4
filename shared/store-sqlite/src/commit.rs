//! One commit inside the writing transaction.

use std::sync::Arc;

use jiff::{Timestamp, Unit};
use rusqlite::{OptionalExtension, params};
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
        let print = commit.idempotency.as_ref().map(|key| (key, digest(commit)));
        if let Some((key, print)) = &print
            && let Some(done) = self.remembered(key, print)?
        {
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
            let next = done.revision.0 + 1;
            done.revision.0 = if least.0 < next + MAX_SKIP { next.max(least.0) } else { next };
            let time = Timestamp::now();
            let info = CommitInfo {
                revision: done.revision,
                author: commit.author.clone(),
                principal: commit.principal.clone(),
                origin: commit.origin.clone(),
                message: commit.message.clone(),
                time: time.round(Unit::Millisecond).unwrap_or(time),
            };
            self.write(LogEntry { info, changes: written })?;
        }
        if let Some((key, print)) = print {
            self.remember(key, print, done)?;
        }
        Ok(done)
    }

    fn changes_nothing(&self, change: &Change) -> Result<bool, Stop> {
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

    fn write(&mut self, entry: LogEntry) -> Result<(), Stop> {
        let info = &entry.info;
        let c = self.connection;
        let mut insert = c.prepare_cached(
            "INSERT INTO changes (id, key, moved, value, count, time, author, principal, origin, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        let mut version = c.prepare_cached("INSERT INTO versions (key, change, live) VALUES (?1, ?2, ?3)")?;
        let mut names = c.prepare_cached("INSERT OR IGNORE INTO naming (member, key) VALUES (?1, ?2)")?;
        let count = i64::try_from(entry.changes.len()).unwrap_or(i64::MAX);
        // What the commit is stands with its first change.
        let mut head = Some(info);
        for (id, Change { key, value, moved }) in (first(int(info.revision))..).zip(&entry.changes) {
            let text = key.as_str();
            let value = value.as_ref().map(|v| v.as_str());
            let of = head.take();
            insert.execute(params![
                id,
                text,
                moved.as_ref().map(|k| k.as_str()),
                value,
                of.map(|_| count),
                of.map(|i| i.time.as_millisecond()),
                of.map(|i| &i.author),
                of.and_then(|i| i.principal.as_ref()),
                of.and_then(|i| i.origin.as_ref()),
                of.map(|i| &i.message),
            ])?;
            version.execute(params![text, id, value.is_some()])?;
            if let Some((_, member)) = key.as_member() {
                names.execute([member, text])?;
            }
        }
        self.head.revision = info.revision;
        scopes::file(self, entry.changes.len())?;
        self.entries.push(Arc::new(entry));
        Ok(())
    }

    /// What the key was used for before, if it is remembered.
    fn remembered(&self, key: &str, print: &[u8; 32]) -> Result<Option<Committed>, Stop> {
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
                Err(StoreError::Reused { key: key.to_owned(), revision }.into())
            }
            Some((_, revision, changed)) => Ok(Some(Committed { revision, changed, replayed: true })),
        }
    }

    fn remember(&self, key: &str, print: [u8; 32], done: Committed) -> Result<(), Stop> {
        let Committed { revision: Revision(_), changed, .. } = done;
        let changed = i64::try_from(changed).unwrap_or(i64::MAX);
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
