//! The paths of `/api/v2`.

mod history;
mod hosts;
mod live;
mod plain;
mod search;
mod store;
mod tags;
mod transaction;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shoal_core::Revision;
use shoal_store::MAX_PAGE_BYTES;

use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::reading::Found;
use crate::request::Ask;
use crate::{guard, health, watch};

/// A page of a list.
#[derive(Serialize)]
struct List<T> {
    /// The revision that all items are of.
    revision: Revision,
    items: Vec<T>,
    /// What `after` is for the next page; with `revision` as here, all pages are of one revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Ask {
    /// A page of a list that is at hand whole, by what names its items: at most `limit` of them after `after`, and fewer
    /// when they are large.
    fn page<T: Serialize, K: Ord + ToString>(
        &self,
        revision: Revision,
        mut all: Vec<T>,
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
        self.shape.ok(&List { revision, items, next })
    }
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

/// Every path of the server.
pub(crate) fn router(app: Arc<App>) -> Router {
    let mut v2 = Router::new()
        .route("/hosts", get(hosts::list))
        .route(
            "/hosts/{fqdn}",
            get(hosts::get).put(write::put_host).patch(write::patch_host).delete(write::delete_host),
        )
        .route("/hosts/{fqdn}/tags", get(hosts::tags))
        .route("/tags", get(tags::list))
        .route("/tags/{ns}", get(tags::list_of))
        .route(
            "/tags/{ns}/{key}",
            get(tags::get).put(write::put_tag).patch(write::patch_tag).delete(write::delete_tag),
        )
        .route("/tags/{ns}/{key}/members", get(tags::members).put(write::set_members))
        .route(
            "/tags/{ns}/{key}/members/{member}",
            get(tags::member).put(write::put_member).delete(write::delete_member),
        )
        .route("/tags/{ns}/{key}/parents", get(tags::parents))
        .route("/effective/{ns}/{key}", get(tags::effective))
        .route("/commits", get(history::commits).post(transaction::transaction))
        .route("/commits/{revision}", get(history::commit))
        .route("/history/{*key}", get(history::history))
        .route("/blame/{*key}", get(history::blame))
        .route("/diff", get(history::diff))
        .route("/rollback", post(transaction::rollback))
        .route("/search", get(search::search))
        .route("/status", get(live::reports))
        .route("/claims", get(live::claims))
        .route("/watch", get(watch::watch))
        .nest("/store", store::routes());
    for area in [shoal_core::FACTS, shoal_core::SCHEMAS, shoal_core::PAUSES, shoal_core::APPROVALS] {
        let one = get(plain::get).put(write::put_plain).delete(write::delete_plain);
        v2 = v2.route(&format!("/{area}"), get(plain::list)).route(&format!("/{area}/{{*rest}}"), one);
    }
    Router::new()
        .nest("/api/v2", v2)
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        // Handlers read bodies through `request::Text`, which has bounds of its own.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(app.clone(), guard::around))
        .with_state(app)
}
