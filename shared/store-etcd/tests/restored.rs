//! A snapshot of etcd that was restored: etcd's own revisions, and so fencing numbers, begin again where the snapshot was made.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what helps tests fails as tests do"
)]

mod support;

use std::process::{Command, Output};

use etcd_client::PutOptions;
use shoal_core::{Commit, Pre, Revision};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, Store, StoreError};
use shoal_store_etcd::EtcdStore;
use support::{Etcd, check_rows, commit, count, installed, key, name, put, whole_log};

/// What lies in the queue: one commit of Bob's.
const LEFT: &str = r#"{"commits":[{"commit":{"pre":[],"changes":[],"author":"bob","message":"left behind"},"changes":[{"key":"lb/left","value":1}]}]}"#;

async fn claim(store: &EtcdStore, holder: &str, ttl: Option<u64>) -> Claim {
    let ttl = ttl.map(std::time::Duration::from_secs);
    let name = if ttl.is_some() { "unit/x" } else { "slot/y" };
    let want = ClaimRequest { name: name.into(), of: 1, holder: holder.into(), ttl };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => claim,
        taken @ ClaimAnswer::Taken { .. } => panic!("{taken:?}"),
    }
}

fn etcdctl(etcd: &Etcd, words: &[&str]) {
    let done = Command::new("etcdctl")
        .args(["--endpoints", &etcd.endpoint()])
        .args(words)
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Whether there is all that it takes; says that `test` is skipped where there is not.
fn restores(test: &str) -> bool {
    if !installed(test) {
        return false;
    }
    let help =
        Command::new("etcdctl").args(["snapshot", "restore", "--help"]).env("ETCDCTL_API", "3").output();
    let restores =
        |help: &Output| help.status.success() && String::from_utf8_lossy(&help.stdout).contains("--data-dir");
    let there = help.as_ref().is_ok_and(restores);
    if !there {
        println!(
            "SKIPPED: {test}: no etcdctl that restores snapshots is installed (apt install etcd-client, before 3.6)"
        );
    }
    there
}

/// What stands at the head's key, and etcd's revision that wrote it.
async fn head(etcd: &Etcd, name: &str) -> (serde_json::Value, i64) {
    let found = etcd.client().await.get(format!("{name}/log"), None).await.unwrap();
    let kv = &found.kvs()[0];
    (serde_json::from_slice(kv.value()).unwrap(), kv.mod_revision())
}

/// Nobody said that a snapshot was restored, and others wrote as much as was lost: all that is counted is as who goes on knows it, and
/// still it goes by what stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_on_after_a_restore_believes_no_head_of_the_same_numbers() {
    if !restores("who_goes_on_after_a_restore_believes_no_head_of_the_same_numbers") {
        return;
    }
    let (mut etcd, name) = (Etcd::start(), name());
    let goes_on = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    goes_on.commit(commit([put("lb/a", 1)])).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("snapshot");
    etcdctl(&etcd, &["snapshot", "save", file.to_str().unwrap()]);
    for n in [2, 3] {
        goes_on.commit(commit([put("lb/a", n)])).await.unwrap();
    }
    let (known, (mut lost, lost_at)) = (goes_on.head().await.unwrap(), head(&etcd, &name).await);
    etcd.restore(&file);
    let other = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    for change in [put("lb/a", 20), put("lb/b", 30)] {
        other.commit(commit([change])).await.unwrap();
    }
    // All but the nonce is the same. Who is asked here has a connection that works after it, and so asks for nothing before it commits.
    let (mut found, found_at) = head(&etcd, &name).await;
    assert_eq!((goes_on.head().await.unwrap(), found_at), (known, lost_at), "that is what it is about");
    assert_ne!(found, lost);
    for head in [&mut found, &mut lost] {
        assert!(head.as_object_mut().unwrap().remove("nonce").is_some(), "{head}");
    }
    assert_eq!(found, lost);
    // What it knows is that it wrote the row itself, as the newest revision.
    let at = Pre::At(key("lb/a"), known.revision);
    let conflict = StoreError::Conflict { pre: at.clone(), actual: Some(Revision(2)) };
    let on_what_was_lost = Commit { pre: vec![at], ..commit([put("lb/a", 4)]) };
    assert_eq!(goes_on.commit(on_what_was_lost).await, Err(conflict));
    let next = goes_on.commit(commit([put("lb/a", 5)])).await.unwrap();
    assert_eq!((next.revision, next.changed), (Revision(known.revision.0 + 1), 1));
    check_rows(&goes_on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_held_a_claim_before_a_snapshot_was_restored_writes_no_more() {
    let test = "who_held_a_claim_before_a_snapshot_was_restored_writes_no_more";
    if !restores(test) {
        return;
    }
    let (mut etcd, name) = (Etcd::start(), name());
    let before = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    let kept = claim(&before, "a", None).await;
    before.commit(commit([put("lb/a", 1)])).await.unwrap();
    let epoch = before.head().await.unwrap().epoch;
    // Somebody handed over what nobody took until the end of that life.
    let mut client = etcd.client().await;
    let lease = client.lease_grant(300, None).await.unwrap().id();
    let under = PutOptions::new().with_lease(lease);
    client.put(format!("{name}/queue/left"), LEFT, Some(under)).await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("snapshot");
    etcdctl(&etcd, &["snapshot", "save", file.to_str().unwrap()]);
    let stale = claim(&before, "a", Some(300)).await;
    etcd.restore(&file);
    assert_eq!(count(&etcd, &format!("{name}/queue/")).await, 1, "it came back");

    // The same number is given out again: that is what it is about.
    let store = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    let repeated = claim(&store, "b", Some(300)).await;
    assert_eq!(repeated.number, stale.number);

    let renewed = store.new_epoch().await.unwrap();
    assert_ne!(renewed, epoch);
    assert_eq!(count(&etcd, &format!("{name}/queue/")).await, 0, "nobody does it in this life");
    // Who goes on has not asked for anything since.
    let row = vec![LedgerWrite { key: "lb/x".into(), value: Some(vec![0]) }];
    let fenced = StoreError::Fenced { name: kept.name.clone(), number: kept.number };
    assert_eq!(before.write_ledger(row, &kept).await, Err(fenced));
    assert_eq!(before.head().await.unwrap().epoch, renewed);
    let fresh = claim(&store, "b", Some(300)).await;
    let slot = store.claims("slot/").await.unwrap().remove(0);
    assert!(fresh.number > stale.number && slot.number > kept.number && slot.holder == "a");
    // Through a connection of before, and through a new one.
    let late = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    for store in [&before, &late] {
        for old in [&stale, &repeated, &kept] {
            let fenced = StoreError::Fenced { name: old.name.clone(), number: old.number };
            let mut under = commit([put("lb/a", 2)]);
            under.pre = vec![old.held()];
            assert_eq!(store.commit(under).await, Err(fenced.clone()));
            let row = vec![LedgerWrite { key: "lb/x".into(), value: Some(vec![1]) }];
            assert_eq!(store.write_ledger(row, old).await, Err(fenced));
            store.release(old).await.unwrap();
        }
        for held in [&fresh, &slot] {
            let mut under = commit([put("lb/a", held.number)]);
            under.pre = vec![held.held()];
            store.commit(under).await.unwrap();
            let row = vec![LedgerWrite { key: "lb/x".into(), value: Some(vec![2]) }];
            store.write_ledger(row, held).await.unwrap();
        }
    }
    check_rows(&late).await;
    let log = whole_log(&late).await;
    assert!(log.iter().all(|entry| entry.info.author == "ann"), "what was handed over before is not done");
    // Once more, of the same snapshot: other numbers again.
    etcd.restore(&file);
    let again = EtcdStore::open(&etcd.address(&name)).await.unwrap();
    again.new_epoch().await.unwrap();
    assert!(claim(&again, "c", Some(300)).await.number > fresh.number);
}
