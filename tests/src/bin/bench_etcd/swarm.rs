//! A server on etcd and one of each agent, for a whole fleet. Between the server and etcd, and between the DNS agent and the server, are links that
//! count and can be cut; the others use the server's socket.
//!
//! What an agent works on is in a folder, and nobody is told of it: no server of the kind has to be installed. Who cannot run here is named and left
//! out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_tests::binaries::binary;
use shoal_tests::dns::serves_fleet;
use shoal_tests::figure::{Figure, Usage};
use shoal_tests::link::Link;
use shoal_tests::process::{Process, tied};
use shoal_tests::server::Server;
use shoal_tests::{ports, shape, wait};

use crate::etcd::Etcd;
use crate::{NAME, Options, Part};

/// How often a server's start is measured.
const STARTS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(180);
/// How long the swarm may take until it has nothing more to do, and for how long that has to be so.
const SETTLED: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_secs(2);
/// A twentieth of a core: less is not doing anything for a fleet.
const QUIET: Duration = Duration::from_millis(100);

/// All of it. Dropping it ends every process.
pub(crate) struct Swarm {
    // Before the server: fields are dropped in order.
    agents: Vec<(&'static str, Process)>,
    pub(crate) server: Server,
    /// Between the server and etcd.
    pub(crate) to_etcd: Link,
    /// Between the DNS agent and the server.
    pub(crate) to_server: Link,
    /// Where the DNS agent answers.
    pub(crate) dns: u16,
    /// Octets that the server read when it started, and the DNS agent.
    pub(crate) read: (u64, u64),
    dir: PathBuf,
}

impl Swarm {
    /// Starts all of it, and prints what that took where it is asked for.
    pub(crate) async fn start(etcd: &Etcd, dir: &Path, options: &Options) -> Result<Self> {
        if options.wants(Part::Start) {
            starts(&etcd.address(NAME), dir, options.hosts)?;
        }
        let (to_etcd, port) = (Link::start(etcd.port).await?, ports::free()?);
        let store = format!("etcd://127.0.0.1:{}/{NAME}", to_etcd.port);
        let server = Server::listening(dir, &store, Some(port))?;
        let read = (to_etcd.back(), 0);
        let (to_server, dns) = (Link::start(port).await?, ports::free()?);
        let mut swarm =
            Self { agents: Vec::new(), server, to_etcd, to_server, dns, read, dir: dir.to_owned() };
        swarm.resolver(options)?;
        swarm.others()?;
        Ok(swarm)
    }

    fn agent(&mut self, name: &'static str, store: &str, config: &str, args: &[&str]) -> Result<()> {
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, config).context("a configuration")?;
        let mut command = tied(binary(name)?);
        command.args(["--store", store, "--config"]).arg(file).args(args);
        self.agents.push((name, Process::start(name, &self.dir, &mut command)?));
        Ok(())
    }

    /// The DNS agent with the built-in server, until it answers for the whole fleet.
    fn resolver(&mut self, options: &Options) -> Result<()> {
        let (began, dns) = (Instant::now(), self.dns);
        let store = format!("http://127.0.0.1:{}", self.to_server.port);
        self.agent("shoal-dns", &store, &format!("[agent.server]\nlisten = \"127.0.0.1:{dns}\"\n"), &[])?;
        let (_, agent) = self.agents.last_mut().context("it was just started")?;
        wait::until("the agent", PATIENCE, || {
            agent.alive()?;
            serves_fleet(dns, options.hosts)
        })?;
        self.read.1 = self.to_server.back();
        let (took, used) = (began.elapsed().as_secs_f64(), Usage::of(agent.id())?);
        if options.wants(Part::Start) {
            Figure::median("agent_start_to_last_answer", "s", vec![took])
                .hosts(options.hosts)
                .on("etcd")
                .beside("its cpu", used.cpu.as_secs_f64())
                .beside("octets read", self.read.1 as f64)
                .print();
            Figure::median("agent_memory", "MiB", vec![mib(used)]).hosts(options.hosts).on("etcd").print();
        }
        Ok(())
    }

    /// One of each of the others.
    fn others(&mut self) -> Result<()> {
        let store = self.server.address();
        for folder in ["pools", "targets", "backup", "vm"] {
            std::fs::create_dir(self.dir.join(folder)).context("a folder")?;
        }
        let (dir, host) = (self.dir.display().to_string(), shape::host(0)?);
        let lb = format!("[agent.haproxy]\ndirectory = '{dir}/pools'\ncheck = ['true']\ntell = false\n");
        self.agent("shoal-lb", &store, &lb, &[])?;
        let monitoring = format!("[agent.prometheus]\ndirectory = '{dir}/targets'\n");
        self.agent("shoal-monitoring", &store, &monitoring, &[])?;
        self.agent("shoal-placement", &store, "", &[])?;
        // A repository that nothing is backed up to.
        std::fs::write(self.dir.join("password"), "none").context("a password")?;
        let backup = format!(
            "[secrets]\nrestic = {{ file = '{dir}/password' }}\n[agent]\nstate = '{dir}/backup'\nhost = '{host}'\n\
             [agent.repositories.main]\nurl = '{dir}/repository'\npassword = 'secret:restic'\n"
        );
        self.agent("shoal-backup", &store, &backup, &["--host", host.as_str()])?;
        let vm = format!("[agent]\nbox = 'box1.{}'\n[agent.nspawn]\nstate = '{dir}/vm'\n", shape::ZONE);
        self.agent("shoal-vm", &store, &vm, &[])
    }

    /// Waits until nobody has anything to do, and leaves out who ended by itself.
    pub(crate) fn settle(&mut self) {
        let quiet = wait::until("the swarm to have nothing to do", SETTLED, || {
            self.leave_out_who_ended();
            let before = self.cpu()?;
            std::thread::sleep(LOOK);
            let used = self.cpu()?.saturating_sub(before);
            ensure!(used < QUIET, "it used {used:?} of {LOOK:?}");
            Ok::<_, anyhow::Error>(())
        });
        if let Err(why) = quiet {
            eprintln!("{why:#}; it is measured all the same");
        }
    }

    fn leave_out_who_ended(&mut self) {
        self.agents.retain_mut(|(name, process)| match process.alive() {
            Ok(()) => true,
            Err(why) => {
                eprintln!("SKIPPED: {name} beside the others: {why:#}");
                false
            }
        });
    }

    /// What each program has used.
    pub(crate) fn usage(&self) -> Result<Vec<(&'static str, Usage)>> {
        let mut all = vec![("shoal-hostdb", self.server.usage()?)];
        for (name, process) in &self.agents {
            all.push((*name, Usage::of(process.id()).with_context(|| (*name).to_owned())?));
        }
        Ok(all)
    }

    fn cpu(&self) -> Result<Duration> {
        Ok(self.usage()?.iter().map(|(_, used)| used.cpu).sum())
    }
}

/// Resident memory, in MiB.
pub(crate) fn mib(used: Usage) -> f64 {
    used.resident as f64 / f64::from(1 << 20)
}

/// A server from its start until it is ready, by the clock and in processor time, and its memory then.
fn starts(address: &str, dir: &Path, hosts: u32) -> Result<()> {
    let (mut times, mut cpu, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let began = Instant::now();
        let mut server = Server::start(dir, address)?;
        times.push(began.elapsed().as_secs_f64());
        let used = server.usage()?;
        cpu.push(used.cpu.as_secs_f64());
        memory.push(mib(used));
        server.stop()?;
    }
    Figure::median("server_cold_start", "s", times)
        .hosts(hosts)
        .on("etcd")
        .beside("its cpu", Figure::median("", "s", cpu).value)
        .print();
    Figure::median("server_memory", "MiB", memory).hosts(hosts).on("etcd").print();
    Ok(())
}
