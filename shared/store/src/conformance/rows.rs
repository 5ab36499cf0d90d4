//! Cases about rows and the commits that write them.

use futures::StreamExt;
use shoal_core::{Change, Commit, Document, Key, Pre, Range, Revision, Row};

use super::{Factory, commit, delete, key, put};
use crate::{Feed, Filter, MAX_PAGE, MAX_PAGE_BYTES, MAX_VALUE, Query, Store, StoreError};

/// All rows of the query, page by page.
pub(super) async fn rows(store: &dyn Store, mut query: Query) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = store.read(&query).await.expect("a page");
        assert!(query.at.is_none_or(|at| at == page.at), "the pages of a reading are of one revision");
        query.at = Some(page.at);
        rows.extend(page.rows);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return rows,
        }
    }
}

/// Keys and values of what stands in the range now.
async fn now(store: &dyn Store, range: Range) -> Vec<(String, String)> {
    let rows = rows(store, Query::new(range)).await;
    rows.into_iter().map(|r| (r.key.to_string(), r.value.expect("no tombstone").to_string())).collect()
}

fn texts(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// What was committed is read back, by every kind of range, in key order.
pub async fn commits_are_read_back(new: Factory) {
    let store = new().await;
    let empty = store.head().await.unwrap();
    assert_eq!(empty.revision, Revision(0));
    assert_ne!(empty.epoch.0, 0);
    assert!(rows(&*store, Query::new(Range::All)).await.is_empty());
    let first = store.commit(commit([put("lb/web", 2), put("dns/a", 1)])).await.unwrap();
    assert_eq!((first.changed, first.replayed), (2, false));
    let second = store.commit(commit([put("dns/a", 3), put("hosts/a", 4)])).await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(store.head().await.unwrap().revision, second.revision);
    assert_eq!(store.head().await.unwrap().epoch, empty.epoch);
    let all = texts(&[("dns/a", "{\"n\":3}"), ("hosts/a", "{\"n\":4}"), ("lb/web", "{\"n\":2}")]);
    assert_eq!(now(&*store, Range::All).await, all);
    assert_eq!(now(&*store, Range::Prefix(String::new())).await, all);
    assert_eq!(now(&*store, Range::Key(key("lb/web"))).await, all[2..]);
    assert_eq!(now(&*store, Range::hosts()).await, all[1..2]);
    assert_eq!(now(&*store, Range::Key(key("lb/none"))).await, []);
    let row = rows(&*store, Query::new(Range::Key(key("lb/web")))).await.remove(0);
    assert_eq!(row.revision, first.revision);
}

/// Who asks for the newest revision hears of whatever was acknowledged before, by whomever, also while others commit and somebody
/// watches.
pub async fn the_newest_is_no_older_than_what_was_acknowledged(new: Factory) {
    let store = new().await;
    assert_eq!(store.newest().await.unwrap(), store.head().await.unwrap());
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(_)))), "it has begun");
    let writers = (0..4).map(|writer| {
        let store = store.handle();
        async move {
            for n in 0..10 {
                let done = store.commit(commit([put(&format!("lb/k{writer}"), n)])).await.unwrap();
                let newest = store.newest().await.unwrap();
                assert!(newest.revision >= done.revision, "{newest:?} is older than {done:?}");
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(store.newest().await.unwrap(), store.head().await.unwrap());
}

/// Pages end where they say and hold all rows of one revision, whatever is written meanwhile.
pub async fn pages_are_whole(new: Factory) {
    let store = new().await;
    store.commit(commit((0..25).map(|n| put(&format!("lb/k{n:02}"), n)))).await.unwrap();
    let mut query = Query { limit: 10, ..Query::new(Range::namespace("lb")) };
    let (mut seen, mut pages) = (0, 0);
    loop {
        let page = store.read(&query).await.unwrap();
        assert!(page.rows.len() <= 10);
        (seen, pages) = (seen + page.rows.len(), pages + 1);
        let Some(next) = page.next else { break };
        assert_eq!(Some(&next), page.rows.last().map(|r| &r.key));
        query.at = Some(page.at);
        query.after = Some(next);
        store.commit(commit([put("lb/k99", 100 + seen as u64), delete("lb/k24")])).await.unwrap();
    }
    assert_eq!((seen, pages), (25, 3));
    let exact =
        Query { limit: 10, after: Some(key("lb/k13")), at: query.at, ..Query::new(Range::namespace("lb")) };
    let page = store.read(&exact).await.unwrap();
    assert_eq!(page.rows.len(), 10);
    let none = Query { limit: 0, ..Query::new(Range::All) };
    assert!(matches!(store.read(&none).await, Err(StoreError::Invalid(_))));
}

/// What is deleted is gone, leaves a tombstone for who asks, and can come back.
pub async fn tombstones_show_when_asked(new: Factory) {
    let store = new().await;
    store.commit(commit([put("hosts/a", 1)])).await.unwrap();
    let gone = store.commit(commit([delete("hosts/a")])).await.unwrap();
    assert!(now(&*store, Range::All).await.is_empty());
    let all = Query { tombstones: true, ..Query::new(Range::All) };
    let found = rows(&*store, all.clone()).await;
    assert_eq!(found, [Row { key: key("hosts/a"), value: None, revision: gone.revision, moved: None }]);
    store.commit(commit([put("hosts/a", 1)])).await.unwrap();
    assert_eq!(rows(&*store, all).await.len(), 1);
    assert_eq!(now(&*store, Range::All).await, texts(&[("hosts/a", "{\"n\":1}")]));
}

/// The member rows that name somebody are found in all tags at once.
pub async fn naming_finds_members(new: Factory) {
    let store = new().await;
    let names = [
        "dns/x/members/web1",
        "lb/y/members/web1",
        "lb/y/members/web10",
        "lb/y/members/@tags/web1",
        "lb/web1",
    ];
    let first = store.commit(commit(names.map(|k| put(k, 0)))).await.unwrap();
    store.commit(commit([put("lb/z/members/web1", 0), delete("dns/x/members/web1")])).await.unwrap();
    let naming = Range::Naming("web1".parse().unwrap());
    let found: Vec<_> = now(&*store, naming.clone()).await.into_iter().map(|(k, _)| k).collect();
    assert_eq!(found, ["lb/y/members/web1", "lb/z/members/web1"]);
    let page = store.read(&Query { limit: 1, ..Query::new(naming.clone()) }).await.unwrap();
    assert_eq!(page.next, Some(key("lb/y/members/web1")));
    let past = rows(&*store, Query { at: Some(first.revision), ..Query::new(naming.clone()) }).await;
    assert_eq!(past.len(), 2);
    assert_eq!(store.log(&naming, None, 10).await.unwrap().len(), 2);
    let nested = Range::Naming("@tags/web1".parse().unwrap());
    assert_eq!(now(&*store, nested).await.len(), 1);
}

/// What concerns a host is found among what concerns others, in pages, as it stood, and with what is gone.
pub async fn concerning_finds_what_concerns_a_host(new: Factory) {
    let store = new().await;
    let others = (0..200).flat_map(|n| {
        [
            format!("hosts/h{n}"),
            format!("facts/vm/h{n}"),
            format!("dns/x/members/h{n}"),
            format!("pauses/host/h{n}"),
        ]
    });
    let ours = [
        "dns/x",
        "dns/x/members/@tags/t",
        "dns/x/members/web1",
        "dns/x/members/select: site == \"a\"",
        "facts/vm/web1",
        "hosts/web1",
        "lb/y",
        "pauses/agent/dns",
        "pauses/host/web1",
        "schemas/dns",
    ];
    let all = others.chain(ours.map(str::to_owned)).map(|key| put(&key, 0));
    let first = store.commit(commit(all)).await.unwrap().revision;
    store
        .commit(commit([delete("dns/x/members/web1"), delete("hosts/h7"), put("tags/new", 0)]))
        .await
        .unwrap();
    let range = Range::Concerning("web1".parse().unwrap());
    let mut expected: Vec<&str> = ours.into();
    expected.sort_unstable();
    for limit in [1, 3, MAX_PAGE] {
        let query = Query { at: Some(first), limit, ..Query::new(range.clone()) };
        let found = rows(&*store, query).await;
        let found: Vec<_> = found.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(found, expected, "{limit} at once");
    }
    expected.push("tags/new");
    let query = Query { tombstones: true, ..Query::new(range.clone()) };
    let found = rows(&*store, query).await;
    assert_eq!(found.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), expected);
    assert!(found.iter().any(|row| row.key.as_str() == "dns/x/members/web1" && row.value.is_none()));
    assert_eq!(store.log(&range, None, 10).await.unwrap().len(), 2);
    let rests = Commit { pre: vec![Pre::Unchanged(range, first)], ..commit([put("lb/z", 0)]) };
    assert!(matches!(store.commit(rests).await, Err(StoreError::Invalid(why)) if why.contains("web1")));
}

/// Commits that cannot be are refused with their reason, and write nothing.
pub async fn nonsense_is_refused(new: Factory) {
    let store = new().await;
    let mut silent = commit([put("lb/a", 1)]);
    silent.message = " \n".into();
    let mut nobody = commit([put("lb/a", 1)]);
    nobody.author = String::new();
    let twice = commit([put("lb/a", 1), put("lb/b", 1), delete("lb/a")]);
    let text = format!("\"{}\"", "x".repeat(MAX_VALUE));
    let large = commit([Change::put(key("lb/a"), Document::trusted(&text))]);
    for (bad, word) in [(silent, "message"), (nobody, "author"), (twice, "lb/a"), (large, "octets")] {
        match store.commit(bad).await {
            Err(StoreError::Invalid(why)) => assert!(why.contains(word), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.head().await.unwrap().revision, Revision(0));
}

/// Each kind of precondition holds and fails as it says, all of them are looked at, and a failure writes nothing.
pub async fn preconditions_hold(new: Factory) {
    let store = new().await;
    let first = store.commit(commit([put("lb/a", 1), put("lb/gone", 1)])).await.unwrap().revision;
    let second =
        store.commit(commit([delete("lb/gone"), put("dns/x/members/web1", 0)])).await.unwrap().revision;
    let (a, gone, never) = (key("lb/a"), key("lb/gone"), key("lb/never"));
    let web1 = Range::Naming("web1".parse().unwrap());
    let deep = Range::Prefix("facts/vm/backup/".into());
    let good = [
        Pre::At(a.clone(), first),
        Pre::Exists(a.clone()),
        Pre::Absent(gone.clone()),
        Pre::Absent(never.clone()),
        Pre::Unchanged(Range::Key(a.clone()), first),
        Pre::Unchanged(Range::Key(never.clone()), Revision(0)),
        Pre::Unchanged(Range::namespace("lb"), second),
        Pre::Unchanged(Range::hosts(), Revision(0)),
        Pre::Unchanged(Range::All, second),
        Pre::Unchanged(web1.clone(), second),
        Pre::Unchanged(deep, Revision(0)),
    ];
    let mut all = commit([put("lb/ok", 1)]);
    all.pre = good.to_vec();
    let third = store.commit(all).await.unwrap().revision;
    let bad = [
        (Pre::At(a.clone(), second), Some(first)),
        (Pre::At(gone.clone(), second), None),
        (Pre::At(never.clone(), first), None),
        (Pre::Exists(gone.clone()), Some(second)),
        (Pre::Exists(never), None),
        (Pre::Absent(a.clone()), Some(first)),
        (Pre::Unchanged(Range::Key(gone), first), Some(second)),
        (Pre::Unchanged(Range::namespace("lb"), second), Some(third)),
        (Pre::Unchanged(Range::members(&"dns/x".parse().unwrap()), first), Some(second)),
        (Pre::Unchanged(Range::All, second), Some(third)),
        (Pre::Unchanged(web1, first), Some(second)),
    ];
    for (pre, actual) in bad {
        let mut refused = commit([put("lb/bad", 1)]);
        refused.pre = vec![good[0].clone(), pre.clone()];
        assert_eq!(store.commit(refused).await, Err(StoreError::Conflict { pre, actual }));
    }
    assert_eq!(store.head().await.unwrap().revision, third);
}

/// Changes that change nothing are left out; a commit of nothing else writes nothing.
pub async fn no_change_writes_nothing(new: Factory) {
    let store = new().await;
    let first = store.commit(commit([put("lb/a", 1), put("lb/b", 1)])).await.unwrap();
    let same = store.commit(commit([put("lb/a", 1), delete("lb/never")])).await.unwrap();
    assert_eq!((same.revision, same.changed, same.replayed), (first.revision, 0, false));
    let half = store.commit(commit([put("lb/a", 1), put("lb/b", 2)])).await.unwrap();
    assert_eq!(half.changed, 1);
    let log = store.log(&Range::All, None, 10).await.unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(log[0].changes, [put("lb/b", 2)]);
    assert_eq!(store.commit(commit([])).await.unwrap().changed, 0);
}

/// A retry with the same key gets the first answer, also when the world has moved on; another commit does not.
pub async fn retries_answer_the_first(new: Factory) {
    let store = new().await;
    let mut once = commit([put("lb/a", 1)]);
    once.idempotency = Some("k1".into());
    once.pre = vec![Pre::Absent(key("lb/a"))];
    let first = store.commit(once.clone()).await.unwrap();
    store.commit(commit([put("lb/a", 2)])).await.unwrap();
    let again = store.commit(once.clone()).await.unwrap();
    assert_eq!((again.revision, again.changed, again.replayed), (first.revision, 1, true));
    once.pre = vec![Pre::Exists(key("lb/a"))];
    assert!(store.commit(once.clone()).await.unwrap().replayed, "who retries may have read again");
    assert_eq!(now(&*store, Range::All).await, texts(&[("lb/a", "{\"n\":2}")]));
    for other in [
        shoal_core::Commit { changes: vec![put("lb/a", 3)], ..once.clone() },
        shoal_core::Commit { author: "bob".into(), ..once.clone() },
    ] {
        let reused = StoreError::Reused { key: "k1".into(), revision: first.revision };
        assert_eq!(store.commit(other).await, Err(reused));
    }
    let mut refused = commit([put("lb/b", 1)]);
    refused.idempotency = Some("k2".into());
    refused.pre = vec![Pre::Absent(key("lb/a"))];
    assert!(matches!(store.commit(refused.clone()).await, Err(StoreError::Conflict { .. })));
    refused.pre.clear();
    assert!(!store.commit(refused).await.unwrap().replayed, "what was refused is not remembered");
}

/// A commit that names its intent is known again by it, though it was derived anew and changes other rows.
pub async fn retries_are_known_by_their_intent(new: Factory) {
    let store = new().await;
    let derived = |intent: &str, n| shoal_core::Commit {
        idempotency: Some("k1".into()),
        intent: Some(intent.into()),
        ..commit([put("lb/a", n)])
    };
    let first = store.commit(derived("add one", 1)).await.unwrap();
    let again = store.commit(derived("add one", 2)).await.unwrap();
    assert_eq!((again.revision, again.replayed), (first.revision, true));
    let other = store.commit(derived("add two", 1)).await;
    assert_eq!(other, Err(StoreError::Reused { key: "k1".into(), revision: first.revision }));
    assert_eq!(now(&*store, Range::All).await, texts(&[("lb/a", "{\"n\":1}")]));
}

/// A rename shows on both of its rows and in the log.
pub async fn renames_stay_in_sight(new: Factory) {
    let store = new().await;
    store.commit(commit([put("hosts/old", 1)])).await.unwrap();
    let from = Change { moved: Some(key("hosts/new")), ..delete("hosts/old") };
    let to = Change { moved: Some(key("hosts/old")), ..put("hosts/new", 1) };
    let moved = store.commit(commit([from.clone(), to.clone()])).await.unwrap();
    let found = rows(&*store, Query { tombstones: true, ..Query::new(Range::hosts()) }).await;
    let shown: Vec<(&Key, Option<&Key>)> = found.iter().map(|r| (&r.key, r.moved.as_ref())).collect();
    let (old, new) = (key("hosts/old"), key("hosts/new"));
    assert_eq!(shown, [(&new, Some(&old)), (&old, Some(&new))]);
    let log = store.log(&Range::Key(old), None, 1).await.unwrap();
    assert_eq!((log[0].info.revision, &log[0].changes), (moved.revision, &vec![from]));
    store.commit(commit([put("hosts/new", 2)])).await.unwrap();
    assert_eq!(
        rows(&*store, Query::new(Range::hosts())).await[0].moved,
        None,
        "it came from there only then"
    );
}

/// Pages and logs of large rows end early and go on.
pub async fn large_values_page(new: Factory) {
    let store = new().await;
    let text = format!("\"{}\"", "x".repeat(MAX_VALUE - 2));
    let count = MAX_PAGE_BYTES / MAX_VALUE + 3;
    for n in 0..count {
        let change = Change::put(key(&format!("lb/k{n:02}")), Document::trusted(&text));
        store.commit(commit([change])).await.unwrap();
    }
    let page = store.read(&Query::new(Range::All)).await.unwrap();
    assert!(page.next.is_some() && page.rows.len() < count);
    assert_eq!(rows(&*store, Query::new(Range::All)).await.len(), count);
    let (mut before, mut seen) = (None, 0);
    loop {
        let log = store.log(&Range::All, before, 100).await.unwrap();
        assert!(log.len() < count);
        let Some(last) = log.last() else { break };
        before = Some(last.info.revision);
        seen += log.len();
    }
    assert_eq!(seen, count);
}
