//! A member of three hangs: its connections stay and nobody answers. Requests and watches go on with the others.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps tests fails as tests do"
)]

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use shoal_store::{ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Result, Store};
use shoal_store_etcd::EtcdStore;
use support::{Etcd, check_rows, commit, installed, put, whole_log};

/// The next commit that a watch tells.
async fn told(watch: &mut Flow<Result<Feed>>) -> shoal_core::Revision {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(40), watch.next()).await.expect("a message");
        match message.unwrap().unwrap() {
            Feed::Commit(entry) => return entry.info.revision,
            Feed::Upto(_) => {}
            Feed::Reset(head) => panic!("{head:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left() {
    if !installed("a_member_that_hangs_is_left") {
        return;
    }
    let members = Etcd::cluster(3);
    let hosts: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let address = format!("etcd://{}/hangs", hosts.join(","));
    // Each begins with a member of its own choice.
    let mut stores = Vec::new();
    for _ in 0..3 {
        stores.push(EtcdStore::open(&address).await.unwrap());
    }
    let start = stores[0].head().await.unwrap();
    let mut watches: Vec<_> = stores.iter().map(|store| store.watch(Filter::all(), start)).collect();
    for watch in &mut watches {
        assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    }
    let (mut n, ttl) = (0, Some(Duration::from_secs(60)));
    for member in &members {
        member.freeze();
        let before = n;
        for (holder, store) in stores.iter().enumerate() {
            n += 1;
            store.commit(commit([put("lb/a", n)])).await.unwrap();
            // Whoever asked it has left it by now: what follows waits for nobody, and not a second for each. On a machine that stalls
            // some take long, and not most of them.
            let mut took = Vec::new();
            for _ in 0..10 {
                n += 1;
                let begun = Instant::now();
                store.commit(commit([put("lb/a", n)])).await.unwrap();
                took.push(begun.elapsed());
            }
            took.sort_unstable();
            assert!(took[5] < Duration::from_secs(1), "ten commits took {took:?}");
            let want = ClaimRequest { name: format!("unit/{holder}"), of: 1, holder: "a".into(), ttl };
            assert!(matches!(store.claim(&want).await.unwrap(), ClaimAnswer::Granted(_)));
        }
        // Watches went with their stores.
        for watch in &mut watches {
            for revision in before + 1..=n {
                assert_eq!(told(watch).await.0, revision);
            }
        }
        tokio::task::block_in_place(|| member.thaw());
    }
    let log = whole_log(&stores[0]).await;
    assert_eq!(log.len() as u64, n);
    check_rows(&stores[1]).await;
    // At first, too, one that hangs is passed over.
    members[0].freeze();
    for _ in 0..6 {
        let store = EtcdStore::open(&address).await.unwrap();
        assert_eq!(store.head().await.unwrap().revision, log.last().unwrap().info.revision);
    }
    tokio::task::block_in_place(|| members[0].thaw());
}
