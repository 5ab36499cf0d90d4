//! One instance as EC2 tells it: its mark, its state, and what it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aws_sdk_ec2::types::{Instance, InstanceStateName};
use shoal_agent::HostName;

use super::mark::Mark;
use crate::item::{Given, Have, Stage};

/// An instance of ours.
#[derive(Clone, Debug)]
pub(super) struct One {
    /// `i-…`.
    pub(super) id: String,
    pub(super) mark: Mark,
    pub(super) state: InstanceStateName,
    pub(super) kind: Option<String>,
    /// The request that it came from, where it is spare capacity.
    pub(super) spot: Option<String>,
    pub(super) tags: BTreeMap<String, String>,
    /// By their number.
    pub(super) interfaces: BTreeMap<i32, Interface>,
    given: Given,
    /// Why it ends, in EC2's words.
    reason: Option<String>,
    launched: i64,
}

/// An interface of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) subnet: String,
    pub(super) groups: BTreeSet<String>,
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Which state it is in. One that is not said is none that anything follows from.
pub(super) fn state(instance: &Instance) -> InstanceStateName {
    let name = instance.state.as_ref().and_then(|state| state.name.clone());
    name.unwrap_or(InstanceStateName::Pending)
}

/// Why it is in it, in EC2's words.
pub(super) fn reason(instance: &Instance) -> Option<String> {
    let reason = instance.state_reason.as_ref()?;
    [&reason.message, &reason.code].into_iter().flatten().find(|text| !text.is_empty()).cloned()
}

/// The tags of an instance.
fn tags_of(instance: &Instance) -> BTreeMap<String, String> {
    let tags = instance.tags.iter().flatten();
    tags.filter_map(|tag| Some((tag.key.clone()?, tag.value.clone().unwrap_or_default()))).collect()
}

impl One {
    /// What an instance is that bears the mark of this box. Inside: it is somebody else's after all, and why.
    ///
    /// # Errors
    /// It bears the mark, and it cannot be told what it is.
    pub(super) fn of(instance: &Instance, room: &HostName) -> Result<Result<Self, String>, String> {
        let Some(id) = instance.instance_id.clone() else { return Err("an instance has no id".to_owned()) };
        let tags = tags_of(instance);
        let mark = match Mark::read(&tags, room) {
            Ok(Some(mark)) => mark,
            Ok(None) => return Ok(Err(id)),
            // What is over says nothing any more.
            Err(_) if state(instance) == InstanceStateName::Terminated => return Ok(Err(id)),
            Err(why) => return Err(format!("{id}: {why}")),
        };
        if instance.client_token.as_deref() != Some(mark.client_token().as_str()) {
            return Ok(Err(format!("{id}, which has Shoal's tags and was not launched by it,")));
        }
        Ok(Ok(Self {
            mark,
            state: state(instance),
            kind: instance.instance_type.as_ref().map(|kind| kind.as_str().to_owned()),
            spot: instance.spot_instance_request_id.clone().filter(|id| !id.is_empty()),
            tags,
            interfaces: interfaces(instance),
            given: given(instance, &id),
            reason: reason(instance),
            launched: instance.launch_time.as_ref().map_or(0, |at| at.secs()),
            id,
        }))
    }

    /// Whether it may live.
    pub(super) fn is_there(&self) -> bool {
        self.state != InstanceStateName::Terminated
    }

    /// Of several with one mark, the one that counts comes first: what does not end, and of these the oldest.
    pub(super) fn order(&self) -> (bool, i64, String) {
        (self.state == InstanceStateName::ShuttingDown, self.launched, self.id.clone())
    }

    /// How it stands. `up`: it counts as up where it runs; `notice`: EC2 takes it back soon.
    pub(super) fn have(&self, up: bool, notice: Option<String>) -> Have {
        let stage = match self.state {
            InstanceStateName::Stopped => Stage::Stopped,
            InstanceStateName::Running if up => Stage::Up,
            // What stops is started when it has stopped.
            _ => Stage::Starting,
        };
        let ends = (self.state == InstanceStateName::ShuttingDown)
            .then(|| self.reason.clone().unwrap_or_else(|| "it is being terminated".to_owned()));
        let order = &self.mark.order;
        Have {
            host: order.host.clone(),
            machine: order.machine.clone(),
            stage,
            strayed: Vec::new(),
            given: self.given.clone(),
            leaving: notice.or(ends),
        }
    }
}

fn interfaces(instance: &Instance) -> BTreeMap<i32, Interface> {
    let mut all = BTreeMap::new();
    for said in instance.network_interfaces.iter().flatten() {
        let number = said.attachment.as_ref().and_then(|attachment| attachment.device_index);
        let Some((number, subnet)) = number.zip(said.subnet_id.clone()) else { continue };
        let groups = said.groups.iter().flatten().filter_map(|group| group.group_id.clone()).collect();
        let main = said.private_ip_address.iter();
        let more = said.private_ip_addresses.iter().flatten().filter_map(|at| at.private_ip_address.as_ref());
        let six = said.ipv6_addresses.iter().flatten().filter_map(|at| at.ipv6_address.as_ref());
        let addresses = main.chain(more).chain(six).filter_map(|at| at.parse().ok()).collect();
        all.insert(number, Interface { subnet, groups, addresses });
    }
    all
}

fn given(instance: &Instance, id: &str) -> Given {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let own = instance.private_ip_address.iter().filter_map(|at| at.parse().ok());
    let all = own.chain(interfaces(instance).into_values().flat_map(|interface| interface.addresses));
    for at in all {
        if !addresses.contains(&at) {
            addresses.push(at);
        }
    }
    let public = instance.public_ip_address.iter().filter_map(|at| at.parse().ok()).collect();
    Given { addresses, public, instance: Some(id.to_owned()) }
}
