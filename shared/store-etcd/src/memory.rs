//! What this process knows since its own last commit, so that the next one need not ask before it writes.
//!
//! Nothing that a commit is judged by changes without the head, but claims, which are compared by themselves. So what was read or written as of a
//! head is so for as long as the head is that one, and the transaction that writes compares just that. Where it is another by now the transaction
//! does nothing, answers what was asked for as any that is refused does, and the commit is judged by that: to know too much is never wrong, only in vain.
//!
//! What is not known but most likely is compared, too: that an idempotency key is a new one, that nothing stands at the key of a row that has to be
//! absent, that no row that is known was written since, that nobody hands anything over and no large commit waits for its turn. A commit is never *refused* by what is known here, nor told
//! that it changes nothing: without a transaction nothing says that it is still so.
//!
//! Of a value its digest is kept. Costs some 250 octets a row, of at most twice [`HALF`] rows, and at most [`HALF`] idempotency keys.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::ops::RangeInclusive;

use etcd_client::{Compare, CompareOp, TxnOp};
use shoal_core::{Key, Pre, Range, Revision};
use shoal_store::parts::scopes;
use shoal_store::{REMEMBERED, Result};

use crate::keys::Keys;
use crate::known::{Known, Place, Questions, Want, due, identity};
use crate::link::{Answer, Link, OPS, absent, get, none};
use crate::record::{Identity, RowRecord, write};

/// So many of a kind are kept before what was not used lately goes; twice as many at most.
const HALF: usize = 8192;

/// What was used lately.
#[derive(Debug)]
struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    fn of(half: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    fn put(&mut self, key: K, value: V) {
        self.young.insert(key, value);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
    }

    fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}

/// The head as of which all is known: one that this process wrote.
#[derive(Debug)]
struct Stand {
    head: Identity,
    /// Etcd's revision that wrote it, and the very text.
    at: i64,
    text: Vec<u8>,
    /// The one before, and etcd's revision that wrote it; and all that was written in between.
    before: (Identity, i64),
    step: Vec<(Key, Revision)>,
    /// Whether the one before was known, too. Else others commit in between, and it would be in vain to go by what is known.
    follows: bool,
}

/// What is known.
#[derive(Debug)]
pub(crate) struct Memory {
    stand: Option<Stand>,
    /// What stands at a key, without its value; `None` where nothing ever did.
    rows: Recent<Key, Option<RowRecord>>,
    /// Who last wrote in a scope.
    last: Recent<String, Option<Revision>>,
    claims: Recent<String, Vec<Place>>,
    /// The idempotency keys that are due to be forgotten next.
    order: BTreeMap<u64, String>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            stand: None,
            rows: Recent::of(HALF),
            last: Recent::of(HALF / 8),
            claims: Recent::of(HALF / 8),
            order: BTreeMap::new(),
        }
    }
}

/// All that some commits ask for, and what has to be so besides for it to be true.
pub(crate) struct Recalled {
    pub(crate) known: Known,
    pub(crate) guess: Vec<Compare>,
}

impl Memory {
    /// What these commits ask for, if all of it is known, or most likely.
    pub(crate) fn recall(&self, keys: &Keys, questions: &Questions<'_>) -> Option<Recalled> {
        let stand = self.stand.as_ref().filter(|stand| stand.follows)?;
        if !questions.are_comparable() {
            return None;
        }
        let created = created(questions);
        let mut known = Known { head_text: stand.text.clone(), ..Known::new(stand.head, stand.at) };
        let mut guess = vec![absent(keys.turn()), none(keys.queue())];
        for want in questions.wants() {
            match want {
                Want::Row(key) => match self.rows.get(key) {
                    Some(row) => {
                        // It changes with the head alone, but somebody else's hands may have been in etcd: then it is read.
                        guess.push(Compare::mod_revision(
                            keys.row(key.as_str()),
                            CompareOp::Less,
                            stand.at + 1,
                        ));
                        known.rows.extend(row.clone().map(|row| (key.clone(), row)));
                    }
                    None if created.contains(key) => guess.push(absent(keys.row(key.as_str()))),
                    None => return None,
                },
                Want::Scope(scope) => {
                    let last = *self.last.get(scope)?;
                    known.last.insert(Range::Prefix(scope.clone()), last);
                }
                Want::Done(key) => guess.push(absent(keys.done(key))),
                Want::Claim(name) => {
                    known.claims.insert(name.clone(), self.claims.get(name)?.clone());
                }
            }
        }
        for n in due(stand.head.remembered, questions.new_keys()) {
            known.order.insert(n, self.order.get(&n)?.clone());
        }
        Some(Recalled { known, guess })
    }

    /// Takes up what was known to whoever wrote the head that stands in `known`, at etcd's revision `at` and just now; `judged` is the head before
    /// it, which all of that was read as of.
    pub(crate) fn wrote(&mut self, questions: &Questions<'_>, judged: Identity, mut known: Known, at: i64) {
        let Ok(text) = write(&known.head) else { return self.forget() };
        let before = (judged, known.head_at);
        // By both: in a snapshot that was restored another head may be of the same revision of etcd.
        let follows = self.stand.as_ref().is_none_or(|stand| (stand.head, stand.at) == before);
        if !follows {
            self.forget();
        }
        let step = std::mem::take(&mut known.written);
        self.take(questions.wants(), &known);
        for (key, revision) in &step {
            self.rows.put(key.clone(), known.rows.get(key).map(RowRecord::brief));
            for scope in scopes(key) {
                if self.last.get(&scope).is_some() {
                    self.last.put(scope, Some(*revision));
                }
            }
        }
        let soon = soon(known.head.remembered);
        self.order.extend(known.order.into_iter().filter(|(n, _)| soon.contains(n)));
        self.order = self.order.split_off(soon.start());
        self.stand = Some(Stand { head: known.head, at, text, before, step, follows });
    }

    /// Knows nothing any more.
    fn forget(&mut self) {
        self.stand = None;
        self.rows.clear();
        self.last.clear();
        self.claims.clear();
        self.order.clear();
    }

    /// What of the questions is to be asked, so that [`Memory::recall`] answers them. None where asking once does not do.
    pub(crate) fn missing(&self, questions: &Questions<'_>) -> Vec<Want> {
        if !questions.are_comparable() {
            return Vec::new();
        }
        let created = created(questions);
        let is_missing = |want: &&Want| match want {
            Want::Row(key) => self.rows.get(key).is_none() && !created.contains(key),
            Want::Scope(scope) => self.last.get(scope).is_none(),
            Want::Claim(name) => self.claims.get(name).is_none(),
            Want::Done(_) => false,
        };
        let missing: Vec<_> = questions.wants().iter().filter(is_missing).cloned().collect();
        if missing.len() > OPS - AHEAD { Vec::new() } else { missing }
    }

    /// Takes up the answer to [`ahead`], if it is of a head that is known.
    ///
    /// # Errors
    /// What stands there cannot stand there.
    pub(crate) fn look_back(
        &mut self,
        link: &Link,
        keys: &Keys,
        wants: &[Want],
        mut answer: Answer,
    ) -> Result<()> {
        let (head, applying) = (answer.one(0), answer.one(1));
        let (Some(head), None) = (head, applying) else { return Ok(()) };
        let (head, at) = identity(link, keys, Some(head))?;
        let mut read = Known::new(head, at);
        for (n, want) in wants.iter().enumerate() {
            read.take(link, keys, want, answer.take(n + AHEAD))?;
        }
        self.take_read(wants, read);
        Ok(())
    }

    /// Takes up what was read as of the head that is known, or of the one before: then what was written in between counts.
    fn take_read(&mut self, wants: &[Want], mut read: Known) {
        let Some(stand) = &self.stand else { return };
        let as_of = (read.head, read.head_at);
        if as_of == stand.before {
            let wrote: HashSet<&Key> = stand.step.iter().map(|(key, _)| key).collect();
            // Those are known better.
            let rest = wants.iter().filter(|want| !matches!(want, Want::Row(key) if wrote.contains(key)));
            let rest: Vec<_> = rest.cloned().collect();
            for (range, last) in &mut read.last {
                let newer = stand.step.iter().rev().find(|(key, _)| range.contains(key));
                *last = (*last).max(newer.map(|(_, revision)| *revision));
            }
            self.take(&rest, &read);
        } else if as_of == (stand.head, stand.at) {
            self.take(wants, &read);
        }
    }

    fn take(&mut self, wants: &[Want], known: &Known) {
        for want in wants {
            match want {
                Want::Row(key) => self.rows.put(key.clone(), known.rows.get(key).map(RowRecord::brief)),
                Want::Scope(scope) => {
                    if let Some(last) = known.last.get(&Range::Prefix(scope.clone())) {
                        self.last.put(scope.clone(), *last);
                    }
                }
                Want::Claim(name) => {
                    if let Some(places) = known.claims.get(name) {
                        self.claims.put(name.clone(), places.clone());
                    }
                }
                Want::Done(_) => {}
            }
        }
    }
}

/// Which idempotency keys are kept here when so many were ever used: those that are forgotten next. All would be [`REMEMBERED`], of up to a KiB.
fn soon(remembered: u64) -> RangeInclusive<u64> {
    let forgotten = remembered.saturating_sub(REMEMBERED as u64);
    forgotten + 1..=forgotten + HALF as u64
}

/// What [`ahead`] asks for before all else.
const AHEAD: usize = 2;

/// The questions that are asked while something else is written.
pub(crate) fn ahead(keys: &Keys, wants: &[Want]) -> Vec<TxnOp> {
    let first = [get(keys.head()), get(keys.applying_commit())];
    first.into_iter().chain(wants.iter().map(|want| want.op(keys, None))).collect()
}

/// The rows that have to be absent: most likely there never was one.
fn created<'a>(questions: &Questions<'a>) -> HashSet<&'a Key> {
    let pre = questions.commits().iter().copied().flat_map(|commit| &commit.pre);
    pre.filter_map(|pre| match pre {
        Pre::Absent(key) => Some(key),
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use shoal_core::{Change, Commit, Document, Epoch};

    use super::*;
    use crate::record::PLAIN;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn commit(at: &str, value: &str, pre: Vec<Pre>) -> Commit {
        Commit {
            pre,
            changes: vec![Change::put(key(at), Document::trusted(value))],
            author: "ann".into(),
            principal: None,
            origin: None,
            message: "because".into(),
            idempotency: None,
            intent: None,
        }
    }

    fn head(revision: u64) -> Identity {
        let (epoch, revision) = (Epoch(7), Revision(revision));
        // As the attempts here have it.
        Identity { shoal: PLAIN, epoch, revision, remembered: 0, base: 0, nonce: 1 }
    }

    /// Writes it, judged by these, and takes up what is known then.
    fn write_it(memory: &mut Memory, mut known: Known, commit: &Commit, at: i64) -> Revision {
        let (judged, verdict) = (known.head, known.judge(&Keys::new("x"), commit, "1").unwrap());
        known.take_for_written(&verdict, commit);
        memory.wrote(&Questions::of([commit].into_iter()), judged, known, at);
        verdict.committed.revision
    }

    fn recall(memory: &Memory, commit: &Commit) -> Option<Recalled> {
        memory.recall(&Keys::new("x"), &Questions::of([commit].into_iter()))
    }

    /// A memory that wrote `lb/a` as revision 5, at 101 of etcd's revisions.
    fn made() -> Memory {
        let mut memory = Memory::default();
        write_it(&mut memory, Known::new(head(4), 100), &commit("lb/a", "1", vec![]), 101);
        memory
    }

    #[test]
    fn what_was_written_is_judged_by_without_asking() {
        let mut memory = made();
        let second = commit("lb/a", "2", vec![Pre::At(key("lb/a"), Revision(5))]);
        let Recalled { known, guess } = recall(&memory, &second).unwrap();
        assert_eq!((known.head_at, known.head.revision, guess.len()), (101, Revision(5), 3));
        assert_eq!(known.head_text, write(&head(5)).unwrap(), "it is compared by its text");
        assert_eq!(write_it(&mut memory, known, &second, 102), Revision(6));
        let again = recall(&memory, &commit("lb/a", "2", vec![])).unwrap();
        let verdict = again.known.judge(&Keys::new("x"), &commit("lb/a", "2", vec![]), "2").unwrap();
        assert_eq!((verdict.committed.changed, verdict.head.revision), (0, Revision(6)));
        let stale = commit("lb/a", "3", vec![Pre::At(key("lb/a"), Revision(5))]);
        assert!(recall(&memory, &stale).unwrap().known.judge(&Keys::new("x"), &stale, "3").is_err());
    }

    #[test]
    fn what_is_not_known_is_asked_for_or_compared() {
        let memory = made();
        let (plain, absent) = (commit("lb/b", "1", vec![]), vec![Pre::Absent(key("lb/b"))]);
        assert!(recall(&memory, &plain).is_none());
        assert_eq!(recall(&memory, &commit("lb/b", "1", absent)).unwrap().guess.len(), 3);
        let once = Commit { idempotency: Some("once".into()), ..commit("lb/a", "2", vec![]) };
        assert_eq!(recall(&memory, &once).unwrap().guess.len(), 4);
        for pre in [
            Pre::Unchanged(Range::Prefix("lb/".into()), Revision(5)),
            Pre::Unchanged(Range::Prefix("a/b/c/d".into()), Revision(5)),
            Pre::Unchanged(Range::Naming("web1".parse().unwrap()), Revision(5)),
            Pre::Held { name: "unit/a".into(), number: 3 },
        ] {
            assert!(recall(&memory, &commit("lb/a", "2", vec![pre.clone()])).is_none(), "{pre:?}");
        }
        assert!(recall(&Memory::default(), &plain).is_none());
    }

    /// What others wrote in between was not seen: only what is of the same head stays.
    #[test]
    fn what_was_known_of_another_head_goes() {
        let mut memory = made();
        write_it(&mut memory, Known::new(head(9), 200), &commit("lb/b", "1", vec![]), 201);
        // Not even that at first: somebody else commits, too.
        let next = commit("lb/b", "2", vec![]);
        assert!(recall(&memory, &next).is_none());
        write_it(&mut memory, Known::new(head(10), 201), &commit("lb/c", "1", vec![]), 202);
        assert_eq!(recall(&memory, &next).unwrap().known.head_at, 202);
        assert!(recall(&memory, &commit("lb/a", "2", vec![])).is_none());
    }

    /// Where a snapshot was restored etcd counts once more what it counted before: the revision is the same, the database is not. Nor is the
    /// head where nobody said so and others wrote as much as was lost.
    #[test]
    fn what_was_known_of_another_life_goes() {
        for life in [Identity { epoch: Epoch(8), ..head(5) }, Identity { nonce: 2, ..head(5) }] {
            let mut memory = made();
            write_it(&mut memory, Known::new(life, 101), &commit("lb/b", "1", vec![]), 102);
            assert!(memory.rows.get(&key("lb/a")).is_none() && memory.rows.get(&key("lb/b")).is_some());
            let mut memory = made();
            let mut read = Known::new(life, 101);
            let theirs = RowRecord::of(&Change::put(key("lb/b"), Document::trusted("2")), Revision(3));
            read.rows.insert(key("lb/b"), theirs);
            memory.take_read(&[Want::Row(key("lb/b"))], read);
            assert!(memory.rows.get(&key("lb/b")).is_none());
        }
    }

    /// However many were used: those that are forgotten next, of all that was read and written.
    #[test]
    fn few_idempotency_keys_are_kept() {
        let (mut memory, all) = (Memory::default(), REMEMBERED as u64);
        let remembered = |remembered| Identity { remembered, ..head(4) };
        for (used, kept) in [(HALF as u64 - 1, 2), (HALF as u64, 1), (all - 1, 1), (all, 0)] {
            let mut known = Known::new(remembered(used), 100 + used.cast_signed());
            known.order.insert(1, "first".into());
            let once =
                Commit { idempotency: Some(used.to_string()), ..commit("lb/a", &used.to_string(), vec![]) };
            memory.forget();
            write_it(&mut memory, known, &once, 101 + used.cast_signed());
            assert_eq!(memory.order.len(), kept, "{used}: {:?}", memory.order);
        }
    }

    /// What is read while something is written may be as of before or after it, and of any other moment is of no use.
    #[test]
    fn what_was_read_ahead_is_as_of_a_head() {
        let wants = [Want::Row(key("lb/a")), Want::Row(key("lb/b")), Want::Scope("lb/".into())];
        let unchanged = vec![Pre::Unchanged(Range::Prefix("lb/".into()), Revision(5))];
        let next = commit("lb/b", "2", unchanged);
        for (at, use_of_it) in [(100, true), (101, true), (99, false), (102, false)] {
            let mut memory = made();
            let mut read = Known::new(head(if at == 101 { 5 } else { 4 }), at);
            let old = RowRecord::of(&Change::put(key("lb/b"), Document::trusted("2")), Revision(3));
            read.rows.insert(key("lb/b"), old);
            if at == 101 {
                let own = RowRecord::of(&Change::put(key("lb/a"), Document::trusted("1")), Revision(5));
                read.rows.insert(key("lb/a"), own);
            }
            let last = if at == 101 { 5 } else { 3 };
            read.last.insert(Range::Prefix("lb/".into()), Some(Revision(last)));
            memory.take_read(&wants, read);
            let recalled = recall(&memory, &next);
            assert_eq!(recalled.is_some(), use_of_it, "{at}");
            if let Some(Recalled { known, .. }) = recalled {
                assert_eq!(known.last.values().next(), Some(&Some(Revision(5))), "{at}");
                assert_eq!(known.rows[&key("lb/b")].revision, Revision(3));
                // Without conditions it changes nothing: that is seen by the digest.
                assert_eq!(known.judge(&Keys::new("x"), &next, "1").unwrap().committed.changed, 0);
            }
            let own = recall(&memory, &commit("lb/a", "2", vec![])).unwrap().known;
            assert_eq!(
                own.rows[&key("lb/a")].revision,
                Revision(5),
                "{at}: what is older counts for nothing"
            );
        }
    }

    #[test]
    fn which_idempotency_keys_are_due() {
        let all = REMEMBERED as u64;
        assert!(due(0, 0).is_empty() && due(all, 0).is_empty() && due(5, 3).is_empty());
        assert_eq!((due(all, 1), due(all + 7, 2), due(all - 1, 2)), (1..2, 8..10, 1..2));
    }

    #[test]
    fn what_was_not_used_lately_goes() {
        let mut recent = Recent::of(2);
        for n in 0..3 {
            recent.put(n, n);
        }
        assert_eq!([0, 1, 2].map(|n| recent.get(&n).copied()), [Some(0), Some(1), Some(2)]);
        recent.put(3, 3);
        assert_eq!([1, 2, 3].map(|n| recent.get(&n).copied()), [None, Some(2), Some(3)]);
        recent.put(2, 9);
        assert_eq!(recent.get(&2), Some(&9));
    }
}
