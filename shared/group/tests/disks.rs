//! Disks that slots have: whoever takes a slot over goes where they are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod world;

use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, Lifecycle};
use world::{World, kafka};

const HOST: &str = "kafka-1.example.com";

fn place(world: &mut World, room: &str) {
    let key = format!("facts/placement/{HOST}").parse().unwrap();
    let value = Document::of(&json!({"box": room})).unwrap();
    world.commit(vec![Edit::Write { key, value, expect: Expect::Any }]);
    world.state(HOST, Lifecycle::Placed);
}

fn only(world: &World) -> Value {
    world.field(HOST, "placement")["only"].clone()
}

#[test]
fn a_successor_goes_where_the_disks_of_its_slot_are() {
    let mut world = kafka();
    world.group(
        "vm/kafka",
        &json!({
            "only": [{"label": ["ssd", "yes"]}],
            "slots": {"disks": {"data": {"size": 9, "at": "/var/lib/kafka"}}},
        }),
    );
    assert_eq!(world.step().len(), 5);
    let disk = json!({"size": 9, "at": "/var/lib/kafka", "volume": "kafka.1"});
    assert_eq!(world.field(HOST, "vm")["disks"], json!({"data": disk}));
    assert_eq!(only(&world), json!([{"label": ["ssd", "yes"]}]));
    place(&mut world, "box1.example.com");
    world.step();
    // What people wrote of other disks stays; what the group says goes before.
    let patch =
        json!({"document": {"vm": {"disks": {"tmp": {"size": 1, "at": "/tmp"}, "data": {"size": 1}}}}});
    let key = format!("hosts/{HOST}").parse().unwrap();
    world.commit(vec![Edit::Patch { key, patch, expect: Expect::Any }]);
    world.state(HOST, Lifecycle::Retired);
    assert_eq!(world.step(), ["make anew kafka-1"]);
    assert_eq!(only(&world), json!([{"name": "box1.example.com"}]));
    assert_eq!(world.field(HOST, "vm")["disks"]["data"], disk);
    assert_eq!(world.field(HOST, "vm")["disks"]["tmp"]["at"], json!("/tmp"));
    // Somebody else places it elsewhere: the disks are where they were.
    place(&mut world, "box2.example.com");
    world.step();
    world.state(HOST, Lifecycle::Retired);
    assert_eq!(world.step(), ["make anew kafka-1"]);
    assert_eq!(only(&world), json!([{"name": "box1.example.com"}]));
}

/// Its host is deleted, so the next has another id: the slot says whose its disks were.
#[test]
fn a_successor_of_a_deleted_host_is_told_whose_the_disks_were() {
    let mut world = kafka();
    world.group("vm/kafka", &json!({"slots": {"disks": {"data": {"size": 9, "at": "/var/lib/kafka"}}}}));
    world.commit(vec![Edit::PutHost {
        host: "box1.example.com".parse().unwrap(),
        id: None,
        state: Some(Lifecycle::Active),
        owner: None,
        environment: None,
        expires: None,
        document: Document::of(&json!({"box": {}})).unwrap(),
        expect: Expect::Any,
    }]);
    world.settle();
    let slot = |world: &World| {
        let fact = world.view.row(&"facts/placement/vm/kafka".parse().unwrap()).unwrap().value();
        fact["slots"]["1"].clone()
    };
    assert_eq!(slot(&world)["before"], Value::Null);
    let number = world.field(HOST, "broker_id");
    let mut ids = Vec::new();
    for n in 0..4 {
        let id = world.view.host(HOST).unwrap().id.0.clone();
        let gone = Document::of(&json!({"gone": [id]})).unwrap();
        let key = format!("hosts/{HOST}").parse().unwrap();
        world.commit(vec![Edit::Delete { key, follow: false, expect: Expect::Any }]);
        assert_eq!(world.step(), Vec::<String>::new(), "it may live");
        let key = "facts/vm/box1.example.com".parse().unwrap();
        world.commit(vec![Edit::Write { key, value: gone, expect: Expect::Any }]);
        assert_eq!(world.step(), ["make anew kafka-1"], "{n}");
        ids.push(json!(id));
        let last = &ids[ids.len().saturating_sub(2)..];
        assert_eq!(slot(&world)["before"], json!(last));
        assert_eq!(world.field(HOST, "broker_id"), number);
        world.settle();
    }
    // Made anew under its own id, it has what it had.
    world.state(HOST, Lifecycle::Retired);
    assert_eq!(world.step(), ["make anew kafka-1"]);
    assert_eq!(slot(&world)["before"], json!(&ids[2..]));
}

#[test]
fn a_group_whose_name_could_be_no_folder_has_no_disks() {
    let mut world = kafka();
    let disks = json!({"data": {"size": 9, "at": "/var/lib/kafka"}});
    let slots = json!({"name": "x-{slot}.example.com", "disks": disks});
    let group = json!({"image": "a", "group": {"count": 1, "size": {"cpu": 1}, "slots": slots}});
    let name = format!("vm/{}", "x".repeat(60));
    world.tag(&name, &group);
    world.step();
    let said = world.waits.iter().any(|wait| wait.starts_with(&name) && wait.contains("slots have disks"));
    assert!(said, "{:?}", world.waits);
    assert!(world.view.host("x-0.example.com").is_none());
}
