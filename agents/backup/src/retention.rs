//! Which snapshots are no longer kept: a pure function of their times and of which one is known to be good.
//!
//! * Nothing is removed of a host, policy and set of paths of which no snapshot is known to be good.
//! * The last one that is known to be good stays, and so does everything newer: of that nobody knows yet what it is worth.
//! * Of what is older, each rule keeps what restic's own rules would: of each of the last so many hours, days, … that have a snapshot, the
//!   newest. What is marked as incomplete counts for none of them.
//! * What is held stays: what it has was removed from its host.
//! * Where no rule is written, all stay.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use shoal_agent::{Millis, Moment};

/// For how long snapshots are kept. One that any rule keeps stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The last so many.
    pub last: u32,
    /// The newest of each of the last so many hours that have one.
    pub hourly: u32,
    /// The same of days, in UTC.
    pub daily: u32,
    /// The same of weeks, from Monday on.
    pub weekly: u32,
    /// The same of months.
    pub monthly: u32,
    /// The same of years.
    pub yearly: u32,
    /// All that are at most so many milliseconds older than the last good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Millis>,
}

/// One of the snapshots of a host, a policy and a set of paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub time: Moment,
    /// It is marked: some of its files could not be read.
    pub incomplete: bool,
}

/// In which hour, day, … something was.
type Period = fn(Moment) -> i64;

impl Keep {
    /// Whether it keeps everything: no rule is written.
    #[must_use]
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// Those that are no longer kept, by id. `good` is the last one that is known to be good; what is `held` stays. Costs a sort.
    #[must_use]
    pub fn superfluous(&self, snapshots: &[Snapshot], good: &str, held: &BTreeSet<String>) -> Vec<String> {
        let Some(last) = snapshots.iter().find(|one| one.id == good) else { return Vec::new() };
        if self.keeps_all() {
            return Vec::new();
        }
        let mut older: Vec<&Snapshot> = snapshots.iter().filter(|one| one.time <= last.time).collect();
        older.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
        let counting: Vec<&Snapshot> =
            older.iter().copied().filter(|one| !one.incomplete || one.id == good).collect();
        let kept = self.kept(&counting, last);
        let gone = |one: &&Snapshot| !kept.contains(one.id.as_str()) && !held.contains(&one.id);
        older.into_iter().filter(gone).map(|one| one.id.clone()).collect()
    }

    /// Those that some rule keeps, of these from the newest on.
    fn kept<'s>(&self, from_newest: &[&'s Snapshot], last: &'s Snapshot) -> BTreeSet<&'s str> {
        let mut kept = BTreeSet::from([last.id.as_str()]);
        kept.extend(from_newest.iter().take(self.last as usize).map(|one| one.id.as_str()));
        if let Some(within) = self.within {
            let near = from_newest.iter().filter(|one| one.time >= last.time - within);
            kept.extend(near.map(|one| one.id.as_str()));
        }
        let rules: [(u32, Period); 5] = [
            (self.hourly, |time| time.div_euclid(3_600_000)),
            (self.daily, day),
            // The first day of 1970 was a Thursday.
            (self.weekly, |time| (day(time) + 3).div_euclid(7)),
            (self.monthly, |time| i64::from(date(time).year()) * 12 + i64::from(date(time).month())),
            (self.yearly, |time| i64::from(date(time).year())),
        ];
        for (count, period) in rules {
            let (mut left, mut before) = (count, None);
            for one in from_newest {
                let this = Some(period(one.time));
                if left > 0 && this != before {
                    kept.insert(one.id.as_str());
                    left -= 1;
                }
                before = this;
            }
        }
        kept
    }
}

fn day(time: Moment) -> i64 {
    time.div_euclid(86_400_000)
}

fn date(time: Moment) -> Date {
    Timestamp::from_millisecond(time).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Millis = 86_400_000;

    fn some(times: &[Moment]) -> Vec<Snapshot> {
        let one =
            |(n, time): (usize, &Moment)| Snapshot { id: format!("{n:03}"), time: *time, incomplete: false };
        times.iter().enumerate().map(one).collect()
    }

    #[test]
    fn without_a_rule_or_a_good_one_all_stay() {
        let all = some(&[0, DAY, 2 * DAY]);
        assert!(Keep::default().superfluous(&all, "002", &BTreeSet::new()).is_empty());
        let one = Keep { last: 1, ..Keep::default() };
        assert!(one.superfluous(&all, "unknown", &BTreeSet::new()).is_empty());
        assert_eq!(one.superfluous(&all, "002", &BTreeSet::new()), ["001", "000"]);
    }

    #[test]
    fn what_is_newer_than_the_last_good_one_does_not_push_it_out() {
        let all = some(&[0, DAY, 2 * DAY, 3 * DAY, 4 * DAY]);
        let one = Keep { last: 1, daily: 1, ..Keep::default() };
        assert_eq!(one.superfluous(&all, "001", &BTreeSet::new()), ["000"]);
    }

    #[test]
    fn what_is_held_stays_and_takes_no_place() {
        let all = some(&[0, DAY, 2 * DAY, 3 * DAY]);
        let held = BTreeSet::from(["000".to_owned()]);
        assert_eq!(Keep { last: 2, ..Keep::default() }.superfluous(&all, "003", &held), ["001"]);
    }

    #[test]
    fn what_is_incomplete_keeps_no_place() {
        let mut all = some(&[0, DAY, 2 * DAY, 3 * DAY]);
        all[2].incomplete = true;
        let two = Keep { daily: 2, ..Keep::default() };
        assert_eq!(two.superfluous(&all, "003", &BTreeSet::new()), ["002", "000"].map(str::to_owned));
    }

    fn keeps() -> impl Strategy<Value = Keep> {
        (0..4u32, 0..4u32, 0..4u32, 0..4u32, 0..4u32, 0..4u32, prop::option::of(0..40 * DAY)).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly, within)| Keep {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                within,
            },
        )
    }

    proptest! {
        #[test]
        fn the_last_good_one_stays_and_a_second_pass_finds_nothing(
            keep in keeps(),
            times in prop::collection::vec(0..400 * DAY, 1..40),
            incomplete in prop::collection::vec(any::<bool>(), 40),
            good in any::<prop::sample::Index>(),
        ) {
            let mut all = some(&times);
            for (one, incomplete) in all.iter_mut().zip(incomplete) {
                one.incomplete = incomplete;
            }
            let good = all[good.index(all.len())].clone();
            let gone = keep.superfluous(&all, &good.id, &BTreeSet::new());
            prop_assert!(!gone.contains(&good.id));
            for one in all.iter().filter(|one| one.time > good.time) {
                prop_assert!(!gone.contains(&one.id));
            }
            all.retain(|one| !gone.contains(&one.id));
            prop_assert!(keep.superfluous(&all, &good.id, &BTreeSet::new()).is_empty());
        }
    }
}
