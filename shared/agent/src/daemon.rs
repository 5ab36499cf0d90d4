//! The daemon: runs until it is told to stop, to read its configuration again, or neither.
//!
//! To systemd it says when it is ready, that it is alive, that it reloads and that it stops. SIGTERM and SIGINT end it:
//! what is in flight is finished and written down, claims are given back. SIGHUP or an edited configuration file make it
//! start anew with the new configuration. One that cannot be read, or from which nothing can be built, is logged and counted
//! (`shoal_agent_config_ok` 0), and what runs goes on as if nothing had been said.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use notify::Watcher;
use sd_notify::NotifyState;
use shoal_engine::{Agent, Fault, Target};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::drive::Driver;
use crate::exit::Failure;

/// How long draining may take before the rest is left to the claims' end.
pub(crate) const DRAIN: Duration = Duration::from_secs(30);

/// After so long without another edit, one is done: editors empty a file first, or take it away.
const SETTLE: Duration = Duration::from_millis(250);

/// Why a daemon's engine ended.
pub(crate) enum Stop<N> {
    /// It was told to.
    Told,
    /// It is to go on with this, made from what stands in the configuration now.
    Reload(N),
}

/// What a daemon was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Stop,
    Reload,
}

/// What a daemon is told from outside.
pub(crate) struct Ears {
    term: Signal,
    int: Signal,
    hup: Signal,
    edited: mpsc::Receiver<()>,
    /// When an edit counts as done.
    settles: Option<Instant>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Ears {
    /// Listens for signals, and for edits of the configuration file if it is there.
    pub(crate) fn new(config: &Path) -> Result<Self, Failure> {
        let (tell, edited) = mpsc::channel(1);
        Self::of(edited, watch(config, tell))
    }

    fn of(edited: mpsc::Receiver<()>, watcher: Option<notify::RecommendedWatcher>) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Fault::new("listen for signals", e));
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
            edited,
            settles: None,
            _watcher: watcher,
        })
    }

    /// Does this to its end, unless the daemon is told to stop before. A word to reload is kept for [`Ears::next`].
    pub(crate) async fn unless_stopped<O>(&mut self, doing: impl Future<Output = O>) -> Option<O> {
        let mut doing = std::pin::pin!(doing);
        let mut reload = false;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut doing => break Some(done),
                word = self.next() => match word {
                    Word::Stop => break None,
                    Word::Reload => reload = true,
                },
            }
        };
        if reload {
            self.settles.get_or_insert_with(Instant::now);
        }
        done
    }

    /// The next word. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self) -> Word {
        loop {
            let settles = self.settles;
            let settled = async {
                match settles {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.term.recv() => return Word::Stop,
                _ = self.int.recv() => return Word::Stop,
                _ = self.hup.recv() => {
                    self.settles = None;
                    return Word::Reload;
                }
                Some(()) = self.edited.recv() => self.settles = Some(Instant::now() + SETTLE),
                () = settled => {
                    self.settles = None;
                    return Word::Reload;
                }
            }
        }
    }
}

/// Watches the file's folder, because editors replace files.
fn watch(config: &Path, tell: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let file = config.file_name()?.to_owned();
    let folder = config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let changed = move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let ours = event.paths.iter().any(|path| path.file_name() == Some(&file));
        let written = event.kind.is_create() || event.kind.is_modify();
        if ours && written {
            // One that waits says enough.
            let _ = tell.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(changed).ok()?;
    match watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
        Ok(()) => Some(watcher),
        Err(error) => {
            tracing::debug!("edits of {} will go unnoticed: {error}", config.display());
            None
        }
    }
}

/// Runs the engine until something from outside ends it. `prepare` makes what is to run next from the configuration, or
/// says why it cannot: then this goes on.
pub(crate) async fn run<A: Agent, T: Target<A>, N>(
    driver: &mut Driver<A, T>,
    ears: &mut Ears,
    mut prepare: impl AsyncFnMut() -> Option<N>,
) -> Stop<N> {
    tell_systemd(&[NotifyState::Ready]);
    let alive = watchdog();
    let mut beat = alive.map(|every| Instant::now() + every);
    loop {
        driver.pump();
        if let (Some(every), Some(at)) = (alive, beat)
            && at <= Instant::now()
        {
            // From this loop, so that it proves that the loop turns.
            tell_systemd(&[NotifyState::Watchdog]);
            beat = Some(Instant::now() + every);
        }
        let word = tokio::select! {
            biased;
            word = ears.next() => word,
            () = driver.wait(beat) => continue,
        };
        let stop = match word {
            Word::Stop => Stop::Told,
            Word::Reload => match prepare().await {
                Some(next) => Stop::Reload(next),
                None => continue,
            },
        };
        if word == Word::Reload {
            tracing::info!("reloading");
            let now = NotifyState::monotonic_usec_now().ok();
            tell_systemd(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
        } else {
            tracing::info!("stopping");
            tell_systemd(&[NotifyState::Stopping]);
        }
        drain(driver, DRAIN).await;
        return stop;
    }
}

/// Finishes what is in flight, writes it down, gives the claims back and says the last word.
pub(crate) async fn drain<A: Agent, T: Target<A>>(driver: &mut Driver<A, T>, within: Duration) {
    let deadline = Instant::now() + within;
    let alive = watchdog().unwrap_or(DRAIN);
    driver.engine.drain();
    driver.pump();
    while !driver.engine.is_drained() && Instant::now() < deadline {
        driver.wait(Some(deadline.min(Instant::now() + alive))).await;
        tell_systemd(&[NotifyState::Watchdog]);
        driver.pump();
    }
}

fn watchdog() -> Option<Duration> {
    let every: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (ours && every > 0).then(|| Duration::from_micros(every / 2))
}

/// What systemd is still to be told.
struct Telling {
    queue: Sender<Vec<NotifyState<'static>>>,
    left: Arc<AtomicUsize>,
}

/// A thread that tells systemd: where it does not read what it is told, a datagram blocks who sends it, and the loop has to
/// stop when it is told to. It may block, and nobody waits for it at the end.
fn telling() -> &'static Telling {
    static TELLING: OnceLock<Telling> = OnceLock::new();
    TELLING.get_or_init(|| {
        let (queue, told) = channel::<Vec<NotifyState<'static>>>();
        let left = Arc::new(AtomicUsize::new(0));
        let count = left.clone();
        let talk = move || {
            for state in told {
                if let Err(error) = sd_notify::notify(&state) {
                    tracing::debug!("systemd was not told: {error}");
                }
                count.fetch_sub(1, Ordering::SeqCst);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("shoal-systemd".into()).spawn(talk) {
            tracing::warn!("systemd is told nothing: {error}");
        }
        Telling { queue, left }
    })
}

fn tell_systemd(state: &[NotifyState<'static>]) {
    let Telling { queue, left } = telling();
    // It is alive as long as somebody hears it: these do not pile up.
    if matches!(state, [NotifyState::Watchdog]) && left.load(Ordering::SeqCst) > 0 {
        return;
    }
    left.fetch_add(1, Ordering::SeqCst);
    if queue.send(state.to_vec()).is_err() {
        // There is no thread.
        left.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Gives systemd a moment to hear the last word before the program ends.
pub(crate) async fn heard() {
    let end = Instant::now() + Duration::from_secs(1);
    while telling().left.load(Ordering::SeqCst) > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_edit_counts_when_it_is_done_and_is_never_forgotten() {
        let (tell, edited) = mpsc::channel(1);
        let mut ears = Ears::of(edited, None).unwrap();
        let begun = Instant::now();
        for _ in 0..3 {
            tell.send(()).await.unwrap();
            // What waits is dropped again and again, as the loop does.
            let early = tokio::time::timeout(SETTLE / 10, ears.next()).await;
            assert!(early.is_err() || begun.elapsed() > SETTLE, "half an edit was taken for a whole one");
        }
        assert_eq!(tokio::time::timeout(SETTLE * 40, ears.next()).await, Ok(Word::Reload));
        let more = tokio::time::timeout(SETTLE * 2, ears.next()).await;
        assert!(more.is_err(), "one edit, one word");
    }
    #[tokio::test]
    async fn what_never_begins_can_be_stopped() {
        let (tell, edited) = mpsc::channel(1);
        let mut ears = Ears::of(edited, None).unwrap();
        tell.send(()).await.unwrap();
        let slow = tokio::time::sleep(SETTLE * 3);
        assert_eq!(ears.unless_stopped(slow).await, Some(()));
        assert_eq!(
            tokio::time::timeout(SETTLE, ears.next()).await,
            Ok(Word::Reload),
            "the edit is not forgotten"
        );
        let own = std::process::id().to_string();
        let told = std::process::Command::new("kill").args(["-TERM", &own]).status();
        assert!(told.unwrap().success());
        let never = ears.unless_stopped(std::future::pending::<()>());
        assert_eq!(tokio::time::timeout(SETTLE * 40, never).await, Ok(None));
    }
}
