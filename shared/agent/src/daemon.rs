//! The daemon: runs until it is told to stop, to read its configuration again, or neither.
//!
//! To systemd it says when it is ready, that it is alive, that it reloads and that it stops. SIGTERM and SIGINT end it:
//! what is in flight is finished and written down, claims are given back. SIGHUP or an edited configuration file make it
//! start anew with the new configuration; a configuration that cannot be read is logged, and the old one stays.

use std::path::Path;
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
const DRAIN: Duration = Duration::from_secs(30);

/// Why a daemon's engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It was told to.
    Told,
    /// It is to start anew with what stands in the configuration now.
    Reload,
}

/// What a daemon is told from outside.
pub(crate) struct Ears {
    term: Signal,
    int: Signal,
    hup: Signal,
    edited: mpsc::Receiver<()>,
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Ears {
    /// Listens for signals, and for edits of the configuration file if it is there.
    pub(crate) fn new(config: &Path) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Fault::new("listen for signals", e));
        let (tell, edited) = mpsc::channel(1);
        Ok(Self {
            term: listen(SignalKind::terminate())?,
            int: listen(SignalKind::interrupt())?,
            hup: listen(SignalKind::hangup())?,
            edited,
            _watcher: watch(config, tell),
        })
    }

    async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.term.recv() => Stop::Told,
            _ = self.int.recv() => Stop::Told,
            _ = self.hup.recv() => Stop::Reload,
            Some(()) = self.edited.recv() => Stop::Reload,
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

/// Runs the engine until something from outside ends it. `readable` says whether a reload could succeed.
pub(crate) async fn run<A: Agent, T: Target<A>>(
    driver: &mut Driver<A, T>,
    ears: &mut Ears,
    readable: impl Fn() -> Result<(), Failure>,
) -> Stop {
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
        let told = tokio::select! {
            biased;
            told = ears.next() => told,
            () = driver.wait(beat) => continue,
        };
        if told == Stop::Reload {
            if let Err(error) = readable() {
                tracing::error!("not reloaded, the old configuration stays: {error}");
                continue;
            }
            tracing::info!("reloading");
            let now = NotifyState::monotonic_usec_now().ok();
            tell_systemd(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
        } else {
            tracing::info!("stopping");
            tell_systemd(&[NotifyState::Stopping]);
        }
        drain(driver).await;
        return told;
    }
}

/// Finishes what is in flight, writes it down, gives the claims back and says the last word.
pub(crate) async fn drain<A: Agent, T: Target<A>>(driver: &mut Driver<A, T>) {
    let deadline = Instant::now() + DRAIN;
    driver.engine.drain();
    driver.pump();
    while !driver.engine.is_drained() && Instant::now() < deadline {
        driver.wait(Some(deadline)).await;
        driver.pump();
    }
}

fn watchdog() -> Option<Duration> {
    let every: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let ours = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
    (ours && every > 0).then(|| Duration::from_micros(every / 2))
}

fn tell_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!("systemd was not told: {error}");
    }
}
