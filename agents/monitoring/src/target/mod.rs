//! The effectful half: what a monitoring server has, and how to change it.

mod nagios;

use std::fmt;

use serde::{Deserialize, Serialize};
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Scope, Target, Unit};

pub use nagios::{Nagios, NagiosSettings};

use crate::agent::{Commands, Monitoring};
use crate::item::Key;

/// A kind of monitoring server. An agent works for one of each at most, and each is a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// Nagios 4.
    Nagios,
}

impl Server {
    /// Its name, also the unit's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nagios => "nagios",
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
}

impl Settings {
    /// The agent and its target. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self) -> Result<(Monitoring, Nagios), Fault> {
        let Some(nagios) = self.nagios else {
            return Err(Fault::new("read the configuration", "it names no monitoring server")
                .next("give it a table [agent.nagios]: see docs/agents/monitoring.md")
                .permanent());
        };
        Ok((Monitoring::new([Server::Nagios], self.commands), Nagios::open(nagios)?))
    }
}

impl Target<Monitoring> for Nagios {
    fn nature(&self) -> Nature {
        Nature { marks_own: true, ..Nature::default() }
    }

    async fn start(&self) -> Result<(), Fault> {
        self.prepare();
        Ok(())
    }

    async fn observe(&self, unit: &Unit, _: Scope<'_, Key>) -> Result<Observed<Monitoring>, Fault> {
        served(unit, Server::Nagios)?;
        self.look().await
    }

    async fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        served(unit, Server::Nagios)?;
        self.change(batch, fence).await
    }
}

/// Refuses the unit of a server that this agent's configuration does not have: the ledger knows it from another.
fn served(unit: &Unit, server: Server) -> Result<(), Fault> {
    if unit.0 == server.name() {
        return Ok(());
    }
    let why = format!("the configuration of this agent has no table [agent.{unit}]");
    Err(Fault::new(format!("work on {unit}"), why).permanent())
}
