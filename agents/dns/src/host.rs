//! What the agent reads of a host.

use serde_json::Value;
use shoal_agent::Host;

/// A field of the document; `a.b` is one inside a map.
pub(crate) fn field(host: &Host, path: &str) -> Option<Value> {
    let mut parts = path.split('.');
    let mut value = host.field(parts.next()?)?;
    for part in parts {
        value = value.get_mut(part)?.take();
    }
    Some(value)
}
