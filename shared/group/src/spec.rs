//! What a `vm/<group>` tag says under `group`: how many machines, where, how they are called, and what becomes of those that fail.
//!
//! What each machine is made of stands beside it in the same document ([`shoal_machine::Spec`]), and its members have it from there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shoal_core::{HostName, TagName, span};
use shoal_machine::place::Named;
use shoal_machine::{Disk, DiskSpec, Word};

use crate::metric::Metric;
use crate::schedule::Entry;

/// The field of a `vm/…` tag that makes a group of it.
pub const GROUP: &str = "group";
/// The place of a slot's number in a name.
const SLOT: &str = "{slot}";
/// The most machines of a group: what is remembered of all of them is one row.
pub const MOST: u32 = 5_000;
/// The most of one whose slots have disks: where each is, is remembered, too.
pub const MOST_WITH_DISKS: u32 = 1_000;
/// In which site an address is looked for where its site has no line of its own.
pub const ANY: &str = "*";
/// Fields of a member's document that are not a group's to give otherwise.
const TAKEN: [&str; 4] = ["placement", "size", "vm", "box"];

/// A group of machines.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// How many. Where nothing is said: as many as the layout's sites come to, else `min`.
    pub count: Option<u32>,
    /// Never fewer.
    pub min: Option<u32>,
    /// Never more.
    pub max: Option<u32>,
    /// What each needs of every resource.
    pub size: Named,
    /// Further fields of each member's document.
    pub host: Map<String, Value>,
    /// How they lie.
    pub layout: Option<Layout>,
    /// What each must be near.
    pub near: BTreeSet<Rule>,
    /// What each must be apart from.
    pub apart: BTreeSet<Rule>,
    /// One of these boxes and zones.
    pub only: BTreeSet<Pick>,
    /// None of these.
    pub except: BTreeSet<Pick>,
    /// Tags of which each becomes a member when it is made.
    pub tags: BTreeSet<TagName>,
    /// How they are called, and what goes with a name.
    pub slots: Slots,
    /// How many may be out of service at once.
    pub budget: Budget,
    /// What becomes of those that fail.
    pub replace: Replace,
    /// Other numbers at certain times. The newest entry that has come counts.
    pub schedule: Vec<Entry>,
    /// What decides how many they are, within `min` and `max`.
    pub metric: Option<Metric>,
}

/// How a group lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// In these sites and no others, in this proportion.
    Sites(BTreeMap<String, u32>),
    /// Where the fewest of the group are: among these, level by level. A preference; to forbid, say `apart`.
    Spread(Vec<Level>),
}

/// How far a rule reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// One box.
    Box,
    /// One rack of a site.
    Rack,
    /// One site.
    Site,
}

/// Near to, or apart from, what has a tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// A group, or any other tag.
    pub tag: String,
    /// How far.
    pub level: Level,
}

/// Which boxes and zones: by name, or by a label's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The one of this name.
    Name(String),
    /// Those with this label.
    Label(String, String),
}

/// How members are called, and what goes with a name.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Slots {
    /// The name of each member: `kafka-{slot}.example.com`.
    pub name: String,
    /// The number of the first slot.
    pub first: u32,
    /// Fields of a member's document that hold a number from a range: the field, and the range's name.
    pub ids: BTreeMap<String, String>,
    /// Fields of a member's document that hold an address from a range.
    pub addresses: BTreeMap<String, Addresses>,
    /// Disks that a slot has, by name: whoever takes it over finds them, on the box where they are.
    pub disks: BTreeMap<String, SlotDisk>,
}

/// A disk that outlives the machines of its slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotDisk {
    /// In octets.
    pub size: u64,
    /// Where each machine finds it, as an absolute path.
    pub at: String,
}

/// Where the addresses of a field come from.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// For each site, or for all others (`*`), the range.
    pub ranges: BTreeMap<String, Draw>,
    /// The network of the tag's `networks` in which the machine has this address.
    #[serde(default)]
    pub network: Option<String>,
}

/// Where in a range an address is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Draw {
    /// The range's name.
    pub range: String,
    /// So far behind the beginning of its network is the address of slot 0; the others follow. Where nothing is said, the first that is
    /// free.
    #[serde(default)]
    pub offset: Option<u32>,
}

/// How many may be out of service at once, whatever for.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// So many drain or are made anew at the same time.
    #[schemars(range(min = 1))]
    pub at_once: u32,
    /// So many stay active, if so many are wanted.
    pub min_healthy: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { at_once: 1, min_healthy: 0 }
    }
}

/// What becomes of members that fail.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Replace {
    /// Whether others take their places.
    pub failed: bool,
    /// So long after it failed.
    pub after: Span,
    /// After so long a machine that failed counts as gone, though nobody saw it go. Where nothing is said, only whoever made it says so.
    pub quarantine: Option<Span>,
    /// So many must report a machine dead, each in its own facts (`healthy: false`), before it counts as failed.
    #[schemars(range(min = 1))]
    pub sources: u32,
    /// Where two or more, and more than this share in percent, look dead at once, a person is called, and nothing is done while they do.
    #[schemars(range(max = 100))]
    pub alarm: u8,
}

impl Default for Replace {
    fn default() -> Self {
        Self { failed: true, after: Span(Duration::from_secs(300)), quarantine: None, sources: 2, alarm: 40 }
    }
}

/// A span of time, `90s` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        span(&text).map(Self).map_err(|e| e.to_string())
    }
}

impl Spec {
    /// Reads what stands under `group`.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn read(value: Value) -> Result<Self, String> {
        let spec: Self = serde_json::from_value(value).map_err(|e| e.to_string())?;
        spec.numbers()?;
        spec.names()?;
        spec.places()?;
        for entry in &spec.schedule {
            entry.check()?;
        }
        if let Some(metric) = &spec.metric {
            metric.check(spec.min, spec.max)?;
        }
        Ok(spec)
    }

    fn numbers(&self) -> Result<(), String> {
        let Self { count, min, max, layout, budget, replace, .. } = self;
        if [count, min, max].into_iter().flatten().any(|n| *n > MOST) {
            return Err(format!("a group has at most {MOST} machines"));
        }
        if min.zip(*max).is_some_and(|(min, max)| min > max) {
            return Err("`min` is more than `max`".to_owned());
        }
        let by_sites = matches!(layout, Some(Layout::Sites(_)));
        if count.is_none() && min.is_none() && !by_sites {
            return Err("nothing says how many: `count: 3`, or `min` and `max`".to_owned());
        }
        if budget.at_once == 0 {
            return Err("`budget.at_once` is at least 1: with 0 nothing would ever be done".to_owned());
        }
        if replace.sources == 0 || replace.alarm > 100 {
            return Err("`replace.sources` is at least 1, and `replace.alarm` a share in percent".to_owned());
        }
        let most = [count, min, max].into_iter().flatten().copied().chain([self.said()]).max();
        if !self.slots.disks.is_empty() && most.is_some_and(|most| most > MOST_WITH_DISKS) {
            return Err(format!("a group whose slots have disks has at most {MOST_WITH_DISKS} machines"));
        }
        if self.size.is_empty() {
            return Err("nothing says what each needs: `size: {cpu: 2, …}`".to_owned());
        }
        Ok(())
    }

    fn names(&self) -> Result<(), String> {
        let Slots { name, first, ids, addresses, disks } = &self.slots;
        for (name, SlotDisk { size, at }) in disks {
            let disk = DiskSpec { size: *size, at: at.clone(), volume: None };
            let checked = name.parse::<Word>().map_err(|e| e.to_string()).and_then(|_| Disk::new(&disk));
            checked.map_err(|why| format!("`slots.disks.{name}`: {why}"))?;
        }
        if name.matches(SLOT).count() != 1 {
            return Err(format!("`slots.name` has {SLOT} in it once: `kafka-{SLOT}.example.com`"));
        }
        self.name(*first).and_then(|_| self.name(u32::MAX)).map_err(|why| format!("`slots.name`: {why}"))?;
        let mut seen: BTreeSet<&str> = TAKEN.into();
        for field in self.host.keys().chain(ids.keys()).chain(addresses.keys()) {
            if !seen.insert(field) {
                return Err(format!(
                    "the field {field:?} of members is said twice, or is not the group's to say"
                ));
            }
        }
        Ok(())
    }

    fn places(&self) -> Result<(), String> {
        let sites = match &self.layout {
            Some(Layout::Sites(sites)) if sites.values().all(|share| *share == 0) => {
                return Err("`layout.sites` has no site with a share".to_owned());
            }
            Some(Layout::Sites(sites)) if sites.values().any(|share| *share > MOST) => {
                return Err(format!("a share of `layout.sites` is at most {MOST}"));
            }
            Some(Layout::Sites(sites)) => sites.keys().collect(),
            _ => Vec::new(),
        };
        for (field, Addresses { ranges, .. }) in &self.slots.addresses {
            let has = |site: &str| ranges.contains_key(site);
            if let Some(site) = sites.iter().find(|site| !has(site) && !has(ANY)) {
                return Err(format!(
                    "`slots.addresses.{field}` has no range for the site {site}, nor for all (\"*\")"
                ));
            }
            // Where a machine will be is not known when it is given its address.
            if sites.is_empty() && !has(ANY) {
                return Err(format!(
                    "`slots.addresses.{field}` has ranges by site: that takes `layout.sites`; or say one for all, \"*\""
                ));
            }
        }
        Ok(())
    }

    /// What the member of a slot is called.
    ///
    /// # Errors
    /// That is no host's name.
    pub fn name(&self, slot: u32) -> Result<HostName, String> {
        self.slots
            .name
            .replace(SLOT, &slot.to_string())
            .parse()
            .map_err(|e: shoal_core::BadName| e.to_string())
    }

    /// Whether the quarantine leaves whoever makes machines the time to destroy one: so long it waits before it does, from when it drains.
    ///
    /// # Errors
    /// It would count as gone, and be made anew, while it is waited for its end.
    pub(crate) fn outlasts(&self, grace: Duration) -> Result<(), String> {
        let Replace { after, quarantine, .. } = &self.replace;
        let least = after.0.saturating_add(grace);
        if quarantine.is_some_and(|quarantine| quarantine.0 < least) {
            return Err(format!(
                "`replace.quarantine` is at least {least:.0?}, which is `replace.after` and `grace` together: nothing is destroyed before that"
            ));
        }
        Ok(())
    }

    /// How many the document says by itself, before any schedule and metric.
    #[must_use]
    pub fn said(&self) -> u32 {
        let by_sites = match &self.layout {
            Some(Layout::Sites(sites)) => {
                Some(sites.values().fold(0_u32, |sum, share| sum.saturating_add(*share)))
            }
            _ => None,
        };
        self.count.or(by_sites).or(self.min).unwrap_or(0).min(MOST)
    }

    /// The shares of its sites; empty: nobody says.
    #[must_use]
    pub fn sites(&self) -> BTreeMap<&str, u32> {
        match &self.layout {
            Some(Layout::Sites(sites)) => sites.iter().map(|(site, share)| (site.as_str(), *share)).collect(),
            _ => BTreeMap::new(),
        }
    }

    /// The range that a field's address of a slot in this site comes from.
    #[must_use]
    pub fn range_of(&self, field: &str, site: Option<&str>) -> Option<&Draw> {
        let ranges = &self.slots.addresses.get(field)?.ranges;
        site.and_then(|site| ranges.get(site)).or_else(|| ranges.get(ANY))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(more: Value) -> Result<Spec, String> {
        let mut group =
            json!({"count": 3, "size": {"cpu": 2}, "slots": {"name": "kafka-{slot}.example.com"}});
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            group[name] = value;
        }
        Spec::read(group)
    }

    #[test]
    fn a_whole_one_is_understood() {
        let spec = group(json!({
            "count": null, "min": 1, "max": 20, "layout": {"sites": {"a": 1, "c": 2}}, "tags": ["dns/example.com"],
            "apart": [{"tag": "vm/kafka", "level": "rack"}], "only": [{"label": ["ssd", "yes"]}],
            "slots": {
                "name": "kafka-{slot}.example.com", "first": 1, "ids": {"broker_id": "brokers"},
                "addresses": {"address": {"ranges": {"a": {"range": "lan-a", "offset": 10}, "*": {"range": "lan"}}, "network": "lan"}},
            },
            "budget": {"at_once": 2, "min_healthy": 1},
            "replace": {"after": "1m", "quarantine": "1h", "sources": 3, "alarm": 30},
            "schedule": [{"at": "0 8 * * 1-5", "zone": "Europe/Berlin", "min": 3}],
            "metric": {"query": "avg(cpu)", "target": 75.0},
        }))
        .unwrap();
        assert_eq!(spec.said(), 3);
        assert_eq!(spec.name(7).unwrap().as_str(), "kafka-7.example.com");
        assert_eq!(spec.range_of("address", Some("a")).unwrap().offset, Some(10));
        assert_eq!(spec.range_of("address", Some("c")).unwrap().range, "lan");
        assert_eq!(spec.replace.quarantine, Some(Span(Duration::from_secs(3600))));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (more, why) in [
            (json!({"count": null}), "how many"),
            (json!({"min": 4, "max": 3}), "`min` is more"),
            (json!({"count": 5_001}), "at most"),
            (json!({"size": {}}), "what each needs"),
            (json!({"slots": {"name": "kafka.example.com"}}), "{slot}"),
            (json!({"slots": {"name": "{slot}-{slot}.example.com"}}), "{slot}"),
            (json!({"slots": {"name": "-{slot}.example.com"}}), "slots.name"),
            (json!({"slots": {"name": "a{slot}", "ids": {"placement": "x"}}}), "placement"),
            (json!({"host": {"a": 1}, "slots": {"name": "a{slot}", "ids": {"a": "x"}}}), "\"a\""),
            (json!({"layout": {"sites": {"a": 0}}}), "share"),
            (
                json!({"slots": {"name": "a{slot}", "addresses": {"address": {"ranges": {"a": {"range": "x"}}}}}}),
                "takes `layout.sites`",
            ),
            (
                json!({"layout": {"sites": {"b": 1}}, "slots": {"name": "a{slot}", "addresses": {"address": {"ranges": {"a": {"range": "x"}}}}}}),
                "the site b",
            ),
            (
                json!({"slots": {"name": "a{slot}", "disks": {"../x": {"size": 1, "at": "/a"}}}}),
                "slots.disks",
            ),
            (json!({"slots": {"name": "a{slot}", "disks": {"x": {"size": 1, "at": "a"}}}}), "slots.disks.x"),
            (
                json!({"max": 1_001, "slots": {"name": "a{slot}", "disks": {"x": {"size": 1, "at": "/a"}}}}),
                "at most 1000",
            ),
            (json!({"budget": {"at_once": 0}}), "at_once"),
            (json!({"schedule": [{"at": "0 25 * * *", "count": 1}]}), "schedule"),
            (json!({"metric": {"query": "x", "target": 1.0}}), "`max`"),
            (json!({"counts": 1}), "counts"),
            (json!({"replace": {"after": "soon"}}), "span of time"),
        ] {
            let said = group(more.clone()).unwrap_err();
            assert!(said.contains(why), "{more}: {said}");
        }
    }
}
