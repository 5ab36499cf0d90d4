//! A server and a DNS agent with the built-in name server, each a process of its own on one database file.
//!
//! The bench commits as a third process, through the store, and asks the name server until the change is there: the time
//! counts from the acknowledged commit.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;
use shoal_core::{Change, Commit, Document, HostRecord, Key, Range, Revision, View};
use shoal_store::{Query, Store};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::binaries::binary;
use shoal_tests::figure::{Figure, Usage, seconds};
use shoal_tests::process::Process;
use shoal_tests::{dns, ports, shape, wait};

/// Changes of a round, and rounds of them.
const CHANGES: u32 = 200;
const ROUNDS: u32 = 3;
/// Cold zones per size.
const COLD: usize = 3;
/// Rows of one commit while filling the database.
const CHUNK: usize = 50_000;
/// Between two questions: those who do the work have two cores between them and the bench.
const PAUSE: Duration = Duration::from_micros(20);
/// How often a start is measured.
const STARTS: u32 = 3;
/// How long the agent may take for a whole fleet.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) async fn measure(hosts: u32) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let path = dir.path().join("shoal.db");
    let store = SqliteStore::open(&path).await?;
    let rows = shape::zoned(hosts)?;
    let documents: usize = rows.iter().filter_map(|r| r.value.as_ref()).map(|v| v.as_str().len()).sum();
    fill(&store, &rows).await?;

    server_memory(dir.path(), &path, documents, hosts)?;
    let (server, http) = start_server(dir.path(), &path)?;
    crate::http::measure(dir.path(), &server, http, hosts)?;
    cold_zone(dir.path(), &rows, hosts).await?;
    cold_starts(dir.path(), documents, hosts)?;

    let port = ports::free()?;
    let mut agent = start_agent(dir.path(), &path, port)?;
    wait_served(&mut agent, port, hosts)?;
    quiet(&agent)?;
    let (mut times, mut agents, mut servers) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let before = (Usage::of(agent.id())?.cpu, Usage::of(server.id())?.cpu);
        for n in round * CHANGES..(round + 1) * CHANGES {
            times.push(change(&store, port, n.wrapping_mul(7919) % hosts, n).await?);
        }
        quiet(&agent)?;
        let each =
            |before, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(CHANGES);
        agents.push(each(before.0, Usage::of(agent.id())?.cpu));
        servers.push(each(before.1, Usage::of(server.id())?.cpu));
    }
    Figure::median("commit_to_answer", "ms", times).hosts(hosts).goal(3.0).print();
    Figure::median("agent_cpu_per_change", "us", agents).hosts(hosts).print();
    Figure::median("server_cpu_per_change", "us", servers).hosts(hosts).print();
    Ok(())
}

/// What a server that has just started keeps in memory, beyond one that has nothing to keep and the documents themselves.
fn server_memory(dir: &Path, database: &Path, documents: usize, hosts: u32) -> anyhow::Result<()> {
    let mut beyond = Vec::new();
    for _ in 0..STARTS {
        let (server, _) = start_server(dir, database)?;
        let more = Usage::of(server.id())?.resident.saturating_sub(empty_server(dir)?);
        beyond.push(more.saturating_sub(documents as u64) as f64 / f64::from(hosts));
    }
    Figure::median("server_memory_beyond_documents", "octets/host", beyond)
        .hosts(hosts)
        .beside("documents", documents as f64 / f64::from(hosts))
        .goal(0.8 * 1024.0)
        .print();
    Ok(())
}

/// From the start of an agent that never ran on this database until the last host is answered for.
fn cold_starts(dir: &Path, documents: usize, hosts: u32) -> anyhow::Result<()> {
    let (mut times, mut cpu, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let scratch = tempfile::tempdir_in(dir).context("a scratch folder")?;
        let copy = scratch.path().join("shoal.db");
        std::fs::copy(dir.join("cold.db"), &copy).context("a copy of the database")?;
        let (port, began) = (ports::free()?, Instant::now());
        let mut agent = start_agent(scratch.path(), &copy, port)?;
        wait_served(&mut agent, port, hosts)?;
        times.push(began.elapsed().as_secs_f64());
        let used = Usage::of(agent.id())?;
        cpu.push(used.cpu.as_secs_f64());
        memory.push(used.resident as f64 / f64::from(hosts));
    }
    Figure::median("cold_start_to_last_answer", "s", times).hosts(hosts).print();
    Figure::median("cold_start_cpu", "s", cpu).hosts(hosts).print();
    Figure::median("agent_memory", "octets/host", memory)
        .hosts(hosts)
        .beside("documents", documents as f64 / f64::from(hosts))
        .print();
    Ok(())
}

pub(crate) fn wait_served(agent: &mut Process, port: u16, hosts: u32) -> anyhow::Result<()> {
    wait::until("the agent", PATIENCE, || {
        agent.alive()?;
        dns::serves_fleet(port, hosts)
    })
}

/// A database of a fleet with its zones.
pub(crate) async fn database(path: &Path, hosts: u32) -> anyhow::Result<()> {
    fill(&SqliteStore::open(path).await?, &shape::zoned(hosts)?).await
}

pub(crate) async fn fill(store: &SqliteStore, rows: &[Change]) -> anyhow::Result<()> {
    for chunk in rows.chunks(CHUNK) {
        commit(store, chunk.to_vec()).await?;
    }
    Ok(())
}

pub(crate) async fn commit(store: &SqliteStore, changes: Vec<Change>) -> anyhow::Result<Revision> {
    let commit = Commit::new("bench", "a fleet to measure", changes);
    Ok(store.commit(commit).await?.revision)
}

pub(crate) fn start_server(dir: &Path, database: &Path) -> anyhow::Result<(Process, u16)> {
    let port = ports::free()?;
    let mut command = Command::new(binary("shoal-hostdb")?);
    command.arg("--store").arg(format!("sqlite:{}", database.display()));
    command.args(["--access", "off", "--listen", &format!("127.0.0.1:{port}")]);
    let mut server = Process::start("hostdb", dir, &mut command)?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    wait::until("the server", PATIENCE, || {
        server.alive()?;
        shoal_tests::process::output(Command::new("curl").args(["-fsS", "--max-time", "5", &url]), &[0])
    })?;
    Ok((server, port))
}

/// How long the whole program takes to write both zones as files from nothing, beside reading the rows alone, loading them
/// into a view, and what BIND's checker takes for the larger file.
async fn cold_zone(dir: &Path, rows: &[Change], hosts: u32) -> anyhow::Result<()> {
    let database = dir.join("cold.db");
    fill(&SqliteStore::open(&database).await?, rows).await?;
    let log = dir.join("cold.db-wal");
    wait::until("the end of the log", PATIENCE, || if log.exists() { Err("it stands") } else { Ok(()) })?;
    let (mut times, mut checks, mut reads, mut loads) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..COLD {
        let (time, check) = cold_once(dir, &database, hosts)?;
        let (read, load) = read(&database).await?;
        times.push(time);
        checks.push(check);
        reads.push(read);
        loads.push(load);
    }
    let median = |values| Figure::median("", "s", values).value;
    let read = median(reads);
    Figure::median("cold_zone_files_once", "s", times)
        .hosts(hosts)
        .beside("named-checkzone", median(checks))
        .beside("reading the rows", read)
        .beside("loading a view of them", median(loads))
        .goal(read + 0.1)
        .print();
    Ok(())
}

/// Seconds to read all rows, and to load a view of them.
async fn read(database: &Path) -> anyhow::Result<(f64, f64)> {
    let store = SqliteStore::open(database).await?;
    let mut query = Query { tombstones: true, ..Query::new(Range::All) };
    let mut rows = Vec::new();
    let began = Instant::now();
    loop {
        let page = store.read(&query).await?;
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    let read = began.elapsed().as_secs_f64();
    let load = seconds(|| {
        let mut view = View::new();
        rows.into_iter().for_each(|row| view.load(row));
        view.loaded(Revision(1));
        std::hint::black_box(&view);
    });
    Ok((read, load))
}

fn cold_once(dir: &Path, database: &Path, hosts: u32) -> anyhow::Result<(f64, f64)> {
    let scratch = tempfile::tempdir_in(dir).context("a scratch folder")?;
    let (files, copy) = (scratch.path().join("zones"), scratch.path().join("cold.db"));
    std::fs::create_dir(&files).context("a folder for zones")?;
    std::fs::copy(database, &copy).context("a copy of the database")?;
    let config = scratch.path().join("files.toml");
    let settings = "file = \"{zone}\"\ncheck = []\nreload = []\n";
    std::fs::write(&config, format!("[agent.bind]\ndirectory = {files:?}\n{settings}"))
        .context("files.toml")?;
    let mut once = Command::new(binary("shoal-dns")?);
    once.arg("--store").arg(format!("sqlite:{}", copy.display())).arg("--once").arg("--config").arg(config);
    let began = Instant::now();
    shoal_tests::process::output(&mut once, &[0])?;
    let took = began.elapsed().as_secs_f64();
    let file = files.join(shape::ZONE);
    let lines = std::fs::read_to_string(&file).context("the zone file")?.lines().count();
    ensure!(lines > hosts as usize / 2, "only {lines} lines");
    let began = Instant::now();
    shoal_tests::process::output(
        Command::new("named-checkzone").arg("-q").arg(shape::ZONE).arg(&file),
        &[0],
    )?;
    Ok((took, began.elapsed().as_secs_f64()))
}

/// The memory of a server that has nothing to keep.
fn empty_server(dir: &Path) -> anyhow::Result<u64> {
    let (server, _) = start_server(dir, &dir.join("empty.db"))?;
    Ok(Usage::of(server.id())?.resident)
}

fn start_agent(dir: &Path, database: &Path, port: u16) -> anyhow::Result<Process> {
    start_agent_with(dir, database, &format!("[agent.server]\nlisten = \"127.0.0.1:{port}\"\n"))
}

/// The agent with this configuration.
pub(crate) fn start_agent_with(dir: &Path, database: &Path, settings: &str) -> anyhow::Result<Process> {
    let config = dir.join("dns.toml");
    std::fs::write(&config, settings).context("dns.toml")?;
    let mut command = Command::new(binary("shoal-dns")?);
    command.arg("--store").arg(format!("sqlite:{}", database.display())).arg("--config").arg(config);
    Process::start("dns", dir, &mut command)
}

/// Gives machine `n` another address and answers after how many milliseconds the name server gave it out.
pub(crate) async fn change(store: &SqliteStore, port: u16, n: u32, round: u32) -> anyhow::Result<f64> {
    let name = shape::host(n)?;
    let address = new_address(round);
    let mut record: HostRecord = shape::record(n).to()?;
    let mut document = shape::document(n);
    document["address"] = json!(address);
    record.document = document.into();
    commit(store, vec![Change::put(Key::host(&name), Document::of(&record)?)]).await?;
    visible(port, name.as_str(), "A", &address)
}

/// The address that a machine gets in this round.
pub(crate) fn new_address(round: u32) -> String {
    format!("10.200.{}.{}", round >> 8, round & 255)
}

/// After how many milliseconds from now the server on this port gives out `wanted` for `name`, asked again and again with a
/// short pause.
pub(crate) fn visible(port: u16, name: &str, rtype: &str, wanted: &str) -> anyhow::Result<f64> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if dns::ask(port, name, rtype)?.contains(wanted) {
            return Ok(began.elapsed().as_secs_f64() * 1000.0);
        }
        std::thread::sleep(PAUSE);
    }
    anyhow::bail!("{name} never had {rtype} {wanted}")
}

/// Waits until the process uses next to no processor time.
pub(crate) fn quiet(process: &Process) -> anyhow::Result<()> {
    wait::until("the agent to be quiet", PATIENCE, || {
        let before = Usage::of(process.id())?.cpu;
        std::thread::sleep(Duration::from_millis(300));
        let used = Usage::of(process.id())?.cpu.saturating_sub(before);
        ensure!(used < Duration::from_millis(20), "it used {used:?} of 300 ms");
        Ok(())
    })
}
