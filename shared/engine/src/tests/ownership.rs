//! What is ours, what is foreign, and for what reasons something goes.

use serde_json::json;

use super::agent::{host, name, pages, rows, tag, toys, toys_of};
use crate::{Fault, Nature, OnDrift, Verdict, Why};

#[test]
fn what_is_wanted_is_made_and_then_nothing_is_left_to_do() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    assert_eq!(world.at("a", 2), Some("hi"));
    let before = world.engine().counters().changes;
    world.restart();
    world.converge();
    assert_eq!((before, world.engine().counters().changes), (3, 0));
}

#[test]
fn what_is_foreign_is_never_touched_not_even_when_it_is_equal() {
    for foreign in ["hi", "mine"] {
        let mut world = toys();
        world.place.1.put(format!("a/{}", name(0)), &foreign.to_owned());
        world.fleet("a", 2, "hi");
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some(foreign), Some("hi")));
        assert!(world.trouble("a", 0).contains("Shoal did not make it"));
        world.set("toy/a", serde_json::Value::Null);
        world.run();
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some(foreign), None));
    }
}

#[test]
fn each_reason_for_a_removal_is_derived_from_the_database() {
    let member = format!("toy/a/members/{}", name(0));
    let row = format!("hosts/{}", name(0));
    type Case<'c> = (&'c str, Vec<(&'c str, serde_json::Value)>, fn(&Why) -> bool);
    let cases: [Case<'_>; 5] = [
        ("host", vec![(&row, json!(null)), (&member, json!(null))], |w| matches!(w, Why::HostGone(..))),
        ("tag", vec![("toy/a", json!(null))], |w| matches!(w, Why::TagGone(..))),
        ("member", vec![(&member, json!(null))], |w| matches!(w, Why::NotMember(..))),
        ("state", vec![(&row, json!({"id": "h0", "state": "retired", "document": {}}))], |w| {
            matches!(w, Why::Lifecycle(..))
        }),
        ("edit", vec![(&row, host(0, json!({"absent": 1})))], |w| matches!(w, Why::Edited(..))),
    ];
    for (what, change, fits) in cases {
        // Told live, and learned after the event was missed.
        for missed in [false, true] {
            let mut world = toys();
            world.fleet("a", 1, "hi");
            world.converge();
            if missed {
                world.crash();
            }
            world.commit(rows(&change));
            world.advance(70_000);
            assert_eq!(world.at("a", 0), None, "{what}");
            let batch = world.place.1.batches.last().unwrap();
            assert!(fits(&batch.changes[0].because), "{what}: {:?}", batch.changes[0].because);
            assert!(world.ledger.is_empty(), "{what}: {:?}", world.ledger.keys());
        }
    }
}

#[test]
fn a_rename_says_so() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    let mut change = rows(&[
        (&format!("hosts/{}", name(0)), json!(null)),
        ("hosts/new.example.com", host(0, json!({}))),
        (&format!("toy/a/members/{}", name(0)), json!(null)),
        ("toy/a/members/new.example.com", json!({})),
    ]);
    change[0].moved = Some("hosts/new.example.com".parse().unwrap());
    change[1].moved = Some(format!("hosts/{}", name(0)).parse().unwrap());
    world.commit(change);
    world.converge();
    let why: Vec<_> =
        world.place.1.batches.iter().flat_map(|b| &b.changes).map(|edit| &edit.because).collect();
    assert!(why.iter().any(|why| matches!(why, Why::HostRenamed(..))), "{why:?}");
    assert!(world.place.1.items.contains_key("a/new.example.com"));
}

#[test]
fn a_missing_source_without_a_tombstone_holds_its_items() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.converge();
    world.crash();
    world.lose(&format!("hosts/{}", name(0)).parse().unwrap());
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    assert!(world.trouble("a", 0).contains("nothing says that it was deleted"));
    world.crash();
    world.lose(&"toy/a".parse().unwrap());
    world.advance(70_000);
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("hi")));
}

#[test]
fn drift_is_told_apart_and_corrected_or_reported() {
    for on_drift in [OnDrift::Correct, OnDrift::Report] {
        let mut world = toys();
        world.options.drift = on_drift;
        world.fleet("a", 3, "hi");
        world.converge();
        world.place.1.put(format!("a/{}", name(0)), &"scribble".to_owned());
        world.place.1.items.remove(&format!("a/{}", name(1)));
        world.engine().resync();
        let verdict = world.run();
        if on_drift == OnDrift::Correct {
            assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("hi")));
            let batch = world.place.1.batches.last().unwrap();
            assert!(batch.changes.iter().all(|edit| edit.because == Why::Drift));
            assert_eq!(verdict, Verdict::Converged);
        } else {
            assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("scribble"), None));
            assert_eq!(verdict, Verdict::Held);
            assert!(world.engine().plan().is_empty());
            // What people ask for goes all the same.
            world.set(&format!("hosts/{}", name(0)), host(0, json!({"note": "!"})));
            world.run();
            assert_eq!(world.at("a", 0), Some("hi!"));
        }
    }
}

#[test]
fn a_whole_unit_keeps_what_is_held_and_drops_what_somebody_wrote_into_it() {
    let mut world = toys_of(Nature { whole: true, ..Nature::default() });
    world.fleet("a", 3, "hi");
    world.converge();
    world.set(&format!("pauses/host/{}", name(0)), json!({"why": "moving house"}));
    world.set("toy/a", tag("yo"));
    world.run();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("yo")));
    world.place.1.put("a/by-hand".into(), &"x".to_owned());
    world.engine().resync();
    world.run();
    assert!(!world.place.1.items.contains_key("a/by-hand"));
    assert_eq!(world.at("a", 0), Some("hi"));
}

#[test]
fn a_line_that_nobody_wants_stays_while_a_tag_cannot_be_read() {
    let mut world = toys_of(Nature { whole: true, ..Nature::default() });
    world.fleet("a", 1, "hi");
    world.converge();
    world.place.1.put(format!("a/{}", name(5)), &"x".to_owned());
    world.set(&format!("hosts/{}", name(5)), host(5, json!({})));
    world.set(&format!("toy/second/members/{}", name(5)), json!({}));
    world.set("toy/second", json!("rubbish"));
    world.restart();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 5), Some("x"));
    assert!(world.trouble("a", 5).contains("the row toy/second cannot be understood"));
    world.set("toy/second", json!({"document": {"text": "two", "unit": "a"}}));
    world.converge();
    assert_eq!(world.at("a", 5), Some("two"));
    // Readable again, and nobody wants it: it is drift.
    world.set("toy/third", json!("rubbish"));
    world.place.1.put(format!("a/{}", name(6)), &"x".to_owned());
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 6), Some("x"));
    world.set("toy/third", tag("three"));
    world.converge();
    assert_eq!(world.at("a", 6), None);
}

#[test]
fn a_line_that_nobody_wants_stays_while_a_host_cannot_be_understood() {
    for odd in [json!("rubbish"), host(1, json!({"garbled": true}))] {
        let mut world = toys_of(Nature { whole: true, ..Nature::default() });
        world.fleet("a", 2, "hi");
        world.place.1.put(format!("a/{}", name(1)), &"x".to_owned());
        // The ledger knows nothing of it, and what the host feeds nobody can say.
        world.set(&format!("hosts/{}", name(1)), odd);
        world.restart();
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("x")));
        world.set(&format!("hosts/{}", name(7)), host(7, json!({})));
        assert_eq!((world.run(), world.at("a", 1)), (Verdict::Held, Some("x")));
        // It can be understood, and is in no tag: it is drift.
        let member = format!("toy/a/members/{}", name(1));
        world.commit(super::agent::rows(&[
            (&format!("hosts/{}", name(1)), host(1, json!({}))),
            (&member, serde_json::Value::Null),
        ]));
        world.converge();
        assert_eq!(world.at("a", 1), None);
    }
}

#[test]
fn what_nobody_else_can_reach_is_put_right_even_where_drift_is_only_reported() {
    let mut world = toys_of(Nature { marks_own: true, sole: true, ..Nature::default() });
    world.options.drift = OnDrift::Report;
    world.restart();
    world.fleet("a", 3, "hi");
    world.converge();
    // It forgot one. That is nobody's edit.
    world.place.1.items.remove(&format!("a/{}", name(1)));
    world.restart();
    world.converge();
    assert_eq!(world.at("a", 1), Some("hi"));
    assert_eq!(world.engine().changes().keys().collect::<Vec<_>>(), [&("create", "restart")]);
    let counters = world.engine().counters();
    assert_eq!((counters.anew, counters.drift), (1, 0));
}

#[test]
fn what_may_forget_is_told_a_large_unit_in_one_go() {
    let mut world = toys_of(Nature { marks_own: true, sole: true, ..Nature::default() });
    world.fleet("a", 6_000, "hi");
    // Failures of the whole are no reason to begin with a part either.
    world.place.1.batch_fault = Some(crate::Fault::new("listen", "somebody else does"));
    world.run();
    world.advance(10_000);
    world.place.1.batch_fault = None;
    world.advance(600_000);
    world.converge();
    let sizes: Vec<_> = world.place.1.batches.iter().map(|batch| batch.changes.len()).collect();
    assert!(sizes.len() > 2 && sizes.iter().all(|size| *size == 6_000), "{sizes:?}");
}

#[test]
fn a_rule_that_cannot_be_evaluated_leaves_what_it_made_as_it_is() {
    let mut world = toys();
    world.set("toy/a", tag("hi"));
    for n in 0..3 {
        world.set(&format!("hosts/{}", name(n)), host(n, json!({"memory": 8})));
    }
    world.set("toy/a/members/select: memory > 4", json!({}));
    world.converge();
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"memory": "8 GiB"})));
    // One that never was a member is not made either.
    world.set(&format!("hosts/{}", name(4)), host(4, json!({"memory": "8 GiB"})));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 1), world.at("a", 2), world.at("a", 4)), (Some("hi"), Some("hi"), None));
    let status = world.engine().status(0, false);
    let why = &status.quarantined[0].why;
    assert!(why.contains("the rule \"memory > 4\" in toy/a cannot be evaluated"), "{why}");
    assert_eq!((status.quarantined_total, status.quarantined[0].what.contains(&name(1))), (2, true));
    assert!(world.trouble("a", 1).contains("cannot be evaluated"), "{}", world.trouble("a", 1));
    // Nor by an instance that has only the ledger to go by; the others go on.
    world.restart();
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 1), world.at("a", 2), world.at("a", 4)), (Some("hi"), Some("yo"), None));
    // Known again: yes, and no.
    world.set(&format!("hosts/{}", name(4)), host(4, json!({"memory": 5})));
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"memory": 3})));
    world.converge();
    assert_eq!((world.at("a", 1), world.at("a", 4)), (None, Some("yo")));
}

#[test]
fn a_late_success_of_a_creation_is_known_as_ours() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    // Two attempts are made and look as if they failed; the first one succeeds late.
    world.place.1.failing.insert(format!("a/{}", name(0)), crate::Fault::new("create", "timed out"));
    world.run();
    world.set("toy/a", tag("yo"));
    world.run();
    world.place.1.failing.clear();
    world.place.1.put(format!("a/{}", name(0)), &"hi".to_owned());
    world.restart();
    world.converge();
    assert_eq!(world.at("a", 0), Some("yo"));
}

#[test]
fn no_attempt_at_a_creation_is_ever_forgotten() {
    let key = format!("a/{}", name(0));
    let mut world = toys();
    world.options.retry_most = 1_000;
    world.fleet("a", 1, "text 0");
    world.place.1.failing.insert(key.clone(), crate::Fault::new("create", "timed out"));
    world.run();
    for n in 1..40 {
        world.set("toy/a", tag(&format!("text {n}")));
        world.run();
        world.advance(2_000);
    }
    let tried: std::collections::BTreeSet<_> =
        world.place.1.batches.iter().flat_map(|b| &b.changes).map(|edit| edit.to.clone().unwrap()).collect();
    assert_eq!(tried.len(), crate::ledger::MAX_TRIED);
    assert!(world.trouble("a", 0).contains("16 different creations of it were tried"));
    assert_eq!(world.engine().status(0, false).units["a"].held_total, 1);
    // What was tried before may be tried again.
    let before = world.place.1.batches.len();
    world.set("toy/a", tag("text 3"));
    world.run();
    assert_eq!(world.place.1.batches.len(), before + 1);
    world.set("toy/a", tag("text 40"));
    world.run();
    // The very first one succeeds now.
    world.place.1.failing.clear();
    world.place.1.put(key, &"text 0".to_owned());
    world.advance(10_000);
    world.converge();
    assert_eq!(world.at("a", 0), Some("text 40"));
}

#[test]
fn after_too_many_attempts_it_is_taken_out_and_put_back() {
    let mut world = toys();
    world.fleet("a", 1, "text 0");
    world.place.1.failing.insert(format!("a/{}", name(0)), crate::Fault::new("create", "refused"));
    world.run();
    for n in 1..40 {
        world.set("toy/a", tag(&format!("text {n}")));
        world.run();
    }
    world.place.1.failing.clear();
    assert_eq!(world.run(), Verdict::Held);
    world.set(&format!("toy/a/members/{}", name(0)), json!(null));
    world.converge();
    world.set(&format!("toy/a/members/{}", name(0)), json!({}));
    world.converge();
    assert_eq!(world.at("a", 0), Some("text 39"));
}

#[test]
fn a_target_that_marks_its_own_is_tried_for_ever() {
    let mut world = toys_of(Nature { marks_own: true, ..Nature::default() });
    world.fleet("a", 1, "text 0");
    world.place.1.failing.insert(format!("a/{}", name(0)), crate::Fault::new("create", "refused"));
    world.run();
    for n in 1..40 {
        world.set("toy/a", tag(&format!("text {n}")));
        world.run();
    }
    world.place.1.failing.clear();
    world.set("toy/a", tag("text 40"));
    world.converge();
    assert_eq!(world.at("a", 0), Some("text 40"));
}

#[test]
fn the_reason_names_the_revision_that_took_the_host_out() {
    let member = |tag: &str| format!("{tag}/members/{}", name(0));
    let rule = "toy/a/members/select: big";
    // By what it is in; what then takes it out; the revision that did.
    let (row, out) = (|key: &str| (key.to_owned(), json!({})), |key: &str| (key.to_owned(), json!(null)));
    type Rows = Vec<(String, serde_json::Value)>;
    let cases: Vec<(&str, Vec<Rows>, Rows)> = vec![
        ("itself", vec![vec![row(&member("toy/a"))]], vec![out(&member("toy/a"))]),
        (
            "a nested tag's member",
            vec![vec![("toy/in".into(), tag("in")), row("toy/a/members/@in"), row(&member("toy/in"))]],
            vec![out(&member("toy/in"))],
        ),
        (
            "a nested tag",
            vec![vec![("toy/in".into(), tag("in")), row("toy/a/members/@in"), row(&member("toy/in"))]],
            vec![out("toy/a/members/@in")],
        ),
        ("a rule", vec![vec![row(rule)]], vec![out(rule)]),
        (
            "a rule, and by name before",
            vec![vec![row(&member("toy/a")), row(rule)], vec![out(&member("toy/a"))]],
            vec![out(rule)],
        ),
        (
            "what a rule reads",
            vec![vec![row(rule)]],
            vec![(format!("hosts/{}", name(0)), host(0, json!({"big": false})))],
        ),
    ];
    for (what, before, last) in cases {
        let mut world = toys();
        world.set("toy/a", tag("hi"));
        world.set(&format!("hosts/{}", name(0)), host(0, json!({"big": true})));
        let commit = |world: &mut super::agent::Toys, all: &Rows| {
            let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
            world.commit(rows(&all))
        };
        for all in &before {
            commit(&mut world, all);
            world.run();
            // It is made anew: a tombstone from before is no reason any more.
            world.set(
                &format!("hosts/{}", name(0)),
                host(0, json!({"big": true, "note": world.revision().to_string()})),
            );
            world.run();
        }
        let left = commit(&mut world, &last);
        world.run();
        let mut all = world.place.1.batches.iter().flat_map(|b| &b.changes);
        let why = all.rfind(|edit| edit.key == format!("a/{}", name(0))).unwrap().because.clone();
        assert_eq!(why, Why::NotMember("toy/a".parse().unwrap(), name(0).parse().unwrap(), left), "{what}");
    }
}

#[test]
fn something_else_where_a_creation_was_meant_is_foreign() {
    let mut world = toys();
    world.fleet("a", 1, "hi");
    world.place.1.failing.insert(format!("a/{}", name(0)), crate::Fault::new("create", "timed out"));
    world.run();
    world.place.1.failing.clear();
    world.place.1.put(format!("a/{}", name(0)), &"somebody else's".to_owned());
    world.restart();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("somebody else's"));
}

#[test]
fn another_version_asks_before_it_changes_what_nobody_changed() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    let agent = std::sync::Arc::new(super::agent::Toy { logic: 2, suffix: "?", ..Default::default() });
    world.agent = agent.clone();
    world.place.0 = agent;
    world.restart();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    // What people change goes at once, in the new way.
    world.set(&format!("hosts/{}", name(1)), host(1, json!({"note": "!"})));
    world.run();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hi"), Some("hi!?")));
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 2)), (Some("hi?"), Some("hi?")));
}

#[test]
fn what_others_have_in_a_shared_item_does_not_count() {
    let mut world = toys_of(Nature { shared: true, ..Nature::default() });
    // Theirs alone: Shoal's is made beside it, from nothing.
    world.place.1.put(format!("a/{}", name(0)), &"theirs".to_owned());
    // Nobody wants anything there: it is not touched.
    world.place.1.put(format!("a/{}", name(7)), &"theirs".to_owned());
    // Something of what Shoal would make is there already: a clash, as anywhere.
    world.place.1.put(format!("a/{}", name(1)), &"other".to_owned());
    world.fleet("a", 2, "hi");
    assert_eq!(world.run(), Verdict::Held);
    let made: Vec<_> = world.place.1.batches.iter().flat_map(|b| &b.changes).collect();
    assert!(made.len() == 1 && made[0].from.is_none() && made[0].key.ends_with(&name(0)), "{}", made.len());
    assert!(world.trouble("a", 1).contains("Shoal did not make it"), "{}", world.trouble("a", 1));
    world.place.1.items.remove(&format!("a/{}", name(1)));
    world.restart();
    world.converge();
    // Shoal's went and theirs is left: made again, as drift, and forgotten when nobody wants it.
    world.place.1.put(format!("a/{}", name(0)), &"theirs".to_owned());
    world.engine().resync();
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi"));
    assert_eq!(world.engine().counters().drift, 1);
    world.crash();
    world.place.1.put(format!("a/{}", name(0)), &"theirs".to_owned());
    world.commit(rows(&[(&format!("toy/a/members/{}", name(0)), json!(null))]));
    world.advance(70_000);
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 7)), (Some("theirs"), Some("theirs")));
    let removed = world.place.1.batches.iter().flat_map(|b| &b.changes).filter(|edit| edit.to.is_none());
    assert_eq!(removed.count(), 0);
    assert!(!pages(&world.ledger).contains(&name(0)), "the ledger forgot it");
}

#[test]
fn what_one_that_was_stopped_made_is_removed_though_the_first_try_fails() {
    for boundary in 0..20 {
        let mut world = toys_of(Nature { shared: true, ..Nature::default() });
        let key = format!("a/{}", name(0));
        world.light_fuse(boundary);
        world.fleet("a", 1, "hi");
        world.run();
        world.crash();
        world.place.1.failing.insert(key.clone(), Fault::new("remove it", "not now"));
        world.commit(rows(&[(&format!("toy/a/members/{}", name(0)), json!(null))]));
        world.advance(70_000);
        world.place.1.failing.remove(&key);
        // The failure is what a look is after: it must not take what is there for somebody else's.
        world.advance(700_000);
        world.converge();
        assert_eq!(world.at("a", 0), None, "stopped at {boundary}");
        assert!(!pages(&world.ledger).contains(&name(0)), "{boundary}: the ledger forgot it");
    }
}

#[test]
fn a_step_may_say_that_only_a_person_can_go_on() {
    let mut world = toys();
    world.fleet("a", 1, "person");
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.trouble("a", 0), "held: a person has to look");
    world.set("toy/a", tag("hi"));
    world.converge();
}
