//! One server: a store, listeners, and a way to stop.

use std::sync::Arc;

use shoal_store::Store;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::db::Db;
use crate::limits::Limits;
use crate::listen::Listener;
use crate::{api, connection, recent};

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The metrics clash: a bug.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The database could not be read.
    #[error("cannot read the database")]
    Store(#[from] shoal_store::StoreError),
}

/// A server that has read its database and is ready to answer.
pub struct Server {
    app: App,
}

impl Server {
    /// Reads the database of `store`. `stop` ends the server.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        limits: Limits,
        read_only: bool,
        stop: CancellationToken,
    ) -> Result<Self, ServerError> {
        let app = App::new(Db::open(store).await?, limits, read_only, stop)?;
        app.time.look_at(&**app.db.store()).await?;
        Ok(Self { app })
    }

    /// The same, answering HostDB's own interface below `/v1` too, if `on`.
    #[must_use]
    pub fn with_hostdb_v1(mut self, on: bool) -> Self {
        self.app.hostdb_v1 = on;
        self
    }

    /// The same server, asking who may do what. Without this it does what anybody asks, and is for one's own machine alone.
    #[must_use]
    pub fn with_access(mut self) -> Self {
        self.app.asks = true;
        self
    }

    /// A server that takes rows as they are, as a store in the process does: for the conformance suite, whose rows mean
    /// nothing. No option of the program leads here.
    ///
    /// # Errors
    /// The store cannot be read.
    #[doc(hidden)]
    pub async fn start_unchecked(
        store: Arc<dyn Store>,
        limits: Limits,
        stop: CancellationToken,
    ) -> Result<Self, ServerError> {
        let mut app = App::new(Db::open(store).await?, limits, false, stop)?;
        app.checks_rows = false;
        Ok(Self { app })
    }

    /// Answers on `listeners` until the server is told to stop and has finished.
    pub async fn serve(self, listeners: Vec<Listener>) {
        let (limits, metrics, stop) =
            (self.app.limits.clone(), self.app.metrics.clone(), self.app.stop.clone());
        // All listeners of one program have one certificate.
        if let Some(tls) = listeners.iter().find_map(|listener| listener.tls.as_ref()) {
            tls.judge_by(self.app.time.clone());
            if let Err(error) = tls.register(&metrics) {
                tracing::warn!("the certificate is not among the metrics: {error}");
            }
        }
        let app = Arc::new(self.app);
        let mut beside = tokio::task::JoinSet::new();
        beside.spawn(recent::follow(app.clone()));
        if app.asks {
            beside.spawn(app.keeper.clone().follow(app.db.database()));
        }
        if app.asks || listeners.iter().any(|listener| listener.tls.is_some()) {
            beside.spawn(app.time.clone().follow());
        }
        connection::serve(listeners, api::router(app), limits, metrics, stop).await;
    }
}
