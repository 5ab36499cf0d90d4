//! Reloads through the master's socket: one at a time, and one for all who wait for one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use shoal_agent::Fault;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::live;
use super::socket::Socket;

/// The longest that a reload waits for those who are about to want one.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often HAProxy is asked whether it has reloaded.
const POLL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Reload {
    /// Rises with every file that is put in place.
    wanted: AtomicU64,
    /// How many are about to want one.
    coming: AtomicUsize,
    /// What the last good reload read.
    done: Mutex<u64>,
    within: Duration,
}

impl Reload {
    pub(super) fn new(within: Duration) -> Self {
        Self { wanted: AtomicU64::new(0), coming: AtomicUsize::new(0), done: Mutex::new(0), within }
    }

    /// Says that somebody is about to want a reload, until it is dropped.
    pub(super) fn coming(&self) -> Coming<'_> {
        self.coming.fetch_add(1, Ordering::SeqCst);
        Coming(&self.coming)
    }

    /// Makes HAProxy read what stands in its files when this is called; who calls while another's reload has not begun shares it.
    ///
    /// # Errors
    /// It does not answer, or goes on with what it had.
    pub(super) async fn run(&self, stats: &Socket, master: &Socket, coming: Coming<'_>) -> Result<(), Fault> {
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
        self.reload(stats, master).await?;
        *done = reads;
        Ok(())
    }

    async fn reload(&self, stats: &Socket, master: &Socket) -> Result<(), Fault> {
        let before = master.ask("show proc").await?;
        let (old, failed) = live::worker(&before);
        let end = Instant::now() + self.within;
        // The master closes the connection in the middle of it, and older ones say nothing.
        if let Ok(said) = master.ask("reload").await
            && said.contains("Success=0")
        {
            return Err(refused(&said));
        }
        while Instant::now() < end {
            let now = master.ask("show proc").await.map(|said| live::worker(&said));
            match now {
                Ok((_, now)) if now > failed => return Err(refused("")),
                // The old process answers for a moment more.
                Ok((Some(new), _)) if Some(new) != old && process(stats).await == Some(new) => return Ok(()),
                _ => sleep(POLL).await,
            }
        }
        let why = format!("no new process answers within {} s", self.within.as_secs());
        Err(Fault::new("reload HAProxy", why).next("look into its log"))
    }
}

/// See [`Reload::coming`].
#[derive(Debug)]
pub(super) struct Coming<'r>(&'r AtomicUsize);

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Which process answers at the socket.
async fn process(stats: &Socket) -> Option<u32> {
    let said = stats.ask("show info").await.ok()?;
    said.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

fn refused(said: &str) -> Fault {
    let why = format!("it refuses its configuration, and goes on with what it had {said}");
    Fault::new("reload HAProxy", why.trim().to_owned())
        .next("look into its log: a port may be taken by another process")
}
