//! TLS: who stalls in a handshake, who speaks none, and what a process shows of its certificate.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shoal_client::certificates::Authority;
use shoal_client::{Access, HttpStore, Options};
use shoal_hostdb::{Limits, Listener, Server, Tls, TlsFiles};
use shoal_store::{MemoryStore, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::PATIENCE;
use crate::process::{Program, command};

struct Secure {
    dir: tempfile::TempDir,
    ca: PathBuf,
    address: std::net::SocketAddr,
    _stop: DropGuard,
}

impl Secure {
    async fn new(limits: Limits) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let (cert, key) = authority.server(&["localhost"]).unwrap().write(dir.path(), "server").unwrap();
        let tls = Tls::load(TlsFiles { cert, key, client_ca: None, demand: false }).unwrap();
        let listener = Listener::with(&"https://127.0.0.1:0".parse().unwrap(), Some(&tls)).await.unwrap();
        let address = listener.at().to_string().strip_prefix("https://").unwrap().parse().unwrap();
        let stop = CancellationToken::new();
        let store = Arc::new(MemoryStore::new());
        let server = Server::start(store, limits, false, stop.clone()).await.unwrap();
        tokio::spawn(server.serve(vec![listener]));
        Self { dir, ca, address, _stop: stop.drop_guard() }
    }

    fn store(&self) -> HttpStore {
        let access = Access { ca: Some(self.ca.clone()), ..Access::default() };
        let url = format!("https://localhost:{}", self.address.port());
        HttpStore::with(&url, Options { access, ..Options::default() }).unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// What is said until the other end closes.
async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A connection that was cut may end with an error; that it ends is what matters.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it is closed");
    said
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let server = Secure::new(Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() }).await;
    let silent = server.connect().await;
    assert!(rest(silent).await.is_empty());
    let mut half = server.connect().await;
    // A record of a handshake that promises more than comes.
    half.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 252]).await.unwrap();
    rest(half).await;
    server.store().head().await.unwrap();
}

#[tokio::test]
async fn those_who_stall_make_room_for_those_who_mean_it() {
    let limits = Limits { handshakes: 2, handshake_timeout: Duration::from_secs(600), ..Limits::default() };
    let server = Secure::new(limits).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(server.connect().await);
    }
    tokio::time::timeout(PATIENCE, server.store().head()).await.expect("it comes in").unwrap();
    // The oldest were cut; at most two are still waited for.
    silent.truncate(18);
    for stream in silent {
        assert!(rest(stream).await.is_empty());
    }
}

#[tokio::test]
async fn who_speaks_plain_http_is_told() {
    let server = Secure::new(Limits::default()).await;
    let mut plain = server.connect().await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let said = String::from_utf8(rest(plain).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{said}");
    let wrong = HttpStore::new(&format!("http://{}", server.address)).unwrap();
    let said = wrong.head().await.unwrap_err().to_string();
    assert!(said.contains("https://"), "{said}");
}

#[tokio::test]
async fn one_too_many_is_told_by_tls_too() {
    let server = Secure::new(Limits { connections: 1, ..Limits::default() }).await;
    let first = server.store();
    first.head().await.unwrap();
    // Its connection is kept, so another one is one too many.
    let impatient = Options {
        access: Access { ca: Some(server.ca.clone()), ..Access::default() },
        patience: Duration::ZERO,
        ..Options::default()
    };
    let second = HttpStore::with(&format!("https://localhost:{}", server.address.port()), impatient).unwrap();
    let said = second.head().await.unwrap_err().to_string();
    assert!(said.contains("too many connections"), "{said}");
    drop(first);
    assert!(server.dir.path().exists());
}

/// SIGHUP ends a program that does not listen for it.
#[tokio::test]
async fn a_process_looks_at_its_files_when_it_is_told_to() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let (cert, key) = authority.server(&["127.0.0.1"]).unwrap().write(dir.path(), "server").unwrap();
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let listen = ["--listen", "https://127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    let mut server = Program::of(command("memory:", &listen)).await;
    let pid = server.child.id().unwrap().to_string();
    tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await.unwrap();
    // It is told, and half of a renewal is not used.
    std::fs::write(&key, "").unwrap();
    tokio::process::Command::new("kill").args(["-HUP", &pid]).status().await.unwrap();
    let told = async { while !server.line().await.contains("the one before it stays") {} };
    tokio::time::timeout(PATIENCE, told).await.expect("it is logged");
    let access = Access { ca: Some(ca), ..Access::default() };
    let store = HttpStore::with(&server.url, Options { access, ..Options::default() }).unwrap();
    store.head().await.unwrap();
    assert!(server.child.try_wait().unwrap().is_none());
}
