//! The daemon: runs until it is told to stop, to read its configuration again, or neither.
//!
//! To systemd it says when it is ready, that it is alive, that it reloads and that it stops. SIGTERM and SIGINT end it:
//! what is in flight is finished and written down, claims are given back. SIGHUP or an edited configuration file make it
//! start anew with the new configuration. One that cannot be read, or from which nothing can be built, is logged and counted
//! (`shoal_agent_config_ok` 0), and what runs goes on as if nothing had been said.
//!
//! Whatever takes time is done beside listening ([`Ears::unless_stopped`], [`Watch::over`]): a store that does not answer, old or
//! new, keeps nobody from hearing that the daemon is to stop, and while it listens it tells the watchdog that it is alive. What
//! a reload makes ready is made ready beside the work.

use std::path::Path;
use std::pin::Pin;
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

/// How long a silent database is waited for when all else is finished. What it was to be told is not lost: a claim that is
/// not given back runs out by itself, and whoever works on the unit next looks at what was made.
const SILENT: Duration = Duration::from_secs(4);

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
    heart: Heart,
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
            heart: Heart::new(),
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

    /// The next word. Tells the watchdog meanwhile. May be dropped and called again: nothing is lost.
    pub(crate) async fn next(&mut self) -> Word {
        loop {
            self.heart.beat();
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
                () = self.heart.due() => {}
            }
        }
    }
}

/// Tells the watchdog that the daemon is alive, as often as it asks for. From whatever listens, so that it proves that this
/// goes on.
struct Heart {
    every: Option<Duration>,
    next: Instant,
}

impl Heart {
    fn new() -> Self {
        let every = watchdog();
        Self { every, next: Instant::now() + every.unwrap_or_default() }
    }

    fn beat(&mut self) {
        if let Some(every) = self.every
            && self.next <= Instant::now()
        {
            tell_systemd(&[NotifyState::Watchdog]);
            self.next = Instant::now() + every;
        }
    }

    async fn due(&self) {
        match self.every {
            Some(_) => tokio::time::sleep_until(self.next).await,
            None => std::future::pending().await,
        }
    }
}

/// Listens while a daemon does one thing after the other. `prepare` makes what is to run next from the configuration, or says
/// why it cannot: then what is done goes on.
pub(crate) struct Watch<'d, N> {
    ears: &'d mut Ears,
    prepare: &'d (dyn Fn() -> Preparing<'d, N> + Sync),
    preparing: Option<Preparing<'d, N>>,
}

/// What is made ready beside the work.
pub(crate) type Preparing<'d, N> = Pin<Box<dyn Future<Output = Option<N>> + Send + 'd>>;

impl<'d, N> Watch<'d, N> {
    pub(crate) fn new(ears: &'d mut Ears, prepare: &'d (dyn Fn() -> Preparing<'d, N> + Sync)) -> Self {
        Self { ears, prepare, preparing: None }
    }

    /// Does this to its end, unless something ends the daemon, or what it is made from, before. What is being prepared by then
    /// goes on with the next thing.
    pub(crate) async fn over<O>(&mut self, doing: impl Future<Output = O>) -> Result<O, Stop<N>> {
        let mut doing = std::pin::pin!(doing);
        loop {
            let prepared = async {
                match &mut self.preparing {
                    Some(preparing) => preparing.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                word = self.ears.next() => match word {
                    Word::Stop => return Err(Stop::Told),
                    // What was being made ready is not what stands in the configuration now.
                    Word::Reload => self.preparing = Some((self.prepare)()),
                },
                next = prepared => {
                    self.preparing = None;
                    if let Some(next) = next {
                        return Err(Stop::Reload(next));
                    }
                }
                done = &mut doing => return Ok(done),
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

/// Runs the engine until something from outside ends it.
pub(crate) async fn run<A: Agent, T: Target<A>, N>(
    driver: &mut Driver<A, T>,
    watch: &mut Watch<'_, N>,
) -> Stop<N> {
    tell_systemd(&[NotifyState::Ready]);
    let stop = loop {
        driver.pump();
        if let Err(stop) = watch.over(driver.wait(None)).await {
            break stop;
        }
    };
    if let Stop::Reload(_) = stop {
        tracing::info!("reloading");
        let now = NotifyState::monotonic_usec_now().ok();
        tell_systemd(&[Some(NotifyState::Reloading), now].into_iter().flatten().collect::<Vec<_>>());
        if watch.ears.unless_stopped(drain(driver, DRAIN)).await.is_some() {
            return stop;
        }
    }
    tracing::info!("stopping");
    tell_systemd(&[NotifyState::Stopping]);
    drain(driver, DRAIN).await;
    Stop::Told
}

/// Finishes what is in flight, writes it down, gives the claims back and says the last word. What the target does has all of
/// the time `within`; a database that does not answer has much less.
pub(crate) async fn drain<A: Agent, T: Target<A>>(driver: &mut Driver<A, T>, within: Duration) {
    let deadline = Instant::now() + within;
    let alive = watchdog().unwrap_or(DRAIN);
    driver.engine.drain();
    driver.pump();
    let (mut heard, mut end) = (driver.heard(), deadline.min(Instant::now() + SILENT));
    while !driver.engine.is_drained() && Instant::now() < end {
        driver.wait(Some(end.min(Instant::now() + alive))).await;
        tell_systemd(&[NotifyState::Watchdog]);
        driver.pump();
        if driver.is_in_target() || driver.heard() != heard {
            (heard, end) = (driver.heard(), deadline.min(Instant::now() + SILENT));
        }
    }
    if !driver.engine.is_drained() {
        tracing::warn!("not waited for any longer: {}; claims run out by themselves", driver.waits_for());
    }
}

/// Tells the target to close what it opened, and does not wait for ever.
pub(crate) async fn close<A: Agent, T: Target<A>>(target: &T) {
    if tokio::time::timeout(SILENT, target.stop()).await.is_err() {
        tracing::warn!("the target did not close what it had opened in {} s", SILENT.as_secs());
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

pub(crate) fn tell_systemd(state: &[NotifyState<'static>]) {
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

    /// A signal that one test sends is for all that listen in this process: one at a time.
    static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    #[tokio::test(start_paused = true)]
    async fn an_edit_counts_when_it_is_done_and_is_never_forgotten() {
        let _alone = ALONE.lock().await;
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

    #[tokio::test(start_paused = true)]
    async fn what_is_made_ready_without_end_keeps_nothing_waiting() {
        let _alone = ALONE.lock().await;
        let (tell, edited) = mpsc::channel(1);
        let mut ears = Ears::of(edited, None).unwrap();
        let asked = AtomicUsize::new(0);
        let prepare = || -> Preparing<'_, &str> {
            match asked.fetch_add(1, Ordering::SeqCst) {
                // Neither ever ready nor refused, then refused, then ready.
                0 => Box::pin(std::future::pending()),
                1 => Box::pin(std::future::ready(None)),
                _ => Box::pin(std::future::ready(Some("ready"))),
            }
        };
        let mut watch = Watch::new(&mut ears, &prepare);
        for round in 1..3 {
            tell.send(()).await.unwrap();
            assert!(watch.over(tokio::time::sleep(SETTLE * 3)).await.is_ok(), "the work goes on");
            assert_eq!(asked.load(Ordering::SeqCst), round, "the newest word counts");
        }
        tell.send(()).await.unwrap();
        let never = tokio::time::timeout(SETTLE * 40, watch.over(std::future::pending::<()>()));
        assert!(matches!(never.await, Ok(Err(Stop::Reload("ready")))));
    }

    #[tokio::test]
    async fn what_never_begins_can_be_stopped() {
        let _alone = ALONE.lock().await;
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
