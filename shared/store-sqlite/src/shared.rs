//! What the writer, the readers and the watches of one open file share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::Connection;
use shoal_core::{LogEntry, Revision};
use shoal_store::parts::{Found, History, Hub};
use shoal_store::{Filter, Fut, Head, Result};

use crate::bell::{Bell, Ears};
use crate::fault::Stop;
use crate::files::Files;
use crate::open::Options;
use crate::readers::Readers;
use crate::{blocking, log, read};

/// One open file, without the right to write.
pub(crate) struct Shared {
    pub(crate) files: Arc<Files>,
    pub(crate) options: Options,
    pub(crate) hub: Arc<Hub>,
    /// Held while commits are handed to the hub, so that they come in order.
    pub(crate) telling: Arc<Mutex<()>>,
    /// How many transactions of this process may be seen in the file by now, of which the hub was not told yet.
    pub(crate) unsaid: Arc<AtomicUsize>,
    readers: Arc<Readers>,
    /// Listens for other processes; there once somebody watches. One that failed is replaced for the next watch.
    bell: tokio::sync::Mutex<Option<Bell>>,
    /// What the bell listens by, once the hub knows all that was committed before it was hung up.
    ears: RwLock<Option<Arc<Ears>>>,
}

impl Shared {
    pub(crate) fn new(place: PathBuf, options: Options, head: Head) -> Self {
        Self {
            files: Arc::new(Files::opened(place)),
            options,
            hub: Arc::new(Hub::new(head)),
            telling: Arc::new(Mutex::new(())),
            unsaid: Arc::default(),
            readers: Arc::new(Readers::new()),
            bell: tokio::sync::Mutex::new(None),
            ears: RwLock::new(None),
        }
    }

    /// The newest revision, if the hub is sure to know it: whatever was acknowledged before this was called, here or in another process,
    /// has been told to it, and so has what a reader of this process may have seen of its own commits before they were acknowledged. Costs a call of the kernel.
    pub(crate) fn heard(&self) -> Option<Head> {
        if self.unsaid.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let ears = self.ears.read().unwrap_or_else(PoisonError::into_inner);
        // In this order: what the hub hears after the looks is newer, and no harm.
        ears.as_ref().is_some_and(|ears| ears.heard_all()).then(|| self.hub.head())
    }

    /// Runs `f` with a reading connection, beside the runtime's own threads.
    pub(crate) async fn reading<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.readers.turn().await?;
        let (readers, files, options) =
            (Arc::clone(&self.readers), Arc::clone(&self.files), self.options.clone());
        let read = move || {
            files.check()?;
            readers.with(&files.place, &options, f)
        };
        blocking(read).await
    }
}

/// From before a commit can be seen in the file until the hub was told of it, or it failed.
pub(crate) struct Unsaid(Arc<AtomicUsize>);

impl Unsaid {
    pub(crate) fn raise(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Unsaid {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Tells the hub of commits that this process made: `entries` start right after `before`. If others came in between that nobody
/// told of yet, all of them are read: whoever they do not concern sleeps on.
pub(crate) fn tell(
    hub: &Hub,
    telling: &Mutex<()>,
    connection: &Connection,
    before: Head,
    entries: Vec<Arc<LogEntry>>,
) {
    let order = telling.lock().unwrap_or_else(PoisonError::into_inner);
    let known = hub.head();
    let newest = entries.last().map_or(before.revision, |e| e.info.revision);
    if known.epoch == before.epoch && known.revision >= newest {
        return; // the bell was faster
    }
    if known.epoch == before.epoch && known.revision >= before.revision {
        hub.publish(entries.into_iter().filter(|e| e.info.revision > known.revision));
        return;
    }
    drop(order);
    if catch_up(hub, telling, connection).is_err() {
        // It may go better for the watchers themselves, or say to them why not.
        let _order = telling.lock().unwrap_or_else(PoisonError::into_inner);
        if hub.head().revision < newest || hub.head().epoch != before.epoch {
            hub.moved(Head { epoch: before.epoch, revision: newest });
        }
    }
}

/// Tells the hub of what the file holds and it does not know yet. Each commit is read once, for all who watch, some at a time; if nobody
/// does, not at all.
pub(crate) fn catch_up(hub: &Hub, telling: &Mutex<()>, connection: &Connection) -> Result<(), Stop> {
    loop {
        let _order = telling.lock().unwrap_or_else(PoisonError::into_inner);
        let known = hub.head();
        let head = read::head(connection)?;
        if head == known {
            return Ok(());
        }
        if head.epoch != known.epoch || head.revision < known.revision || !hub.is_watched() {
            hub.moved(head);
            return Ok(());
        }
        let entries = log::after(connection, known.revision)?;
        if entries.is_empty() {
            hub.moved(head);
            return Ok(());
        }
        hub.publish(entries);
    }
}

impl History for Shared {
    fn refresh(&self) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            // One at a time: the bell is hung up once, before anybody relies on it.
            let mut bell = self.bell.lock().await;
            if !bell.as_ref().is_some_and(Bell::listens) {
                let (old, files, options) = (bell.take(), Arc::clone(&self.files), self.options.clone());
                let (hub, telling) = (Arc::clone(&self.hub), Arc::clone(&self.telling));
                // Before the new one, which may fail at once.
                self.hub.reopen();
                let hang = move || {
                    drop(old);
                    files.check()?;
                    Bell::hang(&files, &options, hub, telling)
                };
                *bell = Some(blocking(hang).await.inspect_err(|error| self.hub.close(error.clone()))?);
            }
            let (hub, telling) = (Arc::clone(&self.hub), Arc::clone(&self.telling));
            self.reading(move |c| catch_up(&hub, &telling, c)).await?;
            let ears = bell.as_ref().map(Bell::ears);
            *self.ears.write().unwrap_or_else(PoisonError::into_inner) = ears;
            Ok(())
        })
    }

    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        Box::pin(self.reading(move |c| log::after(c, after)))
    }

    fn passing(&self, filter: &Filter, after: Revision, upto: Revision) -> Fut<'_, Result<Option<Found>>> {
        let filter = filter.clone();
        Box::pin(self.reading(move |c| log::passing(c, &filter, after, upto)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_may_be_seen_and_was_not_told_is_looked_for_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = crate::SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
        let shared = &store.0.shared;
        // Nobody listens yet.
        assert_eq!(shared.heard(), None);
        shared.refresh().await.unwrap();
        let quiet = async {
            while shared.heard().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), quiet).await.unwrap();
        let two = (Unsaid::raise(&shared.unsaid), Unsaid::raise(&shared.unsaid));
        assert_eq!(shared.heard(), None);
        drop(two.0);
        assert_eq!(shared.heard(), None);
        drop(two.1);
        assert_eq!(shared.heard(), Some(shared.hub.head()));
    }
}
