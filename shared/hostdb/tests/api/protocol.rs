//! HTTP itself: problems, bounds, health, metrics, stopping.

use std::sync::Arc;

use serde_json::json;
use shoal_hostdb::{Limits, Listen, Listener, Server};
use shoal_store::MemoryStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use crate::harness::{Events, Running, problem, refused};

async fn with(limits: Limits) -> Running {
    Running::on(Arc::new(MemoryStore::new()), limits, false).await
}

#[tokio::test]
async fn every_refusal_is_a_problem() {
    let server = Running::new().await;
    refused(server.ask("GET", "/nowhere"), 404, "not-found", &["/nowhere", "docs/api.md"]).await;
    let response = server.ask("DELETE", "/api/v2/status").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD");
    problem(response, 405, "method-not-allowed", &["DELETE", "Allow"]).await;
    refused(
        server.ask("GET", "/api/v2/status?x=1"),
        400,
        "bad-request",
        &["\"x\"", "known here: after, limit"],
    )
    .await;
    let head = "/api/v2/store/read";
    let typed = |kind, body: &'static str| server.ask("POST", head).header("content-type", kind).body(body);
    refused(typed("text/plain", "{}"), 415, "unsupported-media-type", &["application/json", "text/plain"])
        .await;
    refused(typed("application/json", "{\"range\": "), 400, "malformed", &["not JSON", "line 1"]).await;
    refused(typed("application/yaml", "a: [\n"), 400, "malformed", &["not YAML", "line"]).await;
    let bad = refused(
        typed("application/json", "{\"range\": \"all\", \"limit\": \"x\"}"),
        422,
        "invalid",
        &["limit"],
    )
    .await;
    assert_eq!(bad["field"], "limit");
    refused(typed("application/json", "{\"rage\": 1}"), 422, "invalid", &["unknown field `rage`"]).await;
    server.stop().await;
}

#[tokio::test]
async fn large_bodies_are_refused_announced_or_not() {
    let server = with(Limits { document: 1000, body: 2000, ..Limits::default() }).await;
    let text = format!("{{\"changes\": \"{}\"}}", "x".repeat(5000));
    let post = || server.ask("POST", "/api/v2/store/commit").header("content-type", "application/json");
    refused(post().body(text.clone()), 413, "too-large", &["2000", "split"]).await;
    let chunks = futures::stream::iter(text.into_bytes().chunks(100).map(<[u8]>::to_vec).collect::<Vec<_>>());
    let chunks = futures::StreamExt::map(chunks, Ok::<_, std::io::Error>);
    refused(post().body(reqwest::Body::wrap_stream(chunks)), 413, "too-large", &["2000"]).await;
    // No flag helps a document.
    let one = server.ask("PUT", "/api/v2/hosts/web1").json(&json!({"document": {"a": "x".repeat(1500)}}));
    let bad = refused(one, 413, "too-large", &["1000", "at most 1 MiB", "elsewhere"]).await;
    assert!(!bad["detail"].as_str().unwrap().contains("--max-body"), "{bad}");
    server.stop().await;
}

#[tokio::test]
async fn a_read_only_server_says_so() {
    let server = Running::on(Arc::new(MemoryStore::new()), Limits::default(), true).await;
    let body = json!({"changes": [], "author": "a", "message": "m"});
    refused(server.ask("POST", "/api/v2/store/commit").json(&body), 403, "read-only", &["--read-only"]).await;
    server.stop().await;
}

#[tokio::test]
async fn one_watch_too_many_is_told_to_come_back() {
    let server = with(Limits { watchers: 1, ..Limits::default() }).await;
    let mut first = Events::open(server.ask("GET", "/api/v2/watch")).await;
    first.next_named("upto").await;
    let second = server.ask("GET", "/api/v2/watch").send().await.unwrap();
    assert_eq!(second.headers()["retry-after"], "1");
    problem(second, 503, "busy", &["1 watches"]).await;
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_back() {
    let server = with(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = Events::open(server.ask("GET", "/api/v2/watch")).await;
    first.next_named("upto").await;
    let second = server.ask("GET", "/healthz").send().await.unwrap();
    assert_eq!(second.headers()["retry-after"], "1");
    problem(second, 503, "busy", &["connections"]).await;
    server.stop().await;
}

#[tokio::test]
async fn other_names_are_not_served() {
    let server = Running::new().await;
    let request = server.ask("GET", "/healthz").header("host", "evil.example");
    refused(request, 421, "misdirected", &["localhost"]).await;
    server.stop().await;
}

#[tokio::test]
async fn health_and_metrics() {
    let server = Running::new().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.ask("GET", path).send().await.unwrap().status(), 200);
    }
    server.get("/api/v2/status").await;
    let text = server.ask("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let line = "shoal_http_requests_total{method=\"GET\",route=\"/api/v2/status\",status=\"200\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("shoal_http_connections 1"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostdb.sock");
    let listener = Listener::bind(&Listen::Unix(path.clone())).await.unwrap();
    let stop = CancellationToken::new();
    let store = Arc::new(MemoryStore::new());
    let server = Server::start(store, Limits::default(), false, stop.clone()).await.unwrap();
    let task = tokio::spawn(server.serve(vec![listener]));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: \r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stop.cancel();
    task.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_slow_head_is_cut() {
    let server =
        with(Limits { header_timeout: std::time::Duration::from_millis(100), ..Limits::default() }).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").await.unwrap();
    let mut rest = Vec::new();
    // Ends only because the server closes.
    stream.read_to_end(&mut rest).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_silent_watch_says_that_it_lives() {
    let server = with(Limits { heartbeat: std::time::Duration::from_millis(20), ..Limits::default() }).await;
    let mut watch = server.ask("GET", "/api/v2/watch?prefix=dns/").send().await.unwrap();
    let mut text = String::new();
    while !text.contains(": alive") {
        text.push_str(std::str::from_utf8(&watch.chunk().await.unwrap().unwrap()).unwrap());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_write_too_many_is_told_to_come_back() {
    let server = with(Limits { writes: 0, ..Limits::default() }).await;
    let answer = server.write("PUT", "/api/v2/hosts/web1", &json!({})).send().await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    problem(answer, 503, "busy", &["nothing was written", "0 writes"]).await;
    server.get("/api/v2/hosts").await;
    server.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let limits = Limits { request_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let server = with(limits).await;
    let never = reqwest::Body::wrap_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let slow = server.ask("POST", "/api/v2/commits").header("content-type", "application/json").body(never);
    refused(slow, 503, "timeout", &["Idempotency-Key"]).await;
    server.stop().await;
}

/// It asks for much and reads nothing: its connection is given to others.
#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let limits =
        Limits { connections: 1, write_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let server = with(limits).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut greedy = tokio::net::TcpStream::connect(&address).await.unwrap();
    // More answers than any socket buffer holds.
    let asking = async {
        let many = "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
        while greedy.write_all(many.as_bytes()).await.is_ok() {}
    };
    tokio::time::timeout(crate::harness::SOONER, asking).await.expect("it is cut");
    let others = async {
        // Who is one too many may be cut before it has read that it is.
        while !server.ask("GET", "/healthz").send().await.is_ok_and(|answer| answer.status() == 200) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::harness::PATIENCE, others).await.expect("others come in");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_not_read_is_cut() {
    let limits =
        Limits { watchers: 1, write_timeout: std::time::Duration::from_millis(100), ..Limits::default() };
    let store = Arc::new(MemoryStore::new());
    let server = Running::on(store.clone(), limits, false).await;
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    let mut deaf = tokio::net::TcpStream::connect(&address).await.unwrap();
    deaf.write_all(b"GET /api/v2/watch HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    // It has its seat, and from now on does not listen.
    let mut head = [0; 12];
    deaf.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let news = async {
        for n in 0.. {
            let row = crate::reads::change("facts/vm/web1", json!({"n": n, "text": "x".repeat(900_000)}));
            crate::reads::commit(&*store, vec![row]).await;
            let another = server.ask("GET", "/api/v2/watch").send().await.unwrap();
            if another.status() == 200 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(crate::harness::SOONER, news).await.expect("its seat is given to others");
    drop(deaf);
    server.stop().await;
}
