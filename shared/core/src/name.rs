//! Names, parsed once at the edge.
//!
//! Every name that reaches the model is one of these newtypes, so the rest of the code never asks again
//! whether a string is a host, a tag or a namespace. Parsing lower-cases host names and turns Unicode
//! ones into their ASCII form ([RFC 5891]); nothing else is changed.
//!
//! [RFC 5891]: https://www.rfc-editor.org/rfc/rfc5891

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The namespace whose keys are hosts.
pub const HOSTS: &str = "hosts";
/// The namespace of what machines and agents report.
pub const FACTS: &str = "facts";
/// The namespace of the JSON Schemas that agents publish.
pub const SCHEMAS: &str = "schemas";
/// The namespace of what is held as it is.
pub const PAUSES: &str = "pauses";
/// The namespace of what a person agreed to.
pub const APPROVALS: &str = "approvals";
/// The namespace of who may do what.
pub const ACCESS: &str = "access";
/// Namespaces that hold no tags.
pub const RESERVED: [&str; 6] = [HOSTS, FACTS, SCHEMAS, PAUSES, APPROVALS, ACCESS];

/// The longest tag, fact or control name, in octets.
pub const MAX_SEGMENT: usize = 253;

/// A name that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}: {why}")]
pub struct BadName {
    /// What was expected.
    pub what: &'static str,
    /// What was given, cut to 300 characters.
    pub text: String,
    /// Why it does not fit.
    pub why: &'static str,
}

impl BadName {
    pub(crate) fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(300).collect(), why }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    };
}
pub(crate) use name;

name! {
    /// A host's fully qualified name: lower case, ASCII, no trailing dot, labels of at most 63 octets, at
    /// most 253 in all ([RFC 1035, section 2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)).
    /// Underscores are allowed, because real fleets have them.
    HostName
}

impl FromStr for HostName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName::new("host name", text, why);
        if is_host(text) {
            return Ok(Self(text.into()));
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| bad("it has no ASCII form (IDNA)"))?
        };
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() || name.len() > 253 {
            return Err(bad("it needs 1 to 253 characters"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return Err(bad("each label needs 1 to 63 characters"));
            }
            if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
                return Err(bad("labels hold only letters, digits, '-' and '_'"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(bad("a label neither starts nor ends with '-'"));
            }
        }
        Ok(Self(name.into()))
    }
}

/// Whether this is a host name, written as one is kept.
pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &[u8]| {
        let ends = label.first() != Some(&b'-') && label.last() != Some(&b'-');
        (1..=63).contains(&label.len())
            && ends
            && label.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b))
    };
    text.len() <= MAX_SEGMENT && text.as_bytes().split(|b| *b == b'.').all(label)
}

name! {
    /// A namespace: a lower-case letter, then letters, digits and `-`, at most 63 in all.
    Namespace
}

impl Namespace {
    /// Whether its keys are something other than tags (`hosts`, `facts`, `schemas`, `pauses`, `approvals`, `access`).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED.contains(&self.as_str())
    }
}

impl FromStr for Namespace {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName::new("namespace", text, why);
        if text.is_empty() || text.len() > 63 {
            return Err(bad("it needs 1 to 63 characters"));
        }
        if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Err(bad("it starts with a lower-case letter"));
        }
        if !is_namespace(text) {
            return Err(bad("it holds only lower-case letters, digits and '-'"));
        }
        Ok(Self(text.into()))
    }
}

/// Whether this is a namespace.
pub(crate) fn is_namespace(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(fits)
}

name! {
    /// A tag's full name, `<namespace>/<key>`: `dns/example.com`, `lb/web`. The key is one path segment.
    TagName
}

impl TagName {
    /// The tag `key` of `namespace`.
    ///
    /// # Errors
    /// A namespace that holds no tags, or a key that is not one.
    pub fn new(namespace: &str, key: &str) -> Result<Self, BadName> {
        format!("{namespace}/{key}").parse()
    }

    /// The namespace part.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(ns, _)| ns)
    }

    /// The part after the namespace.
    #[must_use]
    pub fn key(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, key)| key)
    }
}

impl FromStr for TagName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName::new("tag", text, why);
        let (ns, key) = text.split_once('/').ok_or_else(|| bad("it is written namespace/key"))?;
        let ns: Namespace = ns.parse().map_err(|e: BadName| bad(e.why))?;
        if ns.is_reserved() {
            return Err(bad("that namespace holds no tags"));
        }
        segment(key).map_err(bad)?;
        Ok(Self(text.into()))
    }
}

/// One path segment: 1 to [`MAX_SEGMENT`] octets of printable text without `/`, not starting with `@`, and
/// neither `.` nor `..` (a target may use it as a file name).
pub(crate) fn segment(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > MAX_SEGMENT {
        return Err("a key needs 1 to 253 characters");
    }
    if text == "." || text == ".." || text.starts_with('@') {
        return Err("a key is neither '.' nor '..' and does not start with '@'");
    }
    if text.chars().any(|c| c == '/' || c == '\\' || c.is_control() || c.is_whitespace()) {
        return Err("a key holds no '/', '\\', white space or control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_lowered_and_checked() {
        assert_eq!("Web1.Example.COM.".parse::<HostName>().unwrap().as_str(), "web1.example.com");
        assert_eq!("bücher.example".parse::<HostName>().unwrap().as_str(), "xn--bcher-kva.example");
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "a/b", &"x".repeat(64), &"a.".repeat(128)] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_have_a_namespace_and_one_segment() {
        let tag: TagName = "dns/example.com".parse().unwrap();
        assert_eq!((tag.namespace(), tag.key()), ("dns", "example.com"));
        for bad in ["dns", "dns/", "hosts/a", "Dns/a", "dns/a/b", "dns/..", "dns/@a", "dns/a b"] {
            assert!(bad.parse::<TagName>().is_err(), "{bad:?}");
        }
    }
}
