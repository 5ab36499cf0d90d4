//! How much of each resource.
//!
//! Names of resources become places in a short array, so that comparing two amounts is eight subtractions. Three are always there;
//! one more counts machines, so that a limit on their number is a limit like any other; four are left for names of people's own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many different resources a fleet can have, those that are always there included.
pub const KINDS: usize = 8;

/// What counts as without end. Far below the largest number, so that sums of a few do not overflow.
pub(crate) const ENDLESS: i64 = 1 << 60;

/// The largest amount that is accepted: the largest whole number up to which floating point is exact, 8 PiB in octets.
pub const LARGEST: u64 = 1 << 53;

/// The place of the number of machines.
pub(crate) const MACHINES: usize = 3;

/// How much of each resource, by its place in [`Kinds`]. What is free may be below zero: what stands is accepted as it stands.
pub(crate) type Amounts = [i64; KINDS];

pub(crate) const NOTHING: Amounts = [0; KINDS];

/// Whether `need` fits into `free`, in every resource. Of what is not needed, less than nothing may be free.
pub(crate) fn fits(need: &Amounts, free: &Amounts) -> bool {
    (0..KINDS).all(|k| need[k] == 0 || need[k] <= free[k])
}

pub(crate) fn add(to: &mut Amounts, what: &Amounts) {
    to.iter_mut().zip(what).for_each(|(a, b)| *a += b);
}

pub(crate) fn take(from: &mut Amounts, what: &Amounts) {
    from.iter_mut().zip(what).for_each(|(a, b)| *a -= b);
}

/// The names of resources and their places.
#[derive(Clone, Debug)]
pub(crate) struct Kinds {
    names: Vec<String>,
}

impl Default for Kinds {
    fn default() -> Self {
        Self { names: ["cpu", "memory", "disk", "machines"].map(str::to_owned).into() }
    }
}

impl Kinds {
    pub(crate) fn name(&self, kind: usize) -> &str {
        self.names.get(kind).map_or("?", String::as_str)
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }

    /// The place of a name, a new one if it is new; `None`: there are [`KINDS`] already.
    pub(crate) fn intern(&mut self, name: &str) -> Option<usize> {
        self.find(name).or_else(|| {
            (self.names.len() < KINDS).then(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            })
        })
    }
}

/// Amounts by name, as people write them: `{cpu: 4, memory: 8589934592}`. Memory and disk are in octets.
pub type Named = BTreeMap<String, u64>;

/// How many times its capacity a resource is given out, in percent: 400 for four virtual processors to a real one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percent(pub u32);

impl Percent {
    /// That share of an amount, rounded down.
    #[must_use]
    pub fn of(self, amount: u64) -> u64 {
        u64::try_from(u128::from(amount) * u128::from(self.0) / 100).unwrap_or(u64::MAX)
    }
}
