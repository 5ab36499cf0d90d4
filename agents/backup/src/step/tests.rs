//! A life in virtual time: what runs when, what is made up for, and what is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::item::{Begun, Have, Job, Running, Test};

const HOUR: Millis = 3_600_000;
const RETRY: Millis = 300_000;

fn at(text: &str) -> Moment {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn key() -> Key {
    Key::Backup {
        host: "web1.example.com".parse().unwrap(),
        policy: "nightly".parse().unwrap(),
        repository: "main".parse().unwrap(),
    }
}

fn job() -> Job {
    Job {
        paths: BTreeSet::from(["/etc".parse().unwrap()]),
        excludes: BTreeSet::new(),
        mounted: BTreeSet::new(),
        one_file_system: false,
        dumps: BTreeMap::new(),
        on: "web1.example.com".to_owned(),
        schedule: Schedule::new("0 1 * * *", "UTC", 4 * HOUR, Some(6 * HOUR)).unwrap(),
        fresh: Some(26 * HOUR),
        shrink: 50,
        test: None,
        purge: None,
    }
}

fn have(job: Job, since: Moment) -> Have {
    Have { record: Record::new(Item::Backup(Arc::new(job)), since), running: None }
}

fn next(have: &Have, now: Moment) -> Step {
    let want = have.record.item.clone();
    let at = At { want: Some(&want), last: Some(&want), tried: &[], have: Some(have), memo: &Value::Null };
    step(RETRY, &key(), &at, now)
}

fn verb(step: &Step) -> &'static str {
    match step {
        Step::Run { verb, .. } | Step::Act { verb, .. } => verb,
        Step::Rest { .. } => "rest",
        Step::Wait { .. } => "wait",
        _ => "other",
    }
}

fn why(step: &Step) -> &str {
    match step {
        Step::Wait { why, .. } => why,
        other => panic!("{other:?} waits for nothing"),
    }
}

/// Lives on from `now` until `end`; answers when backups began. Each takes ten minutes and is good if `good` says so of its beginning.
fn live(have: &mut Have, mut now: Moment, end: Moment, good: impl Fn(Moment) -> bool) -> Vec<Moment> {
    let mut begun = Vec::new();
    while now < end {
        match next(have, now) {
            Step::Run { verb: BACK_UP, .. } => {
                begun.push(now);
                let ended = now + 600_000;
                match good(now) {
                    true => have.record.main.succeeded(now, ended),
                    false => have.record.main.failed("no room".to_owned(), ended),
                }
                now = ended;
            }
            Step::Rest { look_again: Some(again) } | Step::Wait { until: Some(again), .. } => {
                assert!(again > now, "a look at once, for ever");
                now = again;
            }
            other => panic!("{other:?}"),
        }
    }
    begun
}

#[test]
fn one_backup_a_night_in_its_own_place() {
    let mut have = have(job(), at("2026-03-01T12:00:00Z"));
    let begun = live(&mut have, at("2026-03-01T12:00:00Z"), at("2026-03-08T12:00:00Z"), |_| true);
    assert_eq!(begun.len(), 7, "{begun:?}");
    let slot = job().schedule.next(key().seed(), at("2026-03-01T12:00:00Z")).unwrap();
    for (night, begun) in (0..).zip(&begun) {
        assert_eq!(*begun, slot + night * 24 * HOUR);
    }
}

#[test]
fn a_missed_run_is_made_up_for_once_and_in_its_window() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-03-01T02:00:00Z"), at("2026-03-01T02:10:00Z"));
    // Off for three days, back at 14:00: too late for the window.
    let begun = live(&mut have, at("2026-03-04T14:00:00Z"), at("2026-03-05T12:00:00Z"), |_| true);
    assert_eq!(begun.len(), 1);
    assert!((at("2026-03-05T01:00:00Z")..at("2026-03-05T07:00:00Z")).contains(&begun[0]));
    // Without a window it is made up for at once, and the next night's is made as well.
    let mut any = job();
    any.schedule = Schedule::new("0 1 * * *", "UTC", 4 * HOUR, None).unwrap();
    let mut have = self::have(any, at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-03-01T02:00:00Z"), at("2026-03-01T02:10:00Z"));
    let back = at("2026-03-04T14:00:00Z");
    let begun = live(&mut have, back, at("2026-03-05T12:00:00Z"), |_| true);
    assert_eq!((begun.len(), begun[0]), (2, back));
}

#[test]
fn what_fails_is_tried_again_later_each_time_and_says_so() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-03-01T02:00:00Z"), at("2026-03-01T02:10:00Z"));
    let begun = live(&mut have, at("2026-03-02T00:00:00Z"), at("2026-03-02T07:00:00Z"), |_| false);
    assert!(begun.len() >= 3, "{begun:?}");
    let waits: Vec<Millis> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted() && waits[0] == RETRY + 600_000 && waits.iter().all(|wait| *wait <= 2 * HOUR));
    // Outside its window it waits, and says why.
    let step = next(&have, at("2026-03-02T07:10:00Z"));
    assert!(why(&step).contains("no room") && why(&step).contains("next at 2026-03-03"), "{step:?}");
}

#[test]
fn what_is_too_old_is_a_fault_of_its_own_from_that_moment_on() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-03-01T02:00:00Z"), at("2026-03-01T02:10:00Z"));
    have.record.item = match &have.record.item {
        Item::Backup(job) => {
            let mut job = (**job).clone();
            job.schedule = Schedule::new("0 1 * * 0", "UTC", 0, None).unwrap();
            Item::Backup(Arc::new(job))
        }
        other => other.clone(),
    };
    // It is looked at again exactly when it becomes too old.
    let Step::Rest { look_again: Some(again) } = next(&have, at("2026-03-01T03:00:00Z")) else { panic!() };
    assert_eq!(again, at("2026-03-02T04:00:00Z") + 1);
    assert!(why(&next(&have, again)).contains("older than 26h"), "{:?}", next(&have, again));
    // Also while one runs.
    have.running = Some(Running { said: "backing up: 3 %".to_owned() });
    let step = next(&have, again);
    assert!(why(&step).contains("3 %") && why(&step).contains("older than 26h"), "{step:?}");
}

#[test]
fn what_was_cut_off_is_judged_before_anything_else() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.begun = Some(Begun { run: "r".to_owned(), verb: BACK_UP.to_owned(), at: 0 });
    assert_eq!(verb(&next(&have, at("2026-03-01T02:00:00Z"))), JUDGE);
    have.record.begun = None;
    have.record.told = false;
    assert_eq!(verb(&next(&have, at("2026-03-01T02:00:00Z"))), NOTE);
}

#[test]
fn restoring_is_tested_once_there_is_a_backup_and_then_by_age() {
    let mut tested = job();
    tested.test = Some(Test { every: 720 * HOUR, files: 3 });
    let mut have = have(tested, at("2026-03-01T00:00:00Z"));
    assert_eq!(verb(&next(&have, at("2026-03-01T05:30:00Z"))), BACK_UP);
    let good = at("2026-03-01T05:30:00Z");
    have.record.main.succeeded(good, good);
    assert_eq!(verb(&next(&have, good + 1)), TEST);
    have.record.proof.succeeded(good + 1, good + 2);
    assert_eq!(verb(&next(&have, good + 3)), "rest");
    have.record.proof.failed("differs".to_owned(), good + 4);
    assert!(why(&next(&have, good + 5)).contains("differs"));
}

#[test]
fn what_is_backed_up_is_purged_once_after_each_backup() {
    let mut purged = job();
    purged.purge =
        Some(crate::item::Purge { older_than: Some(HOUR), keep_free: None, archived: None, also: [].into() });
    let mut have = have(purged, at("2026-03-01T00:00:00Z"));
    let good = at("2026-03-01T05:30:00Z");
    have.record.main.succeeded(good, good);
    assert_eq!(verb(&next(&have, good + 1)), PURGE);
    // Snapshots that are to be held first are told first.
    have.record.told = false;
    assert_eq!(verb(&next(&have, good + 1)), NOTE);
    have.record.told = true;
    have.record.purge.succeeded(good + 1, good + 2);
    assert_eq!(verb(&next(&have, good + 3)), "rest");
    have.record.purge.failed("it is not mounted".to_owned(), good + 4);
    assert!(why(&next(&have, good + 5)).contains("purge failed: it is not mounted"));
}

/// What a clock that was ahead wrote down neither puts a purge off nor has one follow the other.
#[test]
fn a_purge_follows_backups_and_not_a_clock_that_was_ahead() {
    let mut purged = job();
    purged.purge =
        Some(crate::item::Purge { older_than: Some(HOUR), keep_free: None, archived: None, also: [].into() });
    let mut have = have(purged, at("2026-03-01T00:00:00Z"));
    let (good, ahead) = (at("2026-03-01T05:30:00Z"), at("2026-04-01T05:30:00Z"));
    have.record.main.succeeded(good, good);
    have.record.purge.succeeded(ahead, ahead);
    assert_eq!(verb(&next(&have, good + 1)), PURGE);
    have.record.main.succeeded(ahead, ahead);
    have.record.purge.succeeded(good + 1, good + 2);
    assert_eq!(verb(&next(&have, at("2026-03-01T08:00:00Z"))), "rest");
}

/// Ten thousand hosts with one nightly policy, each run ten minutes long: how many go on at once, hour by hour, also after a night that
/// nobody was there for.
#[test]
fn ten_thousand_hosts_with_one_policy_are_spread_over_their_window() {
    let (evening, morning) = (at("2026-03-03T20:00:00Z"), at("2026-03-04T08:00:00Z"));
    let item = Item::Backup(Arc::new(job()));
    let mut minutes = vec![0_u32; 12 * 60];
    for n in 0..10_000 {
        let key = Key::Backup {
            host: format!("web{n}.example.com").parse().unwrap(),
            policy: "nightly".parse().unwrap(),
            repository: "main".parse().unwrap(),
        };
        let mut have = have(job(), at("2026-03-01T00:00:00Z"));
        // Every third one missed the last two nights.
        let last = if n % 3 == 0 { "2026-03-01T05:00:00Z" } else { "2026-03-03T05:00:00Z" };
        have.record.main.succeeded(at(last), at(last));
        let (mut now, mut begun) = (evening, 0);
        while now < morning {
            let at = At {
                want: Some(&item),
                last: Some(&item),
                tried: &[],
                have: Some(&have),
                memo: &Value::Null,
            };
            match step(RETRY, &key, &at, now) {
                Step::Run { verb: BACK_UP, .. } => {
                    begun += 1;
                    let minute = usize::try_from((now - evening) / 60_000).unwrap();
                    minutes[minute..minute + 10].iter_mut().for_each(|count| *count += 1);
                    now += 600_000;
                    have.record.main.succeeded(now - 600_000, now);
                }
                Step::Rest { look_again: Some(again) } | Step::Wait { until: Some(again), .. } => now = again,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(begun, 1, "web{n}");
    }
    // From one o'clock on, four hours long: 10,000 * 10 / 240 are 417 at once.
    assert!(minutes[..5 * 60].iter().all(|count| *count == 0), "none before its time");
    let most = *minutes.iter().max().unwrap();
    assert!((417..=500).contains(&most), "{most}");
    let half = &minutes[5 * 60 + 15..9 * 60 - 15];
    assert!(half.iter().all(|count| (340..=500).contains(count)), "{half:?}");
}

/// One run while the clock was a month ahead.
#[test]
fn what_is_said_to_be_good_in_time_to_come_silences_nothing() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-04-01T02:00:00Z"), at("2026-04-01T02:10:00Z"));
    let now = at("2026-03-05T06:00:00Z");
    assert_eq!(verb(&next(&have, now)), BACK_UP, "it is due");
    // Once one is made now, it is not due again, also where a run in time to come did a part.
    let mut made = have.clone();
    made.record.main.succeeded(now, now);
    assert_eq!(verb(&next(&made, now + 1)), "rest");
    made.record.main.partial = Some(at("2026-04-01T02:00:00Z"));
    assert_eq!(verb(&next(&made, now + 1)), "rest");
    have.record.main.failed("no room".to_owned(), at("2026-04-01T02:10:00Z"));
    let step = next(&have, now);
    assert!(why(&step).contains("no good backup") || why(&step).contains("older than 26h"), "{step:?}");
    let Step::Wait { until: Some(until), .. } = step else { panic!("{step:?}") };
    assert!(until <= now + 24 * HOUR, "what failed in time to come does not put it off until then");
}

#[test]
fn what_was_done_in_part_is_tried_again_at_its_next_time_and_no_sooner() {
    let mut have = have(job(), at("2026-03-01T00:00:00Z"));
    have.record.main.succeeded(at("2026-03-01T02:00:00Z"), at("2026-03-01T02:10:00Z"));
    let first = at("2026-03-02T05:00:00Z");
    assert_eq!(verb(&next(&have, first)), BACK_UP);
    have.record.main.failed("some files could not be read".to_owned(), first + 600_000);
    have.record.main.partial = Some(first);
    let step = next(&have, first + 600_000);
    assert!(why(&step).contains("could not be read"), "{step:?}");
    let Step::Wait { until: Some(until), .. } = step else { panic!("{step:?}") };
    assert!(until >= at("2026-03-03T01:00:00Z"), "{until}");
    assert_eq!(verb(&next(&have, until)), BACK_UP);
}
