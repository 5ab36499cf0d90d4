//! How an engine is set up. Everything here comes from the node's configuration and command line, never from
//! the database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use shoal_core::{HostName, TagName};

use crate::{Millis, Nature, Unit};

/// How an engine works. [`Options::new`] has the defaults.
#[derive(Clone, Debug)]
pub struct Options {
    /// This process: unique among all that ever ran.
    pub instance: String,
    /// The target's kind.
    pub nature: Nature,
    /// Whether anything may be written at all. `false` for `--plan`: the engine then asks for looks and ledger
    /// pages only, and stops where it would act.
    pub write: bool,
    /// Whether the last word stands until the next run (`--once`), which reports under the same name. A daemon takes its word back when it ends: nobody would
    /// ever mend what it says.
    pub once: bool,
    /// Whether it shares the units with the other instances of its agent: each works on as many as any other. Otherwise it takes
    /// whatever is free. One that works on some units only (`tags`, `host`, `units`), or in a target that nobody else can reach
    /// ([`Nature::sole`]), never shares.
    pub share: bool,
    /// Only units that one of these tags feeds, or fed as far as the ledger knows; `None`: all.
    pub tags: Option<BTreeSet<TagName>>,
    /// Only these units (`--unit`); `None`: all. With `tags` or `host`, what all of them select.
    pub units: Option<BTreeSet<Unit>>,
    /// Only units that this host feeds, or fed as far as the ledger knows (`--host`); `None`: all. With `tags`, both.
    pub host: Option<HostName>,
    /// How much of a unit one batch may change or remove.
    pub max_change: MaxChange,
    /// The same for units that these tags feed; the largest counts.
    pub max_change_by_tag: BTreeMap<TagName, MaxChange>,
    /// For how long what was removed without asking counts together with what is to be removed; 0: not at all.
    pub max_change_within: Millis,
    /// What to do about what was changed behind Shoal's back.
    pub drift: OnDrift,
    /// After how long everything is looked at again.
    pub resync: Millis,
    /// How long a claim lasts. It is renewed after a third.
    pub ttl: Millis,
    /// How long before a claim's end no effect starts any more.
    pub margin: Millis,
    /// The first wait after a failure; it doubles with each further one.
    pub retry_first: Millis,
    /// The longest wait after failures.
    pub retry_most: Millis,
    /// How many retries a second all items of this target get together.
    pub retry_rate: u32,
    /// The most changes of one batch, for targets that do not write a unit as a whole and are not
    /// [`Nature::sole`].
    pub max_batch: usize,
    /// How many swept items are decided on before a real change gets its turn.
    pub sweep_slice: usize,
    /// Makes jitter and tokens differ between instances and runs, and a simulation repeatable.
    pub seed: u64,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new(instance: impl Into<String>, nature: Nature, seed: u64) -> Self {
        Self {
            instance: instance.into(),
            nature,
            write: true,
            once: false,
            share: false,
            tags: None,
            units: None,
            host: None,
            max_change: MaxChange::default(),
            max_change_by_tag: BTreeMap::new(),
            max_change_within: 600_000,
            drift: OnDrift::Correct,
            resync: 600_000,
            ttl: 60_000,
            margin: 5_000,
            retry_first: 1_000,
            retry_most: 300_000,
            retry_rate: 10,
            max_batch: 5_000,
            sweep_slice: 2_000,
            seed,
        }
    }
}

impl Options {
    /// Whether the other instances are asked about.
    pub(crate) fn shares(&self) -> bool {
        self.share && self.write && !self.once && !self.is_narrowed() && !self.nature.sole
    }

    /// Whether only some units are worked on.
    pub(crate) fn is_narrowed(&self) -> bool {
        self.tags.is_some() || self.host.is_some() || self.units.is_some()
    }

    /// Whether a source of this tag and this host may belong to what was asked for; `None`: of whatever tag or host.
    pub(crate) fn concerns(&self, tag: Option<&TagName>, host: Option<&HostName>) -> bool {
        let of_tag = |tags: &BTreeSet<TagName>| tag.is_none_or(|tag| tags.contains(tag));
        let of_host = |only: &HostName| host.is_none_or(|host| host == only);
        self.tags.as_ref().is_none_or(of_tag) && self.host.as_ref().is_none_or(of_host)
    }
}

/// What to do about what was changed behind Shoal's back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDrift {
    /// Change it back.
    #[default]
    Correct,
    /// Say so, and hold it as it is.
    Report,
}

/// A share of a unit's items, in percent: `30%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MaxChange(pub u8);

impl MaxChange {
    /// So many changes are never too many.
    pub const ALWAYS: usize = 10;

    /// Whether `changed` of `of` items may go without asking.
    #[must_use]
    pub fn allows(self, changed: usize, of: usize) -> bool {
        changed <= Self::ALWAYS || changed * 100 <= of * usize::from(self.0)
    }
}

impl Default for MaxChange {
    fn default() -> Self {
        Self(30)
    }
}

impl fmt::Display for MaxChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl FromStr for MaxChange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').unwrap_or(text).parse() {
            Ok(share @ 0..=100) => Ok(Self(share)),
            _ => Err(format!("{text:?} is not a share: write 0% to 100%")),
        }
    }
}

impl TryFrom<String> for MaxChange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MaxChange> for String {
    fn from(share: MaxChange) -> Self {
        share.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percent() {
        assert_eq!("30%".parse(), Ok(MaxChange(30)));
        assert_eq!("5".parse(), Ok(MaxChange(5)));
        for bad in ["", "%", "101%", "-1%", "0.3", "a third"] {
            assert!(bad.parse::<MaxChange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ten_are_never_too_many_and_thirty_percent_still_go() {
        let guard = MaxChange::default();
        assert!(guard.allows(10, 10));
        assert!(!guard.allows(11, 36));
        assert!(guard.allows(11, 37));
        assert!(guard.allows(30, 100) && !guard.allows(31, 100));
    }
}
