//! What stood at an old revision: of one host and one tag, taken out of the view of now; all of it, by taking back what was written since, or
//! read anew where that is too much.
//!
//! Rows as they stood at a revision never change, so the view and what is read need only be of one life of the database: that
//! is looked at before and after.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::{
    Change, Epoch, Excerpt, Excerpting, HostName, Key, Kind, Range, Revision, Row, Stood, TagName, View,
};

use super::{Database, follow};
use crate::{Head, Page, Query, StoreError};

/// How many rows are taken back of a view at most: one for so many hosts, but so many in any case, and never more than so many.
const SHARE: usize = 20;
const FEWEST: usize = 64;
const MAX_UNDONE: usize = 4096;
/// How many of those may be rules: each may have to be asked for every host.
const MAX_RULES: usize = 8;
/// How many commits of the log are read at once.
const LOGGED: usize = 256;
/// After so many ranges, reading everything is no worse.
const MAX_RANGES: usize = 4096;
/// How long the view may take to hold a revision that the store has; mostly a fraction of a millisecond.
const LAG: Duration = Duration::from_secs(1);

impl Database {
    /// The view as of an old revision. Where little was written since, it is the view of now with that taken back, and shares its
    /// memory: some 50 µs for each row. Else it costs a reading of everything.
    ///
    /// # Errors
    /// What the store says, such as [`StoreError::Future`].
    pub async fn view_at(&self, revision: Revision) -> Result<Arc<View>, StoreError> {
        if let Some((epoch, now)) = self.view_past(revision).await? {
            if now.revision() == revision {
                return Ok(now);
            }
            if let Some(view) = self.undone(&now, epoch, revision).await? {
                return Ok(Arc::new(view));
            }
        }
        follow::load_at(&**self.store(), Some(revision)).await.map(Arc::new)
    }

    /// The view with everything taken back that was written after `to`. `None`: that is too much, or cannot be done.
    async fn undone(&self, now: &Arc<View>, epoch: Epoch, to: Revision) -> Result<Option<View>, StoreError> {
        let Some(keys) = self.written_after(now, to).await? else { return Ok(None) };
        let mut stood = Stood::default();
        let mut tags = BTreeSet::new();
        for key in keys {
            if let Kind::Tag(tag) | Kind::Member(tag, _) = key.kind() {
                tags.insert(tag);
            }
            let row = self.row_at(&key, to).await?;
            stood.rows.push((key, row));
        }
        for tag in tags {
            let before = Some(Revision(to.0.saturating_add(1)));
            let members = self.store().log(&Range::members(&tag), before, 1).await?;
            let members = members.first().map(|entry| entry.info.revision);
            let own = self.row_at(&Key::tag(&tag), to).await?.map(|row| row.revision);
            stood.tags.push((tag, own.max(members).unwrap_or_default()));
        }
        if self.store().head().await?.epoch != epoch {
            return Ok(None);
        }
        // A rule that stood then and does not now is asked for every host: a thread's work.
        let now = now.clone();
        let undone = tokio::task::spawn_blocking(move || now.undone(to, &stood));
        undone
            .await
            .map_err(|e| super::unavailable(&format!("taking back what was written was broken off: {e}")))
    }

    /// The keys that were written after a revision; `None`: they are so many that reading everything is no worse.
    async fn written_after(&self, now: &View, to: Revision) -> Result<Option<BTreeSet<Key>>, StoreError> {
        let most = (now.hosts().count() / SHARE).clamp(FEWEST, MAX_UNDONE);
        let (mut keys, mut rules, mut changes, mut before) = (BTreeSet::new(), 0, 0, None);
        loop {
            let log = self.store().log(&Range::All, before, LOGGED).await?;
            let Some(last) = log.last() else { return Ok(Some(keys)) };
            before = Some(last.info.revision);
            let end = last.info.revision <= to;
            for entry in log.into_iter().take_while(|entry| entry.info.revision > to) {
                changes += entry.changes.len();
                for Change { key, .. } in entry.changes {
                    let rule = key.as_member().is_some_and(|(_, member)| member.starts_with("select:"));
                    rules += usize::from(keys.insert(key) && rule);
                }
            }
            // Keys that were written again and again cost the log, too.
            if keys.len() > most || changes > 2 * most || rules > MAX_RULES {
                return Ok(None);
            }
            if end {
                return Ok(Some(keys));
            }
        }
    }

    /// The row that stood at a key, or its tombstone.
    async fn row_at(&self, key: &Key, at: Revision) -> Result<Option<Row>, StoreError> {
        let query = Query { at: Some(at), tombstones: true, ..Query::new(Range::Key(key.clone())) };
        Ok(self.store().read(&query).await?.rows.pop())
    }

    /// What the database said of a host and of a tag at an old revision. Costs a few readings of the store: one, and one for each
    /// row that counts and was written since, whatever else was. `None`: those would be some thousand, or the database
    /// was just restored, or the view lags; [`Database::view_at`] reads everything.
    ///
    /// # Errors
    /// What the store says, such as [`StoreError::Future`].
    pub async fn excerpt_at(
        &self,
        revision: Revision,
        host: Option<&HostName>,
        tag: Option<&TagName>,
    ) -> Result<Option<Excerpt>, StoreError> {
        let Some((epoch, now)) = self.view_past(revision).await? else { return Ok(None) };
        let (host, tag) = (host.cloned(), tag.cloned());
        if now.revision() == revision {
            return Ok(Some(Excerpt::of(now, host, tag)));
        }
        self.work_out(now.excerpt(revision, host, tag), epoch, revision).await
    }

    /// A view that is not older than `revision`, and the life of the database that it is of, if that is still the store's.
    async fn view_past(&self, revision: Revision) -> Result<Option<(Epoch, Arc<View>)>, StoreError> {
        if self.view().revision() < revision {
            let newest = self.store().head().await?.revision;
            if newest < revision {
                return Err(StoreError::Future { asked: revision, newest });
            }
            if tokio::time::timeout(LAG, self.wait_for(revision)).await.is_err() {
                return Ok(None);
            }
        }
        // A restored store has its new epoch before the view is replaced, and that is before the view's is told.
        let (before, view, after) = (self.epoch(), self.view(), self.epoch());
        let Head { epoch, revision: newest } = self.store().head().await?;
        // A view that is ahead of its store is of a future that was lost.
        let known = before == epoch && after == epoch && (revision..=newest).contains(&view.revision());
        Ok(known.then_some((epoch, view)))
    }

    /// `None`: too much counts, or the database was restored meanwhile.
    async fn work_out(
        &self,
        mut excerpt: Excerpting,
        epoch: Epoch,
        at: Revision,
    ) -> Result<Option<Excerpt>, StoreError> {
        let mut read = 0;
        loop {
            let wants = excerpt.wants();
            read += wants.len();
            if wants.is_empty() {
                let same = self.store().head().await?.epoch == epoch;
                return Ok(same.then(|| excerpt.done()));
            }
            if read > MAX_RANGES {
                return Ok(None);
            }
            for range in wants {
                self.stood(range, at).await?.into_iter().for_each(|row| excerpt.take(row));
            }
        }
    }

    /// The rows of a range as they stood.
    async fn stood(&self, range: Range, at: Revision) -> Result<Vec<Row>, StoreError> {
        let mut query = Query { at: Some(at), ..Query::new(range) };
        let mut all = Vec::new();
        loop {
            let Page { rows, next, .. } = self.store().read(&query).await?;
            all.extend(rows);
            match next {
                Some(next) => query.after = Some(next),
                None => return Ok(all),
            }
        }
    }
}
