//! Command and agent behind a server, each a process of its own: what they do, what they say when nobody answers, and that
//! an agent outlives its servers.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shoal_tests::binaries::binary;
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};

/// A database file, with servers in front of it and a folder that the example's agent fills.
struct World {
    // Before the folder: fields are dropped in order.
    agent: Option<Process>,
    server: Option<Process>,
    port: u16,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-remote-").tempdir().context("a scratch folder")?;
        let motd = dir.path().join("motd");
        std::fs::create_dir(&motd).context("a folder for the agent")?;
        std::fs::write(dir.path().join("motd.toml"), format!("claim = '3s'\n[agent]\ndir = {motd:?}\n"))
            .context("the agent's configuration")?;
        Ok(Self { agent: None, server: None, port: ports::free()?, dir })
    }

    fn tcp(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn unix(&self) -> String {
        format!("unix:{}", self.dir.path().join("hostdb.sock").display())
    }

    /// A server on the file, and its first answer.
    fn serve(&self, name: &str, listen: &[&str]) -> Result<Process> {
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.arg("--store").arg(format!("sqlite:{}", self.dir.path().join("shoal.db").display()));
        command.args(["--access", "off"]);
        for address in listen {
            command.arg("--listen").arg(address.trim_start_matches("http://"));
        }
        let mut server = Process::start(name, self.dir.path(), &mut command)?;
        wait::until(name, wait::PATIENCE, || {
            server.alive()?;
            listen.iter().try_for_each(|at| self.shoal(at, &["get"]).map(drop))
        })?;
        Ok(server)
    }

    fn command(&self, store: &str, line: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("shoal")?);
        command.args(["--store", store]).args(line).env("SHOAL_AUTHOR", "ann").env_remove("SHOAL_STORE");
        Ok(command)
    }

    fn shoal(&self, store: &str, line: &[&str]) -> Result<String> {
        output(&mut self.command(store, line)?, &[0])
    }

    fn example(&self, store: &str, line: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("shoal-example")?);
        command.args(["--store", store, "--config"]).arg(self.dir.path().join("motd.toml")).args(line);
        command.env_remove("SHOAL_STORE").env_remove("SHOAL_LOG").env_remove("RUST_LOG");
        Ok(command)
    }

    fn banner(&self, host: &str) -> PathBuf {
        self.dir.path().join("motd").join(host)
    }

    /// Waits until the agent has made a host's file say this, and lives.
    fn shows(&mut self, host: &str, text: &str) -> Result<()> {
        let path = self.banner(host);
        let agent = self.agent.as_mut().context("an agent")?;
        wait::until(host, wait::PATIENCE, || {
            agent.alive()?;
            let found = std::fs::read_to_string(&path).context("no file yet")?;
            ensure!(found == text, "it says {found:?}");
            Ok(())
        })
    }
}

#[test]
fn command_and_agent_work_through_a_server_as_on_the_file() -> Result<()> {
    let mut world = World::new()?;
    let (tcp, unix) = (world.tcp(), world.unix());
    world.server = Some(world.serve("server", &[&tcp, &unix])?);
    for (n, store) in [(1, &tcp), (2, &unix)] {
        let (host, tag) = (format!("web{n}.example.com"), format!("motd/t{n}"));
        let made = world.shoal(store, &["put", &host, "address=192.0.2.1", "-m", "one more"])?;
        ensure!(made.contains("1 row by ann"), "{made}");
        ensure!(world.shoal(store, &["get", &host])?.contains("192.0.2.1"));
        world.shoal(store, &["put", &tag, "banner=hello", "-m", "a greeting"])?;
        world.shoal(store, &["tag", &tag, &format!("+{host}"), "-m", "greet it"])?;
        let log = world.shoal(store, &["log", &tag])?;
        ensure!(log.contains("greet it") && log.contains("a greeting") && !log.contains("one more"), "{log}");
        output(&mut world.example(store, &["--once"])?, &[0])?;
        let said = std::fs::read_to_string(world.banner(&host)).context("the agent's file")?;
        ensure!(said == format!("{host}: hello\n"), "{said}");
        output(&mut world.example(store, &["--plan"])?, &[0])?;
    }
    world.agent = Some(Process::start("agent", world.dir.path(), &mut world.example(&unix, &[])?)?);
    let put = world.shoal(&tcp, &["put", "motd/t1", "banner=bye", "-m", "it closes"])?;
    let revision = put.split([' ', ':']).nth(1).context("a revision")?;
    world.shoal(&tcp, &["wait", "--revision", revision, "--timeout", "60s"])?;
    let said = std::fs::read_to_string(world.banner("web1.example.com")).context("the agent's file")?;
    ensure!(said == "web1.example.com: bye\n", "what was waited for is done: {said}");
    ensure!(world.shoal(&unix, &["explain", "web1.example.com"])?.contains("motd"));
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_told_with_what_to_do() -> Result<()> {
    let world = World::new()?;
    let (tcp, unix) = (world.tcp(), world.unix());
    let both = format!("{unix},{tcp}");
    let refused = "Connection refused";
    for (store, reason) in [(&tcp, refused), (&unix, "No such file or directory"), (&both, refused)] {
        let commands = [
            world.command(store, &["get", "web1.example.com"])?,
            world.command(store, &["put", "web1.example.com", "a=1", "-m", "x"])?,
            world.command(store, &["wait"])?,
            world.example(store, &["--once"])?,
            world.example(store, &["--plan"])?,
        ];
        for mut command in commands {
            // A machine that stalls is late once, and not each time.
            let mut took: Vec<Duration> = Vec::new();
            while took.iter().all(|took| *took >= Duration::from_secs(9)) {
                ensure!(took.len() < 4, "who was never there is not waited for: {command:?}: {took:?}");
                let began = Instant::now();
                let Output { status, stdout, stderr } = command.output().context("cannot run it")?;
                took.push(began.elapsed());
                let said = String::from_utf8_lossy(&stderr);
                ensure!(status.code() == Some(1) && stdout.is_empty(), "{command:?}: {status}: {said}");
                let whole = ["error: ", "cannot ", reason, "is shoal-hostdb running there? start it"];
                for part in whole.into_iter().chain(store.split(',')) {
                    ensure!(said.contains(part), "{part:?} is not in what {command:?} says: {said}");
                }
                ensure!(said.matches(reason).count() == 1, "said twice: {said}");
            }
        }
    }
    for (store, says) in [("https://", "https://HOST:PORT"), ("http://", "http://HOST:PORT")] {
        for mut command in [world.command(store, &["get"])?, world.example(store, &["--once"])?] {
            let out = command.output().context("cannot run it")?;
            let said = String::from_utf8_lossy(&out.stderr);
            ensure!(
                out.status.code() == Some(1) && said.contains(says),
                "{command:?}: {}: {said}",
                out.status
            );
        }
    }
    Ok(())
}

#[test]
fn an_agent_outlives_its_servers() -> Result<()> {
    let mut world = World::new()?;
    let (tcp, unix) = (world.tcp(), world.unix());
    let mut first = world.serve("first", &[&unix])?;
    let mut second = world.serve("second", &[&tcp])?;
    world.shoal(&tcp, &["put", "web1.example.com", "-m", "a host"])?;
    world.shoal(&tcp, &["put", "motd/all", "banner=one", "-m", "a greeting"])?;
    world.shoal(&tcp, &["tag", "motd/all", "+web1.example.com", "-m", "greet it"])?;
    let agent = &mut world.example(&format!("{unix},{tcp}"), &[])?;
    world.agent = Some(Process::start("agent", world.dir.path(), agent)?);
    world.shows("web1.example.com", "web1.example.com: one\n")?;

    first.kill();
    world.shoal(&tcp, &["put", "motd/all", "banner=two", "-m", "the other server has it"])?;
    world.shows("web1.example.com", "web1.example.com: two\n")?;

    // All of them, for longer than the client waits by itself.
    second.kill();
    let agent = world.agent.as_mut().context("an agent")?;
    wait::until("the agent notices", wait::PATIENCE, || {
        agent.alive()?;
        let said = agent.tail();
        ensure!(said.contains("the database is out of reach"), "it says {said}");
        Ok(())
    })?;
    // A dead server's socket is still there, and is taken over.
    let mut first = world.serve("first", &[&unix])?;
    world.shoal(&unix, &["put", "motd/all", "banner=three", "-m", "they are back"])?;
    world.shows("web1.example.com", "web1.example.com: three\n")?;

    // Told to stop while they are gone, it says nobody its last word, and does not wait for anybody.
    first.kill();
    let began = Instant::now();
    let status = world.agent.as_mut().context("an agent")?.terminate(wait::PATIENCE)?;
    ensure!(status.success(), "it ended with {status}");
    // Half a minute is what what is under way may take.
    ensure!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    Ok(())
}
