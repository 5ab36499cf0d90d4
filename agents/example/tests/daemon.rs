//! The example as a daemon: it follows, shows itself, reloads, and gives back what it held when it is told to stop.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set its world up has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shoal_core::{Change, Commit, Document};
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;

struct Daemon {
    child: Child,
    systemd: UnixDatagram,
    address: String,
    log: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition, at most half a minute.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn configure(dir: &Path, files: &str) {
    std::fs::create_dir_all(dir.join(files)).unwrap();
    let text = format!("claim = '3s'\n[agent]\ndir = {:?}\n", dir.join(files));
    std::fs::write(dir.join("new.toml"), text).unwrap();
    std::fs::rename(dir.join("new.toml"), dir.join("motd.toml")).unwrap();
}

fn start(dir: &Path) -> Daemon {
    let socket = dir.join("systemd");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal-example"))
        .args([
            "--listen",
            "127.0.0.1:0",
            "--store",
            &format!("sqlite:{}", dir.join("shoal.db").display()),
            "--config",
        ])
        .arg(dir.join("motd.toml"))
        .env("NOTIFY_SOCKET", &socket)
        .env("WATCHDOG_USEC", "200000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let (lines, keep) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            keep.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    let mut daemon = Daemon { child, systemd, address: String::new(), log };
    daemon.hears("READY=1");
    daemon.address = daemon.bound();
    daemon
}

impl Daemon {
    /// The address that it logged last.
    fn bound(&self) -> String {
        let mut found = None;
        until("it says where it listens", || {
            let log = self.log.lock().unwrap();
            found = log.rmatch_indices("bound=").next().map(|(at, _)| {
                let rest = &log[at + 6..];
                rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())].to_owned()
            });
            found.is_some()
        });
        found.unwrap()
    }

    /// Waits until systemd is told this.
    fn hears(&self, word: &str) {
        let mut buffer = [0; 1024];
        loop {
            let n = self
                .systemd
                .recv(&mut buffer)
                .unwrap_or_else(|e| panic!("{word}: {e}\n{}", self.log.lock().unwrap()));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|line| line == word) {
                return;
            }
        }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

fn commit(store: &SqliteStore, runtime: &tokio::runtime::Runtime, rows: &[(&str, &str)]) {
    let change =
        |(key, value): &(&str, &str)| Change::put(key.parse().unwrap(), Document::parse(value).unwrap());
    let commit = Commit {
        pre: vec![],
        changes: rows.iter().map(change).collect(),
        author: "ann".into(),
        principal: None,
        message: "test".into(),
        idempotency: None,
        intent: None,
    };
    runtime.block_on(store.commit(commit)).unwrap();
}

#[test]
fn a_daemon_follows_shows_itself_reloads_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().to_owned();
    configure(&path, "one");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(SqliteStore::open(path.join("shoal.db"))).unwrap();
    commit(
        &store,
        &runtime,
        &[
            ("hosts/web1.example.com", r#"{"id":"h1","document":{}}"#),
            ("motd/all", r#"{"document":{"banner":"one"}}"#),
            ("motd/all/members/web1.example.com", "{}"),
        ],
    );
    let mut daemon = start(&path);
    let says = |folder: &str, text: &str| {
        let file = path.join(folder).join("web1.example.com");
        until(text, || std::fs::read_to_string(&file).is_ok_and(|have| have.contains(text)));
    };
    says("one", "one");
    commit(&store, &runtime, &[("motd/all", r#"{"document":{"banner":"two"}}"#)]);
    says("one", "two");
    daemon.hears("WATCHDOG=1");
    assert!(daemon.get("/healthz").contains("200 OK"));
    assert!(daemon.get("/readyz").contains("200 OK"));
    let mut metrics = String::new();
    let counted = |metrics: &str, name: &str, labels: &[&str], value: &str| {
        metrics.lines().any(|line| {
            line.starts_with(name) && labels.iter().all(|label| line.contains(label)) && line.ends_with(value)
        })
    };
    until("metrics count the changes", || {
        metrics = daemon.get("/metrics");
        counted(&metrics, "shoal_changes_total{", &["verb=\"update\"", "cause=\"intended\""], " 1")
            && counted(&metrics, "shoal_items{", &["agent=\"motd\""], " 1")
    });
    until("its report says so", || {
        let reports = runtime.block_on(store.reports()).unwrap();
        reports.iter().any(|r| r.units.get("files").is_some_and(|u| u.items == 1 && u.behind_total == 0))
    });
    // A configuration that cannot be read changes nothing; a good one is taken over.
    std::fs::write(path.join("motd.toml"), "[agent]\ndri = 'x'\n").unwrap();
    until("it refuses the bad configuration", || {
        daemon.log.lock().unwrap().contains("the old configuration stays")
    });
    configure(&path, "two");
    daemon.signal("HUP");
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    says("two", "two");
    daemon.signal("TERM");
    daemon.hears("STOPPING=1");
    assert!(daemon.child.wait().unwrap().success());
    assert!(runtime.block_on(store.claims("unit/motd/")).unwrap().is_empty(), "claims are given back");
}
