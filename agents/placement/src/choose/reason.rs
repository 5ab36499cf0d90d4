//! Why here, and why not there, in words.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::ask::{Ask, Taking, Why};
use super::fleet::{Fleet, Invalid};
use super::model::{Level, Request};
use super::score::Points;

/// Why a machine may not be in a room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The room takes nothing new.
    Closed,
    /// What it has shall leave.
    Draining,
    /// It is dead.
    Dead,
    /// Too little of a resource.
    Short(String),
    /// Enough of it, but it is kept for when another box dies.
    Kept(String),
    /// The room is for others.
    Dedicated,
    /// The machine is to be elsewhere.
    NotAmong,
    /// The machine must not be there.
    Excepted,
    /// What it must be apart from is there.
    Apart(String, Level),
    /// Something there must be apart from it.
    Shunned(String, Level),
    /// What it must be near is not there.
    Far(String, Level),
    /// The site has, or wants, no more of its group.
    SiteFull,
    /// It would be in the way of what falls back there when another box dies.
    InTheWay,
    /// If that box died, there would be no room for it elsewhere.
    NoFallback,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let within = |level: &Level| match level {
            Level::Box => "on the box",
            Level::Rack => "in the rack",
            Level::Site => "in the site",
        };
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Draining => f.write_str("draining"),
            Self::Dead => f.write_str("dead"),
            Self::Short(kind) => write!(f, "too little {kind}"),
            Self::Kept(kind) => write!(f, "{kind} is kept for when another box dies"),
            Self::Dedicated => f.write_str("dedicated to others"),
            Self::NotAmong => f.write_str("not among those that it is to be on"),
            Self::Excepted => f.write_str("among those that it must not be on"),
            Self::Apart(tag, level) => {
                write!(f, "{tag} is {}, and it must be apart from that", within(level))
            }
            Self::Shunned(tag, level) => {
                write!(f, "something {} must be apart from {tag}, which it has", within(level))
            }
            Self::Far(tag, level) => write!(f, "no {tag} is {}, and it must be near", within(level)),
            Self::SiteFull => f.write_str("the layout wants no more of its group in the site"),
            Self::InTheWay => {
                f.write_str("it would be in the way of what falls back there when another box dies")
            }
            Self::NoFallback => f.write_str("if that box died, there would be no room for it elsewhere"),
        }
    }
}

/// Counts in words: `3 boxes or zones: too little memory; 2: closed`.
pub(crate) fn told(counts: &BTreeMap<Reason, usize>) -> String {
    let mut most: Vec<_> = counts.iter().collect();
    most.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), *reason));
    let parts = most.into_iter().enumerate().map(|(n, (reason, count))| match (n, *count) {
        (0, 1) => format!("1 box or zone: {reason}"),
        (0, count) => format!("{count} boxes or zones: {reason}"),
        (_, count) => format!("{count}: {reason}"),
    });
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "there are no boxes and no zones".to_owned() } else { parts.join("; ") }
}

/// Everything that can be said about where a machine may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Rooms that would do, the best first, with their points.
    pub would_do: Vec<(String, Points)>,
    /// Of each reason, how many rooms it speaks against; each room counts once.
    pub counts: BTreeMap<Reason, usize>,
}

impl Fleet {
    pub(crate) fn reason(&self, why: Why) -> Reason {
        let tag = |tag: u32| self.tag_names.get(tag as usize).cloned().unwrap_or_default();
        let kind = |kind: usize| self.kinds.name(kind).to_owned();
        match why {
            Why::State(Taking::Closed) => Reason::Closed,
            Why::State(Taking::Draining) => Reason::Draining,
            Why::State(Taking::Dead) => Reason::Dead,
            Why::Short(k) => Reason::Short(kind(k)),
            Why::Kept(k) => Reason::Kept(kind(k)),
            Why::Dedicated => Reason::Dedicated,
            Why::NotAmong => Reason::NotAmong,
            Why::Excepted => Reason::Excepted,
            Why::Apart(t, level) => Reason::Apart(tag(t), level),
            Why::Shunned(t, level) => Reason::Shunned(tag(t), level),
            Why::Far(t, level) => Reason::Far(tag(t), level),
            Why::Site => Reason::SiteFull,
            Why::InTheWay => Reason::InTheWay,
            Why::NoFallback => Reason::NoFallback,
        }
    }

    /// Weighs all rooms for a machine, and puts it nowhere. What stands by that name is thought away.
    ///
    /// Costs time in proportion to the number of rooms; more when it stands already.
    ///
    /// # Errors
    /// The request makes no sense.
    pub fn explain(&mut self, request: &Request) -> Result<Explanation, Invalid> {
        if let Some(mut without) = self.without(&request.name) {
            return without.explain(request);
        }
        let ask = self.ask(request)?;
        let (mut ranked, mut counts) = (Vec::new(), BTreeMap::new());
        for place in 0..self.places.len() {
            match self.judge(place, &ask) {
                Ok(()) => ranked.push((self.rank(place, &ask), place)),
                Err(why) => *counts.entry(self.reason(why)).or_insert(0) += 1,
            }
        }
        ranked.sort_by_key(|((rank, _), _)| *rank);
        let named =
            |((_, points), place): ((_, Points), usize)| (self.places[place].room.name.clone(), points);
        Ok(Explanation { would_do: ranked.into_iter().map(named).collect(), counts })
    }

    /// Why a machine may not be in a certain room; `None`: it may. What stands by that name is thought away.
    ///
    /// # Errors
    /// There is no such room, or the request makes no sense.
    pub fn why_not(&mut self, request: &Request, room: &str) -> Result<Option<Reason>, Invalid> {
        if let Some(mut without) = self.without(&request.name) {
            return without.why_not(request, room);
        }
        let ask = self.ask(request)?;
        let place = *self.by_name.get(room).ok_or_else(|| Invalid::NoRoom(room.to_owned()))?;
        Ok(self.judge(place, &ask).err().map(|why| self.reason(why)))
    }

    /// This fleet without a machine that stands.
    fn without(&self, machine: &str) -> Option<Self> {
        self.standing.contains_key(machine).then(|| {
            let mut without = self.clone();
            without.remove(machine);
            without
        })
    }

    /// Whether a machine may be in a room, and has somewhere to fall back to from there where it must.
    pub(crate) fn judge(&self, place: usize, ask: &Ask) -> Result<(), Why> {
        self.admits(place, ask)?;
        let safe = !self.policy.survive || !self.mortal(place) || self.fallback(ask, place).is_some();
        if safe { Ok(()) } else { Err(Why::NoFallback) }
    }
}
