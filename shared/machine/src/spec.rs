//! What a `vm/…` tag says of its members, and what a host says of itself under `vm`.
//!
//! The host's own words are merged into the tag's before anybody reads them: maps merge, lists and single values replace. How much a
//! machine needs stands beside it, in the host's field `size`, where placement reads it, too ([`place::SIZE`](crate::place::SIZE)).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reason::Wish;

/// The namespace of machines, and the field under which a host says what it is as one.
pub const NAMESPACE: &str = "vm";

/// What a machine is made of.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// What makes it, by the name that the configuration of the box has for it: `nspawn`. Where nothing is said, the box has only one.
    #[serde(default)]
    pub provider: Option<String>,
    /// What it begins as, by the name that the configuration of the box has for it: `debian-12`. Where nothing is said, the host's own
    /// field `image`.
    #[serde(default)]
    pub image: Option<String>,
    /// Its disks beside the one it begins with, by name.
    #[serde(default)]
    pub disks: BTreeMap<String, DiskSpec>,
    /// The networks that it is in, in the order of its interfaces.
    #[serde(default)]
    pub networks: Vec<NetworkSpec>,
    /// What it finds at its first start, as cloud-init reads it.
    #[serde(default)]
    pub user_data: Option<String>,
    /// It is never destroyed.
    #[serde(default)]
    pub protect: bool,
    /// How long after the reason to destroy it is known that waits, so that it can be taken back: `1h`; ten minutes where nothing is said.
    #[serde(default)]
    pub grace: Option<String>,
    /// What is done where it is not as it should be.
    #[serde(default)]
    pub drift: Drift,
    /// Why it is to be destroyed, once it drains. A host alone says so; a tag does not.
    #[serde(default)]
    pub destroy: Option<Wish>,
    /// What makes a group of the tag's members: how many they are, and how they are called. Placement reads it, and no machine changes
    /// with it.
    #[serde(default)]
    pub group: Option<serde_json::Value>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// In octets.
    pub size: u64,
    /// Where the machine finds it, as an absolute path: `/var/lib/kafka`.
    pub at: String,
    /// The slot of a group that has it, `kafka.3`: then it outlives the machine. The group says so of its members. Where nothing is said,
    /// it goes with its machine.
    #[serde(default)]
    pub volume: Option<String>,
}

/// A network that a machine is in.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Which, by the name that the configuration of the box has for it.
    pub name: String,
    /// The machine's addresses there, with their prefix lengths: `192.0.2.10/24`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// The way out, for each family at most one.
    #[serde(default)]
    pub gateways: Vec<String>,
}

/// What is done where a machine is not as it should be: somebody changed it by hand, or its host says otherwise by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// It is said, and nothing is done.
    #[default]
    Report,
    /// What can be changed of a machine that stands is: its networks and its size. It may be started anew for that.
    Correct,
    /// Its group has another take its place, within the budget, where its image, its provider, its size, its networks or its own disks are
    /// others by now. Of a tag that is no group it is as `report`.
    Replace,
}
