//! Many watchers of one server, each with one host: whom a commit wakes there, and how they come back to a server that was restarted.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use shoal_core::{Change, Commit, Committed, Document, Key, LogEntry, Range, Revision, Status};
use shoal_hostdb::Limits;
use shoal_store::conformance::Counted;
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, LedgerPage, LedgerWrite, Page, Position,
    Query, Result, Store,
};
use shoal_store_sqlite::SqliteStore;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use crate::harness::{Server, limits};

const WATCHERS: usize = 300;

/// A store that counts how often each of its watches is woken.
#[derive(Clone)]
struct Counting(SqliteStore, Arc<Mutex<Vec<Arc<AtomicUsize>>>>);

impl Counting {
    /// How many of its watches were woken since this was asked last.
    fn woken(&self) -> usize {
        self.1.lock().unwrap().iter().filter(|count| count.swap(0, Ordering::SeqCst) > 0).count()
    }
}

impl Store for Counting {
    fn head(&self) -> Fut<'_, Result<Head>> {
        self.0.head()
    }
    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        self.0.read(query)
    }
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        self.0.commit(commit)
    }
    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        self.0.log(range, before, limit)
    }
    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let (watch, count) = Counted::new(self.0.watch(filter, after));
        self.1.lock().unwrap().push(count);
        Box::pin(watch)
    }
    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        self.0.claim(want)
    }
    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        self.0.release(claim)
    }
    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        self.0.claims(prefix)
    }
    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        self.0.ledger(prefix, after, limit)
    }
    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        self.0.write_ledger(rows, held)
    }
    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        self.0.report(status)
    }
    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        self.0.reports()
    }
}

fn host(n: usize) -> Key {
    Key::host(&format!("h{n}.example.com").parse().unwrap())
}

fn write(hosts: impl IntoIterator<Item = usize>, serial: u64) -> Commit {
    let document = Document::trusted(&format!("{{\"id\":\"i\",\"document\":{{\"n\":{serial}}}}}"));
    Commit {
        pre: Vec::new(),
        changes: hosts.into_iter().map(|n| Change::put(host(n), document.clone())).collect(),
        author: "ann".into(),
        principal: None,
        origin: None,
        message: "because".into(),
        idempotency: None,
        intent: None,
    }
}

/// What the watchers hear.
type Heard = UnboundedReceiver<(usize, Result<Feed>)>;

async fn watchers(server: &Server, progress: Duration) -> Heard {
    let (store, (tell, mut heard)) = (server.store(), unbounded_channel());
    let head = store.head().await.unwrap();
    for n in 0..WATCHERS {
        let filter = Filter { ranges: vec![Range::Key(host(n))], progress };
        let (mut watch, tell) = (store.watch(filter, head), tell.clone());
        tokio::spawn(async move {
            while let Some(heard) = watch.next().await {
                let _ = tell.send((n, heard));
            }
        });
    }
    for _ in 0..WATCHERS {
        assert!(matches!(next(&mut heard).await.1, Feed::Upto(_)));
    }
    // Those who were just told may still be on their way back to sleep.
    tokio::time::sleep(Duration::from_millis(200)).await;
    heard
}

async fn next(heard: &mut Heard) -> (usize, Feed) {
    let message = tokio::time::timeout(Duration::from_secs(30), heard.recv()).await;
    let (n, feed) = message.expect("a message in time").expect("the watches go on");
    (n, feed.unwrap_or_else(|error| panic!("the watch of {n} ended: {error}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_wakes_those_concerned() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = SqliteStore::open(dir.path().join("shoal.db")).await.unwrap();
    let store = Counting(sqlite.clone(), Arc::default());
    let server = Server::start(Arc::new(store.clone()), &format!("unix:{}/s", dir.path().display())).await;
    let mut heard = watchers(&server, Duration::from_secs(3600)).await;
    assert!(store.woken() > WATCHERS);
    sqlite.commit(write([3, 5, WATCHERS + 1], 1)).await.unwrap();
    let mut who = [next(&mut heard).await.0, next(&mut heard).await.0];
    who.sort_unstable();
    assert_eq!(who, [3, 5]);
    // The server's own view of everything is one more.
    assert_eq!(store.woken(), 3, "of {WATCHERS}");
    assert!(heard.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_come_back_to_a_restarted_server_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let at = format!("unix:{}/s", dir.path().display());
    let bounds = || Limits { watchers: 2 * WATCHERS, ..limits() };
    let open = async || Arc::new(SqliteStore::open(&path).await.unwrap());
    let server = Server::with(open().await, &at, bounds(), false).await;
    let mut heard = watchers(&server, Duration::from_millis(100)).await;
    server.stop().await;
    // What answers at first takes nobody: so much happens at once at the most.
    let came = knocks(&dir.path().join("s"), Duration::from_millis(1500)).await;
    let busiest = (0..came.len())
        .map(|n| came[n..].iter().take_while(|when| **when - came[n] < Duration::from_millis(100)).count());
    let busiest = busiest.max().unwrap();
    assert!(came.len() > WATCHERS && busiest < WATCHERS / 2, "{busiest} of {} within 100 ms", came.len());
    let store = open().await;
    for serial in 0..600 {
        store.commit(write([serial as usize % 2], serial)).await.unwrap();
    }
    let all = store.commit(write(0..WATCHERS, 1000)).await.unwrap().revision;
    let _server = Server::with(store, &at, bounds(), false).await;
    let (mut back, mut commits) = (0, vec![0; WATCHERS]);
    while back < WATCHERS {
        match next(&mut heard).await {
            (n, Feed::Commit(entry)) => {
                assert_eq!((entry.changes.len(), &entry.changes[0].key), (1, &host(n)));
                commits[n] += 1;
                back += usize::from(entry.info.revision == all);
            }
            (n, Feed::Upto(revision)) => assert!(revision < all || commits[n] > 0, "{n} missed it"),
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!((commits[0], commits[1]), (301, 301));
    assert!(commits[2..].iter().all(|count| *count == 1));
}

/// When somebody connected to this socket, for so long. Nobody is answered.
async fn knocks(socket: &Path, long: Duration) -> Vec<Instant> {
    let (listener, mut came) = (UnixListener::bind(socket).unwrap(), Vec::new());
    let end = Instant::now() + long;
    while let Ok(connection) = tokio::time::timeout_at(end, listener.accept()).await {
        connection.unwrap();
        came.push(Instant::now());
    }
    came
}
