//! Patterns as a zone needs them: [`shoal_agent::pattern`], with `{zone}`, and values that stay where they are put.

use shoal_agent::{Host, pattern};

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
pub(crate) fn fill(pattern: &str, host: &Host, zone: &Zone, how: As) -> Result<Option<String>, String> {
    let own = |field: &str| (field == "zone").then(|| zone.as_str().to_owned());
    pattern::fill(pattern, host, own, |value, out| match how {
        As::Plain => out.push_str(value),
        As::Escaped => escape(value, out),
    })
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
