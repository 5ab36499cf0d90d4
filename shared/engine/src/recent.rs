//! How much of a unit was removed of late without anybody being asked.
//!
//! The guard counts a batch. A mass removal that comes as many small commits, each done before the next one, is as much a mass
//! removal, so what went unasked is remembered for a while and counted with what is to go. Only numbers are kept, by the tenth
//! part of that time in which they happened, in the unit's ledger pages: they survive a restart and never grow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Millis, Moment};

/// In how many parts the time is told apart.
const PARTS: Millis = 10;

/// Numbers of removals, by the beginning of the part of time that they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Recent(BTreeMap<Moment, u32>);

impl Recent {
    /// One more went, unasked.
    pub(crate) fn add(&mut self, now: Moment, within: Millis) {
        if within <= 0 {
            return;
        }
        let oldest = now.saturating_sub(within);
        self.0.retain(|at, _| *at > oldest);
        let part = (within / PARTS).max(1);
        let count = self.0.entry(now - now.rem_euclid(part)).or_default();
        *count = count.saturating_add(1);
    }

    /// How many went within that time.
    pub(crate) fn count(&self, now: Moment, within: Millis) -> usize {
        let oldest = now.saturating_sub(within);
        self.0.iter().filter(|(at, _)| **at > oldest).map(|(_, count)| *count as usize).sum()
    }

    /// What another page says. Pages are written at different times: the larger number is the later one.
    pub(crate) fn learn(&mut self, other: Self) {
        for (at, count) in other.0 {
            let known = self.0.entry(at).or_default();
            *known = (*known).max(count);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_ago_does_not_count_and_is_not_kept() {
        let mut recent = Recent::default();
        for now in 0..5_000 {
            recent.add(now, 1_000);
        }
        assert!(recent.0.len() <= 11, "{recent:?}");
        assert!((800..=1_000).contains(&recent.count(4_999, 1_000)), "{recent:?}");
        assert_eq!(recent.count(7_000, 1_000), 0);
        recent.add(0, 0);
        assert_eq!(Recent::default().count(0, 0), 0);
    }
}
