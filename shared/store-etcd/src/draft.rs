//! A database in etcd that is being made from another one.
//!
//! It has the keys of every database, but its head stands at `draft` instead of `log`: whoever opens the name finds no database, and one
//! that may not be made. The last transaction moves the head. Every other one is on the condition that `draft` is as this process
//! left it, so of two that make the same copy the first is refused once the second has begun.
//!
//! Commits keep their revisions; some are written with one transaction. One that is too large for that is laid down in parts, and its rows are
//! written, before the transaction that counts it: nobody reads meanwhile, so nothing of what `large` does for readers and other writers is
//! needed, and whoever goes on after a kill writes the same once more.

use std::sync::Arc;

use etcd_client::{Compare, Txn, TxnOp};
use futures::{StreamExt, TryStreamExt, stream};
use shoal_core::{Change, CommitInfo, Committed, Epoch, LogEntry, Revision};
use shoal_store::parts::{occupied, of_another, out_of_order, overtaken};
use shoal_store::{Claim, Draft, Fut, LedgerPage, Page, Piece, Query, Result, Retry, Stand, Whole};
use tokio::sync::Mutex;

use crate::address::Address;
use crate::judge::{Ops, lay, octets};
use crate::keys::Keys;
use crate::large::{as_ops, batches, parts_of};
use crate::limits::{Stretch, beside, room_for, try_out};
use crate::link::{BYTES, Link, OPS, absent, clear, get, names, none, put, unmoved};
use crate::open::{foreign, remove, shown, too_new, version};
use crate::papers::Papers;
use crate::read::Pages;
use crate::record::{
    ClaimRecord, DraftRecord, Entry, Identity, PLAIN, Parts, Remembered, VERSION, parse, write,
};
use crate::{claims, history, whole};

/// How many changes of a large commit are made ready at a time, and how many requests are under way then.
const SOME: usize = 1000;
const AT_ONCE: usize = 4;

/// A database in etcd that is being made from another one; see [`Draft`].
///
/// Needs a tokio runtime. Of each value up to 4 KiB etcd holds two copies, as in every database of Shoal's there; see to its room.
pub struct EtcdDraft {
    link: Link,
    keys: Keys,
    name: String,
    by: String,
    state: Mutex<State>,
    pages: Pages,
}

/// How the draft was left by this process.
struct State {
    identity: Identity,
    step: u64,
    /// Etcd's revision of that.
    at: i64,
    /// What may be written until it is looked again whether etcd has room.
    room: Stretch,
}

impl EtcdDraft {
    /// Opens the name at `etcd://HOST:PORT[,HOST:PORT…][/NAME]` for a copy of the database of this epoch: one under which nothing stands, or
    /// the unfinished copy of that database, which from now on is made by this process.
    ///
    /// # Errors
    /// [`StoreError::Invalid`](shoal_store::StoreError::Invalid) where something else stands, and otherwise as for [`EtcdStore::open`](crate::EtcdStore::open).
    pub async fn open(address: &str, of: Epoch) -> Result<Self> {
        Self::open_showing(address, of, &Papers::default()).await
    }

    /// [`EtcdDraft::open`], in an etcd that wants to know who comes.
    ///
    /// # Errors
    /// As there, and as for [`EtcdStore::open_showing`](crate::EtcdStore::open_showing).
    pub async fn open_showing(address: &str, of: Epoch, papers: &Papers) -> Result<Self> {
        let address = Address::parse(address)?;
        let link = Link::connect(&address, papers)?;
        let (keys, by) = (Keys::of_draft(&address.name), crate::writer::unique());
        let name = address.name;
        let state = begin(&link, &keys, &name, &by, of).await?;
        Ok(Self { link, keys, name, by, state: Mutex::new(state), pages: Pages::default() })
    }
}

/// Makes the draft, or takes up the one that stands there.
async fn begin(link: &Link, keys: &Keys, name: &str, by: &str, of: Epoch) -> Result<State> {
    let ask = format!("opening {name:?} for a copy");
    let looks = vec![get(Keys::new(name).head()), get(keys.head()), names(keys.all(), 1)];
    let mut answer = link.at_first(&ask, Txn::new().and_then(looks)).await?;
    if let Some(kv) = answer.one(0) {
        return Err(match version(kv.value()) {
            Ok(PLAIN | VERSION) => {
                occupied(&shown(link, name), parse::<Identity>(&link.place, kv.key(), kv.value())?.revision)
            }
            Ok(newer) => too_new(link, name, newer),
            Err(_) => foreign(link, name),
        });
    }
    let (identity, condition) = match answer.one(1) {
        Some(kv) => {
            match version(kv.value()) {
                Ok(VERSION) => {}
                Ok(other) => return Err(too_new(link, name, other)),
                Err(_) => return Err(foreign(link, name)),
            }
            let identity = parse::<DraftRecord>(&link.place, kv.key(), kv.value())?.identity;
            if identity.epoch != of {
                return Err(of_another(&shown(link, name), identity.epoch, of, &remove(name)));
            }
            (identity, unmoved(keys.head(), kv.mod_revision()))
        }
        None if answer.one(2).is_some() => return Err(foreign(link, name)),
        None => {
            try_out(link, keys).await?;
            let revision = Revision(0);
            let identity = Identity { shoal: VERSION, epoch: of, revision, remembered: 0, base: 0, nonce: 0 };
            (identity, none(keys.all()))
        }
    };
    let text = write(&DraftRecord { identity, by: by.to_owned(), step: 0 })?;
    let txn = Txn::new()
        .when(vec![condition])
        .and_then(vec![put(keys.head(), text.clone())])
        .or_else(vec![get(keys.head())]);
    let answer = link.again(&ask, txn).await?;
    let at = written(link, name, answer, &text)?;
    Ok(State { identity, step: 0, at, room: Stretch::default() })
}

/// Etcd's revision of what was just written, whichever attempt did it; or that it was not, for somebody else writes.
fn written(link: &Link, name: &str, mut answer: crate::link::Answer, text: &[u8]) -> Result<i64> {
    if answer.done {
        return Ok(answer.revision);
    }
    // An attempt whose answer was lost.
    match answer.one(0) {
        Some(kv) if kv.value() == text => Ok(kv.mod_revision()),
        _ => Err(overtaken(&shown(link, name))),
    }
}

/// A commit as it stands in the log.
fn entry(info: &CommitInfo, changes: Vec<Change>, parts: Option<Parts>) -> Entry {
    Entry {
        revision: info.revision,
        author: info.author.clone(),
        principal: info.principal.clone(),
        origin: info.origin.clone(),
        message: info.message.clone(),
        time: info.time,
        attempt: "copied".to_owned(),
        changes: changes.into_iter().map(Into::into).collect(),
        parts,
    }
}

/// All that a commit writes; `None` where that is too much for one transaction.
fn small(keys: &Keys, commit: &LogEntry) -> Result<Option<Ops>> {
    let revision = commit.info.revision;
    if commit.changes.len() > OPS {
        return Ok(None);
    }
    let mut ops = Ops::new();
    for change in &commit.changes {
        lay(keys, change, revision, &mut ops)?;
    }
    if ops.len() >= OPS - 1 || octets(&ops) > BYTES {
        return Ok(None);
    }
    ops.insert(keys.entry(revision), Some(write(&entry(&commit.info, commit.changes.clone(), None))?));
    Ok((octets(&ops) <= BYTES).then_some(ops))
}

impl EtcdDraft {
    /// Writes these keys, and how far the draft is by them.
    async fn step(&self, state: &mut State, ops: Ops, identity: Identity) -> Result<()> {
        state.room.take(&self.link, std::slice::from_ref(&ops)).await?;
        self.step_with(state, as_ops(ops), identity).await
    }

    async fn step_with(&self, state: &mut State, mut ops: Vec<TxnOp>, identity: Identity) -> Result<()> {
        let step = state.step + 1;
        let text = write(&DraftRecord { identity, by: self.by.clone(), step })?;
        ops.push(put(self.keys.head(), text.clone()));
        let txn =
            Txn::new().when(vec![self.unmoved(state.at)]).and_then(ops).or_else(vec![get(self.keys.head())]);
        let answer = self.link.again("copying a database", txn).await?;
        let at = written(&self.link, &self.name, answer, &text)?;
        *state = State { identity, step, at, ..*state };
        Ok(())
    }

    /// Writes these keys, which do not count yet.
    async fn lay_down(&self, at: i64, ops: Ops) -> Result<()> {
        let txn = Txn::new().when(vec![self.unmoved(at)]).and_then(as_ops(ops));
        match self.link.again("copying a database", txn).await?.done {
            true => Ok(()),
            false => Err(overtaken(&shown(&self.link, &self.name))),
        }
    }

    fn unmoved(&self, at: i64) -> Compare {
        unmoved(self.keys.head(), at)
    }

    async fn take_commits(&self, state: &mut State, commits: Vec<Arc<LogEntry>>) -> Result<()> {
        let (mut some, mut upto) = (Ops::new(), state.identity.revision);
        for commit in commits {
            let asked = commit.info.revision;
            if asked <= upto {
                return Err(out_of_order(&shown(&self.link, &self.name), asked, upto));
            }
            let ops = small(&self.keys, &commit)?;
            let fits = ops
                .as_ref()
                .is_some_and(|ops| some.len() + ops.len() < OPS && octets(&some) + octets(ops) <= BYTES);
            if !fits && !some.is_empty() {
                let identity = Identity { revision: upto, ..state.identity };
                self.step(state, std::mem::take(&mut some), identity).await?;
            }
            match ops {
                Some(ops) => some.extend(ops),
                None => self.take_large(state, Arc::unwrap_or_clone(commit)).await?,
            }
            upto = asked;
        }
        if some.is_empty() {
            return Ok(());
        }
        let identity = Identity { revision: upto, ..state.identity };
        self.step(state, some, identity).await
    }

    async fn take_large(&self, state: &mut State, commit: LogEntry) -> Result<()> {
        let (LogEntry { info, changes }, at) = (commit, state.at);
        let size = |change: &Change| {
            change.key.as_str().len() + change.value.as_ref().map_or(0, |value| value.as_str().len())
        };
        // All of it before any of it.
        let beside = beside(changes.iter().map(|change| change.key.as_str()));
        room_for(&self.link, changes.iter().map(size).sum(), beside).await?;
        // It takes of what was found before.
        state.room = Stretch::default();
        for some in changes.chunks(SOME) {
            let each = some.iter().map(|change| {
                let mut ops = Ops::new();
                lay(&self.keys, change, info.revision, &mut ops).map(|()| ops)
            });
            self.lay_down_all(at, batches(each)?).await?;
        }
        let id = format!("copied-{:016x}", info.revision.0);
        let (firsts, parts): (Vec<_>, Vec<_>) = parts_of(changes)?.into_iter().unzip();
        let parts = parts.into_iter().enumerate();
        let parts = parts.map(|(n, part)| Ops::from([(self.keys.part(&id, n), Some(part))]));
        self.lay_down_all(at, parts.collect()).await?;
        let record = write(&entry(&info, Vec::new(), Some(Parts { id, firsts })))?;
        let identity = Identity { revision: info.revision, ..state.identity };
        self.step(state, Ops::from([(self.keys.entry(info.revision), Some(record))]), identity).await
    }

    async fn lay_down_all(&self, at: i64, all: Vec<Ops>) -> Result<()> {
        stream::iter(all).map(|ops| self.lay_down(at, ops)).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn take_retries(&self, state: &mut State, retries: Vec<Retry>) -> Result<()> {
        // Two keys each, and the draft's own.
        for some in retries.chunks((OPS - 1) / 2) {
            let (mut ops, mut remembered) = (Ops::new(), state.identity.remembered);
            for Retry { key, digest, revision, changed } in some {
                remembered += 1;
                let done = Committed { revision: *revision, changed: *changed, replayed: false };
                ops.insert(self.keys.done(key), Some(write(&Remembered::of(*digest, done))?));
                ops.insert(self.keys.order(remembered), Some(key.as_bytes().to_vec()));
            }
            let identity = Identity { remembered, ..state.identity };
            self.step(state, ops, identity).await?;
        }
        Ok(())
    }
}

impl Whole for EtcdDraft {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        Box::pin(async move {
            let identity = history::head(&self.link, &self.keys).await?.0;
            Ok(Stand { head: identity.head(), fence: identity.base, busy: false })
        })
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        Box::pin(whole::commits(&self.link, &self.keys, after))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        Box::pin(whole::rows(&self.link, &self.keys, &self.pages, query.clone()))
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        Box::pin(whole::ledger_rows(&self.link, &self.keys, after.map(str::to_owned)))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        Box::pin(whole::retries(&self.link, &self.keys, after))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        Box::pin(claims::list(&self.link, &self.keys, ""))
    }
}

impl Draft for EtcdDraft {
    fn take(&self, piece: Piece) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let ops: Vec<Result<Ops>> = match piece {
                Piece::Commits(commits) => return self.take_commits(&mut state, commits).await,
                Piece::Retries(retries) => return self.take_retries(&mut state, retries).await,
                Piece::Ledger(rows) => {
                    let row =
                        |(key, value): (String, _)| Ok(Ops::from([(self.keys.ledger(&key), Some(value))]));
                    rows.into_iter().map(row).collect()
                }
                Piece::Claims(claims) => claims.into_iter().map(|claim| self.claim(claim)).collect(),
            };
            let all = batches(ops.into_iter())?;
            state.room.take(&self.link, &all).await?;
            self.lay_down_all(state.at, all).await
        })
    }

    fn clear(&self) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            let mut state = self.state.lock().await;
            let identity = Identity { remembered: 0, ..state.identity };
            let gone = self.keys.beside().into_iter().map(clear).collect();
            self.step_with(&mut state, gone, identity).await
        })
    }

    fn finish(&self, upto: Revision, fence: u64) -> Fut<'_, Result<()>> {
        Box::pin(async move {
            let state = self.state.lock().await;
            if state.identity.revision != upto {
                return Err(overtaken(&shown(&self.link, &self.name)));
            }
            let head = Keys::new(&self.name).head();
            let text = write(&Identity { base: fence, ..state.identity })?;
            let txn = Txn::new()
                .when(vec![self.unmoved(state.at), absent(head.clone())])
                .and_then(vec![put(head.clone(), text.clone()), TxnOp::delete(self.keys.head(), None)])
                .or_else(vec![get(head)]);
            let answer = self.link.again("finishing a copy", txn).await?;
            written(&self.link, &self.name, answer, &text).map(drop)
        })
    }
}

impl EtcdDraft {
    /// What keeps a claim with its number.
    fn claim(&self, claim: Claim) -> Result<Ops> {
        let key = self.keys.claim(&claim.name, claim.slot);
        let record = ClaimRecord { holder: claim.holder, ttl: None, number: Some(claim.number) };
        Ok(Ops::from([(key, Some(write(&record)?))]))
    }
}
