//! One watcher of a [`Hub`]: a cursor and a filter.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use shoal_core::{Change, LogEntry, Range, Revision};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::{History, Hub};
use crate::{Feed, Filter, Head, Position, Result};

/// Who is further behind than this asks the store for what concerns it, where the store can say. One read of the history is about as many
/// commits, and is good for the next watcher as well.
const FAR: u64 = 512;
/// Commits of more changes than this are searched, not scanned, for what passes a filter.
const SCANNED: usize = 64;

pub(super) struct Watcher {
    hub: Arc<Hub>,
    history: Arc<dyn History>,
    /// Its place among those that are woken; `None`: it has not begun.
    seat: Option<(u64, Arc<Notify>)>,
    filter: Filter,
    /// How far it has seen.
    at: Head,
    /// How far it has to look for itself. What comes later and concerns it, its seat says.
    upto: Revision,
    /// How far it has told; `None` until it has caught up once.
    told: Option<Revision>,
    /// When it last said [`Feed::Upto`].
    said: Instant,
    /// Taken, but not looked at yet.
    waiting: VecDeque<Arc<LogEntry>>,
}

/// What a watcher does next.
enum Next {
    Say(Feed),
    /// It looks at what it has taken up.
    Go,
    /// It reads the history.
    Read,
    Sleep,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some((id, _)) = self.seat.take() {
            self.hub.desk().seats.leave(id);
        }
    }
}

impl Watcher {
    pub(super) fn new(hub: Arc<Hub>, history: Arc<dyn History>, filter: Filter, after: Position) -> Self {
        Self {
            hub,
            history,
            seat: None,
            filter,
            at: after,
            upto: after.revision,
            told: None,
            said: Instant::now(),
            waiting: VecDeque::new(),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Feed> {
        let (id, wake) = match &self.seat {
            Some((id, wake)) => (*id, Arc::clone(wake)),
            None => self.begin().await?,
        };
        loop {
            while let Some(entry) = self.waiting.pop_front() {
                self.at.revision = entry.info.revision;
                if let Some(entry) = self.passing(entry) {
                    self.told = self.told.map(|_| self.at.revision);
                    return Ok(Feed::Commit(entry));
                }
                if self.told.is_some() && self.is_due() {
                    return Ok(self.say_upto());
                }
            }
            match self.look(id)? {
                Next::Say(feed) => return Ok(feed),
                Next::Go => {}
                Next::Read => self.read().await?,
                Next::Sleep => wake.notified().await,
            }
        }
    }

    /// Takes its seat: from here on it is told of what concerns it, and all before it looks at itself.
    async fn begin(&mut self) -> Result<(u64, Arc<Notify>)> {
        self.history.refresh().await?;
        let mut desk = self.hub.desk();
        let seat = desk.seats.take(self.filter.ranges.clone());
        self.upto = desk.head.revision;
        self.seat = Some(seat.clone());
        Ok(seat)
    }

    /// Finds out where the database is, and what that means.
    fn look(&mut self, id: u64) -> Result<Next> {
        let hub = Arc::clone(&self.hub);
        let mut desk = hub.desk();
        if let Some(why) = &desk.closed {
            return Err(why.clone());
        }
        let head = desk.head;
        if head.epoch != self.at.epoch || head.revision < self.at.revision {
            // What concerned it stood in another life of the database.
            desk.seats.rouse(id);
            (self.at, self.upto, self.told) = (head, head.revision, None);
            return Ok(Next::Say(Feed::Reset(head)));
        }
        if self.at.revision >= self.upto {
            // Over what does not concern it, it passes.
            let first = desk.seats.rouse(id);
            let before = first.map_or(head.revision, |first| Revision(first.0.saturating_sub(1)));
            self.at.revision = self.at.revision.max(before.min(head.revision));
            self.upto = head.revision;
        }
        if self.at.revision < self.upto {
            let Some(entries) = desk.recent(self.at.revision, self.upto) else { return Ok(Next::Read) };
            self.take_up(entries);
            return Ok(Next::Go);
        }
        if self.told.is_none() || self.is_due() {
            return Ok(Next::Say(self.say_upto()));
        }
        // A progress longer than time itself is never.
        let due = self.said.checked_add(self.filter.progress);
        hub.sleep(&mut desk, id, due, self.told.unwrap_or(self.at.revision));
        Ok(Next::Sleep)
    }

    /// Reads on in the history, where the ring does not reach.
    async fn read(&mut self) -> Result<()> {
        let (after, upto) = (self.at, self.upto);
        if upto.0 - after.revision.0 > FAR
            && let Some((entries, looked)) = self.history.passing(&self.filter, after.revision, upto).await?
        {
            // What it did not answer holds nothing for this filter.
            if entries.is_empty() {
                self.at.revision = looked;
            }
            self.waiting = entries.into();
            return Ok(());
        }
        let mut entries = self.history.after(after.revision).await?;
        self.hub.recall(after, &entries);
        // The history may know more: one step after the other, or the cursor would be ahead of the head and take that
        // for a lost position.
        entries.retain(|e| e.info.revision <= upto);
        self.take_up(entries.into());
        Ok(())
    }

    fn take_up(&mut self, entries: VecDeque<Arc<LogEntry>>) {
        if entries.is_empty() {
            // Numbers may be skipped: nothing stands between.
            self.at.revision = self.upto;
        }
        self.waiting = entries;
    }

    /// Whether it has something to say of how far it is, and has not for long enough.
    fn is_due(&self) -> bool {
        self.told != Some(self.at.revision) && self.said.elapsed() >= self.filter.progress
    }

    fn say_upto(&mut self) -> Feed {
        self.told = Some(self.at.revision);
        self.said = Instant::now();
        Feed::Upto(self.at.revision)
    }

    /// What of the commit passes the filter.
    fn passing(&self, entry: Arc<LogEntry>) -> Option<Arc<LogEntry>> {
        let changes = pick(&self.filter, &entry.changes);
        if changes.len() == entry.changes.len() {
            return (!changes.is_empty()).then_some(entry);
        }
        (!changes.is_empty()).then(|| {
            let changes = changes.into_iter().cloned().collect();
            Arc::new(LogEntry { info: entry.info.clone(), changes })
        })
    }
}

/// The changes that pass the filter. They stand in key order, so of a large commit, keys and prefixes are searched.
fn pick<'a>(filter: &Filter, changes: &'a [Change]) -> Vec<&'a Change> {
    let scan = |range: &Range| matches!(range, Range::All | Range::Naming(_) | Range::Concerning(_));
    if changes.len() <= SCANNED || filter.ranges.iter().any(scan) {
        return changes.iter().filter(|change| filter.passes(&change.key)).collect();
    }
    let mut found = BTreeSet::new();
    for range in &filter.ranges {
        let first = match range {
            Range::Key(key) => changes.partition_point(|change| change.key < *key),
            Range::Prefix(prefix) => changes.partition_point(|change| change.key.as_str() < prefix.as_str()),
            Range::All | Range::Naming(_) | Range::Concerning(_) => 0,
        };
        let there = changes[first..].iter().take_while(|change| range.contains(&change.key));
        found.extend((first..).zip(there).map(|(at, _)| at));
    }
    found.into_iter().map(|at| &changes[at]).collect()
}

#[cfg(test)]
mod tests;
