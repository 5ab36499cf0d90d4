//! Hearing of commits, whoever made them: one watch of etcd for all watchers of this process.
//!
//! A commit is one key under `log/`, and etcd tells of it at once and whole. Where its watch breaks (a restart, a
//! member that lost its leader, a compaction that overtook it), what was missed is read from the log, which is ours and
//! which etcd does not compact: so a position is lost only with the database's epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{EventType, WatchResponse};
use rand::Rng;
use shoal_core::{LogEntry, Revision};
use shoal_store::parts::{History, Hub};
use shoal_store::{Fut, Result, StoreError};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::history;
use crate::keys::Keys;
use crate::known::identity as identity_of;
use crate::link::{Link, PATIENCE};
use crate::record::{Entry, Identity, parse};

/// The longest pause before the watch is taken up again.
const RETRY: Duration = Duration::from_secs(1);

/// What tells the hub.
pub(crate) struct News {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    pub(crate) hub: Arc<Hub>,
    /// Held while commits are handed to the hub, so that they come in order.
    telling: Mutex<()>,
}

impl News {
    /// Tells the hub of what the database holds and it does not know yet. Answers the revision of etcd that this was as
    /// of, or an earlier one: from there on news must be listened for.
    async fn catch_up(&self) -> Result<i64> {
        let _order = self.telling.lock().await;
        self.catch_up_in_order().await
    }

    async fn catch_up_in_order(&self) -> Result<i64> {
        let (identity, at) = history::head(&self.link, &self.keys).await?;
        let (known, head) = (self.hub.head(), identity.head());
        if head == known {
            return Ok(at);
        }
        if head.epoch != known.epoch || head.revision < known.revision {
            self.hub.moved(head);
            return Ok(at);
        }
        let entries = history::after(&self.link, &self.keys, known.revision, head.revision).await?;
        if entries.last().is_some_and(|e| e.info.revision == head.revision) {
            self.hub.publish(entries);
        } else {
            // Too many for the ring: watchers read them from the log.
            self.hub.moved(head);
        }
        Ok(at)
    }

    /// Takes up what etcd tells.
    async fn hear(&self, told: &WatchResponse) -> Result<()> {
        let mut entries: Vec<Arc<LogEntry>> = Vec::new();
        let mut identity: Option<Identity> = None;
        for event in told.events() {
            let Some(kv) = event.kv().filter(|_| event.event_type() == EventType::Put) else { continue };
            if kv.key() == self.keys.head() {
                identity = Some(identity_of(&self.link, &self.keys, Some(kv.clone()))?.0);
            } else {
                let entry: Entry = parse(&self.link.place, kv.key(), kv.value())?;
                if entry.revision > self.hub.head().revision {
                    entries.push(Arc::new(history::whole(&self.link, &self.keys, entry).await?));
                }
            }
        }
        let _order = self.telling.lock().await;
        let known = self.hub.head();
        entries.retain(|entry| entry.info.revision > known.revision);
        let moved = identity.is_some_and(|identity| identity.epoch != known.epoch);
        let follows = entries.first().is_none_or(|e| e.info.revision == Revision(known.revision.0 + 1));
        if moved || !follows {
            return self.catch_up_in_order().await.map(drop);
        }
        entries.sort_by_key(|entry| entry.info.revision);
        self.hub.publish(entries);
        Ok(())
    }

    /// Listens until the watch breaks. Says how far it came: whether it listened at all.
    async fn listen(&self, listened: &mut bool) -> Result<()> {
        let at = self.catch_up().await?;
        let mut watch = self.link.listen(self.keys.news(), at + 1).await?;
        loop {
            // Where requests go elsewhere by now, what was told here may be old.
            let Some(told) = watch.next().await? else { return Ok(()) };
            if !told.canceled() {
                *listened = true;
                self.hear(&told).await?;
                continue;
            }
            if told.compact_revision() > 0 {
                tracing::debug!("etcd compacted what was not told yet: it is read from the log");
                *listened = true;
                return Ok(());
            }
            return Err(watch.ended(told.cancel_reason()));
        }
    }
}

/// Listens for ever, or until etcd cannot be reached for so long that watchers have to know.
async fn listen(news: Arc<News>) {
    let mut well = Instant::now();
    loop {
        let mut listened = false;
        let ended = news.listen(&mut listened).await;
        if listened {
            well = Instant::now();
        }
        match ended {
            Ok(()) => {}
            // A right may be given in between, and a password be changed.
            Err(error)
                if well.elapsed() >= PATIENCE
                    || !(error.is_transient() || matches!(error, StoreError::Denied { .. })) =>
            {
                news.hub.close(error);
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "the watch is taken up again");
                let pause = rand::rng().random_range(0.05..1.0);
                tokio::time::sleep(RETRY.mul_f64(pause)).await;
            }
        }
    }
}

/// The past for watchers, and the one who listens; there once somebody watches.
pub(crate) struct Listening {
    pub(crate) news: Arc<News>,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Listening {
    pub(crate) fn new(link: Link, keys: Keys, hub: Arc<Hub>) -> Self {
        let news = Arc::new(News { link, keys, hub, telling: Mutex::new(()) });
        Self { news, listener: Mutex::new(None) }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get_mut() {
            listener.abort();
        }
    }
}

impl History for Listening {
    fn refresh(&self) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            // One at a time: one listens before anybody relies on it.
            let mut listener = self.listener.lock().await;
            self.news.catch_up().await?;
            if listener.as_ref().is_none_or(JoinHandle::is_finished) {
                self.news.hub.reopen();
                *listener = Some(tokio::spawn(listen(Arc::clone(&self.news))));
            }
            Ok(())
        })
    }

    fn after(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        Box::pin(async move {
            let News { link, keys, .. } = &*self.news;
            let newest = history::head(link, keys).await?.0.revision;
            history::after(link, keys, after, newest).await
        })
    }
}
