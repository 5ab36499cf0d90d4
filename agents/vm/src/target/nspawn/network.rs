//! The network of a machine: a network namespace of its own, with an interface on a bridge of the box for each of its networks.
//!
//! All names follow from the id of its host. The namespace is made anew at each start, and its interfaces go with it. What is in it is the
//! box's to say: the machine finds `eth0`, `eth1` and so on with their addresses, and needs no program of its own for that.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::{Fault, HostId, command};
use shoal_machine::Network;
use tokio::process::Command;

use super::{processes, short};

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network namespace of a machine.
pub(super) fn namespace(id: &HostId) -> String {
    format!("shoal-vm-{}", short(id))
}

/// Where the kernel shows it.
pub(super) fn path(id: &HostId) -> String {
    format!("/run/netns/{}", namespace(id))
}

async fn ip(arguments: &[&str]) -> Result<(), Fault> {
    let command: Vec<String> = ["ip"].iter().chain(arguments).map(|part| (*part).to_owned()).collect();
    let done = command::run(&command, &[], PATIENCE).await;
    done.map_err(|why| Fault::new(format!("make a network: {}", command.join(" ")), why))
}

/// Makes the network of a machine that does not run.
pub(super) async fn up(id: &HostId, networks: &[Network], bridges: &[&str]) -> Result<(), Fault> {
    down(id).await?;
    let name = namespace(id);
    ip(&["netns", "add", &name]).await?;
    ip(&["-netns", &name, "link", "set", "lo", "up"]).await?;
    for (n, (network, bridge)) in networks.iter().zip(bridges).enumerate() {
        let (outside, inside) = (format!("vm{}{n}", short(id)), format!("eth{n}"));
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside, "netns", &name]).await?;
        ip(&["link", "set", &outside, "master", bridge, "up"]).await?;
        for address in &network.addresses {
            let address = address.to_string();
            // Nobody else has it, and the machine need not wait to find that out.
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            let add = ["-netns", &name, "address", "add", &address, "dev", &inside];
            ip(&[&add[..], nodad].concat()).await?;
        }
        ip(&["-netns", &name, "link", "set", &inside, "up"]).await?;
        for way in &network.gateways {
            let way = way.to_string();
            ip(&["-netns", &name, "route", "replace", "default", "via", &way, "dev", &inside]).await?;
        }
    }
    Ok(())
}

/// Removes the network of a machine that does not run, if there is one, and ends what is left in it.
pub(super) async fn down(id: &HostId) -> Result<(), Fault> {
    let path = path(id);
    let path = std::path::Path::new(&path);
    if !path.exists() {
        return Ok(());
    }
    processes::clear(path).await?;
    ip(&["netns", "delete", &namespace(id)]).await
}

/// What `ip -json address` prints of one interface.
#[derive(Deserialize)]
struct Interface {
    ifname: String,
    #[serde(default)]
    addr_info: Vec<AddressInfo>,
}

#[derive(Deserialize)]
struct AddressInfo {
    local: String,
    prefixlen: u8,
    scope: String,
}

/// In what the network of a machine that runs is not what it was made as. What cannot be seen has not strayed.
pub(super) async fn strayed(id: &HostId, networks: &[Network]) -> Vec<String> {
    let name = namespace(id);
    let mut command = Command::new("ip");
    command.args(["-netns", &name, "-json", "address", "show"]).kill_on_drop(true);
    let Ok(Ok(said)) = tokio::time::timeout(PATIENCE, command.output()).await else { return Vec::new() };
    if !said.status.success() {
        return Vec::new();
    }
    serde_json::from_slice(&said.stdout)
        .map(|there: Vec<Interface>| differs(&there, networks))
        .unwrap_or_default()
}

fn differs(there: &[Interface], networks: &[Network]) -> Vec<String> {
    let mut strayed = Vec::new();
    for (n, network) in networks.iter().enumerate() {
        let name = format!("eth{n}");
        let wanted: BTreeSet<String> = network.addresses.iter().map(ToString::to_string).collect();
        let Some(interface) = there.iter().find(|one| one.ifname == name) else {
            strayed.push(format!("its interface {name} is gone"));
            continue;
        };
        let global = interface.addr_info.iter().filter(|one| one.scope == "global");
        let has: BTreeSet<String> = global.map(|one| format!("{}/{}", one.local, one.prefixlen)).collect();
        // What a router tells a machine of its own prefix is no edit.
        let gone: Vec<&str> = wanted.difference(&has).map(String::as_str).collect();
        if !gone.is_empty() {
            strayed.push(format!("its interface {name} has no {}", gone.join(", ")));
        }
    }
    strayed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_that_somebody_took_away_is_missed() {
        let networks: Vec<Network> = serde_json::from_value(json!([
            {"name": "lan", "addresses": ["192.0.2.10/24", "2001:db8::a/64"]},
            {"name": "san", "addresses": ["198.51.100.1/24"]},
        ]))
        .unwrap();
        let there = |addresses: serde_json::Value| -> Vec<Interface> {
            serde_json::from_value(json!([
                {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
                {"ifname": "eth0", "addr_info": addresses, "operstate": "UP"},
            ]))
            .unwrap()
        };
        let both = json!([
            {"local": "192.0.2.10", "prefixlen": 24, "scope": "global"},
            {"local": "2001:db8::a", "prefixlen": 64, "scope": "global"},
            {"local": "fe80::1", "prefixlen": 64, "scope": "link"},
        ]);
        assert_eq!(differs(&there(both.clone()), &networks[..1]), Vec::<String>::new());
        assert_eq!(differs(&there(both), &networks), ["its interface eth1 is gone"]);
        let one = json!([{"local": "192.0.2.11", "prefixlen": 24, "scope": "global"}]);
        assert_eq!(
            differs(&there(one), &networks[..1]),
            ["its interface eth0 has no 192.0.2.10/24, 2001:db8::a/64"]
        );
    }

    #[test]
    fn names_fit_where_they_go() {
        let id = HostId("0198c1f2-6f3e-7cc1-9d43-8a4f5a1b2c3d".to_owned());
        assert_eq!(short(&id).len(), 10);
        // An interface has at most 15 characters, and a machine at most 16 networks.
        assert!(format!("vm{}15", short(&id)).len() <= 15);
    }
}
