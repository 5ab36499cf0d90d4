//! The watch that stores share.
//!
//! A watcher is a cursor, not a queue: it remembers how far it has seen and is woken when there is more. The
//! newest commits stand in a ring that all watchers share; a watcher that fell behind the ring reads the
//! store's history until it has caught up. So a slow watcher costs nothing but its cursor, and there is no
//! queue that could overflow or lose a commit.
//!
//! The hub is told of new commits in order and without gaps ([`Hub::publish`]), or only that there are some
//! ([`Hub::moved`]): then watchers read them from the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_core::{LogEntry, Revision};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Feed, Filter, Flow, Fut, Head, Position, Result, StoreError};

/// The most commits in the ring.
const RING: usize = 4096;
/// The most octets in the ring, about; one commit larger than this may stand there alone.
const RING_BYTES: usize = 16 << 20;
/// How many commits a watcher takes out of the ring at once.
const TAKE: usize = 64;

/// The past, for watchers that the ring does not reach.
pub trait History: Send + Sync + 'static {
    /// Makes sure that the hub knows the newest revision, before a new watcher compares its position.
    fn refresh(&self) -> Fut<'_, Result<()>>;

    /// Whole commits after `after`, in order, without gaps: at least one if there is one, and no more than fit
    /// comfortably in memory.
    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>>;
}

/// Wakes watchers and holds the newest commits for them.
#[derive(Debug)]
pub struct Hub {
    ring: Mutex<Ring>,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
struct State {
    head: Head,
    /// Why there will be no more news.
    closed: Option<StoreError>,
}

/// Every commit in (`floor`, newest].
#[derive(Debug)]
struct Ring {
    floor: Revision,
    entries: VecDeque<(Arc<LogEntry>, usize)>,
    bytes: usize,
}

impl Hub {
    /// A hub of a database that stands at `head`.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let ring = Ring { floor: head.revision, entries: VecDeque::new(), bytes: 0 };
        Self { ring: Mutex::new(ring), state: watch::Sender::new(State { head, closed: None }) }
    }

    /// The newest revision that the hub was told of.
    #[must_use]
    pub fn head(&self) -> Head {
        self.state.borrow().head
    }

    /// Hands over the commits that came right after [`Hub::head`], in order, none left out. Callers take care
    /// that no two of them publish at once.
    pub fn publish(&self, entries: impl IntoIterator<Item = Arc<LogEntry>>) {
        let mut newest = None;
        let mut ring = self.ring();
        for entry in entries {
            let size = size(&entry);
            newest = Some(entry.info.revision);
            ring.bytes += size;
            ring.entries.push_back((entry, size));
            while ring.entries.len() > RING || (ring.bytes > RING_BYTES && ring.entries.len() > 1) {
                if let Some((gone, size)) = ring.entries.pop_front() {
                    ring.bytes -= size;
                    ring.floor = gone.info.revision;
                }
            }
        }
        drop(ring);
        if let Some(revision) = newest {
            self.state.send_modify(|state| state.head.revision = revision);
        }
    }

    /// Says that the database now stands at `head`, without the commits that led there: watchers read them
    /// from the history. Also for another epoch.
    pub fn moved(&self, head: Head) {
        let mut ring = self.ring();
        ring.entries.clear();
        ring.bytes = 0;
        ring.floor = head.revision;
        drop(ring);
        self.state.send_modify(|state| state.head = head);
    }

    /// Ends every watch with this error, and those that begin before [`Hub::reopen`]: nobody tells the hub anything
    /// any more.
    pub fn close(&self, why: StoreError) {
        self.state.send_modify(|state| state.closed = Some(why));
    }

    /// Says that the hub is told of commits again.
    pub fn reopen(&self) {
        self.state.send_modify(|state| state.closed = None);
    }

    /// The watch of [`Store::watch`](crate::Store::watch). Needs a tokio runtime with time where it is polled.
    #[must_use]
    pub fn watch(
        self: &Arc<Self>,
        history: Arc<dyn History>,
        filter: Filter,
        after: Position,
    ) -> Flow<Result<Feed>> {
        let watcher = Watcher {
            hub: Arc::clone(self),
            history,
            state: self.state.subscribe(),
            filter,
            at: after,
            told: None,
            said: Instant::now(),
            fresh: true,
            waiting: VecDeque::new(),
        };
        // One that failed has ended: the caller starts again from where it was.
        Box::pin(futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(feed) => Some((Ok(feed), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// The commits in (`after`, `upto`], at most [`TAKE`]; `None` if the ring does not reach back so far.
    fn recent(&self, after: Revision, upto: Revision) -> Option<Vec<Arc<LogEntry>>> {
        let ring = self.ring();
        if after < ring.floor {
            return None;
        }
        let from = ring.entries.partition_point(|(e, _)| e.info.revision <= after);
        let entries = ring.entries.range(from..).map(|(e, _)| e).take_while(|e| e.info.revision <= upto);
        Some(entries.take(TAKE).map(Arc::clone).collect())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(entry: &LogEntry) -> usize {
    let changes = entry.changes.iter();
    128 + changes
        .map(|c| 64 + c.key.as_str().len() + c.value.as_ref().map_or(0, |v| v.as_str().len()))
        .sum::<usize>()
}

struct Watcher {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    state: watch::Receiver<State>,
    filter: Filter,
    /// How far it has seen.
    at: Head,
    /// How far it has told; `None` until it has caught up once.
    told: Option<Revision>,
    /// When it last said [`Feed::Upto`].
    said: Instant,
    fresh: bool,
    /// Taken, but not looked at yet.
    waiting: VecDeque<Arc<LogEntry>>,
}

impl Watcher {
    async fn next(&mut self) -> Result<Feed> {
        if self.fresh {
            self.history.refresh().await?;
            self.fresh = false;
        }
        loop {
            while let Some(entry) = self.waiting.pop_front() {
                self.at.revision = entry.info.revision;
                if let Some(entry) = self.passing(entry) {
                    self.told = self.told.map(|_| self.at.revision);
                    return Ok(Feed::Commit(entry));
                }
                if self.told.is_some() && self.said.elapsed() >= self.filter.progress {
                    return Ok(self.upto());
                }
            }
            let State { head, closed } = self.state.borrow_and_update().clone();
            if let Some(why) = closed {
                return Err(why);
            }
            if head.epoch != self.at.epoch || head.revision < self.at.revision {
                self.at = head;
                self.told = None;
                return Ok(Feed::Reset(head));
            }
            if self.at.revision < head.revision {
                self.fetch(head).await?;
            } else if self.told.is_none() {
                return Ok(self.upto());
            } else if let Some(feed) = self.wait().await? {
                return Ok(feed);
            }
        }
    }

    /// Takes the next commits up.
    async fn fetch(&mut self, head: Head) -> Result<()> {
        let mut entries = match self.hub.recent(self.at.revision, head.revision) {
            Some(entries) => entries,
            None => self.history.after(self.at.revision).await?,
        };
        // Both may know more than the head that was looked at: one step after the other, or the cursor would
        // be ahead of the head and take that for a lost position.
        entries.retain(|e| e.info.revision <= head.revision);
        if entries.is_empty() {
            // Numbers may be skipped: nothing stands between.
            self.at.revision = head.revision;
        }
        self.waiting = entries.into();
        Ok(())
    }

    /// Waits for news, or for the moment to say how far it is.
    async fn wait(&mut self) -> Result<Option<Feed>> {
        let closed = |_| StoreError::Unavailable { place: "the store".into(), why: "it was closed".into() };
        if self.told == Some(self.at.revision) {
            return self.state.changed().await.map(|()| None).map_err(closed);
        }
        // A progress longer than time itself is never.
        let Some(due) = self.said.checked_add(self.filter.progress) else {
            return self.state.changed().await.map(|()| None).map_err(closed);
        };
        tokio::select! {
            biased;
            news = self.state.changed(), if Instant::now() < due => news.map(|()| None).map_err(closed),
            () = tokio::time::sleep_until(due) => Ok(Some(self.upto())),
        }
    }

    fn upto(&mut self) -> Feed {
        self.told = Some(self.at.revision);
        self.said = Instant::now();
        Feed::Upto(self.at.revision)
    }

    /// What of the commit passes the filter.
    fn passing(&self, entry: Arc<LogEntry>) -> Option<Arc<LogEntry>> {
        let passing = entry.changes.iter().filter(|c| self.filter.passes(&c.key)).count();
        if passing == entry.changes.len() {
            return (passing > 0).then_some(entry);
        }
        (passing > 0).then(|| {
            let changes = entry.changes.iter().filter(|c| self.filter.passes(&c.key)).cloned().collect();
            Arc::new(LogEntry { info: entry.info.clone(), changes })
        })
    }
}
