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
    }
}

fn have(job: Job, since: Moment) -> Have {
    let record = Record {
        item: Item::Backup(Arc::new(job)),
        since,
        main: Track::default(),
        proof: Track::default(),
        last: None,
        begun: None,
        told: true,
    };
    Have { record, running: None }
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
