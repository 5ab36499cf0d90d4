//! Numbers at certain times. What counts is told by the time alone: the entry that came last, however long ago and whoever ran then.

use std::str::FromStr as _;

use croner::Cron;
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use schemars::JsonSchema;
use serde::Deserialize;

/// From a time on, other numbers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When, as cron has it: minute, hour, day, month, weekday.
    pub at: String,
    /// In which time zone: `Europe/Berlin`; `UTC` where nothing is said.
    #[serde(default)]
    pub zone: Option<String>,
    /// How many.
    #[serde(default)]
    pub count: Option<u32>,
    /// Never fewer.
    #[serde(default)]
    pub min: Option<u32>,
    /// Never more.
    #[serde(default)]
    pub max: Option<u32>,
}

impl Entry {
    /// Whether it can be understood, and ever comes.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), String> {
        if self.count.is_none() && self.min.is_none() && self.max.is_none() {
            return Err(format!("the schedule's {:?} says no number", self.at));
        }
        if self.min.zip(self.max).is_some_and(|(min, max)| min > max) {
            return Err(format!("the schedule's {:?} has a `min` that is more than its `max`", self.at));
        }
        let (cron, zone) = self.times()?;
        let start = Timestamp::UNIX_EPOCH.to_zoned(zone);
        let next = cron.find_next_occurrence(&start, true);
        next.map(drop).map_err(|_| format!("the schedule's {:?} never comes", self.at))
    }

    fn times(&self) -> Result<(Cron, TimeZone), String> {
        if self.at.split_whitespace().count() != 5 {
            return Err(format!("{:?} is no schedule: minute hour day month weekday", self.at));
        }
        let cron = Cron::from_str(&self.at).map_err(|e| format!("{:?} is no schedule: {e}", self.at))?;
        let name = self.zone.as_deref().unwrap_or("UTC");
        let zone = TimeZoneDatabase::bundled().get(name);
        Ok((cron, zone.map_err(|_| format!("there is no time zone {name:?} for the schedule"))?))
    }

    /// When it came last; `None`: never, as far as the calendar goes.
    #[must_use]
    pub fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let (cron, zone) = self.times().ok()?;
        let found = cron.find_previous_occurrence(&now.to_zoned(zone), true).ok()?;
        Some(found.timestamp())
    }

    /// When it comes next.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let (cron, zone) = self.times().ok()?;
        let found = cron.find_next_occurrence(&now.to_zoned(zone), false).ok()?;
        Some(found.timestamp())
    }
}

/// The entry that came last, and when; of two at the same time the one that is written later.
#[must_use]
pub(crate) fn newest(entries: &[Entry], now: Timestamp) -> Option<(Timestamp, &Entry)> {
    entries.iter().filter_map(|entry| Some((entry.last(now)?, entry))).max_by_key(|(at, _)| *at)
}

/// The entry that comes next, and when.
#[must_use]
pub(crate) fn coming(entries: &[Entry], now: Timestamp) -> Option<(Timestamp, &Entry)> {
    // Of several at the same time the last counts when they have come.
    let all = entries.iter().filter_map(|entry| Some((entry.next(now)?, entry)));
    all.fold(None, |first: Option<(Timestamp, &Entry)>, one| match first {
        Some(first) if first.0 < one.0 => Some(first),
        _ => Some(one),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str, count: u32) -> Entry {
        let zone = Some("Europe/Berlin".to_owned());
        Entry { at: at.to_owned(), zone, count: Some(count), min: None, max: None }
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_one_that_came_last_counts() {
        let day_and_night = [entry("0 8 * * *", 9), entry("0 20 * * *", 2)];
        let count = |at: &str| newest(&day_and_night, time(at)).unwrap().1.count;
        assert_eq!(count("2026-07-01T05:59:59Z"), Some(2));
        assert_eq!(count("2026-07-01T06:00:00Z"), Some(9));
        assert_eq!(count("2026-01-01T06:30:00Z"), Some(2), "in winter it is an hour later");
        let (at, next) = coming(&day_and_night, time("2026-07-01T06:00:00Z")).unwrap();
        assert_eq!((at, next.count), (time("2026-07-01T18:00:00Z"), Some(2)));
    }

    #[test]
    fn what_never_comes_is_refused() {
        assert!(entry("0 0 30 2 *", 1).check().unwrap_err().contains("never comes"));
        assert!(entry("0 0 * *", 1).check().unwrap_err().contains("no schedule"));
        let none = Entry { count: None, ..entry("0 0 * * *", 1) };
        assert!(none.check().unwrap_err().contains("no number"));
        let where_is_it = Entry { zone: Some("Europe/Nowhere".to_owned()), ..entry("0 0 * * *", 1) };
        assert!(where_is_it.check().unwrap_err().contains("time zone"));
    }
}
