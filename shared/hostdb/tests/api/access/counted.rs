//! What is left out of a list is counted at the price of one reading at a time.

use std::sync::atomic::{AtomicUsize, Ordering};

use shoal_core::Range;
use shoal_store::{Fut, Page, Query, Result};

use super::*;

/// A store that knows how many pages of facts, but first ones, are read at once: the most of now, and all of them.
#[derive(Default)]
struct Counting {
    inner: MemoryStore,
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

impl Store for Counting {
    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let counts = query.after.is_some() && matches!(&query.range, Range::Prefix(p) if p == "facts/");
        let query = query.clone();
        Box::pin(async move {
            if counts {
                let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                self.all.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let page = self.inner.read(&query).await;
            if counts {
                self.now.fetch_sub(1, Ordering::SeqCst);
            }
            page
        })
    }

    shoal_store::forward!(inner: head, commit, log, watch, claim, release, claims, ledger, write_ledger, report, reports);
}

#[tokio::test]
async fn what_is_left_out_is_counted_by_one_request_at_a_time() {
    let store = Arc::new(Counting::default());
    let g = Guarded::on(store.clone(), Limits { max_page: 5, ..Limits::default() }).await;
    let fact = |n: u8| json!({"edit": "write", "key": format!("facts/puppet/h{n}.example.com"), "value": {}});
    g.edits((0..30).map(fact).collect()).await;
    let asks = |who: &'static str| {
        let g = &g;
        let asks = (0..8).map(move |_| g.get(who, "/api/v2/facts?limit=1"));
        async move { futures::future::join_all(asks).await }
    };
    // What is kept from them stands elsewhere: there is nothing to be counted here.
    for list in asks("carl").await {
        assert_eq!(
            (list["items"].as_array().map(Vec::len), &list["hidden"]),
            (Some(1), &Value::Null),
            "{list}"
        );
    }
    assert_eq!(store.all.load(Ordering::SeqCst), 0);
    g.put(&[("access/rules/facts/puppet", json!({"allow": {"root": "rw", "*": "none"}}))]).await;
    while g.get("carl", "/api/v2/facts?limit=1").await["hidden"] != 30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for list in asks("carl").await {
        assert_eq!(list["hidden"], 30, "{list}");
    }
    assert!(store.all.load(Ordering::SeqCst) >= 8 * 6);
    assert_eq!(store.most.load(Ordering::SeqCst), 1);
    g.server.stop().await;
}
