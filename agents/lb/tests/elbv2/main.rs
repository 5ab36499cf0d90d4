//! Target groups, in what answers as AWS does (`tests/aws/moto_plus.py`): targets that are `initial` and `draining`, answers that are lost,
//! too many calls. What this does not prove, `docs/agents/lb.md` says.

#![cfg(feature = "elbv2")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code"
)]

#[path = "../common/mod.rs"]
mod common;
mod groups;
mod kills;
#[path = "../../../../tests/aws/moto.rs"]
mod moto;
mod others;
mod trouble;

use groups::{Group, fleet, scratch};
use moto::Moto;
use serde_json::json;

/// `10.0.0.1:80`, …, as the hosts of [`fleet`] are registered in a group of addresses, in the order of their names.
fn at(hosts: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut all: Vec<_> = hosts.into_iter().map(|n| format!("10.0.0.{}:80", n + 1)).collect();
    all.sort_unstable();
    all
}

async fn state(scratch: &common::Scratch, host: usize, state: &str) {
    scratch
        .edit(json!([{"edit": "set_state", "host": format!("web{host}.example.com"), "state": state}]))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_registered_and_leave_by_draining() {
    let Some(moto) = Moto::start("members_are_registered_and_leave_by_draining") else { return };
    let group = Group::make(&moto, "front", "ip");
    moto.set(&json!({"initial": 0.2, "draining": 3600.0}));
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..3, "")).await;
    scratch.converge();
    assert_eq!(group.names(), at(0..3));
    common::until("they are healthy", || group.targets().values().all(|state| state == "healthy"));
    assert_eq!(
        scratch.fact("web0.example.com").await,
        json!({"drained": false, "pools": {"web": "serving"}, "targets": ["10.0.0.1:80"]})
    );
    assert_eq!(moto.calls("RegisterTargets"), 1);
    // Nothing is left to do, and nothing is changed.
    scratch.converge();
    assert_eq!((moto.calls("RegisterTargets"), moto.calls("DeregisterTargets")), (1, 0));
    // Waiting is state: of one host, while others come and go.
    state(&scratch, 0, "draining").await;
    let (code, said) = scratch.once(3, 5, "waiting: draining of web0.example.com, at most ");
    assert!(code == 5 && said.contains("waiting: draining of web0.example.com, at most "), "{code} {said}");
    let left = |said: &str| -> u32 {
        let text = said.split("at most ").nth(1).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    // The group's delay, and not the pool's 60 s.
    let first = left(&said);
    assert!((200..=300).contains(&first), "{said}");
    assert_eq!(group.targets()["10.0.0.1:80"], "draining");
    assert_eq!(scratch.fact("web0.example.com").await["pools"]["web"], "draining");
    scratch
        .apply(
            &fleet("web", 3..4, "")
                .replace("members: [", "members: [web0.example.com, web1.example.com, web2.example.com, "),
        )
        .await;
    let mut said = String::new();
    common::until("the fourth is registered", || {
        let (code, last) = scratch.once(3, 5, "at most ");
        assert_eq!(code, 5, "{last}");
        said = last;
        group.names() == at(0..4)
    });
    // The deadline did not begin anew with the agent.
    assert!(left(&said) < first, "{said}");
    assert_eq!(moto.calls("DeregisterTargets"), 1);
    // It comes back on the way, and leaves again, to the end.
    state(&scratch, 0, "active").await;
    scratch.converge();
    assert_ne!(group.targets()["10.0.0.1:80"], "draining");
    assert_eq!(scratch.fact("web0.example.com").await["pools"]["web"], "serving");
    state(&scratch, 0, "draining").await;
    moto.set(&json!({"draining": 1.0}));
    scratch.converge();
    assert_eq!(group.names(), at(1..4));
    let fact = json!({"drained": true, "pools": {"web": "drained"}, "targets": []});
    assert_eq!(scratch.fact("web0.example.com").await, fact);
    // One goes while nobody looks, and its host comes back with another address: that is one batch, and one fact.
    moto.set(&json!({"draining": 3600.0}));
    state(&scratch, 1, "draining").await;
    assert_eq!(scratch.once(2, 5, "waiting: draining of web1.example.com").0, 5);
    moto.set(&json!({"draining": 0.0}));
    scratch.apply("host: web1.example.com\ndocument: {address: 10.0.0.99}\n").await;
    state(&scratch, 1, "active").await;
    scratch.converge();
    assert_eq!(
        scratch.fact("web1.example.com").await,
        json!({"drained": false, "pools": {"web": "serving"}, "targets": ["10.0.0.99:80"]})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_registered_as_what_its_group_holds() {
    let Some(moto) = Moto::start("a_host_is_registered_as_what_its_group_holds") else { return };
    let group = Group::make(&moto, "front", "instance");
    // Of a group that is named by its ARN, no name is asked.
    let scratch = scratch(&moto, &[("web", &group.arn, "instance")], "");
    scratch.apply(&fleet("web", 0..2, "")).await;
    scratch.converge();
    assert_eq!(group.names(), ["i-00000000:80", "i-00000001:80"]);
    // One of which nobody knows which instance it is: it is reported, and stays as it is.
    scratch.apply("host: web1.example.com\ndocument: {address: 10.0.0.2}\n").await;
    let (code, said) = scratch.once(3, 5, "does not say which instance it is");
    assert!(code != 0 && said.contains("does not say which instance it is"), "{code} {said}");
    assert_eq!(group.names(), ["i-00000000:80", "i-00000001:80"]);
    // With another id and another port it is another target, and the old one leaves.
    scratch
        .apply("host: web1.example.com\ndocument: {instance_id: i-0123456789abcdef0, lb: {port: 81}}\n")
        .await;
    scratch.converge();
    assert_eq!(group.names(), ["i-00000000:80", "i-0123456789abcdef0:81"]);
    assert_eq!(
        scratch.fact("web1.example.com").await,
        json!({"drained": false, "pools": {"web": "serving"}, "targets": ["i-0123456789abcdef0:81"]})
    );
    // The configuration says what the group holds, and is found wrong.
    scratch.configure(&groups::config(&moto, &[("web", &group.arn, "ip")], ""));
    let (code, said) = scratch.once(2, 1, "it holds targets of type \"instance\"");
    assert!(code == 1 && said.contains("it holds targets of type \"instance\""), "{code} {said}");
    assert_eq!(group.names(), ["i-00000000:80", "i-0123456789abcdef0:81"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_number_stays_at_work() {
    let Some(moto) = Moto::start("the_least_number_stays_at_work") else { return };
    let group = Group::make(&moto, "front", "ip");
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..3, ", least: 2")).await;
    scratch.converge();
    // One of three may leave, and two at once may not.
    for host in [0, 1] {
        state(&scratch, host, "draining").await;
    }
    let (code, said) = scratch.once(4, 5, "lb/web to have a target to spare before web");
    assert!(code == 5 && said.contains("lb/web to have a target to spare before web"), "{code} {said}");
    assert_eq!(group.names().len(), 2);
    // One whose checks fail does no work: it may go at any time, and does not count.
    moto.set(&json!({"unhealthy": ["10.0.0.3"]}));
    let (code, said) = scratch.run(&["--once", "--wait", "4s"]);
    assert_eq!((code, group.names().len()), (5, 2), "{said}");
    moto.set(&json!({"unhealthy": []}));
    // What the pool says now counts, though the one that waits is none of its members any more.
    scratch.apply("tag: lb/web\ndocument: {port: 80, least: 1}\n").await;
    scratch.converge();
    assert_eq!(group.names(), at([2]));
    // The pool goes: then there is nothing left to have a least number.
    scratch.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    scratch.converge();
    assert_eq!(group.names(), at([]));
    assert_eq!(scratch.fact("web2.example.com").await["drained"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_cannot_do_is_said_and_the_group_stays_as_it_is() {
    let Some(moto) = Moto::start("what_a_group_cannot_do_is_said_and_the_group_stays_as_it_is") else {
        return;
    };
    let group = Group::make(&moto, "front", "ip");
    group.attribute("deregistration_delay.timeout_seconds", "20");
    moto.reset();
    let scratch = scratch(&moto, &[("web", "front", "ip")], "claim = '3s'");
    let more = ", balance: least_connections, slow_start: 40, drain: 60, check: {path: /up, interval: 7}, frontends: ['192.0.2.1:80']";
    scratch.apply(&fleet("web", 0..2, more)).await;
    let (code, said) = scratch.once(3, 4, "deregistration_delay");
    assert_eq!(code, 4, "{said}");
    for words in [
        "deregistration_delay.timeout_seconds is 20",
        "load_balancing.algorithm.type is round_robin",
        "slow_start.duration_seconds is 0",
        "check.path is",
        "check.interval is 30",
        "listeners are no business of a group",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // It holds nothing up, and changes nothing of the group.
    assert_eq!(group.names(), at(0..2));
    assert_eq!((moto.calls("ModifyTargetGroupAttributes"), moto.calls("ModifyTargetGroup")), (0, 0));
    // What is not said is left to it.
    scratch.apply("tag: lb/web\ndocument: {port: 80}\n").await;
    scratch.converge();
    // Shares there are none: another one is said to have no effect, and no share is no target.
    scratch.apply("host: web0.example.com\ndocument: {address: 10.0.0.1, lb: {weight: 7}}\n").await;
    let daemon = common::Daemon::start(&scratch);
    let mut told = String::new();
    for _ in 0..600 {
        told = scratch.status().await;
        if told.contains("has no effect") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(told.contains("weight 7 has no effect"), "{told}");
    drop(daemon);
    assert_eq!(group.names(), at(0..2));
    scratch.apply("host: web0.example.com\ndocument: {address: 10.0.0.1, lb: {weight: 0}}\n").await;
    scratch.converge();
    assert_eq!(group.names(), at([1]));
    // How many have to stay is said by a document that cannot be understood: nobody leaves, and that is why.
    scratch.apply("tag: lb/web\ndocument: {port: 80, protocol: tcp, check: {path: /up}}\n").await;
    state(&scratch, 1, "draining").await;
    let (code, said) = scratch.once(2, 5, "how many targets have to stay is not known");
    assert!(code != 0 && said.contains("how many targets have to stay is not known"), "{code} {said}");
    assert_eq!(group.names(), at([1]));
}
