//! Many processes that commit at once: who loses hands over, and everything happens once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, WatchOptions};
use serde_json::{Value, json};
use shoal_core::{Pre, Range, Revision};
use shoal_store::{Query, Store, StoreError};
use shoal_store_etcd::EtcdStore;
use support::{Etcd, check_rows, commit, count, installed, key, put, whole_log};

const PROCESSES: u64 = 8;
const EACH: u64 = 40;

/// One more than what stands there, however often others are faster.
async fn one_more(store: &EtcdStore) -> u64 {
    let range = Query::new(Range::Key(key("lb/sum")));
    loop {
        let row = store.read(&range).await.unwrap().rows.remove(0);
        let value = row.value.unwrap().as_str().parse::<u64>().unwrap() + 1;
        let mut once = commit([put("lb/sum", value)]);
        once.pre = vec![Pre::At(row.key, row.revision)];
        match store.commit(once).await {
            Ok(done) => return done.revision.0,
            Err(StoreError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_processes_happen_once() {
    if !installed("commits_of_many_processes_happen_once") {
        return;
    }
    let etcd = Etcd::start();
    let first = EtcdStore::open(&etcd.address("many")).await.unwrap();
    first.commit(commit([put("lb/sum", 0)])).await.unwrap();
    let works = (0..PROCESSES).map(|process| {
        let address = etcd.address("many");
        tokio::spawn(async move {
            let store = EtcdStore::open(&address).await.unwrap();
            let mut told = Vec::new();
            for n in 0..EACH {
                let mut own = commit([put(&format!("dns/p{process}"), n)]);
                own.idempotency = Some(format!("{process}-{n}"));
                let done = store.commit(own.clone()).await.unwrap();
                assert!(!done.replayed && done.changed == 1);
                told.push(done.revision.0);
                if n % 10 == 0 {
                    let again = store.commit(own).await.unwrap();
                    assert_eq!((again.revision, again.replayed), (done.revision, true));
                    told.push(one_more(&store).await);
                }
            }
            told
        })
    });
    let mut told = BTreeSet::new();
    for work in works.collect::<Vec<_>>() {
        for revision in work.await.unwrap() {
            assert!(told.insert(revision), "two were told {revision}");
        }
    }
    let log: BTreeSet<_> = whole_log(&first).await.iter().map(|entry| entry.info.revision.0).collect();
    told.insert(1);
    assert_eq!(told, log);
    let sum = first.read(&Query::new(Range::Key(key("lb/sum")))).await.unwrap().rows.remove(0).value.unwrap();
    assert_eq!(sum.as_str(), (PROCESSES * EACH / 10).to_string());
    check_rows(&first).await;
    // They did hand over, or this would show nothing of it; and they leave nothing behind.
    let watch = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut past = etcd.client().await.watch("many/answer/", Some(watch)).await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let told = past.message().await.unwrap().unwrap();
            if !told.events().is_empty() {
                return told.events().len();
            }
        }
    });
    assert!(seen.await.expect("somebody was answered") > 0);
    let begun = Instant::now();
    while count(&etcd, "many/queue/").await + count(&etcd, "many/answer/").await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "something stays in the queue");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn handed(at: &str, pre: &Value) -> Value {
    let commit = json!({"pre": pre, "changes": [], "author": "bob", "message": "handed over"});
    json!({"commit": commit, "changes": [{"key": at, "value": null}]})
}

/// What was handed over is judged by who takes it as everything else is: what may happen does, in one transaction with the
/// answer, and what may not is given back. What is not understood is left alone, and holds nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_over_is_taken_along() {
    if !installed("what_was_handed_over_is_taken_along") {
        return;
    }
    let etcd = Etcd::start();
    let store = EtcdStore::open(&etcd.address("along")).await.unwrap();
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    let mut client = etcd.client().await;
    let lease = client.lease_grant(60, None).await.unwrap().id();
    let refused = json!([{"absent": "lb/a"}]);
    let fenced = json!([{"held": {"name": "unit/x", "number": 7}}]);
    // What nobody hands over: whoever takes along did not read what it rests on.
    let walked = json!([Pre::Unchanged(Range::Prefix("lb/a/b/c/".into()), Revision(9))]);
    let laid = [
        (
            "first",
            json!({"commits": [handed("lb/b", &json!([])), handed("lb/c", &refused), handed("lb/d", &json!([]))]}),
        ),
        ("second", json!({"commits": [handed("lb/e", &refused)]})),
        ("third", json!({"commits": [handed("lb/f", &fenced)]})),
        ("fourth", json!({"commits": [handed("lb/g", &json!([{"absent": "lb/g"}]))]})),
        ("strange", json!({"commits": [{"unknown": 1}]})),
        ("newer", json!({"commits": [handed("lb/h", &json!([]))], "unless": "lb/a"})),
        ("walked", json!({"commits": [handed("lb/i", &walked)]})),
    ];
    for (id, record) in &laid {
        let options = PutOptions::new().with_lease(lease);
        client.put(format!("along/queue/{id}"), record.to_string(), Some(options)).await.unwrap();
    }
    let own = store.commit(commit([put("lb/a", 2)])).await.unwrap();
    let mut answers = Vec::new();
    for (id, _) in &laid {
        let found = client.get(format!("along/answer/{id}"), None).await.unwrap();
        answers.push(found.kvs().first().map(|kv| {
            let answer: Value = serde_json::from_slice(kv.value()).unwrap();
            answer["done"]
                .as_array()
                .unwrap()
                .iter()
                .map(|done| done["revision"].as_u64().unwrap())
                .collect::<Vec<_>>()
        }));
    }
    let [first, second, third, fourth, strange, newer, walked] = answers.try_into().unwrap();
    assert_eq!((second, third), (Some(vec![]), Some(vec![])));
    assert_eq!((strange, newer, walked), (None, None, None));
    let (first, fourth) = (first.unwrap(), fourth.unwrap());
    let mut all = [first[0], fourth[0], own.revision.0];
    all.sort_unstable();
    assert_eq!((first.len(), fourth.len(), all), (1, 1, [2, 3, 4]));
    let log = whole_log(&store).await;
    let wrote: Vec<_> = log[1..].iter().map(|entry| entry.changes[0].key.as_str().to_owned()).collect();
    assert_eq!(wrote.iter().map(String::as_str).collect::<BTreeSet<_>>(), ["lb/a", "lb/b", "lb/g"].into());
    // In one transaction.
    let entries = client.get("along/log/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let written: BTreeSet<_> = entries.kvs()[1..].iter().map(|kv| kv.mod_revision()).collect();
    assert_eq!(written.len(), 1);
    assert_eq!(count(&etcd, "along/queue/").await, 3, "what is strange stays");
    check_rows(&store).await;
    // What stands there goes with its owner.
    client.lease_revoke(lease).await.unwrap();
    assert_eq!(count(&etcd, "along/queue/").await + count(&etcd, "along/answer/").await, 0);
}

/// Writes the head as it stands, again and again: hardly a commit that read it comes through.
async fn hinder(mut client: Client) {
    loop {
        let found = client.get("long/log", None).await.unwrap();
        let head = &found.kvs()[0];
        let same = Compare::mod_revision("long/log", CompareOp::Equal, head.mod_revision());
        let touch = TxnOp::put("long/log", head.value(), None);
        client.txn(Txn::new().when([same]).and_then([touch])).await.unwrap();
    }
}

/// A large commit of somebody who lives, decided at the moment when something lies in the queue; answers the lease of that.
async fn decide_beside_the_queue(client: &mut Client) -> i64 {
    let head = client.get("long/log", None).await.unwrap();
    let head: Value = serde_json::from_slice(head.kvs()[0].value()).unwrap();
    let entry = json!({"revision": 1000, "author": "bob", "message": "large", "time": "2026-01-01T00:00:00Z", "attempt": "x"});
    let applying = json!({"id": "large", "entry": entry, "head": head, "remember": []}).to_string();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is laid down");
        let all = GetOptions::new().with_prefix();
        let found = client.get("long/queue/", Some(all)).await.unwrap();
        if let Some(kv) = found.kvs().first() {
            let there = Compare::mod_revision(kv.key(), CompareOp::Equal, kv.mod_revision());
            let large = [
                TxnOp::put("long/alive/large", "", None),
                TxnOp::put("long/applying/commit", applying.as_str(), None),
            ];
            let done = client.txn(Txn::new().when([there]).and_then(large)).await.unwrap();
            if done.succeeded() {
                return kv.lease();
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A large commit of somebody else may take minutes, and what was laid down stays for as long: its owner is told what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_laid_down_outlasts_a_large_commit() {
    if !installed("what_was_laid_down_outlasts_a_large_commit") {
        return;
    }
    let etcd = Etcd::start();
    let store = EtcdStore::open(&etcd.address("long")).await.unwrap();
    store.commit(commit([put("lb/a", 0)])).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                n += 1;
                store.commit(commit([put("lb/a", n)])).await.unwrap();
            }
            n
        })
    };
    let mut rivals = tokio::task::JoinSet::new();
    for _ in 0..4 {
        rivals.spawn(hinder(etcd.client().await));
    }
    let mut client = etcd.client().await;
    let lease = decide_beside_the_queue(&mut client).await;
    rivals.shutdown().await;
    // The first time may be before it is noticed.
    let (mut least, mut renewed) = (i64::MAX, 0);
    while renewed < 3 {
        let left = client.lease_time_to_live(lease, None).await.unwrap().ttl();
        assert!(left > 0, "it was renewed {renewed} times, and is gone");
        if left > least.saturating_add(1) {
            (least, renewed) = (left, renewed + 1);
        }
        least = least.min(left);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    done.store(true, Ordering::SeqCst);
    let over = ["long/applying/commit", "long/alive/large"].map(|key| TxnOp::delete(key, None));
    client.txn(Txn::new().and_then(over)).await.unwrap();
    let count = tokio::time::timeout(Duration::from_secs(60), writer).await.expect("it goes on").unwrap();
    let log = whole_log(&store).await;
    let wrote: Vec<_> = log.iter().map(|entry| entry.changes[0].clone()).collect();
    assert_eq!(wrote, (0..=count).map(|n| put("lb/a", n)).collect::<Vec<_>>(), "each once");
    check_rows(&store).await;
}
