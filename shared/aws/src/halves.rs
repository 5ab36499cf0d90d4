//! How long halves of a refused call are tried.
//!
//! Where the answer names nothing of what was asked for, halves of it find what is refused, at a call for each half. What refuses the call as
//! such (a zone's quota of records, a group that is full) refuses every half of it in the same words, down to single ones: twice as many
//! calls as there are, at each sweep, of a rate that the whole account shares. So after a few refusals in one breath nothing is halved any
//! more, and each part that is left is tried once as it is.
//!
//! **What is given up so** has good ones among it. Where anything went, the next try comes soon and gets further: what went and the single
//! bad ones are out of it. It begins at the other end, so that many bad ones in a row do not hide the same good ones each time.

use std::sync::atomic::{AtomicBool, Ordering};

use shoal_agent::Fault;

/// So often in a row the same words may refuse: one bad among a thousand is found with eleven, two with not many more.
const MOST: u32 = 24;

/// The refusals of one batch.
#[derive(Debug)]
pub struct Halves {
    words: String,
    times: u32,
    went: bool,
    last_first: bool,
}

impl Halves {
    /// Nothing was refused yet. `turn` is kept by the caller from one batch to the next.
    #[must_use]
    pub fn begin(turn: &AtomicBool) -> Self {
        let last_first = turn.fetch_xor(true, Ordering::Relaxed);
        Self { words: String::new(), times: 0, went: false, last_first }
    }

    /// A part was refused in these words. Whether halves of it are worth a try.
    pub fn refused(&mut self, words: &str) -> bool {
        if self.words == words {
            self.times = self.times.saturating_add(1);
        } else {
            (self.words, self.times) = (words.to_owned(), 1);
        }
        self.times <= MOST
    }

    /// The halves of a part; the second one is to be tried first.
    #[must_use]
    pub fn split<T>(&self, mut part: Vec<T>) -> [Vec<T>; 2] {
        let right = part.split_off(part.len() / 2);
        if self.last_first { [part, right] } else { [right, part] }
    }

    /// Something was made, or what is bad was named.
    pub fn went(&mut self) {
        (self.times, self.went) = (0, true);
    }

    /// What a part of more than one failed of that was given up, once all has been tried.
    #[must_use]
    pub fn given_up(&self, mut fault: Fault) -> Fault {
        fault.permanent &= !self.went;
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tries halves of these records as the targets do. Answers the calls, which records were made, and which are to be tried again soon.
    fn attempt(
        records: Vec<usize>,
        turn: &AtomicBool,
        refuses: impl Fn(&[usize], usize) -> bool,
    ) -> (usize, Vec<usize>, Vec<usize>) {
        let (mut halves, mut parts) = (Halves::begin(turn), vec![records]);
        let (mut calls, mut made, mut given) = (0, Vec::new(), Vec::new());
        while let Some(part) = parts.pop() {
            calls += 1;
            if !refuses(&part, made.len()) {
                halves.went();
                made.extend(part);
            } else if halves.refused("it is refused") && part.len() > 1 {
                parts.extend(halves.split(part));
            } else if part.len() > 1 {
                given.extend(part);
            }
        }
        let fault = halves.given_up(Fault::new("make them", "it is refused").permanent());
        given.retain(|_| !fault.permanent);
        given.sort_unstable();
        (calls, made, given)
    }

    fn make(count: usize, refuses: impl Fn(&[usize], usize) -> bool) -> (usize, Vec<usize>, Vec<usize>) {
        attempt((0..count).collect(), &AtomicBool::new(false), refuses)
    }

    #[test]
    fn a_bad_record_is_found_and_a_batch_that_is_refused_as_such_is_given_up() {
        for bad in [0, 499, 999] {
            let (calls, made, _) = make(1_000, |part, _| part.contains(&bad));
            assert!(made.len() == 999 && calls <= 22, "{bad}: {calls}");
        }
        let several = [0, 1, 2, 500, 501, 998];
        let (_, made, _) = make(1_000, |part, _| several.iter().any(|bad| part.contains(bad)));
        assert_eq!(made.len(), 994);
        let (calls, made, again) = make(1_000, |_, _| true);
        assert!(made.is_empty() && again.is_empty() && calls <= 40, "{calls}");
        // There is room for 400 more.
        let (calls, made, _) = make(1_000, |part, made| made + part.len() > 400);
        assert!(made.len() > 380 && calls <= 80, "{calls} {}", made.len());
    }

    #[test]
    fn good_records_beside_many_bad_ones_are_made_soon() {
        for bad in [10..41, 100..141, 0..100, 480..520, 960..1_000] {
            let turn = AtomicBool::new(false);
            let (mut calls, mut made, mut due) = (0, Vec::new(), (0..1_000).collect::<Vec<usize>>());
            while !due.is_empty() {
                let (more, went, again) =
                    attempt(due, &turn, |part, _| part.iter().any(|one| bad.contains(one)));
                (calls, due) = (calls + more, again);
                made.extend(went);
            }
            assert_eq!(made.len(), 1_000 - bad.len(), "{bad:?} {calls}");
            assert!(calls <= 120, "{bad:?}: {calls}");
        }
    }
}
