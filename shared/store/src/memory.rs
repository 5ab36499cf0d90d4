//! A whole store in memory: for tests, for the simulator, and to try things out.
//!
//! [`Memory`] is the synchronous heart: every method is a function of what it holds and of the time that is
//! handed in, so a simulation that replays the same calls gets the same answers. [`MemoryStore`] is the same as
//! a [`Store`]: shared between tasks, with a [`Clock`] and with watches.
//!
//! Nothing is kept on disk: when the process ends, everything is gone. Nothing is ever forgotten either, but
//! for what the contract says is: the whole history stays in memory.

mod claims;
mod core;
mod draft;
mod pre;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::TryRngCore;
use shoal_core::{Commit, Committed, Epoch, LogEntry, Range, Revision, Status};

pub use self::core::Memory;
pub use self::draft::MemoryDraft;
use crate::parts::{History, Hub};
use crate::{
    Claim, ClaimAnswer, ClaimRequest, Clock, Feed, Filter, Flow, Fut, Head, LedgerPage, LedgerWrite, Page,
    Position, Query, Result, Store, SystemClock, Whole,
};

/// How many commits are read of the past at once.
const AFTER: usize = 256;

/// The in-memory [`Store`]. A clone is another handle of the same database.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    memory: Mutex<Memory>,
    clock: Arc<dyn Clock>,
    hub: Arc<Hub>,
}

impl MemoryStore {
    /// An empty database with a random epoch, on the machine's clocks.
    #[must_use]
    pub fn new() -> Self {
        // Without a random source the time will do: nothing here outlives the process.
        let random = rand::rngs::OsRng.try_next_u64();
        let epoch = random.unwrap_or_else(|_| SystemClock.time().as_nanosecond() as u64);
        Self::with(Epoch(epoch.max(1)), Arc::new(SystemClock))
    }

    /// An empty database of this epoch, which takes its time from `clock`.
    #[must_use]
    pub fn with(epoch: Epoch, clock: Arc<dyn Clock>) -> Self {
        let memory = Memory::new(epoch);
        let hub = Arc::new(Hub::new(memory.head()));
        Self(Arc::new(Inner { memory: Mutex::new(memory), clock, hub }))
    }

    /// Makes this another life of the database, as a restored backup is: watchers are told to read anew.
    pub fn set_epoch(&self, epoch: Epoch) {
        let mut memory = self.0.memory();
        memory.set_epoch(epoch);
        self.0.hub.moved(memory.head());
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A panic in between would be a bug of ours; no method leaves anything half done before it.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self, commit: Commit) -> Result<Committed> {
        let mut memory = self.memory();
        let done = memory.commit(commit, self.clock.time(), self.clock.uptime())?;
        if done.changed > 0 && !done.replayed {
            // Still locked: commits are published in their order.
            self.hub.publish(memory.newest());
        }
        Ok(done)
    }
}

fn ready<T: Send + 'static>(answer: T) -> Fut<'static, T> {
    Box::pin(std::future::ready(answer))
}

impl Store for MemoryStore {
    fn head(&self) -> Fut<'_, Result<Head>> {
        ready(Ok(self.0.memory().head()))
    }

    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        ready(self.0.memory().read(query))
    }

    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        ready(self.0.commit(commit))
    }

    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        ready(Ok(self.0.memory().log(range, before, limit)))
    }

    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let history: Arc<dyn History> = Arc::clone(&self.0) as _;
        self.0.hub.watch(history, filter, after)
    }

    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        ready(self.0.memory().claim(want, self.0.clock.uptime()))
    }

    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        self.0.memory().release(claim);
        ready(Ok(()))
    }

    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        ready(Ok(self.0.memory().claims(prefix, self.0.clock.uptime())))
    }

    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        ready(Ok(self.0.memory().ledger(prefix, after, limit)))
    }

    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        ready(self.0.memory().write_ledger(rows, held, self.0.clock.uptime()))
    }

    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        ready(self.0.memory().report(status, self.0.clock.time()))
    }

    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        ready(Ok(self.0.memory().reports()))
    }

    fn whole(&self) -> Option<&dyn Whole> {
        Some(self)
    }
}

impl History for Inner {
    fn refresh(&self) -> Fut<'_, Result<()>> {
        // All commits pass through this hub.
        ready(Ok(()))
    }

    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        ready(Ok(self.memory().after(after, AFTER)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use shoal_core::{Change, Document, Key, Pre};

    use super::*;
    use crate::ManualClock;

    fn put(key: &str, value: &str, pre: Vec<Pre>) -> Commit {
        let key: Key = key.parse().unwrap();
        Commit {
            pre,
            ..Commit::new("ann", "because", vec![Change::put(key, Document::parse(value).unwrap())])
        }
    }

    /// The same calls with the same times give the same answers: what the simulator replays by.
    #[tokio::test(start_paused = true)]
    async fn time_and_epoch_are_handed_in() {
        let clock = Arc::new(ManualClock::new());
        let store = MemoryStore::with(Epoch(7), Arc::clone(&clock) as _);
        let want = ClaimRequest {
            name: "unit/dns/example.com".into(),
            of: 1,
            holder: "a".into(),
            ttl: Some(Duration::from_secs(30)),
        };
        let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else { panic!("not granted") };
        clock.advance(Duration::from_secs(29));
        store.commit(put("dns/a", "1", vec![claim.held()])).await.unwrap();
        clock.advance(Duration::from_secs(1));
        let late = store.commit(put("dns/a", "2", vec![claim.held()])).await.unwrap_err();
        assert_eq!(late, crate::StoreError::Fenced { name: claim.name.clone(), number: claim.number });
        let mut watch = store.watch(Filter::all(), Head { epoch: Epoch(7), revision: Revision(0) });
        let Some(Ok(Feed::Commit(entry))) = watch.next().await else { panic!("no commit") };
        assert_eq!(entry.info.time.as_second(), 29);
        store.set_epoch(Epoch(8));
        assert_eq!(
            watch.next().await,
            Some(Ok(Feed::Reset(Head { epoch: Epoch(8), revision: Revision(1) })))
        );
    }

    /// A watch that nothing passes says how far it is, and not more often than it was asked to.
    #[tokio::test(start_paused = true)]
    async fn progress_is_said_at_most_so_often() {
        let store = MemoryStore::new();
        let filter = Filter { progress: Duration::from_secs(1), ..Filter::of(vec![Range::hosts()]) };
        let mut watch = store.watch(filter, store.head().await.unwrap());
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(Revision(0)))));
        let writer = tokio::spawn(async move {
            for n in 0..100 {
                store.commit(put("dns/a", &n.to_string(), Vec::new())).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let (begun, mut said, mut last) = (tokio::time::Instant::now(), 0, Revision(0));
        while last < Revision(100) {
            let Some(Ok(Feed::Upto(revision))) = watch.next().await else { panic!("nothing passes") };
            assert!(revision > last);
            (said, last) = (said + 1, revision);
        }
        writer.await.unwrap();
        assert!(said >= 9 && f64::from(said) <= begun.elapsed().as_secs_f64() + 1.0, "{said} times");
    }

    /// When nobody will tell the hub anything any more, watches end with the reason.
    #[tokio::test]
    async fn a_closed_hub_ends_its_watches() {
        let store = MemoryStore::new();
        let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
        assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(_)))));
        let why = crate::StoreError::Unavailable { place: "x".into(), why: "gone".into() };
        store.0.hub.close(why.clone());
        assert_eq!(watch.next().await, Some(Err(why)));
        assert_eq!(watch.next().await, None);
    }
}

#[cfg(test)]
mod suite {
    async fn store() -> crate::conformance::Made {
        crate::conformance::Made::new(crate::MemoryStore::new(), ())
    }
    crate::conformance!(store);
}

#[cfg(test)]
mod copies {
    async fn store() -> crate::conformance::Made {
        crate::conformance::Made::new(crate::MemoryStore::new(), ())
    }
    fn place() -> Box<dyn crate::conformance::Place> {
        Box::new(crate::conformance::MemoryPlace::default())
    }
    crate::copies!(store, place);
}
