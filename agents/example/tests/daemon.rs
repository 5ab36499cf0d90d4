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
    let store = format!("sqlite:{}", dir.join("shoal.db").display());
    start_with(dir, &["--listen", "127.0.0.1:0", "--store", &store])
}

fn start_with(dir: &Path, args: &[&str]) -> Daemon {
    let socket = dir.join("systemd");
    let _ = std::fs::remove_file(&socket);
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal-example"))
        .args(args)
        .arg("--config")
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
            // As text or as JSON.
            found = log.rmatch_indices("bound").next().map(|(at, _)| {
                let rest = log[at + 5..].trim_start_matches(['=', '"', ':']);
                rest[..rest.find([' ', '\n', '"']).unwrap_or(rest.len())].to_owned()
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

    /// Waits until it has ended well.
    fn ends(&mut self) {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{}", self.log.lock().unwrap());
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
    let commit = Commit::new("ann", "test", rows.iter().map(change).collect());
    runtime.block_on(store.commit(commit)).unwrap();
}

const FLEET: &[(&str, &str)] = &[
    ("hosts/web1.example.com", r#"{"id":"h1","document":{}}"#),
    ("motd/all", r#"{"document":{"banner":"one"}}"#),
    ("motd/all/members/web1.example.com", "{}"),
];

fn open(runtime: &tokio::runtime::Runtime, path: &Path) -> SqliteStore {
    runtime.block_on(SqliteStore::open(path)).unwrap()
}

/// Waits until the file of `web1` in this folder says so.
fn says(folder: &Path, text: &str) {
    let file = folder.join("web1.example.com");
    until(text, || std::fs::read_to_string(&file).is_ok_and(|have| have.contains(text)));
}

#[test]
fn a_daemon_follows_shows_itself_reloads_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().to_owned();
    configure(&path, "one");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&runtime, &path.join("shoal.db"));
    commit(&store, &runtime, FLEET);
    let mut daemon = start(&path);
    let says = |folder: &str, text: &str| says(&path.join(folder), text);
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
    assert!(daemon.get("/metrics").contains("\nshoal_agent_config_ok{agent=\"motd\"} 0\n"));
    commit(&store, &runtime, &[("motd/all", r#"{"document":{"banner":"three"}}"#)]);
    says("one", "three");
    configure(&path, "two");
    daemon.signal("HUP");
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    // What it made stands in the other folder, so it waits for a word.
    let mut held = None;
    until("it is held", || {
        let reports = runtime.block_on(store.reports()).unwrap();
        held = reports.into_iter().find_map(|mut report| report.units.remove("files")?.held);
        held.is_some()
    });
    let digest = serde_json::json!({"digest": held.unwrap().digest}).to_string();
    commit(&store, &runtime, &[("approvals/motd/files", &digest)]);
    says("two", "three");
    assert!(daemon.get("/metrics").contains("\nshoal_agent_config_ok{agent=\"motd\"} 1\n"));
    daemon.signal("TERM");
    daemon.hears("STOPPING=1");
    daemon.ends();
    assert!(runtime.block_on(store.claims("unit/motd/")).unwrap().is_empty(), "claims are given back");
}

#[test]
fn a_reload_changes_the_store_the_address_and_the_form_of_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (old, new) = (open(&runtime, &path.join("old.db")), open(&runtime, &path.join("new.db")));
    commit(&old, &runtime, FLEET);
    commit(&new, &runtime, FLEET);
    commit(&new, &runtime, &[("motd/all", r#"{"document":{"banner":"new"}}"#)]);
    std::fs::create_dir(path.join("motd")).unwrap();
    let write = |more: &str| {
        let text = format!("{more}\n[agent]\ndir = {:?}\n", path.join("motd"));
        std::fs::write(path.join("next.toml"), text).unwrap();
        std::fs::rename(path.join("next.toml"), path.join("motd.toml")).unwrap();
    };
    let store = |name: &str| format!("store = 'sqlite:{}'\nclaim = '3s'", path.join(name).display());
    write(&format!("{}\nlisten = '127.0.0.1:0'", store("old.db")));
    let mut daemon = start_with(path, &[]);
    says(&path.join("motd"), "one");
    // A store that cannot be opened, and an address that is taken: what runs goes on.
    // Nobody else uses this address: a port of 127.0.0.1 may be a client's by the time that it is free again.
    let taken = std::net::TcpListener::bind("127.0.0.77:0").unwrap();
    let listen = format!("\nlisten = '{}'", taken.local_addr().unwrap());
    for (bad, why) in [
        (store("none/new.db"), "none"),
        ("store = 'nosuch:x'".to_owned(), "nosuch"),
        (format!("{}{listen}", store("new.db")), "listen on"),
    ] {
        daemon.log.lock().unwrap().clear();
        write(&bad);
        until(why, || {
            let log = daemon.log.lock().unwrap();
            log.contains("the old configuration stays") && log.contains(why)
        });
        assert!(daemon.get("/metrics").contains("shoal_agent_config_ok{agent=\"motd\"} 0\n"), "{bad}");
    }
    drop(taken);
    daemon.log.lock().unwrap().clear();
    write(&format!("{}{listen}\nlog = 'json'", store("new.db")));
    // The new store knows nothing of what the old one's ledger holds: the file is foreign to it.
    daemon.hears("RELOADING=1");
    daemon.hears("READY=1");
    until("it answers at the new address", || {
        std::net::TcpStream::connect(&listen[11..listen.len() - 1]).is_ok()
    });
    until("the new store has its report", || !runtime.block_on(new.reports()).unwrap().is_empty());
    daemon.signal("TERM");
    daemon.ends();
    until("its last words", || daemon.log.lock().unwrap().contains("stopping"));
    let log = daemon.log.lock().unwrap().clone();
    let json = log.lines().skip_while(|line| !line.starts_with('{'));
    let lines: Vec<serde_json::Value> = json.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "stopping"), "{log}");
}

/// A folder that is moved away, or not mounted, is no empty one: what Shoal made there is its own when the folder is back.
#[test]
fn what_was_made_is_known_when_its_folder_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&runtime, &path.join("shoal.db"));
    commit(&store, &runtime, FLEET);
    configure(path, "one");
    let mut daemon = start(path);
    says(&path.join("one"), "one");
    let behind = || {
        let reports = runtime.block_on(store.reports()).unwrap();
        reports.iter().find_map(|r| Some(r.units.get("files")?.behind_total)).unwrap_or_default()
    };
    until("its report says that all is well", || behind() == 0);
    std::fs::rename(path.join("one"), path.join("away")).unwrap();
    commit(&store, &runtime, &[("motd/all", r#"{"document":{"banner":"two"}}"#)]);
    until("its report says that something waits", || behind() > 0);
    assert!(!path.join("one").exists());
    std::fs::rename(path.join("away"), path.join("one")).unwrap();
    says(&path.join("one"), "two");
    daemon.signal("TERM");
    daemon.ends();
}

#[test]
fn logs_are_json_line_by_line_and_metrics_are_named_as_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&runtime, &path.join("shoal.db"));
    commit(&store, &runtime, FLEET);
    configure(path, "one");
    let text = std::fs::read_to_string(path.join("motd.toml")).unwrap();
    std::fs::write(path.join("motd.toml"), format!("log = 'json'\nresync = '1s'\n{text}")).unwrap();
    let mut daemon = start(path);
    says(&path.join("one"), "one");
    until("it has converged", || daemon.get("/metrics").contains("\nshoal_converged{agent=\"motd\"} 1\n"));
    // Nobody commits anything: the resync notices, as often as it is told to.
    std::fs::write(path.join("one/web1.example.com"), "scribble\n").unwrap();
    says(&path.join("one"), "one");
    let metrics = daemon.get("/metrics");
    let (_, body) = metrics.split_once("\r\n\r\n").unwrap();
    let mut types = std::collections::BTreeMap::new();
    for line in body.lines() {
        match line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            Some((name, kind)) => drop(types.insert(name, kind)),
            None if line.starts_with('#') => {}
            None => {
                let name = &line[..line.find(['{', ' ']).unwrap()];
                let kind = types.get(name).unwrap_or_else(|| panic!("{line} has no type"));
                assert!(
                    name.starts_with("shoal_") && (*kind == "counter") == name.ends_with("_total"),
                    "{line}"
                );
                assert!(line.contains("agent=\"motd\""), "{line}");
            }
        }
    }
    assert!(types.len() > 10, "{body}");
    daemon.signal("TERM");
    daemon.ends();
    // Nobody read what systemd was told, and nothing waited for that.
    until("its last words", || daemon.log.lock().unwrap().contains("stopping"));
    for line in daemon.log.lock().unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(line["message"].is_string() && line["level"].is_string(), "{line}");
    }
}

#[test]
fn who_is_told_to_stop_lets_the_next_one_begin_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&runtime, &path.join("shoal.db"));
    commit(&store, &runtime, FLEET);
    configure(path, "one");
    let text = std::fs::read_to_string(path.join("motd.toml")).unwrap();
    std::fs::write(path.join("motd.toml"), text.replace("claim = '3s'", "claim = '10m'")).unwrap();
    for banner in ["first", "second"] {
        let mut daemon = start(path);
        let value = format!(r#"{{"document":{{"banner":"{banner}"}}}}"#);
        commit(&store, &runtime, &[("motd/all", &value)]);
        says(&path.join("one"), banner);
        daemon.signal("TERM");
        daemon.ends();
    }
}

/// Whatever is slow about the new store: what runs goes on as long as it can, systemd is told that it lives, and a word to stop is
/// heard at once.
#[test]
fn a_reload_that_waits_for_its_store_can_be_stopped() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let old = open(&runtime, &path.join("old.db"));
    commit(&old, &runtime, FLEET);
    drop(open(&runtime, &path.join("new.db")));
    // Whoever opens it waits for seconds.
    let lock = rusqlite::Connection::open(path.join("new.db")).unwrap();
    lock.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE").unwrap();
    configure(path, "one");
    let settings = std::fs::read_to_string(path.join("motd.toml")).unwrap();
    let write = |store: &str| {
        std::fs::write(path.join("next.toml"), format!("store = '{store}'\n{settings}")).unwrap();
        std::fs::rename(path.join("next.toml"), path.join("motd.toml")).unwrap();
    };
    let at = |name: &str| format!("sqlite:{}", path.join(name).display());
    for (store, opens) in [(at("new.db"), false), (format!("http://{}", silent.local_addr().unwrap()), true)]
    {
        // A machine that stalls ends it late once, and not each time.
        let mut late = Vec::new();
        loop {
            write(&at("old.db"));
            let mut daemon = start_with(path, &["--listen", "127.0.0.1:0"]);
            says(&path.join("one"), "one");
            write(&store);
            daemon.signal("HUP");
            if opens {
                daemon.hears("RELOADING=1");
            } else {
                let value = r#"{"document":{"banner":"two"}}"#;
                commit(&old, &runtime, &[("motd/all", value)]);
                says(&path.join("one"), "two");
                commit(&old, &runtime, &[("motd/all", r#"{"document":{"banner":"one"}}"#)]);
            }
            for _ in 0..5 {
                daemon.hears("WATCHDOG=1");
            }
            let before = std::mem::take(&mut *daemon.log.lock().unwrap());
            let told = Instant::now();
            daemon.signal("TERM");
            daemon.ends();
            let (took, after) = (told.elapsed(), daemon.log.lock().unwrap().clone());
            // What it waited for does not end first.
            for end in ["the old configuration stays", "trying again"] {
                assert!(!after.contains(end), "it was waiting for the store: {before}\nTERM\n{after}");
            }
            // A silent store is waited for by itself for ten seconds and more, again and again.
            if took < Duration::from_secs(9) {
                break;
            }
            late.push(took);
            assert!(late.len() < 4, "{late:?}: {before}\nTERM\n{after}");
        }
    }
}

#[test]
fn a_systemd_that_does_not_listen_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = open(&runtime, &path.join("shoal.db"));
    commit(&store, &runtime, FLEET);
    configure(path, "one");
    let mut daemon = start(path);
    // Its queue is full: from now on, whoever tells it something waits.
    let full = UnixDatagram::unbound().unwrap();
    full.connect(path.join("systemd")).unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send(b"X=1").is_ok() {}
    commit(&store, &runtime, &[("motd/all", r#"{"document":{"banner":"two"}}"#)]);
    says(&path.join("one"), "two");
    // Longer than the watchdog's turn, so that it had something to say.
    std::thread::park_timeout(Duration::from_millis(400));
    commit(&store, &runtime, &[("motd/all", r#"{"document":{"banner":"three"}}"#)]);
    says(&path.join("one"), "three");
    daemon.signal("TERM");
    daemon.ends();
}
