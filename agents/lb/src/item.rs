//! The items: a pool, a server in it, and a virtual address on a machine; what should be and what is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shoal_agent::{HostName, TagName, Unit};

use crate::groups::{Asked, Endpoint, Group, Member, Registered};
use crate::spec::{Balance, Protocol};

/// Names one item: a pool, or one of its servers. The pool comes before its servers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The pool's tag.
    pub pool: TagName,
    /// The server; `None`: the pool itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The target, where the pool is a target group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Endpoint>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, &self.at) {
            (Some(host), _) => write!(f, "{} {host}", self.pool),
            (None, Some(at)) => write!(f, "{} {at}", self.pool),
            (None, None) => write!(f, "{}", self.pool),
        }
    }
}

/// The longest name of a pool, in octets: files beside its own have a few more in their names, and a file system takes 255.
const MAX_POOL: usize = 200;

/// Whether a pool may be called so: what a configuration, a file's name and a command of a load balancer take for one word.
#[must_use]
pub fn is_pool(name: &str) -> bool {
    bad_pool(name).is_none()
}

/// Why no pool may be called so, and what to do.
pub(crate) fn bad_pool(name: &str) -> Option<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let why = match name.chars().find(|c| !word(*c)) {
        Some(c) => format!("{c:?} in the name of a pool, which has letters, digits, '.', '_' and '-' alone"),
        None if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') => {
            "the name of a pool begins with a letter, a digit or '_'".to_owned()
        }
        None if name.len() > MAX_POOL => format!("the name of a pool has at most {MAX_POOL} characters"),
        None => return None,
    };
    Some(format!(
        "{why}, because most load balancers have a file and a section of that name: make a tag with another one"
    ))
}

/// What one item should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// A pool.
    Pool(Pool),
    /// A server.
    Server(Server),
    /// A virtual address, on one of the machines that may have it.
    Address(Address),
    /// A pool that is a target group.
    Group(Asked),
    /// A target of a group.
    Member(Member),
}

/// A virtual address, on one of the machines that may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The addresses, with the length of their network's prefix: all of one family.
    pub addresses: Vec<Prefix>,
    /// What tells it from others in the same network.
    pub router: u8,
    /// Who of those that can have it does: the one with the largest.
    pub priority: u8,
    /// How often its holder says that it lives, in milliseconds.
    pub advertise: u32,
    /// How the node's configuration calls the interface; `None`: the one that it takes for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Word>,
    /// How the node's configuration calls what has to be well for this machine to have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Word>,
}

/// An address with the length of its network's prefix: `192.0.2.100/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// How many bits of it name the network.
    pub bits: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parse = |(address, bits): (&str, &str)| {
            let prefix = Self { address: address.parse().ok()?, bits: bits.parse().ok()? };
            (prefix.bits <= if prefix.address.is_ipv4() { 32 } else { 128 }).then_some(prefix)
        };
        let parsed = text.split_once('/').and_then(parse);
        parsed
            .ok_or_else(|| format!("{text:?} is no address with the length of its prefix, as 192.0.2.100/24"))
    }
}

/// A name in the node's configuration: at most 40 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(String);

impl Word {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0
    }
}

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if is_pool(&text) && text.len() <= 40 {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is no name: it has letters, digits, '.', '_' and '-' alone, and at most 40"))
    }
}

/// What the name of a tag begins with whose members are the machines of a virtual address.
const ADDRESS: &str = "address:";

impl Key {
    /// What the virtual address is called, if it is one.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        address(&self.pool)
    }
}

/// What the virtual address of this tag is called, if it is one.
pub(crate) fn address(tag: &TagName) -> Option<&str> {
    tag.key().strip_prefix(ADDRESS)
}

/// What the unit of a machine's virtual addresses begins with: no pool can be called so.
const NODE: &str = "keepalived ";

/// The unit of all virtual addresses of a machine.
pub(crate) fn node_unit(node: &HostName) -> Unit {
    Unit(format!("{NODE}{node}"))
}

/// Whether the unit is that of a machine's virtual addresses.
pub(crate) fn is_node(unit: &Unit) -> bool {
    unit.0.starts_with(NODE)
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
    /// How the node's configuration calls who signs the servers' certificates; `None`: they are reached without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Word>,
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
    /// It gets work only as long as no other one can serve.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub backup: bool,
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
    /// A virtual address.
    Address {
        /// As the file says; `None`: somebody edited it there.
        address: Option<Address>,
        /// Whether keepalived runs with it.
        runs: bool,
    },
    /// A target group.
    Group(Group),
    /// A target of a group.
    Member(Registered),
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
    /// Whether the load balancer runs with it as a backup, where that takes more to change than the rest of it.
    #[serde(skip)]
    pub backup: Option<bool>,
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

    /// What the load balancer runs it as, ready to serve; `None`: it does not, or nobody knows. How long it may drain only the file says.
    #[must_use]
    pub fn running(&self) -> Option<&Server> {
        self.server.as_ref().filter(|_| self.known && self.runs && !self.draining)
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
            (Self::Address { address, .. }, Item::Address(want)) => address.as_ref() == Some(want),
            (Self::Group(have), Item::Group(want)) => have.differs(want).is_empty(),
            (Self::Member(have), Item::Member(_)) => !have.draining,
            _ => false,
        }
    }
}

/// What stands there right after the item was made.
impl From<Item> for Have {
    fn from(item: Item) -> Self {
        match item {
            Item::Pool(pool) => Self::Pool { pool: Some(pool), runs: true },
            Item::Address(address) => Self::Address { address: Some(address), runs: true },
            Item::Server(server) => Self::Server(Standing {
                server: Some(server),
                kept: true,
                runs: true,
                known: true,
                draining: false,
                backup: None,
                reports: false,
                serves: true,
                connections: 0,
                spare: None,
            }),
            Item::Group(asked) => Self::Group(Group::of(&asked)),
            Item::Member(_) => Self::Member(Registered { draining: false }),
        }
    }
}
