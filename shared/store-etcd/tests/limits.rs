//! Etcd's limits: told before they bite, and explained where they do.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::time::Duration;

use etcd_client::{AlarmAction, AlarmOptions, AlarmType, CompactionOptions, DeleteOptions};
use futures::StreamExt;
use shoal_core::{Change, Commit, Document, Epoch, Pre, Revision};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, LedgerWrite, MemoryStore, MigrateError, Position, Query,
    Store, StoreError, migrate,
};
use shoal_store_etcd::{EtcdDraft, EtcdStore};
use support::{Etcd, check_rows, commit, count, installed, key, name, put, shared, whole_log};

#[tokio::test]
async fn limits_below_the_default_are_told_when_a_database_is_made() {
    if !installed("limits_below_the_default_are_told_when_a_database_is_made") {
        return;
    }
    for more in
        [["--max-txn-ops", "64"], ["--max-request-bytes", "1200000"], ["--max-request-bytes", "500000"]]
    {
        let etcd = Etcd::with(&more);
        let refused = [
            EtcdStore::open(&etcd.address("small")).await.err(),
            EtcdDraft::open(&etcd.address("small"), Epoch(7)).await.err(),
        ];
        for error in refused {
            let Some(error) = error else { panic!("{more:?} is enough") };
            let said = error.to_string();
            assert!(matches!(error, StoreError::Invalid(_)) && said.contains(more[0]), "{said}");
            assert!(said.contains(&etcd.endpoint()) && said.contains("at least"), "{said}");
        }
        assert_eq!(count(&etcd, "small").await, 0);
    }
}

/// Rows of so many octets each: a large commit.
fn large(rows: usize, octets: usize) -> Commit {
    let value = Document::trusted(&format!("\"{}\"", "x".repeat(octets)));
    commit((0..rows).map(|row| Change::put(key(&format!("lb/x{row:05}")), value.clone())))
}

/// Rules are members, and so keys of up to 4 KiB. What a commit rests on is asked for, or compared, in the request that writes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_keys_leave_room_for_what_is_written() {
    if !installed("long_keys_leave_room_for_what_is_written") {
        return;
    }
    let store = EtcdStore::open(&shared().address(&name())).await.unwrap();
    let rule = |n: usize| key(&format!("dns/a/members/select: {}{n:03}", "x".repeat(4000)));
    // What is written goes in one request, and with all that it rests on it would be more. First nothing is known, then all.
    for n in 1..=3 {
        let value = Document::trusted(&format!("\"{n}{}\"", "x".repeat(125_000)));
        let put = |row| Change::put(key(&format!("lb/x{row}")), value.clone());
        let pre = (0..100).map(rule).map(Pre::Absent).collect();
        let done = store.commit(Commit { pre, ..commit((0..10).map(put)) }).await.unwrap();
        assert_eq!((done.revision, done.changed), (Revision(n), 10));
    }
    // As many of them as rows.
    let rules = (0..30).map(|n| Change::put(rule(n), Document::trusted("{}")));
    let pre = (0..100).map(rule).map(Pre::Absent).collect();
    store.commit(Commit { pre, ..commit(rules) }).await.unwrap();
    check_rows(&store).await;
}

async fn claim(store: &EtcdStore, ttl: Option<Duration>) -> Result<Claim, StoreError> {
    let want = ClaimRequest { name: "unit/x".into(), of: 1, holder: "a".into(), ttl };
    match store.claim(&want).await? {
        ClaimAnswer::Granted(claim) => Ok(claim),
        taken => panic!("{taken:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_write_that_would_not_fit_is_refused_before_it_begins() {
    if !installed("a_large_write_that_would_not_fit_is_refused_before_it_begins") {
        return;
    }
    let etcd = Etcd::with(&["--quota-backend-bytes", "67108864"]);
    let address = format!("{}?quota=64MiB", etcd.address("room"));
    let store = EtcdStore::open(&address).await.unwrap();
    let held = claim(&store, None).await.unwrap();
    let ledger = (0..400).map(|n| LedgerWrite { key: format!("dns/x/{n}"), value: Some(vec![1; 100_000]) });
    let refused = [
        store.commit(large(400, 100_000)).await.map(drop),
        store.write_ledger(ledger.collect(), &held).await,
    ];
    for answer in refused {
        let error = answer.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, StoreError::Full { .. }), "{said}");
        assert!(said.contains("64 MiB") && said.contains("--quota-backend-bytes"), "{said}");
    }
    for prefix in ["room/part/", "room/stage/", "room/applying/"] {
        assert_eq!(count(&etcd, prefix).await, 0, "{prefix}");
    }
    // What fits goes on, small and large.
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    store.commit(large(40, 100_000)).await.unwrap();
    assert_eq!(whole_log(&store).await.len(), 2);
    check_rows(&store).await;
}

/// A copy, large and small commits alike, ends before etcd is full, which would take writes from nobody any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_does_not_fit_leaves_room_for_others() {
    if !installed("a_copy_that_does_not_fit_leaves_room_for_others") {
        return;
    }
    let etcd = Etcd::with(&["--quota-backend-bytes", "67108864"]);
    let (once, often) = (MemoryStore::new(), MemoryStore::new());
    once.commit(large(400, 100_000)).await.unwrap();
    let value = Document::trusted(&format!("\"{}\"", "x".repeat(100_000)));
    for row in 0..800 {
        let put = Change::put(key(&format!("lb/x{row:05}")), value.clone());
        often.commit(commit([put])).await.unwrap();
    }
    for (name, source) in [("once", &once), ("often", &often)] {
        let address = format!("{}?quota=64MiB", etcd.address(name));
        let epoch = source.head().await.unwrap().epoch;
        let draft = EtcdDraft::open(&address, epoch).await.unwrap();
        let copied = migrate(source, &draft, &mut |_| {}).await;
        let Err(MigrateError::Copy(StoreError::Full { why, .. })) = copied else { panic!("{name}: it fits") };
        assert!(why.contains("64 MiB") && why.contains("--quota-backend-bytes"), "{why}");
        let mut client = etcd.client().await;
        let raised = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
        assert!(raised.alarms().is_empty(), "{name}: it is full");
        client.put("other/x", "theirs", None).await.unwrap();
    }
    assert_eq!(count(&etcd, "once/part/").await, 0);
    assert!(count(&etcd, "often/log/").await > 10, "the small ones are copied as far as they fit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_what_helps_and_goes_on_with_room() {
    if !installed("a_full_etcd_says_what_helps_and_goes_on_with_room") {
        return;
    }
    let etcd = Etcd::with(&["--quota-backend-bytes", "33554432"]);
    let store = EtcdStore::open(&etcd.address("full")).await.unwrap();
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    let held = claim(&store, Some(Duration::from_secs(600))).await.unwrap();
    let start = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));

    // Somebody else fills it.
    let mut client = etcd.client().await;
    let mut n = 0;
    while client.put(format!("other/{n}"), vec![b'x'; 1_000_000], None).await.is_ok() {
        n += 1;
        assert!(n < 100, "it is never full");
    }
    let ledger = || vec![LedgerWrite { key: "dns/x".into(), value: Some(vec![1]) }];
    let want = ClaimRequest { name: "unit/y".into(), of: 1, holder: "a".into(), ttl: held.ttl };
    let second = commit([put("lb/a", 2)]);
    let (small, written, free) =
        tokio::join!(store.commit(second.clone()), store.write_ledger(ledger(), &held), store.claim(&want));
    for answer in [small.map(drop), written, free.map(drop)] {
        let error = answer.unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, StoreError::Full { .. }), "{said}");
        assert!(said.contains("alarm disarm") && said.contains("docs/etcd.md"), "{said}");
    }
    // Reading, renewing and giving back go on.
    assert_eq!(store.read(&Query::new(shoal_core::Range::All)).await.unwrap().rows.len(), 1);
    assert_eq!(claim(&store, held.ttl).await.unwrap().number, held.number);
    assert!(EtcdStore::open(&etcd.address("full")).await.is_ok(), "it is opened all the same");

    // As docs/etcd.md says.
    let gone = client.delete("other/", Some(DeleteOptions::new().with_prefix())).await.unwrap();
    let (now, whole) = (gone.header().unwrap().revision(), CompactionOptions::new().with_physical());
    client.compact(now, Some(whole)).await.unwrap();
    client.defragment().await.unwrap();
    let raised = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    assert!(!raised.alarms().is_empty());
    for alarm in raised.alarms() {
        let mut of = AlarmOptions::new();
        of.with_member(alarm.member_id());
        client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(of)).await.unwrap();
    }
    let done = store.commit(second).await.unwrap();
    store.write_ledger(ledger(), &held).await.unwrap();
    loop {
        let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a message");
        match told.unwrap().unwrap() {
            Feed::Commit(entry) => break assert_eq!(entry.info.revision, done.revision),
            Feed::Upto(_) => {}
            Feed::Reset(head) => panic!("{head:?}"),
        }
    }
    store.release(&held).await.unwrap();
    check_rows(&store).await;
}

/// A watcher that does not look while more is committed than is kept for it, and than etcd remembers: it is told all of it, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_look_misses_nothing() {
    if !installed("a_watcher_that_does_not_look_misses_nothing") {
        return;
    }
    let etcd = Etcd::start();
    let (store, other) = (
        EtcdStore::open(&etcd.address("slow")).await.unwrap(),
        EtcdStore::open(&etcd.address("slow")).await.unwrap(),
    );
    let start = store.head().await.unwrap();
    let mut slow = store.watch(Filter::all(), start);
    assert_eq!(slow.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    // More than the sixteen megabytes that are kept for all watchers.
    let value = |n: usize| Document::trusted(&format!("\"{n} {}\"", "x".repeat(500_000)));
    for n in 0..60 {
        other.commit(commit([Change::put(key("lb/a"), value(n))])).await.unwrap();
    }
    etcd.compact().await;
    // One that looks has all of it, and so the store has heard of it.
    let quick = Position { revision: shoal_core::Revision(59), ..start };
    let mut quick = store.watch(Filter::all(), quick);
    assert!(matches!(quick.next().await.unwrap().unwrap(), Feed::Commit(_)));
    for n in 0..60 {
        let told = tokio::time::timeout(Duration::from_secs(60), slow.next()).await.expect("a message");
        let Feed::Commit(entry) = told.unwrap().unwrap() else { panic!("a commit") };
        assert_eq!(entry.info.revision.0, n as u64 + 1);
        assert_eq!(entry.changes, [Change::put(key("lb/a"), value(n))]);
    }
}
