//! What documents and facts come to.

use serde_json::{Value, json};
use shoal_agent::{Document, HostId, Revision};
use shoal_machine::{Reason, Wish};

use super::*;
use crate::item::{Given, Stage};

fn vm() -> Vm {
    Vm { rooms: ["b1.example.com".parse().unwrap()].into(), starting: 600_000, unseen: 0 }
}

fn host(state: Lifecycle, document: Value) -> Host {
    Host {
        name: "web1.example.com".parse().unwrap(),
        id: HostId("0198".to_owned()),
        state,
        owner: None,
        environment: None,
        expires: None,
        revision: Revision(7),
        document: Document::from(document),
    }
}

fn fact(namespace: &str, document: Value) -> Fact {
    Fact { namespace: namespace.parse().unwrap(), document: Document::from(document), revision: Revision(8) }
}

fn plain() -> Value {
    json!({"image": "debian-12", "size": {"cpu": 1}})
}

/// What a member of `vm/all` is, where the tag says this.
fn wanted(spec: &Value, host: &Host, facts: &[Fact]) -> Result<Option<Item>, Blocked> {
    let tag = "vm/all".parse().unwrap();
    let spec: Spec = serde_json::from_value(spec.clone()).unwrap();
    let source = Source { tag: &tag, spec: &spec, host: Some(host), facts, revision: Revision(7) };
    let Some(key) = vm().keys(&source)?.pop() else { return Ok(None) };
    Ok(vm().desired(&key, &[source], &Nobody)?.item)
}

struct Nobody;

impl Look for Nobody {
    fn host(&self, _: &str) -> Option<&Host> {
        None
    }
}

#[test]
fn a_machine_is_worked_on_where_it_was_placed() {
    let machine = host(Lifecycle::Placed, plain());
    assert_eq!(wanted(&json!({}), &machine, &[]), Ok(None), "it has no place");
    let placed = [fact("placement", json!({"box": "b1.example.com"}))];
    let item = wanted(&json!({}), &machine, &placed).unwrap().unwrap();
    assert_eq!((item.machine.image.as_str(), item.drained), ("debian-12", None));
    assert_eq!(item.since, Some(Revision(7)));
    let key = Key { room: "b1.example.com".parse().unwrap(), id: machine.id };
    let text = serde_json::to_string(&key).unwrap();
    assert_eq!(
        (key.to_string().as_str(), &*text),
        ("b1.example.com/0198", r#"{"room":"b1.example.com","id":"0198"}"#)
    );
    assert!(vm().reaches(&vm().unit(&key)) && !vm().reaches(&"b2.example.com".into()));
    for state in Lifecycle::ALL {
        let served = !matches!(state, Lifecycle::Requested | Lifecycle::Retired);
        assert_eq!(vm().serves(state), served, "{state}");
    }
}

#[test]
fn only_while_it_drains_is_asked_whether_it_has_drained() {
    let facts = |lb: Value| [fact("placement", json!({"box": "b1.example.com"})), fact("lb", lb)];
    let drained = |state, lb| wanted(&json!({}), &host(state, plain()), &facts(lb)).unwrap().unwrap().drained;
    assert_eq!(drained(Lifecycle::Active, json!({"drained": false})), None);
    assert_eq!(drained(Lifecycle::Draining, json!({"drained": false})), Some(false));
    assert_eq!(drained(Lifecycle::Draining, json!({"drained": true})), Some(true));
    assert_eq!(drained(Lifecycle::Draining, json!({"drained": "perhaps"})), Some(false));
}

#[test]
fn what_cannot_be_understood_is_said() {
    let placed = [fact("placement", json!({"box": "b1.example.com"}))];
    let why = |spec: Value, document: Value| {
        wanted(&spec, &host(Lifecycle::Draining, document), &placed).unwrap_err().why
    };
    assert!(why(json!({}), json!({"size": {}})).contains("vm.image"));
    assert!(why(json!({"image": "a/b"}), plain()).contains("vm.image"));
    assert!(why(json!({"grace": "soon"}), plain()).contains("vm.grace"));
    let odd = json!({"image": "a", "size": {}, "vm": {"destroy": "because"}});
    assert!(why(json!({}), odd).contains("destroy"));
    let tag = "vm/all".parse().unwrap();
    let spec = Spec { destroy: Some(Wish::Unneeded), ..Spec::default() };
    let source = Source { tag: &tag, spec: &spec, host: None, facts: &[], revision: Revision(7) };
    assert!(vm().keys(&source).unwrap_err().why.contains("for one host"));
    // What a tag says of all of them destroys none.
    let said = wanted(&json!({"destroy": "unneeded"}), &host(Lifecycle::Draining, plain()), &placed);
    assert_eq!(said.unwrap().unwrap().life.reason(0), None);
}

#[test]
fn two_tags_have_to_agree() {
    let machine = host(Lifecycle::Placed, plain());
    let facts = [fact("placement", json!({"box": "b1.example.com"}))];
    let tags = ["vm/one".parse().unwrap(), "vm/two".parse().unwrap()];
    let specs = [Spec::default(), Spec { image: Some("debian-13".to_owned()), ..Spec::default() }];
    let source = |n: usize, spec| Source {
        tag: &tags[n],
        spec,
        host: Some(&machine),
        facts: &facts,
        revision: Revision(7),
    };
    let key = vm().keys(&source(0, &specs[0])).unwrap().pop().unwrap();
    assert!(
        vm().desired(&key, &[source(0, &specs[0]), source(1, &specs[0])], &Nobody).unwrap().item.is_some()
    );
    let clash = vm().desired(&key, &[source(0, &specs[0]), source(1, &specs[1])], &Nobody).unwrap_err();
    assert_eq!(clash.who, ["vm/one: web1.example.com", "vm/two: web1.example.com"]);
}

#[test]
fn it_goes_with_its_host_and_for_no_other_reason() {
    struct One(Host);
    impl Look for One {
        fn host(&self, name: &str) -> Option<&Host> {
            (name == self.0.name.as_str()).then_some(&self.0)
        }
    }
    let name: HostName = "web1.example.com".parse().unwrap();
    let key = Key { room: "b1.example.com".parse().unwrap(), id: HostId("0198".to_owned()) };
    let tag: shoal_agent::TagName = "vm/all".parse().unwrap();
    let goes = |why: &Why, state| vm().lets_go(&key, why, &One(host(state, plain()))).is_ok();
    let r = Revision(9);
    assert!(goes(&Why::HostGone(name.clone(), r), Lifecycle::Active));
    assert!(goes(&Why::Lifecycle(name.clone(), r), Lifecycle::Retired));
    assert!(!goes(&Why::Lifecycle(name.clone(), r), Lifecycle::Requested));
    // Of the host that has its name by now, another one, nothing is to be concluded.
    let of = Key { id: HostId("0199".to_owned()), ..key.clone() };
    let another = One(host(Lifecycle::Retired, plain()));
    assert!(vm().lets_go(&of, &Why::Lifecycle(name.clone(), r), &another).is_err());
    let other: HostName = "web2.example.com".parse().unwrap();
    for why in [
        Why::HostRenamed(name.clone(), other, r),
        Why::NotMember(tag.clone(), name, r),
        Why::TagGone(tag.clone(), r),
        Why::Edited(tag.to_string(), r),
        Why::NewLogic { from: 1, to: 2 },
    ] {
        assert!(!goes(&why, Lifecycle::Active), "{why}");
    }
}

/// A machine that is as it should be, with one thing otherwise.
fn settled(change: impl FnOnce(&mut Item, &mut Have)) -> Step {
    let placed = [fact("placement", json!({"box": "b1.example.com"}))];
    let mut item = wanted(&json!({}), &host(Lifecycle::Active, plain()), &placed).unwrap().unwrap();
    let (host, machine) = (item.host.clone(), item.machine.clone());
    let mut have =
        Have { host, machine, stage: Stage::Up, strayed: Vec::new(), given: Given::default(), leaving: None };
    change(&mut item, &mut have);
    let key = Key { room: "b1.example.com".parse().unwrap(), id: HostId("0198".to_owned()) };
    let memo = step::Progress::told(&Value::Null);
    let at = At { want: Some(&item), last: Some(&item), tried: &[], have: Some(&have), memo: &memo };
    vm().step(&key, at, 1_000)
}

#[test]
fn what_is_otherwise_is_said_or_put_right() {
    let networks =
        || serde_json::from_value(json!([{"name": "lan", "addresses": ["192.0.2.1/24"]}])).unwrap();
    assert_eq!(settled(|_, _| ()), Step::Rest { look_again: Some(31_000) });
    assert_eq!(settled(|item, _| item.life.expires = Some(2_000)), Step::Rest { look_again: Some(2_000) });
    let Step::Hold { why } = settled(|item, _| item.machine.networks = networks()) else {
        panic!("it is not held")
    };
    assert!(why.contains("its networks") && why.contains("drift: correct"), "{why}");
    let Step::Hold { why } = settled(|_, have| have.strayed.push("its eth0".to_owned())) else {
        panic!("it is not held")
    };
    assert!(why.contains("its eth0"), "{why}");
    let correct = |item: &mut Item| item.care.drift = shoal_machine::Drift::Correct;
    let step = settled(|item, have| {
        correct(item);
        have.strayed.push("its eth0".to_owned());
    });
    assert!(matches!(step, Step::Act { verb: "correct", .. }), "{step:?}");
    let step = settled(|item, have| {
        correct(item);
        have.machine.image = "debian-11".parse().unwrap();
    });
    assert!(matches!(&step, Step::Hold { why } if why.contains("its image")), "{step:?}");
    let step = settled(|_, have| have.stage = Stage::Stopped);
    assert!(matches!(step, Step::Run { verb: "start", .. }), "{step:?}");
    let step = settled(|item, _| item.life.expires = Some(1_000));
    assert!(matches!(step, Step::Run { verb: "drain", .. }), "{step:?}");
}

#[test]
fn a_reason_has_one_word() {
    assert_eq!(Reason::Wish(Wish::Shrunk).to_string(), "shrunk");
    let leaving = json!({"reason": {"wish": "shrunk"}, "since": 7, "until": 9});
    let known: step::Leaving = serde_json::from_value(leaving.clone()).unwrap();
    assert_eq!(serde_json::to_value(known).unwrap(), leaving);
}
