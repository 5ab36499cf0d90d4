//! The whole way: from a commit that is acknowledged until HAProxy has it, through the program as it runs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shoal_core::{Edit, Proposal};
use shoal_store::Database;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::process::Process;
use shoal_tests::wait;

use super::haproxy::Haproxy;
use super::{CHANGES, POOLS, WHO, address, host, spin};

/// What changes take in each of the pools, in milliseconds.
pub(crate) async fn measure(program: &Path, dir: &Path) -> Result<[Vec<f64>; 2]> {
    let haproxy = Haproxy::start(program, dir)?;
    let file = dir.join("shoal.db");
    let store = SqliteStore::open(&file).await.context("a database")?;
    let database = Database::open(Arc::new(store)).await?;
    for (pool, servers) in POOLS {
        let hosts = (0..servers).map(|n| put(pool, n, 200));
        let members: Vec<String> = (0..servers).map(|n| host(pool, n)).collect();
        let tag = json!({"edit": "put_tag", "tag": format!("lb/{pool}"), "document": {"port": 80}, "members": members});
        commit(&database, hosts.chain([tag]).collect()).await?;
    }
    let mut agent = start(program, dir, &file)?;
    for (pool, servers) in POOLS {
        wait::until("the pools are there", 3 * wait::PATIENCE, || {
            agent.alive()?;
            let there = haproxy.ask(&format!("show servers state {pool}"))?.matches(".example.com").count();
            ensure!(
                there == servers as usize && written(dir, pool, 200, servers),
                "{there} of {servers} in {pool}"
            );
            Ok(())
        })?;
    }
    let mut took = [Vec::new(), Vec::new()];
    for weight in 1..=CHANGES {
        for ((pool, _), took) in POOLS.iter().zip(&mut took) {
            let question = format!("get weight {pool}/{}", host(pool, WHO));
            commit(&database, vec![put(pool, WHO, weight)]).await?;
            let begun = Instant::now();
            spin(&haproxy, &question, weight, begun)?;
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            // The next one finds the agent with nothing to do.
            wait::until("the file", wait::PATIENCE, || {
                ensure!(written(dir, pool, weight, 1), "it is not in the file of {pool}");
                Ok::<_, anyhow::Error>(())
            })?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    agent.alive()?;
    Ok(took)
}

fn start(program: &Path, dir: &Path, database: &Path) -> Result<Process> {
    let path = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "[agent.haproxy]\ndirectory = '{}'\nstats = '{}'\nmaster = '{}'\ncheck = ['{}', '-c', '-q', '-f', '{}', '{{pools}}']\n",
        path("pools"),
        path("admin.sock"),
        path("master.sock"),
        program.display(),
        path("haproxy.cfg")
    );
    std::fs::write(dir.join("lb.toml"), config)?;
    let this = std::env::current_exe().context("where this program lies")?;
    let agent = this.with_file_name("shoal-lb");
    ensure!(agent.exists(), "{} is not there: cargo build --release -p shoal-lb", agent.display());
    let mut command = Command::new(agent);
    command
        .arg("--store")
        .arg(format!("sqlite:{}", database.display()))
        .arg("--config")
        .arg(dir.join("lb.toml"));
    Process::start("shoal-lb", dir, &mut command)
}

/// Whether so many lines of the pool's file have this weight.
fn written(dir: &Path, pool: &str, weight: u16, lines: u32) -> bool {
    let text = std::fs::read_to_string(dir.join(format!("pools/{pool}.cfg"))).unwrap_or_default();
    text.matches(&format!(" weight {weight} ")).count() == lines as usize
}

fn put(pool: &str, n: u32, weight: u16) -> Value {
    json!({"edit": "put_host", "host": host(pool, n), "document": {"address": address(n), "lb": {"weight": weight}}})
}

async fn commit(database: &Database, edits: Vec<Value>) -> Result<()> {
    let edits: Vec<Edit> = edits.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    database.transact(Proposal::new("bench", "a change", edits)).await?;
    Ok(())
}
