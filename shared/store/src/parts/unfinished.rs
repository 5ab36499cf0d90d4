//! What is said of a copy that is not finished, and of places where none can be made: in the same words for every store.

use shoal_core::{Epoch, Revision};

use crate::StoreError;

/// Why this cannot be opened as a database. `remove` says how to be rid of it: `remove the file`.
#[must_use]
pub fn unfinished(place: &str, remove: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{place} is the unfinished copy of another database, and no database yet: run the `shoal migrate` that makes it once more, \
         which goes on where it stopped, or {remove}"
    ))
}

/// Why a copy of the database `wanted` cannot be made where an unfinished one of the database `there` stands.
#[must_use]
pub fn of_another(place: &str, there: Epoch, wanted: Epoch, remove: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{place} is the unfinished copy of another database than this one (its epoch is {:016x}, not {:016x}): name the database that \
         it is made from, or another place, or {remove}",
        there.0, wanted.0
    ))
}

/// Why no copy can be made where a database stands.
#[must_use]
pub fn occupied(place: &str, newest: Revision) -> StoreError {
    StoreError::Invalid(format!(
        "{place} holds a database already (revision {newest}), and nothing is replaced: name a place where nothing is yet, or move \
         that database away after everything that uses it was stopped"
    ))
}

/// Why a copy is not gone on with by this process.
#[must_use]
pub fn overtaken(place: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{place} was taken up by another `shoal migrate`, or finished by one: let one run at a time"
    ))
}

/// Why commits are not taken.
#[must_use]
pub fn out_of_order(place: &str, asked: Revision, newest: Revision) -> StoreError {
    StoreError::Invalid(format!(
        "{place} is at revision {newest}, and was to take revision {asked} after it: a bug of Shoal, please report it"
    ))
}
