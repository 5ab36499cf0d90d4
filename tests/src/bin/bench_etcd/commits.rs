//! Commits, with their history, beside plain puts of the same values into the same etcd, and beside SQLite; in turns.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use etcd_client::Client;
use shoal_core::{Change, Document};
use shoal_store::Store;
use shoal_store_etcd::EtcdStore;
use shoal_store_sqlite::SqliteStore;
use shoal_tests::crowd::{commit, host_with};
use shoal_tests::figure::Figure;
use shoal_tests::shape;
use tokio::task::JoinSet;

use crate::Options;
use crate::etcd::Etcd;

/// Clients that write at once.
pub(crate) const CLIENTS: u32 = 64;
/// Writes of all of them together in a round.
pub(crate) const MANY: u32 = 6_400;
/// Writes of one alone in a round.
const ONE: u32 = 300;
const ROUNDS: u32 = 5;
/// Of plain puts, in percent.
const GOAL: f64 = 80.0;

pub(crate) async fn measure(etcd: &Etcd, store: &EtcdStore, dir: &Path, options: &Options) -> Result<()> {
    let sqlite = SqliteStore::open(dir.join("beside.db")).await?;
    for part in shape::fleet(options.hosts)?.chunks(100_000) {
        sqlite.commit(commit(part.to_vec())).await?;
    }
    let (ours, sqlite): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(store.clone()), Arc::new(sqlite));
    let sizes =
        [("commits_1_client_of_plain_puts", 1, ONE), ("commits_64_clients_of_plain_puts", CLIENTS, MANY)];
    for (name, clients, all) in sizes {
        let (mut plain, mut own, mut lite, mut share) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let rows = rows(clients, all, round, options.hosts)?;
            let puts = rate(rows.clone(), |n| To::Plain(Box::new(etcd.client(n)))).await?;
            let commits = rate(rows.clone(), |_| To::Store(Arc::clone(&ours))).await?;
            lite.push(rate(rows, |_| To::Store(Arc::clone(&sqlite))).await?);
            share.push(commits / puts * 100.0);
            plain.push(puts);
            own.push(commits);
        }
        // The store was filled with large commits, of which nothing is known any more.
        let first = own.first().copied().unwrap_or_default();
        let median = |values| Figure::median("", "1/s", values).value;
        Figure::median(name, "%", share)
            .hosts(options.hosts)
            .beside("plain puts, 1/s", median(plain))
            .beside("commits, 1/s", median(own))
            .beside("commits of hosts not known yet, 1/s", first)
            .beside("SQLite, 1/s", median(lite))
            .goal(GOAL)
            .print();
    }
    Ok(())
}

/// What each of so many clients is to write, of about a KiB each, as no other round wrote it.
pub(crate) fn rows(clients: u32, all: u32, round: u32, hosts: u32) -> Result<Vec<Vec<Change>>> {
    let row = |client: u32, n: u32| {
        let fill = format!("{clients} {round} {n} {}", "x".repeat(450));
        // Clients do not write each other's hosts, where there are enough of them.
        host_with((client * (all / clients) + n) % hosts, "fill", fill.into())
    };
    (0..clients)
        .map(|client| (0..all / clients).map(|n| row(client, n)).collect::<Result<Vec<_>>>())
        .collect()
}

/// Where a client writes.
pub(crate) enum To {
    /// Into etcd, and nothing else.
    Plain(Box<Client>),
    /// Into one of our stores.
    Store(Arc<dyn Store>),
}

impl To {
    async fn write(&mut self, change: Change) -> Result<()> {
        match self {
            Self::Plain(client) => {
                let value = change.value.as_ref().map_or("", Document::as_str);
                client.put(format!("plain/{}", change.key), value, None).await?;
            }
            Self::Store(store) => {
                store.commit(commit(vec![change])).await?;
            }
        }
        Ok(())
    }
}

/// How many writes a second these clients get done, each one after the other.
pub(crate) async fn rate(rows: Vec<Vec<Change>>, to: impl Fn(usize) -> To) -> Result<f64> {
    let all: usize = rows.iter().map(Vec::len).sum();
    let (begun, mut tasks) = (Instant::now(), JoinSet::new());
    for (n, rows) in rows.into_iter().enumerate() {
        let mut to = to(n);
        tasks.spawn(async move {
            for change in rows {
                to.write(change).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(all as f64 / begun.elapsed().as_secs_f64())
}
