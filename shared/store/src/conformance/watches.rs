//! Cases about watches.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt};
use shoal_core::{Epoch, LogEntry, Range, Revision};

use super::{Factory, commit, put};
use crate::{Feed, Filter, Flow, Head, Result};

/// The next message, or a failure when none comes.
pub(super) async fn next(watch: &mut Flow<Result<Feed>>) -> Feed {
    let message = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
    message.expect("a message in time").expect("the watch goes on").expect("a message")
}

/// The next commit, past what says how far it is.
pub(super) async fn next_commit(watch: &mut Flow<Result<Feed>>) -> LogEntry {
    loop {
        match next(watch).await {
            Feed::Commit(entry) => return (*entry).clone(),
            Feed::Upto(_) => {}
            Feed::Reset(head) => panic!("the position was lost: {head:?}"),
        }
    }
}

/// Past and present come whole and in order, and once the past is told the watch says so.
pub async fn watches_tell_all(new: Factory) {
    let store = new().await;
    let start = store.head().await.unwrap();
    for n in 0..3 {
        store.commit(commit([put("lb/a", n), put("dns/b", n)])).await.unwrap();
    }
    let mut watch = store.watch(Filter::all(), start);
    let mut past = Vec::new();
    let upto = loop {
        match next(&mut watch).await {
            Feed::Commit(entry) => past.push((*entry).clone()),
            Feed::Upto(revision) => break revision,
            Feed::Reset(head) => panic!("{head:?}"),
        }
    };
    assert_eq!(upto, store.head().await.unwrap().revision);
    let mut log = store.log(&Range::All, None, 10).await.unwrap();
    log.reverse();
    assert_eq!(past, log);
    let done = store.commit(commit([put("lb/a", 9)])).await.unwrap();
    let entry = next_commit(&mut watch).await;
    assert_eq!((entry.info.revision, entry.changes), (done.revision, vec![put("lb/a", 9)]));
    let mut late = store.watch(Filter::all(), store.head().await.unwrap());
    assert_eq!(next(&mut late).await, Feed::Upto(done.revision));
}

/// A filtered watch tells what passes and nothing else, and says how far it is when nothing passes.
pub async fn filtered_watches_say_how_far(new: Factory) {
    let store = new().await;
    let start = store.head().await.unwrap();
    let ranges = vec![Range::namespace("dns"), Range::Naming("web1".parse().unwrap())];
    let filter = Filter { ranges, progress: Duration::from_millis(20) };
    let mut watch = store.watch(filter, start);
    assert_eq!(next(&mut watch).await, Feed::Upto(start.revision));
    store.commit(commit([put("lb/a", 1), put("dns/b", 1)])).await.unwrap();
    assert_eq!(next_commit(&mut watch).await.changes, [put("dns/b", 1)]);
    store.commit(commit([put("lb/x/members/web1", 1), put("lb/x/members/web2", 1)])).await.unwrap();
    assert_eq!(next_commit(&mut watch).await.changes, [put("lb/x/members/web1", 1)]);
    let mut last = Revision(0);
    for n in 0..5 {
        last = store.commit(commit([put("lb/a", 10 + n)])).await.unwrap().revision;
    }
    let mut seen = start.revision;
    while seen < last {
        match next(&mut watch).await {
            Feed::Upto(revision) => {
                assert!(revision > seen, "it goes on");
                seen = revision;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, last);
}

/// A watch that counts how often it is asked for more, which is how often it was woken.
pub struct Counted {
    watch: Flow<Result<Feed>>,
    woken: Arc<AtomicUsize>,
    asleep: Arc<AtomicBool>,
}

impl Counted {
    /// The watch and its count.
    #[must_use]
    pub fn new(watch: Flow<Result<Feed>>) -> (Self, Arc<AtomicUsize>) {
        let woken = Arc::<AtomicUsize>::default();
        (Self { watch, woken: Arc::clone(&woken), asleep: Arc::default() }, woken)
    }

    /// Whether it was asked for more when there was nothing: it sleeps until something is. One that is gone sleeps, too.
    #[must_use]
    pub fn asleep(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asleep)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.asleep.store(true, Ordering::SeqCst);
    }
}

impl Stream for Counted {
    type Item = Result<Feed>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let next = self.watch.as_mut().poll_next(context);
        self.asleep.store(next.is_pending(), Ordering::SeqCst);
        next
    }
}

/// Of many watchers, a commit wakes those whom it concerns. The others hear in time how far the database is.
pub async fn only_those_concerned_are_woken(new: Factory) {
    const WATCHERS: usize = 100;
    let store = new().await;
    let head = store.head().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut counts = Vec::new();
    for n in 0..WATCHERS {
        let ranges = vec![
            Range::Key(super::key(&format!("hosts/h{n}"))),
            Range::Naming(format!("h{n}").parse().unwrap()),
        ];
        // One half wants to be told how far it is.
        let progress = Duration::from_secs(if n % 2 == 0 { 3600 } else { 1 });
        let (mut watch, count) = Counted::new(store.watch(Filter { ranges, progress }, head));
        counts.push((count, watch.asleep()));
        let tell = tell.clone();
        tokio::spawn(async move {
            while let Some(Ok(feed)) = watch.next().await {
                let _ = tell.send((n, feed));
            }
        });
    }
    let mut next = async || {
        let message = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
        message.expect("a message in time").expect("the watches go on")
    };
    for _ in 0..WATCHERS {
        assert!(matches!(next().await.1, Feed::Upto(_)));
    }
    // Those who were just told may still be on their way back to sleep.
    let (begun, seldom) = (Instant::now(), || counts.iter().step_by(2));
    loop {
        let asleep = seldom().all(|(_, asleep)| asleep.load(Ordering::SeqCst));
        let woken: usize = seldom().map(|(count, _)| count.swap(0, Ordering::SeqCst)).sum();
        if asleep && woken == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "they never sleep");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let changes = [put("hosts/h4", 1), put("lb/x", 1), put("lb/x/members/h6", 1), put("lb/x/members/h8", 1)];
    let done = store.commit(commit(changes)).await.unwrap();
    let (mut heard, mut others) = (Vec::new(), std::collections::BTreeSet::new());
    while heard.len() < 3 {
        match next().await {
            (n, Feed::Commit(_)) => heard.push(n),
            // Where the machine stalls, some of the others are told before the last of these.
            (n, other) => {
                assert_eq!((n % 2, other), (1, Feed::Upto(done.revision)), "{n}");
                assert!(others.insert(n), "{n} is told twice");
            }
        }
    }
    heard.sort_unstable();
    assert_eq!(heard, [4, 6, 8]);
    let woken = (0..WATCHERS).step_by(2).filter(|n| counts[*n].0.load(Ordering::SeqCst) > 0);
    assert_eq!(woken.collect::<Vec<_>>(), heard, "who was woken");
    // The others are told, each once.
    while others.len() < WATCHERS / 2 {
        let (n, feed) = next().await;
        assert_eq!((n % 2, feed), (1, Feed::Upto(done.revision)));
        assert!(others.insert(n), "{n} is told twice");
    }
    let woken = (0..WATCHERS).step_by(2).filter(|n| counts[*n].0.load(Ordering::SeqCst) > 0);
    assert_eq!(woken.count(), 3, "nobody else was woken for that");
}

/// A position of another epoch or ahead of the database is answered with where the database is; then it goes on.
pub async fn lost_positions_are_reset(new: Factory) {
    let store = new().await;
    store.commit(commit([put("lb/a", 1)])).await.unwrap();
    let head = store.head().await.unwrap();
    let other = Head { epoch: Epoch(head.epoch.0.wrapping_add(1)), revision: Revision(0) };
    let ahead = Head { epoch: head.epoch, revision: Revision(head.revision.0 + 5) };
    for (n, lost) in [other, ahead].into_iter().enumerate() {
        let mut watch = store.watch(Filter::all(), lost);
        let at = store.head().await.unwrap();
        assert_eq!(next(&mut watch).await, Feed::Reset(at));
        let done = store.commit(commit([put("lb/a", 10 + n as u64)])).await.unwrap();
        assert_eq!(next_commit(&mut watch).await.info.revision, done.revision);
    }
}

/// A watcher that does not listen for long misses nothing, and does not hold up the writers.
pub async fn slow_watchers_miss_nothing(new: Factory) {
    const COMMITS: u64 = 6000;
    let store = new().await;
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert!(matches!(next(&mut watch).await, Feed::Upto(_)));
    let writers = (0..50u64).map(|writer| {
        let store = &store;
        async move {
            for n in 0..COMMITS / 50 {
                store.commit(commit([put(&format!("lb/w{writer}"), n)])).await.unwrap();
            }
        }
    });
    futures::future::join_all(writers).await;
    let mut seen = Revision(0);
    for _ in 0..COMMITS {
        let entry = next_commit(&mut watch).await;
        assert!(entry.info.revision > seen);
        assert_eq!(entry.changes.len(), 1);
        seen = entry.info.revision;
    }
    assert_eq!(seen, store.head().await.unwrap().revision);
}
