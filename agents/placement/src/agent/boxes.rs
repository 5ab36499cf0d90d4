//! What a host says under `box`: as a map, that it is a box or a zone, and what it has; as text, on which box it is itself.
//!
//! Text is what backup and monitoring read, and says nothing about room.

use serde::Deserialize as _;
use serde_json::{Map, Value};
use shoal_core::{Host, View};
use shoal_machine::place::{self, BOX};

use crate::choose::Room;

/// The page that says what a box may say, and where on it.
pub(super) const PAGE: &str = "docs/agents/placement.md, A box";
/// So many characters of what is wrong are shown.
const SHOWN: usize = 60;
/// The fields of a box, and what each is.
const FIELDS: [(&str, &str); 7] = [
    ("capacity", "how much of each resource, `{cpu: 64, memory: 274877906944}`"),
    ("overcommit", "percent by resource, `{cpu: 400}`"),
    ("labels", "text by name, `{ssd: \"yes\"}`"),
    ("state", "`open`, `closed`, `draining` or `dead`"),
    ("dedicated", "a list of tags, `[vm/kafka]`"),
    ("zone", "`true` or `false`"),
    ("price", "millionths by resource, `{cpu: 30000}`"),
];

/// Whether the host is a room. One that has promised something is, also where it is text by now: what it holds counts.
pub(super) fn is_room(view: &View, host: &Host) -> bool {
    host.document.raw(BOX).is_some_and(|raw| !raw.starts_with('"') || has_promised(view, host))
}

fn has_promised(view: &View, host: &Host) -> bool {
    let fact = place::fact(view.facts(host.name.as_str()));
    let holds = fact.and_then(|fact| fact.document.field("holds"));
    holds.is_some_and(|holds| holds.as_object().is_none_or(|holds| !holds.is_empty()))
}

/// What the host says of itself as a room.
///
/// # Errors
/// What of it cannot be understood, in the words of the page that says what a box may say.
pub(super) fn read(host: &Host) -> Result<Room, String> {
    let said = host.field(BOX).unwrap_or_default();
    let why = match &said {
        Value::Object(fields) => match Room::deserialize(&said) {
            Ok(room) => return Ok(room),
            // Each field is understood or not by itself.
            Err(e) => fields
                .iter()
                .find_map(|(name, value)| odd(name, value))
                .unwrap_or_else(|| format!("its `{BOX}` cannot be understood: {e}")),
        },
        Value::String(_) => format!(
            "its `{BOX}` says that it is on {}, and it has given out room as a box itself: say `{BOX}: {{capacity: …}}` again, or retire \
             what stands there",
            short(&said)
        ),
        other => format!(
            "its `{BOX}` is {}; a box says `{BOX}: {{capacity: …}}`, and who is on one names it, `{BOX}: box1.example.com`",
            short(other)
        ),
    };
    Err(format!("{why} ({PAGE})"))
}

/// What is wrong with a field of a box; `None`: nothing.
fn odd(name: &str, value: &Value) -> Option<String> {
    let alone: Map<String, Value> = [(name.to_owned(), value.clone())].into_iter().collect();
    Room::deserialize(&Value::Object(alone)).err()?;
    Some(match FIELDS.iter().find(|(field, _)| *field == name) {
        Some((_, is)) => format!("its `{BOX}.{name}` is {}, and not {is}", short(value)),
        None => {
            let fields = FIELDS.map(|(field, _)| format!("`{field}`")).join(", ");
            format!("its `{BOX}` says `{name}`, which a box has not: it has {fields}")
        }
    })
}

/// A value as people write it, not longer than a line bears.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shoal_core::{Document, HostId, Lifecycle, Revision};

    use super::*;

    fn said(value: &Value) -> Result<Room, String> {
        read(&Host {
            name: "box.example.com".parse().unwrap(),
            id: HostId("0198".to_owned()),
            state: Lifecycle::Active,
            owner: None,
            environment: None,
            expires: None,
            revision: Revision(1),
            document: Document::from(json!({"box": value})),
        })
    }

    #[test]
    fn each_field_is_told_by_what_it_should_be() {
        let whole = json!({
            "capacity": {"cpu": 4}, "overcommit": {"cpu": 400}, "labels": {"ssd": "yes"}, "state": "closed",
            "dedicated": ["vm/a"], "zone": true, "price": {"cpu": 30}
        });
        assert_eq!(whole.as_object().unwrap().len(), FIELDS.len());
        assert!(said(&whole).is_ok() && said(&json!({})).is_ok());
        for (field, is) in FIELDS {
            let mut odd = whole.clone();
            odd[field] = json!(7);
            let told = said(&odd).unwrap_err();
            assert_eq!(told, format!("its `box.{field}` is 7, and not {is} ({PAGE})"));
        }
        let told = said(&json!({"capacity": {"cpu": 4}, "capacty": {}})).unwrap_err();
        assert!(told.contains("says `capacty`, which a box has not: it has `capacity`, "), "{told}");
        let told = said(&json!({"capacity": "x".repeat(1000)})).unwrap_err();
        assert!(told.len() < 300 && told.contains("xx…, and not"), "{told}");
    }

    #[test]
    fn what_is_no_map_is_told_by_what_a_box_says() {
        for odd in [json!(7), json!([]), json!(true), json!("box1.example.com")] {
            let told = said(&odd).unwrap_err();
            assert!(told.contains(&odd.to_string()) && told.contains("`box: {capacity: …}`"), "{told}");
            assert!(told.ends_with(&format!(" ({PAGE})")) && !told.contains("invalid type"), "{told}");
        }
    }
}
