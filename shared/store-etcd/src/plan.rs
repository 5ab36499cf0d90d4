//! What is written together: one's own commits and those that others handed over, as many as fit in one transaction.

use std::collections::BTreeSet;

use shoal_core::{Commit, Committed, Revision};
use shoal_store::Result;

use crate::judge::{HELD, Ops, Verdict, octets};
use crate::keys::Keys;
use crate::known::Known;
use crate::link::{BYTES, OPS};
use crate::queue::{Guest, Seat, Taking};
use crate::record::Identity;
use crate::writer::unique;

/// What is to be written.
pub(crate) struct Plan {
    /// What one's own first commits are told.
    pub(crate) answers: Vec<Result<Committed>>,
    pub(crate) ops: Ops,
    pub(crate) held: BTreeSet<(Vec<u8>, u64)>,
    /// What was handed over and is taken along.
    pub(crate) takings: Vec<Taking>,
    /// Number and attempt of the first entry.
    pub(crate) first: Option<(Revision, String)>,
    /// The identity after it.
    pub(crate) head: Identity,
}

pub(crate) enum Planned {
    Small(Plan),
    /// The first alone is too large for a transaction.
    Large(Box<Verdict>),
    /// It is, or it is beside what others handed over, which was judged before it: it has to be judged without them.
    Alone,
}

/// Judges as many as fit in one transaction. Of others, who waited longer than one's own, half of it is filled first.
pub(crate) fn plan<'a>(
    known: &mut Known,
    keys: &Keys,
    own: impl Iterator<Item = &'a Commit>,
) -> Result<Planned> {
    let mut guests = std::mem::take(&mut known.guests).into_iter().peekable();
    let mut plan = Plan::new(known);
    plan.along(known, keys, &mut guests, OPS / 2)?;
    for commit in own {
        // Each judgement has a number of its own: what is found in the log is this attempt's, and nobody else's.
        let verdict = match known.judge(keys, commit, &unique()) {
            Ok(verdict) => verdict,
            Err(refused) => {
                plan.answers.push(Err(refused));
                continue;
            }
        };
        let ops = match verdict.ops(keys) {
            Ok(Some(ops)) => ops,
            Ok(None) if !plan.answers.is_empty() => break,
            Ok(None) if !plan.takings.is_empty() => return Ok(Planned::Alone),
            Ok(None) => return Ok(Planned::Large(Box::new(verdict))),
            Err(refused) => {
                plan.answers.push(Err(refused));
                continue;
            }
        };
        if !plan.fits(&ops, &verdict, OPS) {
            // The others fill their half the next time, too, and it would never come to its turn.
            if plan.answers.is_empty() && !plan.takings.is_empty() {
                return Ok(Planned::Alone);
            }
            break;
        }
        plan.answers.push(Ok(verdict.committed));
        plan.add(known, ops, verdict, commit);
    }
    plan.along(known, keys, &mut guests, OPS)?;
    Ok(Planned::Small(plan))
}

/// The same where one's own were handed over, and nobody took them: they are taken back as what others handed over is. Answers what the
/// first of them are told.
pub(crate) fn take_back<'a>(
    known: &mut Known,
    keys: &Keys,
    seat: &Seat,
    own: impl Iterator<Item = &'a Commit>,
) -> Result<(Plan, Vec<Committed>)> {
    let mut guests = std::mem::take(&mut known.guests).into_iter().peekable();
    let mut plan = Plan::new(known);
    let done = plan.judge(known, keys, own, OPS).unwrap_or_default();
    plan.takings.push(seat.taking(keys, &done)?);
    plan.along(known, keys, &mut guests, OPS)?;
    Ok((plan, done))
}

impl Plan {
    fn new(known: &Known) -> Self {
        Self {
            answers: Vec::new(),
            ops: Ops::new(),
            held: BTreeSet::new(),
            takings: Vec::new(),
            first: None,
            head: known.head,
        }
    }

    /// Takes what others handed over along, up to so many operations.
    fn along(
        &mut self,
        known: &mut Known,
        keys: &Keys,
        guests: &mut std::iter::Peekable<impl Iterator<Item = Guest>>,
        most: usize,
    ) -> Result<()> {
        while let Some(guest) = guests.peek() {
            let Some(done) = self.judge(known, keys, guest.commits.iter(), most) else { return Ok(()) };
            self.takings.push(guest.taking(keys, &done)?);
            guests.next();
        }
        Ok(())
    }

    /// Judges what was handed over together, up to the first that may not happen, or does not fit. `None`: not even the first does.
    fn judge<'a>(
        &mut self,
        known: &mut Known,
        keys: &Keys,
        commits: impl Iterator<Item = &'a Commit>,
        most: usize,
    ) -> Option<Vec<Committed>> {
        let mut done = Vec::new();
        if self.operations() + 2 > most {
            return None;
        }
        for commit in commits {
            let Ok(verdict) = known.judge(keys, commit, &unique()) else { break };
            let Ok(Some(ops)) = verdict.ops(keys) else { break };
            if !self.fits(&ops, &verdict, most - 2) {
                return (!done.is_empty()).then_some(done);
            }
            done.push(verdict.committed);
            self.add(known, ops, verdict, commit);
        }
        Some(done)
    }

    /// Whether the transaction that writes this, on so many conditions more, shows that all of its answers are right: what is refused may be
    /// allowed by now, and what writes nothing is answered without one.
    pub(crate) fn proves(&self, before: Identity, more: usize) -> bool {
        self.head != before && self.answers.iter().all(Result::is_ok) && self.held.len() + more + 3 <= OPS
    }

    fn operations(&self) -> usize {
        self.ops.len() + 2 * self.takings.len()
    }

    /// Whether this fits beside what is planned, of which there is none where it always does.
    fn fits(&self, ops: &Ops, verdict: &Verdict, most: usize) -> bool {
        let empty = self.ops.is_empty() && self.takings.is_empty();
        empty
            || (self.operations() + ops.len() <= most
                && octets(&self.ops) + octets(ops) <= BYTES
                && self.held.len() + verdict.held.len() <= HELD)
    }

    fn add(&mut self, known: &mut Known, ops: Ops, verdict: Verdict, commit: &Commit) {
        known.take_for_written(&verdict, commit);
        self.ops.extend(ops);
        self.held.extend(verdict.held);
        self.head = verdict.head;
        if let (None, Some(entry)) = (&self.first, verdict.entry) {
            self.first = Some((entry.revision, entry.attempt));
        }
    }
}

#[cfg(test)]
mod tests {
    use shoal_core::{Change, Document, Epoch, Pre};

    use super::*;
    use crate::record::PLAIN;

    fn commit(name: &str, rows: usize) -> Commit {
        let change = |n| Change::put(format!("lb/{name}{n}").parse().unwrap(), Document::trusted("1"));
        Commit::new("ann", "because", (0..rows).map(change).collect())
    }

    fn known(guests: usize) -> Known {
        let (epoch, revision) = (Epoch(7), Revision(4));
        let head = Identity { shoal: PLAIN, epoch, revision, remembered: 0, base: 0, nonce: 0 };
        let guest = |n| Guest::new(&format!("g{n}"), vec![commit(&format!("g{n}x"), 4)]);
        Known { guests: (0..guests).map(guest).collect(), ..Known::new(head, 100) }
    }

    /// Where nothing was asked for, a transaction has to say that it is so.
    #[test]
    fn what_is_refused_or_changes_nothing_is_shown_by_no_transaction() {
        let keys = Keys::new("x");
        let planned = |own: &[Commit]| {
            let mut known = known(0);
            let before = known.head;
            let Planned::Small(plan) = plan(&mut known, &keys, own.iter()).unwrap() else {
                panic!("it is small")
            };
            (plan, before)
        };
        let gone = Commit { changes: vec![Change::delete("lb/a".parse().unwrap())], ..commit("a", 1) };
        let refused = Commit { pre: vec![Pre::Exists("lb/a".parse().unwrap())], ..commit("a", 1) };
        for (own, proven) in [
            (vec![commit("a", 1), gone.clone()], true),
            (vec![gone], false),
            (vec![refused.clone()], false),
            (vec![commit("b", 1), refused], false),
        ] {
            let (plan, before) = planned(&own);
            assert_eq!(plan.proves(before, 3), proven, "{own:?}");
            assert!(!plan.proves(before, OPS));
        }
    }

    /// One that fits in a transaction, but not beside half of one.
    #[test]
    fn who_does_not_fit_beside_others_is_judged_without_them() {
        let (keys, middle) = (Keys::new("x"), commit("m", 40));
        let small = commit("s", 1);
        assert!(matches!(plan(&mut known(12), &keys, [&middle].into_iter()).unwrap(), Planned::Alone));
        // Of several the first comes to its turn, and then the second is the first.
        let Planned::Small(first) = plan(&mut known(12), &keys, [&small, &middle].into_iter()).unwrap()
        else {
            panic!("it is small")
        };
        assert_eq!(first.answers.len(), 1);
        assert!(!first.takings.is_empty());
        // Without them, in the next round, it is done.
        let Planned::Small(alone) = plan(&mut known(0), &keys, [&middle].into_iter()).unwrap() else {
            panic!("it fits")
        };
        assert_eq!((alone.answers.len(), alone.takings.len()), (1, 0));
        assert!(alone.operations() > OPS / 2 && alone.operations() < OPS, "{}", alone.operations());
    }
}
