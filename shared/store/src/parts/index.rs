//! Under which names a change is found again.
//!
//! Besides its key, every change is filed under a few *scopes*: the prefixes of its key that end with one of
//! the first [`INDEXED`] slashes, and for a member row the member that it names. A store keeps, for each scope,
//! the revisions that wrote in it. With that the log of a prefix costs what it answers, and
//! [`Pre::Unchanged`](shoal_core::Pre::Unchanged) is one look-up.

use shoal_core::{Key, Range};

/// How many slashes of a key end a scope: `dns/`, `dns/example.com/`, `dns/example.com/members/`.
pub const INDEXED: usize = 3;

/// Every scope that a change of `key` is filed under.
pub fn scopes(key: &Key) -> impl Iterator<Item = String> + '_ {
    let text = key.as_str();
    let prefixes = text.match_indices('/').take(INDEXED).map(|(at, _)| text[..=at].to_owned());
    prefixes.chain(key.as_member().map(|(_, member)| naming(member)))
}

fn naming(member: &str) -> String {
    // No prefix starts with a star, because no namespace does.
    format!("*/members/{member}")
}

/// Where to look for the changes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Everywhere: walk the commits.
    All,
    /// In the versions of this key.
    Key(Key),
    /// In the revisions of this scope; all of their changes that the range contains count.
    Scope(String),
    /// In the revisions of this scope, not all of which wrote in the range. Only for prefixes deeper than
    /// [`INDEXED`] slashes.
    Within(String),
}

impl Where {
    /// Where the changes of `range` are found.
    #[must_use]
    pub fn of(range: &Range) -> Self {
        match range {
            // Nearly every tag is in it, and every commit to one.
            Range::All | Range::Concerning(_) => Self::All,
            Range::Key(key) => Self::Key(key.clone()),
            Range::Naming(member) => Self::Scope(naming(member.as_str())),
            Range::Prefix(prefix) => {
                let mut slashes = prefix.match_indices('/').map(|(at, _)| at + 1);
                match slashes.by_ref().take(INDEXED).last() {
                    None => Self::All,
                    Some(end) if end == prefix.len() => Self::Scope(prefix.clone()),
                    Some(end) => Self::Within(prefix[..end].to_owned()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_finds_what_it_contains() {
        let keys: Vec<Key> = [
            "hosts/web1",
            "dns/example.com",
            "dns/example.com/members/web1",
            "dns/example.com/members/@tags/rdu3",
            "facts/backup/backup/db-nightly",
        ]
        .map(|k| k.parse().unwrap())
        .into();
        let mut ranges: Vec<Range> = vec![Range::All, Range::Prefix(String::new())];
        for key in &keys {
            ranges.push(Range::Key(key.clone()));
            ranges.extend(
                key.as_str().match_indices('/').map(|(at, _)| Range::Prefix(key.as_str()[..=at].into())),
            );
        }
        ranges.push(Range::Naming("web1".parse().unwrap()));
        ranges.push(Range::Concerning("web1".parse().unwrap()));
        for range in &ranges {
            for key in &keys {
                let filed: Vec<_> = scopes(key).collect();
                let found = match Where::of(range) {
                    Where::All => true,
                    Where::Key(k) => k == *key,
                    Where::Scope(s) => {
                        assert_eq!(filed.contains(&s), range.contains(key), "{range} {key}");
                        continue;
                    }
                    Where::Within(s) => filed.contains(&s),
                };
                assert!(found || !range.contains(key), "{range} does not find {key}");
            }
        }
    }
}
