//! The program `shoal-hostdb` itself: starting, stopping, what survives, and what it refuses to start on.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::harness::{Events, PATIENCE};

/// A server process that answers.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) url: String,
    log: Lines<BufReader<ChildStderr>>,
}

/// The program on this store, with more on its command line; it asks nobody who he is.
pub(crate) fn command(store: &str, more: &[&str]) -> Command {
    program("off", store, more)
}

/// The same, asking who may do what.
pub(crate) fn asking(store: &str, more: &[&str]) -> Command {
    program("on", store, more)
}

fn program(access: &str, store: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-hostdb"));
    command.args(["--store", store, "--log-format", "json", "--access", access]).args(more);
    // The name that every program of Shoal has in common counts.
    command.env("SHOAL_LOG", "info").env("RUST_LOG", "off");
    command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Program {
    pub(crate) async fn start(store: &str) -> Self {
        Self::of(command(store, &["--listen", "127.0.0.1:0"])).await
    }

    /// What this command becomes.
    pub(crate) async fn of(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = tokio::time::timeout(PATIENCE, log.next_line()).await.unwrap().unwrap().unwrap();
            let line: Value = serde_json::from_str(&line).unwrap();
            if line["fields"]["message"] == "listening" {
                break line["fields"]["at"].as_str().unwrap().to_owned();
            }
        };
        Self { child, url, log }
    }

    /// The next line of its log.
    pub(crate) async fn line(&mut self) -> String {
        self.log.next_line().await.unwrap().expect("it lives")
    }

    async fn put(&self, host: &str) {
        let put =
            reqwest::Client::new().put(format!("{}/api/v2/hosts/{host}?author=ann&message=m", self.url));
        let put = put.json(&json!({"document": {"a": 1}})).timeout(PATIENCE).send().await.unwrap();
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }

    /// SIGTERM, and the end; the exit code and what was logged.
    async fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        let pid = self.child.id().unwrap();
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await.unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        let mut lines = Vec::new();
        while let Some(line) = self.log.next_line().await.unwrap() {
            lines.push(line);
        }
        (status.code(), lines)
    }
}

#[tokio::test]
async fn a_watch_survives_the_death_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let mut first = Program::start(&store).await;
    let client = reqwest::Client::new();
    let watch = |url: &str| client.get(format!("{url}/api/v2/watch?prefix=hosts/"));
    let mut events = Events::open(watch(&first.url)).await;
    events.next_named("upto").await;
    first.put("web1.example.com").await;
    let seen = events.next_named("commit").await;
    first.child.kill().await.unwrap();
    while events.next().await.is_some() {}

    let second = Program::start(&store).await;
    second.put("web2.example.com").await;
    let mut events = Events::open(watch(&second.url).header("last-event-id", &seen.id)).await;
    let next = events.next().await.unwrap();
    assert_eq!(
        (next.name.as_str(), &next.data["changes"][0]["key"]),
        ("commit", &json!("hosts/web2.example.com"))
    );
    let (code, log) = second.terminate().await;
    assert_eq!(code, Some(0), "{log:?}");
    assert!(log.iter().any(|l| l.contains("\"stopped\"")), "{log:?}");
    while let Some(event) = events.next().await {
        assert_eq!(event.name, "upto", "a watch ends with its server");
    }
}

#[tokio::test]
async fn two_servers_on_one_file_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
    let (one, two) = (Program::start(&store).await, Program::start(&store).await);
    let watch = reqwest::Client::new().get(format!("{}/api/v2/watch", two.url));
    let mut events = Events::open(watch).await;
    events.next_named("upto").await;
    one.put("web1.example.com").await;
    assert_eq!(events.next_named("commit").await.data["revision"], 1);
    // Conditions are judged on what stands there, not on what this server has seen.
    let put =
        reqwest::Client::new().put(format!("{}/api/v2/hosts/web1.example.com?author=b&message=m", two.url));
    let put = put.json(&json!({})).header("if-match", "\"r1\"").send().await.unwrap();
    assert_eq!(put.status(), 200);
    let put =
        reqwest::Client::new().put(format!("{}/api/v2/hosts/web1.example.com?author=b&message=m", one.url));
    let put = put.json(&json!({})).header("if-match", "\"r1\"").send().await.unwrap();
    assert_eq!(put.status(), 412);
    one.terminate().await;
    two.terminate().await;
}

#[tokio::test]
async fn systemd_hears_that_it_is_ready_lives_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("systemd");
    let systemd = tokio::net::UnixDatagram::bind(&socket).unwrap();
    let heard = async |word: &str| {
        let mut buffer = [0; 1024];
        loop {
            let n = tokio::time::timeout(PATIENCE, systemd.recv(&mut buffer)).await.expect(word).unwrap();
            if buffer[..n].split(|c| *c == b'\n').any(|line| line == word.as_bytes()) {
                return;
            }
        }
    };
    let mut told = command("memory:", &["--listen", "127.0.0.1:0"]);
    told.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000").env_remove("WATCHDOG_PID");
    let mut child = told.stderr(Stdio::null()).spawn().unwrap();
    heard("READY=1").await;
    heard("WATCHDOG=1").await;
    heard("WATCHDOG=1").await;
    let pid = child.id().unwrap().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    heard("STOPPING=1").await;
    assert!(tokio::time::timeout(PATIENCE, child.wait()).await.expect("it ends").unwrap().success());
}

async fn refuses(code: i32, store: &str, more: &[&str], says: &[&str]) {
    let run = command(store, more).output();
    let output = tokio::time::timeout(PATIENCE, run).await.unwrap().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in says {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[tokio::test]
async fn it_does_not_start_where_it_should_not() {
    let dir = tempfile::tempdir().unwrap();
    let good = format!("sqlite:{}", dir.path().join("shoal.db").display());
    refuses(2, &good, &["--listen", "0.0.0.0:0"], &["plain HTTP on 0.0.0.0:0", "--allow-plain-http"]).await;
    refuses(2, &good, &["--listen", "https://127.0.0.1:0"], &["--tls-cert FILE --tls-key FILE"]).await;
    refuses(2, &good, &["--tls-cert", "x", "--tls-key", "x"], &["https://ADDRESS:PORT"]).await;
    refuses(2, &good, &["--client-cert", "required"], &["--client-ca FILE"]).await;
    let tls = ["--listen", "https://127.0.0.1:0", "--tls-cert", "/nonexistent.pem", "--tls-key", "x"];
    refuses(1, &good, &tls, &["cannot set up TLS", "/nonexistent.pem"]).await;
    refuses(2, &good, &["--listen", "nonsense"], &["nonsense", "127.0.0.1:PORT"]).await;
    refuses(1, "sqlite:/nonexistent/dir/x.db", &[], &["/nonexistent/dir"]).await;
    let broken = dir.path().join("broken.db");
    std::fs::write(&broken, "this is no database ".repeat(500)).unwrap();
    refuses(1, &format!("sqlite:{}", broken.display()), &[], &["broken.db"]).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(1, &good, &["--listen", &address], &[&address, "cannot listen"]).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_noticed_at_once() {
    let gone =
        reqwest::Client::new().get("http://127.0.0.1:1/healthz").timeout(Duration::from_secs(5)).send().await;
    assert!(gone.unwrap_err().is_connect());
}
