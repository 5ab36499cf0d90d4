//! What watches cost: ten thousand of one host each, in this process and through a server, and a thousand of
//! everything.
//!
//! One line of JSON a figure. The database stands in `--dir`, in SQLite; the server is a process of its own, on a Unix socket, and
//! hears of the bench's commits as of those of any other process.

mod crowd;
mod here;
mod served;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use shoal_core::{Change, Commit, Document, HostRecord, Key};
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::shape;

/// Watchers of one host each.
const MANY: u32 = 10_000;
/// Watchers of everything.
const ALL: usize = 1_000;
/// Commits of a round, each of one host.
const COMMITS: u32 = 500;
const ROUNDS: u32 = 5;

#[derive(Parser)]
struct Options {
    /// Where the scratch folder is made.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many hosts the database holds; 10,000 at least.
    #[arg(long, default_value_t = 100_000)]
    hosts: u32,
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
    let hosts = options.hosts.max(MANY);
    let folder = tempfile::tempdir_in(&options.dir)?;
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await?;
    here::memory(&store).await?;
    for part in shape::fleet(hosts)?.chunks(100_000) {
        store.commit(commit(part.to_vec())).await?;
    }
    here::measure(&store, hosts).await?;
    served::measure(folder.path(), &store, hosts).await
}

/// A connection each, here and, as what this starts inherits it, in the server.
fn more_files() -> Result<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).context("raising the limit of open files")
}

fn commit(changes: Vec<Change>) -> Commit {
    Commit {
        pre: Vec::new(),
        changes,
        author: "bench".into(),
        principal: None,
        origin: None,
        message: "measure".into(),
        idempotency: None,
        intent: None,
    }
}

/// Host `n`, as no other call wrote it.
fn host(n: u32, serial: u32) -> Result<Change> {
    let mut record: HostRecord = shape::record(n).to()?;
    let mut document = shape::document(n);
    document["serial"] = serial.into();
    record.document = document.into();
    Ok(Change::put(Key::host(&shape::host(n)?), Document::of(&record)?))
}
