//! What commands for other tools take: Puppet and Ansible.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use shoal_core::{HostName, Namespace, span};

/// `enc`
#[derive(Args, Debug)]
pub(crate) struct Enc {
    /// The node's certificate name: the host
    pub(crate) node: String,
    /// The namespace whose tags say what a node gets
    #[arg(long, value_name = "NAME", env = "SHOAL_ENC_NAMESPACE", default_value = "puppet")]
    pub(crate) namespace: Namespace,
    /// Where the last answers are kept, for when the database does not answer; without it /var/cache/shoal/enc for root, else
    /// shoal/enc in the user's cache folder
    #[arg(long, value_name = "DIR", env = "SHOAL_ENC_CACHE")]
    pub(crate) cache: Option<PathBuf>,
    /// Of what is kept, nothing older than this is used
    #[arg(long, value_name = "TIME", env = "SHOAL_ENC_MAX_AGE", default_value = "168h", value_parser = span)]
    pub(crate) max_age: Duration,
    /// How long the database may take
    #[arg(long, value_name = "TIME", env = "SHOAL_ENC_DEADLINE", default_value = "5s", value_parser = span)]
    pub(crate) deadline: Duration,
    /// Refuse a node whose tags contradict each other, with exit code 4
    #[arg(long)]
    pub(crate) strict: bool,
}

/// `facts`
#[derive(Args, Debug)]
pub(crate) struct Facts {
    #[command(subcommand)]
    pub(crate) work: FactsWork,
}

/// What to do with facts.
#[derive(Debug, Subcommand)]
pub(crate) enum FactsWork {
    /// Bring in what a machine says of itself
    #[command(after_help = "\
Reads what `facter --json`, `facter --yaml` or `puppet facts` prints. What changes all the time is left out: uptimes, loads, how much
memory, swap and disk is free or used; and `ec2_userdata`, which holds secrets. What is equal is not written again.
Examples:
  facter --json | shoal facts upload web1.example.com
  puppet facts show --render-as yaml | shoal facts upload $(hostname -f) --only os --only networking.ip")]
    Upload(Upload),
}

/// `facts upload`
#[derive(Args, Debug)]
pub(crate) struct Upload {
    /// Which host
    pub(crate) host: HostName,
    /// The facts, JSON or YAML; - reads standard input
    #[arg(long, short = 'f', value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// They stand under facts/NAME/HOST
    #[arg(long, value_name = "NAME", default_value = "puppet")]
    pub(crate) namespace: Namespace,
    /// Only this fact, such as os or networking.ip; * is any one name; may be given more than once
    #[arg(long, value_name = "FACT")]
    pub(crate) only: Vec<String>,
    /// Without this fact; may be given more than once
    #[arg(long, value_name = "FACT")]
    pub(crate) without: Vec<String>,
    /// Take also what changes all the time
    #[arg(long)]
    pub(crate) all: bool,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    /// Why: it stands in the log; without it, "facts of HOST"
    #[arg(long, short = 'm', value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// Who says so; without it $SHOAL_AUTHOR, else $USER
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
}

/// `inventory`
#[derive(Args, Debug)]
pub(crate) struct Inventory {
    /// All groups and hosts
    #[arg(long, required_unless_present = "host", conflicts_with = "host")]
    pub(crate) list: bool,
    /// The variables of one host
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<HostName>,
    /// The namespace whose tags are the groups
    #[arg(long, value_name = "NAME", env = "SHOAL_INVENTORY_NAMESPACE", default_value = shoal_hostdb::inventory::DEFAULT_NAMESPACE)]
    pub(crate) namespace: Namespace,
    /// Only hosts that this expression selects, as `shoal search` has it
    #[arg(long = "where", value_name = "EXPRESSION", env = "SHOAL_INVENTORY_WHERE")]
    pub(crate) expression: Option<String>,
}
