//! `[agent.route53]` in the node's configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use shoal_agent::Fault;

use crate::name::Zone;

/// Which hosted zones are meant, and how fast they are asked about. Region, credentials and role are in `[agent.aws]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route53Settings {
    /// Private hosted zones, instead of public ones.
    #[serde(default)]
    pub private: bool,
    /// The hosted zone's id, for zones of which the account has several of one name.
    #[serde(default)]
    pub zones: BTreeMap<String, String>,
    /// Names for health checks, so that tags need not have their ids.
    #[serde(default)]
    pub health: BTreeMap<String, String>,
    /// How many calls a second are made at most. The account has five, and everybody in it shares them.
    #[serde(default = "Route53Settings::rate")]
    pub rate: f64,
}

impl Default for Route53Settings {
    fn default() -> Self {
        let (zones, health) = Default::default();
        Self { private: false, zones, health, rate: Self::rate() }
    }
}

impl Route53Settings {
    fn rate() -> f64 {
        5.0
    }

    /// Whether they can work at all.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn check(&self) -> Result<(), Fault> {
        let wrong = |why: String| {
            Err(Fault::new("read the configuration", format!("[agent.route53] {why}")).permanent())
        };
        if !(self.rate > 0.0 && self.rate <= 1_000.0) {
            return wrong(format!(
                "rate = {} is not a number of calls a second above 0, at most 1000",
                self.rate
            ));
        }
        for (zone, id) in &self.zones {
            if let Err(why) = Zone::parse(zone) {
                return wrong(format!("zones: {why}"));
            }
            if !is_id(id) {
                return wrong(format!(
                    "zones: {id:?} of {zone} is not the id of a hosted zone, as Z0123456789ABCDEFGHIJ is"
                ));
            }
        }
        for (name, id) in &self.health {
            if self.health.iter().any(|(other, same)| other < name && same == id) {
                return wrong(format!(
                    "health: {name} names the health check {id} once more; one name is enough"
                ));
            }
        }
        Ok(())
    }

    /// The hosted zone that is meant, where it is said.
    pub(super) fn zone(&self, zone: &Zone) -> Option<&str> {
        let of = |(name, _): &(&String, &String)| Zone::parse(name).as_ref() == Ok(zone);
        self.zones.iter().find(of).map(|(_, id)| id.as_str())
    }

    /// The id of a health check that a tag names.
    pub(super) fn health_id<'a>(&'a self, said: &'a str) -> &'a str {
        self.health.get(said).map_or(said, String::as_str)
    }

    /// What tags call the health check of this id.
    pub(super) fn health_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.health.iter().find(|(_, one)| *one == id).map_or(id, |(name, _)| name.as_str())
    }
}

fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric())
}
