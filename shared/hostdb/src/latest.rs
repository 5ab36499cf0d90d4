//! What time it is for what ends: a time that never goes back.
//!
//! A clock that is set back would let those in again whose token or certificate had ended. So the time that counts is the latest
//! that was seen: shown by this machine's clock since the server started, or stamped on one of the database's newest commits.
//! While the clock is behind it, it goes on half as fast as time passes, until the clock has caught up; so what has not ended
//! yet lasts at most twice as long as it was meant to, and never longer than the clock was set back.
//!
//! A clock that was ahead by mistake ends tokens early, for as long as that takes. Who comes by the server's Unix socket is let in by the
//! kernel's word, whatever the time, and tokens that do not end stay.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use prometheus::IntGauge;
use shoal_core::Range;
use shoal_store::{Result, Store};

/// How many of the newest commits are looked at, fewer where they are large.
const COMMITS: usize = 10_000;
/// How often the clock is looked at where nobody asks.
const LOOK: Duration = Duration::from_secs(10);
/// How far the clock may be behind before it is said: clocks are set right by a little all the time.
const BEHIND: SignedDuration = SignedDuration::from_secs(60);

/// The latest time that was seen.
pub(crate) struct Latest {
    seen: Mutex<Seen>,
    /// By how many seconds the clock is behind.
    behind: IntGauge,
}

#[derive(Clone, Copy)]
struct Seen {
    time: Timestamp,
    at: Instant,
    /// Whether it was said that the clock is behind.
    told: bool,
}

impl Latest {
    /// What the clock says now, shown by `behind` once it is behind.
    pub(crate) fn new(behind: IntGauge) -> Self {
        let seen = Seen { time: Timestamp::now(), at: Instant::now(), told: false };
        Self { seen: Mutex::new(seen), behind }
    }

    /// The time that counts. Costs two readings of clocks.
    pub(crate) fn now(&self) -> Timestamp {
        self.at(Timestamp::now(), Instant::now())
    }

    /// Takes over that it was so late once.
    pub(crate) fn reach(&self, time: Timestamp) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.time = seen.time.max(time);
    }

    /// Takes over when the newest commits were made.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn look_at(&self, store: &dyn Store) -> Result<()> {
        let newest = store.log(&Range::All, None, COMMITS).await?;
        if let Some(time) = newest.iter().map(|entry| entry.info.time).max() {
            self.reach(time);
        }
        Ok(())
    }

    /// Looks at the clock now and then, also where nobody asks; for ever.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            self.now();
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The time that counts when the clock says `clock`, at a moment `at` that never goes back.
    fn at(&self, clock: Timestamp, at: Instant) -> Timestamp {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = SignedDuration::try_from(at.saturating_duration_since(seen.at)).unwrap_or_default();
        let going_on = seen.time.saturating_add(passed / 2).unwrap_or(seen.time);
        let time = clock.max(going_on);
        let behind = time.duration_since(clock);
        if behind > BEHIND && !seen.told {
            tracing::warn!(
                "this machine's clock is {behind:#} behind a time that was seen here or in the database before: tokens and certificates \
                 that had ended by then stay so. Look whether the clock is right (docs/access.md)"
            );
        }
        if seen.told && behind.is_zero() {
            tracing::info!("this machine's clock has caught up with the latest time that was seen");
        }
        self.behind.set(behind.as_secs());
        let told = behind > BEHIND || (seen.told && !behind.is_zero());
        *seen = Seen { time, at: at.max(seen.at), told };
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn latest(time: Timestamp, begun: Instant) -> Latest {
        let latest = Latest::new(IntGauge::new("behind", "seconds").unwrap());
        *latest.seen.lock().unwrap() = Seen { time, at: begun, told: false };
        latest
    }

    #[test]
    fn it_goes_on_half_as_fast_until_the_clock_has_caught_up() {
        let begun = Instant::now();
        let latest = latest(at(10_000), begun);
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(latest.at(at(10_010), after(10)), at(10_010));
        // Set back an hour.
        assert_eq!(latest.at(at(6_420), after(20)), at(10_015));
        assert_eq!(latest.behind.get(), 3_595);
        assert_eq!(latest.at(at(9_410), after(3_010)), at(11_510));
        // Twice the hour later both are the same.
        assert_eq!(latest.at(at(13_610), after(7_210)), at(13_610));
        assert_eq!(latest.at(at(13_611), after(7_211)), at(13_611));
        assert_eq!(latest.behind.get(), 0);
        // A moment that comes out of order moves nothing back.
        assert_eq!(latest.at(at(13_600), after(7_200)), at(13_611));
    }

    #[test]
    fn it_never_goes_back() {
        let begun = Instant::now();
        let latest = latest(at(10_000), begun);
        let mut before = at(10_000);
        for (n, clock) in [12_000, 100, 11_999, i64::from(i32::MIN), 12_001, 5].into_iter().enumerate() {
            let now = latest.at(at(clock), begun + Duration::from_secs(n as u64));
            assert!(now >= before && now >= at(clock) && now <= at(12_010), "{now}");
            before = now;
        }
        latest.reach(at(20_000));
        assert!(latest.at(at(5), begun + Duration::from_secs(6)) >= at(20_000));
    }

    #[tokio::test]
    async fn the_newest_commits_say_how_late_it_was() {
        use shoal_core::{Change, Document};
        let store = shoal_store::MemoryStore::new();
        let behind = latest(at(0), Instant::now());
        behind.look_at(&store).await.unwrap();
        let fact = Change::put("facts/vm/web1".parse().unwrap(), Document::trusted("{}"));
        let commit = shoal_core::Commit::new("ann", "because", vec![fact]);
        let begun = Timestamp::now();
        store.commit(commit).await.unwrap();
        behind.look_at(&store).await.unwrap();
        assert!(behind.at(at(0), Instant::now()) >= begun);
    }
}
