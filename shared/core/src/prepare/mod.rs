//! From what is meant to what is written: a proposal becomes a commit, or is refused with the reason.
//!
//! Pure: a view, a proposal and a source of ids in, a commit out. The edits are turned into rows one after the other
//! on a copy of the view; the rows are then applied to another copy as a store would, and whatever that
//! touches is checked: references, cycles, rules, schemas of documents, of overrides and of what tags would say of their
//! members. What was read becomes preconditions, so that the answer still holds when the commit happens.
//!
//! A fault that was there before and that the proposal does not touch is a warning, not a refusal: a new schema that old
//! documents break locks nobody out.

mod check;
mod draft;
mod reads;
mod refusal;

use serde::{Deserialize, Serialize};

pub use refusal::{Refusal, Sort};

use crate::{Commit, HostId, Key, Proposal, Revision, Touched, View};

/// The largest row that can be proposed, in octets. Stores take no larger ones.
pub const MAX_ROW: usize = 1 << 20;

/// A proposal that can be committed.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The commit; without changes where everything stands already.
    pub commit: Commit,
    /// What is allowed and yet worth knowing.
    pub warnings: Vec<Warning>,
    /// What it will touch.
    pub touched: Touched,
}

/// What is allowed and yet worth knowing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Warning {
    /// A name for machines: `conflict`, `breaks-schema`, `nests-unprotected`.
    pub code: String,
    /// The row it is about.
    pub key: Key,
    /// For people.
    pub text: String,
}

/// Turns a proposal into a commit, as of the view. `new_id` gives an id that no host ever had.
///
/// Costs what the edits touch: a host edit its tags, a tag's document its members.
///
/// # Errors
/// The first reason why it cannot be done.
pub fn prepare(
    view: &View,
    proposal: &Proposal,
    new_id: &mut dyn FnMut() -> HostId,
) -> Result<Prepared, Refusal> {
    prepare_as(view, proposal, new_id, Revision(view.revision().0 + 1)).map(|(prepared, _)| prepared)
}

/// [`prepare`], with the view that the commit leads to if it gets this revision and nothing else happens meanwhile.
///
/// # Errors
/// As there.
pub fn prepare_as(
    view: &View,
    proposal: &Proposal,
    new_id: &mut dyn FnMut() -> HostId,
    revision: Revision,
) -> Result<(Prepared, View), Refusal> {
    if proposal.author.trim().is_empty() {
        return Err(Refusal::NoAuthor);
    }
    if proposal.message.trim().is_empty() {
        return Err(Refusal::NoMessage);
    }
    let mut draft = draft::Draft::new(view, new_id);
    for edit in &proposal.edits {
        draft.edit(edit)?;
    }
    let (changes, mut reads) = draft.finish()?;
    let mut after = view.clone();
    let touched = after.apply(revision, &changes);
    let warnings =
        check::Check { before: view, after: &after, touched: &touched, reads: &mut reads }.all(&changes)?;
    let pre = if changes.is_empty() { Vec::new() } else { reads.into_pre(view.revision(), changes.len()) };
    let commit = Commit {
        pre: proposal.pre.iter().cloned().chain(pre).collect(),
        changes,
        author: proposal.author.clone(),
        principal: proposal.principal.clone(),
        origin: proposal.origin.clone(),
        message: proposal.message.clone(),
        idempotency: proposal.idempotency.clone(),
        intent: None,
    };
    Ok((Prepared { commit, warnings, touched }, after))
}
