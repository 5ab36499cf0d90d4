//! Sets of keys.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::key::Key;
use crate::member::Member;
use crate::name::{ACCESS, APPROVALS, FACTS, HOSTS, HostName, PAUSES, SCHEMAS, TagName};

/// A set of keys that a store can read and watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Every key.
    All,
    /// One key.
    Key(Key),
    /// Every key that starts with this text; it ends with `/`, or is empty.
    Prefix(String),
    /// Every member row, of whatever tag, that names this member.
    Naming(Member),
    /// Every key but those that are about one other host alone, or say nothing of hosts: this host, its facts, the member rows that
    /// name it, its pause; and all tags, nested tags and rules, schemas, approvals, and pauses of something else than a host. What it is
    /// in which tag follows from these rows. No commit can [rest](crate::Pre::Unchanged) on it.
    Concerning(HostName),
}

impl Range {
    /// All hosts.
    #[must_use]
    pub fn hosts() -> Self {
        Self::Prefix(format!("{HOSTS}/"))
    }

    /// All rows of a namespace.
    #[must_use]
    pub fn namespace(namespace: &str) -> Self {
        Self::Prefix(format!("{namespace}/"))
    }

    /// The member rows of a tag.
    #[must_use]
    pub fn members(tag: &TagName) -> Self {
        Self::Prefix(format!("{tag}/members/"))
    }

    /// Whether the key is in the set.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        match self {
            Self::All => true,
            Self::Key(one) => one == key,
            Self::Prefix(prefix) => key.as_str().starts_with(prefix.as_str()),
            Self::Naming(member) => key.as_member().is_some_and(|(_, m)| m == member.as_str()),
            Self::Concerning(host) => match About::of(key.as_str()) {
                About::Host(of) => of == host.as_str(),
                About::All => true,
                About::Nobody => false,
            },
        }
    }
}

impl Range {
    /// Where to go on reading the set in order, from a key outside of it: no key of the set stands between `key` and this text. `None`:
    /// the key is in the set, or the next one may be. So reading costs the tags that there are, not the hosts in them.
    #[must_use]
    pub fn beyond(&self, key: &Key) -> Option<String> {
        let Self::Concerning(host) = self else { return None };
        if self.contains(key) {
            return None;
        }
        let (folder, mut starts) = match split(key.as_str()) {
            Split::Access => (&key.as_str()[..=ACCESS.len()], Vec::new()),
            Split::Folder { folder, .. } => (folder, vec![host.as_str()]),
            Split::Members { folder, .. } => (folder, vec![NESTED, host.as_str(), RULE]),
            Split::Other => return None,
        };
        starts.sort_unstable();
        let rest = key.as_str().strip_prefix(folder).unwrap_or_default();
        Some(match starts.into_iter().find(|start| *start > rest) {
            Some(start) => format!("{folder}{start}"),
            // '0' comes right after the '/' that it ends with.
            None => format!("{}0", folder.trim_end_matches('/')),
        })
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Key(key) => write!(f, "{key}"),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Naming(member) => write!(f, "*/members/{member}"),
            Self::Concerning(host) => write!(f, "what concerns {host}"),
        }
    }
}

/// How the members begin that are nested tags, and those that are rules.
const NESTED: &str = "@";
const RULE: &str = "select:";

/// Whom the row of a key may say something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About<'k> {
    /// This host alone.
    Host(&'k str),
    /// Any host.
    All,
    /// No host: facts about tags, and who may do what.
    Nobody,
}

impl<'k> About<'k> {
    /// Of a well-formed key. Costs its length.
    #[must_use]
    pub fn of(key: &'k str) -> Self {
        match split(key) {
            Split::Access => Self::Nobody,
            // Of a fact about a tag.
            Split::Folder { name, .. } if name.contains('/') => Self::Nobody,
            Split::Folder { name, .. } => Self::Host(name),
            Split::Members { name, .. } if name.starts_with(NESTED) || name.starts_with(RULE) => Self::All,
            Split::Members { name, .. } => Self::Host(name),
            Split::Other => Self::All,
        }
    }
}

/// A key, taken apart.
enum Split<'k> {
    Access,
    /// One host in a folder of them, or a tag of which a fact says something.
    Folder {
        /// With its slash.
        folder: &'k str,
        name: &'k str,
    },
    /// One member of a tag.
    Members {
        folder: &'k str,
        name: &'k str,
    },
    Other,
}

fn split(key: &str) -> Split<'_> {
    let Some((namespace, rest)) = key.split_once('/') else { return Split::Other };
    let behind = |name: &'_ str| key.len() - name.len();
    let name = match namespace {
        ACCESS => return Split::Access,
        HOSTS => Some(rest),
        FACTS => rest.split_once('/').map(|(_, subject)| subject),
        PAUSES => rest.strip_prefix("host/"),
        SCHEMAS | APPROVALS => None,
        _ => {
            let Some((_, name)) = rest.split_once("/members/") else { return Split::Other };
            let (folder, name) = key.split_at(behind(name));
            return Split::Members { folder, name };
        }
    };
    let Some(name) = name else { return Split::Other };
    let (folder, name) = key.split_at(behind(name));
    Split::Folder { folder, name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 28] = [
        "access/rules/hosts/b",
        "access/users/b",
        "approvals/backup/a",
        "backup/nightly",
        "backup/nightly/members/1",
        "backup/nightly/members/@db",
        "backup/nightly/members/a",
        "backup/nightly/members/b",
        "backup/nightly/members/c",
        "backup/nightly/members/select: site == \"a\"",
        "backup/nightly/members/z",
        "backup/weekly",
        "facts/backup/a",
        "facts/backup/b",
        "facts/backup/backup/nightly",
        "facts/vm/a",
        "facts/vm/c",
        "hosts/a",
        "hosts/b",
        "hosts/c",
        "pauses/agent/backup",
        "pauses/host/a",
        "pauses/host/b",
        "pauses/host/c",
        "pauses/tag/backup/nightly",
        "schemas/backup",
        "vm/x",
        "vm/x/members/b",
    ];

    fn concerning(host: &str) -> Range {
        Range::Concerning(host.parse().unwrap())
    }

    #[test]
    fn what_concerns_a_host_is_all_that_is_not_about_another() {
        let found: Vec<&str> =
            KEYS.into_iter().filter(|key| concerning("b").contains(&key.parse().unwrap())).collect();
        let expected = [
            "approvals/backup/a",
            "backup/nightly",
            "backup/nightly/members/@db",
            "backup/nightly/members/b",
            "backup/nightly/members/select: site == \"a\"",
            "backup/weekly",
            "facts/backup/b",
            "hosts/b",
            "pauses/agent/backup",
            "pauses/host/b",
            "pauses/tag/backup/nightly",
            "schemas/backup",
            "vm/x",
            "vm/x/members/b",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_is_left_out_by_going_on_behind_what_is_beyond() {
        let keys: Vec<Key> = KEYS.map(|key| key.parse().unwrap()).into();
        assert!(keys.is_sorted());
        for host in ["0", "a", "b", "bb", "c", "selecta", "t", "zz"] {
            let range = concerning(host);
            for (at, key) in keys.iter().enumerate().filter(|(_, key)| !range.contains(key)) {
                let Some(beyond) = range.beyond(key) else { panic!("{key} ends nothing") };
                assert!(*beyond > *key.as_str(), "{host} {key} {beyond}");
                let between = keys[at..].iter().take_while(|key| *key.as_str() < *beyond);
                let lost: Vec<_> = between.filter(|key| range.contains(key)).collect();
                assert!(lost.is_empty(), "{host}: {lost:?} between {key} and {beyond}");
            }
        }
    }
}
