//! A server on a database of its own, and `shoal` in front of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::binaries::binary;
use crate::process::{Process, output};
use crate::{ports, wait};

/// A database in a scratch folder, and the server in front of it. Dropping it ends both.
#[derive(Debug)]
pub struct Hostdb {
    // Before the folder: fields are dropped in order.
    server: Option<Process>,
    port: u16,
    dir: tempfile::TempDir,
}

impl Hostdb {
    /// Starts a server on an empty database, and waits until it answers.
    ///
    /// # Errors
    /// Something cannot be started.
    pub fn start() -> anyhow::Result<Self> {
        Self::with("off")
    }

    /// The same with a server that asks who may do what. Who writes the file ([`Hostdb::file`]) makes tokens.
    ///
    /// # Errors
    /// Something cannot be started.
    pub fn asking() -> anyhow::Result<Self> {
        Self::with("on")
    }

    fn with(access: &str) -> anyhow::Result<Self> {
        // Another test may take a free port between our look and the server's bind: then it ends, and another one is tried.
        let mut last = None;
        for _ in 0..5 {
            match Self::try_with(access) {
                Ok(this) => return Ok(this),
                Err(why) if format!("{why:#}").contains("in use") => last = Some(why),
                Err(why) => return Err(why),
            }
        }
        Err(last.context("no server was ever started")?)
    }

    fn try_with(access: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-e2e-").tempdir().context("a scratch folder")?;
        let mut this = Self { server: None, port: ports::free()?, dir };
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args([
            "--store",
            &this.file(),
            "--listen",
            &format!("127.0.0.1:{}", this.port),
            "--access",
            access,
            "--listen",
            &this.socket(),
        ]);
        let mut server = Process::start("hostdb", this.dir(), &mut command)?;
        wait::until("the server", wait::PATIENCE, || {
            // One that has ended is not waited for.
            if let Err(ended) = server.alive() {
                return Ok(Err(ended));
            }
            // By the socket one is who one is.
            let mut get = Command::new(binary("shoal")?);
            output(get.args(["--store", &this.socket(), "get"]), &[0]).map(Ok)
        })??;
        this.server = Some(server);
        Ok(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where local users come.
    fn socket(&self) -> String {
        format!("unix:{}", self.dir().join("sock").display())
    }

    /// The database as a store of its own.
    #[must_use]
    pub fn file(&self) -> String {
        format!("sqlite:{}", self.dir().join("shoal.db").display())
    }

    /// The scratch folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs `shoal` through the server and answers what it printed.
    ///
    /// # Errors
    /// It does not end with 0.
    pub fn shoal(&self, line: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(binary("shoal")?);
        output(command.args(line).env("SHOAL_STORE", self.url()).env("SHOAL_AUTHOR", "tests"), &[0])
    }

    /// Ends the server at once.
    pub fn kill(&mut self) {
        self.server = None;
    }

    /// `PATH` with our programs in front.
    ///
    /// # Errors
    /// They do not build.
    pub fn path(&self) -> anyhow::Result<String> {
        let ours = binary("shoal")?;
        let ours = ours.parent().context("the folder of our programs")?;
        Ok(format!("{}:{}", ours.display(), std::env::var("PATH").unwrap_or_default()))
    }

    /// A file in the scratch folder with this text.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}
