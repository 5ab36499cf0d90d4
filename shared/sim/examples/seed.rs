//! Runs one seed again and shows what happened: `SHOAL_SEED=17 cargo run -p shoal-sim --example seed`. With `SHOAL_SIM_SURVEY`,
//! runs many and says of each that fails why, in one line. docs/simulation.md names the other variables.

#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::error::Error;

use shoal_sim::{Setup, shrink, simulate};

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::var_os("SHOAL_SIM_SURVEY").is_some() { survey() } else { replay() }
}

fn number(name: &str) -> Result<Option<u64>, Box<dyn Error>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{name}={text:?} is no number").into())
}

fn survey() -> Result<(), Box<dyn Error>> {
    let (start, seeds) = (number("SHOAL_SEED")?.unwrap_or(0), number("SHOAL_SIM_SEEDS")?.unwrap_or(500));
    for seed in start..start + seeds {
        if let Err(failure) = simulate(&Setup::new(seed)) {
            println!("{seed}: {}", failure.why.lines().next().unwrap_or_default());
        }
    }
    Ok(())
}

fn replay() -> Result<(), Box<dyn Error>> {
    let seed = number("SHOAL_SEED")?.ok_or("SHOAL_SEED is missing: which seed?")?;
    let mut setup = Setup::new(seed);
    if let Ok(without) = std::env::var("SHOAL_SIM_WITHOUT") {
        for name in without.split(',').filter(|name| !name.is_empty()) {
            setup.faults.remove(&name.parse()?);
        }
    }
    if let Some(steps) = number("SHOAL_SIM_STEPS")? {
        setup.steps = usize::try_from(steps)?;
    }
    if let Ok(breakage) = std::env::var("SHOAL_SIM_BREAK") {
        setup = setup.broken(breakage.parse()?);
    }
    setup.trace = usize::try_from(number("SHOAL_SIM_TRACE")?.unwrap_or(100))?;
    match simulate(&setup) {
        Ok(summary) => {
            println!("seed {seed} holds: {summary:?}");
            Ok(())
        }
        Err(failure) => {
            let cut = std::env::var_os("SHOAL_SIM_SHRINK").is_some();
            println!("{}", if cut { shrink(&failure).to_string() } else { failure.to_string() });
            Err(format!("seed {seed} fails").into())
        }
    }
}
