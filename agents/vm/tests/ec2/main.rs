//! Instances of EC2, in what answers as AWS does (`tests/aws/moto_plus.py`): client tokens, instances that are pending, shutting down and not
//! seen yet, no room, interruptions, too many calls. What this does not prove, `docs/agents/ec2.md` says.

#![cfg(feature = "ec2")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "this is test code"
)]

#[path = "../../../../tests/aws/moto.rs"]
mod moto;
#[path = "../fleet/room.rs"]
mod room;
mod zone;

use std::process::Command;
use std::sync::Arc;

use moto::Moto;
use room::{ROOM, id, name};
use serde_json::{Value, json};
use shoal_agent::Base;
use shoal_store::MemoryStore;
use shoal_vm::Settings;
use tokio::runtime::Runtime;
use zone::{Instance, UNSEEN, Zone, between, call, instances, living};

/// Set in the process that a test runs in.
const INSIDE: &str = "SHOAL_TEST_EC2_INSIDE";

/// Runs a test in a process of its own: the SDK takes credentials from its environment, and that of this one is not to be changed.
fn alone(test: &str, body: impl FnOnce(&Arc<Moto>, &Arc<Runtime>)) {
    if std::env::var_os(INSIDE).is_none() {
        let environment = [
            (INSIDE, "yes"),
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
        ];
        let mut command = Command::new(std::env::current_exe().unwrap());
        let out = command.args([test, "--exact", "--nocapture"]).envs(environment).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{test} failed in its own process:\n{said}");
        said.lines().filter(|line| line.starts_with("SKIPPED: ")).for_each(|line| println!("{line}"));
        return;
    }
    let Some(moto) = Moto::start(test) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    body(&Arc::new(moto), &Arc::new(runtime));
}

fn states(all: &[Instance]) -> Vec<&str> {
    all.iter().map(|one| one.state.as_str()).collect()
}

#[test]
fn a_machine_goes_through_all_its_states() {
    alone("a_machine_goes_through_all_its_states", |moto, runtime| {
        moto.set(&json!({"starts": 600.0, "checks": 600.0, "ends": 600.0}));
        let mut zone = Zone::new(moto, runtime, "tags = { team = 'web' }");
        zone.place(1, json!({"networks": [{"name": "lan", "addresses": ["172.31.0.77/20"]}]}));
        zone.until("it is launched", |_| !living(moto, 1).is_empty());
        zone.pass(3);
        assert_eq!((zone.state(1).as_str(), states(&living(moto, 1))), ("building", vec!["pending"]));
        let one = living(moto, 1).remove(0);
        assert_eq!((one.kind.as_str(), one.address.as_str(), one.spot), ("t3.small", "172.31.0.77", false));
        for said in [
            "<key>team</key><value>web</value>",
            "<key>shoal:id</key><value>id-1</value>",
            "<httpTokens>required</httpTokens>",
        ] {
            assert!(one.text.contains(said), "{said}: {}", one.text);
        }
        // It runs, and EC2 has not checked it yet.
        moto.set(&json!({"starts": 0.0}));
        zone.pass(60);
        assert_eq!((zone.state(1).as_str(), states(&living(moto, 1))), ("building", vec!["running"]));
        moto.set(&json!({"checks": 0.0}));
        zone.until("it is active", |zone| zone.state(1) == "active");
        assert_eq!(moto.calls("RunInstances"), 1);
        let fact = zone.row(&format!("facts/vm/{}", name(1)));
        assert_eq!(
            (&fact["instance"], &fact["provider"], &fact["box"]),
            (&json!(one.id), &json!("ec2"), &json!(ROOM))
        );
        assert_eq!(fact["addresses"], json!(["172.31.0.77"]));
        // Without addresses of its own, it says which it was given.
        zone.place(2, json!({}));
        zone.until("the other one is active", |zone| zone.state(2) == "active");
        let other = living(moto, 2).remove(0);
        assert_eq!(zone.row(&format!("facts/vm/{}", name(2)))["addresses"], json!([other.address]));

        zone.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
        zone.until("it ends", |_| states(&living(moto, 1)) == ["shutting-down"]);
        zone.pass(5);
        // As long as it may live, nobody says that it is gone.
        assert_eq!((zone.state(1).as_str(), moto.calls("TerminateInstances")), ("draining", 1));
        moto.set(&json!({"ends": 0.0}));
        zone.until("it is retired", |zone| zone.state(1) == "retired");
        assert!(living(moto, 1).is_empty());
        assert_eq!(zone.row(&format!("facts/vm/{}", name(1))), Value::Null);
        assert_eq!((zone.state(2).as_str(), living(moto, 2).len()), ("active", 1));
    });
}

/// Killed within each of its calls, which is done after that: never two machines, and none forgotten.
#[test]
fn killed_between_any_two_calls_it_makes_one_and_forgets_none() {
    alone("killed_between_any_two_calls_it_makes_one_and_forgets_none", |moto, runtime| {
        // The first way has no room: so that there is a second one, with a token of its own.
        moto.set(&json!({"full": ["t3.small/spot"]}));
        let (mut n, mut kills) = (0, 0);
        for ends in [false, true] {
            for number in 0.. {
                n += 1;
                assert!(n < 100, "it goes on for ever");
                let mut zone = Zone::new(moto, runtime, "ready = 'running'\nspot = {}");
                if ends {
                    zone.place(n, json!({}));
                    zone.until("it is active", |zone| zone.state(n) == "active");
                }
                zone.kill_in(number);
                match ends {
                    false => zone.place(n, json!({})),
                    true => zone.set(n, "draining", json!({"destroy": "unneeded", "grace": "1s"})),
                }
                zone.pass(10);
                let (stopped, calls) = (zone.world.stopped_at().is_some(), zone.calls());
                zone.start_anew();
                let at = format!("call {number}, {}", if ends { "destroyed" } else { "made" });
                let end = if ends { "retired" } else { "active" };
                zone.until(&format!("{at}: it is {end}"), |zone| zone.state(n) == end);
                zone.pass(60);
                assert_eq!(zone.state(n), end, "{at}");
                let mut ever = instances(moto);
                ever.retain(|one| one.name == name(n));
                assert_eq!(states(&ever), [if ends { "terminated" } else { "running" }], "{at}");
                assert!(ever[0].spot && ever[0].kind == "t3.large", "{at}: {:?}", ever[0]);
                call(moto, "TerminateInstances", &[("InstanceId.1", &ever[0].id)]);
                kills += u64::from(stopped);
                if !stopped && calls <= number {
                    break;
                }
            }
        }
        assert!(kills >= 6, "it was killed {kills} times");
    });
}

#[test]
fn where_nothing_is_spare_something_else_is_taken_and_what_is_taken_back_has_failed() {
    alone(
        "where_nothing_is_spare_something_else_is_taken_and_what_is_taken_back_has_failed",
        |moto, runtime| {
            let all = json!(["t3.small/spot", "t3.large/spot", "t3.small", "t3.large"]);
            moto.set(&json!({"full": all}));
            let mut zone = Zone::new(moto, runtime, "ready = 'running'\nspot = {}");
            zone.place(1, json!({}));
            zone.pass(10);
            assert_eq!((zone.state(1).as_str(), living(moto, 1).len()), ("building", 0));
            assert!(zone.trouble(1).contains("room for it"), "{}", zone.trouble(1));
            // Each way once: the SDK does not ask again by itself.
            assert_eq!(moto.calls("RunInstances"), 4);
            moto.set(&json!({"full": ["t3.small/spot", "t3.large/spot", "t3.small"]}));
            zone.until("it is active", |zone| zone.state(1) == "active");
            assert_eq!((living(moto, 1)[0].kind.as_str(), living(moto, 1)[0].spot), ("t3.large", false));
            moto.set(&json!({"full": []}));
            zone.place(2, json!({}));
            zone.until("the spare one is active", |zone| zone.state(2) == "active");
            let spare = living(moto, 2).remove(0);
            assert!(spare.spot && spare.kind == "t3.small", "{spare:?}");
            // EC2 says two minutes before that it takes it back.
            moto.set(&json!({"marked": [spare.id]}));
            zone.until("it has failed", |zone| zone.state(2) == "failed");
            assert_eq!(states(&living(moto, 2)), ["running"]);
            call(moto, "TerminateInstances", &[("InstanceId.1", &spare.id)]);
            zone.pass(120);
            assert_eq!((zone.state(2).as_str(), zone.state(1).as_str()), ("failed", "active"));
            // Placed anew it is another one.
            zone.set(2, "placed", json!({}));
            zone.until("another is active", |zone| zone.state(2) == "active");
            assert_ne!(living(moto, 2)[0].id, spare.id);
        },
    );
}

#[test]
fn more_than_one_page_is_seen_and_what_is_throttled_is_asked_again() {
    alone("more_than_one_page_is_seen_and_what_is_throttled_is_asked_again", |moto, runtime| {
        moto.set(&json!({"page": 2}));
        let mut zone = Zone::new(moto, runtime, "ready = 'running'");
        moto.fault("RunInstances", "throttle", 1);
        moto.fault("DescribeInstances", "throttle", 1);
        moto.fault("RunInstances", "lost", 1);
        for n in 1..=7 {
            zone.place(n, json!({}));
        }
        zone.until("all are active", |zone| (1..=7).all(|n| zone.state(n) == "active"));
        let all = instances(moto);
        assert_eq!(all.len(), 7, "{all:?}");
        zone.start_anew();
        zone.pass(700);
        assert_eq!(instances(moto), all);
        assert!((1..=7).all(|n| zone.state(n) == "active"));
        assert!(moto.calls("DescribeInstances") >= 4, "a look is four pages");
        // That nobody may look says nothing about what is there.
        moto.fault("DescribeInstances", "deny", 1_000);
        zone.pass(200);
        assert!((1..=7).all(|n| zone.state(n) == "active"));
        moto.reset();
        // Nor does half a look.
        zone.start_anew();
        moto.fault_with(&json!({"action": "DescribeInstances", "kind": "deny", "times": 3, "after": 1}));
        zone.world.engine().resync();
        zone.pass(200);
        assert!((1..=7).all(|n| zone.state(n) == "active"));
        moto.reset();
        assert_eq!(instances(moto), all);
    });
}

#[test]
fn what_is_not_seen_yet_is_not_made_twice() {
    alone("what_is_not_seen_yet_is_not_made_twice", |moto, runtime| {
        // Longer than is waited for in one go.
        moto.set(&json!({"unseen": 8.0}));
        let mut zone = Zone::new(moto, runtime, "ready = 'running'");
        zone.place(1, json!({}));
        zone.pass(60);
        assert_eq!(moto.calls("RunInstances"), 1);
        zone.until("it is active", |zone| zone.state(1) == "active");
        assert_eq!((instances(moto).len(), moto.calls("RunInstances")), (1, 1));
        // Another process knows nothing of what was launched: the ledger does.
        zone.place(2, json!({}));
        zone.kill_in(2);
        zone.pass(10);
        zone.start_anew();
        zone.until("the other one is active", |zone| zone.state(2) == "active");
        assert_eq!(instances(moto).len(), 2);
    });
}

/// Killed as it launches, or as it looks for what it launched; and nobody wants it any more before anybody sees it.
#[test]
fn what_is_not_seen_yet_is_not_forgotten() {
    alone("what_is_not_seen_yet_is_not_forgotten", |moto, runtime| {
        // The first call of each is a look.
        for (n, kill, deleted) in [(1, 1, false), (2, 2, true)] {
            let at = format!("killed in call {kill}, {}", if deleted { "deleted" } else { "drained" });
            moto.set(&json!({"unseen": 3_600.0}));
            let mut zone = Zone::new(moto, runtime, "ready = 'running'");
            zone.kill_in(kill);
            zone.place(n, json!({"grace": "1s"}));
            zone.pass(10);
            assert!(zone.world.stopped_at().is_some() && moto.calls("RunInstances") == 1, "{at}");
            match deleted {
                false => zone.set(n, "draining", json!({"destroy": "unneeded", "grace": "1s"})),
                true => zone.commit(&[
                    (&format!("hosts/{}", name(n)), Value::Null),
                    (&format!("vm/all/members/{}", name(n)), Value::Null),
                    (&format!("facts/placement/{}", name(n)), Value::Null),
                ]),
            }
            zone.start_anew();
            zone.pass(60);
            let state = if deleted { "gone" } else { "draining" };
            assert_eq!(zone.state(n), state, "{at}");
            assert!(zone.trouble(n).contains("may have been made"), "{at}: {}", zone.trouble(n));
            moto.set(&json!({"unseen": 0.0}));
            assert_eq!(states(&living(moto, n)), ["running"], "{at}");
            if deleted {
                zone.until(&format!("{at}: it ends"), |_| living(moto, n).is_empty());
            } else {
                zone.until(&format!("{at}: it is retired"), |zone| zone.state(n) == "retired");
            }
            zone.pass(60);
            let mut ever = instances(moto);
            ever.retain(|one| one.name == name(n));
            assert_eq!((states(&ever), moto.calls("RunInstances")), (vec!["terminated"], 0), "{at}");
            assert_eq!(zone.trouble(n), "", "{at}");
        }
    });
}

#[test]
fn the_program_knows_that_instances_are_seen_late() {
    let settings = "box = 'z1.example.com'\n[ec2]\nzone = 'eu-west-1a'\ntypes = [{ type = 't3.small', size = { cpu = 1 } }]\n\
                    images.debian-12 = { ami = 'ami-12345678' }\n";
    let settings: Settings = toml::from_str(settings).unwrap();
    let (vm, _) = settings.open(Base::on(Arc::new(MemoryStore::new()))).unwrap();
    assert_eq!(vm.unseen, UNSEEN);
}

#[test]
fn what_is_somebody_elses_is_not_touched() {
    alone("what_is_somebody_elses_is_not_touched", |moto, runtime| {
        let mut zone = Zone::new(moto, runtime, "ready = 'running'\nprotect = true");
        zone.place(1, json!({}));
        zone.until("it is active", |zone| zone.state(1) == "active");
        let ours = living(moto, 1).remove(0);
        // Somebody launches more like it, with all its tags, and one that is only called so.
        let launch =
            [("MinCount", "1"), ("MaxCount", "1"), ("ImageId", "ami-12345678"), ("InstanceType", "t3.small")];
        let mut more: Vec<(String, String)> =
            launch.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        more.push(("TagSpecification.1.ResourceType".to_owned(), "instance".to_owned()));
        let tags = ours.text.split_once("<tagSet>").unwrap().1.split_once("</tagSet>").unwrap().0;
        for (n, tag) in tags.split("<item>").skip(1).enumerate() {
            let part = |name: &str| {
                let text = tag.split_once(&format!("<{name}>")).unwrap().1;
                text.split_once(&format!("</{name}>")).unwrap().0.to_owned()
            };
            more.push((format!("TagSpecification.1.Tag.{}.Key", n + 1), part("key")));
            more.push((format!("TagSpecification.1.Tag.{}.Value", n + 1), part("value")));
        }
        let more: Vec<(&str, &str)> =
            more.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(call(moto, "RunInstances", &more).0, 200);
        let copies = living(moto, 1);
        assert_eq!(copies.len(), 2);
        let copy = copies.into_iter().find(|one| one.id != ours.id).unwrap();
        // By hand it cannot be terminated; Shoal lifts that.
        assert_eq!(call(moto, "TerminateInstances", &[("InstanceId.1", &ours.id)]).0, 400);
        zone.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
        zone.until("it is retired", |zone| zone.state(1) == "retired");
        zone.start_anew();
        zone.pass(700);
        assert_eq!(living(moto, 1), [copy]);
    });
}

#[test]
fn what_somebody_changed_is_said_or_put_right() {
    alone("what_somebody_changed_is_said_or_put_right", |moto, runtime| {
        let mut zone = Zone::new(moto, runtime, "ready = 'running'\ntags = { team = 'web' }");
        for n in 1..=2 {
            zone.place(n, json!({"drift": if n == 1 { "report" } else { "correct" }}));
        }
        zone.until("both are active", |zone| (1..=2).all(|n| zone.state(n) == "active"));
        let ids = [1, 2].map(|n| living(moto, n)[0].id.clone());
        for id in &ids {
            let kind = [("InstanceId", id.as_str()), ("InstanceType.Value", "t3.large")];
            assert_eq!(call(moto, "ModifyInstanceAttribute", &kind).0, 200);
            let tag = [("ResourceId.1", id.as_str()), ("Tag.1.Key", "team"), ("Tag.1.Value", "mine")];
            assert_eq!(call(moto, "CreateTags", &tag).0, 200);
        }
        let is_right =
            |one: &Instance| one.kind == "t3.small" && one.text.contains("<key>team</key><value>web</value>");
        zone.until("one is put right", |_| living(moto, 2).iter().any(is_right));
        zone.until("the other is said", |zone| zone.trouble(1).contains("its type (t3.large, not t3.small)"));
        assert!(zone.trouble(1).contains("its tag team"), "{}", zone.trouble(1));
        assert!(!is_right(&living(moto, 1)[0]));
        zone.until("it runs again", |zone| {
            states(&living(moto, 2)) == ["running"] && zone.trouble(2).is_empty()
        });
        assert_eq!([1, 2].map(|n| living(moto, n)[0].id.clone()), ids);
        // Terminated by hand it is gone, and nobody makes another by himself.
        call(moto, "TerminateInstances", &[("InstanceId.1", &ids[0])]);
        zone.until("it has failed", |zone| zone.state(1) == "failed");
        zone.pass(100);
        assert_eq!((living(moto, 1).len(), moto.calls("RunInstances")), (0, 2));
        assert!(zone.trouble(1).contains("is not there"), "{} {}", id(1), zone.trouble(1));
    });
}

#[test]
fn one_whose_checks_are_not_known_yet_holds_up_nobody() {
    alone("one_whose_checks_are_not_known_yet_holds_up_nobody", |moto, runtime| {
        let mut zone = Zone::new(moto, runtime, "");
        for n in 1..=3 {
            zone.place(n, json!({}));
        }
        zone.until("they are active", |zone| (1..=3).all(|n| zone.state(n) == "active"));
        moto.set(&json!({"unknown": [living(moto, 2)[0].id]}));
        zone.place(4, json!({}));
        zone.until("another is active", |zone| zone.state(4) == "active");
        zone.pass(60);
        assert_eq!([1, 2, 3].map(|n| zone.state(n)), ["active"; 3]);
        assert_eq!((zone.trouble(1), zone.trouble(3)), (String::new(), String::new()));
        assert!(zone.trouble(2).contains("to report that it is up"), "{}", zone.trouble(2));
        moto.set(&json!({"unknown": []}));
        zone.until("it is checked", |zone| zone.trouble(2).is_empty());
    });
}

/// It takes longer to stop than anything is waited for in one go.
#[test]
fn one_that_is_to_be_another_type_stops_once() {
    alone("one_that_is_to_be_another_type_stops_once", |moto, runtime| {
        moto.set(&json!({"stops": 3.0}));
        let mut zone = Zone::new(moto, runtime, "ready = 'running'");
        zone.place(1, json!({"drift": "correct"}));
        zone.until("it is active", |zone| zone.state(1) == "active");
        let one = living(moto, 1).remove(0);
        let runs_as =
            |kind: &str| living(moto, 1).iter().any(|one| one.kind == kind && one.state == "running");
        // By somebody's hand, and by the document.
        let kind = [("InstanceId", one.id.as_str()), ("InstanceType.Value", "t3.large")];
        assert_eq!(call(moto, "ModifyInstanceAttribute", &kind).0, 200);
        zone.until("it is put right", |zone| runs_as("t3.small") && zone.trouble(1).is_empty());
        assert_eq!((moto.calls("StopInstances"), moto.calls("StartInstances")), (1, 1));
        let larger = json!({"image": "debian-12", "size": {"cpu": 2}, "vm": {"drift": "correct"}});
        let host = json!({"id": id(1), "state": "active", "document": larger});
        zone.commit(&[(&format!("hosts/{}", name(1)), host)]);
        zone.until("it is larger", |zone| runs_as("t3.large") && zone.trouble(1).is_empty());
        assert_eq!((moto.calls("StopInstances"), moto.calls("StartInstances")), (2, 2));
        assert_eq!((living(moto, 1)[0].id.as_str(), zone.state(1).as_str()), (one.id.as_str(), "active"));
    });
}

/// Its mark has fewer pieces then, and is whole.
#[test]
fn one_whose_order_gets_shorter_is_ours_still() {
    alone("one_whose_order_gets_shorter_is_ours_still", |moto, runtime| {
        let mut zone = Zone::new(moto, runtime, "ready = 'running'");
        // An instance keeps its subnets and addresses; gateways are said and nothing more.
        let long = json!({"name": "lan", "gateways": ["2001:db8:1111:2222:3333:4444:5555:6666"]});
        let vm = |network: Value| json!({"drift": "correct", "networks": vec![network; 8]});
        zone.place(1, vm(long));
        zone.until("it is active", |zone| zone.state(1) == "active");
        let pieces = |one: &Instance| {
            let parts = one.text.split("<key>").filter(|part| part.starts_with("shoal:order."));
            parts.filter(|part| !between(part, "<value>", "</value>").is_empty()).count()
        };
        let before = pieces(&living(moto, 1)[0]);
        zone.set(1, "active", vm(json!({"name": "lan"})));
        zone.until("it is put right", |_| pieces(&living(moto, 1)[0]) < before);
        zone.start_anew();
        zone.pass(60);
        assert_eq!((zone.state(1).as_str(), zone.trouble(1).as_str()), ("active", ""));
        zone.set(1, "draining", json!({"destroy": "unneeded", "grace": "1s"}));
        zone.until("it is retired", |zone| zone.state(1) == "retired");
    });
}

#[test]
fn a_template_says_what_is_said_nowhere_else() {
    alone("a_template_says_what_is_said_nowhere_else", |moto, runtime| {
        let data = [("LaunchTemplateName", "gpu"), ("LaunchTemplateData.ImageId", "ami-99999999")];
        let (status, said) = call(moto, "CreateLaunchTemplate", &data);
        assert_eq!(status, 200, "{said}");
        let template = between(&said, "<launchTemplateId>", "</launchTemplateId>");
        let more = format!("ready = 'running'\nimages.gpu = {{ template = '{template}', version = '1' }}");
        let mut zone = Zone::new(moto, runtime, &more);
        zone.place(1, json!({"image": "gpu", "networks": [{"name": "lan"}, {"name": "lan"}]}));
        zone.until("it is active", |zone| zone.state(1) == "active");
        let one = living(moto, 1).remove(0);
        assert!(one.text.contains("<imageId>ami-99999999</imageId>"), "{}", one.text);
        assert_eq!((one.kind.as_str(), one.text.matches("<deviceIndex>").count()), ("t3.small", 2));
        let fact = zone.row(&format!("facts/vm/{}", name(1)));
        assert_eq!(
            (&fact["image"], fact["addresses"].as_array().unwrap().len()),
            (&json!("gpu"), 2),
            "{fact}"
        );
        // Nothing of it is otherwise than it was asked for.
        zone.start_anew();
        zone.pass(60);
        assert_eq!(zone.trouble(1), "");
        // An image that nobody knows is a fault of the one machine that wants it.
        zone.place(2, json!({"image": "other"}));
        zone.pass(5);
        assert!(zone.trouble(2).contains("the configuration names none"), "{}", zone.trouble(2));
        assert_eq!((zone.state(1).as_str(), living(moto, 2).len()), ("active", 0));
    });
}
