//! Facts, schemas, pauses and approvals: rows that are one document each.

use axum::extract::Path;
use http::Uri;
use serde::Serialize;
use shoal_core::{Document, Key, Range, Revision, Row};
use shoal_store::Query;

use super::hosts::tagged;
use super::{List, missing};
use crate::problem::{Answer, Problem};
use crate::reading::{self, Found};
use crate::request::Ask;

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
fn area(uri: &Uri) -> &str {
    uri.path().split('/').nth(1).unwrap_or("")
}

/// The key of `rest` below it.
pub(super) fn key(uri: &Uri, rest: &str) -> Answer<Key> {
    Ok(format!("{}/{rest}", area(uri)).parse()?)
}

/// `GET /api/v2/facts` (or `schemas`, `pauses`, `approvals`), `?prefix=facts/vm/`
pub(super) async fn list(ask: Ask, uri: Uri) -> Answer {
    let Ask { app, shape, params, .. } = ask.only(&["revision", "after", "limit", "prefix"])?;
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
pub(super) async fn get(ask: Ask, uri: Uri, Path(rest): Path<String>) -> Answer {
    let (ask, key) = (ask.only(&["revision"])?, key(&uri, &rest)?);
    match reading::row(ask.store(), &key, ask.params.revision()?).await? {
        Found::Here(row) => tagged(&ask, Some(row.revision), &Plain::from(row)),
        gone => Err(missing(&gone, key.as_str())),
    }
}
