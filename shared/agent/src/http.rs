//! `/healthz`, `/readyz` and `/metrics`, where the node's configuration asks for them.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use shoal_engine::Fault;
use tokio::task::JoinHandle;

use crate::metrics::Board;

/// Answers until it is stopped.
pub(crate) struct Http {
    /// Where it was asked to answer.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Http {
    /// Answers on `address`. Port 0 takes a free one and logs which.
    pub(crate) async fn start(address: SocketAddr, board: Arc<Board>) -> Result<Self, Fault> {
        let what = || format!("listen on {address}");
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(|e| Fault::new(what(), e).next("choose another --listen address"))?;
        let bound = listener.local_addr().map_err(|e| Fault::new(what(), e))?;
        tracing::info!(%bound, "answering /healthz, /readyz and /metrics");
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router(board)).await {
                tracing::error!("stopped answering on {bound}: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Stops; afterwards the address is free.
    pub(crate) async fn stop(self) {
        self.task.abort();
        // That it was stopped is all that it can say.
        let _ = self.task.await;
    }
}

fn router(board: Arc<Board>) -> Router {
    let ready = board.clone();
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                match ready.ready() {
                    Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                    Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                }
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                match board.text() {
                    Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
                }
            }),
        )
}
