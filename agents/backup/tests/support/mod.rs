//! What the tests with real restic share: a repository, files, the program with a database and a configuration.

#![allow(dead_code, reason = "each test uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_core::{Change, Commit, Document, Proposal, Range};
use shoal_store::{Database, Query, Store};
use shoal_store_sqlite::SqliteStore;
use tempfile::TempDir;

#[path = "../../../../tests/agents/ports.rs"]
mod ports;
pub(crate) mod repository;
pub(crate) mod sshd;

pub(crate) const HOST: &str = "web1.example.com";

/// Whether restic is here; says so if not.
pub(crate) fn here(test: &str) -> bool {
    let found = Command::new("restic").arg("version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("SKIPPED: {test}: restic is not installed");
    }
    found
}

/// Whether there is time for what takes long (`SHOAL_LONG`); says so if not.
pub(crate) fn long(test: &str) -> bool {
    let long = std::env::var("SHOAL_LONG").is_ok_and(|long| !long.is_empty());
    if !long {
        println!("SKIPPED: {test}: it takes long, so it runs with SHOAL_LONG only");
    }
    long
}

/// A database, a repository, a folder of files.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let scratch = Self { dir: TempDir::new().unwrap() };
        scratch.password(repository::PASSWORD);
        fs::create_dir_all(scratch.path("files/deep/er")).unwrap();
        scratch.fill("files", 30, 1);
        scratch.configure("", "");
        repository::lay(&scratch.path("repo"));
        scratch
    }

    /// From now on the repository is opened with this one of its passwords.
    pub(crate) fn password(&self, password: &str) {
        fs::write(self.path("password"), format!("{password}\n")).unwrap();
    }

    /// Writes files that are the same for the same number.
    pub(crate) fn fill(&self, folder: &str, count: usize, salt: u64) {
        let folder = self.path(folder);
        fs::create_dir_all(folder.join("deep/er")).unwrap();
        for n in 0..count {
            let octets: Vec<u8> = (0..4_000 + n as u64 * 331)
                .map(|i| ((i * 31 + salt * 7) ^ (i >> 5) ^ n as u64) as u8)
                .collect();
            let at = if n % 3 == 0 { folder.join("deep/er") } else { folder.clone() };
            fs::write(at.join(format!("file {n}")), octets).unwrap();
        }
    }

    /// The configuration, with more of `[agent]`, and more tables.
    pub(crate) fn configure(&self, agent: &str, tables: &str) {
        let text = format!(
            "[secrets]\nrestic = {{ file = {:?} }}\n\
             [agent]\nstate = {:?}\nhost = \"{HOST}\"\nretry = \"1s\"\n{agent}\n\
             [agent.repositories.main]\nurl = {:?}\npassword = \"secret:restic\"\nparallel = 3\n\
             [agent.repositories.main.removal]\n{tables}\n",
            self.path("password"),
            self.path("state"),
            self.path("repo"),
        );
        fs::write(self.path("backup.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// restic by hand.
    pub(crate) fn try_restic(&self, args: &[&str]) -> Output {
        let mut command = Command::new("restic");
        command.args(["-r", &self.text("repo"), "--password-file", &self.text("password")]).args(args);
        // The hours and days of restic's rules are those of a snapshot's own time zone.
        command.env("RESTIC_CACHE_DIR", self.path("cache")).env("TZ", "UTC").output().unwrap()
    }

    pub(crate) fn restic(&self, args: &[&str]) -> String {
        let out = self.try_restic(args);
        assert!(out.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// The ids of all snapshots, oldest first.
    pub(crate) fn snapshots(&self) -> Vec<String> {
        let all: Vec<Value> =
            serde_json::from_str(&self.restic(&["snapshots", "--json", "--no-lock"])).unwrap();
        all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path("db")).await.unwrap()
    }

    /// Commits edits in the form of the API.
    pub(crate) async fn edit(&self, edits: Value) {
        let database = Database::open(Arc::new(self.store().await)).await.unwrap();
        let edits = serde_json::from_value(edits).unwrap();
        database.transact(Proposal::new("test", "a test", edits)).await.unwrap();
    }

    /// One host in a policy; `more` of its document.
    pub(crate) async fn policy(&self, more: Value) {
        let mut document = json!({"paths": [self.text("files")], "repositories": ["main"]});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.edit(json!([
            {"edit": "put_host", "host": HOST, "document": {}},
            {"edit": "put_tag", "tag": "backup/nightly", "document": document, "members": [HOST]},
        ]))
        .await;
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-backup"));
        command.arg("--store").arg(format!("sqlite:{}", self.path("db").display()));
        command.arg("--config").arg(self.path("backup.toml")).args(args);
        command
    }

    /// Runs the program to its end: the exit code, and what it said.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Does what is due; nothing may be left to do. Answers what it said.
    pub(crate) fn converge(&self) -> String {
        let (code, said) = self.run(&["--once", "--wait", "90s"]);
        assert_eq!(code, 0, "{said}");
        said
    }

    /// Tries what is due for a while, and fails; answers what it said.
    pub(crate) fn fails(&self) -> String {
        self.fails_in(20)
    }

    fn fails_in(&self, seconds: u32) -> String {
        let (code, said) = self.run(&["--once", "--wait", &format!("{seconds}s")]);
        assert_ne!(code, 0, "{said}");
        said
    }

    /// Tries what is due until it fails and says this, with more time each time; answers all that it said.
    pub(crate) fn fails_with(&self, what: &str) -> String {
        let mut all = String::new();
        for seconds in [4, 8, 16, 32] {
            all += &self.fails_in(seconds);
            if all.contains(what) {
                return all;
            }
        }
        panic!("{what} is not in {all}");
    }

    /// What is kept of the only item, changed by hand.
    pub(crate) fn record(&self, change: impl FnOnce(&mut Value)) -> Value {
        self.record_of(HOST, change)
    }

    /// The same of another host.
    pub(crate) fn record_of(&self, host: &str, change: impl FnOnce(&mut Value)) -> Value {
        self.record_in(host, "nightly@main", change)
    }

    /// The same of another item of a host.
    pub(crate) fn record_in(&self, host: &str, item: &str, change: impl FnOnce(&mut Value)) -> Value {
        let path = self.path("state/hosts").join(host).join(format!("{item}.json"));
        let mut record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut record);
        fs::write(path, record.to_string()).unwrap();
        record
    }

    /// How many of so many hosts of a fleet have a good backup that began after this, in milliseconds.
    pub(crate) fn done(&self, hosts: usize, after: i64) -> usize {
        let good = |n: &usize| {
            let path = self.path("state/hosts").join(name(*n)).join("nightly@main.json");
            let record: Value = fs::read_to_string(path)
                .ok()
                .and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or_default();
            record["main"]["good"].as_i64().is_some_and(|good| good > after)
        };
        (0..hosts).filter(good).count()
    }

    /// Makes what was last done so many hours older, so that it is due again.
    pub(crate) fn age(&self, hours: i64) {
        self.age_of(HOST, hours);
    }

    /// The same of another host.
    pub(crate) fn age_of(&self, host: &str, hours: i64) {
        let back = |value: &mut Value| {
            if let Some(at) = value.as_i64() {
                *value = json!(at - hours * 3_600_000);
            }
        };
        self.record_of(host, |record| {
            back(&mut record["since"]);
            for track in ["main", "proof", "purge"] {
                for done in ["good", "partial"] {
                    if record[track][done].is_i64() {
                        back(&mut record[track][done]);
                    }
                }
            }
        });
    }

    /// Makes what is held so many hours older, on the node and in the facts.
    pub(crate) async fn age_held(&self, hours: i64) {
        let mut fact = self.fact().await;
        self.record_of(HOST, |record| {
            for (snapshot, at) in record["held"].as_object_mut().unwrap() {
                *at = json!(at.as_i64().unwrap() - hours * 3_600_000);
                let then = jiff::Timestamp::from_millisecond(at.as_i64().unwrap()).unwrap();
                fact["nightly@main"]["held"][snapshot] = json!(then.to_string());
            }
        });
        self.tell(HOST, fact).await;
    }

    /// Writes the facts of a host, as another node does that made its backups.
    pub(crate) async fn tell(&self, host: &str, fact: Value) {
        let key = format!("facts/backup/{host}").parse().unwrap();
        let commit = Commit::new("test", "a test", vec![Change::put(key, Document::from(fact))]);
        self.store().await.commit(commit).await.unwrap();
    }

    /// Makes what is done in the repository itself due again.
    pub(crate) fn upkeep_due(&self, track: &str) {
        let path = self.path("state/repositories/main.json");
        let Ok(text) = fs::read_to_string(&path) else { return };
        let mut record: Value = serde_json::from_str(&text).unwrap();
        record[track]["good"] = json!(0);
        fs::write(&path, record.to_string()).unwrap();
    }

    /// As if the leases of those that were killed had run out: each would last a minute.
    pub(crate) async fn release_claims(&self) {
        let store = self.store().await;
        for claim in store.claims("").await.unwrap() {
            store.release(&claim).await.unwrap();
        }
    }

    /// The facts of the host.
    pub(crate) async fn fact(&self) -> Value {
        self.fact_of(HOST).await
    }

    /// The same of another host.
    pub(crate) async fn fact_of(&self, host: &str) -> Value {
        let key = format!("facts/backup/{host}").parse().unwrap();
        let page = self.store().await.read(&Query::new(Range::Key(key))).await.unwrap();
        page.rows.first().and_then(|row| Some(row.value.as_ref()?.value())).unwrap_or_default()
    }

    /// What the agents of this database say of themselves, as text.
    pub(crate) async fn status(&self) -> String {
        serde_json::to_string(&self.store().await.reports().await.unwrap()).unwrap()
    }

    /// Fails until its last report says this; the report of a run that has only just begun again says that.
    pub(crate) async fn fails_and_reports(&self, what: &str) {
        for _ in 0..8 {
            if self.status().await.contains(what) {
                return;
            }
            self.fails_in(8);
        }
        panic!("{what} is not in {}", self.status().await);
    }

    /// Fails until the facts of a host are so, and answers them: time may be up before what was found out is written down.
    pub(crate) async fn fails_and_tells(&self, host: &str, so: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..16 {
            let fact = self.fact_of(host).await;
            if so(&fact) {
                return fact;
            }
            self.fails_in(4);
        }
        panic!("{}", self.fact_of(host).await);
    }

    /// Restores by the program; answers the code and what it said.
    pub(crate) fn restore(&self, args: &[&str], to: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-backup"));
        command.arg("restore").args(args).arg("--to").arg(self.path(to));
        let output = command.arg("--config").arg(self.path("backup.toml")).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What was restored of a folder into `to` is what stands in it, octet for octet.
    pub(crate) fn assert_restored(&self, folder: &str, to: &str) {
        let there = self.path(to).join(self.text(folder).trim_start_matches('/'));
        assert_eq!(tree(&there), tree(&self.path(folder)));
    }
}

/// Changes a file whose size and time stay what they were; a second time, and it is what it was.
pub(crate) fn tamper(file: &Path) {
    let time = fs::metadata(file).unwrap().modified().unwrap();
    let mut octets = fs::read(file).unwrap();
    octets[0] ^= 1;
    fs::write(file, octets).unwrap();
    fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
}

/// Every file below a folder, with what it holds.
pub(crate) fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap_or_else(|e| panic!("{}: {e}", at.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// Numbers that look like chance, the same each time.
pub(crate) struct Lot(pub(crate) u64);

impl Lot {
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A file system, taken away when dropped.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The program as a daemon, killed when dropped.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn start(scratch: &Scratch, args: &[&str]) -> Self {
        let log = fs::File::options().create(true).append(true).open(scratch.path("log")).unwrap();
        Self(scratch.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host of this number, of a fleet.
pub(crate) fn name(n: usize) -> String {
    format!("ct{n}.example.com")
}

/// The time, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// A port that is free, and that no client and no other test is given.
pub(crate) fn free() -> u16 {
    ports::free().unwrap()
}

/// Waits until something is so; at most two minutes.
pub(crate) fn until(what: &str, so: impl FnMut() -> bool) {
    until_within(120, what, so);
}

/// The same within so many seconds.
pub(crate) fn until_within(seconds: u64, what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !so() {
        assert!(Instant::now() < end, "it did not come true: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
