//! Whether the files that were opened are still those of their names.
//!
//! A file that was moved, removed or replaced goes on to exist for who has it open: what is committed into it would be
//! lost without a word, and a connection that is opened later would be one to another file. So before each transaction
//! and each read two names are looked up, and once they lead elsewhere nothing is done any more.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

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
    match fs::metadata(path) {
        Ok(found) => Ok(Some((found.dev(), found.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
