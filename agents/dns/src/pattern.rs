//! Patterns: text with `{…}` that a host fills in.
//!
//! `{name}` is the host's name, `{label}` its first label, `{domain}` the rest, `{zone}` the zone; `{owner}`,
//! `{environment}` and `{state}` are the host's own; anything else is a field of the host's document that is text, a
//! number or a bool, `{net.vlan}` one inside a map. `{{` and `}}` are braces.
//!
//! A pattern that names a field which the host does not have contributes nothing, as a rule that names one does not match.

use serde_json::Value;

use crate::host;
use crate::name::Zone;

/// How values are put in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum As {
    /// As they are: for names, which are checked afterwards, and for text that is one string.
    Plain,
    /// So that a value cannot leave the quotes or the word that it stands in.
    Escaped,
}

/// Fills in a pattern; `None` where the host lacks a field.
///
/// # Errors
/// A brace that is not closed, or nothing in it.
pub(crate) fn fill(
    pattern: &str,
    host: &shoal_agent::Host,
    zone: &Zone,
    how: As,
) -> Result<Option<String>, String> {
    let mut out = String::with_capacity(pattern.len() + 32);
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if tail.as_bytes().first() == rest.as_bytes().get(at) {
            out.push_str(&tail[..1]);
            rest = &tail[1..];
            continue;
        }
        let end = tail.find('}').filter(|&end| end > 0 && rest.as_bytes()[at] == b'{');
        let Some(end) = end else {
            return Err(format!(
                "{pattern:?} has a brace that is not part of a {{field}}; write it twice to mean itself"
            ));
        };
        let Some(value) = value(&tail[..end], host, zone) else { return Ok(None) };
        match how {
            As::Plain => out.push_str(&value),
            As::Escaped => escape(&value, &mut out),
        }
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

fn value(field: &str, host: &shoal_agent::Host, zone: &Zone) -> Option<String> {
    let name = host.name.as_str();
    match field {
        "name" => Some(name.to_owned()),
        "label" => name.split('.').next().map(str::to_owned),
        "domain" => name.split_once('.').map(|(_, domain)| domain.to_owned()),
        "zone" => Some(zone.as_str().to_owned()),
        "owner" => host.owner.clone(),
        "environment" => host.environment.clone(),
        "state" => Some(host.state.to_string()),
        field => match host::field(host, field)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(bool) => Some(bool.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        },
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        if c.is_ascii_control() {
            out.push_str(&format!("\\{:03}", u32::from(c)));
            continue;
        }
        if "\"\\;()".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
}
