//! `shoal scale` and `shoal range`: how many machines a group has, and which numbers and addresses its members hold.
//!
//! What follows is worked out by what the placement agent decides with, as things stand and without what it measures.

use std::fmt::Write as _;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use shoal_core::{Document, Edit, Expect, HostId, Key, Lifecycle, Revision, TagName, View, prepare_as};
use shoal_group::{Act, At, Decision, Group, Groups, Held, Holder, Holdings, Pool, RANGES, Range, decide};

use super::put::{PATIENCE, chance, is_late};
use crate::args::{RangeCommand, RangeWork, Scale};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// So many steps are shown.
const SHOWN: usize = 20;

/// What a group does next.
#[derive(Serialize)]
struct Follows {
    group: TagName,
    asked: u32,
    wanted: u32,
    /// Whether the number that was asked for decides, within the bounds.
    #[serde(skip)]
    by_document: bool,
    why: String,
    there: usize,
    steps: Vec<Shown>,
    waits: Vec<Waits>,
    /// What comes later if all goes on as it is: after how many seconds how many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ahead: Vec<(u64, u32)>,
}

#[derive(Serialize)]
struct Shown {
    act: &'static str,
    host: String,
    slot: u32,
    why: String,
}

#[derive(Serialize)]
struct Waits {
    what: String,
    why: String,
}

pub(crate) async fn scale(session: &mut Session, args: Scale) -> Outcome {
    let Scale { group, count, plan, sign } = args;
    let database = session.database().await?;
    let (begun, mut most) = (Instant::now(), 8);
    loop {
        let view = database.view();
        let was = known(&view, &group)?;
        let revision = view.tag_revision(&group).unwrap_or_default();
        let patch = json!({"document": {"group": {"count": count}}});
        let edit = Edit::Patch { key: Key::tag(&group), patch, expect: Expect::At(revision) };
        let tried = session.proposal(&sign, true, vec![edit.clone()]).await?;
        let mut new_id = || HostId(uuid::Uuid::now_v7().to_string());
        let next = Revision(view.revision().0 + 1);
        let (_, after) = prepare_as(&view, &tried, &mut new_id, next)
            .map_err(|refusal| Failure::Refused(Box::new(refusal)))?;
        let follows = follows(&after, &group, count, (session.env.now)())?;
        if plan {
            session.out.print(&follows, |_| text(&follows))?;
            let same = was.spec.count == Some(count) && follows.steps.is_empty();
            return if same { Ok(()) } else { Err(Failure::Pending) };
        }
        match session.write_to(&database, &sign, false, vec![edit]).await {
            Err(failure) if is_late(&failure, false) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(chance(most)).await;
                most = (most * 2).min(500);
            }
            done => {
                done?;
                return if session.out.is_text() { session.out.write(&text(&follows)) } else { Ok(()) };
            }
        }
    }
}

/// A group that is there and can be understood.
fn known(view: &View, tag: &TagName) -> Outcome<Group> {
    let groups = Groups::read(view);
    if let Some(group) = groups.groups.into_iter().find(|group| group.tag == *tag) {
        return Ok(group);
    }
    let wrong = groups.trouble.into_iter().find(|one| one.what == tag.as_str());
    Err(Failure::Missing(match (wrong, view.tag(tag)) {
        (Some(wrong), _) => format!("{tag}: {}", wrong.why),
        (None, Some(_)) => format!("{tag} is no group: a group is a tag vm/NAME whose document says `group`"),
        (None, None) => format!("there is no {tag}; `shoal get vm/` lists what there is"),
    }))
}

fn follows(view: &View, tag: &TagName, asked: u32, now: jiff::Timestamp) -> Outcome<Follows> {
    let mut groups = Groups::read(view);
    let group = known(view, tag)?;
    let at = At { now, measured: None, seed: 0, most: usize::MAX, refused: None };
    let Decision { size, steps, waits, .. } = decide(view, &group, &mut groups.ranges, &at);
    let act = |act: &Act| match act {
        Act::Make { again: false, .. } => "make",
        Act::Make { again: true, .. } => "make anew",
        Act::Drain(_) => "drain",
        Act::Keep => "keep",
        Act::Retire => "retire",
        Act::Release => "release",
    };
    let shown = steps.into_iter().map(|step| Shown {
        act: act(&step.act),
        host: step.host.to_string(),
        slot: step.slot,
        why: step.why,
    });
    let waits = waits.into_iter().map(|wait| Waits {
        what: wait.host.map_or_else(|| tag.to_string(), |host| host.to_string()),
        why: wait.why,
    });
    Ok(Follows {
        group: tag.clone(),
        asked,
        wanted: size.wanted,
        by_document: size.by_document,
        why: size.why,
        there: group.members.len(),
        steps: shown.collect(),
        waits: waits.collect(),
        ahead: size.ahead.into_iter().map(|(after, count)| (after.as_secs(), count)).collect(),
    })
}

fn text(follows: &Follows) -> String {
    let Follows { group, asked, wanted, by_document, why: number, there, steps, waits, ahead } = follows;
    let mut text = match *by_document {
        true => format!("{group}: {wanted} wanted, {there} there\n"),
        false => format!("{group}: {wanted} wanted ({number}), {there} there\n"),
    };
    if *by_document && asked != wanted {
        let (side, bound) = if asked > wanted { ("more", "max") } else { ("less", "min") };
        let _ = writeln!(text, "  {asked} is {side} than `{bound}: {wanted}`");
    }
    // Where the number comes from is said above, or by whoever asked for it.
    let number = format!("({number})");
    let without = |why: &str| why.replace(&format!(" {number}"), "");
    for Shown { act, host, slot, why } in steps.iter().take(SHOWN) {
        let why = Some(format!("({})", without(why))).filter(|why| *why != number);
        let why = why.map(|why| format!(" {why}")).unwrap_or_default();
        let _ = writeln!(text, "  {act} {host} as slot {slot}{why}");
    }
    if steps.len() > SHOWN {
        let _ = writeln!(text, "  … {} in all", steps.len());
    }
    for Waits { what, why } in waits.iter().take(SHOWN) {
        let _ = writeln!(text, "  . {what}: {}", without(why));
    }
    for (after, count) in ahead {
        let _ = writeln!(text, "  - {count} in {after} s, if all goes on as it is");
    }
    text
}

pub(crate) async fn range(session: &mut Session, args: RangeCommand) -> Outcome {
    match args.work {
        RangeWork::List => list(session).await,
        RangeWork::Show { name } => show(session, &name).await,
        RangeWork::Free { name, id, plan, sign } => {
            let view = session.view(None).await?;
            let edit = freed(&view, &name, &id)?;
            session.write(&sign, plan, vec![edit]).await
        }
    }
}

/// A range in the list.
#[derive(Serialize)]
struct Listed {
    range: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    held: usize,
    free: String,
    /// Held by nobody who can.
    nobody: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrong: Option<String>,
}

async fn list(session: &mut Session) -> Outcome {
    let view = session.view(None).await?;
    let groups = Groups::read(&view);
    let one = |(name, range): (&String, &Range)| {
        let pool = range.pool.as_ref().ok();
        let count = pool.map_or(0, Pool::count);
        let nobody = |held: &&Held| groups.holder(&view, held) == Holder::Nobody;
        Listed {
            range: name.clone(),
            first: pool.and_then(|pool| pool.nth(0)),
            last: pool.and_then(|pool| pool.nth(count.saturating_sub(1))),
            held: range.taken(),
            free: count.saturating_sub(range.taken() as u128).to_string(),
            nobody: range.holdings.held.values().filter(nobody).count(),
            wrong: range.pool.as_ref().err().or(range.broken.as_ref()).cloned(),
        }
    };
    let all: Vec<Listed> = groups.ranges.0.iter().map(one).collect();
    session.out.print(&all, |out| {
        let row = |one: &Listed| {
            let of = match (&one.first, &one.last, &one.wrong) {
                (_, _, Some(wrong)) => wrong.clone(),
                (Some(first), Some(last), _) => format!("{first} to {last}"),
                _ => String::new(),
            };
            vec![one.range.clone(), of, one.held.to_string(), one.free.clone(), one.nobody.to_string()]
        };
        let empty = "no ranges: a range is a tag of ranges/";
        out.table(&["RANGE", "OF", "HELD", "FREE", "HELD BY NOBODY"], all.iter().map(row).collect(), empty)
    })
}

/// What of a range is held.
#[derive(Serialize)]
struct Holds {
    id: String,
    #[serde(flatten)]
    held: Held,
    /// Who can hold it, in words.
    by: String,
    can_be_freed: bool,
}

async fn show(session: &mut Session, name: &str) -> Outcome {
    let view = session.view(None).await?;
    let groups = Groups::read(&view);
    let range = groups.ranges.0.get(name).ok_or_else(|| missing(name))?;
    let one = |(id, held): (&String, &Held)| {
        let holder = groups.holder(&view, held);
        let held = held.clone();
        Holds { id: id.clone(), held, by: worded(holder), can_be_freed: holder == Holder::Nobody }
    };
    let mut all: Vec<Holds> = range.holdings.held.iter().map(one).collect();
    all.sort_by(|a, b| (a.id.len(), &a.id).cmp(&(b.id.len(), &b.id)));
    session.out.print(&all, |out| {
        let row = |one: &Holds| {
            let Held { group, slot, field, host } = &one.held;
            vec![
                one.id.clone(),
                host.to_string(),
                format!("{slot} of {group}"),
                field.clone(),
                one.by.clone(),
            ]
        };
        let rows = all.iter().map(row).collect();
        out.table(&["ID", "HOST", "SLOT", "FIELD", "STATE"], rows, "nothing of it is held")
    })
}

fn worded(holder: Holder) -> String {
    match holder {
        Holder::Slot(Some(state)) => state.to_string(),
        Holder::Slot(None) => "its host is deleted, and it may live".to_owned(),
        Holder::Host(state) => format!("{state}, and in no slot"),
        Holder::Unknown => "its group cannot be understood".to_owned(),
        Holder::Nobody => "nobody: it can be freed".to_owned(),
    }
}

fn missing(name: &str) -> Failure {
    Failure::Missing(format!("there is no range {name}; `shoal range list` lists all"))
}

/// What frees it, if nobody can hold it any more.
fn freed(view: &View, name: &str, id: &str) -> Outcome<Edit> {
    let groups = Groups::read(view);
    let range = groups.ranges.0.get(name).ok_or_else(|| missing(name))?;
    let held = range.holdings.held.get(id).ok_or_else(|| {
        Failure::Missing(format!("nobody holds {id} of {name}; `shoal range show {name}` shows what is held"))
    })?;
    let Held { group, slot, host, .. } = held;
    match groups.holder(view, held) {
        Holder::Nobody => {}
        Holder::Slot(None) => {
            return Err(Failure::Held(format!(
                "nothing was freed: slot {slot} of {group} holds {id}, its host {host} is deleted, and its machine may live; if it is \
                 gone, write that host with `state: retired` and the id that `shoal status placement -v` names, which gives all of it back"
            )));
        }
        Holder::Slot(Some(Lifecycle::Retired)) => {
            return Err(Failure::Held(format!(
                "nothing was freed: slot {slot} of {group} holds {id}, and has it again when it is made anew, or gives it back when it is \
                 given up; the placement agent does either"
            )));
        }
        Holder::Slot(Some(state)) | Holder::Host(state) => {
            return Err(Failure::Held(format!(
                "nothing was freed: {host} holds {id}, and is {state}; `shoal scale {group} N` makes a group smaller"
            )));
        }
        Holder::Unknown => {
            return Err(Failure::Held(format!(
                "nothing was freed: {group} cannot be understood; mend it first"
            )));
        }
    }
    let key: Key = format!("facts/placement/{RANGES}/{name}")
        .parse()
        .map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
    let row = view.row(&key).zip(view.revision_of(&key));
    let (row, revision) = row.ok_or_else(|| missing(name))?;
    let mut holdings: Holdings =
        row.to().map_err(|e| Failure::Other(anyhow::anyhow!("{key} cannot be understood: {e}")))?;
    holdings.held.remove(id);
    let value = Document::of(&holdings).map_err(|e| Failure::Other(anyhow::anyhow!("{key}: {e}")))?;
    Ok(Edit::Write { key, value, expect: Expect::At(revision) })
}
