//! What agents say of themselves: volatile, outside the history, gone when nobody repeats it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Epoch, HostName, Namespace, Revision};

/// The most entries that any list in a report has; the rest is counted.
pub const MAX_BEHIND: usize = 100;
/// How many clashes of a unit are told at once; the others follow when these are settled.
pub const MAX_CLASHES: usize = 50;

/// One instance of one agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The agent's namespace.
    pub agent: Namespace,
    /// Which process: unique among all that ever ran.
    pub instance: String,
    /// The database it follows.
    pub epoch: Epoch,
    /// Every commit up to here has been turned into work, done or listed in `units`.
    pub seen: Revision,
    /// When this was said, by the speaker's clock.
    pub at: Timestamp,
    /// When it is to be taken for dead; the same as `at`: it was stopped on purpose, or reads its configuration anew under
    /// another name; `None`: it ended on purpose (`--once`), and this is its last word.
    pub expires: Option<Timestamp>,
    /// The units it works on.
    pub units: BTreeMap<String, UnitStatus>,
    /// Tags and hosts that could not be understood, and why: oldest first, at most [`MAX_BEHIND`].
    #[serde(default)]
    pub quarantined: Vec<Quarantined>,
    /// How many could not be understood in all.
    #[serde(default)]
    pub quarantined_total: u64,
}

impl Status {
    /// Whether the instance works on the unit.
    #[must_use]
    pub fn works_on(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|unit| !unit.elsewhere)
    }

    /// Whether the instance said that it will say more, and the time for that has not run out.
    #[must_use]
    pub fn lives(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end > now)
    }
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// It said so, and will again.
    Live,
    /// It ended on purpose; this is its last word.
    Ended,
    /// It was told to stop, or to read its configuration anew: the next instance says how things stand.
    Stopped,
    /// It should have spoken again, and did not.
    Dead,
}

impl Life {
    /// As its last report says.
    #[must_use]
    pub fn of(report: &Status, now: Timestamp) -> Self {
        match report.expires {
            None => Self::Ended,
            Some(expires) if expires == report.at => Self::Stopped,
            Some(expires) if expires > now => Self::Live,
            Some(_) => Self::Dead,
        }
    }

    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ended => "ended",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
        }
    }
}

/// The longest reason of a [`Hold`] that is told whole beside others, in characters.
const BRIEF: usize = 120;

/// How one unit stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitStatus {
    /// Items that the ledger holds.
    pub items: u64,
    /// What is not yet as it should be, oldest first, at most [`MAX_BEHIND`].
    pub behind: Vec<Behind>,
    /// How many are behind in all.
    pub behind_total: u64,
    /// How many of them a person holds or has to agree to: a pause, a clash, the guard.
    #[serde(default)]
    pub held_total: u64,
    /// Sources that were left out of an item, which goes on without them: by key, at most [`MAX_BEHIND`]. They hold
    /// nothing up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How many were left out in all.
    #[serde(default)]
    pub left_out_total: u64,
    /// Another instance works on it and says how it stands; this one knows nothing of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// What is there already, where something of Shoal's should be, and Shoal did not make: by key, at most [`MAX_CLASHES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clashes: Vec<Clash>,
    /// How many of those there are in all.
    #[serde(default)]
    pub clashes_total: u64,
    /// What waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// The last failure of the whole unit, if it has not been overcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
}

impl UnitStatus {
    /// Why one of its items is behind. What is asked about them all is told of each [in brief](Hold::briefly).
    #[must_use]
    pub fn why(&self, behind: &Behind) -> String {
        match &self.held {
            Some(hold) => behind.why.replace(&hold.why, hold.briefly()),
            None => behind.why.clone(),
        }
    }
}

/// One item that is not yet as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Behind {
    /// The item's key.
    pub key: String,
    /// The revision since which it is behind.
    pub since: Revision,
    /// Why: `waiting: 3 connections`, `failed: …`, `paused: …`.
    pub why: String,
    /// The hosts it comes from, at most 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostName>,
}

/// Somebody who cannot be served: left out of an item, which goes on without them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Of which item.
    pub key: String,
    /// The sources at fault; all sides of a clash.
    pub who: Vec<String>,
    /// Why, and what to do about it.
    pub why: String,
}

/// What is there already, and is not Shoal's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Clash {
    /// The item's key.
    pub key: String,
    /// What is there.
    pub there: serde_json::Value,
    /// What should be there.
    pub wanted: serde_json::Value,
    /// Names exactly both; `shoal adopt` repeats it.
    pub digest: String,
}

/// A batch that a guard stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// Names exactly this set of changes; `shoal approve` repeats it.
    pub digest: String,
    /// Why it is held.
    pub why: String,
    /// Items it would make.
    pub create: u64,
    /// Items it would change.
    pub update: u64,
    /// Items it would remove.
    pub remove: u64,
    /// Items that the unit has.
    pub of: u64,
    /// Some of the changes, for people.
    pub sample: Vec<String>,
}

impl Hold {
    /// Why it is held, where that is one reason among others, of as many units as there may be: a long one without what to do about it.
    /// `shoal approve UNIT --plan` has it all.
    #[must_use]
    pub fn briefly(&self) -> &str {
        if self.why.chars().count() <= BRIEF {
            return &self.why;
        }
        self.why.split_once(": ").map_or(self.why.as_str(), |(what, _)| what)
    }
}

/// A host, a tag, or a tag with one member, that could not be understood; its items stay as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantined {
    /// `web1.example.com`, `dns/example.com` or `dns/example.com: web1.example.com`.
    pub what: String,
    /// Why.
    pub why: String,
    /// The revision since which.
    pub since: Revision,
}

/// The row under `pauses/<scope>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// Why, for people.
    pub why: String,
}

/// The row under `approvals/<namespace>/<unit>`, and under `approvals/<namespace>` for a new epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Of the [`Hold`] that was agreed to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// What is Shoal's from now on although it did not make it: items by key, each with the digest of the [`Clash`] that was
    /// seen. Good for what was wanted before this was written, and for nothing that is wanted later.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub adopt: std::collections::BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(why: &str) -> UnitStatus {
        let hold = Hold {
            digest: "d".to_owned(),
            why: why.to_owned(),
            create: 0,
            update: 0,
            remove: 1,
            of: 1,
            sample: Vec::new(),
        };
        UnitStatus { held: Some(hold), ..UnitStatus::default() }
    }

    #[test]
    fn a_long_reason_is_told_without_its_ways_out() {
        let short = "the database was restored: what it says may be old";
        assert_eq!(held(short).held.unwrap().briefly(), short);
        let what = "this unit was made at another location, files in /a, and this run is for files in /b";
        let whole = format!("{what}: if that is a mistake, start the agent with its configuration again");
        let unit = held(&whole);
        assert_eq!(unit.held.as_ref().unwrap().briefly(), what);
        let why = |why: &str| {
            let (key, since) = ("k".to_owned(), Revision(1));
            unit.why(&Behind { key, since, why: why.to_owned(), hosts: Vec::new() })
        };
        assert_eq!(why(&whole), what);
        assert_eq!(why(&format!("held: guard: {whole}; digest d")), format!("held: guard: {what}; digest d"));
        assert_eq!(why("waiting: 3 connections"), "waiting: 3 connections");
    }
}
