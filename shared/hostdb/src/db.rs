//! The database as handlers use it: followed by a view, and read at old revisions.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_core::{Epoch, Excerpt, HostName, Revision, TagName, View};
use shoal_store::{Database, Store, StoreError};

/// How many views of old revisions are kept.
const OLD_VIEWS: usize = 2;
/// The longest wait for the view to catch up with the store.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How many lists of members are kept.
const LISTS: usize = 4;

/// A [`Database`] with the last old views, and the last long lists, that were asked for.
pub(crate) struct Db {
    database: Database,
    old: Mutex<Vec<(Epoch, Arc<View>)>>,
    lists: Mutex<VecDeque<Members>>,
    building: tokio::sync::Mutex<()>,
}

/// The hosts of a tag, and of when.
struct Members {
    epoch: Epoch,
    view: Arc<View>,
    tag: TagName,
    hosts: Arc<[HostName]>,
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
        let (old, lists, building) = Default::default();
        Ok(Self { database, old, lists, building })
    }

    /// Another handle of the same database.
    pub(crate) fn database(&self) -> Database {
        self.database.clone()
    }

    /// The view with everything that was committed before this was called.
    pub(crate) async fn fresh_view(&self) -> Result<Arc<View>, StoreError> {
        self.refresh(CATCH_UP).await?;
        Ok(self.view())
    }

    /// The whole view as of `at` (`None`: now). An old revision costs taking back what was written since, or where that is much a
    /// reading of all of it; the last ones are kept. For one host or one tag [`Db::excerpt`] is enough.
    pub(crate) async fn as_of(&self, at: Option<Revision>) -> Result<Arc<View>, StoreError> {
        let now = self.view();
        let Some(at) = at else { return Ok(now) };
        if now.revision() == at {
            return Ok(now);
        }
        let epoch = self.epoch();
        if let Some(view) = self.kept(epoch, at) {
            return Ok(view);
        }
        let _turn = self.large_reading().await;
        if let Some(view) = self.kept(epoch, at) {
            return Ok(view);
        }
        let view = self.view_at(at).await?;
        let mut old = lock(&self.old);
        if old.len() >= OLD_VIEWS {
            old.remove(0);
        }
        old.push((epoch, view.clone()));
        Ok(view)
    }

    /// What the database says of a host and of a tag as of `at` (`None`: now). Of an old revision it is worked out from the view of now,
    /// at the price of a few rows.
    pub(crate) async fn excerpt(
        &self,
        at: Option<Revision>,
        host: Option<&HostName>,
        tag: Option<&TagName>,
    ) -> Result<Excerpt, StoreError> {
        if let Some(at) = at
            && self.kept(self.epoch(), at).is_none()
            && let Some(excerpt) = self.excerpt_at(at, host, tag).await?
        {
            return Ok(excerpt);
        }
        Ok(Excerpt::of(self.as_of(at).await?, host.cloned(), tag.cloned()))
    }

    /// A whole view of an old revision that is at hand.
    fn kept(&self, epoch: Epoch, at: Revision) -> Option<Arc<View>> {
        // Whoever reads a list page by page goes on in the view of its first page, which need not be read again.
        let lists = lock(&self.lists);
        let listed = lists.iter().find(|l| l.epoch == epoch && l.view.revision() == at);
        listed.map(|list| list.view.clone()).or_else(|| {
            let old = lock(&self.old);
            old.iter().find(|(of, view)| *of == epoch && view.revision() == at).map(|(_, view)| view.clone())
        })
    }

    /// The right to read much at once, in turn: each such reading needs as much memory as the database.
    pub(crate) async fn large_reading(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.building.lock().await
    }

    /// The hosts that a tag contains, through whatever, by name. Found once for all pages of a list that does not fit
    /// one of `page`.
    pub(crate) fn members(&self, view: &Arc<View>, tag: &TagName, page: usize) -> Arc<[HostName]> {
        let same = |l: &&Members| Arc::ptr_eq(&l.view, view) && l.tag == *tag;
        if let Some(list) = lock(&self.lists).iter().find(same) {
            return list.hosts.clone();
        }
        let hosts: Arc<[HostName]> = view.members(tag).into();
        if hosts.len() <= page {
            return hosts;
        }
        let list =
            Members { epoch: self.epoch(), view: view.clone(), tag: tag.clone(), hosts: hosts.clone() };
        let mut lists = lock(&self.lists);
        if lists.len() >= LISTS {
            lists.pop_front();
        }
        lists.push_back(list);
        hosts
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shoal_core::{Change, Document, Proposal};
    use shoal_store::MemoryStore;

    #[tokio::test]
    async fn the_pages_of_a_list_share_what_the_first_one_found() {
        let db = Db::open(Arc::new(MemoryStore::new())).await.unwrap();
        let put = |key: &str, value| Change::put(key.parse().unwrap(), Document::from(value));
        let row = |Change { key, value, moved }| shoal_core::Edit::Row { key, value, moved };
        let commit = async |rows: Vec<Change>| {
            let edits = rows.into_iter().map(row).collect();
            db.transact(Proposal::new("ann", "m", edits)).await.unwrap().committed.revision
        };
        let tag: TagName = "dns/a".parse().unwrap();
        let then = commit(vec![
            put("hosts/web1", json!({"id": "1"})),
            put("dns/a", json!({})),
            put("dns/a/members/select: true", json!({})),
        ])
        .await;
        let view = db.as_of(None).await.unwrap();
        let first = db.members(&view, &tag, 0);
        assert!(Arc::ptr_eq(&first, &db.members(&view, &tag, 0)), "it is not found again");
        // Others write meanwhile: the next page is of the view of the first, and nothing is read for it.
        commit(vec![put("hosts/web2", json!({"id": "2"}))]).await;
        let again = db.as_of(Some(then)).await.unwrap();
        assert!(Arc::ptr_eq(&view, &again));
        assert!(Arc::ptr_eq(&first, &db.members(&again, &tag, 0)));
        assert_eq!(db.members(&db.as_of(None).await.unwrap(), &tag, 0).len(), 2);
    }
}
