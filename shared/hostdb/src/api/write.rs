//! Writes: every one of them is a proposal of one or more edits, done whole or refused.
//!
//! `If-Match` and `If-None-Match: *` say what must stand there; so does the `revision` of a document that was read
//! before. The answer names the commit's revision and, as `ETag`, the new revision of the resource.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::header::ETAG;
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use serde_json::{Map, Value};
use shoal_core::{
    Committed, Document, Edit, Expect, HostName, Key, Kind, Member, Pre, Proposal, Revision, Sort, TagName,
    View, Warning,
};
use shoal_store::{Outcome, TransactError};

use super::{plain, tags};
use crate::app::App;
use crate::codec;
use crate::docs::{Doc, HostDoc, TagDoc};
use crate::etag::{Wish, etag};
use crate::problem::{Answer, Problem};
use crate::request::{Accepts, By, Params, Shape, Text};

/// Parameters that every write takes.
const SIGNED: [&str; 2] = ["author", "message"];

/// What a write came to.
#[derive(Serialize)]
pub(super) struct Done {
    #[serde(flatten)]
    pub(super) committed: Committed,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

impl From<Outcome> for Done {
    fn from(Outcome { committed, warnings, .. }: Outcome) -> Self {
        Self { committed, warnings }
    }
}

/// What the handlers of one resource share.
pub(super) struct Write {
    app: Arc<App>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
}

impl Write {
    fn new(app: Arc<App>, shape: Shape, headers: HeaderMap, params: Params, known: &[&str]) -> Answer<Self> {
        let all: Vec<&str> = SIGNED.iter().chain(known).copied().collect();
        Ok(Self { app, shape, headers, params: params.only(&all)? })
    }

    async fn body(&self, body: Body, accepts: Accepts) -> Answer<Text> {
        Text::read(&self.app, &self.headers, body, accepts, self.app.limits.document).await
    }

    /// What the request expects of `key`, checked against what stands there now.
    async fn expect(&self, key: &Key) -> Answer<Expect> {
        let wish = Wish::of(&self.headers)?;
        let view =
            if wish == Wish::default() { self.app.db.view() } else { self.app.db.fresh_view().await? };
        wish.check(key.as_str(), revision_of(&view, key))
    }

    /// Does the edits as one commit; the answer carries the ETag of `key`.
    async fn done(self, key: &Key, edits: Vec<Edit>) -> Answer {
        self.done_if(key, edits, Vec::new()).await
    }

    /// The same for an edit that cannot say itself what it expects.
    async fn done_if(self, key: &Key, edits: Vec<Edit>, pre: Vec<Pre>) -> Answer {
        let _turn = self.app.write_turn()?;
        let by = By::of(&self.headers, &self.params, None, None)?;
        let existed = self.app.db.view().exists(key);
        let proposal =
            Proposal { idempotency: by.idempotency, pre, ..Proposal::new(by.author, by.message, edits) };
        let done = Done::from(self.app.propose(proposal).await?);
        let now = revision_of(&self.app.db.view(), key);
        let status = if !existed && now.is_some() { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = self.shape.with(status, &done)?;
        if let Some(revision) = now {
            response.headers_mut().insert(ETAG, etag(revision));
        }
        Ok(response)
    }
}

/// The revision that a resource's ETag names.
fn revision_of(view: &View, key: &Key) -> Option<Revision> {
    match key.kind() {
        Kind::Tag(tag) => view.tag_revision(&tag),
        _ => view.revision_of(key),
    }
}

impl App {
    /// Does a proposal, counts it and logs it.
    pub(super) async fn propose(&self, proposal: Proposal) -> Result<Outcome, TransactError> {
        let (author, message) = (proposal.author.clone(), proposal.message.clone());
        let done = self.db.transact(proposal).await;
        match &done {
            Ok(Outcome { committed, .. }) => {
                if committed.changed > 0 && !committed.replayed {
                    self.metrics.commits.inc();
                }
                let (revision, changed) = (committed.revision.0, committed.changed);
                tracing::info!(revision, changed, author, message, "commit");
            }
            Err(TransactError::Refused(refusal)) => {
                if matches!(refusal.sort(), Sort::Conflict | Sort::Stale) {
                    self.metrics.conflicts.inc();
                }
            }
            Err(TransactError::Busy { .. }) => self.metrics.conflicts.inc(),
            Err(TransactError::Store(error)) => self.count_refusal(error),
        }
        done
    }
}

/// A body that says of a resource what the path says too: the field may be left out, and may not differ.
fn named(mut value: Value, field: &str, name: &str) -> Answer<Value> {
    let Value::Object(map) = &mut value else {
        return Err(Problem::invalid(format!(
            "nothing was written: a {field} is a map, such as {{\"document\": {{…}}}}"
        )));
    };
    let other = map.get(field).filter(|v| v.as_str().is_none_or(|said| !said.eq_ignore_ascii_case(name)));
    if let Some(other) = other {
        return Err(Problem::invalid(format!(
            "nothing was written: the body says {field} {other}, the path says {name}; to rename, post a \
             `rename` edit to /api/v2/commits"
        ))
        .with("field", field));
    }
    map.shift_insert(0, field.to_owned(), Value::String(name.to_owned()));
    Ok(value)
}

/// `PUT /api/v2/hosts/{fqdn}`
pub(super) async fn put_host(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let name: HostName = name.parse()?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let value = named(write.body(body, Accepts::Documents).await?.parse()?, "host", name.as_str())?;
    let doc: HostDoc = codec::form(value)?;
    put(write, Doc::Host(doc), Key::host(&name)).await
}

/// `PUT /api/v2/tags/{ns}/{key}`
pub(super) async fn put_tag(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let name = tags::named(&ns, &key)?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let value = named(write.body(body, Accepts::Documents).await?.parse()?, "tag", name.as_str())?;
    let doc: TagDoc = codec::form(value)?;
    put(write, Doc::Tag(doc), Key::tag(&name)).await
}

async fn put(write: Write, doc: Doc, key: Key) -> Answer<Response> {
    doc.check()?;
    let expect = write.expect(&key).await?;
    write.done(&key, vec![doc.into_edit(expect)]).await
}

/// `PATCH /api/v2/hosts/{fqdn}`
pub(super) async fn patch_host(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let key = Key::host(&name.parse()?);
    patch(Write::new(app, shape, headers, params, &[])?, key, body).await
}

/// `PATCH /api/v2/tags/{ns}/{key}`
pub(super) async fn patch_tag(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let key = Key::tag(&tags::named(&ns, &key)?);
    patch(Write::new(app, shape, headers, params, &[])?, key, body).await
}

async fn patch(write: Write, key: Key, body: Body) -> Answer<Response> {
    let patch: Value = write.body(body, Accepts::Patch).await?.parse()?;
    let expect = write.expect(&key).await?;
    write.done(&key.clone(), vec![Edit::Patch { key, patch, expect }]).await
}

/// `DELETE /api/v2/hosts/{fqdn}`
pub(super) async fn delete_host(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let key = Key::host(&name.parse()?);
    delete(Write::new(app, shape, headers, params, &[])?, key).await
}

/// `DELETE /api/v2/tags/{ns}/{key}`; with `?follow`, also out of the tags that nest it.
pub(super) async fn delete_tag(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let key = Key::tag(&tags::named(&ns, &key)?);
    delete(Write::new(app, shape, headers, params, &["follow"])?, key).await
}

async fn delete(write: Write, key: Key) -> Answer<Response> {
    let follow = write.params.flag("follow")?;
    let expect = write.expect(&key).await?;
    write.done(&key.clone(), vec![Edit::Delete { key, follow, expect }]).await
}

/// `PUT /api/v2/tags/{ns}/{key}/members`: a list; the tag has exactly these members from now on.
pub(super) async fn set_members(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let tag = tags::named(&ns, &key)?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let members: Vec<Member> =
        Text::read(&write.app, &write.headers, body, Accepts::Documents, write.app.limits.body)
            .await?
            .parse()?;
    let key = Key::tag(&tag);
    let expect = write.expect(&key).await?;
    write.done(&key, vec![Edit::SetMembers { tag, members, expect }]).await
}

/// `PUT` and `DELETE /api/v2/tags/{ns}/{key}/members/{member}`
pub(super) async fn put_member(
    State(app): State<Arc<App>>,
    Path((ns, key, member)): Path<(String, String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let (tag, member) = member_of(&ns, &key, &member)?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let row = Key::member(&tag, &member);
    let pre = pre_of(write.expect(&row).await?, &row);
    write.done_if(&row, vec![Edit::AddMembers { tag, members: vec![member] }], pre).await
}

pub(super) async fn delete_member(
    State(app): State<Arc<App>>,
    Path((ns, key, member)): Path<(String, String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let (tag, member) = member_of(&ns, &key, &member)?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let row = Key::member(&tag, &member);
    let pre = pre_of(write.expect(&row).await?, &row);
    write.done_if(&row, vec![Edit::RemoveMembers { tag, members: vec![member] }], pre).await
}

/// What is expected of a row, as a precondition of the commit.
fn pre_of(expect: Expect, row: &Key) -> Vec<Pre> {
    match expect {
        Expect::Any => Vec::new(),
        Expect::Absent => vec![Pre::Absent(row.clone())],
        Expect::Exists => vec![Pre::Exists(row.clone())],
        Expect::At(revision) => vec![Pre::At(row.clone(), revision)],
    }
}

fn member_of(ns: &str, key: &str, member: &str) -> Answer<(TagName, Member)> {
    Ok((tags::named(ns, key)?, member.parse()?))
}

/// `PUT /api/v2/facts/{namespace}/{subject}` and the like: the body is the document.
pub(super) async fn put_plain(
    State(app): State<Arc<App>>,
    uri: Uri,
    Path(rest): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Answer {
    let key: Key = format!("{}/{rest}", plain::area(&uri)).parse()?;
    let write = Write::new(app, shape, headers, params, &[])?;
    let value: Map<String, Value> = write.body(body, Accepts::Documents).await?.parse()?;
    let expect = write.expect(&key).await?;
    let value = Document::from(Value::Object(value));
    write.done(&key.clone(), vec![Edit::Write { key, value, expect }]).await
}

/// `DELETE /api/v2/facts/{namespace}/{subject}` and the like.
pub(super) async fn delete_plain(
    State(app): State<Arc<App>>,
    uri: Uri,
    Path(rest): Path<String>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let key: Key = format!("{}/{rest}", plain::area(&uri)).parse()?;
    delete(Write::new(app, shape, headers, params, &[])?, key).await
}
