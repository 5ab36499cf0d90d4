//! Follows the store: reads all that the agent needs of it, then every commit, and begins again when the position is lost.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use shoal_core::{LogEntry, Range, Revision, Row};
use shoal_engine::{Reading, Snapshot};
use shoal_store::{Feed, Filter, Head, Query, Result, Store, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the driver is told.
pub(crate) enum News {
    /// The whole of what it follows.
    All(Box<Snapshot>),
    /// One commit.
    Commit(Arc<LogEntry>),
    /// Everything up to here has been told.
    Upto(Revision),
    /// The store does not answer, or refuses to; it is tried again.
    Down(Down),
}

/// Why nothing is heard of the store.
pub(crate) struct Down {
    pub(crate) why: String,
    /// Whether it answered, and does not let this agent read.
    pub(crate) refused: bool,
}

impl From<StoreError> for Down {
    fn from(error: StoreError) -> Self {
        Self { why: error.to_string(), refused: matches!(error, StoreError::Denied { .. }) }
    }
}

/// The longest pause between two attempts to reach the store.
const MOST: Duration = Duration::from_secs(30);
/// After so long a watch counts as one that worked.
const STEADY: Duration = Duration::from_secs(30);

/// Reads what of the database is in `range`, tombstones included, at one revision. Each page is taken in while the next one is read.
pub(crate) async fn read_all(store: &dyn Store, range: &Range) -> Result<(Head, Snapshot)> {
    let head = store.head().await?;
    let mut query = Query { tombstones: true, at: Some(head.revision), ..Query::new(range.clone()) };
    let mut reading = Reading::new(head.epoch, head.revision);
    let mut take = |rows: Vec<Row>| rows.into_iter().for_each(|row| reading.take(row));
    let mut page = store.read(&query).await?;
    while let Some(next) = page.next {
        query.after = Some(next);
        // Asked in this order, the store is at work before this thread is.
        let (read, ()) = tokio::join!(biased; store.read(&query), async { take(page.rows) });
        page = read?;
    }
    take(page.rows);
    Ok((head, reading.whole()))
}

/// Follows what of `store` is in `range`, from `from`, until nobody listens.
pub(crate) async fn follow(store: Arc<dyn Store>, range: Range, mut from: Head, news: mpsc::Sender<News>) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let Some(why) = listen(&*store, &range, &mut from, &news).await else { return };
        // One that lasted is no sign that the next will not.
        failures = if begun.elapsed() > STEADY { 1 } else { failures + 1 };
        let first_reset = why.is_none() && failures == 1;
        if let Some(why) = why
            && news.send(News::Down(why)).await.is_err()
        {
            return;
        }
        if !first_reset {
            tokio::time::sleep(pause(failures)).await;
        }
    }
}

/// Tells what one watch says, until it ends: why it did, or nothing if the position was lost and all was read anew. `None`:
/// nobody listens any more.
async fn listen(
    store: &dyn Store,
    range: &Range,
    from: &mut Head,
    news: &mpsc::Sender<News>,
) -> Option<Option<Down>> {
    let mut watch = store.watch(Filter::of(vec![range.clone()]), *from);
    while let Some(message) = watch.next().await {
        let told = match message {
            Ok(Feed::Commit(entry)) => {
                from.revision = entry.info.revision;
                News::Commit(entry)
            }
            Ok(Feed::Upto(revision)) => {
                from.revision = from.revision.max(revision);
                News::Upto(revision)
            }
            Ok(Feed::Reset(_)) => match read_all(store, range).await {
                Ok((head, snapshot)) => {
                    *from = head;
                    // What came after this reading is asked for anew.
                    let all = News::All(Box::new(snapshot));
                    return news.send(all).await.ok().map(|()| None);
                }
                Err(error) => return Some(Some(error.into())),
            },
            Err(error) => return Some(Some(error.into())),
        };
        news.send(told).await.ok()?;
    }
    Some(Some(Down { why: "the watch ended without saying why".to_owned(), refused: false }))
}

/// Twice as long after each failure, at most [`MOST`], and up to half of it less by chance.
fn pause(failures: u32) -> Duration {
    let full = Duration::from_millis(100).saturating_mul(1 << failures.min(12)).min(MOST);
    full.mul_f64(0.5 + crate::chance::fraction() / 2.0)
}

#[cfg(test)]
mod tests;
