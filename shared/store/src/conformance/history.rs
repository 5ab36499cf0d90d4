//! Cases about the past.

use shoal_core::{Range, Revision};

use super::rows::rows;
use super::{Factory, commit, delete, key, put};
use crate::{Query, StoreError};

/// Every revision can be read as it stood, for every key.
pub async fn old_revisions_are_read(new: Factory) {
    let store = new().await;
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    store.commit(commit([put("lb/a", 2), put("lb/b", 1)])).await.unwrap();
    store.commit(commit([delete("lb/a")])).await.unwrap();
    store.commit(commit([put("lb/a", 3)])).await.unwrap();
    let newest = store.head().await.unwrap().revision;
    let mut seen = Vec::new();
    for at in 0..=newest.0 {
        let query = Query { at: Some(Revision(at)), ..Query::new(Range::namespace("lb")) };
        let rows = rows(&*store, query).await;
        assert!(rows.iter().all(|r| r.revision.0 <= at));
        let texts: Vec<_> = rows.iter().map(|r| format!("{}={}", r.key, r.value.as_ref().unwrap())).collect();
        seen.push(texts.join(" "));
    }
    seen.dedup();
    let states = [
        "",
        "lb/a={\"n\":1}",
        "lb/a={\"n\":2} lb/b={\"n\":1}",
        "lb/b={\"n\":1}",
        "lb/a={\"n\":3} lb/b={\"n\":1}",
    ];
    assert_eq!(seen, states);
}

/// The log of a range names the commits that wrote there, newest first, with what they wrote there and nothing else.
pub async fn logs_are_of_the_range(new: Factory) {
    let store = new().await;
    let before = store.commit(commit([put("lb/web", 1), put("dns/x/members/web1", 0)])).await.unwrap();
    let mut by_bob = commit([put("hosts/web1", 1)]);
    by_bob.author = "bob".into();
    by_bob.principal = Some("token 7".into());
    by_bob.origin = Some("192.0.2.7:4711".into());
    by_bob.message = "a new machine\n\nwith two lines".into();
    let bob = store.commit(by_bob).await.unwrap();
    let last =
        store.commit(commit([put("lb/web", 2), put("facts/vm/backup/db", 1), delete("hosts/web1")])).await;
    let last = last.unwrap();
    let revisions = async |range: Range, before, limit| -> Vec<Revision> {
        let log = store.log(&range, before, limit).await.unwrap();
        for entry in &log {
            assert!(!entry.changes.is_empty());
            assert!(entry.changes.iter().all(|c| range.contains(&c.key)), "{range}: {entry:?}");
            assert!(entry.changes.is_sorted_by(|a, b| a.key < b.key));
        }
        log.into_iter().map(|e| e.info.revision).collect()
    };
    let (first, second, third) = (before.revision, bob.revision, last.revision);
    assert_eq!(revisions(Range::All, None, 10).await, [third, second, first]);
    assert_eq!(revisions(Range::All, None, 2).await, [third, second]);
    assert_eq!(revisions(Range::All, Some(third), 1).await, [second]);
    assert_eq!(revisions(Range::All, Some(first), 1).await, []);
    assert_eq!(revisions(Range::namespace("lb"), None, 10).await, [third, first]);
    assert_eq!(revisions(Range::namespace("lb"), Some(third), 10).await, [first]);
    assert_eq!(revisions(Range::Key(key("hosts/web1")), None, 10).await, [third, second]);
    assert_eq!(revisions(Range::Key(key("hosts/none")), None, 10).await, []);
    assert_eq!(revisions(Range::members(&"dns/x".parse().unwrap()), None, 10).await, [first]);
    assert_eq!(revisions(Range::Prefix("facts/vm/backup/".into()), None, 10).await, [third]);
    let info = &store.log(&Range::hosts(), Some(third), 1).await.unwrap()[0].info;
    assert_eq!((info.author.as_str(), info.principal.as_deref()), ("bob", Some("token 7")));
    assert_eq!(info.origin.as_deref(), Some("192.0.2.7:4711"));
    assert_eq!(info.message, "a new machine\n\nwith two lines");
    assert_eq!(info.time.subsec_nanosecond() % 1_000_000, 0, "times are whole milliseconds");
}

/// A revision that does not exist yet is refused, and the newest one is named.
pub async fn the_future_is_refused(new: Factory) {
    let store = new().await;
    let newest = store.commit(commit([put("lb/a", 1)])).await.unwrap().revision;
    let asked = Revision(newest.0 + 1);
    let answer = store.read(&Query { at: Some(asked), ..Query::new(Range::All) }).await;
    assert_eq!(answer, Err(StoreError::Future { asked, newest }));
}
