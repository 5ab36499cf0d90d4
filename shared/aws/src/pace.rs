//! How fast a service is asked: its limits are per account, and others share them.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// So many calls a second, and so many at once after a pause: a token bucket that is waited for in the order of asking.
#[derive(Debug)]
pub struct Pace {
    each: Duration,
    burst: u32,
    /// When all that was let through has been earned.
    earned: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most `per_second` calls a second, `burst` of them at once after a pause. Zero or less, or what is no number: as fast as can be.
    #[must_use]
    pub fn new(per_second: f64, burst: u32) -> Self {
        let each = if per_second > 0.0 && per_second.is_finite() {
            Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        };
        Self { each, burst: burst.max(1), earned: Mutex::new(None) }
    }

    /// Waits for the next call's turn. A call that is given up while it waits has used nothing.
    pub async fn turn(&self) {
        let mut earned = self.earned.lock().await;
        let now = Instant::now();
        let free = now + self.each;
        let next = earned.map_or(free, |earned| earned.max(now) + self.each);
        // As many as the burst may be ahead of what is earned.
        if let Some(at) = next.checked_sub(self.each * self.burst).filter(|at| *at > now) {
            sleep_until(at).await;
        }
        *earned = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (pace, began) = (Pace::new(5.0, 5), Instant::now());
        for _ in 0..5 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..10 {
            pace.turn().await;
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2_050), "{took:?}");
        // A pause earns no more than the burst.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..6 {
            pace.turn().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(199), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit() {
        let (pace, began) = (Pace::new(0.0, 0), Instant::now());
        for _ in 0..1_000 {
            pace.turn().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
