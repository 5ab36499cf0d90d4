//! Changes of a moment ago, which a look right after them may not show yet: AWS does not say how soon one does.
//!
//! By a look that lags behind, a target could leave beside one that has left already, so that fewer than `least` stay; and one that was just
//! registered would be taken for missing, be forgotten, and stay in its group as nobody's. So what was done is laid over each look
//! for a while. That is remembered by this process alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::cloud::{Health, Targets};
use crate::groups::Endpoint;

/// For how long.
const LATE: Duration = Duration::from_secs(10);

/// What was done to one group: targets that were registered (`true`) or deregistered, and when.
#[derive(Debug, Default)]
pub(super) struct Lately(BTreeMap<Endpoint, (Instant, bool)>);

impl Lately {
    /// It was registered or deregistered.
    pub(super) fn note(&mut self, at: &Endpoint, registered: bool, now: Instant) {
        self.0.insert(at.clone(), (now, registered));
    }

    /// Makes of a look what it shows when it does not lag behind.
    pub(super) fn lay_over(&mut self, targets: &mut Targets, now: Instant) {
        self.0.retain(|_, (then, _)| now.saturating_duration_since(*then) < LATE);
        for (at, (_, registered)) in &self.0 {
            set(targets, at, *registered);
        }
    }
}

/// Notes in what is there that a target was registered or deregistered. Answers whether that was otherwise.
pub(super) fn set(targets: &mut Targets, at: &Endpoint, registered: bool) -> bool {
    match targets.get_mut(at) {
        Some(health) if registered => std::mem::take(&mut health.draining),
        Some(health) => {
            health.serves = false;
            !std::mem::replace(&mut health.draining, true)
        }
        None if registered => {
            let new = Health { draining: false, serves: false, zone: None };
            targets.insert(at.clone(), new).is_none()
        }
        // It has drained by now.
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::*;

    #[test]
    fn what_was_done_a_moment_ago_is_so_whatever_a_look_shows() {
        let at = |text: &str| Endpoint::try_from(text.to_owned()).unwrap();
        let health = |draining| Health { draining, serves: !draining, zone: None };
        let (one, two, three) = (at("192.0.2.1:80"), at("192.0.2.2:80"), at("192.0.2.3:80"));
        let late = Targets::from([(one.clone(), health(false)), (two.clone(), health(true))]);
        let (mut lately, began) = (Lately::default(), Instant::now());
        lately.note(&one, false, began);
        lately.note(&two, true, began);
        lately.note(&three, true, began);
        let mut seen = late.clone();
        lately.lay_over(&mut seen, began + Duration::from_secs(9));
        assert!(seen[&one].draining && !seen[&one].serves);
        assert!(!seen[&two].draining && !seen[&three].draining && !seen[&three].serves);
        // One that has gone has drained.
        let mut seen = Targets::new();
        lately.lay_over(&mut seen, began + Duration::from_secs(9));
        assert!(!seen.contains_key(&one) && seen.len() == 2);
        let mut seen = late.clone();
        lately.lay_over(&mut seen, began + LATE);
        assert_eq!(seen, late);
    }

    #[test]
    fn what_is_so_already_is_nothing_new() {
        let one = Endpoint::try_from("192.0.2.1:80".to_owned()).unwrap();
        let mut targets = Targets::new();
        let told =
            [false, true, true, false, false, true].map(|registered| set(&mut targets, &one, registered));
        assert_eq!(told, [false, true, false, true, false, true]);
    }
}
