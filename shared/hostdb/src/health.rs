//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::request::Asker;
use crate::spec::{Routes, get};

/// The paths of this module, outside of `/api/v2`.
pub(crate) fn routes(to: Routes) -> Routes {
    let plain = "text/plain";
    to.at("/healthz", [get("The process lives", healthz).open().answers_text(plain, "It does.")])
        .at("/readyz", [get("The server can do its work", readyz).open().answers_text(plain, "It can.")])
        .at("/metrics", [get("All counters", metrics).answers_text(plain, "Prometheus text, version 0.0.4.")])
}

/// How long the store may take to say that it lives.
const PROBE: Duration = Duration::from_secs(2);

/// The process lives: it answers.
async fn healthz() -> &'static str {
    "ok\n"
}

/// The server can do its work: its store answers, and it is not stopping.
async fn readyz(State(app): State<Arc<App>>) -> Answer<&'static str> {
    let unready = |why: String| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "This server is not ready", why)
            .retry_after(1)
    };
    if app.stop.is_cancelled() {
        return Err(unready("the server is stopping".to_owned()));
    }
    if let Some(trouble) = app.db.trouble() {
        return Err(unready(format!("the view cannot follow the database: {trouble}")));
    }
    match tokio::time::timeout(PROBE, app.db.store().head()).await {
        Ok(Ok(_)) => Ok("ready\n"),
        Ok(Err(error)) => Err(unready(error.to_string())),
        Err(_) => Err(unready(format!("the database did not answer within {} seconds", PROBE.as_secs()))),
    }
}

/// All counters, in the Prometheus text format. How many hosts and tags there are is for those from whom none is kept.
async fn metrics(State(app): State<Arc<App>>, Asker(caller): Asker) -> Answer<Response> {
    let view = app.db.view();
    let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    app.metrics.revision.set(i64::try_from(view.revision().0).unwrap_or(i64::MAX));
    app.metrics.hosts.set(gauge(view.hosts().count()));
    app.metrics.tags.set(gauge(view.tags().count()));
    app.metrics.view_age.set(i64::try_from(app.db.age().as_secs()).unwrap_or(i64::MAX));
    let text = app.metrics.text(!caller.restricted()).map_err(|e| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "The server failed",
            format!("no metrics: {e}"),
        )
    })?;
    let mut response = text.into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"));
    Ok(response)
}
