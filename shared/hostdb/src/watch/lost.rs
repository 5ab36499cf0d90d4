//! What a watch shows to whom, and when it ends because of who watches.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use shoal_core::access::Index;
use shoal_core::{Epoch, Range};
use shoal_store::{Feed, Head};

use crate::access::Caller;
use crate::app::App;
use crate::problem::Problem;

/// How long it is waited for the view to show another life of the database that a watch tells of.
const RESET: Duration = Duration::from_secs(10);

/// What of a message is for who watches. Who administers may have changed since the watch was opened: of rows that decide it is looked
/// up again for each commit. Others cost nothing.
pub(super) fn seen(app: &App, caller: &Caller, feed: Feed) -> Feed {
    let Feed::Commit(entry) = feed else { return feed };
    if caller.entry(&entry).is_none() {
        return Feed::Commit(entry);
    }
    match caller.again(app).ok().and_then(|now| now.entry(&entry)) {
        Some(seen) if !seen.changes.is_empty() => Feed::Commit(Arc::new(seen)),
        // Nothing that is for them was missed.
        _ => Feed::Upto(entry.info.revision),
    }
}

/// Holds a commit back until the view holds it, too, and who watches may see it by what the view then says: the commit before it may be what took
/// their right away, and a server that was cut off for a while hears of both at once.
pub(super) struct Gate {
    app: Arc<App>,
    caller: Arc<Caller>,
    ranges: Vec<Range>,
    /// The life of the database that is told of, and the rules by which it was last found that they may.
    last: Mutex<(Epoch, Arc<Index>)>,
}

impl Gate {
    pub(super) fn new(app: &Arc<App>, caller: &Arc<Caller>, ranges: Vec<Range>, epoch: Epoch) -> Self {
        let last = Mutex::new((epoch, caller.index.clone()));
        Self { app: app.clone(), caller: caller.clone(), ranges, last }
    }

    /// Ends once the message may be sent; if it may not be, not before that changes: mostly [`lost`] ends the watch first and says why. But a right that is
    /// taken and given back at once may go by unseen there, and then it goes on here. Costs two comparisons while no right changes.
    pub(super) async fn passes(&self, feed: &Feed) {
        match feed {
            _ if !self.caller.asked => {}
            Feed::Upto(_) => {}
            Feed::Reset(head) => {
                // What comes next is judged by this life's rules, so the view has to show it. If that takes too long, `lost` looks as soon as it does.
                let _ = self.app.db.refresh(RESET).await;
                self.last().0 = head.epoch;
            }
            Feed::Commit(entry) => {
                let at = Head { epoch: self.last().0, revision: entry.info.revision };
                self.app.db.wait_at(at).await;
                self.allowed().await;
            }
        }
    }

    /// Waits until they may.
    async fn allowed(&self) {
        if self.may() {
            return;
        }
        // Listened to before it is looked again: nothing comes between.
        let mut changes = self.app.keeper.changes();
        while !self.may() {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn may(&self) -> bool {
        let index = self.app.keeper.index(&self.app.db);
        if Arc::ptr_eq(&index, &self.last().1) {
            return true;
        }
        let reads = |now: Caller| self.ranges.iter().all(|range| now.reads_range(range).is_ok());
        let may = self.caller.again(&self.app).is_ok_and(reads);
        if may {
            self.last().1 = index;
        }
        may
    }

    fn last(&self) -> MutexGuard<'_, (Epoch, Arc<Index>)> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until who watches these ranges may no longer, and says why. It wakes when a row below `access/` was written, when
/// other authorities are believed, and when what was shown expires, and else costs nothing.
pub(super) async fn lost(app: Arc<App>, caller: Arc<Caller>, ranges: Vec<Range>) -> Problem {
    if !caller.asked && caller.certificate.is_none() {
        std::future::pending::<()>().await;
    }
    let mut changes = app.keeper.changes();
    loop {
        let now = caller.again(&app).and_then(|now| {
            ranges.iter().try_for_each(|range| now.reads_range(range))?;
            Ok(now)
        });
        let now = match now {
            Ok(now) => now,
            Err(problem) => {
                app.metrics.denied.with_label_values(&["watch"]).inc();
                let (who, origin) = (&caller.who.name, caller.origin.as_deref());
                app.audit.line(|more| tracing::warn!(target: "audit", who, origin, more, "a watch ended: {}", problem.detail()));
                return problem;
            }
        };
        let expired = async {
            match now.until {
                Some(until) => tokio::time::sleep(left(until, app.time.now())).await,
                None => std::future::pending().await,
            }
        };
        let certified = async {
            match &caller.certificate {
                Some(certificate) => certificate.changes().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = certified => {}
            // The keeper goes on for as long as the server does.
            _ = changes.changed() => {}
            () = expired => {}
        }
    }
}

/// How long it is until then: a little more, so that it is past; at most an hour, because the clock may be set.
fn left(until: Timestamp, now: Timestamp) -> Duration {
    let millis = until.duration_since(now).as_millis();
    Duration::from_millis(u64::try_from(millis + 5).unwrap_or(0).clamp(5, 3_600_000))
}
