//! The targets of `tests/fuzz` on the compiler of every day: their seeds, and what is made from the seeds by chance.
//!
//! In every run each seed is tried, cut short at many places, and changed some hundreds of times; the seed of chance is fixed,
//! so a failure comes again. `SHOAL_FUZZ_SECONDS` lets each target run that long, from another chance each time, and writes
//! what fails into the scratch folder, where the message says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use shoal_tests::fuzz::{TARGETS, Target};

/// How many changed inputs a target gets in every run.
const CHANGED: usize = 300;

/// Every seed of a target, by name.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{target} has {} seeds", files.len());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn attempt((name, target): Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
        let file = std::env::temp_dir().join(format!("shoal-fuzz-{name}"));
        fs::write(&file, input).unwrap();
        panic!(
            "{name} fails for the {} octets that {} holds: {:?}",
            input.len(),
            file.display(),
            String::from_utf8_lossy(input)
        );
    }
}

/// One input from others: octets changed, taken out, doubled; a piece of another one, a word that often hurts.
fn changed(seeds: &[Vec<u8>], chance: &mut StdRng) -> Vec<u8> {
    const WORDS: [&[u8]; 20] = [
        b"\0",
        b"\xff\xfe",
        b"\xc0\x80",
        b"[",
        b"{",
        b"*a",
        b"&a ",
        b"- ",
        b"? ",
        b"\n---\n",
        b"!!binary ",
        b"1e999",
        b"-0.0",
        b"18446744073709551616",
        b"%2F",
        b"%00",
        b"..",
        b"\"",
        b"\\",
        b"\xe2\x80\xa8",
    ];
    let mut input = seeds.choose(chance).unwrap().clone();
    for _ in 0..chance.random_range(1..6) {
        let at = chance.random_range(0..=input.len());
        let some = chance.random_range(0..=(input.len() - at).min(24));
        match chance.random_range(0..6) {
            0 if at < input.len() => input[at] = chance.random(),
            1 => drop(input.drain(at..at + some)),
            2 => drop(input.splice(at..at, WORDS.choose(chance).unwrap().iter().copied())),
            3 => {
                let piece = input[at..at + some].repeat(chance.random_range(1..40));
                drop(input.splice(at..at, piece));
            }
            4 => {
                let other = seeds.choose(chance).unwrap();
                let from = chance.random_range(0..=other.len());
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            _ => {
                if let Some(octet) = input.get_mut(at) {
                    *octet ^= 1 << chance.random_range(0..8);
                }
            }
        }
    }
    input
}

fn replay(name: &str) {
    let target = *TARGETS.iter().find(|(other, _)| *other == name).unwrap();
    let seeds = seeds(name);
    for seed in &seeds {
        attempt(target, seed);
        for cut in (1..seed.len()).step_by((seed.len() / 16).max(1)) {
            attempt(target, &seed[..cut]);
        }
    }
    let seconds = std::env::var("SHOAL_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut chance = StdRng::seed_from_u64(if until.is_some() { rand::random() } else { 7 });
    let mut tried = 0_usize;
    while until.map_or(tried < CHANGED, |until| Instant::now() < until) {
        attempt(target, &changed(&seeds, &mut chance));
        tried += 1;
    }
    assert!(tried > 0, "{name}: nothing was tried");
}

#[test]
fn documents() {
    replay("documents");
}

#[test]
fn selectors() {
    replay("selectors");
}

#[test]
fn zones() {
    replay("zones");
}

#[test]
fn api() {
    replay("api");
}
