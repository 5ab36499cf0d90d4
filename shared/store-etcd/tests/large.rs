//! Commits and ledger writes of more than etcd takes at once: whole or not at all, for every reader at every moment, and
//! also when who makes them is killed amid.
//!
//! The killed processes are this test again, told by the environment what to do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use shoal_core::{Change, Commit, Document, Pre, Range, Revision};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, LedgerWrite, MAX_PAGE, Query, Store, StoreError,
};
use shoal_store_etcd::EtcdStore;
use support::{all_rows, check_rows, commit, count, installed, key, name, put, shared, whole_log};

const ROWS: usize = 3000;

/// So many rows of three kinds, all of which say `n`: some megabytes.
fn large(n: u64) -> Commit {
    let value = Document::trusted(&format!("{{\"n\":{n},\"fill\":\"{}\"}}", "x".repeat(800)));
    commit((0..ROWS).map(|row| {
        let place = match row % 3 {
            0 => format!("hosts/h{row:05}"),
            1 => format!("dns/z{}/members/h{:05}", row % 7, row - 1),
            _ => format!("lb/x{row:05}"),
        };
        Change::put(key(&place), value.clone())
    }))
}

/// How many rows say what; all of them the same, or this fails.
async fn says(store: &EtcdStore) -> Option<String> {
    let rows = all_rows(store, Range::namespace("lb")).await;
    let values: std::collections::BTreeSet<_> =
        rows.iter().map(|row| row.value.as_ref().unwrap().raw("n").unwrap().to_owned()).collect();
    assert!(values.len() <= 1, "a reader saw half of a commit: {values:?}");
    assert!(rows.is_empty() || rows.len() == ROWS / 3, "a reader saw {} rows", rows.len());
    values.into_iter().next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_commit_happens_as_one() {
    if !installed("a_large_commit_happens_as_one") {
        return;
    }
    let address = shared().address(&name());
    let (store, other) = (EtcdStore::open(&address).await.unwrap(), EtcdStore::open(&address).await.unwrap());
    let start = store.head().await.unwrap();
    let mut watch = other.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, done) = (other.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut looks = 0;
            while !done.load(Ordering::SeqCst) {
                says(&store).await;
                looks += 1;
            }
            looks
        })
    };
    // Small ones go on beside it: most of the time it holds nobody up.
    let beside = {
        let (store, done) = (other.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut n = 0;
            while !done.load(Ordering::SeqCst) {
                store.commit(commit([put("backup/a", n)])).await.unwrap();
                n += 1;
            }
            n
        })
    };
    let mut once = large(1);
    once.idempotency = Some("import".into());
    once.pre = vec![Pre::Unchanged(Range::namespace("lb"), Revision(0)), Pre::Absent(key("hosts/h00000"))];
    let first = store.commit(once.clone()).await.unwrap();
    let second = store.commit(large(2)).await.unwrap();
    done.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 1);
    let small = beside.await.unwrap();
    assert!(small > 0);
    assert_eq!((first.changed, second.changed), (ROWS, ROWS));
    let again = store.commit(once.clone()).await.unwrap();
    assert_eq!((again.revision, again.replayed), (first.revision, true));
    assert!(matches!(
        other.commit(Commit { idempotency: None, ..once }).await,
        Err(StoreError::Conflict { .. })
    ));
    assert_eq!(other.commit(large(2)).await.unwrap().changed, 0, "nothing is left to change");
    assert_eq!(says(&other).await.as_deref(), Some("2"));
    let mut told = Vec::new();
    while told.len() < small as usize + 2 {
        if let Feed::Commit(entry) = watch.next().await.unwrap().unwrap() {
            told.push((*entry).clone());
        }
    }
    assert_eq!(told, whole_log(&store).await);
    past(&store, first.revision, second.revision).await;
    check_rows(&store).await;
}

/// What was read then is read now, through every kind of range, and the log of each tells what it wrote there.
async fn past(store: &EtcdStore, first: Revision, second: Revision) {
    let (all, zone) = (ROWS / 3, (0..ROWS).filter(|row| row % 3 == 1 && row % 7 == 4).count());
    for (range, rows) in [
        (Range::hosts(), all),
        (Range::members(&"dns/z4".parse().unwrap()), zone),
        (Range::Naming("h00000".parse().unwrap()), 1),
        (Range::Key(key("lb/x00002")), 1),
    ] {
        let query = Query { at: Some(first), limit: MAX_PAGE, ..Query::new(range.clone()) };
        let page = store.read(&query).await.unwrap();
        assert_eq!(page.rows.len(), rows, "{range}");
        assert!(page.rows.iter().all(|row| row.value.as_ref().unwrap().raw("n") == Some("1")), "{range}");
        let log = store.log(&range, None, 10).await.unwrap();
        let told: Vec<_> = log.iter().map(|entry| (entry.info.revision, entry.changes.len())).collect();
        assert_eq!(told, [(second, rows), (first, rows)], "{range}");
    }
}

async fn granted(store: &EtcdStore, holder: &str) -> Claim {
    let want = ClaimRequest { name: "unit/x".into(), of: 1, holder: holder.into(), ttl: None };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => claim,
        taken => panic!("{taken:?}"),
    }
}

fn ledger(n: u8) -> Vec<LedgerWrite> {
    (0..1500).map(|row| LedgerWrite { key: format!("dns/x/{row:04}"), value: Some(vec![n; 1500]) }).collect()
}

/// The number that all ledger rows say.
async fn ledger_says(store: &EtcdStore) -> Option<u8> {
    let page = store.ledger("dns/x/", None, MAX_PAGE).await.unwrap();
    assert!(!page.more && (page.rows.is_empty() || page.rows.len() == 1500), "{} rows", page.rows.len());
    let first = page.rows.first().map(|(_, value)| value[0]);
    assert!(page.rows.iter().all(|(_, value)| Some(value[0]) == first), "half of a write shows");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_ledger_write_happens_as_one() {
    if !installed("a_large_ledger_write_happens_as_one") {
        return;
    }
    let store = support::new_store().await;
    let claim = granted(&store, "a").await;
    store.write_ledger(ledger(1), &claim).await.unwrap();
    assert_eq!(ledger_says(&store).await, Some(1));
    let gone = (0..1500).map(|row| LedgerWrite { key: format!("dns/x/{row:04}"), value: None });
    store.write_ledger(gone.collect(), &claim).await.unwrap();
    assert_eq!(ledger_says(&store).await, None);
    store.release(&claim).await.unwrap();
    let fenced = StoreError::Fenced { name: claim.name.clone(), number: claim.number };
    assert_eq!(store.write_ledger(ledger(2), &claim).await, Err(fenced));
    assert_eq!(ledger_says(&store).await, None);
}

/// What the killed processes do: large commits and ledger writes without end.
async fn work(address: &str) {
    let store = EtcdStore::open(address).await.unwrap();
    let claim = granted(&store, "a").await;
    let begun = says(&store).await.map_or(0, |n| n.parse::<u64>().unwrap());
    for n in begun + 1.. {
        store.commit(large(n)).await.unwrap();
        store.write_ledger(ledger(n as u8), &claim).await.unwrap();
    }
}

struct Working(Child);

impl Working {
    fn start(test: &str, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env("SHOAL_TEST_WRITES", address);
        Self(child.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Killed in every step, seen from outside by the keys that stand in etcd: half is never seen, the next writer goes on,
/// and nothing is left lying about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_over_it_holds_nobody_up() {
    let test = "whoever_dies_over_it_holds_nobody_up";
    if let Ok(address) = std::env::var("SHOAL_TEST_WRITES") {
        return work(&address).await;
    }
    if !installed(test) {
        return;
    }
    let (etcd, name) = (shared(), name());
    let address = etcd.address(&name);
    let store = EtcdStore::open(&address).await.unwrap();
    // Each step has its turn; the last one lets it carry out some of it first.
    let steps = [("stage/", 0), ("applying/commit", 0), ("applying/commit", 40), ("applying/ledger", 5)];
    for (n, (step, wait)) in steps.into_iter().enumerate() {
        let (before, begun) = (says(&store).await, Instant::now());
        let working = Working::start(test, &address);
        let prefix = format!("{name}/{step}");
        while count(etcd, &prefix).await == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing stands at {prefix}");
        }
        tokio::time::sleep(Duration::from_millis(wait)).await;
        drop(working);
        // Readers go on at once, and see all or nothing.
        let now = says(&store).await;
        assert!(now == before || now.is_some(), "{step}: {now:?}");
        ledger_says(&store).await;
        store.commit(commit([put("backup/a", n as u64)])).await.unwrap();
        says(&store).await;
        check_rows(&store).await;
    }
    let referenced = parts(&store, etcd, &name).await;
    assert_eq!(count(etcd, &format!("{name}/part/")).await, referenced, "parts that nothing points to");
    assert_eq!(count(etcd, &format!("{name}/applying/")).await, 0);
}

/// How many parts the log points to, once what was abandoned is cleared away.
async fn parts(store: &EtcdStore, etcd: &support::Etcd, name: &str) -> i64 {
    let begun = Instant::now();
    while count(etcd, &format!("{name}/stage/")).await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never cleared away");
        // Whoever opens it clears away.
        drop(EtcdStore::open(&etcd.address(name)).await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let large = whole_log(store).await.into_iter().filter(|entry| entry.changes.len() == ROWS).count();
    assert!(large > 0);
    // Each of the same size: as many parts each.
    let mut client = etcd.client().await;
    let options = etcd_client::GetOptions::new().with_prefix();
    let found = client.get(format!("{name}/log/"), Some(options)).await.unwrap();
    let firsts = found.kvs().iter().filter_map(|kv| {
        let entry: serde_json::Value = serde_json::from_slice(kv.value()).unwrap();
        Some(entry.get("parts")?.get("firsts")?.as_array()?.len())
    });
    i64::try_from(firsts.sum::<usize>()).unwrap()
}
