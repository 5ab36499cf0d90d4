//! What if: a box is emptied or dies, more machines come, machines move.
//!
//! All of it is tried on a copy, so it costs time and memory in proportion to the fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::amount::{ENDLESS, KINDS};
use super::ask::Ask;
use super::decide::{Fault, Refusal};
use super::fleet::{Fleet, Invalid, Standing};
use super::model::{Request, State};
use super::reason::Reason;

/// How often emptying a box is tried again, those that were stuck first.
const ATTEMPTS: usize = 6;

/// A machine moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Which.
    pub machine: String,
    /// From this room.
    pub from: String,
    /// To this one.
    pub to: String,
}

/// What becomes of the machines of a room that is emptied, or dies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evacuation {
    /// Where they go.
    pub moves: Vec<Move>,
    /// Those for which there is no room after these moves, and why.
    pub stuck: Vec<Refusal>,
}

/// Moves that gain something together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is gained.
    pub gain: Gain,
    /// By these.
    pub moves: Vec<Move>,
}

/// What moves gain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gain {
    /// A machine is no longer where it must not be.
    Kept(Reason),
    /// This box is empty afterwards.
    Emptied(String),
}

impl Step {
    /// What is gained for each move, in percent of a box or of a rule.
    #[must_use]
    pub fn percent(&self) -> usize {
        100 / self.moves.len().max(1)
    }
}

impl Fleet {
    /// What becomes of the machines of a room if it is emptied or dies. The largest go first; those that are then stuck go first the next
    /// time, and the best of some attempts is taken. That nothing is found is no proof that there is nothing.
    ///
    /// # Errors
    /// There is no such room.
    pub fn evacuate(&self, room: &str) -> Result<Evacuation, Invalid> {
        let place = *self.by_name.get(room).ok_or_else(|| Invalid::NoRoom(room.to_owned()))?;
        let mut emptied = self.clone().without_spare();
        emptied.set_state(room, State::Draining)?;
        let mut homeless: Vec<Standing> =
            self.places[place].holds.iter().filter_map(|m| self.machine(*m).cloned()).collect();
        homeless.sort_by_cached_key(|s| (std::cmp::Reverse(self.bulk(&s.ask.need)), s.request.name.clone()));
        for machine in &homeless {
            emptied.remove(&machine.request.name);
        }
        let mut order: Vec<Request> = homeless.into_iter().map(|s| s.request).collect();
        let mut best: Option<Evacuation> = None;
        for _ in 0..ATTEMPTS {
            let (tried, stuck) = emptied.clone().settle(&order, room)?;
            let better = best.as_ref().is_none_or(|best| tried.stuck.len() < best.stuck.len());
            if better {
                best = Some(tried);
            }
            if stuck.is_empty() {
                break;
            }
            order.sort_by_key(|request| !stuck.contains(&request.name));
        }
        Ok(best.unwrap_or_default())
    }

    fn settle(mut self, order: &[Request], from: &str) -> Result<(Evacuation, Vec<String>), Invalid> {
        let mut done = Evacuation::default();
        for request in order {
            match self.place(request) {
                Ok(decision) => {
                    let machine = request.name.clone();
                    done.moves.push(Move { machine, from: from.to_owned(), to: decision.room });
                }
                Err(Fault::Refused(refusal)) => done.stuck.push(refusal),
                Err(Fault::Invalid(invalid)) => return Err(invalid),
            }
        }
        // Said of the end, not of when it was tried.
        for refusal in &mut done.stuck {
            if let Some(request) = order.iter().find(|request| request.name == refusal.machine) {
                let ask = self.ask(request)?;
                *refusal = self.refusal(request, &ask);
            }
        }
        let stuck = done.stuck.iter().map(|refusal| refusal.machine.clone()).collect();
        Ok((done, stuck))
    }

    /// This fleet, with nothing kept for when a box dies.
    fn without_spare(mut self) -> Self {
        self.policy.survive = false;
        self.numbers().for_each(|machine| self.unlean(machine));
        self
    }

    /// The boxes whose death would leave machines without room, and which. Costs as much for each box as [`evacuate`](Self::evacuate).
    ///
    /// # Errors
    /// Never for a fleet that could be made.
    pub fn breaks(&self) -> Result<BTreeMap<String, Evacuation>, Invalid> {
        let mut broken = BTreeMap::new();
        for place in self.places.iter().filter(|place| !place.room.zone && !place.holds.is_empty()) {
            let evacuation = self.evacuate(&place.room.name)?;
            if !evacuation.stuck.is_empty() {
                broken.insert(place.room.name.clone(), evacuation);
            }
        }
        Ok(broken)
    }

    /// How many machines like this one still find room, up to so many. Their names are its name with a number.
    ///
    /// # Errors
    /// The request makes no sense.
    pub fn still_fit(&self, like: &Request, most: usize) -> Result<usize, Invalid> {
        let mut then = self.clone();
        for n in 0..most {
            match then.place(&Request { name: format!("{}#{n}", like.name), ..like.clone() }) {
                Ok(_) => {}
                Err(Fault::Refused(_)) => return Ok(n),
                Err(Fault::Invalid(invalid)) => return Err(invalid),
            }
        }
        Ok(most)
    }

    /// What is free in all open boxes together, by resource: not what any one machine can get.
    #[must_use]
    pub fn free(&self) -> BTreeMap<String, u64> {
        let mut free = [0_i64; KINDS];
        for place in self.places.iter().filter(|place| place.room.state == State::Open && !place.room.zone) {
            for (k, free) in free.iter_mut().enumerate().filter(|(k, _)| place.usable[*k] < ENDLESS) {
                *free += (place.usable[k] - place.used[k]).max(0);
            }
        }
        let named = free.iter().enumerate().filter(|(_, n)| **n > 0);
        named.map(|(k, n)| (self.kinds.name(k).to_owned(), n.unsigned_abs())).collect()
    }

    /// Machines that stand where they would not be put now, by name, with their rooms and the first reason.
    #[must_use]
    pub fn broken(&self) -> Vec<(String, String, Reason)> {
        let mut then = self.clone().without_spare();
        let mut broken = Vec::new();
        for number in self.numbers() {
            let Some(Standing { request, ask, room, .. }) = self.machine(number).cloned() else { continue };
            then.remove(&request.name);
            if let Err(why) = then.admits(room, &ask) {
                broken.push((request.name.clone(), self.places[room].room.name.clone(), then.reason(why)));
            }
            then.put(request, ask, room, None);
        }
        broken
    }

    /// Moves that gain at least so much each, in percent: what stands where it must not goes elsewhere (100 for a machine), and boxes
    /// that hold little are emptied into others in use (100 for a box, over all its moves). Nothing is moved twice.
    ///
    /// # Errors
    /// Never for a fleet that could be made.
    pub fn rebalance(&self, least: usize) -> Result<Vec<Step>, Invalid> {
        let mut then = self.clone().without_spare();
        let mut steps = Vec::new();
        let mut moved: Vec<String> = Vec::new();
        for (machine, from, reason) in self.broken() {
            let Some(standing) = then.standing.get(&machine).and_then(|n| then.machine(*n)).cloned() else {
                continue;
            };
            // One that moved may have mended another's fault.
            let mut tried = then.clone();
            tried.remove(&machine);
            if tried.admits(standing.room, &standing.ask).is_err()
                && let Ok(decision) = tried.place(&standing.request)
            {
                moved.push(machine.clone());
                steps.push(Step {
                    gain: Gain::Kept(reason),
                    moves: vec![Move { machine, from, to: decision.room }],
                });
                then = tried;
            }
        }
        then.empty(least, &moved, &mut steps)?;
        steps.retain(|step| step.percent() >= least);
        Ok(steps)
    }

    /// Empties boxes into others in use, those with the least in them first.
    fn empty(mut self, least: usize, moved: &[String], steps: &mut Vec<Step>) -> Result<(), Invalid> {
        let fullness = |place: &usize| (self.bulk(&self.places[*place].used), *place);
        let mut used: Vec<usize> = (0..self.unpriced).filter(|p| self.emptiable(*p)).collect();
        used.sort_by_cached_key(fullness);
        // What is unused stays so.
        let unused = |place: &usize| {
            self.places[*place].holds.is_empty() && self.places[*place].room.state == State::Open
        };
        let unused: Vec<String> =
            (0..self.places.len()).filter(unused).map(|place| self.places[place].room.name.clone()).collect();
        for room in &unused {
            self.set_state(room, State::Closed)?;
        }
        let mut still = moved.to_vec();
        for place in used {
            let there: Vec<String> = self.names_in(place);
            if there.len() * least > 100 || there.iter().any(|machine| still.contains(machine)) {
                continue;
            }
            let room = self.places[place].room.name.clone();
            let evacuation = self.evacuate(&room)?;
            if !evacuation.stuck.is_empty() {
                continue;
            }
            for Move { machine, to, .. } in &evacuation.moves {
                let Some(Standing { request, .. }) =
                    self.standing.get(machine).and_then(|n| self.machine(*n)).cloned()
                else {
                    continue;
                };
                self.remove(machine);
                self.stands(&request, to)?;
            }
            self.set_state(&room, State::Closed)?;
            still.extend(there);
            steps.push(Step { gain: Gain::Emptied(room), moves: evacuation.moves });
        }
        Ok(())
    }

    fn emptiable(&self, place: usize) -> bool {
        let at = &self.places[place];
        !at.room.zone && at.room.state == State::Open && !at.holds.is_empty()
    }

    fn names_in(&self, place: usize) -> Vec<String> {
        self.places[place]
            .holds
            .iter()
            .filter_map(|m| self.machine(*m))
            .map(|s| s.request.name.clone())
            .collect()
    }

    /// Whether a request makes sense here: nobody of its name stands, and its needs can be reckoned with.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn understands(&mut self, request: &Request) -> Result<(), Invalid> {
        self.ask(request).map(drop)
    }

    /// Whether rules of what stands reach it from beyond a box.
    pub(crate) fn reached(&self, ask: &Ask) -> bool {
        ask.own.iter().any(|tag| self.far.get(*tag as usize).is_some_and(|far| *far > 0))
    }
}
