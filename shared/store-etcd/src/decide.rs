//! The decision on a commit that is too large for one transaction; see [`crate::large`] for the steps around it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use etcd_client::{Compare, Txn, TxnOp};
use shoal_core::{Commit, Committed, Key, Pre, Revision};
use shoal_store::parts::digest;
use shoal_store::{REMEMBERED, Result, StoreError};

use crate::history;
use crate::judge::{Verdict, remember};
use crate::keys::Keys;
use crate::known::{Known, identity, same_head, text_of};
use crate::large::{ApplyingCommit, Stage, carry_out_commit, parts_of, settle};
use crate::limits::{beside, room_for};
use crate::link::{Answer, BYTES, Link, Pause, absent, get, made, put};
use crate::record::{Entry, Identity, Parts, parse, write};

/// For how long it is tried to come behind the commits of others without judging anew.
const TRY: Duration = Duration::from_secs(60);

/// Commits it. `None`: somebody else changed what it rests on, or what it writes, and it has to be judged again.
pub(crate) async fn commit_large(
    link: &Link,
    keys: &Keys,
    known: &Known,
    verdict: Verdict,
    commit: &Commit,
) -> Result<Option<Result<Committed>>> {
    let Verdict { committed, head, entry, changes, remember, held } = verdict;
    let Some(mut entry) = entry else { return Ok(None) };
    let beside = beside(changes.iter().map(|change| change.key.as_str()));
    let id = crate::writer::unique();
    let parts = tokio::task::spawn_blocking(move || parts_of(changes)).await;
    let parts =
        parts.map_err(|e| StoreError::Invalid(format!("the commit could not be written down: {e}")))?;
    let (firsts, parts): (Vec<_>, Vec<_>) = match parts {
        Ok(parts) => parts.into_iter().unzip(),
        Err(refused) => return Ok(Some(Err(refused))),
    };
    if let Err(full) = room_for(link, parts.iter().map(Vec::len).sum(), beside).await {
        return Ok(Some(Err(full)));
    }
    entry.parts = Some(Parts { id: id.clone(), firsts });
    let applying = ApplyingCommit { id, entry, head, remember: remember.into_iter().collect() };
    if let Err(refused) = is_one_request(&applying) {
        return Ok(Some(Err(refused)));
    }
    let stage = Stage::lay(link, keys, &applying.id, parts).await?;
    let judged_by = same_head(keys, known.head_at, &known.head_text);
    let mut large = Large { at: known.head_at, judged_by, applying, committed };
    match large.decide(link, keys, &stage, &held, commit).await {
        Ok(Decision::Taken(at)) => {
            carry_out_commit(link, keys, &large.applying, at).await.map_err(decided)?;
            stage.end(link).await;
            Ok(Some(Ok(large.committed)))
        }
        Ok(Decision::Published) => {
            stage.end(link).await;
            Ok(Some(Ok(large.committed)))
        }
        Ok(Decision::Again) => {
            stage.undo(link, keys).await;
            Ok(None)
        }
        Err(error) => {
            // Only parts that nothing points to are cleared away: if it was decided after all, this does nothing.
            stage.undo(link, keys).await;
            Err(error)
        }
    }
}

/// That the record of a decision is one request: it has the first key of each part.
fn is_one_request(applying: &ApplyingCommit) -> Result<()> {
    match write(applying)?.len() {
        0..=BYTES => Ok(()),
        octets => Err(StoreError::Invalid(format!(
            "the commit writes so much at such long keys that the list of its parts has {octets} octets, and etcd takes \
             {BYTES} at once: make several commits"
        ))),
    }
}

/// What stopped a commit that will happen: not that nothing was written.
fn decided(error: StoreError) -> StoreError {
    match error {
        StoreError::Full { place, why } => StoreError::Unavailable {
            place,
            why: format!("carrying out a large commit, which will go on when there is room: {why}"),
        },
        other => other,
    }
}

/// What came of an attempt to decide.
enum Decision {
    /// It is decided; the record is of this revision of etcd.
    Taken(i64),
    /// It was decided, and somebody else has carried it out already.
    Published,
    /// It has to be judged again.
    Again,
}

/// A large commit before its decision.
struct Large {
    /// Etcd's revision of the head that it was judged by, and that it still is that one.
    at: i64,
    judged_by: [Compare; 2],
    applying: ApplyingCommit,
    committed: Committed,
}

impl Large {
    async fn decide(
        &mut self,
        link: &Link,
        keys: &Keys,
        stage: &Stage,
        held: &[(Vec<u8>, u64)],
        commit: &Commit,
    ) -> Result<Decision> {
        let (begun, mut pause, mut doubt) = (Instant::now(), Pause::new(), false);
        loop {
            let mut conditions = vec![absent(keys.applying_commit()), stage.stands(keys)];
            conditions.extend(self.judged_by.clone());
            conditions.extend(held.iter().map(|(key, at)| made(key.clone(), *at)));
            conditions.extend(commit.idempotency.iter().map(|key| absent(keys.done(key))));
            let ops = vec![
                put(keys.applying_commit(), write(&self.applying)?),
                stage.decided(keys),
                TxnOp::delete(keys.turn(), None),
            ];
            let txn = Txn::new().when(conditions).and_then(ops);
            let answer = link.once("deciding a large commit", txn.or_else(vec![get(keys.head())])).await;
            let (lost, mut refused) = match answer {
                Ok(answer) if answer.done => return Ok(Decision::Taken(answer.revision)),
                Ok(refused) => (None, refused),
                Err(error) if error.is_transient() => (Some(error), Answer::default()),
                Err(error) => return Err(error),
            };
            doubt |= lost.is_some();
            if doubt && let Some(decision) = self.was_decided(link, keys).await? {
                return Ok(decision);
            }
            if let Some(error) = lost {
                pause.after(error).await?;
                continue;
            }
            let found = refused.one(0);
            let text = text_of(found.as_ref());
            let (now, at) = identity(link, keys, found)?;
            let moved = at != self.at;
            // The head is as it was, and nothing is being carried out: then something else is not so any more.
            if !self.moves_up(link, keys, commit, now, at).await? || begun.elapsed() > TRY {
                return Ok(Decision::Again);
            }
            self.judged_by = same_head(keys, at, &text);
            if !moved {
                let before =
                    link.read("looking for a large commit", vec![get(keys.applying_commit())]).await?.one(0);
                if before.is_none() {
                    return Ok(Decision::Again);
                }
                settle(link, keys).await?;
            }
            stage.ask_for_turn(link, keys).await?;
        }
    }

    /// Whether an attempt whose answer was lost was done.
    async fn was_decided(&self, link: &Link, keys: &Keys) -> Result<Option<Decision>> {
        let ops = vec![get(keys.applying_commit()), get(keys.entry(self.applying.entry.revision))];
        let mut answer = link.read("looking whether it was decided", ops).await?;
        if let Some(kv) = answer.one(0)
            && parse::<ApplyingCommit>(&link.place, kv.key(), kv.value())?.id == self.applying.id
        {
            return Ok(Some(Decision::Taken(kv.mod_revision())));
        }
        let Some(kv) = answer.one(1) else { return Ok(None) };
        let entry: Entry = parse(&link.place, kv.key(), kv.value())?;
        Ok((entry.attempt == self.applying.entry.attempt).then_some(Decision::Published))
    }

    /// Whether the commits that came in between leave alone all that this one was judged by; then it moves up behind
    /// them.
    async fn moves_up(
        &mut self,
        link: &Link,
        keys: &Keys,
        commit: &Commit,
        now: Identity,
        at: i64,
    ) -> Result<bool> {
        // With so many, old ones are due, and which has to be read.
        if now.epoch != self.applying.head.epoch || now.remembered >= REMEMBERED as u64 {
            return Ok(false);
        }
        let own: HashSet<_> = commit.changes.iter().map(|change| &change.key).collect();
        let mut seen = Revision(self.applying.entry.revision.0 - 1);
        while seen < now.revision {
            let some = history::after(link, keys, seen, now.revision).await?;
            let Some(last) = some.last() else { return Ok(false) };
            seen = last.info.revision;
            let touched = some.iter().flat_map(|entry| &entry.changes).map(|change| &change.key);
            for key in touched {
                if own.contains(key) || commit.pre.iter().any(|pre| rests_on(pre, key)) {
                    return Ok(false);
                }
            }
        }
        let revision = Revision(now.revision.0 + 1);
        self.at = at;
        self.committed.revision = revision;
        self.applying.entry.revision = revision;
        self.applying.head.revision = revision;
        self.applying.head.remembered = now.remembered + u64::from(commit.idempotency.is_some());
        if let Some(key) = &commit.idempotency {
            let n = self.applying.head.remembered;
            let ops = remember(keys, key, digest(commit), self.committed, n, None)?;
            self.applying.remember = ops.into_iter().collect();
        }
        Ok(true)
    }
}

/// Whether a write of `key` may change whether the precondition holds.
fn rests_on(pre: &Pre, key: &Key) -> bool {
    match pre {
        Pre::At(one, _) | Pre::Exists(one) | Pre::Absent(one) => one == key,
        Pre::Unchanged(range, _) => range.contains(key),
        Pre::Held { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shoal_core::Epoch;

    use super::*;
    use crate::record::PLAIN;

    /// Of a commit of so many parts, each of which begins with a rule.
    fn applying(parts: usize) -> ApplyingCommit {
        let first = |n: usize| format!("dns/a/members/select: {}{n}", "x".repeat(4000));
        let firsts: Vec<Key> = (0..parts).map(|n| first(n).parse().unwrap()).collect();
        let (epoch, revision) = (Epoch(7), Revision(5));
        let entry = Entry {
            revision,
            author: "ann".into(),
            principal: None,
            origin: None,
            message: "because".into(),
            time: Timestamp::UNIX_EPOCH,
            attempt: "1".into(),
            changes: Vec::new(),
            parts: Some(Parts { id: "1".into(), firsts }),
        };
        let head = Identity { shoal: PLAIN, epoch, revision, remembered: 0, base: 0, nonce: 1 };
        ApplyingCommit { id: "1".into(), entry, head, remember: Vec::new() }
    }

    #[test]
    fn a_decision_that_is_no_request_is_refused_before_it() {
        assert!(is_one_request(&applying(300)).is_ok());
        let refused = is_one_request(&applying(400)).unwrap_err();
        assert!(matches!(&refused, StoreError::Invalid(why) if why.contains("several commits")), "{refused}");
    }
}
