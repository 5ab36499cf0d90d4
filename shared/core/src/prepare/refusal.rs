//! Why a proposal is refused.

use crate::schema::Fault;
use crate::{BadRule, HostId, HostName, Key, Member, Namespace, Origin, Revision, TagName};

/// Why a proposal is refused: the thing, the place and the way out. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody says so.
    #[error("the commit has no author: say who makes it")]
    NoAuthor,
    /// No reason is given.
    #[error("the commit has no message: say why it is made")]
    NoMessage,
    /// What is to be changed is not there.
    #[error("{key} does not exist{}", .moved.as_ref().map_or_else(|| ": mend the name, or make it first".to_owned(), |to| format!(": it was renamed to {to}")))]
    Missing {
        /// What.
        key: Key,
        /// Where it went, if it was renamed.
        moved: Option<Key>,
    },
    /// What is to be made is there already.
    #[error("{key} exists already (revision {revision}): choose another name, or change what is there")]
    Exists {
        /// What.
        key: Key,
        /// The revision that wrote it.
        revision: Revision,
    },
    /// Somebody else was faster.
    #[error("{key} changed: you saw revision {seen}, it is now at {actual}; read it again and decide anew")]
    Stale {
        /// What.
        key: Key,
        /// What the caller saw.
        seen: Revision,
        /// What it is now.
        actual: Revision,
    },
    /// Two edits of one proposal put the same thing.
    #[error("{key} is put twice in one commit: leave one of the two out")]
    Twice {
        /// What.
        key: Key,
    },
    /// A tag names what is not there.
    #[error("{tag} cannot have the member {member}: {}; make it first or in the same commit, or mend the name", unknown(.member, .moved.as_ref()))]
    UnknownMember {
        /// Where.
        tag: TagName,
        /// Whom.
        member: Member,
        /// What it was renamed to.
        moved: Option<Key>,
    },
    /// A member is to be taken out that is not in.
    #[error(
        "{member} is no member of {tag} by name, so it cannot be taken out; `shoal members {tag}` shows who is"
    )]
    NoMember {
        /// Where.
        tag: TagName,
        /// Whom.
        member: Member,
    },
    /// Tags would contain each other.
    #[error("{} would contain itself: {}; leave one of these links out", .path.first().map(TagName::as_str).unwrap_or_default(), route(.path))]
    Cycle {
        /// The way around, the first tag again at the end.
        path: Vec<TagName>,
    },
    /// A rule does not compile.
    #[error("{tag}: {rule}")]
    Rule {
        /// Where.
        tag: TagName,
        /// What is wrong.
        rule: BadRule,
    },
    /// A tag's own document breaks its namespace's schema.
    #[error("the document of {tag} breaks the schema of {}: {fault}; mend that field (`shoal get schemas/{}` shows what it may be)", .tag.namespace(), .tag.namespace())]
    TagBreaks {
        /// Whose.
        tag: TagName,
        /// Where and how.
        fault: Box<Fault>,
    },
    /// A host overrides what it may not.
    #[error(
        "what {host} overrides under {namespace:?} breaks the schema of {namespace}: {fault}; mend or remove that field (`shoal get schemas/{namespace}` shows what it may be)"
    )]
    OverrideBreaks {
        /// Whose.
        host: HostName,
        /// Under which field.
        namespace: Namespace,
        /// Where and how.
        fault: Box<Fault>,
    },
    /// What a tag would say of a member breaks the namespace's schema, though each part may be fine.
    #[error("what {tag} says of {host} would break the schema of {}: {fault}{}; mend it there (`shoal get schemas/{}` shows what it may be)", .tag.namespace(), said_by(.origin.as_ref()), .tag.namespace())]
    EffectiveBreaks {
        /// Which tag.
        tag: TagName,
        /// Of whom.
        host: HostName,
        /// Where and how.
        fault: Box<Fault>,
        /// Who says the value.
        origin: Option<Origin>,
    },
    /// A schema is not one.
    #[error(
        "the schema of {namespace} cannot be used: {why}; publish one that is JSON Schema, draft 2020-12"
    )]
    Schema {
        /// Whose.
        namespace: Namespace,
        /// What is wrong.
        why: String,
    },
    /// Other tags nest the tag.
    #[error("{tag} is nested in {}: take it out of them first, or delete it there too (--follow, ?follow)", list(.parents))]
    Nested {
        /// Which.
        tag: TagName,
        /// In which.
        parents: Vec<TagName>,
    },
    /// Tags still name a host that goes.
    #[error("{host} is still a member of {}: take it out of them in the same commit", list(.tags))]
    Named {
        /// Which.
        host: HostName,
        /// In which.
        tags: Vec<TagName>,
    },
    /// The content is not of the form of its key.
    #[error("{key} is not of the right form: {why}")]
    Form {
        /// Where.
        key: Key,
        /// What is wrong.
        why: String,
    },
    /// This edit does not fit this kind of key.
    #[error("{key}: {why}")]
    Kind {
        /// Where.
        key: Key,
        /// What to do instead.
        why: &'static str,
    },
    /// An id belongs to another host, or is not the host's.
    #[error("{host} cannot have the id {id}: {why}")]
    Id {
        /// Which host.
        host: HostName,
        /// The id.
        id: HostId,
        /// Whose it is.
        why: String,
    },
    /// A row is larger than stores take.
    #[error(
        "{key} is too large: {octets} octets, at most {most} fit; split it, or keep what is large elsewhere and say here where"
    )]
    TooLarge {
        /// Where.
        key: Key,
        /// How large.
        octets: usize,
        /// How large it may be.
        most: usize,
    },
    /// What refuses it is not for whoever proposes it: put by who knows them in the place of the refusal.
    #[error(
        "it is refused by something that is kept from you: ask somebody who may read more, such as an administrator"
    )]
    Kept {
        /// What sort of answer the refusal is.
        sort: Sort,
    },
}

/// What sort of answer a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The proposal is wrong as it stands, whatever else changes (HTTP 422).
    Invalid,
    /// What it is about is not there (HTTP 404).
    Missing,
    /// It contradicts what is there (HTTP 409).
    Conflict,
    /// The caller's revision is not the newest (HTTP 412).
    Stale,
}

impl Refusal {
    /// A name for machines; it never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoAuthor => "no-author",
            Self::NoMessage => "no-message",
            Self::Missing { .. } => "missing",
            Self::Exists { .. } => "exists",
            Self::Stale { .. } => "stale",
            Self::Twice { .. } => "twice",
            Self::UnknownMember { .. } => "unknown-member",
            Self::NoMember { .. } => "no-member",
            Self::Cycle { .. } => "cycle",
            Self::Rule { .. } => "bad-rule",
            Self::TagBreaks { .. } => "tag-breaks-schema",
            Self::OverrideBreaks { .. } => "override-breaks-schema",
            Self::EffectiveBreaks { .. } => "effective-breaks-schema",
            Self::Schema { .. } => "bad-schema",
            Self::Nested { .. } => "nested",
            Self::Named { .. } => "named",
            Self::Form { .. } => "form",
            Self::Kind { .. } => "kind",
            Self::Id { .. } => "id",
            Self::TooLarge { .. } => "too-large",
            Self::Kept { .. } => "kept",
        }
    }

    /// What sort of answer it is.
    #[must_use]
    pub fn sort(&self) -> Sort {
        match self {
            Self::Missing { .. } => Sort::Missing,
            Self::Kept { sort } => *sort,
            Self::Stale { .. } => Sort::Stale,
            Self::Exists { .. }
            | Self::Nested { .. }
            | Self::Named { .. }
            | Self::Id { .. }
            | Self::NoMember { .. } => Sort::Conflict,
            _ => Sort::Invalid,
        }
    }

    /// What to do next, for people, whatever exactly is refused.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoAuthor => "name an author",
            Self::NoMessage => "give a reason as the message",
            Self::Missing { .. } => "make it first, in this commit or before, or mend the name",
            Self::Exists { .. } => "choose another name, or change what is there",
            Self::Stale { .. } => {
                "read it again, apply the change to what it says now, and send that revision"
            }
            Self::Twice { .. } => "leave one of the two out",
            Self::UnknownMember { .. } => "make the member first, in this commit or before, or mend its name",
            Self::NoMember { .. } => {
                "look at the tag's own members: what nesting or a rule brings in goes with those"
            }
            Self::Cycle { .. } => "leave one of the links of the path out",
            Self::Rule { .. } => "mend the rule at the column that is named",
            Self::TagBreaks { .. } => {
                "mend the field; the schema stands under schemas/ and the tag's namespace"
            }
            Self::OverrideBreaks { .. } => {
                "mend the field of the host, or remove it; the schema stands under schemas/ and its namespace"
            }
            Self::EffectiveBreaks { .. } => {
                "mend the value where it is said, or override it nearer to the host; the schema stands under schemas/"
            }
            Self::Schema { .. } => "publish one that is JSON Schema, draft 2020-12, and stands alone",
            Self::Nested { .. } => "take it out of those tags first, or let the deletion follow",
            Self::Named { .. } => "take it out of those tags in the same commit",
            Self::Form { .. } => "mend the form; shared/core/src/record.rs has that of every row",
            Self::Kind { .. } => "use an edit that fits the key",
            Self::Id { .. } => "leave the id out, and one is given or kept",
            Self::TooLarge { .. } => "split it, or keep what is large elsewhere and say here where",
            Self::Kept { .. } => "ask somebody who may read more: they are told what it is",
        }
    }

    /// The row it is about.
    #[must_use]
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::NoAuthor | Self::NoMessage | Self::Kept { .. } => None,
            Self::Missing { key, .. }
            | Self::Exists { key, .. }
            | Self::Stale { key, .. }
            | Self::Twice { key }
            | Self::Form { key, .. }
            | Self::Kind { key, .. }
            | Self::TooLarge { key, .. } => Some(key.clone()),
            Self::UnknownMember { tag, member, .. } | Self::NoMember { tag, member } => {
                Some(Key::member(tag, member))
            }
            Self::Cycle { path } => path.first().map(Key::tag),
            Self::Rule { tag, rule } => Some(Key::member(tag, &Member::rule(&rule.rule))),
            Self::TagBreaks { tag, .. } | Self::EffectiveBreaks { tag, .. } | Self::Nested { tag, .. } => {
                Some(Key::tag(tag))
            }
            Self::OverrideBreaks { host, .. } | Self::Id { host, .. } | Self::Named { host, .. } => {
                Some(Key::host(host))
            }
            Self::Schema { namespace, .. } => Some(Key::schema(namespace)),
        }
    }

    /// Where a document breaks its schema.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::TagBreaks { fault, .. }
            | Self::OverrideBreaks { fault, .. }
            | Self::EffectiveBreaks { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

fn unknown(member: &Member, moved: Option<&Key>) -> String {
    let what =
        if member.as_str().starts_with('@') { "there is no such tag" } else { "there is no such host" };
    match moved {
        Some(to) => format!("{what}, it was renamed to {to}"),
        None => what.to_owned(),
    }
}

fn said_by(origin: Option<&Origin>) -> String {
    origin.map(|o| format!(" (said by {} at revision {})", o.key, o.revision)).unwrap_or_default()
}

fn route(path: &[TagName]) -> String {
    path.iter().map(TagName::as_str).collect::<Vec<_>>().join(" > ")
}

fn list(tags: &[TagName]) -> String {
    let some: Vec<&str> = tags.iter().take(5).map(TagName::as_str).collect();
    let more = tags.len().saturating_sub(some.len());
    if more == 0 { some.join(", ") } else { format!("{} and {more} more", some.join(", ")) }
}
