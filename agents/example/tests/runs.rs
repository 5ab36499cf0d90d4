//! The example as a program of its own: what it does, what it says, and how it exits.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its world up has failed")]

use std::path::Path;
use std::process::{Command, Output};

use shoal_core::{Change, Commit, Document};
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;

struct World {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("motd")).unwrap();
        let config = format!("[agent]\ndir = {:?}\n", dir.path().join("motd"));
        std::fs::write(dir.path().join("motd.toml"), config).unwrap();
        Self { dir, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path("shoal.db").display())
    }

    /// Writes rows; `null` deletes.
    fn commit(&self, rows: &[(&str, serde_json::Value)]) {
        let changes = rows
            .iter()
            .map(|(key, value)| Change {
                key: key.parse().unwrap(),
                value: (!value.is_null()).then(|| Document::from(value.clone())),
                moved: None,
            })
            .collect();
        self.runtime.block_on(async {
            let store = SqliteStore::open(self.path("shoal.db")).await.unwrap();
            let commit = Commit {
                pre: vec![],
                changes,
                author: "ann".into(),
                principal: None,
                message: "test".into(),
                idempotency: None,
                intent: None,
            };
            store.commit(commit).await.unwrap();
        });
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_shoal-example"))
            .args(["--store", &self.url(), "--config"])
            .arg(self.path("motd.toml"))
            .args(args)
            .output()
            .unwrap()
    }

    fn code(&self, args: &[&str]) -> i32 {
        let output = self.run(args);
        eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.status.code().unwrap()
    }

    fn motd(&self, host: &str) -> Option<String> {
        std::fs::read_to_string(self.path("motd").join(host)).ok()
    }
}

fn host(n: u32) -> serde_json::Value {
    serde_json::json!({"id": format!("h{n}"), "state": "active", "document": {}})
}

fn seeded() -> World {
    let world = World::new();
    world.commit(&[
        ("hosts/web1.example.com", host(1)),
        ("hosts/web2.example.com", host(2)),
        ("motd/all", serde_json::json!({"document": {"banner": "be kind"}})),
        ("motd/all/members/web1.example.com", serde_json::json!({})),
        ("motd/all/members/web2.example.com", serde_json::json!({})),
    ]);
    world
}

#[test]
fn once_makes_it_so_and_then_there_is_nothing_to_do() {
    let world = seeded();
    assert_eq!(world.code(&["--plan"]), 3);
    assert_eq!(world.motd("web1.example.com"), None, "a plan writes nothing");
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
    let made = |name: &str| Path::new(&world.path("motd")).join(name).metadata().unwrap().modified().unwrap();
    let before = made("web1.example.com");
    assert_eq!(world.code(&["--plan"]), 0);
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(made("web1.example.com"), before);
}

#[test]
fn what_changes_follows_and_what_is_foreign_stays() {
    let world = seeded();
    std::fs::write(world.path("motd").join("web2.example.com"), "by hand\n").unwrap();
    assert_eq!(world.code(&["--once"]), 4, "a clash is held");
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
    assert_eq!(world.motd("web2.example.com").unwrap(), "by hand\n");
    world.commit(&[
        ("motd/all/members/web1.example.com", serde_json::Value::Null),
        ("motd/all/members/web2.example.com", serde_json::Value::Null),
    ]);
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com"), None);
    assert_eq!(world.motd("web2.example.com").unwrap(), "by hand\n");
}

#[test]
fn drift_is_corrected() {
    let world = seeded();
    assert_eq!(world.code(&["--once"]), 0);
    std::fs::write(world.path("motd").join("web1.example.com"), "scribble\n").unwrap();
    let plan = world.run(&["--plan", "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["units"][0]["steps"][0]["because"], "drift", "{plan}");
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
}
