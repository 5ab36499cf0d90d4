//! How many a group is to have now: what people wrote, what the time says, what was measured.
//!
//! * The document says a number, and the newest entry of the schedule that has come says another: of the two, the one that was said last.
//! * Where there is a metric, that number is where it begins, and it goes on from there.
//! * All of it stays within `min` and `max`, of the newest entry where that says them.

use std::cmp::Ordering;
use std::time::Duration;

use jiff::Timestamp;

use crate::metric::{Now, Verdict};
use crate::schedule::{coming, newest};
use crate::spec::{MOST, Spec};
use crate::state::State;

/// How many are wanted, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many.
    pub wanted: u32,
    /// Why.
    pub why: String,
    /// The document's number decides, within the bounds.
    pub by_document: bool,
    /// It would be another number, and waits for its time.
    pub waits: bool,
    /// What comes if all goes on as it is: after how long how many.
    pub ahead: Vec<(Duration, u32)>,
}

/// How many are wanted now. What there is to remember is written into `state`.
pub(crate) fn size(
    spec: &Spec,
    state: &mut State,
    active: u32,
    measured: Option<&Result<f64, String>>,
    at: Timestamp,
) -> Size {
    let said = spec.said();
    if state.said != Some(said) {
        (state.said, state.said_at) = (Some(said), Some(at));
    }
    let newest = newest(&spec.schedule, at);
    let entry = newest.map(|(_, entry)| entry);
    let min = entry.and_then(|entry| entry.min).or(spec.min).unwrap_or(0).min(MOST);
    let max = entry.and_then(|entry| entry.max).or(spec.max).unwrap_or(MOST).clamp(min, MOST);
    // What was said last, and when.
    let timed = newest.and_then(|(time, entry)| Some((time, entry.count?, &entry.at)));
    let timed = timed.filter(|(time, ..)| state.said_at.is_none_or(|said_at| *time > said_at));
    let (since, number, why) = match timed {
        Some((time, count, entry)) => (Some(time), count, format!("the schedule's {entry:?}")),
        None => (state.said_at, said, "its document".to_owned()),
    };
    let by_document = timed.is_none();
    let fixed = |wanted: u32| {
        let bound = wanted.clamp(min, max);
        let why = match bound.cmp(&wanted) {
            Ordering::Equal => format!("{why} says so"),
            Ordering::Less => format!("{why} says {wanted}, which is more than `max: {max}`"),
            Ordering::Greater => format!("{why} says {wanted}, which is less than `min: {min}`"),
        };
        let next = coming(&spec.schedule, at).and_then(|(time, entry)| {
            let after = Duration::try_from(time.duration_since(at)).ok()?;
            Some((
                after,
                entry
                    .count?
                    .clamp(entry.min.unwrap_or(min), entry.max.unwrap_or(max).max(entry.min.unwrap_or(min))),
            ))
        });
        Size { wanted: bound, why, by_document, waits: false, ahead: next.into_iter().collect() }
    };
    let size = match (&spec.metric, state.wanted) {
        (None, _) | (_, None) => fixed(number),
        // A number was said after the metric last decided: it begins there.
        (Some(_), Some(_)) if since.is_some_and(|since| state.scaled.is_none_or(|scaled| since > scaled)) => {
            fixed(number)
        }
        (Some(metric), Some(wanted)) => {
            let bound = wanted.clamp(min, max);
            let now = Now { wanted: bound, active, bounds: (min, max), scaled: state.scaled, at };
            let Verdict { wanted, why, waits, ahead } = metric.judge(measured, &now);
            Size { wanted, why, by_document: false, waits, ahead }
        }
    };
    if state.wanted != Some(size.wanted) {
        (state.wanted, state.why) = (Some(size.wanted), size.why.clone());
        state.scaled = Some(at);
    } else if since.is_some_and(|since| state.scaled.is_none_or(|scaled| since > scaled)) {
        state.scaled = Some(at);
    }
    size
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(more: Value) -> Spec {
        let mut group = json!({"size": {"cpu": 2}, "slots": {"name": "a{slot}"}});
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            group[name] = value;
        }
        Spec::read(group).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        format!("2026-07-01T{text}Z").parse().unwrap()
    }

    fn wanted(spec: &Spec, state: &mut State, at: &str) -> u32 {
        size(spec, state, 0, None, time(at)).wanted
    }

    #[test]
    fn the_document_says_it_within_its_bounds() {
        let mut state = State::default();
        assert_eq!(wanted(&spec(json!({"count": 5})), &mut state, "10:00:00"), 5);
        assert_eq!(state.scaled, Some(time("10:00:00")));
        assert_eq!(wanted(&spec(json!({"count": 5})), &mut state, "11:00:00"), 5);
        assert_eq!(state.scaled, Some(time("10:00:00")), "nothing changed");
        assert_eq!(wanted(&spec(json!({"count": 9, "max": 7})), &mut state, "11:00:00"), 7);
        assert_eq!(wanted(&spec(json!({"min": 2})), &mut state, "11:00:00"), 2);
        assert_eq!(wanted(&spec(json!({"layout": {"sites": {"a": 1, "c": 2}}})), &mut state, "11:00:00"), 3);
    }

    #[test]
    fn of_the_schedule_and_a_person_the_last_word_counts() {
        let day = json!([{"at": "0 8 * * *", "count": 9}, {"at": "0 20 * * *", "count": 2}]);
        let mut state = State::default();
        let by_hand = |count: u32| spec(json!({"count": count, "schedule": day}));
        assert_eq!(wanted(&by_hand(4), &mut state, "07:00:00"), 4, "what is written now is said now");
        assert_eq!(wanted(&by_hand(4), &mut state, "08:00:00"), 9);
        assert_eq!(wanted(&by_hand(5), &mut state, "12:00:00"), 5);
        assert_eq!(wanted(&by_hand(5), &mut state, "19:59:59"), 5);
        let size = size(&by_hand(5), &mut state, 0, None, time("20:00:00"));
        assert_eq!((size.wanted, size.ahead), (2, vec![(Duration::from_secs(12 * 3600), 9)]));
    }

    #[test]
    fn a_metric_goes_on_from_what_was_said() {
        let metric = json!({"query": "q", "target": 75.0});
        let group = |count: u32| spec(json!({"count": count, "min": 1, "max": 20, "metric": metric}));
        let mut state = State::default();
        let mut judge = |count: u32, active: u32, value: f64, at: &str| {
            size(&group(count), &mut state, active, Some(&Ok(value)), time(at)).wanted
        };
        assert_eq!(judge(4, 0, 300.0, "10:00:00"), 4);
        assert_eq!(judge(4, 4, 150.0, "10:00:30"), 4, "it waits");
        assert_eq!(judge(4, 4, 150.0, "10:01:00"), 8);
        assert_eq!(judge(6, 8, 75.0, "10:01:01"), 6, "a person says otherwise");
        assert_eq!(judge(6, 6, 75.0, "10:30:00"), 6);
        assert_eq!(judge(6, 6, f64::NAN, "10:30:00"), 6);
        // The same number said again is no new word.
        assert_eq!(judge(6, 6, 150.0, "10:31:00"), 10);
        assert_eq!(judge(6, 10, 75.0, "10:40:00"), 10);
    }

    #[test]
    fn the_schedule_moves_the_bounds_of_a_metric() {
        let group = spec(json!({
            "min": 1, "max": 20, "metric": {"query": "q", "target": 75.0},
            "schedule": [{"at": "0 8 * * *", "min": 5}, {"at": "0 20 * * *", "min": 1}],
        }));
        let mut state = State::default();
        let mut judge =
            |active: u32, at: &str| size(&group, &mut state, active, Some(&Ok(75.0)), time(at)).wanted;
        assert_eq!(judge(0, "07:00:00"), 1);
        assert_eq!(judge(1, "08:00:00"), 5);
        assert_eq!(judge(5, "20:00:01"), 5, "what is right as it is stays");
    }
}
