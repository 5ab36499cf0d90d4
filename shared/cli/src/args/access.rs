//! What commands about who may do what take.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use shoal_core::access::{Right, Rights};
use shoal_core::{Namespace, span};

use super::Sign;

/// `acl`
#[derive(Args, Debug)]
pub(crate) struct Acl {
    #[command(subcommand)]
    pub(crate) work: AclWork,
}

/// What to do with rules.
#[derive(Debug, Subcommand)]
pub(crate) enum AclWork {
    /// Show rules: all, of a namespace (`lb/`) with its keys, or of one key
    Show {
        /// NAMESPACE/, or NAMESPACE/KEY
        of: Option<Ruled>,
    },
    /// Change the rules of a namespace or of a key
    Set(AclSet),
    /// Remove the rules of a namespace or of a key: what is above them decides again
    Remove {
        /// NAMESPACE/, or NAMESPACE/KEY
        of: Ruled,
        #[command(flatten)]
        sign: Sign,
    },
}

/// `acl set`
#[derive(Args, Debug)]
pub(crate) struct AclSet {
    /// NAMESPACE/, or NAMESPACE/KEY
    pub(crate) of: Ruled,
    /// WHO=RIGHT, WHO=data:RIGHT,members:RIGHT, or WHO- to take the entry out
    #[arg(value_name = "ENTRY", required_unless_present_any = ["protected", "unprotected"], allow_hyphen_values = false)]
    pub(crate) entries: Vec<Entry>,
    /// A change needs a second person
    #[arg(long, conflicts_with = "unprotected")]
    pub(crate) protected: bool,
    /// A change needs nobody else, whatever the namespace has
    #[arg(long)]
    pub(crate) unprotected: bool,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// What rules are about: a namespace (`lb`, `lb/`) or a key of it (`lb/web`, `hosts/web1.example.com`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruled(pub(crate) String);

impl FromStr for Ruled {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let place = text.strip_suffix('/').unwrap_or(text);
        let key = format!("access/rules/{place}")
            .parse::<shoal_core::Key>()
            .map_err(|e| format!("write NAMESPACE/ or NAMESPACE/KEY: {e}"))?;
        Ok(Self(key.as_str().to_owned()))
    }
}

/// One entry of a rule: whose, and what; `None`: it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) String, pub(crate) Option<Rights>);

impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(who) = text.strip_suffix('-').filter(|who| !who.contains('=')) {
            return Ok(Self(who.to_owned(), None));
        }
        let form = || {
            format!(
                "{text:?} is no entry: write ann=rw, @web=data:rw,members:ro, '*=ro', or ann- to take it out"
            )
        };
        let (who, rights) = text.split_once('=').ok_or_else(form)?;
        if let Ok(right) = rights.parse::<Right>() {
            return Ok(Self(who.to_owned(), Some(Rights::both(right))));
        }
        let mut all = Rights::default();
        for part in rights.split(',') {
            match part.split_once(':') {
                Some(("data", right)) => all.data = right.parse()?,
                Some(("members", right)) => all.members = right.parse()?,
                _ => return Err(form()),
            }
        }
        Ok(Self(who.to_owned(), Some(all)))
    }
}

/// `can`
#[derive(Args, Debug)]
pub(crate) struct Can {
    /// A user, or 'agent NAMESPACE'
    pub(crate) user: String,
    /// What they would do
    #[arg(value_enum)]
    pub(crate) verb: Wanted,
    /// NAMESPACE/KEY, NAMESPACE/KEY/members, hosts/FQDN, or NAMESPACE/
    pub(crate) on: String,
}

/// What somebody would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wanted {
    /// See it.
    Read,
    /// Change it.
    Write,
}

/// `token`
#[derive(Args, Debug)]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    pub(crate) work: TokenWork,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenWork {
    /// Make a token; it is shown this once
    Create(Box<NewToken>),
    /// List tokens and sessions, without their secrets: all, and of who does not administer their own
    List,
    /// Revoke a token, one's own or as an administrator any: what it is used for ends at once
    Revoke(Revoke),
}

/// `token create`
#[derive(Args, Debug)]
pub(crate) struct NewToken {
    /// Whose it is: a user's name
    #[arg(long, required_unless_present = "agent", conflicts_with = "agent")]
    pub(crate) owner: Option<String>,
    /// It is the agent's of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) agent: Option<Namespace>,
    /// Only for this namespace (hosts, dns, facts, access, …); may be given more than once
    #[arg(long = "namespace", value_name = "NAME")]
    pub(crate) namespaces: Vec<Namespace>,
    /// Only for reading
    #[arg(long)]
    pub(crate) read_only: bool,
    /// At most this over documents
    #[arg(long, value_name = "RIGHT", conflicts_with = "read_only")]
    pub(crate) data: Option<Right>,
    /// At most this over members
    #[arg(long, value_name = "RIGHT", conflicts_with = "read_only")]
    pub(crate) members: Option<Right>,
    /// Of an agent: at most this field of hosts of what its manifest declares; may be given more than once
    #[arg(long = "host-field", value_name = "FIELD", requires = "agent")]
    pub(crate) host_fields: Vec<String>,
    /// Of an agent: at most these facts of what its manifest declares; may be given more than once
    #[arg(long = "facts", value_name = "NAMESPACE", requires = "agent")]
    pub(crate) facts: Vec<Namespace>,
    /// When it ends: after a while (12h, 90d), or at a time (2027-01-31T00:00:00Z); without it, when it is revoked
    #[arg(long, value_name = "WHEN", value_parser = when)]
    pub(crate) expires: Option<When>,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// A time, or how long from now.
#[derive(Clone, Debug)]
pub(crate) enum When {
    /// At that time.
    At(Timestamp),
    /// So long from now.
    In(Duration),
}

fn when(text: &str) -> Result<When, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    match (days, text.parse()) {
        (Some(days), _) => Ok(When::In(Duration::from_secs(u64::from(days) * 86_400))),
        (None, Ok(time)) => Ok(When::At(time)),
        (None, Err(_)) => {
            span(text).map(When::In).map_err(|e| format!("{e}; or write a time such as 2027-01-31T00:00:00Z"))
        }
    }
}

/// `token revoke`
#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// Its id, as `shoal token list` shows it; of a whole token the part after the first _
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `user`
#[derive(Args, Debug)]
pub(crate) struct UserCommand {
    #[command(subcommand)]
    pub(crate) work: UserWork,
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum UserWork {
    /// Make a user, or let one in again that was disabled
    Add {
        /// The name
        name: String,
        /// The user is the agent of this namespace
        #[arg(long, value_name = "NAMESPACE")]
        agent: Option<Namespace>,
        #[command(flatten)]
        sign: Sign,
    },
    /// Set a user's password, from a file or standard input; with --old, one's own through a server
    Password(Password),
    /// Take nothing from a user any more: no token, no password, no local user of that name
    Disable {
        /// The name
        name: String,
        /// Also where it leaves nobody who administers
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        sign: Sign,
    },
    /// Remove a user with their tokens, and out of all groups
    Remove {
        /// The name
        name: String,
        /// Also where it leaves nobody who administers
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        sign: Sign,
    },
    /// List users
    List,
}

/// `user password`
#[derive(Args, Debug)]
pub(crate) struct Password {
    /// Whose
    pub(crate) name: String,
    /// A file whose first line it is; - reads standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// A file whose first line is the password of now, for who does not administer; the same file, or - twice, has it before the new one
    #[arg(long, value_name = "FILE")]
    pub(crate) old: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sign: Sign,
}

/// `group`
#[derive(Args, Debug)]
pub(crate) struct GroupCommand {
    #[command(subcommand)]
    pub(crate) work: GroupWork,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupWork {
    /// Put users into a group
    Add {
        /// Which
        group: String,
        /// Whom
        #[arg(required = true)]
        users: Vec<String>,
        #[command(flatten)]
        sign: Sign,
    },
    /// Take users out of a group
    Remove {
        /// Which
        group: String,
        /// Whom
        #[arg(required = true)]
        users: Vec<String>,
        /// Also where it leaves nobody who administers
        #[arg(long)]
        last: bool,
        #[command(flatten)]
        sign: Sign,
    },
    /// List groups with who is in them
    List,
}

/// `review`
#[derive(Args, Debug)]
pub(crate) struct ReviewCommand {
    #[command(subcommand)]
    pub(crate) work: ReviewWork,
}

/// What to do with proposals.
#[derive(Debug, Subcommand)]
pub(crate) enum ReviewWork {
    /// Propose what a file says, as `apply` takes it
    Propose {
        /// A file of documents; - reads standard input; may be given more than once
        #[arg(long, short = 'f', value_name = "FILE", required = true)]
        file: Vec<PathBuf>,
        #[command(flatten)]
        sign: Sign,
    },
    /// List what waits; with --all, what was decided, too
    List {
        /// Also what was decided
        #[arg(long)]
        all: bool,
    },
    /// Show what would change
    Show {
        /// Its id
        id: String,
    },
    /// Do what somebody else proposed
    Approve {
        /// Its id
        id: String,
        #[command(flatten)]
        sign: Sign,
    },
    /// Put it aside
    Reject {
        /// Its id
        id: String,
        #[command(flatten)]
        sign: Sign,
    },
}
