//! Which of the rooms that would do is best.
//!
//! The cheapest first; among these, where a layout spreads over boxes, those with the fewest of the group; among these the one with most
//! points; among these the one that a seeded hash says. Points are whole numbers, so
//! that every machine and every version of a processor counts the same.

use serde::{Deserialize, Serialize};

use super::amount::{ENDLESS, KINDS, MACHINES};
use super::ask::Ask;
use super::fleet::Fleet;
use super::hash::mix;
use super::model::{Fit, Layout, Level};

/// What a room has for it, each of a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Points {
    /// Packing: how full it is then, and how evenly. Spreading: how much of the scarcest resource is free then.
    pub fit: u32,
    /// Whether the headroom that was asked for stays.
    pub headroom: u32,
    /// How few others of the group are on the box, in the rack, in the site.
    pub domains: u32,
    /// What it costs, in millionths; less is better, whatever the points.
    pub cost: u64,
}

impl Points {
    /// All points.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.fit + self.headroom + self.domains
    }
}

/// Sorts candidates, the best first.
pub(crate) type Rank = (u64, u32, std::cmp::Reverse<u32>, u64);

impl Fleet {
    pub(crate) fn rank(&self, place: usize, ask: &Ask) -> (Rank, Points) {
        let points = self.points(place, ask);
        let tie = mix(ask.hash ^ self.places[place].hash);
        // Sites and racks are gone through in their order already.
        let crowd = match (&ask.layout, ask.group) {
            (Some(Layout::Spread(levels)), Some(group)) if levels.contains(&Level::Box) => {
                self.domain(place, Level::Box).map_or(0, |domain| self.has(domain, group))
            }
            _ => 0,
        };
        ((points.cost, crowd, std::cmp::Reverse(points.total()), tie), points)
    }

    /// The points that a room has for a machine.
    pub(crate) fn points(&self, place: usize, ask: &Ask) -> Points {
        let at = &self.places[place];
        let (mut sum, mut least, mut most, mut count) = (0_i64, 1000_i64, 0_i64, 0_i64);
        for k in 0..KINDS {
            let usable = at.usable[k];
            if usable <= 0 || usable >= ENDLESS || (ask.need[k] == 0 && k != MACHINES && at.used[k] == 0) {
                continue;
            }
            // At most 2^53 times a thousand: it fits.
            let rest = ((usable - at.used[k] - ask.need[k]) * 1000 / usable).clamp(0, 1000);
            sum += rest;
            least = least.min(rest);
            most = most.max(rest);
            count += 1;
        }
        let endless = count == 0;
        let fit = match self.policy.fit {
            Fit::Pack if endless => 0,
            Fit::Pack => (1000 - sum / count - (most - least) / 2).max(0),
            Fit::Spread => least,
        };
        let wanted = i64::from(self.policy.headroom.0.min(100)) * 10;
        let headroom = if endless || wanted == 0 { 1000 } else { (least * 1000 / wanted).min(1000) };
        let domains = ask.group.map_or(1000, |group| {
            let [on_box, in_rack, in_site] = self.siblings(place, group);
            1000 / (1 + 8 * on_box + 2 * in_rack + in_site / 4)
        });
        let cost = (0..KINDS)
            .map(|k| u128::from(at.price[k].unsigned_abs()) * u128::from(ask.need[k].unsigned_abs()));
        Points {
            fit: u32::try_from(fit).unwrap_or(0),
            headroom: u32::try_from(headroom).unwrap_or(0),
            domains,
            cost: u64::try_from(cost.sum::<u128>()).unwrap_or(u64::MAX),
        }
    }
}
