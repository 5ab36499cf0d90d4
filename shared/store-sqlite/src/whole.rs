//! What a copy of the database is made of, beside what is read anyway: see [`Whole`].

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, params};
use shoal_core::{LogEntry, Revision, Status};
use shoal_store::parts::validate_query;
use shoal_store::{Claim, Fut, LedgerPage, MAX_PAGE, Page, Query, Result, Retry, Stand, Store, Whole};

use crate::SqliteStore;
use crate::fault::{Stop, damaged};
use crate::turn::{Asked, Turn};
use crate::{claims, ledger, log, read};

/// How many idempotency keys are read at once.
const RETRIES: usize = 10_000;

/// How the database with this log stands, in a transaction that has read nothing yet.
fn stand(connection: &Connection, log: &Path) -> Result<Stand, Stop> {
    // Held while it is read: so what is staged then is what a dead writer left, which never becomes a commit.
    let turn = Turn::ask(log)?;
    let claimed: i64 =
        connection.prepare_cached("SELECT claimed FROM meta")?.query_row([], |row| row.get(0))?;
    let read::Stand { head, staged, .. } = read::stand(connection)?;
    let busy = staged.is_some() && !matches!(turn, Asked::Mine(_));
    Ok(Stand { head, fence: claimed.unsigned_abs(), busy })
}

/// Idempotency keys after the place `after`, which is an id.
pub(crate) fn retries(connection: &Connection, after: u64) -> Result<Vec<(u64, Retry)>, Stop> {
    let sql = "SELECT id, key, digest, revision, changed FROM remembered WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut sql = connection.prepare_cached(sql)?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let mut rows = sql.query(params![after, RETRIES as i64])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (key, digest): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
        let digest = <[u8; 32]>::try_from(digest)
            .map_err(|_| damaged(format!("the digest of the idempotency key {key:?} is none")))?;
        let revision = Revision(row.get::<_, i64>(3)?.unsigned_abs());
        let changed = usize::try_from(row.get::<_, i64>(4)?).unwrap_or_default();
        found.push((row.get::<_, i64>(0)?.unsigned_abs(), Retry { key, digest, revision, changed }));
    }
    Ok(found)
}

impl Whole for SqliteStore {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        let log = self.0.shared.files.log.clone();
        Box::pin(self.reading(move |c| stand(c, &log)))
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        Box::pin(self.reading(move |c| log::after(c, after)))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let query = query.clone();
        Box::pin(async move {
            let limit = validate_query(&query)?;
            self.reading(move |c| read::page(c, &query, limit)).await
        })
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        let after = after.map(str::to_owned);
        Box::pin(self.reading(move |c| ledger::page(c, "", after.as_deref(), MAX_PAGE)))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        Box::pin(self.reading(move |c| retries(c, after)))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        Box::pin(self.reading(|c| claims::list(c, "")))
    }

    fn said(&self) -> Fut<'_, Result<Vec<Status>>> {
        self.reports()
    }
}
