//! Faults as the log tells them: what is tried again each moment fails each moment, and is said once in a while.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long the same fault is not said again.
const QUIET: Duration = Duration::from_secs(30);
/// How many faults are remembered.
const MOST: usize = 64;

/// What was said, and when.
#[derive(Default)]
pub(crate) struct Faults {
    said: BTreeMap<String, Instant>,
    last: Option<String>,
}

impl Faults {
    /// Says a fault, unless it was said a moment ago.
    pub(crate) fn say(&mut self, fault: &str, now: Instant) {
        if self.is_news(fault, now) {
            tracing::warn!("{fault}");
        } else {
            tracing::debug!("{fault}");
        }
    }

    /// The last one, said or not.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    fn is_news(&mut self, fault: &str, now: Instant) -> bool {
        self.last = Some(fault.to_owned());
        if self.said.get(fault).is_some_and(|then| now < *then + QUIET) {
            return false;
        }
        if self.said.len() >= MOST {
            self.said.clear();
        }
        self.said.insert(fault.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_is_said_once_in_a_while() {
        let (mut faults, now) = (Faults::default(), Instant::now());
        assert!(faults.is_news("a", now) && faults.is_news("b", now));
        assert!(!faults.is_news("a", now + QUIET / 2) && faults.last() == Some("a"));
        assert!(faults.is_news("a", now + QUIET));
        // What is always another is said, and does not grow.
        assert!((0..1_000).all(|n| faults.is_news(&n.to_string(), now)));
        assert!(faults.said.len() <= MOST);
    }
}
