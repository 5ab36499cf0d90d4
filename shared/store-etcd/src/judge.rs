//! Whether a commit may happen and what it writes, decided from what was read. No asking, no waiting: the writing
//! transaction is conditional on all of it still being so.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, Unit};
use shoal_core::{Change, Commit, Committed, Key, Pre, Range, Revision};
use shoal_store::parts::{Where, digest, scopes};
use shoal_store::{REMEMBERED, Result, StoreError};

use crate::keys::Keys;
use crate::known::Known;
use crate::link::{BYTES, OPS};
use crate::record::{Entry, Identity, Remembered, RowRecord, nonce_of, write};

/// What is written to etcd, key by key; `None` deletes.
pub(crate) type Ops = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// How many octets that is.
pub(crate) fn octets(ops: &Ops) -> usize {
    ops.iter().map(|(k, v)| 16 + k.len() + v.as_ref().map_or(0, Vec::len)).sum()
}

/// What becomes of a commit that may happen.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What its author is told once it is written.
    pub(crate) committed: Committed,
    /// The identity after it.
    pub(crate) head: Identity,
    /// The commit in the log, with all of its changes; none where nothing changes.
    pub(crate) entry: Option<Entry>,
    pub(crate) changes: Vec<Change>,
    /// What idempotency keys come and go.
    pub(crate) remember: Ops,
    /// The claims that must still be held: key, and the revision of etcd that made it.
    pub(crate) held: Vec<(Vec<u8>, u64)>,
}

impl Known {
    /// Judges a commit, which was validated. `attempt` tells it from all others.
    pub(crate) fn judge(&self, keys: &Keys, commit: &Commit, attempt: &str) -> Result<Verdict> {
        let print = commit.idempotency.as_ref().map(|key| (key, digest(commit)));
        if let Some((key, print)) = &print
            && let Some(known) = self.done.get(*key)
        {
            let committed = Committed { revision: known.revision, changed: known.changed, replayed: true };
            if *known != Remembered::of(*print, committed) {
                return Err(StoreError::Reused { key: (*key).clone(), revision: known.revision });
            }
            return Ok(self.nothing(committed));
        }
        let held = self.check(&commit.pre)?;
        let changes: Vec<_> = commit.changes.iter().filter(|c| !self.stands(c)).cloned().collect();
        let committed = Committed { revision: self.head.revision, changed: changes.len(), replayed: false };
        let mut verdict = Verdict { held, ..self.nothing(committed) };
        if !changes.is_empty() {
            verdict.head.revision.0 += 1;
            verdict.committed.revision = verdict.head.revision;
            let time = Timestamp::now();
            verdict.entry = Some(Entry {
                revision: verdict.head.revision,
                author: commit.author.clone(),
                principal: commit.principal.clone(),
                origin: commit.origin.clone(),
                message: commit.message.clone(),
                time: time.round(Unit::Millisecond).unwrap_or(time),
                attempt: attempt.to_owned(),
                changes: Vec::new(),
                parts: None,
            });
            verdict.changes = changes;
        }
        if let Some((key, print)) = print {
            verdict.head.remembered += 1;
            let n = verdict.head.remembered;
            let old = n.checked_sub(REMEMBERED as u64).and_then(|old| self.order.get(&old));
            verdict.remember = remember(keys, key, print, verdict.committed, n, old)?;
        }
        if verdict.head != self.head {
            verdict.head.nonce = nonce_of(attempt);
        }
        Ok(verdict)
    }

    fn nothing(&self, committed: Committed) -> Verdict {
        Verdict {
            committed,
            head: self.head,
            entry: None,
            changes: Vec::new(),
            remember: Ops::new(),
            held: Vec::new(),
        }
    }

    /// Takes for written what a verdict says.
    pub(crate) fn take_for_written(&mut self, verdict: &Verdict, commit: &Commit) {
        self.head = verdict.head;
        for change in &verdict.changes {
            self.rows.insert(change.key.clone(), RowRecord::of(change, verdict.head.revision));
            self.written.push((change.key.clone(), verdict.head.revision));
        }
        if let Some(key) = &commit.idempotency
            && !verdict.committed.replayed
        {
            self.done.insert(key.clone(), Remembered::of(digest(commit), verdict.committed));
            self.order.insert(verdict.head.remembered, key.clone());
        }
    }

    /// Whether the change changes nothing.
    fn stands(&self, change: &Change) -> bool {
        let value = change.value.as_ref();
        change.moved.is_none() && self.rows.get(&change.key).map_or(value.is_none(), |row| row.says(value))
    }

    /// Whether all of it is so; answers the claims that it rests on, as [`Verdict::held`] has them.
    fn check(&self, pre: &[Pre]) -> Result<Vec<(Vec<u8>, u64)>> {
        let mut held = BTreeSet::new();
        for pre in pre {
            let (holds, actual) = match pre {
                Pre::At(key, seen) => {
                    let now = self.live(key);
                    (now == Some(*seen), now)
                }
                Pre::Exists(key) => (self.live(key).is_some(), self.rows.get(key).map(|row| row.revision)),
                Pre::Absent(key) => (self.live(key).is_none(), self.live(key)),
                Pre::Unchanged(range, since) => {
                    let last = self.last_write(range);
                    (last.is_none_or(|last| last <= *since), last)
                }
                Pre::Held { name, number } => {
                    let mut places = self.claims.get(name).into_iter().flatten();
                    let Some(place) = places.find(|place| place.number == *number) else {
                        return Err(StoreError::Fenced { name: name.clone(), number: *number });
                    };
                    held.insert((place.key.clone(), place.made));
                    (true, None)
                }
            };
            if !holds {
                return Err(StoreError::Conflict { pre: pre.clone(), actual });
            }
        }
        if held.len() > HELD {
            let n = held.len();
            return Err(StoreError::Invalid(format!(
                "the commit rests on {n} claims, etcd can compare {HELD} at once: make several commits"
            )));
        }
        Ok(held.into_iter().collect())
    }

    fn live(&self, key: &Key) -> Option<Revision> {
        self.rows.get(key).filter(|row| row.is_live()).map(|row| row.revision)
    }

    fn last_write(&self, range: &Range) -> Option<Revision> {
        match Where::of(range) {
            Where::All => Some(self.head.revision).filter(|r| r.0 > 0),
            Where::Key(key) => self.rows.get(&key).map(|row| row.revision),
            Where::Scope(_) | Where::Within(_) => {
                let written = self.written.iter().rev().find(|(key, _)| range.contains(key));
                written.map(|(_, r)| *r).max(self.last.get(range).copied().flatten())
            }
        }
    }
}

/// What remembers the `n`th idempotency key, and forgets the one that is too old.
pub(crate) fn remember(
    keys: &Keys,
    key: &str,
    print: [u8; 32],
    committed: Committed,
    n: u64,
    forgotten: Option<&String>,
) -> Result<Ops> {
    let mut ops = Ops::new();
    if let (Some(forgotten), Some(old)) = (forgotten, n.checked_sub(REMEMBERED as u64)) {
        ops.insert(keys.done(forgotten), None);
        ops.insert(keys.order(old), None);
    }
    ops.insert(keys.done(key), Some(write(&Remembered::of(print, committed))?));
    ops.insert(keys.order(n), Some(key.as_bytes().to_vec()));
    Ok(ops)
}

/// The most claims that one commit may rest on.
pub(crate) const HELD: usize = 100;

impl Verdict {
    /// All that is written, but for the head; `None` where it is too much for one transaction.
    pub(crate) fn ops(&self, keys: &Keys) -> Result<Option<Ops>> {
        let mut ops = self.remember.clone();
        let Some(entry) = &self.entry else { return Ok(Some(ops)) };
        if self.changes.len() > OPS {
            return Ok(None);
        }
        for change in &self.changes {
            lay(keys, change, entry.revision, &mut ops)?;
        }
        if ops.len() >= OPS - 1 || octets(&ops) > BYTES {
            return Ok(None);
        }
        let whole =
            Entry { changes: self.changes.iter().cloned().map(Into::into).collect(), ..entry.clone() };
        ops.insert(keys.entry(entry.revision), Some(write(&whole)?));
        Ok((octets(&ops) <= BYTES).then_some(ops))
    }
}

/// What one change of a revision writes beside the log.
pub(crate) fn lay(keys: &Keys, change: &Change, revision: Revision, ops: &mut Ops) -> Result<()> {
    let key = &change.key;
    ops.insert(keys.row(key.as_str()), Some(write(&RowRecord::of(change, revision))?));
    ops.insert(keys.version(key, revision), Some(Vec::new()));
    if let Some((_, member)) = key.as_member() {
        ops.insert(keys.naming(member, key.as_str()), Some(Vec::new()));
    }
    // That a member was named is found by its rows: one key less for each row of a member.
    for scope in scopes(key).filter(|scope| !scope.starts_with('*')) {
        ops.insert(keys.scope(&scope, revision), Some(Vec::new()));
        ops.insert(keys.last(&scope), Some(revision.0.to_string().into_bytes()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use shoal_core::{Document, Epoch};

    use super::*;
    use crate::record::VERSION;

    fn known() -> Known {
        let (epoch, revision) = (Epoch(7), Revision(4));
        let head = Identity { shoal: VERSION, epoch, revision, remembered: 0, base: 0, nonce: 0 };
        Known::new(head, 100)
    }

    fn commit(pre: Vec<Pre>, at: &str) -> Commit {
        Commit {
            pre,
            idempotency: Some("once".into()),
            ..Commit::new("ann", "because", vec![Change::put(at.parse().unwrap(), Document::trusted("1"))])
        }
    }

    /// Commits that go into one transaction see each other: else two could both find the row absent.
    #[test]
    fn what_was_judged_before_counts() {
        let (mut known, keys) = (known(), Keys::new("x"));
        let absent = Pre::Absent("lb/a".parse().unwrap());
        let first = commit(vec![absent.clone()], "lb/a");
        let verdict = known.judge(&keys, &first, "1").unwrap();
        assert_eq!((verdict.committed.revision, verdict.head.remembered), (Revision(5), 1));
        assert_eq!(verdict.head.nonce, 1, "of the attempt");
        known.take_for_written(&verdict, &first);
        let replayed = known.judge(&keys, &first, "2").unwrap();
        assert!(replayed.committed.replayed && replayed.head == known.head, "the head stays as it is");
        let again = Commit { idempotency: None, ..first };
        let conflict = StoreError::Conflict { pre: absent, actual: Some(Revision(5)) };
        assert_eq!(known.judge(&keys, &again, "3").unwrap_err(), conflict);
        let unchanged = Pre::Unchanged(Range::namespace("lb"), Revision(4));
        let beside = Commit { idempotency: None, ..commit(vec![unchanged], "dns/a") };
        assert!(matches!(known.judge(&keys, &beside, "4"), Err(StoreError::Conflict { .. })));
    }

    #[test]
    fn the_oldest_idempotency_key_is_forgotten() {
        let (mut known, keys) = (known(), Keys::new("x"));
        known.head.remembered = REMEMBERED as u64 + 1;
        known.order.insert(2, "old".into());
        let verdict = known.judge(&keys, &commit(vec![], "lb/a"), "1").unwrap();
        let ops = verdict.ops(&keys).unwrap().unwrap();
        assert_eq!(ops.get(&keys.done("old")), Some(&None));
        assert_eq!(ops.get(&keys.order(2)), Some(&None));
        assert!(ops.get(&keys.order(REMEMBERED as u64 + 2)).unwrap().is_some());
    }
}
