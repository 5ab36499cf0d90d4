//! The targets over HTTP (`http_sd_configs`), for a Prometheus that does not reach the folder.
//!
//! `GET /targets` answers what stands in the files. Prometheus obeys an empty list and keeps its targets at an error, so whatever
//! cannot be read, or was never written, is an error.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use shoal_agent::Fault;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::targets::Targets;

/// How many answers are made at once; more than Prometheus asks for.
const AT_ONCE: usize = 4;

/// Answers while the agent works.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Endpoint {
    /// One that will answer there.
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, task: Mutex::default() }
    }

    /// Answers until it is stopped.
    pub(super) async fn start(&self, targets: Targets) -> Result<(), Fault> {
        let what = || format!("answer with targets on {}", self.address);
        let listener = tokio::net::TcpListener::bind(self.address).await.map_err(|e| {
            Fault::new(what(), e).next("choose another address as listen in [agent.prometheus]")
        })?;
        let bound = listener.local_addr().map_err(|e| Fault::new(what(), e))?;
        tracing::info!(%bound, "answering /targets");
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let router = Router::new().route("/targets", get(move || answer(targets.clone(), room.clone())));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!("stopped answering on {bound}: {error}");
            }
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    /// Stops; afterwards the address is free.
    pub(super) async fn stop(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            // That it was stopped is all that it can say.
            let _ = task.await;
        }
    }
}

async fn answer(targets: Targets, room: Arc<Semaphore>) -> Response {
    let busy = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why + "\n").into_response();
    let Ok(_place) = room.try_acquire() else { return busy("too many ask at once".to_owned()) };
    match tokio::task::spawn_blocking(move || targets.all()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(fault)) => busy(fault.to_string()),
        Err(error) => busy(error.to_string()),
    }
}
