//! The rows below `access/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::key::Access;
use crate::{Change, Document, Key, Kind, Namespace, Revision};

/// What stands where a secret does, for whoever reads it through a server. Written back, it keeps the secret that is there.
pub const HIDDEN: &str = "(hidden)";

/// How much somebody may.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Nothing.
    #[default]
    None,
    /// Read.
    #[serde(alias = "RO")]
    Ro,
    /// Read and write.
    #[serde(alias = "RW")]
    Rw,
}

impl Right {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Ro => "ro",
            Self::Rw => "rw",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "ro" => Ok(Self::Ro),
            "rw" => Ok(Self::Rw),
            _ => Err(format!("{text:?} is no right: it is none, ro or rw")),
        }
    }
}

/// Rights over a document and over members. Written as one word they are for both; what is left out is `none`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Rights {
    /// The document, with owner, environment, expiry and, of a host, its state.
    pub data: Right,
    /// Of a tag: who is in it.
    pub members: Right,
}

impl Rights {
    /// The same for both.
    #[must_use]
    pub fn both(right: Right) -> Self {
        Self { data: right, members: right }
    }

    /// The more generous of both, each for itself.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { data: self.data.max(other.data), members: self.members.max(other.members) }
    }
}

impl<'de> Deserialize<'de> for Rights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Parts {
            #[serde(default)]
            data: Right,
            #[serde(default)]
            members: Right,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Both(Right),
            Parts(Parts),
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Both(right) => Self::both(right),
            Form::Parts(Parts { data, members }) => Self { data, members },
        })
    }
}

/// The row `access/rules/<namespace>` or `access/rules/<namespace>/<key>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// By name of a user, `@GROUP`, `agent NAMESPACE`, `*` (everybody who said who they are) or `anonymous`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allow: BTreeMap<String, Rights>,
    /// Whether a change needs a second person; of a key, `None`: as its namespace has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
}

/// The row `access/users/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The hash of the password (argon2id, in the PHC form); `None`: there is none to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The user is this namespace's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Namespace>,
    /// Whether nothing is taken from this user any more: no token, no password, no socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// The row `access/groups/<name>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Names of users.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub members: BTreeSet<String>,
}

/// A hash of something secret. It is not printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Where a token comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// An administrator made it.
    #[default]
    Token,
    /// Somebody said a password.
    Session,
}

/// The row `access/tokens/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Where it comes from.
    #[serde(default)]
    pub kind: TokenKind,
    /// Whose it is: a user's name, or `agent NAMESPACE`.
    pub owner: String,
    /// SHA-256 of the secret part, as 64 hexadecimal digits. The secret is random in all its 256 bits, so that there is nothing
    /// to guess that a slow hash would make slower.
    pub hash: Secret,
    /// What it is good for.
    #[serde(default, skip_serializing_if = "Scope::is_everything")]
    pub scope: Scope,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends; `None`: when somebody revokes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What a token is good for. It only ever takes away from what its owner may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// These namespaces alone (`hosts`, `dns`, `facts`, `access`); `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<String>>")]
    pub namespaces: Option<BTreeSet<String>>,
    /// At most this of data.
    #[serde(default = "most", skip_serializing_if = "is_most")]
    pub data: Right,
    /// At most this of members.
    #[serde(default = "most", skip_serializing_if = "is_most")]
    pub members: Right,
    /// Of an agent's: at most this of what its manifest says; `None`: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes: Option<Manifest>,
}

fn most() -> Right {
    Right::Rw
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_most(right: &Right) -> bool {
    *right == Right::Rw
}

impl Default for Scope {
    fn default() -> Self {
        Self { namespaces: None, data: Right::Rw, members: Right::Rw, writes: None }
    }
}

impl Scope {
    /// Whether it takes nothing away.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it is good for anything of this namespace.
    #[must_use]
    pub fn has(&self, namespace: &str) -> bool {
        self.namespaces.as_ref().is_none_or(|all| all.contains(namespace))
    }
}

/// What an agent writes besides what is its own anyway: it stands in its schema's row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Facts of these namespaces, besides its own.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(with = "Vec<Namespace>")]
    pub facts: BTreeSet<Namespace>,
    /// These fields of hosts' documents; `state` is the host's state.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub host_fields: BTreeSet<String>,
    /// Hosts that it makes: where nothing stands, or where one is retired, it may have one `requested`, whole.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub makes_hosts: bool,
    /// The members of all tags of these namespaces, as far as they are hosts: it puts them in, and takes out who is retired.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schemars(with = "Vec<Namespace>")]
    pub members: BTreeSet<Namespace>,
}

impl Manifest {
    /// Whether all of this stands in the other, too.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.facts.is_subset(&other.facts)
            && self.host_fields.is_subset(&other.host_fields)
            && self.members.is_subset(&other.members)
            && (other.makes_hosts || !self.makes_hosts)
    }

    /// What stands in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            facts: self.facts.intersection(&other.facts).cloned().collect(),
            host_fields: self.host_fields.intersection(&other.host_fields).cloned().collect(),
            makes_hosts: self.makes_hosts && other.makes_hosts,
            members: self.members.intersection(&other.members).cloned().collect(),
        }
    }
}

/// The row `access/reviews/<id>`: a change that waits for a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Who proposes it.
    pub proposer: String,
    /// Why.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// Exactly the rows that it would write.
    pub changes: Vec<Change>,
    /// What each of these rows, and what they rest on, was last written by; `0`: it is not there.
    pub ground: BTreeMap<Key, Revision>,
    /// What became of it.
    #[serde(default)]
    pub state: ReviewState,
    /// Who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<String>,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReviewState {
    /// It waits.
    #[default]
    Open,
    /// It was done, by the commit that wrote this.
    Approved,
    /// It will not be done.
    Rejected,
}

/// A row as whoever is no part of the program may see it: without the hashes of secrets.
#[must_use]
pub fn hidden(key: &Key, value: &Document) -> Option<Document> {
    let field = secret(key)?;
    value.raw(field)?;
    let mut all = value.value();
    all.as_object_mut()?.insert(field.to_owned(), HIDDEN.into());
    Document::of(&all).ok()
}

/// A row as it is to stand: where the secret was hidden from who writes it, it is what it was. `None`: nothing was hidden.
///
/// # Errors
/// There is no secret there to keep.
pub fn kept(key: &Key, value: &Document, now: Option<&Document>) -> Result<Option<Document>, &'static str> {
    let Some(field) = secret(key).filter(|field| value.text(field).as_deref() == Some(HIDDEN)) else {
        return Ok(None);
    };
    let have =
        now.and_then(|now| now.text(field)).ok_or("its secret is hidden, and none stands there to keep")?;
    let mut all = value.value();
    if let Some(map) = all.as_object_mut() {
        map.insert(field.to_owned(), have.as_ref().into());
    }
    Document::of(&all).map(Some).map_err(|_| "it cannot be written down")
}

/// The field that holds a secret's hash.
fn secret(key: &Key) -> Option<&'static str> {
    if key.namespace() != crate::ACCESS {
        return None;
    }
    match key.kind() {
        Kind::Access(Access::Token(_)) => Some("hash"),
        Kind::Access(Access::User(_)) => Some("password"),
        _ => None,
    }
}
