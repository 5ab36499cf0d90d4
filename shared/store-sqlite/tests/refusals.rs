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
use std::path::{Path, PathBuf};
use std::process::Command;

use shoal_core::Range;
use shoal_store::{Query, Store, StoreError};
use shoal_store_sqlite::{Options, SqliteStore};
use support::{commit, key};

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

/// Makes nothing of the page that the claims begin with: no host is read there.
fn tear(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'claims'";
    let page = connection.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap() as usize;
    drop(connection);
    let mut octets = fs::read(path).unwrap();
    octets[(page - 1) * 4096..page * 4096].fill(0);
    fs::write(path, octets).unwrap();
}

/// Who asks a little is told of the damage that he meets, and writes nothing into a file that has any.
#[tokio::test]
async fn a_brief_look_is_no_check_of_the_whole_and_a_write_after_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    made(&path, 20).await;
    let brief = async || SqliteStore::open_with(&path, Options::brief()).await;
    let store = brief().await.unwrap();
    store.commit(commit("w0", 20)).await.unwrap();
    drop(store);
    tear(&path);
    refused(&path, &["is damaged: opening the database: the check of the whole file found"]).await;
    let before = fs::read(&path).unwrap();
    let store = brief().await.unwrap();
    let page = store.read(&Query::new(Range::Key(key("hosts/w0")))).await.unwrap();
    assert_eq!(page.rows.len(), 1);
    let met = store.claims("").await;
    assert!(matches!(&met, Err(StoreError::Corrupt { .. })), "{met:?}");
    for _ in 0..2 {
        let written = store.commit(commit("w0", 21)).await;
        let Err(StoreError::Corrupt { why, .. }) = &written else { panic!("{written:?}") };
        assert!(why.contains("the check of the whole file found"), "{why}");
    }
    drop(store);
    assert_eq!(fs::read(&path).unwrap(), before, "it was changed");
    // Somebody was stopped in the middle, or is at it.
    let log = PathBuf::from(format!("{}-wal", path.display()));
    fs::write(&log, [0; 32]).unwrap();
    let Err(error) = brief().await else { panic!("{} was opened", path.display()) };
    assert!(error.to_string().contains("the check of the whole file found"), "{error}");
    // What is not there is not made for that.
    let none = folder.path().join("none.db");
    let Err(error) = SqliteStore::open_with(&none, Options::brief()).await else { panic!("it was made") };
    assert!(error.to_string().contains("there is no database at") && !none.exists(), "{error}");
}

/// As a backup is, and what was restored from one: to open it begins a log, which is writing.
#[tokio::test]
async fn a_file_that_never_had_a_log_is_checked_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    made(&path, 20).await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))
        .unwrap();
    drop(connection);
    tear(&path);
    let Err(error) = SqliteStore::open_with(&path, Options::brief()).await else { panic!("it was opened") };
    assert!(error.to_string().contains("the check of the whole file found"), "{error}");
}

/// Of a range whose keys are out of order nobody knows what was passed over.
#[tokio::test]
async fn keys_that_are_out_of_order_are_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    made(&path, 3).await;
    let mut octets = fs::read(&path).unwrap();
    for at in 0..octets.len() - 5 {
        if octets[at..].starts_with(b"lb/w0") {
            octets[at..at + 2].copy_from_slice(b"aa");
        }
    }
    fs::write(&path, octets).unwrap();
    let store = SqliteStore::open_with(&path, Options::brief()).await.unwrap();
    let read = store.read(&Query::new(Range::All)).await;
    let Err(StoreError::Corrupt { why, .. }) = &read else { panic!("{read:?}") };
    assert!(why.contains("the key aa/w0 stands behind hosts/w0"), "{why}");
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
