//! What a refusal, or a warning, may say of what is kept from whoever writes.
//!
//! A commit is checked with everything that it touches: the tags that a host is in, whoever may read them. That it is refused shows that there
//! is something; what it is, and what stands there, is for who may read it.

use shoal_core::access::Facet;
use shoal_core::{Kind, Range, Refusal, TagName, View, Warning};
use shoal_store::{StoreError, TransactError};

use super::Caller;

impl Caller {
    /// The warnings of what is theirs to read. Others are left out without a word: how many there are would tell of them.
    pub(crate) fn warnings(&self, view: &View, mut all: Vec<Warning>) -> Vec<Warning> {
        if self.restricted() {
            all.retain(|warning| match warning.key.kind() {
                // It has values of the tags that it nests, and a member's name.
                Kind::Tag(tag) => self.hears_of(view, &tag) && self.reads_range(&Range::hosts()).is_ok(),
                _ => self.sees(&warning.key),
            });
            // Those that are counted and not said may be about anything.
            all.retain(|warning| !warning.is_count());
        }
        all
    }

    /// Why a proposal was not done, as far as it is theirs to know.
    pub(crate) fn why(&self, view: &View, error: TransactError) -> TransactError {
        match error {
            TransactError::Refused(refusal) => TransactError::Refused(self.refusal(view, refusal)),
            // Not what it rested on, which may be anything that was read for it.
            TransactError::Busy { attempts, last: StoreError::Conflict { .. } } if self.restricted() => {
                let pre = shoal_core::Pre::Unchanged(Range::All, view.revision());
                TransactError::Busy { attempts, last: StoreError::Conflict { pre, actual: None } }
            }
            error => error,
        }
    }

    /// A refusal, without what is not theirs to read.
    pub(crate) fn refusal(&self, view: &View, refusal: Refusal) -> Refusal {
        if !self.restricted() {
            return refusal;
        }
        let kept = Refusal::Kept { sort: refusal.sort() };
        let seen = |tags: Vec<TagName>| -> Vec<TagName> {
            tags.into_iter().filter(|tag| self.sees_members(tag)).collect()
        };
        match refusal {
            Refusal::Missing { key, moved } => {
                Refusal::Missing { key, moved: moved.filter(|to| self.sees(to)) }
            }
            Refusal::UnknownMember { tag, member, moved } => {
                Refusal::UnknownMember { tag, member, moved: moved.filter(|to| self.sees(to)) }
            }
            Refusal::Nested { tag, parents } => match seen(parents) {
                none if none.is_empty() => kept,
                parents => Refusal::Nested { tag, parents },
            },
            Refusal::Named { host, tags } => match seen(tags) {
                none if none.is_empty() => kept,
                tags => Refusal::Named { host, tags },
            },
            Refusal::Cycle { path } if !path.iter().all(|tag| self.sees_members(tag)) => kept,
            Refusal::EffectiveBreaks { tag, host, .. }
                if !self.hears_of(view, &tag) || !self.sees_host(host.as_str()) =>
            {
                kept
            }
            // It says whose it is.
            Refusal::Id { host, .. }
                if view.host(host.as_str()).is_none() && self.reads_range(&Range::hosts()).is_err() =>
            {
                kept
            }
            refusal => refusal,
        }
    }

    /// Whether what a tag says, and of whom, is theirs to read, with the tags that it nests.
    fn hears_of(&self, view: &View, tag: &TagName) -> bool {
        self.reads_nested(view, tag, &[Facet::Data, Facet::Members]).is_ok()
    }
}
