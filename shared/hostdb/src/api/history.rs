//! What changed when, and who said what: `/api/v2/commits`, `/history`, `/blame` and `/diff`.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Serialize;
use shoal_core::{CommitInfo, Key, Line, LogEntry, Range, Revision};

use super::missing;
use crate::app::App;
use crate::history;
use crate::problem::{Answer, Problem};
use crate::reading;
use crate::request::{Params, Shape};
use crate::watch;

/// How many changed keys a list names of each commit.
const SAMPLE: usize = 10;

/// A commit in a list.
#[derive(Serialize)]
struct Summary {
    #[serde(flatten)]
    info: CommitInfo,
    /// How many rows of the asked ranges it wrote.
    changed: usize,
    /// Some of them.
    keys: Vec<Key>,
}

#[derive(Serialize)]
struct Log<T> {
    items: Vec<T>,
    /// What `before` is for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Revision>,
}

/// `GET /api/v2/commits`: newest first; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it, `?before=` pages.
pub(super) async fn commits(State(app): State<Arc<App>>, shape: Shape, params: Params) -> Answer {
    let params = params.only(&["before", "limit", "key", "prefix", "tag", "naming"])?;
    let ranges = watch::ranges(&params)?;
    let (entries, next) = read(&app, &params, &ranges).await?;
    let items = entries.into_iter().map(|entry| Summary {
        changed: entry.changes.len(),
        keys: entry.changes.iter().take(SAMPLE).map(|c| c.key.clone()).collect(),
        info: entry.info,
    });
    shape.ok(&Log { items: items.collect(), next })
}

/// `GET /api/v2/commits/{revision}`: one commit, whole.
pub(super) async fn commit(
    State(app): State<Arc<App>>,
    Path(revision): Path<String>,
    shape: Shape,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let revision = revision
        .parse()
        .map(Revision)
        .map_err(|_| Problem::bad_request(format!("{revision:?} is not a revision: it is a whole number")))?;
    match history::commit(&**app.db.store(), revision).await? {
        Some(entry) => shape.ok(&entry),
        None => Err(Problem::not_found(format!("there is no commit with revision {revision}"))),
    }
}

/// `GET /api/v2/history/{key}`: every commit that wrote the key, whole where it did; for a tag, its members too.
pub(super) async fn history(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    shape: Shape,
    params: Params,
) -> Answer {
    let key: Key = key.parse()?;
    let params = params.only(&["before", "limit"])?;
    let (items, next) = read(&app, &params, &history::ranges_of(&key)).await?;
    shape.ok(&Log { items, next })
}

#[derive(Serialize)]
struct Blamed {
    key: Key,
    /// Each value with the commit that last changed it.
    values: Vec<Line<CommitInfo>>,
}

/// `GET /api/v2/blame/{key}`: who last said each value, through renames.
pub(super) async fn blame(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    shape: Shape,
    params: Params,
) -> Answer {
    params.only(&[])?;
    let key: Key = key.parse()?;
    match history::blame(&**app.db.store(), &key).await? {
        Some(values) => shape.ok(&Blamed { key, values }),
        None => {
            let found = reading::row(&**app.db.store(), &key, None).await?;
            Err(missing(&found, key.as_str()))
        }
    }
}

#[derive(Serialize)]
struct Difference {
    from: Revision,
    to: Revision,
    items: Vec<history::Changed>,
}

/// `GET /api/v2/diff?from=…&to=…`: the rows that differ; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it.
pub(super) async fn diff(State(app): State<Arc<App>>, shape: Shape, params: Params) -> Answer {
    let params = params.only(&["from", "to", "key", "prefix", "tag", "naming"])?;
    let revision =
        |name: &str| Ok::<_, Problem>(params.parse(name, "a revision (a whole number)")?.map(Revision));
    let from = revision("from")?.ok_or_else(|| {
        Problem::bad_request("from=REVISION is missing: say what to compare with").with("field", "from")
    })?;
    let to = match revision("to")? {
        Some(to) => to,
        None => app.db.store().head().await?.revision,
    };
    let items = history::between(&**app.db.store(), &watch::ranges(&params)?, from, to).await?;
    shape.ok(&Difference { from, to, items })
}

async fn read(app: &App, params: &Params, ranges: &[Range]) -> Answer<(Vec<LogEntry>, Option<Revision>)> {
    let before = params.parse("before", "a revision (a whole number)")?.map(Revision);
    Ok(history::log(&**app.db.store(), ranges, before, params.limit(app)?).await?)
}
