//! A server, a DNS agent and a BIND, each a process of its own. Agent and command reach the database through the server,
//! or, where a test says so, on the file beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::binaries::binary;
use crate::bind::Bind;
use crate::process::{Process, output};
use crate::{dns, ports, wait};

/// What the command says when no server answers.
const NOBODY: &str = "is shoal-hostdb running there?";

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
    /// A server that is killed and started again meanwhile.
    restart: Option<JoinHandle<anyhow::Result<Process>>>,
    /// The name server that serves what the agent writes.
    pub bind: Bind,
    http: u16,
    /// What agent and command are told to use.
    store: String,
    dir: tempfile::TempDir,
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // What it starts ends with it.
        drop(self.restart.take().map(JoinHandle::join));
    }
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
        let http = ports::free()?;
        let store = format!("http://127.0.0.1:{http}");
        let swarm = Self { server: None, agent: None, restart: None, bind, http, store, dir };
        std::fs::write(swarm.dir.path().join("dns.toml"), swarm.settings()?).context("dns.toml")?;
        Ok(swarm)
    }

    /// The same, with agent and command on the file itself, beside the server.
    ///
    /// # Errors
    /// See [`new`](Self::new).
    pub fn on_the_file(zones: &BTreeSet<String>) -> anyhow::Result<Self> {
        let mut swarm = Self::new(zones)?;
        swarm.store = swarm.file();
        Ok(swarm)
    }

    fn settings(&self) -> anyhow::Result<String> {
        let mut reload = self.bind.reload()?;
        reload.push("{zone}".to_owned());
        Ok(format!(
            "claim = \"3s\"\n[agent.bind]\ndirectory = {:?}\nfile = \"{{zone}}\"\nreload = {reload:?}\nserver = \"127.0.0.1:{}\"\n",
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

    fn file(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("shoal.db").display())
    }

    fn server(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args([
            "--store",
            &self.file(),
            "--listen",
            &format!("127.0.0.1:{}", self.http),
            "--access",
            "off",
        ]);
        Ok(command)
    }

    /// Starts the server, without waiting for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_server(&mut self) -> anyhow::Result<()> {
        self.server = Some(Process::start("hostdb", self.dir.path(), &mut self.server()?)?);
        Ok(())
    }

    /// Ends the server at once, as power loss does, when this time is over, and starts it again; meanwhile this goes on.
    ///
    /// # Errors
    /// There is no server.
    pub fn server_blinks(&mut self, after: Duration) -> anyhow::Result<()> {
        let mut server = self.server.take().context("the server was not started")?;
        let (mut command, dir) = (self.server()?, self.dir.path().to_owned());
        self.restart = Some(std::thread::spawn(move || {
            std::thread::sleep(after);
            server.alive()?;
            drop(server);
            Process::start("hostdb", &dir, &mut command)
        }));
        Ok(())
    }

    /// Waits until the server that was to be killed was killed, and is started again.
    ///
    /// # Errors
    /// It ended before, or cannot be started.
    pub fn server_is_back(&mut self) -> anyhow::Result<()> {
        let restart = self.restart.take().context("the server was not to be killed")?;
        self.server = Some(restart.join().ok().context("who kills the server has panicked")??);
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
        command.args(["--store", &self.store, "--config"]).arg(self.dir.path().join("dns.toml"));
        self.agent = Some(Process::start("dns", self.dir.path(), &mut command)?);
        Ok(())
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

    /// Runs `shoal` where other exit codes are fine, too. One that found nobody there has sent nothing, and is run again;
    /// what it had begun, it ends by itself, with the server that comes back.
    ///
    /// # Errors
    /// It ends with none of them.
    pub fn shoal_fine(&self, args: &[&str], fine: &[i32]) -> anyhow::Result<String> {
        let until = Instant::now() + wait::PATIENCE;
        loop {
            let mut command = Command::new(binary("shoal")?);
            command.env("SHOAL_AUTHOR", "tests").args(["--store", &self.store]).args(args);
            let out = command.stdin(Stdio::null()).output().context("cannot run shoal")?;
            let errors = String::from_utf8_lossy(&out.stderr);
            if out.status.code() == Some(1) && errors.contains(NOBODY) && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            } else if out.status.code().is_some_and(|code| fine.contains(&code)) {
                return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
            } else {
                bail!("shoal {args:?} ended with {}:\n{errors}", out.status);
            }
        }
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
            command.args(["--store", &self.store, "wait", "--agent", "dns", "--timeout", "10s"]);
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
