//! What is said in the log of who was refused: bounded, because whoever is refused decides how often.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many lines a second.
const LINES: u32 = 10;

/// The lines of the current second, and how many were left out since the last one.
pub(crate) struct Audit(Mutex<State>);

struct State {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self(Mutex::new(State { since: Instant::now(), lines: 0, left_out: 0 }))
    }
}

impl Audit {
    /// Says a line, unless too many were said just now; it is told how many were left out before it.
    pub(crate) fn line(&self, say: impl FnOnce(u64)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.since.elapsed() >= Duration::from_secs(1) {
            (state.since, state.lines) = (Instant::now(), 0);
        }
        if state.lines >= LINES {
            state.left_out += 1;
            return;
        }
        state.lines += 1;
        let left_out = std::mem::take(&mut state.left_out);
        drop(state);
        say(left_out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_and_no_more() {
        let (audit, mut said) = (Audit::default(), Vec::new());
        (0..100).for_each(|_| audit.line(|more| said.push(more)));
        assert_eq!(said, [0; LINES as usize]);
        audit.0.lock().unwrap().since = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        audit.line(|more| said.push(more));
        assert_eq!(said.last(), Some(&90));
    }
}
