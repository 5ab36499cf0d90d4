//! What commands about groups of machines take.

use clap::{Args, Subcommand};
use shoal_core::{BadName, TagName};
use shoal_group::MOST;

use super::Sign;

/// `scale`
#[derive(Args, Debug)]
pub(crate) struct Scale {
    /// The group: vm/NAME
    #[arg(value_parser = group)]
    pub(crate) group: TagName,
    /// How many machines it is to have
    #[arg(value_parser = count, allow_negative_numbers = true)]
    pub(crate) count: u32,
    /// Show what would follow, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

fn group(text: &str) -> Result<TagName, String> {
    match text.contains('/') {
        true => text.parse().map_err(|e: BadName| e.to_string()),
        false => Err(format!("a group is a tag; do you mean vm/{text}?")),
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("a number of machines is 0 to {MOST}"))
}

/// `range`
#[derive(Args, Debug)]
pub(crate) struct RangeCommand {
    #[command(subcommand)]
    pub(crate) work: RangeWork,
}

/// What to do with ranges.
#[derive(Debug, Subcommand)]
pub(crate) enum RangeWork {
    /// List all ranges, how much of each is held, and how much of that by nobody who can
    List,
    /// Show who holds what of a range
    Show {
        /// Its name, without ranges/
        name: String,
    },
    /// Free something that nobody can hold any more; whoever does says that its machine is gone
    Free {
        /// The range's name, without ranges/
        name: String,
        /// The number, or the address
        id: String,
        /// Show what would change, write nothing; exits with 3 if something would
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        sign: Sign,
    },
}
