//! Maps and sets in key order that remember where they were last asked.
//!
//! A unit is worked on in key order: all of it is decided on, sent, written down, taken in. In a tree each of those steps
//! finds each key anew, some twenty comparisons with keys that lie all over the memory; with a dozen maps a unit that was a third of
//! what a cold zone cost. Here a question about the key that was asked last, or the next one, costs a comparison or two, and any
//! other one a binary search.
//!
//! Entries stand in runs of at most [`RUN`], so that an insertion moves no more than those, and what comes in order is packed
//! densely. Never cheaper than a tree in the worst case: a new run moves one word for every run that there is.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most entries of one run.
const RUN: usize = 64;

type Run<K, V> = Vec<(K, V)>;

#[cfg(test)]
thread_local! {
    /// How many keys were compared in this thread: what an item costs of that is held by a test.
    pub(crate) static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

fn compare<K: Ord>(one: &K, other: &K) -> Order {
    #[cfg(test)]
    COMPARED.set(COMPARED.get() + 1);
    one.cmp(other)
}

/// A map in key order.
pub(crate) struct Map<K, V> {
    /// None of them empty.
    runs: Vec<Run<K, V>>,
    len: usize,
    /// Where the last answer was found: the run, and the place in it. Only a hint.
    last: AtomicU64,
}

/// Where a key is, or is to be inserted: the run, and the place in it.
type At = (usize, usize);

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self { runs: Vec::new(), len: 0, last: AtomicU64::new(0) }
    }
}

impl<K, V> Map<K, V> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.runs.iter().flatten().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&K, &mut V)> {
        self.runs.iter_mut().flatten().map(|(key, value)| (&*key, value))
    }

    pub(crate) fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut V> {
        self.iter_mut().map(|(_, value)| value)
    }

    fn remember(&self, (run, place): At) {
        let (run, place) = (run as u64, place as u64);
        self.last.store(run << 32 | place, Ordering::Relaxed);
    }

    fn last(&self) -> At {
        let last = self.last.load(Ordering::Relaxed);
        (usize::try_from(last >> 32).unwrap_or(0), usize::try_from(last & u64::from(u32::MAX)).unwrap_or(0))
    }
}

impl<K: Ord, V> Map<K, V> {
    fn find(&self, key: &K) -> Result<At, At> {
        let found = self.beside_last(key).unwrap_or_else(|| self.search(key));
        self.remember(match found {
            Ok(at) => at,
            // What comes next is then beside it, also at the end.
            Err((run, place)) => (run, place.saturating_sub(1)),
        });
        found
    }

    /// Whether it is what was asked last, or next to it.
    fn beside_last(&self, key: &K) -> Option<Result<At, At>> {
        let (run, place) = self.last();
        let (of, entry) = self.runs.get(run).and_then(|of| Some((of, of.get(place)?)))?;
        match compare(key, &entry.0) {
            Order::Equal => return Some(Ok((run, place))),
            Order::Greater => {}
            Order::Less if place == 0 => return None,
            Order::Less => {
                return match compare(key, &of[place - 1].0) {
                    Order::Equal => Some(Ok((run, place - 1))),
                    Order::Greater => Some(Err((run, place))),
                    Order::Less => None,
                };
            }
        }
        let (run, place, next) = match of.get(place + 1) {
            Some(next) => (run, place + 1, next),
            None => match self.runs.get(run + 1).and_then(|of| of.first()) {
                Some(next) => (run + 1, 0, next),
                None => return Some(Err((run, place + 1))),
            },
        };
        match compare(key, &next.0) {
            Order::Equal => Some(Ok((run, place))),
            // At the end of the run before, rather than at the beginning of the next one.
            Order::Less if place == 0 => Some(Err((run - 1, of.len()))),
            Order::Less => Some(Err((run, place))),
            Order::Greater => None,
        }
    }

    fn search(&self, key: &K) -> Result<At, At> {
        let run = self.runs.partition_point(|of| compare(&of[0].0, key).is_le()).saturating_sub(1);
        let Some(of) = self.runs.get(run) else { return Err((0, 0)) };
        match of.binary_search_by(|(one, _)| compare(one, key)) {
            Ok(place) => Ok((run, place)),
            Err(place) => Err((run, place)),
        }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (run, place) = self.find(key).ok()?;
        Some(&self.runs[run][place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (run, place) = self.find(key).ok()?;
        Some(&mut self.runs[run][place].1)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// What was there before.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok((run, place)) => Some(std::mem::replace(&mut self.runs[run][place].1, value)),
            Err(at) => {
                self.put(at, key, value);
                None
            }
        }
    }

    /// What is there, made if need be.
    pub(crate) fn get_or_insert_with(&mut self, key: &K, make: impl FnOnce() -> V) -> &mut V
    where
        K: Clone,
    {
        let (run, place) = match self.find(key) {
            Ok(at) => at,
            Err(at) => self.put(at, key.clone(), make()),
        };
        &mut self.runs[run][place].1
    }

    fn put(&mut self, (mut run, mut place): At, key: K, value: V) -> At {
        self.len += 1;
        match self.runs.get_mut(run) {
            None => {
                self.runs.push(Vec::new());
                (run, place) = (self.runs.len() - 1, 0);
            }
            Some(of) if of.len() < RUN => {}
            Some(of) if place == of.len() => {
                self.runs.insert(run + 1, Vec::with_capacity(RUN));
                (run, place) = (run + 1, 0);
            }
            Some(of) => {
                let mut upper = Vec::with_capacity(RUN);
                upper.extend(of.drain(RUN / 2..));
                self.runs.insert(run + 1, upper);
                if place > RUN / 2 {
                    (run, place) = (run + 1, place - RUN / 2);
                }
            }
        }
        self.runs[run].insert(place, (key, value));
        self.remember((run, place));
        (run, place)
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (run, place) = self.find(key).ok()?;
        let (_, value) = self.runs[run].remove(place);
        self.len -= 1;
        if self.runs[run].is_empty() {
            self.runs.remove(run);
        } else if place == self.runs[run].len() {
            self.remember((run + 1, 0));
        }
        self.merge(run);
        Some(value)
    }

    /// Makes one run of two that became small.
    fn merge(&mut self, run: usize) {
        let small = |at: usize| self.runs.get(at).map(Vec::len);
        if let (Some(one), Some(next)) = (small(run), small(run + 1))
            && one + next <= RUN / 4
        {
            let next = self.runs.remove(run + 1);
            self.runs[run].extend(next);
        }
    }

    /// From `from` on, before `to`.
    pub(crate) fn range<'m>(
        &'m self,
        from: Option<&K>,
        to: Option<&K>,
    ) -> impl Iterator<Item = (&'m K, &'m V)> + use<'m, K, V> {
        let place = |key: &K| match self.find(key) {
            Ok(at) | Err(at) => at,
        };
        let (first, skip) = from.map_or((0, 0), place);
        let (last, rest) = to.map_or((self.runs.len(), 0), place);
        let runs = self.runs.get(first..).unwrap_or_default();
        let before: usize = runs.iter().take(last.saturating_sub(first)).map(Vec::len).sum();
        let many = (before + rest).saturating_sub(skip);
        runs.iter().flatten().skip(skip).take(many).map(|(key, value)| (key, value))
    }
}

impl<K: Ord, V> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Run<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.runs.into_iter().flatten()
    }
}

/// A set in key order.
pub(crate) struct Set<K>(Map<K, ()>);

impl<K> Default for Set<K> {
    fn default() -> Self {
        Self(Map::new())
    }
}

impl<K> Set<K> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Map::new();
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.0.keys()
    }
}

impl<K: Ord> Set<K> {
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Whether it was not there before.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        self.0.insert(key, ()).is_none()
    }

    /// Puts it in, copied only where it is not there yet.
    pub(crate) fn add(&mut self, key: &K)
    where
        K: Clone,
    {
        self.0.get_or_insert_with(key, || ());
    }

    /// Whether it was there before.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        self.0.remove(key).is_some()
    }
}

impl<K: Ord> Extend<K> for Set<K> {
    fn extend<I: IntoIterator<Item = K>>(&mut self, keys: I) {
        self.0.extend(keys.into_iter().map(|key| (key, ())));
    }
}

impl<K: Ord> FromIterator<K> for Set<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key, ())).collect())
    }
}

impl<K> IntoIterator for Set<K> {
    type Item = K;
    type IntoIter = std::iter::Map<std::iter::Flatten<std::vec::IntoIter<Run<K, ()>>>, fn((K, ())) -> K>;

    fn into_iter(self) -> Self::IntoIter {
        let key: fn((K, ())) -> K = |(key, ())| key;
        self.0.into_iter().map(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What a tree does, asked the same.
    fn same(map: &Map<u16, u32>, tree: &BTreeMap<u16, u32>) {
        assert!(map.iter().eq(tree.iter()));
        assert!(map.keys().rev().eq(tree.keys().rev()));
        assert_eq!(map.len(), tree.len());
        assert!(map.runs.iter().all(|run| (1..=RUN).contains(&run.len())));
    }

    proptest! {
        #[test]
        fn it_answers_as_a_tree_does(
            steps in prop::collection::vec((0u8..7, 0u16..700), 0..120),
            span in 1u16..200,
        ) {
            let (mut map, mut tree) = (Map::new(), BTreeMap::new());
            for (n, (what, key)) in steps.into_iter().enumerate() {
                let n = n as u32;
                match what {
                    0 => for key in key..key + span { prop_assert_eq!(map.insert(key, n), tree.insert(key, n)) },
                    1 => for key in (key..key + span).rev() { prop_assert_eq!(map.insert(key, n), tree.insert(key, n)) },
                    2 => for key in key..key + span { prop_assert_eq!(map.remove(&key), tree.remove(&key)) },
                    3 => for key in (key..key + span).rev() { prop_assert_eq!(map.remove(&key), tree.remove(&key)) },
                    4 => for key in (key..key + span).step_by(3) { prop_assert_eq!(map.remove(&key), tree.remove(&key)) },
                    5 => *map.get_or_insert_with(&key, || n) = *tree.entry(key).or_insert(n),
                    _ => {
                        let some = map.range(Some(&key), Some(&(key + span))).collect::<Vec<_>>();
                        prop_assert_eq!(some, tree.range(key..key + span).collect::<Vec<_>>());
                        let rest = map.range(Some(&key), None).count();
                        prop_assert_eq!(rest, tree.range(key..).count());
                        prop_assert_eq!(map.range(None, Some(&key)).count(), tree.range(..key).count());
                    }
                }
                for key in (0..900).step_by(7) { prop_assert_eq!(map.get(&key), tree.get(&key)) }
                same(&map, &tree);
            }
            prop_assert!(map.into_iter().eq(tree));
        }
    }

    #[test]
    fn in_order_it_compares_no_more_than_twice_a_question() {
        let mut map: Map<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        let before = COMPARED.get();
        for n in 0..10_000 {
            assert_eq!(map.get(&n), Some(&n));
            assert!(map.insert(n, n).is_some());
            assert!(!map.contains_key(&(n + 10_000)) && map.contains_key(&n));
        }
        // The third question is far away, and so is what comes after it.
        let far = 2 * (10_000usize.ilog2() as usize + 5);
        assert!(COMPARED.get() - before <= (2 + 1 + far) * 10_000, "{}", COMPARED.get() - before);
        let before = COMPARED.get();
        for n in (0..10_000).rev() {
            assert!(map.contains_key(&n));
        }
        for n in 0..10_000 {
            assert!(map.remove(&n).is_some());
        }
        assert!(COMPARED.get() - before <= 4 * 10_000 + far, "{}", COMPARED.get() - before);
    }
}
