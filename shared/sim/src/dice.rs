//! Seeded randomness.
//!
//! One seed decides everything. Each part of a simulation throws dice of its own ([`Dice::new`] with the part's
//! name), so that one part throwing more often does not change what happens in the others: a shrunk run stays
//! close to the run it came from.

use std::hash::{DefaultHasher, Hash, Hasher};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The dice of one part of a simulation.
#[derive(Clone, Debug)]
pub(crate) struct Dice(StdRng);

impl Dice {
    /// The dice that `seed` gives to `part`.
    pub(crate) fn new(seed: u64, part: &str) -> Self {
        // The default hasher starts from fixed keys: the same in every process.
        let mut hash = DefaultHasher::new();
        (seed, part).hash(&mut hash);
        Self(StdRng::seed_from_u64(hash.finish()))
    }

    /// True so often in a thousand throws.
    pub(crate) fn chance(&mut self, of_thousand: u32) -> bool {
        self.0.random_range(0..1000) < of_thousand
    }

    /// A number below `n`; 0 when `n` is 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { self.0.random_range(0..n) }
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: i64, most: i64) -> i64 {
        self.0.random_range(least..=most.max(least))
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())) }
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.random()
    }
}
