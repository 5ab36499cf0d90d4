//! What a path of `/v1` names.
//!
//! HostDB calls it a resource id: `namespace`, `namespace/key`, `namespace/key/members`, `namespace/key/members/member`,
//! `namespace/key/perms`, or `namespace/key/and/on/inside/its/document`. Slashes in front, at the end, and more than one in a row count
//! for nothing. `members` and `perms` are names of HostDB's own, so a field of that name at the top of a document is out of reach here.

use shoal_core::{HOSTS, HostName, Key, Member, Namespace, RESERVED, Range, TagName};

use super::fault::{Answer, Fault};

/// Where the rules of a whole namespace stand, in the place of a key.
pub(super) const DEFAULT: &str = ".default";

/// A host or a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Host(HostName),
    Tag(TagName),
}

impl Object {
    /// The object of this key in a namespace.
    pub(super) fn of(namespace: &str, key: &str) -> Answer<Self> {
        Ok(match namespace {
            HOSTS => Self::Host(key.parse()?),
            _ => Self::Tag(format!("{namespace}/{key}").parse()?),
        })
    }

    /// Where it stands.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Host(name) => Key::host(name),
            Self::Tag(name) => Key::tag(name),
        }
    }
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// The namespaces.
    Root,
    /// The keys of a namespace.
    Namespace(Namespace),
    /// A host or a tag.
    Object(Object),
    /// The members of a tag.
    Members(TagName),
    /// One member of a tag.
    Member(TagName, Member),
    /// Who may do what with an object, or (`None`) with what has no rules of its own in the namespace.
    Perms(Namespace, Option<Object>),
    /// A place inside a document: never empty.
    Inside(Object, Vec<String>),
}

impl Resource {
    /// What `path` names; each of its parts is percent-decoded already.
    pub(super) fn parse(path: &str) -> Answer<Self> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        let Some(namespace) = parts.next() else { return Ok(Self::Root) };
        let Some(key) = parts.next() else { return Self::namespace(namespace) };
        let rest: Vec<&str> = parts.collect();
        if let ["perms"] = rest[..] {
            let of = if key == DEFAULT { None } else { Some(Object::of(namespace, key)?) };
            return Ok(Self::Perms(namespace.parse()?, of));
        }
        let object = Object::of(namespace, key)?;
        match (&rest[..], object) {
            ([], object) => Ok(Self::Object(object)),
            (["members", ..], Object::Host(name)) => Err(Fault::not_found(format!(
                "Resource {HOSTS}/{name}/members does not exist: hosts have no members."
            ))),
            (["members"], Object::Tag(tag)) => Ok(Self::Members(tag)),
            // A rule may hold slashes.
            (["members", member @ ..], Object::Tag(tag)) => Ok(Self::Member(tag, member.join("/").parse()?)),
            (inside, object) => {
                Ok(Self::Inside(object, inside.iter().map(|&part| part.to_owned()).collect()))
            }
        }
    }

    /// A namespace of hosts or tags: others HostDB does not have.
    fn namespace(name: &str) -> Answer<Self> {
        if name != HOSTS && RESERVED.contains(&name) {
            return Err(Fault::not_found(format!("Resource {name} does not exist.")));
        }
        Ok(Self::Namespace(name.parse()?))
    }

    /// The rows that say what it is; empty for what is not kept in rows of its own.
    pub(super) fn ranges(&self) -> Vec<Range> {
        match self {
            Self::Root => vec![Range::All],
            Self::Namespace(ns) => vec![Range::Prefix(format!("{ns}/"))],
            Self::Object(object) | Self::Inside(object, _) => vec![Range::Key(object.key())],
            Self::Members(tag) => vec![Range::members(tag)],
            Self::Member(tag, member) => vec![Range::Key(Key::member(tag, member))],
            Self::Perms(ns, of) => super::perms::key(ns, of.as_ref()).map(Range::Key).into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_hostdb_says() {
        let host = |name: &str| Object::Host(name.parse().unwrap());
        let tag = |name: &str| name.parse::<TagName>().unwrap();
        for (path, expected) in [
            ("", Resource::Root),
            ("/", Resource::Root),
            ("hosts", Resource::Namespace("hosts".parse().unwrap())),
            ("//tags/", Resource::Namespace("tags".parse().unwrap())),
            ("hosts/web1.example.com", Resource::Object(host("web1.example.com"))),
            ("hosts/web1/perms", Resource::Perms("hosts".parse().unwrap(), Some(host("web1")))),
            ("hosts/.default/perms", Resource::Perms("hosts".parse().unwrap(), None)),
            ("hosts/web1/Network/IP/", Resource::Inside(host("web1"), vec!["Network".into(), "IP".into()])),
            ("tags/web", Resource::Object(Object::Tag(tag("tags/web")))),
            ("tags/web/members", Resource::Members(tag("tags/web"))),
            ("tags/web/members/web1", Resource::Member(tag("tags/web"), "web1".parse().unwrap())),
            ("tags/web/members/@db", Resource::Member(tag("tags/web"), "@db".parse().unwrap())),
            ("tags/web/members/@other/db", Resource::Member(tag("tags/web"), "@other/db".parse().unwrap())),
            (
                "tags/web/perms/x",
                Resource::Inside(Object::Tag(tag("tags/web")), vec!["perms".into(), "x".into()]),
            ),
        ] {
            assert_eq!(Resource::parse(path).unwrap(), expected, "{path}");
        }
        for (path, status) in [
            ("hosts/web1/members", 404),
            ("hosts/..", 404),
            ("UPPER CASE/x", 404),
            ("facts/x/y", 404),
            ("facts", 404),
            ("pauses/", 404),
            ("access", 404),
            ("tags/x y", 404),
        ] {
            assert_eq!(Resource::parse(path).unwrap_err().status(), status, "{path}");
        }
    }
}
