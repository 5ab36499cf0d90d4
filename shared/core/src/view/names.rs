//! Hosts by their names, in a seventh of the memory that a map of names takes.
//!
//! What is kept of a name is 32 bits of its hash, beside the host's number; the name itself stands with the host and is
//! compared. Of a million names some hundred share their hash with another one, and cost a second comparison.

use std::hash::{DefaultHasher, Hash, Hasher};

use imbl::OrdSet;

use super::symbol::HostSym;

/// Every host name that was ever seen. A clone costs nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(OrdSet<(u32, HostSym)>);

impl Names {
    /// The host of this name; `is` says whether a host has it.
    pub(super) fn find(&self, name: &str, is: impl Fn(HostSym) -> bool) -> Option<HostSym> {
        let hash = hash(name);
        let alike = self.0.range((hash, HostSym(0))..=(hash, HostSym(u32::MAX)));
        alike.map(|(_, sym)| *sym).find(|sym| is(*sym))
    }

    /// Takes a name that [`Names::find`] did not find.
    pub(super) fn insert(&mut self, name: &str, sym: HostSym) {
        self.0.insert((hash(name), sym));
    }
}

/// Without a seed of chance, so that a view does the same each time; nothing of it is kept beyond the process.
fn hash(name: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_hash_are_told_apart() {
        // Among so many, some pairs have the same hash.
        let all: Vec<String> = (0..200_000).map(|n| format!("m{n:06}.example")).collect();
        let mut names = Names::default();
        for (n, name) in (0..).zip(&all) {
            assert_eq!(names.find(name, |sym| all[sym.0 as usize] == *name), None);
            names.insert(name, HostSym(n));
        }
        let mut hashes: Vec<u32> = all.iter().map(|name| hash(name)).collect();
        hashes.sort_unstable();
        assert!(hashes.windows(2).any(|two| two[0] == two[1]), "no two names share a hash: make more");
        for (n, name) in (0..).zip(&all) {
            assert_eq!(names.find(name, |sym| all[sym.0 as usize] == *name), Some(HostSym(n)));
        }
        assert_eq!(names.find("another.example", |_| false), None);
    }
}
