//! The engine in simulated swarms: it holds what it promises, and engines that do not are caught.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of this is a test, its helpers too, and what was run is said"
)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal_sim::{Breakage, Failure, FaultKind, Setup, Summary, shrink, simulate};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// How many seeds the engine has to pass, and within how many each broken one has to be caught.
fn seeds() -> u64 {
    number("SHOAL_SIM_SEEDS").unwrap_or(2_000)
}

/// Runs them on all processors, until one fails.
fn first_failure(
    seeds: std::ops::Range<u64>,
    setup: impl Fn(u64) -> Setup + Sync,
    seen: impl Fn(Summary) + Sync,
) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let failed: Mutex<Option<Failure>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match simulate(&setup(seed)) {
                        Ok(summary) => seen(summary),
                        Err(failure) => *failed.lock().unwrap() = Some(*failure),
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

#[test]
fn the_engine_holds_what_it_promises() {
    let total = Mutex::new(Summary::default());
    let failure = first_failure(0..seeds(), Setup::new, |one| {
        let mut all = total.lock().unwrap();
        all.events += one.events;
        all.landed += one.landed;
        all.agreed += one.agreed;
        all.waited += one.waited;
        all.restores += one.restores;
        all.handed_over += one.handed_over;
        all.crashes.extend(one.crashes);
        for (kind, times) in one.struck {
            *all.struck.entry(kind).or_default() += times;
        }
    });
    if let Some(failure) = failure {
        panic!("{}", shrink(&failure));
    }
    let all = total.into_inner().unwrap();
    println!("{} seeds: {all:?}", seeds());
    let struck = all.struck.iter().map(|(kind, times)| format!("{kind} {times}")).collect::<Vec<_>>();
    // `tests/run` shows this line.
    println!("sim: {} seeds, faults: {}", seeds(), struck.join(", "));
    if seeds() >= 2_000 {
        // Enough of everything was seen: a simulation in which nothing happens holds any invariant.
        for kind in FaultKind::ALL {
            assert!(all.struck.contains_key(&kind), "no {kind} ever struck: {:?}", all.struck);
        }
        for effect in
            ["claim", "join", "leave", "ledger read", "ledger write", "look", "apply", "facts", "report"]
        {
            for place in [format!("before {effect}"), format!("after {effect}")] {
                assert!(all.crashes.contains(&place), "nobody ever died {place}: {:?}", all.crashes);
            }
        }
        assert!(
            all.landed > 10_000
                && all.agreed > 100
                && all.waited > 1_000
                && all.restores > 50
                && all.handed_over > 500,
            "{all:?}"
        );
    }
}

fn is_caught(breakage: Breakage) {
    let failure = first_failure(0..500, |seed| Setup::new(seed).broken(breakage), |_| ());
    let failure = failure.unwrap_or_else(|| panic!("{breakage} went through 500 seeds unnoticed"));
    println!("{breakage}: {}", failure.why);
}

#[test]
fn a_ledger_written_after_the_effect_is_caught() {
    is_caught(Breakage::LedgerAfterEffect);
}

#[test]
fn an_ignored_fence_is_caught() {
    is_caught(Breakage::FenceIgnored);
}

#[test]
fn absence_taken_for_a_delete_is_caught() {
    is_caught(Breakage::AbsenceIsDelete);
}

#[test]
fn a_retry_without_its_token_is_caught() {
    is_caught(Breakage::RetryWithoutToken);
}

#[test]
fn a_skipped_guard_is_caught() {
    is_caught(Breakage::GuardSkipped);
}

#[test]
fn a_stale_read_is_caught() {
    is_caught(Breakage::StaleRead);
}

#[test]
fn a_replayed_approval_is_caught() {
    is_caught(Breakage::ApprovalReplayed);
}

#[test]
fn an_ignored_epoch_is_caught() {
    is_caught(Breakage::EpochIgnored);
}

#[test]
fn a_change_that_takes_a_unit_and_counts_as_one_is_caught() {
    is_caught(Breakage::TakingUncounted);
}

#[test]
fn an_ignored_share_is_caught() {
    is_caught(Breakage::ShareIgnored);
}

#[test]
fn a_mark_that_changes_more_than_itself_is_caught() {
    is_caught(Breakage::MarkOverdone);
}

#[test]
fn forgotten_facts_are_caught() {
    is_caught(Breakage::FactsForgotten);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..10 {
        let run = || {
            let mut setup = Setup::new(seed);
            setup.trace = 100;
            match simulate(&setup) {
                Ok(summary) => format!("{summary:?}"),
                Err(failure) => failure.to_string(),
            }
        };
        assert_eq!(run(), run());
    }
}
