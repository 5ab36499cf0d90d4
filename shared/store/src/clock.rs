//! Time as a store needs it: what o'clock it is, and how much of it passes.
//!
//! The two are apart because wall clocks are set back and forth: commits are stamped by one, claims expire by
//! the other.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Where a store gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, for people: commits are stamped with it. May jump.
    fn time(&self) -> Timestamp;

    /// The time passed since some fixed moment. Never falls. Claims expire by it.
    fn uptime(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn time(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

/// A clock that stands until it is moved: for tests and the simulator.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Duration>);

impl ManualClock {
    /// A clock at the start of 1970.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *now = now.saturating_add(by);
    }
}

impl Clock for ManualClock {
    fn time(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.uptime()).unwrap_or(SignedDuration::MAX);
        Timestamp::UNIX_EPOCH.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
