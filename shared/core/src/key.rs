//! Where things stand in the database.
//!
//! A key is text, and sorts as text, so that every store can keep it as it is:
//!
//! | key | what stands there |
//! |---|---|
//! | `hosts/<fqdn>` | a [`HostRecord`](crate::HostRecord) |
//! | `<namespace>/<key>` | a [`TagRecord`](crate::TagRecord) |
//! | `<namespace>/<key>/members/<member>` | `{}`: one member of that tag |
//! | `facts/<namespace>/<subject>` | what is reported about a host or tag |
//! | `schemas/<namespace>` | the [`Schema`](crate::Schema) its agent publishes |
//! | `pauses/<scope>` | what people hold back |
//! | `approvals/<namespace>/<unit>` | the held changes of a unit that a person agreed to |
//! | `approvals/<namespace>` | the new epoch of the database that a person lets an agent go by |
//! | `access/rules/<namespace>` | who may do what in a namespace ([`Rules`](crate::access::Rules)) |
//! | `access/rules/<namespace>/<key>` | who may do what with one key |
//! | `access/users/<name>`, `access/groups/<name>` | a [`User`](crate::access::User), a [`Group`](crate::access::Group) |
//! | `access/tokens/<id>` | a [`Token`](crate::access::Token) |
//! | `access/reviews/<id>` | a change that waits for a second person ([`Review`](crate::access::Review)) |
//!
//! Each member of a tag is a row of its own, so that adding one costs the same in a tag of ten members and
//! of 100,000.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::member::Member;
use crate::name::{
    ACCESS, APPROVALS, BadName, FACTS, HOSTS, HostName, MAX_SEGMENT, Namespace, PAUSES, RESERVED, SCHEMAS,
    TagName, is_host, is_namespace, name, segment,
};
use crate::unit;
use std::borrow::{Borrow, Cow};
use std::sync::Arc;

name! {
    /// The place of one row. Always well formed; [`Key::kind`] says what it is.
    Key
}

/// What a key is the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host.
    Host(HostName),
    /// A tag's document.
    Tag(TagName),
    /// One member of a tag.
    Member(TagName, Member),
    /// What `0`'s agent or machines report about the subject `1` (a host name or a tag).
    Fact(Namespace, String),
    /// The schema of a namespace.
    Schema(Namespace),
    /// What is held: the scope is `host/<fqdn>`, `tag/<ns>/<key>` or `agent/<namespace>`.
    Pause(String),
    /// What a person agreed to: what is held of a unit of `0`'s agent, or (`None`) that it goes by the database's new epoch.
    Approval(Namespace, Option<String>),
    /// What decides who may do what.
    Access(Access),
}

/// What stands below `access/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Who may do what in a namespace (any but `access` itself), or with one key in it.
    Rules(String, Option<String>),
    /// A user, by name.
    User(String),
    /// A group, by name.
    Group(String),
    /// A token, by id.
    Token(String),
    /// A change that waits for a second person, by id.
    Review(String),
}

impl Key {
    /// The key of a host.
    #[must_use]
    pub fn host(name: &HostName) -> Self {
        Self(format!("{HOSTS}/{name}").into())
    }

    /// The key of a tag's document.
    #[must_use]
    pub fn tag(tag: &TagName) -> Self {
        Self(tag.as_str().into())
    }

    /// The key of one member of a tag. A tag of the same namespace stands there in its short form, so that what is
    /// one member is one row.
    #[must_use]
    pub fn member(tag: &TagName, member: &Member) -> Self {
        match member.as_tag(tag.namespace()) {
            Some(nested) => {
                Self(format!("{tag}/members/{}", Member::nested(&nested, tag.namespace())).into())
            }
            None => Self(format!("{tag}/members/{member}").into()),
        }
    }

    /// The key of what is reported about `subject` in `namespace`.
    ///
    /// # Errors
    /// A subject that is empty, too long, or holds control characters or white space.
    pub fn fact(namespace: &Namespace, subject: &str) -> Result<Self, BadName> {
        format!("{FACTS}/{namespace}/{subject}").parse()
    }

    /// The key of a namespace's schema.
    #[must_use]
    pub fn schema(namespace: &Namespace) -> Self {
        Self(format!("{SCHEMAS}/{namespace}").into())
    }

    /// The key of what a person agreed to: what is held of this unit of an agent, or, without one, that the agent goes by the
    /// database's new epoch. Whatever a unit is called, the two are never the same.
    ///
    /// # Errors
    /// A name that is longer than keys can be.
    pub fn approval(agent: &Namespace, unit: Option<&str>) -> Result<Self, BadName> {
        let Some(unit) = unit else { return Ok(Self(format!("{APPROVALS}/{agent}").into())) };
        let unit = unit::escape(unit);
        path(&unit).map_err(|why| BadName::new("unit in a key", &unit, why))?;
        Ok(Self(format!("{APPROVALS}/{agent}/{unit}").into()))
    }

    /// What this is the place of.
    ///
    /// # Panics
    /// Never: a `Key` is only made by parsing, or from parts that parse.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a Key is checked when it is made")]
    pub fn kind(&self) -> Kind {
        classify(&self.0).expect("a Key is well formed")
    }

    /// The part before the first `/`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(ns, _)| ns)
    }

    /// For a member row, the tag and the member, without parsing either.
    #[must_use]
    pub fn as_member(&self) -> Option<(&str, &str)> {
        Self::member_in(&self.0)
    }

    /// [`Key::as_member`] of the text of a key.
    #[must_use]
    pub fn member_in(text: &str) -> Option<(&str, &str)> {
        let (namespace, rest) = text.split_once('/')?;
        if RESERVED.contains(&namespace) {
            return None;
        }
        let (key, member) = member(rest)?;
        Some((text.get(..namespace.len() + 1 + key.len())?, member))
    }

    /// The text of the key that `text` reads as: for who goes through many and keeps none. Copies nothing of a host's key, nor of one
    /// that has a host as a member.
    ///
    /// # Errors
    /// Text that is no key.
    pub fn written(text: &str) -> Result<Cow<'_, str>, BadName> {
        if is_plain(text) {
            return Ok(Cow::Borrowed(text));
        }
        through_parts(text).map(|key| Cow::Owned(String::from(key)))
    }
}

impl FromStr for Key {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        if is_plain(text) { Ok(Self(text.into())) } else { through_parts(text) }
    }
}

/// Through the parts, so that what is equal is written equally.
fn through_parts(text: &str) -> Result<Key, BadName> {
    Ok(match classify(text)? {
        Kind::Host(name) => Key::host(&name),
        Kind::Tag(tag) => Key::tag(&tag),
        Kind::Member(tag, member) => Key::member(&tag, &member),
        // A subject that can be a host is written as a host is.
        Kind::Fact(ns, subject) => match subject.parse::<HostName>() {
            Ok(host) => Key(format!("{FACTS}/{ns}/{host}").into()),
            Err(_) => Key(text.into()),
        },
        Kind::Approval(agent, unit) => Key::approval(&agent, unit.as_deref())?,
        Kind::Access(Access::Rules(ns, Some(key))) => Key(format!("{ACCESS}/rules/{ns}/{key}").into()),
        Kind::Schema(_) | Kind::Pause(_) | Kind::Access(_) => Key(text.into()),
    })
}

/// Whether this is the key of a host, or of a host as a member, written as it has to be: nearly every row of a fleet is one,
/// and its parts need not be made to know it.
fn is_plain(text: &str) -> bool {
    let Some((first, rest)) = text.split_once('/') else { return false };
    if first == HOSTS {
        return is_host(rest);
    }
    // What a tag's key may hold is wider than this; what a rule holds, too, so that it never reads as a member.
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    match member(rest) {
        Some((key, member)) => {
            key.starts_with(|c: char| c.is_ascii_alphanumeric())
                && key.len() <= MAX_SEGMENT
                && key.as_bytes().iter().all(plain)
                && is_host(member)
                && is_namespace(first)
                && !RESERVED.contains(&first)
        }
        None => false,
    }
}

/// The tag's key and the member, of what stands behind a namespace. A tag's key has no slash, so its first one ends it: to look for the
/// word all along every key would cost as much as the rest of reading it.
fn member(rest: &str) -> Option<(&str, &str)> {
    let (key, behind) = rest.split_once('/')?;
    Some((key, behind.strip_prefix("members/")?))
}

fn classify(text: &str) -> Result<Kind, BadName> {
    let bad = |why| BadName::new("key", text, why);
    let (first, rest) = text.split_once('/').ok_or_else(|| bad("it is written namespace/key"))?;
    match first {
        HOSTS => rest.parse().map(Kind::Host),
        SCHEMAS => rest.parse().map(Kind::Schema),
        FACTS => {
            let (ns, subject) =
                rest.split_once('/').ok_or_else(|| bad("facts are facts/namespace/subject"))?;
            path(subject).map_err(bad)?;
            Ok(Kind::Fact(ns.parse()?, subject.to_owned()))
        }
        PAUSES => path(rest).map_err(bad).map(|()| Kind::Pause(rest.to_owned())),
        APPROVALS => match rest.split_once('/') {
            Some((_, "")) => Err(bad("approvals are approvals/namespace/unit, or approvals/namespace")),
            Some((agent, unit)) => Ok(Kind::Approval(agent.parse()?, Some(unit::unescape(unit)))),
            None => Ok(Kind::Approval(rest.parse()?, None)),
        },
        ACCESS => access(rest).map(Kind::Access).map_err(bad),
        _ => match rest.split_once("/members/") {
            Some((key, member)) => Ok(Kind::Member(format!("{first}/{key}").parse()?, member.parse()?)),
            None => text.parse().map(Kind::Tag),
        },
    }
}

fn access(rest: &str) -> Result<Access, &'static str> {
    let (what, name) = rest.split_once('/').ok_or(ACCESS_FORM)?;
    let named = |name: &str| {
        segment(name)?;
        // They mean something else in rules.
        if name == "*" || name == "anonymous" {
            Err("that is no name of its own")
        } else {
            Ok(name.to_owned())
        }
    };
    match what {
        "rules" => {
            let (namespace, key) = name.split_once('/').map_or((name, None), |(ns, key)| (ns, Some(key)));
            if !is_namespace(namespace) || namespace == ACCESS {
                return Err("rules are about a namespace other than access");
            }
            let key = match key {
                // A host is written as hosts are, so that no rule is about a name that nobody has.
                Some(key) if namespace == HOSTS => {
                    Some(key.parse::<HostName>().map_err(|e| e.why)?.as_str().to_owned())
                }
                Some(key) => segment(key).map(|()| Some(key.to_owned()))?,
                None => None,
            };
            Ok(Access::Rules(namespace.to_owned(), key))
        }
        "users" => named(name).map(Access::User),
        "groups" => named(name).map(Access::Group),
        "tokens" => named(name).map(Access::Token),
        "reviews" => named(name).map(Access::Review),
        _ => Err(ACCESS_FORM),
    }
}

const ACCESS_FORM: &str = "it is access/rules/NAMESPACE[/KEY], access/users/NAME, access/groups/NAME, access/tokens/ID or access/reviews/ID";

fn path(text: &str) -> Result<(), &'static str> {
    if text.len() > 600 {
        return Err("it has more than 600 characters");
    }
    text.split('/').try_for_each(segment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Range;

    #[test]
    fn keys_say_what_they_are() {
        for text in [
            "hosts/web1.example.com",
            "dns/example.com",
            "dns/example.com/members/web1.example.com",
            "dns/example.com/members/@tags/rdu3",
            "dns/example.com/members/select: site == \"a/members/b\"",
            "dns/members",
            "dns/members/members/web1",
            "members/a/members/web1",
            "facts/vm/web1.example.com",
            "facts/backup/backup/db-nightly",
            "schemas/dns",
            "pauses/tag/dns/example.com",
            "approvals/dns/example.com",
            "approvals/dns",
            "approvals/lb/eu/web%20pool",
            "access/rules/lb",
            "access/rules/lb/web",
            "access/rules/facts/vm",
            "access/users/ann",
            "access/groups/admins",
            "access/tokens/0a1b",
            "access/reviews/7",
        ] {
            let key: Key = text.parse().unwrap();
            assert_eq!(key.as_str(), text);
            assert_eq!(key.kind(), classify(text).unwrap());
            let member = match key.kind() {
                Kind::Member(tag, member) => Some((tag.to_string(), member.to_string())),
                _ => None,
            };
            let said = key.as_member().map(|(tag, member)| (tag.to_owned(), member.to_owned()));
            assert_eq!(said, member, "{text}");
            assert_eq!(Key::written(text).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_what_is_written_otherwise_is_the_same() {
        for bad in [
            "",
            "hosts",
            "hosts/",
            "dns/a/b",
            "facts/x",
            "pauses/",
            "schemas/A",
            "dns/a/members/",
            "dns/../members/a",
            "approvals/",
            "approvals/Dns/a",
            "approvals/dns/",
            "access/",
            "access/rules",
            "access/rules/",
            "access/rules/access",
            "access/rules/access/x",
            "access/rules/lb/",
            "access/rules/lb/a/b",
            "access/rules/lb/..",
            "access/rules/../lb",
            "access/users/",
            "access/users/*",
            "access/users/anonymous",
            "access/users/@ops",
            "access/users/a b",
            "access/users/a/b",
            "access/members/x",
            "access/x/members/y",
        ] {
            assert!(bad.parse::<Key>().is_err() && Key::written(bad).is_err(), "{bad:?}");
        }
        for (text, same) in [
            ("hosts/WEB1", "hosts/web1"),
            ("facts/vm/WEB1", "facts/vm/web1"),
            ("lb/web/members/@lb/eu", "lb/web/members/@eu"),
            ("lb/web/members/select:a==1", "lb/web/members/select: a==1"),
            ("approvals/lb/web pool/100%", "approvals/lb/web%20pool/100%25"),
            ("access/rules/hosts/WEB1", "access/rules/hosts/web1"),
        ] {
            assert_eq!(text.parse::<Key>().unwrap().as_str(), same);
            assert_eq!(Key::written(text).unwrap(), same);
        }
    }

    #[test]
    fn no_unit_has_the_approval_of_another_nor_that_of_the_epoch() {
        let dns: Namespace = "dns".parse().unwrap();
        let units = ["epoch", "dns", "a", "a/b", "a%2Fb", "a b", "a%20b", "", "/", "%", ".", "a/../b", "@a"];
        let mut keys = vec![Key::approval(&dns, None).unwrap()];
        for unit in units {
            let key = Key::approval(&dns, Some(unit)).unwrap();
            assert_eq!(key.kind(), Kind::Approval(dns.clone(), Some(unit.to_owned())));
            assert_eq!(key.as_str().parse::<Key>().unwrap(), key);
            assert!(!keys.contains(&key), "{key}");
            keys.push(key);
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_taken_as_it_stands_is_what_its_parts_make(
            text in "(hosts|dns|Lb|facts|-x|)/?[a-cA-C@._-]{0,4}(/members/[a-cA-C@._-]{0,4})?",
            long in proptest::bool::weighted(0.1),
        ) {
            let text = if long { format!("{text}{}", "x".repeat(250)) } else { text };
            if is_plain(&text) {
                let key = through_parts(&text).unwrap();
                proptest::prop_assert_eq!(key.as_str(), text);
            }
        }
    }

    #[test]
    fn most_rows_are_taken_as_they_stand() {
        assert!(is_plain("hosts/web1.example.com") && is_plain("dns/example.com/members/web1.example.com"));
        assert!(!is_plain("hosts/Web1") && !is_plain("dns/a/members/@b") && !is_plain("facts/a/members/b"));
    }

    #[test]
    fn ranges_contain() {
        let key: Key = "dns/example.com/members/web1".parse().unwrap();
        assert!(Range::Naming("web1".parse().unwrap()).contains(&key));
        assert!(!Range::Naming("web2".parse().unwrap()).contains(&key));
        assert!(Range::members(&"dns/example.com".parse().unwrap()).contains(&key));
        assert!(!Range::members(&"dns/example".parse().unwrap()).contains(&key));
    }
}
