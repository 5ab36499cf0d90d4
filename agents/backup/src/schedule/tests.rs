//! Slots: spread, the same each day, made up for once, and right where clocks change.

use proptest::prelude::*;

use super::*;

const HOUR: Millis = 3_600_000;

fn at(text: &str) -> Moment {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn nightly() -> Schedule {
    Schedule::new("0 1 * * *", "UTC", 4 * HOUR, Some(6 * HOUR)).unwrap()
}

#[test]
fn ten_thousand_hosts_are_spread_evenly_over_their_window() {
    let (schedule, evening) = (nightly(), at("2026-03-01T20:00:00Z"));
    let mut tenths = [0_u32; 24];
    for n in 0..10_000 {
        let seed = seed(&format!("web{n}.example.com nightly main"));
        let slot = schedule.next(seed, evening).unwrap();
        let after = slot - at("2026-03-02T01:00:00Z");
        assert!((0..4 * HOUR).contains(&after), "{after}");
        tenths[usize::try_from(after / (HOUR / 6)).unwrap()] += 1;
        // The same place each day.
        assert_eq!(schedule.next(seed, slot).unwrap() - slot, 24 * HOUR);
    }
    // 417 of 10,000 in each ten minutes; a fair lot strays by less than a quarter.
    assert!(tenths.iter().all(|count| (312..=520).contains(count)), "{tenths:?}");
}

#[test]
fn a_run_may_begin_in_its_window_only() {
    let schedule = nightly();
    for (now, opens) in [
        ("2026-03-01T00:59:59Z", None),
        ("2026-03-01T01:00:00Z", Some("2026-03-01T01:00:00Z")),
        ("2026-03-01T06:59:59Z", Some("2026-03-01T06:59:59Z")),
        ("2026-03-01T07:00:00Z", None),
    ] {
        let found = schedule.opens(7, at(now)).unwrap();
        match opens {
            Some(opens) => assert_eq!(found, at(opens), "{now}"),
            None => assert_eq!(found, schedule.next(7, at(now)).unwrap(), "{now}"),
        }
    }
    let any = Schedule::new("0 1 * * *", "UTC", 0, None).unwrap();
    assert_eq!(any.opens(7, at("2026-03-01T15:00:00Z")), Some(at("2026-03-01T15:00:00Z")));
}

#[test]
fn what_cannot_be_understood_is_refused() {
    for (cron, zone, spread, window) in [
        ("0 25 * * *", "UTC", 0, None),
        ("0 1 * *", "UTC", 0, None),
        ("* 0 1 * * *", "UTC", 0, None),
        ("0 0 31 2 *", "UTC", 0, None),
        ("0 1 * * *", "Mars/Olympus", 0, None),
        ("0 1 * * *", "UTC", 2 * HOUR, Some(HOUR)),
    ] {
        assert!(Schedule::new(cron, zone, spread, window).is_err(), "{cron} {zone}");
    }
}

#[test]
fn clocks_that_change_lose_no_night_and_double_none() {
    // 02:30 does not exist on 29 March and exists twice on 25 October.
    let schedule = Schedule::new("30 2 * * *", "Europe/Berlin", 0, None).unwrap();
    for (from, nights) in [("2026-03-27T12:00:00Z", 4), ("2026-10-23T12:00:00Z", 4)] {
        let (mut now, mut slots) = (at(from), Vec::new());
        while slots.len() < nights {
            now = schedule.next(0, now).unwrap();
            slots.push(now);
        }
        for pair in slots.windows(2) {
            let apart = pair[1] - pair[0];
            assert!((23 * HOUR..=25 * HOUR).contains(&apart), "{from}: {apart}");
        }
    }
}

proptest! {
    /// The newest slot and the next one have nothing between them, whatever the place.
    #[test]
    fn last_and_next_are_neighbours(seed in any::<u64>(), now in 1_700_000_000_000_i64..1_900_000_000_000, spread in 0..24 * HOUR) {
        let schedule = Schedule::new("15 */6 * * 1-5", "America/New_York", spread, None).unwrap();
        let (last, next) = (schedule.last(seed, now).unwrap(), schedule.next(seed, now).unwrap());
        prop_assert!(last <= now && now < next);
        prop_assert_eq!(schedule.next(seed, last), Some(next));
        prop_assert_eq!(schedule.last(seed, next - 1), Some(last));
    }
}
