//! The forms of names and documents as JSON Schema, for whoever describes an interface that takes them.
//!
//! What parsing checks and what stands here are two accounts of the same thing: a test compares them. Where a pattern cannot
//! say all of it (octets where it counts characters, names of hosts that have an ASCII form, rules that compile), it is the
//! wider one, and parsing has the last word.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{Document, HostName, Key, Member, Namespace, Revision, TagName};

/// One label of a host's name, and all of them, in any case.
const LABEL: &str = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
/// One part of a key, without what it may not begin with.
const PART: &str = r"[^/\\\s\x00-\x1f\x7f-\x9f]";

/// A name of a host.
fn host() -> String {
    format!(r"{LABEL}(?:\.{LABEL})*\.?")
}

/// One part of a key: neither `.` nor `..`, and not beginning with `@`. Without looking ahead, which few programs that make
/// up examples can.
fn segment() -> String {
    let first = PART.replace("[^", "[^@.");
    let after_dot = PART.replace("[^", "[^.");
    format!(r"(?:{first}{PART}{{0,252}}|\.(?:{after_dot}{PART}{{0,251}}|\.{PART}{{1,251}}))")
}

/// A namespace that holds tags.
fn namespace() -> String {
    format!("(?!(?:{})(?:/|$)){NAMESPACE}", crate::name::RESERVED.join("|"))
}

/// Any namespace.
const NAMESPACE: &str = "[a-z][a-z0-9-]{0,62}";

fn tag() -> String {
    format!("{}/{}", namespace(), segment())
}

fn member() -> String {
    let nested = format!("@(?:{}/)?{}", namespace(), segment());
    format!(r"{}|{nested}|select:[ ]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*", host())
}

/// What stands in a namespace of rows that are one document each, below its name.
///
/// Facts, schemas, pauses, approvals and what is below `access/`; nothing for any other.
#[must_use]
pub fn below(area: &str) -> Option<String> {
    let path = format!("{0}(?:/{0})*", segment());
    match area {
        crate::FACTS => Some(format!("{NAMESPACE}/{path}")),
        crate::SCHEMAS => Some(NAMESPACE.to_owned()),
        crate::PAUSES => Some(path),
        crate::APPROVALS => Some(format!("{NAMESPACE}(?:/{path})?")),
        crate::ACCESS => {
            let (segment, named) = (segment(), format!("(?!(?:\\*|anonymous)$){}", segment()));
            let rules = format!("(?!access(?:/|$)){NAMESPACE}(?:/{segment})?");
            Some(format!("(?:rules/{rules}|(?:users|groups|tokens|reviews)/{named})"))
        }
        _ => None,
    }
}

fn key() -> String {
    let rows = [crate::FACTS, crate::SCHEMAS, crate::PAUSES, crate::APPROVALS, crate::ACCESS]
        .map(|area| format!("{area}/{}", below(area).unwrap_or_default()));
    format!("hosts/{}|{}|{}(?:/members/(?:{}))?", host(), rows.join("|"), tag(), member())
}

/// The form of a tag's key, without its namespace.
#[must_use]
pub fn tag_key() -> Schema {
    text(&segment(), 253, "The part of a tag's name after its namespace.", "example.com")
}

/// The form of a namespace that holds tags.
#[must_use]
pub fn tag_namespace() -> Schema {
    text(&namespace(), 63, "A namespace that holds tags.", "dns")
}

/// Text that matches `pattern` from its beginning to its end.
#[must_use]
pub fn text(pattern: &str, most: usize, what: &str, example: &str) -> Schema {
    json_schema!({
        "type": "string", "pattern": format!("^(?:{pattern})$"), "maxLength": most,
        "description": what, "examples": [example],
    })
}

macro_rules! form {
    ($of:ident, $schema:expr) => {
        impl JsonSchema for $of {
            fn schema_name() -> Cow<'static, str> {
                stringify!($of).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

form!(HostName, {
    let what =
        "A host's fully qualified name. Unicode names are taken too, and written in their ASCII form (IDNA).";
    json_schema!({
        "type": "string", "description": what, "examples": ["web1.example.com"],
        "anyOf": [text(&host(), 254, "In ASCII.", "web1.example.com"), {"format": "idn-hostname", "pattern": "[^\\x00-\\x7f]"}],
    })
});
form!(Namespace, text(NAMESPACE, 63, "A lower-case letter, then lower-case letters, digits and `-`.", "dns"));
form!(TagName, text(&tag(), 317, "A tag: its namespace and its key.", "dns/example.com"));
form!(Member, {
    let what = "A host, a tag (`@KEY` of the same namespace, `@NAMESPACE/KEY` of another), or a rule (`select:` and a CEL \
                expression over hosts).";
    text(&member(), 4104, what, "web1.example.com")
});
form!(Key, {
    let what = "Where a row stands: `hosts/FQDN`, `NAMESPACE/KEY` (a tag), `NAMESPACE/KEY/members/MEMBER`, \
                `facts/NAMESPACE/SUBJECT`, `schemas/NAMESPACE`, `pauses/SCOPE`, `approvals/NAMESPACE[/UNIT]`, `access/rules/NAMESPACE[/KEY]`, \
                `access/users/NAME` and the like.";
    text(&key(), 4500, what, "hosts/web1.example.com")
});
form!(
    Revision,
    json_schema!({
        "type": "integer", "minimum": 0, "maximum": u64::MAX,
        "description": "One number for the whole database, strictly rising; 0 is before every commit.",
    })
);
form!(Document, json_schema!({"description": "Any JSON."}));

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, text: &str) -> bool {
        let schema = serde_json::json!({"type": "string", "pattern": format!("^(?:{pattern})$")});
        jsonschema::validator_for(&schema).unwrap().is_valid(&text.into())
    }

    /// Each of the texts, which `|` parts, fits the pattern if and only if it parses.
    fn agree<T: std::str::FromStr>(pattern: &str, texts: &str) {
        for text in texts.split('|') {
            assert_eq!(fits(pattern, text), text.parse::<T>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn patterns_say_what_parsing_says() {
        let long = format!("{}|{}", "x".repeat(63), "x".repeat(64));
        agree::<HostName>(&host(), &long);
        agree::<HostName>(&host(), "web1|Web1.Example.com.|a_b.c|-a|a-|a..b||.|a b|a/b|a\n");
        agree::<TagName>(&tag(), "dns/a|dns/.|dns/..|dns/...|dns/..a|dns/.a|dns/@a|dns/a@|dns/a b|dns/a/b");
        agree::<TagName>(
            &tag(),
            "dns/\u{85}|dns/\u{a0}|dns/b\u{fc}cher|hosts/a|hostsx/a|Dns/a|dns/|dns|facts/a|dns/a\\b",
        );
        agree::<Member>(
            &member(),
            "web1|@a|@dns/a|@hosts/a|@|@a/b/c|select: a == 1|select:|select:x|select:\u{1}",
        );
        agree::<Key>(
            &key(),
            "hosts/a|hosts/|dns/a|dns/a/members/@b|dns/a/members/|dns/a/b|facts/vm/a|facts/vm",
        );
        agree::<Key>(&key(), "facts/vm/a/b|schemas/dns|schemas/A|pauses/x/y|pauses/|pauses/x//y");
        agree::<Key>(&key(), "approvals/dns|approvals/dns/a|approvals/|approvals/dns/");
    }
}
