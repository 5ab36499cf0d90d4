//! Tags into items.

use serde_json::{Value, json};
use shoal_agent::{Host, TagName};
use shoal_core::Document;

use super::*;

struct Nobody;
impl Look for Nobody {
    fn host(&self, _: &str) -> Option<&Host> {
        None
    }
}

fn host(document: Value) -> Host {
    shoal_core::Host {
        name: "web1.example.com".parse().unwrap(),
        id: serde_json::from_value(json!("h1")).unwrap(),
        state: shoal_core::Lifecycle::Active,
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(document),
        revision: shoal_agent::Revision(1),
    }
}

fn spec(document: Value) -> Spec {
    serde_json::from_value(document).unwrap()
}

fn source<'a>(tag: &'a TagName, spec: &'a Spec, host: Option<&'a Host>) -> Source<'a, Spec> {
    Source { tag, spec, host, facts: &[], revision: shoal_agent::Revision(1) }
}

#[test]
fn a_member_is_one_item_for_each_repository_and_the_tag_feeds_their_upkeep() {
    let (agent, tag) = (Backup::default(), "backup/nightly".parse().unwrap());
    let spec = spec(json!({"paths": ["/etc"], "repositories": ["main", "far"]}));
    let host = host(json!({"box": "box1.example.com"}));
    let keys = agent.keys(&source(&tag, &spec, Some(&host))).unwrap();
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["web1.example.com nightly@far", "web1.example.com nightly@main"]);
    assert!(keys.iter().all(|key| agent.unit(key).0 == "web1.example.com"));
    // An instance for each host asks for this one unit, and for none of all others'.
    assert_eq!(agent.units_of(&host.name), Some(vec![Unit::from("web1.example.com")]));
    let upkeep = agent.keys(&source(&tag, &spec, None)).unwrap();
    assert_eq!(upkeep.iter().map(|key| agent.unit(key).0).collect::<Vec<_>>(), ["@far", "@main"]);
    let desired = agent.desired(&keys[0], &[source(&tag, &spec, Some(&host))], &Nobody).unwrap();
    let Some(Item::Backup(job)) = desired.item else { panic!() };
    assert_eq!(job.on, "box1.example.com");
}

#[test]
fn what_cannot_be_understood_stops_no_backup() {
    let (agent, tag) = (Backup::default(), "backup/nightly".parse().unwrap());
    let host = host(json!({}));
    let bad = [
        json!({"repositories": ["main"]}),
        json!({"repositories": ["main"], "paths": ["../etc"]}),
        json!({"repositories": ["main"], "paths": ["/etc"], "fresh": "soon"}),
        json!({"repositories": ["main"], "paths": ["/etc"], "schedule": {"cron": "at night"}}),
        json!({"repositories": ["main"], "dumps": {"postgres": ["$(reboot)"]}}),
        json!({"repositories": ["main"], "paths": ["/etc"], "excludes": ["a\nb"]}),
        // Held for so short a time that nothing would ever go.
        json!({"repositories": ["main"], "paths": ["/etc"], "purge": {"older_than": "1h", "archived": "0"}}),
        json!({"repositories": ["main"], "paths": ["/etc"], "purge": {"older_than": "1h", "archived": "59m"}}),
    ];
    for document in bad {
        let spec = spec(document.clone());
        let from = [source(&tag, &spec, Some(&host))];
        let keys = agent.keys(&from[0]).unwrap();
        let blocked = agent.desired(&keys[0], &from, &Nobody).unwrap_err();
        assert!(blocked.who[0].contains("web1.example.com"), "{document}: {blocked:?}");
    }
    let path = spec(json!({"repositories": ["../x"], "paths": ["/etc"]}));
    assert!(agent.keys(&source(&tag, &path, Some(&host))).is_err());
}

#[test]
fn what_several_tags_say_of_a_repository_stands_together() {
    let agent = Backup::default();
    let (one, two) = ("backup/etc".parse().unwrap(), "backup/srv".parse().unwrap());
    let etc = spec(
        json!({"repositories": ["main"], "keep": {"daily": 7}, "verify": {"check": "0 5 * * 0", "read": 5}}),
    );
    let srv = spec(json!({"repositories": ["main"], "verify": {"check": "0 6 * * 0", "read": 10}}));
    let from = [source(&one, &etc, None), source(&two, &srv, None)];
    let keys = agent.keys(&from[0]).unwrap();
    let Some(Item::Upkeep(upkeep)) = agent.desired(&keys[0], &from, &Nobody).unwrap().item else { panic!() };
    assert_eq!((upkeep.keep.len(), upkeep.check.len(), upkeep.read), (2, 2, 10));
    // Where no rule is written, all stay, and nothing is ever removed for it.
    assert_eq!(upkeep.prune.len(), 1);
    assert!(upkeep.keep[&"srv".parse().unwrap()].keeps_all());
}

/// What the target does, in memory and at once: a run that is begun is good, and told by the next step.
#[derive(Default)]
struct Runs(std::sync::Mutex<BTreeMap<Key, crate::item::Record>>);

impl shoal_agent::Target<Backup> for Runs {
    async fn observe(
        &self,
        unit: &Unit,
        scope: shoal_agent::Scope<'_, Key>,
    ) -> Result<shoal_agent::Observed<Backup>, shoal_agent::Fault> {
        let all = self.0.lock().unwrap();
        let of = |key: &&Key| Backup::default().unit(key) == *unit;
        let keys = match scope {
            shoal_agent::Scope::Keys(keys) => keys.to_vec(),
            shoal_agent::Scope::All => all.keys().filter(of).cloned().collect(),
        };
        Ok(shoal_agent::Observed::of(keys, |key| match all.get(key) {
            None => shoal_agent::Seen::Nothing,
            Some(record) => shoal_agent::Seen::There(Have { record: record.clone(), running: None }),
        }))
    }

    async fn apply(
        &self,
        _: &Unit,
        batch: &shoal_agent::Batch<Backup>,
        fence: &shoal_agent::Fence,
    ) -> Result<shoal_agent::Applied<Backup>, shoal_agent::Fault> {
        // In which hour something ran. When in it depends on what held it up, and is not what the laws are about.
        let ran = fence.clock.now() / 3_600_000 * 3_600_000;
        let mut all = self.0.lock().unwrap();
        for edit in &batch.changes {
            let Some(item) = &edit.to else {
                all.remove(&edit.key);
                continue;
            };
            // Since when it is known is not what the laws are about.
            let new = || crate::item::Record::new(item.clone(), 0);
            let record = all.entry(edit.key.clone()).or_insert_with(new);
            match edit.verb {
                step::NOTE => record.told = true,
                verb @ (step::BACK_UP | step::TEST | step::PURGE | step::PRUNE | step::CHECK) => {
                    record.track(verb).succeeded(ran, ran);
                    record.told = false;
                }
                _ => record.item = item.clone(),
            }
        }
        let done = |edit: &shoal_agent::Edit<Backup>| (edit.key.clone(), shoal_agent::Outcome::Done);
        Ok(shoal_agent::Applied { each: batch.changes.iter().map(done).collect(), facts: Vec::new() })
    }
}

fn laws() -> shoal_agent::laws::Laws<Backup> {
    let policy = json!({
        "paths": ["/etc", "/var/log"], "repositories": ["main"], "keep": {"daily": 7},
        "purge": {"older_than": "24h"},
    });
    shoal_agent::laws::Laws::new(Backup::default, "backup/nightly", policy)
        .then(json!({"paths": ["/etc"], "repositories": ["main"], "keep": {"last": 1}}))
        .host(|n| json!({"box": format!("box{}", n % 2)}))
        .edited(|n| json!({"backup": {"paths": [format!("/srv/{n}")]}}))
}

#[test]
fn it_keeps_the_laws() -> Result<(), shoal_agent::laws::Broken> {
    laws().check_with(Runs::default)?;
    laws().check_foreign_with(Runs::default, |target, key, have| {
        target.0.lock().unwrap().insert(key.clone(), have.record.clone());
    })
}
