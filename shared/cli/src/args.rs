//! What the command line may say.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use shoal_core::{HostName, Lifecycle, Member, Namespace, TagName};
use shoal_hostdb::ServeArgs;

use crate::names::{Name, Scope, UnitName};

/// The store when none is named.
const DEFAULT_STORE: &str = "sqlite:/var/lib/shoal/shoal.db";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "shoal",
    version,
    about = "Hosts and tags in one versioned database, and the agents that follow it",
    after_help = EXAMPLES,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The database: sqlite:PATH, or memory: to try things out
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_name = "URL",
        env = "SHOAL_STORE",
        default_value = DEFAULT_STORE
    )]
    pub(crate) store: String,
    /// How to print
    #[arg(long, short = 'o', global = true, help_heading = "Everywhere", value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  shoal put web4.example.com address=192.0.2.4 -m 'a fourth web server'
  shoal tag dns/example.com +web4.example.com -web1.example.com -m 'replace web1'
  shoal wait --timeout 30s
  shoal explain web4.example.com
  shoal log dns/example.com
  shoal rollback dns/example.com --to 41 --plan

Names: a host is written web4.example.com, a tag dns/example.com, and anything else by its key (facts/vm/web4…).
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 --plan found changes, 4 a conflict or something held, 5 still waiting.";

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables and texts for people.
    Text,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Who writes, and why.
#[derive(Args, Clone, Debug)]
pub(crate) struct Sign {
    /// Why: it stands in the log (required)
    #[arg(long, short = 'm', value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) message: Option<String>,
    /// Who says so; without it $SHOAL_AUTHOR, else $USER
    #[arg(long, value_name = "NAME")]
    pub(crate) author: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show hosts, tags and anything else; without names, list all hosts
    #[command(after_help = "\
Examples:
  shoal get                          all hosts
  shoal get tags                     all tags; shoal get dns/ those of one namespace
  shoal get web1.example.com > web1.yaml
  shoal get dns/example.com --revision 41")]
    Get(Get),
    /// Make or change a host or a tag
    #[command(after_help = "\
Examples:
  shoal put web4.example.com address=192.0.2.4 cpus=4 -m 'new'
  shoal put web4.example.com --state draining -m 'to be replaced'
  shoal put web4.example.com dns.ttl=60 rack- -m 'sets one field, removes another'
  shoal put dns/example.com ttl=300 --member web4.example.com --member @internal -m 'new zone'
  shoal put -f web1.yaml -m 'edited'    (replaces; refused if somebody changed it since it was read)")]
    Put(Put),
    /// Delete hosts, tags or other rows; history stays
    Rm(Rm),
    /// Rename a host or a tag; every tag that names it follows
    Mv(Mv),
    /// Add members to a tag and take members out
    #[command(after_help = "\
Members: a host (web1.example.com), a tag of the same namespace (@internal), a tag of another one (@tags/rdu3), or a
rule ('select: site == \"rdu3\"').
Examples:
  shoal tag dns/example.com +web4.example.com -web1.example.com -m 'replace web1'
  shoal tag dns/example.com +@internal '+select: site == \"rdu3\"' -m 'the whole site'")]
    Tag(TagCommand),
    /// Make one commit of many documents
    #[command(after_help = "\
A file holds YAML documents (---), or a JSON list, each a host or a tag:
  host: web1.example.com
  document: {address: 192.0.2.1}
  ---
  tag: dns/example.com
  document: {ttl: 300}
  members: [web1.example.com]
Examples:
  shoal apply -f fleet.yaml --plan
  shoal apply -f fleet.yaml -m 'the whole fleet'
  generate | shoal apply -f - -m 'generated'")]
    Apply(Apply),
    /// Show who is in a tag, and how
    Members(Members),
    /// Show which tags a host is in, and how; or which tags nest a tag
    Parents(Parents),
    /// Show what a tag says of a member, with the origin of every value
    Effective(Effective),
    /// Show the newest commits, of everything or of some names
    Log(Log),
    /// Show one commit
    Show(Show),
    /// Show who last wrote each value of a host or tag
    Blame(Blame),
    /// Show what changed between two revisions
    #[command(after_help = "\
Examples:
  shoal diff 41 45                       everything
  shoal diff 41 45 dns/example.com       one tag with its members
  shoal diff 41                          from 41 until now")]
    Diff(Diff),
    /// Go back to an older revision, as a new commit
    #[command(after_help = "\
Examples:
  shoal rollback dns/example.com --to 41 --plan
  shoal rollback dns/example.com --to 41 -m 'the change was wrong'
  shoal rollback --all --to 41 -m 'everything as it was'")]
    Rollback(Rollback),
    /// Show the agents: what they work on, what is behind, held or not understood
    Status(Status),
    /// Wait until every running agent has done what the database says
    #[command(after_help = "\
Exit codes: 0 everything is done, 5 it is not (and what is not is named), 4 something waits for `shoal approve`.
Examples:
  shoal wait                             for the newest revision
  shoal wait --revision 41 --timeout 5m")]
    Wait(Wait),
    /// Show a host's tags, every effective value with its origin, and what each agent made of it
    Explain(Explain),
    /// Hold a host, a tag or an agent as it is
    #[command(after_help = "\
Examples:
  shoal pause web1.example.com -m 'disk is being replaced'
  shoal pause dns/example.com -m 'registrar outage'
  shoal pause agent/dns -m 'upgrade'")]
    Pause(Pause),
    /// Let go what was held with `pause`
    Resume(Pause),
    /// Agree to a batch that a guard stopped
    #[command(after_help = "\
Examples:
  shoal approve                          what is held
  shoal approve dns/example.com --plan   what it would do
  shoal approve dns/example.com -m 'the old fleet is gone'")]
    Approve(Approve),
    /// Bring in what another system knows
    Import(Import),
    /// Run the server in this process
    Serve(ServeArgs),
}

/// `get`
#[derive(Args, Debug)]
pub(crate) struct Get {
    /// `hosts`, `tags`, `NAMESPACE/`, or names of hosts, tags and other rows
    pub(crate) names: Vec<String>,
    /// As it was at this revision
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}

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
    #[arg(long, conflicts_with = "file", value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
    /// A member of a tag; all of them, if given
    #[arg(long = "member", conflicts_with = "file", value_name = "MEMBER")]
    pub(crate) members: Vec<Member>,
    /// Refuse if it exists already
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

/// `members`
#[derive(Args, Debug)]
pub(crate) struct Members {
    /// Which tag
    pub(crate) tag: TagName,
    /// Its own members as they are written, instead of the hosts they come to
    #[arg(long)]
    pub(crate) direct: bool,
    /// As it was at this revision
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}

/// `parents`
#[derive(Args, Debug)]
pub(crate) struct Parents {
    /// A host or a tag
    pub(crate) name: Name,
    /// As it was at this revision
    #[arg(long, value_name = "N")]
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
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}

/// `log`
#[derive(Args, Debug)]
pub(crate) struct Log {
    /// Hosts, tags or keys; without any, everything
    pub(crate) names: Vec<Name>,
    /// At most so many commits
    #[arg(long, short = 'n', default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
    /// Only commits before this revision
    #[arg(long, value_name = "N")]
    pub(crate) before: Option<u64>,
}

/// `show`
#[derive(Args, Debug)]
pub(crate) struct Show {
    /// Which commit
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
    pub(crate) from: u64,
    /// The newer one; without it, now
    pub(crate) to: Option<u64>,
    /// Hosts, tags or keys; without any, everything
    pub(crate) names: Vec<Name>,
}

/// `rollback`
#[derive(Args, Debug)]
pub(crate) struct Rollback {
    /// Hosts, tags or keys
    #[arg(required_unless_present = "all")]
    pub(crate) names: Vec<Name>,
    /// Everything
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    /// The revision to go back to
    #[arg(long, value_name = "N")]
    pub(crate) to: u64,
    /// Show what would change, write nothing; exits with 3 if something would
    #[arg(long)]
    pub(crate) plan: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `status`
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Only these agents
    pub(crate) agents: Vec<Namespace>,
}

/// `wait`
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Until this revision is done; without it, the newest one
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
    /// Also wait for the commits that agents make in answer
    #[arg(long)]
    pub(crate) settle: bool,
    /// Give up after this long, such as 30s, 5m, 1h
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Duration,
    /// Only these agents; each must be running
    #[arg(long = "agent", value_name = "NAME")]
    pub(crate) agents: Vec<Namespace>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("write a time such as 500ms, 30s, 5m or 1h".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a time such as 500ms, 30s, 5m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|e| e.to_string())
}

/// `explain`
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Which host
    pub(crate) host: HostName,
}

/// `pause` and `resume`
#[derive(Args, Debug)]
pub(crate) struct Pause {
    /// A host, a tag, or agent/NAME
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `approve`
#[derive(Args, Debug)]
pub(crate) struct Approve {
    /// AGENT/UNIT, as `shoal status` shows it; without it, everything that is held is listed
    pub(crate) unit: Option<UnitName>,
    /// Show what is held, approve nothing
    #[arg(long)]
    pub(crate) plan: bool,
    /// Only if this is still what is held: the digest that --plan and `shoal status -o json` show
    #[arg(long, value_name = "DIGEST", requires = "unit")]
    pub(crate) digest: Option<String>,
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

/// Rewrites `+MEMBER` and `-MEMBER` of `shoal tag` into `--add` and `--remove`, which clap can tell from options.
/// For `tag`, short options stand alone (`-m TEXT`), so that `-mail1` takes out mail1.
pub(crate) fn rewrite(args: Vec<OsString>) -> Vec<OsString> {
    let is_tag = {
        let mut rest = args.iter().skip(1).filter_map(|a| a.to_str());
        loop {
            match rest.next() {
                Some("--store" | "--output" | "-o") => {
                    rest.next();
                }
                Some(option) if option.starts_with('-') => {}
                command => break command == Some("tag"),
            }
        }
    };
    if !is_tag {
        return args;
    }
    let mut out = Vec::with_capacity(args.len());
    let mut rest = args.into_iter();
    while let Some(arg) = rest.next() {
        match arg.to_str() {
            Some("-m" | "--message" | "--author" | "--store" | "-o" | "--output") => {
                out.push(arg);
                out.extend(rest.next());
            }
            Some("-h" | "--") => out.push(arg),
            Some(text) if text.starts_with('+') => out.push(format!("--add={}", &text[1..]).into()),
            Some(text) if text.len() > 1 && text.starts_with('-') && !text.starts_with("--") => {
                out.push(format!("--remove={}", &text[1..]).into());
            }
            _ => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(rewrite(line.iter().map(OsString::from).collect()))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tag_takes_plus_and_minus() {
        let line =
            ["shoal", "-o", "json", "tag", "dns/a", "+web4", "-mail1", "-m", "-x", "+@b", "-select: a == 1"];
        let Command::Tag(tag) = parse(&line).unwrap().command else { panic!() };
        assert_eq!(tag.add, ["web4".parse().unwrap(), "@b".parse().unwrap()]);
        assert_eq!(tag.remove, ["mail1".parse().unwrap(), "select: a == 1".parse().unwrap()]);
        assert_eq!(tag.sign.message.as_deref(), Some("-x"));
        assert!(parse(&["shoal", "tag", "dns/a", "-m", "x"]).is_err());
        // Elsewhere a minus is an option.
        assert!(parse(&["shoal", "get", "-web1"]).is_err());
    }

    #[test]
    fn times_are_written_as_people_do() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7"), Ok(Duration::from_secs(7)));
        for bad in ["", "x", "5d", "-1s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
