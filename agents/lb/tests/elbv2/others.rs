//! Others at the same groups: people, other pools, other agents.

use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Daemon, Scratch, until};
use crate::groups::{Group, config, fleet, scratch};
use crate::moto::Moto;
use crate::{at, state};

#[tokio::test(flavor = "multi_thread")]
async fn what_others_registered_is_theirs() {
    let Some(moto) = Moto::start("what_others_registered_is_theirs") else { return };
    let group = Group::make(&moto, "front", "ip");
    // One that nobody else wants, and one that a pool wants, too.
    group.by_hand("RegisterTargets", "10.9.9.9", "443");
    group.by_hand("RegisterTargets", "10.0.0.1", "80");
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..3, "")).await;
    let clash = "lb/web 10.0.0.1:80 is there already and Shoal did not make it";
    let (code, said) = scratch.once(3, 4, clash);
    assert!(code == 4 && said.contains(clash), "{code} {said}");
    let all = [at(0..3), vec!["10.9.9.9:443".to_owned()]].concat();
    assert_eq!(group.names(), all);
    // All of Shoal's leave, and nothing else.
    for host in 0..3 {
        state(&scratch, host, "draining").await;
    }
    scratch.apply("tag: lb/web\ndocument: {port: 80, least: 0}\n").await;
    converge_agreeing(&scratch).await;
    assert_eq!(group.names(), ["10.0.0.1:80", "10.9.9.9:443"]);
    assert!(group.targets().values().all(|state| state == "healthy"));
    // What somebody deregisters of what is Shoal's is drift; a host that is paused stays as it is.
    state(&scratch, 1, "active").await;
    state(&scratch, 2, "active").await;
    scratch.converge();
    group.by_hand("DeregisterTargets", "10.0.0.2", "80");
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    scratch.pause("web1.example.com", true).await;
    group.by_hand("DeregisterTargets", "10.0.0.2", "80");
    scratch.run(&["--once", "--wait", "2s"]);
    assert!(!group.names().contains(&"10.0.0.2:80".to_owned()));
    scratch.pause("web1.example.com", false).await;
    scratch.converge();
    assert!(group.names().contains(&"10.0.0.2:80".to_owned()));
}

/// Converges, and agrees to what is held on the way, if something is.
async fn converge_agreeing(scratch: &Scratch) {
    // A machine that stalls may take all of the time before anything was looked at.
    for _ in 0..10 {
        if scratch.run(&["--once", "--wait", "5s"]).0 == 0 {
            break;
        }
        if scratch.status().await.contains("\"digest\"") {
            scratch.approve("web").await;
        }
    }
    scratch.converge();
}

/// Converges for a moment, again and again, until this is the fact of a host.
async fn converge_until(scratch: &Scratch, host: &str, expected: &Value) {
    for _ in 0..20 {
        scratch.run(&["--once", "--wait", "4s"]);
        if scratch.fact(host).await == *expected {
            break;
        }
    }
    assert_eq!(scratch.fact(host).await, *expected);
}

/// What the agents of a database say of themselves, when it has all of this in it, or at the end of a minute.
async fn says(scratch: &Scratch, all: &[String]) -> String {
    let mut said = String::new();
    for _ in 0..1_200 {
        said = scratch.status().await;
        if all.iter().all(|words| said.contains(words)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    said
}

/// What is said of a target that a pool wants and somebody else registered.
fn clash(pool: &str, target: &str) -> String {
    format!("lb/{pool} {target} is there already and Shoal did not make it")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pools_on_one_group_never_share_a_target() {
    let Some(moto) = Moto::start("two_pools_on_one_group_never_share_a_target") else { return };
    let group = Group::make(&moto, "front", "ip");
    let pools = [("blue", "front", "ip"), ("green", "front", "ip")];
    for round in 0..3 {
        let scratch = scratch(&moto, &pools, "claim = '3s'");
        // Both want the hosts 0 to 3; each has some of its own. Two instances begin at once.
        let blue = fleet("blue", 0..6, ", least: 0");
        let green = fleet("green", 0..4, ", least: 0");
        let own = fleet("green", 6..8, "").split("tag:").next().unwrap().to_owned();
        let green = green.replace("members: [", "members: [web6.example.com, web7.example.com, ");
        let own = own.trim_end().trim_end_matches("---");
        for documents in [own, &blue, &green] {
            scratch.apply(documents).await;
        }
        moto.reset();
        let (one, two) = (Daemon::start(&scratch), Daemon::start(&scratch));
        until("all are registered", || group.names() == at(0..8));
        let both = at(0..4);
        let there: Vec<_> = both.iter().map(|target| format!("{target} is there already")).collect();
        let clashes = says(&scratch, &there).await;
        // Each of those that both want is one pool's, and the other one says so.
        for target in both {
            let [blue, green] = ["blue", "green"].map(|pool| clashes.contains(&clash(pool, &target)));
            assert!(blue != green, "round {round}, {target}: blue {blue}, green {green}: {clashes}");
        }
        drop((one, two));
        // One pool goes: what the other one has stays at work.
        scratch.edit(json!([{"edit": "delete", "key": "lb/blue"}])).await;
        let (code, said) = scratch.run(&["--once", "--wait", "60s"]);
        let left = group.names();
        assert!(at(6..8).iter().all(|own| left.contains(own)), "round {round}: {left:?} {code} {said}");
        assert!(!left.contains(&"10.0.0.6:80".to_owned()), "round {round}: {left:?} {code} {said}");
        // What it had of the others is green's now.
        scratch.converge();
        assert_eq!(group.names(), [at(0..4), at(6..8)].concat(), "round {round}");
        scratch.edit(json!([{"edit": "delete", "key": "lb/green"}])).await;
        scratch.converge();
        assert_eq!(group.names(), at([]), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_databases_on_one_group_leave_each_other_what_is_theirs() {
    let Some(moto) = Moto::start("two_databases_on_one_group_leave_each_other_what_is_theirs") else {
        return;
    };
    let group = Group::make(&moto, "front", "ip");
    // Looked at as a whole at the start, and not again while this goes on.
    let more = "claim = '3s'\nresync = '1h'";
    let [one, two] = [(); 2].map(|()| scratch(&moto, &[("web", "front", "ip")], more));
    one.apply(&fleet("web", 0..4, ", least: 0")).await;
    two.apply(&fleet("web", 4..6, ", least: 0")).await;
    let daemon = Daemon::start(&two);
    until("the second has registered its own", || group.names() == at(4..6));
    one.converge();
    assert_eq!(group.names(), at(0..6));
    // The second knows the group as it was before, and wants two of the first's. No claim keeps it from that, but the look right before.
    moto.reset();
    two.apply(&fleet("web", 2..6, ", least: 0")).await;
    let clashes: Vec<_> = at(2..4).iter().map(|target| clash("web", target)).collect();
    let said = says(&two, &clashes).await;
    assert!(clashes.iter().all(|clash| said.contains(clash)), "{said}");
    drop(daemon);
    // One of the two is wanted no more: it was never the second's to take out.
    state(&two, 2, "draining").await;
    let (code, said) = two.once(3, 4, &clashes[1]);
    assert!(code == 4 && said.contains(&clashes[1]) && !said.contains(&clashes[0]), "{code} {said}");
    assert_eq!((moto.calls("RegisterTargets"), moto.calls("DeregisterTargets")), (0, 0));
    assert_eq!(group.names(), at(0..6));
    // Where the first takes its own out, the second gets what it still wants, and then that is the second's.
    for host in [2, 3] {
        state(&one, host, "draining").await;
    }
    one.converge();
    assert_eq!(group.names(), at([0, 1, 4, 5]));
    assert_eq!(one.fact("web3.example.com").await["drained"], true);
    two.converge();
    assert_eq!(group.names(), at([0, 1, 3, 4, 5]));
    state(&one, 3, "active").await;
    let (code, said) = one.once(3, 4, &clashes[1]);
    assert!(code == 4 && said.contains(&clashes[1]), "{code} {said}");
    // The first's pool goes, and with it what is the first's.
    one.edit(json!([{"edit": "delete", "key": "lb/web"}])).await;
    one.converge();
    assert_eq!(group.names(), at(3..6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_drained_when_no_pool_has_it_any_more() {
    let Some(moto) = Moto::start("a_host_has_drained_when_no_pool_has_it_any_more") else { return };
    let (front, back) = (Group::make(&moto, "front", "ip"), Group::make(&moto, "back", "instance"));
    // Of a pool that nobody has, a line is left, and no group.
    let pools = [("web", "front", "ip"), ("api", "back", "instance"), ("old", "nobodys", "ip")];
    let scratch = scratch(&moto, &pools, "");
    scratch.apply(&fleet("web", 0..2, "")).await;
    scratch.apply("tag: lb/api\ndocument: {port: 90, least: 1}\nmembers: [web0.example.com]\n").await;
    scratch.converge();
    assert_eq!((front.names(), back.names()), (at(0..2), vec!["i-00000000:90".to_owned()]));
    state(&scratch, 0, "draining").await;
    let (code, said) = scratch.once(4, 5, "lb/api to have a target to spare");
    assert!(code == 5 && said.contains("lb/api to have a target to spare"), "{code} {said}");
    assert_eq!(front.names(), at([1]));
    // It is at work in the other one, which knows it by another name.
    let serves = json!({"drained": false, "pools": {"api": "serving", "web": "drained"}, "targets": ["i-00000000:90"]});
    assert_eq!(scratch.fact("web0.example.com").await, serves);
    scratch.apply("tag: lb/api\ndocument: {port: 90, least: 0}\n").await;
    scratch.converge();
    assert_eq!(back.names(), at([]));
    assert_eq!(scratch.fact("web0.example.com").await["drained"], true);
    // What a pool has that the configuration names no more, nobody knows.
    scratch.apply("tag: lb/api\ndocument: {port: 90, least: 0}\nmembers: []\n").await;
    state(&scratch, 0, "active").await;
    scratch.converge();
    scratch.apply("tag: lb/api\ndocument: {port: 90, least: 0}\nmembers: [web0.example.com]\n").await;
    scratch.converge();
    assert_eq!(back.names(), ["i-00000000:90"]);
    scratch.configure(&config(&moto, &pools[..1], ""));
    state(&scratch, 0, "draining").await;
    let unknown = json!({"drained": false, "pools": {"api": "unknown", "web": "drained"}, "targets": []});
    converge_until(&scratch, "web0.example.com", &unknown).await;
    assert_eq!((front.names(), back.names()), (at([1]), vec!["i-00000000:90".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_register_after_a_refusal_is_theirs() {
    let Some(moto) = Moto::start("what_others_register_after_a_refusal_is_theirs") else { return };
    let group = Group::make(&moto, "front", "ip");
    let scratch = scratch(&moto, &[("web", "front", "ip")], "");
    scratch.apply(&fleet("web", 0..2, ", least: 0")).await;
    moto.set(&json!({"refused": ["10.0.0.1"]}));
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("InvalidTarget"), "{code} {said}");
    assert_eq!(group.names(), at([1]));
    moto.set(&json!({"refused": []}));
    group.by_hand("RegisterTargets", "10.0.0.1", "80");
    let clash = "lb/web 10.0.0.1:80 is there already and Shoal did not make it";
    let (code, said) = scratch.once(2, 4, clash);
    assert!(code == 4 && said.contains(clash), "{code} {said}");
    state(&scratch, 0, "draining").await;
    scratch.run(&["--once", "--wait", "2s"]);
    assert_eq!(group.names(), at(0..2));
}
