//! A commit of many hosts beside small ones: the view that it leads to is worked out before it happens, and is the one that
//! the rows say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

use std::sync::Arc;

use shoal_core::{Document, Edit, Expect, HostName, Key, Proposal, TagName};
use shoal_store::{Database, Store};
use shoal_store_sqlite::SqliteStore;

const HOSTS: usize = 5000;

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

fn rule(tag: &str) -> Edit {
    Edit::PutTag {
        tag: tag.parse().unwrap(),
        owner: None,
        environment: None,
        expires: None,
        document: Document::parse(r#"{"a":1}"#).unwrap(),
        members: Some(vec!["select: site == 'x'".parse().unwrap(), "small1".parse().unwrap()]),
        expect: Expect::Any,
    }
}

fn proposal(edits: Vec<Edit>) -> Proposal {
    Proposal::new("ann", "because", edits)
}

/// Writes small commits until the large one is done, beside which they change hosts that it may or may not write.
async fn beside(names: [&'static str; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path().join("shoal.db")).await.unwrap());
    let database = Database::open(store.clone()).await.unwrap();
    let first = names.map(|name| host(name, r#"{"site":"x"}"#)).into_iter().chain([rule("lb/web")]).collect();
    database.transact(proposal(first)).await.unwrap();
    let all = (0..HOSTS).map(|n| host(&format!("large{n}"), &format!(r#"{{"site":"x","n":{n}}}"#))).collect();
    let large = tokio::spawn({
        let database = database.clone();
        async move { database.transact(proposal(all)).await }
    });
    let mut n = 0;
    while !large.is_finished() {
        n += 1;
        // Not to the end: it would never be done.
        let name = if n < 10 { names[n % 2] } else { names[0] };
        let edit = host(name, &format!(r#"{{"site":"x","round":{n}}}"#));
        database.transact(proposal(vec![edit])).await.unwrap();
    }
    let done = large.await.unwrap().unwrap();
    assert!(n > 3, "only {n} commits beside it");
    let view = database.view();
    let fresh = Database::open(store).await.unwrap().view();
    for name in view.hosts().map(|host| host.name.clone()).collect::<Vec<HostName>>() {
        let key = Key::host(&name);
        assert_eq!(view.revision_of(&key), fresh.revision_of(&key), "{name}");
        assert_eq!(view.host(name.as_str()), fresh.host(name.as_str()), "{name}");
    }
    assert_eq!(view.hosts().count(), fresh.hosts().count());
    let web: TagName = "lb/web".parse().unwrap();
    assert_eq!(view.members(&web), fresh.members(&web));
    assert_eq!(view.members(&web).len(), view.hosts().count());
    assert_eq!(view.revision_of(&"hosts/large7".parse().unwrap()), Some(done.committed.revision));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_view_of_a_large_commit_is_that_of_its_rows() {
    beside(["small1", "small2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_commit_that_others_write_into_is_still_that_of_its_rows() {
    beside(["small1", "large17"]).await;
}

#[tokio::test]
async fn what_a_large_commit_leads_to_is_worked_out_once() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path().join("shoal.db")).await.unwrap());
    let database = Database::open(store).await.unwrap();
    database.transact(proposal(vec![host("small1", "{}"), rule("lb/web")])).await.unwrap();
    let asked = || database.view().counters().rules_evaluated();
    let before = asked();
    let all = (0..HOSTS).map(|n| host(&format!("large{n}"), r#"{"site":"x"}"#)).collect();
    database.transact(proposal(all)).await.unwrap();
    // To check it; and not again to follow it.
    assert_eq!(asked() - before, HOSTS as u64);
}
