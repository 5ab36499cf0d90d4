//! Real servers, real agents, and everything that can happen to them, from a seed and for a while; `tests/chaos` runs it.
//!
//! Clients commit, read, take IDs and hold claims all the time, through a relay that can be cut; each notes what it asked, when, and what it
//! was answered. Meanwhile processes are killed, stopped, restarted, links cut, slowed and broken, clocks set, a disk filled. During
//! that watches are held to each other and to the order of revisions as they come; after it, everything is healed, and what was noted,
//! theirs too, is held against what the database says and what stands in the agents' files. Meanwhile the clients of a load balancer,
//! which an agent keeps, notice nothing.
//!
//! The seed decides what happens to whom and when, and what clients ask. How the machine shares its time among all of them it
//! does not: the same seed is the same trouble, not the same run.
//!
//! Ends with 0 where all held, 1 where something did not, 77 where it cannot be run here.

#![allow(clippy::print_stdout, reason = "what happened is what it is for")]

mod balancer;
mod checks;
mod clients;
mod ending;
mod enough;
mod linear;
mod relay;
mod run;
mod schedule;
mod seen;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// What the database stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// One file behind one server.
    Sqlite,
    /// Three members of etcd behind two servers.
    Etcd,
}

#[derive(Parser)]
#[command(name = "tests/chaos")]
struct Options {
    /// What decides what happens
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how long things go wrong: 30s, 10m
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = shoal_core::span)]
    length: Duration,
    /// What the database stands on
    #[arg(long, value_enum, default_value_t = Engine::Sqlite)]
    store: Engine,
    /// Where shoal-hostdb, shoal-dns and shoal are
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
}

fn main() -> ExitCode {
    run::run(&Options::parse())
}
