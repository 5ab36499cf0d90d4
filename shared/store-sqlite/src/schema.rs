//! The tables. Why they are as they are stands in `docs/decisions/0002-sqlite-store.md`.

/// Marks the file as Shoal's: `Shol` in ASCII.
pub(crate) const APPLICATION: i32 = 0x5368_6f6c;
/// The version of the tables that this program reads and writes.
pub(crate) const VERSION: i32 = 1;

/// Makes version 1 in an empty file.
pub(crate) const CREATE: &str = "
-- One row: the epoch, and the last fencing number that was given out.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    epoch INTEGER NOT NULL,
    claimed INTEGER NOT NULL
);
-- `first` and `count` say which changes are its: they stand together, in key order.
CREATE TABLE commits (
    revision INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    author TEXT NOT NULL,
    principal TEXT,
    message TEXT NOT NULL,
    time INTEGER NOT NULL
);
-- Every value that ever was, once. Not WITHOUT ROWID: values are large.
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    moved TEXT
);
CREATE UNIQUE INDEX changes_by_key ON changes (key, revision);
-- What stands at each key that was ever written; `live` is 0 for a tombstone.
CREATE TABLE rows (
    key TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    change INTEGER NOT NULL,
    live INTEGER NOT NULL
) WITHOUT ROWID;
-- The member rows, by the member they name.
CREATE TABLE naming (
    member TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (member, key)
) WITHOUT ROWID;
-- Which revisions wrote under a prefix, or named a member.
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
