//! What one item is: a machine, on the box that it was placed on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shoal_agent::{HostId, HostName, Revision};
use shoal_machine::{Care, Life, Machine};

/// Names one machine: by its box or zone, and by its host's id, which survives renames.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The box or zone.
    pub room: HostName,
    /// The id of its host.
    pub id: HostId,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.room, self.id)
    }
}

/// What should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its host's name.
    pub host: HostName,
    /// What it is made of.
    pub machine: Machine,
    /// How it is cared for.
    pub care: Care,
    /// Where its host is in its life, and what it says of the end.
    pub life: Life,
    /// It stands here by its host's own word, and nobody placed it: it may have been made by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stands: bool,
    /// While it is placed, or drains: when its host was last written. What was made before it was placed is no machine of this time, and an
    /// edit begins the time of grace anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Revision>,
    /// While it drains: whether every load balancer that reports of it says that it has drained; `None`: none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<bool>,
}

/// How far a machine is, as its provider sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It is made, and does not run.
    Stopped,
    /// It runs, and did not report in yet.
    Starting,
    /// It runs, and has reported in since it was started.
    Up,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Have {
    /// What its host was called when it was made.
    pub host: HostName,
    /// What it was made of.
    pub machine: Machine,
    /// How far it is.
    pub stage: Stage,
    /// What somebody changed of it by hand, as far as the provider sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strayed: Vec<String>,
    /// What the provider gave it beside what it was made of.
    #[serde(skip_serializing_if = "Given::is_nothing")]
    pub given: Given,
    /// Its provider takes it away by itself, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
}

/// What a provider chose by itself, for whoever has to find the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Given {
    /// Its addresses in its networks.
    pub addresses: Vec<IpAddr>,
    /// Its addresses where everybody reaches it.
    pub public: Vec<IpAddr>,
    /// What the provider calls it.
    pub instance: Option<String>,
}

impl Given {
    /// Whether there is nothing of the kind.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Which attempt at a creation it is. It stands in the ledger before it is made: who goes on after a kill makes the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// When its host was placed for it: each placing is another creation.
    pub placed: Option<Revision>,
    /// How many ways to make it were refused before, for want of room.
    pub way: u32,
}

/// What [`Have::strayed`] says of a machine that bears no mark.
const UNMARKED: &str = "it bears no mark of Shoal's";
/// What such a machine is said to have begun as: nobody knows.
const UNKNOWN: &str = "unknown";

impl Have {
    /// A machine that bears no mark of Shoal's, under the name of this host. What it is made of nobody knows, and it is as no document
    /// wants it.
    #[must_use]
    pub fn unmarked(host: HostName, stage: Stage) -> Option<Self> {
        let image = UNKNOWN.parse().ok()?;
        let machine = Machine {
            provider: None,
            image,
            size: BTreeMap::new(),
            disks: BTreeMap::new(),
            networks: Vec::new(),
            user_data: None,
        };
        Some(Self {
            host,
            machine,
            stage,
            strayed: vec![UNMARKED.to_owned()],
            given: Given::default(),
            leaving: None,
        })
    }

    /// Whether it bears no mark of Shoal's.
    #[must_use]
    pub fn is_unmarked(&self) -> bool {
        self.strayed.iter().any(|what| what == UNMARKED)
    }
}

/// Whether it was made as it is wanted. How far it is, and what became of it since, is another question. Nobody wants what bears no mark:
/// it may stand where an attempt to make a machine failed for that, and is not what the attempt made.
impl PartialEq<Item> for Have {
    fn eq(&self, item: &Item) -> bool {
        !self.is_unmarked() && self.machine.differences(&item.machine).is_empty()
    }
}
