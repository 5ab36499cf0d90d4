//! A large commit whose view is worked out before it happens.
//!
//! What a commit of 100,000 hosts does to the view takes most of a second, and everybody who waits for the view to hold his
//! own commit would wait for that too. But whoever proposes it has just worked it out, to check it: on an older view,
//! beside what others do. So that is kept, and the commits that come meanwhile are applied to it as well as to the view; when
//! the large one comes it takes the place of the view.
//!
//! It is the same view: they write other rows (which is looked at), and a view is what its rows say, in whatever order they
//! were written. Whatever does not fit makes the commit one like any other.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use shoal_core::{Change, Epoch, LogEntry, Revision, View};

use super::Shared;
use crate::MAX_SKIP;

/// The most commits that are kept until they can be applied to it; of changes, some times as many.
const KEPT: usize = 4096;
/// How many of those are applied when another one comes.
const AT_ONCE: usize = 16;
/// By how many revisions it is put off, so that those that come meanwhile have numbers: so many while it is worked out, and one for so
/// many of its edits while the store writes it.
const LATER: u64 = 4096;
const EACH: u64 = 4;

/// One that is expected.
pub(super) struct Coming {
    epoch: Epoch,
    /// The revision that it was worked out for.
    revision: Revision,
    /// What it writes, in key order, and the view then; `None` while that is worked out.
    known: Option<(Vec<Change>, View)>,
    /// What came since and is not applied to it yet, and how many changes that are.
    since: VecDeque<Arc<LogEntry>>,
    changes: usize,
}

/// The right to say what comes; nothing is expected any more without it.
pub(super) struct Expected<'a> {
    shared: &'a Shared,
    /// The view that it is to be worked out on.
    pub(super) view: Arc<View>,
    pub(super) revision: Revision,
}

impl Shared {
    /// Keeps what comes from now on, for a proposal of so many edits, unless that is done for another one already.
    pub(super) fn expect(&self, edits: usize) -> Option<Expected<'_>> {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if coming.is_some() {
            return None;
        }
        // Nobody else changes the view while `coming` is locked.
        let (view, epoch) = (self.view(), self.reached.borrow().epoch);
        let later = LATER.saturating_add(edits as u64 / EACH).min(MAX_SKIP / 2);
        let revision = Revision(view.revision().0 + 1 + later);
        *coming = Some(Coming { epoch, revision, known: None, since: VecDeque::new(), changes: 0 });
        Some(Expected { shared: self, view, revision })
    }
}

impl Expected<'_> {
    pub(super) fn known(&self, mut changes: Vec<Change>, after: View) {
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        let mut coming = self.shared.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(coming) = coming.as_mut().filter(|c| c.revision == self.revision) {
            coming.known = Some((changes, after));
        }
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let mut coming = self.shared.coming.lock().unwrap_or_else(PoisonError::into_inner);
        if coming.as_ref().is_some_and(|c| c.revision == self.revision) {
            *coming = None;
        }
    }
}

impl Coming {
    /// The view after this commit, if it is the one. Otherwise it is kept.
    pub(super) fn take(this: &mut Option<Self>, epoch: Epoch, entry: &Arc<LogEntry>) -> Option<View> {
        let coming = this.as_mut()?;
        if entry.info.revision < coming.revision && epoch == coming.epoch {
            coming.changes += entry.changes.len();
            coming.since.push_back(entry.clone());
            let fits = coming.apply(AT_ONCE);
            if !fits || coming.since.len() > KEPT || coming.changes > 16 * KEPT {
                *this = None;
            }
            return None;
        }
        let mut coming = this.take()?;
        if !coming.apply(usize::MAX) {
            return None;
        }
        let Self { epoch: of, revision, known, .. } = coming;
        let (changes, mut after) = known?;
        if of != epoch || entry.info.revision != revision || entry.changes != changes {
            return None;
        }
        after.skip(revision);
        Some(after)
    }

    /// Applies some of what came since, if the view is worked out. Whether that fits: they write other rows.
    fn apply(&mut self, most: usize) -> bool {
        let Some((changes, after)) = &mut self.known else { return true };
        for entry in self.since.drain(..most.min(self.since.len())) {
            self.changes -= entry.changes.len();
            let beside = |change: &Change| changes.binary_search_by(|c| c.key.cmp(&change.key)).is_err();
            if !entry.changes.iter().all(beside) {
                return false;
            }
            after.apply(entry.info.revision, &entry.changes);
        }
        true
    }
}
