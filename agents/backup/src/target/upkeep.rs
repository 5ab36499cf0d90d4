//! Upkeep of a repository: what is no longer kept is removed, with credentials of its own, and the repository is checked.
//!
//! Which snapshot of a host is known to be good stands in its facts. Where they cannot be read, nothing of the repository is removed;
//! where they know of none, nothing of that host.

use std::collections::BTreeMap;

use serde_json::Value;
use shoal_agent::Fault;

use super::backup::{INCOMPLETE, Listed, MARK, exclusive, list, words};
use super::program::Stop;
use super::runs::Run;
use crate::item::Upkeep;
use crate::name::Label;
use crate::retention::Snapshot;

/// How many snapshots one call of restic forgets.
const CALL: usize = 100;

/// Removes what no policy keeps, and frees its space.
pub(crate) async fn prune(run: &Run<'_>, upkeep: &Upkeep, stop: &mut Stop) -> Result<(), Fault> {
    let repository = run.key.repository();
    let restic = run.work.caller(repository, true)?;
    run.say("lists snapshots");
    let mut groups: BTreeMap<(Label, String, Vec<String>), Vec<Listed>> = BTreeMap::new();
    for one in list(&restic, &words(&["--tag", MARK]), stop).await? {
        let Some(policy) = one.policy() else { continue };
        if upkeep.keep.get(&policy).is_some_and(|keep| !keep.keeps_all()) {
            groups.entry((policy, one.hostname.clone(), one.paths.clone())).or_default().push(one);
        }
    }
    let mut gone = Vec::new();
    let mut known: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for ((policy, host, _), group) in &groups {
        if !known.contains_key(host) {
            known.insert(host.clone(), run.work.base.fact("backup", host).await?);
        }
        let fact = known.get(host).and_then(Option::as_ref);
        let good = fact.and_then(|fact| fact[format!("{policy}@{repository}")]["snapshot"].as_str());
        let (Some(good), Some(keep)) = (good, upkeep.keep.get(policy)) else { continue };
        let snapshots: Vec<Snapshot> = group
            .iter()
            .map(|one| Snapshot {
                id: one.id.clone(),
                time: one.time.as_millisecond(),
                incomplete: one.has(INCOMPLETE),
            })
            .collect();
        gone.extend(keep.superfluous(&snapshots, good));
    }
    let limit = run.work.settings.limit;
    for some in gone.chunks(CALL) {
        run.say(&format!("removes {} snapshots", gone.len()));
        let mut args = words(&["forget"]);
        args.extend(some.iter().cloned());
        exclusive(&restic, &args, limit, stop).await?;
    }
    run.say("frees space");
    exclusive(&restic, &words(&["prune"]), limit, stop).await?;
    if !gone.is_empty() {
        tracing::info!(%repository, "removed {} snapshots that no policy keeps", gone.len());
    }
    Ok(())
}

/// Checks the structure, and reads a share of the data.
pub(crate) async fn check(run: &Run<'_>, upkeep: &Upkeep, stop: &mut Stop) -> Result<(), Fault> {
    let restic = run.work.caller(run.key.repository(), false)?;
    run.say("checks the repository");
    let mut args = words(&["check"]);
    match upkeep.read {
        0 => {}
        100.. => args.push("--read-data".to_owned()),
        share => args.push(format!("--read-data-subset={share}%")),
    }
    exclusive(&restic, &args, run.work.settings.limit, stop).await
}
