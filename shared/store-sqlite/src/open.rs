//! Opening the file: what it must be, how it is set up, and what is said when it is something else.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};
use shoal_core::{Epoch, Revision};
use shoal_store::parts::unfinished;
use shoal_store::{Head, Result, StoreError};

use crate::fault::{Stop, damaged, fault};
use crate::{draft, files, read, schema};

/// How long another process may keep the file to itself before that is an error.
pub(crate) const BUSY: Duration = Duration::from_secs(10);
/// Files up to this size are checked whole when they are opened, or before they are written ([`Options::brief()`]): some milliseconds.
const CHECKED_WHOLE: u64 = 16 << 20;
/// Of how many changes the newest commit is counted where the file is not checked whole.
const COUNTED: i64 = 1000;
/// Octets of pages that the writing connection keeps.
const WRITER_CACHE: i64 = 32 << 20;
/// Octets of pages that each reading connection keeps. The system keeps them too; here they would count for every reader.
const READER_CACHE: i64 = 2 << 20;
/// Pages in the write-ahead log before they are copied into the file: 16 MiB.
pub(crate) const CHECKPOINT: u32 = 4096;

/// To how many octets the write-ahead log is cut back after a large commit made it grow.
const LOG_KEPT: i64 = 64 << 20;

/// How a store is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Options {
    /// The name of a registered SQLite VFS to use instead of the default one: for tests that lose power or run
    /// out of room.
    pub vfs: Option<String>,
    /// After how many pages (of 4 KiB) the write-ahead log is copied into the file; `None`: 4096. Fewer keep
    /// the log small, more make commits under load cheaper.
    pub checkpoint: Option<u32>,
    /// How many changes of a large commit are written at a time, others' commits going in between; `None`: 1000. A commit of
    /// more than so many changes is a large one.
    pub slice: Option<u32>,
    /// Whether the file must be there already. Otherwise a database is made where there is none.
    pub existing: bool,
    /// Whether who opens it asks a little and ends. Then a file that was closed in order is checked whole before the first thing that
    /// is written, and not when it is opened; one of which a log was left is checked when it is opened, as ever. What is damaged where
    /// nothing is read is not found.
    pub brief: bool,
    /// How many revisions a large commit leaves for others: for tests in which they come to the end of them.
    pub(crate) room: Option<u64>,
}

impl Options {
    /// The default, but on this VFS.
    #[must_use]
    pub fn vfs(name: impl Into<String>) -> Self {
        Self { vfs: Some(name.into()), ..Self::default() }
    }

    /// The same, but copying the log into the file after so many pages.
    #[must_use]
    pub fn checkpoint_after(self, pages: u32) -> Self {
        Self { checkpoint: Some(pages), ..self }
    }

    /// The same, but writing so many changes of a large commit at a time.
    #[must_use]
    pub fn slices_of(self, changes: u32) -> Self {
        Self { slice: Some(changes), ..self }
    }

    /// The default, but only for a file that is there: a mistyped path is told, not filled.
    #[must_use]
    pub fn existing() -> Self {
        Self { existing: true, ..Self::default() }
    }

    /// [`Options::existing()`], for who asks a little and ends.
    #[must_use]
    pub fn brief() -> Self {
        Self { brief: true, ..Self::existing() }
    }
}

/// A random epoch.
pub(crate) fn random_epoch() -> Result<Epoch> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(Epoch(u64::from_le_bytes(bytes).max(1))),
        other => Err(StoreError::Unavailable {
            place: "the system's random source".into(),
            why: format!("a new epoch was wanted, it answered {other:?}"),
        }),
    }
}

/// A database that was opened.
pub(crate) struct Opened {
    pub(crate) place: PathBuf,
    /// The connection that writes.
    pub(crate) connection: Connection,
    pub(crate) head: Head,
    /// Whether all of it was checked that is ever checked when a file is opened.
    pub(crate) checked: bool,
}

/// Opens or makes the database, and checks it.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Opened> {
    // Absolute: the working directory may change, and SQLite reads some relative names as something else.
    let place = absolute(path)?;
    look(&place)?;
    if options.existing && matches!(place.try_exists(), Ok(false)) {
        return Err(StoreError::Invalid(format!("there is no database at {}", place.display())));
    }
    if !options.existing && options.vfs.is_none() {
        make(&place);
    }
    let failed = |stop: Stop| stop.at(&place, "opening the database");
    // Before there is a connection, which begins one.
    let in_order = options.brief && options.vfs.is_none() && !left(&place);
    let mut connection = connect(&place, options, WRITER_CACHE, true).map_err(|e| failed(e.into()))?;
    let in_order = in_order && keeps_log(&connection);
    identify(&mut connection, &place).map_err(failed)?;
    // A large commit that was broken off is cleared away by who opens the file next: that is writing.
    let checked = !in_order || read::stand(&connection).map_err(|e| failed(e.into()))?.staged.is_some();
    if checked {
        check(&connection, &place).map_err(failed)?;
    } else {
        newest(&connection, COUNTED).map_err(failed)?;
    }
    let head = read::head(&connection).map_err(|e| failed(e.into()))?;
    Ok(Opened { place, connection, head, checked })
}

/// Whether the file has a log with something in it: somebody has it open, or stopped without closing it.
fn left(place: &Path) -> bool {
    match files::length(&log_of(place)) {
        Ok(octets) => octets > 0,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Whether the file is one with a log. A backup is not, nor what was made of one, until it is opened for the first time: that is writing.
fn keeps_log(connection: &Connection) -> bool {
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    mode.is_ok_and(|mode| mode.eq_ignore_ascii_case("wal"))
}

/// What nobody else is let do with a file that is made here: hashes of passwords stand in it. The log and the shared memory have the
/// rights of the file, as SQLite makes them.
pub(crate) const MODE: u32 = 0o640;

/// Makes the file where there is none, by its name alone: see [`look`]. Where that cannot be done SQLite makes it, or says why not.
pub(crate) fn make(place: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    match mknodat(CWD, place, FileType::RegularFile, Mode::from_raw_mode(MODE), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => tracing::debug!(place = %place.display(), %error, "the file is left to SQLite to make"),
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| StoreError::Unavailable {
        place: path.display().to_string(),
        why: format!("finding the file: {error}"),
    })
}

/// What can be said better before SQLite is asked. Never opens the file itself: closing it again would drop the
/// locks of this process's other connections.
pub(crate) fn look(place: &Path) -> Result<()> {
    let unavailable = |why: String| StoreError::Unavailable { place: place.display().to_string(), why };
    match fs::metadata(place) {
        Ok(found) if found.is_dir() => {
            return Err(StoreError::Invalid(format!(
                "{} is a folder: give the path of a file in it",
                place.display()
            )));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(StoreError::Invalid(format!(
                "{} cannot be reached by this user ({error}): run it as the database's user, or give this one access to \
                 each folder of the path",
                place.display()
            )));
        }
        Err(error) => return Err(unavailable(format!("looking at the file: {error}"))),
    }
    let folder = place.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        let (place, folder) = (place.display(), folder.display());
        return Err(StoreError::Invalid(format!(
            "{place} would stand in the folder {folder}, which does not exist: make that first (mkdir -p '{folder}'), \
             or mend the path"
        )));
    }
    // The log and the shared memory stand beside the file.
    if let Err(error) = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
        return Err(StoreError::ReadOnly(format!(
            "{} (its folder needs to be writable for this user; asking the system: {error}): it",
            place.display()
        )));
    }
    Ok(())
}

/// A connection that is set up, to a file that is what it should be.
pub(crate) fn connect(
    place: &Path,
    options: &Options,
    cache: i64,
    writes: bool,
) -> rusqlite::Result<Connection> {
    // No mutex: a connection is used by one thread at a time.
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if writes && !options.existing {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let mut connection = match &options.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(place, flags, vfs.as_str())?,
        None => Connection::open_with_flags(place, flags)?,
    };
    connection.set_prepared_statement_cache_capacity(64);
    // Otherwise SQLite, as built here, plans a statement anew whenever a bound of its range is another: that cost more than
    // the rest of most statements.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    wait_when_busy(&mut connection)?;
    connection.pragma_update(None, "cache_size", -(cache / 1024))?;
    // Another program's views and triggers are not run; a damaged page is an error, not a guess.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "query_only", !writes)?;
    Ok(connection)
}

/// A reading connection.
pub(crate) fn reader(place: &Path, options: &Options) -> rusqlite::Result<Connection> {
    connect(place, options, READER_CACHE, false)
}

thread_local! {
    /// Whether this thread waits for other processes.
    static WAITS: Cell<bool> = const { Cell::new(true) };
}

/// Runs `f` so that whatever another process keeps to itself is an error at once.
pub(crate) fn without_waiting<T>(f: impl FnOnce() -> T) -> T {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            WAITS.set(true);
        }
    }
    let _again = Again;
    WAITS.set(false);
    f()
}

/// Waits for another process's transaction in short steps: SQLite's own steps are longer than a commit takes.
fn wait_when_busy(connection: &mut Connection) -> rusqlite::Result<()> {
    // Steps of 0.1, 0.2, … ms up to 5 ms; so many of them make up `BUSY`.
    fn step(n: i32) -> Duration {
        Duration::from_micros(u64::from(n.clamp(0, 49).unsigned_abs() + 1) * 100)
    }
    connection.busy_handler(Some(|n: i32| {
        if !WAITS.get() {
            return false;
        }
        std::thread::sleep(step(n));
        // The sum of the first 50 steps is small beside `BUSY`.
        step(n) * n.unsigned_abs() < BUSY
    }))
}

/// Makes sure that the file is a Shoal database of a version that is known; makes one in an empty file.
fn identify(connection: &mut Connection, place: &Path) -> Result<(), Stop> {
    // One moment: another process may be making the tables between two questions.
    let moment = connection.transaction()?;
    let (application, version) = marks(&moment)?;
    let new = application == 0 && version == 0 && is_empty(&moment)?;
    moment.finish()?;
    if new {
        wal(connection)?;
        create(connection, schema::APPLICATION, random_epoch()?)?;
    } else {
        recognise(place, application, version)?;
        wal(connection)?;
    }
    let (application, version) = marks(connection)?;
    recognise(place, application, version)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT, |_| Ok(()))?;
    // The keeper copies the log.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

pub(crate) fn marks(connection: &Connection) -> rusqlite::Result<(i32, i32)> {
    let mark = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    Ok((mark("application_id")?, mark("user_version")?))
}

pub(crate) fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(|n| n == 0)
}

pub(crate) fn recognise(place: &Path, application: i32, version: i32) -> Result<(), Stop> {
    let place = place.display();
    if application == schema::DRAFT {
        return Err(unfinished(&place.to_string(), draft::REMOVE).into());
    }
    if application != schema::APPLICATION {
        return Err(StoreError::Invalid(format!(
            "{place} is a SQLite database of another program: give the path of a Shoal database, or of a file that \
             does not exist yet"
        ))
        .into());
    }
    if version != schema::VERSION {
        let known = schema::VERSION;
        let way = if version < known {
            "it is older than any that was released: with the Shoal that wrote it, `shoal export` its documents, and \
             `shoal apply` them to a new database"
        } else {
            "use the version of Shoal that wrote it, or a newer one"
        };
        return Err(StoreError::Invalid(format!(
            "{place} has tables of version {version}, this program knows version {known}: {way}"
        ))
        .into());
    }
    Ok(())
}

/// Switches to the write-ahead log. SQLite does not wait here when another process is just doing the same.
pub(crate) fn wal(connection: &Connection) -> Result<(), Stop> {
    let begun = Instant::now();
    loop {
        let mode =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                return Err(StoreError::Unavailable {
                    place: "the file system".into(),
                    why: format!(
                        "it has no shared memory for the write-ahead log (SQLite stays in mode {mode}): keep the \
                         database on a local file system"
                    ),
                }
                .into());
            }
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes the tables of a database of this epoch, and marks whose they are, unless another process has just done so.
pub(crate) fn create(connection: &mut Connection, application: i32, epoch: Epoch) -> Result<(), Stop> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_empty(&tx)? {
        tx.execute_batch(schema::CREATE)?;
        tx.execute(
            "INSERT INTO meta (id, epoch, claimed, scoped) VALUES (1, ?1, 0, 0)",
            [epoch.0.cast_signed()],
        )?;
        tx.pragma_update(None, "application_id", application)?;
        tx.pragma_update(None, "user_version", schema::VERSION)?;
    }
    tx.commit()?;
    Ok(())
}

/// Looks for damage, as far as that is cheap: a small file whole, the ends of a large one. The rest is found when
/// it is read.
pub(crate) fn check(connection: &Connection, place: &Path) -> Result<(), Stop> {
    whole(connection, place)?;
    newest(connection, i64::MAX)
}

/// Looks at every page of a small file. For a database of two megabytes it takes longer than everything else that is done to open it.
pub(crate) fn whole(connection: &Connection, place: &Path) -> Result<(), Stop> {
    // The log counts too: pages may stand only there.
    if fs::metadata(place).map_or(0, |found| found.len()) <= CHECKED_WHOLE {
        let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            let found: Vec<&str> = found.lines().filter(|line| !line.starts_with("***")).collect();
            return Err(damaged(format!("the check of the whole file found: {}", found.join("; "))));
        }
    }
    Ok(())
}

/// Makes sure that the newest commit is there, with all its changes where they are not more than `most`.
fn newest(connection: &Connection, most: i64) -> Result<(), Stop> {
    // One moment: other processes may be writing.
    let moment = connection.unchecked_transaction()?;
    let head = read::head(&moment)?;
    if head.epoch == Epoch(0) {
        return Err(damaged("it has no epoch"));
    }
    if head.revision == Revision(0) {
        return Ok(());
    }
    let revision = read::int(head.revision);
    let (first, next) = (schema::first(revision), schema::first(revision + 1));
    let count = moment
        .query_row("SELECT count FROM changes WHERE id = ?1", [first], |row| row.get::<_, Option<i64>>(0));
    let Some(count) = count.optional()?.flatten() else {
        return Err(damaged(format!("revision {} has no commit", head.revision)));
    };
    let sql = "SELECT count(*) FROM (SELECT 1 FROM changes WHERE id >= ?1 AND id < ?2 LIMIT ?3)";
    let there: i64 = moment.query_row(sql, params![first, next, most], |row| row.get(0))?;
    if there != i64::min(count, most) {
        return Err(damaged(format!(
            "revision {} should have {count} changes, {there} are there",
            head.revision
        )));
    }
    Ok(())
}

/// Where the write-ahead log of the file stands.
pub(crate) fn log_of(place: &Path) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// The connection of the keeper.
pub(crate) fn keeper(place: &Path, options: &Options) -> Result<Connection> {
    let options = Options { existing: true, ..options.clone() };
    connect(place, &options, READER_CACHE, true)
        .map_err(|error| fault(place, "opening another connection", &error))
}

/// The same as [`fault`], for what happens when a connection is opened later.
pub(crate) fn reopen(place: &Path, options: &Options) -> Result<Connection> {
    reader(place, options).map_err(|error| fault(place, "opening another connection", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_who_make_the_same_file_at_once_all_get_it() {
        for round in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("shoal.db");
            let epochs: std::collections::BTreeSet<u64> = std::thread::scope(|scope| {
                // The later ones meet the first at every point of its work.
                let one = |n: u64| {
                    std::thread::park_timeout(Duration::from_micros(n * (round * 17 % 400)));
                    open(&path, &Options::default()).unwrap().head.epoch.0
                };
                let all: Vec<_> = (0..6).map(|n| scope.spawn(move || one(n))).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(epochs.len(), 1, "one file has one epoch");
        }
    }
}
