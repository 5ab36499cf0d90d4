//! What an `lb/…` tag says, and what a host may say otherwise.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a server that leaves is given, in seconds, where nothing is said.
pub(crate) const DRAIN: u32 = 60;
/// The longest time that may be given, in seconds: a day.
const MAX_SECONDS: u32 = 86_400;

/// A pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The port of each member. A host may say another one.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// What is balanced.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who gets the next request.
    #[serde(default)]
    pub balance: Balance,
    /// Where a member is: a pattern. Its field `address`, else `address6`, where nothing is said.
    #[serde(default)]
    pub address: Option<String>,
    /// How it is seen whether a member can serve; without it every member is taken for able.
    #[serde(default)]
    pub check: Option<CheckSpec>,
    /// A member's share of the work, compared with the others'; 0: none.
    #[serde(default = "weight")]
    #[schemars(range(max = 256))]
    pub weight: u16,
    /// How long, in seconds, a member that came up is given less than its share.
    #[serde(default)]
    #[schemars(range(max = MAX_SECONDS))]
    pub slow_start: u32,
    /// How long, in seconds, the connections of a member that leaves may go on; then they are closed.
    #[serde(default = "drain")]
    #[schemars(range(max = MAX_SECONDS))]
    pub drain: u32,
    /// No member is taken out of work as long as fewer than this would be left in it.
    #[serde(default = "least")]
    pub least: u32,
    /// Addresses with ports where the load balancer takes requests for this pool. Without them its own configuration refers to the pool by name.
    #[serde(default)]
    pub frontends: Vec<SocketAddr>,
}

fn weight() -> u16 {
    100
}

fn drain() -> u32 {
    DRAIN
}

fn least() -> u32 {
    1
}

/// What a host may say otherwise.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// Its port.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Its address: a pattern.
    #[serde(default)]
    pub address: Option<String>,
    /// Its share of the work.
    #[serde(default)]
    #[schemars(range(max = 256))]
    pub weight: Option<u16>,
    /// How long, in seconds, its connections may go on when it leaves.
    #[serde(default)]
    #[schemars(range(max = MAX_SECONDS))]
    pub drain: Option<u32>,
}

/// What is balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Requests of HTTP.
    #[default]
    Http,
    /// Connections of TCP.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Who gets the next request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Who has the fewest connections.
    LeastConnections,
    /// Anyone.
    Random,
    /// The same one for the same client's address.
    Source,
    /// The same one for the same path. HTTP only.
    Uri,
}

/// How it is seen whether a member can serve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSpec {
    /// What is asked for over HTTP: an answer below 400 is good. Without it a connection is enough.
    #[serde(default)]
    pub path: Option<String>,
    /// How often, in seconds.
    #[serde(default = "interval")]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval: u32,
    /// After how many good checks a member serves again.
    #[serde(default = "rise")]
    #[schemars(range(min = 1, max = 1000))]
    pub rise: u32,
    /// After how many bad checks it no longer does.
    #[serde(default = "fall")]
    #[schemars(range(min = 1, max = 1000))]
    pub fall: u32,
}

fn interval() -> u32 {
    2
}

fn rise() -> u32 {
    2
}

fn fall() -> u32 {
    3
}
