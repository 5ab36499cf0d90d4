//! `/api/v2/store/…`: the [`Store`](shoal_store::Store) trait over HTTP, row by row, for stores and agents that
//! reach the database through this server.
//!
//! Requests are `POST` with a JSON body even where they only read, because ranges and rules do not fit a query.
//! Errors carry the [`StoreError`](shoal_store::StoreError) itself as the member `store_error`, so that a client
//! answers exactly what the store behind the server did. Rows that are committed pass the same check as every other
//! write: whoever prepared them followed a view of his own, and that is no reason to believe him.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use data_encoding::BASE64;
use http::StatusCode;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shoal_core::{
    Change, Commit, Committed, Edit, HostName, Key, LogEntry, Proposal, Range, Revision, Status,
};
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Filter, Head, LedgerWrite, Page, Position, Query, StoreError,
    TransactError,
};

use super::live::whose;
use super::{Sifted, page_of};
use crate::access::Caller;
use crate::problem::{Answer, Problem};
use crate::request::{Accepts, Ask};
use crate::spec::{Routes, get, post, query, shared};
use crate::watch;

/// The routes of this module.
pub(super) fn routes(to: Routes) -> Routes {
    const WRITE: [u16; 4] = [403, 404, 409, 507];
    to.at("/api/v2/store/head", [get("The epoch and the newest revision", head).answers::<Head>("Both.")])
        .at(
            "/api/v2/store/read",
            [post("Rows of a range", read)
                .body::<WireQuery>()
                .answers::<Page>("A page of rows.")
                .refuses(&[404])],
        )
        .at(
            "/api/v2/store/around",
            [get("The rows around a host: itself, its facts, and how it comes to be in which tags", around)
                .takes([query::<HostName>("host", "Which host.").required()])
                .takes([shared("revision")])
                .answers::<Page>("All of them; none for a host that does not exist.")
                .refuses(&[404])],
        )
        .at(
            "/api/v2/store/commit",
            [post("Rows as one commit", commit)
                .body::<Commit>()
                .answers::<Committed>("It is done.")
                .refuses(&WRITE)
                .refuses(&[412])],
        )
        .at(
            "/api/v2/store/log",
            [post("Commits of a range, newest first", log)
                .body::<WireLog>()
                .answers::<Vec<LogEntry>>("A page of commits.")],
        )
        .at(
            "/api/v2/store/watch",
            [post("Commits as they happen", watch_rows)
                .takes([watch::stop_after()])
                .body::<WireWatch>()
                .streams(watch::EVENTS)],
        )
        .at(
            "/api/v2/store/claim",
            [post("Asks for a claim", claim)
                .body::<ClaimRequest>()
                .answers::<ClaimAnswer>("Granted or taken.")
                .refuses(&WRITE)],
        )
        .at(
            "/api/v2/store/release",
            [post("Gives a claim back", release)
                .body::<Claim>()
                .answers_nothing("It is free.")
                .refuses(&WRITE)],
        )
        .at(
            "/api/v2/store/ledger/read",
            [post("Rows of the ledger", read_ledger)
                .body::<WireLedgerQuery>()
                .answers::<WireLedgerPage>("A page of rows.")],
        )
        .at(
            "/api/v2/store/ledger/write",
            [post("Writes rows of the ledger, under a claim", write_ledger)
                .body::<WireLedgerWrite>()
                .answers_nothing("They stand.")
                .refuses(&WRITE)],
        )
        .at(
            "/api/v2/store/report",
            [post("What an agent says of itself", report)
                .body::<Status>()
                .answers_nothing("It is heard.")
                .refuses(&WRITE)],
        )
}

async fn head(ask: Ask) -> Answer {
    let ask = ask.only(&[])?;
    // Not older than what was acknowledged before it was asked, and mostly from memory: a server in front of this one asks for each of its reads.
    ask.shape.ok(&ask.store().newest().await?)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireQuery {
    range: Range,
    #[serde(default)]
    at: Option<Revision>,
    #[serde(default)]
    after: Option<Key>,
    #[schemars(range(min = 1))]
    limit: usize,
    #[serde(default)]
    tombstones: bool,
}

async fn read(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&[])?;
    let WireQuery { range, at, after, limit, tombstones } = small(&mut ask, body).await?;
    let limit = limit.min(ask.app.limits.max_page);
    ask.caller.reads_range(&range)?;
    let query = Query { range, at, after, limit, tombstones };
    let Sifted { at, rows, next, .. } = page_of(&ask.app, query, false, |row| ask.caller.row(row)).await?;
    ask.shape.ok(&Page { at, rows, next })
}

/// Answered from the view: costs no call of the store, but for an old revision.
async fn around(ask: Ask) -> Answer {
    let ask = ask.only(&["host", "revision"])?;
    let host = ask.params.get("host").ok_or_else(|| {
        Problem::bad_request("say which host, such as ?host=web1.example.com").with("field", "host")
    })?;
    let host: HostName = host.parse()?;
    // Any tag may hold it: whole or not at all, and not only where it does.
    ask.caller.reads_range(&Range::All)?;
    let excerpt = ask.app.db.excerpt(ask.params.revision()?, Some(&host), None).await?;
    ask.shape.ok(&Page { at: excerpt.revision(), rows: excerpt.around(), next: None })
}

async fn commit(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&[])?;
    ask.app.writable()?;
    let commit: Commit = large(&mut ask, body).await?;
    let _turn = ask.app.write_turn()?;
    if !ask.app.checks_rows {
        return ask.shape.ok(&ask.store().commit(commit).await?);
    }
    pairs(&commit.changes)?;
    let row = |Change { key, value, moved }| Edit::Row { key, value, moved };
    let proposal = Proposal {
        edits: commit.changes.into_iter().map(row).collect(),
        author: commit.author,
        // Who was authenticated, and from where, is for the server to say.
        principal: None,
        origin: None,
        message: commit.message,
        idempotency: commit.idempotency,
        intent: commit.intent,
        pre: commit.pre,
    };
    match ask.app.propose(&ask.caller, proposal).await {
        Ok(done) => ask.shape.ok(&done.committed),
        // Callers that know only stores hear it in their words, too.
        Err(TransactError::Refused(refusal)) => {
            let error = StoreError::Invalid(refusal.to_string());
            let problem = Problem::from(refusal);
            Err(match serde_json::to_value(&error) {
                Ok(value) => problem.with("store_error", value),
                Err(_) => problem,
            })
        }
        Err(TransactError::Busy { last, .. }) => Err(last.into()),
        Err(TransactError::Store(error)) => Err(error.into()),
        Err(TransactError::Denied(denied)) => Err((*denied).into()),
    }
}

/// A rename has two ends that name each other.
fn pairs(changes: &[Change]) -> Answer<()> {
    let ends: HashMap<&Key, &Change> = changes.iter().map(|change| (&change.key, change)).collect();
    let mutual = |change: &Change, to: &Key| {
        ends.get(to).is_some_and(|other| {
            other.moved.as_ref() == Some(&change.key) && other.value.is_some() != change.value.is_some()
        })
    };
    for change in changes {
        if let Some(to) = change.moved.as_ref().filter(|to| !mutual(change, to)) {
            let hint = "a rename is two changes, one without a value, that name each other as `moved`";
            let key = &change.key;
            return Err(Problem::invalid(
                format!(
                    "nothing was written: {key} says that it was renamed to or from {to}, and no change of {to} says \
                     the same; {hint}"
                ),
                hint,
            )
            .with("field", key.as_str()));
        }
    }
    Ok(())
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireLog {
    range: Range,
    #[serde(default)]
    before: Option<Revision>,
    #[schemars(range(min = 1))]
    limit: usize,
}

async fn log(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&[])?;
    let WireLog { range, before, limit } = small(&mut ask, body).await?;
    ask.caller.reads_range(&range)?;
    let (limit, mut before) = (some(&ask, limit)?, before);
    loop {
        let entries = ask.store().log(&range, before, limit).await?;
        // An empty page is the end of the log: what is left out may not look like it.
        let Some(last) = entries.last().map(|entry| entry.info.revision) else {
            return ask.shape.ok(&entries);
        };
        let seen = |entry: LogEntry| match ask.caller.entry(&entry) {
            Some(seen) => Some(seen).filter(|seen| !seen.changes.is_empty()),
            None => Some(entry),
        };
        let entries: Vec<LogEntry> = entries.into_iter().filter_map(seen).collect();
        if !entries.is_empty() {
            return ask.shape.ok(&entries);
        }
        before = Some(last);
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireWatch {
    ranges: Vec<Range>,
    #[serde(default)]
    progress_ms: Option<u64>,
    after: Position,
}

async fn watch_rows(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&["stop_after"])?;
    let WireWatch { ranges, progress_ms, after } = small(&mut ask, body).await?;
    let mut filter = Filter::of(ranges);
    if let Some(ms) = progress_ms {
        filter.progress = Duration::from_millis(ms.clamp(10, 3_600_000));
    }
    watch::events(&ask.app, &ask.caller, filter, after, watch::end(&ask.params)?)
}

async fn claim(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&[])?;
    ask.app.writable()?;
    let want: ClaimRequest = small(&mut ask, body).await?;
    let _turn = ask.app.write_turn()?;
    let what = format!("claim {}", want.name);
    ask.app.let_pass(&ask.caller, |caller| caller.works(whose(&want.name), &what)).await?;
    ask.shape.ok(&ask.store().claim(&want).await?)
}

async fn release(ask: Ask, body: Body) -> Answer<StatusCode> {
    let mut ask = ask.only(&[])?;
    ask.app.writable()?;
    let claim: Claim = small(&mut ask, body).await?;
    let _turn = ask.app.write_turn()?;
    let what = format!("give back the claim {}", claim.name);
    ask.app.let_pass(&ask.caller, |caller| caller.works(whose(&claim.name), &what)).await?;
    ask.store().release(&claim).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireLedgerQuery {
    prefix: String,
    #[serde(default)]
    after: Option<String>,
    #[schemars(range(min = 1))]
    limit: usize,
}

/// A row of the ledger; its octets as base64.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireLedgerRow {
    #[schemars(length(min = 1))]
    key: String,
    #[serde(default)]
    value: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct WireLedgerPage {
    rows: Vec<WireLedgerRow>,
    more: bool,
}

async fn read_ledger(ask: Ask, body: Body) -> Answer {
    let mut ask = ask.only(&[])?;
    let WireLedgerQuery { prefix, after, limit } = small(&mut ask, body).await?;
    match prefix.split_once('/') {
        Some((agent, _)) => ask.caller.reads_work(agent)?,
        None => ask.caller.reads_range(&Range::All)?,
    }
    let page = ask.store().ledger(&prefix, after.as_deref(), some(&ask, limit)?).await?;
    let rows =
        page.rows.into_iter().map(|(key, value)| WireLedgerRow { key, value: Some(BASE64.encode(&value)) });
    ask.shape.ok(&WireLedgerPage { rows: rows.collect(), more: page.more })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WireLedgerWrite {
    rows: Vec<WireLedgerRow>,
    held: Claim,
}

async fn write_ledger(ask: Ask, body: Body) -> Answer<StatusCode> {
    let mut ask = ask.only(&[])?;
    ask.app.writable()?;
    let WireLedgerWrite { rows, held } = large(&mut ask, body).await?;
    let _turn = ask.app.write_turn()?;
    let right = |caller: &Caller| {
        for row in &rows {
            let agent = row.key.split('/').next().unwrap_or_default();
            caller.works(agent, &format!("write the ledger's row {}", row.key))?;
        }
        // Whose claim it is says who may rest something on it.
        caller.works(whose(&held.name), &format!("write the ledger under the claim {}", held.name))
    };
    ask.app.let_pass(&ask.caller, right).await?;
    let rows = rows
        .into_iter()
        .map(|WireLedgerRow { key, value }| {
            let value = value.map(|text| BASE64.decode(text.as_bytes())).transpose().map_err(|e| {
                let detail = format!("nothing was written: the value of {key} is not base64: {e}");
                Problem::invalid(detail, "encode the octets as base64, with padding")
                    .with("field", key.as_str())
            })?;
            Ok(LedgerWrite { key, value })
        })
        .collect::<Answer<Vec<_>>>()?;
    ask.store().write_ledger(rows, &held).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn report(ask: Ask, body: Body) -> Answer<StatusCode> {
    let mut ask = ask.only(&[])?;
    ask.app.writable()?;
    let status: Status = small(&mut ask, body).await?;
    let _turn = ask.app.write_turn()?;
    let what = format!("report as an agent of {}", status.agent);
    ask.app.let_pass(&ask.caller, |caller| caller.works(status.agent.as_str(), &what)).await?;
    ask.store().report(status).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How many rows a page has, of those that were asked for.
fn some(ask: &Ask, limit: usize) -> Answer<usize> {
    if limit > 0 {
        return Ok(limit.min(ask.app.limits.max_page));
    }
    Err(StoreError::Invalid("a page of no rows was asked for: the limit is at least 1".to_owned()).into())
}

async fn small<T: DeserializeOwned>(ask: &mut Ask, body: Body) -> Answer<T> {
    let limit = ask.app.limits.document;
    ask.text(body, Accepts::Documents, limit).await?.map()
}

async fn large<T: DeserializeOwned>(ask: &mut Ask, body: Body) -> Answer<T> {
    let limit = ask.app.limits.body;
    ask.text(body, Accepts::Documents, limit).await?.map()
}
