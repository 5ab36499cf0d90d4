//! Cutting a failing run down: as few kinds of faults and as few commits as still fail.
//!
//! It is the same seed with less of everything, so a smaller run may break another invariant than the first did: a
//! failure that is easier to read is worth more than the one that was met first.

use crate::setup::{Failure, Setup};
use crate::swarm::simulate;

/// How many runs are tried at most.
const TRIES: usize = 60;
/// How much of what happened is shown.
const LINES: usize = 60;

/// A smaller run that fails, with a trace.
#[must_use]
pub fn shrink(failure: &Failure) -> Failure {
    let mut best = failure.clone();
    let mut tries = 0;
    let mut fails = |setup: Setup| {
        tries += 1;
        if tries > TRIES { None } else { simulate(&setup).err().map(|failure| *failure) }
    };
    for kind in &failure.setup.faults {
        let mut setup = best.setup.clone();
        setup.faults.remove(kind);
        if let Some(smaller) = fails(setup) {
            best = smaller;
        }
    }
    let mut cut = best.setup.steps / 2;
    while cut > 0 {
        let mut setup = best.setup.clone();
        setup.steps = setup.steps.saturating_sub(cut).max(1);
        match fails(setup) {
            Some(smaller) if smaller.setup.steps < best.setup.steps => best = smaller,
            _ => cut /= 2,
        }
    }
    let mut setup = best.setup.clone();
    setup.trace = LINES;
    simulate(&setup).err().map_or(best, |traced| *traced)
}
