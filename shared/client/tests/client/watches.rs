//! Watches that lose their connection or their server.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shoal_client::{HttpStore, Options};
use shoal_core::Revision;
use shoal_store::{Feed, Filter, Flow, MemoryStore, Result, Store, StoreError};

use crate::harness::{Server, answering, fact, limits, quick};
use crate::proxy::{Fate, Proxy};

/// An address that stays free while no server has it; a port might be given to somebody else.
fn socket(dir: &tempfile::TempDir) -> String {
    format!("unix:{}/s", dir.path().display())
}

async fn next(watch: &mut Flow<Result<Feed>>) -> Feed {
    let message = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
    message.expect("a message in time").expect("the watch goes on").unwrap()
}

/// The commits up to a revision, and what was said to be without gaps; both as they came.
async fn upto(watch: &mut Flow<Result<Feed>>, last: Revision) -> (Vec<Revision>, Vec<Revision>) {
    let (mut commits, mut marks) = (Vec::new(), Vec::new());
    while marks.last() != Some(&last) && commits.last() != Some(&last) {
        match next(watch).await {
            Feed::Commit(entry) => commits.push(entry.info.revision),
            Feed::Upto(revision) => marks.push(revision),
            Feed::Reset(head) => panic!("{head:?}"),
        }
    }
    (commits, marks)
}

#[tokio::test]
async fn no_cut_makes_a_gap_or_a_repeat() {
    const COMMITS: u64 = 300;
    let mut random = StdRng::seed_from_u64(7);
    let behind = Arc::new(MemoryStore::new());
    let server = Server::start(behind.clone(), "127.0.0.1:0").await;
    // In the head, in the middle of an event, between two, after several.
    let cuts: Vec<_> = (0..80).map(|_| Fate::CutAfter(random.random_range(1..1500))).collect();
    let proxy = Proxy::new(&server.at, "/store/watch", cuts).await;
    let store = HttpStore::with(&proxy.at, quick()).unwrap();
    let filter = Filter { progress: Duration::from_millis(1), ..Filter::all() };
    let mut watch = store.watch(filter, store.head().await.unwrap());
    let write = async {
        for n in 1..=COMMITS {
            behind.commit(fact(n, None)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let ((commits, marks), ()) = tokio::join!(upto(&mut watch, Revision(COMMITS)), write);
    assert_eq!(commits, (1..=COMMITS).map(Revision).collect::<Vec<_>>());
    assert!(marks.is_sorted_by(|a, b| a < b), "said twice: {marks:?}");
    assert!(proxy.seen() > 20, "it was cut {} times", proxy.seen());
}

#[tokio::test]
async fn it_goes_on_when_the_server_is_back_and_at_the_next_server() {
    let behind = Arc::new(MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(behind.clone(), &socket(&dir)).await;
    let second = Server::start(behind.clone(), "127.0.0.1:0").await;
    let store = HttpStore::with(&format!("{},{}", first.at, second.at), quick()).unwrap();
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(0)));
    let old = first.stop().await;
    // Nobody tells the watch: it must find the other one, and so must everything else.
    store.commit(fact(1, None)).await.unwrap();
    assert_eq!(upto(&mut watch, Revision(1)).await.0, [Revision(1)]);
    second.stop().await;
    behind.commit(fact(2, None)).await.unwrap();
    let back = tokio::spawn(async move {
        // That nobody listens for a while cannot be waited for, only let pass; a slow machine makes it longer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        Server::start(behind, &old).await
    });
    // There is nothing at its address for a while, so a commit without a key was surely not done.
    let done = store.commit(fact(3, None)).await.unwrap();
    assert_eq!(done.revision, Revision(3));
    assert_eq!(upto(&mut watch, Revision(3)).await.0, [Revision(2), Revision(3)]);
    drop(back);
}

#[tokio::test]
async fn another_database_at_the_same_address_is_a_reset() {
    let dir = tempfile::tempdir().unwrap();
    let first = Server::start(Arc::new(MemoryStore::new()), &socket(&dir)).await;
    let store = first.store();
    store.commit(fact(1, None)).await.unwrap();
    let head = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), head);
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(1)));
    let at = first.stop().await;
    let other = Arc::new(MemoryStore::new());
    let _second = Server::start(other.clone(), &at).await;
    let reset = next(&mut watch).await;
    let now = other.head().await.unwrap();
    assert!(now.epoch != head.epoch && reset == Feed::Reset(now), "{reset:?}");
    other.commit(fact(5, None)).await.unwrap();
    assert_eq!(
        upto(&mut watch, Revision(1)).await.1.first(),
        Some(&Revision(0)),
        "caught up after the reset"
    );
}

#[tokio::test]
async fn a_server_that_stays_away_ends_it_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(Arc::new(MemoryStore::new()), &socket(&dir)).await;
    // Longer than a server takes to be gone altogether.
    let options = Options { patience: Duration::from_secs(5), ..quick() };
    let store = HttpStore::with(&server.at, options).unwrap();
    let head = store.head().await.unwrap();
    let mut watch = store.watch(Filter::all(), head);
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(0)));
    let address = server.at.clone();
    server.stop().await;
    let error =
        tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap_err();
    let said = error.to_string();
    for part in [&address, "cannot watch", "No such file", "is shoal-hostdb running there?"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert_eq!(watch.next().await, None, "an error is the end");
}

#[tokio::test]
async fn what_cannot_be_watched_is_told_at_once() {
    let server = Server::start(Arc::new(MemoryStore::new()), "127.0.0.1:0").await;
    let store = server.store();
    let head = store.head().await.unwrap();
    let many = vec![shoal_core::Range::All; 1001];
    let answer = store.watch(Filter::of(many), head).next().await.unwrap();
    assert!(
        matches!(&answer, Err(StoreError::Invalid(why)) if why.contains("at most 1000 ranges")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_server_that_has_fallen_silent_is_left() {
    let mute = answering("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: alive\n\n").await;
    let server = Server::start(Arc::new(MemoryStore::new()), "127.0.0.1:0").await;
    let options = Options { heartbeat: Duration::from_millis(100), ..quick() };
    let store = HttpStore::with(&format!("{mute},{}", server.at), options).unwrap();
    let start = server.store().head().await.unwrap();
    let mut watch = store.watch(Filter::all(), start);
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(0)), "from the other one");
}

#[tokio::test]
async fn a_server_that_is_full_is_asked_again() {
    let limits = shoal_hostdb::Limits { watchers: 1, ..limits() };
    let server = Server::with(Arc::new(MemoryStore::new()), "127.0.0.1:0", limits, false).await;
    let store = server.store();
    let head = store.head().await.unwrap();
    let mut first = store.watch(Filter::all(), head);
    assert_eq!(next(&mut first).await, Feed::Upto(Revision(0)));
    let mut second = store.watch(Filter::all(), head);
    let early = tokio::time::timeout(Duration::from_millis(100), second.next()).await;
    assert!(early.is_err(), "there is one seat: {early:?}");
    drop(first);
    assert_eq!(next(&mut second).await, Feed::Upto(Revision(0)));
}

#[tokio::test]
async fn a_server_that_repeats_itself_is_heard_once() {
    let said = answering(concat!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        "event: commit\nid: 1-1\ndata: {\"revision\":1,\"author\":\"a\",\"message\":\"m\",\"time\":\"2026-01-01T00:00:00Z\",\"changes\":[]}\n\n",
        "event: commit\nid: 1-1\ndata: {\"revision\":1,\"author\":\"a\",\"message\":\"m\",\"time\":\"2026-01-01T00:00:00Z\",\"changes\":[]}\n\n",
        "event: upto\nid: 1-1\ndata: {\"revision\":1}\n\n",
        "event: news\nid: 1-1\ndata: {}\n\n",
        "event: upto\nid: 1-1\ndata: {\"revision\":1}\n\n",
        "event: upto\nid: 1-2\ndata: {\"revision\":2}\n\n",
    ))
    .await;
    let store = HttpStore::with(&said, quick()).unwrap();
    let mut watch =
        store.watch(Filter::all(), shoal_store::Head { epoch: shoal_core::Epoch(1), revision: Revision(0) });
    assert!(matches!(next(&mut watch).await, Feed::Commit(entry) if entry.info.revision == Revision(1)));
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(1)));
    assert_eq!(next(&mut watch).await, Feed::Upto(Revision(2)));
}
