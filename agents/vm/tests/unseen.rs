//! What was made, is not seen yet, and is not to be any more: nobody takes it for gone before it can be. A provider that sees late has
//! others than the process that made it wait for so long.

mod fleet;

use fleet::Fleet;
use fleet::room::{ROOM, id, name};
use serde_json::{Value, json};
use shoal_agent::HostId;
use shoal_vm::Stage;

/// How long what was made may not be seen here, in seconds.
const UNSEEN: i64 = 600;

/// A box whose agent is killed once it has made the machine of host 1, which nobody sees.
fn killed(vm: &Value) -> Fleet {
    let mut fuse = 0;
    loop {
        let mut fleet = Fleet::new();
        fleet.sees_within(UNSEEN * 1_000);
        fleet.provider.made().hidden = true;
        fleet.place(1, vm.clone());
        fleet.world.light_fuse(fuse);
        for _ in 0..10 {
            if fleet.world.stopped_at().is_none() {
                fleet.world.advance(1_000);
            }
        }
        assert!(fleet.world.stopped_at().is_some(), "it is never made");
        if fleet.provider.stage(&id(1)).is_some() {
            return fleet;
        }
        fuse += 1;
    }
}

fn is_waited_for(fleet: &mut Fleet) {
    fleet.restart();
    fleet.pass(60);
    assert!(fleet.trouble(1).contains("may have been made"), "{}", fleet.trouble(1));
    assert!(fleet.provider.stage(&id(1)).is_some());
}

fn is_seen(fleet: &mut Fleet) {
    fleet.provider.made().hidden = false;
    fleet.pass(60);
    assert_eq!(fleet.trouble(1), "");
}

#[test]
fn one_whose_host_drains_is_not_retired_before_it_is_destroyed() {
    let mut fleet = killed(&json!({}));
    fleet.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
    is_waited_for(&mut fleet);
    assert_eq!(fleet.state(1), "draining");
    is_seen(&mut fleet);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
    assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 1);
}

#[test]
fn one_whose_host_is_deleted_is_destroyed_and_said_to_be_gone() {
    let mut fleet = killed(&json!({"grace": "1s"}));
    fleet.commit(&[
        (&format!("facts/placement/{ROOM}"), json!({"holds": {"x": {}}, "ids": {"x": id(1)}})),
        (&format!("hosts/{}", name(1)), Value::Null),
        (&format!("vm/all/members/{}", name(1)), Value::Null),
        (&format!("facts/placement/{}", name(1)), Value::Null),
    ]);
    is_waited_for(&mut fleet);
    is_seen(&mut fleet);
    assert_eq!(fleet.provider.stage(&id(1)), None);
    assert_eq!(fleet.row(&format!("facts/vm/{ROOM}")), json!({"gone": [id(1)]}));
}

#[test]
fn one_whose_host_is_placed_anew_is_not_made_twice() {
    let mut fleet = killed(&json!({"grace": "1s"}));
    fleet.set(1, "placed", json!({"grace": "1s"}));
    is_waited_for(&mut fleet);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().attempts.len()), ("placed", 1));
    // It goes before another takes its place.
    is_seen(&mut fleet);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
    assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 2);
}

/// It counts from the last attempt.
#[test]
fn one_that_is_not_seen_in_time_counts_as_none() {
    for (before, least) in [(0, UNSEEN), (200, UNSEEN + 50)] {
        let mut fleet = killed(&json!({}));
        let begun = fleet.world.now();
        if before > 0 {
            fleet.restart();
            fleet.pass(before);
            assert!(fleet.provider.made().attempts.len() > 1, "it is tried again");
        }
        fleet.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
        fleet.restart();
        for _ in 0..1_000 {
            if fleet.state(1) != "draining" {
                break;
            }
            fleet.pass(0);
        }
        let after = (fleet.world.now() - begun) / 1_000;
        assert_eq!(fleet.state(1), "retired", "{before}: {}", fleet.trouble(1));
        assert!(after >= least, "{before}: retired after {after} s");
    }
}
