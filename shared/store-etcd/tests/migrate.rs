//! Copies from and into etcd, on a real one: the suite's cases, commits larger than etcd takes that are abandoned amid, connections that break, and
//! what a copy leaves as it was.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use shoal_core::{Change, Commit, Document, Epoch, Range, Revision};
use shoal_store::conformance::{Answer, Made, MemoryPlace, Place};
use shoal_store::{
    Draft, ManualClock, MemoryStore, MigrateError, Piece, Query, Store, StoreError, Whole, migrate,
};
use shoal_store_etcd::{EtcdDraft, EtcdStore, Missing};
use shoal_store_sqlite::{Options, SqliteDraft, SqliteStore};
use support::{Way, all_rows, check_rows, commit, count, installed, key, name, put, shared, whole_log};

/// A name under which a copy is made.
struct InEtcd {
    address: String,
}

impl Place for InEtcd {
    fn draft(&self, of: Epoch) -> Answer<'_, Box<dyn Draft>> {
        Box::pin(async move {
            let draft = EtcdDraft::open(&self.address, of).await?;
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn open(&self) -> Answer<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let store = EtcdStore::open_with(&self.address, Missing::Refuse).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

/// A file that one is made in.
struct InFile {
    folder: tempfile::TempDir,
}

impl Place for InFile {
    fn draft(&self, of: Epoch) -> Answer<'_, Box<dyn Draft>> {
        Box::pin(async move {
            let draft = SqliteDraft::open(self.folder.path().join("copy.db"), of).await?;
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn open(&self) -> Answer<'_, Arc<dyn Store>> {
        Box::pin(async move {
            let path = self.folder.path().join("copy.db");
            let store = SqliteStore::open_with(path, Options::existing()).await?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        })
    }
}

/// The name of the test that runs, for what it prints.
fn test() -> String {
    std::thread::current().name().unwrap_or("copies").to_owned()
}

fn in_etcd() -> Box<dyn Place> {
    if !installed(&test()) {
        // The case has to run on something: what it says of this one was known before.
        return Box::new(MemoryPlace::default());
    }
    Box::new(InEtcd { address: shared().address(&name()) })
}

fn in_file() -> Box<dyn Place> {
    Box::new(InFile { folder: tempfile::tempdir().unwrap() })
}

async fn etcd() -> Made {
    if !installed(&test()) {
        return Made::new(MemoryStore::new(), ());
    }
    Made::new(support::new_store().await, ())
}

async fn file() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
    Made::new(store, folder)
}

mod from_etcd_to_etcd {
    shoal_store::copies!(super::etcd, super::in_etcd);
}

mod from_file_to_etcd {
    shoal_store::copies!(super::file, super::in_etcd);
}

mod from_etcd_to_file {
    shoal_store::copies!(super::etcd, super::in_file);
}

/// A database in memory with some small commits around one that is larger than etcd takes at once.
async fn source() -> MemoryStore {
    let store = MemoryStore::with(Epoch(7), Arc::new(ManualClock::new()));
    let fill = "x".repeat(300);
    let large = |n: u64| {
        let value = Document::trusted(&format!("{{\"n\":{n},\"fill\":\"{fill}\"}}"));
        let rows = (0..3000).map(|row| match row % 3 {
            0 => format!("hosts/h{row:05}"),
            1 => format!("dns/z{}/members/h{:05}", row % 7, row - 1),
            _ => format!("lb/x{row:05}"),
        });
        commit(rows.map(|at| Change::put(key(&at), value.clone())))
    };
    for n in 0..5 {
        store.commit(commit([put("lb/x00002", n), put("backup/a", n)])).await.unwrap();
    }
    store.commit(large(1)).await.unwrap();
    store.commit(commit([put("backup/a", 9), Change::delete(key("lb/x00005"))])).await.unwrap();
    store.commit(large(2)).await.unwrap();
    store
}

/// That a copy is the same as what it was made from.
async fn same(address: &str, source: &MemoryStore) {
    let store = EtcdStore::open_with(address, Missing::Refuse).await.unwrap();
    assert_eq!(store.head().await.unwrap(), source.head().await.unwrap());
    assert_eq!(whole_log(&store).await, whole_log(source).await);
    assert_eq!(all_rows(&store, Range::All).await, all_rows(source, Range::All).await);
    check_rows(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_commit_that_was_abandoned_amid_is_taken_again() {
    if !installed("a_large_commit_that_was_abandoned_amid_is_taken_again") {
        return;
    }
    let (source, address) = (source().await, shared().address(&name()));
    let all = source.history(Revision(0)).await.unwrap();
    let mut abandoned = 0;
    for millis in [0, 1, 2, 4, 8, 16, 32, 64] {
        let draft = EtcdDraft::open(&address, Epoch(7)).await.unwrap();
        let at = draft.stand().await.unwrap().head.revision;
        let rest: Vec<_> = all.iter().filter(|entry| entry.info.revision > at).cloned().collect();
        if rest.is_empty() {
            break;
        }
        let taking = draft.take(Piece::Commits(rest));
        abandoned += u32::from(tokio::time::timeout(Duration::from_millis(millis), taking).await.is_err());
    }
    assert!(abandoned > 1, "it was too fast to be abandoned");
    let draft = EtcdDraft::open(&address, Epoch(7)).await.unwrap();
    let migrated = migrate(&source, &draft, &mut |_| {}).await.unwrap();
    assert_eq!((migrated.commits, migrated.changes), (8, 5 * 2 + 3000 + 2 + 3000));
    same(&address, &source).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_lose_and_double_nothing() {
    if !installed("connections_that_break_lose_and_double_nothing") {
        return;
    }
    let (source, name) = (source().await, name());
    let way = Way::to(shared()).await;
    let draft = EtcdDraft::open(&way.address(&name), Epoch(7)).await.unwrap();
    let copying = async { migrate(&source, &draft, &mut |_| {}).await };
    let breaking = async {
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            way.set(false);
            tokio::time::sleep(Duration::from_millis(20)).await;
            way.set(true);
        }
    };
    let (copied, ()) = tokio::join!(copying, breaking);
    copied.unwrap();
    same(&shared().address(&name), &source).await;
}

#[tokio::test]
async fn names_that_are_taken_are_refused_and_left_alone() {
    if !installed("names_that_are_taken_are_refused_and_left_alone") {
        return;
    }
    let (etcd, mut client) = (shared(), shared().client().await);
    let (database, empty, other, newer, half) = (name(), name(), name(), name(), name());
    let store = EtcdStore::open(&etcd.address(&database)).await.unwrap();
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    EtcdStore::open(&etcd.address(&empty)).await.unwrap();
    client.put(format!("{other}/x"), "theirs", None).await.unwrap();
    client.put(format!("{newer}/draft"), r#"{"shoal":99,"more":true}"#, None).await.unwrap();
    drop(EtcdDraft::open(&etcd.address(&half), Epoch(8)).await.unwrap());
    let cases = [
        (&database, "holds a database already (revision 1)"),
        (&empty, "holds a database already (revision 0)"),
        (&other, "another program"),
        (&newer, "version 99"),
        (&half, "another database than this one (its epoch is 0000000000000008, not 0000000000000007)"),
    ];
    for (name, word) in cases {
        let before = count(etcd, &format!("{name}/")).await;
        let Err(error) = EtcdDraft::open(&etcd.address(name), Epoch(7)).await else {
            panic!("{name}: {word}")
        };
        let said = error.to_string();
        assert!(matches!(error, StoreError::Invalid(_)) && said.contains(word), "{word:?}: {said}");
        assert!(said.contains(&etcd.endpoint()), "{said}");
        assert_eq!(count(etcd, &format!("{name}/")).await, before);
    }
    // Whoever would make a database there does not.
    for missing in [Missing::Make, Missing::Refuse] {
        let Err(error) = EtcdStore::open_with(&etcd.address(&half), missing).await else { panic!("opened") };
        assert!(error.to_string().contains(&format!("etcdctl del --prefix {half}/")), "{error}");
    }
}

/// A database that is no copy is written as it was before there were any, so that an older Shoal goes on with it.
#[tokio::test]
async fn a_database_that_is_no_copy_has_no_base() {
    if !installed("a_database_that_is_no_copy_has_no_base") {
        return;
    }
    let (etcd, mut client, plain, copy) = (shared(), shared().client().await, name(), name());
    let store = EtcdStore::open(&etcd.address(&plain)).await.unwrap();
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    let draft = EtcdDraft::open(&etcd.address(&copy), store.head().await.unwrap().epoch).await.unwrap();
    migrate(&store, &draft, &mut |_| {}).await.unwrap();
    let copied = EtcdStore::open(&etcd.address(&copy)).await.unwrap();
    copied.commit(commit([put("lb/a", 2)])).await.unwrap();
    let mut head = async |name: &str| {
        let found = client.get(format!("{name}/log"), None).await.unwrap();
        String::from_utf8(found.kvs()[0].value().to_vec()).unwrap()
    };
    let (plain, copy) = (head(&plain).await, head(&copy).await);
    assert!(plain.contains("\"shoal\":1") && !plain.contains("base"), "{plain}");
    assert!(copy.contains("\"shoal\":2") && copy.contains("\"base\":"), "{copy}");
}

/// Where numbers were skipped the log is read on in few questions: a walk of one revision at a time would take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skipped_numbers_are_passed_over() {
    if !installed("skipped_numbers_are_passed_over") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
    source.commit(commit([put("lb/a", 1)])).await.unwrap();
    for n in 1..4 {
        let commit: Commit = commit([put("lb/a", n + 1), put("dns/a", n)]);
        let done = source.commit_at(commit, Revision(n * 60_000)).await.unwrap();
        assert_eq!(done.revision, Revision(n * 60_000));
    }
    let address = shared().address(&name());
    let draft = EtcdDraft::open(&address, source.head().await.unwrap().epoch).await.unwrap();
    migrate(&source, &draft, &mut |_| {}).await.unwrap();
    let store = EtcdStore::open(&address).await.unwrap();
    let begun = std::time::Instant::now();
    for limit in [1, 2, 1000] {
        let (mut revisions, mut before) = (Vec::new(), None);
        loop {
            let page = store.log(&Range::All, before, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            before = Some(last.info.revision);
            revisions.extend(page.iter().map(|entry| entry.info.revision.0));
        }
        assert_eq!(revisions, [180_000, 120_000, 60_000, 1]);
    }
    let query = Query { at: Some(Revision(119_999)), ..Query::new(Range::All) };
    let page = store.read(&query).await.unwrap();
    assert_eq!(page.rows.iter().map(|row| row.revision.0).collect::<Vec<_>>(), [60_000, 60_000]);
    assert!(begun.elapsed() < Duration::from_secs(60), "it took {:?}", begun.elapsed());
    assert_eq!(store.commit(commit([put("lb/a", 9)])).await.unwrap().revision, Revision(180_001));
}

/// Who lays down a large commit, which moves the head only at its end, says that it lives; until then the source does not rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_in_which_a_large_commit_is_being_written_does_not_rest() {
    if !installed("a_source_in_which_a_large_commit_is_being_written_does_not_rest") {
        return;
    }
    let (etcd, mut client, from) = (shared(), shared().client().await, name());
    let source = EtcdStore::open(&etcd.address(&from)).await.unwrap();
    source.commit(commit([put("lb/a", 1)])).await.unwrap();
    let (to, epoch) = (etcd.address(&name()), source.head().await.unwrap().epoch);
    let attempt = async || {
        let draft = EtcdDraft::open(&to, epoch).await.unwrap();
        migrate(&source, &draft, &mut |_| {}).await
    };
    // As `large` lays it down, but that it stays so.
    client.put(format!("{from}/alive/x"), "", None).await.unwrap();
    client.put(format!("{from}/stage/x"), "", None).await.unwrap();
    let Err(MigrateError::InUse { upto, by }) = attempt().await else { panic!("it was finished") };
    assert_eq!((upto, by), (Revision(1), vec!["a large commit is being written".to_owned()]));
    // What a dead one left becomes no commit.
    client.delete(format!("{from}/alive/x"), None).await.unwrap();
    assert_eq!(attempt().await.unwrap().head.revision, Revision(1));
}
