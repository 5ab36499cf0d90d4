//! Servers that are not there, do not answer, are something else, or only read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_client::{HttpStore, Options};
use shoal_core::{Change, Document, Range};
use shoal_hostdb::Limits;
use shoal_store::{MemoryStore, Query, Store, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Server, answering, fact, limits, quick};

fn says(error: &StoreError, parts: &[&str]) {
    let said = error.to_string();
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
}

/// Ports that are nobody's on any machine that runs tests.
const NOWHERE: [&str; 2] = ["http://127.0.0.1:1", "http://127.0.0.2:1"];

#[tokio::test]
async fn nobody_there_is_said_at_once_and_in_full() {
    let [first, second] = NOWHERE;
    let start = Instant::now();
    let store = HttpStore::with(first, quick()).unwrap();
    let error = store.read(&Query::new(Range::All)).await.unwrap_err();
    says(&error, &[first, "cannot read rows", "Connection refused", "is shoal-hostdb running there?"]);
    let store = HttpStore::with(&format!("{first},{second}"), quick()).unwrap();
    says(&store.head().await.unwrap_err(), &[first, second, "any of 2 servers", "newest revision"]);
    let store = HttpStore::with("unix:/nonexistent/hostdb.sock", quick()).unwrap();
    let error = store.commit(fact(1, None)).await.unwrap_err();
    says(&error, &["unix:/nonexistent/hostdb.sock", "cannot commit", "No such file or directory"]);
    assert!(start.elapsed() < quick().patience, "who was never there is not waited for");
}

#[tokio::test]
async fn silence_ends() {
    let short = Duration::from_millis(100);
    let options = || Options { answer: short, silence: short, patience: short, ..quick() };
    let mute = answering("").await;
    let store = HttpStore::with(&mute, options()).unwrap();
    says(&store.head().await.unwrap_err(), &[&mute, "no answer within 100ms"]);
    // Only what is looked at is short: what comes before it may be late.
    let half = answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await;
    let store = HttpStore::with(&half, Options { answer: quick().answer, ..options() }).unwrap();
    says(&store.head().await.unwrap_err(), &[&half, "stopped for 100ms"]);
    let long =
        answering("HTTP/1.1 200 OK\r\ncontent-length: 2000000000\r\n\r\n{\"epoch\": 1, \"revision\": 12345}")
            .await;
    let store = HttpStore::with(&long, Options { largest: 10, patience: short, ..quick() }).unwrap();
    says(&store.head().await.unwrap_err(), &[&long, "more than 10 octets"]);
}

/// A server that hangs: connections are made, by the system, and nothing is ever said.
#[tokio::test]
async fn a_server_that_hangs_is_passed_over() {
    // Both are judged by it, and the other one may stall.
    let options = || Options { hung: Duration::from_secs(1), ..quick() };
    let behind = Arc::new(MemoryStore::new());
    let (mute, server) = (answering("").await, Server::start(behind, "127.0.0.1:0").await);
    let start = Instant::now();
    let store = HttpStore::with(&format!("{mute},{}", server.at), options()).unwrap();
    assert_eq!(store.commit(fact(1, Some("k"))).await.unwrap().revision.0, 1);
    let alone = HttpStore::with(&mute, Options { patience: Duration::ZERO, ..options() }).unwrap();
    says(&alone.head().await.unwrap_err(), &[&mute, "no answer, to nothing"]);
    assert!(start.elapsed() < Duration::from_secs(20), "the bound of an answer is 75 s");
}

/// What takes long is waited for, as long as the server answers anything: here until it was asked twice whether it lives.
#[tokio::test]
async fn a_server_that_is_slow_is_not_passed_over() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let (probed, probes) = tokio::sync::watch::channel(0);
    let probed = Arc::new(probed);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (count, probed, mut probes) = (count.clone(), probed.clone(), probes.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let read = client.read(&mut buffer).await.unwrap();
                let answer = if buffer[..read].starts_with(b"GET /api/v2/store/head") {
                    probed.send_modify(|probes| *probes += 1);
                    r#"{"epoch":1,"revision":1}"#
                } else {
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    probes.wait_for(|probes| *probes >= 2).await.unwrap();
                    r#"{"revision":1,"changed":1,"replayed":false}"#
                };
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                );
                client.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
            });
        }
    });
    // As by itself: a machine that stalls for less is no server that hangs.
    let store = HttpStore::with(&at, Options { hung: Duration::from_secs(3), ..quick() }).unwrap();
    assert_eq!(store.commit(fact(1, Some("k"))).await.unwrap().revision.0, 1);
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1, "it was asked once");
}

#[tokio::test]
async fn something_else_is_told_from_a_server() {
    let other = answering("HTTP/1.1 404 Not Found\r\ncontent-length: 11\r\n\r\nno such url").await;
    let error = HttpStore::with(&other, quick()).unwrap().head().await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, StoreError::Invalid(_)), "{said}");
    assert!(
        said.contains(&other) && said.contains("no server of Shoal") && said.contains("no such url"),
        "{said}"
    );
    let odd = answering("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine").await;
    says(&HttpStore::with(&odd, quick()).unwrap().head().await.unwrap_err(), &["of one version?"]);
}

#[tokio::test]
async fn a_server_that_only_reads_leaves_writing_to_another() {
    let behind = Arc::new(MemoryStore::new());
    let reads = Server::with(behind.clone(), "127.0.0.1:0", limits(), true).await;
    let writes = Server::start(behind, "127.0.0.1:0").await;
    let store = HttpStore::with(&reads.at, quick()).unwrap();
    assert_eq!(store.head().await.unwrap().revision.0, 0);
    let error = store.commit(fact(1, None)).await.unwrap_err();
    assert_eq!(error, StoreError::ReadOnly(format!("the server {}", reads.at)));
    let store = HttpStore::with(&format!("{},{}", reads.at, writes.at), quick()).unwrap();
    assert_eq!(store.commit(fact(1, None)).await.unwrap().revision.0, 1);
}

#[tokio::test]
async fn refusals_come_through_whole() {
    let server = Server::with(
        Arc::new(MemoryStore::new()),
        "127.0.0.1:0",
        Limits { body: 1000, document: 500, ..limits() },
        false,
    )
    .await;
    let store = server.store();
    let mut nonsense = fact(1, None);
    nonsense.changes = vec![Change::put("hosts/web1".parse().unwrap(), Document::trusted("{\"a\":1}"))];
    let mut large = fact(1, None);
    large.message = "x".repeat(2000);
    for (commit, part) in [(nonsense, "unknown field `a`"), (large, "--max-body")] {
        let error = store.commit(commit).await.unwrap_err();
        assert!(matches!(&error, StoreError::Invalid(why) if why.contains(part)), "{error}");
    }
}

#[tokio::test]
async fn connections_are_kept() {
    let server = Server::start(Arc::new(MemoryStore::new()), "127.0.0.1:0").await;
    let (store, client) = (server.store(), reqwest::Client::new());
    let mut counts: Vec<u32> = Vec::new();
    // Where one is not given back yet when the next is asked for, there is one more from then on: that ends.
    loop {
        for _ in 0..20 {
            futures::future::join_all((0..4).map(|_| store.head())).await;
        }
        let answer = client.get(format!("{}/metrics", server.at)).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let open = text.lines().find_map(|l| l.strip_prefix("shoal_http_connections ")).unwrap();
        counts.push(open.parse().unwrap());
        if let [.., before, after] = counts[..]
            && after <= before
        {
            break;
        }
        assert!(counts.len() < 10, "{counts:?} connections for four at a time, and this question");
    }
    assert!(counts.iter().all(|open| *open <= 20), "{counts:?} connections for four at a time");
}

/// Servers are stores to one another: one that is reached by a socket may hand on what another one has.
#[tokio::test]
async fn a_server_may_stand_before_another() {
    let behind = Arc::new(MemoryStore::new());
    let inner = Server::start(behind.clone(), "127.0.0.1:0").await;
    let outer = Server::start(Arc::new(inner.store()), "127.0.0.1:0").await;
    let store = outer.store();
    let done = store.commit(fact(1, Some("k"))).await.unwrap();
    assert!(store.commit(fact(1, Some("k"))).await.unwrap().replayed);
    assert_eq!(behind.head().await.unwrap(), store.head().await.unwrap());
    let stale = shoal_core::Pre::Absent("facts/vm/web1".parse().unwrap());
    let mut late = fact(2, None);
    late.pre = vec![stale.clone()];
    let conflict = StoreError::Conflict { pre: stale, actual: Some(done.revision) };
    assert_eq!(store.commit(late).await, Err(conflict), "an error is the same through two servers");
}

/// A request that is handed to its connection while that one ends is lost inside of hyper, once in some thousands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_to_a_connection_that_ends() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // Whoever connects is let go of soon, each a little later than the one before.
    std::thread::spawn(move || {
        for n in 0.. {
            let accepted = listener.accept();
            let until = Instant::now() + Duration::from_micros(n % 60);
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            if accepted.is_err() {
                return;
            }
        }
    });
    // A request that hangs is given up by nothing else.
    let patient = Options { patience: Duration::ZERO, hung: Duration::from_secs(60), ..quick() };
    let store = HttpStore::with(&format!("unix:{}", socket.display()), patient).unwrap();
    // For a while, and often enough where that is not often.
    let end = Instant::now() + Duration::from_secs(4);
    let asking = (0..3).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut asked = 0;
            while Instant::now() < end || asked < 350 {
                let answer = tokio::time::timeout(Duration::from_secs(30), store.head()).await;
                answer.expect("an answer, if only that there is none").unwrap_err();
                asked += 1;
            }
        })
    });
    futures::future::try_join_all(asking).await.unwrap();
}
