//! What changed when, and who said what: `/api/v2/commits`, `/history`, `/blame` and `/diff`.

use axum::extract::Path;
use schemars::JsonSchema;
use serde::Serialize;
use shoal_core::{CommitInfo, Key, Line, LogEntry, Range, Revision};

use super::{missing, transaction};
use crate::history;
use crate::problem::{Answer, Problem};
use crate::reading;
use crate::request::{Ask, Named};
use crate::spec::{Routes, get, query, shared};
use crate::watch;

/// The paths of this module; `commits` takes writes, too.
pub(super) fn routes(to: Routes) -> Routes {
    let listed = get("Commits, newest first", commits)
        .takes(["before", "limit"].map(shared))
        .takes(watch::described())
        .answers::<Log<Summary>>("A page of commits.");
    let of = get("Every commit that wrote the key, with what it wrote; of a tag, its members too", history)
        .takes(["before", "limit"].map(shared))
        .answers::<Log<LogEntry>>("A page of commits.");
    let from = query::<Revision>("from", "What to compare with.").required();
    let to_ = query::<Revision>("to", "What to compare; left out: now.");
    let differing = get("The rows that differ, by key", diff)
        .takes([from, to_, query::<Key>("after", "`next` of the page before."), shared("limit")])
        .takes(watch::described())
        .answers::<Difference>("A page of rows.")
        .refuses(&[404]);
    to.at("/api/v2/commits", [listed, transaction::described()])
        .at(
            "/api/v2/commits/{revision}",
            [get("One commit, whole", commit).answers::<LogEntry>("The commit.").refuses(&[404])],
        )
        .at("/api/v2/history/{*key}", [of])
        .at(
            "/api/v2/blame/{*key}",
            [get("Who last said each value, through renames", blame)
                .answers::<Blamed>("The values.")
                .refuses(&[404])],
        )
        .at("/api/v2/diff", [differing])
}

/// How many changed keys a list names of each commit.
const SAMPLE: usize = 10;

/// A commit in a list.
#[derive(Serialize, JsonSchema)]
struct Summary {
    #[serde(flatten)]
    info: CommitInfo,
    /// How many rows of the asked ranges it wrote.
    changed: usize,
    /// Some of them.
    keys: Vec<Key>,
}

#[derive(Serialize, JsonSchema)]
struct Log<T> {
    items: Vec<T>,
    /// What `before` is for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Revision>,
}

/// `GET /api/v2/commits`: newest first; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it, `?before=` pages.
async fn commits(ask: Ask) -> Answer {
    let ask = ask.only(&["before", "limit", "key", "prefix", "tag", "naming"])?;
    let ranges = watch::ranges(&ask.params)?;
    let (entries, next) = read(&ask, &ranges).await?;
    let items = entries.into_iter().map(|entry| Summary {
        changed: entry.changes.len(),
        keys: entry.changes.iter().take(SAMPLE).map(|c| c.key.clone()).collect(),
        info: entry.info,
    });
    ask.shape.ok(&Log { items: items.collect(), next })
}

/// `GET /api/v2/commits/{revision}`: one commit, whole.
async fn commit(ask: Ask, Path(revision): Path<String>) -> Answer {
    let ask = ask.only(&[])?;
    let revision = revision
        .parse()
        .map(Revision)
        .map_err(|_| Problem::bad_request(format!("{revision:?} is not a revision: it is a whole number")))?;
    match history::commit(ask.store(), revision).await? {
        Some(entry) => ask.shape.ok(&entry),
        None => Err(Problem::not_found(format!("there is no commit with revision {revision}"))),
    }
}

/// `GET /api/v2/history/{key}`: every commit that wrote the key, whole where it did; for a tag, its members too.
async fn history(ask: Ask, Named(key): Named<Key>) -> Answer {
    let ask = ask.only(&["before", "limit"])?;
    let (items, next) = read(&ask, &history::ranges_of(&key)).await?;
    ask.shape.ok(&Log { items, next })
}

#[derive(Serialize, JsonSchema)]
struct Blamed {
    key: Key,
    /// Each value with the commit that last changed it.
    values: Vec<Line<CommitInfo>>,
}

/// `GET /api/v2/blame/{key}`: who last said each value, through renames.
async fn blame(ask: Ask, Named(key): Named<Key>) -> Answer {
    let ask = ask.only(&[])?;
    match history::blame(ask.store(), &key).await? {
        Some(values) => ask.shape.ok(&Blamed { key, values }),
        None => {
            let found = reading::row(ask.store(), &key, None).await?;
            Err(missing(&found, key.as_str()))
        }
    }
}

#[derive(Serialize, JsonSchema)]
struct Difference {
    from: Revision,
    to: Revision,
    items: Vec<history::Changed>,
    /// What `after` is for the next page, with the same `from` and `to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Key>,
}

/// `GET /api/v2/diff?from=…&to=…`: the rows that differ, by key; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it.
async fn diff(ask: Ask) -> Answer {
    let known = ["from", "to", "key", "prefix", "tag", "naming", "after", "limit"];
    let Ask { app, shape, params, .. } = ask.only(&known)?;
    let revision =
        |name: &str| Ok::<_, Problem>(params.parse(name, "a revision (a whole number)")?.map(Revision));
    let from = revision("from")?.ok_or_else(|| {
        Problem::bad_request("from=REVISION is missing: say what to compare with").with("field", "from")
    })?;
    let limit = params.limit(&app)?;
    let after = params.get("after").map(str::parse::<Key>).transpose()?;
    let to = match revision("to")? {
        Some(to) => to,
        None => app.db.store().head().await?.revision,
    };
    // Each holds both revisions of what it reads.
    let _turn = app.db.large_reading().await;
    let mut items = history::between(&**app.db.store(), &watch::ranges(&params)?, from, to).await?;
    items.retain(|changed| after.as_ref().is_none_or(|after| changed.key > *after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|changed| changed.key.clone()) } else { None };
    shape.ok(&Difference { from, to, items, next })
}

async fn read(ask: &Ask, ranges: &[Range]) -> Answer<(Vec<LogEntry>, Option<Revision>)> {
    let before = ask.params.parse("before", "a revision (a whole number)")?.map(Revision);
    Ok(history::log(ask.store(), ranges, before, ask.params.limit(&ask.app)?).await?)
}
