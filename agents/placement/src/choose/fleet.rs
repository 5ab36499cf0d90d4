//! What stands where, indexed: so that one machine more is found a place for without looking at all.
//!
//! Rooms are kept in one order: those that cost nothing by site, rack and name, then those with a price. Each site and each rack is a
//! piece of it. Per tag and domain (a box, a rack, a site) it is counted how many have the tag, and how many want to be apart from it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::amount::{Amounts, ENDLESS, KINDS, Kinds, LARGEST, MACHINES, NOTHING, Named, add, take};
use super::ask::Ask;
use super::hash::{self, Table};
use super::model::{LEVELS, Level, Policy, Request, Room, State};
use super::spare::Spare;
use super::tree::Tree;

/// A fleet cannot be made of this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Two rooms have one name.
    #[error("two rooms are called {0}: names must differ")]
    Twice(String),
    /// More resources than there can be.
    #[error("{0} names the resource {1:?}: a fleet can have {max} of them, cpu, memory, disk and machines included", max = KINDS)]
    Kinds(String, String),
    /// An amount larger than can be added up exactly.
    #[error("{0} has {2} of {1}: the most that can be is {LARGEST}")]
    Large(String, String, u64),
    /// A machine of this name stands already.
    #[error("{0} is placed already, on {1}: remove it first")]
    Placed(String, String),
    /// There is no room of this name.
    #[error("there is no room called {0}")]
    NoRoom(String),
}

/// A box or zone as it is indexed.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) room: Room,
    /// What may be given out of it: capacity with overcommitment.
    pub(crate) usable: Amounts,
    pub(crate) used: Amounts,
    /// Its box, rack and site; `None` where a zone has none that is known.
    pub(crate) domains: [Option<u32>; 3],
    pub(crate) site: usize,
    pub(crate) hash: u64,
    pub(crate) dedicated: Vec<u32>,
    pub(crate) price: Amounts,
    /// The machines there.
    pub(crate) holds: Vec<usize>,
}

/// A piece of the rooms.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) domain: u32,
    pub(crate) rooms: Range<usize>,
    pub(crate) racks: Vec<(u32, Range<usize>)>,
}

/// A machine that stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) request: Request,
    pub(crate) ask: Ask,
    pub(crate) room: usize,
    /// Where it goes when its box dies.
    pub(crate) fallback: Option<usize>,
}

/// Boxes, zones, and what stands on them.
///
/// A value: cloning it and trying something on the clone is how questions of the kind "what if" are answered.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub(crate) policy: Policy,
    pub(crate) kinds: Kinds,
    pub(crate) places: Vec<Place>,
    /// How many of them cost nothing; they come first.
    pub(crate) unpriced: usize,
    pub(crate) sites: Vec<Site>,
    pub(crate) by_name: HashMap<String, usize>,
    pub(crate) tags: HashMap<String, u32>,
    pub(crate) tag_names: Vec<String>,
    pub(crate) machines: Vec<Option<Box<Standing>>>,
    pub(crate) vacant: Vec<usize>,
    pub(crate) standing: HashMap<String, usize>,
    /// Machines with a tag in a domain; and in all, under [`EVERYWHERE`].
    pub(crate) have: Table<u32>,
    /// Machines in a domain that want to be apart from a tag as far as that domain; and in all.
    pub(crate) shun: Table<u32>,
    /// For each tag, how many machines want to be apart from it farther than the box.
    pub(crate) far: Vec<u32>,
    /// What is free, less what is kept for when a box dies; nothing where a room takes nothing.
    pub(crate) free: Tree,
    pub(crate) spare: Spare,
    /// What a room has in the mean, of those that have an end.
    pub(crate) mean: [f64; KINDS],
}

/// The domain that everything is in.
pub(crate) const EVERYWHERE: u32 = u32::MAX;

/// The key of a tag in a domain.
pub(crate) fn at(domain: u32, tag: u32) -> u64 {
    u64::from(domain) << 32 | u64::from(tag)
}

impl Fleet {
    /// Indexes rooms. In whatever order they come, the fleet is the same.
    ///
    /// # Errors
    /// Two rooms of one name, too many kinds of resources, or amounts beyond all measure.
    pub fn new(mut rooms: Vec<Room>, policy: Policy) -> Result<Self, Invalid> {
        let label = |room: &Room, name: &str| room.labels.get(name).cloned().unwrap_or_default();
        rooms.sort_by_cached_key(|r| {
            (!r.price.is_empty(), label(r, "site"), label(r, "rack"), r.name.clone())
        });
        let mut fleet = Self {
            policy,
            kinds: Kinds::default(),
            places: Vec::with_capacity(rooms.len()),
            unpriced: rooms.iter().filter(|room| room.price.is_empty()).count(),
            sites: Vec::new(),
            by_name: HashMap::new(),
            tags: HashMap::new(),
            tag_names: Vec::new(),
            machines: Vec::new(),
            vacant: Vec::new(),
            standing: HashMap::new(),
            have: Table::default(),
            shun: Table::default(),
            far: Vec::new(),
            free: Tree::new(&[]),
            spare: Spare::default(),
            mean: [0.0; KINDS],
        };
        let mut domains = u32::try_from(rooms.len()).unwrap_or(u32::MAX / 2);
        let mut racks: BTreeMap<(String, String), u32> = BTreeMap::new();
        for (n, room) in rooms.into_iter().enumerate() {
            let (site, rack) = (label(&room, "site"), label(&room, "rack"));
            let mut next = || {
                domains += 1;
                domains - 1
            };
            let of = fleet.sites.iter().position(|s| s.name == site).unwrap_or_else(|| {
                fleet.sites.push(Site { name: site.clone(), domain: next(), rooms: n..n, racks: Vec::new() });
                fleet.sites.len() - 1
            });
            let rack = *racks.entry((site, rack)).or_insert_with(next);
            if n < fleet.unpriced {
                let known = &mut fleet.sites[of];
                known.rooms.end = n + 1;
                match known.racks.last_mut() {
                    Some((domain, rooms)) if *domain == rack => rooms.end = n + 1,
                    _ => known.racks.push((rack, n..n + 1)),
                }
            }
            let alone = (!room.zone).then_some(());
            let box_domain = u32::try_from(n).ok();
            let domains = [alone.and(box_domain), alone.map(|()| rack), Some(fleet.sites[of].domain)];
            fleet.enter(room, of, domains)?;
        }
        let free: Vec<Amounts> = (0..fleet.places.len()).map(|p| fleet.offered(p)).collect();
        fleet.free = Tree::new(&free);
        fleet.spare = Spare::new(&fleet.places);
        fleet.mean = std::array::from_fn(|k| {
            let ended =
                || fleet.places.iter().map(|place| place.usable[k]).filter(|usable| *usable < ENDLESS);
            ended().map(|usable| usable as f64).sum::<f64>() / ended().count().max(1) as f64
        });
        Ok(fleet)
    }

    fn enter(&mut self, room: Room, site: usize, domains: [Option<u32>; 3]) -> Result<(), Invalid> {
        let nothing = if room.zone { ENDLESS } else { 0 };
        let mut usable = [nothing; KINDS];
        usable[MACHINES] = ENDLESS;
        for (name, amount) in &room.capacity {
            let amount = room.overcommit.get(name).map_or(*amount, |percent| percent.of(*amount));
            let kind = self.kind(&room.name, name)?;
            usable[kind] = exact(&room.name, name, amount)?;
        }
        let price = self.amounts(&room.name, &room.price)?;
        let dedicated = room.dedicated.iter().map(|tag| self.tag(tag)).collect();
        let hash = hash::of_text(&room.name);
        if self.by_name.insert(room.name.clone(), self.places.len()).is_some() {
            return Err(Invalid::Twice(room.name));
        }
        let holds = Vec::new();
        self.places.push(Place { room, usable, used: NOTHING, domains, site, hash, dedicated, price, holds });
        Ok(())
    }

    fn kind(&mut self, who: &str, name: &str) -> Result<usize, Invalid> {
        self.kinds.intern(name).ok_or_else(|| Invalid::Kinds(who.to_owned(), name.to_owned()))
    }

    pub(crate) fn amounts(&mut self, who: &str, named: &Named) -> Result<Amounts, Invalid> {
        let mut amounts = NOTHING;
        for (name, amount) in named {
            let kind = self.kind(who, name)?;
            amounts[kind] = exact(who, name, *amount)?;
        }
        Ok(amounts)
    }

    /// The number of a tag.
    pub(crate) fn tag(&mut self, name: &str) -> u32 {
        if let Some(tag) = self.tags.get(name) {
            return *tag;
        }
        let tag = u32::try_from(self.tag_names.len()).unwrap_or(u32::MAX);
        self.tags.insert(name.to_owned(), tag);
        self.tag_names.push(name.to_owned());
        self.far.push(0);
        tag
    }

    /// What a room offers to newcomers.
    pub(crate) fn offered(&self, place: usize) -> Amounts {
        let at = &self.places[place];
        if at.room.state != State::Open {
            return [i64::MIN / 2; KINDS];
        }
        let mut free = at.usable;
        take(&mut free, &at.used);
        take(&mut free, self.spare.reserve(place));
        free
    }

    /// Says that a machine stands in a room, whether it fits or not: what stands is accepted as it stands.
    /// It gets no place to fall back to before [`mend`](Self::mend) looks for one.
    ///
    /// # Errors
    /// It stands already, there is no such room, or its needs cannot be reckoned with.
    pub fn stands(&mut self, request: &Request, room: &str) -> Result<(), Invalid> {
        let place = *self.by_name.get(room).ok_or_else(|| Invalid::NoRoom(room.to_owned()))?;
        let ask = self.ask(request)?;
        self.put(request.clone(), ask, place, None);
        Ok(())
    }

    pub(crate) fn put(&mut self, request: Request, ask: Ask, place: usize, fallback: Option<usize>) {
        let machine = self.enroll(Box::new(Standing { request, ask, room: place, fallback: None }), place);
        self.refresh(place);
        if let Some(to) = fallback {
            self.lean(machine, to);
        }
    }

    /// As [`put`](Self::put), but the indexes of what is free are brought up to date by the caller: by [`refresh`](Self::refresh), once for many.
    pub(crate) fn enroll(&mut self, mut standing: Box<Standing>, place: usize) -> usize {
        self.count(&standing.ask, place, true);
        let machine = self.vacant.pop().unwrap_or_else(|| {
            self.machines.push(None);
            self.machines.len() - 1
        });
        self.standing.insert(standing.request.name.clone(), machine);
        self.places[place].holds.push(machine);
        standing.room = place;
        self.machines[machine] = Some(standing);
        machine
    }

    /// Makes room in memory for so many machines more.
    pub(crate) fn foresee(&mut self, more: usize) {
        self.standing.reserve(more);
        self.machines.reserve(more);
        // A tag in a box and in a rack; it is mostly in the site already.
        self.have.reserve(2 * more);
        self.shun.reserve(more);
    }

    /// Takes a machine away; says where it was.
    pub fn remove(&mut self, machine: &str) -> Option<String> {
        let number = self.standing.remove(machine)?;
        self.unlean(number);
        let gone = self.machines[number].take()?;
        self.vacant.push(number);
        self.places[gone.room].holds.retain(|held| *held != number);
        self.count(&gone.ask, gone.room, false);
        self.refresh(gone.room);
        Some(self.places[gone.room].room.name.clone())
    }

    fn count(&mut self, ask: &Ask, place: usize, more: bool) {
        let at_place = &mut self.places[place];
        if more {
            add(&mut at_place.used, &ask.need);
        } else {
            take(&mut at_place.used, &ask.need);
        }
        let domains = at_place.domains;
        let bump = |table: &mut Table<u32>, key: u64| {
            let count = table.entry(key).or_insert(0);
            *count = if more { *count + 1 } else { *count - 1 };
            if *count == 0 {
                table.remove(&key);
            }
        };
        for tag in &ask.own {
            bump(&mut self.have, at(EVERYWHERE, *tag));
            domains.iter().flatten().for_each(|domain| bump(&mut self.have, at(*domain, *tag)));
        }
        for (tag, level) in &ask.apart {
            bump(&mut self.shun, at(EVERYWHERE, *tag));
            if *level != Level::Box {
                let far = &mut self.far[*tag as usize];
                *far = if more { *far + 1 } else { *far - 1 };
            }
            if let Some(domain) = domains[*level as usize] {
                bump(&mut self.shun, at(domain, *tag));
            }
        }
    }

    /// Brings the indexes of what is free up to date.
    pub(crate) fn refresh(&mut self, place: usize) {
        let offered = self.offered(place);
        self.free.set(place, offered);
        self.spare.refresh(place, &self.places[place]);
    }

    /// Whether a room takes machines from now on. Those that would have fallen back to it have to [`mend`](Self::mend).
    ///
    /// # Errors
    /// There is no such room.
    pub fn set_state(&mut self, room: &str, state: State) -> Result<(), Invalid> {
        let place = *self.by_name.get(room).ok_or_else(|| Invalid::NoRoom(room.to_owned()))?;
        self.places[place].room.state = state;
        if state != State::Open {
            let leaning: Vec<usize> = self
                .numbers()
                .filter(|m| self.machine(*m).is_some_and(|s| s.fallback == Some(place)))
                .collect();
            leaning.into_iter().for_each(|machine| self.unlean(machine));
        }
        self.refresh(place);
        Ok(())
    }

    /// Why what stands in a room is not to stay there, in a word; `None`: it is.
    pub(crate) fn leaves(&self, room: &str) -> Option<String> {
        match self.places.get(*self.by_name.get(room)?)?.room.state {
            State::Open | State::Closed => None,
            State::Draining => Some("drains".to_owned()),
            State::Dead => Some("is dead".to_owned()),
        }
    }

    /// Closes a room that takes machines, for what stands there is not known whole; says whether there is such a room.
    pub fn shut(&mut self, room: &str) -> bool {
        let Some(place) = self.by_name.get(room) else { return false };
        let open = self.places[*place].room.state == State::Open;
        open.then(|| self.set_state(room, State::Closed)).is_none_or(|done| done.is_ok())
    }

    pub(crate) fn machine(&self, number: usize) -> Option<&Standing> {
        self.machines.get(number)?.as_deref()
    }

    /// The numbers of the machines that stand, by their names.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        let mut known: Vec<(&String, &usize)> = self.standing.iter().collect();
        known.sort_unstable();
        known.into_iter().map(|(_, number)| *number).collect::<Vec<_>>().into_iter()
    }

    /// Where a machine stands.
    #[must_use]
    pub fn room_of(&self, machine: &str) -> Option<&str> {
        let standing = self.machine(*self.standing.get(machine)?)?;
        Some(&self.places[standing.room].room.name)
    }

    /// Where a machine would go if its box died; `None`: nowhere, or that was not looked into.
    #[must_use]
    pub fn fallback_of(&self, machine: &str) -> Option<&str> {
        let standing = self.machine(*self.standing.get(machine)?)?;
        Some(&self.places[standing.fallback?].room.name)
    }

    /// How many rooms have machines.
    #[must_use]
    pub fn rooms_used(&self) -> usize {
        self.places.iter().filter(|place| !place.holds.is_empty()).count()
    }

    /// The machines in a room, by name.
    #[must_use]
    pub fn machines_in(&self, room: &str) -> Vec<&Request> {
        let holds =
            self.by_name.get(room).map(|place| self.places[*place].holds.as_slice()).unwrap_or_default();
        let mut there: Vec<&Request> =
            holds.iter().filter_map(|m| self.machine(*m)).map(|s| &s.request).collect();
        there.sort_by(|a, b| a.name.cmp(&b.name));
        there
    }

    /// All rooms.
    pub fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.places.iter().map(|place| &place.room)
    }

    pub(crate) fn domain(&self, place: usize, level: Level) -> Option<u32> {
        self.places[place].domains[level as usize]
    }

    /// How many machines with a tag are in the room's box, rack and site.
    pub(crate) fn siblings(&self, place: usize, tag: u32) -> [u32; 3] {
        LEVELS.map(|level| self.domain(place, level).map_or(0, |domain| self.has(domain, tag)))
    }

    pub(crate) fn has(&self, domain: u32, tag: u32) -> u32 {
        self.have.get(&at(domain, tag)).copied().unwrap_or(0)
    }

    pub(crate) fn shuns(&self, domain: u32, tag: u32) -> u32 {
        self.shun.get(&at(domain, tag)).copied().unwrap_or(0)
    }
}

fn exact(who: &str, name: &str, amount: u64) -> Result<i64, Invalid> {
    let whole = i64::try_from(amount).ok().filter(|_| amount <= LARGEST);
    whole.ok_or_else(|| Invalid::Large(who.to_owned(), name.to_owned(), amount))
}

impl Fleet {
    /// How much of a room a need is, in millionths, over all resources: to sort by.
    pub(crate) fn bulk(&self, need: &Amounts) -> u64 {
        let share = |k: usize| if self.mean[k] > 0.0 { need[k] as f64 / self.mean[k] } else { 0.0 };
        ((0..KINDS).map(share).sum::<f64>() * 1e6) as u64
    }
}
