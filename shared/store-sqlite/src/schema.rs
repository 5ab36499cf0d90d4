//! The tables. Why they are as they are stands in `docs/decisions/0002-sqlite-store.md`.

/// Marks the file as Shoal's: `Shol` in ASCII.
pub(crate) const APPLICATION: i32 = 0x5368_6f6c;
/// Marks a file that is being made from another database, and is none yet: `Shom`; see `draft`.
pub(crate) const DRAFT: i32 = 0x5368_6f6d;
/// The version of the tables that this program reads and writes. Nothing older was ever released.
pub(crate) const VERSION: i32 = 4;

/// By how many bits the id of a change stands above its place in its commit: the rest is the commit's revision.
const PLACES: u32 = 20;
const _: () = assert!(shoal_store::MAX_CHANGES < 1 << PLACES, "a commit's changes have to fit");

/// The id of the first change of the commit `revision`, and the bound of those of the commits before it.
pub(crate) fn first(revision: i64) -> i64 {
    revision.clamp(0, i64::MAX >> PLACES) << PLACES
}

/// The revision of the change `id`.
pub(crate) fn revision_of(id: i64) -> i64 {
    id >> PLACES
}

/// The first id, and the first revision, that nobody sees: those of the large commit that is being written.
pub(crate) const UNSEEN: &str = "(SELECT ifnull(staged << 20, 9223372036854775807) FROM meta)";
pub(crate) const UNSEEN_REVISION: &str = "(SELECT ifnull(staged, 9223372036854775807) FROM meta)";

/// Makes the tables in an empty file.
pub(crate) const CREATE: &str = "
-- One row: the epoch, the last fencing number that was given out, up to which revision `scopes` is filled, and the revision of
-- the large commit that is being written, if one is: nobody sees its rows, and nobody commits beyond it.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    claimed INTEGER NOT NULL,
    scoped INTEGER NOT NULL,
    staged INTEGER
);
-- Every value that ever was, once. The id is the revision times 2^20 and the place in the commit, in key order; the first
-- change of each commit says what the commit is. Not WITHOUT ROWID: values are large.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    count INTEGER,
    time INTEGER,
    author TEXT,
    principal TEXT,
    origin TEXT,
    message TEXT,
    moved TEXT,
    value TEXT
);
-- Which changes each key had, the newest first: what stands now is the first. `live` is 0 for a tombstone.
CREATE TABLE versions (
    key TEXT NOT NULL,
    change INTEGER NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (key, change DESC)
) WITHOUT ROWID;
-- The member rows, by the member they name.
CREATE TABLE naming (
    member TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (member, key)
) WITHOUT ROWID;
-- Which revisions wrote under a prefix, or named a member: all but the newest, see `meta.scoped`.
CREATE TABLE scopes (
    scope TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (scope, revision)
) WITHOUT ROWID;
-- Idempotency keys of the newest commits; the id rises.
CREATE TABLE remembered (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    revision INTEGER NOT NULL,
    changed INTEGER NOT NULL
);
-- `ttl` and `expires` in milliseconds, the latter since the boot `boot`.
CREATE TABLE claims (
    name TEXT NOT NULL,
    slot INTEGER NOT NULL,
    holder TEXT NOT NULL,
    number INTEGER NOT NULL,
    ttl INTEGER,
    expires INTEGER,
    boot TEXT NOT NULL,
    PRIMARY KEY (name, slot)
) WITHOUT ROWID;
CREATE TABLE ledger (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
-- Times in milliseconds since 1970.
CREATE TABLE reports (
    agent TEXT NOT NULL,
    instance TEXT NOT NULL,
    at INTEGER NOT NULL,
    expires INTEGER,
    status TEXT NOT NULL,
    PRIMARY KEY (agent, instance)
);
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_begins_with_the_first_id_of_its_revision() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection.execute_batch(CREATE).unwrap();
        let ask = || -> (i64, i64) {
            let sql = format!("SELECT {UNSEEN}, {UNSEEN_REVISION}");
            connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        connection.execute("INSERT INTO meta (id, epoch, claimed, scoped) VALUES (1, 1, 0, 0)", []).unwrap();
        assert_eq!(ask(), (i64::MAX, i64::MAX));
        connection.execute("UPDATE meta SET staged = 77", []).unwrap();
        assert_eq!(ask(), (first(77), 77));
    }
}
