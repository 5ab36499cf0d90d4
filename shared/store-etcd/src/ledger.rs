//! The ledger, and reports. Neither is part of the history, and no watcher hears of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp};
use jiff::{SignedDuration, Timestamp};
use shoal_core::Status;
use shoal_store::parts::too_many;
use shoal_store::{
    Claim, LedgerPage, LedgerWrite, MAX_INSTANCES, MAX_PAGE, MAX_PAGE_BYTES, MAX_REPORTS, REPORT_GRACE,
    Result, StoreError,
};

use crate::claims::made_at;
use crate::judge::{Ops, octets};
use crate::keys::{Keys, end_of};
use crate::known::each;
use crate::large::{ApplyingLedger, Stage, as_ops, carry_out_ledger, ledger_parts, settle};
use crate::limits::{beside, room_for};
use crate::link::{BYTES, Link, OPS, Pause, absent, first, get, made, put};
use crate::record::{damaged, parse, write};

/// How many rows are asked for first: each may have a megabyte.
const AT_FIRST: usize = 32;
/// About how many octets are asked for at once, when it is seen how large rows are.
const AT_ONCE: usize = 4 << 20;
/// How often reports that expired long ago are looked for.
const CLEAN: Duration = Duration::from_secs(60);

/// See [`Store::ledger`](shoal_store::Store::ledger).
pub(crate) async fn page(
    link: &Link,
    keys: &Keys,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<LedgerPage> {
    let mut from = keys.ledger(prefix);
    let to = end_of(from.clone());
    if let Some(after) = after.filter(|after| *after >= prefix) {
        from = keys.ledger(after);
        from.push(0);
    }
    let (mut page, mut bytes) = (LedgerPage { rows: Vec::new(), more: false }, 0);
    let limit = limit.clamp(1, MAX_PAGE);
    while from < to {
        let fit = AT_ONCE / (1 + bytes / (page.rows.len() + 1));
        let fit = if page.rows.is_empty() { AT_FIRST } else { fit.max(AT_FIRST) };
        let some = (limit - page.rows.len() + 1).min(fit);
        let ops = vec![get(keys.applying_ledger()), first((from.clone(), to.clone()), some)];
        let mut answer = link.read("reading the ledger", ops).await?;
        if answer.one(0).is_some() {
            // Some of its rows may be there and some not.
            settle(link, keys).await?;
            continue;
        }
        let found = answer.take(1);
        for kv in found.kvs {
            bytes += kv.value().len();
            if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
                page.more = true;
                return Ok(page);
            }
            let key = keys.of_ledger(kv.key());
            let key = key.ok_or_else(|| damaged(&link.place, kv.key(), &"it names no row"))?;
            from = kv.key().to_vec();
            from.push(0);
            page.rows.push((key, kv.into_key_value().1));
        }
        if !found.more {
            break;
        }
    }
    Ok(page)
}

/// See [`Store::write_ledger`](shoal_store::Store::write_ledger).
pub(crate) async fn write_rows(link: &Link, keys: &Keys, rows: Vec<LedgerWrite>, held: &Claim) -> Result<()> {
    // The last of several writes of one key counts.
    let rows: BTreeMap<String, Option<Vec<u8>>> = rows.into_iter().map(|row| (row.key, row.value)).collect();
    let ops: Ops = rows.iter().map(|(key, value)| (keys.ledger(key), value.clone())).collect();
    let claim = keys.claim(&held.name, held.slot);
    let at = holding(link, keys, held).await?;
    if ops.len() > OPS || octets(&ops) > BYTES {
        let rows: Vec<_> = rows.into_iter().map(|(key, value)| LedgerWrite { key, value }).collect();
        return write_large(link, keys, &rows, held, at).await;
    }
    // An answer may be lost, and what was asked for be done later, after the next write of the same row: so each attempt
    // is conditional on that nobody wrote the rows since this revision of etcd.
    let mut seen = i64::try_from(at).unwrap_or(0).max(link.seen());
    let (mut pause, mut tried) = (Pause::new(), false);
    loop {
        let mut conditions = vec![made(claim.clone(), at), absent(keys.applying_ledger())];
        conditions
            .extend(ops.keys().map(|row| Compare::mod_revision(row.clone(), CompareOp::Less, seen + 1)));
        let txn = Txn::new().when(conditions).and_then(as_ops(ops.clone()));
        match link.once("writing the ledger", txn).await {
            Ok(answer) if answer.done => return Ok(()),
            Ok(answer) => {
                fenced(link, made(claim.clone(), at), held).await?;
                if tried && stands(link, &ops).await? {
                    return Ok(());
                }
                settle(link, keys).await?;
                seen = answer.revision;
            }
            Err(error) if error.is_transient() => {
                tried = true;
                pause.after(error).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the keys say just this: then an attempt whose answer was lost was done.
async fn stands(link: &Link, ops: &Ops) -> Result<bool> {
    let mut answer = link.read("reading the ledger", ops.keys().cloned().map(get).collect()).await?;
    let mut all = ops.values().enumerate();
    Ok(all.all(|(n, value)| answer.one(n).map(|kv| kv.into_key_value().1) == *value))
}

fn lost_claim(held: &Claim) -> StoreError {
    StoreError::Fenced { name: held.name.clone(), number: held.number }
}

/// The revision of etcd that made the claim's key, by which it is known from here on.
async fn holding(link: &Link, keys: &Keys, held: &Claim) -> Result<u64> {
    made_at(link, keys, held).await?.ok_or_else(|| lost_claim(held))
}

/// That the claim is still held.
async fn fenced(link: &Link, still: Compare, held: &Claim) -> Result<()> {
    let txn = Txn::new().when(vec![still]);
    match link.again("looking at a claim", txn).await?.done {
        true => Ok(()),
        false => Err(lost_claim(held)),
    }
}

/// `held_at` is the revision of etcd that made the claim's key.
async fn write_large(
    link: &Link,
    keys: &Keys,
    rows: &[LedgerWrite],
    held: &Claim,
    held_at: u64,
) -> Result<()> {
    let id = crate::writer::unique();
    let claim = keys.claim(&held.name, held.slot);
    fenced(link, made(claim.clone(), held_at), held).await?;
    let parts = ledger_parts(rows)?;
    let beside = beside(rows.iter().map(|row| row.key.as_str()));
    room_for(link, parts.iter().map(Vec::len).sum(), beside).await?;
    let applying = ApplyingLedger { id: id.clone(), parts: parts.len() };
    let record = write(&applying)?;
    let stage = Stage::lay(link, keys, &id, parts).await?;
    let mut pause = Pause::new();
    let at = loop {
        let conditions =
            vec![made(claim.clone(), held_at), absent(keys.applying_ledger()), stage.stands(keys)];
        let ops = vec![put(keys.applying_ledger(), record.clone()), stage.decided(keys)];
        match link.once("writing the ledger", Txn::new().when(conditions).and_then(ops)).await {
            Ok(answer) if answer.done => break answer.revision,
            Err(error) if !error.is_transient() => {
                stage.undo(link, keys).await;
                return Err(error);
            }
            other => {
                // Somebody else's is being carried out, or this one is and the answer was lost.
                let found =
                    link.read("looking for a large write", vec![get(keys.applying_ledger())]).await?.one(0);
                let ours = |kv: &etcd_client::KeyValue| {
                    parse::<ApplyingLedger>(&link.place, kv.key(), kv.value()).is_ok_and(|a| a.id == id)
                };
                if let Some(kv) = found.filter(ours) {
                    break kv.mod_revision();
                }
                let staged = Txn::new().when(vec![stage.stands(keys)]);
                if !link.again("looking for a large write", staged).await?.done {
                    // Decided and carried out by somebody else, or taken for dead: nobody knows.
                    return Err(other.err().unwrap_or_else(|| lost(link)));
                }
                if let Err(error) = fenced(link, made(claim.clone(), held_at), held).await {
                    stage.undo(link, keys).await;
                    return Err(error);
                }
                match other {
                    Ok(_) => settle(link, keys).await?,
                    Err(error) => pause.after(error).await?,
                }
            }
        }
    };
    carry_out_ledger(link, keys, &applying, at).await?;
    stage.end(link).await;
    Ok(())
}

fn lost(link: &Link) -> StoreError {
    let why =
        "writing the ledger: it took so long that others took it for abandoned; read it again".to_owned();
    StoreError::Unavailable { place: link.place.to_string(), why }
}

/// Reports, and when they were last cleaned.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    cleaned: Mutex<Option<Instant>>,
}

impl Reports {
    /// See [`Store::report`](shoal_store::Store::report). Also forgets what is old.
    pub(crate) async fn report(&self, link: &Link, keys: &Keys, status: &Status) -> Result<()> {
        let agent = status.agent.as_str();
        let (from, to) = keys.reports(Some(agent));
        let count = || GetOptions::new().with_count_only();
        let key = keys.report(agent, &status.instance);
        let ops = vec![
            TxnOp::get(key.clone(), Some(count())),
            put(key.clone(), write(status)?),
            TxnOp::get(from.clone(), Some(count().with_range(to.clone()))),
        ];
        let mut answer = link.again("writing a report", Txn::new().and_then(ops)).await?;
        let (known, now) = (answer.take(0).count > 0, Timestamp::now());
        let all = usize::try_from(answer.take(2).count).unwrap_or_default();
        // Those that live stay, so their number is no reason to read them all with each report.
        let looks = !known || !status.lives(now);
        if looks && all > MAX_REPORTS {
            let all = read(link, (from, to)).await?;
            if !known && all.iter().filter(|s| s.lives(now)).count() > MAX_INSTANCES {
                forget(link, vec![key]).await?;
                return Err(too_many(status));
            }
            let past = all.into_iter().filter(|s| !s.lives(now));
            let mut ages: Vec<_> = past.map(|s| (s.at, s.instance)).collect();
            ages.sort_unstable();
            let many = ages.len().saturating_sub(MAX_REPORTS);
            let old = ages.into_iter().take(many).map(|(_, instance)| keys.report(agent, &instance));
            forget(link, old.collect()).await?;
        }
        if long_gone(status) || self.is_due() {
            let all = read(link, keys.reports(None)).await?;
            let old = all.iter().filter(|s| long_gone(s)).map(|s| keys.report(s.agent.as_str(), &s.instance));
            forget(link, old.collect()).await?;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        let due = cleaned.is_none_or(|at| at.elapsed() >= CLEAN);
        if due {
            *cleaned = Some(Instant::now());
        }
        due
    }
}

/// All reports.
pub(crate) async fn reports(link: &Link, keys: &Keys) -> Result<Vec<Status>> {
    read(link, keys.reports(None)).await
}

async fn read(link: &Link, span: crate::keys::Span) -> Result<Vec<Status>> {
    let mut all = Vec::new();
    each(link, span, None, |kvs| {
        for kv in kvs {
            all.push(parse(&link.place, kv.key(), kv.value())?);
        }
        Ok(true)
    })
    .await?;
    Ok(all)
}

async fn forget(link: &Link, old: Vec<Vec<u8>>) -> Result<()> {
    for some in old.chunks(OPS) {
        let ops: Vec<_> = some.iter().map(|key| TxnOp::delete(key.clone(), None)).collect();
        link.again("forgetting old reports", Txn::new().and_then(ops)).await?;
    }
    Ok(())
}

fn long_gone(status: &Status) -> bool {
    let grace = SignedDuration::try_from(REPORT_GRACE).unwrap_or(SignedDuration::MAX);
    status.expires.is_some_and(|end| Timestamp::now().duration_since(end) >= grace)
}
