//! When to try again: exponentially later with each failure, a little apart from the others, and never more than
//! so many a second for one target.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::agent::Agent;
use crate::item::Planned;
use crate::options::Options;
use crate::{Millis, Moment};

/// How often something failed, and when it is tried again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failures: u32,
    /// `Moment::MAX`: not before something changes.
    pub(crate) at: Moment,
    /// What of a unit failed; of an item [`Tried`] says it.
    pub(crate) what: String,
    pub(crate) why: String,
}

/// What was tried of an item: another change is another matter and goes at once.
pub(crate) struct Tried<A: Agent> {
    verb: &'static str,
    to: Option<Arc<A::Item>>,
    pub(crate) retry: Retry,
}

impl<A: Agent> Default for Tried<A> {
    fn default() -> Self {
        Self { verb: "", to: None, retry: Retry::default() }
    }
}

impl<A: Agent> Tried<A> {
    /// It was tried for the first time.
    pub(crate) fn of(planned: Option<&Planned<A>>, now: Moment) -> Self {
        let retry = Retry { at: now, ..Retry::default() };
        Self { verb: planned.map_or("", |p| p.verb), to: planned.and_then(|p| p.to.clone()), retry }
    }

    /// It was tried again, or something else was: how often it failed goes on.
    pub(crate) fn again(&mut self, planned: Option<&Planned<A>>) -> &mut Self {
        let retry = std::mem::take(&mut self.retry);
        *self = Self { retry, ..Self::of(planned, 0) };
        self
    }

    /// Whether this is what was tried.
    pub(crate) fn is(&self, planned: Option<&Planned<A>>) -> bool {
        planned.map_or("", |p| p.verb) == self.verb && planned.and_then(|p| p.to.as_ref()) == self.to.as_ref()
    }
}

impl Retry {
    /// One more failure of `what`.
    pub(crate) fn failed(&mut self, options: &Options, what: &impl Hash, permanent: bool, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        self.at =
            if permanent { Moment::MAX } else { now.saturating_add(pause(options, what, self.failures)) };
    }
}

/// How long to wait after so many failures: doubled each time, capped, and up to a quarter less, so that what
/// failed together is not tried together.
fn pause(options: &Options, what: &impl Hash, failures: u32) -> Millis {
    let doubled = options.retry_first.saturating_mul(1 << failures.saturating_sub(1).min(20));
    let most = doubled.min(options.retry_most).max(1);
    let mut hash = DefaultHasher::new();
    (options.seed, failures).hash(&mut hash);
    what.hash(&mut hash);
    let quarter = (most / 4).max(1);
    most - Millis::try_from(hash.finish() % quarter.unsigned_abs()).unwrap_or(0)
}

/// How many retries a second one target gets.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: i64,
    milli_tokens: i64,
    at: Moment,
}

impl Bucket {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = i64::from(per_second.max(1));
        Self { per_second, milli_tokens: per_second * 10_000, at: Moment::MIN }
    }

    /// Takes a token, or says when there may be one.
    pub(crate) fn take(&mut self, now: Moment) -> Result<(), Moment> {
        let gained = now.saturating_sub(self.at).clamp(0, 60_000) * self.per_second;
        self.milli_tokens = (self.milli_tokens + gained).min(self.per_second * 10_000);
        self.at = now;
        if self.milli_tokens >= 1_000 {
            self.milli_tokens -= 1_000;
            return Ok(());
        }
        Err(now.saturating_add((1_000 - self.milli_tokens) / self.per_second + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nature;

    #[test]
    fn waits_double_up_to_the_cap_and_differ_between_keys() {
        let options = Options::new("a", Nature::default(), 1);
        let mut last = 0;
        for failures in 1..40 {
            let wait = pause(&options, &"key", failures);
            let full = (1_000i64 << (failures - 1).min(20)).min(300_000);
            assert!(wait <= full && wait > full * 3 / 4 - 1, "{failures}: {wait} of {full}");
            assert!(wait >= last / 2);
            last = wait;
        }
        let waits: std::collections::BTreeSet<_> = (0..50).map(|key| pause(&options, &key, 9)).collect();
        assert!(waits.len() > 40);
    }

    #[test]
    fn the_bucket_gives_so_many_a_second() {
        let mut bucket = Bucket::new(10);
        let burst = (0..1000).take_while(|_| bucket.take(0).is_ok()).count();
        assert_eq!(burst, 100);
        let given = (1..=1000).filter(|now| bucket.take(*now).is_ok()).count();
        assert_eq!(given, 10);
        let again = bucket.take(1000).unwrap_err();
        assert!(bucket.take(again).is_ok());
    }
}
