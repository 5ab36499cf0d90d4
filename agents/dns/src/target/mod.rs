//! The effectful half: what is served, and how to change it.

mod bind;
mod serial;
mod server;
mod zonefile;

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Outcome, Scope, Target, Unit};

pub use bind::{Bind, BindSettings};
pub use serial::SerialStyle;
pub use server::{Listen, Server, ServerSettings};

use crate::name::Zone;
use crate::{Dns, Key};

/// Which target: `[agent.bind]` or `[agent.server]` of the node's configuration, and the built-in server where neither
/// is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Zone files for BIND.
    #[serde(default)]
    pub bind: Option<BindSettings>,
    /// The built-in server.
    #[serde(default)]
    pub server: Option<ServerSettings>,
}

/// The target that the configuration chose.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Names {
    /// Zone files for BIND.
    Bind(Bind),
    /// The built-in server.
    Server(Server),
}

impl Names {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        match (settings.bind, settings.server) {
            (Some(_), Some(_)) => Err(Fault::new(
                "read the configuration",
                "it has both [agent.bind] and [agent.server]; an agent has one target",
            )
            .next("leave one of them out")
            .permanent()),
            (Some(bind), None) => Bind::open(bind).map(Self::Bind),
            (None, server) => Ok(Self::Server(Server::new(server.unwrap_or_default()))),
        }
    }
}

impl Target<Dns> for Names {
    fn nature(&self) -> Nature {
        match self {
            Self::Bind(bind) => bind.nature(),
            Self::Server(server) => server.nature(),
        }
    }

    async fn start(&self) -> Result<(), Fault> {
        match self {
            Self::Bind(bind) => bind.start().await,
            Self::Server(server) => server.start().await,
        }
    }

    async fn woken(&self) -> Vec<Unit> {
        match self {
            Self::Bind(bind) => bind.woken().await,
            // Nobody else reaches its memory.
            Self::Server(_) => std::future::pending().await,
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        match self {
            Self::Bind(bind) => bind.observe(unit, scope).await,
            Self::Server(server) => server.observe(unit, scope).await,
        }
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        match self {
            Self::Bind(bind) => bind.apply(unit, batch, fence).await,
            Self::Server(server) => server.apply(unit, batch, fence).await,
        }
    }
}

/// A name of a zone that nothing declares. It may pass: the tag is another source, whose commit does not wake this name.
fn undeclared(zone: &Zone, key: &Key) -> Fault {
    Fault::new(format!("write {}", key.name()), format!("no tag declares the zone {zone}"))
        .next(format!("make a tag dns/{zone} with an soa"))
}

/// These names are not what they were, too.
fn moved(each: &mut Vec<(Key, Outcome)>, batch: &Batch<Dns>, keys: impl IntoIterator<Item = Key>) {
    let others = keys
        .into_iter()
        .filter(|key| batch.changes.binary_search_by(|edit| edit.key.cmp(key)).is_err())
        .map(|key| (key, Outcome::Stale));
    each.extend(others);
}
