//! Mass changes, approvals, pauses, and another epoch.

use serde_json::json;
use shoal_core::Epoch;

use super::agent::{host, name, rows, tag, toys, toys_of};
use crate::{MaxChange, Nature, Verdict};

#[test]
fn a_mass_change_is_held_until_exactly_it_is_agreed_to() {
    let mut world = toys();
    world.fleet("a", 20, "hi");
    world.converge();
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    let digest = world.digest();
    assert!(!digest.is_empty());
    // Another change in between is another batch.
    world.set("toy/a", tag("yo yo"));
    world.set("approvals/toy/a", json!({"digest": digest}));
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    world.converge();
    assert_eq!(world.at("a", 19), Some("yo yo"));
    // An old approval lets nothing through.
    world.set("toy/a", tag("hi"));
    assert_eq!(world.run(), Verdict::Held);
}

#[test]
fn a_stop_in_the_middle_of_what_was_agreed_to_does_not_ask_again() {
    let mut world = toys();
    world.fleet("a", 40, "hi");
    world.options.max_batch = 13;
    world.converge();
    world.set("toy/a", tag("yo"));
    world.run();
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    // The ledger is written, the first batch goes, then the process dies.
    world.light_fuse(24);
    world.run();
    assert!(world.stopped_at().is_some());
    assert!((0..40).any(|n| world.at("a", n) == Some("hi")));
    world.restart();
    world.converge();
    assert!((0..40).all(|n| world.at("a", n) == Some("yo")));
}

#[test]
fn creations_are_never_too_many_and_small_changes_go() {
    let mut world = toys();
    world.fleet("a", 100, "hi");
    world.converge();
    let few: Vec<_> =
        (0..30).map(|n| (format!("hosts/{}", name(n)), host(n, json!({"note": "!"})))).collect();
    let few: Vec<_> = few.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(rows(&few));
    world.converge();
}

#[test]
fn removing_all_is_held_while_the_tag_stands() {
    let gone = |n| (format!("toy/a/members/{}", name(n)), json!(null));
    let mut world = toys();
    world.fleet("a", 5, "hi");
    world.converge();
    let all: Vec<_> = (0..5).map(gone).collect();
    let all: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    world.commit(rows(&all));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    // With the tag they go.
    world.set("toy/a", json!(null));
    world.converge();
    assert_eq!(world.at("a", 0), None);
}

#[test]
fn a_setting_raises_the_share_for_a_tag() {
    let mut world = toys();
    world.options.max_change_by_tag.insert("toy/a".parse().unwrap(), MaxChange(100));
    world.fleet("a", 20, "hi");
    world.fleet("b", 20, "hi");
    world.converge();
    world.commit(rows(&[("toy/a", tag("yo")), ("toy/b", tag("yo"))]));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("a", 0), world.at("b", 0)), (Some("yo"), Some("hi")));
}

#[test]
fn a_unit_is_not_emptied_in_small_steps() {
    let out = |world: &mut super::agent::Toys, n: usize| {
        world.set(&format!("toy/a/members/{}", name(n)), json!(null));
        world.run()
    };
    for (restarts, step) in [(false, 1), (true, 1), (false, 4)] {
        let mut world = toys();
        world.options.max_change_within = 3_600_000;
        world.fleet("a", 40, "hi");
        world.converge();
        let mut gone = 0;
        while gone < 40 {
            let last = (gone..gone + step).map(|n| out(&mut world, n)).last();
            if last == Some(Verdict::Held) {
                break;
            }
            gone += step;
            if restarts {
                // Until the dead one's claim has ended.
                world.restart();
            }
        }
        assert_eq!(gone, 12, "restarts: {restarts}");
        let (_, hold) = world.engine().holds().next().unwrap();
        assert!(hold.why.contains("12 were removed of late without asking"), "{}", hold.why);
        // Changes of what stays have nothing to do with it.
        world.set(&format!("hosts/{}", name(39)), host(39, json!({"note": "!"})));
        assert_eq!((world.run(), world.at("a", 12)), (Verdict::Held, Some("hi")));
        let digest = world.digest();
        world.set("approvals/toy/a", json!({"digest": digest}));
        world.converge();
        // Somebody looked: it is counted anew.
        assert_eq!(out(&mut world, 30), Verdict::Converged);
    }
}

#[test]
fn what_was_removed_long_ago_does_not_count() {
    for within in [600_000, 0] {
        let mut world = toys();
        world.options.max_change_within = within;
        world.fleet("a", 40, "hi");
        world.converge();
        for n in 0..40 {
            world.set(&format!("toy/a/members/{}", name(n)), json!(null));
            world.converge();
            world.advance(if within == 0 { 1_000 } else { 70_000 });
        }
    }
}

#[test]
fn a_sweep_cannot_slip_past_the_guard_in_slices() {
    let mut world = toys();
    world.options.sweep_slice = 3;
    world.fleet("a", 20, "hi");
    world.converge();
    for n in 0..20 {
        world.place.1.put(format!("a/{}", name(n)), &"scribble".to_owned());
    }
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert!((0..20).all(|n| world.at("a", n) == Some("scribble")));
}

#[test]
fn pauses_hold_and_plans_go_on() {
    for scope in [format!("host/{}", name(0)), "tag/toy/a".to_owned(), "agent/toy".to_owned()] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        world.converge();
        world.set(&format!("pauses/{scope}"), json!({"why": "hands off"}));
        world.set("toy/a", tag("yo"));
        assert_eq!(world.run(), Verdict::Held);
        assert_eq!(world.at("a", 0), Some("hi"));
        let plan = world.engine().plan();
        let step = &plan.units[0].steps[0];
        assert!(step.held.as_ref().unwrap().contains("hands off"), "{step:?}");
        assert_eq!(step.verb, "update");
        // What is paused is not removed either.
        world.set(&format!("toy/a/members/{}", name(0)), json!(null));
        world.run();
        assert_eq!(world.at("a", 0), Some("hi"), "{scope}");
        world.set(&format!("pauses/{scope}"), json!(null));
        world.converge();
        assert_eq!(world.at("a", 0), None);
    }
}

#[test]
fn a_renamed_host_or_tag_that_is_paused_keeps_what_it_has() {
    let moves = |world: &mut super::agent::Toys, pairs: &[(&str, &str, serde_json::Value)]| {
        let mut all = Vec::new();
        for (from, to, value) in pairs {
            let mut change = rows(&[(from, json!(null)), (to, value.clone())]);
            change[0].moved = to.parse().ok();
            change[1].moved = from.parse().ok();
            all.extend(change);
        }
        world.commit(all);
    };
    let old = |kind: &str| if kind == "host" { name(0) } else { "toy/a".to_owned() };
    let new = |kind: &str, n: usize| {
        if kind == "host" { format!("new{n}.example.com") } else { format!("toy/b{n}") }
    };
    for kind in ["host", "tag"] {
        for restarts in [false, true] {
            let mut world = toys();
            world.fleet("a", 1, "hi");
            world.converge();
            world.set(&format!("pauses/{kind}/{}", old(kind)), json!({"why": "hands off"}));
            let mut from = old(kind);
            for n in 0..2 {
                let to = new(kind, n);
                let pause = |what: &str| format!("pauses/{kind}/{what}");
                let held = (pause(&from), pause(&to));
                let why = json!({"why": "hands off"});
                let row = |what: &str| if kind == "host" { format!("hosts/{what}") } else { what.to_owned() };
                let value = if kind == "host" { host(0, json!({})) } else { tag("hi") };
                let member = |what: &str| {
                    if kind == "host" {
                        format!("toy/a/members/{what}")
                    } else {
                        format!("{what}/members/{}", name(0))
                    }
                };
                let all = [(member(&from), json!(null)), (member(&to), json!({}))];
                let all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
                moves(&mut world, &[(&row(&from), &row(&to), value), (&held.0, &held.1, why)]);
                world.commit(rows(&all));
                from = to;
                if restarts {
                    world.restart();
                }
                assert_eq!(world.run(), Verdict::Held);
                assert_eq!(world.at("a", 0), Some("hi"), "{kind}");
                assert_eq!(world.place.1.items.len(), 1, "{kind}: the new one is held, too");
            }
            world.set(&format!("pauses/{kind}/{from}"), json!(null));
            world.converge();
            assert_eq!((world.at("a", 0), world.place.1.items.len()), (None, 1));
        }
    }
}

#[test]
fn what_is_paused_and_deleted_stays_until_it_is_resumed() {
    for scope in [format!("host/{}", name(0)), "tag/toy/a".to_owned()] {
        let mut world = toys();
        world.fleet("a", 1, "hi");
        world.converge();
        world.set(&format!("pauses/{scope}"), json!({"why": "hands off"}));
        world.commit(rows(&[
            (&format!("hosts/{}", name(0)), json!(null)),
            (&format!("toy/a/members/{}", name(0)), json!(null)),
            ("toy/a", json!(null)),
        ]));
        world.restart();
        assert_eq!((world.run(), world.at("a", 0)), (Verdict::Held, Some("hi")));
        world.set(&format!("pauses/{scope}"), json!(null));
        world.converge();
        assert_eq!(world.at("a", 0), None);
    }
}

#[test]
fn of_a_unit_that_several_tags_feed_a_pause_holds_what_it_has_a_part_in() {
    for whole in [false, true] {
        let mut world = toys_of(Nature { whole, ..Nature::default() });
        let second = |text: &str| json!({"document": {"text": text, "unit": "a"}});
        world.fleet("a", 3, "hi");
        // Host 1 is in both, host 3 in the second tag only.
        world.commit(rows(&[
            ("toy/second", second("two")),
            (&format!("hosts/{}", name(3)), host(3, json!({}))),
            (&format!("toy/second/members/{}", name(1)), json!({})),
            (&format!("toy/second/members/{}", name(3)), json!({})),
        ]));
        world.converge();
        let then = |world: &super::agent::Toys| {
            (0..4).map(|n| world.at("a", n).map(str::to_owned)).collect::<Vec<_>>()
        };
        let before = then(&world);
        assert_eq!(before[1].as_deref(), Some("hi;two"));
        world.set("pauses/tag/toy/second", json!({"why": "hands off"}));
        world.commit(rows(&[("toy/a", tag("yo")), ("toy/second", second("three"))]));
        // Taken out, it is still what the paused tag made.
        world.set(&format!("toy/second/members/{}", name(3)), json!(null));
        assert_eq!(world.run(), Verdict::Held);
        let now = then(&world);
        assert_eq!((now[0].as_deref(), now[2].as_deref()), (Some("yo"), Some("yo")));
        assert_eq!((&now[1], &now[3]), (&before[1], &before[3]));
        assert_eq!(world.engine().status(0, false).units["a"].held_total, 2);
        // The same of a host.
        world.commit(rows(&[
            ("pauses/tag/toy/second", json!(null)),
            (&format!("pauses/host/{}", name(1)), json!({"why": "x"})),
        ]));
        world.set("toy/a", tag("four"));
        assert_eq!(world.run(), Verdict::Held);
        let now = then(&world);
        assert_eq!(
            (now[0].as_deref(), now[1].as_deref(), now[3].as_deref()),
            (Some("four"), Some("hi;two"), None)
        );
    }
}

#[test]
fn another_epoch_holds_until_a_person_agrees() {
    for live in [true, false] {
        let mut world = toys();
        world.fleet("a", 2, "hi");
        world.converge();
        if !live {
            world.crash();
        }
        world.restore(Epoch(7));
        world.advance(70_000);
        assert_eq!(world.run(), Verdict::Converged, "nothing to do, nothing to ask");
        world.set("toy/a", tag("old"));
        assert_eq!(world.run(), Verdict::Held, "live {live}");
        assert_eq!(world.at("a", 0), Some("hi"));
        assert_eq!(world.digest(), "0000000000000007");
        world.set("approvals/toy", json!({"digest": "0000000000000007"}));
        world.converge();
        assert_eq!(world.at("a", 0), Some("old"));
        world.restart();
        world.set("toy/a", tag("new"));
        world.converge();
    }
}

#[test]
fn what_an_old_database_does_not_know_is_said_to_be_so() {
    let mut world = toys_of(Nature { whole: true, ..Nature::default() });
    world.fleet("a", 3, "hi");
    world.converge();
    for n in [1, 5, 6] {
        world.place.1.put(format!("a/{}", name(n)), &"newer".to_owned());
    }
    world.crash();
    world.restore(Epoch(7));
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Held);
    let plan = world.engine().plan();
    assert_eq!(plan.units[0].steps.len(), 3);
    for step in &plan.units[0].steps {
        let why = step.because.to_string();
        assert!(why.contains("restored (epoch 0000000000000007, before 0000000000000001)"), "{why}");
    }
    let hold = plan.units[0].hold.clone().unwrap();
    assert_eq!((hold.remove, hold.update, hold.of), (2, 1, 5));
    world.set("approvals/toy", json!({"digest": "0000000000000007"}));
    world.converge();
    assert_eq!((world.at("a", 1), world.place.1.items.len()), (Some("hi"), 3));
    let counters = world.engine().counters();
    assert_eq!((counters.anew, counters.drift), (3, 0));
}

#[test]
fn no_units_approval_is_taken_for_that_of_the_epoch() {
    let mut world = toys();
    world.fleet("a", 2, "hi");
    world.fleet("epoch", 20, "hi");
    world.converge();
    world.restore(Epoch(7));
    world.advance(70_000);
    world.set("toy/a", tag("old"));
    assert_eq!(world.run(), Verdict::Held);
    world.set("approvals/toy/epoch", json!({"digest": "0000000000000007"}));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
    world.set("approvals/toy", json!({"digest": "0000000000000007"}));
    world.converge();
    // Nor that of the epoch for one of a unit.
    let mut world = toys();
    world.fleet("epoch", 20, "hi");
    world.converge();
    world.set("toy/epoch", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.set("approvals/toy", json!({"digest": digest}));
    assert_eq!(world.run(), Verdict::Held);
    world.set("approvals/toy/epoch", json!({"digest": digest}));
    world.converge();
    assert_eq!(world.at("epoch", 0), Some("yo"));
}

#[test]
fn a_unit_of_any_name_can_be_approved() {
    for unit in ["eu web", "100%", "eu:web"] {
        let mut world = toys();
        let fed = |text: &str| json!({"document": {"text": text, "unit": unit}});
        world.fleet("a", 20, "hi");
        world.set("toy/a", fed("hi"));
        world.converge();
        world.set("toy/a", fed("yo"));
        assert_eq!(world.run(), Verdict::Held);
        let key = shoal_core::Key::approval(&"toy".parse().unwrap(), Some(unit)).unwrap();
        let digest = world.digest();
        world.set(key.as_str(), json!({"digest": digest}));
        world.converge();
        assert_eq!(world.at(unit, 0), Some("yo"));
    }
}

/// A world of 40 hosts, of which a nested tag brings 20: those go with it.
fn nested() -> super::agent::Toys {
    let mut world = toys();
    world.fleet("a", 40, "hi");
    let inner = (0..20).map(|n| format!("net/inner/members/{}", name(n))).collect::<Vec<_>>();
    let direct = (0..20).map(|n| format!("toy/a/members/{}", name(n))).collect::<Vec<_>>();
    let mut all = vec![("net/inner", json!({})), (NESTED, json!({}))];
    all.extend(inner.iter().map(|key| (key.as_str(), json!({}))));
    all.extend(direct.iter().map(|key| (key.as_str(), json!(null))));
    world.commit(rows(&all));
    world.converge();
    assert_eq!(world.at("a", 0), Some("hi"));
    world
}

const NESTED: &str = "toy/a/members/@net/inner";

fn approve(world: &mut super::agent::Toys) -> String {
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.set("approvals/toy/a", json!({"digest": digest}));
    digest
}

#[test]
fn an_approval_is_good_once() {
    for restarts in [false, true] {
        let mut world = nested();
        for _ in 0..3 {
            // The approval of last time still stands.
            world.set(NESTED, json!(null));
            approve(&mut world);
            world.converge();
            assert_eq!((world.at("a", 0), world.at("a", 30)), (None, Some("hi")));
            world.set(NESTED, json!({}));
            if restarts {
                world.crash();
                world.advance(70_000);
            }
            world.converge();
            assert_eq!(world.at("a", 0), Some("hi"));
        }
        // All of a unit at once: its ledger falls empty, and is begun anew.
        let members = |value: serde_json::Value| {
            let all = (20..40).map(|n| (format!("toy/a/members/{}", name(n)), value.clone()));
            all.collect::<Vec<_>>()
        };
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..3 {
            for (include, value) in [(false, json!(null)), (true, json!({}))] {
                let all = members(value.clone());
                let mut all: Vec<_> = all.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
                all.push((NESTED, value));
                world.commit(rows(&all));
                if !include {
                    assert!(asked.insert(approve(&mut world)));
                }
                if restarts {
                    world.crash();
                    world.advance(70_000);
                }
                world.converge();
                assert_eq!(world.at("a", 30).is_some(), include);
            }
        }
    }
}

#[test]
fn an_approval_of_what_was_undone_meanwhile_is_spent() {
    let mut world = nested();
    world.set(NESTED, json!(null));
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.crash();
    world.set("approvals/toy/a", json!({"digest": digest}));
    world.set(NESTED, json!({}));
    world.advance(70_000);
    world.converge();
    world.crash();
    world.set(NESTED, json!(null));
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
}

#[test]
fn the_digest_stays_while_the_hold_does() {
    let mut world = nested();
    world.set(NESTED, json!(null));
    assert_eq!(world.run(), Verdict::Held);
    let digest = world.digest();
    world.engine().resync();
    world.advance(70_000);
    assert_eq!(world.digest(), digest);
    world.restart();
    assert_eq!(world.digest(), digest);
    // What has nothing to do with it changes nothing, and another engine shows the same.
    world.commit(rows(&[(&format!("hosts/{}", name(3)), host(3, json!({"other": 1})))]));
    world.commit(rows(&[("net/other", json!({})), (&format!("hosts/{}", name(50)), host(50, json!({})))]));
    assert_eq!((world.run(), world.digest()), (Verdict::Held, digest.clone()));
    world.set("approvals/toy/a", json!({"digest": digest}));
    world.converge();
}

#[test]
fn drift_is_asked_about_each_time() {
    // With an entry in the ledger, and without.
    for (nature, of) in [(Nature::default(), 0), (Nature { whole: true, ..Nature::default() }, 100)] {
        let mut world = toys_of(nature);
        world.fleet("a", 20, "hi");
        world.converge();
        let mut asked = std::collections::BTreeSet::new();
        for _ in 0..3 {
            for n in of..of + 20 {
                world.place.1.put(format!("a/{}", name(n)), &"scribble".to_owned());
            }
            world.engine().resync();
            assert!(asked.insert(approve(&mut world)), "{of}");
            // The first attempt fails: what was agreed to is not asked again.
            world.place.1.failing.insert(format!("a/{}", name(of)), crate::Fault::new("write", "no"));
            world.run();
            world.place.1.failing.clear();
            world.advance(60_000);
            world.converge();
            assert_ne!(world.at("a", of), Some("scribble"));
        }
    }
}

#[test]
fn what_was_agreed_to_and_is_not_wanted_any_more_is_asked_about_again() {
    let mut world = toys();
    world.fleet("a", 20, "hi");
    world.converge();
    for n in 0..20 {
        world.place.1.failing.insert(format!("a/{}", name(n)), crate::Fault::new("update", "no"));
    }
    world.set("toy/a", tag("yo"));
    approve(&mut world);
    world.run();
    world.set("toy/a", tag("other"));
    assert_eq!(world.run(), Verdict::Held);
    world.set("toy/a", tag("yo"));
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 0), Some("hi"));
}

#[test]
fn what_is_written_down_while_another_epoch_holds_does_not_end_the_hold() {
    let mut world = toys();
    world.fleet("a", 3, "hi");
    world.converge();
    world.restore(Epoch(7));
    world.advance(70_000);
    world.set("toy/a", tag("old"));
    assert_eq!(world.run(), Verdict::Held);
    // One is gone from the target and the database: only the ledger has to say so.
    let before = world.ledger.clone();
    world.place.1.items.remove(&format!("a/{}", name(0)));
    world.set(&format!("toy/a/members/{}", name(0)), json!(null));
    world.engine().resync();
    assert_eq!(world.run(), Verdict::Held);
    assert_ne!(world.ledger, before);
    world.restart();
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.digest(), "0000000000000007");
    assert_eq!(world.at("a", 1), Some("hi"));
}

#[test]
fn what_was_made_anew_is_asked_about_anew_though_the_ledger_was_empty() {
    let mut world = nested();
    let all = |value: serde_json::Value| {
        let members = (20..40).map(move |n| (format!("toy/a/members/{}", name(n)), value.clone()));
        members.collect::<std::collections::BTreeMap<_, _>>()
    };
    let set = |world: &mut super::agent::Toys, value: serde_json::Value| {
        let mut all = all(value.clone());
        all.insert(NESTED.to_owned(), value);
        world.commit(rows(&all.iter().map(|(k, v)| (k.as_str(), v.clone())).collect::<Vec<_>>()));
    };
    set(&mut world, json!(null));
    approve(&mut world);
    world.converge();
    assert!(world.ledger.is_empty());
    world.crash();
    // One that cannot be made: the unit never comes to rest.
    world.place.1.failing.insert(format!("a/{}", name(50)), crate::Fault::new("create", "no"));
    let odd = format!("toy/a/members/{}", name(50));
    world.commit(rows(&[(&format!("hosts/{}", name(50)), host(50, json!({}))), (&odd, json!({}))]));
    set(&mut world, json!({}));
    world.advance(70_000);
    assert_eq!(world.at("a", 39), Some("hi"));
    world.set(&odd, json!(null));
    set(&mut world, json!(null));
    world.advance(70_000);
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!(world.at("a", 39), Some("hi"));
}
