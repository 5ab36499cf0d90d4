//! What became of a resource: its revisions, who wrote each line of it, and when it last changed.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde_json::Value;
use shoal_core::{CommitInfo, Key, LogEntry, Range, Revision};
use shoal_store::StoreError;

use super::fault::{Answer, Fault};
use super::get::known;
use super::given::Given;
use super::id::{Object, Resource};
use super::yaml::yaml;
use crate::access::Caller;
use crate::app::App;
use crate::history;

/// How many revisions are listed unless another number is asked for.
const REVISIONS: usize = 50;

/// The last revisions, newest first, a line each: `id - author, date : message`.
pub(super) async fn revisions(app: &App, caller: &Caller, of: &Resource, given: &Given) -> Answer<String> {
    let limit = given.number("limit")?.filter(|&n| n > 0).unwrap_or(REVISIONS).min(app.limits.max_page);
    let before = reached(app, given.revision()?).await?.map(history::after);
    let (entries, _) = history::log(&**app.db.store(), &ranges(of)?, before, limit).await?;
    if entries.is_empty() && !matches!(of, Resource::Root | Resource::Members(_)) {
        return Err(Fault::not_found("Resource does not exist, and never did."));
    }
    // Of who may do what nothing is told here.
    let told = |entry: &&LogEntry| caller.entry(entry).is_none_or(|seen| !seen.changes.is_empty());
    let lines: Vec<String> = entries.iter().filter(told).map(|entry| line(&entry.info)).collect();
    Ok(lines.join("\n"))
}

fn ranges(of: &Resource) -> Answer<Vec<Range>> {
    let ranges = of.ranges();
    if ranges.is_empty() { Err(Fault::not_found("There are no rules of access here.")) } else { Ok(ranges) }
}

fn line(info: &CommitInfo) -> String {
    let subject = info.message.lines().next().unwrap_or_default();
    format!("{} - {}, {} : {subject}", info.revision, info.author, date(info))
}

/// As git writes dates: `2026-11-29 02:35:30 +0000`.
fn date(info: &CommitInfo) -> String {
    info.time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S %z").to_string()
}

/// When it last changed as of `at` (`None`: now), in seconds since 1970.
pub(super) async fn mtime(app: &App, of: &Resource, at: Option<Revision>) -> Option<i64> {
    let ranges = Some(of.ranges()).filter(|ranges| !ranges.is_empty())?;
    let (entries, _) = history::log(&**app.db.store(), &ranges, at.map(history::after), 1).await.ok()?;
    Some(entries.first()?.info.time.as_second())
}

/// The same revision, if there is one of that number yet: logs of what comes after the newest just end there.
async fn reached(app: &App, at: Option<Revision>) -> Answer<Option<Revision>> {
    if let Some(asked) = at {
        let newest = app.db.store().head().await?.revision;
        if asked > newest {
            return Err(StoreError::Future { asked, newest }.into());
        }
    }
    Ok(at)
}

/// Each value, or each member, with who last wrote it as of `at` (`None`: now): `id (author date) value`.
pub(super) async fn blame(app: &App, of: &Resource, at: Option<Revision>) -> Answer<String> {
    let at = reached(app, at).await?;
    let store = &**app.db.store();
    match of {
        Resource::Object(object) | Resource::Inside(object, _) => {
            let below = if let Resource::Inside(_, path) = of { path.as_slice() } else { &[] };
            values(app, object, below, at).await
        }
        Resource::Members(tag) => {
            let view = app.db.as_of(at).await?;
            known(&view, tag)?;
            let members = view.direct_members(tag);
            if members.len() > app.limits.max_page {
                let most = app.limits.max_page;
                return Err(Fault::bad_request(format!(
                    "{tag} has more than {most} members: ask for them one by one"
                )));
            }
            let mut text = String::new();
            for (member, _) in members {
                let wrote =
                    store.log(&Range::Key(Key::member(tag, &member)), at.map(history::after), 1).await?;
                if let Some(entry) = wrote.first() {
                    push(&mut text, &entry.info, member.as_str());
                }
            }
            Ok(text)
        }
        _ => Err(Fault::not_allowed("Only hosts, tags and members have a blame.")),
    }
}

async fn values(app: &App, object: &Object, below: &[String], at: Option<Revision>) -> Answer<String> {
    let key = object.key();
    let missing = || Fault::not_found(format!("Resource {key} does not exist."));
    let values = history::blame(&**app.db.store(), &key, at).await?.ok_or_else(missing)?;
    let mut text = String::new();
    for value in values {
        // Of the row only the document is what HostDB calls the value.
        let Some(path) = value.path.strip_prefix("/document/") else { continue };
        let names: Vec<String> =
            path.split('/').map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
        if names.starts_with(below) {
            let said = match &value.value {
                Value::String(text) => text.clone(),
                other => yaml(other)?.trim_start_matches("---").trim().to_owned(),
            };
            push(&mut text, &value.by, &format!("{}: {said}", names.join("/")));
        }
    }
    Ok(text)
}

fn push(text: &mut String, info: &CommitInfo, what: &str) {
    let _ = writeln!(text, "{} ({} {}) {what}", info.revision, info.author, date(info));
}
