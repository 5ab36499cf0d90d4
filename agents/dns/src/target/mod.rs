//! The effectful half: what is served, and how to change it.

mod files;
mod plain;
#[cfg(feature = "route53")]
mod route53;
mod serial;
mod server;
mod tsig;
mod update;
pub(crate) mod zonefile;

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Outcome, Scope, Target, Unit};

#[cfg(feature = "route53")]
pub use route53::{Route53, Route53Settings};

pub use files::{ServerKind, ZoneFileSettings, ZoneFileTable, ZoneFiles};
pub use serial::SerialStyle;
pub use server::{Listen, Server, ServerSettings, TransferSettings};
pub use tsig::{Algorithm, KeySettings};
pub use update::{Update, UpdateSettings};

use crate::name::Zone;
use crate::{Dns, Key};

/// Which target: `[agent.bind]`, `[agent.nsd]`, `[agent.knot]`, `[agent.update]`, `[agent.route53]` or `[agent.server]` of the node's
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
    /// Hosted zones of Amazon Route 53.
    #[cfg(feature = "route53")]
    #[serde(default)]
    pub route53: Option<Route53Settings>,
    /// How AWS is reached, and as whom.
    #[cfg(feature = "route53")]
    #[serde(default)]
    pub aws: Option<shoal_aws::AwsSettings>,
    /// Only in a program that was built with the feature `route53`.
    #[cfg(not(feature = "route53"))]
    #[serde(default)]
    pub route53: Option<serde::de::IgnoredAny>,
    /// The same.
    #[cfg(not(feature = "route53"))]
    #[serde(default)]
    pub aws: Option<serde::de::IgnoredAny>,
}

/// The target that the configuration chose.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Names {
    /// Zone files for a server that reads them.
    Files(ZoneFiles),
    /// Dynamic updates to a server.
    Update(Update),
    /// Hosted zones of Amazon Route 53.
    #[cfg(feature = "route53")]
    Route53(Route53),
    /// The built-in server.
    Server(Server),
}

impl Names {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        let Settings { bind, nsd, knot, update, server, route53, aws } = settings;
        if aws.is_some() && route53.is_none() {
            return Err(Fault::new("read the configuration", "it has [agent.aws] and no [agent.route53]")
                .next("write [agent.route53], which may be empty, or leave [agent.aws] out")
                .permanent());
        }
        let tables = [(ServerKind::Bind, bind), (ServerKind::Nsd, nsd), (ServerKind::Knot, knot)];
        let mut files =
            tables.into_iter().filter_map(|(kind, table)| Some(ZoneFileSettings::new(kind, table?)));
        match (files.next(), files.next(), update, route53, server) {
            (Some(files), None, None, None, None) => ZoneFiles::open(files).map(Self::Files),
            (None, _, Some(update), None, None) => Update::open(&update).map(Self::Update),
            #[cfg(feature = "route53")]
            (None, _, None, Some(route53), None) => {
                Route53::open(route53, shoal_aws::AwsSettings::or_default(aws)).map(Self::Route53)
            }
            #[cfg(not(feature = "route53"))]
            (None, _, None, Some(_), None) => Err(Fault::new(
                "read the configuration",
                "it has [agent.route53], and this program was built without Route 53",
            )
            .next("use the packaged one, or build with --features route53")
            .permanent()),
            (None, _, None, None, server) => Server::open(server.unwrap_or_default()).map(Self::Server),
            _ => Err(Fault::new(
                "read the configuration",
                "it has more than one of [agent.bind], [agent.nsd], [agent.knot], [agent.update], [agent.route53] and \
                 [agent.server]; an agent has one target",
            )
            .next("leave all but one out")
            .permanent()),
        }
    }

    /// What the target is told. Everything but Route 53 gets what it can serve, and says so of the rest.
    async fn tell(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        match self {
            Self::Files(files) => files.apply(unit, batch, fence).await,
            Self::Update(update) => update.apply(unit, batch, fence).await,
            #[cfg(feature = "route53")]
            Self::Route53(route53) => route53.apply(unit, batch, fence).await,
            Self::Server(server) => server.apply(unit, batch, fence).await,
        }
    }

    /// Whether it knows of routing policies, aliases and health checks.
    fn routes(&self) -> bool {
        match self {
            Self::Files(_) | Self::Update(_) | Self::Server(_) => false,
            #[cfg(feature = "route53")]
            Self::Route53(_) => true,
        }
    }
}

impl Target<Dns> for Names {
    fn nature(&self) -> Nature {
        match self {
            Self::Files(files) => files.nature(),
            Self::Update(update) => update.nature(),
            #[cfg(feature = "route53")]
            Self::Route53(route53) => route53.nature(),
            Self::Server(server) => server.nature(),
        }
    }

    fn location(&self, unit: &Unit) -> String {
        match self {
            Self::Files(files) => files.location(unit),
            Self::Update(update) => update.location(unit),
            #[cfg(feature = "route53")]
            Self::Route53(route53) => route53.location(unit),
            Self::Server(server) => server.location(unit),
        }
    }

    async fn start(&self) -> Result<(), Fault> {
        match self {
            Self::Files(files) => files.start().await,
            Self::Update(update) => update.start().await,
            #[cfg(feature = "route53")]
            Self::Route53(route53) => route53.start().await,
            Self::Server(server) => server.start().await,
        }
    }

    async fn stop(&self) {
        match self {
            Self::Server(server) => server.stop().await,
            // What they open, they open for as long as they are.
            Self::Files(_) | Self::Update(_) => {}
            #[cfg(feature = "route53")]
            Self::Route53(_) => {}
        }
    }

    async fn woken(&self) -> Vec<Unit> {
        match self {
            Self::Files(files) => files.woken().await,
            // Nobody else reaches the memory of the one, and the other tells nobody.
            Self::Server(_) | Self::Update(_) => std::future::pending().await,
            #[cfg(feature = "route53")]
            Self::Route53(_) => std::future::pending().await,
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        match self {
            Self::Files(files) => files.observe(unit, scope).await,
            Self::Update(update) => update.observe(unit, scope).await,
            #[cfg(feature = "route53")]
            Self::Route53(route53) => route53.observe(unit, scope).await,
            Self::Server(server) => server.observe(unit, scope).await,
        }
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        let Some(plain::Split { plain, refused }) = (if self.routes() { None } else { plain::split(batch) })
        else {
            return self.tell(unit, batch, fence).await;
        };
        let mut applied = Applied { each: Vec::new(), facts: Vec::new() };
        if !plain.changes.is_empty() {
            applied = self.tell(unit, &plain, fence).await?;
        }
        applied.each.extend(refused);
        Ok(applied)
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
