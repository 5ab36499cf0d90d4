//! The effectful half: what a load balancer has, and how to change it.

mod facts;
mod file;
mod haproxy;

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Scope, TagName, Target, Unit};

use haproxy::Haproxy;
pub use haproxy::HaproxySettings;

use crate::agent::Lb;
use crate::item::Key;

/// `[agent]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// HAProxy.
    pub haproxy: HaproxySettings,
}

impl Settings {
    /// The agent and its target. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self) -> Result<(Lb, Balancer), Fault> {
        Ok((Lb { udp: false }, Balancer { haproxy: Haproxy::open(self.haproxy)? }))
    }
}

/// The load balancer of the configuration. Each pool is a unit.
#[derive(Debug)]
pub struct Balancer {
    haproxy: Haproxy,
}

/// The tag of a unit. Its name may come from the ledger, so it is parsed like any other.
fn pool(unit: &Unit) -> Result<TagName, Fault> {
    TagName::new("lb", &unit.0).map_err(|e| Fault::new(format!("find the pool {unit}"), e).permanent())
}

impl Target<Lb> for Balancer {
    fn nature(&self) -> Nature {
        Nature::default()
    }

    fn location(&self, _: &Unit) -> String {
        self.haproxy.location()
    }

    async fn start(&self) -> Result<(), Fault> {
        self.haproxy.start()
    }

    async fn observe(&self, unit: &Unit, _: Scope<'_, Key>) -> Result<Observed<Lb>, Fault> {
        self.haproxy.observe(&pool(unit)?).await
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Lb>, fence: &Fence) -> Result<Applied<Lb>, Fault> {
        self.haproxy.apply(&pool(unit)?, batch, fence).await
    }
}
