//! Patterns: text with `{…}` that a host fills in.
//!
//! `{name}` is the host's name, `{label}` its first label, `{domain}` the rest; `{owner}`, `{environment}` and `{state}` are
//! the host's own; what else an agent knows it says itself; anything else is a field of the host's document that is text, a
//! number or a bool, `{net.vlan}` one inside a map. `{{` and `}}` are braces.
//!
//! A pattern that names a field which the host does not have contributes nothing, as a rule that names one does not match.

use serde_json::Value;
use shoal_core::Host;

/// Fills in a pattern; `None` where the host lacks a field. `own` answers what the agent knows besides the host, and is asked
/// first; `put` appends a value to the text, made safe for where it stands.
///
/// # Errors
/// A brace that is not closed, or nothing in it.
pub fn fill(
    pattern: &str,
    host: &Host,
    own: impl Fn(&str) -> Option<String>,
    put: impl Fn(&str, &mut String),
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
        let Some(value) = own(&tail[..end]).or_else(|| value(&tail[..end], host)) else { return Ok(None) };
        put(&value, &mut out);
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(Some(out))
}

/// A field of the host's document; `a.b` is one inside a map.
#[must_use]
pub fn field(host: &Host, path: &str) -> Option<Value> {
    let mut parts = path.split('.');
    let mut value = host.field(parts.next()?)?;
    for part in parts {
        value = value.get_mut(part)?.take();
    }
    Some(value)
}

fn value(name: &str, host: &Host) -> Option<String> {
    let full = host.name.as_str();
    match name {
        "name" => Some(full.to_owned()),
        "label" => full.split('.').next().map(str::to_owned),
        "domain" => full.split_once('.').map(|(_, domain)| domain.to_owned()),
        "owner" => host.owner.clone(),
        "environment" => host.environment.clone(),
        "state" => Some(host.state.to_string()),
        name => match field(host, name)? {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(bool) => Some(bool.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        },
    }
}
