//! Keeping the view up with the store.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use rand::Rng;
use shoal_core::{Range, Revision, View};

use super::coming::Coming;
use super::{Reached, Shared};
use crate::{Feed, Filter, Head, Page, Position, Query, Store, StoreError};

/// The first and the longest wait before a watch that broke is taken up again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Reads everything as of now, with the identity of the database that it was read from.
pub(super) async fn load(store: &dyn Store) -> Result<(Head, View), StoreError> {
    loop {
        let head = store.head().await?;
        let view = load_at(store, Some(head.revision)).await?;
        // Restored in between: what was read is neither the one nor the other.
        if store.head().await?.epoch == head.epoch {
            return Ok((head, view));
        }
    }
}

/// Reads everything as of a revision.
pub(super) async fn load_at(store: &dyn Store, at: Option<Revision>) -> Result<View, StoreError> {
    load_ranges(store, &[Range::All], at).await
}

/// Reads some ranges, which do not overlap, as of one revision.
pub(super) async fn load_ranges(
    store: &dyn Store,
    ranges: &[Range],
    mut at: Option<Revision>,
) -> Result<View, StoreError> {
    let mut view = View::new();
    for range in ranges {
        let mut query = Query { at, tombstones: true, ..Query::new(range.clone()) };
        loop {
            let Page { at: read, rows, next } = store.read(&query).await?;
            rows.into_iter().for_each(|row| view.load(row));
            (query.at, at) = (Some(read), Some(read));
            match next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
    }
    // Asks every rule for every host: a thread's work.
    let loaded = tokio::task::spawn_blocking(move || {
        view.loaded(at.unwrap_or_default());
        view
    });
    loaded.await.map_err(|e| super::unavailable(&format!("reading it was broken off: {e}")))
}

/// Applies commits as they come, for ever. A watch that breaks is taken up again where it was.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut wait = RETRY.0;
    loop {
        let after = {
            let reached = shared.reached.borrow();
            Position { epoch: reached.epoch, revision: reached.revision }
        };
        let mut feed = shared.store.watch(Filter::all(), after);
        let trouble = loop {
            match feed.next().await {
                Some(Ok(message)) => match shared.take(message).await {
                    Ok(()) => wait = RETRY.0,
                    Err(trouble) => break trouble,
                },
                Some(Err(trouble)) => break trouble,
                None => break super::unavailable("the watch ended"),
            }
        };
        shared.reached.send_modify(|r| r.trouble = Some(trouble));
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = (wait * 2).min(RETRY.1);
    }
}

impl Shared {
    async fn take(&self, message: Feed) -> Result<(), StoreError> {
        match message {
            Feed::Commit(entry) => {
                let revision = entry.info.revision;
                let epoch = self.reached.borrow().epoch;
                {
                    let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
                    match Coming::take(&mut coming, epoch, &entry) {
                        Some(view) => {
                            *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
                        }
                        None => self.change(|view| drop(view.apply(revision, &entry.changes))),
                    }
                }
                self.reached.send_modify(|r| (r.revision, r.trouble) = (revision, None));
            }
            Feed::Upto(revision) => {
                self.change(|view| view.skip(revision));
                self.reached.send_modify(|r| (r.revision, r.trouble) = (r.revision.max(revision), None));
            }
            Feed::Reset(head) => {
                let view = load_at(&*self.store, Some(head.revision)).await?;
                let reached = Reached { epoch: head.epoch, revision: view.revision(), trouble: None };
                // Under one lock: what begins in between would be worked out from the view that goes.
                let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
                *coming = None;
                *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
                self.reached.send_replace(reached);
            }
        }
        Ok(())
    }

    /// Changes a copy, which costs nothing, and puts it in place in one step: whoever reads sees whole commits.
    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut view = self.view();
        change(Arc::make_mut(&mut view));
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }
}
