//! Who is believed, and who is let in: certificates, both ways, and tokens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use shoal_client::certificates::{Authority, Pair, Wish};
use shoal_client::{Access, HttpStore, Options};
use shoal_core::Range;
use shoal_hostdb::{Listen, Listener, Server, Tls, TlsFiles};
use shoal_store::{Feed, Filter, MemoryStore, Store, StoreError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::{fact, limits, quick};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Secure {
    dir: tempfile::TempDir,
    authority: Authority,
    ca: PathBuf,
    port: u16,
    _stop: DropGuard,
}

impl Secure {
    async fn new(pair: impl FnOnce(&Authority) -> Pair, demand: bool) -> Self {
        let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let (cert, key) = pair(&authority).write(dir.path(), "server").unwrap();
        let tls = Tls::load(TlsFiles { cert, key, client_ca: Some(ca.clone()), demand }).unwrap();
        let listener = Listener::with(&"https://127.0.0.1:0".parse().unwrap(), Some(&tls)).await.unwrap();
        let Listen::Tls(address) = *listener.at() else { panic!() };
        let stop = CancellationToken::new();
        let made = Server::start(Arc::new(MemoryStore::new()), limits(), false, stop.clone());
        tokio::spawn(made.await.unwrap().serve(vec![listener]));
        tokio::spawn(tls.follow(stop.clone()));
        Self { dir, authority, ca, port: address.port(), _stop: stop.drop_guard() }
    }

    fn access(&self) -> Access {
        Access { ca: Some(self.ca.clone()), ..Access::default() }
    }

    fn store(&self, access: Access) -> HttpStore {
        let url = format!("https://localhost:{}", self.port);
        HttpStore::with(&url, Options { access, ..quick() }).unwrap()
    }

    fn showing(&self, pair: &Pair) -> Access {
        let (cert, key) = pair.write(self.dir.path(), "client").unwrap();
        Access { cert: Some(cert), key: Some(key), ..self.access() }
    }
}

/// What is said where one end is not believed: at once, and not as if nobody were there.
async fn denied(store: &HttpStore, says: &[&str]) {
    let begun = Instant::now();
    // Without a key it could not be sent again, were it not known that nothing was done.
    let error = store.commit(fact(1, None)).await.unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(says.iter().all(|part| said.contains(part)) && said.contains("cannot commit"), "{said}");
    assert!(begun.elapsed() < quick().patience, "it is not waited for: {said}");
}

fn local(authority: &Authority) -> Pair {
    authority.server(&["localhost"]).unwrap()
}

#[tokio::test]
async fn a_server_is_believed_if_its_authority_says_so() {
    let server = Secure::new(local, false).await;
    server.store(server.access()).commit(fact(1, None)).await.unwrap();
    let other = server.dir.path().join("other.pem");
    std::fs::write(&other, Authority::new().unwrap().pem).unwrap();
    let wrong = Access { ca: Some(other), ..Access::default() };
    denied(&server.store(wrong), &["https://localhost", "no authority that is trusted here", "--ca FILE"])
        .await;
}

#[tokio::test]
async fn a_certificate_of_another_name_or_time_is_refused() {
    let server = Secure::new(|authority| authority.server(&["hostdb.example"]).unwrap(), false).await;
    denied(&server.store(server.access()), &["not for localhost", "hostdb.example"]).await;
    let past = Wish { names: &["localhost"], ends: Err(Duration::from_secs(3600)), ..Wish::default() };
    let server = Secure::new(|authority| authority.issue(&past).unwrap(), false).await;
    denied(&server.store(server.access()), &["its certificate expired at 20", "renew it"]).await;
}

#[tokio::test]
async fn a_server_may_demand_a_certificate() {
    let server = Secure::new(local, true).await;
    let good = server.authority.client("agent-dns").unwrap();
    server.store(server.showing(&good)).commit(fact(1, None)).await.unwrap();
    denied(&server.store(server.access()), &["demands a certificate", "--cert FILE"]).await;
    let past = Wish { ends: Err(Duration::from_secs(3600)), ..Wish::default() };
    let past = server.authority.issue(&past).unwrap();
    denied(&server.store(server.showing(&past)), &["certificate of this end has expired", "--cert FILE"])
        .await;
    let stranger = Authority::new().unwrap().client("agent-dns").unwrap();
    denied(&server.store(server.showing(&stranger)), &["no authority that it trusts", "--cert FILE"]).await;
}

#[tokio::test]
async fn a_renewed_client_certificate_is_shown_without_a_restart() {
    let server = Secure::new(local, true).await;
    let past = Wish { ends: Err(Duration::from_secs(3600)), ..Wish::default() };
    let access = server.showing(&server.authority.issue(&past).unwrap());
    let store = server.store(access);
    denied(&store, &["has expired"]).await;
    server.showing(&server.authority.client("agent-dns").unwrap());
    store.commit(fact(1, None)).await.unwrap();
}

/// The renewed certificate is of another authority, which the watch does not believe: had its connection been broken, it
/// could not come back.
#[tokio::test]
async fn a_watch_goes_on_while_the_certificate_is_renewed() {
    let server = Secure::new(local, false).await;
    let store = server.store(server.access());
    let head = store.head().await.unwrap();
    let mut watch = store.watch(Filter::of(vec![Range::All]), head);
    let mut next = async || {
        loop {
            match tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap() {
                Feed::Commit(entry) => return entry.info.revision.0,
                _ => continue,
            }
        }
    };
    store.commit(fact(1, None)).await.unwrap();
    assert_eq!(next().await, 1);

    let second = Authority::new().unwrap();
    let ca = server.dir.path().join("second.pem");
    std::fs::write(&ca, &second.pem).unwrap();
    local(&second).write(server.dir.path(), "server").unwrap();
    let begun = Instant::now();
    let committed = loop {
        // Each time a client that has no connection yet.
        match server
            .store(Access { ca: Some(ca.clone()), ..Access::default() })
            .commit(fact(2, Some("k")))
            .await
        {
            Ok(committed) => break committed,
            Err(StoreError::Denied { .. }) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(committed.revision.0, 2);
    assert_eq!(next().await, 2, "the watch goes on");
    denied(&server.store(server.access()), &["no authority that is trusted here"]).await;
}

/// A server that lets in who shows `token`, and counts who asks.
async fn asking_for(
    token: Arc<std::sync::Mutex<&'static str>>,
) -> (String, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (count, token) = (count.clone(), *token.lock().unwrap());
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let read = client.read(&mut buffer).await.unwrap();
                let head = String::from_utf8_lossy(&buffer[..read]).to_lowercase();
                count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                let (status, body) = if head.contains(&format!("authorization: bearer {token}\r\n")) {
                    ("200 OK", r#"{"epoch":1,"revision":1}"#)
                } else if head.contains("authorization: bearer forbidden\r\n") {
                    (
                        "403 Forbidden",
                        r#"{"type":"urn:shoal:problem:forbidden","detail":"the rule r forbids it"}"#,
                    )
                } else {
                    (
                        "401 Unauthorized",
                        r#"{"type":"urn:shoal:problem:unauthorized","detail":"nobody knows it"}"#,
                    )
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                );
                client.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    (at, asked)
}

#[tokio::test]
async fn a_token_is_shown_rotated_and_never_told() {
    let wanted = Arc::new(std::sync::Mutex::new("hunter2"));
    let (at, asked) = asking_for(wanted.clone()).await;
    let count = || asked.swap(0, std::sync::atomic::Ordering::SeqCst);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let without = HttpStore::with(&at, quick()).unwrap().head().await.unwrap_err();
    assert!(matches!(without, StoreError::Denied { .. }), "{without:?}");
    let said = without.to_string();
    assert!(said.contains("nobody knows it") && said.contains("--token-file FILE"), "{said}");
    assert_eq!(count(), 1, "it is not tried again");

    std::fs::write(&file, "hunter2\n").unwrap();
    let access = Access { token_file: Some(file.clone()), ..Access::default() };
    let store = HttpStore::with(&at, Options { access, ..quick() }).unwrap();
    assert_eq!(store.head().await.unwrap().revision.0, 1);
    *wanted.lock().unwrap() = "hunter3";
    let error = store.head().await.unwrap_err();
    let (said, shown) = (error.to_string(), format!("{error:?} {store:?}"));
    assert!(said.contains("nobody knows it") && said.contains(&file.display().to_string()), "{said}");
    assert!(!said.contains("hunter") && !shown.contains("hunter"), "{said} {shown}");
    count();
    // At the moment of the rotation: refused once, read anew, let in.
    std::fs::write(&file, "hunter3").unwrap();
    assert_eq!(store.head().await.unwrap().revision.0, 1);
    assert!(count() <= 2);
    std::fs::write(&file, "forbidden").unwrap();
    *wanted.lock().unwrap() = "hunter4";
    let error = store.head().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("the rule r forbids it"), "{error}");
}
