//! A box with a database, a bridge and the real program, which is killed as soon as something is so.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shoal_core::{Change, Commit, Document, Range};
use shoal_store::{Query, Store};
use shoal_store_sqlite::SqliteStore;
use tempfile::TempDir;

pub(crate) const ROOM: &str = "b1.example.com";
pub(crate) const HOST: &str = "web1.example.com";

pub(crate) fn run(words: &[&str]) -> bool {
    Command::new(words[0])
        .args(&words[1..])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Why it cannot run here, where it takes these tools.
pub(crate) fn cannot(tools: &[&str]) -> Option<String> {
    if std::env::var_os("SHOAL_LONG").is_none_or(|long| long.is_empty()) {
        return Some("it takes long, so it runs with SHOAL_LONG only".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("it is not root".to_owned());
    }
    for tool in tools {
        let there = |folder: &str| Path::new(folder).join(tool).exists();
        if !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].into_iter().any(there) {
            return Some(format!("{tool} is not installed"));
        }
    }
    if !run(&["unshare", "--mount", "true"]) {
        return Some("this root may not make namespaces and mounts".to_owned());
    }
    None
}

/// The numbers of the processes whose command line is such a one.
pub(crate) fn processes(so: impl Fn(&[u8]) -> bool) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ours = all.filter(|process| so(&fs::read(process.path().join("cmdline")).unwrap_or_default()));
    ours.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// What makes machines.
pub(crate) trait There: Sized {
    /// How long anything may take that is waited for.
    const PATIENCE: Duration;
    /// How often is looked whether it is so.
    const LOOK: Duration;

    /// What explains that something is not so in time.
    fn said(site: &Site<Self>) -> String;

    /// Ends all that runs in this folder.
    fn end(&mut self, dir: &Path);
}

pub(crate) struct Site<T: There> {
    pub(crate) dir: TempDir,
    pub(crate) store: SqliteStore,
    pub(crate) bridge: String,
    there: T,
    program: Option<Child>,
}

impl<T: There> Site<T> {
    /// `named` begins the name of the bridge, which has this address.
    pub(crate) async fn new(named: &str, address: &str, there: impl FnOnce(&Path) -> T) -> Self {
        let dir = TempDir::new().unwrap();
        let store = SqliteStore::open(&dir.path().join("shoal.db")).await.unwrap();
        let bridge = format!("{named}{}", std::process::id());
        assert!(run(&["ip", "link", "add", &bridge, "type", "bridge"]));
        let site = Self { there: there(dir.path()), dir, store, bridge, program: None };
        assert!(run(&["ip", "address", "add", address, "dev", &site.bridge]));
        assert!(run(&["ip", "link", "set", &site.bridge, "up"]));
        site
    }

    /// Configures the program, with this within `[agent]`.
    pub(crate) fn configure(&self, more: &str) {
        let dir = self.dir.path();
        let config = format!(
            "store = \"sqlite:{}/shoal.db\"\nclaim = \"3s\"\n[agent]\nbox = \"{ROOM}\"\n{more}",
            dir.display()
        );
        fs::write(dir.join("vm.toml"), config).unwrap();
    }

    pub(crate) async fn commit(&self, rows: &[(&str, Value)]) {
        let put =
            |(key, value): &(&str, Value)| Change::put(key.parse().unwrap(), Document::from(value.clone()));
        let commit = Commit::new("ann", "a test", rows.iter().map(put).collect());
        self.store.commit(commit).await.unwrap();
    }

    /// Writes the host, as a member of a tag and placed in this box.
    pub(crate) async fn place(&self, host: Value) {
        self.commit(&[
            ("vm/all", json!({"document": {}})),
            (&format!("hosts/{HOST}"), host),
            (&format!("vm/all/members/{HOST}"), json!({})),
            (&format!("facts/placement/{HOST}"), json!({"box": ROOM})),
        ])
        .await;
    }

    pub(crate) async fn row(&self, key: &str) -> Value {
        let page = self.store.read(&Query::new(Range::Key(key.parse().unwrap()))).await.unwrap();
        page.rows.into_iter().find_map(|row| Some(row.value?.value())).unwrap_or_default()
    }

    pub(crate) async fn state(&self) -> String {
        self.row(&format!("hosts/{HOST}")).await["state"].as_str().unwrap_or("gone").to_owned()
    }

    pub(crate) fn start(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-vm"));
        command.arg("--config").arg(self.dir.path().join("vm.toml")).stdin(Stdio::null());
        self.program = Some(command.spawn().unwrap());
    }

    /// Kills the program as nobody can prevent, as soon as something is so.
    pub(crate) async fn kill_when(&mut self, what: &str, so: impl AsyncFn(&Self) -> bool) {
        self.start();
        self.until(what, so).await;
        self.kill();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().unwrap();
            program.wait().unwrap();
        }
    }

    pub(crate) async fn until(&self, what: &str, so: impl AsyncFn(&Self) -> bool) {
        let begun = Instant::now();
        while !so(self).await {
            assert!(begun.elapsed() < T::PATIENCE, "not in time: {what}; {}", T::said(self));
            tokio::time::sleep(T::LOOK).await;
        }
    }
}

impl<T: There> Drop for Site<T> {
    fn drop(&mut self) {
        self.kill();
        self.there.end(self.dir.path());
        run(&["ip", "link", "delete", &self.bridge]);
    }
}
