//! The effectful half: what a monitoring server has, and how to change it.

mod http;
mod icinga2;
mod nagios;
mod objects;
mod prometheus;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use shoal_agent::secrets::Secrets;
use shoal_agent::{Applied, Batch, Fault, Fence, HostName, Nature, Observed, Scope, Target, Unit};

use icinga2::Icinga;
pub use icinga2::IcingaSettings;
use nagios::Nagios;
pub use nagios::{NagiosSettings, WaySettings};
use objects::Objects;
use prometheus::Prometheus;
pub use prometheus::{AlertmanagerSettings, PrometheusSettings, RulesSettings};

use crate::agent::{Commands, Monitoring};
use crate::item::{Item, Key};

/// A kind of monitoring server. An agent works for one of each at most, and each is a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// Nagios 4.
    Nagios,
    /// Icinga 2.
    Icinga2,
    /// Prometheus.
    Prometheus,
}

impl Server {
    /// Its name, also the unit's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nagios => "nagios",
            Self::Icinga2 => "icinga2",
            Self::Prometheus => "prometheus",
        }
    }

    /// Whether it makes checks of its own, of hosts and services.
    pub(crate) fn checks(self) -> bool {
        matches!(self, Self::Nagios | Self::Icinga2)
    }

    /// What Shoal's own folder is for.
    fn folder(self) -> &'static str {
        match self {
            Self::Nagios => "folder of Nagios objects",
            Self::Icinga2 => "folder of Icinga objects",
            Self::Prometheus => "folder for Prometheus",
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// `[agent]` of the node's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The commands of the server that tags may name.
    #[serde(default)]
    pub commands: Commands,
    /// Nagios 4.
    #[serde(default)]
    pub nagios: Option<NagiosSettings>,
    /// Icinga 2.
    #[serde(default)]
    pub icinga2: Option<IcingaSettings>,
    /// Prometheus.
    #[serde(default)]
    pub prometheus: Option<PrometheusSettings>,
}

impl Settings {
    /// The agent and its target, which takes the secrets that tags name from `secrets`. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self, secrets: Secrets) -> Result<(Monitoring, Servers), Fault> {
        let servers = Servers {
            nagios: self.nagios.map(|settings| Nagios::open(settings, secrets.clone())).transpose()?,
            icinga2: self.icinga2.map(|settings| Icinga::open(settings, secrets.clone())).transpose()?,
            prometheus: self
                .prometheus
                .map(|settings| Prometheus::open(settings, secrets.clone()))
                .transpose()?,
        };
        let named = servers.named();
        if named.is_empty() {
            return Err(Fault::new("read the configuration", "it names no monitoring server")
                .next("give it a table [agent.nagios], [agent.icinga2] or [agent.prometheus]: see docs/agents/monitoring.md")
                .permanent());
        }
        Ok((Monitoring::new(named, self.commands), servers))
    }
}

/// The servers of the configuration. Each is a unit of its own.
#[derive(Debug)]
pub struct Servers {
    nagios: Option<Objects<Nagios>>,
    icinga2: Option<Objects<Icinga>>,
    prometheus: Option<Prometheus>,
}

impl Target<Monitoring> for Servers {
    fn nature(&self) -> Nature {
        Nature { marks_own: true, ..Nature::default() }
    }

    fn location(&self, unit: &Unit) -> String {
        match self.of(unit) {
            Ok(At::Nagios(nagios)) => nagios.location(),
            Ok(At::Icinga2(icinga)) => icinga.location(),
            Ok(At::Prometheus(prometheus)) => prometheus.location(),
            // It is refused anyway.
            Err(_) => String::new(),
        }
    }

    async fn start(&self) -> Result<(), Fault> {
        if let Some(nagios) = &self.nagios {
            nagios.prepare().await;
        }
        if let Some(icinga) = &self.icinga2 {
            icinga.prepare().await;
        }
        match &self.prometheus {
            Some(prometheus) => prometheus.start().await,
            None => Ok(()),
        }
    }

    async fn stop(&self) {
        if let Some(prometheus) = &self.prometheus {
            prometheus.stop().await;
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Monitoring>, Fault> {
        match self.of(unit)? {
            At::Nagios(nagios) => nagios.look(scope).await,
            At::Icinga2(icinga) => icinga.look(scope).await,
            At::Prometheus(prometheus) => prometheus.look(scope).await,
        }
    }

    async fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        match self.of(unit)? {
            At::Nagios(nagios) => nagios.change(batch, fence).await,
            At::Icinga2(icinga) => icinga.change(batch, fence).await,
            At::Prometheus(prometheus) => prometheus.change(batch, fence).await,
        }
    }
}

/// The server of a unit.
enum At<'a> {
    Nagios(&'a Objects<Nagios>),
    Icinga2(&'a Objects<Icinga>),
    Prometheus(&'a Prometheus),
}

impl Servers {
    fn named(&self) -> Vec<Server> {
        let there = [
            (Server::Nagios, self.nagios.is_some()),
            (Server::Icinga2, self.icinga2.is_some()),
            (Server::Prometheus, self.prometheus.is_some()),
        ];
        there.into_iter().filter_map(|(server, there)| there.then_some(server)).collect()
    }

    /// Refuses the unit of a server that this agent's configuration does not have: the ledger knows it from another.
    fn of(&self, unit: &Unit) -> Result<At<'_>, Fault> {
        let found = match unit.0.as_str() {
            "nagios" => self.nagios.as_ref().map(At::Nagios),
            "icinga2" => self.icinga2.as_ref().map(At::Icinga2),
            "prometheus" => self.prometheus.as_ref().map(At::Prometheus),
            _ => None,
        };
        found.ok_or_else(|| {
            let why = format!("the configuration of this agent has no table [agent.{unit}]");
            Fault::new(format!("work on {unit}"), why).permanent()
        })
    }
}

/// What stands in a server's files of these hosts, as one text: to look at, and to measure. Writes nothing; proportional to them.
#[must_use]
pub fn text(server: Server, items: &BTreeMap<HostName, Item>) -> String {
    let knows = |name: &HostName| items.contains_key(name);
    let hosts = items.iter().filter_map(|(name, item)| Some((name, &**item.host()?, None)));
    let around = |unit| objects::Around { unit, knows: &knows, slot: &|_| None };
    match server {
        Server::Nagios => objects::file::<Nagios>(hosts, &around(60)),
        Server::Icinga2 => objects::file::<Icinga>(hosts, &around(1)),
        Server::Prometheus => {
            let targets =
                items.iter().filter_map(|(name, item)| Some((name.clone(), item.targets()?.clone())));
            prometheus::text(&targets.collect())
        }
    }
}

/// A number from 0 to 255 for a host, the same for ever: FNV-1a, folded.
fn fold(host: &HostName) -> u8 {
    let hash = host
        .as_str()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_be_bytes().into_iter().fold(0, |folded, byte| folded ^ byte)
}
