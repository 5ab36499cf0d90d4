//! Several handles of one database, as processes on several machines have them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::time::Duration;

use futures::StreamExt;
use shoal_core::{Pre, Revision};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Head, LedgerWrite, Store, StoreError};
use shoal_store_etcd::EtcdStore;
use support::{check_rows, commit, installed, key, name, put, shared, whole_log};

async fn two() -> (EtcdStore, EtcdStore) {
    let address = shared().address(&name());
    (EtcdStore::open(&address).await.unwrap(), EtcdStore::open(&address).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_several_processes_wins() {
    if !installed("one_of_several_processes_wins") {
        return;
    }
    let (a, b) = two().await;
    let race = |store: EtcdStore| {
        tokio::spawn(async move {
            let mut won = Vec::new();
            for n in 0..40 {
                let at = format!("lb/r{n:02}");
                let mut once = commit([put(&at, n)]);
                once.pre = vec![Pre::Absent(key(&at))];
                match store.commit(once).await {
                    Ok(done) => won.push(done.revision),
                    Err(StoreError::Conflict { actual: Some(_), .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            won
        })
    };
    let races = [race(a.clone()), race(b.clone()), race(a.clone()), race(b.clone())];
    let mut won: Vec<Revision> = Vec::new();
    for race in races {
        won.extend(race.await.unwrap());
    }
    won.sort_unstable();
    let log: Vec<_> = whole_log(&a).await.iter().map(|entry| entry.info.revision).collect();
    assert_eq!((won.len(), won), (40, log));
    check_rows(&b).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_epoch_resets_everybody() {
    if !installed("another_epoch_resets_everybody") {
        return;
    }
    let (a, b) = two().await;
    a.commit(commit([put("lb/a", 1)])).await.unwrap();
    let before = b.head().await.unwrap();
    let mut watch = b.watch(Filter::all(), before);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(before.revision));
    let epoch = a.new_epoch().await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a message");
    assert_eq!(told.unwrap().unwrap(), Feed::Reset(Head { epoch, ..before }));
    assert_eq!(b.head().await.unwrap(), Head { epoch, ..before });
    let done = a.commit(commit([put("lb/a", 2)])).await.unwrap();
    loop {
        match watch.next().await.unwrap().unwrap() {
            Feed::Commit(entry) => break assert_eq!(entry.info.revision, done.revision),
            Feed::Upto(_) => {}
            Feed::Reset(head) => panic!("{head:?}"),
        }
    }
}

async fn ask(store: &EtcdStore, holder: &str, ttl: Option<Duration>) -> Option<Claim> {
    let want = ClaimRequest { name: "unit/x".into(), of: 1, holder: holder.into(), ttl };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => Some(claim),
        ClaimAnswer::Taken { .. } => None,
    }
}

/// A claim may change how long it lasts and stays the same claim; one that expires while a commit rests on it fences it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_hold_across_processes() {
    if !installed("claims_hold_across_processes") {
        return;
    }
    let (a, b) = two().await;
    let (long, short) = (Some(Duration::from_secs(60)), Some(Duration::from_millis(1)));
    let first = ask(&a, "a", None).await.unwrap();
    assert_eq!(ask(&b, "b", long).await, None);
    assert_eq!(ask(&b, "a", long).await.unwrap().number, first.number, "the holder, wherever it asks");
    assert_eq!(ask(&a, "a", None).await.unwrap().number, first.number);
    let mut under = commit([put("lb/a", 1)]);
    under.pre = vec![first.held()];
    b.commit(under.clone()).await.unwrap();
    // From now on it ends by itself.
    assert_eq!(ask(&a, "a", short).await.unwrap().number, first.number);
    let second = loop {
        match ask(&b, "b", long).await {
            Some(claim) => break claim,
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert!(second.number > first.number);
    let fenced = StoreError::Fenced { name: first.name.clone(), number: first.number };
    under.changes = vec![put("lb/a", 2)];
    assert_eq!(a.commit(under).await, Err(fenced.clone()));
    let row = |n| vec![LedgerWrite { key: "dns/x".into(), value: Some(vec![n]) }];
    assert_eq!(a.write_ledger(row(1), &first).await, Err(fenced));
    // Written in turn by two handles under one claim: neither takes the other's write for a lost attempt of its own.
    for n in 2..6 {
        b.write_ledger(row(n), &second).await.unwrap();
        a.write_ledger(row(n + 10), &second).await.unwrap();
        assert_eq!(b.ledger("", None, 9).await.unwrap().rows, [("dns/x".to_owned(), vec![n + 10])]);
    }
}
