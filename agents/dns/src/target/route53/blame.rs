//! Which records of a batch were refused, by what the service says of it.
//!
//! Its words name a record by name, type and set, by its name alone, or by nothing but its value. Where they name none of the batch,
//! nobody is blamed, and halves of the batch find it.

use std::collections::BTreeMap;

use aws_sdk_route53::types::Change;

use super::batch::Work;
use super::name;

/// What is wrong with one edit of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// What is there is not what it was made for.
    Stale,
    /// What is there has the same name, and other values than were sent to be deleted.
    Differs,
    /// It can never be made, for this.
    Bad(String),
}

/// Those of a batch that the words of a refusal name, by their place in it.
pub(super) fn blamed(messages: &[String], work: &[Work<'_>]) -> BTreeMap<usize, Blame> {
    let mut found = BTreeMap::new();
    for message in messages.iter().flat_map(|message| split(message)) {
        let what = verdict(message);
        for (at, one) in work.iter().enumerate() {
            if one.changes.iter().any(|change| names(message, change)) {
                // Worse is kept.
                let known = found.entry(at).or_insert_with(|| what.clone());
                if matches!(what, Blame::Bad(_)) {
                    *known = what.clone();
                }
            }
        }
    }
    found
}

/// Several messages come as one, `[one, two]`.
fn split(message: &str) -> Vec<&str> {
    const BEGINS: [&str; 4] = ["Tried to ", "RRSet ", "Invalid Resource Record", "A HostedZone must"];
    let message = message.trim();
    let inner = message.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(message);
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, _) in inner.match_indices(", ") {
        if BEGINS.iter().any(|begin| inner[at + 2..].starts_with(begin)) {
            parts.push(&inner[from..at]);
            from = at + 2;
        }
    }
    parts.push(&inner[from..]);
    parts
}

fn verdict(message: &str) -> Blame {
    if message.contains("do not match the current values") {
        return Blame::Differs;
    }
    let stale = ["already exists", "was not found", "conflicts with other records", "other RRSets exist"];
    if stale.iter().any(|words| message.contains(words)) {
        return Blame::Stale;
    }
    Blame::Bad(message.to_owned())
}

/// Whether a message speaks of this change.
fn names(message: &str, change: &Change) -> bool {
    let Some(set) = &change.resource_record_set else { return false };
    if let Some(value) = between(message, "encountered with '", "'") {
        return set.resource_records().iter().any(|record| record.value == value);
    }
    let said = between(message, "name='", "'").or_else(|| {
        let rest = message.split_once("DNS name ")?.1;
        Some(rest.split([' ', ',']).next().unwrap_or(rest))
    });
    let Some(said) = said else { return false };
    if name::told(said).trim_end_matches('.') != name::told(&set.name).trim_end_matches('.') {
        return false;
    }
    let rtype = between(message, "type='", "'").or_else(|| {
        let rest = message.split_once("of type ").or_else(|| message.split_once("type "))?.1;
        Some(rest.split([' ', ',']).next().unwrap_or(rest))
    });
    let identifier = between(message, "set-identifier='", "'");
    rtype.is_none_or(|rtype| rtype == set.r#type.as_str())
        && identifier.is_none_or(|said| set.set_identifier.as_deref() == Some(said))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// The messages of a refusal whose body the SDK does not read: the form without `ErrorResponse`, of which the API's reference still has
/// examples.
pub(super) fn messages_of(body: &str) -> Vec<String> {
    if !body.contains("<InvalidChangeBatch") {
        return Vec::new();
    }
    let plain = |text: &str| {
        let signs =
            [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
        signs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    body.split("<Message>")
        .skip(1)
        .filter_map(|part| part.split_once("</Message>"))
        .map(|(text, _)| plain(text))
        .collect()
}
