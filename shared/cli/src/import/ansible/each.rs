//! Tags of the values that a variable has: one for each, with the hosts that have it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use shoal_core::{HostName, TagName};

use super::Note;
use super::inventory::plain;
use super::mapping::Each;
use super::value::{boolean, convert, written};
use super::wanted::{Wanted, WantedHost};

/// What stands for the value.
const VALUE: &str = "{value}";

/// Puts a host into the tags of its values, and makes those that are not there.
pub(super) fn put(
    each: &Each,
    name: &HostName,
    vars: &Map<String, Value>,
    out: &mut Wanted,
    notes: &mut Vec<Note>,
) {
    let mut note = |why: String| notes.push(Note::new(name.to_string(), format!("{}: {why}", each.tag)));
    let only = each.only.as_ref().map(|var| vars.get(var).map(plain));
    match only {
        None => {}
        Some(Some(Ok(value))) if boolean(&value) == Some(true) => {}
        Some(None) => return,
        Some(Some(Ok(value))) if boolean(&value) == Some(false) => return,
        Some(Some(_)) => {
            note("whether it is meant cannot be read; left as it was".to_owned());
            return keep(each, name, out);
        }
    }
    let Some(raw) = each.from.vars.iter().find_map(|var| vars.get(var)) else { return };
    let values = match plain(raw) {
        Ok(Value::Array(list)) => list,
        // A map says of each name whether it is meant.
        Ok(Value::Object(map)) => {
            let meant = map.into_iter().filter(|(_, meant)| boolean(meant) == Some(true));
            meant.map(|(name, _)| Value::from(name)).collect()
        }
        Ok(Value::Null) => return,
        Ok(one) => vec![one],
        Err(why) => {
            note(format!("{why}; left as it was"));
            return keep(each, name, out);
        }
    };
    for value in values {
        let made = convert(&each.from, value).and_then(|value| {
            let text = written(&value).ok_or_else(|| format!("{value} is neither text nor a number"))?;
            let tag = each.tag.replace(VALUE, &text).parse::<TagName>().map_err(|why| why.to_string())?;
            Ok((tag, value, text))
        });
        match made {
            Err(why) => note(format!("{why}; it makes no tag")),
            Ok((tag, value, text)) => {
                let entry = out.tags.entry(tag.clone()).or_default();
                if entry.fields.is_empty() {
                    entry.fields = filled(&each.document, &value, &text);
                }
                if let Some(host) = out.hosts.get_mut(name) {
                    host.groups.insert(tag);
                }
            }
        }
    }
}

/// It is not known which of these tags the host is in: it stays in those where an earlier import put it.
fn keep(each: &Each, name: &HostName, out: &mut Wanted) {
    if let Some(host) = out.hosts.get_mut(name) {
        host.kept.push(each.tag.clone());
    }
}

impl WantedHost {
    /// The groups it stands in, where an earlier import put it into these.
    pub(super) fn groups(&self, before: &BTreeSet<TagName>) -> BTreeSet<TagName> {
        let kept = |tag: &&TagName| {
            self.kept.iter().any(|pattern| {
                let (start, end) = pattern.split_once(VALUE).unwrap_or((pattern, ""));
                tag.as_str().strip_prefix(start).is_some_and(|rest| rest.ends_with(end))
            })
        };
        before.iter().filter(kept).chain(&self.groups).cloned().collect()
    }
}

/// The document with the value in it: a text that is the value alone becomes what the value is, a number stays one.
fn filled(document: &Map<String, Value>, value: &Value, text: &str) -> Map<String, Value> {
    let fill = |(name, inner): (&String, &Value)| (name.replace(VALUE, text), of(inner, value, text));
    document.iter().map(fill).collect()
}

fn of(inner: &Value, value: &Value, text: &str) -> Value {
    match inner {
        Value::String(all) if all == VALUE => value.clone(),
        Value::String(part) => part.replace(VALUE, text).into(),
        Value::Array(list) => list.iter().map(|inner| of(inner, value, text)).collect(),
        Value::Object(map) => Value::Object(filled(map, value, text)),
        other => other.clone(),
    }
}
