//! The programs on etcd, by TLS and with certificates: the command, a server and an agent as processes. What the store does with it is
//! tested in `shared/store-etcd`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_client::certificates::Authority;
use shoal_tests::binaries::{binary, system};
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};

/// An etcd that lets in who has a certificate of its authority.
struct World {
    // Before the folder: fields are dropped in order.
    etcd: Process,
    port: u16,
    dir: tempfile::TempDir,
}

impl World {
    fn new(etcd: PathBuf) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-etcd-").tempdir().context("a scratch folder")?;
        let authority = Authority::new()?;
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, &authority.pem)?;
        let (cert, key) = authority.server(&["127.0.0.1"])?.write(dir.path(), "etcd")?;
        authority.client("shoal")?.write(dir.path(), "shoal")?;
        let (port, peer, health) = (ports::free()?, ports::free()?, ports::free()?);
        let (at, peer) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        command.args(["--listen-metrics-urls", &format!("http://127.0.0.1:{health}")]);
        command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ca);
        let mut etcd = Process::start("etcd", dir.path(), &mut command)?;
        wait::until("etcd", wait::PATIENCE, || {
            etcd.alive()?;
            let mut said = String::new();
            let mut tcp = std::net::TcpStream::connect(("127.0.0.1", health))?;
            tcp.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            tcp.read_to_string(&mut said)?;
            ensure!(said.contains(r#""health":"true""#), "{said}");
            Ok(())
        })?;
        Ok(Self { etcd, port, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn store(&self) -> String {
        format!("etcds://127.0.0.1:{}/fleet", self.port)
    }

    /// The program, told nothing yet.
    fn program(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(binary(name)?);
        for variable in ["STORE", "CA", "CERT", "KEY", "TOKEN_FILE", "PASSWORD_FILE", "LOG"] {
            command.env_remove(format!("SHOAL_{variable}"));
        }
        command.env_remove("RUST_LOG").env("SHOAL_AUTHOR", "ann");
        Ok(command)
    }

    /// The command, on this store and with a certificate.
    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = self.program("shoal")?;
        command.args(["--store", &self.store()]).arg("--ca").arg(self.path("ca.pem"));
        command.arg("--cert").arg(self.path("shoal.pem")).arg("--key").arg(self.path("shoal.key"));
        command.args(args);
        Ok(command)
    }

    /// Runs it, and answers what it says.
    fn shoal(&self, args: &[&str]) -> Result<String> {
        output(&mut self.command(args)?, &[0])
    }
}

/// A server of such a database.
struct Server {
    _process: Process,
    url: String,
}

impl Server {
    fn start(world: &World, name: &str, access: &str) -> Result<Self> {
        let http = format!("127.0.0.1:{}", ports::free()?);
        let mut command = world.program("shoal-hostdb")?;
        command.args(["--listen", &http, "--access", access, "--store", &world.store()]);
        for (variable, file) in [("CA", "ca.pem"), ("CERT", "shoal.pem"), ("KEY", "shoal.key")] {
            command.env(format!("SHOAL_{variable}"), world.path(file));
        }
        let mut process = Process::start(name, world.dir.path(), &mut command)?;
        let url = format!("http://{http}");
        wait::until(name, wait::PATIENCE, || {
            process.alive()?;
            let (status, said) = ask(&url, "", &["/readyz"])?;
            ensure!(status == 200, "{status}: {said}");
            Ok(())
        })?;
        Ok(Self { _process: process, url })
    }

    /// Asks with a token, or without (it is empty): the status, and what is said.
    fn ask(&self, token: &str, request: &[&str]) -> Result<(u16, String)> {
        ask(&self.url, token, request)
    }
}

/// The first of a request is the path; what follows is for curl.
fn ask(url: &str, token: &str, request: &[&str]) -> Result<(u16, String)> {
    let (path, more) = request.split_first().context("a path")?;
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "30", "-w", "\n%{http_code}"]).arg(format!("{url}{path}"));
    if !token.is_empty() {
        command.args(["-H", &format!("Authorization: Bearer {token}")]);
    }
    let said = output(command.args(more), &[0])?;
    let (body, status) = said.rsplit_once('\n').context("a status")?;
    Ok((status.trim().parse().context("a status")?, body.to_owned()))
}

/// An etcd, where there is one, and curl.
#[allow(clippy::print_stdout, reason = "what cannot run says so")]
fn there(test: &str) -> Option<PathBuf> {
    let etcd = system("etcd");
    if etcd.is_none() || system("curl").is_none() {
        println!("SKIPPED: {test}: etcd or curl is not installed (apt install etcd-server curl)");
        return None;
    }
    etcd
}

/// Two servers share a database: what was written through the one is read at the other in the next moment, and a right that was given or
/// taken there counts here.
#[test]
fn what_one_server_acknowledged_is_read_at_another() -> Result<()> {
    let Some(etcd) = there("what_one_server_acknowledged_is_read_at_another") else { return Ok(()) };
    let world = World::new(etcd)?;
    let admin = world.shoal(&["token", "create", "--owner", "root", "-m", "x"])?;
    let admin = admin.lines().next().context("a token")?;
    world.shoal(&["group", "add", "admins", "root", "-m", "x"])?;
    let (one, two) = (Server::start(&world, "one", "on")?, Server::start(&world, "two", "on")?);
    for n in 0..40 {
        let (to, from) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let body = format!("{{\"document\": {{\"n\": \"v{n}\"}}}}");
        let path = "/api/v2/hosts/web1.example.com?author=root&message=m";
        let put = [path, "-X", "PUT", "-H", "Content-Type: application/json", "-d", &body];
        let (status, said) = to.ask(admin, &put)?;
        ensure!(status < 300, "{status}: {said}");
        let at_once = [
            "/api/v2/hosts/web1.example.com".to_owned(),
            "/api/v2/hosts".to_owned(),
            format!("/api/v2/search?where=n%3D%3D%27v{n}%27"),
        ];
        for path in &at_once {
            let (status, said) = from.ask(admin, &[path])?;
            ensure!(
                status == 200 && said.contains(&format!("\"v{n}\"")),
                "{path} after {n}: {status}: {said}"
            );
        }
        // It may be older, and says what it is.
        let (status, said) = from.ask(admin, &["/api/v2/hosts/web1.example.com?stale=true", "-i"])?;
        let head = said.to_lowercase();
        ensure!(
            status == 200 && head.contains("shoal-revision: ") && head.contains("age: "),
            "{status}: {said}"
        );
    }
    // A token that is made at one and taken away there.
    for n in 0..5 {
        let made = world.shoal(&["token", "create", "--owner", "root", "-m", "x"])?;
        let token = made.lines().next().context("a token")?;
        let id = token.split('_').nth(1).context("an id")?;
        let (status, said) = one.ask(token, &["/api/v2/whoami"])?;
        ensure!(status == 200, "{n}: {status}: {said}");
        world.shoal(&["token", "revoke", id, "-m", "x"])?;
        let (status, said) = two.ask(token, &["/api/v2/whoami"])?;
        ensure!(status == 401, "{n}: {status}: {said}");
    }
    Ok(())
}

/// A server whose etcd hangs says that it cannot tell, and lets nobody do anything any more once what it knows of rights is too old.
#[test]
fn a_server_whose_etcd_hangs_believes_nobody_for_long() -> Result<()> {
    let Some(etcd) = there("a_server_whose_etcd_hangs_believes_nobody_for_long") else { return Ok(()) };
    let world = World::new(etcd)?;
    world.shoal(&["put", "web1.example.com", "rack=a", "-m", "the first"])?;
    let admin = world.shoal(&["token", "create", "--owner", "root", "-m", "x"])?;
    let admin = admin.lines().next().context("a token")?;
    world.shoal(&["group", "add", "admins", "root", "-m", "x"])?;
    let (asking, open) = (Server::start(&world, "asking", "on")?, Server::start(&world, "open", "off")?);
    let (fresh, stale) = ("/api/v2/hosts/web1.example.com", "/api/v2/hosts/web1.example.com?stale=true");
    for path in [fresh, stale] {
        let (status, said) = asking.ask(admin, &[path])?;
        ensure!(status == 200, "{path}: {status}: {said}");
    }
    world.etcd.signal("STOP")?;
    let refused = wait::until("that rights are believed no longer", wait::PATIENCE, || {
        let (status, said) = asking.ask(admin, &[stale])?;
        ensure!(status != 200, "it is answered");
        Ok::<_, anyhow::Error>((status, said))
    })?;
    ensure!(refused.0 == 503 && refused.1.contains("urn:shoal:problem:unavailable"), "{refused:?}");
    let (status, said) = open.ask("", &[fresh])?;
    ensure!(status == 503 && said.contains("stale=true"), "{status}: {said}");
    ensure!(asking.ask("", &["/healthz"])?.0 == 200);
    // Where nobody is asked for a right, what is known is answered for as long as it takes.
    let (status, said) = open.ask("", &[stale, "-i"])?;
    ensure!(status == 200 && said.to_lowercase().contains("age: "), "{status}: {said}");
    world.etcd.signal("CONT")?;
    wait::until("that it answers again", wait::PATIENCE, || {
        for server in [&asking, &open] {
            let (status, said) = server.ask(admin, &[fresh])?;
            ensure!(status == 200, "{status}: {said}");
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(())
}

#[test]
fn command_server_and_agent_share_a_database_in_etcd() -> Result<()> {
    let Some(etcd) = system("etcd") else {
        println!(
            "SKIPPED: command_server_and_agent_share_a_database_in_etcd: etcd is not installed (apt install etcd-server)"
        );
        return Ok(());
    };
    let world = World::new(etcd)?;
    world.shoal(&["put", "web1.example.com", "rack=a", "-m", "the first"])?;
    // Who shows nothing is not let in, and told where it tried.
    let mut stranger = world.program("shoal")?;
    stranger.args(["--store", &world.store(), "get", "web1.example.com", "--ca"]).arg(world.path("ca.pem"));
    let out = stranger.output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure!(out.status.code() == Some(1) && said.contains(&format!("127.0.0.1:{}", world.port)), "{said}");

    // A server before it, told by its environment.
    let http = format!("127.0.0.1:{}", ports::free()?);
    let mut command = world.program("shoal-hostdb")?;
    command.args(["--listen", &http, "--access", "off"]).env("SHOAL_STORE", world.store());
    for (variable, file) in [("CA", "ca.pem"), ("CERT", "shoal.pem"), ("KEY", "shoal.key")] {
        command.env(format!("SHOAL_{variable}"), world.path(file));
    }
    let mut server = Process::start("hostdb", world.dir.path(), &mut command)?;
    wait::until("the server", wait::PATIENCE, || {
        server.alive()?;
        std::net::TcpStream::connect(&http).map_err(anyhow::Error::from)
    })?;
    let mut through = world.program("shoal")?;
    through.args(["--store", &format!("http://{http}"), "get", "web1.example.com", "-o", "json"]);
    let said = output(&mut through, &[0])?;
    ensure!(said.contains("\"rack\""), "{said}");

    // An agent, told by its configuration: it publishes its schema and finds nothing to do.
    let text = format!(
        "store = {:?}\nca = {:?}\ncert = {:?}\nkey = {:?}\n[agent]\ndir = {:?}\n",
        world.store(),
        world.path("ca.pem"),
        world.path("shoal.pem"),
        world.path("shoal.key"),
        world.path("motd")
    );
    std::fs::create_dir(world.path("motd"))?;
    std::fs::write(world.path("example.toml"), text)?;
    let mut agent = world.program("shoal-example")?;
    output(agent.args(["--once", "--config"]).arg(world.path("example.toml")), &[0])?;
    ensure!(!world.shoal(&["get", "schemas/motd"])?.is_empty());
    Ok(())
}

/// After a snapshot was restored another life of the database begins when a person says so, and not before; who goes on meanwhile hears of
/// it, and what was committed stands there.
#[test]
fn another_life_of_the_database_begins_when_it_is_said() -> Result<()> {
    let Some(etcd) = there("another_life_of_the_database_begins_when_it_is_said") else { return Ok(()) };
    let world = World::new(etcd)?;
    world.shoal(&["put", "web1.example.com", "rack=a", "-m", "the first"])?;
    let server = Server::start(&world, "server", "off")?;
    let head = || -> Result<(serde_json::Value, serde_json::Value)> {
        let (status, said) = server.ask("", &["/api/v2/store/head"])?;
        ensure!(status == 200, "{status}: {said}");
        let head: serde_json::Value = serde_json::from_str(&said)?;
        ensure!(head["epoch"].is_u64() && head["revision"].is_u64(), "{said}");
        Ok((head["epoch"].clone(), head["revision"].clone()))
    };
    let first = head()?;
    let revision = first.1.clone();
    let mode = |path: PathBuf, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    mode(world.path("shoal.key"), 0o600)?;
    let unsaid = world.command(&["database", "renew"])?.output()?;
    let said = String::from_utf8_lossy(&unsaid.stderr).into_owned();
    ensure!(unsaid.status.code() == Some(2) && said.contains("nothing was done"), "{said}");
    ensure!(!said.contains("warning:") && head()? == first, "{said}");

    // A key that everybody may read is named before anything is done with it.
    mode(world.dir.path().to_owned(), 0o755)?;
    mode(world.path("shoal.key"), 0o644)?;
    let mut lives = vec![first.0];
    for _ in 0..2 {
        let done = world.command(&["database", "renew", "--yes", "-o", "json"])?.output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(done.status.success() && said.matches("warning:").count() == 1, "{said}");
        let done: serde_json::Value = serde_json::from_slice(&done.stdout)?;
        let epoch = u64::from_str_radix(done["epoch"].as_str().context("an epoch")?, 16)?;
        ensure!(
            done["revision"] == revision && lives.iter().all(|life| *life != epoch),
            "{done} after {lives:?}"
        );
        wait::until("that the server hears of it", wait::PATIENCE, || {
            let (now, at) = head()?;
            ensure!(now == epoch && at == revision, "{now} as of {at}");
            Ok::<_, anyhow::Error>(())
        })?;
        lives.push(epoch.into());
    }
    let (status, said) = server.ask("", &["/api/v2/hosts/web1.example.com"])?;
    ensure!(status == 200 && said.contains("\"rack\""), "{status}: {said}");
    world.shoal(&["put", "web1.example.com", "rack=b", "-m", "it goes on"])?;
    Ok(())
}
