//! Repositories on real servers: SFTP, restic's own protocol over HTTP, and S3. Each is backed up to, removed from with credentials of its
//! own, restored from octet for octet, and taken away, which is said in bounded time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

#[path = "../../../tests/aws/moto.rs"]
mod moto;
mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use support::repository;
use support::sshd::Sshd;
use support::{HOST, Scratch, free, here, long, tree};

fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// A server, killed when dropped.
struct Server(Child);

impl Server {
    fn start(mut command: Command, port: u16) -> Self {
        let server =
            Self(command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap());
        support::until("the server answers", || answers(port));
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// restic by hand, with the repository's address and more of an environment.
fn restic(
    scratch: &Scratch,
    url: &str,
    more: &[(&str, &str)],
    options: &[&str],
    args: &[&str],
) -> (bool, String) {
    let mut command = Command::new("restic");
    command.args(options).args(["-r", url, "--password-file", &scratch.text("password")]).args(args);
    command.env("RESTIC_CACHE_DIR", scratch.path("cache")).envs(more.iter().copied());
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Where a repository is, for backups and for removal: each an address, and what else `[agent.repositories.main]` has.
struct Place {
    url: String,
    more: String,
    removal: String,
    secrets: String,
}

fn configure(scratch: &Scratch, place: &Place) {
    let text = format!(
        "[secrets]\nrestic = {{ file = {:?} }}\n{}\n[agent]\nstate = {:?}\nhost = \"{HOST}\"\nretry = \"1s\"\nanswer = \"15s\"\n\
         [agent.repositories.main]\nurl = {:?}\npassword = \"secret:restic\"\n{}\n[agent.repositories.main.removal]\n{}\n",
        scratch.path("password"),
        place.secrets,
        scratch.path("state"),
        place.url,
        place.more,
        place.removal,
    );
    fs::write(scratch.path("backup.toml"), text).unwrap();
}

/// Backs up twice, keeps one, restores; then the server goes.
async fn lives_and_loses(scratch: &Scratch, place: &Place, list: impl Fn() -> usize, away: impl FnOnce()) {
    configure(scratch, place);
    scratch.policy(json!({"keep": {"last": 1}, "verify": {"check": "0 5 * * *", "read": 100, "restore": "720h", "sample": 3}})).await;
    for night in 0..2 {
        scratch.fill("files", 20, night);
        if night > 0 {
            scratch.age(48);
            scratch.upkeep_due("main");
        }
        scratch.converge();
    }
    scratch.upkeep_due("main");
    scratch.converge();
    assert_eq!(list(), 1, "the others were removed");
    let fact = &scratch.fact().await["nightly@main"];
    assert!(fact["restored"] != json!("never"), "{fact}");
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
    away();
    scratch.age(48);
    let began = Instant::now();
    let (code, said) = scratch.run(&["--once", "--wait", "25s"]);
    assert!(
        code != 0 && began.elapsed() < Duration::from_secs(60),
        "{code} after {:?}: {said}",
        began.elapsed()
    );
    assert!(said.contains(&format!("{HOST} nightly@main")), "{said}");
    let why = &scratch.fact().await["nightly@main"]["failed"]["why"];
    assert!(why.as_str().is_some_and(|why| why.contains("repository main")), "{why} {said}");
}

#[tokio::test]
async fn over_sftp() {
    if !long("a repository over SFTP") || !here("servers") || !Sshd::here("servers") {
        return;
    }
    let scratch = Scratch::new();
    let sshd = Sshd::start(&scratch.path("sshd"), "repo1");
    let (url, ssh) = (format!("sftp:repo1:{}", scratch.text("far")), sshd.config.display().to_string());
    let option = format!("sftp.command=ssh -F {ssh} repo1 -s sftp");
    repository::lay(&scratch.path("far"));
    // Whoever removes comes with another key.
    let removal =
        format!("options = [\"sftp.command=ssh -F {ssh} -i {} repo1 -s sftp\"]", sshd.second_key().display());
    let place =
        Place { url: url.clone(), more: format!("options = [{option:?}]"), removal, secrets: String::new() };
    let list = || {
        serde_json::from_str::<Vec<serde_json::Value>>(
            &restic(&scratch, &url, &[], &["-o", &option], &["-q", "snapshots", "--json"]).1,
        )
        .unwrap()
        .len()
    };
    lives_and_loses(&scratch, &place, list, || sshd.stop()).await;
}

fn rclone(folder: &std::path::Path, port: u16, only_append: bool) -> Server {
    let mut command = Command::new("rclone");
    command.args([
        "serve",
        "restic",
        "--addr",
        &format!("127.0.0.1:{port}"),
        "--user",
        "shoal",
        "--pass",
        "geheim42",
    ]);
    command
        .args(only_append.then_some("--append-only"))
        .arg(folder)
        .env("RCLONE_CONFIG", folder.join("none"));
    Server::start(command, port)
}

#[tokio::test]
async fn over_http() {
    if !here("servers") {
        return;
    }
    if !Command::new("rclone").arg("version").output().is_ok_and(|out| out.status.success()) {
        println!("SKIPPED: servers: rclone is not installed");
        return;
    }
    let scratch = Scratch::new();
    repository::lay(&scratch.path("far"));
    // Backups come to a server that only appends, removal to one that does not.
    let (append, whole) = (free(), free());
    let appends = rclone(&scratch.path("far"), append, true);
    let removes = rclone(&scratch.path("far"), whole, false);
    let url = |port: u16| format!("rest:http://shoal:geheim42@127.0.0.1:{port}/");
    fs::write(scratch.path("append"), url(append)).unwrap();
    fs::write(scratch.path("whole"), url(whole)).unwrap();
    let secrets = format!(
        "append = {{ file = {:?} }}\nwhole = {{ file = {:?} }}",
        scratch.path("append"),
        scratch.path("whole")
    );
    let place = Place {
        url: "secret:append".to_owned(),
        more: String::new(),
        removal: "url = \"secret:whole\"".to_owned(),
        secrets,
    };
    let all = || restic(&scratch, &url(whole), &[], &[], &["-q", "snapshots", "--json"]).1;
    let list = || serde_json::from_str::<Vec<serde_json::Value>>(&all()).unwrap().len();
    lives_and_loses(&scratch, &place, list, || {
        // With the credentials for backups nothing can be removed.
        let (removed, said) = restic(
            &scratch,
            &url(append),
            &[],
            &[],
            &["forget", "--host", HOST, "--keep-last", "1", "latest"],
        );
        assert!(!removed || list() == 1, "{said}");
        drop(appends);
        drop(removes);
    })
    .await;
    assert!(!scratch.status().await.contains("geheim42"));
    // One that takes the connection and never answers is given up on as well.
    let _hung = std::net::TcpListener::bind(("127.0.0.1", append)).unwrap();
    let began = Instant::now();
    let (code, said) = scratch.run(&["--once", "--wait", "40s"]);
    assert!(code != 0 && began.elapsed() < Duration::from_secs(75), "{said}");
    assert!(said.contains("it took longer than 15 s"), "{said}");
}

/// moto's own server, which answers as S3 does; `None`: no Python here has it.
fn s3(port: u16) -> Option<Server> {
    let mut command = Command::new(moto::python("a repository over S3")?);
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(Server::start(command, port))
}

/// Makes a bucket, or an object in it. moto asks nobody who they are.
fn put(port: u16, path: &str, octets: &[u8]) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = octets.len();
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), octets].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().is_some_and(|line| line.contains(" 200 ")), "{path}: {answer}");
}

#[tokio::test]
async fn over_s3() {
    if !long("a repository over S3") || !here("servers") {
        return;
    }
    let port = free();
    let Some(server) = s3(port) else { return };
    let scratch = Scratch::new();
    let url = format!("s3:http://127.0.0.1:{port}/backups");
    let keys = [("AWS_ACCESS_KEY_ID", "backup"), ("AWS_SECRET_ACCESS_KEY", "geheim42")];
    put(port, "backups", &[]);
    for (object, octets) in repository::objects() {
        put(port, &format!("backups/{object}"), &octets);
    }
    for (name, value) in [("id", "backup"), ("key", "geheim42"), ("rid", "removal"), ("rkey", "geheim43")] {
        fs::write(scratch.path(name), value).unwrap();
    }
    let secret = |name: &str| format!("{name} = {{ file = {:?} }}\n", scratch.path(name));
    let environment = |id: &str, key: &str| {
        format!(
            "environment = {{ AWS_ACCESS_KEY_ID = \"secret:{id}\", AWS_SECRET_ACCESS_KEY = \"secret:{key}\" }}"
        )
    };
    let place = Place {
        url: url.clone(),
        more: environment("id", "key"),
        removal: environment("rid", "rkey"),
        secrets: ["id", "key", "rid", "rkey"].map(secret).concat(),
    };
    let all = || restic(&scratch, &url, &keys, &[], &["-q", "snapshots", "--json"]).1;
    let list = || serde_json::from_str::<Vec<serde_json::Value>>(&all()).unwrap().len();
    lives_and_loses(&scratch, &place, list, || drop(server)).await;
    assert!(
        !tree(&scratch.path("state")).values().any(|text| String::from_utf8_lossy(text).contains("geheim4"))
    );
}
