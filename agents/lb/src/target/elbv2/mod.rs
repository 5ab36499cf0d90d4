//! Target groups of AWS (ELBv2): members are registered and deregistered; the groups, their listeners and load balancers are somebody else's.
//!
//! **A look** is one answer about the whole group. No answer, half of one, or a group that is gone is no empty group: it is an error, and
//! nothing is done.
//!
//! **Whose a target is** the ledger knows, AWS does not. So a target is registered only where a look a moment before, under a claim on the
//! group, shows that it is not there: what somebody else registered is a clash, also where two pools share a group. Nothing is
//! deregistered that the ledger does not name.
//!
//! **The least number** is kept under the same claim, counted over all that serves in the group, whoever registered it.

mod cloud;
mod facts;
mod lately;
mod settings;
mod work;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use shoal_agent::{Base, Fault, HostName, Observed, Scope, Seen, TagName};
use shoal_aws::AwsSettings;

use crate::agent::Lb;
use crate::groups::{Groups, Registered};
use crate::item::{Have, Key};
use cloud::{Cloud, Found, Targets};
use facts::Said;
use lately::Lately;
pub use settings::{Binding, ElbSettings};

/// ELBv2.
#[derive(Debug)]
pub(super) struct Elbv2 {
    settings: ElbSettings,
    region: String,
    cloud: Cloud,
    base: Base,
    /// It works; a plan only looks.
    works: AtomicBool,
    pools: Mutex<BTreeMap<String, Pool>>,
    /// What was reported of hosts, which may not stand in the database yet.
    told: Mutex<BTreeMap<HostName, Said>>,
    /// What was done to each group of late, by its ARN.
    lately: Mutex<BTreeMap<String, Lately>>,
    /// From which end halves of a refused call are tried next.
    turn: AtomicBool,
}

/// What is remembered of a pool while the agent runs.
#[derive(Debug, Default)]
struct Pool {
    found: Option<Found>,
    /// The least number of servers, as it was told.
    least: Option<u32>,
    /// What was last seen in its group, and done to it since.
    seen: Option<Targets>,
}

impl Elbv2 {
    pub(super) fn open(
        settings: ElbSettings,
        aws: Option<AwsSettings>,
        base: Base,
    ) -> Result<(Groups, Self), Fault> {
        let groups = settings.groups()?;
        let aws = AwsSettings::or_default(aws);
        aws.check()?;
        let region = aws.region.as_ref().map(|region| format!(" in {region}")).unwrap_or_default();
        let cloud = Cloud::new(aws, &settings);
        let works = AtomicBool::new(false);
        let (pools, told, lately, turn) = Default::default();
        Ok((groups, Self { settings, region, cloud, base, works, pools, told, lately, turn }))
    }

    pub(super) fn location(&self, pool: &str) -> String {
        let group = self.settings.groups.get(pool).map_or("none", Binding::said);
        format!("the target group {group}{}", self.region)
    }

    /// From now on changes are made here.
    pub(super) fn start(&self) {
        self.works.store(true, Ordering::Relaxed);
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lately(&self) -> MutexGuard<'_, BTreeMap<String, Lately>> {
        self.lately.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn binding(&self, pool: &str) -> Result<&Binding, Fault> {
        self.settings.groups.get(pool).ok_or_else(|| {
            let what = format!("find the target group of lb/{pool}");
            let next = format!(
                "write one under [agent.elbv2.groups] as {pool:?}; what was registered for it stays as it is"
            );
            Fault::new(what, "the configuration names none").next(next).permanent()
        })
    }

    /// The group of a pool. `anew`: as it is now, else as it was found before.
    async fn find(&self, pool: &str, anew: bool) -> Result<Found, Fault> {
        let binding = self.binding(pool)?;
        let before = self.pools().get(pool).and_then(|pool| pool.found.clone());
        if let Some(found) = before.filter(|_| !anew) {
            return Ok(found);
        }
        let found = self.cloud.find(pool, binding).await;
        // One that cannot be found is not taken from memory the next time either.
        self.pools().entry(pool.to_owned()).or_default().found = found.as_ref().ok().cloned();
        found
    }

    /// What is in the group of a pool now.
    async fn targets(&self, pool: &str, found: &Found) -> Result<Targets, Fault> {
        let what = format!("look at the targets of lb/{pool}");
        let mut targets = self.cloud.targets(&what, &found.arn).await;
        if let (Ok(targets), Some(lately)) = (&mut targets, self.lately().get_mut(&found.arn)) {
            lately.lay_over(targets, Instant::now());
        }
        let mut pools = self.pools();
        let entry = pools.entry(pool.to_owned()).or_default();
        match targets {
            Ok(targets) => {
                entry.seen = Some(targets.clone());
                Ok(targets)
            }
            Err(fault) => {
                *entry = Pool { least: entry.least, ..Pool::default() };
                Err(fault)
            }
        }
    }

    /// Looks at a pool.
    pub(super) async fn observe(&self, tag: &TagName, scope: Scope<'_, Key>) -> Result<Observed<Lb>, Fault> {
        let name = tag.key();
        let of_pool = |key: &Key| key.at.is_none();
        let anew = match scope {
            Scope::All => true,
            Scope::Keys(keys) => keys.iter().any(of_pool),
        };
        let found = self.find(name, anew).await?;
        let targets = self.targets(name, &found).await?;
        let least = self.pools().get(name).and_then(|pool| pool.least);
        let mut group = found.group;
        group.keeps = self.works.load(Ordering::Relaxed).then_some(least);
        let key = |at| Key { pool: tag.clone(), host: None, at };
        let mut seen = BTreeMap::from([(key(None), Seen::Ours(Have::Group(group)))]);
        seen.extend(targets.into_iter().map(|(at, health)| {
            let have = Have::Member(Registered { draining: health.draining });
            (key(Some(at)), Seen::There(have))
        }));
        Ok(Observed { seen, complete: true })
    }
}
