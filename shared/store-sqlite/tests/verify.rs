//! Files that were damaged on purpose, one way each: what is wrong is named, and nothing else is.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::path::{Path, PathBuf};

use shoal_core::{Change, Commit, Document, Key};
use shoal_store::Store as _;
use shoal_store_sqlite::{SqliteStore, Verified, backup, verify};

fn change(key: &str, value: Option<&str>) -> Change {
    let value = value.map(|text| Document::parse(text).unwrap());
    Change { key: key.parse::<Key>().unwrap(), value, moved: None }
}

fn commit(changes: Vec<Change>) -> Commit {
    Commit::new("ann", "m", changes)
}

/// Hosts and tags that came, changed and went.
async fn fleet(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.unwrap();
    let all = [
        vec![
            change("hosts/web1", Some(r#"{"id":"1","document":{"a":1}}"#)),
            change("hosts/web2", Some(r#"{"id":"2"}"#)),
            change("dns/a", Some(r#"{"document":{"ttl":1}}"#)),
            change("dns/a/members/web1", Some("{}")),
            change("dns/a/members/web2", Some("{}")),
        ],
        vec![
            change("hosts/web1", Some(r#"{"id":"1","document":{"a":2}}"#)),
            change("facts/vm/web1", Some("{}")),
        ],
        vec![change("dns/a/members/web2", None), change("hosts/web2", None)],
        // So many that the scopes are filed.
        (0..20).map(|n| change(&format!("facts/vm/box{n}"), Some("{}"))).collect(),
    ];
    for changes in all {
        store.commit(commit(changes)).await.unwrap();
    }
    store
}

fn checked(path: &Path) -> Verified {
    verify(path, &mut |_, _| {}).unwrap()
}

#[tokio::test]
async fn what_was_written_is_sound_in_use_and_as_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = fleet(&path).await;
    let verified = checked(&path);
    assert!(verified.is_sound(), "{:?}", verified.damage);
    assert_eq!((verified.commits, verified.changes, verified.rows), (4, 29, 26));
    assert_eq!(verified.head.unwrap(), store.head().await.unwrap());
    let copy = dir.path().join("copy.db");
    backup(&path, &copy).unwrap();
    assert!(checked(&copy).is_sound());
    let error = verify(&dir.path().join("none.db"), &mut |_, _| {}).unwrap_err().to_string();
    assert!(error.contains("there is no database at"), "{error}");
}

/// The file after this statement was run on it behind the store's back.
async fn broken(dir: &Path, sql: &str) -> PathBuf {
    let path = dir.join("shoal.db");
    drop(fleet(&path).await);
    let connection = rusqlite::Connection::open(&path).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
    path
}

#[tokio::test]
async fn what_is_damaged_is_named() {
    for (sql, place, what) in [
        (
            "UPDATE changes SET value = '{' WHERE key = 'hosts/web1' AND id >> 20 = 2",
            "hosts/web1 at revision 2",
            "cannot be read",
        ),
        (
            "UPDATE changes SET value = '{\"id\":1}' WHERE key = 'hosts/web1' AND id >> 20 = 1",
            "hosts/web1 at revision 1",
            "cannot be read",
        ),
        (
            "UPDATE changes SET value = '{ }' WHERE key = 'facts/vm/web1'",
            "facts/vm/web1 at revision 2",
            "not written as documents are",
        ),
        (
            "UPDATE versions SET change = 9 << 20 WHERE key = 'hosts/web1' AND change >> 20 = 2",
            "hosts/web1",
            "what it had at revision 9 is not in the history",
        ),
        (
            "UPDATE versions SET key = 'hosts/web3' WHERE key = 'hosts/web2' AND live = 0",
            "hosts/web3",
            "the history of something else",
        ),
        (
            "UPDATE versions SET live = 1 WHERE key = 'hosts/web2'",
            "hosts/web2 at revision 3",
            "deleted in the history",
        ),
        (
            "DELETE FROM versions WHERE key = 'facts/vm/web1'",
            "facts/vm/web1 at revision 2",
            "`versions` does not have it",
        ),
        ("DELETE FROM naming WHERE key = 'dns/a/members/web1'", "dns/a/members/web1", "`naming`"),
        (
            "INSERT INTO naming VALUES ('web9', 'dns/a/members/web9')",
            "the index `naming`",
            "1 of its entries",
        ),
        (
            "DELETE FROM scopes WHERE scope = 'hosts/' AND revision = 2",
            "hosts/web1 at revision 2",
            "`scopes`",
        ),
        ("INSERT INTO scopes VALUES ('hosts/', 77)", "the index `scopes`", "1 of its entries"),
        ("UPDATE changes SET author = NULL WHERE id = 2 << 20", "the commit of revision 2", "who made it"),
        (
            "UPDATE changes SET count = 3 WHERE id = 3 << 20",
            "the commit of revision 3",
            "should have 3 changes, 2",
        ),
        (
            "DELETE FROM changes WHERE key = 'hosts/web1' AND id >> 20 = 2",
            "the commit of revision 2",
            "should have 2 changes, 1",
        ),
        (
            "INSERT INTO reports VALUES ('dns', 'one', 0, NULL, '{')",
            "the report of dns one",
            "cannot be read",
        ),
        ("DELETE FROM meta", "the head", "cannot be read"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = broken(dir.path(), sql).await;
        let verified = checked(&path);
        let found = verified.damage.iter().any(|one| one.place == place && one.what.contains(what));
        assert!(found, "{sql}: {:?}", verified.damage);
        assert_eq!(verified.damage_total, verified.damage.len() as u64);
    }
}

#[tokio::test]
async fn pages_that_were_overwritten_are_told_and_the_check_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let store = fleet(&path).await;
    for n in 0..400 {
        let change =
            change(&format!("hosts/h{n}"), Some(&format!(r#"{{"id":"h{n}","document":{{"n":{n}}}}}"#)));
        store.commit(commit(vec![change])).await.unwrap();
    }
    drop(store);
    let copy = dir.path().join("copy.db");
    backup(&path, &copy).unwrap();
    let mut octets = std::fs::read(&copy).unwrap();
    let middle = octets.len() / 4096 / 2 * 4096;
    octets[middle..middle + 4096].fill(0xA5);
    std::fs::write(&copy, octets).unwrap();
    let verified = checked(&copy);
    assert!(!verified.is_sound());
    assert!(verified.damage.iter().any(|one| one.place == "the file"), "{:?}", verified.damage);
    assert!(verified.head.is_some(), "the rest was read");
    std::fs::write(&copy, "something else, and long enough to look like something".repeat(100)).unwrap();
    assert!(verify(&copy, &mut |_, _| {}).unwrap_err().to_string().contains("not a SQLite database"));
}
