//! How long it takes to read everything: `reading ADDRESS ROWS`. Writes so many rows first, where there are none yet.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement for people, which ends where something is wrong"
)]

use std::time::Instant;

use shoal_core::{Change, Commit, Document, Range};
use shoal_store::{Query, Store};
use shoal_store_etcd::EtcdStore;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, rows] = arguments.as_slice() else { return println!("usage: reading ADDRESS ROWS") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(read(address, rows.parse().unwrap()));
}

async fn read(address: &str, rows: usize) {
    let store = EtcdStore::open(address).await.unwrap();
    if store.head().await.unwrap().revision.0 == 0 {
        for from in (0..rows).step_by(50_000) {
            let put = |n: usize| {
                let key = format!("dns/example.com/members/host{n:06}.example.com").parse().unwrap();
                Change::put(key, Document::trusted("{}"))
            };
            let changes = (from..rows.min(from + 50_000)).map(put).collect();
            store.commit(commit(changes)).await.unwrap();
        }
    }
    let begun = Instant::now();
    let (mut query, mut found, mut pages) = (Query::new(Range::All), 0, 0);
    loop {
        let page = store.read(&query).await.unwrap();
        query.at = Some(page.at);
        (found, pages) = (found + page.rows.len(), pages + 1);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    println!("{found} rows in {pages} pages: {:.2} s", begun.elapsed().as_secs_f64());
}

fn commit(changes: Vec<Change>) -> Commit {
    Commit::new("ann", "because", changes)
}
