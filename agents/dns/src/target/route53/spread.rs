//! Which changes are on their way to the name servers.
//!
//! Route 53 takes a change at once (`PENDING`) and brings it to all its servers, mostly within a minute (`INSYNC`). That is waited for
//! as state: each name remembers its change in the ledger, this process remembers which names wait for which change, so that a look
//! asks about each change once and reads nothing else; and a process that begins anew asks once by what the ledger remembers.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::record::{Key, Node};

/// How soon the first question comes.
pub(super) const SOON: Duration = Duration::from_secs(2);
/// How long nobody waits for longer between two questions.
const MOST: Duration = Duration::from_secs(15);
/// How long a change is remembered that has come everywhere, and in the ledger: after a restart it is not asked about any more.
pub(super) const KEPT: Duration = Duration::from_secs(600);

/// The changes of this process.
#[derive(Debug, Default)]
pub(super) struct Spreading(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    changes: HashMap<String, Known>,
    keys: BTreeMap<Key, (String, Option<Node>)>,
}

/// What is known of one change.
#[derive(Clone, Copy, Debug)]
struct Known {
    since: Instant,
    everywhere: bool,
}

/// A name that waits, or waited.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    /// Its change.
    pub(super) change: String,
    /// What the name was made.
    pub(super) node: Option<Node>,
    /// How long ago.
    pub(super) age: Duration,
    /// Whether it has come everywhere.
    pub(super) everywhere: bool,
}

impl Waiting {
    /// When to ask again.
    pub(super) fn pause(&self) -> Duration {
        (self.age / 4).clamp(SOON, MOST)
    }
}

impl Spreading {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These names were made so by this change.
    pub(super) fn begun(&self, change: &str, names: impl IntoIterator<Item = (Key, Option<Node>)>) {
        let mut inner = self.inner();
        let now = Instant::now();
        inner.changes.retain(|_, known| now.duration_since(known.since) < KEPT || !known.everywhere);
        let Inner { changes, keys } = &mut *inner;
        keys.retain(|_, (change, _)| changes.contains_key(change));
        changes.entry(change.to_owned()).or_insert(Known { since: now, everywhere: false });
        keys.extend(names.into_iter().map(|(key, node)| (key, (change.to_owned(), node))));
    }

    /// This change has come everywhere.
    pub(super) fn everywhere(&self, change: &str) {
        if let Some(known) = self.inner().changes.get_mut(change) {
            known.everywhere = true;
        }
    }

    /// Nothing is known of these names any more: they are made anew, or somebody else made them.
    pub(super) fn forget<'a>(&self, names: impl IntoIterator<Item = &'a Key>) {
        let mut inner = self.inner();
        for key in names {
            inner.keys.remove(key);
        }
    }

    /// What is known of one name.
    pub(super) fn of(&self, key: &Key) -> Option<Waiting> {
        let inner = self.inner();
        inner.keys.get(key).and_then(|entry| inner.waiting(entry))
    }

    /// What is known of the names of a zone.
    pub(super) fn of_zone(&self, zone: &str) -> Vec<(Key, Waiting)> {
        let inner = self.inner();
        let of = inner.keys.iter().filter(|(key, _)| key.zone() == zone);
        of.filter_map(|(key, entry)| Some((key.clone(), inner.waiting(entry)?))).collect()
    }
}

impl Inner {
    fn waiting(&self, (change, node): &(String, Option<Node>)) -> Option<Waiting> {
        let known = self.changes.get(change)?;
        Some(Waiting {
            change: change.clone(),
            node: node.clone(),
            age: known.since.elapsed(),
            everywhere: known.everywhere,
        })
    }
}
