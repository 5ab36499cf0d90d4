//! What a database in etcd costs, beside plain etcd on the same machine and disk in the same run: commits, watches, starts, an idle swarm, what
//! travels after a cut, how work is handed over, and a crowd of watchers.
//!
//! One line of JSON a figure. Each part can be tried by itself and small: `bench_etcd --hosts 1000 --only commits,idle --idle 5`. All that it
//! starts ends with it, also where it is killed; the scratch folder in `--dir` is then left.

mod commits;
mod delivery;
mod etcd;
mod handover;
mod idle;
mod plain;
mod resync;
mod swarm;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use shoal_store_etcd::EtcdStore;
use shoal_tests::process::more_files;
use shoal_tests::served::Watched;
use shoal_tests::server::Server;
use shoal_tests::shape;

use crate::etcd::Etcd;
use crate::swarm::Swarm;

/// The database of the fleet.
const NAME: &str = "bench";
/// As in `bench_watch`; fewer rounds.
const COMMITS: u32 = 500;
const ROUNDS: u32 = 3;

#[derive(Parser)]
struct Options {
    /// Where the scratch folder is made.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many hosts the database holds.
    #[arg(long, default_value_t = 10_000)]
    hosts: u32,
    /// Only these parts; without it all but `plain`.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// How many watch everything.
    #[arg(long, default_value_t = 1_000)]
    watchers: u32,
    /// How many watch a host of their own; at most as many as there are hosts.
    #[arg(long, default_value_t = 10_000)]
    crowd: u32,
    /// How many changes are made while the link is cut.
    #[arg(long, default_value_t = 1_000)]
    changes: u32,
    /// For how many seconds it is cut; more than the ten for which nobody says anything.
    #[arg(long, default_value_t = 15)]
    cut: u64,
    /// For how many seconds the swarm is looked at while it has nothing to do.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// How many seconds the claim on a unit lasts where it is handed over; at least 3.
    #[arg(long, default_value_t = 3)]
    lease: u64,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Plain etcd alone: the same rows, puts, watches.
    Plain,
    /// Commits of one client and of 64, beside plain puts and SQLite.
    Commits,
    /// A commit to everybody who watches, through a server, beside etcd's own watches.
    Delivery,
    /// Server and agents from their start, and their memory.
    Start,
    /// A swarm with nothing to do.
    Idle,
    /// What travels after a cut.
    Resync,
    /// A unit to another instance.
    Handover,
    /// Watchers of one host each.
    Crowd,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        if self.only.is_empty() { part != Part::Plain } else { self.only.contains(&part) }
    }
}

fn main() -> Result<()> {
    run(&Options::parse())
}

fn run(options: &Options) -> Result<()> {
    more_files()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let dir = folder.path();
    let etcd = Etcd::start(dir).await?;
    if options.wants(Part::Plain) {
        plain::measure(&etcd, options).await?;
    }
    let fleet = [Part::Commits, Part::Delivery, Part::Start, Part::Idle, Part::Resync, Part::Crowd];
    if fleet.into_iter().any(|part| options.wants(part)) {
        with_fleet(&etcd, dir, options).await?;
    }
    if options.wants(Part::Handover) {
        handover::measure(&etcd, &part(dir, "handover")?, options).await?;
    }
    Ok(())
}

/// What needs the whole fleet in the database.
async fn with_fleet(etcd: &Etcd, dir: &Path, options: &Options) -> Result<()> {
    let store = EtcdStore::open(&etcd.address(NAME)).await?;
    etcd::fill(&store, &shape::zoned(options.hosts)?).await?;
    if options.wants(Part::Commits) {
        commits::measure(etcd, &store, dir, options).await?;
    }
    if options.wants(Part::Delivery) {
        delivery::measure(etcd, &store, &part(dir, "delivery")?, options).await?;
    }
    if [Part::Start, Part::Idle, Part::Resync].into_iter().any(|part| options.wants(part)) {
        let mut swarm = Swarm::start(etcd, &part(dir, "swarm")?, options).await?;
        if options.wants(Part::Idle) {
            idle::measure(etcd, &mut swarm, options).await?;
        }
        if options.wants(Part::Resync) {
            resync::measure(etcd, &store, &swarm, options).await?;
        }
    }
    if options.wants(Part::Crowd) {
        crowd(etcd, &store, &part(dir, "crowd")?, options).await?;
    }
    Ok(())
}

async fn crowd(etcd: &Etcd, store: &EtcdStore, dir: &Path, options: &Options) -> Result<()> {
    let watched = Watched {
        dir,
        on: "etcd",
        url: etcd.address(NAME),
        empty: etcd.address("empty"),
        store,
        hosts: options.hosts,
        many: options.crowd.min(options.hosts),
        commits: COMMITS,
        rounds: ROUNDS,
    };
    watched.memory().await?;
    let mut server = Server::start(dir, &watched.url)?;
    watched.concerned(&server).await?;
    watched.restart(&mut server).await
}

/// A folder for what a part starts.
fn part(dir: &Path, name: &str) -> Result<PathBuf> {
    let dir = dir.join(name);
    std::fs::create_dir(&dir).context("a folder")?;
    Ok(dir)
}
