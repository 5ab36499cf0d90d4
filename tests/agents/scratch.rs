//! The program of an agent with a database and a configuration in a scratch directory. Agents' tests include this file by its path.
//!
//! The module around it says which agent it is: `AGENT` is its name, `PROGRAM` the program, `FOLDERS` are there from the beginning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, Key, Proposal};
use shoal_store::{Database, Store};
use shoal_store_sqlite::SqliteStore;
use tempfile::TempDir;

use super::{AGENT, FOLDERS, PROGRAM};

/// A database and a configuration.
pub(crate) struct Scratch {
    dir: TempDir,
    /// What the program finds in its environment.
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

impl Scratch {
    pub(crate) fn new(config: &str) -> Self {
        let scratch = Self { dir: TempDir::new().unwrap(), environment: Vec::new() };
        for folder in FOLDERS {
            fs::create_dir(scratch.path().join(folder)).unwrap();
        }
        scratch.configure(config);
        scratch
    }

    /// Puts another configuration in place of what there is, whole. `DIR` in it is the directory.
    pub(crate) fn configure(&self, config: &str) {
        let config = config.replace("DIR", &self.path().display().to_string());
        fs::write(self.path().join("next.toml"), config).unwrap();
        fs::rename(self.path().join("next.toml"), self.config()).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path().join(format!("{AGENT}.toml"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) async fn store(&self) -> SqliteStore {
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
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(format!("sqlite:{}", self.path().join("db").display()));
        command.arg("--config").arg(self.config()).args(args);
        command.envs(self.environment.iter().copied());
        command
    }

    /// Runs the program to its end: the exit code, and what it said.
    pub(crate) fn run(&self, args: &[&str]) -> (i32, String) {
        let output = self.command(args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Converges for so many seconds, which is to end with this code and say this: the code, and what it said.
    ///
    /// A machine that stalls may take all of the time before anything was looked at. So what ended because the time was over (5), and not as it
    /// is to end, goes on for twice as long, three times at most. Nothing is undone in between, and each other code is the last word.
    pub(crate) fn once(&self, seconds: u32, code: i32, says: &str) -> (i32, String) {
        let mut wait = seconds;
        loop {
            let (found, said) = self.run(&["--once", "--wait", &format!("{wait}s")]);
            let as_it_should = found == code && said.contains(says);
            if found != 5 || as_it_should || wait >= 8 * seconds {
                return (found, said);
            }
            wait *= 2;
        }
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
        let fact = view.facts(host).iter().find(|fact| fact.namespace.as_str() == AGENT);
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
        let key = Key::approval(&AGENT.parse().unwrap(), Some(unit)).unwrap();
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
