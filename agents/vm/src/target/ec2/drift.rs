//! Where an instance is not what was asked for, and what of that can be put right.

use std::collections::BTreeSet;
use std::net::IpAddr;

use shoal_machine::{Machine, Network};

use super::mark::NAME;
use super::seen::{Interface, One};
use super::settings::{DISK, Ec2Settings, Subnet};

/// What has to be done to an instance. Its tags are always written as they should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// It gets this type; for that it has to stop.
    pub(super) kind: Option<String>,
    /// Its only interface gets these security groups.
    pub(super) groups: Option<Vec<String>>,
}

/// What was changed by hand, for people.
pub(super) fn of(settings: &Ec2Settings, one: &One) -> Vec<String> {
    let mut all = Vec::new();
    if let (Some(asked), Some(is)) = (&one.mark.kind, &one.kind)
        && asked != is
    {
        all.push(format!("its type ({is}, not {asked})"));
    }
    let host = one.mark.order.host.to_string();
    let wanted = settings.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    for (key, value) in wanted.chain([(NAME, host.as_str())]) {
        match one.tags.get(key) {
            Some(is) if is == value => {}
            Some(is) => all.push(format!("its tag {key} ({is:?}, not {value:?})")),
            None => all.push(format!("its tag {key} (it is gone)")),
        }
    }
    for (interface, network, wanted) in networks(settings, one, &one.mark.order.machine) {
        let Some(wanted) = wanted else { continue };
        let moved = interface.subnet != wanted.subnet;
        if moved || !has(interface, network) {
            all.push(format!("its interface in {} (it is in {})", network.name, interface.subnet));
        } else if differs(interface, wanted) {
            let groups: Vec<&str> = interface.groups.iter().map(String::as_str).collect();
            all.push(format!("its security groups in {} ({})", network.name, groups.join(", ")));
        }
    }
    all
}

/// How to make an instance what its document says.
///
/// # Errors
/// It cannot be that.
pub(super) fn plan(settings: &Ec2Settings, one: &One, machine: &Machine) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let known = &one.mark.order.machine;
    let addresses =
        |n: &Network| -> Vec<IpAddr> { n.addresses.iter().map(shoal_machine::Address::ip).collect() };
    let places = |machine: &Machine| -> Vec<(String, Vec<IpAddr>)> {
        machine.networks.iter().map(|n| (n.name.to_string(), addresses(n))).collect()
    };
    if places(known) != places(machine) {
        return Err("an instance keeps the subnets and addresses that it was launched with".to_owned());
    }
    for (interface, network, wanted) in networks(settings, one, machine) {
        let Some(wanted) = wanted else { continue };
        if interface.subnet != wanted.subnet || !has(interface, network) {
            return Err(format!("its interface in {} cannot be moved", network.name));
        }
        if differs(interface, wanted) {
            if one.interfaces.len() > 1 {
                return Err(
                    "the security groups of one with several interfaces are not changed here".to_owned()
                );
            }
            plan.groups = Some(wanted.groups.clone());
        }
    }
    // Its type stays where the size has room in it.
    let asked = one.mark.kind.clone().filter(|kind| settings.fits(machine, kind));
    let kind = match (asked, &one.mark.kind) {
        (Some(kind), _) => Some(kind),
        (None, None) => None,
        (None, Some(_)) => {
            let way = settings.way(machine, 0).map_err(|fault| fault.to_string())?;
            way.kind.map(str::to_owned)
        }
    };
    plan.kind = kind.filter(|kind| one.kind.as_ref() != Some(kind));
    if plan.kind.is_some() && one.spot.is_some() {
        return Err("spare capacity cannot be stopped to be given another type".to_owned());
    }
    let disk = |machine: &Machine| machine.size.get(DISK).copied();
    if disk(known) != disk(machine) {
        return Err("its first disk is not made larger or smaller here".to_owned());
    }
    Ok(plan)
}

/// The interfaces of an instance, with the networks that they are for and what the configuration says of those.
fn networks<'a>(
    settings: &'a Ec2Settings,
    one: &'a One,
    machine: &'a Machine,
) -> Vec<(&'a Interface, &'a Network, Option<&'a Subnet>)> {
    let mut all = Vec::new();
    for (n, network) in (0_i32..).zip(&machine.networks) {
        if let Some(interface) = one.interfaces.get(&n) {
            all.push((interface, network, settings.networks.get(&network.name)));
        }
    }
    all
}

/// Whether an interface has all addresses that were asked for.
fn has(interface: &Interface, network: &Network) -> bool {
    network.addresses.iter().all(|at| interface.addresses.contains(&at.ip()))
}

/// Whether it has other security groups than the configuration says, where it says some.
fn differs(interface: &Interface, wanted: &Subnet) -> bool {
    let groups: BTreeSet<String> = wanted.groups.iter().cloned().collect();
    !groups.is_empty() && interface.groups != groups
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aws_sdk_ec2::types::{Instance, InstanceState, InstanceStateName, InstanceType, Tag};
    use serde_json::json;
    use shoal_agent::HostName;

    use super::super::mark::Mark;
    use super::*;
    use crate::item::Attempt;

    fn settings() -> Ec2Settings {
        let text = "zone = 'a'\nimages.debian = { ami = 'ami-1' }\ntags = { team = 'web' }\n\
            types = [{ type = 't4g.small', size = { cpu = 1 } }, { type = 't4g.large', size = { cpu = 2 } }]\n";
        toml::from_str(text).unwrap()
    }

    fn machine(cpu: u64) -> Machine {
        serde_json::from_value(json!({"image": "debian", "size": {"cpu": cpu}})).unwrap()
    }

    /// An instance as it was launched, with what was done to it since.
    fn one(change: impl FnOnce(&mut BTreeMap<String, String>), kind: &str) -> One {
        let room: HostName = "z1.example.com".parse().unwrap();
        let order = json!({"id": "0198", "host": "web1.example.com", "token": "t", "machine": machine(1)});
        let order = serde_json::from_value(order).unwrap();
        let mark =
            Mark { order, attempt: Attempt::default(), kind: Some("t4g.small".to_owned()), protected: false };
        let mut tags = mark.tags(&room).unwrap();
        tags.insert("team".to_owned(), "web".to_owned());
        change(&mut tags);
        let instance = Instance::builder()
            .instance_id("i-1")
            .client_token(mark.client_token())
            .instance_type(InstanceType::from(kind))
            .state(InstanceState::builder().name(InstanceStateName::Running).build())
            .set_tags(Some(
                tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect(),
            ))
            .build();
        One::of(&instance, &room).unwrap().unwrap()
    }

    #[test]
    fn what_was_changed_by_hand_is_said_and_put_right() {
        let settings = settings();
        let plain = one(|_| (), "t4g.small");
        assert_eq!(of(&settings, &plain), Vec::<String>::new());
        assert_eq!(plan(&settings, &plain, &machine(1)).unwrap(), Plan::default());
        let other = one(
            |tags| {
                tags.remove("team");
                tags.insert("Name".to_owned(), "mine".to_owned());
                tags.insert("more".to_owned(), "is nobody's business".to_owned());
            },
            "t4g.large",
        );
        let said = of(&settings, &other).join("; ");
        assert_eq!(
            said,
            "its type (t4g.large, not t4g.small); its tag team (it is gone); its tag Name (\"mine\", not \"web1.example.com\")"
        );
        assert_eq!(plan(&settings, &other, &machine(1)).unwrap().kind.as_deref(), Some("t4g.small"));
    }

    #[test]
    fn a_size_that_has_no_room_in_its_type_is_another_type() {
        let settings = settings();
        let plain = one(|_| (), "t4g.small");
        assert_eq!(plan(&settings, &plain, &machine(2)).unwrap().kind.as_deref(), Some("t4g.large"));
        assert!(plan(&settings, &plain, &machine(3)).is_err());
        let network = json!({"image": "debian", "size": {"cpu": 1}, "networks": [{"name": "lan"}]});
        assert!(plan(&settings, &plain, &serde_json::from_value(network).unwrap()).is_err());
    }

    #[test]
    fn tags_that_were_copied_are_no_mark() {
        let room: HostName = "z1.example.com".parse().unwrap();
        let known = one(|_| (), "t4g.small");
        let copy = |token: Option<&str>| {
            let tags =
                known.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
            let instance = Instance::builder().instance_id("i-2").set_client_token(token.map(str::to_owned));
            One::of(&instance.set_tags(Some(tags)).build(), &room).unwrap()
        };
        assert!(copy(Some(&known.mark.client_token())).is_ok());
        for token in [None, Some(""), Some("another")] {
            assert!(copy(token).unwrap_err().contains("not launched by it"));
        }
    }
}
