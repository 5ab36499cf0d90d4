//! What large answers and long lists of ranges may cost a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use shoal_core::{Change, Commit, Document, Range};
use shoal_hostdb::{Limits, history};
use shoal_store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, Running, SOONER, refused};

async fn store(rows: Vec<Change>) -> Arc<dyn Store> {
    let store = MemoryStore::new();
    store.commit(Commit::new("x", "x", rows)).await.unwrap();
    Arc::new(store)
}

fn host(n: usize, octets: usize) -> Change {
    let document = json!({"id": n.to_string(), "document": {"x": "x".repeat(octets)}});
    Change::put(format!("hosts/h{n:05}.example.com").parse().unwrap(), Document::from(document))
}

/// Who asks for much and does not read it keeps no more of the memory than there is for all such answers together.
#[tokio::test]
async fn large_answers_that_nobody_reads_are_bounded_together() {
    let store = store((0..24).map(|n| host(n, 900 << 10)).collect()).await;
    let server = Running::on(store, Limits { answers: 20 << 20, ..Limits::default() }, false).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let slow = async |path: &str| {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket
    };
    for path in ["/api/v2/hosts?limit=1000", "/api/v2/inventory"] {
        let held = slow(path).await;
        let begun = Instant::now();
        // It is begun in a moment; what is asked for meanwhile may be what comes first.
        while server.ask("GET", path).send().await.unwrap().status() != 503 {
            assert!(begun.elapsed() < PATIENCE, "{path}: it is refused");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        refused(server.ask("GET", path), 503, "busy", &["large answers"]).await;
        // What is small is answered.
        assert_eq!(server.ask("GET", "/api/v2/hosts?limit=1").send().await.unwrap().status(), 200);
        drop(held);
        let begun = Instant::now();
        loop {
            let answer = server.ask("GET", path).send().await.unwrap();
            if answer.status() == 200 {
                let length = answer.content_length();
                let text = answer.bytes().await.unwrap();
                assert!(text.len() > 10 << 20 && length == Some(text.len() as u64), "{length:?}");
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{path}: the place is given back");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    server.stop().await;
}

/// A little now and then keeps a connection, and not the room.
#[tokio::test]
async fn a_large_answer_that_is_read_too_slowly_is_cut() {
    let store = store((0..24).map(|n| host(n, 900 << 10)).collect()).await;
    let slow_reading = Duration::from_secs(2);
    let limits = Limits { answers: 20 << 20, pace: 64 << 20, slow_reading, ..Limits::default() };
    let server = Running::on(store, limits, false).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(256 << 10).unwrap();
    let mut slow = socket.connect(server.url["http://".len()..].parse().unwrap()).await.unwrap();
    let path = "/api/v2/inventory";
    let begun = Instant::now();
    slow.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 12];
    slow.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let (mut read, mut some) = (0, [0_u8; 16 << 10]);
    // Its time is counted from the answer's head on: before that is up, the room is taken.
    let status = server.ask("GET", path).send().await.unwrap().status();
    assert!(status == 503 || begun.elapsed() > slow_reading, "{status}: it has the room until then");
    while server.ask("GET", path).send().await.unwrap().status() != 200 {
        read += slow.read(&mut some).await.unwrap_or(0);
        assert!(begun.elapsed() < SOONER, "the room is given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut rest, mut left) = (0, vec![0_u8; 64 << 10]);
    while let Ok(octets @ 1..) = slow.read(&mut left).await {
        rest += octets;
    }
    assert!(read + rest < 10 << 20, "it ended before it was whole: {read} {rest}");
    server.stop().await;
}

/// A difference, too, is cut where its rows are large; the pages together are all of it.
#[tokio::test]
async fn a_difference_of_large_rows_comes_in_pages() {
    let server =
        Running::on(store((0..24).map(|n| host(n, 900 << 10)).collect()).await, Limits::default(), false)
            .await;
    let (mut keys, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let answer = server.ask("GET", &format!("/api/v2/diff?from=0&to=1&limit=1000{after}"));
        let text = answer.send().await.unwrap().text().await.unwrap();
        assert!(text.len() < 17 << 20, "{}", text.len());
        let page: serde_json::Value = serde_json::from_str(&text).unwrap();
        keys.extend(page["items"].as_array().unwrap().iter().map(|item| item["key"].to_string()));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert!(pages == 2 && keys.len() == 24 && keys.is_sorted(), "{pages} {keys:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_history_of_many_ranges_is_refused() {
    let server = Running::on(store(vec![host(1, 1)]).await, Limits::default(), false).await;
    let many: String = (0..17).map(|n| format!("&prefix=p{n}/")).collect();
    let same = "&prefix=".repeat(40);
    for path in ["/api/v2/commits?limit=1", "/api/v2/diff?from=0"] {
        refused(server.ask("GET", &format!("{path}{many}")), 400, "bad-request", &["at most 16"]).await;
        // One that is named again is no other.
        assert_eq!(server.ask("GET", &format!("{path}{same}")).send().await.unwrap().status(), 200);
    }
    server.stop().await;
}

/// A commit that is read by two ranges is put together in one go: it costs some reading more, and not each row for each other.
#[tokio::test]
async fn a_large_commit_is_read_by_several_ranges_at_their_price() {
    const ROWS: usize = 40_000;
    let store = store((0..ROWS).map(|n| host(n, 1)).collect()).await;
    let time = async |ranges: &[Range]| {
        let begun = Instant::now();
        let (entries, next) = history::log(&*store, ranges, None, 5).await.unwrap();
        assert_eq!((entries.len(), next), (1, None));
        assert_eq!(entries[0].changes.len(), ROWS);
        assert!(entries[0].changes.is_sorted_by(|a, b| a.key < b.key));
        begun.elapsed()
    };
    time(&[Range::All]).await;
    let one = time(&[Range::All]).await;
    // What costs each row for each other does so every time; a machine that stalls does not.
    let (most, mut two) = (one * 20 + Duration::from_secs(1), Duration::MAX);
    for _ in 0..4 {
        two = time(&[Range::All, Range::hosts(), Range::All]).await.min(two);
        if two < most {
            break;
        }
    }
    assert!(two < most, "{one:?} {two:?}");
}
