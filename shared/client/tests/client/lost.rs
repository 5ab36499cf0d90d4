//! Answers that are lost: what was done is not done again.

use std::sync::Arc;

use shoal_client::HttpStore;
use shoal_core::{Document, Edit, Expect, Proposal, Range, Revision};
use shoal_store::{ClaimAnswer, ClaimRequest, Database, LedgerWrite, MemoryStore, Store, StoreError};

use crate::harness::{Server, fact, quick};
use crate::proxy::{Fate, Proxy};

async fn through(word: &'static str, fates: &[Fate]) -> (Arc<MemoryStore>, Server, Proxy, HttpStore) {
    let behind = Arc::new(MemoryStore::new());
    let server = Server::start(behind.clone(), "127.0.0.1:0").await;
    let proxy = Proxy::new(&server.at, word, fates.iter().copied()).await;
    let store = HttpStore::with(&proxy.at, quick()).unwrap();
    (behind, server, proxy, store)
}

#[tokio::test]
async fn a_commit_with_a_key_is_sent_again_and_done_once() {
    for fates in [
        &[Fate::AnswerLost][..],
        &[Fate::LostOnTheWay],
        &[Fate::CutAfter(9)],
        &[Fate::AnswerLost, Fate::LostOnTheWay, Fate::CutAfter(150), Fate::AnswerLost],
    ] {
        let (behind, _server, proxy, store) = through("/store/commit", fates).await;
        let done = store.commit(fact(1, Some("k1"))).await.unwrap();
        let first_arrived = fates.iter().any(|fate| *fate != Fate::LostOnTheWay);
        assert_eq!(
            (done.revision, done.changed, done.replayed),
            (Revision(1), 1, first_arrived),
            "{fates:?}"
        );
        assert_eq!((proxy.seen(), proxy.left()), (fates.len() + 1, 0));
        assert_eq!(behind.log(&Range::All, None, 10).await.unwrap().len(), 1, "{fates:?}");
        // The key is of that commit, for everybody else, too.
        assert!(matches!(store.commit(fact(2, Some("k1"))).await, Err(StoreError::Reused { .. })));
    }
}

#[tokio::test]
async fn a_commit_without_a_key_is_left_to_who_knows_what_it_meant() {
    for (fate, written) in [(Fate::AnswerLost, 1), (Fate::LostOnTheWay, 0)] {
        let (behind, _server, proxy, store) = through("/store/commit", &[fate]).await;
        let error = store.commit(fact(1, None)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains(&proxy.at) && said.contains("may have been done or not"), "{said}");
        assert_eq!(proxy.seen(), 1, "sent once");
        assert_eq!(behind.log(&Range::All, None, 10).await.unwrap().len(), written);
    }
}

/// What people write goes through a view, a check and preconditions of its own on either side.
#[tokio::test]
async fn a_proposal_is_done_once() {
    let (behind, _server, proxy, store) =
        through("/store/commit", &[Fate::AnswerLost, Fate::LostOnTheWay, Fate::AnswerLost]).await;
    let database = Database::open(Arc::new(store)).await.unwrap();
    let host = |name: &str| name.parse().unwrap();
    let edit = |name: &str, expect| Edit::PutHost {
        host: host(name),
        id: None,
        state: None,
        owner: None,
        environment: None,
        expires: None,
        document: Document::empty(),
        expect,
    };
    let once = |edit: Edit, key: &str| Proposal {
        idempotency: Some(key.into()),
        ..Proposal::new("ann".to_owned(), "m".to_owned(), vec![edit])
    };
    // Neither can be done a second time: the first finds the host there, the other finds it gone.
    let made = database.transact(once(edit("web1", Expect::Absent), "k1")).await.unwrap();
    assert_eq!((made.committed.revision, made.committed.changed), (Revision(1), 1));
    assert_eq!(database.view().host("web1").unwrap().id.0.len(), 36);
    let rename = Edit::Rename {
        from: "hosts/web1".parse().unwrap(),
        to: "hosts/web2".parse().unwrap(),
        expect: Expect::Exists,
    };
    let moved = database.transact(once(rename, "k2")).await.unwrap();
    assert_eq!(moved.committed.revision, Revision(2));
    assert_eq!(proxy.left(), 0);
    assert_eq!(behind.log(&Range::All, None, 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn claims_are_asked_for_again_and_ledger_rows_only_if_they_were_not_written() {
    let fates = [Fate::AnswerLost, Fate::LostOnTheWay];
    let (_, _server, proxy, store) = through("/store/claim", &fates).await;
    let want = ClaimRequest { name: "unit/x".into(), of: 2, holder: "a".into(), ttl: None };
    let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else { panic!("nobody else asks") };
    assert_eq!(store.claims("").await.unwrap(), [claim], "one place of two is taken");
    assert_eq!(proxy.left(), 0);
    // More than the server gives at once.
    for n in 0..150 {
        store.claim(&ClaimRequest { name: format!("unit/y{n:03}"), ..want.clone() }).await.unwrap();
    }
    let names: Vec<_> = store.claims("unit/y").await.unwrap().into_iter().map(|claim| claim.name).collect();
    assert_eq!(names, (0..150).map(|n| format!("unit/y{n:03}")).collect::<Vec<_>>());
    for fate in fates {
        let (_, _server, proxy, store) = through("/ledger/write", &[fate]).await;
        let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else {
            panic!("nobody else asks")
        };
        let row = LedgerWrite { key: "dns/x/0".into(), value: Some(vec![0, 159, 146, 150]) };
        // The first of two attempts could come last.
        let lost = store.write_ledger(vec![row.clone()], &claim).await.unwrap_err();
        assert!(matches!(&lost, StoreError::Unavailable { .. }), "{lost}");
        assert!(lost.to_string().contains("may have been done or not to write the ledger"), "{lost}");
        assert_eq!((proxy.seen(), proxy.left()), (1, 0), "sent once");
        store.write_ledger(vec![row], &claim).await.unwrap();
        let rows = store.ledger("", None, 10).await.unwrap().rows;
        assert_eq!(rows, [("dns/x/0".to_owned(), vec![0, 159, 146, 150])]);
    }
}
