//! The database as handlers use it: followed by a view, and read at old revisions.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_core::{Revision, View};
use shoal_store::{Database, Store, StoreError};

/// How many views of old revisions are kept.
const OLD_VIEWS: usize = 2;
/// The longest wait for the view to catch up with the store.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A [`Database`] with the last old views that were asked for.
pub(crate) struct Db {
    database: Database,
    old: Mutex<Vec<Arc<View>>>,
    building: tokio::sync::Mutex<()>,
}

impl Deref for Db {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl Db {
    pub(crate) async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let database = Database::open(store).await?;
        Ok(Self { database, old: Mutex::default(), building: tokio::sync::Mutex::default() })
    }

    /// The view with everything that was committed before this was called.
    pub(crate) async fn fresh_view(&self) -> Result<Arc<View>, StoreError> {
        let head = self.store().head().await?;
        if tokio::time::timeout(CATCH_UP, self.wait_for(head.revision)).await.is_err() {
            return Err(self.trouble().unwrap_or_else(|| StoreError::Unavailable {
                place: "the database".to_owned(),
                why: format!("this server did not see revision {} in time", head.revision),
            }));
        }
        Ok(self.view())
    }

    /// The view as of `at` (`None`: now). An old revision costs a reading of all of it; the last ones are kept.
    pub(crate) async fn as_of(&self, at: Option<Revision>) -> Result<Arc<View>, StoreError> {
        let now = self.view();
        let Some(at) = at else { return Ok(now) };
        if now.revision() == at {
            return Ok(now);
        }
        // One at a time: each needs as much memory as the database.
        let _turn = self.building.lock().await;
        let kept = |old: &Vec<Arc<View>>| old.iter().find(|v| v.revision() == at).cloned();
        if let Some(view) = kept(&self.old.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(view);
        }
        let view = self.view_at(at).await?;
        let mut old = self.old.lock().unwrap_or_else(PoisonError::into_inner);
        if old.len() >= OLD_VIEWS {
            old.remove(0);
        }
        old.push(view.clone());
        Ok(view)
    }
}
