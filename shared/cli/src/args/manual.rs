//! What commands about the command itself take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// `completions`
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// Which shell
    pub(crate) shell: Shell,
    /// Of which program
    #[arg(long = "for", value_name = "PROGRAM", value_enum, default_value_t = Program::Shoal)]
    pub(crate) program: Program,
}

/// `man`
#[derive(Args, Debug)]
pub(crate) struct Manual {
    /// The folder, which is made where it is not there
    pub(crate) dir: PathBuf,
}

/// A program whose command line is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// The command.
    Shoal,
    /// The server.
    #[value(name = "shoal-hostdb")]
    Hostdb,
}
