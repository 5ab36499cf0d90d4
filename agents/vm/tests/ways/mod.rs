//! Making a machine by one of several ways, and one that its provider takes away.

use serde_json::json;
use shoal_agent::HostId;
use shoal_vm::Stage;

use super::fleet::Fleet;
use super::fleet::room::id;
use super::{nothing_left, stopped_anywhere};

/// Each way to make a machine is tried once at a time, and the next one only after the one before it was refused, whoever is stopped when.
#[test]
fn where_one_way_has_no_room_another_is_tried() {
    stopped_anywhere(
        |fleet| fleet.provider.made().full = 2,
        |fleet| fleet.place(1, json!({})),
        |fleet, at| {
            assert_eq!(
                (fleet.state(1).as_str(), fleet.provider.stage(&id(1))),
                ("active", Some(Stage::Up)),
                "{at}"
            );
            let made = fleet.provider.made();
            assert_eq!(made.creations[&HostId(id(1))], 1, "{at}");
            let ways: Vec<u32> = made.attempts.iter().map(|attempt| attempt.way).collect();
            assert!(
                ways.is_sorted() && ways.first() == Some(&0) && ways.last() == Some(&2),
                "{at}: {ways:?}"
            );
            let placed = made.attempts[0].placed;
            assert!(placed.is_some() && made.attempts.iter().all(|one| one.placed == placed), "{at}");
            drop(made);
            nothing_left(fleet, at);
        },
    );
}

#[test]
fn what_has_no_room_at_all_is_said_and_asked_for_again() {
    let mut fleet = Fleet::new();
    fleet.provider.made().full = 3;
    fleet.place(1, json!({}));
    fleet.pass(10);
    assert_eq!(fleet.state(1), "building");
    assert!(fleet.trouble(1).contains("room for it"), "{}", fleet.trouble(1));
    assert_eq!(fleet.provider.made().attempts.len(), 3);
    fleet.provider.made().full = 0;
    fleet.pass(40);
    assert_eq!(fleet.state(1), "active");
    let last = fleet.provider.made().attempts.last().copied().unwrap();
    assert_eq!(last.way, 3, "an attempt that was refused is not made again");
    // Another placing is another creation, from the first way on.
    fleet.provider.made().machines.clear();
    fleet.pass(60);
    fleet.set(1, "placed", json!({}));
    fleet.pass(10);
    assert_eq!(fleet.state(1), "active");
    let next = fleet.provider.made().attempts.last().copied().unwrap();
    assert!(next.way == 0 && next.placed > last.placed, "{last:?} {next:?}");
}

#[test]
fn what_its_provider_takes_away_has_failed_before_it_is_gone() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({}));
    fleet.place(2, json!({}));
    fleet.pass(10);
    fleet.provider.made().leaving.insert(HostId(id(1)), "marked-for-termination".to_owned());
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.state(2).as_str()), ("failed", "active"));
    assert!(fleet.trouble(1).contains("marked-for-termination"), "{}", fleet.trouble(1));
    // That it still runs does not make it active again; nor does a restart.
    fleet.restart();
    fleet.pass(100);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("failed", Some(Stage::Up)));
    fleet.provider.made().machines.remove(&HostId(id(1)));
    fleet.pass(60);
    assert!(fleet.trouble(1).contains("it failed, and is not there"), "{}", fleet.trouble(1));
    fleet.provider.made().leaving.clear();
    fleet.set(1, "placed", json!({}));
    fleet.pass(10);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
}
