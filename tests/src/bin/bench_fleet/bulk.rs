//! Many documents in one `shoal apply`, beside another client that commits one document after the other through the same server:
//! how long its commits take meanwhile.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use shoal_core::{HostRecord, Kind};
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::binaries::binary;
use shoal_tests::figure::Figure;
use shoal_tests::shape;

use crate::dns::{commit, start_server};
use crate::http::Connection;

/// Hosts that are there before, of which the other client writes one after the other.
const BEFORE: u32 = 1000;
/// How long the other client commits alone, before and after.
const ALONE: Duration = Duration::from_secs(1);

pub(crate) async fn measure(hosts: u32) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let path = dir.path().join("shoal.db");
    let all = shape::fleet(hosts.max(BEFORE))?;
    let store = SqliteStore::open(&path).await?;
    // A fleet begins with its hosts.
    commit(&store, all.iter().take(BEFORE as usize).cloned().collect()).await?;
    let before = store.head().await?.revision;
    let documents = all.iter().filter_map(|change| {
        let (Kind::Host(name), Some(value)) = (change.key.kind(), &change.value) else { return None };
        let record: HostRecord = serde_json::from_str(value.as_str()).ok()?;
        Some(json!({"host": format!("new-{name}"), "document": record.document}))
    });
    let file = dir.path().join("bulk.json");
    std::fs::write(&file, Value::Array(documents.collect()).to_string()).context("the documents")?;
    let (_server, port) = start_server(dir.path(), &path)?;

    let done = AtomicBool::new(false);
    let (times, apply) = std::thread::scope(|scope| {
        let other = scope.spawn(|| alternate(port, &done));
        std::thread::sleep(ALONE);
        let apply = apply(port, &file);
        std::thread::sleep(ALONE);
        done.store(true, Ordering::SeqCst);
        (other.join(), apply)
    });
    let (began, took) = apply?;
    let times = times.map_err(|_| anyhow::anyhow!("the other client panicked"))??;
    ensure!(store.head().await?.revision > before, "nothing was written");
    let part = |during: bool| {
        let within = |at: &Instant| *at + ALONE / 4 >= began && *at <= began + took + ALONE / 4;
        let part = times.iter().filter(|(at, _)| within(at) == during);
        let mut part: Vec<f64> = part.map(|(_, took)| took.as_secs_f64() * 1e3).collect();
        part.sort_by(f64::total_cmp);
        part
    };
    let (alone, during) = (part(false), part(true));
    let of = |sorted: &[f64], percent: usize| {
        sorted.get(sorted.len() * percent / 100).or(sorted.last()).copied().unwrap_or(f64::NAN)
    };
    Figure::median("longest_commit_of_another_beside_a_bulk", "ms", vec![of(&during, 100)])
        .hosts(hosts)
        .beside("p50 during", of(&during, 50))
        .beside("p99 during", of(&during, 99))
        .beside("p50 alone", of(&alone, 50))
        .beside("p99 alone", of(&alone, 99))
        .beside("longest alone", of(&alone, 100))
        .beside("the whole bulk", took.as_secs_f64() * 1e3)
        .goal(250.0)
        .print();
    Ok(())
}

/// `shoal apply` of the file, as users run it: when it began, and how long it took.
fn apply(port: u16, file: &Path) -> anyhow::Result<(Instant, Duration)> {
    let began = Instant::now();
    let out = Command::new(binary("shoal")?)
        .args(["--store", &format!("http://127.0.0.1:{port}"), "apply", "--author", "bench", "-m", "all"])
        .arg("-f")
        .arg(file)
        .output()
        .context("shoal apply")?;
    ensure!(out.status.success(), "shoal apply: {}", String::from_utf8_lossy(&out.stderr));
    Ok((began, began.elapsed()))
}

/// Commits one document after the other, with a moment between them: when each began, and how long it took.
fn alternate(port: u16, done: &AtomicBool) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let mut connection = Connection::open(port)?;
    connection.patience(Duration::from_secs(60))?;
    let mut times = Vec::new();
    for n in 0.. {
        if done.load(Ordering::SeqCst) {
            break;
        }
        let path = format!("/api/v2/hosts/{}", shape::host(n % BEFORE)?);
        let body = json!({"document": {"n": n}}).to_string();
        let began = Instant::now();
        connection.put(&path, &body)?;
        times.push((began, began.elapsed()));
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(times)
}
