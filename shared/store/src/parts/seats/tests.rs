//! The index answers what asking every filter would; and who is to be told is, in turn and not all at once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::Filter;

const KEYS: [&str; 10] = [
    "dns/a",
    "dns/a/members/@tags/t",
    "dns/a/members/h1",
    "dns/ab/members/h1",
    "dns/b",
    "facts/dns/h1",
    "hosts/h1",
    "hosts/h2",
    "lb/a/members/h1",
    "lb/a/members/h2",
];

fn range() -> impl Strategy<Value = Range> {
    prop_oneof![
        1 => Just(Range::All),
        4 => prop::sample::select(&KEYS[..]).prop_map(|key| Range::Key(key.parse().unwrap())),
        2 => prop::sample::select(&["h1", "h2", "@tags/t"][..]).prop_map(|m| Range::Naming(m.parse().unwrap())),
        2 => prop::sample::select(&["h1", "h2"][..]).prop_map(|h| Range::Concerning(h.parse().unwrap())),
        4 => prop::sample::select(&["", "dns/", "dns/a/", "dns/a/members/", "lb/", "lb/a/members/h1/", "x/"][..])
            .prop_map(|prefix| Range::Prefix(prefix.to_owned())),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Take(Vec<Range>),
    /// One of those that are there, counted round.
    Leave(usize),
    Rouse(usize),
    Write(Vec<Key>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => prop::collection::vec(range(), 0..4).prop_map(Op::Take),
        1 => (0..100usize).prop_map(Op::Leave),
        2 => (0..100usize).prop_map(Op::Rouse),
        4 => prop::sample::subsequence(&KEYS[..], 1..5)
            .prop_map(|keys| Op::Write(keys.iter().map(|key| key.parse().unwrap()).collect())),
    ]
}

/// Whether somebody woke it since this was asked last.
fn woken(wake: &Notify) -> bool {
    use futures::FutureExt;
    wake.notified().now_or_never().is_some()
}

proptest! {
    #[test]
    fn those_are_woken_whose_filter_passes_one_of_the_keys(ops in prop::collection::vec(op(), 0..60)) {
        let mut seats = Seats::default();
        let mut model: BTreeMap<u64, (Filter, Arc<Notify>, Option<Revision>)> = BTreeMap::new();
        let pick = |model: &BTreeMap<u64, _>, n: usize| model.keys().nth(n % model.len().max(1)).copied();
        for (n, op) in ops.into_iter().enumerate() {
            match op {
                Op::Take(ranges) => {
                    let (id, wake) = seats.take(ranges.clone());
                    prop_assert!(model.insert(id, (Filter::of(ranges), wake, None)).is_none());
                }
                Op::Leave(n) => if let Some(id) = pick(&model, n) {
                    seats.leave(id);
                    model.remove(&id);
                },
                Op::Rouse(n) => if let Some(id) = pick(&model, n) {
                    prop_assert_eq!(seats.rouse(id), model.get_mut(&id).unwrap().2.take());
                },
                Op::Write(keys) => {
                    let revision = Revision(n as u64 + 1);
                    seats.written(revision, keys.iter());
                    for (filter, wake, first) in model.values_mut() {
                        let passes = keys.iter().any(|key| filter.passes(key));
                        prop_assert_eq!(woken(wake), passes, "{:?} of {:?}", filter, keys);
                        if passes {
                            first.get_or_insert(revision);
                        }
                    }
                }
            }
        }
        for id in model.keys() {
            seats.leave(*id);
        }
        prop_assert!(seats.is_empty() && seats.keys.is_empty() && seats.naming.is_empty());
        prop_assert!(seats.prefixes.is_empty() && seats.lengths.is_empty(), "{:?}", seats);
    }
}

/// Calls [`Seats::tell`] whenever it wants to be; answers who is awake after how long.
fn told(
    seats: &mut Seats,
    wakes: &[Arc<Notify>],
    newest: Revision,
    mut now: Instant,
) -> Vec<Option<Duration>> {
    let (begun, mut told) = (now, vec![None; wakes.len()]);
    for _ in 0..10_000 {
        let next = seats.tell(newest, now);
        let mut count = 0;
        for (wake, told) in wakes.iter().zip(&mut told) {
            if woken(wake) {
                assert_eq!(told.replace(now - begun), None, "once");
                count += 1;
            }
        }
        assert!(count <= AT_ONCE, "{count} at once");
        let Some(next) = next else { return told };
        now = now.max(next);
    }
    panic!("it does not come to rest");
}

#[test]
fn all_that_are_due_are_told_but_not_all_at_once() {
    let (mut seats, now, second) = (Seats::default(), Instant::now(), Duration::from_secs(1));
    let (ids, wakes): (Vec<u64>, Vec<_>) = (0..3000).map(|_| seats.take(vec![Range::hosts()])).unzip();
    for id in &ids {
        seats.sleep(*id, Some(now + second), Revision(1));
    }
    // Nothing happened.
    assert!(told(&mut seats, &wakes, Revision(1), now).iter().all(Option::is_none));
    // Something did that concerns nobody: they are overdue by now.
    let later = told(&mut seats, &wakes, Revision(2), now + 5 * second);
    let last = later.iter().flatten().max().unwrap();
    assert!(later.iter().all(Option::is_some) && *last > second && *last < 2 * second, "{last:?}");
    assert!(later.is_sorted(), "whoever waited longest is first");
    // Who knows already, was woken by something else, is gone, or never wants to hear is not told.
    let due = Some(now + 10 * second);
    for id in &ids {
        seats.sleep(*id, due.filter(|_| *id != ids[0]), Revision(if *id == ids[1] { 3 } else { 2 }));
    }
    seats.rouse(ids[2]);
    seats.leave(ids[3]);
    let told = told(&mut seats, &wakes, Revision(3), now + 10 * second);
    assert!(told[..4].iter().all(Option::is_none) && told[4..].iter().all(Option::is_some));
}

#[test]
fn who_keeps_the_time_is_called_for_one_that_is_due_earlier() {
    let (mut seats, now, second) = (Seats::default(), Instant::now(), Duration::from_secs(1));
    let (a, _) = seats.take(vec![Range::All]);
    let (b, _) = seats.take(vec![Range::All]);
    assert!(seats.sleep(a, Some(now + 10 * second), Revision(1)));
    assert_eq!(seats.tell(Revision(1), now), Some(now + 10 * second));
    assert!(!seats.sleep(b, Some(now + 11 * second), Revision(1)));
    assert!(seats.sleep(b, Some(now + 9 * second), Revision(1)));
    assert_eq!(seats.tell(Revision(1), now), Some(now + 9 * second));
}
