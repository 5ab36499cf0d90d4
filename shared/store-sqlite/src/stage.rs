//! A large commit is written in slices, each a short transaction, and seen when the last of them is done.
//!
//! Its revision is fixed beforehand, some thousand ahead of the head, and stands in `meta.staged` for as long as it is being written. Every
//! reader stops before that, so nobody sees a row of it: not in what stands, not in the past, not in the indexes. Others commit
//! with the revisions up to there, and wait should they ever reach it. The first change, which says what the commit is, is written last, and
//! in the same transaction `meta.staged` is emptied: that makes it a commit, the newest.
//!
//! What is not to be seen after all, because a precondition broke or its writer died, is taken away again in slices, the last
//! change first, each with all that stands of it in the indexes. So at any moment what is staged is whole rows with their
//! entries in each index. Who writes and who clears has the turn (see `turn`).

use std::collections::BTreeSet;

use rusqlite::{Connection, params};
use shoal_core::{Change, Key, LogEntry, Revision};
use shoal_store::parts::scopes;

use crate::commit::Rows;
use crate::fault::Stop;
use crate::read::{int, key};
use crate::schema::first;
use crate::transact::Tx;

/// About how many octets of keys and values one slice has at most.
const OCTETS: usize = 512 << 10;

/// How many of these changes, from the first of them on, make up a slice: `most` or fewer, and at least one.
pub(crate) fn slice(changes: &[Change], most: usize) -> usize {
    let mut octets = 0;
    let fits = |change: &&Change| {
        octets += size(change);
        octets <= OCTETS
    };
    changes.iter().take(most).take_while(fits).count().max(1)
}

/// How many slices all of these make, about.
pub(crate) fn slices(changes: &[Change], most: usize) -> usize {
    1 + (changes.len() / most).max(changes.iter().map(size).sum::<usize>() / OCTETS)
}

fn size(change: &Change) -> usize {
    change.key.as_str().len() + change.value.as_ref().map_or(0, |v| v.as_str().len())
}

impl Tx<'_> {
    /// From now on the changes of this revision are written and nobody sees them.
    pub(crate) fn reserve(&mut self, revision: Revision) -> Result<(), Stop> {
        self.connection.prepare_cached("UPDATE meta SET staged = ?1")?.execute([int(revision)])?;
        self.staged = Some(int(revision));
        Ok(())
    }

    /// Writes some changes of the large commit `revision`; the first of them stands at this place in it.
    pub(crate) fn stage(&self, revision: Revision, place: usize, changes: &[Change]) -> Result<(), Stop> {
        let mut rows = Rows::new(self.connection)?;
        let id = first(int(revision)) + i64::try_from(place).unwrap_or(i64::MAX);
        for (id, change) in (id..).zip(changes) {
            rows.put(id, change, None)?;
        }
        self.file(revision, changes.iter().map(|change| &change.key))
    }

    fn file<'k>(&self, revision: Revision, keys: impl Iterator<Item = &'k Key>) -> Result<(), Stop> {
        let sql = "INSERT OR IGNORE INTO scopes (scope, revision) VALUES (?1, ?2)";
        let mut sql = self.connection.prepare_cached(sql)?;
        for scope in keys.flat_map(scopes).collect::<BTreeSet<_>>() {
            sql.execute(params![scope, int(revision)])?;
        }
        Ok(())
    }

    /// Writes the first change of the large commit, of which all others are written: now it is the newest commit.
    pub(crate) fn publish(&mut self, entry: LogEntry) -> Result<(), Stop> {
        let revision = entry.info.revision;
        // What came before it, while that can still be told from it.
        crate::scopes::file_all(self)?;
        if let Some(change) = entry.changes.first() {
            let of = Some((&entry.info, entry.changes.len()));
            Rows::new(self.connection)?.put(first(int(revision)), change, of)?;
            self.file(revision, std::iter::once(&change.key))?;
        }
        let sql = "UPDATE meta SET staged = NULL, scoped = ?1";
        self.connection.prepare_cached(sql)?.execute([int(revision)])?;
        (self.staged, self.scoped, self.head.revision) = (None, int(revision), revision);
        self.entries.push(entry.into());
        Ok(())
    }
}

/// Takes away some of what is staged under this revision, at most so many changes; the last ones with the mark that it is staged. Whether
/// there is more.
pub(crate) fn clear(connection: &Connection, staged: i64, most: usize) -> Result<bool, Stop> {
    let ids = [first(staged), first(staged.saturating_add(1))];
    let mut gone = Vec::new();
    {
        // The length alone: a value is not read to be taken away.
        let sql =
            "SELECT id, key, octet_length(value) FROM changes WHERE id >= ?1 AND id < ?2 ORDER BY id DESC";
        let mut sql = connection.prepare_cached(sql)?;
        let mut rows = sql.query(ids)?;
        let mut octets = 0;
        while let Some(row) = rows.next()? {
            gone.push((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
            octets += usize::try_from(row.get::<_, Option<i64>>(2)?.unwrap_or(0)).unwrap_or(0);
            if gone.len() >= most || octets > OCTETS {
                break;
            }
        }
    }
    let mut change = connection.prepare_cached("DELETE FROM changes WHERE id = ?1")?;
    let mut version = connection.prepare_cached("DELETE FROM versions WHERE key = ?1 AND change = ?2")?;
    // Others may have written the member row meanwhile.
    let mut naming = connection.prepare_cached(
        "DELETE FROM naming WHERE member = ?1 AND key = ?2 AND NOT EXISTS (SELECT 1 FROM versions WHERE key = ?2)",
    )?;
    let mut scope = connection.prepare_cached("DELETE FROM scopes WHERE scope = ?1 AND revision = ?2")?;
    for (id, text) in &gone {
        change.execute([id])?;
        version.execute(params![text, id])?;
        let key = key(text)?;
        if let Some((_, member)) = key.as_member() {
            naming.execute([member, text])?;
        }
        for name in scopes(&key) {
            scope.execute(params![name, staged])?;
        }
    }
    let more = connection.prepare_cached("SELECT 1 FROM changes WHERE id >= ?1 AND id < ?2")?.exists(ids)?;
    if !more {
        connection.prepare_cached("UPDATE meta SET staged = NULL")?.execute([])?;
    }
    Ok(more)
}
