//! Writes: every one of them is a proposal of one or more edits, done whole or refused.
//!
//! `If-Match` and `If-None-Match: *` say what must stand there; so does the `revision` of a document that was read
//! before. The answer names the commit's revision and, as `ETag`, the new revision of the resource.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::body::Body;
use axum::extract::Path;
use axum::response::Response;
use http::header::ETAG;
use http::{StatusCode, Uri};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use shoal_core::access::Denied;
use shoal_core::{
    Approval, Commit, Committed, Document, Edit, Expect, HostName, Key, Kind, Member, Pause, Pre, Proposal,
    Refusal, Revision, Schema, Sort, TagName, View, Warning,
};
use shoal_store::{Outcome, StoreError, TransactError};

use super::plain;
use crate::access::Caller;
use crate::app::App;
use crate::etag::{Wish, etag};
use crate::problem::{Answer, Problem};
use crate::request::{Accepts, Ask, By, Named};
use shoal_core::codec::{self, BadText};
use shoal_core::docs::{Doc, HostDoc, TagDoc};

/// Parameters that every write takes.
const SIGNED: [&str; 2] = ["author", "message"];

/// What a write came to.
#[derive(Serialize, JsonSchema)]
pub(super) struct Done {
    #[serde(flatten)]
    pub(super) committed: Committed,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// The form of a host or a tag as a body: the path names it already.
pub(super) struct Sent<T>(PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Sent<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("{}Body", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        let mut schema = T::json_schema(generator);
        schema.remove("required");
        schema
    }
}

impl From<Outcome> for Done {
    fn from(Outcome { committed, warnings, .. }: Outcome) -> Self {
        Self { committed, warnings }
    }
}

impl Ask {
    async fn document<T: DeserializeOwned>(&mut self, body: Body, accepts: Accepts) -> Answer<T> {
        let limit = self.app.limits.document;
        self.text(body, accepts, limit).await?.parse()
    }

    /// Who writes, and what the request expects of `key`, checked against what stands there now. It comes after all else that
    /// is checked of a request: one that is wrong in itself is not told that it is late.
    async fn expect(&self, key: &Key) -> Answer<(By, Expect)> {
        self.app.let_pass(&self.caller, |caller| caller.may_write(key)).await?;
        let by = By::of(self, None, None)?;
        let wish = Wish::of(&self.headers)?;
        let view =
            if wish == Wish::default() { self.app.db.view() } else { self.app.db.fresh_view().await? };
        Ok((by, wish.check(key.as_str(), revision_of(&view, key))?))
    }

    /// Does the edit as one commit; the answer carries the ETag of `key`. `pre` is for an edit that cannot say itself
    /// what it expects.
    async fn done(self, by: By, key: &Key, edit: Edit, pre: Vec<Pre>) -> Answer {
        let _turn = self.app.write_turn()?;
        let existed = self.app.db.view().exists(key);
        let proposal =
            Proposal { idempotency: by.idempotency, pre, ..Proposal::new(by.author, by.message, vec![edit]) };
        let done = Done::from(self.app.propose(&self.caller, proposal).await?);
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
    /// Does a proposal, if who sends it may, counts it and logs it. The only way to a commit.
    pub(crate) async fn propose(
        &self,
        caller: &Caller,
        proposal: Proposal,
    ) -> Result<Outcome, TransactError> {
        let denied = |denied: Denied| TransactError::Denied(Box::new(denied));
        // Its body may have come slowly.
        let caller = caller.still(self).map_err(denied)?;
        let right = |caller: &Caller| {
            caller.may_propose(&self.db.view(), &proposal.edits)?;
            caller.may_rest(&proposal.pre)
        };
        let caller = &self.let_pass(&caller, right).await?;
        let mut proposal = caller.signed(proposal);
        let said = proposal.idempotency.clone();
        proposal.idempotency = said.as_deref().map(|key| caller.own_key(key));
        let (author, message) = (proposal.author.clone(), proposal.message.clone());
        // Each time that others were faster they may have taken the right away.
        let judge = |view: &View, commit: &mut Commit| caller.still(self)?.judge(view, commit);
        let done = self.db.transact_if(proposal, &judge).await.map_err(|error| match (error, said) {
            // By the name that they gave it.
            (TransactError::Store(StoreError::Reused { revision, .. }), Some(key)) => {
                TransactError::Store(StoreError::Reused { key, revision })
            }
            (error, _) => caller.why(&self.db.view(), error),
        });
        let done =
            done.map(|done| Outcome { warnings: caller.warnings(&self.db.view(), done.warnings), ..done });
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
            // The answer is counted.
            Err(TransactError::Denied(_)) => {}
            Err(TransactError::Store(error)) => self.count_refusal(error),
        }
        done
    }
}

/// A body that says of a resource what the path says too: the field may be left out, and may not differ.
fn named(mut value: Value, field: &str, name: &str) -> Answer<Value> {
    let Value::Object(map) = &mut value else {
        let detail = format!("nothing was written: a {field} is a map, such as {{\"document\": {{…}}}}");
        return Err(Problem::invalid(detail, "send a map"));
    };
    let other = map.get(field).filter(|v| v.as_str().is_none_or(|said| !said.eq_ignore_ascii_case(name)));
    if let Some(other) = other {
        let detail = format!("nothing was written: the body says {field} {other}, the path says {name}");
        let hint = "leave the field out of the body; to rename, post a `rename` edit to /api/v2/commits";
        return Err(Problem::invalid(format!("{detail}; {hint}"), hint).with("field", field));
    }
    map.shift_insert(0, field.to_owned(), Value::String(name.to_owned()));
    Ok(value)
}

/// `PUT /api/v2/hosts/{fqdn}`
pub(super) async fn put_host(ask: Ask, Named(name): Named<HostName>, body: Body) -> Answer {
    let mut ask = ask.only(&SIGNED)?;
    let value = named(ask.document(body, Accepts::Documents).await?, "host", name.as_str())?;
    put(ask, Doc::Host(codec::form::<HostDoc>(value)?), Key::host(&name)).await
}

/// `PUT /api/v2/tags/{ns}/{key}`
pub(super) async fn put_tag(ask: Ask, Named(name): Named<TagName>, body: Body) -> Answer {
    let mut ask = ask.only(&SIGNED)?;
    let value = named(ask.document(body, Accepts::Documents).await?, "tag", name.as_str())?;
    put(ask, Doc::Tag(codec::form::<TagDoc>(value)?), Key::tag(&name)).await
}

async fn put(ask: Ask, doc: Doc, key: Key) -> Answer<Response> {
    doc.check()?;
    let (by, expect) = ask.expect(&key).await?;
    ask.done(by, &key, doc.into_edit(expect), Vec::new()).await
}

/// `PATCH /api/v2/hosts/{fqdn}`
pub(super) async fn patch_host(ask: Ask, Named(name): Named<HostName>, body: Body) -> Answer {
    patch(ask, Key::host(&name), body).await
}

/// `PATCH /api/v2/tags/{ns}/{key}`
pub(super) async fn patch_tag(ask: Ask, Named(name): Named<TagName>, body: Body) -> Answer {
    patch(ask, Key::tag(&name), body).await
}

async fn patch(ask: Ask, key: Key, body: Body) -> Answer<Response> {
    let mut ask = ask.only(&SIGNED)?;
    let patch: Map<String, Value> = ask.document(body, Accepts::Patch).await?;
    let patch = Value::Object(patch);
    let (by, expect) = ask.expect(&key).await?;
    ask.done(by, &key.clone(), Edit::Patch { key, patch, expect }, Vec::new()).await
}

/// `DELETE /api/v2/hosts/{fqdn}`
pub(super) async fn delete_host(ask: Ask, Named(name): Named<HostName>) -> Answer {
    delete(ask.only(&SIGNED)?, Key::host(&name)).await
}

/// `DELETE /api/v2/tags/{ns}/{key}`; with `?follow`, also out of the tags that nest it.
pub(super) async fn delete_tag(ask: Ask, Named(name): Named<TagName>) -> Answer {
    delete(ask.only(&["author", "message", "follow"])?, Key::tag(&name)).await
}

async fn delete(ask: Ask, key: Key) -> Answer<Response> {
    let follow = ask.params.flag("follow")?;
    let (by, expect) = ask.expect(&key).await?;
    ask.done(by, &key.clone(), Edit::Delete { key, follow, expect }, Vec::new()).await
}

/// `PUT /api/v2/tags/{ns}/{key}/members`: a list; the tag has exactly these members from now on.
pub(super) async fn set_members(ask: Ask, Named(tag): Named<TagName>, body: Body) -> Answer {
    let mut ask = ask.only(&SIGNED)?;
    let limit = ask.app.limits.body;
    let members: Vec<Member> = ask.text(body, Accepts::Documents, limit).await?.parse()?;
    let key = Key::tag(&tag);
    let (by, expect) = ask.expect(&key).await?;
    ask.done(by, &key, Edit::SetMembers { tag, members, expect }, Vec::new()).await
}

/// `PUT /api/v2/tags/{ns}/{key}/members/{member}`
pub(super) async fn put_member(ask: Ask, Named((tag, member)): Named<(TagName, Member)>) -> Answer {
    let row = Key::member(&tag, &member);
    one_member(ask, row, Edit::AddMembers { tag, members: vec![member] }).await
}

/// `DELETE /api/v2/tags/{ns}/{key}/members/{member}`
pub(super) async fn delete_member(ask: Ask, Named((tag, member)): Named<(TagName, Member)>) -> Answer {
    let row = Key::member(&tag, &member);
    one_member(ask, row, Edit::RemoveMembers { tag, members: vec![member] }).await
}

async fn one_member(ask: Ask, row: Key, edit: Edit) -> Answer {
    let ask = ask.only(&SIGNED)?;
    let (by, expect) = ask.expect(&row).await?;
    let pre = match expect {
        Expect::Any => Vec::new(),
        Expect::Absent => vec![Pre::Absent(row.clone())],
        Expect::Exists => vec![Pre::Exists(row.clone())],
        Expect::At(revision) => vec![Pre::At(row.clone(), revision)],
    };
    ask.done(by, &row, edit, pre).await
}

/// `PUT /api/v2/facts/{namespace}/{subject}` and the like: the body is the document.
pub(super) async fn put_plain(ask: Ask, uri: Uri, Path(rest): Path<String>, body: Body) -> Answer {
    let (mut ask, key) = (ask.only(&SIGNED)?, plain::key(&uri, &rest)?);
    let value: Map<String, Value> = ask.document(body, Accepts::Documents).await?;
    if let Some(bad) = misformed(&key, value.clone().into()) {
        return Err(Refusal::Form { key, why: bad.to_string() }.into());
    }
    let (by, expect) = ask.expect(&key).await?;
    let value = Document::from(Value::Object(value));
    ask.done(by, &key.clone(), Edit::Write { key, value, expect }, Vec::new()).await
}

/// What is wrong with the form of a row that has one.
fn misformed(key: &Key, value: Value) -> Option<BadText> {
    match key.kind() {
        Kind::Schema(_) => codec::form::<Schema>(value).err(),
        Kind::Pause(_) => codec::form::<Pause>(value).err(),
        Kind::Approval(..) => codec::form::<Approval>(value).err(),
        // Its row says more than its form, and is looked at whole.
        Kind::Access(_) => None,
        Kind::Host(_) | Kind::Tag(_) | Kind::Member(..) | Kind::Fact(..) => None,
    }
}

/// `DELETE /api/v2/facts/{namespace}/{subject}` and the like.
pub(super) async fn delete_plain(ask: Ask, uri: Uri, Path(rest): Path<String>) -> Answer {
    delete(ask.only(&SIGNED)?, plain::key(&uri, &rest)?).await
}
