//! `shoal log`, `show`, `blame` and `diff`: what changed, when, by whom and why.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use shoal_core::{CommitInfo, Key, Kind, Line, LogEntry, Member, Range, Revision, TagName};
use shoal_hostdb::history;
use shoal_hostdb::reading::{self, Found};
use shoal_store::{ListedCommit, StoreError};

use crate::args::{Blame, Diff, Log, Show};
use crate::changes;
use crate::failure::{Failure, Outcome};
use crate::names::{Name, Stretch, shown};
use crate::session::Session;

use super::get::left_out;

/// How many changed keys the log names of each commit.
const SHOWN: usize = 3;

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    info: CommitInfo,
    changed: usize,
    /// Of a commit of which not all is for who asks, some of them.
    keys: Vec<Key>,
    /// How many other rows it wrote, which are not.
    #[serde(skip_serializing_if = "is_none")]
    hidden: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_none(hidden: &usize) -> bool {
    *hidden == 0
}

pub(crate) async fn log(session: &mut Session, args: Log) -> Outcome {
    let keys = args.names.iter().filter_map(|of| match of {
        Stretch::One(key) => Some(key),
        Stretch::Namespace(_) => None,
    });
    let never = reading::never(&*session.store, keys).await;
    if let Some(key) = never.map_err(Failure::reading("the database"))? {
        return Err(session.missing::<()>(&Found::Never, key).await);
    }
    let ranges_of = |of: &Stretch| match of {
        Stretch::One(key) => history::ranges_of(key),
        Stretch::Namespace(prefix) => vec![Range::Prefix(prefix.clone())],
    };
    let ranges: Vec<Range> = args.names.iter().flat_map(ranges_of).collect();
    let before = args.before.map(Revision);
    let limit = args.limit.max(1);
    let all: Vec<Entry> = match history::log(&*session.store, &ranges, before, limit).await {
        Ok((entries, _)) => {
            let entry = |entry: LogEntry| Entry {
                changed: entry.changes.len(),
                keys: entry.changes.into_iter().map(|c| c.key).collect(),
                info: entry.info,
                hidden: 0,
            };
            entries.into_iter().map(entry).collect()
        }
        Err(denied @ StoreError::Denied { .. }) => listed(session, &ranges, before, limit, denied).await?,
        Err(error) => return Err(Failure::reading("the log")(error)),
    };
    session.out.print(&all, |out| {
        let rows = all.iter().map(|entry| {
            let mut what: Vec<String> = entry.keys.iter().take(SHOWN).map(ToString::to_string).collect();
            if entry.changed > SHOWN {
                what.push(format!("… {} in all", entry.changed));
            }
            if entry.hidden > 0 {
                what.push(format!("{} not for you", entry.hidden));
            }
            vec![
                entry.info.revision.to_string(),
                time(&entry.info),
                who(&entry.info),
                entry.info.origin.clone().unwrap_or_default(),
                entry.info.message.lines().next().unwrap_or_default().to_owned(),
                what.join(", "),
            ]
        });
        out.table(
            &["REVISION", "TIME", "AUTHOR", "FROM", "MESSAGE", "CHANGED"],
            rows.collect(),
            "nothing was ever written here",
        )
    })
}

/// The log as a server lists it, without what is not for who asks. `denied` is why it is not read whole.
async fn listed(
    session: &Session,
    ranges: &[Range],
    mut before: Option<Revision>,
    limit: usize,
    denied: StoreError,
) -> Outcome<Vec<Entry>> {
    let (mut all, mut hidden) = (Vec::new(), 0);
    loop {
        let page = session.store.list_log(ranges, before, limit - all.len()).await;
        let Some(page) = page.map_err(Failure::reading("the log"))? else {
            return Err(Failure::reading("the log")(denied));
        };
        hidden += page.hidden;
        let entry = |ListedCommit { info, changed, keys, hidden }| Entry { info, changed, keys, hidden };
        all.extend(page.items.into_iter().map(entry));
        match page.next {
            Some(next) if all.len() < limit => before = Some(next),
            _ => break,
        }
    }
    left_out(hidden, "commit");
    Ok(all)
}

/// Whose a commit is, and who sent it where that is somebody else.
fn who(info: &CommitInfo) -> String {
    match info.principal.as_ref().filter(|principal| **principal != info.author) {
        Some(principal) => format!("{} (by {principal})", info.author),
        None => info.author.clone(),
    }
}

fn time(info: &CommitInfo) -> String {
    info.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

pub(crate) async fn show(session: &mut Session, args: Show) -> Outcome {
    let revision = Revision(args.revision);
    let found = history::commit(&*session.store, revision).await.map_err(Failure::reading("the log"))?;
    let Some(LogEntry { info, changes }) = found else {
        return Err(Failure::Missing(format!("there is no commit {revision}; `shoal log` lists the newest")));
    };
    let before = Revision(args.revision.saturating_sub(1));
    let changes = changes::before(&*session.store, changes, Some(before)).await?;
    let value = serde_json::json!({"commit": info, "changes": changes});
    session.out.print(&value, |out| {
        let CommitInfo { revision, message, origin, .. } = &info;
        let from = origin.as_ref().map(|origin| format!("from     {origin}\n")).unwrap_or_default();
        let (author, time) = (who(&info), time(&info));
        let head =
            format!("revision {revision}\nauthor   {author}\n{from}time     {time}\n\n    {message}\n\n");
        head + &changes::text(out, &changes)
    })
}

#[derive(Serialize)]
struct Blamed {
    values: Vec<Line<CommitInfo>>,
    /// Of a tag: its own members and since when each is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    members: Vec<Since>,
}

#[derive(Serialize)]
struct Since {
    member: Member,
    by: CommitInfo,
}

pub(crate) async fn blame(session: &mut Session, args: Blame) -> Outcome {
    let Name(key) = args.name;
    session.exists(&key, None).await?;
    let failed = || Failure::reading(format!("the history of {}", shown(&key)));
    let values = history::blame(&*session.store, &key, None).await.map_err(failed())?.unwrap_or_default();
    let mut blamed = Blamed { values, members: Vec::new() };
    if let Kind::Tag(tag) = key.kind() {
        blamed.members = members(session, &tag).await?;
    }
    session.out.print(&blamed, |out| {
        let by = |info: &CommitInfo| {
            let message = info.message.lines().next().unwrap_or_default().to_owned();
            [info.revision.to_string(), time(info), info.author.clone(), message]
        };
        let row = |what: String, info: &CommitInfo, value: String| {
            std::iter::once(what).chain(by(info)).chain([value]).collect::<Vec<String>>()
        };
        let value =
            |line: &Line<CommitInfo>| row(plain(&line.path), &line.by, crate::out::plain(&line.value));
        let member = |since: &Since| row("member".to_owned(), &since.by, since.member.to_string());
        let rows = blamed.values.iter().map(value).chain(blamed.members.iter().map(member)).collect();
        out.table(&["FIELD", "REVISION", "TIME", "AUTHOR", "MESSAGE", "VALUE"], rows, "nothing is said there")
    })
}

/// A tag's members with the commits that made them so.
async fn members(session: &Session, tag: &TagName) -> Outcome<Vec<Since>> {
    let view = session.view(None).await?;
    let members = view.direct_members(tag);
    let mut infos: BTreeMap<Revision, CommitInfo> = BTreeMap::new();
    for revision in members.iter().map(|(_, revision)| *revision).collect::<BTreeSet<_>>() {
        let found = history::commit(&*session.store, revision).await.map_err(Failure::reading("the log"))?;
        infos.extend(found.map(|entry| (revision, entry.info)));
    }
    let since = |(member, revision)| Some(Since { member, by: infos.get(&revision)?.clone() });
    Ok(members.into_iter().filter_map(since).collect())
}

/// A JSON pointer as people write fields.
pub(super) fn plain(path: &str) -> String {
    path.trim_start_matches('/').replace('/', ".").replace("~1", "/").replace("~0", "~")
}

pub(crate) async fn diff(session: &mut Session, args: Diff) -> Outcome {
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let (from, to) = (Revision(args.from), args.to.map_or(head.revision, Revision));
    let ranges: Vec<Range> = args.names.iter().flat_map(|Name(key)| history::ranges_of(key)).collect();
    let changed = history::between(&*session.store, &ranges, from, to).await;
    let changed = changed.map_err(Failure::reading(format!("revisions {from} and {to}")))?;
    session.out.print(&changed, |out| match changed.is_empty() {
        true => format!("nothing differs between revisions {from} and {to}\n"),
        false => changes::text(out, &changed),
    })
}
