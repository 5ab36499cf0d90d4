//! Pools that are target groups of AWS: members are registered there, by what they are in AWS, an instance or an address.
//!
//! **What is an item.** A group knows of its targets what they are and nothing else: no name, no mark. So what is registered names the item
//! ([`Endpoint`]), and a look can say of each item whether it is there, whatever else is in the group. A member that gets another address
//! is another item: the new one is registered, the old one leaves as any other does. Hosts that are the same endpoint are one item.
//!
//! **The group itself** is somebody else's, who made it: it is read, compared with what the pool says, and never changed.

mod fit;
pub(crate) mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shoal_agent::{Blocked, Desired, Host, HostName, Known, Moment, Seen, Source, pattern};

use crate::agent::{MISPLACED, place, port};
use crate::item::{Have, Item, Key, Path};
use crate::spec::{Balance, Protocol, Spec};

pub use fit::{Checked, Group};

/// Which pools are target groups, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// What the group of each pool holds, by the pool's name.
    pub pools: BTreeMap<String, Kind>,
    /// Where a host says which instance it is: a pattern.
    pub instance: String,
    /// How often a target that leaves is looked at, in milliseconds.
    pub look: Moment,
}

/// What a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Instances, by their ids.
    Instance,
    /// Addresses.
    Ip,
}

/// What is registered, without its port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Id {
    /// An instance: `i-` and 8 to 17 hexadecimal digits.
    Instance(String),
    /// An address.
    Ip(IpAddr),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => f.write_str(id),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let digits = text.strip_prefix("i-").filter(|digits| (8..=17).contains(&digits.len()));
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        match digits {
            Some(digits) if digits.bytes().all(hex) => Ok(Self::Instance(text.to_owned())),
            _ => Err(format!("{text:?} is neither an instance's id (i-0123456789abcdef0) nor an IP address")),
        }
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

/// What is registered in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// The instance or the address.
    pub id: Id,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Id::Ip(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
            ref id => write!(f, "{id}:{}", self.port),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || format!("{text:?} is no instance or address with a port");
        let (id, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let bare = id.strip_prefix('[').and_then(|id| id.strip_suffix(']'));
        let id = match bare {
            Some(address) => Id::Ip(IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| bad())?)),
            None => id.parse()?,
        };
        Ok(Self { id, port: port.parse().map_err(|_| bad())? })
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

/// What a pool asks of its group, and which targets stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// What is balanced.
    pub protocol: Protocol,
    /// Who gets the next request.
    pub balance: Balance,
    /// How targets are checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Checks>,
    /// Seconds.
    pub slow_start: u32,
    /// How long connections of a target that leaves may go on, in seconds; `None`: for as long as the group has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<u32>,
    /// How many targets stay at work, whoever leaves.
    pub least: u32,
    /// Where requests should be taken: a group has no say in that.
    pub frontends: bool,
    /// Whether targets should show who they are: no group asks them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls: bool,
}

/// How targets are to be checked: what is not said is left to the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checks {
    /// What is asked for over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
    /// Good checks until it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u32>,
    /// Bad checks until it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u32>,
}

/// A target of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Whose it is.
    pub hosts: Hosts,
}

/// Hosts, each with all that it may be registered as.
pub type Hosts = BTreeMap<HostName, BTreeSet<Id>>;

/// How a target stands. What its health is belongs to nobody's decision but the group's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// It gets no new work, and is gone when the group's delay is over.
    pub draining: bool,
}

impl Groups {
    /// The items that a source feeds: the pool's, or one target.
    pub(crate) fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        let blocked = |why: String| Blocked::new(from.name(), why);
        let kind = self.pools.get(from.tag.key()).copied().ok_or_else(|| {
            let (tag, name) = (from.tag, from.tag.key());
            blocked(format!(
                "no target group is named for {tag}: write one under [agent.elbv2.groups] as {name:?}"
            ))
        })?;
        let endpoint = |host| self.endpoint(kind, from.spec, host).map_err(blocked);
        let at = from.host.map(endpoint).transpose()?;
        Ok(vec![Key { pool: from.tag.clone(), host: None, at }])
    }

    /// What one item should be.
    pub(crate) fn desired(&self, key: &Key, from: &[Source<'_, Spec>]) -> Desired<Item> {
        if key.at.is_none() {
            let tag = from.iter().find(|source| source.host.is_none());
            return match tag.map(|source| asked(source.spec)) {
                Some(Ok(asked)) => Desired::item(Item::Group(asked)),
                Some(Err(why)) => Desired::nothing(vec![Blocked::new(key.pool.to_string(), why)]),
                None => Desired::nothing(Vec::new()),
            };
        }
        let (mut hosts, mut left_out) = (Hosts::new(), Vec::new());
        for source in from {
            let Some(host) = source.host else { continue };
            match source.spec.weight {
                // No work is what a target has that is not registered.
                0 => continue,
                weight if weight != crate::spec::WEIGHT => {
                    let why =
                        format!("weight {weight} has no effect: the targets of a group have equal shares");
                    left_out.push(Blocked::new(source.name(), why));
                }
                _ => {}
            }
            if source.spec.backup {
                let why = "backup has no effect: a group gives work to each of its targets";
                left_out.push(Blocked::new(source.name(), why));
            }
            hosts.insert(host.name.clone(), self.ids(source.spec, host));
        }
        if hosts.is_empty() {
            return Desired::nothing(left_out);
        }
        Desired { item: Some(Item::Member(Member { hosts })), left_out }
    }

    fn endpoint(&self, kind: Kind, spec: &Spec, host: &Host) -> Result<Endpoint, String> {
        let id = match kind {
            Kind::Instance => self.instance(host)?,
            Kind::Ip => Id::Ip(place(spec, host)?),
        };
        if spec.tls.is_some() {
            return Err("tls: a target group checks nobody's certificate; it needs HAProxy".to_owned());
        }
        Ok(Endpoint { id, port: port(spec)? })
    }

    fn instance(&self, host: &Host) -> Result<Id, String> {
        let said = pattern::fill(&self.instance, host, |_| None, |value, text| text.push_str(value));
        let said = said.map_err(|why| format!("[agent.elbv2] instance: {why}"))?;
        let said = said.ok_or_else(|| {
            format!("it does not say which instance it is: it lacks a field that {:?} names", self.instance)
        })?;
        match said.parse()? {
            id @ Id::Instance(_) => Ok(id),
            Id::Ip(_) => Err(format!("{said:?} is an address, and its group holds instances")),
        }
    }

    /// All that a host may be registered as, in this group and in others.
    fn ids(&self, spec: &Spec, host: &Host) -> BTreeSet<Id> {
        let own = ["address", "address6"].into_iter().filter_map(|field| host.text(field)?.parse().ok());
        let said = place(spec, host).ok();
        let mut ids: BTreeSet<Id> = own.chain(said).map(Id::Ip).collect();
        ids.extend(self.instance(host).ok());
        ids
    }
}

fn asked(spec: &Spec) -> Result<Asked, String> {
    if spec.virtual_address.is_some() {
        return Err(MISPLACED.to_owned());
    }
    let path = crate::agent::check(spec)?.and_then(|check| check.path);
    let said = spec.check.as_ref();
    let check = said.map(|said| Checks { path, interval: said.interval, rise: said.rise, fall: said.fall });
    Ok(Asked {
        protocol: spec.protocol,
        balance: spec.balance,
        check,
        slow_start: spec.slow_start,
        drain: spec.drain,
        least: spec.least,
        frontends: !spec.frontends.is_empty(),
        tls: spec.tls.is_some(),
    })
}

/// The group is read by whoever may, and nothing of it is anybody's who does not ask for it; its targets are whose the ledger says.
pub(crate) fn part(have: &Have, known: &Known<'_, Item>) -> Seen<Have> {
    match have {
        Have::Group(_) if known.want.is_none() => Seen::Nothing,
        Have::Group(_) => Seen::Ours(have.clone()),
        _ => Seen::There(have.clone()),
    }
}

#[cfg(test)]
mod tests;
