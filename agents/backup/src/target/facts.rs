//! What stands in the database of a host's backups: written after each run, and read where this node does not know better.
//!
//! A host's backups may be made by one node today and by another tomorrow. So before anything is written the facts that stand there are
//! learnt from: what is newer there counts, and what is held there stays held. Where they cannot be read nothing is written. What they say
//! was good in time to come counts for nothing: some clock was wrong, and what is made now would be forgotten for it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shoal_agent::{Change, DbKey, Document, Fault, HostName, Moment, Unit};

use super::runs::Work;
use crate::item::{Item, Key, Last, Record, Size};
use crate::name::Label;
use crate::step::known;

/// What the facts call an item of a host.
pub(crate) fn name(policy: &Label, repository: &Label) -> String {
    format!("{policy}@{repository}")
}

fn time(at: Moment) -> String {
    jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_string()
}

fn moment(value: &Value) -> Option<Moment> {
    Some(value.as_str()?.parse::<jiff::Timestamp>().ok()?.as_millisecond())
}

/// The snapshots that are held, as a fact has them.
pub(crate) fn held(fact: &Value) -> BTreeMap<String, Moment> {
    let all = fact["held"].as_object().into_iter().flatten();
    // Of one whose time is no time, the time is now: held is held.
    all.map(|(id, at)| (id.clone(), moment(at).unwrap_or(Moment::MAX / 2))).collect()
}

/// The runs that are not known to be good, as a fact has them.
pub(crate) fn unsure(fact: &Value) -> Vec<String> {
    let all = fact["unsure"].as_array().into_iter().flatten();
    all.filter_map(|run| run.as_str().map(str::to_owned)).collect()
}

/// Takes over what the facts of an item have and this node does not.
pub(crate) fn learn(record: &mut Record, fact: &Value, now: Moment) {
    for (id, at) in held(fact) {
        let here = record.held.entry(id).or_insert(at);
        *here = at.max(*here);
    }
    let here = std::mem::take(&mut record.unsure);
    let there = unsure(fact);
    there.iter().chain(&here).for_each(|run| record.doubt(run));
    record.proof.good = record.proof.good.max(known(moment(&fact["restored"]), now));
    let good = known(moment(&fact["good"]), now);
    let (Some(began), Some(snapshot)) = (good, fact["snapshot"].as_str()) else { return };
    if let Some(last) = record.last.as_mut().filter(|last| last.snapshot == snapshot) {
        // Another node may have purged what it has.
        let purged: Size = serde_json::from_value(fact["purged"].clone()).unwrap_or_default();
        if purged.files > last.purged.files {
            last.purged = purged;
            last.sizes = serde_json::from_value(fact["sizes"].clone()).unwrap_or_default();
        }
        return;
    }
    if known(record.main.good, now).is_some_and(|good| good >= began) {
        return;
    }
    let number = |field: &str| fact[field].as_u64().unwrap_or(0);
    record.main.good = Some(began);
    record.last = Some(Last {
        snapshot: snapshot.to_owned(),
        began,
        took: i64::try_from(number("seconds")).unwrap_or(0).saturating_mul(1_000),
        files: number("files"),
        bytes: number("bytes"),
        added: number("added"),
        sizes: serde_json::from_value(fact["sizes"].clone()).unwrap_or_default(),
        purged: serde_json::from_value(fact["purged"].clone()).unwrap_or_default(),
    });
}

impl Work {
    /// The facts of a host, all of its items; `Null`: there are none.
    pub(crate) async fn told(&self, host: &HostName) -> Result<Value, Fault> {
        Ok(self.base.fact("backup", host.as_str()).await?.unwrap_or_default())
    }

    /// The facts of a host as they are to be: its items together, as they stand on this node. A repository has none.
    ///
    /// # Errors
    /// What stands there, or what is kept here, cannot be read.
    pub(crate) async fn facts(&self, unit: &Unit, key: &Key, now: Moment) -> Result<Option<Change>, Fault> {
        let Key::Backup { host, .. } = key else { return Ok(None) };
        let what = format!("write down the facts of {host}");
        let before = self.told(host).await?;
        let mut all = Map::new();
        for key in self.records.keys(unit)? {
            let Key::Backup { policy, repository, .. } = &key else { continue };
            let name = name(policy, repository);
            if self.records.read(&key).map_err(|why| Fault::new(&what, why))?.is_none() {
                continue;
            }
            let mut fact = Value::Null;
            self.change(&key, |record| {
                learn(record, &before[&name], now);
                release(record, now);
                fact = of(record);
            })?;
            all.insert(name, fact);
        }
        // Of a policy that the host left for now, what is held stays so.
        for (name, fact) in before.as_object().into_iter().flatten() {
            if !all.contains_key(name) && !held(fact).is_empty() {
                all.insert(name.clone(), fact.clone());
            }
        }
        let subject: DbKey = format!("facts/backup/{host}").parse().map_err(|e| Fault::new(&what, e))?;
        Ok(Some(Change::put(subject, Document::from(Value::Object(all)))))
    }
}

/// Lets go of what was held for as long as the policy says.
fn release(record: &mut Record, now: Moment) {
    let Item::Backup(job) = &record.item else { return };
    let Some(span) = job.purge.as_ref().and_then(|purge| purge.archived) else { return };
    record.held.retain(|_, at| now.saturating_sub(*at) < span);
}

fn of(record: &Record) -> Value {
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
        if !last.purged.is_none() {
            fact.insert("purged".to_owned(), json!(last.purged));
        }
    }
    fact.insert("restored".to_owned(), record.proof.good.map_or(json!("never"), |at| json!(time(at))));
    if !record.held.is_empty() {
        let held: Map<String, Value> =
            record.held.iter().map(|(id, at)| (id.clone(), json!(time(*at)))).collect();
        fact.insert("held".to_owned(), Value::Object(held));
    }
    if !record.unsure.is_empty() {
        fact.insert("unsure".to_owned(), json!(record.unsure));
    }
    let tracks =
        [("failed", &record.main), ("restore_failed", &record.proof), ("purge_failed", &record.purge)];
    for (name, track) in tracks {
        if track.failures > 0 {
            let value = json!({"times": track.failures, "at": track.ended.map(time), "why": track.why});
            fact.insert(name.to_owned(), value);
        }
    }
    Value::Object(fact)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Upkeep;

    const NOW: Moment = 1_000_000;

    fn record() -> Record {
        let none = Upkeep { keep: BTreeMap::new(), prune: [].into(), check: [].into(), read: 0 };
        Record::new(Item::Upkeep(std::sync::Arc::new(none)), 0)
    }

    #[test]
    fn what_is_newer_elsewhere_counts_and_what_is_held_stays_so() {
        let mut there = record();
        there.main.good = Some(5_000);
        there.held.insert("old".to_owned(), 1_000);
        there.last = Some(Last {
            snapshot: "new".to_owned(),
            began: 5_000,
            took: 2_000,
            files: 1,
            bytes: 2,
            added: 3,
            sizes: BTreeMap::new(),
            purged: Size { bytes: 1, files: 0 },
        });
        let fact = of(&there);
        let mut here = record();
        here.main.good = Some(4_000);
        here.held.insert("mine".to_owned(), 2_000);
        learn(&mut here, &fact, NOW);
        assert_eq!((here.main.good, here.last.clone()), (Some(5_000), there.last.clone()));
        assert_eq!(here.held.len(), 2);
        // Of the same snapshot more was purged there since.
        let path: crate::name::AbsPath = "/var/log".parse().unwrap();
        if let Some(last) = &mut there.last {
            last.purged = Size { bytes: 2, files: 1 };
            last.sizes.insert(path, Size::default());
        }
        learn(&mut here, &of(&there), NOW);
        assert_eq!(here.last, there.last);
        learn(&mut here, &fact, NOW);
        assert_eq!(here.last, there.last, "and not less");
        here.main.good = Some(6_000);
        here.last = None;
        learn(&mut here, &fact, NOW);
        assert_eq!((here.main.good, here.last), (Some(6_000), None));
    }

    /// One backup while the clock was a month ahead; then the clock is right, and one more is made.
    #[test]
    fn what_is_said_to_be_good_in_time_to_come_is_not_learnt() {
        let last = |snapshot: &str, began| Last {
            snapshot: snapshot.to_owned(),
            began,
            took: 0,
            files: 1,
            bytes: 2,
            added: 3,
            sizes: BTreeMap::new(),
            purged: Size::default(),
        };
        let ahead = NOW + 30 * 86_400_000;
        let mut there = record();
        (there.main.good, there.proof.good, there.last) =
            (Some(ahead), Some(ahead), Some(last("ahead", ahead)));
        let mut here = there.clone();
        here.main.succeeded(NOW, NOW);
        here.proof.succeeded(NOW, NOW);
        here.last = Some(last("now", NOW));
        let made = here.clone();
        learn(&mut here, &of(&there), NOW + 1);
        assert_eq!(here, made, "what was just made stands");
        // Who has none of its own waits for none in time to come either.
        let mut other = record();
        learn(&mut other, &of(&there), NOW + 1);
        assert_eq!((other.main.good, other.proof.good, other.last), (None, None, None));
        // And another node's that is good now counts more.
        learn(&mut there, &of(&made), NOW + 1);
        assert_eq!((there.main.good, there.last), (Some(NOW), made.last));
    }
}
