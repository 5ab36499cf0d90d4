//! Calls that are made under a claim: none of them goes on after its end.

use std::time::Duration;

use shoal_agent::{Fault, Fence};

/// What a call answers that is made while the claim is held, with all that the SDK does to try it again. `what` is attempted, for people.
///
/// # Errors
/// The claim has ended. What was sent until then may have been done: that is looked at, as where no answer comes.
pub async fn while_held<T>(fence: &Fence, what: &str, call: impl Future<Output = T>) -> Result<T, Fault> {
    // The pace, or the service's own answers, may have taken all of the time.
    fence.check()?;
    let left = fence.not_after.saturating_sub(fence.clock.now());
    let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    tokio::time::timeout(left, call).await.map_err(|_| {
        Fault::new(what, "the claim ended before it was answered; whether it was done is looked at")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use shoal_agent::{Clock, Epoch, Moment};

    use super::*;

    struct At(Moment);

    impl Clock for At {
        fn now(&self) -> Moment {
            self.0
        }
    }

    /// A call that is tried again each second, as the SDK does while it is throttled.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_after_the_end_of_the_claim() {
        let fence = |now| Fence { number: 1, not_after: 10_000, epoch: Epoch(7), clock: Arc::new(At(now)) };
        let sent = AtomicU32::new(0);
        let call = async |times: u32| {
            for _ in 0..times {
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        assert!(while_held(&fence(10_001), "x", call(1)).await.is_err());
        assert_eq!(sent.load(Ordering::Relaxed), 0, "not even once");
        assert!(while_held(&fence(7_500), "x", call(60)).await.is_err());
        assert_eq!(sent.swap(0, Ordering::Relaxed), 3);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(sent.load(Ordering::Relaxed), 0);
        assert!(while_held(&fence(7_500), "x", call(2)).await.is_ok());
    }
}
