//! The paths of `/api/v2`.

mod access;
mod history;
mod hosts;
mod inventory;
mod live;
mod plain;
mod search;
mod store;
mod tags;
mod transaction;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shoal_core::Revision;
use shoal_store::MAX_PAGE_BYTES;

use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::reading::Found;
use crate::request::Ask;
use crate::spec::{Routes, get};
use crate::{guard, health, v1, watch};

/// A page of a list.
#[derive(Serialize, JsonSchema)]
struct List<T> {
    /// The revision that all items are of.
    revision: Revision,
    items: Vec<T>,
    /// What `after` is for the next page; with `revision` as here, all pages are of one revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// How many were left out of this page because they are not for who asks.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_none(hidden: &usize) -> bool {
    *hidden == 0
}

impl Ask {
    /// A page of a list that is at hand whole, by what names its items: at most `limit` of them after `after`, and fewer
    /// when they are large.
    fn page<T: Serialize, K: Ord + ToString>(
        &self,
        revision: Revision,
        (mut all, hidden): (Vec<T>, usize),
        name: impl Fn(&T) -> K,
        after: Option<K>,
    ) -> Answer {
        let limit = self.params.limit(&self.app)?;
        all.sort_by_cached_key(&name);
        let from = after.map_or(0, |after| all.partition_point(|item| name(item) <= after));
        let (mut items, mut octets): (Vec<Box<RawValue>>, usize) = (Vec::new(), 0);
        for item in &all[from..] {
            let text = to_raw_value(item).map_err(|e| Problem::unwritable(&e))?;
            octets += text.get().len();
            if items.len() == limit || octets > MAX_PAGE_BYTES && !items.is_empty() {
                break;
            }
            items.push(text);
        }
        let more = items.len() < all.len() - from;
        let last = items.len().checked_sub(1).filter(|_| more);
        let next = last.map(|last| name(&all[from + last]).to_string());
        self.shape.ok(&List { revision, items, next, hidden })
    }
}

/// Those of a list that are for who asks, and how many others there are.
fn sifted<T>(all: impl IntoIterator<Item = T>, seen: impl Fn(&T) -> bool) -> (Vec<T>, usize) {
    let (mut kept, mut hidden) = (Vec::new(), 0);
    for item in all {
        if seen(&item) {
            kept.push(item);
        } else {
            hidden += 1;
        }
    }
    (kept, hidden)
}

/// The problem that `what` is not there, with what became of it.
fn missing<T>(found: &Found<T>, what: &str) -> Problem {
    let problem = Problem::not_found(found.missing(what));
    match found {
        Found::Gone { revision, to } => {
            problem.with("deleted_in", revision.0).with("moved_to", to.as_ref().map(ToString::to_string))
        }
        Found::Here(_) | Found::Never => problem,
    }
}

/// Every path of the server, and the document that describes them.
pub(crate) fn router(app: Arc<App>) -> Router {
    // Handlers that say what they are see only what is made before they are asked.
    let said = Arc::new(std::sync::OnceLock::<Bytes>::new());
    let shown = said.clone();
    let shows = move || std::future::ready(described(shown.get().cloned().unwrap_or_default()));
    let mut routes = Routes::new();
    for add in
        [hosts::routes, tags::routes, history::routes, transaction::routes, search::routes, plain::routes]
    {
        routes = add(routes);
    }
    for add in [access::routes, live::routes, watch::routes, store::routes, inventory::routes, health::routes]
    {
        routes = add(routes);
    }
    if app.hostdb_v1 {
        routes = v1::routes().into_iter().fold(routes, |routes, (path, route)| routes.foreign(path, route));
    }
    let own = get("This document", shows).open().answers_text("application/json", "OpenAPI 3.1.");
    let (router, document) = routes.at("/api/v2/openapi.json", [own]).finish();
    // It is empty until here.
    let _ = said.set(document);
    router
        // Handlers read bodies through `request::Text`, which has bounds of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), guard::around))
        .with_state(app)
}

fn described(document: Bytes) -> Response {
    let mut response = Response::new(Body::from(document));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
