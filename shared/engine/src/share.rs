//! Who of several instances should work on which units: pure arithmetic over what the store says of all of them.
//!
//! Every instance works this out for itself, from the same list of who is there and who holds what, so nobody has to lead. What
//! it answers is not trusted by anybody: a claim has one holder whatever two instances think, and a view that is a little old
//! costs a question or one more round, never a second holder.
//!
//! * Nobody holds more than one unit more than anybody else, once all has settled.
//! * What is held stays where it is unless evenness needs it: an instance that comes is given its share and no more, and
//!   when one goes, nothing moves but what it had.
//! * What is about to come free (its holder is not there any more, and its lease still runs) counts as free. So an instance
//!   that was restarted within a lease is given back the number that it had, and the others let go of nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What one instance knows of all of them.
pub(crate) struct Census<'a> {
    /// Itself; one of `held`.
    pub(crate) me: &'a str,
    /// Every instance that is there, and how many units it holds.
    pub(crate) held: BTreeMap<&'a str, usize>,
    /// Units that nobody holds.
    pub(crate) free: Vec<&'a str>,
    /// How many units more will come free by themselves.
    pub(crate) coming: usize,
}

/// What follows for this instance.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Share<'a> {
    /// The free units that it is to take.
    pub(crate) take: Vec<&'a str>,
    /// How many of its units it is to let go of.
    pub(crate) give: usize,
    /// How many it will hold when all has settled.
    pub(crate) most: usize,
    /// Everybody holds what it should.
    pub(crate) settled: bool,
}

/// The instance that this unit would like best. Builds of different compilers may differ in it: then two ask for a unit, and one
/// of them is refused.
pub(crate) fn rank(unit: &str, instance: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    (unit, instance).hash(&mut hash);
    hash.finish()
}

impl<'a> Census<'a> {
    /// Costs the free units times the instances.
    pub(crate) fn share(&self) -> Share<'a> {
        let targets = self.targets();
        let target = |who: &str| targets.get(who).copied().unwrap_or(0);
        let mine = self.held.get(self.me).copied().unwrap_or(0);
        let mut wants: BTreeMap<&str, usize> = BTreeMap::new();
        for (who, held) in &self.held {
            wants.insert(who, target(who).saturating_sub(*held));
        }
        let settled = self.free.is_empty()
            && self.coming == 0
            && self.held.iter().all(|(who, held)| *held == target(who));
        let mut free = self.free.clone();
        free.sort_unstable();
        let mut take = Vec::new();
        for unit in free {
            let hungry = wants.iter_mut().filter(|(_, wants)| **wants > 0);
            let Some((who, wants)) = hungry.max_by_key(|(who, _)| (rank(unit, who), **who)) else { break };
            *wants -= 1;
            if *who == self.me {
                take.push(unit);
            }
        }
        Share { take, give: mine.saturating_sub(target(self.me)), most: target(self.me), settled }
    }

    /// How many units each should hold. What does not go round goes to those that hold most: then least has to move.
    fn targets(&self) -> BTreeMap<&'a str, usize> {
        let all = self.held.values().sum::<usize>() + self.free.len() + self.coming;
        let instances = self.held.len().max(1);
        let (each, mut odd) = (all / instances, all % instances);
        let mut order: Vec<_> = self.held.iter().map(|(who, held)| (Reverse(*held), *who)).collect();
        order.sort_unstable();
        let mut target = |who: &'a str| {
            let more = usize::from(odd > 0);
            odd -= more;
            (who, each + more)
        };
        order.into_iter().map(|(_, who)| target(who)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

    /// Who holds which unit; `None`: nobody does.
    type Held = BTreeMap<String, Option<&'static str>>;

    /// What has to move for `there` to hold the same.
    fn census<'a>(held: &'a Held, there: &[&'static str], me: &'a str) -> Census<'a> {
        let count = |who| held.values().filter(|holder| **holder == Some(who)).count();
        let gone = |holder: &&'static str| !there.contains(holder);
        Census {
            me,
            held: there.iter().map(|who| (*who, count(*who))).collect(),
            free: held.iter().filter(|(_, holder)| holder.is_none()).map(|(unit, _)| unit.as_str()).collect(),
            coming: held.values().flatten().filter(|holder| gone(holder)).count(),
        }
    }

    /// Everybody does what follows from the same view, one unit each at most; answers how many were let go of.
    fn round(held: &mut Held, there: &[&'static str]) -> usize {
        let before = held.clone();
        let mut given = 0;
        for me in there {
            let share = census(&before, there, me).share();
            for unit in share.take {
                let holder = held.get_mut(unit).unwrap();
                assert_eq!(*holder, None, "two were told to take {unit}");
                *holder = Some(me);
            }
            if share.give > 0 {
                let own = held.iter_mut().find(|(_, holder)| **holder == Some(me)).unwrap();
                *own.1 = None;
                given += 1;
            }
        }
        given
    }

    fn settle(held: &mut Held, there: &[&'static str]) -> usize {
        let mut given = 0;
        for _ in 0..=2 * held.len() + 2 {
            given += round(held, there);
            if there.iter().all(|me| census(held, there, me).share().settled) {
                return given;
            }
        }
        panic!("it does not settle: {held:?}");
    }

    fn counts(held: &Held, there: &[&'static str]) -> Vec<usize> {
        there.iter().map(|who| held.values().filter(|holder| **holder == Some(*who)).count()).collect()
    }

    fn units(n: usize) -> Held {
        (0..n).map(|n| (format!("u{n}"), None)).collect()
    }

    proptest! {
        /// From whatever it was: all held, evenly, and no more moved than had to.
        #[test]
        fn all_is_held_evenly_and_no_more_moves_than_must(
            holders in prop::collection::vec(0..8usize, 0..60),
            instances in 1..7usize,
        ) {
            let there = &NAMES[..instances];
            let mut held: Held = holders.iter().enumerate()
                .map(|(n, who)| (format!("u{n}"), there.get(*who).copied())).collect();
            let before = counts(&held, there);
            let given = settle(&mut held, there);
            let after = counts(&held, there);
            prop_assert_eq!(after.iter().sum::<usize>(), held.len());
            prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{:?}", after);
            let each = held.len() / instances;
            let odd = before.iter().filter(|held| **held > each).count().min(held.len() % instances);
            let over: usize = before.iter().map(|held| held.saturating_sub(each)).sum();
            prop_assert_eq!(given, over - odd, "{:?} became {:?}", before, after);
        }

        /// Who comes is given its share; who goes takes nothing else along; who comes back within a lease moves nothing.
        #[test]
        fn a_change_of_the_fleet_moves_only_what_it_must(n in 0..60usize, instances in 2..7usize) {
            let there = &NAMES[..instances];
            let rest = &NAMES[..instances - 1];
            let mut held = units(n);
            prop_assert_eq!(settle(&mut held, rest), 0);
            let given = settle(&mut held, there);
            prop_assert!(given <= n.div_ceil(instances), "{} of {} moved to the {}th", given, n, instances);
            // It dies, and is there again under another name while its leases still run.
            let dead = there[instances - 1];
                let again = NAMES[instances];
            let mut back = rest.to_vec();
            back.push(again);
            let before = held.clone();
            prop_assert_eq!(round(&mut held, &back), 0, "nothing is let go of for who is about to have its own");
            prop_assert_eq!(&held, &before);
            for holder in held.values_mut().filter(|holder| **holder == Some(dead)) {
                *holder = None;
            }
            prop_assert_eq!(settle(&mut held, &back), 0);
            for (unit, holder) in &held {
                let was = before[unit];
                prop_assert!(was == *holder || was == Some(dead), "{} moved from {:?} to {:?}", unit, was, holder);
            }
            // It goes, and nobody comes.
            for holder in held.values_mut().filter(|holder| **holder == Some(again)) {
                *holder = None;
            }
            let left = held.clone();
            prop_assert_eq!(settle(&mut held, rest), 0);
            prop_assert!(left.iter().all(|(unit, holder)| holder.is_none() || held[unit] == *holder));
        }
    }
}
