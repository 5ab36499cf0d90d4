//! On a real store: instances that choose at the same time never give out more than a box has.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![cfg(feature = "agent")]

mod database;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use database::{a_box, choose, chosen, host, how, open, put, settled};
use serde_json::{Value, json};
use shoal_agent::Fault;
use shoal_agent::chooser::{Choice, Chooser, Measured, World, pass};
use shoal_core::{Document, Edit, Expect, Key, Lifecycle, Pause, Schema};
use shoal_placement::agent::Placement;
use shoal_store::Database;

const BOXES: usize = 10;
const MACHINES: usize = 120;
const WAVES: usize = 4;

/// How many have made their first choice.
#[derive(Default)]
struct Both(Mutex<usize>, Condvar);

impl Both {
    fn wait(&self) {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        self.1.notify_all();
        let (count, waited) =
            self.1.wait_timeout_while(count, Duration::from_secs(60), |count| *count < 2).unwrap();
        drop(count);
        assert!(!waited.timed_out(), "the other one never chose");
    }
}

/// Chooses as placement does, but its first choice is made before the other instance's first one is committed: each waits for the other.
struct Abreast {
    placement: Placement,
    both: Arc<Both>,
    met: AtomicBool,
}

impl Chooser for Abreast {
    fn namespace(&self) -> &'static str {
        self.placement.namespace()
    }

    fn schema(&self) -> Schema {
        self.placement.schema()
    }

    fn decide(&self, world: &World<'_>) -> Result<Choice, Fault> {
        let choice = self.placement.decide(world)?;
        if !choice.edits.is_empty() && !self.met.swap(true, Ordering::SeqCst) {
            tokio::task::block_in_place(|| self.both.wait());
        }
        Ok(choice)
    }
}

/// Passes until all have come and nothing is left that finds room; says how often it was overtaken.
async fn until_done(path: &Path, instance: u64, both: Arc<Both>) -> u32 {
    let database = open(path).await;
    let chooser = Abreast { placement: Placement::default(), both, met: AtomicBool::new(false) };
    let mut overtaken = 0;
    loop {
        let passed = pass(&database, &chooser, &how(instance)).await.unwrap();
        assert_eq!(passed.choice.quarantined, vec![]);
        overtaken += passed.overtaken;
        let view = database.view();
        let come = view.hosts().filter(|host| host.field("size").is_some()).count();
        let waiting = view.hosts().filter(|host| host.state == Lifecycle::Requested).count();
        if come == MACHINES && !passed.choice.more && passed.choice.behind.len() == waiting {
            return overtaken;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn needs(n: usize) -> (u64, u64) {
    (1 + n as u64 % 4, 2 + (n as u64 * 7) % 9)
}

/// What each box holds by the facts about machines; checks that the boxes' own facts say the same and that nothing is overfull.
fn check(database: &Database) -> (usize, BTreeMap<String, BTreeSet<String>>) {
    let view = database.view();
    let (mut placed, mut groups) = (0, BTreeMap::<String, BTreeSet<String>>::new());
    let mut holds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for host in view.hosts().filter(|host| host.state == Lifecycle::Placed) {
        let [fact] = view.facts(host.name.as_str()) else { panic!("{} has no fact", host.name) };
        let room = fact.document.text("box").unwrap().into_owned();
        assert!(fact.document.field("not").is_some() && fact.document.field("over").is_some());
        let group = host.field("placement").unwrap()["group"].as_str().unwrap().to_owned();
        assert!(groups.entry(group.clone()).or_default().insert(room.clone()), "two of {group} on {room}");
        holds.entry(room).or_default().insert(host.name.to_string());
        placed += 1;
    }
    for n in 0..BOXES {
        let name = format!("box{n}.example.com");
        let promised = view.facts(&name).first().map(|fact| fact.document.value()["holds"].clone());
        let promised = promised.unwrap_or_else(|| json!({}));
        let names: BTreeSet<String> = promised.as_object().unwrap().keys().cloned().collect();
        assert_eq!(Some(&names).filter(|names| !names.is_empty()), holds.get(&name), "{name}");
        for (kind, most) in [("cpu", 30), ("memory", 64)] {
            let sum: u64 =
                promised.as_object().unwrap().values().map(|needs| needs[kind].as_u64().unwrap()).sum();
            assert!(sum <= most, "{name} has given out {sum} {kind} of {most}");
        }
    }
    (placed, groups)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn instances_at_once_never_overfill_a_box() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shoal.db");
    let database = open(&path).await;
    let capacity =
        json!({"box": {"capacity": {"cpu": 15, "memory": 64}, "overcommit": {"cpu": 200}}, "site": "a"});
    put(
        &database,
        (0..BOXES).map(|n| host(&format!("box{n}.example.com"), Lifecycle::Active, &capacity)).collect(),
    )
    .await;
    let machine = |n: usize| {
        let (cpu, memory) = needs(n);
        let group = format!("vm/g{}", n % 16);
        let rules = json!({"group": group, "apart": [{"tag": group, "level": "box"}]});
        let document =
            json!({"size": {"cpu": cpu, "memory": memory}, "image": "debian-12", "placement": rules});
        host(&format!("m{n}.example.com"), Lifecycle::Requested, &document)
    };
    let both = Arc::new(Both::default());
    let instances = [0, 1].map(|instance| {
        let (path, both) = (path.clone(), both.clone());
        tokio::spawn(async move { until_done(&path, instance, both).await })
    });
    // Requests go on coming while two instances choose.
    for wave in 0..WAVES {
        put(&database, (wave * MACHINES / WAVES..(wave + 1) * MACHINES / WAVES).map(machine).collect()).await;
    }
    let mut overtaken = 0;
    for instance in instances {
        overtaken += tokio::time::timeout(Duration::from_secs(120), instance).await.unwrap().unwrap();
    }
    // Of two that chose before either committed, one was too late; what it chose rested on what was true no more.
    assert!(overtaken > 0, "neither was ever overtaken");
    let database = open(&path).await;
    let (placed, _) = check(&database);
    let view = database.view();
    let waiting: Vec<_> = view.hosts().filter(|host| host.state == Lifecycle::Requested).collect();
    assert_eq!(placed + waiting.len(), MACHINES);
    // More was asked for than there is: boxes are nearly full, and whoever waits is told why.
    assert!(placed > MACHINES / 2, "{placed}");
    assert!(!waiting.is_empty());
    for host in waiting {
        let [fact] = view.facts(host.name.as_str()) else { panic!("{} is not told why", host.name) };
        let told = fact.document.value();
        let counts = told["no_room"].as_object().unwrap();
        assert_eq!(counts.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), BOXES as u64, "{told}");
    }
}

#[tokio::test]
async fn who_cannot_be_understood_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let capacity = json!({"box": {"capacity": {"cpu": 4}}});
    let edits = vec![
        host("box.example.com", Lifecycle::Active, &capacity),
        host("odd.example.com", Lifecycle::Active, &json!({"box": {"capacity": "much"}})),
        host("none.example.com", Lifecycle::Requested, &json!({"image": "debian-12"})),
        host("huge.example.com", Lifecycle::Requested, &json!({"size": {"cpu": u64::MAX}})),
        host("one.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 1}})),
    ];
    put(&database, edits).await;
    let passed = pass(&database, &Placement::default(), &how(0)).await.unwrap();
    assert_eq!(chosen(&passed.choice), ["place one.example.com on box.example.com"]);
    let named: BTreeSet<&str> = passed.choice.quarantined.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(named, ["huge.example.com", "none.example.com", "odd.example.com"].into());
    let odd = passed.choice.quarantined.iter().find(|one| one.what == "odd.example.com").unwrap();
    assert!(odd.why.starts_with("its `box.capacity` is \"much\", and not how much of each resource"));
    assert!(odd.why.ends_with("; nothing new is placed there"), "{}", odd.why);
    // Nothing is left to do: a second pass writes nothing.
    let before = database.store().head().await.unwrap().revision;
    pass(&database, &Placement::default(), &how(0)).await.unwrap();
    assert_eq!(database.store().head().await.unwrap().revision, before);
}

#[tokio::test]
async fn text_says_on_which_box_a_host_is_and_makes_no_room_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let on = |more: Value| {
        let mut document = json!({"box": "box.example.com", "site": "ams", "cpus": 4});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    };
    let tag = Edit::PutTag {
        tag: "monitoring/base".parse().unwrap(),
        owner: None,
        environment: None,
        expires: None,
        document: Document::of(&json!({"box": "box.example.com"})).unwrap(),
        members: None,
        expect: Expect::Any,
    };
    let edits = vec![
        tag,
        a_box(4),
        host("web.example.com", Lifecycle::Active, &on(json!({}))),
        host("old.example.com", Lifecycle::Draining, &on(json!({}))),
        host("nowhere.example.com", Lifecycle::Active, &json!({"box": "a box that is no host"})),
        host("new.example.com", Lifecycle::Requested, &on(json!({"size": {"cpu": 3}}))),
        host("next.example.com", Lifecycle::Requested, &on(json!({"size": {"cpu": 3}}))),
    ];
    put(&database, edits).await;
    let choice = choose(&database).await;
    assert_eq!((chosen(&choice).len(), choice.quarantined.len()), (1, 0), "{:?}", choice.quarantined);
    assert_eq!(choice.chosen[0].with, "on box.example.com");
    // The one room is all that there is to choose from.
    assert_eq!(choice.behind.len(), 1);
    let view = database.view();
    let placed = choice.chosen[0].host.as_str();
    let waits = choice.behind[0].key.as_str();
    let fact = view.facts(waits)[0].document.value();
    assert_eq!(fact["no_room"], json!({"too little cpu": 1}));
    assert!(view.facts("web.example.com").is_empty());
    // Who has given something out is a room whatever it says by now: what it holds counts, and it takes nothing new.
    let slip = host("box.example.com", Lifecycle::Active, &json!({"box": "another.example.com"}));
    put(&database, vec![slip, settled(waits, Lifecycle::Retired)]).await;
    put(&database, vec![host("last.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 1}}))]).await;
    let closed = choose(&database).await;
    assert_eq!((chosen(&closed), closed.quarantined.len()), (Vec::new(), 1), "{:?}", closed.quarantined);
    assert_eq!(closed.quarantined[0].what, "box.example.com");
    let why = &closed.quarantined[0].why;
    assert!(
        why.starts_with("its `box` says that it is on \"another.example.com\", and it has given"),
        "{why}"
    );
    // Once that is given back it is none.
    put(&database, vec![settled(placed, Lifecycle::Retired)]).await;
    assert_eq!(chosen(&choose(&database).await), [format!("forget {placed} on box.example.com")]);
    assert!(choose(&database).await.quarantined.is_empty());
}

#[tokio::test]
async fn what_was_promised_counts_until_the_machine_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = json!({"size": {"cpu": 3}});
    let edits = vec![a_box(4), host("a.example.com", Lifecycle::Requested, &machine)];
    put(&database, edits).await;
    assert_eq!(chosen(&choose(&database).await), ["place a.example.com on box.example.com"]);
    // Failed, renamed, or deleted: it may live, and keeps what it has.
    let rename = Edit::Rename {
        from: Key::host(&"a.example.com".parse().unwrap()),
        to: Key::host(&"b.example.com".parse().unwrap()),
        expect: Expect::Any,
    };
    put(&database, vec![settled("a.example.com", Lifecycle::Failed), rename]).await;
    put(&database, vec![host("c.example.com", Lifecycle::Requested, &machine)]).await;
    let waits = choose(&database).await;
    assert_eq!(chosen(&waits), Vec::<String>::new());
    assert_eq!(waits.behind[0].why, "waiting: no room for c.example.com: 1 box or zone: too little cpu");
    // Its state says that it is gone, under whatever name: then it is given back, and used.
    put(&database, vec![settled("b.example.com", Lifecycle::Retired)]).await;
    let both = ["forget b.example.com on box.example.com", "place c.example.com on box.example.com"];
    assert_eq!(chosen(&choose(&database).await), both);
    let fact = database.view().facts("box.example.com")[0].document.value();
    assert_eq!(fact["holds"], json!({"c.example.com": {"cpu": 3}}));
    // One that is deleted keeps it, too.
    let delete = Edit::Delete {
        key: Key::host(&"c.example.com".parse().unwrap()),
        follow: false,
        expect: Expect::Any,
    };
    put(&database, vec![delete, host("d.example.com", Lifecycle::Requested, &machine)]).await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new());
}

#[tokio::test]
async fn what_stood_before_counts_and_what_cannot_be_read_is_not_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let there = json!({"size": {"cpu": 3}, "placement": {"on": "box.example.com"}});
    let edits = vec![
        a_box(4),
        host("old.example.com", Lifecycle::Active, &there),
        host("new.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 2}})),
    ];
    put(&database, edits).await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new());
    // More room, and a fact that nobody understands: nothing is chosen before that is mended.
    let wider = a_box(8);
    let fact = Key::fact(&"placement".parse().unwrap(), "box.example.com").unwrap();
    let write = |value: &Value| Edit::Write {
        key: fact.clone(),
        value: Document::of(value).unwrap(),
        expect: Expect::Any,
    };
    put(&database, vec![wider, write(&json!({"holds": "much"}))]).await;
    let blind = choose(&database).await;
    assert_eq!(chosen(&blind), Vec::<String>::new());
    assert!(
        blind.behind[0].why.starts_with("held: what box.example.com has given out"),
        "{:?}",
        blind.behind
    );
    put(&database, vec![write(&json!({"holds": {}}))]).await;
    assert_eq!(chosen(&choose(&database).await), ["place new.example.com on box.example.com"]);
}

#[tokio::test]
async fn a_person_holds_it_by_a_pause_and_after_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = json!({"size": {"cpu": 1}});
    let edits = vec![
        a_box(8),
        host("a.example.com", Lifecycle::Requested, &machine),
        host("b.example.com", Lifecycle::Requested, &machine),
    ];
    put(&database, edits).await;
    let key: Key = "pauses/host/a.example.com".parse().unwrap();
    let value = Document::of(&Pause { why: "not yet".to_owned() }).unwrap();
    put(&database, vec![Edit::Write { key: key.clone(), value, expect: Expect::Any }]).await;
    let choice = choose(&database).await;
    assert_eq!(chosen(&choice), ["place b.example.com on box.example.com"]);
    assert_eq!(
        (choice.held, choice.behind[0].why.as_str()),
        (1, "held: paused: host/a.example.com: not yet")
    );
    put(&database, vec![Edit::Delete { key, follow: false, expect: Expect::Any }]).await;
    // The same rows in another life of the database: the backup may not know of what was placed since.
    let view = database.view();
    let other = shoal_core::Epoch(database.epoch().0 ^ 1);
    let measured = Measured::new();
    let world = World {
        view: &view,
        epoch: other,
        now: "2026-07-01T10:00:00Z".parse().unwrap(),
        measured: &measured,
        instance: 0,
        most: 7,
        only: None,
        refused: None,
    };
    let held = Placement::default().decide(&world).unwrap();
    assert_eq!((chosen(&held), held.edits.len()), (Vec::new(), 0));
    let hold = held.hold.unwrap();
    assert_eq!(hold.digest, format!("{:016x}", other.0));
    let approval = Key::approval(&"placement".parse().unwrap(), None).unwrap();
    let value = Document::of(&json!({"digest": hold.digest})).unwrap();
    put(&database, vec![Edit::Write { key: approval, value, expect: Expect::Any }]).await;
    let view = database.view();
    let agreed = Placement::default().decide(&World { view: &view, ..world }).unwrap();
    assert_eq!(chosen(&agreed), ["place a.example.com on box.example.com"]);
}

#[tokio::test]
async fn many_are_committed_piece_by_piece_and_whoever_has_no_room_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let mut edits = vec![a_box(10)];
    for n in 0..20 {
        let cpu = if n < 10 { 99 } else { 1 };
        edits.push(host(
            &format!("m{n:02}.example.com"),
            Lifecycle::Requested,
            &json!({"size": {"cpu": cpu}}),
        ));
    }
    put(&database, edits).await;
    let mut passes = 0;
    loop {
        passes += 1;
        assert!(passes < 20, "it goes round and round");
        let choice = choose(&database).await;
        assert!(choice.chosen.len() <= 7);
        if !choice.more {
            break;
        }
    }
    let view = database.view();
    let placed = view.hosts().filter(|host| host.state == Lifecycle::Placed).count();
    assert_eq!(placed, 10);
    let told = (0..10).filter(|n| !view.facts(&format!("m{n:02}.example.com")).is_empty()).count();
    assert_eq!(told, 10);
}
