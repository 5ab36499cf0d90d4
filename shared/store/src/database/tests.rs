//! A database in memory, proposed to by several at once.

use shoal_core::{Document, Expect, HostName, Key, Member, Refusal, TagName};

use super::*;
use crate::MemoryStore;

fn host(name: &str, document: &str) -> Edit {
    Edit::PutHost {
        host: name.parse().unwrap(),
        id: None,
        state: None,
        owner: None,
        environment: None,
        expires: None,
        document: Document::parse(document).unwrap(),
        expect: Expect::Any,
    }
}

fn tag(name: &str, members: &[&str]) -> Edit {
    Edit::PutTag {
        tag: name.parse().unwrap(),
        owner: None,
        environment: None,
        expires: None,
        document: Document::empty(),
        members: Some(members.iter().map(|m| m.parse().unwrap()).collect()),
        expect: Expect::Any,
    }
}

fn proposal(edits: Vec<Edit>) -> Proposal {
    Proposal::new("ann", "because", edits)
}

async fn open() -> (Arc<dyn Store>, Database) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let database = Database::open(store.clone()).await.unwrap();
    (store, database)
}

#[tokio::test]
async fn writes_are_read_back() {
    let (store, database) = open().await;
    let edits =
        vec![tag("lb/web", &["a", "select: site == 'x'"]), host("a", "{}"), host("b", r#"{"site":"x"}"#)];
    let done = database.transact(proposal(edits)).await.unwrap();
    let view = database.view();
    assert!(view.revision() >= done.committed.revision);
    let web: TagName = "lb/web".parse().unwrap();
    assert_eq!(view.members(&web).iter().map(HostName::as_str).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(done.touched.pairs[&web].len(), 2);
    let other = Database::open(store).await.unwrap();
    assert_eq!(other.view().members(&web), view.members(&web));
    let again = database.transact(proposal(vec![host("a", "{}")])).await.unwrap();
    assert_eq!((again.committed.revision, again.committed.changed), (done.committed.revision, 0));
}

#[tokio::test]
async fn another_writer_is_caught_up_with() {
    let (store, one) = open().await;
    let two = Database::open(store).await.unwrap();
    for round in 0..20 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        one.transact(proposal(vec![host(&a, "{}")])).await.unwrap();
        // The second view may lag; its proposal names the host all the same.
        let edits = vec![tag(&format!("t/{b}"), &[&a])];
        two.transact(proposal(edits)).await.unwrap();
    }
    assert_eq!(two.view().hosts().count(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rivals_lose_nothing() {
    let (store, database) = open().await;
    database.transact(proposal(vec![host("a", r#"{"n":{}}"#)])).await.unwrap();
    let mut rivals = tokio::task::JoinSet::new();
    for rival in 0..8 {
        let store = store.clone();
        rivals.spawn(async move {
            let database = Database::open(store).await.unwrap();
            for round in 0..5 {
                let patch = serde_json::json!({"document": {"n": {format!("{rival}-{round}"): 1}}});
                let key: Key = "hosts/a".parse().unwrap();
                let edit = Edit::Patch { key, patch, expect: Expect::Any };
                database.transact(proposal(vec![edit])).await.unwrap();
            }
        });
    }
    rivals.join_all().await;
    database.wait_for(store.head().await.unwrap().revision).await;
    let n = database.view().host("a").unwrap().field("n").unwrap();
    assert_eq!(n.as_object().unwrap().len(), 40, "{n}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rivals_make_no_cycle() {
    for _ in 0..20 {
        let (store, database) = open().await;
        database.transact(proposal(vec![tag("t/a", &[]), tag("t/b", &[])])).await.unwrap();
        let other = Database::open(store).await.unwrap();
        let nest = |outer: &str, inner: &str| {
            let members: Vec<Member> = vec![inner.parse().unwrap()];
            proposal(vec![Edit::AddMembers { tag: outer.parse().unwrap(), members }])
        };
        let (one, two) =
            tokio::join!(database.transact(nest("t/a", "@b")), other.transact(nest("t/b", "@a")));
        let refused = [one, two]
            .into_iter()
            .filter(|r| matches!(r, Err(TransactError::Refused(Refusal::Cycle { .. }))))
            .count();
        assert_eq!(refused, 1);
    }
}

#[tokio::test]
async fn a_retried_proposal_is_done_once() {
    let (_, database) = open().await;
    let mut create = proposal(vec![host("a", r#"{"n":1}"#)]);
    create.idempotency = Some("k".into());
    let Edit::PutHost { expect, .. } = &mut create.edits[0] else { unreachable!() };
    *expect = Expect::Absent;
    let first = database.transact(create.clone()).await.unwrap();
    // Refused by now, were it not known.
    let again = database.transact(create.clone()).await.unwrap();
    assert_eq!((again.committed.revision, again.committed.replayed), (first.committed.revision, true));
    let mut patch = proposal(vec![Edit::Patch {
        key: "hosts/a".parse().unwrap(),
        patch: serde_json::json!({"document": {"n": 2}}),
        expect: Expect::Any,
    }]);
    patch.idempotency = Some("k2".into());
    let first = database.transact(patch.clone()).await.unwrap();
    database.transact(proposal(vec![host("a", r#"{"n":3}"#)])).await.unwrap();
    let again = database.transact(patch).await.unwrap();
    assert_eq!((again.committed.revision, again.committed.replayed), (first.committed.revision, true));
    assert_eq!(database.view().host("a").unwrap().field("n").unwrap(), 3);
    let mut other = proposal(vec![host("c", "{}")]);
    other.idempotency = Some("k".into());
    let refused = database.transact(other).await;
    assert!(matches!(refused, Err(TransactError::Store(StoreError::Reused { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_stale_revision_is_refused_at_once() {
    let (_, database) = open().await;
    let first = database.transact(proposal(vec![host("a", "{}")])).await.unwrap().committed.revision;
    database.transact(proposal(vec![host("a", r#"{"n":1}"#)])).await.unwrap();
    let mut stale = host("a", r#"{"n":2}"#);
    let Edit::PutHost { expect, .. } = &mut stale else { unreachable!() };
    *expect = Expect::At(first);
    let refused = database.transact(proposal(vec![stale])).await;
    assert!(matches!(refused, Err(TransactError::Refused(Refusal::Stale { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_precondition_of_the_caller_is_reported() {
    let (_, database) = open().await;
    let mut held = proposal(vec![host("a", "{}")]);
    held.pre.push(Pre::Held { name: "unit/x".into(), number: 7 });
    assert!(matches!(database.transact(held).await, Err(TransactError::Store(_))));
    assert!(database.view().host("a").is_none());
}

#[tokio::test]
async fn a_restored_database_is_read_anew() {
    let memory = MemoryStore::new();
    let database = Database::open(Arc::new(memory.clone())).await.unwrap();
    database.transact(proposal(vec![host("a", "{}")])).await.unwrap();
    let before = database.epoch();
    let mut reached = database.0.shared.reached.subscribe();
    memory.set_epoch(Epoch(before.0 ^ 1 | 2));
    reached.wait_for(|r| r.epoch != before).await.unwrap();
    assert!(database.view().host("a").is_some());
    database.transact(proposal(vec![host("b", "{}")])).await.unwrap();
}

#[tokio::test]
async fn the_past_is_told_for_one_host_and_whole() {
    let (store, database) = open().await;
    let web: TagName = "lb/web".parse().unwrap();
    let a: HostName = "a".parse().unwrap();
    let edits = vec![tag("lb/web", &["select: site == 'x'"]), host("a", r#"{"site":"x"}"#)];
    let then = database.transact(proposal(edits)).await.unwrap().committed.revision;
    let other = Database::open(store.clone()).await.unwrap();
    // Enough that reading everything is no worse.
    for n in 0..300 {
        other.transact(proposal(vec![host(&format!("h{n}"), "{}")])).await.unwrap();
    }
    let last = other.transact(proposal(vec![host("a", "{}")])).await.unwrap().committed.revision;
    // The first may lag behind the store, and waits.
    let now = database.excerpt_at(last, Some(&a), Some(&web)).await.unwrap().unwrap();
    assert_eq!((now.revision(), now.effective()), (last, None));
    let past = database.excerpt_at(then, Some(&a), Some(&web)).await.unwrap().unwrap();
    assert_eq!((past.host().unwrap().revision, past.memberships().len()), (then, 1));
    for at in [then, Revision(last.0 - 1)] {
        let view = database.view_at(at).await.unwrap();
        assert_eq!((view.revision(), view.members(&web)), (at, vec![a.clone()]));
    }
    let asked = Revision(last.0 + 1);
    let expected = StoreError::Future { asked, newest: last };
    assert_eq!(database.excerpt_at(asked, Some(&a), None).await.unwrap_err(), expected);
    assert_eq!(database.view_at(asked).await.unwrap_err(), expected);
}

/// Between the restoring and the view's reading anew, nothing is taken out of the view of the old life.
#[tokio::test]
async fn the_past_of_another_life_is_not_told() {
    let memory = MemoryStore::new();
    let database = Database::open(Arc::new(memory.clone())).await.unwrap();
    let then = database.transact(proposal(vec![host("a", "{}")])).await.unwrap().committed.revision;
    database.transact(proposal(vec![host("a", r#"{"n":1}"#)])).await.unwrap();
    let a: HostName = "a".parse().unwrap();
    assert!(database.excerpt_at(then, Some(&a), None).await.unwrap().is_some());
    let before = database.epoch();
    let mut reached = database.0.shared.reached.subscribe();
    memory.set_epoch(Epoch(before.0 ^ 1 | 2));
    assert!(database.excerpt_at(then, Some(&a), None).await.unwrap().is_none());
    assert_eq!(database.view_at(then).await.unwrap().host("a").unwrap().revision, then);
    reached.wait_for(|r| r.epoch != before).await.unwrap();
    assert!(database.excerpt_at(then, Some(&a), None).await.unwrap().is_some());
}

/// A store whose commits nobody has heard of yet when they are acknowledged: who follows runs only when the test waits.
#[tokio::test]
async fn who_asks_for_it_reads_what_was_acknowledged_before() {
    let memory = MemoryStore::new();
    let database = Database::open(Arc::new(memory.clone())).await.unwrap();
    let writer = Database::open(Arc::new(memory.clone())).await.unwrap();
    for n in 0..20 {
        let name = format!("h{n}");
        let done = writer.transact(proposal(vec![host(&name, "{}")])).await.unwrap();
        // The view of this one may lag, or not; after this it does not.
        database.refresh(Duration::from_secs(20)).await.unwrap();
        assert!(database.view().revision() >= done.committed.revision);
        assert!(database.view().host(&name).is_some());
    }
    // Nobody runs in between: it does lag.
    let commit = Commit::new(
        "ann",
        "because",
        vec![shoal_core::Change::put("hosts/late".parse().unwrap(), Document::trusted(r#"{"id":"1"}"#))],
    );
    let revision = memory.commit(commit).await.unwrap().revision;
    assert!(database.view().revision() < revision, "the watch was heard although nobody ran");
    database.refresh(Duration::from_secs(20)).await.unwrap();
    assert_eq!(database.view().revision(), revision);
    // Another life of the database, of the same revision: what was known is not taken for it.
    memory.set_epoch(Epoch(77));
    database.refresh(Duration::from_secs(20)).await.unwrap();
    assert_eq!(database.epoch(), Epoch(77));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_ages_until_it_is_asked_for_again() {
    let (_, database) = open().await;
    assert!(database.age() < Duration::from_secs(1));
    tokio::time::advance(Duration::from_secs(30)).await;
    // That the watch says something does not make it younger: it may have been on its way for long.
    database.transact(proposal(vec![host("a", "{}")])).await.unwrap();
    assert!(database.age() >= Duration::from_secs(30));
    database.refresh(Duration::from_secs(20)).await.unwrap();
    assert!(database.age() < Duration::from_secs(1));
}
