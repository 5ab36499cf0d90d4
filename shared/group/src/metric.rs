//! How many machines a measurement asks for. The number is an argument: who asks Prometheus, and where, is no matter of the database.
//!
//! What is missing, no number, infinite or less than nothing changes nothing. A step has a limit, and a wait before it.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::spec::Span;

/// How many steps a forecast looks ahead.
const AHEAD: usize = 5;

/// A query, and what its answer is to be.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// What Prometheus is asked. The answer is one number.
    pub query: String,
    /// What the number is to be, as long as it can be.
    pub target: f64,
    /// What the number is.
    #[serde(default)]
    pub of: Of,
    /// Differences of so many percent of the target change nothing.
    #[serde(default = "tolerance")]
    #[schemars(range(max = 100))]
    pub tolerance: u8,
    /// How it grows.
    #[serde(default = "up")]
    pub up: Pace,
    /// How it shrinks.
    #[serde(default = "down")]
    pub down: Pace,
}

/// What a number is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Of {
    /// The mean of all active machines, such as how busy a processor is. It says nothing of none.
    #[default]
    Average,
    /// What all have together, such as requests a second, or jobs that wait; the target is each machine's part. It brings a group back from
    /// zero.
    Total,
}

/// How fast.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// So long after the last change of the number, whichever.
    pub wait: Span,
    /// At most so many at once.
    #[schemars(range(min = 1))]
    pub step: u32,
}

fn tolerance() -> u8 {
    10
}

fn up() -> Pace {
    Pace { wait: Span(Duration::from_secs(60)), step: 4 }
}

fn down() -> Pace {
    Pace { wait: Span(Duration::from_secs(300)), step: 1 }
}

/// What is known of a group when its measurement is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// How many are wanted so far.
    pub(crate) wanted: u32,
    /// How many are active.
    pub(crate) active: u32,
    /// Never fewer, never more.
    pub(crate) bounds: (u32, u32),
    /// When the number changed last.
    pub(crate) scaled: Option<Timestamp>,
    /// The time.
    pub(crate) at: Timestamp,
}

/// What a measurement asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// How many are wanted from now on.
    pub(crate) wanted: u32,
    /// Why.
    pub(crate) why: String,
    /// Whether it would be otherwise, and waits.
    pub(crate) waits: bool,
    /// If the number goes on as it is: after how long how many.
    pub(crate) ahead: Vec<(Duration, u32)>,
}

impl Metric {
    /// Whether it makes sense within these bounds.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, min: Option<u32>, max: Option<u32>) -> Result<(), String> {
        if self.query.trim().is_empty() {
            return Err("`metric.query` is empty".to_owned());
        }
        if !self.target.is_finite() || self.target <= 0.0 {
            return Err("`metric.target` is a number above 0".to_owned());
        }
        if max.is_none() {
            return Err("a `metric` takes `max`: nothing else stops it".to_owned());
        }
        if self.of == Of::Average && min.unwrap_or(0) == 0 {
            return Err("a mean over no machines says nothing: `min: 1`, or `metric.of: total`".to_owned());
        }
        if self.up.step == 0 || self.down.step == 0 {
            return Err(
                "a step of 0 is none: `metric.up.step` and `metric.down.step` are at least 1".to_owned()
            );
        }
        if self.tolerance > 100 {
            return Err("`metric.tolerance` is a share in percent".to_owned());
        }
        Ok(())
    }

    /// How many are wanted.
    #[must_use]
    pub(crate) fn judge(&self, measured: Option<&Result<f64, String>>, now: &Now) -> Verdict {
        let hold = |why: String| Verdict { wanted: now.wanted, why, waits: false, ahead: Vec::new() };
        let value = match measured {
            None => return hold("as it is: nothing was measured".to_owned()),
            Some(Err(why)) => return hold(format!("as it is: nothing was measured: {why}")),
            Some(Ok(value)) if !value.is_finite() || *value < 0.0 => {
                return hold(format!("as it is: {value} is no measurement"));
            }
            Some(Ok(value)) => *value,
        };
        if self.of == Of::Average && now.active == 0 {
            return hold("as it is: nobody is active, and the measurement is a mean".to_owned());
        }
        let said = match self.of {
            Of::Average => format!("{value} of {} at {} active", self.target, now.active),
            Of::Total => format!("{value} of {} for each", self.target),
        };
        let need = self.need(value, now);
        if need == now.wanted {
            return hold(format!("right as it is: {said}"));
        }
        // Who is still coming or going is no part of the measurement yet.
        if need < now.wanted && now.active != now.wanted {
            let why =
                format!("as it is: {said}; {} are active, and fewer are wanted when all are", now.active);
            return Verdict { waits: true, ..hold(why) };
        }
        let left = self.left(need, now);
        let mut ahead = self.ahead(need, now, left);
        if left > Duration::ZERO {
            let why = format!("as it is for another {left:.0?}: {said}");
            return Verdict { waits: true, ahead, ..hold(why) };
        }
        let wanted = self.step(now.wanted, need);
        ahead.retain(|(after, _)| *after > Duration::ZERO);
        Verdict { wanted, why: said, waits: false, ahead }
    }

    /// How many would do, within the bounds.
    fn need(&self, value: f64, now: &Now) -> u32 {
        let load = match self.of {
            Of::Average => value * f64::from(now.active),
            Of::Total => value,
        };
        let each = match self.of {
            Of::Average => value,
            Of::Total if now.wanted == 0 => f64::INFINITY,
            Of::Total => value / f64::from(now.wanted),
        };
        let (min, max) = now.bounds;
        let off = (each / self.target - 1.0).abs();
        let near = off * 100.0 <= f64::from(self.tolerance);
        let all_here = now.active == now.wanted || self.of == Of::Total;
        if load == 0.0 {
            return min;
        }
        if near && all_here {
            return now.wanted.clamp(min, max);
        }
        let need = (load / self.target).ceil();
        // A cast of floats ends at the ends of the integers.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a whole number, not below 0"
        )]
        let need = need.min(f64::from(u32::MAX)) as u32;
        need.clamp(min, max)
    }

    fn pace(&self, from: u32, to: u32) -> &Pace {
        if to > from { &self.up } else { &self.down }
    }

    fn step(&self, from: u32, to: u32) -> u32 {
        let step = self.pace(from, to).step;
        if to > from { to.min(from.saturating_add(step)) } else { to.max(from.saturating_sub(step)) }
    }

    /// How long is waited before a step.
    fn left(&self, need: u32, now: &Now) -> Duration {
        let wait = self.pace(now.wanted, need).wait.0;
        let since = now.scaled.map(|then| now.at.duration_since(then));
        // A clock that was set back makes nobody wait longer than once.
        let since = since.map(|since| Duration::try_from(since).unwrap_or_default());
        since.map_or(Duration::ZERO, |since| wait.saturating_sub(since))
    }

    fn ahead(&self, need: u32, now: &Now, mut after: Duration) -> Vec<(Duration, u32)> {
        let (mut ahead, mut is) = (Vec::new(), now.wanted);
        while is != need && ahead.len() < AHEAD {
            is = self.step(is, need);
            ahead.push((after, is));
            after += self.pace(is, need).wait.0;
        }
        ahead
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn metric(more: serde_json::Value) -> Metric {
        let mut all = json!({"query": "avg(cpu)", "target": 75.0});
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            all[name] = value;
        }
        serde_json::from_value(all).unwrap()
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn now(wanted: u32, active: u32) -> Now {
        Now { wanted, active, bounds: (1, 20), scaled: Some(time(0)), at: time(3600) }
    }

    #[test]
    fn it_follows_the_measurement_in_steps() {
        let metric = metric(json!({}));
        let wanted = |value: f64, now: &Now| metric.judge(Some(&Ok(value)), now).wanted;
        assert_eq!(wanted(75.0, &now(4, 4)), 4);
        assert_eq!(wanted(82.0, &now(4, 4)), 4, "within the tolerance");
        assert_eq!(wanted(90.0, &now(4, 4)), 5);
        assert_eq!(wanted(300.0, &now(4, 4)), 8, "16 would do, 4 at once");
        assert_eq!(wanted(30.0, &now(10, 10)), 9, "4 would do, 1 at once");
        assert_eq!(wanted(0.0, &now(1, 1)), 1, "never below the least");
        assert_eq!(wanted(1000.0, &now(19, 19)), 20, "never above the most");
        let ahead = metric.judge(Some(&Ok(300.0)), &now(4, 4)).ahead;
        let minute = Duration::from_secs(60);
        assert_eq!(ahead, [(minute, 12), (2 * minute, 16)]);
    }

    #[test]
    fn it_waits_after_a_change() {
        let metric = metric(json!({}));
        let soon = Now { at: time(59), ..now(4, 4) };
        let waits = metric.judge(Some(&Ok(150.0)), &soon);
        assert_eq!((waits.wanted, waits.waits), (4, true));
        assert_eq!(waits.ahead, [(Duration::from_secs(1), 8)]);
        assert_eq!(metric.judge(Some(&Ok(150.0)), &Now { at: time(60), ..soon }).wanted, 8);
        // Down takes longer, and nobody who is still coming.
        assert_eq!(metric.judge(Some(&Ok(10.0)), &Now { at: time(299), ..soon }).wanted, 4);
        assert_eq!(metric.judge(Some(&Ok(10.0)), &Now { at: time(300), ..soon }).wanted, 3);
        let coming = metric.judge(Some(&Ok(10.0)), &now(4, 3));
        assert_eq!((coming.wanted, coming.waits), (4, true));
        // More are wanted than those that are coming would be.
        assert_eq!(metric.judge(Some(&Ok(150.0)), &now(4, 3)).wanted, 6);
        assert_eq!(metric.judge(Some(&Ok(150.0)), &now(4, 2)).wanted, 4);
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        let metric = metric(json!({}));
        let missing: [Option<Result<f64, String>>; 6] = [
            None,
            Some(Err("no answer".to_owned())),
            Some(Ok(f64::NAN)),
            Some(Ok(f64::INFINITY)),
            Some(Ok(f64::NEG_INFINITY)),
            Some(Ok(-1.0)),
        ];
        for value in missing {
            let verdict = metric.judge(value.as_ref(), &now(7, 7));
            assert_eq!((verdict.wanted, verdict.waits), (7, false), "{value:?}");
            assert!(verdict.why.starts_with("as it is"), "{}", verdict.why);
        }
        assert_eq!(metric.judge(Some(&Ok(0.0)), &now(3, 0)).wanted, 3, "a mean over nobody");
    }

    #[test]
    fn from_zero_and_back() {
        let metric = metric(json!({"of": "total", "target": 100.0, "down": {"wait": "1m", "step": 10}}));
        let now = |wanted| Now { bounds: (0, 20), ..now(wanted, wanted) };
        assert_eq!(metric.judge(Some(&Ok(0.0)), &now(0)).wanted, 0);
        assert_eq!(metric.judge(Some(&Ok(1.0)), &now(0)).wanted, 1);
        assert_eq!(metric.judge(Some(&Ok(250.0)), &now(0)).wanted, 3);
        assert_eq!(metric.judge(Some(&Ok(0.0)), &now(3)).wanted, 0);
        assert!(metric.check(Some(0), Some(20)).is_ok());
        assert!(self::metric(json!({})).check(Some(0), Some(20)).is_err());
    }

    proptest! {
        #[test]
        fn it_stays_within_bounds_and_steps(
            value in proptest::num::f64::ANY, wanted in 0_u32..50, active in 0_u32..50, min in 1_u32..20, more in 0_u32..20, second in 0_i64..1000,
        ) {
            let metric = metric(json!({}));
            let wanted = wanted.clamp(min, min + more);
            let now = Now { wanted, active, bounds: (min, min + more), scaled: Some(time(0)), at: time(second) };
            let verdict = metric.judge(Some(&Ok(value)), &now);
            prop_assert!((min..=min + more).contains(&verdict.wanted));
            prop_assert!(verdict.wanted <= wanted + 4 && verdict.wanted + 1 >= wanted);
            prop_assert!(verdict.wanted <= wanted || second >= 60);
            prop_assert!(verdict.wanted >= wanted || second >= 300);
        }
    }
}
