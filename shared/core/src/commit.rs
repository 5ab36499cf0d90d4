//! Commits: what changes together, who did it, and on what condition.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Document, Key, Range};

/// One number for the whole database, strictly rising; numbers may be skipped. 0 is before every commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of the database this is: a restored backup has another. Random, never 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// One row that a commit writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The row.
    pub key: Key,
    /// What stands there from now on; `None` leaves a tombstone.
    pub value: Option<Document>,
    /// A rename is two changes of one commit that name each other here: the old key without a value says where
    /// it went, the new key with one says where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Key>,
}

impl Change {
    /// `value` stands at `key` from now on.
    #[must_use]
    pub fn put(key: Key, value: Document) -> Self {
        Self { key, value: Some(value), moved: None }
    }

    /// Nothing stands at `key` from now on.
    #[must_use]
    pub fn delete(key: Key) -> Self {
        Self { key, value: None, moved: None }
    }
}

/// What must be so for a commit to happen, checked in one step with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pre {
    /// The row was last written by exactly this revision, and exists.
    At(Key, Revision),
    /// The row exists.
    Exists(Key),
    /// The row does not exist (never did, or is deleted).
    Absent(Key),
    /// No row of the range was written, made or deleted after this revision.
    Unchanged(Range, Revision),
    /// The claim of this name is still held under this number.
    Held {
        /// The claim's name.
        name: String,
        /// Its fencing number.
        number: u64,
    },
}

/// An atomic set of changes. At most one change a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// What must be so.
    #[serde(default)]
    pub pre: Vec<Pre>,
    /// What is written. Changes that change nothing are left out by the store.
    pub changes: Vec<Change>,
    /// Who says so, for people: `ann`, `agent dns`.
    pub author: String,
    /// Who was authenticated; the store's caller fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// From where it came: an address, a local user; with which token. The store's caller fills it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Why.
    pub message: String,
    /// A retried commit with the same key, author and content answers the first one's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<String>,
    /// What a repeated idempotency key is compared by, instead of the changes: a digest of what they were derived
    /// from. A proposal that is derived again from a newer database gives other changes, and is the same proposal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<String>,
}

impl Commit {
    /// What, with who and why, on no condition.
    #[must_use]
    pub fn new(author: impl Into<String>, message: impl Into<String>, changes: Vec<Change>) -> Self {
        Self {
            pre: Vec::new(),
            changes,
            author: author.into(),
            principal: None,
            origin: None,
            message: message.into(),
            idempotency: None,
            intent: None,
        }
    }
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Committed {
    /// The revision that holds it; where it changed nothing, the newest revision.
    pub revision: Revision,
    /// How many rows it wrote; 0 when everything already stood there.
    pub changed: usize,
    /// Whether an earlier attempt with the same idempotency key had already written it.
    pub replayed: bool,
}

/// Who, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommitInfo {
    /// Its number.
    pub revision: Revision,
    /// Who said so.
    pub author: String,
    /// Who was authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// From where it came, and with which token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Why.
    pub message: String,
    /// When, by the store's clock, to the millisecond.
    pub time: Timestamp,
}

/// One commit with what it wrote in the range that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogEntry {
    /// Who, when and why.
    #[serde(flatten)]
    pub info: CommitInfo,
    /// The changes within the range, in key order.
    pub changes: Vec<Change>,
}

/// One row as it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// What stands there; `None` is a tombstone, shown only where tombstones are asked for.
    pub value: Option<Document>,
    /// The revision that wrote this.
    pub revision: Revision,
    /// For a tombstone, where the row went; for a value, where it came from, if this revision moved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Key>,
}
