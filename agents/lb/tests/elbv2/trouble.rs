//! AWS that does not answer, answers late, or says no.

use serde_json::json;

use crate::common::{Daemon, until};
use crate::groups::{Group, config, fleet, scratch};
use crate::moto::Moto;
use crate::{at, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_gone_or_cannot_be_read_is_not_empty() {
    let Some(moto) = Moto::start("a_group_that_is_gone_or_cannot_be_read_is_not_empty") else { return };
    let group = Group::make(&moto, "front", "ip");
    // One that is killed keeps its claim for so long.
    let scratch = scratch(&moto, &[("web", "front", "ip")], "claim = '3s'");
    scratch.apply(&fleet("web", 0..3, "")).await;
    scratch.converge();
    // All that the SDK tries by itself may take seven seconds.
    let soon = config(&moto, &[("web", "front", "ip")], "claim = '3s'");
    scratch.configure(&soon.replace("[agent.aws]\n", "[agent.aws]\nattempts = 2\n"));
    state(&scratch, 0, "draining").await;
    moto.reset();
    for (action, kind) in
        [("DescribeTargetHealth", "deny"), ("DescribeTargetGroups", "error"), ("*", "error")]
    {
        moto.fault(action, kind, 1_000);
        let (code, said) = scratch.once(3, 5, "look at the target");
        assert!(code == 1 || code == 5, "{action} {kind}: {code} {said}");
        assert!(said.contains("look at the target"), "{action} {kind}: {said}");
        moto.reset();
        assert_eq!(group.targets().into_keys().collect::<Vec<_>>(), at(0..3), "{action} {kind}");
        assert_eq!((moto.calls("RegisterTargets"), moto.calls("DeregisterTargets")), (0, 0));
    }
    // Gone, with a daemon at work that knew it.
    let daemon = Daemon::start(&scratch);
    until("it leaves", || group.names() == at(1..3));
    group.delete();
    state(&scratch, 1, "draining").await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    drop(daemon);
    assert_eq!(scratch.fact("web1.example.com").await["drained"], false);
    let (code, said) = scratch.once(8, 5, "make the group again");
    assert!(code != 0 && said.contains("make the group again"), "{code} {said}");
    assert_eq!(scratch.fact("web1.example.com").await["drained"], false);
    // Made again, it is filled with those who are to serve.
    let group = Group::make(&moto, "front", "ip");
    scratch.converge();
    assert_eq!(group.names(), at([2]));
    // A pool for which the configuration names no group is reported, and what it has stays.
    scratch.configure(&config(&moto, &[("other", "front", "ip")], ""));
    let (code, said) = scratch.once(2, 5, "no target group is named for lb/web");
    assert!(code != 0 && said.contains("no target group is named for lb/web"), "{code} {said}");
    assert_eq!(group.names(), at([2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_lost_do_nothing_twice() {
    let Some(moto) = Moto::start("answers_that_are_lost_do_nothing_twice") else { return };
    let group = Group::make(&moto, "front", "ip");
    moto.set(&json!({"draining": 0.5}));
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..12, "")).await;
    // More than may be changed without asking. A registration is not tried again by itself, a deregistration as often as the SDK tries: the
    // call as a whole has no answer, though it was done.
    for kind in ["lost", "broken"] {
        moto.fault("RegisterTargets", kind, 1);
        scratch.converge();
        assert_eq!(group.names(), at(0..12));
        moto.fault("DeregisterTargets", kind, 4);
        state(&scratch, 0, "draining").await;
        scratch.converge();
        assert_eq!(group.names(), at(1..12));
        assert_eq!(scratch.fact("web0.example.com").await["drained"], true);
        state(&scratch, 0, "active").await;
    }
    moto.fault("DescribeTargetHealth", "lost", 2);
    scratch.converge();
    assert_eq!(group.names(), at(0..12));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_targets_go_in_few_calls_and_a_bad_one_keeps_no_other() {
    let Some(moto) = Moto::start("many_targets_go_in_few_calls_and_a_bad_one_keeps_no_other") else { return };
    let group = Group::make(&moto, "front", "ip");
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..230, "")).await;
    scratch.converge();
    assert_eq!((group.names().len(), moto.calls("RegisterTargets")), (230, 3));
    // A look costs the same, whatever there is in the group.
    moto.reset();
    moto.set(&json!({"refused": ["10.0.0.241"], "draining": 0.2}));
    scratch.apply(&fleet("web", 230..245, "")).await;
    scratch.run(&["--once", "--wait", "20s"]);
    if scratch.status().await.contains("guard") {
        scratch.approve("web").await;
    }
    let (code, said) = scratch.once(12, 1, "register lb/web 10.0.0.241:80: InvalidTarget");
    assert!(code == 1 && said.contains("register lb/web 10.0.0.241:80: InvalidTarget"), "{code} {said}");
    let left = group.names();
    assert!(
        left.contains(&"10.0.0.240:80".to_owned()) && !left.contains(&"10.0.0.241:80".to_owned()),
        "{left:?}"
    );
    assert!(left.contains(&"10.0.0.242:80".to_owned()), "{left:?}");
    moto.set(&json!({"refused": []}));
    scratch.converge();
    assert_eq!(group.names().len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_throttled_slows_down_and_comes_to_an_end() {
    let Some(moto) = Moto::start("one_that_is_throttled_slows_down_and_comes_to_an_end") else { return };
    let names: Vec<String> = (0..6).map(|n| format!("pool{n}")).collect();
    let groups: Vec<Group<'_>> = names.iter().map(|name| Group::make(&moto, name, "ip")).collect();
    let pools: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str(), "ip")).collect();
    let scratch = scratch(&moto, &pools, "");
    for name in &names {
        scratch.apply(&fleet(name, 0..3, "")).await;
    }
    moto.reset();
    moto.set(&json!({"rate": 8, "burst": 4}));
    let (code, said) = scratch.run(&["--once", "--wait", "90s"]);
    assert_eq!(code, 0, "{said}");
    let log = moto.state()["log"].clone();
    let throttled = log.as_array().unwrap().iter().filter(|call| call["note"] == "throttle").count();
    let all = log.as_array().unwrap().len();
    assert!(throttled > 0 && throttled < all, "{throttled} of {all}");
    moto.set(&json!({"rate": 0}));
    for group in &groups {
        assert_eq!(group.names(), at(0..3));
    }
}
