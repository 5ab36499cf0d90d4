//! Claims.

use std::time::Duration;

use rusqlite::{Connection, Row as SqlRow, params};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest};

use crate::boot;
use crate::fault::Stop;
use crate::read::end_of;
use crate::transact::Tx;

/// A claim as it is kept.
struct Kept {
    claim: Claim,
    expires: Option<i64>,
    boot: String,
}

impl Kept {
    fn of(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        let claim = Claim {
            name: row.get(0)?,
            slot: row.get(1)?,
            holder: row.get(2)?,
            number: row.get::<_, i64>(3)?.unsigned_abs(),
            ttl: row.get::<_, Option<i64>>(4)?.map(|ms| Duration::from_millis(ms.unsigned_abs())),
        };
        Ok(Self { claim, expires: row.get(5)?, boot: row.get(6)? })
    }

    /// One with an end has ended when it is over, or when the machine was booted since.
    fn live(&self, now: i64) -> bool {
        self.expires.is_none_or(|at| self.boot == boot::id() && now < at)
    }
}

const COLUMNS: &str = "SELECT name, slot, holder, number, ttl, expires, boot FROM claims";

fn of_name(connection: &Connection, name: &str) -> Result<Vec<Kept>, Stop> {
    let mut sql = connection.prepare_cached(&format!("{COLUMNS} WHERE name = ?1 ORDER BY slot"))?;
    Ok(sql.query_map([name], Kept::of)?.collect::<rusqlite::Result<_>>()?)
}

/// The live claims whose name starts so, by name and slot.
pub(crate) fn list(connection: &Connection, prefix: &str) -> Result<Vec<Claim>, Stop> {
    let mut sql = connection
        .prepare_cached(&format!("{COLUMNS} WHERE name >= ?1 AND name < ?2 ORDER BY name, slot"))?;
    let now = boot::now();
    let kept = sql.query_map([prefix, &end_of(prefix)], Kept::of)?;
    let live = kept.filter(|k| k.as_ref().map_or(true, |k| k.live(now)));
    Ok(live.map(|k| k.map(|k| k.claim)).collect::<rusqlite::Result<_>>()?)
}

/// Whether this claim is held.
pub(crate) fn is_held(connection: &Connection, name: &str, number: u64) -> Result<bool, Stop> {
    let now = boot::now();
    Ok(of_name(connection, name)?.iter().any(|k| k.claim.number == number && k.live(now)))
}

/// A time as it is kept: whole milliseconds, rounded up.
fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX)
}

impl Tx<'_> {
    /// See [`Store::claim`](shoal_store::Store::claim).
    pub(crate) fn claim(&mut self, want: &ClaimRequest) -> Result<ClaimAnswer, Stop> {
        let now = boot::now();
        let (live, gone): (Vec<_>, Vec<_>) =
            of_name(self.connection, &want.name)?.into_iter().partition(|k| k.live(now));
        let expires = want.ttl.map(boot::after);
        let own = live.iter().find(|k| k.claim.holder == want.holder);
        let claim = if let Some(own) = own {
            Claim { ttl: want.ttl, ..own.claim.clone() }
        } else {
            let free = (0..want.of).find(|slot| live.iter().all(|k| k.claim.slot != *slot));
            let Some(slot) = free else {
                let left = live.iter().filter_map(|k| k.expires).min().map(|at| at.saturating_sub(now));
                let look_again = left.map(|ms| Duration::from_millis(ms.unsigned_abs()));
                return Ok(ClaimAnswer::Taken {
                    by: live.into_iter().map(|k| k.claim).collect(),
                    look_again,
                });
            };
            Claim {
                name: want.name.clone(),
                slot,
                holder: want.holder.clone(),
                number: self.next_number()?,
                ttl: want.ttl,
            }
        };
        for old in gone {
            self.release(&old.claim)?;
        }
        let mut sql = self.connection.prepare_cached(
            "INSERT OR REPLACE INTO claims (name, slot, holder, number, ttl, expires, boot)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let number = claim.number.cast_signed();
        let ttl = claim.ttl.map(millis);
        sql.execute(params![claim.name, claim.slot, claim.holder, number, ttl, expires, boot::id()])?;
        Ok(ClaimAnswer::Granted(claim))
    }

    /// One counter for all names: so it rises for each, also when nothing is kept of a name any more.
    fn next_number(&self) -> Result<u64, Stop> {
        let sql = "UPDATE meta SET claimed = claimed + 1 RETURNING claimed";
        let number: i64 = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(number.unsigned_abs())
    }

    /// See [`Store::release`](shoal_store::Store::release).
    pub(crate) fn release(&mut self, claim: &Claim) -> Result<(), Stop> {
        let sql = "DELETE FROM claims WHERE name = ?1 AND slot = ?2 AND number = ?3";
        let number = claim.number.cast_signed();
        self.connection.prepare_cached(sql)?.execute(params![claim.name, claim.slot, number])?;
        Ok(())
    }
}
