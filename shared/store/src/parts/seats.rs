//! Who watches what: the watchers of a hub, found by what a commit wrote.
//!
//! A commit asks no watcher whether it is concerned. Its keys are looked up, and those that want one of them are woken, each with
//! the first revision that it has not seen; the others sleep on. So a commit costs what it wrote and whom it concerns, however many
//! watch other things.
//!
//! Whoever is not concerned is told now and then how far the database is. Who is due stands here as well, so that no watcher
//! has a timer of its own, and there is a bound: [`AT_ONCE`] watchers each [`TICK`] are told, however many are due. Where more
//! than [`AT_ONCE`] a tick are to be told, each is told later than it asked for, and the one that waited longest is next.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use shoal_core::{About, Key, Range, Revision};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many watchers are told at once how far the database is; with [`TICK`], 2,000 a second.
const AT_ONCE: usize = 50;
/// How long after that the next ones are.
const TICK: Duration = Duration::from_millis(25);
/// How many are looked at for that at once.
const LOOKS: usize = 1000;

/// All watchers.
#[derive(Debug, Default)]
pub(super) struct Seats {
    next: u64,
    all: HashMap<u64, Seat>,
    keys: HashMap<Key, HashSet<u64>>,
    naming: HashMap<String, HashSet<u64>>,
    prefixes: HashMap<String, HashSet<u64>>,
    /// By the host that they are about.
    concerning: HashMap<String, HashSet<u64>>,
    /// How many prefixes of each length there are.
    lengths: BTreeMap<usize, usize>,
    /// Sleepers, by when each is to be told how far the database is.
    due: BTreeSet<(Instant, u64)>,
    /// Sleepers whose time came when there was nothing to tell, in that order: so of two, the later one knows as much or more.
    idle: BTreeMap<u64, u64>,
    /// The number of the last that came to stand in `idle`.
    turn: u64,
    /// When [`Seats::tell`] is called again without being asked to.
    alarm: Option<Instant>,
}

#[derive(Debug)]
struct Seat {
    ranges: Vec<Range>,
    wake: Arc<Notify>,
    /// The first commit that concerns it and that it has not taken up.
    first: Option<Revision>,
    /// How far it has told, if it sleeps.
    knows: Revision,
    waits: Waits,
}

/// Where a watcher waits to be told how far the database is.
#[derive(Clone, Copy, Debug)]
enum Waits {
    No,
    Due(Instant),
    Idle(u64),
}

impl Seats {
    /// One more watcher: it is told of every commit in these ranges from now on.
    pub(super) fn take(&mut self, ranges: Vec<Range>) -> (u64, Arc<Notify>) {
        let (id, wake) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        for range in &ranges {
            self.file(range, id);
        }
        let seat =
            Seat { ranges, wake: Arc::clone(&wake), first: None, knows: Revision(0), waits: Waits::No };
        self.all.insert(id, seat);
        (id, wake)
    }

    /// It watches no more.
    pub(super) fn leave(&mut self, id: u64) {
        self.rouse(id);
        let Some(seat) = self.all.remove(&id) else { return };
        for range in &seat.ranges {
            self.strike(range, id);
        }
    }

    /// Whether nobody watches.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A commit wrote these keys, which stand in order: wakes whom it concerns.
    pub(super) fn written<'a>(&mut self, revision: Revision, keys: impl Iterator<Item = &'a Key>) {
        if self.all.is_empty() {
            return;
        }
        for id in self.concerned(keys) {
            let Some(seat) = self.all.get_mut(&id) else { continue };
            seat.first.get_or_insert(revision);
            seat.wake.notify_one();
        }
    }

    /// Who wants one of these keys. They stand in order, so keys with a common prefix stand together, and who wants
    /// that prefix is looked up once for all of them.
    fn concerned<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> HashSet<u64> {
        let mut concerned = HashSet::new();
        let lengths: Vec<usize> = self.lengths.keys().copied().collect();
        let mut before: Vec<Option<&str>> = vec![None; lengths.len()];
        let mut all_hosts = false;
        for key in keys {
            concerned.extend(self.keys.get(key).into_iter().flatten());
            if !self.concerning.is_empty() {
                match About::of(key.as_str()) {
                    About::Host(host) => concerned.extend(self.concerning.get(host).into_iter().flatten()),
                    About::All if !all_hosts => {
                        all_hosts = true;
                        concerned.extend(self.concerning.values().flatten());
                    }
                    About::All | About::Nobody => {}
                }
            }
            if !self.naming.is_empty() {
                let named = key.as_member().and_then(|(_, member)| self.naming.get(member));
                concerned.extend(named.into_iter().flatten());
            }
            for (length, before) in lengths.iter().zip(&mut before) {
                let Some(start) = key.as_str().get(..*length) else { continue };
                if *before != Some(start) {
                    *before = Some(start);
                    concerned.extend(self.prefixes.get(start).into_iter().flatten());
                }
            }
        }
        concerned
    }

    /// Everybody has to see for itself what came after this revision.
    pub(super) fn wake_all(&mut self, after: Revision) {
        for seat in self.all.values_mut() {
            seat.first.get_or_insert(Revision(after.0.saturating_add(1)));
            seat.wake.notify_one();
        }
    }

    /// It is awake. The first commit that concerns it and that it has not taken up, if there is one: it does so now.
    pub(super) fn rouse(&mut self, id: u64) -> Option<Revision> {
        let seat = self.all.get_mut(&id)?;
        match std::mem::replace(&mut seat.waits, Waits::No) {
            Waits::No => {}
            Waits::Due(at) => {
                self.due.remove(&(at, id));
            }
            Waits::Idle(turn) => {
                self.idle.remove(&turn);
            }
        }
        seat.first.take()
    }

    /// It goes to sleep until something concerns it, or until `due` when there is more by then than it `knows`; `None`: it is
    /// never told. Answers whether [`Seats::tell`] is to be called now, because it would be too late otherwise.
    pub(super) fn sleep(&mut self, id: u64, due: Option<Instant>, knows: Revision) -> bool {
        self.rouse(id);
        let (Some(seat), Some(due)) = (self.all.get_mut(&id), due) else { return false };
        (seat.knows, seat.waits) = (knows, Waits::Due(due));
        self.due.insert((due, id));
        self.alarm.is_none_or(|alarm| due < alarm)
    }

    /// The database is at `newest`: wakes those that are to be told. Answers when to call this again; before that with every commit.
    pub(super) fn tell(&mut self, newest: Revision, now: Instant) -> Option<Instant> {
        self.alarm = self.tell_some(newest, now);
        self.alarm
    }

    fn tell_some(&mut self, newest: Revision, now: Instant) -> Option<Instant> {
        let mut told = 0;
        for _ in 0..LOOKS {
            if told == AT_ONCE {
                return Some(now + TICK);
            }
            // Those have waited longest.
            let idle = self.idle.first_key_value().map(|(turn, id)| (*turn, *id));
            if let Some((turn, id)) = idle.filter(|(_, id)| self.knows(*id) < newest) {
                self.idle.remove(&turn);
                self.wake(id);
                told += 1;
                continue;
            }
            let (at, id) = self.due.first().copied()?;
            if at > now {
                return Some(at);
            }
            self.due.remove(&(at, id));
            if self.knows(id) < newest {
                self.wake(id);
                told += 1;
            } else if let Some(seat) = self.all.get_mut(&id) {
                self.turn += 1;
                seat.waits = Waits::Idle(self.turn);
                self.idle.insert(self.turn, id);
            }
        }
        Some(now + TICK)
    }

    fn knows(&self, id: u64) -> Revision {
        self.all.get(&id).map_or(Revision(0), |seat| seat.knows)
    }

    fn wake(&mut self, id: u64) {
        if let Some(seat) = self.all.get_mut(&id) {
            seat.waits = Waits::No;
            seat.wake.notify_one();
        }
    }

    fn file(&mut self, range: &Range, id: u64) {
        match range {
            Range::Key(key) => file(&mut self.keys, key.clone(), id),
            Range::Naming(member) => file(&mut self.naming, member.as_str().to_owned(), id),
            Range::Concerning(host) => file(&mut self.concerning, host.to_string(), id),
            Range::Prefix(prefix) => self.file_prefix(prefix, id),
            Range::All => self.file_prefix("", id),
        }
    }

    fn file_prefix(&mut self, prefix: &str, id: u64) {
        if !self.prefixes.contains_key(prefix) {
            *self.lengths.entry(prefix.len()).or_default() += 1;
        }
        file(&mut self.prefixes, prefix.to_owned(), id);
    }

    fn strike(&mut self, range: &Range, id: u64) {
        match range {
            Range::Key(key) => drop(strike(&mut self.keys, key, id)),
            Range::Naming(member) => drop(strike(&mut self.naming, member.as_str(), id)),
            Range::Concerning(host) => drop(strike(&mut self.concerning, host.as_str(), id)),
            Range::Prefix(prefix) => self.strike_prefix(prefix, id),
            Range::All => self.strike_prefix("", id),
        }
    }

    fn strike_prefix(&mut self, prefix: &str, id: u64) {
        if strike(&mut self.prefixes, prefix, id).is_some()
            && let Some(count) = self.lengths.get_mut(&prefix.len())
        {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.len());
            }
        }
    }
}

fn file<K: Eq + Hash>(map: &mut HashMap<K, HashSet<u64>>, name: K, id: u64) {
    map.entry(name).or_default().insert(id);
}

/// Answers the empty set that was taken away, when nobody is left under this name.
fn strike<K, Q>(map: &mut HashMap<K, HashSet<u64>>, name: &Q, id: u64) -> Option<HashSet<u64>>
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    let ids = map.get_mut(name)?;
    ids.remove(&id);
    if ids.is_empty() { map.remove(name) } else { None }
}

#[cfg(test)]
mod tests;
