//! Whether the files that were opened are still those of their names.
//!
//! A file that was moved, removed or replaced goes on to exist for who has it open: what is committed into it would be
//! lost without a word, and a connection that is opened later would be one to another file. So before each transaction
//! and each read two names are looked up, and once they lead elsewhere nothing is done any more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, makedev, statx};
use shoal_store::{Result, StoreError};

use crate::open::log_of;

/// The database file and its log, as they were when they were opened.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) place: PathBuf,
    pub(crate) log: PathBuf,
    /// `None` where the system does not know the file: on a VFS that keeps its own.
    opened: [Option<(u64, u64)>; 2],
    gone: OnceLock<StoreError>,
}

impl Files {
    /// Those that a connection has just opened.
    pub(crate) fn opened(place: PathBuf) -> Self {
        let log = log_of(&place);
        let opened = [id(&place).unwrap_or_default(), id(&log).unwrap_or_default()];
        Self { place, log, opened, gone: OnceLock::new() }
    }

    /// # Errors
    /// They are gone, and stay so: also when they are put back, because others may have written meanwhile.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(gone) = self.gone.get() {
            return Err(gone.clone());
        }
        for (path, opened) in [&self.place, &self.log].into_iter().zip(self.opened) {
            if opened.is_some() && id(path).is_ok_and(|now| now != opened) {
                let error = StoreError::Unavailable {
                    place: self.place.display().to_string(),
                    why: format!(
                        "{} was moved, removed or replaced while this program had it open, so nothing is read or written \
                         any more: see that the right database is there (`shoal database restore` puts a backup in \
                         place), then start this program again",
                        path.display()
                    ),
                };
                tracing::error!(%error, "the database is gone");
                return Err(self.gone.get_or_init(|| error).clone());
            }
        }
        Ok(())
    }
}

/// Which file this name leads to, if any. An error says nothing about that.
fn id(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match ask(path, StatxFlags::INO) {
        Ok(found) => Ok(Some((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// How long the file of this name is, in octets.
pub(crate) fn length(path: &Path) -> io::Result<u64> {
    ask(path, StatxFlags::SIZE).map(|found| found.stx_size)
}

/// Asks for nothing but what is wanted. A kernel that was asked for the times of a file gives its next write times of their
/// own, which the next sync then writes down as well: asked for with each commit, that makes two writes of each sync.
fn ask(path: &Path, what: StatxFlags) -> io::Result<Statx> {
    Ok(statx(CWD, path, AtFlags::empty(), what)?)
}
