//! What a target may ask of the database beside what the engine does for it: places among so many at once, facts, and where a host is in
//! its life.
//!
//! A *place* is one of the places of a counted claim (`slot/<namespace>/<name>`): at most so many hold one at once, whichever
//! process or machine they are on. It has a lease; whoever holds one renews it and stops what it does when that fails for as long as
//! the lease lasts. Facts are read as they stand, and whether a tag does; they are written through
//! [`Applied::facts`](crate::Applied::facts). All that is written here is the state of a host, by an agent whose manifest
//! ([`Agent::writes`](crate::Agent::writes)) says so, and on the condition that the host is as it was read.
//!
//! Nothing is asked before a target is started, so a plan takes no place.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use shoal_core::{
    Change, Commit, Document, HostId, HostName, HostRecord, Key, Lifecycle, Namespace, Pre, Range, Revision,
    TagName,
};
use shoal_engine::Fault;
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Query, Store, StoreError};

/// The database, for a target. It is there once the program has opened its store.
#[derive(Clone, Default)]
pub struct Base(Arc<OnceLock<Arc<dyn Store>>>);

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Base")
    }
}

/// That a host is to be in another state.
#[derive(Clone, Debug)]
pub struct Turn<'a> {
    /// Which host.
    pub host: &'a HostName,
    /// Its id: another that has the name by now is not meant.
    pub id: &'a HostId,
    /// From which state.
    pub from: Lifecycle,
    /// To which.
    pub to: Lifecycle,
    /// Which agent says so.
    pub agent: &'a str,
    /// Why, for the history.
    pub why: &'a str,
}

/// One of the places of a counted claim. It is given back with [`release`](Self::release), or ends with its lease.
#[derive(Debug)]
pub struct Place {
    base: Base,
    want: ClaimRequest,
    claim: Claim,
}

impl Base {
    /// On a store that is open: for tests of targets.
    #[must_use]
    pub fn on(store: Arc<dyn Store>) -> Self {
        let base = Self::default();
        base.open(store);
        base
    }

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
        let namespace: Namespace = namespace.parse().map_err(|e| Fault::new(&what, e))?;
        let key = Key::fact(&namespace, subject).map_err(|e| Fault::new(&what, e))?;
        self.row(&what, key).await
    }

    /// Whether this tag stands.
    ///
    /// # Errors
    /// The database cannot be asked: nothing is known.
    pub async fn tag(&self, tag: &TagName) -> Result<bool, Fault> {
        Ok(self.row(&format!("read {tag}"), Key::tag(tag)).await?.is_some())
    }

    /// The id of the host that has this name now; `None`: there is none.
    ///
    /// # Errors
    /// The database cannot be asked: nothing is known.
    pub async fn host_id(&self, host: &HostName) -> Result<Option<HostId>, Fault> {
        let what = format!("read {host}");
        let Some((_, value)) = self.stands(&what, Key::host(host)).await? else { return Ok(None) };
        let record: HostRecord = value.to().map_err(|e| Fault::new(&what, e))?;
        Ok(Some(record.id))
    }

    /// Takes a host from one state to another. `false`: it is in a third one by now, gone, another, or was written just then; nothing is
    /// done, and whoever asked decides anew. Where it is in that state already, nothing is done either, and that is well.
    ///
    /// # Errors
    /// The database cannot be asked, does not let this agent, or did not say what became of it.
    pub async fn turn(&self, turn: &Turn<'_>) -> Result<bool, Fault> {
        let what = format!("set the state of {} to {}", turn.host, turn.to);
        let key = Key::host(turn.host);
        let Some((revision, value)) = self.stands(&what, key.clone()).await? else { return Ok(false) };
        let mut record: HostRecord = value.to().map_err(|e| Fault::new(&what, e))?;
        if record.id != *turn.id || ![turn.from, turn.to].contains(&record.state) {
            return Ok(false);
        }
        if record.state == turn.to {
            return Ok(true);
        }
        record.state = turn.to;
        let value = Document::of(&record).map_err(|e| Fault::new(&what, e))?;
        let commit = Commit {
            pre: vec![Pre::At(key.clone(), revision)],
            ..Commit::new(
                format!("agent {}", turn.agent),
                format!("{}: {}", turn.host, turn.why),
                vec![Change::put(key, value)],
            )
        };
        match self.store(&what)?.commit(commit).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(Fault::new(what, error)),
        }
    }

    async fn row(&self, what: &str, key: Key) -> Result<Option<Value>, Fault> {
        Ok(self.stands(what, key).await?.map(|(_, value)| value.value()))
    }

    /// What stands in the row, and since when.
    async fn stands(&self, what: &str, key: Key) -> Result<Option<(Revision, Document)>, Fault> {
        let store = self.store(what)?;
        let page = store.read(&Query::new(Range::Key(key))).await.map_err(|e| Fault::new(what, e))?;
        Ok(page.rows.into_iter().find_map(|row| Some((row.revision, row.value?))))
    }
}

impl Place {
    /// Keeps it for another lease.
    ///
    /// # Errors
    /// It could not be renewed; or it is lost, because others have all places by now: a fault that does not pass.
    pub async fn renew(&mut self) -> Result<(), Fault> {
        let what = format!("keep the place of {}", self.want.name);
        let store = self.base.store(&what)?;
        match store.claim(&self.want).await.map_err(|e| Fault::new(&what, e))? {
            ClaimAnswer::Granted(claim) if claim.number == self.claim.number => Ok(()),
            ClaimAnswer::Granted(claim) => {
                self.claim = claim;
                Err(Fault::new(what, "it had run out meanwhile"))
            }
            ClaimAnswer::Taken { .. } => {
                Err(Fault::new(what, "it ran out, and others have all places").permanent())
            }
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
        // Who did not renew in time has lost it to whoever came next.
        let mut late = base.place("toy", "y", 1, Duration::from_millis(1)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = base.place("toy", "y", 1, lease).await.unwrap().unwrap();
        assert!(late.renew().await.unwrap_err().permanent);
        next.release().await;
        assert!(!late.renew().await.unwrap_err().permanent);
        late.renew().await.unwrap();
        two.release().await;
        assert!(base.place("toy", "x", 2, lease).await.unwrap().is_some());
        assert_eq!(base.fact("toy", "web1.example.com").await.unwrap(), None);
        assert!(base.fact("toy", "no name").await.is_err());
        assert!(!base.tag(&"toy/x".parse().unwrap()).await.unwrap());
        assert!(Base::default().tag(&"toy/x".parse().unwrap()).await.is_err());
    }

    #[tokio::test]
    async fn a_host_is_turned_only_from_where_it_was() {
        use Lifecycle::{Active, Building, Draining, Placed};
        let base = Base::default();
        let store = Arc::new(MemoryStore::new());
        base.open(store.clone());
        let (host, id): (HostName, _) = ("web1.example.com".parse().unwrap(), HostId("0198".to_owned()));
        let turn = |from, to| Turn { host: &host, id: &id, from, to, agent: "toy", why: "a test" };
        assert!(!base.turn(&turn(Placed, Building)).await.unwrap(), "there is none");
        let row =
            serde_json::json!({"id": "0198", "state": "placed", "owner": "ann", "document": {"site": "ams"}});
        let commit = Commit::new("ann", "a host", vec![Change::put(Key::host(&host), Document::from(row))]);
        store.commit(commit).await.unwrap();
        assert!(base.turn(&turn(Placed, Building)).await.unwrap());
        assert!(base.turn(&turn(Placed, Building)).await.unwrap(), "it is there already");
        assert!(!base.turn(&turn(Active, Draining)).await.unwrap(), "somebody else was before");
        let other = HostId("0199".to_owned());
        assert!(
            !base.turn(&Turn { id: &other, ..turn(Building, Active) }).await.unwrap(),
            "another has its name"
        );
        let (_, value) = base.stands("look", Key::host(&host)).await.unwrap().unwrap();
        let stands = serde_json::json!({"id": "0198", "state": "building", "owner": "ann", "document": {"site": "ams"}});
        assert_eq!(value.value(), stands, "nothing else is written");
    }
}
