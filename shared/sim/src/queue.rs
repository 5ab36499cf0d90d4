//! Virtual time: what happens next, and when.
//!
//! Time stands still while something happens, and then jumps to the next event. Events of the same moment happen
//! in the order in which they were put in, so a run is a function of its seed alone.

use std::collections::BTreeMap;

use shoal_engine::Moment;

/// When every simulation starts: 2023-11-14T22:13:20Z.
pub(crate) const START: Moment = 1_700_000_000_000;

/// Events to come, and the time.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    now: Moment,
    next: u64,
    events: BTreeMap<(Moment, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { now: START, next: 0, events: BTreeMap::new() }
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Moment {
        self.now
    }

    /// `event` happens at `at`, or now when that has passed.
    pub(crate) fn at(&mut self, at: Moment, event: E) {
        self.events.insert((at.max(self.now), self.next), event);
        self.next += 1;
    }

    /// `event` happens after so many milliseconds.
    pub(crate) fn after(&mut self, millis: i64, event: E) {
        self.at(self.now.saturating_add(millis), event);
    }

    /// The next event that happens not later than `end`; time moves there. Without one, time moves to `end`.
    pub(crate) fn next(&mut self, end: Moment) -> Option<E> {
        match self.events.first_entry() {
            Some(first) if first.key().0 <= end => {
                self.now = first.key().0;
                Some(first.remove())
            }
            _ => {
                self.now = self.now.max(end);
                None
            }
        }
    }

    /// How many are to come.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}
