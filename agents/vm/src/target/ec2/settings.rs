//! `[agent.ec2]` of the node's configuration: which zone this is, and what the words of documents mean in it.

use std::collections::BTreeMap;

use serde::Deserialize;
use shoal_agent::Fault;
use shoal_machine::place::Named;
use shoal_machine::{Machine, Word};

use super::mark::OWN;

/// What a machine needs of its first disk, in octets, among its size.
pub(super) const DISK: &str = "disk";
/// The most tags of the configuration: EC2 has room for fifty, and Shoal's own are up to twenty-four.
const MANY_TAGS: usize = 20;

/// `[agent.ec2]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ec2Settings {
    /// The availability zone that the box stands for: `eu-west-1a`.
    pub zone: String,
    /// The images, by the names that documents have for them.
    pub images: BTreeMap<Word, Image>,
    /// The types of instances, those that are liked best first. With none, templates say it.
    #[serde(default)]
    pub types: Vec<Type>,
    /// How many of the types that a machine fits in are tried, one after the other.
    #[serde(default = "Ec2Settings::tries")]
    pub tries: usize,
    /// Spare capacity at another price, which EC2 takes back when it wants.
    #[serde(default)]
    pub spot: Option<Spot>,
    /// The networks, by the names that documents have for them.
    #[serde(default)]
    pub networks: BTreeMap<Word, Subnet>,
    /// Tags that each machine and its disks get, beside Shoal's own.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Have EC2 refuse to terminate the machines. Shoal itself lifts that before it destroys one.
    #[serde(default)]
    pub protect: bool,
    /// When a machine counts as up.
    #[serde(default)]
    pub ready: Ready,
    /// How long, in seconds, is waited in one go until a launch is seen, or a machine has ended; then it is looked at again later.
    #[serde(default = "Ec2Settings::wait")]
    pub wait: u32,
    /// How many calls go on at once.
    #[serde(default = "Ec2Settings::at_once")]
    pub at_once: u32,
    /// How many calls a second begin at most, not counting what the SDK tries again by itself; 0: as many as can be.
    #[serde(default = "Ec2Settings::rate")]
    pub rate: f64,
}

/// What a machine begins as: an image, or a launch template, which names one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `ami-…`.
    #[serde(default)]
    pub ami: Option<String>,
    /// `lt-…`, or the name of a launch template.
    #[serde(default)]
    pub template: Option<String>,
    /// Which version of it, by its number: what `$Latest` means changes between two attempts at one machine.
    #[serde(default)]
    pub version: Option<String>,
    /// The device of its first disk, so that a machine can have another size of it.
    #[serde(default)]
    pub root: Option<String>,
}

/// A type of instances.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Type {
    /// `m7g.large`.
    #[serde(rename = "type")]
    pub name: String,
    /// What it has.
    pub size: Named,
}

/// How spare capacity is asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// Where there is none of any type, take what is not spare.
    #[serde(default = "Spot::fall_back")]
    pub fall_back: bool,
    /// The most that an hour may cost, in dollars; nothing: what the same costs where it is not spare.
    #[serde(default)]
    pub max_price: Option<String>,
}

impl Spot {
    fn fall_back() -> bool {
        true
    }
}

/// A network that machines can be in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// `subnet-…`, in this zone.
    pub subnet: String,
    /// Its security groups, `sg-…`; nothing: the network's default.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Whether a machine gets an address that everybody reaches; nothing: as the subnet says. For machines with one network only.
    #[serde(default)]
    pub public: Option<bool>,
}

/// When a machine counts as up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// When EC2 says that it runs.
    Running,
    /// When EC2's checks of the machine and of what it runs on have passed, too.
    #[default]
    Checked,
}

/// One way to make a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way<'a> {
    /// The type; `None`: the template's.
    pub(super) kind: Option<&'a str>,
    pub(super) spot: bool,
    /// There is no other after it.
    pub(super) last: bool,
}

impl Ec2Settings {
    fn tries() -> usize {
        3
    }

    fn wait() -> u32 {
        10
    }

    fn at_once() -> u32 {
        4
    }

    fn rate() -> f64 {
        10.0
    }

    /// Whether they can work. Asks nobody.
    pub(super) fn check(&self) -> Result<(), Fault> {
        let wrong = |why: String| Err(Fault::new("read [agent.ec2] of the configuration", why).permanent());
        if self.zone.is_empty() || self.tries == 0 || self.at_once == 0 {
            return wrong("zone is not empty, and tries and at_once are at least 1".to_owned());
        }
        for (name, image) in &self.images {
            let wrong = |why: &str| wrong(format!("images.{name}: {why}"));
            match (&image.ami, &image.template) {
                (Some(_), Some(_)) | (None, None) => return wrong("write either ami or template"),
                (Some(_), None) if image.version.is_some() => return wrong("version is for a template"),
                (None, Some(_)) if !is_number(image.version.as_deref()) => {
                    return wrong("a template needs its version, as a number");
                }
                (Some(_), None) if self.types.is_empty() => {
                    return wrong("an ami needs types: only a template says one by itself");
                }
                _ => {}
            }
        }
        if let Some(bad) = self.tags.keys().find(|key| key.starts_with(OWN) || key.starts_with("aws:")) {
            return wrong(format!("tags: {bad:?} is not for you: write another name"));
        }
        if self.tags.len() > MANY_TAGS || self.tags.contains_key("Name") {
            return wrong(format!("tags: at most {MANY_TAGS}, and `Name` is the host's"));
        }
        Ok(())
    }

    /// The types that a machine fits in, as far as they are tried.
    fn fitting(&self, machine: &Machine) -> Vec<&str> {
        let needs = || machine.size.iter().filter(|(what, _)| *what != DISK);
        let fits =
            |kind: &&Type| needs().all(|(what, needs)| kind.size.get(what).is_some_and(|has| has >= needs));
        self.types.iter().filter(fits).map(|kind| kind.name.as_str()).take(self.tries).collect()
    }

    /// Whether a machine of this size may be of this type.
    pub(super) fn fits(&self, machine: &Machine, kind: &str) -> bool {
        self.fitting(machine).contains(&kind)
    }

    /// One of the ways to make a machine, counted from 0; after the last one comes the first again.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn way(&self, machine: &Machine, number: u32) -> Result<Way<'_>, Fault> {
        let kinds: Vec<Option<&str>> = match self.types.is_empty() {
            true => vec![None],
            false => self.fitting(machine).into_iter().map(Some).collect(),
        };
        let spot = if self.spot.is_some() { kinds.len() } else { 0 };
        let plain = self.spot.as_ref().is_none_or(|spot| spot.fall_back);
        let ways: Vec<(Option<&str>, bool)> = kinds
            .iter()
            .take(spot)
            .map(|kind| (*kind, true))
            .chain(kinds.iter().filter(|_| plain).map(|kind| (*kind, false)))
            .collect();
        let count = ways.len().max(1);
        let at = number as usize % count;
        let Some((kind, spot)) = ways.get(at).copied() else {
            let why = format!("no type under [agent.ec2] types has room for {}", said(machine));
            return Err(Fault::new("find a type of instances", why)
                .next("add a type, or say less in the host's size")
                .permanent());
        };
        Ok(Way { kind, spot, last: at + 1 == count })
    }

    /// What the configuration says of an image.
    ///
    /// # Errors
    /// Nothing.
    pub(super) fn image(&self, name: &Word) -> Result<&Image, Fault> {
        self.images.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.images.keys().map(Word::as_str).collect();
            let why = format!("the configuration names none; it has {}", names.join(", "));
            Fault::new(format!("find the image {name}"), why).permanent()
        })
    }

    /// What the configuration says of a network.
    ///
    /// # Errors
    /// Nothing.
    pub(super) fn network(&self, name: &Word) -> Result<&Subnet, Fault> {
        self.networks.get(name).ok_or_else(|| {
            Fault::new(format!("find the network {name}"), "the configuration names none").permanent()
        })
    }
}

fn is_number(text: Option<&str>) -> bool {
    text.is_some_and(|text| text.parse::<u32>().is_ok())
}

fn said(machine: &Machine) -> String {
    let all: Vec<String> = machine.size.iter().map(|(what, much)| format!("{what} {much}")).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(text: &str) -> Result<Ec2Settings, String> {
        let settings: Ec2Settings = toml::from_str(text).map_err(|e| e.to_string())?;
        settings.check().map_err(|fault| fault.to_string())?;
        Ok(settings)
    }

    const TYPES: &str = "zone = 'eu-west-1a'\nimages.debian = { ami = 'ami-1' }\n\
        types = [{ type = 'small', size = { cpu = 1, memory = 10 } }, { type = 'a', size = { cpu = 2, memory = 20 } }, \
                 { type = 'b', size = { cpu = 2, memory = 40 } }, { type = 'c', size = { cpu = 4, memory = 40 } }, \
                 { type = 'd', size = { cpu = 8, memory = 80 } }]\n";

    fn machine(cpu: u64) -> Machine {
        let size = json!({"cpu": cpu, "memory": 15, "disk": 10_000_000_000_u64});
        serde_json::from_value(json!({"image": "debian", "size": size})).unwrap()
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write() {
        assert!(settings(TYPES).is_ok());
        assert!(settings("zone = 'a'\nimages.x = { template = 'lt-1', version = '3' }").is_ok());
        for (text, word) in [
            ("zone = ''\nimages = {}", "zone"),
            ("zone = 'a'\nimages.x = { ami = 'ami-1', template = 'lt-1' }", "either"),
            ("zone = 'a'\nimages.x = { template = 'lt-1' }", "version"),
            ("zone = 'a'\nimages.x = { template = 'lt-1', version = '$Latest' }", "version"),
            ("zone = 'a'\nimages.x = { ami = 'ami-1' }", "types"),
            ("zone = 'a'\nimages = {}\ntags = { 'shoal:id' = 'x' }", "shoal:id"),
            ("zone = 'a'\nimages = {}\ntags = { Name = 'x' }", "Name"),
            ("zone = 'a'\nimages = {}\ntries = 0", "tries"),
            ("zone = 'a'\nimages = {}\ncommand = 'x'", "command"),
        ] {
            let why = settings(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
    }

    #[test]
    fn each_way_follows_from_its_number() {
        let plain = settings(TYPES).unwrap();
        let ways = |settings: &Ec2Settings, machine: &Machine, count: u32| -> Vec<String> {
            let way = |number| {
                let way = settings.way(machine, number).unwrap();
                let (spot, last) = (if way.spot { " spot" } else { "" }, if way.last { " last" } else { "" });
                format!("{}{spot}{last}", way.kind.unwrap_or("-"))
            };
            (0..count).map(way).collect()
        };
        assert_eq!(ways(&plain, &machine(2), 4), ["a", "b", "c last", "a"]);
        let spot = settings(&format!("{TYPES}tries = 2\nspot = {{}}")).unwrap();
        assert_eq!(ways(&spot, &machine(2), 5), ["a spot", "b spot", "a", "b last", "a spot"]);
        let only = settings(&format!("{TYPES}tries = 1\nspot = {{ fall_back = false }}")).unwrap();
        assert_eq!(ways(&only, &machine(8), 2), ["d spot last", "d spot last"]);
        assert!(plain.way(&machine(9), 0).unwrap_err().permanent);
        let template = settings("zone = 'a'\nimages.debian = { template = 'lt-1', version = '3' }").unwrap();
        assert_eq!(ways(&template, &machine(99), 1), ["- last"]);
        assert!(plain.fits(&machine(2), "b") && !plain.fits(&machine(2), "small"));
    }
}
