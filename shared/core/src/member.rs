//! What a tag may contain.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::name::{BadName, HostName, TagName, name};

/// The longest rule, in octets.
pub const MAX_RULE: usize = 4096;

name! {
    /// One member of a tag as it is written: a host name, `@key` (a tag of the same namespace), `@ns/key` (a tag
    /// of another one: its members, not its document), or `select: EXPR` (a CEL expression over hosts).
    ///
    /// The text is kept as people wrote it, but for case and white space. Whether a rule compiles is checked at
    /// commit, not here.
    Member
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberKind<'a> {
    /// A host.
    Host(&'a str),
    /// A nested tag of the same namespace, by key.
    Nested(&'a str),
    /// A tag of another namespace, `ns/key`.
    Foreign(&'a str),
    /// A rule: the CEL expression.
    Rule(&'a str),
}

impl Member {
    /// The member that is this host.
    #[must_use]
    pub fn host(name: &HostName) -> Self {
        Self(name.as_str().into())
    }

    /// The member that nests `tag` in a tag of `namespace`.
    #[must_use]
    pub fn nested(tag: &TagName, namespace: &str) -> Self {
        if tag.namespace() == namespace {
            Self(format!("@{}", tag.key()).into())
        } else {
            Self(format!("@{tag}").into())
        }
    }

    /// The member that is this rule; `expression` was part of a member before.
    pub(crate) fn rule(expression: &str) -> Self {
        Self(format!("select: {expression}").into())
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> MemberKind<'_> {
        if let Some(expr) = self.0.strip_prefix("select:") {
            MemberKind::Rule(expr.trim())
        } else if let Some(tag) = self.0.strip_prefix('@') {
            if tag.contains('/') { MemberKind::Foreign(tag) } else { MemberKind::Nested(tag) }
        } else {
            MemberKind::Host(&self.0)
        }
    }

    /// The tag it nests, seen from a tag of `namespace`; `None` for hosts and rules.
    #[must_use]
    pub fn as_tag(&self, namespace: &str) -> Option<TagName> {
        match self.kind() {
            MemberKind::Nested(key) => format!("{namespace}/{key}").parse().ok(),
            MemberKind::Foreign(tag) => tag.parse().ok(),
            MemberKind::Host(_) | MemberKind::Rule(_) => None,
        }
    }
}

impl FromStr for Member {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName::new("member", text, why);
        let text = text.trim();
        if let Some(expr) = text.strip_prefix("select:") {
            let expr = expr.trim();
            if expr.is_empty() || expr.len() > MAX_RULE {
                return Err(bad("a rule has 1 to 4096 characters after 'select:'"));
            }
            if expr.chars().any(char::is_control) {
                return Err(bad("a rule stands on one line, without control characters"));
            }
            return Ok(Self(format!("select: {expr}").into()));
        }
        if let Some(tag) = text.strip_prefix('@') {
            let full = if tag.contains('/') { tag.to_owned() } else { format!("tags/{tag}") };
            full.parse::<TagName>().map_err(|e| bad(e.why))?;
            return Ok(Self(text.into()));
        }
        text.parse::<HostName>().map(|name| Self::host(&name)).map_err(|e| bad(e.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_apart() {
        let of = |text: &str| text.parse::<Member>().unwrap();
        assert_eq!(of("Web1.example.com").kind(), MemberKind::Host("web1.example.com"));
        assert_eq!(of("@web").kind(), MemberKind::Nested("web"));
        assert_eq!(of("@tags/rdu3").kind(), MemberKind::Foreign("tags/rdu3"));
        assert_eq!(of("select:site=='a/b'").kind(), MemberKind::Rule("site=='a/b'"));
        assert_eq!(of("@web").as_tag("lb").unwrap().as_str(), "lb/web");
        for bad in ["", "@", "@a/b/c", "select:", "a b", "@hosts/x"] {
            assert!(bad.parse::<Member>().is_err(), "{bad:?}");
        }
    }
}
