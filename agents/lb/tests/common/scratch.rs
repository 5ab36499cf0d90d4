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

/// A database and a configuration.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new(config: &str) -> Self {
        let scratch = Self { dir: TempDir::new().unwrap() };
        scratch.configure(config);
        scratch
    }

    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.path().join("lb.toml"), config).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    async fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path().join("db")).await.unwrap()
    }

    pub(crate) async fn commit(&self, edits: Vec<Edit>) {
        let database = Database::open(Arc::new(self.store().await)).await.unwrap();
        database.transact(Proposal::new("test", "a test", edits)).await.unwrap();
    }

    /// Commits edits in the form of the API.
    pub(crate) async fn edit(&self, edits: Value) {
        self.commit(serde_json::from_value(edits).unwrap()).await;
    }

    /// Commits the documents of a YAML file, in the form of `shoal apply -f`.
    pub(crate) async fn apply(&self, yaml: &str) {
        let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
        let edit = |mut document: Value| {
            document["edit"] = json!(if document.get("host").is_some() { "put_host" } else { "put_tag" });
            document
        };
        self.edit(documents.into_iter().map(edit).collect()).await;
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-lb"));
        command.arg("--store").arg(format!("sqlite:{}", self.path().join("db").display()));
        command.arg("--config").arg(self.path().join("lb.toml")).args(args);
        command
    }

    /// Runs the program to its end: the exit code, and what it said.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Converges; nothing may be left to do.
    pub(crate) fn converge(&self) {
        let (code, said) = self.run(&["--once", "--wait", "90s"]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = self.run(&["--plan"]);
        assert_eq!(code, 0, "{said}");
    }

    /// What the agents of this database say of themselves, as text.
    pub(crate) async fn status(&self) -> String {
        serde_json::to_string(&self.store().await.reports().await.unwrap()).unwrap()
    }

    /// What is reported of a host.
    pub(crate) async fn fact(&self, host: &str) -> Value {
        let database = Database::open(Arc::new(self.store().await)).await.unwrap();
        let view = database.view();
        let fact = view.facts(host).iter().find(|fact| fact.namespace.as_str() == "lb");
        fact.map_or(Value::Null, |fact| serde_json::from_str(fact.document.as_str()).unwrap())
    }

    /// Holds a host as it is, or no more.
    pub(crate) async fn pause(&self, host: &str, held: bool) {
        let key: Key = format!("pauses/host/{host}").parse().unwrap();
        let edit = if held {
            Edit::Write { key, value: Document::from(json!({"why": "hands off"})), expect: Expect::Any }
        } else {
            serde_json::from_value(json!({"edit": "delete", "key": key})).unwrap()
        };
        self.commit(vec![edit]).await;
    }

    /// Agrees to what is held of this unit.
    pub(crate) async fn approve(&self, unit: &str) {
        let reports = self.store().await.reports().await.unwrap();
        let hold = reports.iter().find_map(|report| report.units.get(unit)?.held.clone()).unwrap();
        let key = Key::approval(&"lb".parse().unwrap(), Some(unit)).unwrap();
        let value = Document::from(json!({"digest": hold.digest}));
        self.commit(vec![Edit::Write { key, value, expect: Expect::Any }]).await;
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
