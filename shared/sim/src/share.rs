//! Several instances of one agent: what they hear of each other, and what has to hold of who works on what.
//!
//! At the end of a run, when nothing goes wrong and all is at rest, an instance of each agent dies for good, and later another one
//! takes its place. Everything that it held has to be in other hands within twice the lease; nothing else may change
//! hands; whoever comes is given its share and no more; and always nobody holds more than one unit more than another.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shoal_engine::{Answer, Fault, Moment, Roster};
use shoal_store::{ClaimAnswer, ClaimRequest};

use crate::agent::SimAgent;
use crate::node::{Node, Reply};
use crate::oracle::expected;
use crate::setup::Failure;
use crate::store::uptime;
use crate::swarm::{Event, Swarm};

/// How many instances may share.
const INSTANCES: u32 = 100;

/// Who holds each unit of one agent.
type Holders = BTreeMap<String, String>;

impl Swarm {
    fn namespace(&self, node: usize) -> &'static str {
        self.worlds[self.nodes[node].world].kind.namespace()
    }

    /// What the instance is called in claims.
    pub(crate) fn holder(&self, node: usize) -> String {
        format!("{}-{}", self.namespace(node), self.nodes[node].name())
    }

    pub(crate) fn join(&mut self, node: usize, ttl: i64) -> Reply {
        let now = self.queue.now();
        let name = format!("instances/{}", self.namespace(node));
        let ttl = Some(Duration::from_millis(ttl.unsigned_abs()));
        let want = ClaimRequest { name: name.clone(), of: INSTANCES, holder: self.holder(node), ttl };
        match self.store.memory.claim(&want, uptime(now)) {
            Ok(ClaimAnswer::Granted(_)) => {}
            Ok(ClaimAnswer::Taken { .. }) => return Answer::Fault(Fault::new("join", "there are too many")),
            Err(why) => return Answer::Fault(Fault::new("join", why)),
        }
        let there = self.store.memory.claims(&name, uptime(now));
        let ttls = there.iter().filter_map(|claim| claim.ttl);
        let lease = ttls.max().map_or(0, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(0));
        let instances = there.into_iter().map(|claim| claim.holder).collect();
        let holders = self.holders(self.nodes[node].world).into_iter();
        Answer::Roster(Roster {
            instances,
            lease,
            holders: holders.map(|(unit, who)| (unit.as_str().into(), who)).collect(),
        })
    }

    pub(crate) fn leave_others(&mut self, node: usize) -> Reply {
        let name = format!("instances/{}", self.namespace(node));
        let me = self.holder(node);
        let all = self.store.memory.claims(&name, uptime(self.queue.now()));
        for claim in all.into_iter().filter(|claim| claim.holder == me) {
            self.store.memory.release(&claim);
        }
        Answer::Done
    }

    /// Who holds what, as the store says.
    fn holders(&self, world: usize) -> Holders {
        let prefix = format!("unit/{}/", self.worlds[world].kind.namespace());
        let all = self.store.memory.claims(&prefix, uptime(self.queue.now())).into_iter();
        all.filter_map(|claim| Some((claim.name.strip_prefix(&prefix)?.to_owned(), claim.holder))).collect()
    }

    fn nodes_of(&self, world: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].world == world).collect()
    }

    /// The units that something feeds.
    fn fed(&self, world: usize) -> BTreeSet<String> {
        let said = expected(&SimAgent::of(self.worlds[world].kind), self.store.newest());
        said.from.keys().map(|key| key.unit().to_owned()).collect()
    }

    /// How many units each instance that is up holds, of those that something feeds.
    fn loads(&self, world: usize) -> Vec<usize> {
        let fed = self.fed(world);
        let mut held = self.holders(world);
        held.retain(|unit, _| fed.contains(unit));
        let up = self.nodes_of(world).into_iter().filter(|node| self.nodes[*node].engine.is_some());
        up.map(|node| self.holder(node)).map(|me| held.values().filter(|who| **who == me).count()).collect()
    }

    /// Whether every unit of the agent that has something in it, or is to have, is held, by somebody who is up, and evenly.
    fn is_even(&self, world: usize) -> Result<(), String> {
        let kind = self.worlds[world].kind;
        let held = self.holders(world);
        let ledger = self.store.whole_ledger(kind);
        let mut units = self.fed(world);
        units.extend(ledger.keys().map(|key| key.unit().to_owned()));
        if let Some(unit) = units.iter().find(|unit| !held.contains_key(*unit)) {
            return Err(format!("nobody works on unit {unit}"));
        }
        let up: BTreeSet<String> = (self.nodes_of(world).into_iter())
            .filter(|node| self.nodes[*node].engine.is_some())
            .map(|node| self.holder(node))
            .collect();
        if let Some((unit, who)) = held.iter().find(|(_, who)| !up.contains(*who)) {
            return Err(format!("unit {unit} is still {who}'s, which is gone"));
        }
        let loads = self.loads(world);
        match (loads.iter().min(), loads.iter().max()) {
            (Some(least), Some(most)) if most - least > 1 => {
                Err(format!("the units of {kind:?} are not shared evenly: {loads:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Waits until every agent's units are shared evenly; answers how many changed hands meanwhile.
    fn until_even(&mut self, most: Moment) -> Result<Vec<Holders>, Box<Failure>> {
        let end = self.queue.now() + most;
        loop {
            let wrong = (0..self.worlds.len()).find_map(|world| self.is_even(world).err());
            let Some(why) = wrong else { break };
            if self.queue.now() >= end {
                let states = self.nodes.iter().map(Node::describe).collect::<Vec<_>>().join("\n      ");
                return Err(self.failed(format!("{most} ms in calm, and {why}\n      {states}")));
            }
            let until = (self.queue.now() + 200).min(end);
            while self.turn(until)? {}
        }
        Ok((0..self.worlds.len()).map(|world| self.holders(world)).collect())
    }

    /// An instance of each agent dies for good, and another one comes.
    pub(crate) fn share(&mut self) -> Result<(), Box<Failure>> {
        let ttl = self.nodes.iter().map(|node| node.options.ttl).max().unwrap_or(0);
        // Who still stands still is not among those that share.
        let begun = self.nodes.iter().map(|node| node.stalled_until).max().unwrap_or(0);
        while self.turn(begun + ttl)? {}
        // From whatever it was: at most every unit has to move, an eighth of a share at a time.
        let before = self.until_even(20 * ttl)?;
        if self.setup.instances < 2 {
            return Ok(());
        }
        let victims: Vec<usize> = (0..self.worlds.len()).map(|world| self.nodes_of(world)[0]).collect();
        let names: Vec<String> = victims.iter().map(|node| self.holder(*node)).collect();
        for node in &victims {
            self.nodes[*node].engine = None;
            self.note(|s| format!("{} dies for good", s.nodes[*node].name()));
        }
        let after = self.until_even(2 * ttl)?;
        for (world, name) in names.iter().enumerate() {
            let moved = moved(&before[world], &after[world]);
            if let Some((unit, was)) = moved.iter().find(|(_, was)| *was != name) {
                return Err(self.failed(format!("{name} died, and unit {unit} of {was} changed hands")));
            }
            self.summary.handed_over += moved.len() as u64;
        }
        for node in victims {
            self.queue.after(100, Event::Start(node));
        }
        while self.turn(self.queue.now() + 100)? {}
        let back = self.until_even(20 * ttl)?;
        for world in 0..self.worlds.len() {
            let moved = moved(&after[world], &back[world]).len();
            let share = after[world].len().div_ceil(self.setup.instances);
            if moved > share {
                return Err(self.failed(format!(
                    "an instance came whose share is {share} units, and {moved} changed hands"
                )));
            }
            self.summary.handed_over += moved as u64;
        }
        // Once it is even, nothing goes to and fro.
        let end = self.queue.now() + 2 * ttl;
        while self.turn(end)? {}
        for (world, back) in back.iter().enumerate() {
            if let Some((unit, who)) = moved(back, &self.holders(world)).first() {
                return Err(self.failed(format!("all was even, and unit {unit} of {who} changed hands")));
            }
        }
        self.come_to_rest(false)
    }
}

/// Units that somebody else holds now, and who held them.
fn moved<'a>(before: &'a Holders, after: &Holders) -> Vec<(&'a String, &'a String)> {
    before.iter().filter(|(unit, who)| after.get(*unit).is_some_and(|now| now != *who)).collect()
}
