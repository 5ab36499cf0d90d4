//! What one item is: a host, a policy and a repository; or the upkeep of a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::{HostName, Millis, Moment};

use crate::name::{AbsPath, Label, Word};
use crate::retention::Keep;
use crate::schedule::{self, Schedule};
use crate::step;

/// Names one item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The backups of a host, by a policy, in a repository.
    Backup {
        /// Of whom.
        host: HostName,
        /// By which policy.
        policy: Label,
        /// Where to.
        repository: Label,
    },
    /// What is to be done in a repository itself: removing, freeing, checking.
    Upkeep {
        /// Which.
        repository: Label,
    },
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backup { host, policy, repository } => write!(f, "{host} {policy}@{repository}"),
            Self::Upkeep { repository } => write!(f, "repository {repository}"),
        }
    }
}

impl Key {
    /// Its place in schedules.
    #[must_use]
    pub fn seed(&self) -> u64 {
        schedule::seed(&self.to_string())
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Label {
        match self {
            Self::Backup { repository, .. } | Self::Upkeep { repository } => repository,
        }
    }
}

/// What should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Backups.
    Backup(Arc<Job>),
    /// Upkeep.
    Upkeep(Arc<Upkeep>),
}

/// What is backed up of a host, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The paths.
    pub paths: BTreeSet<AbsPath>,
    /// What is left out of them: restic's patterns.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub excludes: BTreeSet<String>,
    /// What has to be a mount point.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub mounted: BTreeSet<AbsPath>,
    /// Whether it stays in the file systems of its paths.
    #[serde(default)]
    pub one_file_system: bool,
    /// Dumps, and what each is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dumps: BTreeMap<Label, BTreeSet<Word>>,
    /// The physical machine that the host runs on, or the host itself: no more than so many run on one at once.
    pub on: String,
    /// When.
    pub schedule: Schedule,
    /// The oldest acceptable good backup, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<Millis>,
    /// By how much a path may have shrunk, in percent.
    pub shrink: u8,
    /// How restoring is tested; `None`: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// What is removed from the host once it is backed up; `None`: nothing, or it is done with another repository of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge: Option<Purge>,
}

/// What is removed from a host once it is backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purge {
    /// What was not written to for longer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Millis>,
    /// Until this share of the file system is free, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_free: Option<u8>,
    /// For how long what was removed stays in the repository, in milliseconds; `None`: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<Millis>,
    /// The policy's other repositories: they have to hold it, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub also: BTreeSet<Label>,
}

/// How restoring is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// How often, in milliseconds.
    pub every: Millis,
    /// How many files.
    pub files: u32,
}

/// What is to be done in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upkeep {
    /// For how long the snapshots of each policy are kept.
    pub keep: BTreeMap<Label, Keep>,
    /// When others are removed. As many schedules as tags say.
    pub prune: BTreeSet<Schedule>,
    /// When the structure is checked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub check: BTreeSet<Schedule>,
    /// The share of the data that a check reads, in percent.
    pub read: u8,
}

/// How one thing that is done again and again stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// When the last good run began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good: Option<Moment>,
    /// When a run began that did its work in part. It is not tried again before the next time on its schedule: what could not be
    /// read is for a person to mend, and each further run would leave one more such snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial: Option<Moment>,
    /// When the last run ended, good or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Moment>,
    /// How often it failed since the last good run.
    #[serde(default)]
    pub failures: u32,
    /// Why it last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Track {
    /// A run that began then was good.
    pub fn succeeded(&mut self, began: Moment, now: Moment) {
        *self = Self { good: Some(began), partial: None, ended: Some(now), failures: 0, why: None };
    }

    /// A run failed.
    pub fn failed(&mut self, why: String, now: Moment) {
        self.ended = Some(now);
        self.failures = self.failures.saturating_add(1);
        self.why = Some(why);
    }
}

/// What the last good backup was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The snapshot's whole id.
    pub snapshot: String,
    /// When it began.
    pub began: Moment,
    /// How long it took, in milliseconds.
    pub took: Millis,
    /// How many files it holds.
    pub files: u64,
    /// How many octets it holds.
    pub bytes: u64,
    /// How many octets it added to the repository.
    pub added: u64,
    /// How large each path was then, in octets and files: what it must not be much smaller than the next time.
    #[serde(default)]
    pub sizes: BTreeMap<AbsPath, Size>,
    /// What was purged of it from the host since: so much less the next one has, and `sizes` have already.
    #[serde(default, skip_serializing_if = "Size::is_none")]
    pub purged: Size,
}

impl Last {
    /// How much of it the host still has, as far as it was purged.
    #[must_use]
    pub fn left(&self) -> Size {
        Size {
            bytes: self.bytes.saturating_sub(self.purged.bytes),
            files: self.files.saturating_sub(self.purged.files),
        }
    }
}

/// How large a path is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Octets of all files.
    pub bytes: u64,
    /// Files of any kind but folders.
    pub files: u64,
}

impl Size {
    /// Whether it is nothing at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How many runs that are not known to be good are remembered of an item. Removing takes what they left as soon as there is a good one.
const UNSURE: usize = 1_000;

/// What the node keeps of an item. Written before a run begins, and when it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What should be, as the node was last told.
    pub item: Item,
    /// Since when it is known here.
    pub since: Moment,
    /// Backups; of a repository, removing.
    #[serde(default)]
    pub main: Track,
    /// Tests of restoring; of a repository, checks.
    #[serde(default)]
    pub proof: Track,
    /// Removing what is backed up from the host.
    #[serde(default)]
    pub purge: Track,
    /// Snapshots that have what was removed from the host, and when that was last: no rule removes them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub held: BTreeMap<String, Moment>,
    /// Runs that are not known to be good, oldest first: what they left in the repository counts for no rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<String>,
    /// The last good backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The run that was begun and has not ended, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// Whether the facts say what stands here.
    #[serde(default)]
    pub told: bool,
}

impl Record {
    /// Of an item of which nothing is known.
    #[must_use]
    pub fn new(item: Item, since: Moment) -> Self {
        let (main, proof, purge) = (Track::default(), Track::default(), Track::default());
        Self {
            item,
            since,
            main,
            proof,
            purge,
            held: BTreeMap::new(),
            unsure: Vec::new(),
            last: None,
            begun: None,
            told: true,
        }
    }

    /// A run of backing up ended, and is not known to be good.
    pub fn doubt(&mut self, run: &str) {
        if !self.unsure.iter().any(|one| one == run) {
            self.unsure.push(run.to_owned());
        }
        let many = self.unsure.len().saturating_sub(UNSURE);
        self.unsure.drain(..many);
    }

    /// How what this verb does stands.
    pub(crate) fn track(&mut self, verb: &str) -> &mut Track {
        match verb {
            step::TEST | step::CHECK => &mut self.proof,
            step::PURGE => &mut self.purge,
            _ => &mut self.main,
        }
    }
}

/// A run that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Names it: its snapshot bears this as a tag.
    pub run: String,
    /// What it does.
    pub verb: String,
    /// Since when.
    pub at: Moment,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Have {
    /// What the node keeps.
    pub record: Record,
    /// What runs now; `None` with a run begun: it was cut off.
    pub running: Option<Running>,
}

/// What runs now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// How far it is, for people.
    pub said: String,
}

impl PartialEq<Item> for Have {
    fn eq(&self, item: &Item) -> bool {
        self.record.item == *item
    }
}
