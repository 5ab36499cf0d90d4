//! The life of machines, from `placed` to `retired`, stopped between any two effects.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

mod fleet;
mod ways;

use fleet::Fleet;
use fleet::room::{ROOM, id, machine, name};
use serde_json::{Value, json};
use shoal_agent::HostId;
use shoal_engine::Verdict;
use shoal_vm::Stage;

/// More boundaries than this in one step are taken for endless.
const MANY: usize = 500;

/// Lives through something, stopped at one boundary after the other; each time it must come to the same end.
fn stopped_anywhere(before: impl Fn(&mut Fleet), step: impl Fn(&mut Fleet), end: impl Fn(&mut Fleet, &str)) {
    let mut fuse = 0;
    loop {
        let mut fleet = Fleet::new();
        before(&mut fleet);
        fleet.world.light_fuse(fuse);
        step(&mut fleet);
        let mut stopped = None;
        // It may be stopped only once what it wrote has been heard, or some time has passed.
        for _ in 0..40 {
            fleet.world.run();
            stopped = fleet.world.stopped_at().map(str::to_owned);
            if stopped.is_some() {
                break;
            }
            fleet.pass(0);
            stopped = fleet.world.stopped_at().map(str::to_owned);
            if stopped.is_some() {
                break;
            }
        }
        let Some(stopped) = stopped else {
            assert!(fuse > 10, "there is nothing to be stopped at");
            return;
        };
        fleet.restart();
        fleet.pass(60);
        end(&mut fleet, &format!("stopped at boundary {fuse}, {stopped}"));
        fuse += 1;
        assert!(fuse < MANY, "it goes on for ever");
    }
}

fn nothing_left(fleet: &mut Fleet, at: &str) {
    fleet.restart();
    let verdict = fleet.pass(60);
    assert_eq!(verdict, Verdict::Converged, "{at}: {:?}", fleet.world.engine().troubles());
    assert_eq!(fleet.world.engine().counters().changes, 0, "{at}: something is done again");
}

#[test]
fn what_is_placed_is_made_once_and_becomes_active() {
    stopped_anywhere(
        |_| (),
        |fleet| fleet.place(1, json!({"networks": [{"name": "lan", "addresses": ["192.0.2.1/24"]}]})),
        |fleet, at| {
            assert_eq!(
                (fleet.state(1).as_str(), fleet.provider.stage(&id(1))),
                ("active", Some(Stage::Up)),
                "{at}"
            );
            assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 1, "{at}");
            let fact = fleet.row(&format!("facts/vm/{}", name(1)));
            let said = json!({
                "box": ROOM, "id": id(1), "provider": "written", "image": "debian-12", "addresses": ["192.0.2.1"],
                "size": {"cpu": 1}, "networks": [{"name": "lan", "addresses": ["192.0.2.1/24"]}], "disks": {},
            });
            assert_eq!(fact, said, "{at}");
            nothing_left(fleet, at);
        },
    );
}

#[test]
fn what_drains_with_a_reason_is_destroyed_and_retired() {
    stopped_anywhere(
        |fleet| {
            fleet.place(1, json!({}));
            fleet.place(2, json!({}));
            fleet.pass(10);
            assert_eq!((fleet.state(1).as_str(), fleet.state(2).as_str()), ("active", "active"));
        },
        |fleet| fleet.set(1, "draining", json!({"destroy": "unneeded", "grace": "3s"})),
        |fleet, at| {
            assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None), "{at}");
            assert_eq!(fleet.row(&format!("facts/vm/{}", name(1))), Value::Null, "{at}");
            assert_eq!(fleet.provider.stage(&id(2)), Some(Stage::Up), "{at}");
            nothing_left(fleet, at);
        },
    );
}

#[test]
fn a_host_that_is_deleted_takes_its_machine_along() {
    stopped_anywhere(
        |fleet| {
            fleet.commit(&[(
                &format!("facts/placement/{ROOM}"),
                json!({"holds": {"x": {}}, "ids": {"x": id(1), "y": id(2)}}),
            )]);
            for n in 1..=2 {
                fleet.place(n, json!({"grace": "3s"}));
            }
            fleet.pass(10);
        },
        // With its whole environment, in one commit.
        |fleet| {
            fleet.commit(&[
                ("vm/all", Value::Null),
                (&format!("vm/all/members/{}", name(1)), Value::Null),
                (&format!("vm/all/members/{}", name(2)), Value::Null),
                (&format!("hosts/{}", name(1)), Value::Null),
                (&format!("facts/placement/{}", name(1)), Value::Null),
            ]);
        },
        |fleet, at| {
            assert_eq!(fleet.provider.stage(&id(1)), None, "{at}");
            assert_eq!(fleet.row(&format!("facts/vm/{ROOM}")), json!({"gone": [id(1)]}), "{at}");
            // The other one is in no tag any more, and nobody said that it is to go.
            assert_eq!(fleet.provider.stage(&id(2)), Some(Stage::Up), "{at}");
            assert!(fleet.trouble(2).contains("no reason to destroy"), "{at}: {}", fleet.trouble(2));
        },
    );
}

#[test]
fn a_host_that_is_written_anew_gets_a_machine_of_its_own() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({"grace": "20s"}));
    fleet.pass(10);
    let (host, member, fact) = (
        format!("hosts/{}", name(1)),
        format!("vm/all/members/{}", name(1)),
        format!("facts/placement/{}", name(1)),
    );
    fleet.commit(&[(&host, Value::Null), (&member, Value::Null), (&fact, Value::Null)]);
    fleet.pass(5);
    let mut again = machine(1, "placed", json!({}));
    again["id"] = json!(id(7));
    fleet.commit(&[(&host, again), (&member, json!({})), (&fact, json!({"box": ROOM}))]);
    fleet.pass(60);
    assert_eq!((fleet.provider.stage(&id(1)), fleet.provider.stage(&id(7))), (None, Some(Stage::Up)));
    assert_eq!((fleet.state(1).as_str(), fleet.trouble(1)), ("active", String::new()));
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(1)))["id"], json!(id(7)));
}

#[test]
fn what_is_reported_of_another_host_stays() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({"grace": "1s"}));
    fleet.pass(10);
    let elsewhere = json!({"box": "b2.example.com", "id": id(2)});
    // It was renamed, and what is called as it was now stands on another box.
    fleet.commit(&[
        (&format!("hosts/{}", name(9)), machine(1, "active", json!({"grace": "1s"}))),
        (&format!("vm/all/members/{}", name(9)), json!({})),
        (&format!("facts/placement/{}", name(9)), json!({"box": ROOM})),
        (&format!("facts/vm/{}", name(9)), json!({"box": ROOM, "id": id(1)})),
        (&format!("hosts/{}", name(1)), machine(2, "active", json!({}))),
        (&format!("facts/placement/{}", name(1)), json!({"box": "b2.example.com"})),
        (&format!("facts/vm/{}", name(1)), elsewhere.clone()),
    ]);
    fleet.pass(40);
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
    fleet.commit(&[(&format!("hosts/{}", name(9)), machine(1, "retired", json!({"grace": "1s"})))]);
    fleet.pass(20);
    assert_eq!(fleet.provider.stage(&id(1)), None);
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(1))), elsewhere);
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(9))), Value::Null);
}

#[test]
fn what_is_placed_anew_is_another_machine() {
    stopped_anywhere(
        |fleet| {
            fleet.place(1, json!({"grace": "3s"}));
            fleet.pass(10);
            assert_eq!(fleet.state(1), "active");
        },
        // Taken for gone, as after a group's quarantine.
        |fleet| {
            for state in ["retired", "requested", "placed"] {
                fleet.set(1, state, json!({"grace": "3s"}));
            }
        },
        |fleet, at| {
            assert_eq!(
                (fleet.state(1).as_str(), fleet.provider.stage(&id(1))),
                ("active", Some(Stage::Up)),
                "{at}"
            );
            assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 2, "{at}");
            nothing_left(fleet, at);
        },
    );
}

#[test]
fn what_is_placed_anew_can_stay_and_goes_where_that_is_elsewhere() {
    let mut fleet = Fleet::new();
    for n in 1..=2 {
        fleet.place(n, json!({"grace": "20s"}));
    }
    fleet.pass(10);
    fleet.set(1, "placed", json!({"grace": "20s"}));
    fleet.pass(10);
    assert!(fleet.trouble(1).contains("destroyed (replaced) in"), "{}", fleet.trouble(1));
    fleet.set(1, "active", json!({"grace": "20s"}));
    let elsewhere = json!({"box": "b2.example.com", "id": id(2)});
    fleet.commit(&[
        (&format!("hosts/{}", name(2)), machine(2, "placed", json!({"grace": "20s"}))),
        (&format!("facts/placement/{}", name(2)), json!({"box": "b2.example.com"})),
        (&format!("facts/vm/{}", name(2)), elsewhere.clone()),
    ]);
    fleet.pass(60);
    assert_eq!((fleet.provider.stage(&id(1)), fleet.provider.stage(&id(2))), (Some(Stage::Up), None));
    assert_eq!(fleet.provider.made().creations[&HostId(id(1))], 1);
    assert_eq!(fleet.state(2), "placed", "that is for who makes it there");
    assert_eq!(fleet.row(&format!("facts/vm/{}", name(2))), elsewhere);
}

#[test]
fn the_end_can_be_taken_back() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({}));
    fleet.pass(10);
    let leaves = json!({"destroy": "unneeded", "grace": "120s"});
    fleet.set(1, "draining", leaves.clone());
    fleet.pass(50);
    assert!(fleet.trouble(1).contains("it is destroyed (unneeded) in"), "{}", fleet.trouble(1));
    fleet.set(1, "active", leaves.clone());
    // The word still stands there: forgotten, it would count when the host drains for something else.
    assert_ne!(fleet.pass(100), Verdict::Converged);
    assert!(fleet.trouble(1).contains("take `vm.destroy` (unneeded) back"), "{}", fleet.trouble(1));
    fleet.set(1, "active", json!({"grace": "120s"}));
    assert_eq!(fleet.pass(100), Verdict::Converged);
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
    // Said again, its time begins anew, also where nobody looked meanwhile.
    fleet.set(1, "draining", leaves.clone());
    fleet.pass(1);
    fleet.world.crash();
    fleet.set(1, "active", leaves.clone());
    fleet.set(1, "draining", leaves);
    fleet.restart();
    fleet.pass(50);
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
    fleet.pass(100);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
}

#[test]
fn to_drain_is_not_to_be_destroyed_and_protection_holds() {
    let mut fleet = Fleet::new();
    for n in 1..=2 {
        fleet.place(n, json!({}));
    }
    fleet.pass(10);
    fleet.set(1, "draining", json!({"grace": "1s"}));
    fleet.set(2, "draining", json!({"grace": "1s", "destroy": "unneeded", "protect": true}));
    fleet.pass(60);
    assert_eq!(fleet.trouble(1), "");
    assert!(fleet.trouble(2).contains("is protected"), "{}", fleet.trouble(2));
    // Nor is one whose host is deleted.
    fleet.commit(&[
        (&format!("hosts/{}", name(2)), Value::Null),
        (&format!("vm/all/members/{}", name(2)), Value::Null),
    ]);
    fleet.pass(60);
    assert_eq!(
        (fleet.provider.stage(&id(1)), fleet.provider.stage(&id(2))),
        (Some(Stage::Up), Some(Stage::Up))
    );
    assert!(fleet.trouble(2).contains("is protected"), "{}", fleet.trouble(2));
}

#[test]
fn it_is_not_destroyed_before_load_balancers_say_that_it_has_drained() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({}));
    let fact = format!("facts/lb/{}", name(1));
    fleet.commit(&[(&fact, json!({"drained": false, "pools": {"web": "serving"}}))]);
    fleet.pass(10);
    fleet.set(1, "draining", json!({"grace": "1s", "destroy": "replaced"}));
    fleet.pass(60);
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
    assert!(fleet.trouble(1).contains("load balancers"), "{}", fleet.trouble(1));
    fleet.commit(&[(&fact, json!({"drained": true, "pools": {"web": "drained"}}))]);
    fleet.pass(5);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
}

#[test]
fn what_expires_drains_and_goes() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({}));
    fleet.pass(10);
    // A minute from now.
    let end = fleet.world.now() / 1_000 + 60;
    let expires = format!("1970-01-01T00:{:02}:{:02}Z", end / 60, end % 60);
    let mut host = machine(1, "active", json!({"grace": "20s"}));
    host["expires"] = json!(expires);
    fleet.commit(&[(&format!("hosts/{}", name(1)), host)]);
    fleet.pass(50);
    assert_eq!(fleet.state(1), "active");
    fleet.pass(15);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("draining", Some(Stage::Up)));
    fleet.pass(30);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
}

#[test]
fn one_that_was_never_made_is_retired_at_once() {
    let mut fleet = Fleet::new();
    fleet.provider.made().blind = true;
    fleet.place(1, json!({}));
    fleet.pass(3);
    fleet.set(1, "draining", json!({"destroy": "unneeded"}));
    fleet.provider.made().blind = false;
    fleet.pass(30);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().creations.len()), ("retired", 0));
    nothing_left(&mut fleet, "the end");
}

#[test]
fn one_that_stands_by_its_own_word_is_retired_by_who_made_it() {
    let mut fleet = Fleet::new();
    for state in ["active", "draining"] {
        let mut host = machine(1, state, json!({"destroy": "shrunk", "grace": "1s"}));
        host["document"]["placement"] = json!({"on": ROOM});
        fleet.commit(&[
            (&format!("hosts/{}", name(1)), host),
            (&format!("vm/all/members/{}", name(1)), json!({})),
        ]);
        fleet.pass(60);
        assert_eq!(fleet.state(1), state);
        assert!(fleet.trouble(1).contains("nobody made"), "{}", fleet.trouble(1));
    }
    // Nor when its time is over.
    let mut host = machine(1, "active", json!({"grace": "1s"}));
    host["document"]["placement"] = json!({"on": ROOM});
    host["expires"] = json!("1970-01-01T00:00:01Z");
    fleet.commit(&[(&format!("hosts/{}", name(1)), host)]);
    fleet.pass(60);
    assert_eq!(fleet.state(1), "draining");
    assert!(fleet.trouble(1).contains("nobody made"), "{}", fleet.trouble(1));
}

#[test]
fn what_shoal_did_not_make_is_not_touched() {
    let mut fleet = Fleet::new();
    fleet.provider.made().foreign.insert(name(1));
    fleet.place(1, json!({}));
    // One that is active stands somewhere, as far as anybody knows.
    fleet.place(2, json!({}));
    fleet.set(2, "active", json!({}));
    fleet.pass(30);
    assert!(fleet.trouble(1).contains("somebody else's"), "{}", fleet.trouble(1));
    assert!(fleet.trouble(2).contains("nobody made the machine here"), "{}", fleet.trouble(2));
    assert_eq!(fleet.provider.made().creations.len(), 0);
    // Marked as Shoal's, and nothing says that it may go.
    let order = json!({"id": "id-9", "host": name(9), "token": "t", "machine": {"image": "a", "size": {}}});
    let order: shoal_vm::target::Order = serde_json::from_value(order).unwrap();
    fleet.provider.made().machines.insert(HostId(id(9)), (order, Stage::Up));
    fleet.restart();
    fleet.pass(700);
    assert_eq!(fleet.provider.stage(&id(9)), Some(Stage::Up));
}

#[test]
fn what_is_gone_is_said_and_not_made_anew_by_itself() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({}));
    fleet.pass(10);
    // That nothing can be seen says nothing.
    fleet.provider.made().blind = true;
    fleet.pass(100);
    assert_eq!(fleet.state(1), "active");
    fleet.provider.made().blind = false;
    fleet.pass(200);
    assert_eq!(fleet.state(1), "active");
    fleet.provider.made().machines.clear();
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("failed", None));
    assert!(fleet.trouble(1).contains("to have it made anew"), "{}", fleet.trouble(1));
    fleet.set(1, "placed", json!({}));
    fleet.pass(10);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
}

#[test]
fn one_that_does_not_come_up_has_failed() {
    let mut fleet = Fleet::new();
    fleet.provider.made().silent = true;
    fleet.place(1, json!({}));
    fleet.pass(10);
    let looks = fleet.world.engine().counters().steps;
    fleet.pass(500);
    assert_eq!(fleet.state(1), "building");
    let looks = fleet.world.engine().counters().steps - looks;
    assert!(looks < 100, "it is decided on {looks} times in 500 s");
    fleet.pass(120);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("failed", Some(Stage::Starting)));
    // Late, and well all the same.
    fleet.provider.made().silent = false;
    fleet.pass(60);
    assert_eq!(fleet.state(1), "active");
    // It stands in the way of no other start.
    fleet.provider.made().machines.values_mut().for_each(|(_, stage)| *stage = Stage::Stopped);
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
}

#[test]
fn one_that_cannot_be_made_has_failed() {
    let mut fleet = Fleet::new();
    fleet.provider.made().foreign.insert(name(1));
    fleet.place(1, json!({}));
    fleet.pass(620);
    fleet.world.engine().resync();
    fleet.pass(10);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().creations.len()), ("failed", 0));
    fleet.provider.made().foreign.clear();
    fleet.set(1, "placed", json!({}));
    fleet.pass(10);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("active", Some(Stage::Up)));
}

#[test]
fn what_somebody_says_has_failed_stays_so() {
    let mut fleet = Fleet::new();
    fleet.provider.made().silent = true;
    fleet.place(1, json!({}));
    fleet.pass(620);
    // What was said here before, and taken back, is no word about this.
    fleet.provider.made().silent = false;
    fleet.pass(60);
    assert_eq!(fleet.state(1), "active");
    fleet.set(1, "failed", json!({}));
    fleet.pass(100);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("failed", Some(Stage::Up)));
    assert!(fleet.trouble(1).contains("somebody says that it failed"), "{}", fleet.trouble(1));
    fleet.set(1, "active", json!({}));
    assert_eq!(fleet.pass(10), Verdict::Converged);
}

#[test]
fn one_that_stops_is_started_and_one_that_changed_is_put_right_where_that_is_said() {
    let mut fleet = Fleet::new();
    fleet.place(1, json!({"drift": "correct"}));
    fleet.place(2, json!({}));
    fleet.pass(10);
    for (_, stage) in fleet.provider.made().machines.values_mut() {
        *stage = Stage::Stopped;
    }
    fleet.pass(40);
    assert_eq!(
        (fleet.provider.stage(&id(1)), fleet.provider.stage(&id(2))),
        (Some(Stage::Up), Some(Stage::Up))
    );
    let networks = json!([{"name": "lan", "addresses": ["192.0.2.1/24"]}]);
    fleet.set(1, "active", json!({"drift": "correct", "networks": networks}));
    fleet.set(2, "active", json!({"networks": networks}));
    fleet.pass(40);
    let networks = |n: usize| fleet.provider.made().machines[&HostId(id(n))].0.machine.networks.len();
    assert_eq!((networks(1), networks(2)), (1, 0));
    assert!(fleet.trouble(2).contains("its networks"), "{}", fleet.trouble(2));
}

/// What it is made of is its group's to see to, where there is one.
#[test]
fn one_of_a_group_that_replaces_is_left_for_that() {
    let mut fleet = Fleet::new();
    let vm = |image: &str| json!({"drift": "replace", "group": {}, "image": image});
    fleet.place(1, vm("debian-12"));
    fleet.pass(10);
    fleet.set(1, "active", vm("debian-13"));
    fleet.pass(40);
    assert!(fleet.trouble(1).contains("its group to have another take its place"), "{}", fleet.trouble(1));
    let networks = json!([{"name": "lan", "addresses": ["192.0.2.1/24"]}]);
    fleet.set(1, "active", json!({"drift": "replace", "group": {}, "networks": networks}));
    fleet.pass(40);
    let said = fleet.trouble(1);
    assert!(said.contains("its group to have another") && said.contains("(its networks)"), "{said}");
    assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up));
}

/// What comes by the dozen is no mass change as long as it comes; what goes by the dozen is one.
#[test]
fn many_come_at_once_and_many_do_not_go_unasked() {
    let mut fleet = Fleet::new();
    for n in 0..30 {
        fleet.place(n, json!({"grace": "1s"}));
    }
    fleet.pass(20);
    let active = (0..30).filter(|n| fleet.state(*n) == "active").count();
    assert_eq!(active, 30, "{:?}", fleet.world.engine().troubles());
    for n in 0..15 {
        fleet.set(n, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
    }
    fleet.pass(30);
    assert_eq!(fleet.provider.made().machines.len(), 30);
    assert_eq!(fleet.world.engine().holds().count(), 1);
}

/// One that runs, and stands here by its host's word; and one that does not, of a host that was placed.
fn strangers(fleet: &mut Fleet) {
    fleet.provider.made().strange.extend([(name(1), Stage::Up), (name(2), Stage::Stopped)]);
    fleet.stand(1, "active", json!({}));
    fleet.place(2, json!({}));
    fleet.pass(10);
    for n in 1..=2 {
        assert!(fleet.trouble(n).contains("shoal adopt"), "{}", fleet.trouble(n));
    }
    assert_eq!((fleet.state(2).as_str(), fleet.provider.made().strange.len()), ("placed", 2));
}

#[test]
fn what_somebody_made_is_taken_over_once_a_person_says_so() {
    stopped_anywhere(strangers, Fleet::adopt, |fleet, at| {
        for n in 1..=2 {
            assert_eq!(
                (fleet.state(n).as_str(), fleet.provider.stage(&id(n))),
                ("active", Some(Stage::Up)),
                "{at}"
            );
            assert_eq!(fleet.row(&format!("facts/vm/{}", name(n)))["id"], json!(id(n)), "{at}");
        }
        let made = fleet.provider.made();
        assert!(made.strange.is_empty() && made.creations.is_empty(), "{at}");
        drop(made);
        nothing_left(fleet, at);
    });
}

#[test]
fn what_was_taken_over_goes_like_any_other_and_what_was_not_stays() {
    let mut fleet = Fleet::new();
    strangers(&mut fleet);
    let leaves = json!({"destroy": "unneeded", "grace": "1s"});
    fleet.stand(1, "draining", leaves.clone());
    fleet.pass(60);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.made().strange.len()), ("draining", 2));
    fleet.stand(1, "active", json!({}));
    fleet.pass(1);
    fleet.adopt();
    fleet.pass(20);
    assert_eq!(fleet.provider.made().machines.len(), 2);
    fleet.stand(1, "draining", leaves);
    fleet.pass(20);
    assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), ("retired", None));
    assert_eq!(fleet.provider.stage(&id(2)), Some(Stage::Up));
}

/// It comes while a machine of the name is being made, and looks like one: that makes it nobody else's. Nor does it that the attempts
/// took so long that their host failed.
#[test]
fn what_stands_in_the_way_of_an_attempt_is_not_what_it_made() {
    for (before, state) in [(5, "building"), (700, "failed")] {
        let mut fleet = Fleet::new();
        fleet.provider.made().foreign.insert(name(1));
        fleet.place(1, json!({}));
        fleet.pass(before);
        fleet.world.engine().resync();
        fleet.pass(10);
        assert_eq!(fleet.state(1), state, "{before}");
        fleet.provider.made().foreign.clear();
        fleet.provider.made().strange.insert(name(1), Stage::Up);
        fleet.world.engine().resync();
        fleet.pass(40);
        assert_eq!((fleet.state(1).as_str(), fleet.provider.stage(&id(1))), (state, None), "{before}");
        assert!(fleet.trouble(1).contains("shoal adopt"), "{before}: {}", fleet.trouble(1));
        fleet.adopt();
        fleet.pass(20);
        assert_eq!(fleet.provider.stage(&id(1)), Some(Stage::Up), "{before}");
        assert_eq!(fleet.provider.made().creations.len(), 0);
        assert!(before > 5 || fleet.state(1) == "active", "{}", fleet.trouble(1));
    }
}
