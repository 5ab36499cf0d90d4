//! Etcd is killed, restarted and compacted while commits and watches are under way: nothing acknowledged is lost, nothing
//! is done twice, and watches miss nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use shoal_core::{Commit, Document, Edit, Expect, Pre, Proposal, Range, Revision, Row, Scope};
use shoal_store::{ClaimAnswer, ClaimRequest, Database, Feed, Filter, Head, Store, StoreError};
use shoal_store_etcd::EtcdStore;
use support::{Etcd, Way, all_rows, check_rows, commit, installed, key, put, whole_log};

const KILLS: usize = 6;
const WRITERS: u64 = 6;
/// So many that who loses hands over, amid all that is done to etcd.
const STORES: usize = 3;

/// The `n`th commit of a writer: two rows, of which one has to be as the last commit left it.
fn step(writer: u64, n: u64, last: Option<Revision>) -> Commit {
    let own = key(&format!("lb/w{writer}"));
    let mut commit = commit([put(own.as_str(), n), put(&format!("hosts/w{writer}"), n)]);
    commit.author = format!("w{writer}");
    commit.message = n.to_string();
    commit.pre = vec![match last {
        Some(last) => Pre::At(own, last),
        None => Pre::Absent(own),
    }];
    // Half of them rely on the store alone.
    commit.idempotency = writer.is_multiple_of(2).then(|| format!("{writer} {n}"));
    commit
}

async fn write(
    store: EtcdStore,
    writer: u64,
    done: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> Vec<Revision> {
    let mut revisions: Vec<Revision> = Vec::new();
    while !done.load(Ordering::SeqCst) {
        let n = revisions.len() as u64;
        // A conflict would be its own commit, done and then taken for another's.
        let answer = store.commit(step(writer, n, revisions.last().copied())).await.unwrap();
        assert_eq!(answer.changed, 2, "writer {writer} at {n}: {answer:?}");
        revisions.push(answer.revision);
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
    revisions
}

/// Follows from the beginning until a revision, and checks that nothing is missing and nothing comes twice.
async fn follow(store: &EtcdStore, from: Head, upto: impl Fn() -> Option<Revision>) -> Vec<Revision> {
    let mut watch = store.watch(Filter { progress: Duration::from_millis(20), ..Filter::all() }, from);
    let mut seen = Vec::new();
    while upto().is_none_or(|upto| seen.last().is_none_or(|last| *last < upto)) {
        match tokio::time::timeout(Duration::from_millis(200), watch.next()).await {
            Err(_) => {}
            Ok(message) => match message.unwrap().unwrap() {
                Feed::Commit(entry) => {
                    assert_eq!(entry.changes.len(), 2, "whole commits");
                    seen.push(entry.info.revision);
                }
                Feed::Upto(_) => {}
                Feed::Reset(head) => panic!("{head:?}"),
            },
        }
    }
    seen
}

/// Commits and follows while somebody does harm, and checks that what stands there is what was acknowledged.
async fn survives(address: &str, mut harm: impl AsyncFnMut(usize)) {
    let mut stores = Vec::new();
    for _ in 0..STORES {
        stores.push(EtcdStore::open(address).await.unwrap());
    }
    let start = stores[0].head().await.unwrap();
    let (done, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| {
            let store = stores[n as usize % STORES].clone();
            tokio::spawn(write(store, n, Arc::clone(&done), Arc::clone(&acknowledged)))
        })
        .collect();
    let last = Arc::new(AtomicU64::new(0));
    let follower = {
        let (store, last) = (stores[0].clone(), Arc::clone(&last));
        tokio::spawn(async move {
            follow(&store, start, || Some(Revision(last.load(Ordering::SeqCst))).filter(|r| r.0 > 0)).await
        })
    };
    for kill in 0..KILLS {
        // Amid commits: so many more than before, and a few at another place each time.
        let before = acknowledged.load(Ordering::SeqCst);
        let begun = Instant::now();
        while acknowledged.load(Ordering::SeqCst) < before + 40 + 7 * kill as u64 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is acknowledged any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        harm(kill).await;
    }
    done.store(true, Ordering::SeqCst);
    let mut by_writer = BTreeMap::new();
    for (n, writer) in writers.into_iter().enumerate() {
        by_writer.insert(format!("w{n}"), writer.await.unwrap());
    }
    let log = whole_log(&stores[1]).await;
    last.store(log.last().unwrap().info.revision.0, Ordering::SeqCst);
    let mut found: BTreeMap<String, Vec<Revision>> = BTreeMap::new();
    for entry in &log {
        let own = found.entry(entry.info.author.clone()).or_default();
        assert_eq!(entry.info.message, own.len().to_string(), "done once, and in order");
        own.push(entry.info.revision);
    }
    assert_eq!(found, by_writer, "what stands in the log is what was acknowledged");
    let revisions: Vec<_> = log.iter().map(|entry| entry.info.revision).collect();
    assert_eq!(follower.await.unwrap(), revisions);
    check_rows(&stores[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_and_watches_survive_kills_of_etcd() {
    if !installed("commits_and_watches_survive_kills_of_etcd") {
        return;
    }
    let mut etcd = Etcd::start();
    let address = etcd.address("kills");
    survives(&address, async |_| {
        tokio::task::block_in_place(|| {
            etcd.kill();
            etcd.run();
        });
    })
    .await;
}

/// The leader dies each time, and comes back when the others have gone on without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_without_its_leader() {
    if !installed("a_cluster_goes_on_without_its_leader") {
        return;
    }
    let mut members = Etcd::cluster(3);
    let hosts: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let (mut down, mut deaths): (Option<usize>, _) = (None, 0);
    survives(&format!("etcd://{}/cluster", hosts.join(",")), async |_| {
        if let Some(member) = down.take() {
            tokio::task::block_in_place(|| members[member].run());
        }
        let mut leader = None;
        for (n, member) in members.iter().enumerate() {
            let status = member.client().await.status().await.unwrap();
            let own = status.header().unwrap().member_id();
            leader = leader.or((status.leader() == own).then_some(n));
        }
        if let Some(leader) = leader {
            tokio::task::block_in_place(|| members[leader].kill());
            down = Some(leader);
            deaths += 1;
        }
    })
    .await;
    assert!(deaths > KILLS / 2, "a leader was found {deaths} times");
}

/// What etcd compacts is its own history: ours is read as before, and watches go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_takes_nothing_away() {
    if !installed("compaction_takes_nothing_away") {
        return;
    }
    let etcd = Etcd::start();
    let way = Way::to(&etcd).await;
    let here = EtcdStore::open(&way.address("compacted")).await.unwrap();
    let there = EtcdStore::open(&etcd.address("compacted")).await.unwrap();
    let start = here.head().await.unwrap();
    let mut watch = here.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    for round in 0..3 {
        // While `here` cannot listen, more comes than etcd remembers.
        way.set(false);
        for n in 0..20 {
            there.commit(commit([put("lb/a", round * 100 + n)])).await.unwrap();
            etcd.compact().await;
        }
        way.set(true);
        let mut seen = BTreeSet::new();
        while seen.len() < 20 {
            let message =
                tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("a message");
            match message.unwrap().unwrap() {
                Feed::Commit(entry) => assert!(seen.insert(entry.info.revision)),
                Feed::Upto(_) => {}
                Feed::Reset(head) => panic!("{head:?}"),
            }
        }
    }
    let log = whole_log(&here).await;
    assert_eq!(log.len(), 60);
    // A watch from long ago, and every old revision.
    let mut late = there.watch(Filter::all(), start);
    for entry in &log {
        let Feed::Commit(told) = late.next().await.unwrap().unwrap() else { panic!("a commit") };
        assert_eq!(*told, *entry);
        let at = shoal_store::Query { at: Some(entry.info.revision), ..shoal_store::Query::new(Range::All) };
        let page = here.read(&at).await.unwrap();
        assert_eq!(page.rows[0].value, entry.changes[0].value);
    }
}

fn web(count: u64, members: &[&str]) -> Edit {
    Edit::PutTag {
        tag: "lb/web".parse().unwrap(),
        owner: None,
        environment: None,
        expires: None,
        document: Document::trusted(&format!("{{\"count\":{count}}}")),
        members: Some(members.iter().map(|member| member.parse().unwrap()).collect()),
        expect: Expect::Any,
    }
}

fn host(name: &str) -> Edit {
    Edit::PutHost {
        host: name.parse().unwrap(),
        id: None,
        state: None,
        owner: None,
        environment: None,
        expires: None,
        document: Document::empty(),
        expect: Expect::Any,
    }
}

/// A rollback goes to what stood at a revision of ours, whatever etcd remembers of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_forgot_is_rolled_back_to() {
    if !installed("what_etcd_forgot_is_rolled_back_to") {
        return;
    }
    let etcd = Etcd::start();
    let store: Arc<dyn Store> = Arc::new(EtcdStore::open(&etcd.address("back")).await.unwrap());
    let database = Database::open(store.clone()).await.unwrap();
    let edit = async |edit: Vec<Edit>| {
        database.transact(Proposal::new("ann", "because", edit)).await.unwrap().committed.revision
    };
    edit(["a.example.com", "b.example.com", "c.example.com"].map(host).into()).await;
    let good = edit(vec![web(1, &["a.example.com"])]).await;
    let before = all_rows(&*store, Range::All).await;
    for n in 2..30 {
        edit(vec![web(n, &["b.example.com"])]).await;
        etcd.compact().await;
    }
    // What etcd has of that time is gone, or this would show nothing.
    let mut client = etcd.client().await;
    let old = etcd_client::GetOptions::new().with_revision(2);
    assert!(client.get("back/log", Some(old)).await.unwrap_err().to_string().contains("compacted"));
    for scope in [Scope::Key(&key("lb/web")), Scope::Everything] {
        database.wait_for(edit(vec![web(99, &["b.example.com", "c.example.com"])]).await).await;
        let edits = database.rollback(scope, good).await.unwrap();
        let done = edit(edits).await;
        let told = |rows: Vec<Row>| rows.into_iter().map(|row| (row.key, row.value)).collect::<Vec<_>>();
        assert_eq!(told(all_rows(&*store, Range::All).await), told(before.clone()));
        let log = store.log(&Range::All, None, 1).await.unwrap();
        assert_eq!(log[0].info.revision, done);
    }
}

/// An outage that lasts is said, with the place and what to do, by calls and watches alike; then the same handles go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_said_and_ends() {
    if !installed("an_outage_is_said_and_ends") {
        return;
    }
    let mut etcd = Etcd::start();
    let store = EtcdStore::open(&etcd.address("outage")).await.unwrap();
    let start = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), start);
    assert_eq!(watch.next().await.unwrap().unwrap(), Feed::Upto(start.revision));
    etcd.kill();
    let want =
        ClaimRequest { name: "unit/x".into(), of: 1, holder: "a".into(), ttl: Some(Duration::from_secs(60)) };
    let told = async {
        let message = watch.next().await.expect("an error first");
        message.map(|feed| format!("{feed:?}")).unwrap_err()
    };
    let begun = Instant::now();
    let (commit_said, read_said, claim_said, watch_said) = tokio::join!(
        async { store.commit(commit([put("lb/a", 1)])).await.unwrap_err() },
        async { store.head().await.unwrap_err() },
        async { store.claim(&want).await.unwrap_err() },
        told,
    );
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    for said in [commit_said, read_said, claim_said, watch_said] {
        assert!(matches!(said, StoreError::Unavailable { .. }), "{said}");
        let said = said.to_string();
        assert!(said.contains(&etcd.endpoint()) && said.contains("see that etcd runs there"), "{said}");
    }
    assert!(EtcdStore::open(&etcd.address("outage")).await.is_err());
    etcd.run();
    let done = store.commit(commit([put("lb/a", 2)])).await.unwrap();
    assert!(matches!(store.claim(&want).await.unwrap(), ClaimAnswer::Granted(_)));
    let mut watch = store.watch(Filter::all(), start);
    let Feed::Commit(entry) = watch.next().await.unwrap().unwrap() else { panic!("a commit") };
    assert_eq!((entry.info.revision, entry.changes.clone()), (done.revision, vec![put("lb/a", 2)]));
}
