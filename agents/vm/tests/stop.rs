//! Machines that take long to stop: nobody waits for them but their own hosts.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod fleet;

use fleet::Fleet;
use fleet::room::{id, machine, name};
use serde_json::{Value, json};
use shoal_agent::HostId;
use shoal_vm::Stage;

fn slow(seconds: u32) -> Fleet {
    let mut fleet = Fleet::new();
    for n in 1..=2 {
        fleet.place(n, json!({"grace": "1s", "drift": "correct"}));
    }
    fleet.pass(10);
    fleet.provider.made().slow = seconds;
    fleet
}

#[test]
fn one_that_takes_long_to_stop_holds_nobody_up() {
    let mut fleet = slow(30);
    fleet.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
    fleet.pass(5);
    fleet.place(3, json!({}));
    fleet.pass(5);
    assert_eq!((fleet.state(3).as_str(), fleet.provider.stage(&id(3))), ("active", Some(Stage::Up)));
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("draining", Some(Stage::Up)));
    assert!(fleet.trouble(1).contains("goes on"), "{}", fleet.trouble(1));
    // Another takes over in the middle, and goes on.
    fleet.restart();
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(1))), Value::Null);
    assert_eq!(fleet.provider.stage(&id(2)), Some(Stage::Up));
}

#[test]
fn one_whose_host_is_deleted_is_waited_for_in_the_same_way() {
    let mut fleet = slow(20);
    fleet.commit(&[
        (&format!("vm/all/members/{}", name(1)), Value::Null),
        (&format!("hosts/{}", name(1)), Value::Null),
        (&format!("facts/placement/{}", name(1)), Value::Null),
    ]);
    fleet.pass(5);
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
    fleet.pass(60);
    assert_eq!(fleet.provider.stage(&id(1)), None);
    assert!(!fleet.provider.made().machines.contains_key(&HostId(id(1))));
}

#[test]
fn one_that_is_to_stay_after_all_is_started_again() {
    let mut fleet = slow(10);
    fleet.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
    fleet.pass(5);
    fleet.set(1, "active", json!({"grace": "1s"}));
    // What it was told it does, soon.
    fleet.pass(1);
    fleet.provider.made().machines.get_mut(&HostId(id(1))).unwrap().1 = Stage::Stopped;
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
    assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 1);
}

/// It is seen stopped before it was put right, and is not started as it was.
#[test]
fn one_that_is_put_right_is_stopped_once() {
    let mut fleet = slow(5);
    let networks = json!([{"name": "lan", "addresses": ["192.0.2.1/24"]}]);
    fleet.commit(&[(
        &format!("hosts/{}", name(1)),
        machine(1, "active", json!({"grace": "1s", "drift": "correct", "networks": networks})),
    )]);
    fleet.pass(60);
    let networks = fleet.provider.made().machines[&HostId(id(1))].0.machine.networks.len();
    assert_eq!((networks, fleet.provider.stage(&id(1))), (1, Some(Stage::Up)));
    let started = fleet.world.engine().changes().iter().filter(|((verb, _), _)| *verb == "start");
    assert_eq!(started.map(|(_, n)| *n).sum::<u64>(), 0);
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(1)))["addresses"], json!(["192.0.2.1"]));
    assert!(fleet.provider.made().asked.is_empty());
}
