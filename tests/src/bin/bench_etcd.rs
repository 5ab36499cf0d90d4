//! What etcd costs where we cost something, on the same machine and disk in the same run: writes of 64 clients, watches of
//! everything, and the memory of one that holds the same rows. One line of JSON a figure; ours stand in what `bench_store`,
//! `bench_watch` and `bench_fleet` print.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use etcd_client::{Client, Txn, TxnOp, WatchOptions};
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::process::Process;
use shoal_tests::{ports, shape, wait};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// As in `bench_store`.
const ROUNDS: usize = 7;
const CLIENTS: usize = 64;
const MANY: usize = 6400;
/// As in `bench_watch`.
const WATCHERS: usize = 1000;
const COMMITS: usize = 100;
/// Connections; streams share them.
const CONNECTIONS: usize = 16;
/// Rows of one transaction: etcd takes 128.
const TOGETHER: usize = 100;
/// What every watcher watches.
const WATCHED: &str = "watched/";

#[derive(Parser)]
struct Options {
    /// Where the scratch folder is made.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How many hosts the database holds.
    #[arg(long, default_value_t = 10_000)]
    hosts: u32,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(&Options::parse()))
}

async fn measure(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir_in(&options.dir)?;
    let (process, clients) = start(folder.path()).await?;
    let usage = || Usage::of(process.id());
    let empty = usage()?.resident;
    fill(&clients, options.hosts).await?;
    let each = usage()?.resident.saturating_sub(empty) as f64 / f64::from(options.hosts);
    Figure::median("etcd_memory", "octets/host", vec![each]).hosts(options.hosts).print();
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        rates.push(puts(&clients, round).await?);
    }
    Figure::median("etcd_puts_64_clients_one_value_of_1_kib_each", "1/s", rates).hosts(options.hosts).print();
    let before = usage()?.cpu;
    let times = watches(&clients).await?;
    let cpu = usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6 / (COMMITS * WATCHERS) as f64;
    Figure::median("etcd_put_to_last_of_1k_watchers", "us", times)
        .hosts(options.hosts)
        .beside("etcd's cpu for each, the opening of the watches included", cpu)
        .print();
    Ok(())
}

/// A new etcd of one member, and connections to it.
async fn start(folder: &Path) -> Result<(Process, Vec<Client>)> {
    let (port, peer) = (ports::free()?, ports::free()?);
    let (at, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(folder.join("etcd"));
    for name in ["listen-client-urls", "advertise-client-urls"] {
        command.arg(format!("--{name}={at}"));
    }
    for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
        command.arg(format!("--{name}={peer}"));
    }
    command.arg(format!("--initial-cluster=default={peer}"));
    command.args(["--quota-backend-bytes", "8589934592"]);
    let process = Process::start("etcd", folder, &mut command).context("etcd (apt install etcd-server)")?;
    wait::until("etcd", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop)
    })?;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::connect([&at], None).await?);
    }
    Ok((process, clients))
}

/// Writes the rows that a fleet of ours has.
async fn fill(clients: &[Client], hosts: u32) -> Result<()> {
    let rows: Vec<_> = shape::fleet(hosts)?
        .into_iter()
        .map(|change| {
            (change.key.to_string(), change.value.map_or_else(String::new, |v| v.as_str().to_owned()))
        })
        .collect();
    let parts: Arc<Vec<Vec<_>>> = Arc::new(rows.chunks(TOGETHER).map(<[_]>::to_vec).collect());
    let (next, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for client in clients {
        let (mut client, parts, next) = (client.clone(), parts.clone(), next.clone());
        tasks.spawn(async move {
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                let put = |(key, value): &(String, String)| TxnOp::put(key.as_str(), value.as_str(), None);
                client.txn(Txn::new().and_then(part.iter().map(put).collect::<Vec<_>>())).await?;
            }
            Ok::<_, etcd_client::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// How many writes a second so many clients get done.
async fn puts(clients: &[Client], round: usize) -> Result<f64> {
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for n in 0..CLIENTS {
        let mut client = clients[n % clients.len()].clone();
        tasks.spawn(async move {
            for serial in 0..MANY / CLIENTS {
                let value = format!("{{\"serial\":{round}{serial},\"fill\":\"{}\"}}", "x".repeat(950));
                client.put(format!("puts/{n}"), value, None).await?;
            }
            Ok::<_, etcd_client::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(MANY as f64 / begun.elapsed().as_secs_f64())
}

/// The times from each acknowledgement until the last of the watchers has the write, in microseconds.
async fn watches(clients: &[Client]) -> Result<Vec<f64>> {
    let (heard, mut news) = mpsc::channel(WATCHERS);
    let mut tasks = JoinSet::new();
    for n in 0..WATCHERS {
        let mut client = clients[n % clients.len()].clone();
        let heard = heard.clone();
        let mut stream = client.watch(WATCHED, Some(WatchOptions::new().with_prefix())).await?;
        tasks.spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                if !message.events().is_empty() && heard.send(Instant::now()).await.is_err() {
                    break;
                }
            }
        });
    }
    let (mut client, mut times) = (clients[0].clone(), Vec::new());
    for serial in 0..COMMITS {
        client.put(format!("{WATCHED}web1"), format!("{{\"serial\":{serial}}}"), None).await?;
        let answered = Instant::now();
        let mut last = answered;
        for _ in 0..WATCHERS {
            let at = tokio::time::timeout(Duration::from_secs(30), news.recv()).await?;
            last = last.max(at.context("nobody watches any more")?);
        }
        times.push((last - answered).as_secs_f64() * 1e6);
    }
    Ok(times)
}
