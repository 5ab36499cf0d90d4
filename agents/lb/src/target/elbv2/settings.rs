//! `[agent.elbv2]` in the node's configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use shoal_agent::{Fault, TagName};

use crate::groups::{Groups, Kind};
use crate::item::is_pool;

/// Which pools are which target groups.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElbSettings {
    /// The group of each pool, by the pool's name.
    pub groups: BTreeMap<String, Binding>,
    /// Where a host says which instance it is: a pattern.
    #[serde(default = "ElbSettings::instance")]
    pub instance: String,
    /// How often, in seconds, targets that drain are looked at.
    #[serde(default = "ElbSettings::look")]
    pub look: u32,
    /// How long, in seconds, a change may take with all its attempts.
    #[serde(default = "ElbSettings::within")]
    pub within: u32,
    /// How many calls go on at once.
    #[serde(default = "ElbSettings::at_once")]
    pub at_once: u32,
    /// How many calls a second begin at most, not counting what the SDK tries again by itself; 0: as many as can be.
    #[serde(default = "ElbSettings::rate")]
    pub rate: f64,
}

/// The group of a pool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Its ARN; else `name`.
    #[serde(default)]
    pub arn: Option<String>,
    /// Its name in the account and region that are spoken to.
    #[serde(default)]
    pub name: Option<String>,
    /// What it holds.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The zone that addresses are registered with: `all` for those outside of the group's network.
    #[serde(default)]
    pub zone: Option<String>,
}

impl Binding {
    /// Which group it is, for people.
    pub(super) fn said(&self) -> &str {
        self.arn.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }
}

impl ElbSettings {
    fn instance() -> String {
        "{instance_id}".to_owned()
    }

    fn look() -> u32 {
        5
    }

    fn within() -> u32 {
        25
    }

    /// How long a change may take.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.within.into())
    }

    fn at_once() -> u32 {
        4
    }

    fn rate() -> f64 {
        10.0
    }

    /// What the pure half has to know of them.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub(super) fn groups(&self) -> Result<Groups, Fault> {
        let wrong = |why: String| Fault::new("read [agent.elbv2] of the configuration", why).permanent();
        if self.look == 0 || self.within == 0 || self.at_once == 0 {
            return Err(wrong("look, within and at_once are at least 1".to_owned()));
        }
        for (pool, binding) in &self.groups {
            let wrong = |why: &str| Err(wrong(format!("groups.{pool}: {why}")));
            if !is_pool(pool) || TagName::new("lb", pool).is_err() {
                return wrong("no pool can be called so; quote the name of the tag without lb/");
            }
            match (&binding.arn, &binding.name) {
                (Some(_), Some(_)) | (None, None) => return wrong("write either arn or name"),
                (Some(arn), None) if !arn.contains(":targetgroup/") => {
                    return wrong(
                        "arn is not that of a target group (arn:aws:elasticloadbalancing:…:targetgroup/…)",
                    );
                }
                (None, Some(name)) if name.is_empty() => return wrong("name is empty"),
                _ => {}
            }
            if binding.zone.is_some() && binding.kind == Kind::Instance {
                return wrong("zone is for addresses: an instance has its own");
            }
        }
        let pools = self.groups.iter().map(|(pool, binding)| (pool.clone(), binding.kind)).collect();
        Ok(Groups { pools, instance: self.instance.clone(), look: i64::from(self.look) * 1000 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_what_to_write() {
        let settings = |text: &str| -> Result<Groups, String> {
            let settings: ElbSettings = toml::from_str(text).map_err(|e| e.to_string())?;
            settings.groups().map_err(|fault| fault.to_string())
        };
        assert!(settings("groups.web = { name = 'web', type = 'instance' }").is_ok());
        for (text, word) in [
            ("groups.web = { type = 'ip' }", "arn or name"),
            ("groups.web = { name = 'a', arn = 'arn:aws:x:targetgroup/a/1', type = 'ip' }", "arn or name"),
            ("groups.web = { arn = 'arn:aws:x:loadbalancer/a/1', type = 'ip' }", "target group"),
            ("groups.web = { name = 'a', type = 'lambda' }", "lambda"),
            ("groups.web = { name = 'a', type = 'instance', zone = 'all' }", "zone"),
            ("groups.\"we b\" = { name = 'a', type = 'ip' }", "we b"),
            ("groups.\"address:web\" = { name = 'a', type = 'ip' }", "address:web"),
            ("look = 0\ngroups.web = { name = 'a', type = 'ip' }", "look"),
            ("groups.web = { name = 'a', type = 'ip', command = 'x' }", "command"),
        ] {
            let why = settings(text).expect_err(text);
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
