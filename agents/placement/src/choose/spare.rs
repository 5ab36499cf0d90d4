//! Any one box may die: where each machine would go then.
//!
//! Each machine gets a place to fall back to. What the machines of one box need elsewhere is kept free there; boxes die one at a
//! time, so of what several need in the same place only the most is kept. That is an invariant and no forecast: for every box there is a
//! list of moves that fits, at any time. Fallbacks are looked for from the last room backwards, while packing fills from the first
//! on: so they share few rooms, and one box's worth is kept in all.
//!
//! Rules of newcomers are weighed against what would fall back as if it had, from all boxes at once: that refuses a little more than
//! it must. `near` is kept where what it is near to lives on.

use super::amount::{Amounts, KINDS, NOTHING, add, fits, take};
use super::ask::{Ask, Why};
use super::fleet::{EVERYWHERE, Fleet, Place, at};
use super::hash::Table;
use super::model::{LEVELS, Layout, Level, State};
use super::tree::Tree;

/// What is kept for when a box dies.
#[derive(Clone, Debug)]
pub(crate) struct Spare {
    /// The most that any one box needs in a room.
    reserve: Vec<Amounts>,
    /// What the machines of a box need in a room, under both.
    needs: Table<Amounts>,
    /// The boxes that need something in a room, and for how many machines.
    sources: Vec<Vec<(usize, u32)>>,
    /// Tags, and what is shunned, of what would fall back into a domain.
    have: Table<u32>,
    shun: Table<u32>,
    /// What is free without what is kept, the last room first.
    free: Tree,
}

impl Default for Spare {
    fn default() -> Self {
        Self::new(&[])
    }
}

fn key(from: usize, to: usize) -> u64 {
    (from as u64) << 32 | to as u64
}

fn free(place: &Place) -> Amounts {
    if place.room.state != State::Open {
        return [i64::MIN / 2; KINDS];
    }
    let mut free = place.usable;
    take(&mut free, &place.used);
    free
}

impl Spare {
    pub(crate) fn new(places: &[Place]) -> Self {
        let backwards: Vec<Amounts> = places.iter().rev().map(free).collect();
        Self {
            reserve: vec![NOTHING; places.len()],
            needs: Table::default(),
            sources: vec![Vec::new(); places.len()],
            have: Table::default(),
            shun: Table::default(),
            free: Tree::new(&backwards),
        }
    }

    pub(crate) fn reserve(&self, place: usize) -> &Amounts {
        self.reserve.get(place).unwrap_or(&NOTHING)
    }

    pub(crate) fn refresh(&mut self, place: usize, is: &Place) {
        self.free.set(self.reserve.len() - 1 - place, free(is));
    }

    fn change(&mut self, from: usize, to: usize, need: &Amounts, more: bool) {
        let needs = self.needs.entry(key(from, to)).or_insert(NOTHING);
        if more {
            add(needs, need);
        } else {
            take(needs, need);
        }
        let needs = *needs;
        let sources = &mut self.sources[to];
        match sources.iter_mut().find(|(source, _)| *source == from) {
            Some((_, count)) => *count = if more { *count + 1 } else { *count - 1 },
            None => sources.push((from, 1)),
        }
        sources.retain(|(_, count)| *count > 0);
        if more {
            (0..KINDS).for_each(|k| self.reserve[to][k] = self.reserve[to][k].max(needs[k]));
        } else {
            let mut most = NOTHING;
            for (source, _) in sources {
                if let Some(needs) = self.needs.get(&key(*source, to)) {
                    (0..KINDS).for_each(|k| most[k] = most[k].max(needs[k]));
                }
            }
            self.reserve[to] = most;
        }
    }
}

fn bump(table: &mut Table<u32>, key: u64, more: bool) {
    let count = table.entry(key).or_insert(0);
    *count = if more { *count + 1 } else { *count - 1 };
    if *count == 0 {
        table.remove(&key);
    }
}

impl Fleet {
    /// Gives a machine a place to fall back to.
    pub(crate) fn lean(&mut self, machine: usize, to: usize) {
        self.tilt(machine, to, true);
    }

    /// Takes it away again.
    pub(crate) fn unlean(&mut self, machine: usize) {
        if let Some(to) = self.machine(machine).and_then(|standing| standing.fallback) {
            self.tilt(machine, to, false);
        }
    }

    fn tilt(&mut self, machine: usize, to: usize, more: bool) {
        let Some(standing) = self.machines.get_mut(machine).and_then(Option::as_deref_mut) else { return };
        standing.fallback = more.then_some(to);
        self.spare.change(standing.room, to, &standing.ask.need, more);
        let domains = self.places[to].domains;
        for tag in &standing.ask.own {
            domains.iter().flatten().for_each(|domain| bump(&mut self.spare.have, at(*domain, *tag), more));
        }
        for (tag, level) in &standing.ask.apart {
            if let Some(domain) = domains[*level as usize] {
                bump(&mut self.spare.shun, at(domain, *tag), more);
            }
        }
        self.refresh(to);
    }

    /// Whether a newcomer would be in the way of what would fall back here.
    pub(crate) fn crosses_no_fallback(&self, place: usize, ask: &Ask) -> Result<(), Why> {
        let domain = |level: Level| self.domain(place, level);
        let meets = ask.apart.iter().any(|(tag, level)| {
            domain(*level).is_some_and(|domain| self.spare.have.contains_key(&at(domain, *tag)))
        });
        let met = ask.own.iter().any(|tag| {
            LEVELS
                .iter()
                .filter_map(|level| domain(*level))
                .any(|d| self.spare.shun.contains_key(&at(d, *tag)))
        });
        if meets || met { Err(Why::InTheWay) } else { Ok(()) }
    }

    /// Where a machine could go if the box died that it is in, or is to be in.
    pub(crate) fn fallback(&self, ask: &Ask, from: usize) -> Option<usize> {
        let rooms = self.places.len();
        let mut next = 0;
        while let Some(backwards) = self.spare.free.next(&ask.need, next, rooms) {
            let to = rooms - 1 - backwards;
            if to != from && self.falls(ask, from, to) {
                return Some(to);
            }
            next = backwards + 1;
        }
        None
    }

    /// Whether a machine of one box could be in another if the first one died.
    fn falls(&self, ask: &Ask, from: usize, to: usize) -> bool {
        let mut free = free(&self.places[to]);
        if let Some(needs) = self.spare.needs.get(&key(from, to)) {
            take(&mut free, needs);
        }
        if !fits(&ask.need, &free) || self.suits(to, ask).is_err() {
            return false;
        }
        if matches!(ask.layout, Some(Layout::Sites(_))) && self.places[from].site != self.places[to].site {
            return false;
        }
        // What is on the box that dies is nowhere then; what of it falls back into the same domain got on with this one before.
        let left = |table: &Table<u32>, level: Level, tag: u32, dying: u32| {
            self.domain(to, level).map_or(0, |domain| {
                let there = table.get(&at(domain, tag)).copied().unwrap_or(0);
                if self.domain(from, level) == Some(domain) { there - dying } else { there }
            })
        };
        let on_it = |tag: u32| self.domain(from, Level::Box).map_or(0, |own| self.has(own, tag));
        let apart = ask.apart.iter().all(|(tag, level)| left(&self.have, *level, *tag, on_it(*tag)) == 0);
        let alone = ask.own.iter().filter(|tag| self.shuns(EVERYWHERE, **tag) > 0).all(|tag| {
            LEVELS
                .iter()
                .all(|level| left(&self.shun, *level, *tag, self.shunned_by(from, *tag, *level)) == 0)
        });
        let near = ask.near.iter().all(|(tag, level)| {
            left(&self.have, *level, *tag, on_it(*tag)) > 0 || self.has(EVERYWHERE, *tag) == on_it(*tag)
        });
        apart && alone && near
    }

    /// How many machines of a box want to be apart from a tag, as far as this.
    fn shunned_by(&self, place: usize, tag: u32, level: Level) -> u32 {
        let machines = self.places[place].holds.iter().filter_map(|m| self.machine(*m));
        let shunning = machines.filter(|s| s.ask.apart.contains(&(tag, level)));
        u32::try_from(shunning.count()).unwrap_or(u32::MAX)
    }

    /// Whether what is in a room has to fall back somewhere when a box dies.
    pub(crate) fn mortal(&self, place: usize) -> bool {
        let room = &self.places[place].room;
        !room.zone && room.state != State::Dead
    }

    /// Looks for places to fall back to for those that have none; says who still has none, by name, with its room.
    pub fn mend(&mut self) -> Vec<(String, String)> {
        let mut without: Vec<usize> = self.numbers().collect();
        without.retain(|m| self.machine(*m).is_some_and(|s| s.fallback.is_none() && self.mortal(s.room)));
        // The large ones first, while there is most room.
        without.sort_by_cached_key(|m| self.machine(*m).map(|s| std::cmp::Reverse(self.bulk(&s.ask.need))));
        let mut open = Vec::new();
        for machine in without {
            let Some(standing) = self.machine(machine) else { continue };
            match self.fallback(&standing.ask, standing.room) {
                Some(to) => self.lean(machine, to),
                None => {
                    open.push((standing.request.name.clone(), self.places[standing.room].room.name.clone()));
                }
            }
        }
        open.sort();
        open
    }
}
