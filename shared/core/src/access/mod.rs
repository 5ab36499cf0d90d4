//! Who may do what, as a function of rows.
//!
//! Everything that decides stands in the database, below `access/`: any number of servers answer alike, and taking a right
//! away is a commit that all of them hear of. [`Index`] holds those rows ready, [`Index::may`] answers one question, and
//! [`Index::judge`] a whole commit, what follows from it included. Nothing here knows what time it is or who is at the other
//! end: both are arguments.
//!
//! # How a question is answered
//!
//! Rights are of the *data* (a document and what stands beside it) or the *members* of a tag, each `none`, `ro` or `rw`.
//!
//! 1. Who is in the group `admins` may do everything, and nobody else anything below `access/`.
//! 2. An agent writes what is its own, and nothing else; see [`Index::judge`]. It reads as others do.
//! 3. Otherwise the nearest row decides that names the asker: the key's own (`access/rules/lb/web`), then its namespace's
//!    (`access/rules/lb`). In one row an entry of the asker's name goes before those of groups, of which the most generous
//!    counts, and those before `*`, everybody who said who they are. `anonymous` is who did not, and never writes.
//! 4. Where no row names the asker: who said who they are may read, and nothing more.
//! 5. What came of that is narrowed by the scope of the token that was shown, and never widened.
//!
//! Every answer names what decided it, also a yes.
//!
//! # Assumptions
//!
//! Rows were checked when they were committed ([`prepare`](crate::prepare())). One that cannot be read all the same, because
//! something else wrote it, gives nobody anything: administrators alone may then touch what it is about.

mod decide;
mod denied;
mod index;
mod judge;
mod names;
mod rows;
mod sessions;

pub use decide::{By, Facet, Target, Verb};
pub use denied::Denied;
pub(crate) use index::check;
pub use index::{Index, Known, is_name};
pub use judge::Judged;
pub use rows::{
    Group, HIDDEN, Manifest, Review, ReviewState, Right, Rights, Rules, Scope, Secret, Token, TokenKind,
    User, hidden, kept,
};
pub use sessions::MAX_SESSIONS;
pub(crate) use sessions::{TOKENS, ended};

use crate::Namespace;

/// The group whose members may do everything.
pub const ADMINS: &str = "admins";
/// Everybody who said who they are, in rules.
pub const EVERYBODY: &str = "*";
/// Who did not say who they are, in rules.
pub const ANONYMOUS: &str = "anonymous";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// `ann`, `agent dns`; for who did not say, `anonymous`.
    pub name: String,
    /// What sort of asker.
    pub sort: Sort,
    /// What the token that was shown is good for; without one, everything.
    pub scope: Scope,
    /// The id of that token.
    pub token: Option<String>,
}

/// What sort of asker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Whoever can write into the database's file anyway: the server's own user, and root.
    Local,
    /// A person, or a program that is no agent.
    Person,
    /// The agent of a namespace.
    Agent(Namespace),
    /// Nobody known.
    Anonymous,
}

impl Principal {
    /// Somebody of this name, with all that is theirs.
    #[must_use]
    pub fn person(name: impl Into<String>) -> Self {
        Self { name: name.into(), sort: Sort::Person, scope: Scope::default(), token: None }
    }

    /// The agent of a namespace.
    #[must_use]
    pub fn agent(namespace: &Namespace) -> Self {
        let name = format!("agent {namespace}");
        Self { name, sort: Sort::Agent(namespace.clone()), scope: Scope::default(), token: None }
    }

    /// Who did not say who they are.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), sort: Sort::Anonymous, scope: Scope::default(), token: None }
    }

    /// Whoever can write into the database's file anyway.
    #[must_use]
    pub fn local(name: impl Into<String>) -> Self {
        Self { name: name.into(), sort: Sort::Local, scope: Scope::default(), token: None }
    }

    /// Whether nothing is known of them.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.sort == Sort::Anonymous
    }
}
