//! Backups and restores.

#![allow(clippy::unwrap_used, reason = "a test fails by them")]

use std::path::Path;
use std::time::Duration;

use shoal_core::{Change, Commit, Document, Range};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Query, Store, StoreError};
use shoal_store_sqlite::{SqliteStore, backup, restore};

async fn write(store: &SqliteStore, host: u32) {
    let change = Change {
        key: format!("hosts/web{host}.example.com").parse().unwrap(),
        value: Some(Document::from(serde_json::json!({"id": format!("h{host}"), "state": "active"}))),
        moved: None,
    };
    let commit = Commit::new("ann", "test", vec![change]);
    store.commit(commit).await.unwrap();
}

async fn claim(store: &SqliteStore, name: &str, ttl: Option<u64>) -> Claim {
    let ttl = ttl.map(Duration::from_secs);
    let want = ClaimRequest { name: name.into(), of: 1, holder: "one".into(), ttl };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => claim,
        taken => unreachable!("{taken:?}"),
    }
}

async fn hosts(path: &Path) -> usize {
    let store = SqliteStore::open(path).await.unwrap();
    store.read(&Query::new(Range::All)).await.unwrap().rows.len()
}

fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

fn invalid<T: std::fmt::Debug>(done: Result<T, StoreError>, says: &str) {
    let error = done.unwrap_err();
    assert!(matches!(&error, StoreError::Invalid(why) if why.contains(says)), "{error:?}");
}

#[tokio::test]
async fn what_a_killed_backup_left_is_removed_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("shoal.db"), dir.path().join("copy.db"));
    let store = SqliteStore::open(&db).await.unwrap();
    write(&store, 1).await;
    let left = |name: &str| dir.path().join(name);
    for name in
        ["copy.db.new-77", "copy.db.new-77-journal", "copy.db.new-78", "other.db.new-77", "copy.db.new-x"]
    {
        std::fs::write(left(name), "half of it").unwrap();
    }
    // One that is being made by another process.
    let other = std::fs::File::open(left("copy.db.new-78")).unwrap();
    other.lock().unwrap();
    backup(&db, &copy).unwrap();
    let stays = ["copy.db", "copy.db.new-78", "copy.db.new-x", "other.db.new-77"];
    let names: Vec<_> = names(dir.path()).into_iter().filter(|name| !name.starts_with("shoal.db")).collect();
    assert_eq!(names, stays);
    assert_eq!(hosts(&copy).await, 1);
}

#[tokio::test]
async fn a_restored_database_is_another_life_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("shoal.db"), dir.path().join("copy.db"));
    let store = SqliteStore::open(&db).await.unwrap();
    write(&store, 1).await;
    let held = claim(&store, "unit/x", Some(600)).await;
    let for_ever = claim(&store, "kept", None).await;
    let then = store.head().await.unwrap();
    // In use, and its newest commits in the log alone.
    assert_eq!(backup(&db, &copy).unwrap(), then);
    invalid(backup(&db, &copy), "copy.db exists");
    write(&store, 2).await;
    let newest = claim(&store, "unit/y", Some(600)).await;
    invalid(restore(&copy, &db, false), "--replace");
    invalid(restore(&copy, &db, true), "open in another process");
    write(&store, 3).await;
    drop(store);
    invalid(restore(&db, &db, true), "the database itself");

    let done = restore(&copy, &db, true).unwrap();
    assert_eq!(done.head.revision, then.revision);
    assert_ne!(done.head.epoch, then.epoch, "agents would take it for the database that they know");
    let (kept, before) = done.replaced.unwrap();
    assert_eq!(before.unwrap().0, then.revision.0 + 2);
    let kept_name = kept.file_name().unwrap().to_str().unwrap().to_owned();
    assert_eq!(names(dir.path()), ["copy.db", "shoal.db", &kept_name], "nothing is left lying about");
    assert_eq!((hosts(&db).await, hosts(&copy).await, hosts(&kept).await), (1, 1, 3));

    let store = SqliteStore::open(&db).await.unwrap();
    assert_eq!(store.head().await.unwrap(), done.head);
    assert_eq!(store.claims("").await.unwrap(), [for_ever], "{held:?} is of the life that ended");
    assert!(claim(&store, "unit/x", Some(600)).await.number > newest.number, "a number is given out once");
}

#[tokio::test]
async fn a_backup_makes_a_database_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("shoal.db"), dir.path().join("copy.db"));
    let store = SqliteStore::open(&db).await.unwrap();
    write(&store, 1).await;
    backup(&db, &copy).unwrap();
    drop(store);
    let to = dir.path().join("new.db");
    // Would be taken for its own.
    std::fs::write(dir.path().join("new.db-wal"), "what another file left behind").unwrap();
    let done = restore(&copy, &to, false).unwrap();
    assert!(done.replaced.is_none());
    assert_eq!(hosts(&to).await, 1);
    assert_eq!(names(dir.path()), ["copy.db", "new.db", "shoal.db"]);
}

#[tokio::test]
async fn only_a_sound_database_of_ours_is_restored_and_what_stands_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (db, copy) = (dir.path().join("shoal.db"), dir.path().join("copy.db"));
    let store = SqliteStore::open(&db).await.unwrap();
    for host in 0..200 {
        write(&store, host).await;
    }
    backup(&db, &copy).unwrap();
    drop(store);
    let sound = std::fs::read(&copy).unwrap();
    let mut torn = sound.clone();
    torn.truncate(sound.len() / 2);
    let mut rotten = sound.clone();
    let middle = sound.len() / 2 / 4096 * 4096;
    rotten[middle..middle + 4096].fill(0x5a);
    for bad in [torn, rotten, b"no database at all, but longer than a header is".repeat(9), Vec::new()] {
        std::fs::write(&copy, &bad).unwrap();
        restore(&copy, &db, true).unwrap_err();
        backup(&copy, &dir.path().join("second.db")).unwrap_err();
    }
    invalid(restore(&dir.path().join("typo.db"), &db, true), "no database at");
    assert_eq!(names(dir.path()), ["copy.db", "shoal.db"]);
    assert_eq!(hosts(&db).await, 200);

    // One that is damaged is what restores are for.
    std::fs::write(&copy, &sound).unwrap();
    std::fs::write(&db, b"damaged ".repeat(1000)).unwrap();
    let (kept, before) = restore(&copy, &db, true).unwrap().replaced.unwrap();
    assert_eq!((before, std::fs::read(kept).unwrap()), (None, b"damaged ".repeat(1000)));
    assert_eq!(hosts(&db).await, 200);
    // So is one of which nothing is left.
    std::fs::write(&db, b"").unwrap();
    restore(&copy, &db, true).unwrap();
    assert_eq!(hosts(&db).await, 200);
    // Another program's is not.
    let other = dir.path().join("other.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection.execute_batch("CREATE TABLE t (a); PRAGMA application_id = 7;").unwrap();
    drop(connection);
    invalid(restore(&copy, &other, true), "another program");
}

/// Hashes of passwords stand in it, and in its log.
#[tokio::test]
async fn no_other_user_reads_a_new_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    write(&store, 1).await;
    let (copy, other) = (dir.path().join("backup.db"), dir.path().join("restored.db"));
    backup(&path, &copy).unwrap();
    restore(&copy, &other, false).unwrap();
    let restored = SqliteStore::open(&other).await.unwrap();
    write(&restored, 2).await;
    assert!(names(dir.path()).iter().any(|name| name.ends_with("-wal")));
    for name in names(dir.path()) {
        let mode = std::fs::metadata(dir.path().join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !0o640, 0, "{name} has the mode {mode:o}");
    }
    // One that is there keeps what somebody gave it.
    drop((store, restored));
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o664)).unwrap();
    drop(SqliteStore::open(&other).await.unwrap());
    assert_eq!(std::fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o664);
}
