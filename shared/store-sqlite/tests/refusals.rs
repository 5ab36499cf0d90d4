//! Files that are something else, damaged, newer, or not to be written: each refusal names the file, the reason
//! and the way out, and changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what helps tests fails as tests do, and what another process found is printed"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use shoal_core::Range;
use shoal_store::{Query, Store, StoreError};
use shoal_store_sqlite::SqliteStore;
use support::commit;

/// The refusal, which names the file and some words, and leaves the file as it was.
async fn refused(path: &Path, words: &[&str]) -> StoreError {
    let before = fs::read(path).ok();
    let Err(error) = SqliteStore::open(path).await else { panic!("{} was opened", path.display()) };
    let text = error.to_string();
    for word in words.iter().chain([&path.to_str().unwrap()]) {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert_eq!(fs::read(path).ok(), before, "it was changed");
    error
}

/// A database with some commits, closed: all of it stands in the one file.
async fn made(path: &Path, commits: u64) {
    let store = SqliteStore::open(path).await.unwrap();
    for n in 0..commits {
        store.commit(commit("w0", n)).await.unwrap();
    }
    drop(store);
    assert!(!path.with_extension("db-wal").exists());
}

#[tokio::test]
async fn other_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("text"), "hosts: [web1]\n".repeat(1000)).unwrap();
    let error = refused(&at("text"), &["not a SQLite database", "give the path of a Shoal database"]).await;
    assert!(matches!(error, StoreError::Invalid(_)));

    rusqlite::Connection::open(at("other")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let error = refused(&at("other"), &["another program", "does not exist yet"]).await;
    assert!(matches!(error, StoreError::Invalid(_)));

    made(&at("newer.db"), 1).await;
    for (version, words) in
        [(99, ["knows version 4", "or a newer one"]), (2, ["knows version 4", "`shoal export`"])]
    {
        let connection = rusqlite::Connection::open(at("newer.db")).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        drop(connection);
        let error = refused(&at("newer.db"), &words).await;
        assert!(matches!(error, StoreError::Invalid(_)), "{version}");
    }

    refused(folder.path(), &["is a folder"]).await;
    let error = refused(&at("none/shoal.db"), &["does not exist", "make that first"]).await;
    assert!(matches!(error, StoreError::Invalid(_)));
}

/// What quick look finds when it is opened, and what is found when it is read, is called damage, not an answer.
#[tokio::test]
async fn damage_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    made(&path, 50).await;
    let good = fs::read(&path).unwrap();
    let words = ["is damaged: opening the database: ", "restore it from a backup (`shoal database restore"];

    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(matches!(refused(&path, &words).await, StoreError::Corrupt { .. }));

    let mut pages_gone = good.clone();
    pages_gone[4096..8192].fill(0);
    fs::write(&path, &pages_gone).unwrap();
    let error = refused(&path, &words).await;
    assert!(matches!(error, StoreError::Corrupt { .. }));
    // What was found, and not how it came to be said.
    assert!(!error.to_string().contains(['\n', '*']) && !error.to_string().contains("onversion"), "{error}");

    fs::write(&path, &good).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("DELETE FROM changes WHERE id = (SELECT max(id) FROM changes)", []).unwrap();
    drop(connection);
    assert!(matches!(
        refused(&path, &["should have 3 changes, 2 are there"]).await,
        StoreError::Corrupt { .. }
    ));

    // Under an open store: the page is gone from below its feet.
    fs::write(&path, &good).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE versions SET key = 'not a key' WHERE key = 'hosts/w0'", []).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).await.unwrap();
    let answer = store.read(&Query::new(Range::All)).await;
    assert!(
        matches!(&answer, Err(StoreError::Corrupt { .. })),
        "an unreadable page is no shorter page: {answer:?}"
    );
}

/// Opens the file as whoever runs it, and says what came of it.
#[allow(clippy::print_stdout, reason = "who started it reads what it says")]
async fn opener(path: &str) {
    match SqliteStore::open(path).await {
        Ok(_) => println!("opened"),
        Err(StoreError::ReadOnly(text)) => println!("read only: {}", StoreError::ReadOnly(text)),
        Err(other) => println!("other: {other:?}"),
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_said() {
    if let Ok(path) = std::env::var("SHOAL_TEST_OPENS") {
        return opener(&path).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    made(&path, 1).await;
    // For others to read and enter, but not to write. Root may write anywhere, so it asks as nobody.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let mut opener = Command::new(std::env::current_exe().unwrap());
    opener.args(["--exact", "a_folder_that_cannot_be_written_is_said", "--nocapture"]);
    opener.env("SHOAL_TEST_OPENS", &path);
    if rustix::process::geteuid().is_root() {
        opener.uid(65534).gid(65534);
    }
    let Ok(out) = opener.output() else {
        println!(
            "SKIPPED: a_folder_that_cannot_be_written_is_said: no other user may run this test's binary"
        );
        return;
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let said = text.lines().find(|l| l.contains("read only:")).unwrap_or_else(|| panic!("{text}"));
    assert!(said.contains(path.to_str().unwrap()) && said.contains("needs to be writable"), "{said}");
}
