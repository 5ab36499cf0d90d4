//! Commits of many things: transactions and rollbacks.
//!
//! With `?plan` nothing is written, and the answer is what would be. Conditions stand in the edits, or in the `revision` of
//! a document: there is no one resource that `If-Match` could mean.

use axum::body::Body;
use http::header::LOCATION;
use http::{HeaderMap, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_core::{Change, Edit, Expect, Key, Pre, Proposal, Range, Revision, Scope, Warning};
use tokio::sync::SemaphorePermit;

use super::write::Done;
use crate::etag::Wish;
use crate::problem::{Answer, Problem};
use crate::reading;
use crate::request::{Accepts, Ask, By};
use crate::spec::{Op, Routes, flag, post};
use shoal_core::docs::Doc;

/// The path of a rollback.
pub(super) fn routes(to: Routes) -> Routes {
    to.at(
        "/api/v2/rollback",
        [many("What stood at an old revision, as a new commit", post("", rollback)).body::<Rollback>()],
    )
}

/// A transaction.
pub(super) fn described() -> Op {
    many("Many edits as one commit", post("", transaction)).body::<Transaction>()
}

fn many(summary: &'static str, op: Op) -> Op {
    op.summary(summary)
        .takes([flag("plan", "Writes nothing, needs no signature, and answers what would be written.")])
        .signed()
        .answers::<Outcome>("It was so already; or what would be, with `plan`.")
        .creates::<Done>("It is so now.")
        .with_header("Location", "The commit.")
        .refuses(&[403, 404, 409, 412, 507])
}

/// What was done, or would be.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described: which of the two it is, the request says")]
enum Outcome {
    Done(Done),
    Planned(Planned),
}

/// The body of a transaction.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transaction {
    #[serde(default)]
    #[schemars(regex(pattern = r"\S"))]
    author: Option<String>,
    #[serde(default)]
    #[schemars(regex(pattern = r"\S"))]
    message: Option<String>,
    #[serde(default)]
    idempotency: Option<String>,
    /// Whole hosts and tags, as they are to be.
    #[serde(default)]
    #[schemars(with = "Vec<Doc>")]
    documents: Vec<Value>,
    #[serde(default)]
    edits: Vec<Edit>,
    #[serde(default)]
    pre: Vec<Pre>,
}

/// What a transaction would do.
#[derive(Serialize, JsonSchema)]
struct Planned {
    /// As of which revision.
    revision: Revision,
    changes: Vec<Change>,
    warnings: Vec<Warning>,
}

/// `POST /api/v2/commits`: everything in the body as one commit; with `?plan`, what it would write.
async fn transaction(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&KNOWN)?;
    begin(&ask)?;
    let limit = ask.app.limits.body;
    let text = ask.text(body, Accepts::Documents, limit).await?;
    let _turn = turn(&ask)?;
    let Transaction { author, message, idempotency, documents, edits, pre } = text.map()?;
    let by = signed(&ask, author, message)?;
    let mut all = Vec::with_capacity(documents.len() + edits.len());
    for (at, value) in documents.into_iter().enumerate() {
        let doc = Doc::read(value).map_err(|bad| Problem::from(bad.inside(&format!("documents[{at}]"))))?;
        all.push(doc.into_edit(Expect::Any));
    }
    all.extend(edits);
    let idempotency = idempotency.or(by.idempotency);
    let proposal = Proposal { idempotency, pre, ..Proposal::new(by.author, by.message, all) };
    propose(&ask, proposal).await
}

/// The body of a rollback.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// The revision to go back to.
    to: Revision,
    /// What goes back; none: everything.
    #[serde(default)]
    keys: Vec<Key>,
    #[serde(default)]
    #[schemars(regex(pattern = r"\S"))]
    author: Option<String>,
    #[serde(default)]
    #[schemars(regex(pattern = r"\S"))]
    message: Option<String>,
}

/// `POST /api/v2/rollback`: what stood at an old revision, as a new commit; with `?plan`, what it would write.
async fn rollback(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&KNOWN)?;
    begin(&ask)?;
    let limit = ask.app.limits.document;
    let text = ask.text(body, Accepts::Documents, limit).await?;
    let _turn = turn(&ask)?;
    let Rollback { to, keys, author, message } = text.map()?;
    let by = signed(&ask, author, message)?;
    let app = &ask.app;
    app.let_pass(&ask.caller, |caller| keys.iter().try_for_each(|key| caller.may_write(key))).await?;
    if let Some(key) = reading::never(ask.store(), &keys).await? {
        return Err(Problem::not_found(format!("nothing was written: {key} never was; mend the name")));
    }
    app.db.fresh_view().await?;
    let mut edits = Vec::new();
    if keys.is_empty() {
        // What is refused of it would tell what was written since.
        ask.caller.again(app)?.reads_range(&Range::All)?;
        edits = app.db.rollback(Scope::Everything, to).await?;
    }
    for key in &keys {
        edits.extend(app.db.rollback(Scope::Key(key), to).await?);
    }
    let proposal = Proposal { idempotency: by.idempotency, ..Proposal::new(by.author, by.message, edits) };
    propose(&ask, proposal).await
}

/// Parameters that both take.
const KNOWN: [&str; 3] = ["author", "message", "plan"];

/// Whether it would be taken, before the body, which may be large: a refusal should not cost its transfer.
fn begin(ask: &Ask) -> Answer<()> {
    no_conditions(&ask.headers)?;
    if ask.params.flag("plan")? { Ok(()) } else { ask.app.writable() }
}

/// The right to write, if something is to be written.
fn turn(ask: &Ask) -> Answer<Option<SemaphorePermit<'_>>> {
    if ask.params.flag("plan")? { Ok(None) } else { ask.app.write_turn().map(Some) }
}

fn signed(ask: &Ask, author: Option<String>, message: Option<String>) -> Answer<By> {
    if ask.params.flag("plan")? { By::nobody(ask, [&author, &message]) } else { By::of(ask, author, message) }
}

/// Does a proposal of many edits, or says what it would write.
async fn propose(ask: &Ask, proposal: Proposal) -> Answer {
    let Ask { app, shape, params, .. } = ask;
    if params.flag("plan")? {
        let revision = app.db.fresh_view().await?.revision();
        // What they may is asked of the same.
        let caller = ask.caller.again(app)?;
        caller.may_propose(&app.db.view(), &proposal.edits)?;
        caller.may_rest(&proposal.pre)?;
        let view = app.db.view();
        let preview = app.db.preview(&proposal).await;
        let mut prepared = preview.map_err(|refusal| caller.refusal(&view, refusal))?;
        if !prepared.commit.changes.is_empty() {
            caller.judge(&app.db.view(), &mut prepared.commit)?;
        }
        let (changes, warnings) =
            (caller.seen(prepared.commit.changes).0, caller.warnings(&view, prepared.warnings));
        return shape.ok(&Planned { revision, changes, warnings });
    }
    let done = Done::from(app.propose(&ask.caller, proposal).await?);
    let (revision, created) = (done.committed.revision, done.committed.changed > 0);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = shape.with(status, &done)?;
    if let (true, Ok(place)) = (created, HeaderValue::try_from(format!("/api/v2/commits/{revision}"))) {
        response.headers_mut().insert(LOCATION, place);
    }
    Ok(response)
}

/// A commit of many things has no one ETag.
fn no_conditions(headers: &HeaderMap) -> Answer<()> {
    if Wish::of(headers)? == Wish::default() {
        return Ok(());
    }
    Err(Problem::bad_request(
        "nothing was written: If-Match and If-None-Match name one resource; here say it in the edits, such as \
         \"expect\": {\"at\": 7}, or as the `revision` of a document",
    ))
}
