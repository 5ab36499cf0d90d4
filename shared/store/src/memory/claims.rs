//! Claims in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Claim, ClaimAnswer, ClaimRequest};

/// All claims. Time is whatever the caller measures it in, as long as it does not fall.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    /// By name and slot; the moment is when it expires.
    held: BTreeMap<(String, u32), (Claim, Option<Duration>)>,
    /// One counter for all names: so a name that nobody claims any more need not be remembered.
    last: u64,
}

fn live(expires: Option<Duration>, now: Duration) -> bool {
    expires.is_none_or(|at| now < at)
}

impl Claims {
    pub(super) fn claim(&mut self, want: &ClaimRequest, now: Duration) -> ClaimAnswer {
        // An expired claim is gone, also for its holder: in between it protected nothing.
        let name = (want.name.clone(), 0)..=(want.name.clone(), u32::MAX);
        let gone: Vec<_> = self
            .held
            .range(name.clone())
            .filter(|(_, (_, at))| !live(*at, now))
            .map(|(k, _)| k.clone())
            .collect();
        for key in gone {
            self.held.remove(&key);
        }
        let expires = want.ttl.map(|ttl| now.saturating_add(ttl));
        if let Some((_, (claim, at))) =
            self.held.range_mut(name.clone()).find(|(_, (c, _))| c.holder == want.holder)
        {
            claim.ttl = want.ttl;
            *at = expires;
            return ClaimAnswer::Granted(claim.clone());
        }
        let free = (0..want.of).find(|slot| !self.held.contains_key(&(want.name.clone(), *slot)));
        let Some(slot) = free else {
            let by: Vec<_> = self.held.range(name.clone()).map(|(_, (c, _))| c.clone()).collect();
            let first = self.held.range(name).filter_map(|(_, (_, at))| *at).min();
            return ClaimAnswer::Taken { by, look_again: first.map(|at| at.saturating_sub(now)) };
        };
        self.last += 1;
        let claim = Claim {
            name: want.name.clone(),
            slot,
            holder: want.holder.clone(),
            number: self.last,
            ttl: want.ttl,
        };
        self.held.insert((want.name.clone(), slot), (claim.clone(), expires));
        ClaimAnswer::Granted(claim)
    }

    /// Those of a backup that takes the place of `replaced`: no lease, and no number that either gave out is given again.
    pub(super) fn restored(&self, replaced: &Self) -> Self {
        let mut held = self.held.clone();
        held.retain(|_, (_, expires)| expires.is_none());
        Self { held, last: self.last.max(replaced.last) }
    }

    /// The last number that was given out.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Numbers go on above this one.
    pub(super) fn go_on_above(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// Takes over a claim without an end, with its number.
    pub(super) fn keep(&mut self, claim: Claim) {
        self.held.insert((claim.name.clone(), claim.slot), (claim, None));
    }

    /// Forgets all of them; numbers go on as before.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }

    pub(super) fn release(&mut self, claim: &Claim) {
        let key = (claim.name.clone(), claim.slot);
        if self.held.get(&key).is_some_and(|(c, _)| c.number == claim.number) {
            self.held.remove(&key);
        }
    }

    pub(super) fn list(&self, prefix: &str, now: Duration) -> Vec<Claim> {
        let from = self.held.range((prefix.to_owned(), 0)..);
        let all = from.take_while(|((name, _), _)| name.starts_with(prefix));
        all.filter(|(_, (_, at))| live(*at, now)).map(|(_, (c, _))| c.clone()).collect()
    }

    pub(super) fn is_held(&self, name: &str, number: u64, now: Duration) -> bool {
        let mut slots = self.held.range((name.to_owned(), 0)..=(name.to_owned(), u32::MAX));
        slots.any(|(_, (c, at))| c.number == number && live(*at, now))
    }
}
