//! Many machines at once.
//!
//! Those with rules beyond the box (near to, apart from a rack or a site, layouts, picked rooms) go one at a time, the largest first.
//! The others are packed together ([`pack`](super::pack)), but for those that no box has room for even alone: these would only stand in the
//! way. Where rooms are to have much left, or headroom, or any box may die, all go one at a time.
//! In whatever order the requests come, the plan is the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::amount::{Amounts, ENDLESS, KINDS};
use super::ask::Ask;
use super::decide::{Decision, Fault, Refusal};
use super::fleet::{EVERYWHERE, Fleet, Invalid, Standing};
use super::model::{Fit, Level, Policy, Request, Room, State};
use super::pack::{Bin, Class, Instance, Packed, Vector, pack};
use super::rules::Rules;
use super::tree::Tree;

/// What was decided about many machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where each goes, by name.
    pub placed: Vec<Decision>,
    /// For which there is no room, by name.
    pub refused: Vec<Refusal>,
}

/// A machine that is to be packed. All that is needed of it is taken down while its request is at hand, since many do not fit the processor's caches.
struct Wanted {
    need: Amounts,
    /// Its number in [`Rules`].
    rule: u32,
    /// Its place by name.
    rank: usize,
    /// It, until it has a room.
    machine: Option<Box<Standing>>,
}

impl Wanted {
    /// What those that are alike have in common.
    fn kind(&self) -> (&Amounts, u32) {
        (&self.need, self.rule)
    }
}

impl Fleet {
    /// Finds room for many machines, and puts them there. In whatever order they are given, the plan is the same.
    ///
    /// Ten thousand machines with a rule each onto a thousand boxes take less than a second of one core.
    ///
    /// # Errors
    /// One of the requests makes no sense, or two have one name; then nothing was put anywhere.
    pub fn plan(&mut self, requests: &[Request]) -> Result<Plan, Invalid> {
        // Names get their numbers by name, so that nothing hangs on the order in which requests came.
        let mut requests: Vec<(u64, &Request)> = requests.iter().map(|r| (head(&r.name), r)).collect();
        requests.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(&y.name)));
        let Policy { fit, headroom, survive, .. } = self.policy;
        let together = fit == Fit::Pack && headroom.0 == 0 && !survive;
        let (mut wanted, mut single) = (Vec::new(), Vec::new());
        let mut rules = Rules::default();
        let mut last = None;
        for (_, request) in requests {
            let ask = self.ask(request)?;
            if last.replace(&request.name) == Some(&request.name) {
                return Err(Invalid::Placed(
                    request.name.clone(),
                    "another place in the same plan".to_owned(),
                ));
            }
            if together && plain(&ask) {
                let rule = rules.number(ask.own.iter().copied(), apart(&ask));
                let need = ask.need;
                let standing = Standing { request: request.clone(), ask, room: usize::MAX, fallback: None };
                wanted.push(Wanted { need, rule, rank: 0, machine: Some(Box::new(standing)) });
            } else {
                single.push((Reverse(self.bulk(&ask.need)), request));
            }
        }
        let mut plan = Plan::default();
        // Those that are equally large stay in the order of their names.
        single.sort_by_key(|(bulk, _)| *bulk);
        for (_, request) in single {
            self.one(request, &mut plan)?;
        }
        // Rules of what stands now reach others, too.
        if self.far.iter().any(|far| *far > 0) {
            let reached = |one: &Wanted| one.machine.as_ref().is_some_and(|s| self.reached(&s.ask));
            let (mut single, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(reached);
            single.sort_by_key(|one| Reverse(self.bulk(&one.need)));
            wanted = others;
            for machine in single.into_iter().filter_map(|one| one.machine) {
                self.one(&machine.request, &mut plan)?;
            }
        }
        let left = self.together(wanted, &rules, &mut plan);
        for machine in left.into_iter().filter_map(|one| one.machine) {
            self.one(&machine.request, &mut plan)?;
        }
        plan.placed.sort_by(|a, b| a.machine.cmp(&b.machine));
        plan.refused.sort_by(|a, b| a.machine.cmp(&b.machine));
        Ok(plan)
    }

    fn one(&mut self, request: &Request, plan: &mut Plan) -> Result<(), Invalid> {
        match self.place(request) {
            Ok(decision) => plan.placed.push(decision),
            Err(Fault::Refused(refusal)) => plan.refused.push(refusal),
            Err(Fault::Invalid(invalid)) => return Err(invalid),
        }
        Ok(())
    }

    /// Packs machines without rules beyond the box; gives back those that found no room so, by name.
    fn together(&mut self, mut all: Vec<Wanted>, rules: &Rules, plan: &mut Plan) -> Vec<Wanted> {
        if all.is_empty() {
            return Vec::new();
        }
        self.foresee(all.len());
        // Tags that nobody's rules speak of make no difference.
        let shunned = (0..).take(self.far.len()).map(|tag| self.shuns(EVERYWHERE, tag) > 0);
        let mut spoken: Vec<bool> = shunned.collect();
        rules.mark(&mut spoken);
        let (rules, numbers) = rules.narrowed(&spoken);
        for (rank, one) in all.iter_mut().enumerate() {
            (one.rank, one.rule) = (rank, numbers[one.rule as usize]);
        }
        // Those of a kind stay in the order of their names, and names go up with rooms.
        all.sort_by(|a, b| a.kind().cmp(&b.kind()));
        let places = self.packable();
        let (mut all, mut left) = self.holdable(all, &places);
        let needed: Vec<usize> = (0..KINDS).filter(|k| all.iter().any(|one| one.need[*k] > 0)).collect();
        let packed = if needed.len() <= 4 {
            self.packed::<4>(&all, &places, &needed, rules, &spoken)
        } else {
            self.packed::<KINDS>(&all, &places, &needed, rules, &spoken)
        };
        self.settle_in(&mut all, &places, packed, plan);
        left.extend(all.into_iter().filter(|one| one.machine.is_some()));
        left.sort_by_key(|one| one.rank);
        left
    }

    /// Machines, sorted by kind: those that one of these places has room for as it is, and those that none has. The latter would be looked
    /// at for each place in vain, and instead of others.
    fn holdable(&self, all: Vec<Wanted>, places: &[usize]) -> (Vec<Wanted>, Vec<Wanted>) {
        let free = Tree::of_alike(places.iter().map(|place| *self.free.get(*place)).collect());
        let mut last: Option<(Amounts, bool)> = None;
        all.into_iter().partition(|one| {
            let known = last.filter(|(need, _)| *need == one.need);
            let (_, held) = *last.insert(known.unwrap_or_else(|| (one.need, free.any(&one.need))));
            held
        })
    }

    /// Puts machines, sorted by kind, where they were packed.
    fn settle_in(&mut self, all: &mut [Wanted], places: &[usize], packed: Packed, plan: &mut Plan) {
        let mut end = 0;
        let ranges = all.chunk_by(|a, b| a.kind() == b.kind()).map(|kind| {
            end += kind.len();
            end - kind.len()..end
        });
        let mut queues: Vec<Range<usize>> = ranges.collect();
        let ranks = all.iter().map(|one| one.rank + 1).max().unwrap_or(0);
        let mut decided: Vec<Option<Decision>> = Vec::new();
        decided.resize(ranks, None);
        for (place, classes) in places.iter().zip(packed) {
            for class in classes {
                let next = queues.get_mut(class as usize).and_then(Iterator::next);
                let Some(one) = next.and_then(|next| all.get_mut(next)) else { continue };
                let Some(machine) = one.machine.take() else { continue };
                decided[one.rank] = Some(Decision {
                    machine: machine.request.name.clone(),
                    room: self.places[*place].room.name.clone(),
                    points: self.points(*place, &machine.ask),
                    fallback: None,
                    over: Vec::new(),
                    compared: places.len(),
                });
                self.enroll(machine, *place);
            }
            self.refresh(*place);
        }
        plan.placed.extend(decided.into_iter().flatten());
    }

    /// Rooms that any machine may be in, those in use first, then the largest.
    fn packable(&self) -> Vec<usize> {
        let open = |place: &usize| {
            let at = &self.places[*place];
            at.room.state == State::Open && at.dedicated.is_empty() && !at.room.zone
        };
        let mut places: Vec<usize> = (0..self.unpriced).filter(open).collect();
        let size = |place: &usize| {
            Reverse(self.bulk(&self.places[*place].usable.map(|n| if n < ENDLESS { n } else { 0 })))
        };
        places.sort_by_cached_key(|place| (self.places[*place].holds.is_empty(), size(place), *place));
        places
    }

    /// Which kinds of machines, sorted by kind, go into which places.
    fn packed<const D: usize>(
        &self,
        all: &[Wanted],
        places: &[usize],
        needed: &[usize],
        mut rules: Rules,
        spoken: &[bool],
    ) -> Packed {
        let vector = |amounts: &Amounts| -> Vector<D> {
            std::array::from_fn(|d| needed.get(d).map_or(0.0, |k| amounts[*k] as f64))
        };
        let classes = all.chunk_by(|a, b| a.kind() == b.kind()).map(|kind| Class {
            need: vector(&kind[0].need),
            rule: kind[0].rule,
            count: u32::try_from(kind.len()).unwrap_or(u32::MAX),
        });
        let classes: Vec<Class<D>> = classes.collect();
        let mut bins = Vec::with_capacity(places.len());
        for place in places {
            // Those who stand have rules as well.
            let there = self.places[*place].holds.iter().filter_map(|m| self.machine(*m));
            let rules = there.map(|s| {
                let own = s.ask.own.iter().copied().filter(|tag| spoken[*tag as usize]);
                rules.number(own, apart(&s.ask))
            });
            bins.push(Bin { free: vector(self.free.get(*place)), rules: rules.collect() });
        }
        pack(&Instance { classes, bins, clashes: rules.clashes() })
    }
}

/// What a machine must be apart from in its box.
fn apart(ask: &Ask) -> impl Iterator<Item = u32> {
    ask.apart.iter().filter(|(_, level)| *level == Level::Box).map(|(tag, _)| *tag)
}

/// The first octets of a name, as a number: names sort as these do, as far as they differ.
fn head(name: &str) -> u64 {
    let mut head = [0; 8];
    head.iter_mut().zip(name.as_bytes()).for_each(|(to, octet)| *to = *octet);
    u64::from_be_bytes(head)
}

/// Whether a machine has no rules beyond the box that it is on.
fn plain(ask: &Ask) -> bool {
    ask.near.is_empty()
        && ask.only.is_empty()
        && ask.except.is_empty()
        && ask.layout.is_none()
        && ask.apart.iter().all(|(_, level)| *level == Level::Box)
}

/// No fewer boxes can hold these machines: the largest of demand over the largest capacity, by resource, and of the machines with one tag that
/// must all be apart.
#[must_use]
pub fn lower_bound(requests: &[Request], boxes: &[Room]) -> usize {
    let mut demand: BTreeMap<&str, u128> = BTreeMap::new();
    let mut apart: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests {
        request.needs.iter().for_each(|(name, need)| *demand.entry(name).or_default() += u128::from(*need));
        let own = |tag: &String| request.group.as_ref() == Some(tag) || request.tags.contains(tag);
        let alone = request.apart.iter().filter(|rule| rule.level == Level::Box && own(&rule.tag));
        alone.for_each(|rule| *apart.entry(&rule.tag).or_default() += 1);
    }
    let usable = |room: &Room, name: &str| {
        let has = room.capacity.get(name).copied().unwrap_or(0);
        u128::from(room.overcommit.get(name).map_or(has, |percent| percent.of(has)))
    };
    let filled = demand.iter().map(|(name, demand)| {
        let mut sizes: Vec<u128> = boxes.iter().map(|room| usable(room, name)).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let mut sum = 0;
        let enough = sizes.iter().position(|size| {
            let before = sum;
            sum += size;
            before >= *demand
        });
        enough.unwrap_or(sizes.len())
    });
    filled.chain(apart.into_values()).max().unwrap_or(0)
}
