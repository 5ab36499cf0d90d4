//! What `docs/custom-agents.md` shows is a whole agent: built outside the workspace from the page alone, with the trait
//! crate's public API alone, it runs, does nothing the second time, and keeps the laws.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its world up has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use shoal_core::{Change, Commit, Document};
use shoal_store::Store;
use shoal_store_sqlite::SqliteStore;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn page() -> String {
    std::fs::read_to_string(workspace().join("docs/custom-agents.md")).unwrap()
}

/// The fenced block that follows the first line which holds `` `name` ``.
fn block(page: &str, name: &str) -> String {
    let from = page.find(&format!("`{name}`"));
    assert!(from.is_some(), "the page does not name {name}");
    let rest = &page[from.unwrap()..];
    let start = rest.find("```").unwrap();
    let body = rest[start..].split_once('\n').unwrap().1;
    body.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_page_shows_the_example_as_it_is() {
    let page = page();
    let mut lines = 0;
    for file in ["src/lib.rs", "src/main.rs"] {
        let real = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert_eq!(block(&page, file), real, "{file} differs from the page");
        lines += real.lines().count();
    }
    assert!(lines <= 60, "{lines} lines");
}

/// Writes the page's files into a crate of its own.
fn outside(dir: &Path) {
    let page = page();
    for file in ["src/lib.rs", "src/main.rs", "tests/laws.rs"] {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, renamed(&block(&page, file))).unwrap();
    }
    let crate_path = workspace().join("shared/agent");
    let manifest = block(&page, "Cargo.toml").replace("../../shared/agent", crate_path.to_str().unwrap());
    // The workspace's profile, so that what is heavy is built once and as there.
    let profile = "\n[workspace]\n\n[profile.dev]\ndebug = \"line-tables-only\"\n\n[profile.dev.package.\"*\"]\ndebug = false\n\n\
                   [profile.dev.package.libsqlite3-sys]\nopt-level = 2\n";
    std::fs::write(dir.join("Cargo.toml"), renamed(&manifest) + profile).unwrap();
    std::fs::copy(workspace().join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
}

/// Under another name, so that it can share the workspace's target folder and what was built there.
fn renamed(text: &str) -> String {
    text.replace("shoal-example", "shoal-outside").replace("shoal_example", "shoal_outside")
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

fn cargo(dir: &Path, args: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .args(["--offline", "--quiet"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target())
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn seed(path: &Path) {
    let rows = [
        ("hosts/web1.example.com", r#"{"id":"h1","document":{}}"#),
        ("motd/all", r#"{"document":{"banner":"be kind"}}"#),
        ("motd/all/members/web1.example.com", "{}"),
    ];
    let change =
        |(key, value): (&str, &str)| Change::put(key.parse().unwrap(), Document::parse(value).unwrap());
    let commit = Commit::new("ann", "begin", rows.into_iter().map(change).collect());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { SqliteStore::open(path).await.unwrap().commit(commit).await.unwrap() });
}

#[test]
fn it_builds_outside_runs_twice_and_keeps_the_laws() {
    let dir = tempfile::tempdir().unwrap();
    outside(dir.path());
    cargo(dir.path(), &["build"]);
    // The laws: the page's own test.
    cargo(dir.path(), &["test"]);
    let (db, files) = (dir.path().join("shoal.db"), dir.path().join("motd"));
    std::fs::create_dir(&files).unwrap();
    // The page's configuration, with this test's folders.
    let config = block(&page(), "/etc/shoal/example.toml").replace("/etc/motd.d", files.to_str().unwrap());
    let config = config.replace("/var/lib/shoal/shoal.db", db.to_str().unwrap());
    std::fs::write(dir.path().join("motd.toml"), config).unwrap();
    seed(&db);
    let run = |mode: &str| {
        let mut command = Command::new(target().join("debug/shoal-outside"));
        command.args([mode, "--config"]).arg(dir.path().join("motd.toml")).env_remove("SHOAL_STORE");
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, log) = run("--once");
    assert_eq!(code, 0, "{log}");
    let made = files.join("web1.example.com");
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "web1.example.com: be kind\n");
    let before = made.metadata().unwrap().modified().unwrap();
    let (code, log) = run("--once");
    assert_eq!((code, log.contains("create")), (0, false), "{log}");
    assert_eq!(made.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(run("--plan").0, 0);
}
