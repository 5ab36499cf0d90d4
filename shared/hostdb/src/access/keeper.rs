//! The rows that decide, as of the server's view.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use shoal_core::access::Index;
use shoal_core::{Epoch, Revision};
use shoal_store::Database;
use tokio::sync::watch;

/// How long an index may go unnoticed that no revision tells of: after a restored backup numbers begin anew.
const LOOK: Duration = Duration::from_secs(1);

/// The index of the newest view. It is made anew when a row below `access/` was written, and by nothing else.
pub(crate) struct Keeper {
    have: RwLock<((Epoch, Revision), Arc<Index>)>,
    changed: watch::Sender<()>,
}

impl Keeper {
    pub(crate) fn new() -> Self {
        let have = RwLock::new(((Epoch::default(), Revision::default()), Arc::default()));
        Self { have, changed: watch::Sender::new(()) }
    }

    /// The index as of the view that the database has now.
    pub(crate) fn index(&self, database: &Database) -> Arc<Index> {
        let view = database.view();
        let of = (database.epoch(), view.access_changed());
        {
            let have = self.have.read().unwrap_or_else(PoisonError::into_inner);
            if have.0 == of {
                return have.1.clone();
            }
        }
        let index = Arc::new(Index::of(&view));
        let mut have = self.have.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever was faster may have seen a newer view.
        if have.0.0 != of.0 || have.0.1 < of.1 {
            *have = (of, index.clone());
            drop(have);
            self.changed.send_replace(());
        }
        index
    }

    /// Hears of every new index.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Follows the database, so that those who watch are told; for ever.
    pub(crate) async fn follow(self: Arc<Self>, database: Database) {
        let mut seen = Revision::default();
        loop {
            if let Ok(now) = tokio::time::timeout(LOOK, database.wait_past(seen)).await {
                seen = now;
            }
            self.index(&database);
        }
    }
}
