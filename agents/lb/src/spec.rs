//! What an `lb/…` tag says, and what a host may say otherwise.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a server that leaves is given, in seconds, where nothing is said.
pub(crate) const DRAIN: u32 = 60;
/// A member's share of the work, where nothing is said.
pub(crate) const WEIGHT: u16 = 100;
/// The longest time that may be given, in seconds: a day.
const MAX_SECONDS: u32 = 86_400;
/// How often a member is checked, in seconds, where nothing is said.
pub(crate) const INTERVAL: u32 = 2;
/// After how many good checks a member serves again, where nothing is said.
pub(crate) const RISE: u32 = 2;
/// After how many bad checks it no longer does, where nothing is said.
pub(crate) const FALL: u32 = 3;

/// A pool; or a virtual address, where the tag's name begins with `address:`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["port"]}, {"required": ["virtual_address"]}]))]
pub struct Spec {
    /// The port of each member. A host may say another one.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
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
    /// Whether a member gets work only as long as no other one of the pool can serve.
    #[serde(default)]
    pub backup: bool,
    /// Members are reached over TLS, for checks as well: how the nodes' configurations call who signs their certificates, which have to name
    /// the member's host.
    #[serde(default)]
    pub tls: Option<String>,
    /// How long, in seconds, a member that came up is given less than its share.
    #[serde(default)]
    #[schemars(range(max = MAX_SECONDS))]
    pub slow_start: u32,
    /// How long, in seconds, the connections of a member that leaves may go on; then they are closed. 60 where nothing is said; as long as it
    /// has it, where the pool is a target group.
    #[serde(default)]
    #[schemars(range(max = MAX_SECONDS))]
    pub drain: Option<u32>,
    /// No member is taken out of work as long as fewer than this would be left in it.
    #[serde(default = "least")]
    pub least: u32,
    /// Addresses with ports where the load balancer takes requests for this pool. Without them its own configuration refers to the pool by name.
    #[serde(default)]
    pub frontends: Vec<SocketAddr>,
    /// What the members have between them, one at a time. Then the rest says nothing but `priority`.
    #[serde(default)]
    pub virtual_address: Option<VirtualAddress>,
    /// Who of the members that can have the virtual address does: the one with the largest. Said by each host.
    #[serde(default = "priority")]
    #[schemars(range(min = 1, max = 254))]
    pub priority: u8,
}

/// A virtual address, by VRRP.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualAddress {
    /// The addresses, each with the length of its prefix: `192.0.2.100/24`. All of one family.
    #[schemars(length(min = 1, max = 8))]
    pub addresses: Vec<String>,
    /// What tells it from others in the same network: no two of a network may have one.
    #[schemars(range(min = 1))]
    pub router: u8,
    /// How often its holder says that it lives, in milliseconds; after three of them another one takes it.
    #[serde(default = "advertise")]
    #[schemars(range(min = 10, max = 40_000))]
    pub advertise: u32,
    /// How the nodes' configurations call the interface that it is on. Without it, the one that they take for all.
    #[serde(default)]
    pub network: Option<String>,
    /// How the nodes' configurations call what has to be well for a machine to have it.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub checks: Vec<String>,
}

fn priority() -> u8 {
    100
}

fn advertise() -> u32 {
    200
}

fn weight() -> u16 {
    WEIGHT
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
    /// Whether it gets work only as long as no other one can serve.
    #[serde(default)]
    pub backup: Option<bool>,
    /// How long, in seconds, its connections may go on when it leaves.
    #[serde(default)]
    #[schemars(range(max = MAX_SECONDS))]
    pub drain: Option<u32>,
    /// Its priority for virtual addresses.
    #[serde(default)]
    #[schemars(range(min = 1, max = 254))]
    pub priority: Option<u8>,
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
    /// How often, in seconds: 2 where nothing is said. (What is not said is left to the group, where the pool is a target group.)
    #[serde(default)]
    #[schemars(range(min = 1, max = MAX_SECONDS))]
    pub interval: Option<u32>,
    /// After how many good checks a member serves again: 2 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub rise: Option<u32>,
    /// After how many bad checks it no longer does: 3 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub fall: Option<u32>,
}
