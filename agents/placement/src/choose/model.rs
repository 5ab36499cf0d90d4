//! What is chosen among, and what is asked for: plain data, as it stands in the database.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::amount::{Named, Percent};

/// Somewhere machines can be: a physical box, or an availability zone, which is boxes without end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Room {
    /// Its name; the host name of a box.
    pub name: String,
    /// What it has, by resource; what is not named it has nothing of, or, being a zone, without end.
    pub capacity: Named,
    /// How far a resource is given out more than once; 100 % where nothing is said.
    pub overcommit: BTreeMap<String, Percent>,
    /// What rules may ask for, `site` and `rack` among it.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes machines.
    pub state: State,
    /// Where not empty: only machines with one of these tags.
    pub dedicated: BTreeSet<String>,
    /// An availability zone: within it each machine has a box of its own as far as rules are concerned, and it does not die as one box does.
    pub zone: bool,
    /// What one unit of a resource costs, in millionths; nothing where nothing is said.
    pub price: Named,
}

/// Whether a room takes machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    #[default]
    Open,
    /// It keeps what it has and takes nothing new.
    Closed,
    /// What it has shall leave.
    Draining,
    /// It is dead. What it had may live, and counts there for all rules, until it is [removed](super::Fleet::remove).
    Dead,
}

/// How far a rule reaches.
#[cfg_attr(feature = "agent", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One box.
    Box,
    /// One rack of a site. Boxes that name no rack are in one, as far as anybody knows.
    Rack,
    /// One site.
    Site,
}

/// All levels, by their places.
pub(crate) const LEVELS: [Level; 3] = [Level::Box, Level::Rack, Level::Site];

/// Near to, or apart from, what has a tag.
#[cfg_attr(feature = "agent", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A group, `vm/kafka`, or any other tag.
    pub tag: String,
    /// How far.
    pub level: Level,
}

/// Which rooms: by name, or by a label's value.
#[cfg_attr(feature = "agent", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The room of this name.
    Name(String),
    /// Those with this label.
    Label(String, String),
}

/// How a group lies.
#[cfg_attr(feature = "agent", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// So many of the group in each site, and in no other.
    Sites(BTreeMap<String, u32>),
    /// Where the fewest of the group are: among these, level by level. A preference; to forbid, say `apart`.
    Spread(Vec<Level>),
}

/// One machine that needs room.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// Its name. One machine of a name is placed at a time.
    pub name: String,
    /// What it needs, by resource.
    pub needs: Named,
    /// The group whose layout it keeps; its members spread over boxes and racks by preference.
    pub group: Option<String>,
    /// Its other tags.
    pub tags: BTreeSet<String>,
    /// What it must be near. A tag that nobody has yet, or it alone, hinders nothing.
    pub near: BTreeSet<Rule>,
    /// What it must be apart from, its own group too. It holds both ways: who asks is not joined, either.
    pub apart: BTreeSet<Rule>,
    /// Where not empty: one of these.
    pub only: BTreeSet<Pick>,
    /// None of these.
    pub except: BTreeSet<Pick>,
    /// How its group lies.
    pub layout: Option<Layout>,
}

/// How to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Few full boxes, or many with room.
    pub fit: Fit,
    /// How much of each resource had better stay free, in percent.
    pub headroom: Percent,
    /// Any one box may die and its machines still have room: each gets a place to fall back to, and none is chosen without.
    pub survive: bool,
    /// Breaks ties.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { fit: Fit::Pack, headroom: Percent(0), survive: false, seed: 0 }
    }
}

/// Few full boxes, or many with room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Few full ones.
    Pack,
    /// Many with room.
    Spread,
}
