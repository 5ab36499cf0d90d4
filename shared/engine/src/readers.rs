//! Which items read a host beside their own while they were decided on.

use std::collections::{BTreeSet, HashMap};

use shoal_core::HostName;

use crate::agent::Unit;

/// The readers of each host that has any.
pub(crate) struct Readers<K>(HashMap<HostName, BTreeSet<(Unit, K)>>);

impl<K: Ord + Clone> Readers<K> {
    pub(crate) fn new() -> Self {
        Self(HashMap::new())
    }

    /// Everything is to be decided on anew.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who read this host.
    pub(crate) fn of(&self, host: &HostName) -> impl Iterator<Item = &(Unit, K)> {
        self.0.get(host).into_iter().flatten()
    }

    /// The item reads these hosts from now on, and read those before.
    pub(crate) fn reads(&mut self, unit: &Unit, key: &K, before: &[HostName], now: &[HostName]) {
        if before == now {
            return;
        }
        let me = (unit.clone(), key.clone());
        for host in before {
            if let Some(readers) = self.0.get_mut(host) {
                readers.remove(&me);
                if readers.is_empty() {
                    self.0.remove(host);
                }
            }
        }
        for host in now {
            self.0.entry(host.clone()).or_default().insert(me.clone());
        }
    }
}
