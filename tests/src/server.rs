//! A server in front of a database on whatever store, on a Unix socket, with room for a crowd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use shoal_client::HttpStore;

use crate::binaries::binary;
use crate::figure::Usage;
use crate::process::{Process, output, tied};
use crate::wait;

/// How long it may take to read a large database, and to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// The server, and where. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    dir: PathBuf,
    store: String,
    port: Option<u16>,
}

impl Server {
    /// Starts it on the store of this address, its socket and what it says in `dir`, and waits until it is ready.
    ///
    /// # Errors
    /// It cannot be started, or ends.
    pub fn start(dir: &Path, store: &str) -> Result<Self> {
        Self::listening(dir, store, None)
    }

    /// The same, on this loopback port as well.
    ///
    /// # Errors
    /// As there.
    pub fn listening(dir: &Path, store: &str, port: Option<u16>) -> Result<Self> {
        let process = launch(dir, store, port)?;
        let mut server = Self { process, dir: dir.to_owned(), store: store.to_owned(), port };
        server.ready()?;
        Ok(server)
    }

    fn ready(&mut self) -> Result<()> {
        wait::until("the server", PATIENCE, || {
            self.process.alive()?;
            self.get("/readyz")
        })
        .map(drop)
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE).map(drop)
    }

    /// Starts it again, when it was stopped, and waits until it is ready.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn again(&mut self) -> Result<()> {
        self.process = launch(&self.dir, &self.store, self.port)?;
        self.ready()
    }

    /// What it answers to this path.
    ///
    /// # Errors
    /// It does not answer, or another status than 200.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "--max-time", "5", "--unix-socket"]).arg(socket(&self.dir));
        output(curl.arg(format!("http://localhost{path}")), &[0])
    }

    /// Its address, as programs take it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:{}", socket(&self.dir).display())
    }

    /// The database through it.
    ///
    /// # Errors
    /// Never; the address is made to be good.
    pub fn store(&self) -> Result<HttpStore> {
        Ok(HttpStore::new(&self.address())?)
    }

    /// What a metric without labels says.
    ///
    /// # Errors
    /// It does not answer, or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = self.get("/metrics")?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("it does not say {name}"))?.trim().parse().context("a metric")
    }

    /// What it has used.
    ///
    /// # Errors
    /// It ended.
    pub fn usage(&self) -> Result<Usage> {
        Ok(Usage::of(self.process.id())?)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("s")
}

fn launch(dir: &Path, store: &str, port: Option<u16>) -> Result<Process> {
    let mut command = tied(binary("shoal-hostdb")?);
    command.args(["--store", store, "--access", "off"]);
    command.arg("--listen").arg(format!("unix:{}", socket(dir).display()));
    if let Some(port) = port {
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
    }
    command.args(["--max-connections", "20000", "--max-watchers", "20000"]);
    Process::start("hostdb", dir, &mut command)
}
