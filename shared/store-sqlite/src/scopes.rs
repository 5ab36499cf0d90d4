//! Which commits wrote under a prefix, or named a member: the table `scopes`, which is filled some commits late.
//!
//! Filed with each commit, a commit would write one page more for each of its scopes. So the newest commits, a few small ones,
//! are not filed yet, and who asks looks through their changes first. `meta.scoped` says up to where the table is filled; it is
//! filled in the transaction of the commit that makes them too many, so every process sees the one or the other.

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use shoal_store::parts::scopes;

use crate::fault::Stop;
use crate::read;
use crate::schema::{UNSEEN, first, revision_of};
use crate::transact::Tx;

/// So many commits are filed at once.
const COMMITS: i64 = 32;
/// A commit of more changes than this is filed with those before it: nobody has to look through it.
const CHANGES: usize = 16;

/// Called after the commit of `changes` changes was written: files what is not filed yet, if that has become much.
pub(crate) fn file(tx: &mut Tx<'_>, changes: usize) -> Result<(), Stop> {
    if changes <= CHANGES && read::int(tx.head.revision) - tx.scoped < COMMITS {
        return Ok(());
    }
    file_all(tx)
}

/// Files what is not filed yet.
pub(crate) fn file_all(tx: &mut Tx<'_>) -> Result<(), Stop> {
    let newest = read::int(tx.head.revision);
    let mut touched = BTreeSet::new();
    newer(tx.connection, tx.scoped, |revision, key| {
        touched.extend(scopes(&read::key(key)?).map(|scope| (scope, revision)));
        Ok(())
    })?;
    let mut sql = tx.connection.prepare_cached("INSERT INTO scopes (scope, revision) VALUES (?1, ?2)")?;
    for (scope, revision) in &touched {
        sql.execute(params![scope, revision])?;
    }
    tx.connection.prepare_cached("UPDATE meta SET scoped = ?1")?.execute([newest])?;
    tx.scoped = newest;
    Ok(())
}

/// The revisions below `before` that wrote under the scope, newest first, for as long as `f` answers yes.
pub(crate) fn each(
    connection: &Connection,
    scope: &str,
    before: i64,
    mut f: impl FnMut(i64) -> Result<bool, Stop>,
) -> Result<(), Stop> {
    let scoped = read::stand(connection)?.scoped;
    let mut late = BTreeSet::new();
    newer(connection, scoped, |revision, key| {
        if revision < before && scopes(&read::key(key)?).any(|one| one == scope) {
            late.insert(revision);
        }
        Ok(())
    })?;
    for revision in late.into_iter().rev() {
        if !f(revision)? {
            return Ok(());
        }
    }
    let sql = "SELECT revision FROM scopes WHERE scope = ?1 AND revision < ?2 ORDER BY revision DESC";
    let mut sql = connection.prepare_cached(sql)?;
    let mut rows = sql.query(params![scope, before])?;
    while let Some(row) = rows.next()? {
        if !f(row.get(0)?)? {
            break;
        }
    }
    Ok(())
}

/// The first revisions in `from..=upto` that wrote under the scope, in order, at most so many; `upto` is no newer than what is filed.
pub(crate) fn few(
    connection: &Connection,
    scope: &str,
    from: i64,
    upto: i64,
    most: usize,
) -> Result<Vec<i64>, Stop> {
    let sql = "SELECT revision FROM scopes WHERE scope = ?1 AND revision >= ?2 AND revision <= ?3
        ORDER BY revision LIMIT ?4";
    let mut sql = connection.prepare_cached(sql)?;
    let found = sql.query_map(params![scope, from, upto, most as i64], |row| row.get(0))?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Calls `f` with the revision and the key of every change after the revision `after`, those of a large commit that is being
/// written left out.
pub(crate) fn newer(
    connection: &Connection,
    after: i64,
    mut f: impl FnMut(i64, &str) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let sql = format!("SELECT id, key FROM changes WHERE id >= ?1 AND id < {UNSEEN} ORDER BY id");
    let mut sql = connection.prepare_cached(&sql)?;
    let mut rows = sql.query([first(after + 1)])?;
    while let Some(row) = rows.next()? {
        f(revision_of(row.get(0)?), row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?)?;
    }
    Ok(())
}
