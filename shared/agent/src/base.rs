//! What a target may ask of the database beside what the engine does for it: places among so many at once, and facts.
//!
//! A *place* is one of the places of a counted claim (`slot/<namespace>/<name>`): at most so many hold one at once, whichever
//! process or machine they are on. It has a lease; whoever holds one renews it and stops what it does when that fails for as long as
//! the lease lasts. Facts are read as they stand. Nothing is written here: facts go through
//! [`Applied::facts`](crate::Applied::facts).
//!
//! Nothing is asked before a target is started, so a plan takes no place.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use shoal_core::{Key, Namespace, Range};
use shoal_engine::Fault;
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Query, Store};

/// The database, for a target. It is there once the program has opened its store.
#[derive(Clone, Default)]
pub struct Base(Arc<OnceLock<Arc<dyn Store>>>);

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Base")
    }
}

/// One of the places of a counted claim. It is given back with [`release`](Self::release), or ends with its lease.
#[derive(Debug)]
pub struct Place {
    base: Base,
    want: ClaimRequest,
    claim: Claim,
}

impl Base {
    /// The program has opened this store.
    pub(crate) fn open(&self, store: Arc<dyn Store>) {
        // A store that was kept through a reload is the same one.
        let _ = self.0.set(store);
    }

    fn store(&self, what: &str) -> Result<&Arc<dyn Store>, Fault> {
        self.0.get().ok_or_else(|| Fault::new(what, "the database is not open yet"))
    }

    /// One of `of` places of this name, for `lease` from now unless it is renewed; `None`: all are taken.
    ///
    /// # Errors
    /// The database cannot be asked, or says no.
    pub async fn place(
        &self,
        namespace: &str,
        name: &str,
        of: u32,
        lease: Duration,
    ) -> Result<Option<Place>, Fault> {
        let what = format!("take a place of {name}");
        let store = self.store(&what)?;
        let want = ClaimRequest {
            name: format!("slot/{namespace}/{name}"),
            of: of.max(1),
            holder: uuid::Uuid::now_v7().to_string(),
            ttl: Some(lease),
        };
        match store.claim(&want).await.map_err(|e| Fault::new(what, e))? {
            ClaimAnswer::Granted(claim) => Ok(Some(Place { base: self.clone(), want, claim })),
            ClaimAnswer::Taken { .. } => Ok(None),
        }
    }

    /// The fact of this namespace about this subject, as it stands.
    ///
    /// # Errors
    /// The database cannot be asked, or the subject is no name: nothing is known, which is not that there is none.
    pub async fn fact(&self, namespace: &str, subject: &str) -> Result<Option<Value>, Fault> {
        let what = format!("read the facts of {subject}");
        let store = self.store(&what)?;
        let namespace: Namespace = namespace.parse().map_err(|e| Fault::new(&what, e))?;
        let key = Key::fact(&namespace, subject).map_err(|e| Fault::new(&what, e))?;
        let page = store.read(&Query::new(Range::Key(key))).await.map_err(|e| Fault::new(&what, e))?;
        Ok(page.rows.into_iter().find_map(|row| Some(row.value?.value())))
    }
}

impl Place {
    /// Keeps it for another lease.
    ///
    /// # Errors
    /// It could not be renewed, or somebody else has it by now.
    pub async fn renew(&mut self) -> Result<(), Fault> {
        let what = format!("keep the place of {}", self.want.name);
        let store = self.base.store(&what)?;
        match store.claim(&self.want).await.map_err(|e| Fault::new(&what, e))? {
            ClaimAnswer::Granted(claim) if claim.number == self.claim.number => Ok(()),
            ClaimAnswer::Granted(claim) => {
                self.claim = claim;
                Err(Fault::new(what, "it had run out meanwhile"))
            }
            ClaimAnswer::Taken { .. } => Err(Fault::new(what, "it ran out, and others have all places")),
        }
    }

    /// Gives it back. What cannot be given back ends with its lease.
    pub async fn release(self) {
        let Ok(store) = self.base.store("give a place back") else { return };
        if let Err(error) = store.release(&self.claim).await {
            tracing::debug!("a place of {} is left to its lease: {error}", self.want.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn no_more_than_so_many_at_once() {
        let base = Base::default();
        assert!(base.place("toy", "x", 2, Duration::from_secs(9)).await.is_err());
        base.open(Arc::new(MemoryStore::new()));
        let lease = Duration::from_secs(9);
        let mut one = base.place("toy", "x", 2, lease).await.unwrap().unwrap();
        let two = base.place("toy", "x", 2, lease).await.unwrap().unwrap();
        assert!(base.place("toy", "x", 2, lease).await.unwrap().is_none());
        one.renew().await.unwrap();
        two.release().await;
        assert!(base.place("toy", "x", 2, lease).await.unwrap().is_some());
        assert_eq!(base.fact("toy", "web1.example.com").await.unwrap(), None);
        assert!(base.fact("toy", "no name").await.is_err());
    }
}
