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
use shoal_core::{Key, Revision, Row};
use shoal_store::{MAX_PAGE_BYTES, Query};

use crate::access::Caller;
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
    /// How many are left out of the whole list because they are not for who asks. Only the first page says it: what follows a name that
    /// anybody may think of would tell where those names are.
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
        let hidden = if after.is_none() { hidden } else { 0 };
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

/// Rows of a page that are for who asks.
struct Sifted<T> {
    /// As of when.
    at: Revision,
    rows: Vec<T>,
    /// Where to go on; `None`: this was all.
    next: Option<Key>,
    /// How many were left out of the whole range; said on its first page alone.
    hidden: usize,
}

/// A page of rows of which some may be kept from who asks (`seen`: `None`). It goes on until one is shown, and ends with one that is: no key
/// of others stands there. With `count` (something may be kept), the first page counts what is kept in the whole range: how many stand
/// after a freely chosen key would spell their names. Costs reading all that is kept up to the first that is not; with `count` the range:
/// what is read beyond a page is read in turn, one request after the other.
async fn page_of<T>(
    app: &App,
    mut query: Query,
    count: bool,
    mut seen: impl FnMut(Row) -> Answer<Option<T>>,
) -> Answer<Sifted<T>> {
    let (limit, count) = (query.limit, count && query.after.is_none());
    let (mut rows, mut hidden, mut last, mut more) = (Vec::new(), 0, None, false);
    let mut turn = None;
    loop {
        let page = app.db.store().read(&query).await?;
        for row in page.rows {
            let key = row.key.clone();
            match seen(row)? {
                Some(_) if rows.len() == limit => more = true,
                Some(row) => {
                    rows.push(row);
                    last = Some(key);
                }
                None => hidden += usize::from(count),
            }
        }
        match page.next {
            Some(next) if count || rows.is_empty() => {
                query = Query { at: Some(page.at), after: Some(next), limit: app.limits.max_page, ..query };
                if turn.is_none() {
                    turn = Some(app.db.large_reading().await);
                }
            }
            next => {
                let next = last.filter(|_| more || next.is_some());
                return Ok(Sifted { at: page.at, rows, next, hidden });
            }
        }
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

/// The problem that `what` is not there, with what became of it as far as that is theirs to read.
fn missing<T>(caller: &Caller, found: Found<T>, what: &str) -> Problem {
    let found = found.seen_by(|to| caller.sees(to));
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
