//! Who may do what, as processes: the command through a server that asks, local users, and the page about it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use shoal_tests::binaries::binary;
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{pages, ports, wait};

/// A server that asks, on loopback and on a socket.
struct World {
    // Before the folder: fields are dropped in order.
    _server: Process,
    url: String,
    store: String,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("shoal-access-").tempdir().context("a scratch folder")?;
        let (store, port) = (format!("sqlite:{}", dir.path().join("shoal.db").display()), ports::free()?);
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args(["--store", &store, "--listen", &format!("127.0.0.1:{port}"), "--listen"]);
        command.arg(format!("unix:{}", dir.path().join("sock").display()));
        let mut server = Process::start("hostdb", dir.path(), &mut command)?;
        let url = format!("http://127.0.0.1:{port}");
        wait::until("the server", wait::PATIENCE, || {
            server.alive()?;
            let ready = Command::new("curl").args(["-fsS", &format!("{url}/readyz")]).output();
            ensure!(ready.is_ok_and(|ready| ready.status.success()), "not ready:\n{}", server.tail());
            Ok(())
        })?;
        Ok(Self { _server: server, url, store, dir })
    }

    /// A command on the file itself.
    fn file(&self, line: &[&str]) -> Result<String> {
        let mut command = Command::new(binary("shoal")?);
        output(command.args(["--store", &self.store]).args(line).env("SHOAL_AUTHOR", "me"), &[0])
    }

    /// A command through the server, with somebody's token; what it prints, errors too.
    fn as_who(&self, who: &str, code: i32, line: &[&str]) -> Result<String> {
        let file = self.dir.path().join(who);
        if !file.exists() {
            let token = self.file(&["token", "create", "--owner", who, "-m", "x"])?;
            std::fs::write(&file, token.lines().next().unwrap_or_default()).context("a token")?;
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&file, private).context("a token")?;
        }
        let mut command = Command::new(binary("shoal")?);
        command
            .args(["--store", &self.url, "--token-file"])
            .arg(&file)
            .args(line)
            .env("SHOAL_AUTHOR", "somebody");
        said(&mut command, code)
    }

    /// A command through the socket.
    fn local(&self, code: i32, line: &[&str]) -> Result<String> {
        let mut command = Command::new(binary("shoal")?);
        let socket = format!("unix:{}", self.dir.path().join("sock").display());
        said(command.args(["--store", &socket]).args(line).env("SHOAL_AUTHOR", "somebody"), code)
    }
}

/// What a command says, which ends with this code.
fn said(command: &mut Command, code: i32) -> Result<String> {
    let out = command.env_remove("SHOAL_STORE").output().context("a command")?;
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    ensure!(out.status.code() == Some(code), "{command:?} ended with {:?}:\n{text}", out.status.code());
    Ok(text)
}

#[allow(clippy::print_stdout, reason = "what cannot run says so")]
fn there(test: &str, program: &str) -> bool {
    let there = shoal_tests::binaries::system(program).is_some();
    if !there {
        println!("SKIPPED: {test}: {program} is not installed");
    }
    there
}

/// The command through a server: what a person may, what refuses, and a change that takes two.
#[test]
fn people_work_through_a_server_as_far_as_they_may() -> Result<()> {
    if !there("people_work_through_a_server_as_far_as_they_may", "curl") {
        return Ok(());
    }
    let world = World::new()?;
    for line in [
        "group add web ann bob -m x",
        "acl set lb/ @web=rw -m x",
        "acl set lb/gold --protected -m x",
        "put hosts/web1 a=1 -m x",
        "put lb/web port=80 -m x",
        "put lb/gold port=443 -m x",
    ] {
        world.file(&line.split(' ').collect::<Vec<_>>())?;
    }
    world.as_who("ann", 0, &["tag", "lb/web", "+web1", "-m", "hers"])?;
    let no = world.as_who("carl", 1, &["tag", "lb/web", "-web1", "-m", "his"])?;
    ensure!(
        no.contains("carl may not write the members of lb/web") && no.contains("refused by built-in"),
        "{no}"
    );
    // Nobody speaks for another, and the log says from where.
    let log = world.as_who("carl", 0, &["log", "lb/web", "-o", "json"])?;
    let log: Vec<serde_json::Value> = serde_json::from_str(&log).context("a log")?;
    ensure!(log[0]["author"] == "ann" && log[0]["principal"] == "ann", "{log:?}");
    ensure!(
        log[0]["origin"]
            .as_str()
            .is_some_and(|origin| origin.starts_with("127.0.0.1:") && origin.contains("token")),
        "{log:?}"
    );
    // What takes two.
    let no = world.as_who("ann", 1, &["tag", "lb/gold", "+web1", "-m", "gold"])?;
    ensure!(no.contains("access/rules/lb/gold: protected") && no.contains("shoal review propose"), "{no}");
    world.as_who("ann", 0, &["tag", "lb/gold", "+web1", "-m", "gold", "--review"])?;
    let list: Vec<serde_json::Value> =
        serde_json::from_str(&world.as_who("bob", 0, &["review", "list", "-o", "json"])?)
            .context("a list")?;
    ensure!(list.len() == 1 && list[0]["proposer"] == "ann", "{list:?}");
    let id = list[0]["id"].as_str().context("an id")?;
    let no = world.as_who("ann", 1, &["review", "approve", id, "-m", "mine"])?;
    ensure!(no.contains("own proposal"), "{no}");
    world.as_who("bob", 0, &["review", "approve", id, "-m", "right"])?;
    let log = world.as_who("carl", 0, &["log", "lb/gold"])?;
    ensure!(log.contains("ann (by bob)"), "{log}");
    // A token that was revoked is refused at once.
    let token = std::fs::read_to_string(world.dir.path().join("ann")).context("a token")?;
    world.file(&["token", "revoke", token.trim(), "-m", "lost"])?;
    wait::until("the server to hear of it", wait::PATIENCE, || {
        world.as_who("ann", 1, &["get"]).and_then(|no| {
            ensure!(no.contains("was revoked"), "{no}");
            Ok(())
        })
    })
}

/// An agent with a token of its own plans and works; with a person's it ends at once, and says once why.
#[test]
fn an_agent_works_with_a_token_of_its_own() -> Result<()> {
    if !there("an_agent_works_with_a_token_of_its_own", "curl") {
        return Ok(());
    }
    let world = World::new()?;
    for line in
        ["put hosts/web1 a=1 -m x", "put motd/all banner=one --member web1 -m x", "put vault/safe a=1 -m x"]
    {
        world.file(&line.split(' ').collect::<Vec<_>>())?;
    }
    let path = |name: &str| world.dir.path().join(name);
    std::fs::create_dir(path("motd"))?;
    std::fs::write(path("motd.toml"), format!("[agent]\ndir = {:?}\n", path("motd")))?;
    for (name, of) in [("own", ["--agent", "motd"]), ("person", ["--owner", "carl"])] {
        let token = world.file(&["token", "create", of[0], of[1], "-m", "x"])?;
        std::fs::write(path(name), token.lines().next().unwrap_or_default())?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path(name), private)?;
    }
    let agent = |token: &str, code: i32, what: &str| {
        let mut command = Command::new(binary("shoal-example")?);
        command.args(["--store", &world.url, "--config"]).arg(path("motd.toml"));
        said(command.arg("--token-file").arg(path(token)).arg(what), code)
    };
    agent("own", 3, "--plan")?;
    agent("own", 0, "--once")?;
    ensure!(std::fs::read_to_string(path("motd").join("web1"))?.contains("one"), "it wrote something else");
    world.file(&["put", "motd/all", "banner=two", "-m", "x"])?;
    agent("person", 3, "--plan")?;
    let no = agent("person", 1, "--once")?;
    let times = |what: &str| no.matches(what).count();
    ensure!(
        times("shoal token create --agent motd") >= 1 && times("join the other instances: ") <= 1,
        "{no}"
    );
    ensure!(times("not looked at yet") == 0 && times("still waiting") == 0, "{no}");
    // What it may not read is named, with what would do.
    world.file(&["acl", "set", "vault/", "*=none", "-m", "x"])?;
    let no = agent("own", 1, "--plan")?;
    ensure!(no.contains("access/rules/vault") && no.contains("shoal acl set vault"), "{no}");
    Ok(())
}

/// The socket knows local users by the kernel's word: the server's own administers, another is the user of that name.
#[test]
#[allow(clippy::print_stdout, reason = "what cannot run says so")]
fn local_users_are_known() -> Result<()> {
    if !there("local_users_are_known", "curl") {
        return Ok(());
    }
    let world = World::new()?;
    world.local(0, &["group", "add", "admins", "somebody-else", "-m", "x"])?;
    let log = world.local(0, &["log"])?;
    ensure!(log.contains("unix uid "), "{log}");
    // As an administrator one sees all but the hashes.
    world.local(0, &["token", "create", "--owner", "ann", "-m", "x"])?;
    let rows = world.local(0, &["get", "access", "-o", "json"])?;
    ensure!(rows.contains("(hidden)") && rows.contains(r#""owner":"ann""#), "{rows}");
    let (socket, root) =
        (world.dir.path().join("sock"), output(Command::new("id").arg("-u"), &[0])?.trim() == "0");
    if !root || !there("local_users_are_known", "setpriv") {
        println!("SKIPPED: local_users_are_known: another local user needs root and setpriv");
        return Ok(());
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(world.dir.path(), open).context("a folder for all")?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(&socket, all).context("a socket for all")?;
    let other = |uid: &str, line: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args([&format!("--reuid={uid}"), "--clear-groups", "curl", "-sS", "--unix-socket"])
            .arg(&socket)
            .args(line);
        output(&mut command, &[0])
    };
    // Debian has had this one with this number for ever.
    let who = other("1", &["http://localhost/api/v2/whoami"])?;
    ensure!(who.contains(r#""principal":"daemon""#) && who.contains(r#""administrator":false"#), "{who}");
    // Whom the kernel cannot name has this number, and is nobody.
    let no = other("65534", &["http://localhost/api/v2/whoami"])?;
    ensure!(no.contains(r#""status":401"#) && no.contains("whom the kernel cannot name"), "{no}");
    let no = other(
        "1",
        &[
            "-X",
            "PUT",
            "http://localhost/api/v2/tags/lb/x?message=m",
            "-H",
            "Content-Type: application/json",
            "-d",
            "{}",
        ],
    )?;
    ensure!(no.contains("daemon may not write lb/x"), "{no}");
    Ok(())
}

#[test]
fn the_page_is_true() -> Result<()> {
    if !there("the_page_is_true", "curl") || !there("the_page_is_true", "openssl") {
        return Ok(());
    }
    let world = World::new()?;
    let bin = binary("shoal-hostdb")?;
    let path = format!(
        "{}:{}",
        bin.parent().context("a folder")?.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let env = [
        ("SHOAL_STORE", world.store.clone()),
        ("HOSTDB", world.url.clone()),
        ("TLS", format!("127.0.0.1:{}", ports::free()?)),
        ("PATH", path),
        ("SHOAL_AUTHOR", "me".to_owned()),
        ("no_proxy", "*".to_owned()),
    ];
    // They go on where the ones before them ended, in one shell.
    let all = pages::blocks(&repository().join("docs/access.md"))?.join("\n");
    pages::run(&all, world.dir.path(), &env)
}
