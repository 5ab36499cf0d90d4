//! A group says another image, another size, or other networks or disks: its members are replaced one after the other, where it says so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod world;

use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, Lifecycle};
use world::{World, kafka};

const NONE: [String; 0] = [];

fn document(world: &mut World, patch: &Value) {
    let patch = json!({"document": patch});
    world.commit(vec![Edit::Patch { key: "vm/kafka".parse().unwrap(), patch, expect: Expect::Any }]);
}

/// What a host says of itself as a machine.
fn own(world: &mut World, slot: u32, vm: &Value) {
    let patch = json!({"document": {"vm": vm}});
    let key = format!("hosts/kafka-{slot}.example.com").parse().unwrap();
    world.commit(vec![Edit::Patch { key, patch, expect: Expect::Any }]);
}

/// Who drains, where all that are made are made of this.
fn renewed(world: &mut World, image: &str, disks: &Value) -> Vec<String> {
    let mut drained = Vec::new();
    for _ in 0..50 {
        drained.extend(world.step().into_iter().filter(|one| one.starts_with("drain")));
        world.others();
        report_with(world, image, disks);
    }
    drained
}

/// Whoever makes machines says what those were made of that are up, and were not before.
fn report(world: &mut World, image: &str) {
    report_with(world, image, &json!({}));
}

fn report_with(world: &mut World, image: &str, disks: &Value) {
    let name = |slot: u32| format!("kafka-{slot}.example.com");
    let state = |world: &World, slot: u32| world.view.host(&name(slot)).unwrap().state;
    for slot in 0..5 {
        let key: shoal_core::Key = format!("facts/vm/{}", name(slot)).parse().unwrap();
        let there = world.view.exists(&key);
        if state(world, slot) == Lifecycle::Active && !there {
            let networks = world.field(&name(slot), "vm")["networks"].clone();
            let said = json!({"image": image, "provider": "nspawn", "networks": networks, "disks": disks});
            let value = Document::of(&said).unwrap();
            world.commit(vec![Edit::Write { key, value, expect: Expect::Any }]);
        } else if state(world, slot) == Lifecycle::Retired && there {
            world.commit(vec![Edit::Delete { key, follow: false, expect: Expect::Any }]);
        }
    }
}

fn made() -> World {
    let mut world = kafka();
    document(&mut world, &json!({"drift": "replace"}));
    world.settle();
    report(&mut world, "debian-12");
    assert_eq!(world.step(), NONE);
    world
}

#[test]
fn another_image_comes_one_machine_after_the_other() {
    let mut world = made();
    document(&mut world, &json!({"image": "debian-13"}));
    let mut drained = Vec::new();
    for _ in 0..100 {
        let done = world.step();
        let out = world.alive().iter().filter(|one| !one.ends_with("active")).count();
        assert!(out <= 1, "{:?}", world.alive());
        drained.extend(done.into_iter().filter(|one| one.starts_with("drain")));
        world.others();
        report(&mut world, "debian-13");
    }
    let all: Vec<String> = (0..5).map(|slot| format!("drain as replaced kafka-{slot}")).collect();
    assert_eq!(drained, all, "{:?}", world.waits);
    assert_eq!((world.alive().len(), world.held("brokers").len()), (5, 5));
}

#[test]
fn other_networks_and_disks_count_as_another_image_does() {
    let mut world = made();
    let networks = |world: &World, host: &str| world.field(host, "vm")["networks"].clone();
    let before = networks(&world, "kafka-0.example.com");
    let addresses = before[0]["addresses"].clone();
    document(&mut world, &json!({"networks": [{"name": "lan", "gateways": ["192.0.2.2"]}]}));
    let renewed = |world: &mut World, disks: &Value| renewed(world, "debian-12", disks);
    let all: Vec<String> = (0..5).map(|slot| format!("drain as replaced kafka-{slot}")).collect();
    assert_eq!(renewed(&mut world, &json!({})), all, "{:?}", world.waits);
    let after = json!([{"name": "lan", "gateways": ["192.0.2.2"], "addresses": addresses}]);
    assert_eq!(networks(&world, "kafka-0.example.com"), after);
    // Written on a host by hand, it goes with the machine.
    own(&mut world, 3, &json!({"networks": [{"name": "wan"}]}));
    assert_eq!(renewed(&mut world, &json!({})), ["drain as replaced kafka-3"]);
    assert_eq!(networks(&world, "kafka-3.example.com")[0]["name"], json!("lan"));
    let disks = json!({"scratch": {"size": 1, "at": "/scratch"}});
    document(&mut world, &json!({"disks": disks}));
    assert_eq!(renewed(&mut world, &disks), all);
    // Those of a slot stay when its machine goes.
    world.group("vm/kafka", &json!({"slots": {"disks": {"log": {"size": 9, "at": "/log"}}}}));
    assert_eq!(renewed(&mut world, &disks), NONE);
    let slot = json!({"log": {"size": 9, "at": "/log", "volume": "kafka.4"}});
    own(&mut world, 4, &json!({"disks": slot}));
    assert_eq!(renewed(&mut world, &disks), NONE);
}

#[test]
fn one_that_does_not_come_up_holds_up_the_next() {
    let mut world = made();
    document(&mut world, &json!({"provider": "libvirt"}));
    assert_eq!(world.step(), ["drain as replaced kafka-0"]);
    assert_eq!(world.step(), NONE);
    let waits =
        |world: &World| world.waits.iter().any(|wait| wait.contains("4 of its members are not what it says"));
    assert!(waits(&world), "{:?}", world.waits);
    world.others();
    assert_eq!(world.step(), ["make anew kafka-0"]);
    world.state("kafka-0.example.com", Lifecycle::Building);
    for _ in 0..10 {
        world.later(3_600);
        assert_eq!(world.step(), NONE);
    }
    assert!(waits(&world), "{:?}", world.waits);
}

#[test]
fn another_size_counts_and_what_nobody_reports_of_does_not() {
    let mut world = kafka();
    document(&mut world, &json!({"drift": "replace", "image": "debian-13"}));
    world.settle();
    document(&mut world, &json!({"image": "debian-14"}));
    assert_eq!(world.step(), NONE, "nobody says what they began as");
    world.group("vm/kafka", &json!({"size": {"cpu": 8}}));
    assert_eq!(world.step(), ["drain as replaced kafka-0"]);
    world.others();
    world.step();
    assert_eq!(world.field("kafka-0.example.com", "size"), json!({"cpu": 8}));
}

#[test]
fn without_the_word_and_below_the_budget_members_stay_what_they_are() {
    let mut world = made();
    document(&mut world, &json!({"drift": "report", "image": "debian-13"}));
    assert_eq!(world.step(), NONE);
    document(&mut world, &json!({"drift": "replace"}));
    world.group("vm/kafka", &json!({"budget": {"min_healthy": 5}}));
    assert_eq!(world.step(), NONE);
    assert!(world.waits.iter().any(|wait| wait.contains("5 of its members")), "{:?}", world.waits);
    // What its own host says goes before.
    world.group("vm/kafka", &json!({"budget": {"min_healthy": 0}}));
    own(&mut world, 0, &json!({"image": "debian-12"}));
    assert_eq!(world.step(), ["drain as replaced kafka-1"]);
}

/// An image of its own is its successor's, too, and then it is what it is to be.
#[test]
fn what_a_host_says_of_itself_is_what_its_successor_is() {
    let mut world = made();
    own(&mut world, 2, &json!({"image": "debian-13"}));
    assert_eq!(renewed(&mut world, "debian-13", &json!({})), ["drain as replaced kafka-2"]);
    assert_eq!(world.field("kafka-2.example.com", "vm")["image"], json!("debian-13"));
    // Another image in the tag is no reason for that one from then on.
    document(&mut world, &json!({"image": "debian-14"}));
    let others = [0, 1, 3, 4].map(|slot| format!("drain as replaced kafka-{slot}"));
    assert_eq!(renewed(&mut world, "debian-14", &json!({})), others);
}

/// Whether it is replaced is its own host's to say, as it is for whoever made the machine.
#[test]
fn its_own_word_about_drift_goes_before_its_groups() {
    let mut world = made();
    own(&mut world, 0, &json!({"drift": "report"}));
    own(&mut world, 1, &json!({"drift": "correct"}));
    document(&mut world, &json!({"image": "debian-13"}));
    world.group("vm/kafka", &json!({"size": {"cpu": 8}}));
    let others = [2, 3, 4].map(|slot| format!("drain as replaced kafka-{slot}"));
    assert_eq!(renewed(&mut world, "debian-13", &json!({})), others);
    // Where its group has it reported, one that has itself replaced is, and says so still.
    document(&mut world, &json!({"drift": "report"}));
    own(&mut world, 0, &json!({"drift": "replace"}));
    assert_eq!(renewed(&mut world, "debian-13", &json!({})), ["drain as replaced kafka-0"]);
    assert_eq!(world.field("kafka-0.example.com", "vm")["drift"], json!("replace"));
    assert_eq!(world.field("kafka-0.example.com", "size"), json!({"cpu": 8}));
}

/// Its host has the size of its group, written by hand, and its machine was there before.
#[test]
fn one_that_was_made_with_another_size_than_its_host_has_counts() {
    let mut world = made();
    let networks = world.field("kafka-3.example.com", "vm")["networks"].clone();
    let said = |world: &mut World, cpu: u32| {
        let said = json!({
            "image": "debian-12", "provider": "nspawn", "size": {"cpu": cpu}, "networks": networks, "disks": {},
        });
        let (key, value) = ("facts/vm/kafka-3.example.com".parse().unwrap(), Document::of(&said).unwrap());
        world.commit(vec![Edit::Write { key, value, expect: Expect::Any }]);
    };
    said(&mut world, 4);
    assert_eq!(world.step(), NONE);
    said(&mut world, 2);
    assert_eq!(world.step(), ["drain as replaced kafka-3"]);
}

/// Whoever makes machines could neither destroy it nor make another, and says so.
#[test]
fn one_whose_documents_make_no_machine_stays() {
    let mut world = made();
    own(&mut world, 0, &json!({"image": "../etc"}));
    own(&mut world, 1, &json!({"networks": "lan"}));
    document(&mut world, &json!({"image": "debian-13"}));
    world.group("vm/kafka", &json!({"size": {"cpu": 8}}));
    assert_eq!(world.step(), ["drain as replaced kafka-2"]);
}
