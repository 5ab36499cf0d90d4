//! Why a store did not do what it was asked, and what to do about it.

use serde::{Deserialize, Serialize};
use shoal_core::{Pre, Revision};

/// Why a store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreError {
    /// A precondition does not hold. Nothing was written.
    #[error("{}", conflict(.pre, *.actual))]
    Conflict {
        /// Which one.
        pre: Pre,
        /// The revision that last wrote there, where there is one.
        actual: Option<Revision>,
    },
    /// The claim is held by somebody else, or by nobody. Nothing was written.
    #[error("the claim {name} number {number} is no longer held")]
    Fenced {
        /// The claim's name.
        name: String,
        /// The number that was held.
        number: u64,
    },
    /// The idempotency key was used for another commit.
    #[error(
        "the idempotency key {key:?} was already used for another commit (revision {revision}): use a new one"
    )]
    Reused {
        /// The key.
        key: String,
        /// What it was used for.
        revision: Revision,
    },
    /// A commit that cannot be, whatever the database holds: no message, two changes of one key, too large.
    #[error("{0}")]
    Invalid(String),
    /// The revision asked for does not exist yet.
    #[error("revision {asked} does not exist: the newest is {newest}")]
    Future {
        /// Asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
    /// This database can only be read here.
    #[error("{0} can only be read")]
    ReadOnly(String),
    /// Who asks may not, or is not known; or who was asked is not who it should be. Nothing was written. It helps only that
    /// somebody changes a right, a token or a certificate.
    #[error("{place}: {why}")]
    Denied {
        /// Who refuses, or is refused.
        place: String,
        /// Why, and what helps.
        why: String,
    },
    /// There is no room left. Nothing was written.
    #[error("no room left in {place}: {why}; nothing was written, free some space and try again")]
    Full {
        /// Where.
        place: String,
        /// What the system said.
        why: String,
    },
    /// The database is damaged.
    #[error(
        "{place} is damaged: {why}; restore it from a backup (`shoal database restore BACKUP --replace` keeps what is there \
         beside it), or open a copy with the tools of its engine"
    )]
    Corrupt {
        /// Where.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// It could not be reached or did not answer: whether a commit happened is not known. Retry with the same
    /// idempotency key.
    #[error("{place} did not answer: {why}")]
    Unavailable {
        /// Where.
        place: String,
        /// What the system said.
        why: String,
    },
}

impl StoreError {
    /// Whether trying the same again later may work.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Full { .. })
    }
}

fn conflict(pre: &Pre, actual: Option<Revision>) -> String {
    let by = actual.map(|r| format!(" (revision {r})")).unwrap_or_default();
    match pre {
        Pre::At(key, revision) => match actual {
            Some(now) => {
                format!("{key} changed: you saw revision {revision}, it is now at {now}; read it again")
            }
            None => format!("{key} does not exist any more (you saw revision {revision})"),
        },
        Pre::Exists(key) => format!("{key} does not exist"),
        Pre::Absent(key) => format!("{key} exists already{by}"),
        Pre::Unchanged(range, since) => format!("{range} changed after revision {since}{by}"),
        Pre::Held { name, number } => format!("the claim {name} number {number} is no longer held"),
    }
}
