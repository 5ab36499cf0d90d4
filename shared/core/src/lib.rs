//! The pure model of Shoal: names, documents, tags, membership, selectors, merge, the indexed view.
//!
//! Nothing here reads a clock, the environment, a file or a random source, and nothing is asynchronous: what
//! is needed from outside is an argument. Stores keep [`Row`]s; the view turns rows into hosts and tags and
//! says what a commit touches; agents and servers are built on both.

pub mod access;
pub mod codec;
mod commit;
mod diff;
pub mod docs;
mod document;
mod edit;
pub mod forms;
mod key;
mod member;
mod name;
mod prepare;
mod range;
mod record;
mod rollback;
mod schema;
mod select;
mod span;
mod standing;
mod status;
mod unit;
mod view;

pub use commit::{Change, Commit, CommitInfo, Committed, Epoch, LogEntry, Pre, Revision, Row};
pub use diff::{Blame, Difference, Line, diff};
pub use document::{Document, find as raw_field};
pub use edit::{Edit, Expect, Proposal};
pub use key::{Access, Key, Kind};
pub use member::{MAX_RULE, Member, MemberKind};
pub use name::{
    ACCESS, APPROVALS, BadName, FACTS, HOSTS, HostName, MAX_SEGMENT, Namespace, PAUSES, RESERVED, SCHEMAS,
    TagName,
};
pub use prepare::{MAX_ROW, Prepared, Refusal, Sort, Warning, prepare, prepare_as};
pub use range::{About, Range};
pub use record::{HostId, HostRecord, Lifecycle, Schema, TagRecord};
pub use rollback::{Scope, rollback};
pub use schema::{Checker, Fault};
pub use select::{BadRule, MAX_DEPTH, MAX_STEPS, Rule, Subject};
pub use span::{BadSpan, span};
pub use standing::{Group, Standing, standing};
pub use status::{
    Approval, Behind, Clash, Hold, LeftOut, Life, MAX_BEHIND, MAX_CLASHES, Pause, Quarantined, Status,
    UnitStatus,
};
pub use view::{
    Broken, Conflict, Contents, Counters, Doubt, Effective, EffectiveDocument, Excerpt, Excerpting, Fact,
    Hits, Host, Origin, Plain, Said, Stood, Tag, Tombstone, Touched, Unsure, Via, View, allows_override,
    host_row, tag_row,
};
