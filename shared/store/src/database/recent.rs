//! How new the view is.
//!
//! The view follows the store's watch, which may lag: it shows nothing that was not committed, and may not show yet what was. Whoever
//! has to see that asks the store how far it is ([`Store::newest`](crate::Store::newest)), and waits until the view is as far. What was
//! found out that way is remembered with the time when it was asked, so that others can tell how old what they read may be at most. That the
//! watch says something tells nothing of it: what is said may have been on its way for long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Database, unavailable};
use crate::{Head, StoreError};

/// The latest moment of which the view is known to hold everything that was committed before it.
#[derive(Debug)]
pub(super) struct Known {
    begun: Instant,
    /// In microseconds since then.
    upto: AtomicU64,
}

impl Known {
    /// What is read after this is so new.
    pub(super) fn now() -> Self {
        Self { begun: Instant::now(), upto: AtomicU64::new(0) }
    }

    fn reach(&self, moment: Instant) {
        let passed = moment.saturating_duration_since(self.begun).as_micros();
        self.upto.fetch_max(u64::try_from(passed).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn age(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_micros(self.upto.load(Ordering::SeqCst)))
    }
}

impl Database {
    /// Waits, for at most so long, until the view holds everything that was committed before this was called, by whomever. Costs what
    /// [`Store::newest`](crate::Store::newest) does, and almost always no waiting beyond that.
    ///
    /// # Errors
    /// What the store says; [`StoreError::Unavailable`] also where the view did not come so far in time. Then the view is what it was.
    pub async fn refresh(&self, within: Duration) -> Result<(), StoreError> {
        let (asked, shared) = (Instant::now(), &self.0.shared);
        let learn = async {
            let head = self.store().newest().await?;
            let holds =
                |reached: &super::Reached| reached.epoch == head.epoch && reached.revision >= head.revision;
            let there = holds(&shared.reached.borrow());
            if !there {
                // It fails only without a sender, and `self` holds one.
                let _ = shared.reached.subscribe().wait_for(holds).await;
            }
            Ok::<(), StoreError>(())
        };
        match tokio::time::timeout(within, learn).await {
            Ok(learned) => learned?,
            Err(_) => {
                return Err(self.trouble().unwrap_or_else(|| {
                    unavailable(&format!("how far it is was not known here within {} s", within.as_secs()))
                }));
            }
        }
        shared.known.reach(asked);
        Ok(())
    }

    /// Waits until the view holds what the database did there, or shows another life of it; bounded by the caller.
    pub async fn wait_at(&self, at: Head) {
        let shared = &self.0.shared;
        let there = |reached: &super::Reached| reached.epoch != at.epoch || reached.revision >= at.revision;
        let now = there(&shared.reached.borrow());
        if !now {
            // It fails only without a sender, and `self` holds one.
            let _ = shared.reached.subscribe().wait_for(there).await;
        }
    }

    /// How long ago, at most, the view held everything that was committed by then. It grows until [`Database::refresh`] is asked again.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0.shared.known.age()
    }
}
