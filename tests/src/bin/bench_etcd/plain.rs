//! Plain etcd alone: the memory of one that holds the rows of our fleet, puts of many clients, and watches of everything. Ours stand in what
//! `bench_store`, `bench_watch` and `bench_fleet` print.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use etcd_client::{Txn, TxnOp};
use shoal_tests::figure::Figure;
use shoal_tests::shape;
use tokio::task::JoinSet;

use crate::Options;
use crate::commits::{CLIENTS, MANY, To, rate, rows};
use crate::delivery;
use crate::etcd::Etcd;

/// Rows of one transaction: etcd takes 128.
const TOGETHER: usize = 100;
const ROUNDS: u32 = 7;
const PUTS: u32 = 100;

pub(crate) async fn measure(etcd: &Etcd, options: &Options) -> Result<()> {
    let empty = etcd.usage()?.resident;
    fill(etcd, options.hosts).await?;
    let each = etcd.usage()?.resident.saturating_sub(empty) as f64 / f64::from(options.hosts);
    Figure::median("etcd_memory", "octets/host", vec![each]).hosts(options.hosts).print();
    let mut rates = Vec::new();
    for round in 0..ROUNDS {
        let rows = rows(CLIENTS, MANY, round, options.hosts)?;
        rates.push(rate(rows, |n| To::Plain(Box::new(etcd.client(n)))).await?);
    }
    Figure::median("etcd_puts_64_clients_one_value_of_1_kib_each", "1/s", rates).hosts(options.hosts).print();
    let told = delivery::plain(etcd, options.watchers, etcd.clients.len(), PUTS).await?;
    Figure::median("etcd_put_to_last_of_1k_watchers", "us", told.times)
        .hosts(options.hosts)
        .beside("etcd's cpu for each", told.cpu)
        .print();
    Ok(())
}

/// Writes the rows that a fleet of ours has.
async fn fill(etcd: &Etcd, hosts: u32) -> Result<()> {
    let rows: Vec<_> = shape::fleet(hosts)?
        .into_iter()
        .map(|change| {
            (change.key.to_string(), change.value.map_or_else(String::new, |v| v.as_str().to_owned()))
        })
        .collect();
    let parts: Arc<Vec<Vec<_>>> = Arc::new(rows.chunks(TOGETHER).map(<[_]>::to_vec).collect());
    let (next, mut tasks) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for client in &etcd.clients {
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
