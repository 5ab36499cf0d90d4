//! A full disk: the error says so, nothing is half done, reads go on, and so does everything once there is room.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use shoal_core::{Range, Revision};
use shoal_store::{ClaimAnswer, ClaimRequest, LedgerWrite, Query, Store, StoreError};
use shoal_store_sqlite::{Options, SqliteStore};
use support::shim::Shim;
use support::{Acknowledged, check, commit, integrity};

/// Commits until there is no room; answers how many were done.
async fn fill(store: &SqliteStore, place: &Path) -> u64 {
    for n in 0.. {
        match store.commit(commit("w0", n)).await {
            Ok(_) => {}
            Err(StoreError::Full { place: named, why }) => {
                assert_eq!(named, place.display().to_string());
                assert!(why.contains("full"), "{why}");
                return n;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(n < 100_000, "it never fills");
    }
    0
}

async fn whole(store: &SqliteStore, done: u64) {
    let acknowledged = Acknowledged::from([("w0".to_owned(), done - 1)]);
    let mut written = BTreeMap::new();
    check(store, &mut Revision(0), &mut written, &acknowledged).await.unwrap();
    assert_eq!(written["w0"], done - 1, "what was refused is not there");
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let shim = Shim::register("room");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open_with(&path, Options::vfs("room").checkpoint_after(50)).await.unwrap();
    let mut done = 0;
    // Each time it stops at another place: in the log, in the file, in between.
    for room in [0, 1, 4096, 50_000, 300_000, 1_000_000] {
        shim.set_room(room);
        loop {
            match store.commit(commit("w0", done)).await {
                Ok(answer) => assert!(!answer.replayed),
                Err(error) => {
                    assert!(matches!(&error, StoreError::Full { .. }) && error.is_transient(), "{error}");
                    break;
                }
            }
            done += 1;
        }
        let page = store.read(&Query::new(Range::hosts())).await.unwrap();
        assert_eq!(page.rows.len(), usize::from(done > 0), "what is there can be read");
        // Many at once, of which some fit: each is told the truth.
        shim.set_room(40_000);
        let more = (0..20).map(|n| {
            let (store, mut commit) = (&store, commit("w1", 0));
            commit.changes.truncate(1);
            commit.changes[0].key = support::key(&format!("lb/room{room}n{n}"));
            commit.idempotency = None;
            async move { (commit.changes[0].key.clone(), store.commit(commit).await) }
        });
        for (key, answer) in futures::future::join_all(more).await {
            let there = store.read(&Query::new(Range::Key(key.clone()))).await.unwrap().rows.len();
            assert_eq!(there == 1, answer.is_ok(), "{key}: {answer:?}");
        }
        shim.set_room(i64::MAX);
        store.commit(commit("w0", done)).await.unwrap();
        done += 1;
    }
    let want = ClaimRequest { name: "x".into(), of: 1, holder: "a".into(), ttl: None };
    let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else { panic!("taken") };
    // Larger than what the log has room for within itself.
    let row = |n| LedgerWrite { key: format!("dns/x/{n}"), value: Some(vec![7; 1 << 20]) };
    let log = std::fs::metadata(folder.path().join("shoal.db-wal")).unwrap().len();
    let rows: Vec<_> = (0..log / (1 << 20) + 2).map(row).collect();
    shim.set_room(0);
    let refused = store.write_ledger(rows.clone(), &claim).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert!(store.ledger("", None, 1).await.unwrap().rows.is_empty());
    shim.set_room(i64::MAX);
    store.write_ledger(rows, &claim).await.unwrap();
    drop(store);
    integrity(&path);
}

/// The same on a real file system of 4 MiB, where this user may mount one.
#[tokio::test]
async fn a_real_disk_fills_up_and_is_freed() {
    struct Mounted(tempfile::TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path()).status();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "shoal-test"])
        .arg(folder.path())
        .output();
    if !mount.as_ref().is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: a_real_disk_fills_up_and_is_freed: this user may not mount a small tmpfs");
        return;
    }
    let folder = Mounted(folder);
    let path = folder.0.path().join("shoal.db");
    let ballast = folder.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    let done = fill(&store, &path).await;
    assert!(done > 10);
    whole(&store, done).await;
    drop(store);
    // It can even be opened so; or it says why not.
    match SqliteStore::open(&path).await {
        Ok(store) => whole(&store, done).await,
        Err(StoreError::Full { .. }) => {}
        Err(other) => panic!("{other}"),
    }
    std::fs::remove_file(&ballast).unwrap();
    let store = SqliteStore::open(&path).await.unwrap();
    whole(&store, done).await;
    store.commit(commit("w0", done)).await.unwrap();
    whole(&store, done + 1).await;
    drop(store);
    integrity(&path);
}
