//! What stands in the rows: hosts, tags, schemas.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Document;

/// A host's id: given once, kept through every rename, never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct HostId(pub String);

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a host is in its life.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Somebody wants it; nobody chose where.
    Requested,
    /// It has a place; nobody made it.
    Placed,
    /// It is being made.
    Building,
    /// It serves. A host written without a state is this.
    #[default]
    Active,
    /// It is on its way out: nothing new, what runs may end.
    Draining,
    /// It is gone, and kept for the record.
    Retired,
    /// It did not come up, or broke.
    Failed,
}

impl Lifecycle {
    /// Every state, in order of life.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::Placed,
        Self::Building,
        Self::Active,
        Self::Draining,
        Self::Retired,
        Self::Failed,
    ];

    /// The state as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Placed => "placed",
            Self::Building => "building",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Lifecycle {
    type Err = crate::BadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            crate::BadName::new(
                "state",
                text,
                "it is one of requested, placed, building, active, draining, retired, failed",
            )
        })
    }
}

/// The row of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostRecord {
    /// Survives renames.
    pub id: HostId,
    /// Where it is in its life.
    #[serde(default)]
    pub state: Lifecycle,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it belongs to; a whole environment goes in one commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What people wrote: a map. Overrides of a namespace stand under that namespace's name.
    #[serde(default = "Document::empty")]
    pub document: Document,
}

/// The row of a tag's document; its members are rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TagRecord {
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When it may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it says of its members: a map.
    #[serde(default = "Document::empty")]
    pub document: Document,
}

/// The row under `schemas/<namespace>`, which the namespace's agent publishes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// The JSON Schema (draft 2020-12) that a tag's document and every effective document must satisfy.
    pub tag: Value,
    /// The JSON Schema of what a host may override under the namespace's name; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Value>,
    /// Which program published it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// What the agent writes of hosts and facts besides its own facts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<crate::access::Manifest>,
}
