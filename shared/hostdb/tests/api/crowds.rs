//! Thousands of connections at once, plain and by TLS: what each costs the server's process, and what happens to one too many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use shoal_client::certificates::Authority;
use shoal_client::tls;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::apart::Apart;
use crate::faults::{client, get};
use crate::harness::PATIENCE;

/// Half a head: it is read, and waited for.
const HALF: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: ";

/// Lets this process have so many files open, and the servers that it starts; whether it may.
fn may_open(files: usize) -> bool {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < files as u64) {
        return false;
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    true
}

async fn begin(stream: &mut (impl AsyncWrite + Unpin)) {
    stream.write_all(HALF).await.unwrap();
    stream.flush().await.unwrap();
}

#[tokio::test]
async fn ten_thousand_connections_cost_little_and_one_more_is_told() {
    const MANY: usize = 10_000;
    /// Each has sent the head of a request, for which hyper has a buffer of 8 KiB; a build without optimisation needs the most.
    const EACH: u64 = 24 << 10;
    if !may_open(MANY + 500) {
        println!("SKIPPED: ten_thousand_connections…: this process may not open as many files");
        return;
    }
    let server = Apart::start(MANY + 1, None).await;
    assert_eq!(get(&server.url, "/healthz").await.0, 200);
    let before = server.resident();
    let mut open = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        begin(&mut stream).await;
        open.push(stream);
    }
    let count = async || {
        let text =
            client().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
        text.lines().find_map(|l| l.strip_prefix("shoal_http_connections ")?.parse::<usize>().ok())
    };
    // One place is left: a whole client still gets its answer. With it, all are counted.
    assert_eq!(count().await, Some(MANY + 1));
    let each = server.resident().saturating_sub(before) / MANY as u64;
    println!("{each} octets a connection");
    assert!(each < EACH, "{each} octets a connection");
    // With that place taken, the next one is told. It may take a moment to be given back by the one before.
    let (begun, mut last) = (Instant::now(), Vec::new());
    loop {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        begin(&mut stream).await;
        last.push(stream);
        let asked = client().get(format!("{}/healthz", server.url)).send().await.unwrap();
        if asked.status() == 503 {
            break;
        }
        assert!(begun.elapsed() < PATIENCE && last.len() < 100, "it takes more than it should");
    }
    drop((open, last));
    let begun = Instant::now();
    while count().await != Some(1) {
        assert!(begun.elapsed() < PATIENCE, "their places are given to others");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A handshake takes some milliseconds of either end in a build without optimisation, so there are fewer of them in every run;
/// `SHOAL_LONG` makes them ten thousand. What each costs is the same.
#[tokio::test]
async fn thousands_of_connections_by_tls_cost_little_and_one_more_is_told() {
    const EACH: u64 = 40 << 10;
    let long = std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty());
    let many = if long { 10_000 } else { 500 };
    if !may_open(many + 500) {
        println!("SKIPPED: thousands_of_connections_by_tls…: this process may not open as many files");
        return;
    }
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    authority.server(&["localhost"]).unwrap().write(dir.path(), "server").unwrap();
    let config = ClientConfig::builder_with_provider(tls::provider());
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(tls::authorities(&dir.path().join("ca.pem")).unwrap());
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    // One place for who asks.
    let server = Apart::start(many + 1, Some(dir.path())).await;
    let connect = async || -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    let ask = async |path: &str| {
        let mut stream = connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut said = String::new();
        // A connection that is cut without a goodbye has said what it had to say.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut said)).await.expect("it ends");
        said
    };
    let asked = ask("/healthz").await;
    assert!(asked.starts_with("HTTP/1.1 200 "), "{asked}");
    let before = server.resident();
    let mut open = Vec::with_capacity(many);
    for _ in 0..many {
        let mut stream = connect().await;
        begin(&mut stream).await;
        open.push(stream);
    }
    let count = async || {
        let said = ask("/metrics").await;
        said.lines().find_map(|l| l.strip_prefix("shoal_http_connections ")?.parse::<usize>().ok())
    };
    assert_eq!(count().await, Some(many + 1));
    let each = server.resident().saturating_sub(before) / many as u64;
    println!("{each} octets a connection by TLS, of {many}");
    assert!(each < EACH, "{each} octets a connection by TLS");
    let (begun, mut last) = (Instant::now(), Vec::new());
    loop {
        let mut stream = connect().await;
        begin(&mut stream).await;
        last.push(stream);
        if ask("/healthz").await.starts_with("HTTP/1.1 503 ") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE && last.len() < 100, "it takes more than it should");
    }
    drop((open, last));
    let begun = Instant::now();
    while count().await != Some(1) {
        assert!(begun.elapsed() < PATIENCE, "their places are given to others");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
