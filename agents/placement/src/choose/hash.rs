//! Hashes that are the same on every machine and in every version: they break ties.

use std::hash::{BuildHasherDefault, Hasher};

/// Stirs a number well (splitmix64).
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The hash of a name (FNV-1a, stirred).
pub(crate) fn of_text(text: &str) -> u64 {
    let fnv = |hash: u64, octet: u8| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// For tables whose keys are numbers of our own making, so that nobody can aim at them.
#[derive(Default)]
pub(crate) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        octets.iter().for_each(|octet| self.0 = mix(self.0 ^ u64::from(*octet)));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(n);
    }
}

pub(crate) type Table<V> = std::collections::HashMap<u64, V, BuildHasherDefault<Numbers>>;
