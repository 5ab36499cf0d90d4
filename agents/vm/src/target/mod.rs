//! The effectful half: has a provider do what was decided, and writes back where the host is in its life.
//!
//! What a host is written to be comes before what is done to its machine where the one without the other would mislead: it is building
//! before anything is made, and active only after the machine has reported in. Each write is on the condition that the host is in the state
//! that was decided from; where it is not, nothing more is done, and it is decided anew.

#[cfg(feature = "ec2")]
pub mod ec2;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub mod nspawn;
mod provider;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt as _;
use futures::stream;
use serde_json::{Map, Value, json};
use shoal_agent::{
    Applied, Base, Batch, Change, DbKey, Document, Edit, Fault, Fence, HostId, HostName, Lifecycle, Moment,
    Nature, Observed, Outcome, Scope, Seen, Target, Turn, Unit,
};
use shoal_machine::{Machine, NAMESPACE, Volume, Wish, may_become, place};

pub use provider::{Doing, Listed, Made, Order, Provider};
pub use settings::Settings;

use crate::agent::Vm;
use crate::item::{Have, Item, Key};
use crate::step;

/// When what was written back is looked for, in milliseconds: it comes by the watch.
const SHOWS: Moment = 2_000;

/// After how long it is asked again for a machine that nothing had room for, in milliseconds.
const ROOMLESS: Moment = 30_000;

/// How many machines are worked on at once.
const PARALLEL: usize = 8;

/// The machines of one box.
pub struct Machines {
    room: HostName,
    providers: Vec<Box<dyn Provider>>,
    base: Base,
    /// What was destroyed of hosts that are not there any more: nobody else can say that it is gone.
    gone: Mutex<BTreeSet<HostId>>,
    /// What was last said of machines that are not Shoal's, so that it is said once.
    told: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Machines({})", self.room)
    }
}

impl Machines {
    /// These providers, on this box.
    #[must_use]
    pub fn new(room: HostName, providers: Vec<Box<dyn Provider>>, base: Base) -> Self {
        Self { room, providers, base, gone: Mutex::default(), told: Mutex::default() }
    }

    /// What makes a machine.
    fn provider(&self, machine: &Machine) -> Result<&dyn Provider, Fault> {
        let names = || self.providers.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
        let none = |why: String| Err(Fault::new("find who makes the machine", why).permanent());
        match (&machine.provider, &self.providers[..]) {
            (None, [only]) => Ok(&**only),
            (None, _) => none(format!(
                "{} has several providers ({}), and the document names none",
                self.room,
                names()
            )),
            (Some(name), all) => match all.iter().find(|one| one.name() == name.as_str()) {
                Some(one) => Ok(&**one),
                None => none(format!("{} has no provider {name}; it has {}", self.room, names())),
            },
        }
    }

    fn tell_foreign(&self, foreign: Vec<String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<String> = foreign.into_iter().collect();
        for name in now.difference(&told) {
            tracing::info!("{name} on {} is not Shoal's, and stays as it is", self.room);
        }
        *told = now;
    }

    async fn one(&self, edit: &Edit<Vm>, fence: &Fence, facts: &mut Vec<Change>) -> Result<Outcome, Fault> {
        let Some(item) = &edit.to else { return self.remove(edit, fence, facts).await };
        let (id, now) = (&edit.key.id, fence.clock.now());
        let shows = Outcome::Running { memo: edit.memo.clone(), look_again: now.saturating_add(SHOWS) };
        match edit.verb {
            step::CREATE | step::START | step::ADOPT => self.made(edit, item, fence).await,
            step::CORRECT => {
                let provider = self.provider(&item.machine)?;
                fence.check()?;
                if !provider.stop(id, Some(&item.machine)).await? {
                    let memo = step::Progress::correcting(&edit.memo);
                    return Ok(Outcome::Running { memo, look_again: now.saturating_add(step::SOON) });
                }
                fence.check()?;
                provider.correct(id, &item.machine).await?;
                fence.check()?;
                provider.boot(id).await?;
                Ok(Outcome::Done)
            }
            step::TELL => {
                facts.extend(self.fact(id, item, edit.from.as_ref()));
                Ok(Outcome::Running { memo: step::Progress::told(&edit.memo), look_again: now })
            }
            step::FORGET => {
                facts.extend(fact_of(&item.host).map(Change::delete));
                Ok(Outcome::Running { memo: Value::Null, look_again: now })
            }
            step::REPORT => self.turned(id, item, Lifecycle::Active, "its machine is up", shows).await,
            step::DRAIN => self.turned(id, item, Lifecycle::Draining, "its time is over", shows).await,
            step::FAIL => {
                let gone = edit.from.is_none() && item.life.state == Lifecycle::Active;
                let taken = edit.from.as_ref().and_then(|have| have.leaving.as_ref());
                let why = match taken {
                    Some(why) => format!("its machine is taken away: {why}"),
                    None if gone => "its machine is gone".to_owned(),
                    None => "its machine did not come up in time".to_owned(),
                };
                self.turned(id, item, Lifecycle::Failed, &why, shows).await
            }
            step::RETIRE => {
                if item.life.wish == Some(Wish::Shrunk) {
                    if !self.is_still(id, item).await? {
                        return Ok(Outcome::Stale);
                    }
                    self.given_up(id, &item.machine, fence).await?;
                }
                self.turned(id, item, Lifecycle::Retired, "its machine is destroyed", shows).await
            }
            step::DESTROY => {
                // The predecessor of one that is placed: nothing is made of that yet, or this would be it.
                if item.life.state == Lifecycle::Placed && !self.is_still(id, item).await? {
                    return Ok(Outcome::Stale);
                }
                fence.check()?;
                let made = edit.from.as_ref().map_or(&item.machine, |have| &have.machine);
                match self.destroyed(id, made, fence).await? {
                    true => Ok(Outcome::Running { memo: edit.memo.clone(), look_again: now }),
                    false => Ok(stopping(&edit.memo, now)),
                }
            }
            step::KEEP | step::NOTE => Ok(Outcome::Done),
            verb => {
                let why = "nobody here knows what that is";
                Ok(Outcome::Refused(Fault::new(format!("{verb} {}", edit.key), why).permanent()))
            }
        }
    }

    /// Has a machine made and started, or taken over as it is.
    async fn made(&self, edit: &Edit<Vm>, item: &Item, fence: &Fence) -> Result<Outcome, Fault> {
        let id = &edit.key.id;
        let adopts = edit.verb == step::ADOPT;
        let why = if adopts { "it is taken over" } else { "it is being made" };
        // Also where nobody can make it: who is building for too long has failed.
        if item.life.state == Lifecycle::Placed && !self.turn(id, item, Lifecycle::Building, why).await? {
            return Ok(Outcome::Stale);
        }
        let provider = self.provider(&item.machine)?;
        if edit.verb != step::START {
            let (host, machine) = (item.host.clone(), item.machine.clone());
            let order = Order { id: id.clone(), host, token: edit.token.clone(), machine };
            for (volume, before) in self.has_slots(id, &item.machine, provider).await? {
                fence.check()?;
                provider.inherit(id, &before, volume).await?;
            }
            fence.check()?;
            if adopts {
                provider.adopt(&order).await?;
            } else if let Made::Refused { why, last } =
                provider.make(&order, step::Progress::attempt(&edit.memo)).await?
            {
                tracing::warn!("{}: {} is not made that way: {why}", provider.name(), item.host);
                let now = fence.clock.now();
                let pause = last.then(|| now.saturating_add(ROOMLESS));
                let memo = step::Progress::refused(&edit.memo, pause);
                return Ok(Outcome::Running { memo, look_again: now });
            }
        }
        if !adopts {
            fence.check()?;
            provider.boot(id).await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether the slots whose disks a machine has are its host's, and their disks are here, as far as placement knows: it alone gives slots.
    /// Answers those that hosts had before which were deleted, with their ids.
    async fn has_slots<'m>(
        &self,
        id: &HostId,
        machine: &'m Machine,
        provider: &dyn Provider,
    ) -> Result<Vec<(&'m Volume, Vec<HostId>)>, Fault> {
        let mut had = Vec::new();
        for volume in machine.volumes() {
            let no = |why: String| Fault::new(format!("find the disks of {volume}"), why);
            if !provider.keeps_disks() {
                let why = format!("by {} no disks outlive their machines", provider.name());
                return Err(no(why).permanent());
            }
            let group = format!("{NAMESPACE}/{}", volume.group());
            let slots = self.base.fact(place::NAMESPACE, &group).await?.unwrap_or_default();
            let slot = &slots["slots"][volume.slot().to_string()];
            if slot["id"].as_str() != Some(id.0.as_str()) {
                let why =
                    format!("placement does not say that this host has slot {} of {group}", volume.slot());
                return Err(no(why));
            }
            if let Some(room) = slot["room"].as_str().filter(|room| *room != self.room.as_str()) {
                let why = format!("they are on {room}, and this is {}", self.room);
                let next = format!(
                    "have it placed on {room}; or, where they are lost, take `room` of slot {} out of facts/{}/{group}",
                    volume.slot(),
                    place::NAMESPACE
                );
                return Err(no(why).next(next));
            }
            let before = slot["before"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let before: Vec<HostId> = before.map(|id| HostId(id.to_owned())).collect();
            if !before.is_empty() {
                had.push((volume, before));
            }
        }
        Ok(had)
    }

    /// Removes the disks of slots that are given up. No machine has them any more.
    async fn given_up(&self, id: &HostId, machine: &Machine, fence: &Fence) -> Result<(), Fault> {
        for volume in machine.volumes() {
            fence.check()?;
            self.provider(machine)?.discard(id, volume).await?;
        }
        Ok(())
    }

    /// What bears no mark of Shoal's, has a host's name and could be taken over for it. What a provider names after nobody is nobody's.
    async fn strangers(
        &self,
        provider: &dyn Provider,
        foreign: &[String],
        seen: &mut BTreeMap<Key, Seen<Have>>,
    ) -> Result<(), Fault> {
        for name in foreign {
            let Ok(host) = name.parse::<HostName>() else { continue };
            let Some(have) = provider.found(&host).await? else { continue };
            let Some(id) = self.base.host_id(&host).await? else { continue };
            // A machine of this host's that is ours, under another name, goes before it.
            seen.entry(Key { room: self.room.clone(), id }).or_insert(Seen::There(have));
        }
        Ok(())
    }

    /// Destroys the machine of a host that is not there any more, or is retired; and then says that it is gone.
    async fn remove(
        &self,
        edit: &Edit<Vm>,
        fence: &Fence,
        facts: &mut Vec<Change>,
    ) -> Result<Outcome, Fault> {
        let now = fence.clock.now();
        if edit.verb == step::FORGET {
            // What is said of them all is said once, when all of the batch is done.
            return Ok(Outcome::Running { memo: Value::Null, look_again: now });
        }
        if let Some(have) = &edit.from {
            let host = step::host_of(&edit.memo).unwrap_or_else(|| have.host.clone());
            // Asked before: destroyed, it is not asked about again.
            let told = self.told_of(&host, &edit.key.id).await?;
            fence.check()?;
            if !self.destroyed(&edit.key.id, &have.machine, fence).await? {
                return Ok(stopping(&edit.memo, now));
            }
            facts.extend(fact_of(&host).filter(|_| told).map(Change::delete));
        }
        Ok(Outcome::Done)
    }

    /// Stops a machine and removes it; `false`: it was told to stop, and has not yet. Others do not wait for that.
    async fn destroyed(&self, id: &HostId, machine: &Machine, fence: &Fence) -> Result<bool, Fault> {
        let provider = self.provider(machine)?;
        if !provider.stop(id, None).await? {
            return Ok(false);
        }
        fence.check()?;
        provider.destroy(id).await?;
        Ok(true)
    }

    /// Whether what is reported under this name may be of the machine of this id here. Another host may have the name by now, or the same
    /// host a machine on another box.
    async fn told_of(&self, host: &HostName, id: &HostId) -> Result<bool, Fault> {
        let Some(said) = self.base.fact(NAMESPACE, host.as_str()).await? else { return Ok(true) };
        let is = |field: &str, what: &str| said[field].as_str().is_none_or(|word| word == what);
        Ok(is("box", self.room.as_str()) && is("id", &id.0))
    }

    /// Takes the host to another state; `false`: it is not in the one that was decided from.
    async fn turn(&self, id: &HostId, item: &Item, to: Lifecycle, why: &str) -> Result<bool, Fault> {
        let from = item.life.state;
        if !may_become(from, to) {
            return Err(Fault::new(
                format!("set the state of {} to {to}", item.host),
                format!("it is {from}"),
            ));
        }
        self.base.turn(&Turn { host: &item.host, id, from, to, agent: NAMESPACE, why }).await
    }

    /// Whether the host is in the state still that was decided from.
    async fn is_still(&self, id: &HostId, item: &Item) -> Result<bool, Fault> {
        let (from, to) = (item.life.state, item.life.state);
        self.base.turn(&Turn { host: &item.host, id, from, to, agent: NAMESPACE, why: "" }).await
    }

    async fn turned(
        &self,
        id: &HostId,
        item: &Item,
        to: Lifecycle,
        why: &str,
        shows: Outcome,
    ) -> Result<Outcome, Fault> {
        Ok(if self.turn(id, item, to, why).await? { shows } else { Outcome::Stale })
    }

    /// What is reported of a machine.
    fn fact(&self, id: &HostId, item: &Item, have: Option<&Have>) -> Option<Change> {
        let machine = have.map_or(&item.machine, |have| &have.machine);
        let provider = self.provider(machine).map(|one| one.name()).unwrap_or_default();
        let mut addresses: Vec<IpAddr> =
            machine.networks.iter().flat_map(|net| &net.addresses).map(|at| at.ip()).collect();
        let given = have.map(|have| have.given.clone()).unwrap_or_default();
        let more: Vec<IpAddr> = given.addresses.into_iter().filter(|at| !addresses.contains(at)).collect();
        addresses.extend(more);
        let mut said = json!({
            "box": self.room, "id": id, "provider": provider, "image": machine.image, "addresses": addresses,
            "size": machine.size, "networks": machine.networks, "disks": machine.own_disks(),
        });
        if !given.public.is_empty() {
            said["public"] = json!(given.public);
        }
        if let Some(instance) = given.instance {
            said["instance"] = json!(instance);
        }
        Some(Change::put(fact_of(&item.host)?, Document::from(said)))
    }

    /// What is reported of the box: which machines are gone whose hosts are not there any more, for as long as somebody keeps their rooms.
    async fn gone(&self, more: &BTreeSet<&HostId>) -> Result<Option<Change>, Fault> {
        let room = self.room.as_str();
        let promised = self.base.fact(place::NAMESPACE, room).await?.unwrap_or_default();
        let before = self.base.fact(NAMESPACE, room).await?.unwrap_or_default();
        let ids = promised["ids"].as_object().cloned().unwrap_or_default();
        let kept: BTreeSet<&str> = ids.values().filter_map(Value::as_str).collect();
        let known = before[place::GONE].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.extend(more.iter().map(|id| (*id).clone()));
        gone.extend(known.map(|id| HostId(id.to_owned())));
        gone.retain(|id| kept.contains(id.0.as_str()));
        let Some(key) = fact_of(&self.room) else { return Ok(None) };
        let mut fact: Map<String, Value> = before.as_object().cloned().unwrap_or_default();
        fact.insert(place::GONE.to_owned(), json!(*gone));
        Ok(Some(Change::put(key, Document::from(Value::Object(fact)))))
    }

    /// One change of a batch: what became of it, and what is to be reported.
    async fn each(&self, edit: &Edit<Vm>, fence: &Fence) -> (Key, Outcome, Vec<Change>) {
        let mut facts = Vec::new();
        let outcome = match fence.check() {
            Ok(()) => self.one(edit, fence, &mut facts).await,
            Err(fault) => Err(fault),
        };
        (edit.key.clone(), outcome.unwrap_or_else(Outcome::Failed), facts)
    }
}

/// It was told to stop, and goes when it has.
fn stopping(memo: &Value, now: Moment) -> Outcome {
    Outcome::Running { memo: step::Leaving::stopping(memo), look_again: now.saturating_add(step::SOON) }
}

/// Where what is reported of a host stands.
fn fact_of(host: &HostName) -> Option<DbKey> {
    format!("facts/{NAMESPACE}/{host}").parse().ok()
}

impl Target<Vm> for Machines {
    fn nature(&self) -> Nature {
        Nature { marks_own: true, ..Nature::default() }
    }

    fn location(&self, _: &Unit) -> String {
        self.providers.iter().map(|one| one.location()).collect::<Vec<_>>().join("; ")
    }

    async fn start(&self) -> Result<(), Fault> {
        for provider in &self.providers {
            provider.start().await?;
        }
        Ok(())
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Vm>, Fault> {
        if unit.0 != self.room.as_str() {
            return Err(Fault::new(format!("look at {unit}"), format!("this is {}", self.room)));
        }
        let of: Option<BTreeSet<HostId>> = match scope {
            Scope::All => None,
            Scope::Keys(keys) => Some(keys.iter().map(|key| key.id.clone()).collect()),
        };
        let (mut seen, mut complete, mut foreign) = (BTreeMap::new(), true, Vec::new());
        for provider in &self.providers {
            let listed = provider.list(of.as_ref()).await?;
            for (id, have) in listed.ours {
                seen.insert(Key { room: self.room.clone(), id }, Seen::Ours(have));
            }
            self.strangers(&**provider, &listed.foreign, &mut seen).await?;
            foreign.extend(listed.foreign);
            for why in listed.unseen {
                tracing::warn!("{}: {why}; nothing is made before that can be seen", provider.name());
                complete = false;
            }
        }
        self.tell_foreign(foreign);
        Ok(Observed { seen, complete })
    }

    async fn apply(&self, _: &Unit, batch: &Batch<Vm>, fence: &Fence) -> Result<Applied<Vm>, Fault> {
        let work: Vec<_> = batch.changes.iter().map(|edit| self.each(edit, fence)).collect();
        let done: Vec<_> = stream::iter(work).buffered(PARALLEL).collect().await;
        let (mut each, mut facts) = (Vec::new(), Vec::new());
        for (key, outcome, said) in done {
            each.push((key, outcome));
            facts.extend(said);
        }
        let forgotten = |edit: &&Edit<Vm>| edit.to.is_none() && edit.verb == step::FORGET;
        let gone: BTreeSet<&HostId> =
            batch.changes.iter().filter(forgotten).map(|edit| &edit.key.id).collect();
        if !gone.is_empty() {
            match self.gone(&gone).await {
                Ok(fact) => facts.extend(fact),
                Err(fault) => {
                    for (_, outcome) in each.iter_mut().filter(|(key, _)| gone.contains(&key.id)) {
                        *outcome = Outcome::Failed(fault.clone());
                    }
                }
            }
        }
        Ok(Applied { each, facts })
    }
}
