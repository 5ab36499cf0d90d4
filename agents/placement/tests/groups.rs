//! Groups on a real store: a whole small story, and many instances that decide at once and are killed in the midst of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![cfg(feature = "agent")]

mod database;
mod instances;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use database::{deleted, host, how, open, put, settled};
use instances::Chance;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use shoal_agent::chooser::{Choice, Chooser as _, How, Measured, World, pass};
use shoal_core::{Commit, Committed, Document, Edit, Expect, Key, Lifecycle};
use shoal_machine::Life;
use shoal_placement::agent::Placement;
use shoal_store::{Database, Fut, MemoryStore, Result as Stored, Store};

fn tag(name: &str, document: &Value) -> Edit {
    Edit::PutTag {
        tag: name.parse().unwrap(),
        owner: Some("data team".to_owned()),
        environment: None,
        expires: None,
        document: Document::of(document).unwrap(),
        members: None,
        expect: Expect::Any,
    }
}

fn start() -> Timestamp {
    "2026-07-01T10:00:00Z".parse().unwrap()
}

/// A group in two sites with a box each.
fn kafka(count: u32) -> Vec<Edit> {
    let room = |site: &str| json!({"site": site, "box": {"capacity": {"cpu": 400}}});
    vec![
        host("box-a.example.com", Lifecycle::Active, &room("a")),
        host("box-c.example.com", Lifecycle::Active, &room("c")),
        tag("dns/example.com", &json!({})),
        tag("ranges/brokers", &json!({"ids": {"first": 1001, "last": 1200}})),
        tag("ranges/lan", &json!({"addresses": {"net": "10.0.0.0/24", "first": 10}})),
        tag(
            "vm/kafka",
            &json!({"group": {
                "count": count,
                "size": {"cpu": 4},
                "layout": {"sites": {"a": 1, "c": 2}},
                "tags": ["dns/example.com"],
                "slots": {
                    "name": "kafka-{slot}.example.com",
                    "ids": {"broker_id": "brokers"},
                    "addresses": {"address": {"ranges": {"*": {"range": "lan"}}}},
                },
                "budget": {"at_once": 2},
                "replace": {"after": "1m"},
            }}),
        ),
    ]
}

async fn change(database: &Database, patch: Value) {
    let patch = json!({"document": {"group": patch}});
    put(database, vec![Edit::Patch { key: "vm/kafka".parse().unwrap(), patch, expect: Expect::Any }]).await;
}

/// Passes until nothing is left to do. Says what was done, in short.
async fn decided(database: &Database, at: Timestamp) -> (Vec<String>, Choice) {
    let mut all = Vec::new();
    for _ in 0..50 {
        let choice =
            pass(database, &Placement::default(), &How { at: Some(at), ..how(0) }).await.unwrap().choice;
        let name = |host: &str| host.trim_end_matches(".example.com").to_owned();
        all.extend(choice.chosen.iter().map(|one| format!("{} {}", one.verb, name(&one.host))));
        if choice.edits.is_empty() {
            return (all, choice);
        }
    }
    panic!("it goes round and round: {all:?}");
}

/// What whoever makes machines does: what is placed is active, and what is to be destroyed is gone.
async fn made(database: &Database) -> bool {
    let next = |host: &shoal_core::Host| match host.state {
        Lifecycle::Placed => Some(Lifecycle::Active),
        Lifecycle::Draining if Life::of(host).unwrap().wish.is_some() => Some(Lifecycle::Retired),
        _ => None,
    };
    let view = database.view();
    let edits: Vec<Edit> =
        view.hosts().filter_map(|host| Some(settled(host.name.as_str(), next(host)?))).collect();
    if edits.is_empty() {
        return false;
    }
    put(database, edits).await;
    true
}

async fn settle(database: &Database, at: Timestamp) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..50 {
        let (done, _) = decided(database, at).await;
        let more = made(database).await;
        if done.is_empty() && !more {
            return all;
        }
        all.extend(done);
    }
    panic!("it goes round and round: {all:?}");
}

fn states(database: &Database) -> BTreeMap<String, Lifecycle> {
    let view = database.view();
    let members = view.hosts().filter(|host| host.name.as_str().starts_with("kafka-"));
    members.map(|host| (host.name.to_string(), host.state)).collect()
}

fn alive(database: &Database) -> usize {
    states(database).values().filter(|state| **state != Lifecycle::Retired).count()
}

fn has(database: &Database, host: &str) -> (Value, Value, Value) {
    let view = database.view();
    let host = view.host(host).unwrap();
    let site = host.field("placement").unwrap()["layout"].clone();
    (host.field("broker_id").unwrap(), host.field("address").unwrap(), site)
}

/// What each box has promised, by machine.
fn promised(database: &Database) -> BTreeSet<String> {
    let view = database.view();
    let holds = |name: &str| view.facts(name).first().and_then(|fact| fact.document.field("holds"));
    let holds = ["box-a.example.com", "box-c.example.com"].map(|name| holds(name).unwrap_or_default());
    holds.iter().filter_map(Value::as_object).flat_map(|all| all.keys().cloned()).collect()
}

#[tokio::test]
async fn a_group_is_made_shrinks_grows_and_replaces_who_fails() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let mut now = start();
    put(&database, kafka(5)).await;
    let (done, _) = decided(&database, now).await;
    let count = |verb: &str, done: &[String]| done.iter().filter(|one| one.starts_with(verb)).count();
    assert_eq!((count("make ", &done), count("place ", &done)), (5, 5), "{done:?}");
    settle(&database, now).await;
    assert_eq!(alive(&database), 5);
    let view = database.view();
    assert_eq!(view.members(&"dns/example.com".parse().unwrap()).len(), 5);
    assert_eq!(view.host("kafka-0.example.com").unwrap().owner.as_deref(), Some("data team"));
    assert_eq!(promised(&database).len(), 5);
    // Where the group wants them, there they are.
    for name in states(&database).keys() {
        let room = view.facts(name)[0].document.text("box").unwrap().into_owned();
        let site = has(&database, name).2["sites"].as_object().unwrap().keys().next().unwrap().clone();
        assert_eq!(room, format!("box-{site}.example.com"), "{name}");
    }
    // To two and back: two drain at a time, and what they had is given back and given out again.
    change(&database, json!({"count": 2})).await;
    let (done, choice) = decided(&database, now).await;
    assert_eq!(count("drain ", &done), 2, "{done:?}");
    assert!(choice.behind.iter().any(|one| one.why.contains("it leaves, and drains")), "{:?}", choice.behind);
    let done = settle(&database, now).await;
    assert_eq!(
        (count("drain ", &done), count("release ", &done), count("forget ", &done)),
        (1, 3, 3),
        "{done:?}"
    );
    assert_eq!((alive(&database), promised(&database).len()), (2, 2));
    assert_eq!(database.view().members(&"vm/kafka".parse().unwrap()).len(), 2);
    now += SignedDuration::from_secs(10);
    change(&database, json!({"count": 5})).await;
    settle(&database, now).await;
    assert_eq!((alive(&database), promised(&database).len()), (5, 5));
    // One fails. Its successor has the same number, address and site.
    let before = has(&database, "kafka-1.example.com");
    put(&database, vec![settled("kafka-1.example.com", Lifecycle::Failed)]).await;
    assert_eq!(decided(&database, now).await.0, Vec::<String>::new());
    now += SignedDuration::from_secs(60);
    assert_eq!(decided(&database, now).await.0, ["drain kafka-1"]);
    assert_eq!(decided(&database, now).await.0, Vec::<String>::new(), "it may live");
    assert!(made(&database).await);
    assert_eq!(decided(&database, now).await.0, ["forget kafka-1", "remake kafka-1", "place kafka-1"]);
    settle(&database, now).await;
    assert_eq!((alive(&database), has(&database, "kafka-1.example.com")), (5, before));
}

#[tokio::test]
async fn a_person_holds_groups_by_a_pause_and_after_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, kafka(2)).await;
    settle(&database, start()).await;
    change(&database, json!({"count": 3})).await;
    let view = database.view();
    let measured = Measured::new();
    let world = |epoch| World {
        view: &view,
        epoch,
        now: start(),
        measured: &measured,
        instance: 0,
        most: 7,
        only: None,
        refused: None,
    };
    let held = Placement::default().decide(&world(shoal_core::Epoch(database.epoch().0 ^ 1))).unwrap();
    assert!(held.edits.is_empty() && held.hold.is_some());
    assert_eq!(held.behind[0].key, "kafka-2.example.com");
    assert!(held.behind[0].why.starts_with("held: the database was restored"), "{:?}", held.behind);
    // Who asks for one host alone has nothing done for groups.
    let name = "kafka-0.example.com".parse().unwrap();
    let one = World { only: Some(&name), ..world(database.epoch()) };
    assert!(Placement::default().decide(&one).unwrap().edits.is_empty());
    let planned = Placement::default().decide(&world(database.epoch())).unwrap();
    assert!(
        planned.notes[0].starts_with("vm/kafka: 3 wanted (its document says so), 2 there"),
        "{:?}",
        planned.notes
    );
    let key: Key = "pauses/agent/placement".parse().unwrap();
    let value = Document::of(&json!({"why": "a move"})).unwrap();
    put(&database, vec![Edit::Write { key, value, expect: Expect::Any }]).await;
    let (done, choice) = decided(&database, start()).await;
    assert_eq!((done, choice.held), (Vec::new(), 1));
}

#[tokio::test]
async fn a_metric_moves_a_group_when_somebody_measured() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, kafka(2)).await;
    change(&database, json!({"min": 1, "max": 9, "metric": {"query": "avg(cpu)", "target": 50.0}})).await;
    settle(&database, start()).await;
    let view = database.view();
    let decide = |measured: &Measured| {
        let now = start() + SignedDuration::from_secs(600);
        let epoch = database.epoch();
        let world =
            World { view: &view, epoch, now, measured, instance: 0, most: 7, only: None, refused: None };
        Placement::default().decide(&world).unwrap()
    };
    let calm = decide(&Measured::new());
    assert!(calm.chosen.is_empty() && calm.notes[0].contains("nothing was measured"), "{:?}", calm.notes);
    let busy = decide(&[("avg(cpu)".to_owned(), Ok(200.0))].into());
    assert_eq!(busy.chosen.iter().filter(|one| one.verb == "make").count(), 4);
    assert!(busy.notes[0].ends_with("then 8 in 60s"), "{:?}", busy.notes);
}

#[tokio::test]
async fn a_group_that_is_refused_holds_nobody_else_up() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, kafka(40)).await;
    let of_hosts = json!({"type": "object", "properties": {"weight": {"type": "integer"}}});
    let value = Document::of(&json!({"tag": true, "host": of_hosts})).unwrap();
    let key: Key = "schemas/lb".parse().unwrap();
    put(&database, vec![Edit::Write { key, value, expect: Expect::Any }]).await;
    // Every member would break that schema.
    change(&database, json!({"host": {"lb": {"weight": "much"}}})).await;
    put(&database, vec![host("web.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 1}}))]).await;
    let (done, choice) = decided(&database, start()).await;
    assert_eq!((done, alive(&database)), (vec!["place web".to_owned()], 0));
    let refused = choice.behind.iter().filter(|one| one.why.contains("is refused"));
    assert_eq!(refused.map(|one| one.key.as_str()).collect::<Vec<_>>(), ["kafka-0.example.com"]);
}

/// So many decide at once.
const CLAIMANTS: u64 = 64;
/// So many are killed at least, and so many of them after their commit and before they hear of it.
const KILLED: u64 = 64;
const UNHEARD: u64 = 8;

/// A store that keeps every second answer to itself: the commit is made, and whoever waits to hear of it waits until it is killed.
struct Mute {
    store: MemoryStore,
    made: AtomicU64,
    unheard: AtomicU64,
}

impl Store for Mute {
    fn commit(&self, commit: Commit) -> Fut<'_, Stored<Committed>> {
        Box::pin(async move {
            let committed = self.store.commit(commit).await?;
            if committed.changed > 0 && self.made.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                self.unheard.fetch_add(1, Ordering::Relaxed);
                return std::future::pending().await;
            }
            Ok(committed)
        })
    }

    shoal_store::forward!(store: head, read, log, watch, claim, release, claims, ledger, write_ledger, report, reports);
}

/// Decides again and again, and is killed at any moment, until it is told to stop.
async fn claimant(store: Arc<Mute>, number: u64, stop: Arc<AtomicBool>, kills: Arc<AtomicU64>) {
    let (mut chance, mut killed) = (Chance(number), 0_u32);
    while !stop.load(Ordering::Relaxed) {
        let database = Database::open(store.clone()).await.unwrap();
        loop {
            let (placement, how) = (Placement::default(), how(number));
            let once = pass(&database, &placement, &how);
            // Whoever is killed again and again lives longer the next time: where a pass takes longer than 30 ms, nobody would end one.
            let patience = Duration::from_micros(200 + chance.below(30_000 << killed.min(6)));
            match tokio::time::timeout(patience, once).await {
                // Killed: whatever was under way is dropped, and the next one begins with nothing.
                Err(_) => {
                    kills.fetch_add(1, Ordering::Relaxed);
                    killed += 1;
                    break;
                }
                // Overtaken too often is no harm.
                Ok(Err(_)) => break,
                Ok(Ok(passed)) => {
                    killed = killed.saturating_sub(1);
                    if !passed.choice.more {
                        let news = database.wait_past(database.view().revision());
                        let _ = tokio::time::timeout(Duration::from_millis(20), news).await;
                    }
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// No two that are not retired have the same number or address.
fn unshared(database: &Database) {
    let view = database.view();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for host in view.hosts().filter(|host| host.state != Lifecycle::Retired) {
        for field in ["broker_id", "address"] {
            let Some(value) = host.field(field) else { continue };
            let other = seen.insert(format!("{field} {value}"), host.name.to_string());
            assert_eq!(other, None, "{} has {field} {value}, too", host.name);
        }
    }
}

/// Wants so many of the group, and does what others do until it is; nobody shares anything meanwhile.
async fn sized(database: &Database, wanted: usize) {
    change(database, json!({"count": wanted})).await;
    loop {
        let seen = database.view().revision();
        unshared(database);
        made(database).await;
        let states = states(database);
        let active = states.values().filter(|state| **state == Lifecycle::Active).count();
        if active == wanted && alive(database) == wanted {
            return;
        }
        // Nothing new for a while is no harm: the next look is at the same.
        let _ = tokio::time::timeout(Duration::from_millis(50), database.wait_past(seen)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_claimants_that_are_killed_at_random_never_share_a_slot_a_number_or_an_address() {
    let none = || AtomicU64::new(0);
    let store = Arc::new(Mute { store: MemoryStore::new(), made: none(), unheard: none() });
    let database = Database::open(Arc::new(store.store.clone())).await.unwrap();
    put(&database, kafka(0)).await;
    change(&database, json!({"budget": {"at_once": 40}})).await;
    let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let claimants: Vec<_> = (0..CLAIMANTS)
        .map(|number| tokio::spawn(claimant(store.clone(), number, stop.clone(), kills.clone())))
        .collect();
    let few = || kills.load(Ordering::Relaxed) < KILLED || store.unheard.load(Ordering::Relaxed) < UNHEARD;
    let played = async {
        // Once is enough mostly; how many are killed meanwhile is chance.
        let mut rounds = 0;
        while few() {
            rounds += 1;
            assert!(rounds <= 8, "{kills:?} were killed, and {:?} of them unheard", store.unheard);
            for wanted in [40, 12, 30] {
                sized(&database, wanted).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(240), played).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    for claimant in claimants {
        claimant.await.unwrap();
    }
    // Once all is quiet, what is held is what is there.
    settle(&database, Timestamp::now()).await;
    unshared(&database);
    let view = database.view();
    let held = |range: &str| {
        let key: Key = format!("facts/placement/ranges/{range}").parse().unwrap();
        view.row(&key).unwrap().value()["held"].as_object().unwrap().len()
    };
    assert_eq!((alive(&database), held("brokers"), held("lan")), (30, 30, 30));
    let state: Value = view.row(&"facts/placement/vm/kafka".parse().unwrap()).unwrap().value();
    assert_eq!(state["slots"].as_object().unwrap().len(), 30);
}

#[tokio::test]
async fn who_is_deleted_and_said_to_be_gone_has_a_successor() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, kafka(3)).await;
    settle(&database, start()).await;
    let before = has(&database, "kafka-1.example.com");
    let view = database.view();
    let room = view.facts("kafka-1.example.com")[0].document.text("box").unwrap().into_owned();
    let id = view.host("kafka-1.example.com").unwrap().id.clone();
    put(&database, vec![deleted("kafka-1.example.com")]).await;
    assert_eq!(decided(&database, start()).await.0, Vec::<String>::new(), "it may live");
    let key: Key = format!("facts/vm/{room}").parse().unwrap();
    let value = Document::of(&json!({"gone": [id]})).unwrap();
    put(&database, vec![Edit::Write { key, value, expect: Expect::Any }]).await;
    // All that it had is given to its successor but the room, which may be another.
    let (done, _) = decided(&database, start()).await;
    assert_eq!(done, ["remake kafka-1", "forget kafka-1", "place kafka-1"]);
    assert_eq!((has(&database, "kafka-1.example.com"), promised(&database).len()), (before, 3));
}

#[tokio::test]
async fn who_is_deleted_keeps_slot_and_room_until_somebody_says_that_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, kafka(3)).await;
    settle(&database, start()).await;
    let before = has(&database, "kafka-1.example.com");
    let id = database.view().host("kafka-1.example.com").unwrap().id.clone();
    put(&database, vec![deleted("kafka-1.example.com")]).await;
    let (done, choice) = decided(&database, start()).await;
    assert_eq!(done, Vec::<String>::new());
    let told = choice.behind.iter().map(|one| one.why.as_str()).collect::<Vec<_>>().join("\n");
    assert!(told.contains(&format!("`state: retired`, `id: {}`", id.0)), "{told}");
    assert_eq!(promised(&database).len(), 3);
    let Edit::PutHost { host, owner, environment, expires, document, expect, .. } =
        host("kafka-1.example.com", Lifecycle::Retired, &json!({}))
    else {
        panic!("a host is put");
    };
    let (id, state) = (Some(id), Some(Lifecycle::Retired));
    put(&database, vec![Edit::PutHost { host, id, state, owner, environment, expires, document, expect }])
        .await;
    let done = settle(&database, start()).await;
    assert!(done.contains(&"remake kafka-1".to_owned()), "{done:?}");
    let after = has(&database, "kafka-1.example.com");
    assert_eq!((&after.0, &after.1), (&before.0, &before.1));
    assert_eq!((alive(&database), promised(&database).len()), (3, 3));
}
