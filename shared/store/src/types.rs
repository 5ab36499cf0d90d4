//! What goes into a store and comes out of it, rows and commits apart (those are [`shoal_core`]'s).

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shoal_core::{
    CommitInfo, Committed, Epoch, HostName, Key, LogEntry, Namespace, Pre, Range, Revision, Row, Warning,
};

use crate::MAX_PAGE;

/// A database's identity and newest revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Head {
    /// Which life of the database.
    pub epoch: Epoch,
    /// The newest revision.
    pub revision: Revision,
}

/// How far a watcher has seen.
pub type Position = Head;

/// Which rows to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Which keys.
    pub range: Range,
    /// As of when; `None`: now.
    pub at: Option<Revision>,
    /// Only keys after this one.
    pub after: Option<Key>,
    /// At most so many rows, and never more than [`MAX_PAGE`]. Pages of large rows end earlier
    /// ([`MAX_PAGE_BYTES`](crate::MAX_PAGE_BYTES)): only [`Page::next`] says whether there is more.
    pub limit: usize,
    /// Whether tombstones are wanted too.
    pub tombstones: bool,
}

impl Query {
    /// The first page of `range`, now, as large as pages get.
    #[must_use]
    pub fn new(range: Range) -> Self {
        Self { range, at: None, after: None, limit: MAX_PAGE, tombstones: false }
    }
}

/// Some rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Page {
    /// The revision that all rows are of.
    pub at: Revision,
    /// The rows in key order.
    pub rows: Vec<Row>,
    /// What the query for the next page says as [`Query::after`], with `at` as here; `None`: this was the last.
    pub next: Option<Key>,
}

/// Rows as text, all of one revision, in one piece of memory: for who goes through many of them once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    /// Where each row's key ends, and its value, which the next key follows.
    ends: Vec<(usize, usize)>,
}

impl Texts {
    /// Adds a row behind the others: its key, and its value or nothing.
    pub fn push(&mut self, key: &str, value: &str) {
        self.text.push_str(key);
        let key = self.text.len();
        self.text.push_str(value);
        self.ends.push((key, self.text.len()));
    }

    /// Keys and values, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut from = 0;
        self.ends.iter().filter_map(move |(key, end)| {
            let row = (self.text.get(from..*key)?, self.text.get(*key..*end)?);
            from = *end;
            Some(row)
        })
    }
}

/// What a watcher wants to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Changes in any of these ranges.
    pub ranges: Vec<Range>,
    /// While commits pass that the filter leaves out, say [`Feed::Upto`] at most this often: about that often where few watch, and
    /// less often where so many do that telling them all would be work of its own (from 2,000 a second of one store on).
    pub progress: Duration,
}

impl Filter {
    /// Every change.
    #[must_use]
    pub fn all() -> Self {
        Self::of(vec![Range::All])
    }

    /// Changes in these ranges, with progress each second.
    #[must_use]
    pub fn of(ranges: Vec<Range>) -> Self {
        Self { ranges, progress: Duration::from_secs(1) }
    }

    /// Whether a change of this key passes.
    #[must_use]
    pub fn passes(&self, key: &Key) -> bool {
        self.ranges.iter().any(|r| r.contains(key))
    }
}

/// One message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The position is of another epoch, ahead of the database, or older than what is kept: page at `0` and
    /// compare. Commits after it follow.
    Reset(Head),
    /// One commit: those of its changes that pass the filter.
    Commit(Arc<LogEntry>),
    /// Everything up to here has been delivered. Said once the past is caught up with (also after a reset), and
    /// see [`Filter::progress`].
    Upto(Revision),
}

/// A claim that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimRequest {
    /// What is claimed: `unit/dns/example.com`.
    #[schemars(length(min = 1))]
    pub name: String,
    /// How many may hold it at once: 1 for a lock, more for a semaphore.
    #[schemars(range(min = 1))]
    pub of: u32,
    /// Who asks: unique among all processes that ever ran.
    #[schemars(length(min = 1))]
    pub holder: String,
    /// How long it lasts without being renewed; `None`: until it is released.
    pub ttl: Option<Duration>,
}

/// A right that is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claim {
    /// What is claimed.
    pub name: String,
    /// Which of the places, from 0.
    pub slot: u32,
    /// Who holds it.
    pub holder: String,
    /// Rises with every new holder of this name, in whatever slot; never falls, not even when the claim was
    /// released and nobody held it for a year. Numbers may be skipped.
    pub number: u64,
    /// How long it lasts from the moment *before* it was asked for; `None`: until it is released.
    pub ttl: Option<Duration>,
}

impl Claim {
    /// The precondition that this claim is still held.
    #[must_use]
    pub fn held(&self) -> Pre {
        Pre::Held { name: self.name.clone(), number: self.number }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimAnswer {
    /// It is yours.
    Granted(Claim),
    /// All places are taken.
    Taken {
        /// By these.
        by: Vec<Claim>,
        /// When one may be free without being released; `None`: never by itself.
        look_again: Option<Duration>,
    },
}

/// One row of the ledger. The key is `<agent>/<unit>/<page>`, the value is the engine's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerWrite {
    /// Where.
    pub key: String,
    /// What stands there from now on; `None`: nothing.
    pub value: Option<Vec<u8>>,
}

/// Some rows of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPage {
    /// Key and value, in key order.
    pub rows: Vec<(String, Vec<u8>)>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// Which hosts are searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// A CEL expression, as rules of tags have it.
    pub expression: String,
    /// As of this revision; `None`: now.
    pub at: Option<Revision>,
    /// Only those after this one, by name.
    pub after: Option<HostName>,
    /// At most so many.
    pub limit: usize,
}

/// Which hosts and groups an inventory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// The namespace whose tags are the groups.
    pub namespace: Namespace,
    /// Only hosts that this CEL expression selects; `None`: all.
    pub expression: Option<String>,
}

/// Whether somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A user, or `agent NAMESPACE`.
    pub user: String,
    /// What they would do.
    pub verb: shoal_core::access::Verb,
    /// `NAMESPACE/KEY`, `NAMESPACE/KEY/members`, `hosts/FQDN` or `NAMESPACE/`.
    pub on: String,
}

/// Who asks, as a server sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Who {
    /// Their name; `anybody` where the server asks nobody who they are.
    pub principal: String,
    /// Whether they may name somebody else as the author of a commit.
    pub administrator: bool,
}

/// A page of a list that a server makes for who asks: what is not for them is left out, and counted.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Listed<T> {
    /// What all items are of.
    pub revision: Revision,
    /// What is for them.
    pub items: Vec<T>,
    /// What the next page comes after; `None`: this was the last.
    #[serde(default = "Option::default")]
    pub next: Option<String>,
    /// How many are left out of the whole list; of its pages, the first says it.
    #[serde(default)]
    pub hidden: usize,
}

/// A page of the log as a server shows it to who asks, newest first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ListedLog {
    /// The commits of which something is for them.
    pub items: Vec<ListedCommit>,
    /// What the next page is before; `None`: this was the last.
    #[serde(default)]
    pub next: Option<Revision>,
    /// How many commits were left out of this page, because nothing of them is.
    #[serde(default)]
    pub hidden: usize,
}

/// A commit in such a page.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ListedCommit {
    /// Who, when and why.
    #[serde(flatten)]
    pub info: CommitInfo,
    /// How many rows of what was asked about it wrote, of those that are for who asks.
    pub changed: usize,
    /// Some of them.
    pub keys: Vec<Key>,
    /// How many others it wrote.
    #[serde(default)]
    pub hidden: usize,
}

/// A token as its owner sees it: without what it shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnToken {
    /// What it is revoked by.
    pub id: String,
    /// Whose it is.
    pub owner: String,
    /// Where it comes from.
    pub kind: shoal_core::access::TokenKind,
    /// What it is good for.
    pub scope: shoal_core::access::Scope,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it ends; `None`: when it is revoked.
    #[serde(default)]
    pub expires: Option<jiff::Timestamp>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// A password to be replaced by another one. It is printed without either.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct NewPassword {
    /// Whose.
    pub user: String,
    /// The one of now.
    pub password: String,
    /// The one from then on.
    pub new: String,
}

impl std::fmt::Debug for NewPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the passwords of {}", self.user)
    }
}

/// Whether they may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct May {
    /// The answer.
    pub may: bool,
    /// What decides it.
    pub rule: String,
    /// Of a no: what to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of a yes: the rule that wants a second person for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<String>,
}

/// What became of a proposal that was prepared elsewhere.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Proposed {
    /// The commit that holds it.
    #[serde(flatten)]
    pub committed: Committed,
    /// What is allowed and yet worth knowing.
    #[serde(default)]
    pub warnings: Vec<Warning>,
}
