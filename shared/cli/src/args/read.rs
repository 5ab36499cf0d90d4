//! What commands that only read take.

use std::path::PathBuf;

use clap::Args;
use shoal_core::{HostName, TagName};

use crate::names::{Name, Stretch};

/// `get`
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// `hosts`, `tags`, `NAMESPACE/`, or names of hosts, tags and other rows
    pub(crate) names: Vec<String>,
    /// As it was at this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
}

/// `export`
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Hosts, tags, keys, or areas (`hosts/`, `dns/`); without any, everything but approvals and who may do what
    pub(crate) names: Vec<String>,
    /// As it was at this revision; with --git, up to it
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
    /// The history as a bare git repository, made here or added to
    #[arg(long, value_name = "DIR", conflicts_with = "names")]
    pub(crate) git: Option<PathBuf>,
}

/// `search`
#[derive(Args, Debug)]
pub(crate) struct Search {
    /// Which hosts, such as 'site == "rdu3" && memory >= gib(24)'
    #[arg(value_name = "EXPRESSION")]
    pub(crate) expression: String,
    /// Print their names alone, one a line
    #[arg(long)]
    pub(crate) names: bool,
    /// Have a server answer at once with what it knows, also while its database does not answer it; that may be older than what was acknowledged
    #[arg(long, conflicts_with = "revision")]
    pub(crate) stale: bool,
    /// As it was at this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
}

/// `members`
#[derive(Args, Debug)]
pub(crate) struct Members {
    /// Which tag
    pub(crate) tag: TagName,
    /// Its own members as they are written, instead of the hosts they come to
    #[arg(long)]
    pub(crate) direct: bool,
    /// As it was at this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
}

/// `parents`
#[derive(Args, Debug)]
pub(crate) struct Parents {
    /// A host or a tag
    pub(crate) name: Name,
    /// As it was at this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
}

/// `effective`
#[derive(Args, Debug)]
pub(crate) struct Effective {
    /// Which tag
    pub(crate) tag: TagName,
    /// Of which member; without one, the tag's own document
    pub(crate) host: Option<HostName>,
    /// As it was at this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) revision: Option<u64>,
}

/// `log`
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// Hosts, tags, keys or namespaces (lb/); without any, everything
    pub(crate) names: Vec<Stretch>,
    /// At most so many commits
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
    /// Only commits before this revision
    #[arg(long, value_name = "N", value_parser = super::revision)]
    pub(crate) before: Option<u64>,
}

/// `show`
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Which commit
    #[arg(value_parser = super::revision)]
    pub(crate) revision: u64,
}

/// `blame`
#[derive(Args, Debug)]
pub(crate) struct Blame {
    /// A host or a tag
    pub(crate) name: Name,
}

/// `diff`
#[derive(Args, Debug)]
pub(crate) struct Diff {
    /// The older revision
    #[arg(value_parser = super::revision)]
    pub(crate) from: u64,
    /// The newer one; without it, now
    #[arg(value_parser = super::revision)]
    pub(crate) to: Option<u64>,
    /// Hosts, tags or keys; without any, everything
    pub(crate) names: Vec<Name>,
}

/// `explain`
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Which host
    #[arg(value_parser = host)]
    pub(crate) host: HostName,
}

fn host(text: &str) -> Result<HostName, String> {
    match text.parse::<TagName>() {
        Ok(tag) => Err(format!(
            "that is a tag: `shoal members {tag}` and `shoal effective {tag}` show who is in it and what it says"
        )),
        Err(_) => text.parse().map_err(|e: shoal_core::BadName| e.to_string()),
    }
}
