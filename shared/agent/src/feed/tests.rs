//! A watch that ends at once, again and again, is not opened again at full speed.

use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_core::{Change, Commit, Document, Key};
use shoal_store::{Flow, Fut, LedgerPage, MemoryStore, Page, Position};

use serde_json::json;

use super::*;

/// What every watch of it says, before it ends.
#[derive(Clone, Copy, PartialEq)]
enum Says {
    Nothing,
    Reset,
    /// And it never says which units there are.
    Silent,
    /// And it fails at the second page of rows.
    OnePage,
}

struct Short(MemoryStore, Says, AtomicUsize);

impl Store for Short {
    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        if self.1 == Says::OnePage && query.after.is_some() {
            let (place, why) = ("a store".to_owned(), "it is gone".to_owned());
            return Box::pin(std::future::ready(Err(StoreError::Unavailable { place, why })));
        }
        self.0.read(query)
    }
    fn watch(&self, _: Filter, after: Position) -> Flow<Result<Feed>> {
        self.2.fetch_add(1, Ordering::SeqCst);
        match self.1 {
            Says::Nothing | Says::Silent | Says::OnePage => Box::pin(futures::stream::empty()),
            Says::Reset => Box::pin(futures::stream::iter([Ok(Feed::Reset(after))])),
        }
    }
    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        match self.1 {
            Says::Silent => Box::pin(std::future::pending()),
            _ => self.0.ledger(prefix, after, limit),
        }
    }

    shoal_store::forward!(0: head, commit, log, claim, release, claims, write_ledger, report, reports);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_at_once_is_opened_again_with_pauses() {
    for says in [Says::Nothing, Says::Reset] {
        let store = Arc::new(Short(MemoryStore::new(), says, AtomicUsize::new(0)));
        let from = store.head().await.unwrap();
        let (tell, mut news) = mpsc::channel(256);
        let following = tokio::spawn(follow(store.clone(), Range::All, from, tell));
        tokio::time::sleep(Duration::from_millis(800)).await;
        following.abort();
        // At the earliest after 0, 0.1, 0.3 and 0.7 s; a first reset is followed at once.
        let opened = store.2.load(Ordering::SeqCst);
        assert!((2..=5).contains(&opened), "opened {opened} times");
        let told = matches!(news.recv().await, Some(News::Down(_)));
        assert_eq!(told, says == Says::Nothing, "an end without a word is told");
    }
}

#[tokio::test]
async fn a_database_of_several_pages_is_read_whole_or_not_at_all() {
    let hosts = u64::try_from(shoal_store::MAX_PAGE).unwrap() * 2 + 1;
    let store = Short(MemoryStore::new(), Says::Nothing, AtomicUsize::new(0));
    let row = |n: u64| {
        let name = format!("h{n}.example.com").parse().unwrap();
        Change::put(Key::host(&name), Document::of(&json!({"id": n.to_string()})).unwrap())
    };
    let commit = Commit::new("test", "a fleet", (0..hosts).map(row).collect());
    let made = store.commit(commit).await.unwrap();
    let (head, snapshot) = read_all(&store, &Range::All).await.unwrap();
    assert_eq!((head.revision, snapshot.view().revision()), (made.revision, made.revision));
    assert_eq!(snapshot.view().hosts().count() as u64, hosts);
    let Short(rows, ..) = store;
    let failed = read_all(&Short(rows, Says::OnePage, AtomicUsize::new(0)), &Range::All).await;
    assert!(failed.is_err_and(|why| why.to_string().contains("it is gone")));
}

#[test]
fn pauses_grow_and_are_capped() {
    for (failures, full) in [(1, 200), (3, 800), (9, 30_000), (4_000_000, 30_000)] {
        let (found, full) = (pause(failures), Duration::from_millis(full));
        assert!(found <= full && found >= full / 2, "{failures}: {found:?}");
    }
}

#[tokio::test]
async fn a_store_that_never_answers_is_a_fault_in_time() {
    use crate::clock::Wall;
    use crate::drive::tests::{Nobody, Nothing};
    use crate::effects::Hands;

    let store = Arc::new(Short(MemoryStore::new(), Says::Silent, AtomicUsize::new(0)));
    let limit = Duration::from_millis(50);
    let hands = Hands::new("nobody".into(), "test".into(), store, Nothing, Arc::new(Wall::new()), limit);
    let act = shoal_engine::Act::<Nobody>::NextKey { prefix: "nobody/".into(), after: None };
    let answer = Arc::new(hands).carry_out(shoal_engine::Effect { id: 7, act });
    let (id, answer) = tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap();
    let shoal_engine::Answer::Fault(fault) = answer else { panic!("it answered") };
    assert!(id == 7 && fault.to_string().contains("list the units"), "{fault}");
}
