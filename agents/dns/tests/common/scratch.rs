//! The program with a database and a configuration in a scratch directory.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, Key, Proposal};
use shoal_store::{Database, Store};
use shoal_store_sqlite::SqliteStore;
use tempfile::TempDir;

/// Zone files that nobody checks or loads.
pub(crate) const FILES: &str =
    "[agent.bind]\ndirectory = 'DIR/zones'\nfile = '{zone}'\ncheck = []\nreload = []\n";

/// A database and a configuration in a scratch directory.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("zones")).unwrap();
        let scratch = Self { dir };
        scratch.configure(config);
        scratch
    }

    /// Puts another configuration in place of what there is, whole.
    pub(crate) fn configure(&self, config: &str) {
        let config = config.replace("DIR", &self.path().display().to_string());
        fs::write(self.path().join("next.toml"), config).unwrap();
        fs::rename(self.path().join("next.toml"), self.path().join("dns.toml")).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn commit(&self, edits: Vec<Edit>) {
        let store = SqliteStore::open(self.path().join("db")).await.unwrap();
        let database = Database::open(Arc::new(store)).await.unwrap();
        database.transact(Proposal::new("test", "a test", edits)).await.unwrap();
    }

    /// Commits the documents of a YAML file.
    pub(crate) async fn apply(&self, yaml: &str) {
        self.commit(edits(yaml)).await;
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-dns"));
        command.arg("--store").arg(format!("sqlite:{}", self.path().join("db").display()));
        command.arg("--config").arg(self.path().join("dns.toml")).args(args);
        command
    }

    /// Runs the program to its end: the exit code, and what it said.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What the agents of this database say of themselves, as text.
    pub(crate) async fn status(&self) -> String {
        let store = SqliteStore::open(self.path().join("db")).await.unwrap();
        serde_json::to_string(&store.reports().await.unwrap()).unwrap()
    }

    /// Agrees to what is held of this zone.
    pub(crate) async fn approve(&self, zone: &str) {
        let store = SqliteStore::open(self.path().join("db")).await.unwrap();
        let reports = store.reports().await.unwrap();
        let hold = reports.iter().find_map(|report| report.units.get(zone)?.held.clone()).unwrap();
        let key = Key::approval(&"dns".parse().unwrap(), Some(zone)).unwrap();
        let value = Document::from(json!({"digest": hold.digest}));
        self.commit(vec![Edit::Write { key, value, expect: Expect::Any }]).await;
    }

    /// Lets Shoal have what stands in the way of these names; answers all that did.
    pub(crate) async fn adopt(&self, zone: &str, names: &[&str]) -> Vec<String> {
        let store = SqliteStore::open(self.path().join("db")).await.unwrap();
        let reports = store.reports().await.unwrap();
        let clashes = reports.iter().find_map(|report| Some(&report.units.get(zone)?.clashes)).unwrap();
        let named = clashes.iter().filter(|clash| names.contains(&&*clash.key));
        let adopt: serde_json::Map<_, _> =
            named.map(|clash| (clash.key.clone(), json!(clash.digest))).collect();
        let key = Key::approval(&"dns".parse().unwrap(), Some(zone)).unwrap();
        let value = Document::from(json!({ "adopt": adopt }));
        let all = clashes.iter().map(|clash| clash.key.clone()).collect();
        self.commit(vec![Edit::Write { key, value, expect: Expect::Any }]).await;
        all
    }

    pub(crate) fn zone(&self, name: &str) -> String {
        fs::read_to_string(self.path().join("zones").join(name)).unwrap_or_default()
    }
}

/// The program as a daemon, ended when dropped.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn start(scratch: &Scratch) -> Self {
        let log = fs::File::create(scratch.path().join("log")).unwrap();
        Self(scratch.command(&[]).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the documents of a YAML file mean, in the form of `shoal apply -f`.
fn edits(yaml: &str) -> Vec<Edit> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let edit = |mut document: Value| {
        document["edit"] = json!(if document.get("host").is_some() { "put_host" } else { "put_tag" });
        serde_json::from_value(document).unwrap()
    };
    documents.into_iter().map(edit).collect()
}
