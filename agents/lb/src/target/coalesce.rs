//! One reload at a time, and one for all who wait for one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use shoal_agent::Fault;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// The longest that a reload waits for those who are about to want one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether somebody still is.
const POLL: Duration = Duration::from_millis(5);

/// What reloads share.
#[derive(Debug, Default)]
pub(super) struct Reloads {
    /// Rises with every file that is put in place.
    wanted: AtomicU64,
    /// How many are about to want one.
    coming: AtomicUsize,
    /// What the last good reload read.
    done: Mutex<u64>,
    /// How many were begun, and how many of these have ended, well or not.
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Reloads {
    /// Says that somebody is about to want a reload, until it is dropped.
    pub(super) fn coming(&self) -> Coming<'_> {
        self.coming.fetch_add(1, Ordering::SeqCst);
        Coming(&self.coming)
    }

    /// Makes the server read what stands in its files when this is called; who calls while another's reload has not begun shares it, and
    /// `reload` is not begun.
    ///
    /// # Errors
    /// What `reload` says.
    pub(super) async fn run(
        &self,
        coming: Coming<'_>,
        reload: impl Future<Output = Result<(), Fault>>,
    ) -> Result<(), Fault> {
        let mine = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        drop(coming);
        let mut done = self.done.lock().await;
        if *done >= mine {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        while self.coming.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            sleep(POLL).await;
        }
        let reads = self.wanted.load(Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst);
        let _ends = Ends(&self.ended);
        reload.await?;
        *done = reads;
        Ok(())
    }

    /// A moment that can be asked about later.
    pub(super) fn moment(&self) -> Moment {
        Moment(self.ended.load(Ordering::SeqCst))
    }

    /// Whether a reload was going on at that moment, or was begun since. It may have read a file before it was put in place, and what was
    /// told at run time may have been told to the process before.
    pub(super) fn any_since(&self, moment: &Moment) -> bool {
        self.begun.load(Ordering::SeqCst) != moment.0
    }
}

/// See [`Reloads::moment`].
#[derive(Debug)]
pub(super) struct Moment(u64);

/// Counts the end of a reload, also of one that nobody waits for any more.
struct Ends<'r>(&'r AtomicU64);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// See [`Reloads::coming`].
#[derive(Debug)]
pub(super) struct Coming<'r>(&'r AtomicUsize);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reload_that_goes_on_or_began_since_is_known() {
        let reloads = Reloads::default();
        let before = reloads.moment();
        assert!(!reloads.any_since(&before));
        let within = async {
            // It goes on: whoever begins now does not know which process hears.
            let now = reloads.moment();
            assert!(reloads.any_since(&now) && reloads.any_since(&before));
            Err(Fault::new("reload", "it is refused"))
        };
        assert!(reloads.run(reloads.coming(), within).await.is_err());
        assert!(reloads.any_since(&before));
        let after = reloads.moment();
        assert!(!reloads.any_since(&after));
        reloads.run(reloads.coming(), async { Ok(()) }).await.unwrap();
        assert!(reloads.any_since(&after));
        // One that is given up has ended, too.
        let given_up = reloads.run(reloads.coming(), std::future::pending());
        assert!(tokio::time::timeout(Duration::from_millis(20), given_up).await.is_err());
        assert!(!reloads.any_since(&reloads.moment()));
    }
}
