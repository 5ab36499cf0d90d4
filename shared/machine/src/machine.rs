//! A machine as its maker reads it: parsed once, so that nothing that is no name, no address and no path goes on.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_core::Host;

use crate::name::Word;
use crate::place::{Named, SIZE};
use crate::spec::{DiskSpec, Drift, NetworkSpec, Spec};
use crate::volume::Volume;

/// The field of a host that says what its machine begins as, where `vm` does not.
const IMAGE: &str = "image";
/// The most octets of what a machine finds at its first start.
pub const MAX_USER_DATA: usize = 64 * 1024;
/// The most networks, disks and addresses of one.
const MANY: usize = 16;
/// How long is waited before a machine is destroyed, where nothing is said, in milliseconds.
const GRACE: i64 = 600_000;

/// Why a document makes no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {why}")]
pub struct Invalid {
    /// Which field.
    pub at: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// What makes it; `None`: the only one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Word>,
    /// What it begins as.
    pub image: Word,
    /// How much it needs of each resource; memory and disk in octets.
    pub size: Named,
    /// Its disks beside the one it begins with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub disks: BTreeMap<Word, Disk>,
    /// Its networks, in the order of its interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Network>,
    /// What it finds at its first start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// In octets.
    pub size: u64,
    /// Where the machine finds it: an absolute path without `.`, `..`, colons and control characters.
    pub at: String,
    /// The slot that has it, where it outlives the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
}

/// A network that a machine is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Which.
    pub name: Word,
    /// The machine's addresses there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    /// The way out, for each family at most one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
}

/// An address with the length of its network's prefix: `192.0.2.10/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(IpNet);

/// How a machine is cared for. It is no part of what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Care {
    /// It is never destroyed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protect: bool,
    /// How long is waited before it is destroyed, in milliseconds.
    pub grace: i64,
    /// What is done where it is not as it should be.
    #[serde(default)]
    pub drift: Drift,
}

impl Machine {
    /// What the host and its effective document say together.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, Invalid> {
        let bad = |at: &str, why: String| Invalid { at: at.to_owned(), why };
        let image = spec.image.clone().or_else(|| host.text(IMAGE).map(std::borrow::Cow::into_owned));
        let image =
            image.ok_or_else(|| bad("vm.image", "nothing says what the machine begins as".to_owned()))?;
        let size =
            host.field(SIZE).ok_or_else(|| bad(SIZE, "nothing says what the machine needs".to_owned()))?;
        let size = serde_json::from_value(size).map_err(|e| bad(SIZE, e.to_string()))?;
        if spec.disks.len() > MANY || spec.networks.len() > MANY {
            return Err(bad("vm", format!("at most {MANY} disks and {MANY} networks")));
        }
        if spec.user_data.as_ref().is_some_and(|data| data.len() > MAX_USER_DATA) {
            return Err(bad("vm.user_data", format!("it is larger than {MAX_USER_DATA} octets")));
        }
        let mut disks = BTreeMap::new();
        for (name, disk) in &spec.disks {
            let word = name.parse::<Word>().map_err(|e| bad("vm.disks", e.to_string()))?;
            disks.insert(word, Disk::new(disk).map_err(|why| bad(&format!("vm.disks.{name}"), why))?);
        }
        let networks = spec.networks.iter().map(Network::new).collect::<Result<Vec<_>, _>>();
        let provider = spec.provider.as_deref().map(Word::from_str).transpose();
        Ok(Self {
            provider: provider.map_err(|e| bad("vm.provider", e.to_string()))?,
            image: image.parse::<Word>().map_err(|e| bad("vm.image", e.to_string()))?,
            size,
            disks,
            networks: networks.map_err(|why| bad("vm.networks", why))?,
            user_data: spec.user_data.clone(),
        })
    }

    /// The slots of which it has disks that outlive it.
    #[must_use]
    pub fn volumes(&self) -> BTreeSet<&Volume> {
        self.disks.values().filter_map(|disk| disk.volume.as_ref()).collect()
    }

    /// The disks that go with it: all but those of slots.
    #[must_use]
    pub fn own_disks(&self) -> BTreeMap<&Word, &Disk> {
        self.disks.iter().filter(|(_, disk)| disk.volume.is_none()).collect()
    }

    /// How many octets of memory it needs, where that is said.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        self.size.get("memory").copied()
    }

    /// How many processors it needs, where that is said.
    #[must_use]
    pub fn cpu(&self) -> Option<u64> {
        self.size.get("cpu").copied()
    }

    /// In what another is not the same, for people; empty where it is.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        // Who names none takes the only one that there is.
        let providers = self.provider.as_ref().zip(other.provider.as_ref());
        let all = [
            ("provider", providers.is_none_or(|(one, other)| one == other)),
            ("image", self.image == other.image),
            ("size", self.size == other.size),
            ("disks", self.disks == other.disks),
            ("networks", self.networks == other.networks),
        ];
        // What a machine found at its first start is in it, and not looked at again.
        all.into_iter().filter(|(_, same)| !same).map(|(what, _)| what).collect()
    }
}

impl Disk {
    /// What a document says of it.
    ///
    /// # Errors
    /// It is nowhere that a machine could find it, or of no slot.
    pub fn new(spec: &DiskSpec) -> Result<Self, String> {
        let at = &spec.at;
        let parts = at.strip_prefix('/').filter(|rest| !rest.is_empty());
        let fits = |part: &str| !part.is_empty() && part != "." && part != "..";
        let plain = !at.contains(|c: char| c.is_control() || matches!(c, ':' | '\\' | ',' | '$'));
        if !plain || at.len() > 255 || !parts.is_some_and(|parts| parts.split('/').all(fits)) {
            return Err(format!("{at:?} is no absolute path without `.`, `..`, commas, colons and dollars"));
        }
        let volume = spec.volume.as_deref().map(Volume::from_str).transpose()?;
        Ok(Self { size: spec.size, at: at.clone(), volume })
    }
}

impl Network {
    /// What a document says of it.
    ///
    /// # Errors
    /// Its name is none, an address is none, or there are too many of them.
    pub fn new(spec: &NetworkSpec) -> Result<Self, String> {
        if spec.addresses.len() > MANY {
            return Err(format!("at most {MANY} addresses of a machine in a network"));
        }
        let gateways =
            spec.gateways.iter().map(|text| text.parse::<IpAddr>().map_err(|e| format!("{text:?}: {e}")));
        let gateways = gateways.collect::<Result<Vec<_>, _>>()?;
        if gateways.iter().filter(|way| way.is_ipv4()).count() > 1
            || gateways.iter().filter(|way| way.is_ipv6()).count() > 1
        {
            return Err("at most one gateway of each family".to_owned());
        }
        Ok(Self {
            name: spec.name.parse::<Word>().map_err(|e| e.to_string())?,
            addresses: spec
                .addresses
                .iter()
                .map(|text| text.parse::<Address>())
                .collect::<Result<Vec<_>, _>>()?,
            gateways,
        })
    }
}

impl Address {
    /// The address alone.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.0.addr()
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .map(Self)
            .map_err(|e| format!("{text:?} is no address with a prefix length, such as 192.0.2.10/24: {e}"))
    }
}

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Care {
    /// What a document says.
    ///
    /// # Errors
    /// Its grace is no span of time.
    pub fn new(spec: &Spec) -> Result<Self, Invalid> {
        let grace = spec.grace.as_deref().map(shoal_core::span).transpose();
        let grace = grace.map_err(|e| Invalid { at: "vm.grace".to_owned(), why: e.to_string() })?;
        let grace = grace.map_or(GRACE, |span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX / 4));
        // Where there is no group, nobody replaces it.
        let drift =
            if spec.group.is_none() && spec.drift == Drift::Replace { Drift::Report } else { spec.drift };
        Ok(Self { protect: spec.protect, grace, drift })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shoal_core::{Document, HostId, Lifecycle, Revision};

    use super::*;

    fn host(document: Value) -> Host {
        Host {
            name: "web1.example.com".parse().unwrap(),
            id: HostId("0198".to_owned()),
            state: Lifecycle::Placed,
            owner: None,
            environment: None,
            expires: None,
            revision: Revision(1),
            document: Document::from(document),
        }
    }

    fn machine(vm: Value) -> Result<Machine, Invalid> {
        let spec: Spec = serde_json::from_value(vm).unwrap();
        Machine::new(&spec, &host(json!({"image": "debian-12", "size": {"cpu": 2, "memory": 1024}})))
    }

    #[test]
    fn the_host_and_its_tag_say_it_together() {
        let plain = machine(json!({})).unwrap();
        assert_eq!((plain.image.as_str(), plain.cpu(), plain.memory()), ("debian-12", Some(2), Some(1024)));
        let other = json!({
            "image": "debian-13",
            "disks": {"data": {"size": 9, "at": "/var/lib/data"}},
            "networks": [{"name": "lan", "addresses": ["192.0.2.10/24", "2001:db8::a/64"], "gateways": ["192.0.2.1"]}],
        });
        let other = machine(other).unwrap();
        assert_eq!(plain.differences(&other), ["image", "disks", "networks"]);
        let text = serde_json::to_string(&other).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&text).unwrap(), other);
        assert_eq!(other.networks[0].addresses[0].ip(), "192.0.2.10".parse::<IpAddr>().unwrap());
        let silent = Machine::new(&Spec::default(), &host(json!({}))).unwrap_err();
        assert_eq!(silent.at, "vm.image");
    }

    #[test]
    fn what_could_be_something_else_is_refused() {
        for (vm, at) in [
            (json!({"image": "../etc"}), "vm.image"),
            (json!({"provider": "a b"}), "vm.provider"),
            (json!({"disks": {"../x": {"size": 1, "at": "/a"}}}), "vm.disks"),
            (json!({"disks": {"x": {"size": 1, "at": "a"}}}), "vm.disks.x"),
            (json!({"disks": {"x": {"size": 1, "at": "/"}}}), "vm.disks.x"),
            (json!({"disks": {"x": {"size": 1, "at": "/a/../etc"}}}), "vm.disks.x"),
            (json!({"disks": {"x": {"size": 1, "at": "/a:/etc"}}}), "vm.disks.x"),
            (json!({"disks": {"x": {"size": 1, "at": "/${HOME}"}}}), "vm.disks.x"),
            (json!({"disks": {"x": {"size": 1, "at": "/a", "volume": "../kafka.3"}}}), "vm.disks.x"),
            (json!({"networks": [{"name": "lan", "addresses": ["192.0.2.1"]}]}), "vm.networks"),
            (json!({"networks": [{"name": "lan", "gateways": ["192.0.2.1", "192.0.2.2"]}]}), "vm.networks"),
            (json!({"networks": [{"name": "-lan"}]}), "vm.networks"),
        ] {
            assert_eq!(machine(vm.clone()).unwrap_err().at, at, "{vm}");
        }
        let large = "x".repeat(MAX_USER_DATA + 1);
        assert_eq!(machine(json!({"user_data": large})).unwrap_err().at, "vm.user_data");
    }

    #[test]
    fn care_has_its_time() {
        let care = |vm: Value| Care::new(&serde_json::from_value(vm).unwrap());
        assert_eq!(care(json!({})).unwrap(), Care { protect: false, grace: 600_000, drift: Drift::Report });
        assert_eq!(care(json!({"grace": "90s", "protect": true})).unwrap().grace, 90_000);
        assert_eq!(care(json!({"grace": "soon"})).unwrap_err().at, "vm.grace");
        assert_eq!(care(json!({"drift": "replace"})).unwrap().drift, Drift::Report, "nobody replaces it");
        assert_eq!(care(json!({"drift": "replace", "group": {}})).unwrap().drift, Drift::Replace);
    }
}
