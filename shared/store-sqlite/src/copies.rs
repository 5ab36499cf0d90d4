//! Whole copies of a database: a backup while it is in use, and the way back.
//!
//! Both make a new file beside the one that is meant, check it, sync it, and only then give it its name: what is cut
//! short leaves nothing behind that could be taken for the whole.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};
use rustix::fs::{Access, FlockOperation, access, flock};
use shoal_core::Revision;
use shoal_store::{Head, Result, StoreError};

use crate::fault::{Stop, damaged, fault};
use crate::open::{absolute, check, look, marks, random_epoch, recognise};
use crate::stage::clear;
use crate::{read, schema};

/// How far the fencing numbers go on after what is known to have been given out: more than ever were since the backup.
const BEYOND: i64 = 1 << 32;
/// How long a short command may keep the file that is to be replaced.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a restore came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// How the restored database stands; its epoch is a new one.
    pub head: Head,
    /// Where what was replaced stands now, and its newest revision if it could be read.
    pub replaced: Option<(PathBuf, Option<Revision>)>,
}

/// Copies the database in the file `from`, which may be in use, into the new file `to`: as of one moment, checked, whole
/// or not at all. Blocks.
///
/// # Errors
/// `to` exists already, or what [`SqliteStore::open`](crate::SqliteStore::open) says of a file.
pub fn backup(from: &Path, to: &Path) -> Result<Head> {
    let (from, to) = (absolute(from)?, absolute(to)?);
    look(&to)?;
    let new = New::beside(&to)?;
    let head = copy(&from, &new.place)?;
    new.sync()?;
    new.name(&to)?;
    Ok(head)
}

/// Makes the database in the file `to` from the backup `from`, as another life of it: with a new epoch, with no claim that
/// could be held, and with fencing numbers that were never given out. The backup stays as it is. Blocks.
///
/// # Errors
/// `to` exists and is not to be replaced, or another process has it open; the backup is no sound Shoal database; or what
/// the system says. What stood there before then still does.
pub fn restore(from: &Path, to: &Path, replace: bool) -> Result<Restored> {
    let (from, to) = (absolute(from)?, absolute(to)?);
    look(&to)?;
    if let (Ok(one), Ok(other)) = (fs::canonicalize(&from), fs::canonicalize(&to))
        && one == other
    {
        return Err(StoreError::Invalid(format!(
            "{} is the database itself: name the backup that it is to be made from",
            to.display()
        )));
    }
    let old = if exists(&to)? {
        if !replace {
            return Err(StoreError::Invalid(format!(
                "{} exists: stop whatever uses it and say --replace, or restore to another path",
                to.display()
            )));
        }
        Some(Old::take(&to)?)
    } else {
        None
    };
    let new = New::beside(&to)?;
    copy(&from, &new.place)?;
    let given_out = old.as_ref().map_or(0, |old| old.claimed);
    let head = renew(&new.place, given_out)?;
    let Some(old) = old else {
        // A log that stayed behind would be taken for this file's.
        for rest in ["-wal", "-shm", "-journal"] {
            discard(&beside(&to, rest)).map_err(failed(&to, "removing what stood beside it"))?;
        }
        new.sync()?;
        new.name(&to)?;
        return Ok(Restored { head, replaced: None });
    };
    new.like(&to)?;
    new.sync()?;
    let kept = beside(&to, &format!(".before-{:016x}", head.epoch.0));
    fs::hard_link(&to, &kept).map_err(failed(&kept, "keeping what is to be replaced"))?;
    for rest in ["-wal", "-journal"] {
        // There is none, but where what is replaced could not be read.
        let rest_of = |place: &Path| beside(place, rest);
        if exists(&rest_of(&to))? {
            fs::rename(rest_of(&to), rest_of(&kept)).map_err(failed(&to, "keeping its log"))?;
        }
    }
    discard(&beside(&to, "-shm")).map_err(failed(&to, "removing its shared memory"))?;
    fs::rename(&new.place, &to).map_err(failed(&to, "giving the restored file its name"))?;
    sync_folder(&to)?;
    let before = old.head.map(|head| head.revision);
    // Until now nobody else could open it.
    drop(old);
    Ok(Restored { head, replaced: Some((kept, before)) })
}

/// Copies the file `from` into the new file `new`, and checks what came of it.
fn copy(from: &Path, new: &Path) -> Result<Head> {
    let reading = |stop: Stop| stop.at(from, "copying it");
    if !exists(from)? {
        return Err(StoreError::Invalid(format!(
            "there is no database at {}: mend the path",
            from.display()
        )));
    }
    look_at(from)?;
    let copied = || -> Result<Head, Stop> {
        let source = open(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        source.busy_timeout(crate::open::BUSY)?;
        let (application, version) = marks(&source)?;
        recognise(from, application, version)?;
        // The copy is made of the tables: an index that disagrees with them is found here alone.
        sound(&source)?;
        let name = new.to_str().ok_or_else(|| {
            StoreError::Invalid(format!("{} is not in UTF-8: name the copy otherwise", new.display()))
        })?;
        source.execute("VACUUM INTO ?1", [name]).map_err(|error| {
            match fault(from, "copying it", &error) {
                // It is the copy that has no room.
                StoreError::Full { why, .. } => Stop::from(StoreError::Full {
                    place: new.parent().unwrap_or(new).display().to_string(),
                    why,
                }),
                other => other.into(),
            }
        })?;
        drop(source);
        unstage(new)?;
        let copy = open(new, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        sound(&copy)?;
        check(&copy, new)?;
        Ok(read::head(&copy)?)
    };
    copied().map_err(reading)
}

/// Takes away what the copy has of a large commit that was being written.
fn unstage(new: &Path) -> Result<(), Stop> {
    let mut copy = open(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let Some(staged) = read::stand(&copy)?.staged else { return Ok(()) };
    let tx = copy.transaction()?;
    while clear(&tx, staged, usize::MAX)? {}
    tx.commit()?;
    // So that it is no larger than what it holds.
    copy.execute_batch("VACUUM")?;
    Ok(())
}

fn sound(connection: &Connection) -> Result<(), Stop> {
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(crate::fault::damaged(format!("its check found: {found}"))) }
}

/// Makes the copy another life of the database.
fn renew(new: &Path, given_out: i64) -> Result<Head> {
    let epoch = random_epoch()?;
    let done = || -> Result<Head, Stop> {
        let mut connection = open(new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute(
            "UPDATE meta SET epoch = ?1, claimed = max(claimed, ?2) + ?3",
            params![epoch.0.cast_signed(), given_out, BEYOND],
        )?;
        // Their holders are of the life that ended.
        tx.execute("DELETE FROM claims WHERE expires IS NOT NULL", [])?;
        let head = read::head(&tx)?;
        tx.commit()?;
        Ok(head)
    };
    done().map_err(|stop| stop.at(new, "giving the restored database a new epoch"))
}

pub(crate) fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// The file that is to be replaced. As long as this lives nobody else can open it, if it could be read at all.
struct Old {
    _locked: Option<Connection>,
    head: Option<Head>,
    claimed: i64,
}

impl Old {
    fn take(place: &Path) -> Result<Self> {
        let attempt = || -> Result<Option<(Connection, Head, i64)>, Stop> {
            let connection = open(place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.busy_timeout(PATIENCE)?;
            match Self::lock(&connection, place) {
                Ok((head, claimed)) => Ok(Some((connection, head, claimed))),
                // One that is damaged is what restores are for. Whether it is in use cannot be known then.
                Err(stop) if unreadable(&stop) => Ok(None),
                Err(stop) => Err(stop),
            }
        };
        let known = attempt().map_err(|stop| {
            if stop.is_busy() {
                let place = place.display();
                return StoreError::Invalid(format!(
                    "{place} is open in another process, which would go on with a file that is gone: stop the server, the \
                     agents and the commands that use it, then try again"
                ));
            }
            stop.at(place, "looking at what is to be replaced")
        })?;
        Ok(match known {
            Some((connection, head, claimed)) => {
                Self { _locked: Some(connection), head: Some(head), claimed }
            }
            None => Self { _locked: None, head: None, claimed: 0 },
        })
    }

    /// Takes the file for itself, with all of its log in it.
    fn lock(connection: &Connection, place: &Path) -> Result<(Head, i64), Stop> {
        let (application, _) = marks(connection)?;
        // What is left of one that was cut to nothing.
        if application == 0 && fs::metadata(place).is_ok_and(|found| found.len() == 0) {
            return Err(damaged("it is empty"));
        }
        if application != schema::APPLICATION {
            recognise(place, application, schema::VERSION)?;
        }
        // Leaving the log needs the file for oneself, so it fails while anybody has it open.
        connection.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get::<_, String>(0))?;
        connection.execute_batch("BEGIN EXCLUSIVE")?;
        let claimed = connection.query_row("SELECT claimed FROM meta", [], |row| row.get(0))?;
        Ok((read::head(connection)?, claimed))
    }
}

fn unreadable(stop: &Stop) -> bool {
    let Stop::Sql(error) = stop else { return false };
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, Unknown};
    match error.sqlite_error_code() {
        // `Unknown`: such as a table that is not there.
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase | Unknown),
        None => true,
    }
}

/// What the name of a file that is being made goes on with, before the number of its process.
const NEW: &str = ".new-";

/// A file that is being made; gone with this unless it was given another name.
struct New {
    place: PathBuf,
    /// Locked for as long as it is being made.
    _file: File,
}

impl New {
    /// An empty file beside `place`. Whatever others began there and left behind, because they were killed, is removed.
    fn beside(place: &Path) -> Result<Self> {
        sweep(place);
        let new = beside(place, &format!("{NEW}{}", std::process::id()));
        // Of one that had the same number, in another container perhaps.
        let _ = fs::remove_file(&new);
        let mut empty = File::options();
        empty.write(true).create_new(true).mode(crate::open::MODE);
        let file = empty.open(&new).map_err(failed(&new, "making it"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| failed(&new, "locking it")(error.into()))?;
        Ok(Self { place: new, _file: file })
    }

    fn sync(&self) -> Result<()> {
        File::open(&self.place).and_then(|file| file.sync_all()).map_err(failed(&self.place, "syncing it"))
    }

    /// Gives it a name that nothing has.
    fn name(&self, place: &Path) -> Result<()> {
        fs::hard_link(&self.place, place).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Invalid(format!(
                "{} exists, and nothing is replaced: name a file that does not exist yet",
                place.display()
            )),
            _ => failed(place, "giving the copy its name")(error),
        })?;
        let _ = fs::remove_file(&self.place);
        sync_folder(place)
    }

    /// Gives it the owner and the rights of what it is to replace.
    fn like(&self, place: &Path) -> Result<()> {
        let there = fs::metadata(place).map_err(failed(place, "looking at its owner"))?;
        let own = fs::metadata(&self.place).map_err(failed(&self.place, "looking at its owner"))?;
        if (there.uid(), there.gid()) != (own.uid(), own.gid()) {
            chown(&self.place, Some(there.uid()), Some(there.gid())).map_err(failed(
                place,
                "giving the restored file its owner (restore it as that user, or as root)",
            ))?;
        }
        fs::set_permissions(&self.place, there.permissions())
            .map_err(failed(&self.place, "setting its rights"))
    }
}

impl Drop for New {
    fn drop(&mut self) {
        for rest in ["", "-journal"] {
            let _ = fs::remove_file(beside(&self.place, rest));
        }
    }
}

/// Removes what was begun beside `place` by processes that are no more: nobody holds its lock.
fn sweep(place: &Path) {
    let (Some(folder), Some(name)) = (place.parent(), place.file_name().and_then(|name| name.to_str()))
    else {
        return;
    };
    let begun = format!("{name}{NEW}");
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let number =
            entry.file_name().to_str().and_then(|name| name.strip_prefix(&begun)?.parse::<u32>().ok());
        let left = entry.path();
        if number.is_none() {
            continue;
        }
        let Ok(file) = File::open(&left) else { continue };
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            for rest in ["-journal", ""] {
                let _ = fs::remove_file(beside(&left, rest));
            }
        }
    }
}

/// Refuses a folder and what this user cannot reach.
pub(crate) fn look_at(place: &Path) -> Result<()> {
    if place.is_dir() {
        return Err(StoreError::Invalid(format!("{} is a folder: name the file", place.display())));
    }
    // Not opened: closing it again would drop the locks of this process's other connections.
    let may = access(place, Access::READ_OK);
    may.map_err(|error| failed(place, "reading it")(error.into()))
}

pub(crate) fn exists(place: &Path) -> Result<bool> {
    place.try_exists().map_err(failed(place, "looking at the file"))
}

fn discard(place: &Path) -> io::Result<()> {
    fs::remove_file(place).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

fn sync_folder(place: &Path) -> Result<()> {
    let folder = place.parent().unwrap_or(Path::new("/"));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder, "syncing the folder"))
}

fn beside(place: &Path, rest: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(rest);
    name.into()
}

fn failed(place: &Path, attempted: &str) -> impl FnOnce(io::Error) -> StoreError {
    let (place, attempted) = (place.display().to_string(), attempted.to_owned());
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full { place, why: format!("{attempted}: {error}") }
        }
        _ => StoreError::Invalid(format!("{place}: {attempted} failed: {error}")),
    }
}
