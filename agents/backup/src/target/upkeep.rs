//! Upkeep of a repository: what is no longer kept is removed, with credentials of its own, and the repository is checked.
//!
//! Which snapshot of a host is known to be good stands in its facts. Where they cannot be read, nothing of the repository is removed;
//! where they know of none, nothing of that host.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use shoal_agent::Fault;

use super::backup::{INCOMPLETE, Listed, MARK, exclusive, list, words};
use super::facts;
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
    let (mut gone, mut marks) = (Vec::new(), Vec::new());
    let mut known: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for ((policy, host, _), group) in &groups {
        if !known.contains_key(host) {
            known.insert(host.clone(), run.work.base.fact("backup", host).await?);
        }
        let fact = known.get(host).and_then(Option::as_ref);
        let good = fact.and_then(|fact| fact[format!("{policy}@{repository}")]["snapshot"].as_str());
        let (Some(good), Some(keep)) = (good, upkeep.keep.get(policy)) else { continue };
        let fact = fact.map(|fact| &fact[format!("{policy}@{repository}")]).unwrap_or(&Value::Null);
        let unsure = facts::unsure(fact);
        let doubted =
            |one: &Listed| one.id != good && one.run().is_some_and(|run| unsure.iter().any(|r| r == run));
        let held: BTreeSet<String> = facts::held(fact).into_keys().collect();
        // To be marked changes an id, so what is known by its id is left as it is.
        let marked = |one: &&Listed| doubted(one) && !one.is_incomplete() && !held.contains(&one.id);
        marks.extend(group.iter().filter(marked).map(|one| one.id.clone()));
        let snapshots: Vec<Snapshot> = group
            .iter()
            .map(|one| Snapshot {
                id: one.id.clone(),
                time: one.time.as_millisecond(),
                incomplete: one.is_incomplete() || doubted(one),
            })
            .collect();
        gone.extend(keep.superfluous(&snapshots, good, &held));
    }
    let limit = run.work.settings.limit;
    // Who restores without the database is told by the mark.
    marks.retain(|id| !gone.contains(id));
    for some in marks.chunks(CALL) {
        let mut args = words(&["tag", "--add", INCOMPLETE]);
        args.extend(some.iter().cloned());
        exclusive(&restic, &args, limit, stop).await?;
    }
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
