//! The laws on target groups on paper, the steps of a target that leaves, and what is read as an endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_agent::laws::{Broken, Laws};
use shoal_agent::{
    Agent, Applied, At, Batch, Document, Fault, Fence, Host, Lifecycle, Look, Moment, Nature, Observed,
    Outcome, Revision, Scope, Seen, Source, Step, Target, Unit,
};

use super::step::{DRAIN, FINISH, Leaving, Told};
use super::{Asked, Checked, Checks, Endpoint, Group, Groups, Hosts, Id, Kind, Member, Registered};
use crate::agent::Lb;
use crate::item::{Have, Item, Key};
use crate::spec::{Balance, Protocol, Spec};

fn lb() -> Lb {
    let pools = BTreeMap::from([("web".to_owned(), Kind::Ip)]);
    let groups = Groups { pools, instance: "{instance_id}".to_owned(), look: 5_000 };
    Lb { groups: Some(Arc::new(groups)), ..Lb::default() }
}

fn asked() -> Asked {
    Asked {
        protocol: Protocol::Http,
        balance: Balance::RoundRobin,
        check: None,
        slow_start: 0,
        drain: None,
        least: 0,
        frontends: false,
        tls: false,
    }
}

/// A group on paper: who is in it, and whether it drains. A target is gone when it is looked at for the second time.
#[derive(Default)]
struct Paper(Mutex<BTreeMap<Key, bool>>);

impl Target<Lb> for Paper {
    fn nature(&self) -> Nature {
        Nature { conditional: true, shared: true, ..Nature::default() }
    }

    async fn observe(&self, unit: &Unit, _: Scope<'_, Key>) -> Result<Observed<Lb>, Fault> {
        let mut all = self.0.lock().unwrap();
        let group = Have::Group(Group::of(&asked()));
        let key = Key { pool: format!("lb/{unit}").parse().unwrap(), host: None, at: None };
        let targets = all.iter().map(|(key, draining)| {
            (key.clone(), Seen::There(Have::Member(Registered { draining: *draining })))
        });
        let seen = targets.chain([(key, Seen::Ours(group))]).collect();
        all.retain(|_, draining| !*draining);
        Ok(Observed { seen, complete: true })
    }

    async fn apply(&self, _: &Unit, batch: &Batch<Lb>, fence: &Fence) -> Result<Applied<Lb>, Fault> {
        let mut all = self.0.lock().unwrap();
        let look_again = fence.clock.now();
        let each = batch.changes.iter().map(|edit| {
            let leaving = Leaving::of(&edit.memo);
            let outcome = match (&edit.to, leaving) {
                (Some(Item::Member(_)), _) if edit.from.is_none() && all.contains_key(&edit.key) => {
                    Outcome::Stale
                }
                (Some(Item::Member(member)), _) => {
                    all.insert(edit.key.clone(), false);
                    Outcome::Running { memo: Told::memo(&member.hosts), look_again }
                }
                (None, Some(leaving)) if edit.verb == FINISH => {
                    Outcome::Running { memo: Leaving { drained: true, ..leaving }.memo(), look_again }
                }
                (None, Some(leaving)) => {
                    all.entry(edit.key.clone()).and_modify(|draining| *draining = true);
                    Outcome::Running {
                        memo: Leaving { until: Some(look_again), ..leaving }.memo(),
                        look_again,
                    }
                }
                _ => Outcome::Done,
            };
            (edit.key.clone(), outcome)
        });
        Ok(Applied { each: each.collect(), facts: Vec::new() })
    }
}

#[test]
fn it_keeps_the_laws() -> Result<(), Broken> {
    let document = json!({"port": 80, "least": 0});
    let laws = Laws::new(lb, "lb/web", document)
        .then(json!({"port": 81, "least": 0}))
        .host(|n| json!({"address": format!("192.0.2.{}", n % 200 + 1)}))
        .edited(|n| json!({"address": format!("198.51.100.{}", n % 200 + 1)}));
    laws.check_with(Paper::default)?;
    laws.check_foreign_with(Paper::default, |paper, key, _| {
        // A group is nobody's of those that are in it.
        if key.at.is_some() {
            paper.0.lock().unwrap().insert(key.clone(), false);
        }
    })
}

fn key() -> Key {
    Key {
        pool: "lb/web".parse().unwrap(),
        host: None,
        at: Some("192.0.2.4:80".to_owned().try_into().unwrap()),
    }
}

fn member() -> Member {
    let ids = BTreeSet::from([Id::Ip("192.0.2.4".parse().unwrap())]);
    Member { hosts: Hosts::from([("web4.example.com".parse().unwrap(), ids)]) }
}

/// What is done next about a target that shall go. `have`: whether it drains, if it is there.
fn leaving(have: Option<bool>, memo: &Value, now: Moment) -> Step {
    let (last, have) = (Item::Member(member()), have.map(|draining| Have::Member(Registered { draining })));
    lb().step(&key(), At { want: None, last: Some(&last), tried: &[], have: have.as_ref(), memo }, now)
}

fn verb(step: &Step) -> &'static str {
    match step {
        Step::Act { verb, .. } => verb,
        _ => "",
    }
}

#[test]
fn a_target_drains_and_is_waited_for_and_reported() {
    let memo = |until, spared, drained| Leaving { hosts: member().hosts, until, spared, drained }.memo();
    let first = leaving(Some(false), &Told::memo(&member().hosts), 1_000);
    assert_eq!(first, Step::Act { verb: DRAIN, memo: memo(None, None, false) });
    let waits = memo(Some(301_000), None, false);
    let wait = |now, until, left: &str| {
        let why = format!("draining of web4.example.com, {left}");
        assert_eq!(
            leaving(Some(true), &waits, now),
            Step::Wait { until: Some(until), why, memo: waits.clone() }
        );
    };
    wait(1_000, 6_000, "at most 300 s");
    wait(300_000, 301_000, "at most 1 s");
    wait(400_000, 405_000, "longer than the delay of its group");
    // Deregistered by one that was killed: until when, is asked once more.
    assert_eq!(verb(&leaving(Some(true), &memo(None, None, false), 1_000)), DRAIN);
    // It is gone: before that was remembered, while it was waited for, and when somebody else took it out.
    for before in [memo(None, None, false), waits.clone(), Told::memo(&member().hosts), Value::Null] {
        assert_eq!(verb(&leaving(None, &before, 1_000)), FINISH, "{before}");
    }
    assert_eq!(leaving(None, &memo(Some(301_000), None, true), 1_000), Step::rest());
    // Somebody registered it again.
    assert_eq!(verb(&leaving(Some(false), &waits, 1_000)), DRAIN);
    // It cannot be spared, for now.
    let spared = memo(None, Some(6_000), false);
    assert!(matches!(leaving(Some(false), &spared, 1_000), Step::Wait { until: Some(6_000), .. }));
    assert_eq!(leaving(Some(false), &spared, 6_000), Step::Act { verb: DRAIN, memo: spared });
}

#[test]
fn what_a_pool_leaves_unsaid_it_leaves_to_its_group() {
    let checked = Checked { path: Some("/up".to_owned()), interval: 30, rise: 5, fall: 2 };
    let group = Group {
        check: Some(checked),
        delay: 30,
        ..Group::of(&Asked { balance: Balance::LeastConnections, slow_start: 30, ..asked() })
    };
    assert_eq!(group.differs(&asked()), Vec::<String>::new());
    let quic = Group { protocol: "QUIC".to_owned(), ..group.clone() };
    assert!(quic.differs(&Asked { protocol: Protocol::Udp, ..asked() })[0].contains("QUIC"));
    let checks =
        |path: &str| Checks { path: path.to_owned().try_into().ok(), interval: None, rise: None, fall: None };
    let fits = Asked { check: Some(checks("/up")), drain: Some(30), ..asked() };
    assert_eq!(group.differs(&fits), Vec::<String>::new());
    for (asked, word) in [
        (Asked { drain: Some(31), ..asked() }, "deregistration_delay"),
        (Asked { check: Some(checks("/down")), ..asked() }, "check.path"),
        (Asked { check: Some(Checks { interval: Some(2), ..checks("/up") }), ..asked() }, "check.interval"),
        (Asked { protocol: Protocol::Tcp, ..asked() }, "protocol"),
        (Asked { balance: Balance::Random, ..asked() }, "balance"),
        (Asked { balance: Balance::Source, ..asked() }, "stickiness"),
        (Asked { balance: Balance::Uri, ..asked() }, "path"),
        (Asked { slow_start: 31, ..asked() }, "slow_start"),
        (Asked { frontends: true, ..asked() }, "listeners"),
        (Asked { tls: true, ..asked() }, "certificates"),
    ] {
        let differs = group.differs(&asked);
        assert!(differs.len() == 1 && differs[0].contains(word), "{word}: {differs:?}");
    }
}

struct Nobody;

impl Look for Nobody {
    fn host(&self, _: &str) -> Option<&Host> {
        None
    }
}

/// As what a member of this pool is registered, and what has no effect; or why it is not.
fn registered(document: Value) -> Result<(String, Vec<String>), String> {
    let host = Host {
        name: "web4.example.com".parse().unwrap(),
        id: serde_json::from_value(json!("h4")).unwrap(),
        state: Lifecycle::Active,
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(json!({"address": "192.0.2.4"})),
        revision: Revision(1),
    };
    let (lb, tag) = (lb(), "lb/web".parse().unwrap());
    let spec: Spec = serde_json::from_value(document).unwrap();
    let source = Source { tag: &tag, spec: &spec, host: Some(&host), facts: &[], revision: Revision(1) };
    let keys = lb.keys(&source).map_err(|blocked| blocked.why)?;
    let desired = lb.desired(&keys[0], &[source], &Nobody).map_err(|blocked| blocked.why)?;
    assert_eq!(desired.item, Some(Item::Member(member())));
    let why = desired.left_out.into_iter().map(|blocked| blocked.why).collect();
    Ok((keys[0].to_string(), why))
}

#[test]
fn what_a_group_cannot_do_for_a_member_is_said() {
    let target = "lb/web 192.0.2.4:80".to_owned();
    assert_eq!(registered(json!({"port": 80})), Ok((target.clone(), Vec::new())));
    for (document, word) in
        [(json!({"port": 80, "weight": 7}), "weight 7"), (json!({"port": 80, "backup": true}), "backup")]
    {
        let (key, why) = registered(document).unwrap();
        assert!(key == target && why.len() == 1 && why[0].contains(word), "{word}: {key} {why:?}");
    }
    // Nothing is registered where that would be less than was asked for.
    for (document, word) in [
        (json!({"port": 80, "tls": "internal"}), "certificate"),
        (json!({}), "no port"),
        (json!({"port": 0}), "1 to 65535"),
    ] {
        let why = registered(document).unwrap_err();
        assert!(why.contains(word), "{word}: {why}");
    }
}

#[test]
fn an_endpoint_is_an_instance_or_an_address_with_a_port() {
    for text in ["i-01234567:80", "i-0123456789abcdef0:443", "192.0.2.1:1", "[2001:db8::1]:65535"] {
        let endpoint: Endpoint = text.to_owned().try_into().unwrap();
        assert_eq!(endpoint.to_string(), text);
    }
    for text in [
        "i-01234567",
        "i-0123:80",
        "i-0123456G:80",
        "web1:80",
        "192.0.2.1:65536",
        "2001:db8::1",
        "a.b:1",
        ":80",
        "",
    ] {
        assert!(Endpoint::try_from(text.to_owned()).is_err(), "{text}");
    }
}

proptest! {
    /// Whatever is there and whatever is remembered: nothing that is there is said to have drained, and nothing is removed but
    /// by draining.
    #[test]
    fn nothing_is_reported_before_its_time(
        there: bool, draining: bool, remembers: bool, drained: bool, until in proptest::option::of(0..100_000i64),
        spared in proptest::option::of(0..100_000i64), now in 0..100_000i64,
    ) {
        let memo = Leaving { hosts: member().hosts, until, spared, drained }.memo();
        let memo = if remembers { memo } else { Value::Null };
        match leaving(there.then_some(draining), &memo, now) {
            Step::Act { verb: FINISH, .. } => prop_assert!(!(there || remembers && drained)),
            Step::Act { verb: DRAIN, .. } => prop_assert!(there),
            Step::Wait { until: Some(at), .. } => prop_assert!(there && at > now),
            Step::Rest { look_again: None } => prop_assert!(!there && remembers && drained),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}
