//! What a `backup/…` tag says, and what a host may say otherwise.
//!
//! A host's override is merged into the tag's document before the agent sees it (maps merge, lists replace). What concerns a
//! repository as a whole, `keep` and `verify.check`, is read of the tag alone, and a host cannot override it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// A policy: what is backed up of the members of a tag, when, where to, for how long, and how it is verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The paths, absolute. Each has to be there, or nothing is backed up and a fault is shown.
    #[serde(default)]
    pub paths: Vec<String>,
    /// What is left out of them: restic's patterns.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// Paths that have to be mount points: a file system that is not mounted is no empty folder.
    #[serde(default)]
    pub mounted: Vec<String>,
    /// Whether it stays in the file systems of its paths.
    #[serde(default)]
    pub one_file_system: bool,
    /// Dumps, by the name that the node's configuration has for the command, and what each is asked for, such as names of databases. An
    /// empty list: the dump as a whole.
    #[serde(default)]
    pub dumps: BTreeMap<String, Vec<String>>,
    /// Where to, by the names that the node's configuration has: at least one, or nothing is backed up.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// When.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// The oldest acceptable good backup: `26h`. Without it, none is too old.
    #[serde(default)]
    pub fresh: Option<String>,
    /// By how much, in percent, a path may have shrunk since the last good backup; 50 where nothing is said. What shrank more, or has
    /// no file left, is a fault, and is not backed up; with 100 nothing is.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub shrink: Option<u8>,
    /// For how long.
    #[serde(default)]
    pub keep: KeepSpec,
    /// How it is verified.
    #[serde(default)]
    pub verify: VerifySpec,
    /// Which files are removed from the host once they are backed up: for logs. Nothing where nothing is said.
    #[serde(default)]
    pub purge: Option<PurgeSpec>,
    /// Leave the member out. Meant for hosts.
    #[serde(default)]
    pub omit: bool,
}

/// When something is done.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// In the form of cron, `minute hour day month weekday`; `0 1 * * *` where nothing is said.
    #[serde(default)]
    pub cron: Option<String>,
    /// In which time zone: `Europe/Berlin`; UTC where nothing is said.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Over how long the members are spread from that time on, each at a place of its own that stays: `4h`.
    #[serde(default)]
    pub spread: Option<String>,
    /// For how long from that time on a run may begin, at least the spread; without it, at any time, so that a missed run is
    /// made up for at once.
    #[serde(default)]
    pub window: Option<String>,
}

/// For how long snapshots are kept. One that any of these keeps stays; where nothing is said, all stay.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepSpec {
    /// The last so many.
    #[serde(default)]
    pub last: u32,
    /// The last of each of the last so many hours that have one.
    #[serde(default)]
    pub hourly: u32,
    /// The same of days.
    #[serde(default)]
    pub daily: u32,
    /// The same of weeks.
    #[serde(default)]
    pub weekly: u32,
    /// The same of months.
    #[serde(default)]
    pub monthly: u32,
    /// The same of years.
    #[serde(default)]
    pub yearly: u32,
    /// All that are no older than this before the newest one: `14d` is written `336h`.
    #[serde(default)]
    pub within: Option<String>,
    /// When the others are removed and their space is freed, in the form of cron; `0 12 * * *` where nothing is said.
    #[serde(default)]
    pub cron: Option<String>,
}

/// How it is verified.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifySpec {
    /// When a repository's structure is checked, in the form of cron; never where nothing is said.
    #[serde(default)]
    pub check: Option<String>,
    /// The share of its data, in percent, that such a check reads.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub read: u8,
    /// How often some files of each member are restored elsewhere and compared: `720h`; never where nothing is said.
    #[serde(default)]
    pub restore: Option<String>,
    /// How many files; 20 where nothing is said.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub sample: Option<u32>,
}

/// Which files are removed from the host, oldest first. None is before a good snapshot in each repository was found to hold exactly it,
/// and none outside the folders that the node's configuration lets be purged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PurgeSpec {
    /// Those that were not written to for longer than this: `720h`.
    #[serde(default)]
    pub older_than: Option<String>,
    /// As many as it takes until this share of their file system, in percent, is free.
    #[serde(default)]
    #[schemars(range(min = 1, max = 90))]
    pub keep_free: Option<u8>,
    /// For how long the snapshots stay that have what was removed; for ever where nothing is said.
    #[serde(default)]
    pub archived: Option<String>,
}

/// What a host may say otherwise, under `backup`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used: the merged document is read as a `Spec`")]
pub(crate) struct Overrides {
    /// See the tag.
    #[serde(default)]
    paths: Option<Vec<String>>,
    /// See the tag.
    #[serde(default)]
    excludes: Option<Vec<String>>,
    /// See the tag.
    #[serde(default)]
    mounted: Option<Vec<String>>,
    /// See the tag.
    #[serde(default)]
    one_file_system: Option<bool>,
    /// See the tag.
    #[serde(default)]
    dumps: Option<BTreeMap<String, Vec<String>>>,
    /// See the tag.
    #[serde(default)]
    schedule: Option<ScheduleSpec>,
    /// See the tag.
    #[serde(default)]
    fresh: Option<String>,
    /// See the tag.
    #[serde(default)]
    #[schemars(range(max = 100))]
    shrink: Option<u8>,
    /// See the tag.
    #[serde(default)]
    purge: Option<PurgeSpec>,
    /// Leave it out of the policy.
    #[serde(default)]
    omit: Option<bool>,
}
