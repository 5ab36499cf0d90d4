//! The laws that every agent keeps, ours or a user's, as a test kit.
//!
//! ```no_run
//! # use shoal_agent::{Agent, laws::Laws};
//! # fn test<Motd: Agent<Item = String, Have = String>>(motd: fn() -> Motd) -> Result<(), shoal_agent::laws::Broken> {
//! Laws::new(motd, "motd/all", serde_json::json!({"banner": "be kind"}))
//!     .then(serde_json::json!({"banner": "be quiet"}))
//!     .check()
//! # }
//! ```
//!
//! The kit makes a small fleet whose hosts are all members of the tag, and lets it live: hosts are edited, taken out,
//! deleted, renamed; the tag's document changes; the tag goes. At every step these must hold:
//!
//! 1. **Same input, same plan**: an engine that followed every commit and one that starts at the end plan the same.
//! 2. **Nothing left to do**: when it has converged, another start changes nothing.
//! 3. **Stopped anywhere, it converges**: the process dies at every boundary between two effects, one after the other;
//!    run again, it ends where it would have ended.
//! 4. **Foreign items stay**: what Shoal did not make is the same at the end, whatever was wanted in its place.
//! 5. **Proportional**: editing one host of many costs what editing one of few does.
//! 6. **Alone**: of an agent that says which units are [one host's alone](Agent::units_of), who reads only what concerns that host plans
//!    for them what who reads everything does.
//!
//! The target is a model in memory, once of items that stand alone and once of a unit that is written as a whole;
//! [`Laws::check_with`] takes a real one.

mod real;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_core::{Change, Document, HostName, Key, Range};
use shoal_engine::model::{Model, Place, World};
use shoal_engine::{Agent, Counters, MaxChange, Nature, Seen, Target, Unit, Verdict};

pub use real::Real;

/// A law that an agent does not keep.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which law.
    pub law: &'static str,
    /// At which step of the fleet's life, what was committed there, and where it was stopped.
    pub at: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the law \"{}\" is broken at {}: {}", self.law, self.at, self.found)
    }
}

impl std::error::Error for Broken {}

type Making<T> = Box<dyn Fn(usize) -> T>;
/// Puts something there as somebody else would.
type Putting<'f, A, P> = &'f dyn Fn(&mut P, &<A as Agent>::Key, &<A as Agent>::Have);
/// What a look shows of one item.
type There<A> = (Unit, <A as Agent>::Key, Seen<<A as Agent>::Have>);

/// An agent, and a fleet for it to live through. See the [module](self).
pub struct Laws<A> {
    agent: Box<dyn Fn() -> A>,
    tag: String,
    documents: Vec<Value>,
    host: Making<Value>,
    edited: Making<Value>,
    collects: bool,
}

/// How many hosts live through every step.
const FEW: usize = 4;
/// How many hosts a fleet has whose cost is compared, and ten times as many.
const SOME: usize = 20;
/// More boundaries than this in one step are taken for endless.
const MANY: usize = 2_000;
/// How long an agent may take to converge, by its own timers.
const PATIENCE: i64 = 3_600_000;

const SAME: &str = "same input, same plan";
const DONE: &str = "after converging, nothing is left to do";
const STOPPED: &str = "stopped anywhere and run again, it converges";
const FOREIGN: &str = "foreign items stay as they are";
const COST: &str = "the cost follows the change, not the fleet";
const ALONE: &str = "what is a host's alone follows from what concerns it";

impl<A: Agent> Laws<A> {
    /// An agent, a tag of its namespace, and a document that the tag may have.
    pub fn new(agent: impl Fn() -> A + 'static, tag: &str, document: Value) -> Self {
        Self {
            agent: Box::new(agent),
            tag: tag.to_owned(),
            documents: vec![document],
            host: Box::new(|_| json!({})),
            edited: Box::new(|n| json!({"edited": n})),
            collects: false,
        }
    }

    /// Another document that the tag may have; the fleet lives through them in order.
    #[must_use]
    pub fn then(mut self, document: Value) -> Self {
        self.documents.push(document);
        self
    }

    /// The document of host `n`, where the agent reads anything of it; `{}` otherwise.
    #[must_use]
    pub fn host(mut self, document: impl Fn(usize) -> Value + 'static) -> Self {
        self.host = Box::new(document);
        self
    }

    /// The document of host `n` after somebody edited it.
    #[must_use]
    pub fn edited(mut self, document: impl Fn(usize) -> Value + 'static) -> Self {
        self.edited = Box::new(document);
        self
    }

    /// Says that one item collects many members, so that deciding about it may cost its members.
    #[must_use]
    pub fn collects(mut self) -> Self {
        self.collects = true;
        self
    }

    /// Checks all laws on a model target.
    ///
    /// # Errors
    /// The first law that is broken, and where.
    pub fn check(&self) -> Result<(), Broken>
    where
        A::Have: From<A::Item>,
    {
        for whole in [false, true] {
            let nature = Nature { whole, ..Nature::default() };
            self.check_on(&|agent| (agent, Model::new(nature, |item: &A::Item| item.clone().into())))?;
        }
        let nature = Nature::default();
        let place = |agent: Arc<A>| (agent, Model::new(nature, |item: &A::Item| item.clone().into()));
        self.foreign(&place, &|place, key, have| drop(place.1.items.insert(key.clone(), have.clone())))
    }

    /// Checks all laws but that of foreign items ([`Laws::check_foreign_with`]) on a real target; `target` makes an empty
    /// one each time. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// The first law that is broken, and where.
    pub fn check_with<T: Target<A>>(&self, target: impl Fn() -> T) -> Result<(), Broken> {
        self.check_on(&|_| Real::new(target()))
    }

    /// Checks on a real target that what Shoal did not make stays as it is. `target` makes an empty one each time, and
    /// `put` puts something there as somebody else would. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// What was changed, and when.
    pub fn check_foreign_with<T: Target<A>>(
        &self,
        target: impl Fn() -> T,
        put: impl Fn(&T, &A::Key, &A::Have),
    ) -> Result<(), Broken> {
        self.foreign(&|_| Real::new(target()), &|place: &mut Real<T>, key, have| {
            put(place.target(), key, have);
        })
    }

    fn check_on<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        self.same_plan(place)?;
        self.nothing_left(place)?;
        self.stopped(place)?;
        self.alone(place)?;
        self.proportional(place)
    }

    /// The fleet's life: what is committed, step by step, with a name.
    fn life(&self) -> Vec<(String, Vec<Change>)> {
        let mut life = Vec::new();
        let mut step = |name: &str, changes: Vec<Change>| life.push((told(name, &changes), changes));
        step("the beginning", self.fleet(FEW));
        step("a host edited", vec![put(&host_key(0), row(0, (self.edited)(0)))]);
        let pause = format!("pauses/host/{}", host_key(0).trim_start_matches("hosts/"));
        step("a host paused", vec![put(&pause, json!({"why": "a law"}))]);
        step("a host resumed", vec![delete(&pause)]);
        step("a member taken out", vec![delete(&self.member_key(1))]);
        step("a host deleted", vec![delete(&self.member_key(2)), delete(&host_key(2))]);
        let (mut from, mut to) = (delete(&host_key(3)), put(&host_key(9), row(3, (self.host)(3))));
        from.moved = Some(to.key.clone());
        to.moved = Some(from.key.clone());
        step(
            "a host renamed",
            vec![from, to, delete(&self.member_key(3)), put(&self.member_key(9), json!({}))],
        );
        for document in &self.documents[1..] {
            step("the tag edited", vec![put(&self.tag, json!({"document": document}))]);
        }
        step(
            "a host retired",
            vec![put(&host_key(0), json!({"id": "law-0", "state": "retired", "document": {}}))],
        );
        step(
            "the tag deleted",
            vec![delete(&self.tag), delete(&self.member_key(0)), delete(&self.member_key(9))],
        );
        life
    }

    fn fleet(&self, hosts: usize) -> Vec<Change> {
        let mut changes = vec![put(&self.tag, json!({"document": self.documents[0]}))];
        for n in 0..hosts {
            changes.push(put(&host_key(n), row(n, (self.host)(n))));
            changes.push(put(&self.member_key(n), json!({})));
        }
        changes
    }

    fn member_key(&self, n: usize) -> String {
        format!("{}/members/{}", self.tag, host_name(n))
    }

    fn world<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> World<A, P> {
        let agent = Arc::new((self.agent)());
        let mut world = World::new(agent.clone(), place(agent));
        // What the guard holds is another matter.
        world.options.max_change = MaxChange(100);
        world
    }

    fn same_plan<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        let mut live = self.world(place);
        live.options.write = false;
        live.run();
        let mut all = Vec::new();
        for (name, changes) in self.life() {
            live.commit(changes.clone());
            live.run();
            all.push(changes);
            let mut fresh = self.world(place);
            fresh.options.write = false;
            for changes in &all {
                fresh.commit(changes.clone());
            }
            fresh.run();
            let plan = |world: &mut World<A, P>| {
                serde_json::to_value(world.engine().plan().units).unwrap_or_default()
            };
            let (one, other) = (plan(&mut live), plan(&mut fresh));
            if one != other {
                let found = format!("one that followed plans {one}, one that starts plans {other}");
                return Err(Broken { law: SAME, at: name, found });
            }
        }
        Ok(())
    }

    fn nothing_left<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        let mut world = self.world(place);
        for (name, changes) in self.life() {
            world.commit(changes);
            converge(&mut world, DONE, &name)?;
            let before = state(&mut world, DONE, &name)?;
            restart(&mut world);
            converge(&mut world, DONE, &name)?;
            let changes = world.engine().counters().changes;
            if changes > 0 || state(&mut world, DONE, &name)? != before {
                let trace = world.trace.iter().rev().find(|line| line.starts_with("Apply"));
                let found = format!("it changed {changes} items again: {trace:?}");
                return Err(Broken { law: DONE, at: name, found });
            }
        }
        Ok(())
    }

    fn alone<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        let agent = (self.agent)();
        let mut world = self.world(place);
        let mut all = Vec::new();
        for (name, changes) in self.life() {
            all.push(changes.clone());
            for n in [0, 1, 2, 3, 9] {
                let Ok(host) = host_name(n).parse::<HostName>() else { continue };
                if agent.units_of(&host).is_none() {
                    return Ok(());
                }
                let (one, other) = (Range::Concerning(host.clone()), Range::All);
                let [one, other] =
                    [one, other].map(|range| self.plan_for(place, &host, &all, &range, &world.ledger));
                if one != other {
                    let found =
                        format!("who reads what concerns {host} plans {one}, who reads everything {other}");
                    return Err(Broken { law: ALONE, at: name, found });
                }
            }
            world.commit(changes);
            converge(&mut world, ALONE, &name)?;
        }
        Ok(())
    }

    /// What an engine for this host alone plans that knows of the commits what is in the range.
    fn plan_for<P: Place<A>>(
        &self,
        place: &dyn Fn(Arc<A>) -> P,
        host: &HostName,
        commits: &[Vec<Change>],
        range: &Range,
        ledger: &BTreeMap<String, Vec<u8>>,
    ) -> Value {
        let mut world = self.world(place);
        (world.options.write, world.options.host) = (false, Some(host.clone()));
        world.ledger.clone_from(ledger);
        for changes in commits {
            world.commit(changes.iter().filter(|change| range.contains(&change.key)).cloned().collect());
        }
        world.run();
        serde_json::to_value(world.engine().plan().units).unwrap_or_default()
    }

    fn stopped<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        let life = self.life();
        for step in 0..life.len() {
            let expected = {
                let mut world = self.live_until(place, &life[..=step])?;
                state(&mut world, STOPPED, &life[step].0)?
            };
            for fuse in 0..MANY {
                let mut world = self.live_until(place, &life[..step])?;
                world.light_fuse(fuse);
                world.commit(life[step].1.clone());
                world.run();
                let Some(stopped) = world.stopped_at().map(str::to_owned) else { break };
                let at = format!("{}, stopped {stopped}", life[step].0);
                restart(&mut world);
                converge(&mut world, STOPPED, &at)?;
                let found = state(&mut world, STOPPED, &at)?;
                if found != expected {
                    let found = format!("it ends with {found:?} instead of {expected:?}");
                    return Err(Broken { law: STOPPED, at, found });
                }
            }
        }
        Ok(())
    }

    fn live_until<P: Place<A>>(
        &self,
        place: &dyn Fn(Arc<A>) -> P,
        life: &[(String, Vec<Change>)],
    ) -> Result<World<A, P>, Broken> {
        let mut world = self.world(place);
        for (name, changes) in life {
            world.commit(changes.clone());
            converge(&mut world, STOPPED, name)?;
        }
        Ok(world)
    }

    fn foreign<P: Place<A>>(
        &self,
        place: &dyn Fn(Arc<A>) -> P,
        put: Putting<'_, A, P>,
    ) -> Result<(), Broken> {
        let mut first = self.world(place);
        first.commit(self.fleet(FEW + 1));
        converge(&mut first, FOREIGN, "the beginning")?;
        // Every other item is somebody else's, equal or not, wanted or not.
        let all: Vec<_> = contents(&mut first, &BTreeSet::new(), FOREIGN, "the beginning")?
            .into_iter()
            .filter_map(|(_, key, seen)| match seen {
                Seen::Ours(have) | Seen::There(have) => Some((key, have)),
                Seen::Nothing | Seen::Unknown(_) => None,
            })
            .collect();
        let other = |n: usize| all[if n.is_multiple_of(4) { n } else { (n + 1) % all.len() }].1.clone();
        let odd = all.iter().enumerate().step_by(2);
        let foreign: BTreeMap<A::Key, A::Have> = odd.map(|(n, (key, _))| (key.clone(), other(n))).collect();
        // The engine need not look where nothing is wanted, and what is there has to stay all the same.
        let agent = (self.agent)();
        let units: BTreeSet<Unit> = foreign.keys().map(|key| agent.unit(key)).collect();
        let mut world = self.world(place);
        for (key, have) in &foreign {
            put(&mut world.place, key, have);
        }
        let json = |have: &A::Have| serde_json::to_value(have).unwrap_or_default();
        for (name, changes) in self.life() {
            world.commit(changes);
            world.run();
            world.advance(PATIENCE / 8);
            let mut now = BTreeMap::new();
            for (_, key, seen) in contents(&mut world, &units, FOREIGN, &name)? {
                if let Seen::Ours(have) | Seen::There(have) = seen {
                    now.insert(key, json(&have));
                }
            }
            for (key, have) in &foreign {
                let (now, then) = (now.get(key), json(have));
                if now != Some(&then) {
                    let found = format!("{key} was {then}, and is {now:?}");
                    return Err(Broken { law: FOREIGN, at: name, found });
                }
            }
        }
        Ok(())
    }

    fn proportional<P: Place<A>>(&self, place: &dyn Fn(Arc<A>) -> P) -> Result<(), Broken> {
        let cost = |hosts: usize| {
            let mut world = self.world(place);
            world.commit(self.fleet(hosts));
            converge(&mut world, COST, "the beginning")?;
            let before = world.engine().counters();
            world.commit(vec![put(&host_key(1), row(1, (self.edited)(1)))]);
            converge(&mut world, COST, "a host edited")?;
            Ok(self.difference(before, world.engine().counters()))
        };
        let (few, many) = (cost(SOME)?, cost(10 * SOME)?);
        if few != many {
            let found = format!("in {SOME} hosts it costs {few:?}, in {} hosts {many:?}", 10 * SOME);
            return Err(Broken { law: COST, at: "a host edited".into(), found });
        }
        Ok(())
    }

    fn difference(&self, before: Counters, after: Counters) -> BTreeMap<&'static str, u64> {
        let mut cost = BTreeMap::from([
            ("keys", after.keys - before.keys),
            ("desired", after.desired - before.desired),
            ("sources", after.sources - before.sources),
            ("steps", after.steps - before.steps),
            ("specs", after.specs - before.specs),
            ("looks", after.looks - before.looks),
            ("looked", after.looked - before.looked),
            ("changes", after.changes - before.changes),
            ("ledger rows", after.ledger_rows - before.ledger_rows),
        ]);
        if self.collects {
            cost.remove("sources");
        }
        cost
    }
}

fn restart<A: Agent, P: Place<A>>(world: &mut World<A, P>) {
    world.crash();
    // The dead one's claim has to run out first.
    let ttl = world.options.ttl;
    world.advance(ttl + 1_000);
}

fn converge<A: Agent, P: Place<A>>(
    world: &mut World<A, P>,
    law: &'static str,
    at: &str,
) -> Result<(), Broken> {
    let end = world.now() + PATIENCE;
    loop {
        let verdict = world.run();
        if verdict == Verdict::Converged {
            return Ok(());
        }
        // A unit of few items meets the guard when its last ones go; somebody agrees.
        if verdict == Verdict::Held && world.now() < end && agree(world) {
            continue;
        }
        if world.now() >= end || verdict == Verdict::Held {
            let found = format!("it does not converge ({verdict:?}): {:?}", world.engine().troubles());
            return Err(Broken { law, at: at.to_owned(), found });
        }
        world.advance(60_000);
    }
}

/// Agrees to all that the guard holds, as `shoal approve` does. Whether there was anything new to agree to.
fn agree<A: Agent, P: Place<A>>(world: &mut World<A, P>) -> bool {
    let Ok(agent) = world.agent.namespace().parse() else { return false };
    let agreed = |(unit, hold): (&Unit, &shoal_core::Hold)| {
        let key = Key::approval(&agent, Some(&unit.0)).ok()?;
        Some(Change::put(key, Document::from(json!({"digest": hold.digest}))))
    };
    let mut approvals: Vec<Change> = world.engine().holds().filter_map(agreed).collect();
    let before = world.live_rows();
    approvals.retain(|new| !before.iter().any(|old| (&old.key, &old.value) == (&new.key, &new.value)));
    if approvals.is_empty() {
        return false;
    }
    world.commit(approvals);
    true
}

type Contents = (BTreeMap<String, Value>, BTreeSet<String>);

/// What is there, unit by unit: in those that were looked at, and in these.
fn contents<A: Agent, P: Place<A>>(
    world: &mut World<A, P>,
    units: &BTreeSet<Unit>,
    law: &'static str,
    at: &str,
) -> Result<Vec<There<A>>, Broken> {
    let mut all = Vec::new();
    for unit in world.units_seen() | units {
        let observed = world.place.observe(&unit, None);
        let observed =
            observed.map_err(|fault| Broken { law, at: at.to_owned(), found: fault.to_string() })?;
        // As the engine does: a look may show more than the unit.
        let own = observed.seen.into_iter().filter(|(key, _)| world.agent.unit(key) == unit);
        all.extend(own.map(|(key, seen)| (unit.clone(), key, seen)));
    }
    Ok(all)
}

/// What is there, and which items the ledger holds.
fn state<A: Agent, P: Place<A>>(
    world: &mut World<A, P>,
    law: &'static str,
    at: &str,
) -> Result<Contents, Broken> {
    let mut there = BTreeMap::new();
    for (unit, key, seen) in contents(world, &BTreeSet::new(), law, at)? {
        let have = match seen {
            Seen::Ours(have) | Seen::There(have) => serde_json::to_value(&have).unwrap_or_default(),
            Seen::Nothing => continue,
            Seen::Unknown(why) => Value::String(why),
        };
        there.insert(format!("{unit} {key}"), have);
    }
    let pages = world.ledger.values().filter_map(|page| serde_json::from_slice::<Value>(page).ok());
    let keys = pages.flat_map(|page| {
        let entries = page["entries"].as_array().cloned().unwrap_or_default();
        entries.into_iter().map(|entry| entry["key"].to_string())
    });
    Ok((there, keys.collect()))
}

/// A step's name, with what is committed in it.
fn told(name: &str, changes: &[Change]) -> String {
    let what = |change: &Change| match &change.value {
        Some(_) => format!("+{}", change.key),
        None => format!("-{}", change.key),
    };
    format!("{name} ({})", changes.iter().map(what).collect::<Vec<_>>().join(" "))
}

fn host_key(n: usize) -> String {
    format!("hosts/{}", host_name(n))
}

fn host_name(n: usize) -> String {
    format!("law{n}.example.com")
}

fn row(n: usize, document: Value) -> Value {
    json!({"id": format!("law-{n}"), "state": "active", "document": document})
}

#[allow(clippy::expect_used, reason = "the tag was given by a test, which fails if it is no tag")]
fn put(key: &str, value: Value) -> Change {
    Change::put(key.parse().expect("a key"), Document::from(value))
}

#[allow(clippy::expect_used, reason = "the tag was given by a test, which fails if it is no tag")]
fn delete(key: &str) -> Change {
    Change::delete(key.parse().expect("a key"))
}
