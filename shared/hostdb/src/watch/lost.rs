//! What a watch shows to whom, and when it ends because of who watches.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shoal_core::Range;
use shoal_store::Feed;

use crate::access::Caller;
use crate::app::App;
use crate::problem::Problem;

/// What of a message is for who watches.
pub(super) fn seen(caller: &Caller, feed: Feed) -> Feed {
    let Feed::Commit(entry) = feed else { return feed };
    match caller.entry(&entry) {
        None => Feed::Commit(entry),
        // Nothing that is for them was missed.
        Some(seen) if seen.changes.is_empty() => Feed::Upto(entry.info.revision),
        Some(seen) => Feed::Commit(Arc::new(seen)),
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
