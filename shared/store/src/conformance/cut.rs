//! Copies that are cut short: a source that is read in the smallest pages there are, and a draft that is out of reach after some of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_core::{LogEntry, Revision, Status};

use super::{commit, put};
use crate::{
    Claim, Draft, Fut, LedgerPage, Page, Piece, Query, Result, Retry, Stand, Store, StoreError, Whole,
};

/// A database whose pages hold one thing each (of the ledger, some).
pub(super) struct Slices<'a>(&'a dyn Whole);

impl<'a> Slices<'a> {
    pub(super) fn of(whole: &'a dyn Whole) -> Self {
        Self(whole)
    }
}

impl Whole for Slices<'_> {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        self.0.stand()
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        Box::pin(async move {
            let mut some = self.0.history(after).await?;
            some.truncate(1);
            Ok(some)
        })
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        self.0.rows(query)
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        let after = after.map(str::to_owned);
        Box::pin(async move {
            let mut page = self.0.ledger_rows(after.as_deref()).await?;
            page.more |= page.rows.len() > 16;
            page.rows.truncate(16);
            Ok(page)
        })
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        Box::pin(async move {
            let mut some = self.0.retries(after).await?;
            some.truncate(1);
            Ok(some)
        })
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        self.0.held()
    }

    fn said(&self) -> Fut<'_, Result<Vec<Status>>> {
        self.0.said()
    }
}

/// A draft that takes so much, and then is gone; or one that is finished just after somebody wrote to the source.
pub(super) struct Cut<'a> {
    draft: &'a dyn Draft,
    late: Option<&'a dyn Store>,
    left: AtomicUsize,
    commits: AtomicUsize,
}

impl<'a> Cut<'a> {
    pub(super) fn after(pages: usize, draft: &'a dyn Draft) -> Self {
        Self { draft, late: None, left: AtomicUsize::new(pages), commits: AtomicUsize::new(0) }
    }

    /// One that takes all of it, and this source gets one more commit before it is finished.
    pub(super) fn late(draft: &'a dyn Draft, source: &'a dyn Store) -> Self {
        Self { late: Some(source), ..Self::after(usize::MAX, draft) }
    }

    /// How many commits it took.
    pub(super) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Whether it is still there.
    fn there(&self) -> Result<()> {
        // One task at a time asks.
        let Some(left) = self.left.load(Ordering::SeqCst).checked_sub(1) else {
            return Err(StoreError::Unavailable { place: "the draft".into(), why: "cut".into() });
        };
        self.left.store(left, Ordering::SeqCst);
        Ok(())
    }
}

impl Whole for Cut<'_> {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        self.draft.stand()
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        self.draft.history(after)
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        self.draft.rows(query)
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        self.draft.ledger_rows(after)
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        self.draft.retries(after)
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        self.draft.held()
    }
}

impl Draft for Cut<'_> {
    fn take(&self, piece: Piece) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            self.there()?;
            if let Piece::Commits(commits) = &piece {
                self.commits.fetch_add(commits.len(), Ordering::SeqCst);
            }
            self.draft.take(piece).await
        })
    }

    fn clear(&self) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            self.there()?;
            self.draft.clear().await
        })
    }

    fn finish(&self, upto: Revision, fence: u64) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            self.there()?;
            if let Some(source) = self.late {
                source.commit(commit([put("dns/late", 1)])).await?;
            }
            self.draft.finish(upto, fence).await
        })
    }
}
