//! Client certificates, by real TLS, at a server that asks: whom they name, and for how long a connection is believed.

use std::path::PathBuf;

use shoal_client::certificates::{Authority, Pair, Wish};
use shoal_client::tls;
use shoal_hostdb::{Listener, Server, Tls, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::harness::PATIENCE;

/// The rows of [`Guarded`], behind TLS.
struct Secure {
    g: Guarded,
    dir: tempfile::TempDir,
    authority: Authority,
    port: u16,
    _stop: DropGuard,
}

impl Secure {
    async fn new() -> Self {
        let (g, dir) = (Guarded::new().await, tempfile::tempdir().unwrap());
        let (authority, own) = (Authority::new().unwrap(), Authority::new().unwrap());
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("own.pem"), &own.pem).unwrap();
        std::fs::write(file("clients.pem"), &authority.pem).unwrap();
        let (cert, key) = own.server(&["localhost"]).unwrap().write(dir.path(), "server").unwrap();
        let files = TlsFiles { cert, key, client_ca: Some(file("clients.pem")), demand: false };
        let (tls, stop) = (Tls::load(files).unwrap(), CancellationToken::new());
        let listener = Listener::with(&"https://127.0.0.1:0".parse().unwrap(), Some(&tls)).await.unwrap();
        let port = listener.at().to_string().rsplit(':').next().unwrap().parse().unwrap();
        let store = g.database.store().clone();
        let server = Server::start(store, Limits::default(), false, stop.clone()).await.unwrap();
        tokio::spawn(server.with_access().serve(vec![listener]));
        tokio::spawn(tls.follow(stop.clone()));
        Self { g, dir, authority, port, _stop: stop.drop_guard() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn connect(&self, pair: &Pair) -> Connection {
        self.tried(pair).await.unwrap()
    }

    async fn tried(&self, pair: &Pair) -> std::io::Result<Connection> {
        let (cert, key) = pair.write(self.dir.path(), "client").unwrap();
        let config = rustls::ClientConfig::builder_with_provider(tls::provider());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(tls::authorities(&self.file("own.pem")).unwrap());
        let config =
            config.with_client_auth_cert(tls::certificates(&cert).unwrap(), tls::key(&key).unwrap()).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        Ok(Connection(connector.connect("localhost".try_into().unwrap(), stream).await?))
    }

    /// What the server says of who shows such a certificate.
    async fn whoami(&self, wish: &Wish<'_>) -> (u16, Value) {
        let pair = self.authority.issue(wish).unwrap();
        self.connect(&pair).await.get("/api/v2/whoami", "").await
    }
}

/// One connection, kept.
struct Connection(TlsStream<TcpStream>);

impl Connection {
    async fn get(&mut self, path: &str, more: &str) -> (u16, Value) {
        let (status, _, body) = self.whole(path, more).await;
        (status, body)
    }

    async fn whole(&mut self, path: &str, more: &str) -> (u16, String, Value) {
        self.answer(path, more).await.unwrap()
    }

    /// The same; an error, where the connection ends before.
    async fn answer(&mut self, path: &str, more: &str) -> std::io::Result<(u16, String, Value)> {
        let asked = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        self.0.write_all(asked.as_bytes()).await?;
        let (mut said, mut some) = (Vec::new(), [0; 4096]);
        loop {
            let text = String::from_utf8_lossy(&said).to_ascii_lowercase();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    let whole = String::from_utf8(said).unwrap();
                    let body = whole.split_once("\r\n\r\n").unwrap().1;
                    return Ok((status, head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null)));
                }
            }
            let read = self.0.read(&mut some);
            let read = tokio::time::timeout(PATIENCE, read).await.expect("an answer")?;
            if read == 0 {
                return Err(std::io::Error::other(format!("closed after {text:?}")));
            }
            said.extend_from_slice(&some[..read]);
        }
    }

    /// Asks for a watch: whether it begins.
    async fn watches(&mut self) -> std::io::Result<bool> {
        let asked = b"GET /api/v2/watch?prefix=dns/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        self.0.write_all(asked).await?;
        let mut head = [0_u8; 12];
        let read = self.0.read_exact(&mut head);
        tokio::time::timeout(PATIENCE, read).await.expect("an answer")?;
        Ok(head == *b"HTTP/1.1 200")
    }
}

/// Connections of `ann` that are kept: one that shows this certificate, one that shows a token of `carl` besides, and one that watches.
/// `None`, where the certificate ended before all of them stood.
async fn kept(s: &Secure, pair: &Pair, token: &str) -> Option<[Connection; 3]> {
    let mut all = [s.tried(pair).await.ok()?, s.tried(pair).await.ok()?, s.tried(pair).await.ok()?];
    if !all[2].watches().await.ok()? {
        return None;
    }
    for (n, more, name) in [(0, "", "ann"), (1, token, "carl")] {
        let (status, _, who) = all[n].answer("/api/v2/whoami", more).await.ok()?;
        if status == 401 {
            return None;
        }
        assert_eq!(who["principal"], name, "{who}");
    }
    Some(all)
}

fn called(common: &str) -> Wish<'_> {
    Wish { common: Some(common), ..Wish::default() }
}

/// Only what a user can be called is a name; what means something else in rules is nobody's.
#[tokio::test]
async fn a_certificate_names_a_user_and_nothing_else() {
    let s = Secure::new().await;
    for (wish, name) in [
        (called("ann"), "ann"),
        (called("root"), "root"),
        (Wish { names: &["laptop.example.com"], ..Wish::default() }, "laptop.example.com"),
        // The alternative names go before the subject.
        (Wish { names: &["192.0.2.1", "a.example", "b.example"], ..called("ann") }, "a.example"),
        (Wish { names: &["192.0.2.1"], ..called("ann") }, "ann"),
    ] {
        let (status, who) = s.whoami(&wish).await;
        assert_eq!((status, &who["principal"]), (200, &json!(name)), "{wish:?}: {who}");
    }
    for (wish, why) in [
        (called("@web"), "no name of a user"),
        (called("*"), "no name of a user"),
        (called("anonymous"), "no name of a user"),
        (called("agent dns"), "no name of a user"),
        (called("a/b"), "no name of a user"),
        (called("ann "), "no name of a user"),
        (called(" "), "no name of a user"),
        (called("a\nb"), "no name of a user"),
        (called(".."), "no name of a user"),
        (Wish { names: &["*.example.com"], ..called("ann") }, "no name of a user"),
        (Wish { names: &["@web"], ..Wish::default() }, "no name of a user"),
        (Wish::default(), "names nobody"),
        // As a local user it would be the agent; here nobody said so.
        (called("shoal-dns"), "urn:shoal:agent:dns"),
        (Wish { names: &["shoal-dns"], ..Wish::default() }, "urn:shoal:agent:dns"),
        (Wish { uris: &["urn:shoal:agent:@web"], ..called("ann") }, "urn:shoal:agent:NAMESPACE"),
        (Wish { uris: &["urn:shoal:agent:dns", "urn:shoal:agent:vm"], ..called("ann") }, "more than one"),
    ] {
        let (status, said) = s.whoami(&wish).await;
        assert_eq!(status, 401, "{wish:?}: {said}");
        assert!(said["detail"].as_str().unwrap().contains(why), "{wish:?}: {said}");
    }
    // Who shows a token besides is its owner, whatever the certificate is called.
    let pair = s.authority.client("@web").unwrap();
    let token = format!("authorization: Bearer {}\r\n", bearer("carl"));
    let (status, who) = s.connect(&pair).await.get("/api/v2/whoami", &token).await;
    assert_eq!((status, &who["principal"]), (200, &json!("carl")), "{who}");
}

/// What makes a certificate an agent's says so: in the certificate, or in the row of a user.
#[tokio::test]
async fn a_certificate_is_an_agents_where_it_is_said() {
    let s = Secure::new().await;
    let agent = Wish { uris: &["urn:shoal:agent:dns"], names: &["ns1.example.com"], ..called("ann") };
    let (_, who) = s.whoami(&agent).await;
    assert_eq!(who["principal"], "agent dns", "{who}");
    s.g.put(&[("access/users/ns2.example.com", json!({"agent": "vm"}))]).await;
    let (_, who) = s.whoami(&called("ns2.example.com")).await;
    assert_eq!(who["principal"], "agent vm", "{who}");
    s.g.put(&[("access/users/shoal-dns", json!({"agent": "dns"}))]).await;
    let (_, who) = s.whoami(&called("shoal-dns")).await;
    assert_eq!(who["principal"], "agent dns", "{who}");
    // It does what that agent may, and no more.
    let pair = s.authority.issue(&agent).unwrap();
    let mut connection = s.connect(&pair).await;
    assert_eq!(connection.get("/api/v2/tags/dns/example.com", "").await.0, 200);
    assert_eq!(connection.get("/api/v2/tags/lb/secret", "").await.0, 403);
    assert_eq!(connection.get("/api/v2/access/users/ann", "").await.0, 403);
    // A user who is disabled is nobody by a certificate either, also on a connection that is kept.
    let mut connection = s.connect(&s.authority.client("ann").unwrap()).await;
    assert_eq!(connection.get("/api/v2/whoami", "").await.0, 200);
    s.g.put(&[("access/users/ann", json!({"disabled": true}))]).await;
    until(async || connection.get("/api/v2/whoami", "").await.0 == 401).await;
}

/// Waits until it is so.
async fn until(mut so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "it is not so in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_kept_connection_ends_with_its_certificate() {
    let s = Secure::new().await;
    let bearer = format!("authorization: Bearer {}\r\n", bearer("carl"));
    // Long enough for three handshakes; where a machine stalls for longer, another one has twice as long.
    let mut life = Duration::from_secs(10);
    let [mut shown, mut token, mut events] = loop {
        let soon = Wish { ends: Ok(life), ..called("ann") };
        if let Some(all) = kept(&s, &s.authority.issue(&soon).unwrap(), &bearer).await {
            break all;
        }
        life *= 2;
        assert!(life < 2 * PATIENCE, "it ends before three connections stand");
    };
    let began = std::time::Instant::now();
    for (connection, more) in [(&mut shown, ""), (&mut token, bearer.as_str())] {
        let (status, head, said) = loop {
            let answer = connection.whole("/api/v2/whoami", more).await;
            if answer.0 != 200 {
                break answer;
            }
            assert!(began.elapsed() < life + PATIENCE, "it is believed for ever");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(status, 401, "{said}");
        assert!(said["detail"].as_str().unwrap().contains("expired"), "{said}");
        assert!(head.contains("connection: close"), "whoever has a new one has to begin anew: {head}");
    }
    // A watch ends, too.
    let mut said = String::new();
    let read = events.0.read_to_string(&mut said);
    // However the connection ends: what was said counts.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the watch ends");
    assert!(said.contains("event: error") && said.contains("expired"), "{said}");
}

#[tokio::test]
async fn a_kept_connection_ends_with_its_authority() {
    let s = Secure::new().await;
    let mut kept = s.connect(&s.authority.client("ann").unwrap()).await;
    assert_eq!(kept.get("/api/v2/whoami", "").await.0, 200);
    // Another authority beside it changes nothing for those of the first.
    let other = Authority::new().unwrap();
    std::fs::write(s.file("clients.pem"), s.authority.pem.clone() + &other.pem).unwrap();
    let second = other.client("bob").unwrap();
    until(async || {
        let mut connection = s.connect(&second).await;
        let asked = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        // An alert may come at either.
        let sent = connection.0.write_all(asked).await.is_ok();
        sent && connection.0.read(&mut [0; 64]).await.is_ok_and(|read| read > 0)
    })
    .await;
    assert_eq!(kept.get("/api/v2/whoami", "").await.0, 200);
    std::fs::write(s.file("clients.pem"), &other.pem).unwrap();
    until(async || {
        let (status, _, said) = kept.whole("/api/v2/whoami", "").await;
        status == 401 && said["detail"].as_str().unwrap().contains("authority")
    })
    .await;
    let mut second = s.connect(&second).await;
    assert_eq!(second.get("/api/v2/whoami", "").await.1["principal"], "bob");
}
