//! A BIND of a test's own: ports and folders of its own, the zone files that an agent writes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::binaries::system;
use crate::process::{Process, output};
use crate::{dns, ports, wait};

/// A running `named`.
#[derive(Debug)]
pub struct Bind {
    dir: PathBuf,
    /// Where it answers, on 127.0.0.1.
    pub port: u16,
    control: u16,
    process: Process,
}

impl Bind {
    /// The secret of its key `k`, by HMAC-SHA256.
    pub const SECRET: &str = "c2hvYWwtdGVzdC1rZXktbm90LXNlY3JldC1hdC1hbGw=";

    /// Whether it is installed.
    #[must_use]
    pub fn is_there() -> bool {
        ["named", "rndc", "named-checkzone"].into_iter().all(|name| system(name).is_some())
    }

    /// Starts one that serves `zones` from `<files>/<zone>`, whether they are there yet or not.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub fn start(dir: &Path, files: &Path, zones: &BTreeSet<String>) -> anyhow::Result<Self> {
        Self::start_with(dir, files, zones, "")
    }

    /// The same with more statements for each zone, such as `allow-update { 127.0.0.1; };`.
    ///
    /// # Errors
    /// See [`Self::start`].
    pub fn start_with(
        dir: &Path,
        files: &Path,
        zones: &BTreeSet<String>,
        more: &str,
    ) -> anyhow::Result<Self> {
        // Another test may take a free port between our look and named's bind: then named ends, and other ports are tried.
        let mut last = None;
        for _ in 0..5 {
            match Self::try_start(dir, files, zones, more) {
                Ok(bind) => return Ok(bind),
                Err(why) => last = Some(why),
            }
        }
        Err(last.context("named was never started")?)
    }

    fn try_start(dir: &Path, files: &Path, zones: &BTreeSet<String>, more: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).context("a folder for named")?;
        let (port, control) = (ports::free()?, ports::free()?);
        let at = dir.display();
        let mut conf = format!(
            "key \"k\" {{ algorithm hmac-sha256; secret \"{}\"; }};\n\
             options {{ directory \"{at}\"; pid-file none; session-keyfile \"{at}/session.key\"; lock-file none;\n\
             managed-keys-directory \"{at}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
             recursion no; dnssec-validation no; notify no; empty-zones-enable no; }};\n\
             controls {{ inet 127.0.0.1 port {control} allow {{ 127.0.0.1; }} keys {{ \"k\"; }}; }};\n",
            Self::SECRET
        );
        for zone in zones {
            let _ = writeln!(
                conf,
                "zone \"{zone}\" {{ type primary; file \"{}/{zone}\"; {more} }};",
                files.display()
            );
        }
        let rndc = format!(
            "key \"k\" {{ algorithm hmac-sha256; secret \"{}\"; }};\n\
             options {{ default-key \"k\"; default-server 127.0.0.1; }};\n",
            Self::SECRET
        );
        std::fs::write(dir.join("named.conf"), conf).context("named.conf")?;
        std::fs::write(dir.join("rndc.conf"), rndc).context("rndc.conf")?;
        let named = system("named").context("named is not installed")?;
        let mut command = Command::new(named);
        command.args(["-g", "-n", "1", "-c"]).arg(dir.join("named.conf"));
        let said = || std::fs::read_to_string(dir.join("named.log")).unwrap_or_default();
        let before = said().len();
        let process = Process::start("named", dir, &mut command)?;
        let mut bind = Self { dir: dir.to_owned(), port, control, process };
        wait::until("named", wait::PATIENCE, || {
            // One that has ended is not waited for.
            if let Err(ended) = bind.process.alive() {
                return Ok(Err(ended));
            }
            output(&mut bind.rndc()?, &[0]).map(Ok)
        })??;
        // Somebody else's server may answer on a port that was free a moment ago; then this one goes on without it, and says so.
        bind.process.alive()?;
        if said().get(before..).is_some_and(|said| said.contains("address in use")) {
            bail!("a port of named's was taken: {port} or {control}");
        }
        Ok(bind)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn rndc(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(system("rndc").context("rndc is not installed")?);
        command.args(["-c"]).arg(self.dir.join("rndc.conf")).args([
            "-p",
            &self.control.to_string(),
            "status",
        ]);
        Ok(command)
    }

    /// The command that reloads a zone, as an agent's configuration has it: program and arguments before the zone.
    ///
    /// # Errors
    /// `rndc` is not installed.
    pub fn reload(&self) -> anyhow::Result<Vec<String>> {
        let program = system("rndc").context("rndc is not installed")?;
        let conf = self.dir.join("rndc.conf");
        Ok([program.as_path(), Path::new("-c"), &conf, Path::new("-p")]
            .map(|part| part.display().to_string())
            .into_iter()
            .chain([self.control.to_string(), "reload".to_owned()])
            .collect())
    }

    /// What it answers.
    ///
    /// # Errors
    /// See [`dns::ask`]; also when the process is gone.
    pub fn ask(&mut self, name: &str, rtype: &str) -> anyhow::Result<BTreeSet<String>> {
        self.process.alive()?;
        dns::ask(self.port, name, rtype)
    }

    /// What `dig +short` prints, for the tests that want to see exactly what people see.
    ///
    /// # Errors
    /// It is not installed, or nobody answers.
    pub fn dig(&self, args: &[&str]) -> anyhow::Result<String> {
        let Some(dig) = system("dig") else { bail!("dig is not installed") };
        let mut command = Command::new(dig);
        command
            .args(["@127.0.0.1", "-p", &self.port.to_string(), "+short", "+tries=1", "+time=5"])
            .args(args);
        output(&mut command, &[0])
    }
}
