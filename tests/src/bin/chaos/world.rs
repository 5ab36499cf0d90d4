//! The processes: servers, agents and, where the database stands on it, etcd; each killed, stopped, told to end and started as it
//! comes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use shoal_tests::binaries::system;
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::balancer::Balancer;
use crate::relay::Relay;
use crate::schedule::{Cast, Link, Victim, Way, What};
use crate::{Engine, Options};

/// Clients; each has links of its own to every server.
pub(crate) const CLIENTS: usize = 3;
/// Instances of the agent; the same.
const AGENTS: usize = 3;
/// Members of etcd: one may be lost.
const MEMBERS: usize = 3;
/// How long an agent's claim lasts: the shortest that it takes.
const LEASE: &str = "3s";

/// The signal by which a process is told to end.
const TERM: i32 = 15;
/// Room for what is copied from SQLite's log into its file, in octets.
const LOG: u64 = 32 << 20;

/// All of it. Dropping it ends every process.
pub(crate) struct World {
    // Before the folder: fields are dropped in order.
    agents: Vec<Option<Process>>,
    servers: Vec<Option<Process>>,
    members: Vec<Option<Process>>,
    /// Those that were told to end.
    leaving: BTreeMap<Victim, Process>,
    balancer: Option<Arc<Balancer>>,
    clocks: Vec<Clock>,
    disk: Option<Disk>,
    relays: Vec<Relay>,
    /// From each server to each member, and to each member from the others.
    inner: Vec<Relay>,
    /// Where servers listen.
    ports: Vec<u16>,
    /// Where members listen, for clients and for each other.
    etcd: Vec<(u16, u16)>,
    programs: PathBuf,
    dir: TempDir,
}

impl World {
    /// Starts all of it, and waits until servers answer. Says what cannot go wrong here.
    pub(crate) fn start(runtime: &Runtime, options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-chaos-").tempdir().context("a scratch folder")?;
        for folder in ["db", "zones"] {
            fs::create_dir(dir.path().join(folder)).context("a folder")?;
        }
        let (servers, members) = if options.store == Engine::Etcd { (2, MEMBERS) } else { (1, 0) };
        let mut free = free(servers + 2 * members + 1)?.into_iter();
        let ports = free.by_ref().take(servers).collect();
        let etcd = (0..members).filter_map(|_| Some((free.next()?, free.next()?))).collect();
        let front = free.next().context("a port for the balancer")?;
        let balancer = runtime.block_on(Balancer::start(dir.path(), front))?.map(Arc::new);
        // The last one keeps it.
        let agents = AGENTS + usize::from(balancer.is_some());
        let disk = if members > 0 {
            println!("SKIPPED: chaos, full disk: etcd ends where it has no room");
            None
        } else {
            Disk::mount(&dir.path().join("db"), room(options.length))
                .inspect_err(|why| println!("SKIPPED: chaos, full disk: {why:#}"))
                .ok()
        };
        let mut world = Self {
            agents: (0..agents).map(|_| None).collect(),
            servers: (0..servers).map(|_| None).collect(),
            members: (0..members).map(|_| None).collect(),
            leaving: BTreeMap::new(),
            balancer,
            clocks: Clock::of(dir.path(), servers)?,
            disk,
            relays: Vec::new(),
            inner: Vec::new(),
            ports,
            etcd,
            programs: options.programs.clone(),
            dir,
        };
        let to = world.etcd.iter().map(|(client, _)| *client).collect::<Vec<_>>().repeat(servers);
        for port in to.into_iter().chain(world.etcd.iter().map(|(_, peer)| *peer)) {
            world.inner.push(runtime.block_on(Relay::start(port))?);
        }
        for member in 0..members {
            world.launch(Victim::Member(member))?;
        }
        wait::until("etcd", wait::PATIENCE, || world.etcd_answers())?;
        for server in 0..servers {
            world.launch(Victim::Server(server))?;
            // The first makes the database.
            world.answers(server)?;
        }
        for _ in 0..CLIENTS + agents {
            for port in &world.ports {
                world.relays.push(runtime.block_on(Relay::start(*port))?);
            }
        }
        for agent in 0..agents {
            world.launch(Victim::Agent(agent))?;
        }
        Ok(world)
    }

    /// Whom there is to meet.
    pub(crate) fn cast(&self) -> Cast {
        Cast {
            servers: self.servers.len(),
            agents: self.agents.len(),
            members: self.members.len(),
            links: self.relays.len(),
            clocks: !self.clocks.is_empty(),
            disk: self.disk.is_some(),
        }
    }

    /// The servers as client `client` reaches them, through links of its own. Who reached one stays with it, so not all begin with the
    /// same one.
    pub(crate) fn addresses(&self, client: usize) -> String {
        let mut all = self.each(client);
        all.rotate_left(client % self.ports.len());
        all.join(",")
    }

    /// The same, each server by itself.
    pub(crate) fn each(&self, client: usize) -> Vec<String> {
        let links = self.relays.iter().skip(client * self.ports.len()).take(self.ports.len());
        links.map(Relay::url).collect()
    }

    /// The servers themselves.
    pub(crate) fn direct(&self) -> String {
        let urls = self.ports.iter().map(|port| format!("http://127.0.0.1:{port}"));
        urls.collect::<Vec<_>>().join(",")
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// One of our programs.
    pub(crate) fn program(&self, name: &str) -> Command {
        Command::new(self.programs.join(name))
    }

    /// Leaves the folder, with what every process said. Answers where it is.
    pub(crate) fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    fn process(&mut self, victim: Victim) -> &mut Option<Process> {
        match victim {
            Victim::Server(server) => &mut self.servers[server],
            Victim::Agent(agent) => &mut self.agents[agent],
            Victim::Member(member) => &mut self.members[member],
        }
    }

    fn launch(&mut self, victim: Victim) -> Result<()> {
        let (name, mut command) = match victim {
            Victim::Server(server) => (format!("server-{server}"), self.server(server)),
            Victim::Agent(agent) => (format!("agent-{agent}"), self.agent(agent)?),
            Victim::Member(member) => (format!("etcd-{member}"), self.member(member)?),
        };
        let process = Process::start(&name, self.dir.path(), &mut command)?;
        *self.process(victim) = Some(process);
        Ok(())
    }

    fn server(&self, server: usize) -> Command {
        let store = if self.etcd.is_empty() {
            format!("sqlite:{}", self.dir.path().join("db/shoal.db").display())
        } else {
            let members = self.inner[self.to_members(server)].iter().map(Relay::address);
            format!("etcd://{}/chaos", members.collect::<Vec<_>>().join(","))
        };
        let mut command = self.program("shoal-hostdb");
        command.args(["--access", "off", "--listen", &format!("127.0.0.1:{}", self.ports[server])]);
        command.args(["--store", &store]);
        if let Some(clock) = self.clocks.get(server) {
            clock.rules(&mut command);
        }
        command
    }

    /// Which of the inner links are those of a server.
    fn to_members(&self, server: usize) -> std::ops::Range<usize> {
        server * self.etcd.len()..(server + 1) * self.etcd.len()
    }

    fn link(&self, link: Link) -> &Relay {
        match link {
            Link::Server(link) => &self.relays[link],
            Link::Etcd(link) => &self.inner[link],
            Link::Peer(member) => &self.inner[self.ports.len() * self.etcd.len() + member],
        }
    }

    fn apart(&self, server: usize, way: Way) {
        self.inner[self.to_members(server)].iter().for_each(|relay| relay.set(way));
    }

    /// The balancer, if there is one.
    pub(crate) fn balancer(&self) -> Option<&Arc<Balancer>> {
        self.balancer.as_ref()
    }

    fn agent(&self, agent: usize) -> Result<Command> {
        let config = self.dir.path().join(format!("agent-{agent}.toml"));
        let (program, table) = match &self.balancer {
            Some(balancer) if agent >= AGENTS => ("shoal-lb", balancer.table()),
            _ => ("shoal-dns", files(&self.dir.path().join("zones"))),
        };
        let text = format!("name = 'a{agent}'\nclaim = '{LEASE}'\nresync = '5s'\n{table}");
        fs::write(&config, text).context("a configuration")?;
        let mut command = self.program(program);
        command.args(["--store", &self.addresses(CLIENTS + agent), "--config"]).arg(config);
        Ok(command)
    }

    fn member(&self, member: usize) -> Result<Command> {
        // The others reach it through a link that can be cut.
        let links = &self.inner[self.ports.len() * self.etcd.len()..];
        let all = links.iter().enumerate();
        let all = all.map(|(n, relay)| format!("n{n}={}", relay.url())).collect::<Vec<_>>();
        let (client, peer) = self.etcd[member];
        let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(system("etcd").context("etcd is not installed")?);
        command
            .args(["--name", &format!("n{member}"), "--data-dir"])
            .arg(self.dir.path().join(format!("etcd-{member}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &links[member].url()])
            .args(["--initial-cluster", &all.join(","), "--log-level", "warn", "--logger", "zap"]);
        Ok(command)
    }

    /// That every member says that its cluster has a leader.
    fn etcd_answers(&self) -> Result<()> {
        for (client, _) in &self.etcd {
            let mut said = String::new();
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *client)).context("etcd")?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).context("etcd")?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").context("etcd")?;
            stream.read_to_string(&mut said).context("etcd")?;
            ensure!(said.contains(r#""health":"true""#), "etcd says {said:?}");
        }
        Ok(())
    }

    fn answers(&mut self, server: usize) -> Result<()> {
        let url = format!("http://127.0.0.1:{}", self.ports[server]);
        wait::until("a server", wait::PATIENCE, || {
            if let Some(process) = self.process(Victim::Server(server)) {
                process.alive()?;
            }
            output(self.program("shoal").args(["--store", &url, "get", "hosts"]), &[0])
        })
        .map(drop)
    }

    /// It goes wrong.
    pub(crate) fn begin(&mut self, what: What) -> Result<()> {
        match what {
            What::Kill(victim) => *self.process(victim) = None,
            What::Restart(victim) => {
                let process = self.process(victim).take().context("it does not run")?;
                let told = process.signal("TERM");
                self.leaving.insert(victim, process);
                told?;
            }
            What::Stop(victim) => self.signal(victim, "STOP")?,
            What::Link(link, way) => self.link(link).set(way),
            What::Apart(server, way) => self.apart(server, way),
            What::Clock(server, seconds) => self.clocks[server].set(seconds)?,
            What::Disk => self.disk.as_ref().context("there is no disk")?.fill()?,
        }
        Ok(())
    }

    /// It is over.
    pub(crate) fn end(&mut self, what: What) -> Result<()> {
        match what {
            What::Kill(victim) => self.launch(victim)?,
            What::Restart(victim) => {
                let process = self.leaving.remove(&victim).context("nobody told it to end")?;
                let ended = in_order(process);
                self.launch(victim)?;
                ended?;
            }
            What::Stop(victim) => self.signal(victim, "CONT")?,
            What::Link(link, _) => self.link(link).set(Way::Open),
            What::Apart(server, _) => self.apart(server, Way::Open),
            What::Clock(server, _) => self.clocks[server].set(0)?,
            What::Disk => self.disk.as_ref().context("there is no disk")?.free()?,
        }
        Ok(())
    }

    fn signal(&mut self, victim: Victim, name: &str) -> Result<()> {
        self.process(victim).as_ref().context("it does not run")?.signal(name)
    }

    /// Who ended, though nobody killed it; it is started again.
    pub(crate) fn deaths(&mut self) -> Vec<String> {
        let servers = (0..self.servers.len()).map(Victim::Server);
        let agents = (0..self.agents.len()).map(Victim::Agent);
        let members = (0..self.members.len()).map(Victim::Member);
        let everybody: Vec<Victim> = servers.chain(agents).chain(members).collect();
        let mut wrong = Vec::new();
        for victim in everybody {
            let Some(process) = self.process(victim) else { continue };
            if let Err(why) = process.alive() {
                wrong.push(format!("{why:#}"));
                wrong.extend(self.launch(victim).err().map(|why| format!("{why:#}")));
            }
        }
        wrong
    }
}

/// The agent's own part of a configuration: zone files in this folder, which nobody serves.
pub(crate) fn files(folder: &Path) -> String {
    format!(
        "[agent.bind]\ndirectory = {:?}\nfile = \"{{zone}}\"\ncheck = []\nreload = []\n",
        folder.display().to_string()
    )
}

/// Waits until one that was told to end has, in order. One that had only just begun may not know yet that it can be told.
fn in_order(mut process: Process) -> Result<()> {
    // Who is told twice does not end otherwise.
    let status = process.terminate(wait::PATIENCE)?;
    let good = status.success() || status.signal() == Some(TERM);
    ensure!(good, "told to end, it ended with {status}:\n{}", process.tail());
    Ok(())
}

/// So many free ports, no two of them the same.
fn free(count: usize) -> Result<Vec<u16>> {
    let mut all = Vec::new();
    while all.len() < count {
        let port = ports::free()?;
        if !all.contains(&port) {
            all.push(port);
        }
    }
    Ok(all)
}

/// The wall clock of one process. What a person sets is that; the time since the boot goes on.
struct Clock {
    library: String,
    file: PathBuf,
}

impl Clock {
    /// So many, which are right; none, where libfaketime is not there.
    fn of(dir: &Path, count: usize) -> Result<Vec<Self>> {
        let said = Command::new("faketime").args(["-f", "+0", "env"]).output();
        let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let Some(library) = said.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")) else {
            println!("SKIPPED: chaos, clocks: faketime is not installed");
            return Ok(Vec::new());
        };
        let clock = |n| {
            let clock = Self { library: library.to_owned(), file: dir.join(format!("clock-{n}")) };
            clock.set(0).map(|()| clock)
        };
        (0..count).map(clock).collect()
    }

    fn set(&self, seconds: i64) -> Result<()> {
        // At once: half of it would be another time.
        let fresh = self.file.with_extension("fresh");
        fs::write(&fresh, format!("{seconds:+}")).context("a clock")?;
        fs::rename(fresh, &self.file).context("a clock")
    }

    fn rules(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("DONT_FAKE_MONOTONIC", "1");
    }
}

/// How large a disk is that is filled, in MiB, for a run of this length. No run comes near it by what clients write: history stays, and
/// a disk that it filled would be full for good. It is memory, all of it while the disk is full.
fn room(length: Duration) -> u64 {
    (48 * (1 + length.as_secs() / 60)).min(1_024)
}

/// A small disk in memory.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// One of so many MiB.
    fn mount(folder: &Path, room: u64) -> Result<Self> {
        let size = format!("size={room}m");
        output(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder), &[0])?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn balloon(&self) -> PathBuf {
        self.folder.join("balloon")
    }

    fn fill(&self) -> Result<()> {
        let mut balloon = File::create(self.balloon()).context("a balloon")?;
        let piece = vec![0; 1 << 20];
        while balloon.write_all(&piece).is_ok() {}
        // Commits go into the log, which keeps the length that it had once: for seconds they would need no room.
        let length = balloon.metadata().context("a balloon")?.len();
        balloon.set_len(length.saturating_sub(LOG)).context("a balloon")?;
        balloon.seek(SeekFrom::End(0)).context("a balloon")?;
        // Somebody may be reading it. Then this time is not felt.
        let _ = self.empty_log();
        while balloon.write_all(&piece).is_ok() {}
        Ok(())
    }

    /// Has SQLite's log copied into the file, and cut to nothing.
    fn empty_log(&self) -> rusqlite::Result<()> {
        let connection = Connection::open(self.folder.join("shoal.db"))?;
        connection.busy_timeout(Duration::from_secs(1))?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(self.balloon()).context("a balloon")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_told_to_end_and_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let ends = |name: &str, code: u32| {
            let script = format!("trap 'exit {code}' TERM; echo ready; while :; do sleep 0.1; done");
            let process = Process::start(name, dir.path(), Command::new("sh").args(["-c", &script])).unwrap();
            let ready = || if process.tail().contains("ready") { Ok(()) } else { Err("it is not ready") };
            wait::until("a script", wait::PATIENCE, ready).unwrap();
            in_order(process)
        };
        ends("good", 0).unwrap();
        let why = ends("bad", 3).unwrap_err().to_string();
        assert!(why.contains("exit status: 3"), "{why}");
        let unaware = Process::start("unaware", dir.path(), Command::new("sleep").arg("1000")).unwrap();
        in_order(unaware).unwrap();
    }

    #[test]
    fn a_long_run_has_a_large_disk_and_none_takes_all_memory() {
        let minutes = |minutes: u64| room(Duration::from_secs(60 * minutes));
        assert_eq!(room(Duration::from_secs(30)), 48);
        assert_eq!([minutes(10), minutes(30), minutes(600)], [528, 1_024, 1_024]);
    }
}
