//! Whose turn it is to write a large commit: one of all processes that have the file open, and nobody once it is dead.
//!
//! A lock (`flock`) on the write-ahead log, held while a large commit is written and let go by the kernel with the process that
//! held it, however that ends. So what a dead one left half written is known as such: its revision is staged (see `stage`), and
//! the lock is free. A number of a process would not say that: it may belong to another one by now.
//!
//! SQLite puts no locks on the log, and locks of this kind do not meet those that it puts on other files. The log stays the
//! same file for as long as anybody has it open, as the holder does.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use shoal_store::{Result, StoreError};

/// The turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held, never looked at")] File);

/// What became of asking for it.
#[derive(Debug)]
pub(crate) enum Asked {
    Mine(Turn),
    /// Somebody has it.
    Taken,
    /// There is no log in this place: the file is on a VFS that keeps its own.
    Nowhere,
}

impl Turn {
    /// Asks for the turn, without waiting for it.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn ask(log: &Path) -> Result<Asked> {
        let failed = |what: &str, error: &dyn std::fmt::Display| StoreError::Unavailable {
            place: log.display().to_string(),
            why: format!("{what} to take the turn for a large commit: {error}"),
        };
        // For reading: to close what was open for writing rings the bell.
        let file = match File::open(log) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Asked::Nowhere),
            Err(error) => return Err(failed("opening it", &error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Asked::Mine(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(Asked::Taken),
            Err(error) => Err(failed("locking it", &error)),
        }
    }
}
