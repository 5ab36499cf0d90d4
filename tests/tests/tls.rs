//! TLS as people use it: the server, the command and an agent as processes, `curl` and `openssl` beside them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_client::certificates::{Authority, Wish};
use shoal_tests::binaries::{binary, system};
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};

/// A server with a certificate of an authority of its own, which asks clients for one of the same.
struct World {
    // Before the folder: fields are dropped in order.
    server: Process,
    port: u16,
    authority: Authority,
    dir: tempfile::TempDir,
}

impl World {
    fn new(wish: &Wish<'_>, more: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-tls-").tempdir().context("a scratch folder")?;
        let (authority, port) = (Authority::new()?, ports::free()?);
        std::fs::write(dir.path().join("ca.pem"), &authority.pem)?;
        let (cert, key) = authority.issue(wish)?.write(dir.path(), "server")?;
        authority.client("agent-motd")?.write(dir.path(), "agent")?;
        std::fs::write(dir.path().join("other.pem"), Authority::new()?.pem)?;
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.arg("--store").arg(format!("sqlite:{}", dir.path().join("shoal.db").display()));
        command.arg("--listen").arg(format!("https://127.0.0.1:{port}")).args(more);
        // Who may do what is asked elsewhere.
        command.args(["--access", "off"]);
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(key);
        command.arg("--client-ca").arg(dir.path().join("ca.pem"));
        let mut server = Process::start("hostdb", dir.path(), &mut command)?;
        wait::until("hostdb", wait::PATIENCE, || {
            server.alive()?;
            std::net::TcpStream::connect(("127.0.0.1", port)).map_err(anyhow::Error::from)
        })?;
        Ok(Self { server, port, authority, dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The program with its address and this authority.
    fn program(&self, name: &str, ca: &str) -> Result<Command> {
        let mut command = Command::new(binary(name)?);
        command.args(["--store", &self.url()]).arg("--ca").arg(self.path(ca)).env("SHOAL_AUTHOR", "ann");
        for variable in [
            "SHOAL_STORE",
            "SHOAL_CA",
            "SHOAL_CERT",
            "SHOAL_KEY",
            "SHOAL_TOKEN_FILE",
            "SHOAL_LOG",
            "RUST_LOG",
        ] {
            command.env_remove(variable);
        }
        Ok(command)
    }

    /// What a command says that ends with 1.
    fn refused(&self, command: &mut Command) -> Result<String> {
        let out = command.output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.code() == Some(1), "{command:?} ended with {}: {said}", out.status);
        Ok(said)
    }
}

fn for_localhost() -> Wish<'static> {
    Wish { names: &["localhost"], ..Wish::default() }
}

#[test]
fn curl_and_openssl_believe_the_server_by_its_authority() -> Result<()> {
    let (Some(curl), Some(openssl)) = (system("curl"), system("openssl")) else {
        println!(
            "SKIPPED: curl_and_openssl_believe_the_server_by_its_authority: curl or openssl is not installed"
        );
        return Ok(());
    };
    let world = World::new(&for_localhost(), &[])?;
    let health = format!("{}/healthz", world.url());
    let mut good = Command::new(&curl);
    good.args(["-sS", "--noproxy", "*", "--cacert"]).arg(world.path("ca.pem")).arg(&health);
    ensure!(output(&mut good, &[0])? == "ok\n");
    let mut bad = Command::new(&curl);
    bad.args(["-sS", "--noproxy", "*", "--cacert"]).arg(world.path("other.pem")).arg(&health);
    let out = bad.output()?;
    ensure!(out.status.code() == Some(60), "curl believes whom it should not: {out:?}");
    let plain = output(
        Command::new(&curl).args(["-sS", "--noproxy", "*"]).arg(health.replace("https", "http")),
        &[0],
    )?;
    ensure!(plain.contains("write https://"), "{plain}");
    let metrics = format!("{}/metrics", world.url());
    let text = output(
        Command::new(&curl)
            .args(["-sS", "--noproxy", "*", "--cacert"])
            .arg(world.path("ca.pem"))
            .arg(metrics),
        &[0],
    )?;
    let ends =
        text.lines().find_map(|l| l.strip_prefix("shoal_hostdb_certificate_expiry_timestamp_seconds "));
    let ends: u64 = ends.context("when the certificate ends")?.parse()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    ensure!((now + 3000..now + 4000).contains(&ends), "{ends} at {now}");
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new(&openssl);
        client.args([
            "s_client",
            "-brief",
            "-verify_return_error",
            version,
            "-verify_hostname",
            "localhost",
            "-CAfile",
        ]);
        client.arg(world.path("ca.pem")).args(["-connect", &format!("127.0.0.1:{}", world.port)]);
        let out = client.stdin(std::process::Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success() && said.contains("Verification: OK"), "{version}: {said}");
    }
    let mut old = Command::new(&openssl);
    old.args([
        "s_client",
        "-brief",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
        "-connect",
        &format!("127.0.0.1:{}", world.port),
    ]);
    ensure!(!old.stdin(std::process::Stdio::null()).output()?.status.success(), "it speaks TLS 1.1");
    Ok(())
}

#[test]
fn the_command_says_whom_it_does_not_believe() -> Result<()> {
    let world = World::new(&for_localhost(), &[])?;
    let put = ["put", "web1.example.com", "a=1", "-m", "one"];
    output(world.program("shoal", "ca.pem")?.args(put), &[0])?;
    let said = output(world.program("shoal", "ca.pem")?.args(["get", "web1.example.com"]), &[0])?;
    ensure!(said.contains("a: 1"), "{said}");
    let said = world.refused(world.program("shoal", "other.pem")?.args(put))?;
    ensure!(said.contains("no authority that is trusted here") && said.contains("--ca FILE"), "{said}");
    let past = Wish { ends: Err(Duration::from_secs(60)), ..for_localhost() };
    let expired = World::new(&past, &[])?;
    let said = expired.refused(expired.program("shoal", "ca.pem")?.args(put))?;
    ensure!(said.contains("its certificate expired at ") && said.contains("renew it"), "{said}");
    ensure!(expired.server.tail().contains("expired"), "the server says so, too: {}", expired.server.tail());
    // A token never goes where others can read it, and is never told.
    let token = world.path("token");
    std::fs::write(&token, "hunter2")?;
    let mut plain = Command::new(binary("shoal")?);
    plain.args(["--store", "http://192.0.2.1:8053", "--token-file"]).arg(&token).args(["get"]);
    let said = world.refused(&mut plain)?;
    ensure!(said.contains("https://") && !said.contains("hunter2"), "{said}");
    Ok(())
}

fn agent(world: &World, cert: Option<&str>) -> Result<Command> {
    let motd = world.path("motd");
    std::fs::create_dir_all(&motd)?;
    let file = |name: String| world.path(&name).display().to_string();
    let shown = cert.map(|cert| {
        format!("cert = '{}'\nkey = '{}'\n", file(format!("{cert}.pem")), file(format!("{cert}.key")))
    });
    let text = format!("claim = '3s'\n{}[agent]\ndir = {motd:?}\n", shown.unwrap_or_default());
    std::fs::write(world.path("motd.toml"), text)?;
    let mut command = world.program("shoal-example", "ca.pem")?;
    command.arg("--config").arg(world.path("motd.toml"));
    Ok(command)
}

#[test]
fn an_agent_that_is_refused_waits_until_it_is_let_in() -> Result<()> {
    let world = World::new(&for_localhost(), &["--client-cert", "required"])?;
    let said = world.refused(agent(&world, None)?.arg("--once"))?;
    ensure!(said.contains("it demands a certificate") && said.contains("--cert FILE"), "{said}");
    output(agent(&world, Some("agent"))?.arg("--once"), &[0])?;
    // As a daemon it does not end: somebody may renew what it shows.
    let past = Wish { common: Some("agent-motd"), ends: Err(Duration::from_secs(60)), ..Wish::default() };
    let renew = |wish: &Wish<'_>| -> Result<()> {
        world.authority.issue(wish)?.write(world.dir.path(), "agent").map(drop).context("a certificate")
    };
    renew(&past)?;
    let mut daemon = Process::start("agent", world.dir.path(), &mut agent(&world, Some("agent"))?)?;
    wait::until("the agent says why", wait::PATIENCE, || {
        daemon.alive()?;
        let said = daemon.tail();
        ensure!(
            said.contains("the certificate of this end has expired") && said.contains("trying again"),
            "{said}"
        );
        Ok(())
    })?;
    let log = world.path("hostdb.log");
    let told = read(&log)?;
    ensure!(told.contains("its certificate expired at "), "the server says whom it did not let in: {told}");
    renew(&Wish { common: Some("agent-motd"), ..Wish::default() })?;
    let mut apply = world.program("shoal", "ca.pem")?;
    apply.arg("--cert").arg(world.path("agent.pem")).arg("--key").arg(world.path("agent.key"));
    apply.args(["status", "-o", "json"]);
    wait::until("the agent is let in", wait::PATIENCE, || {
        daemon.alive()?;
        let said = output(&mut apply, &[0])?;
        ensure!(said.contains("\"agent\""), "{said}");
        Ok(())
    })
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}
