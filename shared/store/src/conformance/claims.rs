//! Cases about claims, the ledger and reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use shoal_core::{Epoch, Pre, Revision, Status};

use super::{Factory, commit, put};
use crate::{Claim, ClaimAnswer, ClaimRequest, LedgerWrite, Store, StoreError};

fn want(name: &str, holder: &str, of: u32, ttl: Option<Duration>) -> ClaimRequest {
    ClaimRequest { name: name.into(), of, holder: holder.into(), ttl }
}

async fn ask(store: &dyn Store, want: &ClaimRequest) -> Option<Claim> {
    match store.claim(want).await.expect("an answer") {
        ClaimAnswer::Granted(claim) => {
            assert_eq!((&claim.name, &claim.holder, claim.ttl), (&want.name, &want.holder, want.ttl));
            Some(claim)
        }
        ClaimAnswer::Taken { by, .. } => {
            assert_eq!(by.len(), want.of as usize);
            None
        }
    }
}

/// One holder at a time; renewing keeps the number, a new holder has a higher one.
pub async fn claims_exclude(new: Factory) {
    let store = new().await;
    let (a, b) =
        (want("unit/dns/x", "a", 1, None), want("unit/dns/x", "b", 1, Some(Duration::from_secs(60))));
    let first = ask(&*store, &a).await.unwrap();
    assert_eq!(ask(&*store, &a).await, Some(first.clone()));
    let taken = store.claim(&b).await.unwrap();
    assert_eq!(taken, ClaimAnswer::Taken { by: vec![first.clone()], look_again: None });
    assert!(ask(&*store, &want("unit/dns/y", "b", 1, None)).await.is_some(), "another name is another claim");
    store.release(&first).await.unwrap();
    store.release(&first).await.unwrap();
    let second = ask(&*store, &b).await.unwrap();
    assert!(second.number > first.number);
    store.release(&first).await.unwrap();
    let ClaimAnswer::Taken { look_again: Some(left), .. } = store.claim(&a).await.unwrap() else {
        panic!("a stale release freed it, or it has no end");
    };
    // A store may round up, but never down: the holder counts on all of it.
    assert!(left <= Duration::from_secs(61) && left > Duration::from_secs(30));
    let held = store.claims("unit/dns/").await.unwrap();
    let names: Vec<_> = held.iter().map(|c| (c.name.as_str(), c.holder.as_str())).collect();
    assert_eq!(names, [("unit/dns/x", "b"), ("unit/dns/y", "b")]);
    assert!(store.claims("unit/lb/").await.unwrap().is_empty());
    for bad in [want("", "a", 1, None), want("x", "", 1, None), want("x", "a", 0, None)] {
        assert!(matches!(store.claim(&bad).await, Err(StoreError::Invalid(_))));
    }
}

/// A semaphore has as many holders as places, each in a place of its own.
pub async fn claims_are_counted(new: Factory) {
    let store = new().await;
    let of = |holder: &str| want("budget/db", holder, 3, None);
    let mut held = Vec::new();
    for holder in ["a", "b", "c"] {
        held.push(ask(&*store, &of(holder)).await.unwrap());
    }
    assert!(held.is_sorted_by(|a, b| a.number < b.number));
    assert_eq!(held.iter().map(|c| c.slot).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(ask(&*store, &of("d")).await, None);
    store.release(&held[1]).await.unwrap();
    let late = ask(&*store, &of("d")).await.unwrap();
    assert!(late.slot == 1 && late.number > held[2].number);
    assert_eq!(ask(&*store, &of("a")).await, Some(held[0].clone()), "the others are as they were");
    assert_eq!(store.claims("budget/db").await.unwrap().len(), 3);
}

/// A claim that is not renewed expires: it protects nothing any more, and its next holder has a higher number.
pub async fn claims_expire(new: Factory) {
    let store = new().await;
    let a = want("unit/x", "a", 1, Some(Duration::from_millis(80)));
    let b = want("unit/x", "b", 1, Some(Duration::from_secs(60)));
    // Its time runs from within the store's answer: whoever looks at the clock afterwards may look late.
    let begun = Instant::now();
    let first = ask(&*store, &a).await.unwrap();
    let second = loop {
        match store.claim(&b).await.unwrap() {
            ClaimAnswer::Granted(claim) => break claim,
            ClaimAnswer::Taken { look_again, .. } => tokio::time::sleep(look_again.expect("an end")).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "it never expires");
    };
    assert!(begun.elapsed() > Duration::from_millis(60), "it was granted for longer than that");
    assert!(second.number > first.number);
    let held: Vec<_> = store.claims("unit/x").await.unwrap();
    assert_eq!(held, [second]);
    assert_eq!(ask(&*store, &a).await, None);
}

/// Commits and ledger writes under a lost claim are refused as fenced.
pub async fn lost_claims_fence(new: Factory) {
    let store = new().await;
    let claim = ask(&*store, &want("unit/x", "a", 1, None)).await.unwrap();
    let under = |n| {
        let mut commit = commit([put("lb/a", n)]);
        commit.pre = vec![claim.held()];
        commit
    };
    store.commit(under(1)).await.unwrap();
    store.release(&claim).await.unwrap();
    let fenced = StoreError::Fenced { name: claim.name.clone(), number: claim.number };
    assert_eq!(store.commit(under(2)).await, Err(fenced.clone()));
    let row = LedgerWrite { key: "dns/x/0".into(), value: Some(vec![1]) };
    assert_eq!(store.write_ledger(vec![row.clone()], &claim).await, Err(fenced.clone()));
    let other = ask(&*store, &want("unit/x", "b", 1, None)).await.unwrap();
    assert_eq!(store.write_ledger(vec![row], &claim).await, Err(fenced.clone()));
    assert_eq!(store.commit(under(2)).await, Err(fenced));
    let mut wrong = under(2);
    wrong.pre = vec![Pre::Held { name: "unit/y".into(), number: other.number }];
    assert!(matches!(store.commit(wrong).await, Err(StoreError::Fenced { .. })));
    assert!(store.ledger("", None, 10).await.unwrap().rows.is_empty());
}

/// The ledger is read in pages, wakes no watcher and makes no history.
pub async fn the_ledger_is_apart(new: Factory) {
    let store = new().await;
    let head = store.head().await.unwrap();
    let claim = ask(&*store, &want("unit/dns/x", "a", 1, None)).await.unwrap();
    let keys: Vec<_> =
        (0..5).map(|n| format!("dns/x/{n}")).chain(["dns/xy/0".into(), "lb/a/0".into()]).collect();
    let write = |key: &String| LedgerWrite { key: key.clone(), value: Some(key.as_bytes().to_vec()) };
    store.write_ledger(keys.iter().map(write).collect(), &claim).await.unwrap();
    let page = store.ledger("dns/x/", None, 3).await.unwrap();
    assert!(page.more);
    assert_eq!(page.rows.iter().map(|(k, _)| k).collect::<Vec<_>>(), [&keys[0], &keys[1], &keys[2]]);
    let rest = store.ledger("dns/x/", Some(&keys[2]), 3).await.unwrap();
    assert!(!rest.more);
    assert_eq!(rest.rows.len(), 2);
    let changes = vec![
        LedgerWrite { key: keys[0].clone(), value: None },
        LedgerWrite { key: keys[1].clone(), value: Some(vec![0, 255]) },
    ];
    store.write_ledger(changes, &claim).await.unwrap();
    let rows = store.ledger("dns/x/", None, 10).await.unwrap().rows;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0], (keys[1].clone(), vec![0, 255]));
    assert_eq!(store.ledger("", None, 100).await.unwrap().rows.len(), 6);
    assert_eq!(store.head().await.unwrap(), head);
    let bad = vec![LedgerWrite { key: String::new(), value: None }];
    assert!(matches!(store.write_ledger(bad, &claim).await, Err(StoreError::Invalid(_))));
}

/// A report replaces the same instance's last one, and moves no revision.
pub async fn reports_replace(new: Factory) {
    let store = new().await;
    let head = store.head().await.unwrap();
    let now = Timestamp::now();
    let status = |instance: &str, seen, expires| Status {
        agent: "dns".parse().unwrap(),
        instance: instance.into(),
        epoch: Epoch(1),
        seen: Revision(seen),
        at: now + SignedDuration::from_secs(i64::try_from(seen).unwrap()),
        expires,
        units: BTreeMap::new(),
        quarantined: Vec::new(),
        quarantined_total: 0,
    };
    let (soon, long_ago) = (now + SignedDuration::from_secs(60), now - SignedDuration::from_hours(50));
    for said in [status("a", 1, Some(soon)), status("b", 1, None), status("a", 2, Some(soon))] {
        store.report(said).await.unwrap();
    }
    assert_eq!(store.reports().await.unwrap(), [status("a", 2, Some(soon)), status("b", 1, None)]);
    store.report(status("c", 3, Some(long_ago))).await.unwrap();
    store.report(status("b", 4, None)).await.unwrap();
    assert_eq!(store.reports().await.unwrap().len(), 2, "what expired long ago is forgotten");
    for n in 0..300 {
        store.report(status(&format!("once-{n:03}"), 10 + n, None)).await.unwrap();
    }
    let kept = store.reports().await.unwrap();
    assert_eq!(kept.iter().filter(|s| s.expires.is_none()).count(), crate::MAX_REPORTS);
    assert!(kept.iter().any(|s| s.instance == "once-299"), "the newest are kept");
    // However many live, what each says is kept: of a fault that only one of them knows, nobody would hear otherwise.
    for n in 0..300 {
        store.report(status(&format!("live-{n:03}"), 10 + n, Some(soon))).await.unwrap();
    }
    store.report(status("once-300", 400, None)).await.unwrap();
    let kept = store.reports().await.unwrap();
    let (live, rest): (Vec<_>, Vec<_>) = kept.iter().partition(|s| s.expires.is_some());
    assert_eq!((live.iter().filter(|s| s.instance.starts_with("live-")).count(), rest.len()), (300, 256));
    assert_eq!(store.head().await.unwrap(), head);
}

/// Many ask at once, again and again: never two hold it, and numbers rise in the order of holding.
pub async fn claims_never_have_two_holders(new: Factory) {
    let store = new().await;
    let (inside, last) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..8).map(|n| {
        let (store, inside, last) = (store.handle(), Arc::clone(&inside), Arc::clone(&last));
        tokio::spawn(async move {
            let want = want("unit/x", &format!("holder {n}"), 1, Some(Duration::from_secs(60)));
            let mut held = 0;
            while held < 10 {
                let Some(claim) = ask(&*store, &want).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                assert!(last.swap(claim.number, Ordering::SeqCst) < claim.number, "numbers rise");
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                store.release(&claim).await.unwrap();
                held += 1;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
