//! What people and programs ask for: edits, put together in a proposal that is done whole or not at all.
//!
//! An edit says what is meant (rename this host, add these members); [`prepare`](crate::prepare()) turns it into
//! the rows that mean it. Edits of one proposal are taken in order, each on top of the one before, and references are
//! checked at the end: a tag may name a host that a later edit makes.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Document, HostId, HostName, HostRecord, Key, Lifecycle, Member, Pre, Revision, TagName, TagRecord,
};

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "edit", rename_all = "snake_case", deny_unknown_fields)]
pub enum Edit {
    /// The host is this from now on; what is not said is empty, but for id and state.
    PutHost {
        /// Which.
        host: HostName,
        /// For a new host an id of its own, such as one from another database; for one that exists its id, checked.
        /// `None`: a new one is given, or the old one kept.
        #[serde(default)]
        id: Option<HostId>,
        /// `None`: as it is, and `active` for a new host.
        #[serde(default)]
        state: Option<Lifecycle>,
        /// Who answers for it.
        #[serde(default)]
        owner: Option<String>,
        /// What it belongs to.
        #[serde(default)]
        environment: Option<String>,
        /// When it may go.
        #[serde(default)]
        expires: Option<Timestamp>,
        /// What is said of it: a map.
        #[serde(default = "Document::empty")]
        #[schemars(with = "Map<String, Value>")]
        document: Document,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
    /// The tag is this from now on; what is not said is empty, but for the members.
    PutTag {
        /// Which.
        tag: TagName,
        /// Who answers for it.
        #[serde(default)]
        owner: Option<String>,
        /// What it belongs to.
        #[serde(default)]
        environment: Option<String>,
        /// When it may go.
        #[serde(default)]
        expires: Option<Timestamp>,
        /// What it says of its members: a map.
        #[serde(default = "Document::empty")]
        #[schemars(with = "Map<String, Value>")]
        document: Document,
        /// Exactly these members; `None`: as they are.
        #[serde(default)]
        members: Option<Vec<Member>>,
        /// What must stand there before. [`Expect::At`] compares with [`View::tag_revision`](crate::View::tag_revision).
        #[serde(default)]
        expect: Expect,
    },
    /// A merge patch ([RFC 7396](https://www.rfc-editor.org/rfc/rfc7396)) of a host (`state`, `owner`, `environment`, `expires`, `document`) or a tag (also `members`).
    Patch {
        /// A host's or a tag's key.
        key: Key,
        /// The patch; `null` removes.
        patch: Value,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
    /// Deletes a host with its memberships and facts, a tag with its members and facts, or any other row.
    Delete {
        /// Which.
        key: Key,
        /// For a tag that others nest: takes it out of them too. Without it that is refused.
        #[serde(default)]
        follow: bool,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
    /// Gives a host or a tag another name. Every tag that names it follows, and so do its facts and pauses.
    Rename {
        /// The old key.
        from: Key,
        /// The new key, of the same kind; nothing stands there.
        to: Key,
        /// What must stand at the old key.
        #[serde(default)]
        expect: Expect,
    },
    /// Adds members to a tag; those that are in it already are fine.
    AddMembers {
        /// Which tag.
        tag: TagName,
        /// Whom.
        members: Vec<Member>,
    },
    /// Takes members out of a tag. One that is not in it is refused: it is mostly a mistyped name.
    RemoveMembers {
        /// Which tag.
        tag: TagName,
        /// Whom.
        members: Vec<Member>,
    },
    /// The tag has exactly these members from now on.
    SetMembers {
        /// Which tag.
        tag: TagName,
        /// Whom.
        members: Vec<Member>,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
    /// The host is in this state from now on.
    SetState {
        /// Which host.
        host: HostName,
        /// The state.
        state: Lifecycle,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
    /// One row as it is, for programs that prepare commits themselves. It must leave the database as whole as every
    /// other edit does: whatever rests on it goes or changes in the same commit.
    Row {
        /// Which.
        key: Key,
        /// What stands there from now on; `None`: nothing.
        value: Option<Document>,
        /// The other end of a rename.
        #[serde(default)]
        moved: Option<Key>,
    },
    /// Writes a fact, a pause, an approval, a schema, or what decides who may do what.
    Write {
        /// Which.
        key: Key,
        /// What stands there from now on.
        value: Document,
        /// What must stand there before.
        #[serde(default)]
        expect: Expect,
    },
}

impl Edit {
    /// The host is what the record says, id and state included, whatever stood there.
    #[must_use]
    pub fn host(host: HostName, record: HostRecord) -> Self {
        let HostRecord { id, state, owner, environment, expires, document } = record;
        let (id, state, expect) = (Some(id), Some(state), Expect::Any);
        Self::PutHost { host, id, state, owner, environment, expires, document, expect }
    }

    /// The tag is what the record says, whatever stood there; `None`: its members are as they are.
    #[must_use]
    pub fn tag(tag: TagName, record: TagRecord, members: Option<Vec<Member>>) -> Self {
        let TagRecord { owner, environment, expires, document } = record;
        Self::PutTag { tag, owner, environment, expires, document, members, expect: Expect::Any }
    }
}

/// What must stand at a key before an edit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// Whatever.
    #[default]
    Any,
    /// Nothing.
    Absent,
    /// Something.
    Exists,
    /// What this revision wrote, unchanged since.
    At(Revision),
}

/// Edits that are done whole or not at all, with who and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// What is to be done, in order.
    pub edits: Vec<Edit>,
    /// Who says so, for people.
    pub author: String,
    /// Who was authenticated, if somebody was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// From where it came, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Why.
    pub message: String,
    /// A proposal with the same key, author and content that was done already is not done again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// What a repeated idempotency key is compared by; `None`: the edits. Whoever derives rows from something else says of
    /// what here: derived again they may differ, and it is the same proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
    /// What must be so besides, such as a claim that is held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pre: Vec<Pre>,
}

impl Proposal {
    /// Edits with who and why.
    #[must_use]
    pub fn new(author: impl Into<String>, message: impl Into<String>, edits: Vec<Edit>) -> Self {
        Self { edits, author: author.into(), message: message.into(), ..Self::default() }
    }
}
