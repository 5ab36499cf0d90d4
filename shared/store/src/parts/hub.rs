//! The watch that stores share.
//!
//! A watcher is a cursor, not a queue: it remembers how far it has seen and is woken when there is more. The
//! newest commits stand in a ring that all watchers share; a watcher that fell behind the ring reads the
//! store's history until it has caught up, and what it read there last stands in the ring for the next one. So a slow watcher
//! costs nothing but its cursor, and there is no queue that could overflow or lose a commit.
//!
//! Only those are woken that a commit concerns ([`Seats`]): what others have not looked at holds nothing for them, and their
//! cursor passes over it. One task a hub wakes those that are to be told how far the database is.
//!
//! The hub is told of new commits in order and without gaps ([`Hub::publish`]), or only that there are some
//! ([`Hub::moved`]): then all watchers are woken, and read them from the history.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use shoal_core::{LogEntry, Revision};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::seats::Seats;
use super::watcher::Watcher;
use crate::{Feed, Filter, Flow, Fut, Head, Position, Result, StoreError};

/// The most commits in the ring.
const RING: usize = 4096;
/// The most octets in the ring, about; one commit larger than this may stand there alone.
const RING_BYTES: usize = 16 << 20;
/// How many commits a watcher takes out of the ring at once.
const TAKE: usize = 64;

/// What was found of the past, and up to where that is all.
pub type Found = (Vec<Arc<LogEntry>>, Revision);

/// The past, for watchers that the ring does not reach.
pub trait History: Send + Sync + 'static {
    /// Makes sure that the hub knows the newest revision, before a new watcher compares its position.
    fn refresh(&self) -> Fut<'_, Result<()>>;

    /// Whole commits after `after`, in order, without gaps: at least one if there is one, and no more than fit
    /// comfortably in memory.
    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>>;

    /// The shorter way, where a store has one: of the commits after `after` and up to `upto`, the first that pass the
    /// filter, in order, with what of them passes. Costs what it answers, not what lies between. `None`: there is none, or not
    /// for this filter.
    fn passing(&self, _: &Filter, _after: Revision, _upto: Revision) -> Fut<'_, Result<Option<Found>>> {
        Box::pin(async { Ok(None) })
    }
}

/// Wakes watchers and holds the newest commits for them.
#[derive(Debug)]
pub struct Hub {
    desk: Mutex<Desk>,
    /// For who keeps the time: something was committed, somebody is due earlier, or the hub goes.
    news: Arc<Notify>,
}

/// What is known, who waits for more, and every commit in (`floor`, newest]. Under one lock, because they are one: whoever takes a
/// seat, looks or goes to sleep does so before a commit or after it.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) head: Head,
    /// Why there will be no more news.
    pub(super) closed: Option<StoreError>,
    pub(super) seats: Seats,
    floor: Revision,
    entries: VecDeque<(Arc<LogEntry>, usize)>,
    bytes: usize,
    timekeeper: Option<JoinHandle<()>>,
}

impl Hub {
    /// A hub of a database that stands at `head`.
    #[must_use]
    pub fn new(head: Head) -> Self {
        let desk = Desk {
            head,
            closed: None,
            seats: Seats::default(),
            floor: head.revision,
            entries: VecDeque::new(),
            bytes: 0,
            timekeeper: None,
        };
        Self { desk: Mutex::new(desk), news: Arc::default() }
    }

    /// The newest revision that the hub was told of.
    #[must_use]
    pub fn head(&self) -> Head {
        self.desk().head
    }

    /// Whether anybody watches, and so is to be told by [`Hub::publish`] where that can be.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.desk().seats.is_empty()
    }

    /// Hands over the commits that came right after [`Hub::head`], in order, none left out. Callers take care
    /// that no two of them publish at once.
    pub fn publish(&self, entries: impl IntoIterator<Item = Arc<LogEntry>>) {
        let mut desk = self.desk();
        let before = desk.head.revision;
        for entry in entries {
            desk.seats.written(entry.info.revision, entry.changes.iter().map(|change| &change.key));
            desk.head.revision = entry.info.revision;
            desk.keep(entry);
        }
        if desk.head.revision > before {
            self.news.notify_one();
        }
    }

    /// Says that the database now stands at `head`, without the commits that led there: watchers read them
    /// from the history. Also for another epoch.
    pub fn moved(&self, head: Head) {
        let mut desk = self.desk();
        desk.entries.clear();
        desk.bytes = 0;
        desk.floor = head.revision;
        let before = desk.head.revision;
        desk.seats.wake_all(before);
        desk.head = head;
        self.news.notify_one();
    }

    /// Ends every watch with this error, and those that begin before [`Hub::reopen`]: nobody tells the hub anything
    /// any more.
    pub fn close(&self, why: StoreError) {
        let mut desk = self.desk();
        desk.closed = Some(why);
        let newest = desk.head.revision;
        desk.seats.wake_all(newest);
    }

    /// Says that the hub is told of commits again.
    pub fn reopen(&self) {
        self.desk().closed = None;
    }

    /// The watch of [`Store::watch`](crate::Store::watch). Needs a tokio runtime with time where it is polled, which goes on for as long as
    /// it is listened to: one task there says to all watchers of this hub how far it is.
    #[must_use]
    pub fn watch(
        self: &Arc<Self>,
        history: Arc<dyn History>,
        filter: Filter,
        after: Position,
    ) -> Flow<Result<Feed>> {
        let watcher = Watcher::new(Arc::clone(self), history, filter, after);
        // One that failed has ended: the caller starts again from where it was.
        Box::pin(futures::stream::unfold(Some(watcher), |watcher| async move {
            let mut watcher = watcher?;
            match watcher.next().await {
                Ok(feed) => Some((Ok(feed), Some(watcher))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A watcher goes to sleep; see [`Seats::sleep`].
    pub(super) fn sleep(self: &Arc<Self>, desk: &mut Desk, id: u64, due: Option<Instant>, knows: Revision) {
        let hurry = desk.seats.sleep(id, due, knows);
        if desk.timekeeper.as_ref().is_none_or(JoinHandle::is_finished) {
            // The first one, or its runtime ended.
            desk.timekeeper = Some(tokio::spawn(keep_time(Arc::downgrade(self), Arc::clone(&self.news))));
        } else if hurry {
            self.news.notify_one();
        }
    }

    /// What somebody read of the past, right after `after`: the next one finds it in the ring, where that reaches so far.
    pub(super) fn recall(&self, after: Head, entries: &[Arc<LogEntry>]) {
        let mut desk = self.desk();
        let reaches = entries.last().is_some_and(|entry| entry.info.revision >= desk.floor);
        if after.epoch != desk.head.epoch || !reaches {
            return;
        }
        let older = entries.partition_point(|entry| entry.info.revision <= desk.floor);
        for (n, entry) in entries[..older].iter().enumerate().rev() {
            let size = size(entry);
            if desk.entries.len() >= RING || desk.bytes + size > RING_BYTES {
                return;
            }
            desk.bytes += size;
            desk.entries.push_front((Arc::clone(entry), size));
            desk.floor = n.checked_sub(1).map_or(after.revision, |n| entries[n].info.revision);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.news.notify_one();
    }
}

impl Desk {
    fn keep(&mut self, entry: Arc<LogEntry>) {
        let size = size(&entry);
        self.bytes += size;
        self.entries.push_back((entry, size));
        while self.entries.len() > RING || (self.bytes > RING_BYTES && self.entries.len() > 1) {
            if let Some((gone, size)) = self.entries.pop_front() {
                self.bytes -= size;
                self.floor = gone.info.revision;
            }
        }
    }

    /// The commits in (`after`, `upto`], at most [`TAKE`]; `None` if the ring does not reach back so far.
    pub(super) fn recent(&self, after: Revision, upto: Revision) -> Option<VecDeque<Arc<LogEntry>>> {
        if after < self.floor {
            return None;
        }
        let from = self.entries.partition_point(|(e, _)| e.info.revision <= after);
        let entries = self.entries.range(from..).map(|(e, _)| e).take_while(|e| e.info.revision <= upto);
        Some(entries.take(TAKE).map(Arc::clone).collect())
    }
}

fn size(entry: &LogEntry) -> usize {
    let changes = entry.changes.iter();
    128 + changes
        .map(|c| 64 + c.key.as_str().len() + c.value.as_ref().map_or(0, |v| v.as_str().len()))
        .sum::<usize>()
}

/// Wakes those that are to be told how far the database is. Ends with the hub.
async fn keep_time(hub: Weak<Hub>, news: Arc<Notify>) {
    loop {
        let next = match hub.upgrade() {
            Some(hub) => {
                let mut desk = hub.desk();
                let newest = desk.head.revision;
                desk.seats.tell(newest, Instant::now())
            }
            None => return,
        };
        match next {
            None => news.notified().await,
            Some(at) => tokio::select! {
                () = news.notified() => {}
                () = tokio::time::sleep_until(at) => {}
            },
        }
    }
}
