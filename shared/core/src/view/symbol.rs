//! Names as numbers: inside the view a host, a tag and a rule are four octets.
//!
//! A symbol is given on first sight and never taken back, so a name that is written before its host exists, or
//! that outlives it, costs one slot.

use std::sync::Arc;

use crate::Revision;

/// A host's number in one view and its clones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostSym(pub u32);
/// A tag's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TagSym(pub u32);
/// A rule's number: rules of equal text are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RuleSym(pub u32);

/// A small sorted set that costs nothing while it is empty and is cloned by reference count.
#[derive(Clone, Debug)]
pub(crate) struct Few<T>(Option<Arc<[T]>>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Copy + Ord> Few<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.as_slice().iter().copied()
    }

    pub(crate) fn contains(&self, one: T) -> bool {
        self.as_slice().binary_search(&one).is_ok()
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, one: T) -> bool {
        let now = self.as_slice();
        let Err(at) = now.binary_search(&one) else { return false };
        self.0 = Some([&now[..at], &[one], &now[at..]].concat().into());
        true
    }

    /// Whether it was there before.
    pub(crate) fn remove(&mut self, one: T) -> bool {
        let now = self.as_slice();
        let Ok(at) = now.binary_search(&one) else { return false };
        let left = [&now[..at], &now[at + 1..]].concat();
        self.0 = (!left.is_empty()).then(|| left.into());
        true
    }
}

/// The tags that name a host, with the revision of each member row. Twelve octets a tag: this is most of what a host
/// costs beyond its document.
#[derive(Clone, Debug, Default)]
pub(crate) struct Links(Option<Arc<[(TagSym, Since)]>>);

/// A revision that is aligned to four octets.
#[derive(Clone, Copy, Debug)]
struct Since([u32; 2]);

impl From<Revision> for Since {
    fn from(revision: Revision) -> Self {
        let [a, b, c, d, e, f, g, h] = revision.0.to_le_bytes();
        Self([u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])])
    }
}

impl From<Since> for Revision {
    fn from(Since([low, high]): Since) -> Self {
        Self(u64::from(low) | u64::from(high) << 32)
    }
}

impl Links {
    fn as_slice(&self) -> &[(TagSym, Since)] {
        self.0.as_deref().unwrap_or_default()
    }

    fn place(&self, tag: TagSym) -> Result<usize, usize> {
        self.as_slice().binary_search_by_key(&tag, |(tag, _)| *tag)
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = TagSym> + '_ {
        self.as_slice().iter().map(|(tag, _)| *tag)
    }

    /// The revision of the row by which the tag names the host.
    pub(crate) fn get(&self, tag: TagSym) -> Option<Revision> {
        self.place(tag).ok().and_then(|at| self.as_slice().get(at)).map(|(_, since)| (*since).into())
    }

    pub(crate) fn insert(&mut self, tag: TagSym, revision: Revision) {
        let now = self.as_slice();
        let (before, after) = match self.place(tag) {
            Ok(at) => (&now[..at], &now[at + 1..]),
            Err(at) => (&now[..at], &now[at..]),
        };
        self.0 = Some([before, &[(tag, revision.into())], after].concat().into());
    }

    /// Inserts many at once.
    pub(crate) fn extend(&mut self, links: impl Iterator<Item = (TagSym, Revision)>) {
        if self.0.is_none() {
            let mut all: Vec<(TagSym, Since)> = links.map(|(tag, revision)| (tag, revision.into())).collect();
            all.sort_by_key(|(tag, _)| *tag);
            all.dedup_by_key(|(tag, _)| *tag);
            self.0 = (!all.is_empty()).then(|| all.into());
            return;
        }
        links.for_each(|(tag, revision)| self.insert(tag, revision));
    }

    pub(crate) fn remove(&mut self, tag: TagSym) {
        let now = self.as_slice();
        let Ok(at) = self.place(tag) else { return };
        let left = [&now[..at], &now[at + 1..]].concat();
        self.0 = (!left.is_empty()).then(|| left.into());
    }
}
