//! What watches cost: ten thousand of one host each, in this process and through a server, and a thousand of
//! everything.
//!
//! One line of JSON a figure. The database stands in `--dir`, in SQLite; the server is a process of its own, on a Unix socket, and
//! hears of the bench's commits as of those of any other process.

mod here;

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::crowd::commit;
use shoal_tests::process::more_files;
use shoal_tests::served::Watched;
use shoal_tests::server::Server;
use shoal_tests::shape;

/// Watchers of one host each.
const MANY: u32 = 10_000;
/// Watchers of everything.
const ALL: u32 = 1_000;
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
    // A connection each.
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
    let watched = Watched {
        dir: folder.path(),
        on: "sqlite",
        url: format!("sqlite:{}", path.display()),
        empty: format!("sqlite:{}", folder.path().join("empty.db").display()),
        store: &store,
        hosts,
        many: MANY,
        commits: COMMITS,
        rounds: ROUNDS,
    };
    watched.memory().await?;
    let mut server = Server::start(folder.path(), &watched.url)?;
    watched.all(&server, ALL).await?;
    watched.concerned(&server).await?;
    watched.uptos(&server).await?;
    watched.restart(&mut server).await
}
