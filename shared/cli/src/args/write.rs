//! What commands that write hosts, tags and other rows take.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use shoal_core::{Lifecycle, Member, TagName};

use super::Sign;
use crate::names::Name;

/// `put`
#[derive(Args, Debug)]
pub(crate) struct Put {
    /// A host or a tag
    #[arg(required_unless_present = "file")]
    pub(crate) name: Option<Name>,
    /// field=VALUE sets (VALUE is YAML; a.b=VALUE sets inside a map), field- removes
    #[arg(value_name = "FIELD", conflicts_with = "file")]
    pub(crate) fields: Vec<String>,
    /// Replace it by what this file says; - reads standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Where a host is in its life
    #[arg(long, conflicts_with = "file", value_parser = lifecycle)]
    pub(crate) state: Option<Lifecycle>,
    /// Who answers for it
    #[arg(long, conflicts_with = "file")]
    pub(crate) owner: Option<String>,
    /// What it belongs to
    #[arg(long, conflicts_with = "file")]
    pub(crate) environment: Option<String>,
    /// When it may go, such as 2027-01-31T00:00:00Z
    #[arg(long, conflicts_with = "file", value_name = "TIME", value_parser = super::time)]
    pub(crate) expires: Option<Timestamp>,
    /// A member of a tag; all of them, if given
    #[arg(long = "member", conflicts_with = "file", value_name = "MEMBER")]
    pub(crate) members: Vec<Member>,
    /// Make it, and refuse if it exists already; without this, a state or FIELD- wants it to be there
    #[arg(long)]
    pub(crate) new: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

fn lifecycle(text: &str) -> Result<Lifecycle, String> {
    text.parse().map_err(|e: shoal_core::BadName| e.to_string())
}

/// `edit`
#[derive(Args, Debug)]
pub(crate) struct EditKey {
    /// A host, a tag or a key
    #[arg(value_name = "KEY")]
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `rm`
#[derive(Args, Debug)]
pub(crate) struct Rm {
    /// Hosts, tags or keys
    #[arg(required = true)]
    pub(crate) names: Vec<Name>,
    /// Take a tag out of the tags that nest it, too
    #[arg(long)]
    pub(crate) follow: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `mv`
#[derive(Args, Debug)]
pub(crate) struct Mv {
    /// What it is called
    pub(crate) from: Name,
    /// What it is to be called
    pub(crate) to: Name,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `tag`
#[derive(Args, Debug)]
#[command(override_usage = "shoal tag <TAG> +MEMBER… -MEMBER… --message <TEXT>")]
pub(crate) struct TagCommand {
    /// Which tag
    pub(crate) tag: TagName,
    /// A member to add; +MEMBER is the same
    #[arg(long, value_name = "MEMBER", required_unless_present = "remove")]
    pub(crate) add: Vec<Member>,
    /// A member to take out; -MEMBER is the same
    #[arg(long, value_name = "MEMBER")]
    pub(crate) remove: Vec<Member>,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `apply`
#[derive(Args, Debug)]
pub(crate) struct Apply {
    /// A file of documents; - reads standard input; may be given more than once
    #[arg(long, short = 'f', value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `rollback`
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    /// Hosts, tags or keys; --all instead of them for everything
    #[arg(required_unless_present = "all")]
    pub(crate) names: Vec<Name>,
    /// Everything
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// The revision to go back to
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) to: u64,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `import`
#[derive(Args, Debug)]
pub(crate) struct Import {
    #[command(subcommand)]
    pub(crate) from: ImportFrom,
}

/// What to import from.
#[derive(Debug, Subcommand)]
pub(crate) enum ImportFrom {
    /// An Ansible inventory, as `ansible-inventory --list` prints it
    Ansible(ImportAnsible),
    /// The frontends and backends of an HAProxy, as JSON
    Haproxy(ImportHaproxy),
    /// A zone file, read by BIND's named-compilezone
    Zone(ImportZone),
}

/// `import haproxy`
#[derive(Args, Debug)]
pub(crate) struct ImportHaproxy {
    /// The frontends and backends; - reads standard input
    pub(crate) file: PathBuf,
    /// How servers are called here: the file's part `pools`
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: PathBuf,
    /// Remove pools that an earlier import made and the file does not list any more
    #[arg(long)]
    pub(crate) prune: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `import zone`
#[derive(Args, Debug)]
pub(crate) struct ImportZone {
    /// The zone file
    pub(crate) file: PathBuf,
    /// The zone's name; without it, the name of the file (example.com, example.com.zone, db.example.com)
    #[arg(long, value_name = "NAME")]
    pub(crate) zone: Option<String>,
    /// Replace the tags of the zone that are there already
    #[arg(long)]
    pub(crate) replace: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `import ansible`
#[derive(Args, Debug)]
pub(crate) struct ImportAnsible {
    /// The inventory; - reads standard input
    pub(crate) file: PathBuf,
    /// Which variable is what
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: PathBuf,
    /// Remove what an earlier import made and the inventory does not list any more
    #[arg(long)]
    pub(crate) prune: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}
