//! What commands about the database's file take.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `database`
#[derive(Args, Debug)]
pub(crate) struct Database {
    #[command(subcommand)]
    pub(crate) work: Work,
}

/// What to do with the file.
#[derive(Debug, Subcommand)]
pub(crate) enum Work {
    /// Copy the database into a new file, also while it is in use: whole, checked and synced, or not at all
    Backup {
        /// The new file
        file: PathBuf,
    },
    /// Look at everything in the database or a backup, also while it is in use: whether it is what was written
    Verify {
        /// A backup, or another database's file; without it, the database itself
        file: Option<PathBuf>,
    },
    /// Make the database from a backup; agents then hold what they would do until a person agrees
    Restore {
        /// The backup; it stays as it is
        file: PathBuf,
        /// Put it in the place of the database that is there, which is kept under another name
        #[arg(long)]
        replace: bool,
    },
}
