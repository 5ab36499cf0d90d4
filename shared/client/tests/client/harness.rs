//! Servers for one test.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shoal_client::certificates::Authority;
use shoal_client::{Access, HttpStore, Options};
use shoal_core::{Change, Commit, Document};
use shoal_hostdb::{Limits, Listener, Tls, TlsFiles};
use shoal_store::Store;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A server in this process; it stops when this is dropped.
pub(crate) struct Server {
    /// Where it listens, as a store's address.
    pub(crate) at: String,
    stop: DropGuard,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// One as people run it.
    pub(crate) async fn start(store: Arc<dyn Store>, listen: &str) -> Self {
        Self::with(store, listen, limits(), false).await
    }

    pub(crate) async fn with(store: Arc<dyn Store>, listen: &str, limits: Limits, read_only: bool) -> Self {
        let stop = CancellationToken::new();
        let made = shoal_hostdb::Server::start(store, limits, read_only, stop.clone());
        Self::serve(made.await.unwrap(), listen, stop).await
    }

    /// One that takes rows that mean nothing.
    pub(crate) async fn unchecked(store: impl Store, listen: &str) -> Self {
        let stop = CancellationToken::new();
        let made = shoal_hostdb::Server::start_unchecked(Arc::new(store), limits(), stop.clone());
        Self::serve(made.await.unwrap(), listen, stop).await
    }

    /// The same by TLS, with a certificate of an authority that is made for it in this folder; and who believes that one. Clients
    /// are asked for a certificate, and show one.
    pub(crate) async fn unchecked_by_tls(store: impl Store, folder: &Path) -> (Self, Access) {
        let authority = Authority::new().unwrap();
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, &authority.pem).unwrap();
        let (cert, key) = authority.server(&["127.0.0.1"]).unwrap().write(folder, "server").unwrap();
        let files = TlsFiles { cert, key, client_ca: Some(ca.clone()), demand: true };
        let tls = Tls::load(files).unwrap();
        let (cert, key) = authority.client("agent-vm").unwrap().write(folder, "client").unwrap();
        let access = Access { ca: Some(ca), cert: Some(cert), key: Some(key), ..Access::default() };
        let stop = CancellationToken::new();
        let made = shoal_hostdb::Server::start_unchecked(Arc::new(store), limits(), stop.clone());
        let listener = Listener::with(&"https://127.0.0.1:0".parse().unwrap(), Some(&tls)).await.unwrap();
        (Self::on(made.await.unwrap(), listener, stop), access)
    }

    async fn serve(server: shoal_hostdb::Server, listen: &str, stop: CancellationToken) -> Self {
        let listener = Listener::bind(&listen.parse().unwrap()).await.unwrap();
        Self::on(server, listener, stop)
    }

    fn on(server: shoal_hostdb::Server, listener: Listener, stop: CancellationToken) -> Self {
        let at = listener.at().to_string();
        let task = tokio::spawn(server.serve(vec![listener]));
        Self { at, stop: stop.drop_guard(), task }
    }

    /// The store behind it.
    pub(crate) fn store(&self) -> HttpStore {
        self.store_with(Access::default())
    }

    /// The same for who shows this.
    pub(crate) fn store_with(&self, access: Access) -> HttpStore {
        HttpStore::with(&self.at, Options { access, ..quick() }).unwrap()
    }

    /// Stops it; answers where it listened, for another one.
    pub(crate) async fn stop(self) -> String {
        drop(self.stop);
        self.task.await.unwrap();
        self.at.strip_prefix("http://").unwrap_or(&self.at).to_owned()
    }
}

pub(crate) fn limits() -> Limits {
    Limits { grace: Duration::from_secs(1), ..Limits::default() }
}

/// Bounds for tests: short pauses, and patience for a busy machine.
pub(crate) fn quick() -> Options {
    Options {
        patience: Duration::from_secs(20),
        pauses: (Duration::from_millis(5), Duration::from_millis(50)),
        ..Options::default()
    }
}

/// A commit of one fact.
pub(crate) fn fact(n: u64, key: Option<&str>) -> Commit {
    let value = Document::trusted(&format!("{{\"n\":{n}}}"));
    Commit {
        idempotency: key.map(str::to_owned),
        ..Commit::new("ann", "because", vec![Change::put("facts/vm/web1".parse().unwrap(), value)])
    }
}

/// Answers every connection with this text, and keeps it open.
pub(crate) async fn answering(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                // The client may be gone by now.
                let _ = client.read(&mut buffer).await;
                let _ = client.write_all(text.as_bytes()).await;
                // The connection stays open and says nothing more.
                std::future::pending::<()>().await;
            });
        }
    });
    at
}
