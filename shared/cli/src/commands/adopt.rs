//! `shoal adopt`: a person gives Shoal what stands in the way of its items.
//!
//! Each clash has a digest of what is there and of what is wanted, and the row repeats the digests: an agent that sees
//! anything else there, or wants anything else by then, goes on holding.

use serde::Serialize;
use serde_json::Value;
use shoal_core::{Clash, Document, Edit, Key, Namespace};

use super::approve::{known, standing, units};
use crate::args::Adopt;
use crate::failure::{Failure, Outcome};
use crate::out::Out;
use crate::session::Session;

/// The clashes of one unit.
#[derive(Serialize)]
struct Clashing {
    unit: String,
    clashes: Vec<Clash>,
    /// How many there are in all.
    total: u64,
    #[serde(skip)]
    row: (Namespace, String),
}

pub(crate) async fn run(session: &mut Session, args: Adopt) -> Outcome {
    let mut all = clashing(session).await?;
    let Some(name) = args.unit else {
        return session.out.print(&all, |out| {
            let row = |unit: &Clashing, clash: &Clash| {
                vec![unit.unit.clone(), clash.key.clone(), short(&clash.there), short(&clash.wanted)]
            };
            let rows = all.iter().flat_map(|unit| unit.clashes.iter().map(|clash| row(unit, clash)));
            out.table(&["UNIT", "ITEM", "THERE", "WANTED"], rows.collect(), "nothing is in the way")
                + &left(&all)
        });
    };
    let name = known(&name.agent, &name.unit, all.iter().map(|unit| unit.unit.as_str()));
    let Some(at) = all.iter().position(|unit| unit.unit == name) else {
        return Err(Failure::Missing(format!(
            "nothing is in the way in {name}, so there is nothing to adopt; `shoal adopt` lists what is"
        )));
    };
    let mut unit = all.swap_remove(at);
    let in_the_way = unit.clashes.clone();
    if !args.items.is_empty() {
        if let Some(other) = args.items.iter().find(|item| unit.clashes.iter().all(|c| c.key != **item)) {
            return Err(Failure::Missing(format!(
                "nothing was adopted: nothing is in the way of {other}; `shoal adopt {name} --plan` lists what is"
            )));
        }
        unit.clashes.retain(|clash| args.items.contains(&clash.key));
        unit.total = unit.clashes.len() as u64;
    }
    let now = digests(&unit);
    if args.digest.as_ref().is_some_and(|seen| *seen != now) {
        return Err(Failure::Held(format!(
            "nothing was adopted: what is in the way in {name} is not what was shown any more; look again with \
             `shoal adopt {name} --plan`"
        )));
    }
    if args.plan {
        let items: String = args.items.iter().map(|item| format!("{item} ")).collect();
        let exactly = format!("to adopt exactly this: shoal adopt {name} {items}--digest {now} -m WHY\n");
        let shown = |out: &Out| text(out, &unit) + &left(std::slice::from_ref(&unit)) + &exactly;
        session.out.print(&unit, shown)?;
        return Err(Failure::Pending);
    }
    if session.out.is_text() {
        let shown = text(&session.out, &unit);
        session.out.write(&shown)?;
    }
    let other = |e: &dyn std::fmt::Display| Failure::Other(anyhow::anyhow!("cannot adopt in {name}: {e}"));
    let (agent, row) = &unit.row;
    let key = Key::approval(agent, Some(row)).map_err(|e| other(&e))?;
    let (mut approval, expect) = standing(session, &key, &in_the_way).await?;
    approval.adopt.extend(unit.clashes.into_iter().map(|c| (c.key, c.digest)));
    let value = Document::of(&approval).map_err(|e| other(&e))?;
    session.write(&args.sign, false, vec![Edit::Write { key, value, expect }]).await
}

async fn clashing(session: &Session) -> Outcome<Vec<Clashing>> {
    let all = units(session).await?.into_iter().filter(|(_, _, unit)| !unit.clashes.is_empty());
    let clashing = |(agent, name, unit): (Namespace, String, shoal_core::UnitStatus)| Clashing {
        unit: format!("{agent}/{name}"),
        clashes: unit.clashes,
        total: unit.clashes_total,
        row: (agent, name),
    };
    Ok(all.map(clashing).collect())
}

/// Names exactly these clashes.
fn digests(unit: &Clashing) -> String {
    let digests: Vec<&str> = unit.clashes.iter().map(|clash| clash.digest.as_str()).collect();
    digests.join(",")
}

/// What one side is, on one line.
fn short(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn text(out: &Out, unit: &Clashing) -> String {
    let mut text = format!("in {}, Shoal would have for its own, and change where it differs:\n", unit.unit);
    for clash in &unit.clashes {
        text.push_str(&format!("{}\n", clash.key));
        let differs = [('-', &clash.there), ('+', &clash.wanted)];
        let sides = if clash.there == clash.wanted { &[('=', &clash.there)][..] } else { &differs };
        for (sign, side) in sides {
            text.push_str(&out.diff_line(&format!("  {sign} {}", short(side))));
            text.push('\n');
        }
    }
    text
}

/// That more is in the way than is told at once.
fn left(all: &[Clashing]) -> String {
    let more = |unit: &Clashing| unit.total.saturating_sub(unit.clashes.len() as u64);
    let say = |unit: &Clashing| format!("{}: {} more follow when these are settled\n", unit.unit, more(unit));
    all.iter().filter(|unit| more(unit) > 0).map(say).collect()
}
