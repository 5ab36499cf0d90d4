//! What the SQLite store costs, beside this disk's own sync and a bare SQLite commit of the same row in the same
//! run. One line of JSON a figure.
//!
//! The rounds of what is compared take turns, so that a busy machine is busy for all of them. The database holds a
//! fleet of `--hosts` machines before anything is measured, and stands in `--dir`: measure on the disk that you
//! mean, not on a tmpfs.

mod old;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use futures::StreamExt;
use rusqlite::Connection;
use shoal_core::{Change, Document, Key, Range};
use shoal_store::{Feed, Filter, Query, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::crowd::commit;
use shoal_tests::figure::Figure;
use shoal_tests::shape;

/// Rounds of every figure; each gives one value, the median is shown.
const ROUNDS: usize = 7;
/// Commits of one client in a round.
const ONE: usize = 150;
/// Commits of all clients together in a round.
const MANY: usize = 6400;
const CLIENTS: usize = 64;
/// Room in the log of the bare SQLite that has some, in octets: for all its commits until it begins the log anew.
const ROOM: usize = 32 << 20;
const WATCHERS: usize = 1000;

#[derive(Parser)]
struct Options {
    /// Where the scratch folder is made.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many hosts the database holds.
    #[arg(long, default_value_t = 10_000)]
    hosts: u32,
    /// After how many pages the log is copied into the file; the store's own default otherwise.
    #[arg(long)]
    checkpoint: Option<u32>,
    /// Measure old revisions alone.
    #[arg(long)]
    old: bool,
    /// Be the second process: watch this database and print when each commit is heard.
    #[arg(long, hide = true)]
    listen: Option<PathBuf>,
}

fn main() -> Result<()> {
    run(&Options::parse())
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match &options.listen {
        Some(path) => runtime.block_on(listen(path)),
        None => runtime.block_on(measure(options)),
    }
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let path = folder.path().join("shoal.db");
    let mut how = shoal_store_sqlite::Options::default();
    how.checkpoint = options.checkpoint;
    let store = SqliteStore::open_with(&path, how).await?;
    let fleet = shape::fleet(options.hosts)?;
    for part in fleet.chunks(100_000) {
        store.commit(commit(part.to_vec())).await?;
    }
    if options.old {
        return old::measure(options.hosts, &store).await;
    }
    one_client(options, &store, folder.path()).await?;
    many_clients(options, &store).await?;
    reads(options, &store).await?;
    many_watchers(options, &store).await?;
    neighbour(options, &store, &path).await?;
    old::measure(options.hosts, &store).await
}

/// A host row of about a KiB that no other call wrote.
fn row(n: u32, serial: usize) -> Result<Change> {
    let text =
        format!("{{\"id\":\"{n}\",\"document\":{{\"serial\":{serial},\"fill\":\"{}\"}}}}", "x".repeat(950));
    Ok(Change::put(Key::host(&shape::host(n)?), Document::parse(&text)?))
}

/// The mean time of one of `count` calls, in microseconds.
fn each(count: usize, begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / count as f64
}

/// Microseconds since.
fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}

/// Writes and syncs a page again and again, in a file that is there already: as the write-ahead log does it.
fn sync_round(file: &File, times: &mut Vec<f64>) -> Result<()> {
    let page = [7_u8; 4096];
    for n in 0..ONE {
        let begun = Instant::now();
        file.write_all_at(&page, (n * page.len()) as u64)?;
        file.sync_data()?;
        times.push(since(begun));
    }
    Ok(())
}

fn bare(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    connection.execute_batch("CREATE TABLE t (key TEXT PRIMARY KEY, value TEXT)")?;
    Ok(connection)
}

/// The same with room ahead in its log, as the store's own has.
fn roomy(path: &Path) -> Result<Connection> {
    let connection = bare(path)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let mut log = File::options().append(true).open(log)?;
    log.write_all(&vec![0; ROOM])?;
    log.sync_all()?;
    Ok(connection)
}

/// One row a commit, without history or anything else.
fn bare_round(connection: &Connection, round: usize, times: &mut Vec<f64>) -> Result<()> {
    let mut sql = connection.prepare("INSERT OR REPLACE INTO t VALUES (?1, ?2)")?;
    for n in 0..ONE {
        let change = row(u32::try_from(n)?, round)?;
        let begun = Instant::now();
        sql.execute([change.key.as_str(), change.value.as_ref().map_or("", |v| v.as_str())])?;
        times.push(since(begun));
    }
    Ok(())
}

async fn one_client(options: &Options, store: &SqliteStore, folder: &Path) -> Result<()> {
    let file = File::create(folder.join("synced"))?;
    file.write_all_at(&vec![0; ONE * 4096], 0)?;
    file.sync_all()?;
    let connection = bare(&folder.join("bare.db"))?;
    let room = roomy(&folder.join("roomy.db"))?;
    let (mut syncs, mut bares, mut rooms, mut commits) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        sync_round(&file, &mut syncs)?;
        bare_round(&connection, round, &mut bares)?;
        bare_round(&room, round, &mut rooms)?;
        for n in 0..ONE {
            let commit = commit(vec![row(u32::try_from(n)? % options.hosts, round)?]);
            let begun = Instant::now();
            store.commit(commit).await?;
            commits.push(since(begun));
        }
    }
    let sync = Figure::median("fdatasync of one page", "us", syncs);
    let bare = Figure::median("bare SQLite commit, one row of 1 KiB", "us", bares);
    let room = Figure::median("the same with room ahead in its log", "us", rooms);
    Figure::median("commit, 1 client, one host of 1 KiB", "us", commits)
        .hosts(options.hosts)
        .beside("fdatasync", sync.value)
        .beside("bare SQLite", bare.value)
        .beside("bare SQLite, room ahead", room.value)
        .goal(1.2 * sync.value)
        .print();
    sync.print();
    bare.print();
    room.print();
    Ok(())
}

async fn many_clients(options: &Options, store: &SqliteStore) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let connection = bare(&folder.path().join("bare.db"))?;
    let (mut rates, mut bares) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begun = Instant::now();
        bare_round(&connection, round, &mut Vec::new())?;
        bares.push(1e6 / each(ONE, begun));
        let begun = Instant::now();
        let clients = (0..CLIENTS).map(|client| {
            let (store, hosts) = (store.clone(), options.hosts);
            tokio::spawn(async move {
                for n in 0..MANY / CLIENTS {
                    let host = u32::try_from(client * 1009 + n * 13)? % hosts;
                    store.commit(commit(vec![row(host, 1000 + round * MANY + n)?])).await?;
                }
                anyhow::Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await??;
        }
        rates.push(MANY as f64 / begun.elapsed().as_secs_f64());
    }
    let bare = Figure::median("bare", "1/s", bares);
    Figure::median("commits, 64 clients, one host of 1 KiB each", "1/s", rates)
        .hosts(options.hosts)
        .beside("bare SQLite, 1 client", bare.value)
        .goal(10_000.0)
        .print();
    Ok(())
}

async fn reads(options: &Options, store: &SqliteStore) -> Result<()> {
    // More commits than the goal speaks of have happened; one host's share of them is asked for.
    let head = store.head().await?.revision;
    ensure!(head.0 > 20_000, "only {head} commits");
    let host = Range::Key(Key::host(&shape::host(0)?));
    let (mut logs, mut now, mut past) = (Vec::new(), Vec::new(), Vec::new());
    let old = Query { at: Some(shoal_core::Revision(head.0 / 2)), ..Query::new(host.clone()) };
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..ONE {
            ensure!(!store.log(&host, None, 10).await?.is_empty());
        }
        logs.push(each(ONE, begun));
        for (query, into) in [(Query::new(host.clone()), &mut now), (old.clone(), &mut past)] {
            let begun = Instant::now();
            for _ in 0..ONE {
                ensure!(store.read(&query).await?.rows.len() == 1);
            }
            into.push(each(ONE, begun));
        }
    }
    let log = Figure::median("history of one host after 20k commits, 10 entries", "us", logs);
    log.hosts(options.hosts).goal(1000.0).print();
    Figure::median("read of one row", "us", now).hosts(options.hosts).print();
    Figure::median("read of one row at an old revision", "us", past).hosts(options.hosts).print();
    Ok(())
}

/// A thousand watchers in this process: the time from a commit's begin until the last of them has it.
async fn many_watchers(options: &Options, store: &SqliteStore) -> Result<()> {
    let head = store.head().await?;
    let told = Arc::new(AtomicUsize::new(0));
    let (done, mut all) = tokio::sync::mpsc::channel(1);
    for _ in 0..WATCHERS {
        let mut watch = store.watch(Filter::all(), head);
        let (told, done) = (Arc::clone(&told), done.clone());
        tokio::spawn(async move {
            while let Some(Ok(_)) = watch.next().await {
                if (told.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(WATCHERS) {
                    let _ = done.send(()).await;
                }
            }
        });
    }
    // Each says first that it listens.
    all.recv().await.context("a watcher ended")?;
    let mut times = Vec::new();
    for serial in 0..ROUNDS * 10 {
        let begun = Instant::now();
        store.commit(commit(vec![row(2, 9_000_000 + serial)?])).await?;
        let answered = begun.elapsed();
        all.recv().await.context("a watcher ended")?;
        times.push((begun.elapsed().saturating_sub(answered)).as_secs_f64() * 1e6);
    }
    let last = Figure::median("commit acknowledged to the last of 1,000 watchers", "us", times);
    last.hosts(options.hosts).goal(3000.0).print();
    Ok(())
}

/// Nanoseconds of a clock that all processes of the machine share.
fn now() -> i128 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// A second process watches; the time from the acknowledgement here to the commit in hand there. Less than nothing
/// is possible: it is told before the answer is on its way.
async fn neighbour(options: &Options, store: &SqliteStore, path: &Path) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("--listen")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("the listener has no output")?).lines();
    let mut heard = || -> Result<i128> { Ok(lines.next().context("the listener ended")??.parse()?) };
    heard()?;
    let (mut acknowledged, mut begun) = (Vec::new(), Vec::new());
    for serial in 0..ROUNDS * ONE {
        let start = now();
        store.commit(commit(vec![row(1, 5_000_000 + serial)?])).await?;
        let (done, heard) = (now(), heard()?);
        acknowledged.push((heard - done) as f64 / 1000.0);
        begun.push((heard - start) as f64 / 1000.0);
    }
    child.kill()?;
    child.wait()?;
    let whole = Figure::median("begin of the commit to another process that has it", "us", begun);
    Figure::median("commit acknowledged to another process that has it", "us", acknowledged)
        .hosts(options.hosts)
        .beside("from the commit's begin", whole.value)
        .goal(100.0)
        .print();
    Ok(())
}

async fn listen(path: &Path) -> Result<()> {
    let store = SqliteStore::open(path).await?;
    let mut watch = store.watch(Filter::all(), store.head().await?);
    let mut out = std::io::stdout();
    while let Some(feed) = watch.next().await {
        match feed? {
            // The first says that it listens.
            Feed::Commit(_) | Feed::Upto(_) => writeln!(out, "{}", now())?,
            Feed::Reset(head) => anyhow::bail!("the position was lost: {head:?}"),
        }
        out.flush()?;
    }
    Ok(())
}
