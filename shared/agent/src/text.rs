//! Plans and previews for people.

use std::fmt::Write as _;

use shoal_engine::{Plan, PlannedStep, Preview, UnitPlan};

/// A plan, unit by unit.
pub(crate) fn plan(plan: &Plan) -> String {
    let mut out = format!("{} at revision {}\n", plan.agent, plan.revision);
    for unit in &plan.units {
        unit_plan(&mut out, unit);
    }
    for q in &plan.quarantined {
        let _ = writeln!(
            out,
            "quarantined {} since revision {}: {}; what it fed stays as it is",
            q.what, q.since, q.why
        );
    }
    if plan.units.is_empty() {
        out.push_str("no tag asks for anything\n");
    }
    out
}

fn unit_plan(out: &mut String, unit: &UnitPlan) {
    let quiet = unit.steps.is_empty() && unit.idle.is_empty();
    match &unit.resting {
        Some(why) if quiet => {
            let _ = writeln!(out, "{}: {why}, {} items", unit.unit, unit.items);
        }
        _ => {
            let _ = writeln!(out, "{}: {} changes, {} items", unit.unit, unit.steps.len(), unit.items);
        }
    }
    let asked = unit.hold.as_ref().map(|hold| format!("guard: {}", hold.why));
    for step in &unit.steps {
        line(out, step, asked.as_deref());
    }
    for idle in &unit.idle {
        let _ = writeln!(out, "  . {}: {}", idle.key, idle.why);
    }
    for left in &unit.left_out {
        let _ = writeln!(out, "  ! {}: left out {}: {}", left.key, left.who.join(", "), left.why);
    }
    if let Some(hold) = &unit.hold {
        let _ = writeln!(out, "  held: {}\n  agree with digest {}", hold.why, hold.digest);
    }
}

/// A change; `asked` is why the guard stops some of the unit, which is said once, below.
fn line(out: &mut String, step: &PlannedStep, asked: Option<&str>) {
    let _ = write!(out, "  {} {} ({}", step.verb, step.key, step.because);
    if let Some(host) = step.host.as_ref().filter(|host| !step.because.to_string().contains(host.as_str())) {
        let _ = write!(out, ", {host}");
    }
    if !step.fields.is_empty() {
        let _ = write!(out, ", changes {}", step.fields.join(", "));
    }
    out.push(')');
    if step.takes_total > 0 {
        let more = step.takes_total.saturating_sub(step.takes.len() as u64);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let _ =
            write!(out, " takes {} more items with it: {}{more}", step.takes_total, step.takes.join(", "));
    }
    let of_all = |held: &str| asked.is_some_and(|asked| held.trim_start_matches("held: ").starts_with(asked));
    match step.held.as_deref() {
        Some(held) if of_all(held) => out.push_str(" not now: held, see below"),
        Some(held) => {
            let _ = write!(out, " not now: {held}");
        }
        None => {}
    }
    out.push('\n');
}

/// A preview, item by item.
pub(crate) fn preview(preview: &Preview) -> String {
    let mut out = format!("{} on top of revision {}\n", preview.agent, preview.revision);
    for wish in &preview.wishes {
        let sign = match (&wish.before, &wish.after, &wish.blocked) {
            (_, _, Some(_)) => '!',
            (None, _, _) => '+',
            (_, None, _) => '-',
            _ => '~',
        };
        let _ = write!(out, "{sign} {} {}", wish.unit, wish.key);
        if let Some(why) = &wish.blocked {
            let _ = write!(out, ": {why}; it would stay as it is");
        }
        out.push('\n');
    }
    for q in &preview.quarantined {
        let _ = writeln!(out, "! {}: {}", q.what, q.why);
    }
    if preview.is_empty() {
        out.push_str("nothing would be wanted otherwise\n");
    }
    out
}
