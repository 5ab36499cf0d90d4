//! The items: a pool, and a server in it; what should be and what is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shoal_agent::{HostName, TagName};

use crate::spec::{Balance, Protocol};

/// Names one item: a pool, or one of its servers. The pool comes before its servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The pool's tag.
    pub pool: TagName,
    /// The server; `None`: the pool itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{} {host}", self.pool),
            None => write!(f, "{}", self.pool),
        }
    }
}

/// What one item should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A pool.
    Pool(Pool),
    /// A server.
    Server(Server),
}

/// What all servers of a pool have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// What is balanced.
    pub protocol: Protocol,
    /// Who gets the next request.
    pub balance: Balance,
    /// How servers are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Seconds.
    pub slow_start: u32,
    /// How many servers stay in work, whoever leaves.
    pub least: u32,
    /// Where requests are taken.
    pub frontends: Vec<SocketAddr>,
}

/// How servers are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// What is asked for over HTTP; `None`: a connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// Seconds.
    pub interval: u32,
    /// Good checks until it serves.
    pub rise: u32,
    /// Bad checks until it does not.
    pub fall: u32,
}

/// A server in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where it is.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share of the work.
    pub weight: u16,
    /// How long its connections may go on when it leaves, in seconds.
    pub drain: u32,
}

impl Server {
    /// Where it is, with the port.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// The path of a URL, with a query or without: printable, without blanks and without what a configuration reads as
/// something else (`"`, `'`, `\`, `#`, `$`, `;`, `{`, `}`, and `%`, which begins an expression in some).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

impl Path {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = |c: char| !c.is_ascii_graphic() || "\"'\\#$;{}%".contains(c);
        if !text.starts_with('/') || text.len() > 500 {
            return Err(format!("{text:?} is no path: it begins with / and has at most 500 characters"));
        }
        match text.chars().find(|c| bad(*c)) {
            Some(c) => Err(format!("{text:?} has {c:?}, which may mean something else to the load balancer")),
            None => Ok(Self(text)),
        }
    }
}

/// What is there of one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Have {
    /// A pool.
    Pool {
        /// As its file says; `None`: somebody edited it there, or it has none.
        pool: Option<Pool>,
        /// Whether the load balancer runs with it.
        runs: bool,
    },
    /// A server.
    Server(Standing),
}

/// How a server stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// As the pool's file says, or as it runs where that does not name it; `None`: somebody edited it there.
    pub server: Option<Server>,
    /// Whether the file has it.
    pub kept: bool,
    /// Whether the load balancer runs with it as the file says, or as `server` says where that does not.
    pub runs: bool,
    /// Whether the load balancer has it at all.
    pub known: bool,
    /// It gets no new work.
    pub draining: bool,
    /// Whether changes of it are reported as facts.
    #[serde(skip)]
    pub reports: bool,
    /// It is one of those that do the pool's work now.
    #[serde(skip)]
    pub serves: bool,
    /// Its connections, those in processes that a reload left behind included.
    #[serde(skip)]
    pub connections: u64,
    /// How many servers the pool could do without now; `None`: that does not count here.
    #[serde(skip)]
    pub spare: Option<u32>,
}

impl Standing {
    /// Whether nothing is to be done about it, if this is wanted.
    #[must_use]
    pub fn is(&self, want: &Server) -> bool {
        self.kept && self.runs && !self.draining && self.server.as_ref() == Some(want)
    }
}

/// Equal is what was made from the item, also where it is not in effect yet: that tells whose it is.
impl PartialEq<Item> for Have {
    fn eq(&self, item: &Item) -> bool {
        match (self, item) {
            (Self::Pool { pool, .. }, Item::Pool(want)) => pool.as_ref() == Some(want),
            (Self::Server(have), Item::Server(want)) => have.server.as_ref().is_some_and(|server| {
                // How long it may drain, only the file says.
                let drain = if have.kept { server.drain } else { want.drain };
                !have.draining && *want == Server { drain, ..server.clone() }
            }),
            _ => false,
        }
    }
}

/// What stands there right after the item was made.
impl From<Item> for Have {
    fn from(item: Item) -> Self {
        match item {
            Item::Pool(pool) => Self::Pool { pool: Some(pool), runs: true },
            Item::Server(server) => Self::Server(Standing {
                server: Some(server),
                kept: true,
                runs: true,
                known: true,
                draining: false,
                reports: false,
                serves: true,
                connections: 0,
                spare: None,
            }),
        }
    }
}
