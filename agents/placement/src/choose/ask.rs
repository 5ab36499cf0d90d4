//! A request with its names looked up, and the filters: may it be in this room?

use super::amount::{Amounts, KINDS, MACHINES};
use super::fleet::{EVERYWHERE, Fleet, Invalid};
use super::hash;
use super::model::{Layout, Level, Pick, Request, State};

/// A request with its names looked up.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) need: Amounts,
    /// Its group and its other tags.
    pub(crate) own: Vec<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) near: Vec<(u32, Level)>,
    pub(crate) apart: Vec<(u32, Level)>,
    pub(crate) only: Vec<Pick>,
    pub(crate) except: Vec<Pick>,
    pub(crate) layout: Option<Layout>,
    pub(crate) hash: u64,
}

/// Why a machine may not be in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Why {
    State(Taking),
    Short(usize),
    Kept(usize),
    Dedicated,
    NotAmong,
    Excepted,
    Apart(u32, Level),
    Shunned(u32, Level),
    Far(u32, Level),
    Site,
    InTheWay,
    NoFallback,
}

/// Why a room takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Taking {
    Closed,
    Draining,
    Dead,
}

impl Fleet {
    /// Looks a request's names up.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Ask, Invalid> {
        if let Some(room) = self.room_of(&request.name) {
            return Err(Invalid::Placed(request.name.clone(), room.to_owned()));
        }
        let mut need = self.amounts(&request.name, &request.needs)?;
        need[MACHINES] = need[MACHINES].max(1);
        let group = request.group.as_ref().map(|group| self.tag(group));
        let mut own: Vec<u32> = request.tags.iter().map(|tag| self.tag(tag)).chain(group).collect();
        own.sort_unstable();
        own.dedup();
        Ok(Ask {
            need,
            own,
            group,
            near: request.near.iter().map(|rule| (self.tag(&rule.tag), rule.level)).collect(),
            apart: request.apart.iter().map(|rule| (self.tag(&rule.tag), rule.level)).collect(),
            only: request.only.iter().cloned().collect(),
            except: request.except.iter().cloned().collect(),
            layout: request.layout.clone(),
            hash: hash::mix(self.policy.seed ^ hash::of_text(&request.name)),
        })
    }

    /// Whether the machine may be in the room as things are. Whether it then has somewhere to fall back to is not asked here.
    pub(crate) fn admits(&self, place: usize, ask: &Ask) -> Result<(), Why> {
        let at = &self.places[place];
        match at.room.state {
            State::Open => {}
            State::Closed => return Err(Why::State(Taking::Closed)),
            State::Draining => return Err(Why::State(Taking::Draining)),
            State::Dead => return Err(Why::State(Taking::Dead)),
        }
        let free = self.free.get(place);
        if let Some(short) = (0..KINDS).find(|k| ask.need[*k] > 0 && ask.need[*k] > free[*k]) {
            let kept = at.usable[short] - at.used[short] >= ask.need[short];
            return Err(if kept { Why::Kept(short) } else { Why::Short(short) });
        }
        self.suits(place, ask)?;
        self.companions(place, ask)?;
        if self.policy.survive { self.crosses_no_fallback(place, ask) } else { Ok(()) }
    }

    /// What the room is, whoever else is there.
    pub(crate) fn suits(&self, place: usize, ask: &Ask) -> Result<(), Why> {
        let at = &self.places[place];
        if !at.dedicated.is_empty() && !at.dedicated.iter().any(|tag| ask.own.contains(tag)) {
            return Err(Why::Dedicated);
        }
        let picked = |pick: &Pick| match pick {
            Pick::Name(name) => *name == at.room.name,
            Pick::Label(label, value) => at.room.labels.get(label) == Some(value),
        };
        if !ask.only.is_empty() && !ask.only.iter().any(picked) {
            return Err(Why::NotAmong);
        }
        if ask.except.iter().any(picked) {
            return Err(Why::Excepted);
        }
        Ok(())
    }

    /// Who else is there, and near.
    fn companions(&self, place: usize, ask: &Ask) -> Result<(), Why> {
        for (tag, level) in &ask.apart {
            if self.domain(place, *level).is_some_and(|domain| self.has(domain, *tag) > 0) {
                return Err(Why::Apart(*tag, *level));
            }
        }
        for tag in ask.own.iter().filter(|tag| self.shuns(EVERYWHERE, **tag) > 0) {
            for level in super::model::LEVELS {
                if self.domain(place, level).is_some_and(|domain| self.shuns(domain, *tag) > 0) {
                    return Err(Why::Shunned(*tag, level));
                }
            }
        }
        for (tag, level) in &ask.near {
            let here = self.domain(place, *level).map_or(0, |domain| self.has(domain, *tag));
            if here == 0 && self.has(EVERYWHERE, *tag) > 0 {
                return Err(Why::Far(*tag, *level));
            }
        }
        if let (Some(Layout::Sites(sites)), Some(group)) = (&ask.layout, ask.group) {
            let site = &self.sites[self.places[place].site];
            let wanted = sites.get(&site.name).copied().unwrap_or(0);
            if self.has(site.domain, group) >= wanted {
                return Err(Why::Site);
            }
        }
        Ok(())
    }
}
