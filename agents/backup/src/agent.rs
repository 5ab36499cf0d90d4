//! The pure agent: tags under `backup/` into backups of hosts and the upkeep of repositories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shoal_agent::{Agent, At, Blocked, Desired, HostName, Look, Millis, Moment, Source, Step, Unit};

use crate::item::{Have, Item, Key, Upkeep};
use crate::spec::{Overrides, Spec};
use crate::{policy, step};

/// The backup agent. It serves members that are active or draining.
///
/// The unit of a backup is its host: so an agent that runs on each host works on its own with `--host self`, and one claim says
/// who backs a host up. The unit of upkeep is the repository, `@<name>`, which is no host's name.
#[derive(Clone, Debug)]
pub struct Backup {
    /// How long after a first failure something is tried again, in milliseconds; doubled each time, up to twelve times that.
    pub retry: Millis,
}

impl Default for Backup {
    fn default() -> Self {
        Self { retry: 300_000 }
    }
}

/// The unit of a repository's upkeep begins so.
pub(crate) const REPOSITORY: &str = "@";

impl Agent for Backup {
    type Spec = Spec;
    type Key = Key;
    type Item = Item;
    type Have = Have;

    fn namespace(&self) -> &str {
        "backup"
    }

    fn overrides(&self) -> Option<schemars::Schema> {
        Some(schemars::schema_for!(Overrides))
    }

    fn unit(&self, key: &Key) -> Unit {
        match key {
            Key::Backup { host, .. } => Unit::from(host.as_str()),
            Key::Upkeep { repository } => Unit(format!("{REPOSITORY}{repository}")),
        }
    }

    // A job is made of a policy and its host, and nothing else.
    fn units_of(&self, host: &HostName) -> Option<Vec<Unit>> {
        Some(vec![Unit::from(host.as_str())])
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        let blocked = |why| Blocked::new(from.name(), why);
        let repositories = policy::repositories(from.spec).map_err(blocked)?;
        let policy = policy::label(from.tag).map_err(blocked)?;
        Ok(match from.host {
            None => repositories.into_iter().map(|repository| Key::Upkeep { repository }).collect(),
            Some(_) if from.spec.omit => Vec::new(),
            Some(host) => {
                let key =
                    |repository| Key::Backup { host: host.name.clone(), policy: policy.clone(), repository };
                repositories.into_iter().map(key).collect()
            }
        })
    }

    fn desired(
        &self,
        key: &Key,
        from: &[Source<'_, Spec>],
        _look: &dyn Look,
    ) -> Result<Desired<Item>, Blocked> {
        if let Key::Upkeep { .. } = key {
            return Ok(upkeep(from));
        }
        // The key holds the tag and the host, so there is one source.
        let Some((source, host)) = from.iter().find_map(|source| Some((source, source.host?))) else {
            return Ok(Desired::nothing(Vec::new()));
        };
        // What cannot be understood stays as it was: to stop backing up is no answer to a slip.
        let job = policy::job(source.spec, host, key.repository())
            .map_err(|why| Blocked::new(source.name(), why))?;
        Ok(Desired::item(Item::Backup(Arc::new(job))))
    }

    fn step(&self, key: &Key, at: At<'_, Self>, now: Moment) -> Step {
        step::step(self.retry, key, &at, now)
    }
}

/// What the tags that name a repository say of it. Of one that cannot be understood nothing is removed.
fn upkeep(from: &[Source<'_, Spec>]) -> Desired<Item> {
    let mut upkeep =
        Upkeep { keep: BTreeMap::new(), prune: BTreeSet::new(), check: BTreeSet::new(), read: 0 };
    let mut left_out = Vec::new();
    for source in from.iter().filter(|source| source.host.is_none()) {
        let said = || {
            let (policy, keep) = (policy::label(source.tag)?, policy::keep(&source.spec.keep)?);
            Ok::<_, String>((policy, keep, policy::prune(source.spec)?, policy::check(source.spec)?))
        };
        match said() {
            Ok((policy, keep, prune, check)) => {
                if !keep.keeps_all() {
                    upkeep.prune.insert(prune);
                }
                upkeep.keep.insert(policy, keep);
                if check.is_some() {
                    upkeep.read = upkeep.read.max(source.spec.verify.read.min(100));
                }
                upkeep.check.extend(check);
            }
            Err(why) => left_out.push(Blocked::new(source.name(), why)),
        }
    }
    Desired { item: Some(Item::Upkeep(Arc::new(upkeep))), left_out }
}

#[cfg(test)]
mod tests;
