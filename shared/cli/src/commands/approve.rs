//! `shoal approve`: a person agrees to a batch that a guard stopped.
//!
//! What is held has a digest that names exactly its changes; the approval repeats it. If the batch changes before the
//! agent sees the approval, the digest is another one and the agent goes on holding.

use std::collections::BTreeMap;

use serde::Serialize;
use shoal_core::{
    Approval, BadName, Clash, Document, Edit, Expect, Hold, Key, Life, Namespace, Range, UnitStatus,
};
use shoal_store::Query;

use crate::args::Approve;
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use crate::session::Session;

#[derive(Clone, Serialize)]
struct Held {
    unit: String,
    #[serde(flatten)]
    hold: Hold,
    /// The agent, where the approval is of another life of the database, and so for all of its units.
    #[serde(skip_serializing_if = "Option::is_none")]
    all_of: Option<String>,
    /// The row that approves it.
    #[serde(skip)]
    row: Result<Key, BadName>,
    #[serde(skip)]
    clashes: Vec<Clash>,
}

pub(crate) async fn run(session: &mut Session, args: Approve) -> Outcome {
    let all = held(session).await?;
    let Some(name) = args.unit else {
        return session.out.print(&all, |out| {
            let row = |h: &Held| vec![h.unit.clone(), counts(&h.hold), h.hold.briefly().to_owned()];
            let rows = all.iter().map(row).collect();
            out.table(&["UNIT", "WOULD", "WHY"], rows, "nothing is held")
        });
    };
    let name = known(&name.agent, &name.unit, all.iter().map(|held| held.unit.as_str()));
    let mut others: Vec<String> = Vec::new();
    if let Some(agent) = all.iter().find(|h| h.unit == name).and_then(|h| h.all_of.clone()) {
        let too = all.iter().filter(|h| h.all_of.as_ref() == Some(&agent) && h.unit != name);
        others.extend(too.map(|h| h.unit.clone()));
    }
    let Some(held) = all.into_iter().find(|h| h.unit == name) else {
        return Err(Failure::Missing(format!(
            "nothing is held in {name}, so there is nothing to approve; `shoal approve` lists what is held"
        )));
    };
    if let Some(seen) = args.digest.filter(|seen| *seen != held.hold.digest) {
        return Err(Failure::Held(format!(
            "nothing was approved: what is held in {name} is not {seen} any more, but {}; look again with \
             `shoal approve {name} --plan`",
            held.hold.digest
        )));
    }
    if args.plan {
        let exactly = format!(
            "to agree to exactly this{}: shoal approve {name} --digest {} -m WHY\n",
            if held.all_of.is_some() { ", and to all that is held for the same reason" } else { "" },
            held.hold.digest
        );
        session.out.print(&held, |out| text(out, &held, &others) + &exactly)?;
        return Err(Failure::Pending);
    }
    if session.out.is_text() {
        let shown = text(&session.out, &held, &others);
        session.out.write(&shown)?;
    }
    let key = held.row.map_err(|e| Failure::Other(anyhow::anyhow!("cannot approve {name}: {e}")))?;
    let (mut approval, expect) = standing(session, &key, &held.clashes).await?;
    approval.digest = held.hold.digest;
    let value =
        Document::of(&approval).map_err(|e| Failure::Other(anyhow::anyhow!("cannot approve {name}: {e}")))?;
    session.write(&args.sign, false, vec![Edit::Write { key, value, expect }]).await
}

/// A unit as it is listed. Where an agent names its units after tags, people write the tag and not its namespace twice.
pub(super) fn known<'a>(
    agent: &Namespace,
    unit: &str,
    mut listed: impl Iterator<Item = &'a str> + Clone,
) -> String {
    let (plain, twice) = (format!("{agent}/{unit}"), format!("{agent}/{agent}/{unit}"));
    if listed.clone().all(|one| one != plain) && listed.any(|one| one == twice) { twice } else { plain }
}

/// What a person said of a unit and is still waited for, which what he says now is added to; and that nobody says
/// anything meanwhile.
pub(super) async fn standing(session: &Session, key: &Key, clashes: &[Clash]) -> Outcome<(Approval, Expect)> {
    let query = Query::new(Range::Key(key.clone()));
    let page = session.store.read(&query).await.map_err(Failure::reading("the approvals"))?;
    let Some(row) = page.rows.into_iter().next() else { return Ok((Approval::default(), Expect::Absent)) };
    // One that cannot be read says nothing.
    let text = row.value.as_ref().map_or("", |value| value.as_str());
    let mut approval: Approval = serde_json::from_str(text).unwrap_or_default();
    approval.adopt.retain(|key, digest| clashes.iter().any(|c| c.key == *key && c.digest == *digest));
    Ok((approval, Expect::At(row.revision)))
}

/// What waits for a person.
async fn held(session: &Session) -> Outcome<Vec<Held>> {
    let head = session.store.head().await.map_err(Failure::reading("the database"))?;
    let hold = |(agent, name, unit): (Namespace, String, UnitStatus)| {
        let hold = unit.held?;
        let epoch = hold.digest == format!("{:016x}", head.epoch.0);
        let row = Key::approval(&agent, Some(name.as_str()).filter(|_| !epoch));
        let all_of = epoch.then(|| agent.to_string());
        Some(Held { unit: format!("{agent}/{name}"), hold, all_of, row, clashes: unit.clashes })
    };
    Ok(units(session).await?.into_iter().filter_map(hold).collect())
}

/// Every unit that an instance which has not died works on, by name: the newest word on it counts.
pub(super) async fn units(session: &Session) -> Outcome<Vec<(Namespace, String, UnitStatus)>> {
    let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
    let now = (session.env.now)();
    let past = |report: &shoal_core::Status| matches!(Life::of(report, now), Life::Dead | Life::Stopped);
    let mut reports: Vec<_> = reports.into_iter().filter(|report| !past(report)).collect();
    reports.sort_by_key(|r| std::cmp::Reverse(r.at));
    let mut all = BTreeMap::new();
    for report in reports {
        for (name, unit) in report.units.into_iter().filter(|(_, unit)| !unit.elsewhere) {
            all.entry((report.agent.clone(), name)).or_insert(unit);
        }
    }
    Ok(all.into_iter().map(|((agent, name), unit)| (agent, name, unit)).collect())
}

fn counts(hold: &Hold) -> String {
    format!("make {}, change {}, remove {} of {}", hold.create, hold.update, hold.remove, hold.of)
}

fn text(out: &Out, held: &Held, others: &[String]) -> String {
    let mut text = format!("{} is held: {}\nit would {}:\n", held.unit, held.hold.why, counts(&held.hold));
    for line in &held.hold.sample {
        text.push_str(&out.diff_line(&format!("  {line}")));
        text.push('\n');
    }
    let total = held.hold.create + held.hold.update + held.hold.remove;
    let more = total.saturating_sub(held.hold.sample.len() as u64);
    if more > 0 {
        text.push_str(&format!("  … and {more} more\n"));
    }
    if let Some(agent) = &held.all_of {
        let also =
            if others.is_empty() { String::new() } else { format!(", also for {}", others.join(", ")) };
        text.push_str(&format!("the database was restored: an approval is for all units of {agent}{also}\n"));
    }
    text
}
