//! The ledger and the reports: what stands outside the history.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, params};
use shoal_core::Status;
use shoal_store::parts::too_many;
use shoal_store::{
    Claim, LedgerPage, LedgerWrite, MAX_INSTANCES, MAX_PAGE, MAX_PAGE_BYTES, MAX_REPORTS, REPORT_GRACE,
    StoreError,
};

use crate::claims;
use crate::fault::{Stop, damaged};
use crate::read::end_of;
use crate::transact::Tx;

/// See [`Store::ledger`](shoal_store::Store::ledger).
pub(crate) fn page(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<LedgerPage, Stop> {
    let from = match after {
        Some(after) if after >= prefix => format!("{after}\0"),
        _ => prefix.to_owned(),
    };
    let mut sql = connection
        .prepare_cached("SELECT key, value FROM ledger WHERE key >= ?1 AND key < ?2 ORDER BY key")?;
    let mut rows = sql.query([from, end_of(prefix)])?;
    let (mut page, mut bytes) = (LedgerPage { rows: Vec::new(), more: false }, 0);
    while let Some(row) = rows.next()? {
        let value: Vec<u8> = row.get(1)?;
        bytes += value.len();
        if page.rows.len() == limit.clamp(1, MAX_PAGE) || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
            page.more = true;
            break;
        }
        page.rows.push((row.get(0)?, value));
    }
    Ok(page)
}

/// See [`Store::reports`](shoal_store::Store::reports).
pub(crate) fn reports(connection: &Connection) -> Result<Vec<Status>, Stop> {
    let mut sql = connection.prepare_cached("SELECT status FROM reports ORDER BY agent, instance")?;
    let texts = sql.query_map([], |row| row.get::<_, String>(0))?;
    texts.map(|text| serde_json::from_str(&text?).map_err(damaged)).collect()
}

impl Tx<'_> {
    /// See [`Store::write_ledger`](shoal_store::Store::write_ledger); the rows were validated.
    pub(crate) fn write_ledger(&mut self, rows: &[LedgerWrite], held: &Claim) -> Result<(), Stop> {
        if !claims::is_held(self.connection, &held.name, held.number)? {
            return Err(StoreError::Fenced { name: held.name.clone(), number: held.number }.into());
        }
        let mut put = self.connection.prepare_cached(
            "INSERT INTO ledger (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        )?;
        let mut delete = self.connection.prepare_cached("DELETE FROM ledger WHERE key = ?1")?;
        for LedgerWrite { key, value } in rows {
            match value {
                Some(value) => put.execute(params![key, value])?,
                None => delete.execute([key])?,
            };
        }
        Ok(())
    }

    /// See [`Store::report`](shoal_store::Store::report). Costs the same whoever else reports, while an instance lives; its first word
    /// and its last look at all of its agent, and forget what is old.
    pub(crate) fn report(&mut self, status: &Status) -> Result<(), Stop> {
        let text = serde_json::to_string(status)
            .map_err(|error| StoreError::Invalid(format!("a report that is not JSON: {error}")))?;
        let agent = status.agent.as_str();
        let expires = status.expires.map(Timestamp::as_millisecond);
        let now = Timestamp::now();
        let values = params![agent, status.instance, status.at.as_millisecond(), expires, text];
        let mut sql = self.connection.prepare_cached(
            "UPDATE reports SET at = ?3, expires = ?4, status = ?5 WHERE agent = ?1 AND instance = ?2",
        )?;
        let known = sql.execute(values)? > 0;
        if known && status.lives(now) {
            return Ok(());
        }
        if !known {
            let mut sql = self
                .connection
                .prepare_cached("SELECT count(*) FROM reports WHERE agent = ?1 AND expires > ?2")?;
            let live: i64 = sql.query_row(params![agent, now.as_millisecond()], |row| row.get(0))?;
            if usize::try_from(live).is_ok_and(|live| live >= MAX_INSTANCES) {
                return Err(too_many(status).into());
            }
            let mut sql = self.connection.prepare_cached(
                "INSERT INTO reports (agent, instance, at, expires, status) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            sql.execute(values)?;
        }
        let grace = SignedDuration::try_from(REPORT_GRACE).unwrap_or(SignedDuration::MAX);
        let old = now.checked_sub(grace).unwrap_or(Timestamp::MIN);
        let mut sql = self.connection.prepare_cached("DELETE FROM reports WHERE expires <= ?1")?;
        sql.execute([old.as_millisecond()])?;
        let mut sql = self.connection.prepare_cached(
            "DELETE FROM reports WHERE agent = ?1 AND instance IN
             (SELECT instance FROM reports WHERE agent = ?1 AND (expires IS NULL OR expires <= ?3)
              ORDER BY at DESC, instance DESC LIMIT -1 OFFSET ?2)",
        )?;
        sql.execute(params![agent, i64::try_from(MAX_REPORTS).unwrap_or(i64::MAX), now.as_millisecond()])?;
        Ok(())
    }
}
