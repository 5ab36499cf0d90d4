//! What commands about the database's file take, and about a copy of it elsewhere.

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
    /// Say that the etcd which holds the database was restored from a snapshot; agents then hold what they would do until a person agrees
    ///
    /// The database gets another epoch, fencing numbers go on above all that were ever given out, and leased claims end: who held
    /// one before may write nothing under it. To be run once, after etcd was restored and before anything else uses the database.
    Renew {
        /// Do it
        #[arg(long)]
        yes: bool,
    },
}

/// `migrate`
#[derive(Args, Debug)]
pub(crate) struct Migrate {
    /// The database, which stays as it is: sqlite:PATH, or etcd://HOST,HOST/NAME where that is built in
    #[arg(long, value_name = "URL")]
    pub(crate) from: String,
    /// Where its copy is made: a file or a name in etcd where nothing is yet, or where this command stopped before
    #[arg(long, value_name = "URL")]
    pub(crate) to: String,
}
