//! One machine more.
//!
//! Looks at the first few rooms that would do, in an order that suits what is wanted, and takes the best of them. Where a layout says
//! so, the sites and racks with the fewest of the group come first. Of what costs nothing is chosen first; priced rooms are few, and all of
//! them are looked at when nothing else is left.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::ask::{Ask, Why};
use super::fleet::{Fleet, Invalid};
use super::hash::{mix, of_text};
use super::model::{Fit, Layout, Level, Request};
use super::reason::Reason;
use super::score::{Points, Rank};

/// So many rooms that would do are compared.
const COMPARED: usize = 24;
/// After so many that would not, the search goes on somewhere else: a group that fills the first rooms shall not make each search long.
const PATIENCE: usize = 96;
/// So many of those that were not taken are named.
const NAMED: usize = 3;

/// Where a machine goes, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The machine.
    pub machine: String,
    /// The box or zone.
    pub room: String,
    /// Why there.
    pub points: Points,
    /// Where it goes if that box dies. Only where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// The next best, with their points, as far as they were looked at.
    pub over: Vec<(String, Points)>,
    /// How many rooms that would do were compared.
    pub compared: usize,
}

/// Why a machine goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no room for {machine}: {}", super::reason::told(.counts))]
pub struct Refusal {
    /// The machine.
    pub machine: String,
    /// Of each reason, how many rooms it is that it speaks against; each room counts once, by the first that does.
    pub counts: BTreeMap<Reason, usize>,
}

/// Why there was no decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The request makes no sense here.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no room.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Rooms that would do, the best first.
pub(crate) struct Found {
    pub(crate) ranked: Vec<(Rank, usize, Points)>,
}

impl Fleet {
    /// Chooses a room for one machine, and puts it there.
    ///
    /// Costs a few microseconds, whatever the size of the fleet, as long as there is room.
    ///
    /// # Errors
    /// There is no room, or the request makes no sense.
    pub fn place(&mut self, request: &Request) -> Result<Decision, Fault> {
        let ask = self.ask(request)?;
        let Some((place, fallback, found)) = self.best(&ask) else {
            return Err(self.refusal(request, &ask).into());
        };
        let named = |place: &usize| self.places[*place].room.name.clone();
        let others = found.ranked.iter().filter(|(_, other, _)| *other != place).take(NAMED);
        let points = found.ranked.iter().find(|(_, other, _)| *other == place).map(|(_, _, points)| *points);
        let decision = Decision {
            machine: request.name.clone(),
            room: named(&place),
            points: points.unwrap_or_default(),
            fallback: fallback.as_ref().map(named),
            over: others.map(|(_, other, points)| (named(other), *points)).collect(),
            compared: found.ranked.len(),
        };
        self.put(request.clone(), ask, place, fallback);
        Ok(decision)
    }

    /// The best room, and where the machine falls back to from there.
    pub(crate) fn best(&self, ask: &Ask) -> Option<(usize, Option<usize>, Found)> {
        for range in self.order(ask) {
            let found = self.look(ask, range);
            if let Some((place, fallback)) = self.take(ask, &found) {
                return Some((place, fallback, found));
            }
        }
        let priced = (self.unpriced..self.places.len()).filter(|place| self.admits(*place, ask).is_ok());
        let found = self.rank_all(ask, priced.collect());
        let (place, fallback) = self.take(ask, &found)?;
        Some((place, fallback, found))
    }

    /// The best of those found; where any box may die, the best with somewhere to fall back to.
    fn take(&self, ask: &Ask, found: &Found) -> Option<(usize, Option<usize>)> {
        let mut places = found.ranked.iter().map(|(_, place, _)| *place);
        if !self.policy.survive {
            return places.next().map(|place| (place, None));
        }
        places.find_map(|place| {
            if self.mortal(place) {
                self.fallback(ask, place).map(|to| (place, Some(to)))
            } else {
                Some((place, None))
            }
        })
    }

    /// Pieces of the unpriced rooms, those to look at first first.
    fn order(&self, ask: &Ask) -> Vec<Range<usize>> {
        let whole = 0..self.unpriced;
        let Some(group) = ask.group else { return vec![whole] };
        let mut sites: Vec<_> = self.sites.iter().map(|site| (self.has(site.domain, group), site)).collect();
        let spread: &[Level] = match &ask.layout {
            None => return vec![whole],
            Some(Layout::Sites(wanted)) => {
                // That with the most places left first.
                sites.retain(|(has, site)| wanted.get(&site.name).is_some_and(|n| has < n));
                let left = |has: u32, name: &str| wanted.get(name).map_or(0, |n| n - has);
                sites.sort_by_key(|(has, site)| {
                    (std::cmp::Reverse(left(*has, &site.name)), mix(ask.hash ^ u64::from(site.domain)))
                });
                return sites.into_iter().map(|(_, site)| site.rooms.clone()).collect();
            }
            Some(Layout::Spread(levels)) => levels,
        };
        let (by_site, by_rack) = (spread.contains(&Level::Site), spread.contains(&Level::Rack));
        // Boxes alone are compared wherever they are.
        if !by_site && !by_rack {
            return vec![whole];
        }
        let name = self.tag_names.get(group as usize).map_or(0, |name| of_text(name));
        let tie = |domain: u32| mix(self.policy.seed ^ mix(u64::from(domain)) ^ name);
        if by_site {
            sites.sort_by_key(|(has, site)| (*has, tie(site.domain)));
        }
        if !by_rack {
            return sites.into_iter().map(|(_, site)| site.rooms.clone()).collect();
        }
        // Where sites count, too, racks are compared within each; else wherever they are.
        let racks = sites.iter().enumerate().flat_map(|(at, (_, site))| {
            let at = if by_site { at } else { 0 };
            site.racks.iter().map(move |(rack, rooms)| (at, self.has(*rack, group), tie(*rack), rooms))
        });
        let mut racks: Vec<_> = racks.collect();
        racks.sort_by_key(|(at, has, tie, _)| (*at, *has, *tie));
        racks.into_iter().map(|(.., rooms)| rooms.clone()).collect()
    }

    /// Looks for rooms that would do, and stops when there are enough.
    fn look(&self, ask: &Ask, range: Range<usize>) -> Found {
        let middle = range.start + (ask.hash % range.len().max(1) as u64) as usize;
        let first = match self.policy.fit {
            Fit::Pack => range.start,
            Fit::Spread => middle,
        };
        let mut good = Vec::new();
        let mut missed = 0;
        let (mut next, mut seen) = (first, first..first);
        // From the first on; where that leads past too many, from the middle on, round the end, up to where it began.
        while good.len() < COMPARED && missed < PATIENCE {
            let Some(place) = self.free.next(&ask.need, next, range.end) else {
                next = range.end;
                break;
            };
            if self.admits(place, ask).is_ok() {
                good.push(place);
            } else {
                missed += 1;
            }
            next = place + 1;
        }
        seen.end = next;
        if good.len() < COMPARED {
            let from = middle.max(seen.end);
            for rest in [from..range.end, seen.end..from, range.start..seen.start] {
                let mut next = rest.start;
                while good.len() < COMPARED
                    && let Some(place) = self.free.next(&ask.need, next, rest.end)
                {
                    if self.admits(place, ask).is_ok() {
                        good.push(place);
                    }
                    next = place + 1;
                }
            }
        }
        self.rank_all(ask, good)
    }

    fn rank_all(&self, ask: &Ask, places: Vec<usize>) -> Found {
        let rank = |place: usize| {
            let (rank, points) = self.rank(place, ask);
            (rank, place, points)
        };
        let mut ranked: Vec<_> = places.into_iter().map(rank).collect();
        ranked.sort_unstable_by_key(|(rank, _, _)| *rank);
        Found { ranked }
    }

    pub(crate) fn refusal(&self, request: &Request, ask: &Ask) -> Refusal {
        let mut counts = BTreeMap::new();
        for place in 0..self.places.len() {
            let why = self.admits(place, ask).err().unwrap_or(Why::NoFallback);
            *counts.entry(self.reason(why)).or_insert(0) += 1;
        }
        Refusal { machine: request.name.clone(), counts }
    }
}
