//! A server, a DNS agent and a BIND, each a process of its own, on one database file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::binaries::binary;
use crate::bind::Bind;
use crate::process::{Process, output};
use crate::{dns, ports, wait};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A swarm in a scratch folder. Dropping it ends all of it.
#[derive(Debug)]
pub struct Swarm {
    // Before the folder: fields are dropped in order.
    server: Option<Process>,
    agent: Option<Process>,
    /// The name server that serves what the agent writes.
    pub bind: Bind,
    http: u16,
    dir: tempfile::TempDir,
}

impl Swarm {
    /// A folder, an empty database that is not there yet, and a BIND that waits for the files of `zones`.
    ///
    /// # Errors
    /// Something cannot be started.
    pub fn new(zones: &BTreeSet<String>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-e2e-").tempdir().context("a scratch folder")?;
        let files = dir.path().join("zones");
        std::fs::create_dir(&files).context("a folder for zones")?;
        let bind = Bind::start(&dir.path().join("named"), &files, zones)?;
        let swarm = Self { server: None, agent: None, bind, http: ports::free()?, dir };
        std::fs::write(swarm.dir.path().join("dns.toml"), swarm.settings()?).context("dns.toml")?;
        Ok(swarm)
    }

    fn settings(&self) -> anyhow::Result<String> {
        let mut reload = self.bind.reload()?;
        reload.push("{zone}".to_owned());
        Ok(format!(
            "claim = \"1s\"\n[agent.bind]\ndirectory = {:?}\nfile = \"{{zone}}\"\nreload = {reload:?}\nserver = \"127.0.0.1:{}\"\n",
            self.zones(),
            self.bind.port
        ))
    }

    /// Where the zone files are.
    #[must_use]
    pub fn zones(&self) -> PathBuf {
        self.dir.path().join("zones")
    }

    /// The scratch folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn store(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("shoal.db").display())
    }

    /// Starts the server, without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args(["--store", &self.store(), "--listen", &format!("127.0.0.1:{}", self.http)]);
        self.server = Some(Process::start("hostdb", self.dir.path(), &mut command)?);
        Ok(())
    }

    /// Waits until the server answers a question about the database.
    ///
    /// # Errors
    /// It ended, or does not answer.
    pub fn server_answers(&mut self) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}/api/v2/hosts?limit=1", self.http);
        let server = self.server.as_mut().context("the server was not started")?;
        wait::until("the server", wait::PATIENCE, || {
            server.alive()?;
            output(Command::new("curl").args(["-fsS", "--max-time", "5", &url]), &[0])
        })
    }

    /// Starts the agent, without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(binary("shoal-dns")?);
        command.args(["--store", &self.store(), "--config"]).arg(self.dir.path().join("dns.toml"));
        self.agent = Some(Process::start("dns", self.dir.path(), &mut command)?);
        Ok(())
    }

    /// Ends the server at once, as power loss does.
    pub fn kill_server(&mut self) {
        self.server = None;
    }

    /// That the agent has not ended by itself.
    ///
    /// # Errors
    /// It ended; with what it said last.
    pub fn agent_lives(&mut self) -> anyhow::Result<()> {
        self.agent.as_mut().context("the agent was not started")?.alive()
    }

    /// Ends the agent at once.
    pub fn kill_agent(&mut self) {
        self.agent = None;
    }

    /// Runs `shoal` and answers what it printed.
    ///
    /// # Errors
    /// It ends with another code than 0.
    pub fn shoal(&self, args: &[&str]) -> anyhow::Result<String> {
        self.shoal_fine(args, &[0])
    }

    /// Runs `shoal` where other exit codes are fine, too.
    ///
    /// # Errors
    /// It ends with none of them.
    pub fn shoal_fine(&self, args: &[&str], fine: &[i32]) -> anyhow::Result<String> {
        let mut command = Command::new(binary("shoal")?);
        output(command.env("SHOAL_AUTHOR", "tests").args(["--store", &self.store()]).args(args), fine)
    }

    /// Waits until the agent has done what the database says.
    ///
    /// # Errors
    /// It ended, or is not done in time; says what `shoal wait` and the agent said last.
    pub fn converged(&mut self) -> anyhow::Result<()> {
        let revision = self.shoal(&["log", "-n", "1", "-o", "json"])?;
        wait::until("convergence", wait::PATIENCE * 2, || {
            let agent = self.agent.as_mut().context("the agent was not started")?;
            agent.alive()?;
            let tail = agent.tail();
            let mut command = Command::new(binary("shoal")?);
            command.args(["--store", &self.store(), "wait", "--agent", "dns", "--timeout", "10s"]);
            output(&mut command, &[0]).with_context(|| format!("newest commit {revision}\nagent: {tail}"))
        })
        .map(drop)
    }

    /// What waits for a person: the digest of what is held, by unit, as agents that live say.
    ///
    /// # Errors
    /// `shoal status` does not print what this reads.
    pub fn held(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let text = self.shoal(&["status", "-o", "json"])?;
        let reports: Value = serde_json::from_str(&text).context("what shoal status prints")?;
        let live = reports.as_array().context("a list of reports")?.iter().filter(|r| r["life"] == "live");
        let units = live.filter_map(|report| report["units"].as_object()).flatten();
        let held = units.filter_map(|(unit, said)| Some((unit, said["held"]["digest"].as_str()?)));
        Ok(held.map(|(unit, digest)| (unit.clone(), digest.to_owned())).collect())
    }

    /// Does what a person does about what is held: looks at it, and agrees to exactly what was seen. Answers how often.
    ///
    /// # Errors
    /// Something else went wrong than that other changes are held by now, or none.
    pub fn approve(&self) -> anyhow::Result<u32> {
        let mut agreed = 0;
        for (unit, digest) in self.held()? {
            let unit = format!("dns/{unit}");
            let word = ["approve", &unit, "--digest", &digest, "-m", "as it was meant", "-o", "json"];
            agreed += u32::from(!self.shoal_fine(&word, &[0, 1, 4])?.is_empty());
        }
        Ok(agreed)
    }

    /// Waits until the agent has done what the database says, with a person there who agrees to what is held. Answers
    /// how often that was needed.
    ///
    /// # Errors
    /// See [`converged`](Self::converged).
    pub fn converged_with_consent(&mut self) -> anyhow::Result<u32> {
        let mut agreed = 0;
        for _ in 0..60 {
            let wait = ["wait", "--agent", "dns", "--timeout", "2s", "-o", "json"];
            if !self.shoal_fine(&wait, &[0, 4, 5])?.is_empty() {
                return Ok(agreed);
            }
            agreed += self.approve()?;
        }
        self.converged().map(|()| agreed)
    }

    /// All hosts as `shoal get` prints them.
    ///
    /// # Errors
    /// It does not print a list.
    pub fn hosts(&self) -> anyhow::Result<Vec<Value>> {
        let text = self.shoal(&["get", "hosts", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("what shoal get prints")?;
        Ok(value.as_array().context("a list of hosts")?.clone())
    }

    /// Asserts that the name server knows every host that has an address, forward and reverse, and answers how many addresses.
    ///
    /// # Errors
    /// Names every host that it does not know rightly.
    pub fn answers_for_every_host(&mut self) -> anyhow::Result<usize> {
        let (mut asked, mut wrong) = (0, Vec::new());
        for host in self.hosts()? {
            let name = host["host"].as_str().context("a host without a name")?.to_owned();
            let lives = matches!(host["state"].as_str(), None | Some("active" | "draining"));
            for field in ["address", "address6"] {
                let Some(address) = host["document"][field].as_str() else { continue };
                let address: IpAddr = address.parse().with_context(|| format!("{name}: {address}"))?;
                let rtype = if address.is_ipv4() { "A" } else { "AAAA" };
                let forward = self.bind.ask(&name, rtype)?;
                let back = self.bind.ask(&dns::reverse(address), "PTR")?;
                asked += 1;
                if forward.contains(&address.to_string()) != lives
                    || back.contains(&format!("{name}.")) != lives
                {
                    wrong.push(format!(
                        "{name} ({}): {rtype} {forward:?}, PTR of {address} {back:?}",
                        host["state"]
                    ));
                }
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} of {asked} addresses are not answered rightly:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        Ok(asked)
    }
}
