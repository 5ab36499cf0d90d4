//! An etcd of one member, connections to it, and a fleet in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::Client;
use shoal_core::Change;
use shoal_store::Store;
use shoal_tests::crowd::commit;
use shoal_tests::figure::Usage;
use shoal_tests::process::{Process, tied};
use shoal_tests::{ports, wait};

/// Connections that plain clients share.
const CONNECTIONS: usize = 16;
/// Rows of one commit of ours: more, and others wait long for it.
const TOGETHER: usize = 10_000;

/// The member. Dropping it ends it.
pub(crate) struct Etcd {
    process: Process,
    /// Where it listens.
    pub(crate) port: u16,
    /// Plain connections to it.
    pub(crate) clients: Vec<Client>,
}

impl Etcd {
    /// A new one, with its data in this folder.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let (port, peer) = (ports::free()?, ports::free()?);
        let (at, peer) = (url(port), url(peer));
        let mut command = tied("etcd");
        command.arg("--data-dir").arg(folder.join("etcd"));
        for name in ["listen-client-urls", "advertise-client-urls"] {
            command.arg(format!("--{name}={at}"));
        }
        for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            command.arg(format!("--{name}={peer}"));
        }
        command.arg(format!("--initial-cluster=default={peer}"));
        command.args(["--quota-backend-bytes", "8589934592"]);
        let process = Process::start("etcd", folder, &mut command)?;
        let mut etcd = Self { process, port, clients: Vec::new() };
        wait::until("etcd (apt install etcd-server)", Duration::from_secs(20), || {
            etcd.process.alive()?;
            std::net::TcpStream::connect(("127.0.0.1", port)).context("nobody listens").map(drop)
        })?;
        for _ in 0..CONNECTIONS {
            let client = etcd.connect().await?;
            etcd.clients.push(client);
        }
        Ok(etcd)
    }

    /// One more connection.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Ok(Client::connect([url(self.port)], None).await?)
    }

    /// One of the connections that are shared.
    pub(crate) fn client(&self, n: usize) -> Client {
        self.clients[n % self.clients.len()].clone()
    }

    /// A database in it, as our programs are told.
    pub(crate) fn address(&self, name: &str) -> String {
        format!("etcd://127.0.0.1:{}/{name}", self.port)
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Ok(Usage::of(self.process.id())?)
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Commits these rows.
pub(crate) async fn fill(store: &dyn Store, rows: &[Change]) -> Result<()> {
    for part in rows.chunks(TOGETHER) {
        store.commit(commit(part.to_vec())).await?;
    }
    Ok(())
}
