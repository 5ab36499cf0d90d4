//! Fleets by chance, from a seed: for tests and the bench.
#![allow(dead_code, unreachable_pub, reason = "each user takes some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;

use shoal_placement::choose::{Level, Request, Room, Rule, lower_bound};

/// A generator of numbers that is the same everywhere (splitmix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// Below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }

    pub fn shuffle<T>(&mut self, some: &mut [T]) {
        for i in (1..some.len()).rev() {
            some.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// How shapes come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shapes {
    /// As clouds sell them: 1 to 16 processors, 1 to 8 GiB for each; one for each service.
    Flavours,
    /// Any, one for each service.
    Services,
    /// Any, another for each machine.
    Each,
}

const GIB: u64 = 1 << 30;

/// Boxes that are alike, 20 in a rack, in two sites.
pub fn boxes(count: usize) -> Vec<Room> {
    let one = |n: usize| Room {
        name: format!("box{n:05}"),
        capacity: named(&[("cpu", 64_000), ("memory", 256 * GIB), ("disk", 8_000 * GIB)]),
        labels: [("rack", format!("r{}", n / 20)), ("site", format!("s{}", n % 40 / 20))]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
        ..Room::default()
    };
    (0..count).map(one).collect()
}

/// Amounts by name.
pub fn named(some: &[(&str, u64)]) -> BTreeMap<String, u64> {
    some.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
}

fn shape(shapes: Shapes, chance: &mut Chance) -> BTreeMap<String, u64> {
    let disk = (20 + chance.below(24) * 20) * GIB;
    let (cpu, memory) = if shapes == Shapes::Flavours {
        let cpus = chance.of(&[1, 2, 2, 4, 4, 4, 8, 8, 16]);
        (cpus * 1000, cpus * chance.of(&[1, 2, 4, 8]) * GIB)
    } else {
        // The square of a uniform one: many small, few large.
        let mut square = |most: u64| (chance.below(1000) * chance.below(1000)) * most / 1_000_000;
        (500 + square(22_000), (GIB / 2) + square(88 * 1024) * (GIB / 1024))
    };
    named(&[("cpu", cpu), ("memory", memory), ("disk", disk)])
}

/// Machines of services, at most one of a service in a box, in the order in which they happen to come. A service is half a
/// dozen machines mostly, and up to one for every second box.
pub fn machines(count: usize, shapes: Shapes, seed: u64) -> Vec<Request> {
    let mut chance = Chance(seed);
    let mut all = Vec::with_capacity(count);
    let mut service = 0;
    while all.len() < count {
        let size = match chance.below(40) {
            0 => count as u64 / 200 + chance.below(count as u64 / 20 + 1) + 1,
            1..=9 => 10 + chance.below(40),
            _ => 2 + chance.below(9),
        };
        let name = format!("vm/s{service}");
        let common = shape(shapes, &mut chance);
        for n in 0..size.min((count - all.len()) as u64) {
            let needs = if shapes == Shapes::Each { shape(shapes, &mut chance) } else { common.clone() };
            all.push(Request {
                name: format!("s{service}-{n}"),
                needs,
                group: Some(name.clone()),
                apart: [Rule { tag: name.clone(), level: Level::Box }].into(),
                ..Request::default()
            });
        }
        service += 1;
    }
    chance.shuffle(&mut all);
    all
}

/// Seeds of instances that need most of the boxes, and can have room in them.
pub fn seeds(count: usize, room: usize, shapes: Shapes) -> impl Iterator<Item = u64> {
    (1..).filter(move |seed| {
        let least = lower_bound(&machines(count, shapes, *seed), &boxes(room));
        (room * 85 / 100..=room * 98 / 100).contains(&least)
    })
}
