//! Watches in this process.

use anyhow::Result;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::crowd::{Crowd, one_host};
use shoal_tests::figure::{Figure, Usage};

use crate::{COMMITS, MANY, ROUNDS};

/// What a watcher holds, its task included. In a new process, or it would use what others have let go of.
pub(crate) async fn memory(store: &SqliteStore) -> Result<()> {
    let before = Usage::of(std::process::id())?.resident;
    let crowd = begin(store, MANY).await?;
    let memory = Usage::of(std::process::id())?.resident.saturating_sub(before) as f64 / f64::from(MANY);
    drop(crowd);
    Figure::median("watcher_memory_in_process", "B", vec![memory]).print();
    Ok(())
}

pub(crate) async fn measure(store: &SqliteStore, hosts: u32) -> Result<()> {
    let alone = costs(store, 1, 0).await?;
    let among = costs(store, MANY, ROUNDS).await?;
    Figure::median("commit_cpu_in_process_10k_watchers", "us", among.0)
        .hosts(hosts)
        .beside("one watcher", Figure::median("", "us", alone.0).value)
        .print();
    Figure::median("commit_begun_to_watcher_in_process_10k_watchers", "us", among.1)
        .hosts(hosts)
        .beside("one watcher", Figure::median("", "us", alone.1).value)
        .print();
    Ok(())
}

async fn begin(store: &SqliteStore, many: u32) -> Result<Crowd> {
    let filters = (0..many).map(|n| Ok((n, one_host(n)?))).collect::<Result<_>>()?;
    Crowd::begin(store, filters).await
}

/// Processor time of this process for each commit, that of the commit itself included, and the times from its begin until the watcher has it.
async fn costs(store: &SqliteStore, many: u32, first: u32) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut crowd = begin(store, many).await?;
    let (mut cpu, mut times) = (Vec::new(), Vec::new());
    for round in first..first + ROUNDS {
        let before = Usage::of(std::process::id())?.cpu;
        times.extend(crowd.round(store, many, COMMITS, round).await?.begun);
        let used = Usage::of(std::process::id())?.cpu.saturating_sub(before);
        cpu.push(used.as_secs_f64() * 1e6 / f64::from(COMMITS));
    }
    Ok((cpu, times))
}
