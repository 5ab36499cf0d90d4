//! What SQLite says, as what a user can act on.

use std::path::Path;

use rusqlite::ErrorCode;
use shoal_store::StoreError;

/// Shared memory beside the file could not grow: the disk is full, too, but SQLite does not call it so.
const SHM_SIZE: i32 = rusqlite::ffi::SQLITE_IOERR_SHMSIZE;

/// Why a step ended: refused for a reason of the contract, or stopped by SQLite.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nothing of this task was written; others of the same transaction may go on.
    Refused(StoreError),
    /// The whole transaction is lost.
    Sql(rusqlite::Error),
    /// The next revision is that of a large commit, which is being written: to be tried again.
    Waits,
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl Stop {
    /// Whether another process kept the file to itself for too long.
    pub(crate) fn is_busy(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
    }

    /// The whole as a store's error; `attempted` says what was done: `reading`, `writing`.
    pub(crate) fn at(self, place: &Path, attempted: &str) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::Sql(error) => fault(place, attempted, &error),
            Self::Waits => StoreError::Unavailable {
                place: place.display().to_string(),
                why: format!(
                    "{attempted}: a large commit has the next revision, and has not been done for {} s; try again, and see \
                     whether what writes it is stuck",
                    crate::open::BUSY.as_secs()
                ),
            },
        }
    }
}

/// What stands in the file cannot stand there.
pub(crate) fn damaged(what: impl std::fmt::Display) -> Stop {
    // Filled in with the place by `at`, through the same path as what SQLite itself finds.
    Stop::Sql(rusqlite::Error::FromSqlConversionFailure(
        0,
        rusqlite::types::Type::Text,
        what.to_string().into(),
    ))
}

/// What SQLite said while `attempted` was done in the file `place`.
pub(crate) fn fault(place: &Path, attempted: &str, error: &rusqlite::Error) -> StoreError {
    let place = place.display().to_string();
    let why = match error {
        // What was found says it all; that a column was being read is ours alone.
        rusqlite::Error::FromSqlConversionFailure(_, _, found) => format!("{attempted}: {found}"),
        error => format!("{attempted}: {error}"),
    };
    let Some(said) = error.sqlite_error() else {
        return match error {
            // A value that is not what the schema says it is.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::QueryReturnedNoRows => StoreError::Corrupt { place, why },
            _ => StoreError::Unavailable { place, why },
        };
    };
    match said.code {
        ErrorCode::DiskFull => StoreError::Full { place, why },
        _ if said.extended_code == SHM_SIZE => StoreError::Full {
            why: format!(
                "{attempted}: {place}-shm, the memory that its programs share, cannot grow, and without it nothing can be \
                 read either"
            ),
            place,
        },
        ErrorCode::DatabaseCorrupt => StoreError::Corrupt { place, why },
        ErrorCode::NotADatabase => StoreError::Invalid(format!(
            "{place} is not a SQLite database ({why}): give the path of a Shoal database, or restore it from a \
             backup if it was one"
        )),
        ErrorCode::ReadOnly => StoreError::ReadOnly(format!(
            "{place} (it and its folder need to be writable for this user; {why}): it"
        )),
        ErrorCode::CannotOpen => StoreError::Unavailable {
            why: format!("{why}; see that its folder exists and that this user may write there"),
            place,
        },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Unavailable {
            why: format!("{why}; another process has been writing for {} s", crate::open::BUSY.as_secs()),
            place,
        },
        _ => StoreError::Unavailable { place, why },
    }
}
