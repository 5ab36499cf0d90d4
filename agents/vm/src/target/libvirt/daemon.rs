//! The connection to libvirt. Its calls block: each runs on a thread of its own kind, a few at a time, and for a limited time.
//!
//! One connection is kept and shared, which libvirt allows; one that has died is opened anew by whoever comes next. A call that takes too
//! long is given up here and goes on there: what it does may still be done, so whoever gave it up knows nothing, and looks again. It keeps
//! its place among the few until it returns, so that a daemon that hangs does not cost a thread for every attempt.

use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use shoal_agent::Fault;
use tokio::sync::Semaphore;
use virt::connect::Connect;
use virt::error::Error;

/// So many calls run at once.
const CALLS: usize = 4;
/// So long one may take, and wait for its turn.
const PATIENCE: Duration = Duration::from_secs(120);

/// libvirt, at one URI.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    uri: String,
    open: Arc<Mutex<Option<Connect>>>,
    turns: Arc<Semaphore>,
}

/// What libvirt said went wrong, with what was attempted.
pub(super) fn fault(what: impl Into<String>, why: &Error) -> Fault {
    Fault::new(what, format!("libvirt: {}", why.message()))
}

impl Daemon {
    /// Connects to nothing yet.
    pub(super) fn new(uri: &str) -> Self {
        // By default it writes each error to the standard error, too.
        static QUIET: Once = Once::new();
        QUIET.call_once(virt::error::clear_error_callback);
        Self { uri: uri.to_owned(), open: Arc::default(), turns: Arc::new(Semaphore::new(CALLS)) }
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Has `work` done with a connection.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let late = |_| Fault::new(what, format!("{} did not answer within {PATIENCE:?}", self.uri));
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(late)?.map_err(|e| Fault::new(what, e))?;
        let daemon = self.clone();
        let doing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&daemon.connection()?)
        });
        match tokio::time::timeout(PATIENCE, doing).await {
            Ok(done) => done.map_err(|e| Fault::new(what, e))?,
            Err(elapsed) => {
                // What hangs may be the connection: the next one gets another.
                self.kept().take();
                Err(late(elapsed))
            }
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Connect>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connection(&self) -> Result<Connect, Fault> {
        if let Some(open) = self.kept().as_ref().filter(|open| open.is_alive().unwrap_or(false)) {
            return Ok(open.clone());
        }
        // Without the lock: it may take long, and two may do it at once.
        let open = Connect::open(Some(&self.uri)).map_err(|e| {
            fault(format!("connect to {}", self.uri), &e)
                .next("see that libvirt runs there and lets this user in")
        })?;
        *self.kept() = Some(open.clone());
        Ok(open)
    }
}
