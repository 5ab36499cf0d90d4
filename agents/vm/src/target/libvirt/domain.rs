//! What libvirt is told of a machine, and what it says of it: documents in XML, written and read by a crate, so that no value becomes markup.
//!
//! The mark is an element of Shoal's own in the domain's `<metadata>`: it comes with the domain in the one step that defines it, and goes
//! with it. The domain's UUID follows from the host's id: two attempts meet in it, and a copy of a machine, which has another, is not ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shoal_agent::HostId;
use uuid::{Builder, Uuid};

use super::storage::{Base, Volume, prefix};
use super::{Link, Order, Report, seed};

/// Whose metadata the mark is.
pub(super) const SPACE: &str = "urn:shoal:machine";
/// The prefix of its element.
pub(super) const SHORT: &str = "shoal";
/// Of a machine whose host says nothing of memory, in octets; and what libvirt counts in.
const MEMORY: u64 = 512 * MIB;
const MIB: u64 = 1024 * 1024;

/// The mark: what a machine was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) order: Order,
    /// Where its volumes are.
    pub(super) pool: String,
    /// How it reports in.
    pub(super) report: Report,
    /// All of its volumes were made: what is missing since is lost, and not made anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) made: bool,
}

/// The UUID of a host's machine.
pub(super) fn uuid(id: &HostId) -> Uuid {
    let digest = Sha256::digest(format!("shoal machine {id}").as_bytes());
    let mut octets = [0; 16];
    for (octet, from) in octets.iter_mut().zip(digest.iter()) {
        *octet = *from;
    }
    Builder::from_custom_bytes(octets).into_uuid()
}

/// The hardware address of a machine's interface, in the range that is QEMU's own.
pub(super) fn mac(id: &HostId, card: usize) -> String {
    let digest = Sha256::digest(format!("shoal card {card} {id}").as_bytes());
    let last: String = digest.iter().take(3).map(|octet| format!(":{octet:02x}")).collect();
    format!("52:54:00{last}")
}

/// What a machine sees its seed as.
const SEED: &str = "shoal-seed";

/// What a machine sees its disk as, by the order of the disks' names.
pub(super) fn disk_serial(disk: usize) -> String {
    format!("shoal-disk-{disk}")
}

/// A number with its unit, or without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Amount {
    #[serde(rename = "@unit", default, skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(rename = "$text")]
    number: u64,
}

impl Amount {
    pub(super) fn bytes(number: u64) -> Self {
        Self { unit: Some("bytes".to_owned()), number }
    }

    /// In octets. libvirt answers in KiB.
    fn octets(&self) -> Option<u64> {
        match self.unit.as_deref() {
            Some("b" | "bytes") => Some(self.number),
            None | Some("KiB" | "k") => self.number.checked_mul(1024),
            Some(_) => None,
        }
    }
}

#[derive(Serialize)]
#[serde(rename = "domain")]
struct Document {
    #[serde(rename = "@type")]
    kind: String,
    name: String,
    uuid: String,
    metadata: Metadata,
    memory: Amount,
    vcpu: u64,
    os: Os,
    features: Features,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<Cpu>,
    on_poweroff: &'static str,
    on_reboot: &'static str,
    on_crash: &'static str,
    devices: Devices,
}

#[derive(Serialize)]
struct Metadata {
    #[serde(rename = "shoal:machine")]
    machine: MarkElement,
}

#[derive(Serialize)]
struct MarkElement {
    #[serde(rename = "@xmlns:shoal")]
    space: &'static str,
    #[serde(rename = "$text")]
    text: String,
}

#[derive(Serialize)]
struct Os {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<String>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
}

#[derive(Serialize)]
struct Devices {
    disk: Vec<Disk>,
    interface: Vec<Interface>,
    serial: Typed,
    rng: Rng,
}

#[derive(Serialize)]
struct Typed {
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: Driver,
    source: DiskSource,
    target: DiskTarget,
    #[serde(skip_serializing_if = "Option::is_none")]
    readonly: Option<Empty>,
    serial: String,
}

#[derive(Serialize)]
struct Driver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
}

#[derive(Serialize)]
struct DiskSource {
    #[serde(rename = "@pool")]
    pool: String,
    #[serde(rename = "@volume")]
    volume: String,
}

#[derive(Serialize)]
struct DiskTarget {
    #[serde(rename = "@dev")]
    dev: String,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Mac,
    source: LinkSource,
    model: Typed,
}

#[derive(Serialize, Deserialize)]
struct Mac {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Serialize, Deserialize, PartialEq, Eq)]
struct LinkSource {
    #[serde(rename = "@bridge", default, skip_serializing_if = "Option::is_none")]
    bridge: Option<String>,
    #[serde(rename = "@network", default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

impl From<&Link> for LinkSource {
    fn from(link: &Link) -> Self {
        match link {
            Link::Bridge(name) => Self { bridge: Some(name.clone()), network: None },
            Link::Network(name) => Self { bridge: None, network: Some(name.clone()) },
        }
    }
}

#[derive(Serialize)]
struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    backend: RngBackend,
}

#[derive(Serialize)]
struct RngBackend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    device: &'static str,
}

/// What a machine is made as: its mark, and what the box's configuration has for the names in it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) mark: Mark,
    /// What the configuration calls the hypervisor.
    pub(super) kind: String,
    pub(super) base: Option<Base>,
    pub(super) kernel: Option<String>,
    pub(super) initrd: Option<String>,
    pub(super) command_line: Option<String>,
    pub(super) has_seed: bool,
    /// Of its networks, in their order.
    pub(super) links: Vec<Link>,
}

impl Plan {
    pub(super) fn uuid(&self) -> Uuid {
        uuid(&self.mark.order.id)
    }

    /// The volume of this part of the machine.
    pub(super) fn named(&self, part: &str) -> String {
        format!("{}{part}", prefix(self.uuid()))
    }

    /// Its memory, in octets.
    fn memory(&self) -> u64 {
        self.mark.order.machine.memory().unwrap_or(MEMORY).div_ceil(MIB).saturating_mul(MIB)
    }

    fn cpus(&self) -> u64 {
        self.mark.order.machine.cpu().unwrap_or(1).max(1)
    }

    /// How large what it begins with is to be, in octets; nothing: as large as its image.
    pub(super) fn root_size(&self) -> u64 {
        self.mark.order.machine.size.get("disk").copied().unwrap_or(0)
    }

    /// All volumes that it has, and what it knows each by, in the order of its disks.
    pub(super) fn volumes(&self) -> Vec<(Volume, String)> {
        let mut all = Vec::new();
        if let Some(base) = self.base.clone() {
            let (name, size) = (self.named("root"), self.root_size());
            all.push((Volume { name, format: "qcow2", size, base: Some(base) }, "shoal-root".to_owned()));
        }
        for (n, (name, disk)) in self.mark.order.machine.disks.iter().enumerate() {
            let name = self.named(&format!("disk-{name}"));
            all.push((Volume { name, format: "qcow2", size: disk.size, base: None }, disk_serial(n)));
        }
        let raw = |part: &str, size: usize| {
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            Volume { name: self.named(part), format: "raw", size, base: None }
        };
        if self.has_seed {
            all.push((raw("seed", seed::SEED), SEED.to_owned()));
        }
        if self.mark.report == Report::Disk {
            all.push((raw("report", seed::REPORT), "shoal-report".to_owned()));
        }
        all
    }

    /// The document that defines it.
    pub(super) fn document(&self) -> Result<String, String> {
        let order = &self.mark.order;
        let disk = |(n, (volume, serial)): (usize, (Volume, String))| Disk {
            kind: "volume",
            device: "disk",
            driver: Driver { name: "qemu", kind: volume.format },
            readonly: (serial == SEED).then_some(Empty {}),
            source: DiskSource { pool: self.mark.pool.clone(), volume: volume.name },
            target: DiskTarget { dev: device(n), bus: "virtio" },
            serial,
        };
        let card = |(n, link): (usize, &Link)| Interface {
            kind: match link {
                Link::Bridge(_) => "bridge",
                Link::Network(_) => "network",
            },
            mac: Mac { address: mac(&order.id, n) },
            source: link.into(),
            model: Typed { kind: "virtio" },
        };
        let text = serde_json::to_string(&self.mark).map_err(|e| e.to_string())?;
        let document = Document {
            kind: self.kind.clone(),
            name: order.host.to_string(),
            uuid: self.uuid().to_string(),
            metadata: Metadata { machine: MarkElement { space: SPACE, text } },
            memory: Amount::bytes(self.memory()),
            vcpu: self.cpus(),
            os: Os {
                kind: "hvm",
                kernel: self.kernel.clone(),
                initrd: self.initrd.clone(),
                cmdline: self.command_line.clone(),
            },
            features: Features { acpi: Empty {} },
            // What the box's own processor can do, as far as libvirt knows it. An emulated one has a default.
            cpu: (self.kind == "kvm").then_some(Cpu { mode: "host-model" }),
            on_poweroff: "destroy",
            on_reboot: "restart",
            on_crash: "destroy",
            devices: Devices {
                disk: self.volumes().into_iter().enumerate().map(disk).collect(),
                interface: self.links.iter().enumerate().map(card).collect(),
                serial: Typed { kind: "pty" },
                rng: Rng { model: "virtio", backend: RngBackend { model: "random", device: "/dev/urandom" } },
            },
        };
        quick_xml::se::to_string(&document).map_err(|e| e.to_string())
    }

    /// Which of a machine's disks are not those that it was made with, for people.
    pub(super) fn other_disks(&self, text: &str) -> Result<Vec<String>, String> {
        let said: Said = quick_xml::de::from_str(text).map_err(|e| e.to_string())?;
        Ok(self.disks(&said))
    }

    fn disks(&self, said: &Said) -> Vec<String> {
        let volumes = self.volumes();
        let has = |name: &str| said.devices.disk.iter().any(|disk| disk.is(name));
        let gone = volumes.iter().filter(|(one, _)| !has(&one.name));
        let mut all: Vec<String> = gone.map(|(one, _)| format!("its disk {} is gone", one.name)).collect();
        if said.devices.disk.len() > volumes.len() {
            all.push("it has a disk more".to_owned());
        }
        all
    }

    /// What of a machine is not as it was made, for people.
    pub(super) fn strayed(&self, text: &str) -> Result<Vec<String>, String> {
        let said: Said = quick_xml::de::from_str(text).map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        if said.memory.octets() != Some(self.memory()) {
            all.push(format!("its memory is not {} MiB", self.memory() / MIB));
        }
        if said.vcpu.number != self.cpus() {
            all.push(format!("it has {} processors, and not {}", said.vcpu.number, self.cpus()));
        }
        all.extend(self.disks(&said));
        let cards: BTreeMap<String, &SaidInterface> =
            said.devices.interface.iter().map(|one| (one.mac.address.to_lowercase(), one)).collect();
        for (n, link) in self.links.iter().enumerate() {
            match cards.get(&mac(&self.mark.order.id, n)) {
                None => all.push(format!("its interface eth{n} is gone")),
                Some(card) if card.source.as_ref() != Some(&link.into()) => {
                    all.push(format!("its interface eth{n} is in another network"));
                }
                Some(_) => {}
            }
        }
        if cards.len() > self.links.len() {
            all.push("it has an interface more".to_owned());
        }
        Ok(all)
    }
}

/// The names of disks: `vda` and so on. A machine has fewer than there are letters.
fn device(disk: usize) -> String {
    let letter = u8::try_from(disk).ok().and_then(|disk| b'a'.checked_add(disk)).unwrap_or(b'z');
    format!("vd{}", char::from(letter))
}

/// What is read of a domain.
#[derive(Deserialize)]
struct Said {
    memory: Amount,
    vcpu: Amount,
    devices: SaidDevices,
}

#[derive(Deserialize)]
struct SaidDevices {
    #[serde(default)]
    disk: Vec<SaidDisk>,
    #[serde(default)]
    interface: Vec<SaidInterface>,
}

#[derive(Deserialize)]
struct SaidDisk {
    #[serde(default)]
    source: Option<SaidSource>,
}

impl SaidDisk {
    fn is(&self, volume: &str) -> bool {
        self.source.as_ref().is_some_and(|source| source.volume.as_deref() == Some(volume))
    }
}

#[derive(Deserialize)]
struct SaidSource {
    #[serde(rename = "@volume", default)]
    volume: Option<String>,
}

#[derive(Deserialize)]
struct SaidInterface {
    mac: Mac,
    #[serde(default)]
    source: Option<LinkSource>,
}

/// The mark as the element that libvirt is given for a domain that is there.
pub(super) fn element(mark: &Mark) -> Result<String, String> {
    #[derive(Serialize)]
    #[serde(rename = "machine")]
    struct Element {
        #[serde(rename = "$text")]
        text: String,
    }
    let text = serde_json::to_string(mark).map_err(|e| e.to_string())?;
    quick_xml::se::to_string(&Element { text }).map_err(|e| e.to_string())
}

/// Reads the mark out of the element that libvirt answers with.
pub(super) fn mark(element: &str) -> Result<Mark, String> {
    #[derive(Deserialize)]
    struct Element {
        #[serde(rename = "$text", default)]
        text: String,
    }
    let element: Element = quick_xml::de::from_str(element).map_err(|e| e.to_string())?;
    serde_json::from_str(&element.text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Plan {
        let order: Order = serde_json::from_value(json!({
            "id": "1</name>", "host": "web1.example.com", "token": "]]><a/>",
            "machine": {
                "image": "debian-12", "size": {"cpu": 2, "memory": 300_000_000, "disk": 5},
                "disks": {"data": {"size": 9, "at": "/srv/<x>&\"'"}},
                "networks": [{"name": "lan"}, {"name": "san"}],
                "user_data": "#!/bin/sh\n\techo '<&>' \u{1}\r\n  ]]>\n",
            },
        }))
        .unwrap();
        let base = Base { pool: "images".to_owned(), volume: "debian-12.qcow2".to_owned() };
        let links = vec![Link::Bridge("br0".to_owned()), Link::Network("a'b<c".to_owned())];
        Plan {
            mark: Mark { order, pool: "default".to_owned(), report: Report::Disk, made: false },
            kind: "kvm".to_owned(),
            base: Some(base),
            kernel: None,
            initrd: None,
            command_line: None,
            has_seed: true,
            links,
        }
    }

    #[test]
    fn what_documents_say_is_text_and_nothing_else() {
        let plan = plan();
        let text = plan.document().unwrap();
        assert!(!text.contains("<a/>") && !text.contains("<x>") && !text.contains("b<c"), "{text}");
        assert_eq!(mark(&element(&plan.mark).unwrap()).unwrap(), plan.mark);
        // As libvirt answers.
        let (_, from) = text.split_once("<metadata>").unwrap();
        let (inner, _) = from.split_once("</metadata>").unwrap();
        assert_eq!(mark(inner).unwrap(), plan.mark);
        assert_eq!(plan.strayed(&text).unwrap(), Vec::<String>::new());
        mark("<shoal:machine xmlns:shoal='urn:shoal:machine'/>").unwrap_err();
        mark("<shoal:machine xmlns:shoal='urn:shoal:machine'>{\"order\": 1}</shoal:machine>").unwrap_err();
    }

    #[test]
    fn only_the_seed_is_read_only() {
        let mut plan = plan();
        let disk = plan.mark.order.machine.disks.values().next().unwrap().clone();
        plan.mark.order.machine.disks =
            ["seed", "a-seed"].map(|name| (name.parse().unwrap(), disk.clone())).into();
        let text = plan.document().unwrap();
        assert_eq!(text.matches("<readonly").count(), 1, "{text}");
        let (_, rest) = text.split_once("<readonly").unwrap();
        assert!(rest.split_once("<serial>").unwrap().1.starts_with("shoal-seed<"), "{text}");
    }

    #[test]
    fn what_differs_is_named() {
        let (made, mut other) = (plan(), plan());
        other.links.truncate(1);
        other.mark.order.machine.size = [("cpu".to_owned(), 4), ("memory".to_owned(), MIB)].into();
        other.mark.order.machine.disks.clear();
        let text = made.document().unwrap();
        assert_eq!(
            other.strayed(&text).unwrap(),
            [
                "its memory is not 1 MiB",
                "it has 2 processors, and not 4",
                "it has a disk more",
                "it has an interface more"
            ]
        );
        let fewer = made.strayed(&other.document().unwrap()).unwrap();
        assert!(fewer.contains(&"its interface eth1 is gone".to_owned()), "{fewer:?}");
        assert!(fewer.iter().any(|what| what.starts_with("its disk ")), "{fewer:?}");
        let moved =
            Plan { links: vec![Link::Bridge("br1".to_owned()), Link::Bridge("br2".to_owned())], ..plan() };
        let moved = moved.strayed(&text).unwrap();
        assert_eq!(
            moved,
            ["its interface eth0 is in another network", "its interface eth1 is in another network"]
        );
        made.strayed("<domain/>").unwrap_err();
    }

    #[test]
    fn names_follow_from_the_id() {
        let id = |n: &str| HostId(n.to_owned());
        assert_eq!(uuid(&id("1")), uuid(&id("1")));
        assert_ne!(uuid(&id("1")), uuid(&id("2")));
        assert_eq!(uuid(&id("1")).get_version_num(), 8);
        assert_ne!(mac(&id("1"), 0), mac(&id("1"), 1));
        assert!(disk_serial(15).len() <= 20, "a virtio disk has no more room");
        assert_eq!((device(0), device(18)), ("vda".to_owned(), "vds".to_owned()));
    }
}
