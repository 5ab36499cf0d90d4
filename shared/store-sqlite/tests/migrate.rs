//! Copies from and into files: the suite's cases, what is refused, and that a copied file is sound to the last index.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Change, Commit, Document, Epoch, Revision};
use shoal_store::conformance::{Answer, Made, Place};
use shoal_store::{Draft, MemoryStore, MigrateError, Store, StoreError, migrate};
use shoal_store_sqlite::{Options, SqliteDraft, SqliteStore, backup, verify};
use support::{commit, integrity, key};

/// A file that a copy is made in.
struct InFile {
    folder: tempfile::TempDir,
}

impl InFile {
    fn path(&self) -> PathBuf {
        self.folder.path().join("copy.db")
    }
}

impl Place for InFile {
    fn draft(&self, of: Epoch) -> Answer<'_, Box<dyn Draft>> {
        Box::pin(async move {
            let draft = SqliteDraft::open(self.path(), of).await?;
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn open(&self) -> Answer<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let store = SqliteStore::open_with(self.path(), Options::existing()).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

fn file() -> Box<dyn Place> {
    Box::new(InFile { folder: tempfile::tempdir().unwrap() })
}

fn memory() -> Box<dyn Place> {
    Box::new(shoal_store::conformance::MemoryPlace::default())
}

async fn sqlite() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
    Made::new(store, folder)
}

async fn in_memory() -> Made {
    Made::new(MemoryStore::new(), ())
}

mod from_file_to_file {
    shoal_store::copies!(super::sqlite, super::file);
}

mod from_memory_to_file {
    shoal_store::copies!(super::in_memory, super::file);
}

mod from_file_to_memory {
    shoal_store::copies!(super::sqlite, super::memory);
}

/// A commit of three rows that are what they should be, of about as much text each time as in the other tests.
fn sound(n: u64) -> Commit {
    let fill = "x".repeat((n as usize * 977) % 5000);
    let row = |at: &str, id: &str| {
        let text = format!("{{{id}\"document\":{{\"n\":{n},\"fill\":\"{fill}\"}}}}");
        Change::put(key(at), Document::parse(&text).unwrap())
    };
    Commit {
        changes: vec![row("hosts/w0", "\"id\":\"w0\","), row("lb/w0", ""), row("dns/w0", "")],
        ..commit("w0", n)
    }
}

/// A file with some commits, and its copy in the same folder.
async fn copied(folder: &Path, commits: u64) -> (PathBuf, PathBuf) {
    let (from, to) = (folder.join("from.db"), folder.join("to.db"));
    let source = SqliteStore::open(&from).await.unwrap();
    for n in 0..commits {
        source.commit(sound(n)).await.unwrap();
    }
    let draft = SqliteDraft::open(&to, source.head().await.unwrap().epoch).await.unwrap();
    migrate(source.whole().unwrap(), &draft, &mut |_| {}).await.unwrap();
    (from, to)
}

/// The refusal to make a copy there, which names the file and these words, and leaves the file as it was.
async fn refused(path: &Path, of: Epoch, words: &[&str]) {
    let before = fs::read(path).ok();
    let Err(error) = SqliteDraft::open(path, of).await else { panic!("{} was taken", path.display()) };
    let said = error.to_string();
    assert!(matches!(error, StoreError::Invalid(_)), "{said}");
    for word in words.iter().chain([&path.to_str().unwrap()]) {
        assert!(said.contains(word), "{word:?} is missing in: {said}");
    }
    assert_eq!(fs::read(path).ok(), before, "it was changed");
}

#[tokio::test]
async fn a_copy_is_sound_to_the_last_index() {
    let folder = tempfile::tempdir().unwrap();
    // More than are filed in the index of scopes at once, and more keys than are remembered of few.
    let (from, to) = copied(folder.path(), 150).await;
    for file in [&from, &to] {
        let found = verify(file, &mut |_, _| {}).unwrap();
        assert!(found.is_sound(), "{:?}", found.damage);
        assert_eq!((found.commits, found.changes), (150, 450));
        integrity(file);
    }
    let mode = fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "hashes of passwords stand in it");
}

#[tokio::test]
async fn places_that_are_taken_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (from, to) = copied(folder.path(), 3).await;
    for file in [&from, &to] {
        refused(file, Epoch(7), &["holds a database already (revision 3)", "nothing is replaced"]).await;
    }
    drop(SqliteStore::open(at("empty.db")).await.unwrap());
    refused(&at("empty.db"), Epoch(7), &["holds a database already (revision 0)"]).await;
    rusqlite::Connection::open(at("other")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    refused(&at("other"), Epoch(7), &["another program"]).await;
    fs::write(at("text"), "hosts: [web1]\n".repeat(1000)).unwrap();
    refused(&at("text"), Epoch(7), &["not a SQLite database"]).await;
    // An empty file is none yet.
    fs::write(at("nothing"), "").unwrap();
    SqliteDraft::open(at("nothing"), Epoch(7)).await.unwrap();
}

/// Whoever opens half of a copy as a database, or works on its file, is refused; so is who would go on with it from elsewhere.
#[tokio::test]
async fn half_of_a_copy_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.db");
    let source = MemoryStore::with(Epoch(7), Arc::new(shoal_store::ManualClock::new()));
    for n in 0..3 {
        source.commit(sound(n)).await.unwrap();
    }
    let draft = SqliteDraft::open(&path, Epoch(7)).await.unwrap();
    let some = source.whole().unwrap().history(Revision(0)).await.unwrap();
    draft.take(shoal_store::Piece::Commits(some[..2].to_vec())).await.unwrap();
    drop(draft);
    let copy = folder.path().join("copy.db");
    let refusals = [
        SqliteStore::open(&path).await.err(),
        SqliteStore::open_with(&path, Options::existing()).await.err(),
        verify(&path, &mut |_, _| {}).err(),
        backup(&path, &copy).err(),
        shoal_store_sqlite::restore(&path, &copy, false).err(),
    ];
    for refusal in refusals {
        let said = refusal.expect("a refusal").to_string();
        assert!(said.contains("unfinished copy") && said.contains("`shoal migrate`"), "{said}");
    }
    assert!(!copy.exists());
    refused(&path, Epoch(8), &["another database than this one", "0000000000000007, not 0000000000000008"])
        .await;
    // An older Shoal takes it for somebody else's: the mark of a database is not in it.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let mark: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).unwrap();
    assert_ne!(mark, 0x5368_6f6c);
    drop(connection);
    let draft = SqliteDraft::open(&path, Epoch(7)).await.unwrap();
    let migrated = migrate(source.whole().unwrap(), &draft, &mut |_| {}).await.unwrap();
    drop(draft);
    assert_eq!(migrated.head, SqliteStore::open(&path).await.unwrap().head().await.unwrap());
    assert!(verify(&path, &mut |_, _| {}).unwrap().is_sound());
}

/// A large commit that is being written moves the head only at its end; that is no rest, and it is in the copy when it was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_in_which_a_large_commit_is_being_written_does_not_rest() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.db"), folder.path().join("to.db"));
    let source = SqliteStore::open(&from).await.unwrap();
    source.commit(sound(0)).await.unwrap();
    let server = SqliteStore::open_with(&from, Options::default().slices_of(1)).await.unwrap();
    let row = |n: u64| {
        let text = format!("{{\"document\":{{\"n\":{n}}}}}");
        Change::put(key(&format!("lb/large{n:04}")), Document::parse(&text).unwrap())
    };
    let large = Commit { changes: (0..600).map(row).collect(), ..commit("large", 1) };
    let writing = tokio::spawn(async move { server.commit(large).await.unwrap() });
    // Stopped between two of its slices.
    let lock = rusqlite::Connection::open(&from).unwrap();
    lock.busy_timeout(Duration::ZERO).unwrap();
    loop {
        assert!(!writing.is_finished(), "it was never seen");
        if lock.execute_batch("BEGIN IMMEDIATE").is_ok() {
            let staged: Option<i64> =
                lock.query_row("SELECT staged FROM meta", [], |row| row.get(0)).unwrap();
            if staged.is_some() {
                break;
            }
            lock.execute_batch("ROLLBACK").unwrap();
        }
        tokio::task::yield_now().await;
    }
    let epoch = source.head().await.unwrap().epoch;
    let attempt = async || {
        let draft = SqliteDraft::open(&to, epoch).await.unwrap();
        migrate(source.whole().unwrap(), &draft, &mut |_| {}).await
    };
    let Err(MigrateError::InUse { upto, by }) = attempt().await else { panic!("it was finished") };
    assert_eq!((upto, by), (Revision(1), vec!["a large commit is being written".to_owned()]));
    lock.execute_batch("ROLLBACK").unwrap();
    drop(lock);
    let done = writing.await.unwrap();
    let migrated = attempt().await.unwrap();
    assert_eq!((migrated.head.revision, migrated.changes), (done.revision, 603));
}
