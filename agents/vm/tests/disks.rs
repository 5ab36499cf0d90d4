//! Disks that slots of groups have: they outlive machines, and go when their slot does.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod fleet;

use fleet::Fleet;
use fleet::room::{ROOM, id, name};
use serde_json::{Value, json};
use shoal_vm::Stage;

fn vm(more: &[(&str, Value)]) -> Value {
    let disk = json!({"size": 1, "at": "/var/lib/kafka", "volume": "kafka.3"});
    let mut vm = json!({"grace": "1s", "disks": {"data": disk}});
    for (field, value) in more {
        vm[*field] = value.clone();
    }
    vm
}

/// Placement says who has the slot, and where its disks are.
fn slot(fleet: &mut Fleet, of: usize, room: Option<&str>) {
    let mut slot = json!({"host": name(of), "id": id(of)});
    if let Some(room) = room {
        slot["room"] = json!(room);
    }
    fleet.commit(&[("facts/placement/vm/kafka", json!({"slots": {"3": slot}}))]);
}

fn made() -> Fleet {
    let mut fleet = Fleet::new();
    slot(&mut fleet, 1, Some(ROOM));
    fleet.place(1, vm(&[]));
    fleet.pass(10);
    assert_eq!(fleet.state(1), "active", "{}", fleet.trouble(1));
    fleet
}

#[test]
fn a_successor_has_the_disks_and_the_end_of_the_slot_is_theirs() {
    let mut fleet = made();
    fleet.set(1, "draining", vm(&[("destroy", json!("replaced"))]));
    fleet.pass(20);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
    assert_eq!(fleet.provider.made().disks.len(), 1);
    fleet.set(1, "placed", vm(&[]));
    fleet.pass(20);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
    // A person's word about the machine alone is none about the slot.
    fleet.set(1, "draining", vm(&[("destroy", json!("unneeded"))]));
    fleet.pass(20);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().disks.len()), ("retired", 1));
    fleet.set(1, "placed", vm(&[]));
    fleet.pass(20);
    fleet.set(1, "draining", vm(&[("destroy", json!("shrunk"))]));
    fleet.pass(20);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().disks.len()), ("retired", 0));
}

#[test]
fn the_end_of_a_slot_is_brought_to_its_end_wherever_it_is_stopped() {
    for fuse in 0..200 {
        let mut fleet = made();
        fleet.world.light_fuse(fuse);
        fleet.set(1, "draining", vm(&[("destroy", json!("shrunk"))]));
        for _ in 0..20 {
            if fleet.world.stopped_at().is_none() {
                fleet.pass(0);
            }
        }
        let stopped = fleet.world.stopped_at().map(str::to_owned);
        fleet.restart();
        fleet.pass(30);
        let left = fleet.provider.made().disks.len();
        assert_eq!((fleet.state(1).as_str(), left), ("retired", 0), "fuse {fuse}, {stopped:?}");
        if stopped.is_none() {
            assert!(fuse > 5, "there is nothing to be stopped at");
            return;
        }
        assert!(fuse < 199, "it goes on for ever");
    }
}

/// Its agent did not hear yet that the host is to stay: the disks do.
#[test]
fn the_disks_of_a_host_that_does_not_drain_any_more_stay() {
    let mut fleet = made();
    fleet.set(1, "draining", vm(&[("destroy", json!("shrunk"))]));
    fleet.deaf = true;
    fleet.set(1, "active", vm(&[]));
    fleet.pass(30);
    assert_eq!((fleet.provider.stage(&id(1)), fleet.provider.made().disks.len()), (None, 1));
    assert_eq!(fleet.state(1), "draining", "it has heard of it");
    fleet.deaf = false;
    fleet.pass(400);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().disks.len()), ("failed", 1));
}

#[test]
fn who_has_no_slot_gets_no_disks_and_disks_elsewhere_are_named() {
    let mut fleet = Fleet::new();
    fleet.place(1, vm(&[]));
    fleet.pass(5);
    assert!(fleet.trouble(1).contains("does not say that this host has slot 3"), "{}", fleet.trouble(1));
    slot(&mut fleet, 2, None);
    fleet.pass(95);
    assert_eq!(fleet.provider.stage(&id(1)), None, "it is another host's");
    // It is tried again less and less often.
    slot(&mut fleet, 1, Some("b2.example.com"));
    fleet.pass(155);
    assert!(fleet.trouble(1).contains("they are on b2.example.com"), "{}", fleet.trouble(1));
    assert_eq!((fleet.provider.stage(&id(1)), fleet.provider.made().disks.len()), (None, 0));
    // A person says that they are lost.
    slot(&mut fleet, 1, None);
    fleet.pass(300);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
}

/// A deleted host's successor has another id. Placement says whose the disks were; before that, nobody gets them.
#[test]
fn a_successor_of_a_deleted_host_has_its_disks_wherever_it_is_stopped() {
    for fuse in 0..200 {
        let mut fleet = made();
        // That not all go at once.
        fleet.place(3, json!({}));
        fleet.pass(10);
        let gone = ["hosts", "vm/all/members", "facts/placement"].map(|of| format!("{of}/{}", name(1)));
        fleet.commit(&gone.each_ref().map(|key| (key.as_str(), Value::Null)));
        fleet.pass(20);
        assert_eq!((fleet.provider.stage(&id(1)), fleet.provider.made().disks.len()), (None, 1));
        slot(&mut fleet, 2, Some(ROOM));
        fleet.place(2, vm(&[]));
        fleet.pass(5);
        assert_eq!(fleet.provider.stage(&id(2)), None);
        assert!(fleet.trouble(2).contains("another host's"), "{}", fleet.trouble(2));
        fleet.world.light_fuse(fuse);
        let successor = json!({"host": name(2), "id": id(2), "room": ROOM, "before": [id(1)]});
        fleet.commit(&[("facts/placement/vm/kafka", json!({"slots": {"3": successor}}))]);
        for _ in 0..60 {
            if fleet.world.stopped_at().is_none() {
                fleet.pass(0);
            }
        }
        let stopped = fleet.world.stopped_at().map(str::to_owned);
        fleet.restart();
        fleet.pass(60);
        let whose = fleet.provider.made().disks["kafka.3"].0.clone();
        assert_eq!((fleet.state(2).as_str(), whose), ("active", id(2)), "fuse {fuse}, {stopped:?}");
        if stopped.is_none() {
            assert!(fuse > 3, "there is nothing to be stopped at");
            return;
        }
        assert!(fuse < 199, "it goes on for ever");
    }
}

/// Its group has another made where its own disks are others; never for those of its slot.
#[test]
fn other_disks_are_its_groups_to_see_to_and_not_those_of_a_slot() {
    let mut fleet = made();
    let said = |fleet: &mut Fleet, disks: Value| {
        let group = [("drift", json!("replace")), ("group", json!({})), ("disks", disks)];
        fleet.set(1, "active", vm(&group));
        fleet.pass(40);
        fleet.trouble(1)
    };
    let larger = json!({"size": 2, "at": "/var/lib/kafka", "volume": "kafka.3"});
    let alone = said(&mut fleet, json!({"data": larger}));
    assert!(alone.contains("only another machine can be"), "{alone}");
    let scratch = json!({"size": 1, "at": "/scratch"});
    let both = said(&mut fleet, json!({"data": larger, "scratch": scratch}));
    assert!(both.contains("its group to have another"), "{both}");
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
}
