//! What the writer, the readers and the watches of one open file share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use shoal_core::{LogEntry, Revision};
use shoal_store::parts::{Found, History, Hub};
use shoal_store::{Filter, Fut, Head, Result};

use crate::bell::Bell;
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
    readers: Arc<Readers>,
    /// Listens for other processes; there once somebody watches. One that failed is replaced for the next watch.
    bell: tokio::sync::Mutex<Option<Bell>>,
}

impl Shared {
    pub(crate) fn new(place: PathBuf, options: Options, head: Head) -> Self {
        Self {
            files: Arc::new(Files::opened(place)),
            options,
            hub: Arc::new(Hub::new(head)),
            telling: Arc::new(Mutex::new(())),
            readers: Arc::new(Readers::new()),
            bell: tokio::sync::Mutex::new(None),
        }
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
            self.reading(move |c| catch_up(&hub, &telling, c)).await
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
