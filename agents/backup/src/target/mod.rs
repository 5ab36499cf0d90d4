//! The effectful half: restic, and what the node knows of its runs.
//!
//! What is *there* of an item is the node's record of it: what it was last told, how the last runs went, and what runs now. A look reads
//! that, never the repository. To take an item out of its tag removes the record and leaves every snapshot where it is.

mod backup;
mod facts;
mod locks;
mod places;
mod program;
mod proof;
mod purge;
mod records;
mod remote;
mod runs;
mod settings;
mod sources;
mod ssh;
mod upkeep;

use std::sync::Arc;

use serde_json::json;
use shoal_agent::secrets::Secrets;
use shoal_agent::{
    Applied, Base, Batch, Change, Edit, Fault, Fence, Moment, Observed, Outcome, Scope, Seen, Target, Unit,
};

pub(crate) use backup::{Listed, MARK, list, policy_mark, words};
pub(crate) use program::{Caller, failed};
pub(crate) use records::doubted;
pub use settings::{Removal, Repository, Settings};
pub use ssh::Ssh;

use crate::agent::{Backup, REPOSITORY};
use crate::item::{Have, Key, Record};
use crate::step;
use runs::Work;

/// How soon to look at a run that was begun, in milliseconds.
const SOON: Moment = 300;

/// restic, with the repositories of the configuration.
#[derive(Debug)]
pub struct Restic {
    work: Arc<Work>,
}

impl Restic {
    pub(crate) fn new(settings: Settings, secrets: Secrets, base: Base) -> Self {
        Self { work: Arc::new(Work::new(settings, secrets, base)) }
    }
}

/// As many files may be open as the system lets this process have: each run that waits for its places has one, and what was never backed
/// up is due at once, on thousands of hosts.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("no more files can be open than before: {error}");
    }
}

/// What this machine calls itself.
pub(crate) fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

impl Target<Backup> for Restic {
    /// Of a repository, where it is. A host's backups are where its policies' repositories are.
    fn location(&self, unit: &Unit) -> String {
        let known = unit.0.strip_prefix(REPOSITORY).and_then(|name| {
            self.work.settings.repositories.iter().find(|(label, _)| label.as_str() == name)
        });
        known.map(|(_, one)| format!("restic repository {}", one.place())).unwrap_or_default()
    }

    async fn start(&self) -> Result<(), Fault> {
        raise_open_files();
        sources::make(&self.work.settings.state)
    }

    async fn stop(&self) {
        self.work.end().await;
    }

    async fn woken(&self) -> Vec<Unit> {
        self.work.ended().await
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Backup>, Fault> {
        if !self.work.settings.state.is_dir() {
            // Nothing was ever started here.
            return Ok(Observed::of(Vec::new(), |_| Seen::Nothing));
        }
        let keys = match scope {
            Scope::Keys(keys) => keys.to_vec(),
            Scope::All => self.work.records.keys(unit)?,
        };
        Ok(Observed::of(keys, |key| match self.work.records.read(key) {
            Ok(None) => Seen::Nothing,
            Ok(Some(record)) => Seen::There(Have { running: self.work.running(key, &record), record }),
            Err(why) => Seen::Unknown(why),
        }))
    }

    async fn apply(
        &self,
        unit: &Unit,
        batch: &Batch<Backup>,
        fence: &Fence,
    ) -> Result<Applied<Backup>, Fault> {
        let mut each = Vec::new();
        let mut facts = Vec::new();
        for edit in &batch.changes {
            let now = fence.clock.now();
            let outcome = match fence.check() {
                Ok(()) => self.one(unit, edit, now, &mut facts).await,
                Err(fault) => Err(fault),
            };
            each.push((edit.key.clone(), outcome.unwrap_or_else(Outcome::Failed)));
        }
        Ok(Applied { each, facts })
    }
}

impl Restic {
    async fn one(
        &self,
        unit: &Unit,
        edit: &Edit<Backup>,
        now: Moment,
        facts: &mut Vec<Change>,
    ) -> Result<Outcome, Fault> {
        let (work, key) = (&self.work, &edit.key);
        let Some(item) = &edit.to else {
            work.cut(key, "nobody wants it any more");
            work.records.write(key, None)?;
            work.clear(key);
            return Ok(Outcome::Done);
        };
        match edit.verb {
            verb @ (step::BACK_UP | step::TEST | step::PURGE | step::PRUNE | step::CHECK) => {
                let begun = work.begin(key, verb, now)?;
                Ok(Outcome::Running { memo: json!(begun), look_again: now + SOON })
            }
            step::JUDGE => {
                work.change(key, |record| judge(record, now))?;
                Ok(Outcome::Done)
            }
            step::NOTE => {
                facts.extend(work.facts(unit, key, now).await?);
                work.change(key, |record| record.told = true)?;
                Ok(Outcome::Done)
            }
            _ if edit.from.is_some() => {
                work.change(key, |record| record.item.clone_from(item))?;
                Ok(Outcome::Done)
            }
            _ => {
                let record = self.remembered(key, Record::new(item.clone(), now), now).await?;
                work.records.write(key, Some(&record))?;
                Ok(Outcome::Done)
            }
        }
    }

    /// An item that this node has no record of: it may have been another node's, and then the facts know it.
    ///
    /// # Errors
    /// The facts cannot be read: that is no sign that there was no good backup.
    async fn remembered(&self, key: &Key, mut record: Record, now: Moment) -> Result<Record, Fault> {
        if let Key::Backup { host, policy, repository } = key {
            let all = self.work.told(host).await?;
            facts::learn(&mut record, &all[facts::name(policy, repository)], now);
        }
        Ok(record)
    }
}

/// A run that was begun and that nobody carries on any more.
fn judge(record: &mut Record, now: Moment) {
    let Some(begun) = record.begun.take() else { return };
    let why = format!("it was cut off, begun at {}", step::time(begun.at));
    if begun.verb == step::BACK_UP {
        record.doubt(&begun.run);
    }
    record.track(&begun.verb).failed(why, now);
    record.told = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        // As systemd does by default, or fewer where there are no more.
        limit.current = Some(limit.maximum.map_or(1_024, |most| most.min(1_024)));
        setrlimit(Resource::Nofile, limit).unwrap();
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
