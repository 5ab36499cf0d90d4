//! What time it is, for claims and timers: the wall clock once, and from then on a clock that never goes back.
//!
//! `CLOCK_BOOTTIME` also counts the time that the machine sleeps, in which the store's claims run out as well.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shoal_engine::{Clock, Moment};

/// The machine's clock.
pub(crate) struct Wall {
    /// What to add to the time since boot.
    offset: Moment,
}

impl Wall {
    pub(crate) fn new() -> Self {
        Self { offset: jiff::Timestamp::now().as_millisecond() - since_boot() }
    }
}

impl Clock for Wall {
    fn now(&self) -> Moment {
        self.offset + since_boot()
    }
}

fn since_boot() -> Moment {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// How long until `at`; nothing if it has passed.
pub(crate) fn until(at: Moment, now: Moment) -> Duration {
    Duration::from_millis(u64::try_from(at.saturating_sub(now)).unwrap_or(0))
}
