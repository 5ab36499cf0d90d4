//! The effectful half: restic, and what the node knows of its runs.
//!
//! What is *there* of an item is the node's record of it: what it was last told, how the last runs went, and what runs now. A look reads
//! that, never the repository. To take an item out of its tag removes the record and leaves every snapshot where it is.

mod backup;
mod locks;
mod program;
mod proof;
mod records;
mod runs;
mod settings;
mod sources;
mod upkeep;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use shoal_agent::secrets::Secrets;
use shoal_agent::{
    Applied, Base, Batch, Change, DbKey, Document, Edit, Fault, Fence, Moment, Observed, Outcome, Scope,
    Seen, Target, Unit,
};

pub(crate) use backup::{Listed, MARK, list, policy_mark, words};
pub(crate) use program::{Caller, failed};
pub use settings::{Removal, Repository, Settings};

use crate::agent::{Backup, REPOSITORY};
use crate::item::{Have, Key, Last, Record, Track};
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
            return Ok(Outcome::Done);
        };
        match edit.verb {
            verb @ (step::BACK_UP | step::TEST | step::PRUNE | step::CHECK) => {
                let begun = work.begin(key, verb, now)?;
                Ok(Outcome::Running { memo: json!(begun), look_again: now + SOON })
            }
            step::JUDGE => {
                work.change(key, |record| judge(record, now))?;
                Ok(Outcome::Done)
            }
            step::NOTE => {
                facts.extend(self.facts(unit, key)?);
                work.change(key, |record| record.told = true)?;
                Ok(Outcome::Done)
            }
            _ if edit.from.is_some() => {
                work.change(key, |record| record.item.clone_from(item))?;
                Ok(Outcome::Done)
            }
            _ => {
                let record = Record {
                    item: item.clone(),
                    since: now,
                    main: Track::default(),
                    proof: Track::default(),
                    last: None,
                    begun: None,
                    told: true,
                };
                work.records.write(key, Some(&self.remembered(key, record).await))?;
                Ok(Outcome::Done)
            }
        }
    }

    /// What the facts know of an item that this node has no record of: it was another node's.
    async fn remembered(&self, key: &Key, mut record: Record) -> Record {
        let Key::Backup { host, policy, repository } = key else { return record };
        let Ok(Some(fact)) = self.work.base.fact("backup", host.as_str()).await else { return record };
        let own = &fact[format!("{policy}@{repository}")];
        let moment = |field: &str| {
            let at = own[field].as_str()?.parse::<jiff::Timestamp>().ok()?;
            Some(at.as_millisecond())
        };
        record.main.good = moment("good");
        record.proof.good = moment("restored");
        if let (Some(began), Some(snapshot)) = (record.main.good, own["snapshot"].as_str()) {
            let number = |field: &str| own[field].as_u64().unwrap_or(0);
            record.last = Some(Last {
                snapshot: snapshot.to_owned(),
                began,
                took: 0,
                files: number("files"),
                bytes: number("bytes"),
                added: number("added"),
                sizes: serde_json::from_value(own["sizes"].clone()).unwrap_or_default(),
            });
        }
        record
    }

    /// The facts of a host: all of its items together, as they stand on this node. A repository has none.
    fn facts(&self, unit: &Unit, key: &Key) -> Result<Option<Change>, Fault> {
        let Key::Backup { host, .. } = key else { return Ok(None) };
        let what = format!("write down the facts of {host}");
        let mut all = Map::new();
        for key in self.work.records.keys(unit)? {
            let Key::Backup { policy, repository, .. } = &key else { continue };
            let record = self.work.records.read(&key).map_err(|why| Fault::new(&what, why))?;
            if let Some(record) = record {
                all.insert(format!("{policy}@{repository}"), fact(&record));
            }
        }
        let subject: DbKey = format!("facts/backup/{host}").parse().map_err(|e| Fault::new(&what, e))?;
        Ok(Some(Change::put(subject, Document::from(Value::Object(all)))))
    }
}

/// A run that was begun and that nobody carries on any more.
fn judge(record: &mut Record, now: Moment) {
    let Some(begun) = record.begun.take() else { return };
    let proof = [step::TEST, step::CHECK].contains(&begun.verb.as_str());
    let track = if proof { &mut record.proof } else { &mut record.main };
    track.failed(format!("it was cut off, begun at {}", step::time(begun.at)), now);
    record.told = false;
}

fn fact(record: &Record) -> Value {
    let time = |at: Moment| jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_string();
    let mut fact = Map::new();
    if let Some(good) = record.main.good {
        fact.insert("good".to_owned(), json!(time(good)));
    }
    if let Some(last) = &record.last {
        for (name, value) in [
            ("snapshot", json!(last.snapshot)),
            ("files", json!(last.files)),
            ("bytes", json!(last.bytes)),
            ("added", json!(last.added)),
            ("seconds", json!(last.took / 1_000)),
            ("sizes", json!(last.sizes)),
        ] {
            fact.insert(name.to_owned(), value);
        }
    }
    fact.insert("restored".to_owned(), record.proof.good.map_or(json!("never"), |at| json!(time(at))));
    for (name, track) in [("failed", &record.main), ("restore_failed", &record.proof)] {
        if track.failures > 0 {
            let value = json!({"times": track.failures, "at": track.ended.map(time), "why": track.why});
            fact.insert(name.to_owned(), value);
        }
    }
    Value::Object(fact)
}
