//! What stood at an old revision: all of it, read anew, or of one host and one tag, taken out of the view of now.

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Epoch, Excerpt, Excerpting, HostName, Range, Revision, Row, TagName, View};

use super::{Database, follow};
use crate::{Page, Query, StoreError};

/// After so many ranges, reading everything is no worse.
const MAX_RANGES: usize = 4096;
/// How long the view may take to hold a revision that the store has; mostly a fraction of a millisecond.
const LAG: Duration = Duration::from_secs(1);

impl Database {
    /// The view as of an old revision. Costs a reading of everything, unless it is the newest.
    ///
    /// # Errors
    /// What the store says, such as [`StoreError::Future`].
    pub async fn view_at(&self, revision: Revision) -> Result<Arc<View>, StoreError> {
        let now = self.view();
        if now.revision() == revision {
            return Ok(now);
        }
        follow::load_at(&**self.store(), Some(revision)).await.map(Arc::new)
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
        let epoch = self.store().head().await?.epoch;
        let known = before == epoch && after == epoch && view.revision() >= revision;
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
