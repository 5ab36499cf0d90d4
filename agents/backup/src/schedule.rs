//! When something is due: a pure function of the time, of who it is for, and of what was written.
//!
//! A schedule has *times* (by cron, in a time zone). Each member has a place of its own after them, `spread` wide, that follows from its
//! name and so stays: that is its *slot*. Ten thousand hosts with one nightly policy are so spread over their window without anybody
//! counting them. What is due is told by state, never by an event: something is due when its last good run began before its newest
//! slot. So a run that was missed (the machine was off, the agent was not there) is made up for, once.

use std::str::FromStr as _;

use croner::Cron;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use shoal_agent::{Millis, Moment};

/// When something is done. Checked: what it says can be understood.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    cron: String,
    zone: String,
    /// In milliseconds.
    spread: Millis,
    /// In milliseconds; `None`: a run may begin at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<Millis>,
}

/// A schedule, understood.
struct Times {
    cron: Cron,
    zone: TimeZone,
}

/// Whom a place in a schedule is for, as a number that is the same everywhere and for ever: FNV-1a, then mixed (splitmix64), so
/// that names that differ in one digit are far apart.
pub(crate) fn seed(of: &str) -> u64 {
    let hash = of.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut mixed = hash;
    for (shift, factor) in [(30, 0xbf58_476d_1ce4_e5b9_u64), (27, 0x94d0_49bb_1331_11eb)] {
        mixed = (mixed ^ (mixed >> shift)).wrapping_mul(factor);
    }
    mixed ^ (mixed >> 31)
}

impl Schedule {
    /// A schedule in the form of cron (five fields), with a spread and a window in milliseconds.
    ///
    /// # Errors
    /// What of it cannot be understood, or never comes, and why.
    pub fn new(cron: &str, zone: &str, spread: Millis, window: Option<Millis>) -> Result<Self, String> {
        let schedule = Self { cron: cron.to_owned(), zone: zone.to_owned(), spread, window };
        let times = schedule.times()?;
        if window.is_some_and(|window| window < spread.max(60_000)) {
            return Err("a window is at least a minute and as long as the spread".to_owned());
        }
        // Whatever can come does so within a leap year's cycle.
        let start = Timestamp::UNIX_EPOCH.to_zoned(times.zone.clone());
        times.cron.find_next_occurrence(&start, true).map_err(|_| format!("{cron:?} never comes"))?;
        Ok(schedule)
    }

    fn times(&self) -> Result<Times, String> {
        if self.cron.split_whitespace().count() != 5 {
            return Err(format!("{:?} is no schedule: minute hour day month weekday", self.cron));
        }
        let cron = Cron::from_str(&self.cron).map_err(|e| format!("{:?} is no schedule: {e}", self.cron))?;
        let zone = TimeZoneDatabase::bundled()
            .get(&self.zone)
            .map_err(|_| format!("there is no time zone {:?}: one is written Europe/Berlin", self.zone))?;
        Ok(Times { cron, zone })
    }

    /// How long after a time its slot is, for whoever has this seed.
    fn place(&self, seed: u64) -> Millis {
        let spread = self.spread.unsigned_abs();
        if spread == 0 { 0 } else { Millis::try_from(seed % spread).unwrap_or(0) }
    }

    /// The newest slot that has come; `None`: there never was one.
    #[must_use]
    pub fn last(&self, seed: u64, now: Moment) -> Option<Moment> {
        let place = self.place(seed);
        Some(self.times().ok()?.before(now - place)? + place)
    }

    /// The first slot that is still to come.
    #[must_use]
    pub fn next(&self, seed: u64, now: Moment) -> Option<Moment> {
        let place = self.place(seed);
        Some(self.times().ok()?.after(now - place)? + place)
    }

    /// From when on a run that is due may begin: now, or when the next window opens, at this member's place in it.
    #[must_use]
    pub fn opens(&self, seed: u64, now: Moment) -> Option<Moment> {
        let Some(window) = self.window else { return Some(now) };
        let times = self.times().ok()?;
        match times.before(now) {
            Some(time) if now < time + window => Some(now),
            _ => self.next(seed, now),
        }
    }
}

impl Times {
    fn at(&self, moment: Moment) -> Option<Zoned> {
        Some(Timestamp::from_millisecond(moment).ok()?.to_zoned(self.zone.clone()))
    }

    fn before(&self, moment: Moment) -> Option<Moment> {
        let found = self.cron.find_previous_occurrence(&self.at(moment)?, true).ok()?;
        Some(found.timestamp().as_millisecond())
    }

    fn after(&self, moment: Moment) -> Option<Moment> {
        let found = self.cron.find_next_occurrence(&self.at(moment)?, false).ok()?;
        Some(found.timestamp().as_millisecond())
    }
}

#[cfg(test)]
mod tests;
