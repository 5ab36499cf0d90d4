//! What a process knows since its last commit spares it a question, and is never believed where it is not so any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helps tests fails as tests do"
)]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use shoal_core::{Change, Commit, Committed, Pre, Range, Revision};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Store, StoreError};
use shoal_store_etcd::EtcdStore;
use support::{Etcd, check_rows, commit, installed, key, name, put, shared, whole_log};

/// How many transactions etcd was asked for.
fn asked(etcd: &Etcd) -> u64 {
    let mut stream = TcpStream::connect(etcd.endpoint()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let is_it =
        |line: &&str| line.starts_with("grpc_server_started_total{") && line.contains("grpc_method=\"Txn\"");
    let line = text.lines().find(is_it).expect("etcd counts what it is asked for");
    line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

fn on(pre: Vec<Pre>, change: Change) -> Commit {
    Commit { pre, ..commit([change]) }
}

fn done(revision: Revision, changed: usize, replayed: bool) -> Committed {
    Committed { revision, changed, replayed }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_on_what_is_known_is_one_request() {
    if !installed("a_commit_on_what_is_known_is_one_request") {
        return;
    }
    let etcd = Etcd::start();
    let store = EtcdStore::open(&etcd.address("known")).await.unwrap();
    let scope = || Range::Prefix("lb/".into());
    let first = on(vec![Pre::Unchanged(scope(), Revision(0))], put("lb/a", 0));
    let mut last = store.commit(first).await.unwrap().revision;
    let before = asked(&etcd);
    for n in 1..=10 {
        let mut next = on(vec![Pre::At(key("lb/a"), last), Pre::Unchanged(scope(), last)], put("lb/a", n));
        // What is most likely new is compared, and not asked for.
        next.idempotency = Some(n.to_string());
        next.changes.push(put(&format!("lb/b{n}"), n));
        next.pre.push(Pre::Absent(key(&format!("lb/b{n}"))));
        let told = store.commit(next).await.unwrap();
        assert_eq!(told, done(Revision(last.0 + 1), 2, false));
        last = told.revision;
    }
    let count = asked(&etcd) - before;
    // Each was two, one to ask and one to write.
    assert!((10..15).contains(&count), "{count} requests for ten commits");
    check_rows(&store).await;
}

/// Two handles, of which the first has just written this at `lb/a`, and knows that and who last wrote below `lb/`.
async fn knowing(address: &str, n: u64) -> (EtcdStore, EtcdStore, Revision) {
    let (a, b) = (EtcdStore::open(address).await.unwrap(), EtcdStore::open(address).await.unwrap());
    let mut last = a.head().await.unwrap().revision;
    for n in [n, n + 1] {
        let unchanged = Pre::Unchanged(Range::Prefix("lb/".into()), last);
        let told = a.commit(on(vec![unchanged], put("lb/a", n))).await.unwrap();
        assert_eq!(told, done(Revision(last.0 + 1), 1, false));
        last = told.revision;
    }
    (a, b, last)
}

/// Whatever another one did in between: judged by what stands there, as if nothing had been known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_did_counts() {
    if !installed("what_others_did_counts") {
        return;
    }
    let address = shared().address(&name());
    // A row that moved on.
    let (a, b, own) = knowing(&address, 100).await;
    let other = b.commit(commit([put("lb/a", 102)])).await.unwrap().revision;
    let at = Pre::At(key("lb/a"), own);
    let conflict = StoreError::Conflict { pre: at.clone(), actual: Some(other) };
    assert_eq!(a.commit(on(vec![at], put("lb/a", 103))).await, Err(conflict));
    // What is to be written stands there by now; and what was overwritten does no more.
    let (a, b, _) = knowing(&address, 200).await;
    let other = b.commit(commit([put("lb/a", 202)])).await.unwrap().revision;
    assert_eq!(a.commit(commit([put("lb/a", 202)])).await, Ok(done(other, 0, false)));
    let (a, b, _) = knowing(&address, 300).await;
    let other = b.commit(commit([put("lb/a", 302)])).await.unwrap().revision;
    assert_eq!(a.commit(commit([put("lb/a", 301)])).await, Ok(done(Revision(other.0 + 1), 1, false)));
    // A range that was written to.
    let (a, b, own) = knowing(&address, 400).await;
    let other = b.commit(commit([put("lb/b", 400)])).await.unwrap().revision;
    let unchanged = Pre::Unchanged(Range::Prefix("lb/".into()), own);
    let conflict = StoreError::Conflict { pre: unchanged.clone(), actual: Some(other) };
    assert_eq!(a.commit(on(vec![unchanged], put("lb/a", 402))).await, Err(conflict));
    // Gone meanwhile; and made by somebody who was faster.
    let (a, b, _) = knowing(&address, 500).await;
    let delete = || commit([Change::delete(key("lb/a"))]);
    let gone = b.commit(delete()).await.unwrap().revision;
    assert_eq!(a.commit(delete()).await, Ok(done(gone, 0, false)));
    let (a, b, own) = knowing(&address, 600).await;
    assert_eq!(a.commit(delete()).await, Ok(done(Revision(own.0 + 1), 1, false)));
    let absent = || on(vec![Pre::Absent(key("lb/a"))], put("lb/a", 602));
    let other = b.commit(absent()).await.unwrap().revision;
    let conflict = StoreError::Conflict { pre: Pre::Absent(key("lb/a")), actual: Some(other) };
    assert_eq!(a.commit(absent()).await, Err(conflict));
    // A row that there never was is compared, and an idempotency key that somebody used.
    let (a, b, _) = knowing(&address, 700).await;
    let absent = || on(vec![Pre::Absent(key("lb/new"))], put("lb/new", 1));
    b.commit(absent()).await.unwrap();
    assert!(matches!(a.commit(absent()).await, Err(StoreError::Conflict { .. })));
    let (a, b, _) = knowing(&address, 800).await;
    let once = |n| Commit { idempotency: Some("once".into()), ..commit([put("lb/a", n)]) };
    let used = b.commit(once(802)).await.unwrap().revision;
    assert_eq!(a.commit(once(802)).await, Ok(done(used, 1, true)));
    let (a, _, _) = knowing(&address, 900).await;
    let reused = StoreError::Reused { key: "once".into(), revision: used };
    assert_eq!(a.commit(once(902)).await, Err(reused));
    // Each commit that was told is there, and no other.
    let log: Vec<_> = whole_log(&a).await.iter().map(|entry| entry.info.revision.0).collect();
    assert_eq!(log, (1..=a.head().await.unwrap().revision.0).collect::<Vec<_>>());
    check_rows(&b).await;
}

async fn claim(store: &EtcdStore, holder: &str) -> Claim {
    let ttl = Some(Duration::from_secs(60));
    let want = ClaimRequest { name: "unit/x".into(), of: 1, holder: holder.into(), ttl };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => claim,
        taken @ ClaimAnswer::Taken { .. } => panic!("{taken:?}"),
    }
}

/// Claims change without a commit, and the epoch without one of this process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_claim_and_another_epoch_are_noticed() {
    if !installed("a_lost_claim_and_another_epoch_are_noticed") {
        return;
    }
    let address = shared().address(&name());
    let (a, b) = (EtcdStore::open(&address).await.unwrap(), EtcdStore::open(&address).await.unwrap());
    let first = claim(&b, "b").await;
    for n in 1..4 {
        a.commit(on(vec![first.held()], put("lb/a", n))).await.unwrap();
    }
    b.release(&first).await.unwrap();
    let fenced = |claim: &Claim| StoreError::Fenced { name: claim.name.clone(), number: claim.number };
    assert_eq!(a.commit(on(vec![first.held()], put("lb/a", 4))).await, Err(fenced(&first)));
    let second = claim(&b, "c").await;
    assert_eq!(a.commit(on(vec![first.held()], put("lb/a", 5))).await, Err(fenced(&first)));
    for n in 6..9 {
        a.commit(on(vec![second.held()], put("lb/a", n))).await.unwrap();
    }
    // Whoever knew something that was not so any more asks for a while; this one goes by what it knows.
    let a = EtcdStore::open(&address).await.unwrap();
    for n in 9..12 {
        a.commit(on(vec![second.held()], put("lb/a", n))).await.unwrap();
    }
    let before = a.head().await.unwrap();
    let epoch = b.new_epoch().await.unwrap();
    let next = a.commit(commit([put("lb/a", 12)])).await.unwrap();
    assert_eq!(next, done(Revision(before.revision.0 + 1), 1, false));
    assert_eq!(a.head().await.unwrap().epoch, epoch, "the old one is not written back");
    assert_eq!(a.commit(on(vec![second.held()], put("lb/a", 13))).await, Err(fenced(&second)));
    check_rows(&a).await;
}

/// More clients than commits fit in a transaction: what waits is asked for while others are written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_read_as_of_the_right_moment() {
    if !installed("what_waits_is_read_as_of_the_right_moment") {
        return;
    }
    let (clients, each) = (64, 6);
    let address = shared().address(&name());
    // In rows that were there before, of which this process knows nothing; some share one.
    let before = EtcdStore::open(&address).await.unwrap();
    before.commit(commit((0..clients).map(|client| put(&format!("lb/c{client:02}"), 0)))).await.unwrap();
    drop(before);
    let store = EtcdStore::open(&address).await.unwrap();
    let clients = (0..clients).map(|client| {
        let store = store.clone();
        tokio::spawn(async move {
            let (own, mut last, mut told) = (format!("lb/c{client:02}"), Revision(1), Vec::new());
            for n in 1..=each {
                let at = vec![Pre::At(key(&own), last)];
                last = store.commit(on(at, put(&own, n))).await.unwrap().revision;
                told.push(last.0);
                let together = put(&format!("dns/t{}", client % 8), client * 100 + n);
                told.push(store.commit(commit([together])).await.unwrap().revision.0);
            }
            told
        })
    });
    let mut told = BTreeSet::from([1]);
    for client in clients.collect::<Vec<_>>() {
        for revision in client.await.unwrap() {
            assert!(told.insert(revision), "two were told {revision}");
        }
    }
    let log: BTreeSet<_> = whole_log(&store).await.iter().map(|entry| entry.info.revision.0).collect();
    assert_eq!(told, log);
    check_rows(&store).await;
}
