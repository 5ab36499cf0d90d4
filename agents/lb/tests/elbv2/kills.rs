//! An agent that is killed: between a call and the ledger, while a target drains, and anywhere.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::common::{Daemon, Scratch, until};
use crate::groups::{Group, fleet, scratch};
use crate::moto::Moto;
use crate::{at, state};

/// Kills the agent while a call of this action is on its way, which is done after that.
fn kill_in(scratch: &Scratch, moto: &Moto, action: &str) {
    moto.reset();
    moto.fault_with(&json!({"action": action, "kind": "slow", "seconds": 2.0, "times": 1}));
    let daemon = Daemon::start(scratch);
    until("it calls", || moto.calls(action) > 0);
    drop(daemon);
    let done = || moto.state()["log"].as_array().unwrap().iter().any(|call| call["action"] == action);
    until("the call is done", done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_by_one_that_was_killed_is_known() {
    let Some(moto) = Moto::start("what_was_begun_by_one_that_was_killed_is_known") else { return };
    let group = Group::make(&moto, "front", "ip");
    let scratch = scratch(&moto, &[("web", "front", "ip")], "claim = '3s'");
    scratch.apply(&fleet("web", 0..2, ", least: 0")).await;
    kill_in(&scratch, &moto, "RegisterTargets");
    assert_eq!(group.names(), at(0..2));
    // They are Shoal's, and no clash; nothing is registered twice, and it is reported that they serve.
    scratch.converge();
    assert_eq!(moto.calls("RegisterTargets"), 1);
    assert_eq!(scratch.fact("web0.example.com").await["pools"]["web"], "serving");
    // Killed in the middle of a deregistration, after which nothing is left to look at.
    moto.set(&json!({"draining": 0.0}));
    state(&scratch, 0, "draining").await;
    kill_in(&scratch, &moto, "DeregisterTargets");
    assert_eq!(group.names(), at([1]));
    assert_eq!(scratch.fact("web0.example.com").await["drained"], false);
    scratch.converge();
    assert_eq!(
        scratch.fact("web0.example.com").await,
        json!({"drained": true, "pools": {"web": "drained"}, "targets": []})
    );
    // And while the last one drains.
    moto.set(&json!({"draining": 3600.0}));
    state(&scratch, 1, "draining").await;
    let daemon = Daemon::start(&scratch);
    until("it drains", || group.targets()["10.0.0.2:80"] == "draining");
    sleep(Duration::from_millis(1500));
    drop(daemon);
    moto.set(&json!({"draining": 0.0}));
    assert_eq!(group.names(), at([]));
    scratch.converge();
    assert_eq!(scratch.fact("web1.example.com").await["drained"], true);
    // One that was registered and is wanted no more when the agent comes back is Shoal's to take out.
    state(&scratch, 0, "active").await;
    kill_in(&scratch, &moto, "RegisterTargets");
    assert_eq!(group.names(), at([0]));
    state(&scratch, 0, "draining").await;
    scratch.converge();
    assert_eq!(group.names(), at([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_time_it_ends_where_it_would_have() {
    let Some(moto) = Moto::start("killed_at_any_time_it_ends_where_it_would_have") else { return };
    let group = Group::make(&moto, "front", "ip");
    group.by_hand("RegisterTargets", "10.9.9.9", "443");
    moto.set(&json!({"initial": 0.1, "draining": 0.5}));
    let scratch = scratch(&moto, &[("web", "front", "ip")], "claim = '3s'");
    scratch.apply(&fleet("web", 0..4, "")).await;
    scratch.converge();
    let mut moment = 0;
    for round in 0..4 {
        let host = round % 3;
        for to in ["draining", "active"] {
            state(&scratch, host, to).await;
            for _ in 0..4 {
                let daemon = Daemon::start(&scratch);
                // Another moment each time: from before it has read anything to when all is done.
                sleep(Duration::from_millis(60 + 70 * (moment % 9)));
                drop(daemon);
                moment += 1;
            }
            scratch.converge();
            let expected = at((0..4).filter(|n| *n != host || to == "active"));
            assert_eq!(
                group.names(),
                [expected, vec!["10.9.9.9:443".to_owned()]].concat(),
                "round {round}, {to}"
            );
            let fact = scratch.fact(&format!("web{host}.example.com")).await;
            assert_eq!(fact["drained"], to == "draining", "round {round}, {to}: {fact}");
        }
    }
    assert_eq!(group.targets()["10.9.9.9:443"], "healthy");
}
