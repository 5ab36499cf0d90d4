//! Secrets of the server itself, of who comes to it and of agents, planted and looked for: no log, plan, history, metric, status, error or
//! file of the database holds one. Of tokens and passwords the database has hashes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_client::certificates::Authority;
use shoal_tests::binaries::{binary, system};
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};

/// What is planted in passwords; of tokens and keys their own text is looked for.
const MARK: &str = "pl4nted";

/// A server over TLS and on a socket, with all that it says; and the secrets, apart.
struct World {
    // Before the folder: fields are dropped in order.
    server: Process,
    port: u16,
    dir: tempfile::TempDir,
    /// What must not be found, by what it is.
    secrets: BTreeMap<&'static str, String>,
    said: String,
}

impl World {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-planted-").tempdir().context("a scratch folder")?;
        for folder in ["node", "said", "db"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        let node = dir.path().join("node");
        let authority = Authority::new()?;
        fs::write(node.join("ca.pem"), &authority.pem)?;
        let (cert, key) = authority.server(&["localhost"])?.write(&node, "server")?;
        let port = ports::free()?;
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.arg("--store").arg(format!("sqlite:{}", dir.path().join("db/shoal.db").display()));
        command.args(["--listen", &format!("https://127.0.0.1:{port}"), "--hostdb-v1", "--listen"]);
        command.arg(format!("unix:{}", dir.path().join("sock").display()));
        command.arg("--tls-cert").arg(cert).arg("--tls-key").arg(&key).env("SHOAL_LOG", "debug");
        let server = Process::start("hostdb", &dir.path().join("said"), &mut command)?;
        let pem = fs::read_to_string(key)?;
        let line = pem.lines().nth(1).context("a key")?.to_owned();
        let secrets = BTreeMap::from([("the server's private key", line)]);
        let mut this = Self { server, port, dir, secrets, said: String::new() };
        wait::until("the server", wait::PATIENCE, || {
            this.server.alive()?;
            let mut get = Command::new(binary("shoal")?);
            output(get.arg("--store").arg(this.socket()).arg("get"), &[0])
        })?;
        Ok(this)
    }

    fn socket(&self) -> String {
        format!("unix:{}", self.dir.path().join("sock").display())
    }

    fn node(&self, name: &str) -> PathBuf {
        self.dir.path().join("node").join(name)
    }

    /// A secret in a file of the node.
    fn plant(&mut self, what: &'static str, name: &str, text: &str) -> Result<()> {
        fs::write(self.node(name), text)?;
        fs::set_permissions(self.node(name), fs::Permissions::from_mode(0o600))?;
        self.secrets.insert(what, text.trim().to_owned());
        Ok(())
    }

    /// What a program says, whatever becomes of it, is kept.
    fn run(&mut self, program: &str, line: &[&str]) -> Result<String> {
        let path = if program.starts_with("shoal") { binary(program)? } else { PathBuf::from(program) };
        let mut command = Command::new("timeout");
        command.arg("60").arg(path).args(line).current_dir(self.node("")).env("SHOAL_AUTHOR", "me");
        command.env("SHOAL_LOG", "debug").env("SHOAL_CA", self.node("ca.pem"));
        let out = command.output()?;
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        self.said += &text;
        Ok(text)
    }

    /// As the server's own user, who administers.
    fn local(&mut self, line: &[&str]) -> Result<String> {
        let socket = self.socket();
        self.run("shoal", &[&["--store", &socket], line].concat())
    }

    /// With the token in a file.
    fn with(&mut self, token: &str, line: &[&str]) -> Result<String> {
        let url = format!("https://localhost:{}", self.port);
        self.run("shoal", &[&["--store", &url, "--token-file", token], line].concat())
    }

    fn curl(&mut self, path: &str, more: &[&str]) -> Result<String> {
        let url = format!("https://localhost:{}{path}", self.port);
        self.run("curl", &[&["-sS", "--noproxy", "*", "--cacert", "ca.pem", &url], more].concat())
    }

    /// A token, in a file, and what is secret in it.
    fn token(&mut self, what: &'static str, name: &str, of: &[&str]) -> Result<()> {
        // Printed once, for who makes it.
        let mut make = Command::new(binary("shoal")?);
        make.arg("--store").arg(self.socket()).args(["token", "create", "-m", "x"]).args(of);
        let text = output(&mut make, &[0])?.lines().next().unwrap_or_default().to_owned();
        self.plant(what, name, &text)?;
        let secret = text.rsplit('_').next().context("a token")?.to_owned();
        self.secrets.insert(what, secret);
        Ok(())
    }
}

/// The files below a folder that hold this text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(at).into_iter().flatten().flatten() {
            let path = entry.path();
            match fs::read(&path) {
                _ if path.is_dir() => folders.push(path),
                Ok(octets) if octets.windows(text.len()).any(|part| part == text.as_bytes()) => {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found
}

/// People come in, are refused, are mistaken, and lose what they had.
fn people(w: &mut World) -> Result<()> {
    w.token("a person's token", "ann.token", &["--owner", "ann", "--namespace", "lb"])?;
    w.token("a token that is revoked", "lost.token", &["--owner", "bob"])?;
    w.token("an administrator's token", "root.token", &["--owner", "dora"])?;
    w.local(&["user", "add", "ann", "-m", "x"])?;
    w.local(&["group", "add", "admins", "dora", "-m", "x"])?;
    for (what, name) in
        [("the first password", "first"), ("another password", "second"), ("a wrong password", "wrong")]
    {
        w.plant(what, name, &format!("{MARK} {name} horse"))?;
    }
    w.local(&["user", "password", "ann", "-f", "first", "-m", "x"])?;
    for token in ["ann.token", "lost.token", "root.token"] {
        w.with(token, &["put", "lb/web", "port=80", "-m", "hers"])?;
        w.with(token, &["put", "dns/x", "ttl=1", "-m", "not hers"])?;
        w.with(token, &["token", "list"])?;
    }
    let lost = fs::read_to_string(w.node("lost.token"))?;
    // People paste the whole of it.
    w.local(&["token", "revoke", &lost, "-m", "lost"])?;
    w.with("lost.token", &["get", "hosts"])?;
    let url = format!("https://localhost:{}", w.port);
    for (old, new) in [("wrong", "second"), ("first", "second"), ("first", "second")] {
        w.run("shoal", &["--store", &url, "user", "password", "ann", "--old", old, "-f", new, "-m", "x"])?;
    }
    let json = "Content-Type: application/json";
    for body in [
        format!("{{\"user\": \"ann\", \"password\": \"{MARK} wrong horse\"}}"),
        format!("{{\"user\": \"ann\", \"password\": [\"{MARK} wrong horse\"]}}"),
        format!("{{\"user\": \"{MARK}ann\", \"pass\": \"{MARK} wrong horse\""),
        format!("{{\"user\": \"ann\", \"password\": \"{MARK} second horse\", \"new\": \"{MARK}\"}}"),
    ] {
        w.curl("/api/v2/sessions", &["-H", json, "-d", &body])?;
        w.curl("/api/v2/password", &["-X", "PUT", "-H", json, "-d", &body])?;
        w.curl("/v1/auth/session", &["-d", &format!("username=ann&password={MARK} wrong horse")])?;
    }
    // A session is shown to who begins it, and to nobody else.
    let body = format!("{{\"user\": \"ann\", \"password\": \"{MARK} second horse\"}}");
    let mut login = Command::new("curl");
    login.args(["-sS", "--noproxy", "*", "--cacert"]).arg(w.node("ca.pem")).args(["-H", json, "-d", &body]);
    let began = output(login.arg(format!("{url}/api/v2/sessions")), &[0])?;
    let began: serde_json::Value = serde_json::from_str(&began).context("a session")?;
    let session = began["token"].as_str().context("a session")?.to_owned();
    w.plant("a session", "session", &session)?;
    w.secrets.insert("a session", session.rsplit('_').next().context("a session")?.to_owned());
    w.with("session", &["token", "list"])?;
    Ok(())
}

/// Agents plan, work, and fail.
fn agents(w: &mut World) -> Result<()> {
    w.token("an agent's token", "dns.token", &["--agent", "dns"])?;
    w.token("the backup agent's token", "backup.token", &["--agent", "backup"])?;
    // 32 octets, in base64.
    w.plant("a TSIG key", "tsig", "cGw0bnRlZC1UU0lHLWtleS1vZi0zMi1vY3RldHMtb2s=")?;
    w.plant("a TSIG key that is none", "broken", "pl4nted-no-base64!!")?;
    w.plant("restic's password", "restic", &format!("{MARK}-restic"))?;
    w.plant(
        "the address of a repository with a password",
        "where",
        &format!("rest:http://me:{MARK}-in-url@127.0.0.1:9/"),
    )?;
    let url = format!("https://localhost:{}", w.port);
    let common = |token: &str, more: String| {
        format!("store = \"{url}\"\nca = \"ca.pem\"\ntoken_file = \"{token}\"\n{more}")
    };
    let port = ports::free()?;
    for (name, key) in [("dns", "tsig"), ("dns-broken", "broken")] {
        let text = format!(
            "[agent.server]\nlisten = \"127.0.0.1:{port}\"\n[agent.server.transfer]\nnotify = [\"127.0.0.1:9\"]\n\
             key = {{ name = \"shoal\", secret_file = \"{key}\" }}\n"
        );
        fs::write(w.node(&format!("{name}.toml")), common("dns.token", text))?;
    }
    let text = format!(
        "[secrets]\nrestic = {{ file = \"{}\" }}\nwhere = {{ file = \"{}\" }}\n[agent]\nstate = \"{}\"\n\
         [agent.repositories.main]\nurl = \"secret:where\"\npassword = \"secret:restic\"\n",
        w.node("restic").display(),
        w.node("where").display(),
        w.dir.path().join("said/backup").display()
    );
    fs::write(w.node("backup.toml"), common("backup.token", text))?;
    w.local(&["put", "web1.example.com", "address=192.0.2.1", "-m", "x"])?;
    w.local(&["put", "dns/example.com", "--member", "web1.example.com", "-m", "x"])?;
    fs::write(
        w.node("policy.yaml"),
        "tag: backup/all\ndocument: {paths: [/etc/hostname], repositories: [main]}\nmembers: [web1.example.com]\n",
    )?;
    w.local(&["apply", "-f", "policy.yaml", "-m", "x"])?;
    for (agent, config) in
        [("shoal-dns", "dns.toml"), ("shoal-dns", "dns-broken.toml"), ("shoal-backup", "backup.toml")]
    {
        for how in ["--plan", "--once"] {
            w.run(agent, &["--config", config, how, "--output", "json", "--wait", "5s"])?;
        }
    }
    Ok(())
}

/// Those that have no secret but how they come to the database.
fn plain_agents(w: &mut World) -> Result<()> {
    w.token("the load balancer agent's token", "lb.token", &["--agent", "lb"])?;
    w.token("the placement agent's token", "placement.token", &["--agent", "placement"])?;
    w.token("the machine agent's token", "vm.token", &["--agent", "vm"])?;
    let url = format!("https://localhost:{}", w.port);
    let pools = w.node("pools");
    fs::create_dir(&pools)?;
    // HAProxy does not run, and its checker takes anything.
    let haproxy = format!(
        "[agent.haproxy]\ndirectory = \"{0}\"\nstats = \"{0}/none.sock\"\nmaster = \"{0}/none.sock\"\ncheck = [\"true\"]\n",
        pools.display()
    );
    let machines = w.node("machines");
    let nspawn =
        format!("[agent]\nbox = \"box1.example.com\"\n[agent.nspawn]\nstate = \"{}\"\n", machines.display());
    for (agent, more) in [("lb", haproxy.as_str()), ("placement", ""), ("vm", nspawn.as_str())] {
        let common = format!("store = \"{url}\"\nca = \"ca.pem\"\ntoken_file = \"{agent}.token\"\n");
        fs::write(w.node(&format!("{agent}.toml")), common + more)?;
    }
    w.local(&["put", "box1.example.com", "box.capacity.cpu=4", "-m", "x"])?;
    w.local(&["put", "lb/web", "--member", "web1.example.com", "-m", "x"])?;
    // One that stands, and that nobody made here: it is named, and left alone.
    let machine = [
        "put",
        "vm1.example.com",
        "image=debian-12",
        "size.cpu=1",
        "placement.on=box1.example.com",
        "-m",
        "x",
    ];
    w.local(&machine)?;
    w.local(&["put", "vm/all", "--member", "vm1.example.com", "-m", "x"])?;
    for (program, config) in
        [("shoal-lb", "lb.toml"), ("shoal-placement", "placement.toml"), ("shoal-vm", "vm.toml")]
    {
        for how in ["--plan", "--once"] {
            let said = w.run(program, &["--config", config, how, "--output", "json"])?;
            ensure!(!said.trim().is_empty() && !said.contains("Usage:"), "{program} {how}: {said}");
        }
    }
    Ok(())
}

#[test]
fn nothing_that_is_said_or_kept_holds_a_secret() -> Result<()> {
    if system("curl").is_none() {
        println!("SKIPPED: nothing_that_is_said_or_kept_holds_a_secret: curl is not installed");
        return Ok(());
    }
    let mut w = World::new()?;
    people(&mut w)?;
    agents(&mut w)?;
    plain_agents(&mut w)?;
    for line in [
        &["log", "--limit", "1000", "-o", "json"][..],
        &["get", "access", "-o", "json"],
        &["status", "-o", "json"],
        &["user", "list"],
        &["token", "list", "-o", "json"],
        &["export"],
        &["diff", "1"],
        &["show", "3"],
    ] {
        let said = w.local(line)?;
        ensure!(!said.is_empty(), "{line:?} says nothing");
    }
    let root = format!("Authorization: Bearer {}", fs::read_to_string(w.node("root.token"))?.trim());
    for path in
        ["/metrics", "/api/v2/commits?limit=100", "/api/v2/history/access/users/ann", "/api/v2/status"]
    {
        let said = w.curl(path, &["-H", &root])?;
        ensure!(said.contains("shoal") || said.contains("items"), "{path}: {said}");
    }
    // Ended in the middle of it, as a fault would.
    w.server.signal("ABRT")?;
    wait::until("the end of the server", wait::PATIENCE, || match w.server.alive() {
        Ok(()) => Err("it runs"),
        Err(_) => Ok(()),
    })?;
    fs::write(w.dir.path().join("said/programs"), &w.said)?;
    let kept = [w.dir.path().join("said"), w.dir.path().join("db")];
    // That it is looked for in the right places: ids and hashes of tokens are there, and the secrets where they were planted.
    let id = fs::read_to_string(w.node("ann.token"))?.split('_').nth(1).context("an id")?.to_owned();
    for folder in &kept {
        ensure!(!holding(folder, &id).is_empty(), "{} says nothing of the token {id}", folder.display());
    }
    ensure!(!holding(&kept[1], "$argon2id$").is_empty(), "the database has no hash of a password");
    ensure!(w.said.contains("broken") && w.said.contains("it is not base64"), "{}", w.said);
    for (what, secret) in &w.secrets {
        ensure!(!holding(&w.node(""), secret).is_empty(), "{what} was not planted");
        for folder in &kept {
            let held = holding(folder, secret);
            ensure!(held.is_empty(), "{what} is in {held:?}");
        }
    }
    for folder in &kept {
        let held = holding(folder, MARK);
        ensure!(held.is_empty(), "{held:?}");
    }
    Ok(())
}
