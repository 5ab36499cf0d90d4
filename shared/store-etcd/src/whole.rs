//! What a copy of the database is made of, beside what is read anyway: see [`Whole`].

use std::sync::Arc;

use etcd_client::KeyValue;
use shoal_core::{LogEntry, Revision, Status};
use shoal_store::parts::validate_query;
use shoal_store::{Claim, Fut, LedgerPage, MAX_PAGE, Page, Query, Result, Retry, Stand, Store, Whole};

use crate::EtcdStore;
use crate::keys::Keys;
use crate::large::settle;
use crate::link::{Link, OPS, first, get, names};
use crate::record::{Remembered, damaged, parse};
use crate::{claims, history, ledger, read};

impl Whole for EtcdStore {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        let (link, keys) = self.at();
        Box::pin(async move {
            // What was decided happens, whoever died over it.
            settle(link, keys).await?;
            let looks = vec![get(keys.head()), names(keys.all_alive(), 1), names(keys.applying(), 1)];
            let mut answer = link.read("looking how it stands", looks).await?;
            let busy = answer.one(1).is_some() || answer.one(2).is_some();
            let (identity, _) = crate::known::identity(link, keys, answer.one(0))?;
            // After the identity, which says from where numbers count.
            let fence = keys.base().saturating_add(answer.revision.unsigned_abs());
            Ok(Stand { head: identity.head(), fence, busy })
        })
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        let (link, keys) = self.at();
        Box::pin(commits(link, keys, after))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let (query, (link, keys)) = (query.clone(), self.at());
        Box::pin(rows(link, keys, &self.0.pages, query))
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        let (after, (link, keys)) = (after.map(str::to_owned), self.at());
        Box::pin(ledger_rows(link, keys, after))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        let (link, keys) = self.at();
        Box::pin(retries(link, keys, after))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        let (link, keys) = self.at();
        Box::pin(claims::list(link, keys, ""))
    }

    fn said(&self) -> Fut<'_, Result<Vec<Status>>> {
        self.reports()
    }
}

/// See [`Whole::history`].
pub(crate) async fn commits(link: &Link, keys: &Keys, after: Revision) -> Result<Vec<Arc<LogEntry>>> {
    let newest = history::head(link, keys).await?.0.revision;
    history::after(link, keys, after, newest).await
}

/// See [`Whole::rows`].
pub(crate) async fn rows(link: &Link, keys: &Keys, pages: &read::Pages, query: Query) -> Result<Page> {
    let limit = validate_query(&query)?;
    read::page(link, keys, pages, &query, limit).await
}

/// See [`Whole::ledger_rows`].
pub(crate) async fn ledger_rows(link: &Link, keys: &Keys, after: Option<String>) -> Result<LedgerPage> {
    ledger::page(link, keys, "", after.as_deref(), MAX_PAGE).await
}

/// See [`Whole::retries`].
pub(crate) async fn retries(link: &Link, keys: &Keys, mut after: u64) -> Result<Vec<(u64, Retry)>> {
    let ask = "reading idempotency keys";
    loop {
        let orders = link.read(ask, vec![first(keys.orders(after), OPS)]).await?.take(0).kvs;
        let mut names = Vec::with_capacity(orders.len());
        for kv in &orders {
            after = place(kv).ok_or_else(|| damaged(&link.place, kv.key(), &"its name has no number"))?;
            names.push((after, String::from_utf8_lossy(kv.value()).into_owned()));
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let ops = names.iter().map(|(_, key)| get(keys.done(key))).collect();
        let mut answer = link.read(ask, ops).await?;
        let mut found = Vec::with_capacity(names.len());
        for (n, (place, key)) in names.into_iter().enumerate() {
            // One that is gone was forgotten just now.
            let Some(kv) = answer.one(n) else { continue };
            let done: Remembered = parse(&link.place, kv.key(), kv.value())?;
            let digest = data_encoding::HEXLOWER.decode(done.digest.as_bytes()).ok();
            let digest = digest.and_then(|digest| <[u8; 32]>::try_from(digest).ok());
            let digest = digest.ok_or_else(|| damaged(&link.place, kv.key(), &"its digest is none"))?;
            found.push((place, Retry { key, digest, revision: done.revision, changed: done.changed }));
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
}

/// The how manieth idempotency key this is.
fn place(order: &KeyValue) -> Option<u64> {
    let hex = order.key().last_chunk::<16>()?;
    u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}
