//! Watches through a server, each with its connection.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_client::HttpStore;
use shoal_core::Key;
use shoal_store::{Filter, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::binaries::binary;
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::process::{Process, output};
use shoal_tests::{shape, wait};

use crate::crowd::{Crowd, one_host};
use crate::{ALL, COMMITS, MANY, ROUNDS, commit, host};

const PATIENCE: Duration = Duration::from_secs(60);
/// Commits that watchers miss while the server is away.
const MISSED: u32 = 1_000;

/// The server, and where.
struct Server {
    process: Process,
    socket: std::path::PathBuf,
}

impl Server {
    fn start(dir: &Path) -> Result<Self> {
        let (database, socket) = (dir.join("shoal.db"), dir.join("s"));
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.arg("--store").arg(format!("sqlite:{}", database.display()));
        command.args(["--access", "off"]).arg("--listen").arg(format!("unix:{}", socket.display()));
        command.args(["--max-connections", "20000", "--max-watchers", "20000"]);
        let process = Process::start("hostdb", dir, &mut command)?;
        let mut server = Self { process, socket };
        wait::until("the server", PATIENCE, || {
            server.process.alive()?;
            server.get("/readyz")
        })?;
        Ok(server)
    }

    fn get(&self, path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "--max-time", "5", "--unix-socket"]).arg(&self.socket);
        output(curl.arg(format!("http://localhost{path}")), &[0])
    }

    fn store(&self) -> Result<HttpStore> {
        Ok(HttpStore::new(&format!("unix:{}", self.socket.display()))?)
    }

    /// How many watches are open.
    fn watchers(&self) -> Result<u32> {
        let text = self.get("/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix("shoal_hostdb_watchers "));
        line.context("it does not say how many watch")?.parse().context("how many watch")
    }

    fn usage(&self) -> Result<Usage> {
        Ok(Usage::of(self.process.id())?)
    }
}

pub(crate) async fn measure(dir: &Path, store: &SqliteStore, hosts: u32) -> Result<()> {
    memory(dir).await?;
    let mut server = Server::start(dir)?;
    all(&server, store, hosts).await?;
    let alone = costs(&server, store, begin(&server, 1).await?, 1, 100).await?;
    let among = costs(&server, store, begin(&server, MANY).await?, MANY, 200).await?;
    Figure::median("commit_cpu_server_10k_watchers", "us", among.0)
        .hosts(hosts)
        .beside("one watcher", Figure::median("", "us", alone.0).value)
        .print();
    Figure::median("commit_to_watcher_server_10k_watchers", "us", among.1)
        .hosts(hosts)
        .beside("one watcher", Figure::median("", "us", alone.1).value)
        .print();
    let crowd = begin(&server, MANY).await?;
    uptos(&server, store, &crowd, hosts).await?;
    restart(dir, &mut server, store, hosts).await?;
    drop(crowd);
    Ok(())
}

/// What a watcher costs the server, its connection included. In a server with nothing else, or it would use what loading let go of.
async fn memory(dir: &Path) -> Result<()> {
    let dir = dir.join("empty");
    std::fs::create_dir(&dir).context("a folder")?;
    let server = Server::start(&dir)?;
    let first = begin(&server, 1).await?;
    let before = server.usage()?.resident;
    let crowd = begin(&server, MANY).await?;
    let memory = server.usage()?.resident.saturating_sub(before) as f64 / f64::from(MANY);
    drop((first, crowd));
    Figure::median("watcher_memory_server", "B", vec![memory]).print();
    Ok(())
}

async fn begin(server: &Server, many: u32) -> Result<Crowd> {
    let filters = (0..many).map(|n| Ok((n, one_host(n)?))).collect::<Result<_>>()?;
    Crowd::begin(&server.store()?, filters).await
}

/// Processor time of the server for each commit of this process, and the times until the watcher has it.
async fn costs(
    server: &Server,
    store: &SqliteStore,
    mut crowd: Crowd,
    many: u32,
    first: u32,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut cpu, mut times) = (Vec::new(), Vec::new());
    for round in first..first + ROUNDS {
        let before = server.usage()?.cpu;
        times.extend(crowd.round(store, many, round).await?.answered);
        cpu.push(server.usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(COMMITS));
    }
    Ok((cpu, times))
}

/// What it costs to tell those whom nothing concerns how far the database is, and how often each is.
async fn uptos(server: &Server, store: &SqliteStore, crowd: &Crowd, hosts: u32) -> Result<()> {
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (told, cpu, began) = (crowd.uptos.load(Ordering::SeqCst), server.usage()?.cpu, Instant::now());
        for n in 0..20 {
            // Nobody watches the last host.
            store.commit(commit(vec![host(hosts - 1, round * 100 + n)?])).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let told = (crowd.uptos.load(Ordering::SeqCst) - told) as f64;
        costs.push(server.usage()?.cpu.saturating_sub(cpu).as_secs_f64() * 1e6 / told);
        rates.push(told / began.elapsed().as_secs_f64());
    }
    Figure::median("uptos_of_10k_idle_watchers", "1/s", rates).hosts(hosts).print();
    Figure::median("upto_cpu_server", "us", costs).hosts(hosts).print();
    Ok(())
}

/// The server is stopped and started again, with commits in between: how fast the watchers come back, and what each costs.
async fn restart(dir: &Path, server: &mut Server, store: &SqliteStore, hosts: u32) -> Result<()> {
    server.process.terminate(PATIENCE)?;
    let lost = Instant::now();
    for n in 0..MISSED {
        store.commit(commit(vec![host(hosts - 1, 10_000 + n)?])).await?;
    }
    *server = Server::start(dir)?;
    let (before, began) = (server.usage()?.cpu, Instant::now());
    let (mut come, mut all) = (Vec::new(), 0);
    while all < MANY {
        ensure!(began.elapsed() < PATIENCE, "only {all} watchers came back");
        let so_far = server.watchers()?;
        come.push((Instant::now(), so_far));
        all = so_far;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = lost.elapsed().as_secs_f64();
    // The most within one second.
    let most = come.iter().map(|(from, first)| {
        let within = come.iter().take_while(|(at, _)| *at <= *from + Duration::from_secs(1));
        within.last().map_or(0, |(_, last)| last - first)
    });
    let most = most.max().unwrap_or(0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = server.usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(MANY);
    Figure::median("watchers_back_after_restart_most_in_a_second", "1/s", vec![f64::from(most)])
        .hosts(hosts)
        .beside("seconds until all were", took)
        .print();
    Figure::median("resume_cpu_server_1k_commits_behind", "us", vec![cpu]).hosts(hosts).print();
    Ok(())
}

/// The time from the acknowledgement until the last of those that watch everything has the commit.
async fn all(server: &Server, store: &SqliteStore, hosts: u32) -> Result<()> {
    let filters = (0..ALL as u32).map(|n| (n, Filter::all())).collect();
    let mut crowd = Crowd::begin(&server.store()?, filters).await?;
    let (mut times, mut cpu) = (Vec::new(), Vec::new());
    for serial in 0..100 {
        let before = server.usage()?.cpu;
        store.commit(commit(vec![host(0, 50_000 + serial)?])).await?;
        let answered = Instant::now();
        let mut last = answered;
        for _ in 0..ALL {
            last = last.max(crowd.next().await?.1);
        }
        times.push((last - answered).as_secs_f64() * 1e6);
        cpu.push(server.usage()?.cpu.saturating_sub(before).as_secs_f64());
    }
    let each = cpu.iter().sum::<f64>() * 1e6 / (100.0 * ALL as f64);
    Figure::median("commit_to_last_of_1k_watchers_of_all_server", "us", times)
        .hosts(hosts)
        .beside("server's cpu for each", each)
        .print();
    let key = Key::host(&shape::host(0)?);
    ensure!(store.log(&shoal_core::Range::Key(key), None, 1).await?.len() == 1, "it was written");
    Ok(())
}
