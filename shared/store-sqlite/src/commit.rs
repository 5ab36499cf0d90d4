//! One commit inside the writing transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{Timestamp, Unit};
use rusqlite::{OptionalExtension, params};
use shoal_core::{Change, Commit, CommitInfo, Committed, LogEntry, Revision};
use shoal_store::parts::{digest, scopes};
use shoal_store::{REMEMBERED, StoreError};

use crate::fault::Stop;
use crate::read::{int, revision};
use crate::writer::Tx;

impl Tx<'_> {
    /// Does the commit, which was validated, or refuses it before anything is written.
    pub(crate) fn commit(&mut self, commit: &Commit) -> Result<Committed, Stop> {
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
            done.revision.0 += 1;
            let time = Timestamp::now();
            let info = CommitInfo {
                revision: done.revision,
                author: commit.author.clone(),
                principal: commit.principal.clone(),
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
        let number = int(info.revision);
        let c = self.connection;
        c.prepare_cached(
            "INSERT INTO commits (revision, first, count, author, principal, message, time)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            number,
            self.next,
            i64::try_from(entry.changes.len()).unwrap_or(i64::MAX),
            info.author,
            info.principal,
            info.message,
            info.time.as_millisecond(),
        ])?;
        let mut insert = c.prepare_cached(
            "INSERT INTO changes (id, revision, key, value, moved) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut stand = c.prepare_cached(
            "INSERT INTO rows (key, revision, change, live) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET revision = ?2, change = ?3, live = ?4",
        )?;
        let mut names = c.prepare_cached("INSERT OR IGNORE INTO naming (member, key) VALUES (?1, ?2)")?;
        let mut touched = BTreeSet::new();
        let mut next = self.next;
        for Change { key, value, moved } in &entry.changes {
            let text = key.as_str();
            let value = value.as_ref().map(|v| v.as_str());
            insert.execute(params![next, number, text, value, moved.as_ref().map(|k| k.as_str())])?;
            stand.execute(params![text, number, next, value.is_some()])?;
            if let Some((_, member)) = key.as_member() {
                names.execute([member, text])?;
            }
            touched.extend(scopes(key));
            next += 1;
        }
        let mut scope = c.prepare_cached("INSERT INTO scopes (scope, revision) VALUES (?1, ?2)")?;
        for name in &touched {
            scope.execute(params![name, number])?;
        }
        self.next = next;
        self.head.revision = info.revision;
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
            Ok((row.get::<_, Vec<u8>>(0)?, revision(row, 1)?, usize::try_from(changed).unwrap_or_default()))
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
