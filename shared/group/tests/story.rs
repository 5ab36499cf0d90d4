//! The life of a group: it is made, gets smaller and larger, and replaces who fails.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod world;

use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, Key, Lifecycle, MAX_ROW};
use shoal_group::{At, Groups, decide};
use world::{World, kafka, tag};

fn name(slot: u32) -> String {
    format!("kafka-{slot}.example.com")
}

fn put(host: &str, state: Lifecycle, document: &Value) -> Edit {
    Edit::PutHost {
        host: host.parse().unwrap(),
        id: None,
        state: Some(state),
        owner: None,
        environment: None,
        expires: None,
        document: Document::of(document).unwrap(),
        expect: Expect::Any,
    }
}

#[test]
fn members_are_made_with_all_that_their_slot_has() {
    let mut world = kafka();
    assert_eq!(
        world.step(),
        ["make kafka-0", "make kafka-1", "make kafka-2", "make kafka-3", "make kafka-4"]
    );
    assert_eq!(world.step(), Vec::<String>::new());
    let first = world.view.host("kafka-0.example.com").unwrap();
    assert_eq!((first.state, first.owner.as_deref()), (Lifecycle::Requested, Some("data team")));
    let mut sites = [0, 0];
    for slot in 0..5 {
        let host = name(slot);
        assert_eq!(world.field(&host, "broker_id"), json!(1001 + slot));
        assert_eq!(world.field(&host, "role"), json!("broker"));
        let rules = world.field(&host, "placement");
        assert_eq!((&rules["group"], &rules["slot"]), (&json!("vm/kafka"), &json!(slot)));
        let sited = rules["layout"]["sites"].as_object().unwrap().keys().next().unwrap().clone();
        let (at, start) = if sited == "a" { (0, 0) } else { (1, 128) };
        sites[at] += 1;
        // A fixed distance behind the network's beginning, slot by slot.
        let address = format!("192.0.2.{}", start + 10 + slot);
        assert_eq!(world.field(&host, "address"), json!(address));
        let networks =
            json!([{"name": "lan", "gateways": ["192.0.2.1"], "addresses": [format!("{address}/25")]}]);
        assert_eq!(world.field(&host, "vm")["networks"], networks);
        for tag in ["vm/kafka", "dns/example.com"] {
            let key: Key = format!("{tag}/members/{host}").parse().unwrap();
            assert!(world.view.exists(&key), "{key}");
        }
    }
    assert_eq!(sites, [2, 3], "they are as near to one to two as five can be");
    assert_eq!(world.held("brokers").len(), 5);
    assert_eq!(world.held("lan-a").len() + world.held("lan-c").len(), 5);
}

#[test]
fn it_gets_smaller_and_larger() {
    let mut world = kafka();
    world.settle();
    world.group("vm/kafka", &json!({"count": 2}));
    // One after the other: each drains with a reason, is retired by whoever destroys it, and is forgotten then.
    assert_eq!(world.step().len(), 1);
    assert_eq!(world.alive().iter().filter(|one| one.ends_with("draining")).count(), 1);
    assert!(world.waits.iter().any(|wait| wait.contains("are out of service")), "{:?}", world.waits);
    assert_eq!(world.step(), Vec::<String>::new(), "it waits until that one is gone");
    let done = world.settle();
    assert_eq!(done.iter().filter(|one| one.starts_with("drain as shrunk")).count(), 2, "{done:?}");
    assert_eq!(done.iter().filter(|one| one.starts_with("release")).count(), 3, "{done:?}");
    assert_eq!(world.alive(), ["kafka-0 active", "kafka-1 active"]);
    assert_eq!(world.held("brokers").len(), 2);
    let members: Vec<_> = world.view.members(&"dns/example.com".parse().unwrap());
    assert_eq!(members.len(), 2, "{members:?}");
    // And back: the lowest slots that are free, with the lowest numbers that are.
    world.group("vm/kafka", &json!({"count": 5}));
    let done = world.settle();
    assert_eq!(done.len(), 3, "{done:?}");
    let all: Vec<String> = (0..5).map(|slot| format!("kafka-{slot} active")).collect();
    assert_eq!(world.alive(), all);
    let mut ids: Vec<u64> =
        (0..5).map(|slot| world.field(&name(slot), "broker_id").as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1001, 1002, 1003, 1004, 1005]);
    assert!(world.field(&name(4), "vm").get("destroy").is_none(), "the reason to be destroyed is behind it");
}

#[test]
fn a_reason_of_which_nothing_came_is_taken_back() {
    let mut world = kafka();
    world.settle();
    world.group("vm/kafka", &json!({"count": 4}));
    world.step();
    let one = world.view.hosts().find(|host| host.state == Lifecycle::Draining).unwrap().name.to_string();
    // Somebody has it stay.
    world.group("vm/kafka", &json!({"count": 5}));
    world.state(&one, Lifecycle::Active);
    assert_eq!(world.step(), [format!("keep {}", one.trim_end_matches(".example.com"))]);
    // It drains for a repair: it is no member that leaves, and nobody destroys it.
    world.state(&one, Lifecycle::Draining);
    assert_eq!(world.settle(), Vec::<String>::new());
    assert_eq!((world.alive().len(), world.view.host(&one).unwrap().state), (5, Lifecycle::Draining));
    // What a person says before they drain it stays said.
    world.state(&one, Lifecycle::Active);
    let patch = json!({"document": {"vm": {"destroy": "unneeded"}}});
    let key = format!("hosts/{one}").parse().unwrap();
    world.commit(vec![Edit::Patch { key, patch, expect: Expect::Any }]);
    assert_eq!(world.step(), Vec::<String>::new());
    assert_eq!(world.field(&one, "vm")["destroy"], json!("unneeded"));
}

#[test]
fn one_that_fails_is_replaced_when_it_is_gone() {
    let mut world = kafka();
    world.settle();
    let (id, address, place) = (
        world.field(&name(3), "broker_id"),
        world.field(&name(3), "address"),
        world.field(&name(3), "placement"),
    );
    // What people wrote on the host stays with the slot.
    let patch = json!({"document": {"note": "the third shelf"}});
    world.commit(vec![Edit::Patch {
        key: format!("hosts/{}", name(3)).parse().unwrap(),
        patch,
        expect: Expect::Any,
    }]);
    world.state(&name(3), Lifecycle::Failed);
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("it is replaced in 60s"), "{:?}", world.waits);
    world.later(59);
    assert_eq!(world.step(), Vec::<String>::new());
    world.later(1);
    assert_eq!(world.step(), ["drain as replaced kafka-3"]);
    // As long as nobody says that it is gone, nobody takes its place.
    world.later(1_000_000);
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("is replaced when it is gone"), "{:?}", world.waits);
    world.others();
    assert_eq!(world.step(), ["make anew kafka-3"]);
    world.settle();
    assert_eq!(world.alive().len(), 5);
    let now = (
        world.field(&name(3), "broker_id"),
        world.field(&name(3), "address"),
        world.field(&name(3), "placement"),
    );
    assert_eq!(now, (id, address, place));
    assert_eq!(world.field(&name(3), "note"), json!("the third shelf"));
    assert!(world.field(&name(3), "vm").get("destroy").is_none());
    assert_eq!(world.held("brokers").len(), 5);
}

/// Nobody who makes machines ever heard of it, so nobody says that it is gone: the group's quarantine does. One that had a room may live.
#[test]
fn one_that_is_deleted_before_it_had_a_room_is_gone_after_the_quarantine() {
    let mut world = kafka();
    world.group("vm/kafka", &json!({"replace": {"quarantine": "1h"}}));
    assert_eq!(world.step().len(), 5);
    // Its id is written down, too.
    world.step();
    let delete = |slot: u32| {
        let key = format!("hosts/{}", name(slot)).parse().unwrap();
        Edit::Delete { key, follow: false, expect: Expect::Any }
    };
    let promised = json!({
        "holds": {"other.example.com": {"cpu": 4}},
        "ids": {"other.example.com": world.view.host(&name(1)).unwrap().id},
    });
    let value = Document::of(&promised).unwrap();
    let key = "facts/placement/box1.example.com".parse().unwrap();
    world.commit(vec![put("box1.example.com", Lifecycle::Active, &json!({"box": {}}))]);
    world.commit(vec![Edit::Write { key, value, expect: Expect::Any }]);
    let numbers = world.held("brokers");
    world.commit(vec![delete(1), delete(2)]);
    assert_eq!(world.step(), Vec::<String>::new());
    let said = |world: &World, slot: u32, what: &str| {
        world.waits.iter().any(|wait| wait.starts_with(&name(slot)) && wait.contains(what))
    };
    assert!(said(&world, 2, "it may live, though it was never seen with a room"), "{:?}", world.waits);
    assert!(said(&world, 1, "it may live: it keeps slot 1"), "{:?}", world.waits);
    world.later(3_599);
    assert_eq!(world.step(), Vec::<String>::new());
    world.later(1);
    // It is written down first.
    assert_eq!(world.step(), Vec::<String>::new());
    assert_eq!(world.step(), ["make anew kafka-2"]);
    assert_eq!(world.held("brokers"), numbers, "whoever takes over has the same");
    // Seen in any other state it may live, also where no room says that it has it.
    world.state(&name(2), Lifecycle::Placed);
    world.step();
    world.commit(vec![delete(2), delete(4)]);
    world.step();
    world.later(3_600);
    world.step();
    // Where fewer are wanted, the slot of which nothing was made is given up.
    world.group("vm/kafka", &json!({"count": 4}));
    assert_eq!(world.step(), ["release kafka-4"]);
    assert!(said(&world, 2, "it may live: it keeps slot 2"), "{:?}", world.waits);
    assert_eq!(world.held("brokers").len(), 4);
}

#[test]
fn a_quarantine_stands_in_for_whoever_would_say_that_it_is_gone() {
    let mut world = kafka();
    // While its machine may be there by the grace that it has, it is not gone.
    world.group("vm/kafka", &json!({"replace": {"quarantine": "10m"}}));
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("`replace.quarantine` is at least 660s"), "{:?}", world.waits);
    let grace = json!({"document": {"grace": "9m"}});
    world.commit(vec![Edit::Patch { key: "vm/kafka".parse().unwrap(), patch: grace, expect: Expect::Any }]);
    assert_eq!(world.step().len(), 5);
    world.group("vm/kafka", &json!({"replace": {"quarantine": "1h"}}));
    world.settle();
    world.state(&name(0), Lifecycle::Failed);
    world.step();
    world.later(60);
    assert_eq!(world.step(), ["drain as replaced kafka-0"]);
    world.later(3_539);
    assert_eq!(world.step(), Vec::<String>::new());
    world.later(1);
    assert_eq!(world.step(), ["retire kafka-0"]);
    assert_eq!(world.step(), ["make anew kafka-0"]);
}

#[test]
fn where_many_look_dead_at_once_a_person_is_called() {
    let mut world = kafka();
    world.settle();
    for slot in 0..3 {
        world.state(&name(slot), Lifecycle::Failed);
    }
    world.later(3_600);
    world.group("vm/kafka", &json!({"count": 4}));
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("held: 3 of 5 look dead at once"), "{:?}", world.waits);
    // A person says of one that it is gone: two of four are half.
    world.state(&name(0), Lifecycle::Retired);
    assert_eq!(world.step(), Vec::<String>::new());
    world.group("vm/kafka", &json!({"count": 5, "replace": {"alarm": 50}}));
    assert_eq!(world.step(), ["make anew kafka-0"]);
    world.later(60);
    // And of the others one goes after the other.
    let done = world.settle();
    assert_eq!(done.iter().filter(|one| one.starts_with("drain as replaced")).count(), 2, "{done:?}");
    assert_eq!(world.alive().iter().filter(|one| one.ends_with("active")).count(), 5);
}

/// Nobody has to say that it was a mistake: whoever called is heard again when it comes back.
#[test]
fn the_call_for_a_person_is_over_with_its_cause() {
    let mut world = kafka();
    world.settle();
    for slot in 0..3 {
        world.state(&name(slot), Lifecycle::Failed);
    }
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("held: 3 of 5 look dead at once"), "{:?}", world.waits);
    for slot in 0..3 {
        world.state(&name(slot), Lifecycle::Active);
    }
    world.later(3_600);
    assert_eq!((world.step(), &world.waits), (Vec::<String>::new(), &Vec::new()));
}

#[test]
fn it_counts_as_dead_when_enough_say_so() {
    let mut world = kafka();
    world.group("vm/kafka", &json!({"replace": {"after": "0"}}));
    world.settle();
    let report = |world: &mut World, of: &str, healthy: bool| {
        let key = format!("facts/{of}/{}", name(2)).parse().unwrap();
        let value = Document::of(&json!({"healthy": healthy})).unwrap();
        world.commit(vec![Edit::Write { key, value, expect: Expect::Any }]);
    };
    report(&mut world, "monitoring", false);
    assert_eq!(world.step(), Vec::<String>::new(), "one alone may be mistaken");
    report(&mut world, "lb", false);
    assert_eq!(world.step(), ["drain as replaced kafka-2"]);
}

#[test]
fn a_host_that_was_deleted_keeps_its_slot_until_somebody_says_that_it_is_gone() {
    let mut world = kafka();
    world.settle();
    let id = world.view.host(&name(1)).unwrap().id.clone();
    world.commit(vec![Edit::Delete {
        key: format!("hosts/{}", name(1)).parse().unwrap(),
        follow: false,
        expect: Expect::Any,
    }]);
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains(&format!("`state: retired`, `id: {}`", id.0)), "{:?}", world.waits);
    // Another host under its name is a stranger.
    world.commit(vec![put(&name(1), Lifecycle::Active, &json!({}))]);
    assert_eq!(world.step(), Vec::<String>::new());
    world.commit(vec![Edit::Delete {
        key: format!("hosts/{}", name(1)).parse().unwrap(),
        follow: false,
        expect: Expect::Any,
    }]);
    let gone = Edit::PutHost {
        host: name(1).parse().unwrap(),
        id: Some(id),
        state: Some(Lifecycle::Retired),
        owner: None,
        environment: None,
        expires: None,
        document: Document::empty(),
        expect: Expect::Any,
    };
    world.commit(vec![gone]);
    assert_eq!(world.step(), ["make anew kafka-1"]);
    assert_eq!(world.field(&name(1), "broker_id"), json!(1002));
}

#[test]
fn a_host_that_was_deleted_and_whose_machine_is_gone_has_a_successor() {
    let mut world = kafka();
    world.settle();
    let delete = |key: String| Edit::Delete { key: key.parse().unwrap(), follow: false, expect: Expect::Any };
    let write = |key: &str, value: Value| Edit::Write {
        key: key.parse().unwrap(),
        value: Document::of(&value).unwrap(),
        expect: Expect::Any,
    };
    let ids = [1, 3].map(|slot| world.view.host(&name(slot)).unwrap().id.clone());
    world.commit([1, 3].map(|slot| delete(format!("hosts/{}", name(slot)))).into());
    assert_eq!(world.step(), Vec::<String>::new());
    // Who made them says it as long as their rooms are kept; it is heard also where the group is held.
    world.commit(vec![
        put("box1.example.com", Lifecycle::Active, &json!({"box": {}})),
        write("facts/vm/box1.example.com", json!({"gone": ids})),
        write("pauses/tag/vm/kafka", json!({"why": "a move"})),
    ]);
    assert_eq!(world.step(), Vec::<String>::new());
    world.commit(vec![
        write("facts/vm/box1.example.com", json!({"gone": []})),
        delete("pauses/tag/vm/kafka".to_owned()),
        put(&name(3), Lifecycle::Active, &json!({"note": "by hand"})),
    ]);
    assert_eq!(world.step(), ["make anew kafka-1"]);
    assert!(world.waits.iter().any(|wait| wait.contains("is called kafka-3.example.com by now")));
    assert_eq!(world.field(&name(1), "broker_id"), json!(1002));
    // Fewer are wanted: who is gone goes first, and a stranger of its name stays as it is.
    world.group("vm/kafka", &json!({"count": 4}));
    assert_eq!(world.settle(), ["release kafka-3"]);
    assert_eq!(world.field(&name(3), "note"), json!("by hand"));
    assert!(!world.held("brokers").contains_key("1004"));
}

#[test]
fn what_a_group_of_before_holds_for_machines_that_may_live_is_not_given_anew() {
    let mut world = kafka();
    world.settle();
    let group = world.view.tag(&"vm/kafka".parse().unwrap()).unwrap().document.value();
    world.state(&name(1), Lifecycle::Retired);
    // The group goes with the host of a machine that lives, and is written anew.
    let gone = ["vm/kafka".to_owned(), format!("hosts/{}", name(0))];
    let keys = gone.iter().map(|key| key.parse().unwrap());
    world.commit(keys.map(|key| Edit::Delete { key, follow: false, expect: Expect::Any }).collect());
    world.tag("vm/kafka", &group);
    assert_eq!(world.step(), ["make kafka-1", "make kafka-5"]);
    let told = world.waits.join("\n");
    assert!(told.contains("slot 0 is passed over: 1001 of ranges/brokers stands as held"), "{told}");
    assert_eq!(world.field(&name(1), "broker_id"), json!(1002));
    // Until somebody says that it is gone.
    world.commit(vec![put(&name(0), Lifecycle::Retired, &json!({}))]);
    world.group("vm/kafka", &json!({"count": 6}));
    assert_eq!(world.step(), ["make kafka-0"]);
    assert_eq!(world.field(&name(0), "broker_id"), json!(1001));
}

#[test]
fn who_is_there_already_is_passed_over_or_taken_in() {
    let mut world = kafka();
    world.commit(vec![
        put(&name(1), Lifecycle::Active, &json!({"note": "by hand"})),
        put(
            "old.example.com",
            Lifecycle::Active,
            &json!({"placement": {"group": "vm/kafka", "slot": 2}, "broker_id": 1001}),
        ),
    ]);
    assert_eq!(world.step(), ["make kafka-0", "make kafka-3", "make kafka-4", "make kafka-5"]);
    assert!(world.waits.iter().any(|wait| wait.contains("slot 1 is passed over")), "{:?}", world.waits);
    assert_eq!(world.field(&name(1), "note"), json!("by hand"));
    assert_eq!(world.held("brokers")["1001"], "old.example.com");
    assert_eq!(world.field(&name(0), "broker_id"), json!(1002));
}

#[test]
fn what_somebody_wrote_in_the_place_of_what_is_held_is_named_and_given_to_nobody() {
    let mut world = kafka();
    world.settle();
    let write = |world: &mut World, id: u32| {
        let patch = json!({"document": {"broker_id": id}});
        let key = format!("hosts/{}", name(0)).parse().unwrap();
        world.commit(vec![Edit::Patch { key, patch, expect: Expect::Any }]);
    };
    write(&mut world, 1008);
    for _ in 0..2 {
        world.step();
        let told = world.waits.join("\n");
        assert!(told.contains("1008 is not what ranges/brokers holds for it, which is 1001"), "{told}");
    }
    world.group("vm/kafka", &json!({"count": 9}));
    world.settle();
    let held = world.held("brokers");
    assert_eq!((held["1001"].as_str(), held["1008"].as_str()), (name(0).as_str(), name(0).as_str()));
    let others = (1..9).map(|slot| world.field(&name(slot), "broker_id")).collect::<Vec<_>>();
    assert!(!others.contains(&json!(1001)) && !others.contains(&json!(1008)), "{others:?}");
    // Once it is put right there is nothing to say, and with its slot both are given back.
    write(&mut world, 1001);
    assert_eq!(world.step(), Vec::<String>::new());
    assert_eq!(world.waits, Vec::<String>::new());
    world.group("vm/kafka", &json!({"count": 0}));
    world.settle();
    assert_eq!(world.held("brokers").len(), 0);
}

#[test]
fn of_ranges_that_have_addresses_in_common_nothing_is_taken() {
    let mut world = kafka();
    world.tag("ranges/odd", &json!({"addresses": {"net": "192.0.2.64/26"}}));
    world.settle();
    let told = world.waits.join("\n");
    assert!(told.contains("ranges/lan-a: it has addresses that ranges/odd has, too"), "{told}");
    assert!(world.held("lan-a").is_empty(), "{:?}", world.alive());
    world.commit(vec![Edit::Delete {
        key: "ranges/odd".parse().unwrap(),
        follow: false,
        expect: Expect::Any,
    }]);
    world.settle();
    assert_eq!(world.alive().len(), 5);
}

#[test]
fn what_is_missing_or_wrong_is_named_and_nothing_is_made() {
    let mut world = kafka();
    world.tag("vm/odd", &json!({"group": {"counts": 3}}));
    world.commit(vec![Edit::Delete {
        key: "dns/example.com".parse().unwrap(),
        follow: false,
        expect: Expect::Any,
    }]);
    assert_eq!(world.step(), Vec::<String>::new());
    let told = world.waits.join("\n");
    assert!(
        told.contains("vm/odd: its `group` cannot be understood")
            && told.contains("dns/example.com, which is not there"),
        "{told}"
    );
    world.commit(vec![
        tag("dns/example.com", &json!({})),
        tag("ranges/brokers", &json!({"ids": {"first": 1, "last": 2}})),
    ]);
    assert_eq!(world.step(), ["make kafka-0", "make kafka-1"]);
    assert!(
        world.waits.iter().any(|wait| wait.contains("ranges/brokers: nothing of it is free")),
        "{:?}",
        world.waits
    );
}

#[test]
fn one_that_is_refused_hinders_no_other_and_a_group_of_them_is_left_alone() {
    let mut world = kafka();
    let refused = |world: &World| world.waits.iter().filter(|wait| wait.contains("is refused")).count();
    let refuse = |world: &mut World, slots: &[u32]| {
        let hosts = slots.iter().map(|slot| (name(*slot).parse().unwrap(), "it is protected".to_owned()));
        world.refused = hosts.collect();
    };
    // What is refused for one that is to be made is refused for the next.
    refuse(&mut world, &[0, 1, 2, 3, 4, 5]);
    assert_eq!((world.step(), refused(&world)), (Vec::new(), 1));
    refuse(&mut world, &[]);
    world.settle();
    world.group("vm/kafka", &json!({"count": 0, "budget": {"at_once": 5}}));
    refuse(&mut world, &[1, 3, 4]);
    assert_eq!((world.step(), refused(&world)), (Vec::new(), 3));
    refuse(&mut world, &[3, 4]);
    assert_eq!(world.step().len(), 3);
    world.settle();
    assert_eq!(world.alive(), ["kafka-3 active", "kafka-4 active"]);
}

#[test]
fn no_more_are_made_than_one_row_remembers() {
    let mut world = World::new();
    let long = "x".repeat(60);
    let slots = json!({"name": format!("kafka-{{slot}}.{long}.{long}.{long}")});
    world.tag("vm/long", &json!({"group": {"count": 5_000, "size": {"cpu": 1}, "slots": slots}}));
    let mut groups = Groups::read(&world.view);
    let at = At { now: world.now, measured: None, seed: 0, most: usize::MAX, refused: None };
    let decision = decide(&world.view, &groups.groups[0], &mut groups.ranges, &at);
    assert!(decision.waits[0].why.contains("fills a row"), "{:?}", decision.waits);
    assert!((2_000..5_000).contains(&decision.steps.len()), "{}", decision.steps.len());
    assert!(serde_json::to_string(&decision.state).unwrap().len() < MAX_ROW);
}

#[test]
fn a_pause_and_its_end_hold_and_empty_it() {
    let mut world = kafka();
    let pause = |scope: &str| -> Key { format!("pauses/{scope}").parse().unwrap() };
    let write = |key: Key| Edit::Write {
        key,
        value: Document::of(&json!({"why": "a move"})).unwrap(),
        expect: Expect::Any,
    };
    world.commit(vec![write(pause("tag/vm/kafka"))]);
    assert_eq!(world.step(), Vec::<String>::new());
    assert!(world.waits[0].contains("held: paused: tag/vm/kafka: a move"), "{:?}", world.waits);
    world.commit(vec![Edit::Delete { key: pause("tag/vm/kafka"), follow: false, expect: Expect::Any }]);
    world.settle();
    world.commit(vec![write(pause("host/kafka-4.example.com"))]);
    world.group("vm/kafka", &json!({"count": 0}));
    world.settle();
    assert_eq!(world.alive(), ["kafka-4 active"], "who is paused stays");
    world.commit(vec![Edit::Delete {
        key: pause("host/kafka-4.example.com"),
        follow: false,
        expect: Expect::Any,
    }]);
    world.settle();
    assert_eq!(world.alive(), Vec::<String>::new());
    assert!(
        world.held("brokers").is_empty() && world.held("lan-a").is_empty() && world.held("lan-c").is_empty()
    );
    // Its time over, nothing is made any more.
    world.group("vm/kafka", &json!({"count": 3}));
    let over = json!({"expires": "2026-07-01T09:00:00Z"});
    world.commit(vec![Edit::Patch { key: "vm/kafka".parse().unwrap(), patch: over, expect: Expect::Any }]);
    assert_eq!(world.settle(), Vec::<String>::new());
}

#[test]
fn no_fewer_stay_than_the_budget_says() {
    let mut world = kafka();
    world.group("vm/kafka", &json!({"budget": {"at_once": 5, "min_healthy": 4}}));
    world.settle();
    world.group("vm/kafka", &json!({"count": 4}));
    assert_eq!(world.step().len(), 1);
    world.settle();
    // As many as are wanted are enough.
    world.group("vm/kafka", &json!({"count": 2}));
    assert_eq!(world.step().len(), 2);
    world.settle();
    assert_eq!(world.alive().len(), 2);
}

#[test]
fn a_measurement_moves_it_and_nothing_measured_does_not() {
    let mut world = kafka();
    world.group(
        "vm/kafka",
        &json!({"min": 1, "max": 20, "count": 3, "metric": {"query": "q", "target": 75.0}}),
    );
    world.settle();
    assert_eq!(world.alive().len(), 3);
    world.later(60);
    world.measured.insert("vm/kafka".to_owned(), Ok(150.0));
    assert_eq!(world.step(), ["make kafka-3", "make kafka-4", "make kafka-5"]);
    world.measured.insert("vm/kafka".to_owned(), Err("no answer".to_owned()));
    world.settle();
    world.later(3600);
    assert_eq!(world.settle(), Vec::<String>::new());
    world.measured.insert("vm/kafka".to_owned(), Ok(10.0));
    assert_eq!(world.step().len(), 1);
    assert_eq!(
        world.settle().iter().filter(|one| one.starts_with("drain")).count(),
        0,
        "it waits before the next"
    );
    assert_eq!(world.alive().len(), 5);
}
