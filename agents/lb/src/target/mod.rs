//! The effectful half: what a load balancer has, and how to change it.

mod changes;
mod coalesce;
#[cfg(feature = "elbv2")]
mod elbv2;
mod facts;
mod file;
mod haproxy;
mod index;
mod keepalived;
mod nginx;

#[cfg(feature = "elbv2")]
use std::sync::Arc;

use serde::Deserialize;
use shoal_agent::{Applied, Base, Batch, Fault, Fence, Nature, Observed, Scope, TagName, Target, Unit};

use haproxy::Haproxy;
pub use haproxy::HaproxySettings;
use keepalived::Keepalived;
pub use keepalived::{CheckSettings, KeepalivedSettings};
use nginx::Nginx;
pub use nginx::NginxSettings;

use crate::agent::Lb;
use crate::item::{Key, bad_pool};

#[cfg(feature = "elbv2")]
pub use elbv2::{Binding, ElbSettings};
#[cfg(feature = "elbv2")]
use shoal_aws::AwsSettings;

/// What is not understood without the feature `elbv2`.
#[cfg(not(feature = "elbv2"))]
type ElbSettings = serde::de::IgnoredAny;
#[cfg(not(feature = "elbv2"))]
type AwsSettings = serde::de::IgnoredAny;

/// `[agent]` of the node's configuration: one of these; `aws` goes with `elbv2`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// HAProxy.
    #[serde(default)]
    pub haproxy: Option<HaproxySettings>,
    /// nginx.
    #[serde(default)]
    pub nginx: Option<NginxSettings>,
    /// keepalived.
    #[serde(default)]
    pub keepalived: Option<KeepalivedSettings>,
    /// Target groups of AWS.
    #[serde(default)]
    pub elbv2: Option<ElbSettings>,
    /// How AWS is reached.
    #[serde(default)]
    pub aws: Option<AwsSettings>,
}

impl Settings {
    /// The agent and its target. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(self) -> Result<(Lb, Balancer), Fault> {
        self.open_with(Base::default())
    }

    /// The same; the target asks `base` for claims and facts.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open_with(self, base: Base) -> Result<(Lb, Balancer), Fault> {
        match self {
            Self { haproxy: Some(haproxy), nginx: None, keepalived: None, elbv2: None, aws: None } => {
                Ok((Lb::default(), Balancer { kind: Kind::Haproxy(Haproxy::open(haproxy)?) }))
            }
            Self { haproxy: None, nginx: Some(nginx), keepalived: None, elbv2: None, aws: None } => {
                let agent = Lb { udp: true, passive: true, ..Lb::default() };
                Ok((agent, Balancer { kind: Kind::Nginx(Nginx::open(nginx)?) }))
            }
            Self { haproxy: None, nginx: None, keepalived: Some(keepalived), elbv2: None, aws: None } => {
                let keepalived = Keepalived::open(keepalived)?;
                let agent = Lb { node: Some(keepalived.node().clone()), ..Lb::default() };
                Ok((agent, Balancer { kind: Kind::Keepalived(keepalived) }))
            }
            Self { haproxy: None, nginx: None, keepalived: None, elbv2: Some(elbv2), aws } => {
                groups(elbv2, aws, base)
            }
            Self { .. } => {
                let why = "it has to have one table, [agent.haproxy], [agent.nginx], [agent.keepalived] or [agent.elbv2], which [agent.aws] goes with: each has an agent of its own";
                Err(Fault::new("read [agent] of the configuration", why).permanent())
            }
        }
    }
}

#[cfg(feature = "elbv2")]
fn groups(elbv2: ElbSettings, aws: Option<AwsSettings>, base: Base) -> Result<(Lb, Balancer), Fault> {
    let (groups, elbv2) = elbv2::Elbv2::open(elbv2, aws, base)?;
    let lb = Lb { groups: Some(Arc::new(groups)), ..Lb::default() };
    Ok((lb, Balancer { kind: Kind::Elbv2(Box::new(elbv2)) }))
}

#[cfg(not(feature = "elbv2"))]
fn groups(_: ElbSettings, _: Option<AwsSettings>, _: Base) -> Result<(Lb, Balancer), Fault> {
    let why = "it names [agent.elbv2], and this program was built without that";
    Err(Fault::new("read the configuration", why)
        .next("build it with --features elbv2, or install the package")
        .permanent())
}

/// The load balancer of the configuration. Each pool is a unit.
#[derive(Debug)]
pub struct Balancer {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Haproxy(Haproxy),
    Nginx(Nginx),
    Keepalived(Keepalived),
    #[cfg(feature = "elbv2")]
    Elbv2(Box<elbv2::Elbv2>),
}

/// The tag of a unit. Its name may come from the ledger, so it is parsed like any other.
fn pool(unit: &Unit) -> Result<TagName, Fault> {
    let fault = |why: &dyn ToString| Fault::new(format!("find the pool {unit}"), why.to_string()).permanent();
    if let Some(why) = bad_pool(&unit.0) {
        return Err(fault(&why));
    }
    TagName::new("lb", &unit.0).map_err(|e| fault(&e))
}

impl Target<Lb> for Balancer {
    fn nature(&self) -> Nature {
        match &self.kind {
            Kind::Haproxy(_) | Kind::Nginx(_) | Kind::Keepalived(_) => Nature::default(),
            // Others register targets beside Shoal, and a group is read by whoever asks.
            #[cfg(feature = "elbv2")]
            Kind::Elbv2(_) => Nature { conditional: true, shared: true, ..Nature::default() },
        }
    }

    fn location(&self, unit: &Unit) -> String {
        let _ = unit;
        match &self.kind {
            Kind::Haproxy(haproxy) => haproxy.location(),
            Kind::Nginx(nginx) => nginx.location(),
            Kind::Keepalived(keepalived) => keepalived.location(),
            #[cfg(feature = "elbv2")]
            Kind::Elbv2(elbv2) => elbv2.location(&unit.0),
        }
    }

    async fn start(&self) -> Result<(), Fault> {
        match &self.kind {
            Kind::Haproxy(haproxy) => {
                haproxy.start()?;
                haproxy.recover().await
            }
            Kind::Nginx(nginx) => nginx.start(),
            Kind::Keepalived(keepalived) => keepalived.start(),
            #[cfg(feature = "elbv2")]
            Kind::Elbv2(elbv2) => {
                elbv2.start();
                Ok(())
            }
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Lb>, Fault> {
        match &self.kind {
            Kind::Haproxy(haproxy) => haproxy.observe(&pool(unit)?, scope).await,
            Kind::Nginx(nginx) => nginx.observe(&pool(unit)?).await,
            Kind::Keepalived(keepalived) => keepalived.observe(unit),
            #[cfg(feature = "elbv2")]
            Kind::Elbv2(elbv2) => elbv2.observe(&pool(unit)?, scope).await,
        }
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Lb>, fence: &Fence) -> Result<Applied<Lb>, Fault> {
        match &self.kind {
            Kind::Haproxy(haproxy) => haproxy.apply(&pool(unit)?, batch, fence).await,
            Kind::Nginx(nginx) => nginx.apply(&pool(unit)?, batch, fence).await,
            Kind::Keepalived(keepalived) => keepalived.apply(unit, batch, fence).await,
            #[cfg(feature = "elbv2")]
            Kind::Elbv2(elbv2) => elbv2.apply(&pool(unit)?, batch, fence).await,
        }
    }
}
