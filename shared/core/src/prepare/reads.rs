//! What a proposal rests on, turned into preconditions.
//!
//! A proposal is checked against a view, and the database may have moved on when it is committed. So everything
//! that the checks read is stated: rows that were read stand at the revision that was seen, rows that were missing
//! are missing still, ranges that were searched have not changed since. A commit that raced with another is refused by the
//! store and prepared again on a newer view.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Key, Member, Pre, Range, Revision, TagName, View};

/// From so many hosts on that are only read, all hosts are stated as one range: a precondition each would cost more than a
/// retry. A commit that writes more than that may also state as many: it costs no more than the writing, and a large commit
/// would never be done while others write some host all the time.
const MANY: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Reads {
    at: BTreeMap<Key, Revision>,
    absent: BTreeSet<Key>,
    exists: BTreeSet<Key>,
    unchanged: BTreeSet<Key>,
    members: BTreeSet<TagName>,
    naming: BTreeSet<Member>,
    all_hosts: bool,
    tokens: bool,
}

impl Reads {
    /// The row as it stands in the view, or its absence.
    pub(super) fn row(&mut self, view: &View, key: &Key) {
        match view.revision_of(key) {
            Some(revision) => {
                self.at.insert(key.clone(), revision);
            }
            None => {
                self.absent.insert(key.clone());
            }
        }
    }

    /// That the row exists, whatever it says.
    pub(super) fn exists(&mut self, key: Key) {
        self.exists.insert(key);
    }

    /// The row or its absence, as of the view's revision.
    pub(super) fn unchanged(&mut self, key: Key) {
        self.unchanged.insert(key);
    }

    /// Who the tag's own members are.
    pub(super) fn members(&mut self, tag: &TagName) {
        self.members.insert(tag.clone());
    }

    /// Which tags name the member.
    pub(super) fn naming(&mut self, member: Member) {
        self.naming.insert(member);
    }

    /// Which tags nest the tag.
    pub(super) fn nesting(&mut self, tag: &TagName) {
        self.naming(Member::nested(tag, tag.namespace()));
        self.naming(Member::nested(tag, ""));
    }

    /// Every host.
    pub(super) fn all_hosts(&mut self) {
        self.all_hosts = true;
    }

    /// Every token.
    pub(super) fn tokens(&mut self) {
        self.tokens = true;
    }

    /// The preconditions, as of `revision`, of a commit that writes so many rows.
    pub(super) fn into_pre(mut self, revision: Revision, writes: usize) -> Vec<Pre> {
        let host = |key: &Key| key.namespace() == crate::HOSTS;
        self.all_hosts |= self.at.keys().chain(&self.exists).filter(|k| host(k)).count() > MANY.max(writes);
        if self.all_hosts {
            self.at.retain(|key, _| !host(key));
            self.absent.retain(|key| !host(key));
            self.exists.retain(|key| !host(key));
        }
        self.exists.retain(|key| !self.at.contains_key(key));
        self.unchanged.retain(|key| !self.at.contains_key(key) && !self.absent.contains(key));
        let tokens = || Range::Prefix(crate::access::TOKENS.to_owned());
        let ranges = (self.all_hosts.then(Range::hosts).into_iter())
            .chain(self.tokens.then(tokens))
            .chain(self.unchanged.into_iter().map(Range::Key))
            .chain(self.members.iter().map(Range::members))
            .chain(self.naming.into_iter().map(Range::Naming));
        (self.at.into_iter().map(|(key, at)| Pre::At(key, at)))
            .chain(self.absent.into_iter().map(Pre::Absent))
            .chain(self.exists.into_iter().map(Pre::Exists))
            .chain(ranges.map(|range| Pre::Unchanged(range, revision)))
            .collect()
    }
}
