//! What changed when, and who said what: `/api/v2/commits`, `/history`, `/blame` and `/diff`.

use axum::extract::Path;
use schemars::JsonSchema;
use serde::Serialize;
use shoal_core::{CommitInfo, Key, Line, LogEntry, Range, Revision};
use shoal_store::MAX_PAGE_BYTES;

use super::{is_none, missing, transaction};
use crate::history;
use crate::problem::{Answer, Problem};
use crate::reading;
use crate::request::{Ask, Named, Params};
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
            [get("One commit, whole", commit).answers::<Whole>("The commit.").refuses(&[404])],
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

/// The most ranges of one request: each is read by itself.
const MAX_RANGES: usize = 16;
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
    /// How many others are not for who asks.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

/// One commit, whole.
#[derive(Serialize, JsonSchema)]
struct Whole {
    #[serde(flatten)]
    entry: LogEntry,
    /// How many of its changes are not for who asks.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

#[derive(Serialize, JsonSchema)]
struct Log<T> {
    items: Vec<T>,
    /// What `before` is for the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Revision>,
    /// How many commits were left out of this page because nothing of them is for who asks.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

/// `GET /api/v2/commits`: newest first; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it, `?before=` pages.
async fn commits(ask: Ask) -> Answer {
    let ask = ask.only(&["before", "limit", "key", "prefix", "tag", "naming"])?;
    let ranges = ranges(&ask.params)?;
    ask.caller.may_sift(&ranges)?;
    let (entries, next) = read(&ask, &ranges).await?;
    let (mut items, mut hidden) = (Vec::with_capacity(entries.len()), 0);
    for entry in entries {
        let (seen, others) = ask.caller.seen(entry.changes);
        if seen.is_empty() && others > 0 {
            hidden += 1;
            continue;
        }
        let keys = seen.iter().take(SAMPLE).map(|c| c.key.clone()).collect();
        items.push(Summary { changed: seen.len(), keys, info: entry.info, hidden: others });
    }
    ask.shape.ok(&Log { items, next, hidden })
}

/// `GET /api/v2/commits/{revision}`: one commit, whole.
async fn commit(ask: Ask, Path(revision): Path<String>) -> Answer {
    let ask = ask.only(&[])?;
    let revision = revision
        .parse()
        .map(Revision)
        .map_err(|_| Problem::bad_request(format!("{revision:?} is not a revision: it is a whole number")))?;
    match history::commit(ask.store(), revision).await? {
        Some(LogEntry { info, changes }) => {
            let (changes, hidden) = ask.caller.seen(changes);
            if changes.is_empty() && hidden > 0 {
                return Err(ask.caller.refused_all().into());
            }
            ask.shape.ok(&Whole { entry: LogEntry { info, changes }, hidden })
        }
        None => Err(Problem::not_found(format!("there is no commit with revision {revision}"))),
    }
}

/// `GET /api/v2/history/{key}`: every commit that wrote the key, whole where it did; for a tag, its members too.
async fn history(ask: Ask, Named(key): Named<Key>) -> Answer {
    let ask = ask.only(&["before", "limit"])?;
    let ranges = history::ranges_of(&key);
    ranges.iter().try_for_each(|range| ask.caller.reads_range(range))?;
    let (entries, next) = read(&ask, &ranges).await?;
    let (mut items, mut hidden) = (Vec::with_capacity(entries.len()), 0);
    for LogEntry { info, changes } in entries {
        let (changes, others) = ask.caller.seen(changes);
        hidden += usize::from(changes.is_empty() && others > 0);
        if !changes.is_empty() {
            items.push(LogEntry { info, changes });
        }
    }
    ask.shape.ok(&Log { items, next, hidden })
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
    ask.caller.reads(&key)?;
    if key.namespace() == shoal_core::ACCESS {
        // It would show what is hidden, value by value.
        ask.caller.must_administer()?;
        return Err(Problem::not_found(format!(
            "{key} has no blame; its history has what was written: /api/v2/history/{key}"
        )));
    }
    match history::blame(ask.store(), &key, None).await? {
        Some(values) => ask.shape.ok(&Blamed { key, values }),
        None => {
            let found = reading::row(ask.store(), &key, None).await?;
            Err(missing(&ask.caller, found, key.as_str()))
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
    /// How many rows that differ are not for who asks.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

/// `GET /api/v2/diff?from=…&to=…`: the rows that differ, by key; `?key=`, `?prefix=`, `?tag=`, `?naming=` narrow it.
async fn diff(ask: Ask) -> Answer {
    let known = ["from", "to", "key", "prefix", "tag", "naming", "after", "limit"];
    let Ask { app, shape, params, caller, .. } = ask.only(&known)?;
    let revision =
        |name: &str| Ok::<_, Problem>(params.parse(name, "a revision (a whole number)")?.map(Revision));
    let from = revision("from")?.ok_or_else(|| {
        Problem::bad_request("from=REVISION is missing: say what to compare with").with("field", "from")
    })?;
    let ranges = ranges(&params)?;
    caller.may_sift(&ranges)?;
    let limit = params.limit(&app)?;
    let after = params.get("after").map(str::parse::<Key>).transpose()?;
    let to = match revision("to")? {
        Some(to) => to,
        None => app.db.store().head().await?.revision,
    };
    // Each holds both revisions of what it reads.
    let _turn = app.db.large_reading().await;
    let mut items = history::between(&**app.db.store(), &ranges, from, to).await?;
    let all = items.len();
    items.retain(|changed| {
        changed.key.namespace() != shoal_core::ACCESS && caller.sees(&changed.key) || !caller.asked
    });
    let hidden = all - items.len();
    for changed in &mut items {
        changed.moved = changed.moved.take().filter(|other| caller.sees(other));
    }
    items.retain(|changed| after.as_ref().is_none_or(|after| changed.key > *after));
    let fitting = fitting(&items, limit);
    let more = items.len() > fitting;
    items.truncate(fitting);
    let next = if more { items.last().map(|changed| changed.key.clone()) } else { None };
    shape.ok(&Difference { from, to, items, next, hidden })
}

/// How many of them go into a page: at most `limit`, and fewer when they are large, but one.
fn fitting(items: &[history::Changed], limit: usize) -> usize {
    let mut octets = 0;
    let fits = |item: &&history::Changed| {
        octets += serde_json::to_vec(item).map_or(0, |text| text.len());
        octets <= MAX_PAGE_BYTES
    };
    items.iter().take(limit).take_while(fits).count().max(1)
}

/// The ranges of a request, each once; none: everything.
fn ranges(params: &Params) -> Answer<Vec<Range>> {
    let mut ranges = watch::ranges(params)?;
    if !ranges.is_empty() {
        ranges = history::distinct(&ranges);
    }
    if ranges.len() > MAX_RANGES {
        return Err(Problem::bad_request(format!(
            "{} ranges are asked for, and at most {MAX_RANGES} are read at once (a tag is two of them): ask for fewer, or for what they \
             have in common",
            ranges.len()
        )));
    }
    Ok(ranges)
}

async fn read(ask: &Ask, ranges: &[Range]) -> Answer<(Vec<LogEntry>, Option<Revision>)> {
    let before = ask.params.parse("before", "a revision (a whole number)")?.map(Revision);
    Ok(history::log(ask.store(), ranges, before, ask.params.limit(&ask.app)?).await?)
}
