//! keepalived's language: one file with all virtual addresses of a machine.
//!
//! Before each stands, in a comment, what it was made from, so an edit is what differs from making the file once more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shoal_agent::TagName;

use super::settings::{CheckSettings, KeepalivedSettings};
use crate::item::{Address, Prefix, Word, address};

/// What begins the file.
const MARK: &str =
    "# Shoal keeps this file, and makes it anew: an edit is undone. It is made from tags lb/address:…";
/// What comes before the JSON of an address.
const SAID: &str = "# shoal ";
/// The longest line of a comment, in octets: keepalived reads no longer one as one.
const LINE: usize = 1000;

/// What an address is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    tag: TagName,
    address: Address,
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) addresses: BTreeMap<TagName, Address>,
    /// It is as it was made.
    pub(super) whole: bool,
}

/// What keepalived calls the address of this tag.
pub(super) fn instance(tag: &TagName) -> String {
    format!("shoal_{}", address(tag).unwrap_or_default())
}

/// The interface of an address on this machine.
///
/// # Errors
/// The node's configuration names none.
pub(super) fn interface<'s>(settings: &'s KeepalivedSettings, address: &Address) -> Result<&'s str, String> {
    match &address.network {
        None => Ok(&settings.interface),
        Some(network) => settings
            .networks
            .get(network)
            .map(String::as_str)
            .ok_or_else(|| format!("this node's configuration has no network {}", network.as_str())),
    }
}

/// The text of the file.
///
/// # Errors
/// The node's configuration lacks what an address names; which one, and what.
pub(super) fn text(
    settings: &KeepalivedSettings,
    addresses: &BTreeMap<TagName, Address>,
) -> Result<String, (TagName, String)> {
    let mut text = format!("{MARK}\n");
    let checks: BTreeSet<&Word> = addresses.values().flat_map(|address| &address.checks).collect();
    for name in checks {
        if let Some(check) = settings.checks.get(name) {
            push_check(&mut text, name, check);
        }
    }
    for (tag, address) in addresses {
        push(&mut text, settings, tag, address).map_err(|why| (tag.clone(), why))?;
    }
    Ok(text)
}

fn push_check(text: &mut String, name: &Word, check: &CheckSettings) {
    let name = name.as_str();
    // Writing into a text cannot fail.
    let _ = match &check.file {
        Some(file) => writeln!(
            text,
            "vrrp_track_file shoal_{name} {{\n    file \"{}\"\n    weight 0\n}}",
            file.display()
        ),
        None => writeln!(
            text,
            "vrrp_script shoal_{name} {{\n    script \"{}\"\n    interval {}\n    timeout {}\n    fall {}\n    rise {}\n    user {}\n}}",
            check.command.join(" "),
            check.interval,
            check.interval,
            check.fall,
            check.rise,
            check.user
        ),
    };
}

fn push(
    text: &mut String,
    settings: &KeepalivedSettings,
    tag: &TagName,
    address: &Address,
) -> Result<(), String> {
    let interface = interface(settings, address)?;
    let kept = Kept { tag: tag.clone(), address: address.clone() };
    let json = serde_json::to_string(&kept).map_err(|e| e.to_string())?;
    if json.len() > LINE {
        return Err("it says too much for one line: give it fewer addresses or shorter names".to_owned());
    }
    let (router, priority) = (address.router, address.priority);
    let _ = write!(
        text,
        "{SAID}{json}\nvrrp_instance {} {{\n    state BACKUP\n    interface {interface}\n    virtual_router_id {router}\n    \
         priority {priority}\n    version 3\n    advert_int {}.{:02}\n",
        instance(tag),
        address.advertise / 1000,
        address.advertise % 1000 / 10,
    );
    let (mut scripts, mut files) = (Vec::new(), Vec::new());
    for name in &address.checks {
        match settings.checks.get(name) {
            None => return Err(format!("this node's configuration has no check {}", name.as_str())),
            Some(check) if check.file.is_some() => files.push(name.as_str()),
            Some(_) => scripts.push(name.as_str()),
        }
    }
    for (word, names) in [("track_script", scripts), ("track_file", files)] {
        if !names.is_empty() {
            let lines: String = names.iter().map(|name| format!("        shoal_{name}\n")).collect();
            let _ = writeln!(text, "    {word} {{\n{lines}    }}");
        }
    }
    let lines: String = address.addresses.iter().map(|one| format!("        {one}\n")).collect();
    let _ = writeln!(text, "    virtual_ipaddress {{\n{lines}    }}\n}}");
    Ok(())
}

/// Reads a file.
///
/// # Errors
/// Shoal did not write it, or what it was made from cannot be read.
pub(super) fn read(settings: &KeepalivedSettings, said: &str) -> Result<Said, String> {
    if !said.starts_with(MARK) {
        return Err("Shoal did not write it: move it away".to_owned());
    }
    let mut addresses = BTreeMap::new();
    for json in said.lines().filter_map(|line| line.strip_prefix(SAID)) {
        let kept: Kept = serde_json::from_str(json).map_err(|e| {
            format!("its line `# shoal` cannot be read ({e}): put back what stood there, or remove the file")
        })?;
        addresses.insert(kept.tag, kept.address);
    }
    let whole = text(settings, &addresses).is_ok_and(|made| made == said);
    Ok(Said { addresses, whole })
}

/// An address as keepalived runs with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    router: u8,
    priority: u8,
    interface: String,
    addresses: BTreeSet<Prefix>,
    /// What has to be well, as it is called in the file.
    checks: BTreeSet<String>,
    /// How often its holder says that it lives, in milliseconds; `None`: said in a way that is not known.
    advertise: Option<u32>,
}

/// What keepalived is to say that it runs with, by instance.
///
/// # Errors
/// The node's configuration lacks what an address names.
pub(super) fn wanted(
    settings: &KeepalivedSettings,
    addresses: &BTreeMap<TagName, Address>,
) -> Result<BTreeMap<String, Running>, String> {
    let one = |(tag, address): (&TagName, &Address)| {
        let running = Running {
            router: address.router,
            priority: address.priority,
            interface: interface(settings, address)?.to_owned(),
            addresses: address.addresses.iter().copied().collect(),
            checks: address.checks.iter().map(|name| format!("shoal_{}", name.as_str())).collect(),
            // The file says hundredths of a second.
            advertise: Some(address.advertise / 10 * 10),
        };
        Ok((instance(tag), running))
    };
    addresses.iter().map(one).collect()
}

/// Whether keepalived runs with what it was given, as far as it says. How often the holder speaks is not compared where that cannot be read.
pub(super) fn is_as_wanted(running: &BTreeMap<String, Running>, want: &BTreeMap<String, Running>) -> bool {
    let same = |((name, is), (other, want)): ((&String, &Running), (&String, &Running))| {
        let want = Running { advertise: want.advertise.filter(|_| is.advertise.is_some()), ..want.clone() };
        name == other && *is == want
    };
    running.len() == want.len() && running.iter().zip(want).all(same)
}

/// Which lines follow, in what keepalived says of an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lines {
    Fields,
    Addresses,
    Checks,
}

/// What keepalived says that it runs with: its instances of Shoal's.
pub(super) fn running(data: &str) -> BTreeMap<String, Running> {
    let mut all = BTreeMap::new();
    let mut instance: Option<String> = None;
    let mut lines = Lines::Fields;
    for line in data.lines().map(str::trim) {
        let (word, value) = line.split_once(" = ").unwrap_or((line, ""));
        if word == "VRRP Instance" || line.starts_with("------<") {
            instance = Some(value).filter(|name| name.starts_with("shoal_")).map(str::to_owned);
        }
        let Some(name) = &instance else { continue };
        let is: &mut Running = all.entry(name.clone()).or_default();
        let first = line.split([' ', ',']).next().unwrap_or_default();
        match lines {
            Lines::Addresses if prefix(first).is_some() => is.addresses.extend(prefix(first)),
            Lines::Checks if first.starts_with("shoal_") => drop(is.checks.insert(first.to_owned())),
            _ => {
                let tracked = line.starts_with("Tracked scripts") || line.starts_with("Tracked files");
                lines = if line.starts_with("Virtual IP (") || word == "Virtual IP" {
                    Lines::Addresses
                } else if tracked {
                    Lines::Checks
                } else {
                    Lines::Fields
                };
                field(is, word, value);
            }
        }
    }
    all
}

fn field(is: &mut Running, word: &str, value: &str) {
    match word {
        "Virtual Router ID" => is.router = value.parse().unwrap_or(0),
        "Priority" => is.priority = value.parse().unwrap_or(0),
        "Interface" => value.clone_into(&mut is.interface),
        "Advert interval" => {
            is.advertise = value.strip_suffix(" milli-sec").and_then(|value| value.parse().ok());
        }
        _ => {}
    }
}

/// An address as keepalived writes it: the whole of its family's length is not said.
fn prefix(text: &str) -> Option<Prefix> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    Some(Prefix { address, bits: if bits.is_empty() { whole } else { bits.parse().ok()? } })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> KeepalivedSettings {
        let value = json!({
            "node": "lb1.example.com", "directory": "/x", "interface": "eth0", "networks": {"back": "eth1"},
            "checks": {"web": {"command": ["/bin/check", "web"]}, "health": {"file": "/run/health"}},
        });
        serde_json::from_value(value).unwrap()
    }

    fn address(more: serde_json::Value) -> Address {
        let mut value =
            json!({"addresses": ["192.0.2.100/24"], "router": 51, "priority": 100, "advertise": 200});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again_and_an_edit_is_seen() {
        let settings = settings();
        settings.verify().unwrap();
        let address = address(json!({"network": "back", "checks": ["web", "health"]}));
        let addresses = BTreeMap::from([("lb/address:front".parse().unwrap(), address)]);
        let made = text(&settings, &addresses).unwrap();
        assert!(
            made.contains("script \"/bin/check web\"")
                && made.contains("interface eth1")
                && made.contains("advert_int 0.20")
        );
        assert_eq!(read(&settings, &made).unwrap(), Said { addresses, whole: true });
        assert!(!read(&settings, &made.replace("priority 100", "priority 101")).unwrap().whole);
        assert!(read(&settings, "vrrp_instance x {\n}\n").is_err());
    }

    #[test]
    fn what_the_node_does_not_name_is_refused() {
        for more in [json!({"network": "none"}), json!({"checks": ["none"]})] {
            let addresses = BTreeMap::from([("lb/address:front".parse().unwrap(), address(more))]);
            assert!(text(&settings(), &addresses).unwrap_err().1.contains("none"));
        }
    }

    #[test]
    fn what_keepalived_runs_with_is_compared_whole() {
        let data = "------< VRRP Topology >------\n VRRP Instance = own\n   Virtual Router ID = 9\n VRRP Instance = shoal_front\n   \
                    VRRP Version = 3\n   Interface = eth1\n   Virtual Router ID = 51\n   Priority = 100\n   Effective priority = 80\n   \
                    Advert interval = 200 milli-sec\n   Virtual IP (2):\n     192.0.2.100/24 dev eth1 scope global set\n     \
                    192.0.2.101 dev eth1 scope global\n   fd_in 15, fd_out 16\n   Tracked scripts :\n     shoal_web weight 0\n   \
                    Tracked files :\n     shoal_health, weight 0\n   Using smtp notification = no\n\
                    ------< VRRP Sockpool >------\n   Interface = eth9\n";
        let tag: TagName = "lb/address:front".parse().unwrap();
        let want = |more: serde_json::Value| {
            let mut all = json!({"addresses": ["192.0.2.100/24", "192.0.2.101/32"], "network": "back", "checks": ["web", "health"]});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            wanted(&settings(), &BTreeMap::from([(tag.clone(), address(all))])).unwrap()
        };
        let is = running(data);
        assert!(is_as_wanted(&is, &want(json!({}))), "{is:?}");
        for other in [
            json!({"addresses": ["192.0.2.100/24"]}),
            json!({"addresses": ["192.0.2.100/24", "192.0.2.101/24"]}),
            json!({"network": null}),
            json!({"checks": ["web"]}),
            json!({"advertise": 1000}),
            json!({"router": 52}),
            json!({"priority": 80}),
        ] {
            assert!(!is_as_wanted(&is, &want(other.clone())), "{other}");
        }
        assert!(!is_as_wanted(&is, &BTreeMap::new()) && !is_as_wanted(&BTreeMap::new(), &want(json!({}))));
        // In a unit that is not known, nothing is said.
        let other = running(&data.replace("200 milli-sec", "20 centi-sec"));
        assert!(is_as_wanted(&other, &want(json!({"advertise": 1000}))));
    }
}
