//! Many watchers of one server, each with one host: whom a commit wakes there, and how they come back to a server that was restarted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use shoal_core::{Change, Commit, Document, Key, Range};
use shoal_hostdb::Limits;
use shoal_store::conformance::Counted;
use shoal_store::{Feed, Filter, Flow, Position, Result, Store};
use shoal_store_sqlite::SqliteStore;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use crate::harness::{Server, limits};

const WATCHERS: usize = 300;

/// How often a watch was woken, and whether it sleeps.
type Watch = (Arc<AtomicUsize>, Arc<AtomicBool>);

/// A store that counts how often each of its watches is woken.
#[derive(Clone)]
struct Counting(SqliteStore, Arc<Mutex<Vec<Watch>>>);

impl Counting {
    /// How many of its watches were woken since this was asked last.
    fn woken(&self) -> usize {
        self.1.lock().unwrap().iter().filter(|(count, _)| count.swap(0, Ordering::SeqCst) > 0).count()
    }

    /// Whether all of its watches have told what there was.
    fn asleep(&self) -> bool {
        self.1.lock().unwrap().iter().all(|(_, asleep)| asleep.load(Ordering::SeqCst))
    }
}

impl Store for Counting {
    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let (watch, count) = Counted::new(self.0.watch(filter, after));
        self.1.lock().unwrap().push((count, watch.asleep()));
        Box::pin(watch)
    }

    shoal_store::forward!(0: head, read, commit, log, claim, release, claims, ledger, write_ledger, report, reports);
}

fn host(n: usize) -> Key {
    Key::host(&format!("h{n}.example.com").parse().unwrap())
}

fn write(hosts: impl IntoIterator<Item = usize>, serial: u64) -> Commit {
    let document = Document::trusted(&format!("{{\"id\":\"i\",\"document\":{{\"n\":{serial}}}}}"));
    Commit::new("ann", "because", hosts.into_iter().map(|n| Change::put(host(n), document.clone())).collect())
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
    heard
}

async fn next(heard: &mut Heard) -> (usize, Feed) {
    let message = tokio::time::timeout(Duration::from_secs(60), heard.recv()).await;
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
    // Those who were just told may still be on their way back to sleep.
    let (begun, mut before) = (Instant::now(), store.woken());
    loop {
        let asleep = store.asleep();
        match store.woken() {
            0 if asleep => break,
            woken => before += woken,
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "they never sleep");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(before > WATCHERS);
    sqlite.commit(write([3, 5, WATCHERS + 1], 1)).await.unwrap();
    let mut who = [next(&mut heard).await.0, next(&mut heard).await.0];
    who.sort_unstable();
    assert_eq!(who, [3, 5]);
    // The server's own view of everything is one more, and has its turn when it has.
    let (begun, mut woken) = (Instant::now(), store.woken());
    while woken < 3 && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        woken += store.woken();
    }
    assert_eq!(woken, 3, "of {WATCHERS}");
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
    let listener = UnixListener::bind(dir.path().join("s")).unwrap();
    let mut waited = 0;
    let (came, busiest) = loop {
        let (came, stalled) = knocks(&listener, Duration::from_millis(1500)).await;
        let busiest = (0..came.len()).map(|n| {
            came[n..].iter().take_while(|when| **when - came[n] < Duration::from_millis(100)).count()
        });
        let busiest = busiest.max().unwrap_or_default();
        // While the machine stalls, those who come one after the other wait at the door, and come in together: that says nothing.
        waited += 1;
        if !stalled || waited == 4 {
            break (came.len(), busiest);
        }
    };
    drop(listener);
    assert!(came > WATCHERS && busiest < WATCHERS / 2, "{busiest} of {came} within 100 ms");
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

/// When somebody connected to this socket, for so long, and whether the machine stalled meanwhile. Nobody is answered.
async fn knocks(listener: &UnixListener, long: Duration) -> (Vec<Instant>, bool) {
    let (tick, mut came, mut stalled) = (Duration::from_millis(10), Vec::new(), false);
    let (begun, mut last) = (Instant::now(), Instant::now());
    while begun.elapsed() < long {
        if let Ok(connection) = tokio::time::timeout(tick, listener.accept()).await {
            connection.unwrap();
            came.push(Instant::now());
        }
        stalled |= last.elapsed() > 5 * tick;
        last = Instant::now();
    }
    (came, stalled)
}
