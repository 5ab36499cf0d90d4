//! Facts, schemas, pauses, approvals, and who may do what: rows that are one document each.

use axum::extract::Path;
use http::Uri;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value};
use shoal_core::{ACCESS, APPROVALS, Document, FACTS, Key, PAUSES, Range, Revision, Row, SCHEMAS};
use shoal_store::Query;

use super::hosts::tagged;
use super::write::{self, Done};
use super::{List, Sifted, missing, page_of};
use crate::problem::{Answer, Problem};
use crate::reading::{self, Found};
use crate::request::Ask;
use crate::spec::{Routes, delete, get, put, query, shared, text};

/// The paths of this module.
pub(super) fn routes(mut to: Routes) -> Routes {
    let areas = [FACTS, SCHEMAS, PAUSES, APPROVALS, ACCESS];
    for area in areas {
        let prefixes = schemars::json_schema!({"type": "string", "pattern": format!("^{area}/(?:.*/)?$")});
        let prefix = text("prefix", prefixes, "Only keys that begin so; it ends with a slash.");
        let after = query::<Key>("after", "`next` of the page before.");
        let etag = "The revision that wrote it now.";
        let listed = get("Rows of this kind, by key", list)
            .takes(["revision", "limit"].map(shared))
            .takes([after, prefix])
            .answers::<List<Plain>>("A page of rows.")
            .refuses(&[404]);
        let form = match area {
            SCHEMAS => SchemaGenerator::subschema_for::<shoal_core::Schema>,
            PAUSES => SchemaGenerator::subschema_for::<shoal_core::Pause>,
            APPROVALS => SchemaGenerator::subschema_for::<shoal_core::Approval>,
            _ => SchemaGenerator::subschema_for::<Map<String, Value>>,
        };
        let ops = [
            get("One row", one).below(area).answers::<Plain>("The row.").tagged(),
            put("Writes one row; the body is its document", write::put_plain)
                .below(area)
                .writes()
                .body_of(form)
                .answers::<Done>("It was so, or is now.")
                .with_header("ETag", etag)
                .creates::<Done>("It was made.")
                .with_header("ETag", etag),
            delete("Deletes one row", write::delete_plain)
                .below(area)
                .writes()
                .answers::<Done>("It is gone."),
        ];
        to = to.at(&format!("/api/v2/{area}"), [listed]).at(&format!("/api/v2/{area}/{{*rest}}"), ops);
    }
    to
}

/// A row as it is shown.
#[derive(Serialize, JsonSchema)]
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

/// The third part of the path, after `/api/v2`: the namespace of these rows.
fn area(uri: &Uri) -> &str {
    uri.path().split('/').nth(3).unwrap_or("")
}

/// The key of `rest` below it.
pub(super) fn key(uri: &Uri, rest: &str) -> Answer<Key> {
    Ok(format!("{}/{rest}", area(uri)).parse()?)
}

/// `GET /api/v2/facts` (or `schemas`, `pauses`, `approvals`), `?prefix=facts/vm/`
async fn list(ask: Ask, uri: Uri) -> Answer {
    let Ask { app, shape, params, caller, .. } = ask.only(&["revision", "after", "limit", "prefix"])?;
    let area = format!("{}/", area(&uri));
    let prefix = params.get("prefix").unwrap_or(&area);
    if !prefix.starts_with(&area) || !prefix.ends_with('/') {
        return Err(Problem::bad_request(format!(
            "prefix={prefix:?} does not start with {area:?} and end with '/'"
        ))
        .with("field", "prefix"));
    }
    // Where they may read all of it there is nothing to count; and of less than all pauses, or facts, the number would say whether there are any
    // of a place that somebody thinks of.
    let wide = prefix == area || prefix == "access/reviews/";
    let kept = area == "access/" || caller.reads_range(&Range::Prefix(prefix.to_owned())).is_err();
    let query = Query {
        at: params.revision()?,
        after: params.get("after").map(str::parse::<Key>).transpose()?,
        limit: params.limit(&app)?,
        ..Query::new(Range::Prefix(prefix.to_owned()))
    };
    if area == "access/" && !prefix.starts_with("access/reviews/") {
        caller.must_administer()?;
    }
    let seen = |row: Row| {
        let seen = match area == "access/" {
            true => caller.row(row).unwrap_or(None),
            false => Some(row).filter(|row| caller.sees(&row.key)),
        };
        Ok(seen.map(Plain::from))
    };
    let Sifted { at, rows: items, next, hidden } = page_of(&app, query, kept && wide, seen).await?;
    shape.ok(&List { revision: at, items, next: next.map(|key| key.to_string()), hidden })
}

/// `GET /api/v2/facts/{namespace}/{subject}` and the like.
async fn one(ask: Ask, uri: Uri, Path(rest): Path<String>) -> Answer {
    let (ask, key) = (ask.only(&["revision"])?, key(&uri, &rest)?);
    ask.caller.reads(&key)?;
    match reading::row(ask.store(), &key, ask.params.revision()?).await? {
        Found::Here(row) => match ask.caller.row(row)? {
            Some(row) => tagged(&ask, Some(row.revision), &Plain::from(row)),
            None => Err(missing(&ask.caller, Found::<Row>::Never, key.as_str())),
        },
        gone => Err(missing(&ask.caller, gone, key.as_str())),
    }
}
