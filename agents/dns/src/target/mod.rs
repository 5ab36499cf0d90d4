//! The effectful half: what is served, and how to change it.

mod files;
mod serial;
mod server;
mod tsig;
mod update;
pub(crate) mod zonefile;

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Outcome, Scope, Target, Unit};

pub use files::{ServerKind, ZoneFileSettings, ZoneFileTable, ZoneFiles};
pub use serial::SerialStyle;
pub use server::{Listen, Server, ServerSettings, TransferSettings};
pub use tsig::{Algorithm, KeySettings};
pub use update::{Update, UpdateSettings};

use crate::name::Zone;
use crate::{Dns, Key};

/// Which target: `[agent.bind]`, `[agent.nsd]`, `[agent.knot]`, `[agent.update]` or `[agent.server]` of the node's
/// configuration, and the built-in server where none is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Zone files for BIND.
    #[serde(default)]
    pub bind: Option<ZoneFileTable>,
    /// Zone files for NSD.
    #[serde(default)]
    pub nsd: Option<ZoneFileTable>,
    /// Zone files for Knot.
    #[serde(default)]
    pub knot: Option<ZoneFileTable>,
    /// Dynamic updates to a server.
    #[serde(default)]
    pub update: Option<UpdateSettings>,
    /// The built-in server.
    #[serde(default)]
    pub server: Option<ServerSettings>,
}

/// The target that the configuration chose.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Names {
    /// Zone files for a server that reads them.
    Files(ZoneFiles),
    /// Dynamic updates to a server.
    Update(Update),
    /// The built-in server.
    Server(Server),
}

impl Names {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        let Settings { bind, nsd, knot, update, server } = settings;
        let tables = [(ServerKind::Bind, bind), (ServerKind::Nsd, nsd), (ServerKind::Knot, knot)];
        let mut files =
            tables.into_iter().filter_map(|(kind, table)| Some(ZoneFileSettings::new(kind, table?)));
        match (files.next(), files.next(), update, server) {
            (Some(files), None, None, None) => ZoneFiles::open(files).map(Self::Files),
            (None, _, Some(update), None) => Update::open(&update).map(Self::Update),
            (None, _, None, server) => Server::open(server.unwrap_or_default()).map(Self::Server),
            _ => Err(Fault::new(
                "read the configuration",
                "it has more than one of [agent.bind], [agent.nsd], [agent.knot], [agent.update] and [agent.server]; an agent \
                 has one target",
            )
            .next("leave all but one out")
            .permanent()),
        }
    }
}

impl Target<Dns> for Names {
    fn nature(&self) -> Nature {
        match self {
            Self::Files(files) => files.nature(),
            Self::Update(update) => update.nature(),
            Self::Server(server) => server.nature(),
        }
    }

    fn location(&self, unit: &Unit) -> String {
        match self {
            Self::Files(files) => files.location(unit),
            Self::Update(update) => update.location(unit),
            Self::Server(server) => server.location(unit),
        }
    }

    async fn start(&self) -> Result<(), Fault> {
        match self {
            Self::Files(files) => files.start().await,
            Self::Update(update) => update.start().await,
            Self::Server(server) => server.start().await,
        }
    }

    async fn stop(&self) {
        match self {
            Self::Server(server) => server.stop().await,
            // What they open, they open for as long as they are.
            Self::Files(_) | Self::Update(_) => {}
        }
    }

    async fn woken(&self) -> Vec<Unit> {
        match self {
            Self::Files(files) => files.woken().await,
            // Nobody else reaches the memory of the one, and the other tells nobody.
            Self::Server(_) | Self::Update(_) => std::future::pending().await,
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        match self {
            Self::Files(files) => files.observe(unit, scope).await,
            Self::Update(update) => update.observe(unit, scope).await,
            Self::Server(server) => server.observe(unit, scope).await,
        }
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        match self {
            Self::Files(files) => files.apply(unit, batch, fence).await,
            Self::Update(update) => update.apply(unit, batch, fence).await,
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
