//! What is too large for one transaction: commits and ledger writes of more than etcd takes at once.
//!
//! 1. *Staged.* The changes are laid down in parts that nothing points to. Nobody is held up. A key with a lease says
//!    that somebody is at it; whoever finds parts without one clears them away.
//! 2. *Decided.* One conditional put writes the record `applying/…`: the preconditions hold, it will happen, whoever
//!    dies. It does not show yet. From here nothing else is decided, and nobody gets a claim, until it is done.
//! 3. *Carried out*, by who decided it or, where that one died, by the next who wants to write. Every step may be done
//!    twice, and is conditional on the record.
//! 4. *Published*, and the record removed, in one transaction: now it shows, in all at once.
//!
//! A reader never waits: rows that a commit in step 3 has overwritten are of a revision that is not there yet, and what stood
//! there before is found in the history.

use std::time::Duration;

use etcd_client::{Compare, PutOptions, Txn, TxnOp};
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use shoal_core::Change;
use shoal_store::{LedgerWrite, Result, StoreError};

use crate::judge::{Ops, lay, octets};
use crate::keys::Keys;
use crate::link::{BYTES, Link, OPS, Pause, absent, clear, first, get, put, unmoved};
use crate::record::{Entry, Identity, LedgerRecord, Stored, damaged, parse, write};

/// About the most octets of a part; one change may be larger.
const PART: usize = 512 << 10;
/// The most changes of a part: they are read together.
const PART_CHANGES: usize = 2000;
/// How many requests are under way at once.
const AT_ONCE: usize = 4;
/// How long who carries it out may be silent before others do it.
const ALIVE: Duration = Duration::from_secs(5);
/// How long others wait for one who lives.
const WAIT: Duration = Duration::from_secs(600);

/// A large commit that was decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ApplyingCommit {
    pub(crate) id: String,
    /// As it will stand in the log.
    pub(crate) entry: Entry,
    /// The identity after it.
    pub(crate) head: Identity,
    /// The idempotency keys that come and go with it.
    pub(crate) remember: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A large write of the ledger that was decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ApplyingLedger {
    pub(crate) id: String,
    pub(crate) parts: usize,
}

/// Changes as parts, each with its first key.
pub(crate) fn parts_of(changes: Vec<Change>) -> Result<Vec<(shoal_core::Key, Vec<u8>)>> {
    let mut parts = Vec::new();
    let (mut head, mut part, mut count) = (None, Vec::new(), 0);
    for change in changes {
        let key = change.key.clone();
        let text = write(&Stored::from(change))?;
        if count == PART_CHANGES || (count > 0 && part.len() + text.len() > PART) {
            part.push(b']');
            parts.extend(head.take().map(|key| (key, std::mem::take(&mut part))));
            count = 0;
        }
        part.push(if count == 0 { b'[' } else { b',' });
        part.extend(text);
        head.get_or_insert(key);
        count += 1;
    }
    part.push(b']');
    parts.extend(head.map(|key| (key, part)));
    Ok(parts)
}

/// Ledger rows as parts.
pub(crate) fn ledger_parts(rows: &[LedgerWrite]) -> Result<Vec<Vec<u8>>> {
    let (mut parts, mut some, mut size) = (Vec::new(), Vec::new(), 0);
    for row in rows {
        let value = row.value.as_ref().map(|value| data_encoding::BASE64.encode(value));
        let len = row.key.len() + value.as_ref().map_or(0, String::len);
        if !some.is_empty() && (size + len > PART || some.len() == PART_CHANGES) {
            parts.push(write(&std::mem::take(&mut some))?);
            size = 0;
        }
        size += len;
        some.push(LedgerRecord { key: row.key.clone(), value });
    }
    parts.push(write(&some)?);
    Ok(parts)
}

/// Parts that were laid down, and the lease that says so. Who drops it leaves the parts to be cleared away.
pub(crate) struct Stage {
    pub(crate) id: String,
    lease: i64,
    beat: tokio::task::JoinHandle<()>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

impl Stage {
    /// Lays the parts down, under a name that nobody else has.
    pub(crate) async fn lay(link: &Link, keys: &Keys, id: &str, parts: Vec<Vec<u8>>) -> Result<Self> {
        sweep(link, keys).await?;
        let lease = link.grant(ALIVE).await?;
        let beat = tokio::spawn(beat(link.clone(), lease));
        let stage = Self { id: id.to_owned(), lease, beat };
        let alive = TxnOp::put(keys.alive(id), "", Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new().and_then(vec![alive, put(keys.stage(id), Vec::new())]);
        link.again("announcing a large commit", txn).await?;
        // A part is laid down only while it may be: one that is late would be left for ever.
        let staged = keys.stage(id);
        stream::iter(parts.into_iter().enumerate())
            .map(|(n, part)| {
                let there = Compare::version(staged.clone(), etcd_client::CompareOp::Greater, 0);
                let txn = Txn::new().when(vec![there]).and_then(vec![put(keys.part(id, n), part)]);
                async move { link.again("writing a part of a large commit", txn).await.map(|answer| answer.done) }
            })
            .buffer_unordered(AT_ONCE)
            .try_for_each(async |done| match done {
                true => Ok(()),
                false => Err(taken_for_dead(link)),
            })
            .await?;
        Ok(stage)
    }

    /// That it is still ours to decide.
    pub(crate) fn stands(&self, keys: &Keys) -> Compare {
        Compare::version(keys.stage(&self.id), etcd_client::CompareOp::Greater, 0)
    }

    /// Asks others to give way. Ends with the lease, or with the decision.
    pub(crate) async fn ask_for_turn(&self, link: &Link, keys: &Keys) -> Result<()> {
        let turn = TxnOp::put(keys.turn(), "", Some(PutOptions::new().with_lease(self.lease)));
        link.again("asking for a turn", Txn::new().and_then(vec![turn])).await.map(drop)
    }

    /// What a decision does to it.
    pub(crate) fn decided(&self, keys: &Keys) -> TxnOp {
        TxnOp::delete(keys.stage(&self.id), None)
    }

    /// Takes it all away, for there will be no decision.
    pub(crate) async fn undo(self, link: &Link, keys: &Keys) {
        let gone = vec![clear(keys.parts(&self.id)), TxnOp::delete(keys.stage(&self.id), None)];
        let txn = Txn::new().when(vec![self.stands(keys)]).and_then(gone);
        if let Err(error) = link.again("clearing a large commit away", txn).await {
            tracing::debug!(%error, "parts are left for the next to clear away");
        }
        self.end(link).await;
    }

    /// Says that nobody is at it any more.
    pub(crate) async fn end(self, link: &Link) {
        self.beat.abort();
        link.revoke(self.lease).await;
    }
}

fn taken_for_dead(link: &Link) -> StoreError {
    StoreError::Unavailable {
        place: link.place.to_string(),
        why: "a large write was taken for abandoned, because nothing was heard of it for too long; nothing was written, \
              try again"
            .to_owned(),
    }
}

/// Keeps a lease alive.
async fn beat(link: Link, lease: i64) {
    loop {
        tokio::time::sleep(ALIVE / 4).await;
        if let Err(error) = link.renew(lease).await {
            tracing::debug!(%error, "a lease was not renewed");
        }
    }
}

/// Clears away what was staged by somebody who died.
pub(crate) async fn sweep(link: &Link, keys: &Keys) -> Result<()> {
    let (from, to) = (keys.stage(""), crate::keys::end_of(keys.stage("")));
    let ask = "looking for abandoned parts";
    for staged in link.read(ask, vec![first((from, to), 100)]).await?.take(0).kvs {
        let Some(id) = keys.of_stage(staged.key()) else { continue };
        let dead = vec![absent(keys.alive(&id)), unmoved(keys.stage(&id), staged.mod_revision())];
        let gone = vec![clear(keys.parts(&id)), TxnOp::delete(keys.stage(&id), None)];
        link.again("clearing abandoned parts away", Txn::new().when(dead).and_then(gone)).await?;
    }
    Ok(())
}

/// Waits until nothing is being carried out, or carries it out for who died over it.
pub(crate) async fn settle(link: &Link, keys: &Keys) -> Result<()> {
    let begun = std::time::Instant::now();
    let mut pause = Pause::new();
    loop {
        let ops = vec![get(keys.applying_commit()), get(keys.applying_ledger())];
        let mut answer = link.read("looking for a large commit", ops).await?;
        let (commit, ledger) = (answer.one(0), answer.one(1));
        let id = match (&commit, &ledger) {
            (Some(kv), _) => parse::<ApplyingCommit>(&link.place, kv.key(), kv.value())?.id,
            (None, Some(kv)) => parse::<ApplyingLedger>(&link.place, kv.key(), kv.value())?.id,
            (None, None) => return Ok(()),
        };
        let alive = link.read("looking for who is at it", vec![get(keys.alive(&id))]).await?.one(0).is_some();
        match (alive, commit, ledger) {
            (true, ..) if begun.elapsed() > WAIT => return Err(busy(link)),
            (true, ..) => pause.wait().await,
            (false, Some(kv), _) => {
                let applying = parse(&link.place, kv.key(), kv.value())?;
                carry_out_commit(link, keys, &applying, kv.mod_revision()).await?;
            }
            (false, None, Some(kv)) => {
                let applying = parse(&link.place, kv.key(), kv.value())?;
                carry_out_ledger(link, keys, &applying, kv.mod_revision()).await?;
            }
            (false, None, None) => {}
        }
    }
}

fn busy(link: &Link) -> StoreError {
    let why =
        format!("waiting for a large commit of somebody else: it is not done after {} s", WAIT.as_secs());
    StoreError::Unavailable { place: link.place.to_string(), why }
}

/// Writes what a decided commit changes, and publishes it. `at` is etcd's revision of the record.
pub(crate) async fn carry_out_commit(
    link: &Link,
    keys: &Keys,
    applying: &ApplyingCommit,
    at: i64,
) -> Result<()> {
    let (entry, guard) = (&applying.entry, keys.applying_commit());
    let parts = entry.parts.as_ref().map_or(0, |parts| parts.firsts.len());
    let make = |key: &[u8], text: &[u8]| {
        let stored: Vec<Stored> = parse(&link.place, key, text)?;
        let each = stored.into_iter().map(|stored| {
            let mut ops = Ops::new();
            lay(keys, &Change::from(stored), entry.revision, &mut ops).map(|()| ops)
        });
        batches(each)
    };
    carry_out(link, keys, &applying.id, parts, unmoved(guard.clone(), at), make).await?;
    let mut ops: Ops = applying.remember.iter().cloned().collect();
    ops.insert(keys.entry(entry.revision), Some(write(entry)?));
    ops.insert(keys.head(), Some(write(&applying.head)?));
    ops.insert(guard.clone(), None);
    let txn = Txn::new().when(vec![unmoved(guard, at)]).and_then(as_ops(ops));
    // Not done means that somebody else did it.
    link.again("publishing a large commit", txn).await.map(drop)
}

/// Writes what a decided write of the ledger says. `at` is etcd's revision of the record.
pub(crate) async fn carry_out_ledger(
    link: &Link,
    keys: &Keys,
    applying: &ApplyingLedger,
    at: i64,
) -> Result<()> {
    let guard = keys.applying_ledger();
    let make = |key: &[u8], text: &[u8]| {
        let rows: Vec<LedgerRecord> = parse(&link.place, key, text)?;
        batches(rows.into_iter().map(|row| {
            let value = row.value.map(|value| data_encoding::BASE64.decode(value.as_bytes()));
            let value = value.transpose().map_err(|e| damaged(&link.place, key, &e))?;
            Ok(Ops::from([(keys.ledger(&row.key), value)]))
        }))
    };
    carry_out(link, keys, &applying.id, applying.parts, unmoved(guard.clone(), at), make).await?;
    let gone = vec![TxnOp::delete(guard.clone(), None), clear(keys.parts(&applying.id))];
    let txn = Txn::new().when(vec![unmoved(guard, at)]).and_then(gone);
    link.again("finishing a large write of the ledger", txn).await.map(drop)
}

/// Does what the parts say, as long as the guard holds.
async fn carry_out(
    link: &Link,
    keys: &Keys,
    id: &str,
    parts: usize,
    guard: Compare,
    make: impl Fn(&[u8], &[u8]) -> Result<Vec<Ops>>,
) -> Result<()> {
    let (make, guard) = (&make, &guard);
    stream::iter(0..parts)
        .map(|n| async move {
            let key = keys.part(id, n);
            let Some(part) =
                link.read("reading a part of a large commit", vec![get(key.clone())]).await?.one(0)
            else {
                // Gone, because somebody else has done it all; or something that was relied on is gone.
                let txn = Txn::new().when(vec![guard.clone()]);
                return match link.again("looking for a large commit", txn).await?.done {
                    true => Err(damaged(&link.place, &key, &"a part of a large commit is gone")),
                    false => Ok(()),
                };
            };
            for ops in make(&key, part.value())? {
                let txn = Txn::new().when(vec![guard.clone()]).and_then(as_ops(ops));
                if !link.again("carrying out a large commit", txn).await?.done {
                    break;
                }
            }
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Puts together what fits in a transaction.
pub(crate) fn batches(each: impl Iterator<Item = Result<Ops>>) -> Result<Vec<Ops>> {
    let (mut all, mut some, mut size) = (Vec::new(), Ops::new(), 0);
    for ops in each {
        let ops = ops?;
        let more = octets(&ops);
        if some.len() + ops.len() > OPS || (size + more > BYTES && !some.is_empty()) {
            all.push(std::mem::take(&mut some));
            size = 0;
        }
        size += more;
        some.extend(ops);
    }
    all.push(some);
    Ok(all)
}

/// The operations of a transaction.
pub(crate) fn as_ops(ops: Ops) -> Vec<TxnOp> {
    let op = |(key, value)| match value {
        Some(value) => put(key, value),
        None => TxnOp::delete(key, None),
    };
    ops.into_iter().map(op).collect()
}
