//! What all handlers of one server share.

use std::sync::Arc;

use shoal_store::StoreError;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::access::{AT_ONCE, Audit, Authenticator, Keeper, Names, authenticators};
use crate::db::Db;
use crate::held::{Few, Pace, Room};
use crate::latest::Latest;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::problem::{Answer, Problem};
use crate::watch::Words;

/// One server's state.
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) limits: Limits,
    pub(crate) read_only: bool,
    /// Whether HostDB's own interface is answered too.
    pub(crate) hostdb_v1: bool,
    /// Whether rows that are committed one by one must mean something; only tests of the wire go without.
    pub(crate) checks_rows: bool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) words: Words,
    pub(crate) large_bodies: Semaphore,
    /// Large bodies of those who have not said yet who they are.
    pub(crate) strangers: Semaphore,
    /// Answers below `/v1` that are worked out from much.
    pub(crate) large_answers: Few,
    pub(crate) room: Room,
    pub(crate) stop: CancellationToken,
    /// Whether it is asked who may do what.
    pub(crate) asks: bool,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) names: Names,
    /// The user that this program runs as.
    pub(crate) own_uid: u32,
    /// The ways to know people, in the order in which they are asked.
    pub(crate) authenticators: Vec<Box<dyn Authenticator>>,
    /// Turns to hash a new password.
    pub(crate) hashing: Semaphore,
    pub(crate) audit: Audit,
    /// What time it is for what ends.
    pub(crate) time: Arc<Latest>,
    writes: Semaphore,
}

impl App {
    pub(crate) fn new(
        db: Db,
        limits: Limits,
        read_only: bool,
        stop: CancellationToken,
    ) -> prometheus::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let time = Arc::new(Latest::new(metrics.clock_behind.clone()));
        let pace = Pace { least: limits.pace, grace: limits.slow_reading };
        Ok(Self {
            authenticators: authenticators(time.clone()),
            time,
            db,
            read_only,
            hostdb_v1: false,
            checks_rows: true,
            metrics,
            watchers: Arc::new(Semaphore::new(limits.watchers)),
            words: Words::default(),
            large_bodies: Semaphore::new(limits.large_bodies),
            strangers: Semaphore::new(limits.large_bodies),
            large_answers: Few::new(limits.large_bodies, pace),
            room: Room::new(limits.answers, pace),
            writes: Semaphore::new(limits.writes),
            limits,
            stop,
            asks: false,
            keeper: Arc::new(Keeper::new()),
            names: Names::default(),
            own_uid: rustix::process::geteuid().as_raw(),
            hashing: Semaphore::new(AT_ONCE),
            audit: Audit::default(),
        })
    }

    /// Whether writes are taken at all: asked before a body is read, so that a refusal does not cost its transfer.
    ///
    /// # Errors
    /// The server only reads.
    pub(crate) fn writable(&self) -> Answer<()> {
        if self.read_only { Err(Problem::read_only()) } else { Ok(()) }
    }

    /// The right to write, for as long as it is kept. It is taken once the body is here: who sends one slowly, or not to its end, would
    /// keep others from writing.
    ///
    /// # Errors
    /// The server only reads, or too many writes are under way.
    pub(crate) fn write_turn(&self) -> Answer<SemaphorePermit<'_>> {
        self.writable()?;
        self.writes.try_acquire().map_err(|_| {
            Problem::busy(format!(
                "nothing was written: {} writes are under way, and that is as many as this server takes",
                self.limits.writes
            ))
        })
    }

    /// Counts credentials that are not good and were taken for none, and says so in the log: somebody may be guessing.
    pub(crate) fn ignored(&self, origin: Option<&str>, problem: &Problem) {
        self.metrics.denied.with_label_values(&["ignored"]).inc();
        let why = problem.detail();
        self.audit.line(|more| tracing::warn!(target: "audit", origin, more, "taken for nobody: {why}"));
    }

    /// Counts a write that a precondition refused.
    pub(crate) fn count_refusal(&self, error: &StoreError) {
        if matches!(error, StoreError::Conflict { .. } | StoreError::Fenced { .. }) {
            self.metrics.conflicts.inc();
        }
    }
}
