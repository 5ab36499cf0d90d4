//! What placement says of a machine, for people: where it is and why there, why not elsewhere, or why it is nowhere. It is never cut: it is
//! what somebody asks for who finds a machine in the wrong place, or none.

use std::cmp::Reverse;

use serde_json::{Map, Value};

use crate::out::Out;

/// Who says it.
pub(super) const NAMESPACE: &str = "placement";
/// What it says of a machine. Of a box it says other things, and a machine may be one.
const FIELDS: [&str; 7] = ["box", "points", "together", "fallback", "over", "not", "no_room"];

/// The rows of it, under their heading; nothing where the fact says nothing of a machine.
pub(super) fn text(out: &Out, fact: &Value) -> String {
    let mut rows = Vec::new();
    let mut row = |field: &str, value: String| rows.push(vec![field.to_owned(), value]);
    if let Some(room) = fact["box"].as_str() {
        let points = fact["points"].as_u64().map(|points| format!(", {points} points")).unwrap_or_default();
        let with = match fact["together"].as_u64() {
            None | Some(0 | 1) => String::new(),
            Some(2) => ", planned with 1 other".to_owned(),
            Some(together) => format!(", planned with {} others", together - 1),
        };
        row("box", format!("{room}{points}{with}"));
    }
    if let Some(room) = fact["fallback"].as_str() {
        row("fallback", format!("{room}, if the box dies"));
    }
    for (room, points) in most_first(&fact["over"]) {
        row("over", format!("{room}, {points} points"));
    }
    for field in ["not", "no_room"] {
        for (why, count) in most_first(&fact[field]) {
            let rooms = if count == 1 { "box or zone" } else { "boxes or zones" };
            row(field, format!("{count} {rooms}: {why}"));
        }
    }
    if fact["no_room"].as_object().is_some_and(Map::is_empty) {
        row("no_room", "there are no boxes and no zones".to_owned());
    }
    if rows.is_empty() {
        return String::new();
    }
    format!("\nPlaced\n{}", out.table(&["FIELD", "VALUE"], rows, ""))
}

/// What it says besides, if anything.
pub(super) fn rest(fact: &Value) -> Option<Value> {
    let Some(fields) = fact.as_object() else { return Some(fact.clone()) };
    let rest = fields.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str()));
    let rest: Map<String, Value> = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!rest.is_empty()).then_some(Value::Object(rest))
}

/// Numbers by their names, the greatest first.
fn most_first(numbers: &Value) -> Vec<(&str, u64)> {
    let numbers = numbers.as_object().into_iter().flatten();
    let mut numbers: Vec<(&str, u64)> =
        numbers.filter_map(|(name, number)| Some((name.as_str(), number.as_u64()?))).collect();
    numbers.sort_by_key(|(name, number)| (Reverse(*number), *name));
    numbers
}
