//! Machines as instances of EC2, in one availability zone.
//!
//! **Whose an instance is** it says itself, by its tags and the token of its launch, from the moment that it is there: nothing else is ever
//! changed. What the mark says is what was asked for; what EC2 says is what became of it, and where both differ, somebody changed it by
//! hand.
//!
//! **A launch is made once**: its token follows from the order and the attempt, which stand in the ledger before, and EC2 answers the same
//! token with the same instance. Another way to make a machine has another token, and is tried only after EC2 said that the one before it
//! had no room.
//!
//! **What was launched need not be seen at once**: EC2 is told of its own doings late. Until it is seen, a look says that it could not see
//! all; a process that did not launch it does not know of it, and goes by when the ledger says that it was asked for. What is being shut
//! down is there until it is terminated: it may live for so long.

mod cloud;
mod drift;
mod launch;
mod mark;
mod seen;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use shoal_agent::{Fault, HostId, HostName};
use shoal_aws::AwsSettings;
use shoal_machine::Machine;
use tokio::time::sleep;

use super::provider::{Doing, Listed, Made, Order, Provider};
use crate::item::Attempt;
use cloud::{Cloud, Launched, ROOMLESS};
use launch::Launch;
use mark::Mark;
use seen::One;
pub use settings::{Ec2Settings, Image, Ready, Spot, Subnet, Type};

/// How often what is waited for is looked at.
const LOOKS: Duration = Duration::from_millis(500);
/// How long what was launched may stay unseen before it is not looked for any more, nor waited for.
const UNSEEN: Duration = Duration::from_secs(600);

/// Instances of EC2.
#[derive(Debug)]
pub struct Ec2 {
    settings: Ec2Settings,
    room: HostName,
    place: String,
    cloud: Cloud,
    /// What was launched and not seen yet.
    fresh: Mutex<BTreeMap<HostId, Fresh>>,
}

#[derive(Clone, Debug)]
struct Fresh {
    instance: String,
    since: Instant,
}

impl Ec2 {
    /// By these settings, for the box that the zone is called in the database. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: Ec2Settings, aws: Option<AwsSettings>, room: HostName) -> Result<Self, Fault> {
        settings.check()?;
        let aws = AwsSettings::or_default(aws);
        aws.check()?;
        let role = aws.role_arn.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
        let at = aws.endpoint.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let place = format!("instances of EC2 in {} marked {room}{role}{at}", settings.zone);
        let cloud = Cloud::new(aws, &settings);
        Ok(Self { settings, room, place, cloud, fresh: Mutex::default() })
    }

    fn fresh(&self) -> MutexGuard<'_, BTreeMap<HostId, Fresh>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self, doing: &str) -> String {
        format!("{doing} in {} of EC2", self.settings.zone)
    }

    /// The instances of a host that are there, the one that counts first.
    async fn of(&self, id: &HostId) -> Result<Vec<One>, Fault> {
        let what = self.what(&format!("look at the machine of {id}"));
        let all = self.cloud.instances(&what, &self.room, Some(&[id])).await?;
        let mut ones = Vec::new();
        for instance in &all {
            // What only looks like Shoal's is none of it, and what cannot be read is not touched.
            ones.extend(One::of(instance, &self.room).map_err(|why| Fault::new(&what, why))?.ok());
        }
        ones.retain(|one| one.mark.order.id == *id && one.is_there());
        ones.sort_by_key(One::order);
        Ok(ones)
    }

    async fn listed(&self, of: Option<&BTreeSet<HostId>>) -> Result<Listed, Fault> {
        let what = self.what("look at the machines");
        // Many are seen sooner all at once.
        let some = of.filter(|of| of.len() <= 100).map(|of| of.iter().collect::<Vec<_>>());
        let all = self.cloud.instances(&what, &self.room, some.as_deref()).await?;
        let mut listed = Listed::default();
        let mut ones: BTreeMap<HostId, Vec<One>> = BTreeMap::new();
        let mut ended = BTreeSet::new();
        for instance in &all {
            match One::of(instance, &self.room) {
                Ok(Ok(one)) if one.is_there() => {
                    ones.entry(one.mark.order.id.clone()).or_default().push(one);
                }
                Ok(Ok(one)) => {
                    ended.insert(one.id);
                }
                Ok(Err(why)) => listed.foreign.push(why),
                Err(why) => listed.unseen.push(why),
            }
        }
        self.note(&ones, &ended, of, &mut listed).await?;
        if let Some(of) = of {
            ones.retain(|id, _| of.contains(id));
        }
        for same in ones.values_mut() {
            same.sort_by_key(One::order);
        }
        let first: Vec<&One> = ones.values().filter_map(|same| same.first()).collect();
        let checked = self.checked(&what, &first).await?;
        let requests: Vec<String> = first.iter().filter_map(|one| one.spot.clone()).collect();
        let interrupted = self.cloud.interrupted(&what, &requests).await?;
        for (id, same) in ones {
            let others: Vec<String> = same.iter().skip(1).map(|one| one.id.clone()).collect();
            let Some(one) = same.into_iter().next() else { continue };
            let up = checked.get(&one.id).copied().unwrap_or(self.settings.ready == Ready::Running);
            let notice = one.spot.as_ref().and_then(|spot| interrupted.get(spot)).cloned();
            let mut have = one.have(up, notice);
            have.strayed = drift::of(&self.settings, &one);
            if !others.is_empty() {
                let why =
                    format!("another instance bears its mark ({}): one of them has to go", others.join(", "));
                have.strayed.push(why);
            }
            listed.ours.push((id, have));
        }
        Ok(listed)
    }

    /// Whether those that run have passed EC2's checks, where that is asked for.
    async fn checked(&self, what: &str, ones: &[&One]) -> Result<BTreeMap<String, bool>, Fault> {
        let runs = ones.iter().filter(|one| one.state == InstanceStateName::Running);
        let ids: Vec<String> = runs.map(|one| one.id.clone()).collect();
        match self.settings.ready {
            Ready::Running => Ok(BTreeMap::new()),
            Ready::Checked => self.cloud.checked(what, &ids).await,
        }
    }

    /// What was launched and now is seen needs no more care; what is not yet is said.
    async fn note(
        &self,
        ones: &BTreeMap<HostId, Vec<One>>,
        ended: &BTreeSet<String>,
        of: Option<&BTreeSet<HostId>>,
        listed: &mut Listed,
    ) -> Result<(), Fault> {
        let known = self.fresh().clone();
        let (waiting, over): (BTreeMap<_, _>, BTreeMap<_, _>) = known.into_iter().partition(|(id, fresh)| {
            let is_seen = ones.get(id).is_some_and(|same| same.iter().any(|one| one.id == fresh.instance));
            !is_seen && !ended.contains(&fresh.instance) && fresh.since.elapsed() < UNSEEN
        });
        self.forget(&over);
        for (id, fresh) in waiting.into_iter().filter(|(id, _)| of.is_none_or(|of| of.contains(id))) {
            let what = self.what(&format!("look for {} of {id}", fresh.instance));
            let instance = self.cloud.instance(&what, &fresh.instance).await?;
            if instance.is_some_and(|one| seen::state(&one) == InstanceStateName::Terminated) {
                self.forget(&[(id, fresh)].into());
            } else {
                listed.unseen.push(format!("{} was launched for {id}, and is not seen yet", fresh.instance));
            }
        }
        Ok(())
    }

    fn forget(&self, over: &BTreeMap<HostId, Fresh>) {
        self.fresh().retain(|id, fresh| over.get(id).is_none_or(|over| over.instance != fresh.instance));
    }

    /// Launches by one way, and waits for a moment until it is seen.
    async fn launched(&self, order: &Order, attempt: Attempt) -> Result<Made, Fault> {
        let what = self.what(&format!("launch {}", order.host));
        let way = self.settings.way(&order.machine, attempt.way)?;
        let mark = Mark {
            order: order.clone(),
            attempt,
            kind: way.kind.map(str::to_owned),
            // EC2 refuses that for spare capacity.
            protected: self.settings.protect && !way.spot,
        };
        let launch = Launch::new(&self.settings, &self.room, mark, &way)?;
        let how =
            format!("{}{}", way.kind.unwrap_or("the template's type"), if way.spot { ", spot" } else { "" });
        let refused = |why: String| Ok(Made::Refused { why: format!("{how}: {why}"), last: way.last });
        let failed = match self.cloud.launch(|call| launch.ask(call)).await? {
            Launched::Is(instances) => return self.is_launched(&what, order, &instances, way.last).await,
            Launched::Failed(failed) => failed,
        };
        let code = failed.code.as_deref().unwrap_or_default();
        if ROOMLESS.contains(&code) || code == "IdempotentInstanceTerminated" {
            return refused(format!("{code}: {}", failed.message));
        }
        if code != "IdempotentParameterMismatch" {
            return Err(cloud::judged(&what, &failed));
        }
        // What the configuration or the document says changed since this attempt was made first.
        if !self.of(&order.id).await?.is_empty() {
            return Ok(Made::There);
        }
        Err(Fault::new(
            what,
            "it was asked for before, in other words, and whether it was launched is not seen yet",
        )
        .next("it is looked for; where it does not come, its host fails, and can be placed anew"))
    }

    async fn is_launched(
        &self,
        what: &str,
        order: &Order,
        instances: &[Instance],
        last: bool,
    ) -> Result<Made, Fault> {
        let Some(instance) = instances.iter().find(|one| one.instance_id.is_some()) else {
            return Err(Fault::new(what, "its answer names no instance; whether there is one is looked at"));
        };
        let id = instance.instance_id.clone().unwrap_or_default();
        if seen::state(instance) == InstanceStateName::Terminated {
            let why = seen::reason(instance).unwrap_or_else(|| "it is terminated".to_owned());
            return Ok(Made::Refused { why: format!("{id} was launched, and ended: {why}"), last });
        }
        self.fresh().insert(order.id.clone(), Fresh { instance: id, since: Instant::now() });
        let (begun, wait) = (Instant::now(), Duration::from_secs(self.settings.wait.into()));
        while begun.elapsed() < wait {
            if !self.of(&order.id).await?.is_empty() {
                self.fresh().remove(&order.id);
                break;
            }
            sleep(LOOKS).await;
        }
        Ok(Made::There)
    }

    async fn booted(&self, id: &HostId) -> Result<(), Fault> {
        let what = self.what(&format!("start the machine of {id}"));
        let Some(one) = self.of(id).await?.into_iter().next() else {
            return match self.fresh().contains_key(id) {
                true => Ok(()),
                false => Err(Fault::new(what, "it is not there")),
            };
        };
        match one.state {
            InstanceStateName::Stopped => self.cloud.start(&what, &one.id).await,
            InstanceStateName::Pending | InstanceStateName::Running => Ok(()),
            state => Err(Fault::new(what, format!("{} is {}", one.id, state.as_str()))),
        }
    }

    /// Has it stop where it is to be another type, and answers whether it has. All else is done while it runs, or ends.
    async fn stops(&self, id: &HostId, to: Option<&Machine>) -> Result<bool, Fault> {
        let Some(machine) = to else { return Ok(true) };
        let what = self.what(&format!("stop the machine of {id}"));
        let Some(one) = self.of(id).await?.into_iter().next() else { return Ok(true) };
        if self.plan(&what, &one, machine)?.kind.is_none() {
            return Ok(true);
        }
        if !matches!(one.state, InstanceStateName::Stopping | InstanceStateName::Stopped) {
            self.cloud.stop(&what, &one.id).await?;
        }
        Ok(one.state == InstanceStateName::Stopped)
    }

    fn plan(&self, what: &str, one: &One, machine: &Machine) -> Result<drift::Plan, Fault> {
        drift::plan(&self.settings, one, machine).map_err(|why| {
            Fault::new(what, why).next("only another machine can be so: replace it").permanent()
        })
    }

    async fn corrected(&self, id: &HostId, machine: &Machine) -> Result<(), Fault> {
        let what = self.what(&format!("correct the machine of {id}"));
        let one = self.of(id).await?.into_iter().next();
        let one = one.ok_or_else(|| Fault::new(&what, "it is not there"))?;
        let plan = self.plan(&what, &one, machine)?;
        if let Some(groups) = &plan.groups {
            self.cloud.regroup(&what, &one.id, groups).await?;
        }
        if let Some(kind) = &plan.kind {
            if one.state != InstanceStateName::Stopped {
                return Err(Fault::new(what, format!("{} runs, and has to stop for that", one.id)));
            }
            self.cloud.retype(&what, &one.id, kind).await?;
        }
        let mut mark = one.mark.clone();
        (mark.order.machine.size, mark.order.machine.networks) =
            (machine.size.clone(), machine.networks.clone());
        mark.kind = plan.kind.or(mark.kind);
        let mut tags = self.settings.tags.clone();
        tags.extend(mark.tags(&self.room)?);
        // A shorter order has fewer pieces: what is left over would be read as the end of it.
        let left: Vec<&String> =
            one.tags.keys().filter(|key| key.starts_with(mark::ORDER) && !tags.contains_key(*key)).collect();
        tags.extend(left.into_iter().map(|key| (key.clone(), String::new())));
        tags.retain(|key, value| one.tags.get(key) != Some(value));
        if tags.is_empty() {
            return Ok(());
        }
        self.cloud.tag(&what, &one.id, &tags).await
    }

    async fn destroyed(&self, id: &HostId) -> Result<(), Fault> {
        let what = self.what(&format!("destroy the machine of {id}"));
        let (begun, wait) = (Instant::now(), Duration::from_secs(self.settings.wait.into()));
        loop {
            let ones = self.of(id).await?;
            let fresh = self.fresh().get(id).map(|fresh| fresh.instance.clone());
            let fresh = fresh.filter(|id| !ones.iter().any(|one| one.id == *id));
            let ends: Vec<&One> =
                ones.iter().filter(|one| one.state != InstanceStateName::ShuttingDown).collect();
            for one in ends.iter().filter(|one| one.mark.protected) {
                self.cloud.unprotect(&what, &one.id).await?;
            }
            let mut ids: Vec<String> = ends.iter().map(|one| one.id.clone()).collect();
            ids.extend(fresh.clone());
            if !ids.is_empty() {
                self.cloud.terminate(&what, ids).await?;
            }
            if ones.is_empty() && fresh.is_none() {
                return Ok(());
            }
            if begun.elapsed() >= wait {
                let all: Vec<String> = ones.into_iter().map(|one| one.id).chain(fresh).collect();
                let why = format!("{} is shutting down; it may live until it is terminated", all.join(", "));
                return Err(Fault::new(what, why).next("that goes on by itself, and is looked at again"));
            }
            sleep(LOOKS).await;
        }
    }
}

impl Provider for Ec2 {
    fn name(&self) -> &'static str {
        "ec2"
    }

    fn location(&self) -> String {
        self.place.clone()
    }

    fn start(&self) -> Doing<'_, ()> {
        Box::pin(self.cloud.open())
    }

    fn list<'a>(&'a self, of: Option<&'a BTreeSet<HostId>>) -> Doing<'a, Listed> {
        Box::pin(self.listed(of))
    }

    fn unseen(&self) -> Duration {
        UNSEEN
    }

    fn create<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(async move {
            match self.launched(order, Attempt::default()).await? {
                Made::There => Ok(()),
                Made::Refused { why, .. } => Err(Fault::new(format!("launch {}", order.host), why)),
            }
        })
    }

    fn make<'a>(&'a self, order: &'a Order, attempt: Attempt) -> Doing<'a, Made> {
        Box::pin(self.launched(order, attempt))
    }

    fn boot<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.booted(id))
    }

    fn stop<'a>(&'a self, id: &'a HostId, to: Option<&'a Machine>) -> Doing<'a, bool> {
        Box::pin(self.stops(id, to))
    }

    fn correct<'a>(&'a self, id: &'a HostId, machine: &'a Machine) -> Doing<'a, ()> {
        Box::pin(self.corrected(id, machine))
    }

    fn destroy<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.destroyed(id))
    }
}
