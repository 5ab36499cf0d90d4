//! Facts, schemas, pauses and approvals: rows that are one document each.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::{HeaderMap, Uri};
use serde::Serialize;
use shoal_core::{Document, Key, Range, Revision, Row};
use shoal_store::Query;

use super::hosts::tagged;
use super::{List, missing};
use crate::app::App;
use crate::problem::{Answer, Problem};
use crate::reading::{self, Found};
use crate::request::{Params, Shape};

/// A row as it is shown.
#[derive(Serialize)]
pub(super) struct Plain {
    key: Key,
    document: Option<Document>,
    revision: Revision,
}

impl From<Row> for Plain {
    fn from(row: Row) -> Self {
        Self { key: row.key, document: row.value, revision: row.revision }
    }
}

/// The first part of the path below `/api/v2`: the namespace of these rows.
pub(super) fn area(uri: &Uri) -> &str {
    uri.path().split('/').nth(1).unwrap_or("")
}

/// `GET /api/v2/facts` (or `schemas`, `pauses`, `approvals`), `?prefix=facts/vm/`
pub(super) async fn list(State(app): State<Arc<App>>, uri: Uri, shape: Shape, params: Params) -> Answer {
    let params = params.only(&["revision", "after", "limit", "prefix"])?;
    let area = format!("{}/", area(&uri));
    let prefix = params.get("prefix").unwrap_or(&area);
    if !prefix.starts_with(&area) || !prefix.ends_with('/') {
        return Err(Problem::bad_request(format!(
            "prefix={prefix:?} does not start with {area:?} and end with '/'"
        ))
        .with("field", "prefix"));
    }
    let query = Query {
        at: params.revision()?,
        after: params.get("after").map(str::parse::<Key>).transpose()?,
        limit: params.limit(&app)?,
        ..Query::new(Range::Prefix(prefix.to_owned()))
    };
    let page = app.db.store().read(&query).await?;
    let items: Vec<Plain> = page.rows.into_iter().map(Plain::from).collect();
    shape.ok(&List { revision: page.at, items, next: page.next.map(|k| k.to_string()) })
}

/// `GET /api/v2/facts/{namespace}/{subject}` and the like.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    uri: Uri,
    Path(rest): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let key: Key = format!("{}/{rest}", area(&uri)).parse()?;
    let at = params.only(&["revision"])?.revision()?;
    match reading::row(&**app.db.store(), &key, at).await? {
        Found::Here(row) => tagged(&headers, Some(row.revision), shape, &Plain::from(row)),
        gone => Err(missing(&gone, key.as_str())),
    }
}
