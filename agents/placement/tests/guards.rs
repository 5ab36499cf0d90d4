//! On a real store: what is not known is not taken for free, and one host or box that is wrong holds nobody else up.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![cfg(feature = "agent")]

mod database;

use std::collections::BTreeMap;

use database::{a_box, choose, chosen, deleted, host, how, open, put, renamed, settled};
use serde_json::{Value, json};
use shoal_agent::chooser::{Chooser as _, How, Measured, World, pass};
use shoal_core::{Document, Edit, Expect, Key, Lifecycle};
use shoal_placement::agent::{Placement, Settings};
use shoal_placement::choose::Policy;

#[tokio::test]
async fn a_name_that_is_given_anew_takes_no_promise_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = json!({"size": {"cpu": 3}});
    let edits = vec![a_box(8), host("web.example.com", Lifecycle::Requested, &machine)];
    put(&database, edits).await;
    assert_eq!(chosen(&choose(&database).await), ["place web.example.com on box.example.com"]);
    put(&database, vec![renamed("web.example.com", "web-old.example.com")]).await;
    put(&database, vec![host("web.example.com", Lifecycle::Requested, &machine)]).await;
    // The new one has promises of its own, and both count.
    assert_eq!(chosen(&choose(&database).await), ["place web.example.com on box.example.com"]);
    put(&database, vec![host("more.example.com", Lifecycle::Requested, &machine)]).await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new());
    // Only what the new one had is given back, and used.
    put(&database, vec![settled("web.example.com", Lifecycle::Retired)]).await;
    let both = ["forget web.example.com on box.example.com", "place more.example.com on box.example.com"];
    assert_eq!(chosen(&choose(&database).await), both);
    put(&database, vec![host("most.example.com", Lifecycle::Requested, &machine)]).await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new());
    put(&database, vec![settled("web-old.example.com", Lifecycle::Retired)]).await;
    let both = ["forget web-old.example.com on box.example.com", "place most.example.com on box.example.com"];
    assert_eq!(chosen(&choose(&database).await), both);
}

#[tokio::test]
async fn a_deleted_machine_that_is_said_to_be_destroyed_gives_its_room_back() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = json!({"size": {"cpu": 3}});
    let edits = vec![a_box(4), host("a.example.com", Lifecycle::Requested, &machine)];
    put(&database, edits).await;
    assert_eq!(choose(&database).await.chosen.len(), 1);
    let id = database.view().host("a.example.com").unwrap().id.clone();
    put(&database, vec![deleted("a.example.com"), host("b.example.com", Lifecycle::Requested, &machine)])
        .await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new(), "it may live");
    let key = Key::fact(&"vm".parse().unwrap(), "box.example.com").unwrap();
    let gone = |ids: Value| Edit::Write {
        key: key.clone(),
        value: Document::of(&json!({"gone": ids})).unwrap(),
        expect: Expect::Any,
    };
    put(&database, vec![gone(json!(["another"]))]).await;
    assert_eq!(chosen(&choose(&database).await), Vec::<String>::new());
    put(&database, vec![gone(json!([id]))]).await;
    let both = ["forget a.example.com on box.example.com", "place b.example.com on box.example.com"];
    assert_eq!(chosen(&choose(&database).await), both);
}

#[tokio::test]
async fn two_promises_of_one_name_both_count() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let (room, machine) = (json!({"box": {"capacity": {"cpu": 4}}}), json!({"size": {"cpu": 3}}));
    let edits = vec![
        host("box1.example.com", Lifecycle::Active, &room),
        host("box2.example.com", Lifecycle::Active, &room),
        host("a.example.com", Lifecycle::Requested, &machine),
        host("b.example.com", Lifecycle::Requested, &machine),
    ];
    put(&database, edits).await;
    assert_eq!(choose(&database).await.chosen.len(), 2);
    put(&database, vec![deleted("a.example.com")]).await;
    put(&database, vec![renamed("b.example.com", "a.example.com")]).await;
    put(&database, vec![host("c.example.com", Lifecycle::Requested, &machine)]).await;
    let waits = choose(&database).await;
    assert_eq!(chosen(&waits), Vec::<String>::new());
    assert_eq!(waits.behind[0].why, "waiting: no room for c.example.com: 2 boxes or zones: too little cpu");
}

#[tokio::test]
async fn a_box_where_somebody_stands_who_cannot_be_counted_takes_nothing_new() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let edits = vec![
        host("box.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": 8, "a": 1}}})),
        host("new.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 2}})),
    ];
    put(&database, edits).await;
    let rules = json!({"on": "box.example.com"});
    let five = json!({"cpu": 1, "b": 1, "c": 1, "d": 1, "e": 1});
    let odd = [
        json!({"placement": rules}),
        json!({"placement": rules, "size": "large"}),
        json!({"placement": rules, "size": five}),
        json!({"placement": {"on": "box.example.com", "later": 1}, "size": {"cpu": 1}}),
    ];
    for document in odd {
        put(&database, vec![host("old.example.com", Lifecycle::Active, &document)]).await;
        let closed = choose(&database).await;
        assert_eq!(chosen(&closed), Vec::<String>::new(), "{document}");
        assert_eq!(closed.behind[0].why, "waiting: no room for new.example.com: 1 box or zone: closed");
        let [why] = &closed.quarantined[..] else { panic!("{:?}", closed.quarantined) };
        assert_eq!(why.what, "old.example.com");
        assert!(why.why.ends_with("; nothing new is placed on box.example.com"), "{}", why.why);
    }
    // The box is called otherwise, and whoever stands there says the old name: it counts all the same.
    let there = json!({"placement": rules, "size": {"cpu": 7}});
    put(&database, vec![host("old.example.com", Lifecycle::Active, &there)]).await;
    put(&database, vec![renamed("box.example.com", "other.example.com")]).await;
    let full = choose(&database).await;
    assert_eq!((chosen(&full), full.quarantined.len()), (Vec::new(), 0));
    assert_eq!(full.behind[0].why, "waiting: no room for new.example.com: 1 box or zone: too little cpu");
    let less = json!({"placement": rules, "size": {"cpu": 6}});
    put(&database, vec![host("old.example.com", Lifecycle::Active, &less)]).await;
    assert_eq!(chosen(&choose(&database).await), ["place new.example.com on other.example.com"]);
}

#[tokio::test]
async fn a_promise_that_cannot_be_counted_closes_its_box() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let edits = vec![a_box(8), host("new.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 2}}))];
    put(&database, edits).await;
    let fact = Key::fact(&"placement".parse().unwrap(), "box.example.com").unwrap();
    let five = json!({"holds": {"old.example.com": {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1}}});
    let value = Document::of(&five).unwrap();
    put(&database, vec![Edit::Write { key: fact, value, expect: Expect::Any }]).await;
    let closed = choose(&database).await;
    assert_eq!((chosen(&closed), closed.quarantined.len()), (Vec::new(), 1));
    assert_eq!(closed.behind[0].why, "waiting: no room for new.example.com: 1 box or zone: closed");
}

#[tokio::test]
async fn a_box_that_is_written_anew_is_not_taken_for_empty() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let room = a_box(4);
    let machine = json!({"size": {"cpu": 3}});
    put(&database, vec![room.clone(), host("old.example.com", Lifecycle::Requested, &machine)]).await;
    assert_eq!(chosen(&choose(&database).await), ["place old.example.com on box.example.com"]);
    put(&database, vec![deleted("box.example.com")]).await;
    put(&database, vec![room, host("new.example.com", Lifecycle::Requested, &machine)]).await;
    let closed = choose(&database).await;
    assert_eq!(chosen(&closed), Vec::<String>::new());
    assert_eq!(closed.behind[0].why, "waiting: no room for new.example.com: 1 box or zone: closed");
    let [why] = &closed.quarantined[..] else { panic!("{:?}", closed.quarantined) };
    assert_eq!(why.what, "old.example.com");
    assert!(why.why.contains("box.example.com, which has promised it nothing"), "{}", why.why);
    // It says itself where it stands: then it counts, and the box takes what is left.
    let there = json!({"size": {"cpu": 3}, "placement": {"on": "box.example.com"}});
    let small = host("new.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 1}}));
    put(&database, vec![host("old.example.com", Lifecycle::Placed, &there), small]).await;
    let placed = choose(&database).await;
    assert_eq!(
        (chosen(&placed), placed.quarantined.len()),
        (vec!["place new.example.com on box.example.com".to_owned()], 0)
    );
}

#[tokio::test]
async fn who_is_requested_again_is_placed_again_and_whoever_is_deleted_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = host("a.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 3}}));
    let room = |state| host("box.example.com", state, &json!({"box": {"capacity": {"cpu": 4}}}));
    put(&database, vec![room(Lifecycle::Active), machine.clone()]).await;
    let placed = ["place a.example.com on box.example.com"];
    assert_eq!(chosen(&choose(&database).await), placed);
    put(&database, vec![settled("a.example.com", Lifecycle::Requested)]).await;
    let again = choose(&database).await;
    assert_eq!((chosen(&again), again.behind.len()), (placed.map(str::to_owned).into(), 0));
    assert_eq!(database.view().host("a.example.com").unwrap().state, Lifecycle::Placed);
    // Its box is dead: somebody says first that it is gone.
    put(&database, vec![room(Lifecycle::Failed), settled("a.example.com", Lifecycle::Requested)]).await;
    let waits = choose(&database).await;
    assert_eq!(chosen(&waits), Vec::<String>::new());
    let why = &waits.behind[0].why;
    assert!(why.starts_with("waiting: it has room on box.example.com, which is dead"), "{why}");
    // Deleted and written anew it is another machine: the one before keeps its room, and is named.
    let id = database.view().host("a.example.com").unwrap().id.clone();
    put(&database, vec![room(Lifecycle::Active), deleted("a.example.com")]).await;
    put(&database, vec![machine]).await;
    let waits = choose(&database).await;
    assert_eq!(chosen(&waits), Vec::<String>::new());
    assert_eq!(waits.behind[0].why, "waiting: no room for a.example.com: 1 box or zone: too little cpu");
    let [lost] = &waits.quarantined[..] else { panic!("{:?}", waits.quarantined) };
    assert!(
        lost.why.contains(&id.0) && lost.why.contains("it keeps its room on box.example.com"),
        "{}",
        lost.why
    );
    // Somebody says that it is gone, under any name: its room is the other's.
    let gone = Edit::PutHost {
        host: "gone.example.com".parse().unwrap(),
        id: Some(id),
        state: Some(Lifecycle::Retired),
        owner: None,
        environment: None,
        expires: None,
        document: Document::of(&json!({})).unwrap(),
        expect: Expect::Any,
    };
    put(&database, vec![gone]).await;
    let both = choose(&database).await;
    assert_eq!(chosen(&both), ["forget gone.example.com on box.example.com", placed[0]]);
    assert_eq!(both.quarantined, vec![]);
}

#[tokio::test]
async fn who_may_not_be_written_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let machine = json!({"size": {"cpu": 1}});
    let names = ["a.example.com", "b.example.com", "c.example.com"];
    put(&database, vec![a_box(8)]).await;
    put(&database, names.iter().map(|name| host(name, Lifecycle::Requested, &machine)).collect()).await;
    choose(&database).await;
    // One is to be forgotten, one placed again, and one placed.
    let states = [Lifecycle::Retired, Lifecycle::Requested, Lifecycle::Placed];
    put(&database, names.iter().zip(states).map(|(name, state)| settled(name, state)).collect()).await;
    put(&database, vec![host("d.example.com", Lifecycle::Requested, &machine)]).await;
    let view = database.view();
    let measured = Measured::new();
    let whole = World {
        view: &view,
        epoch: database.epoch(),
        now: "2026-07-01T10:00:00Z".parse().unwrap(),
        measured: &measured,
        instance: 0,
        most: 7,
        only: None,
        refused: None,
    };
    let all = Placement::default().decide(&whole).unwrap();
    assert_eq!(
        all.about.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["a.example.com", "b.example.com", "d.example.com"]
    );
    for one in &all.about {
        let refused = BTreeMap::from([(one.clone(), "it is protected".to_owned())]);
        let less = Placement::default().decide(&World { refused: Some(&refused), ..whole }).unwrap();
        assert_eq!(less.about.len(), 2);
        assert!(!less.about.contains(one));
        let [named] = &less.quarantined[..] else { panic!("{:?}", less.quarantined) };
        assert_eq!((named.what.as_str(), named.why.contains("it is protected")), (one.as_str(), true));
    }
    // No more than are asked for, of whatever kind.
    for most in 1..3 {
        let some = Placement::default().decide(&World { most, ..whole }).unwrap();
        assert_eq!((some.about.len(), some.more), (most, true));
    }
}

#[tokio::test]
async fn a_box_that_is_a_machine_too_keeps_what_it_has_given_out_and_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let both = json!({"size": {"cpu": 4}, "box": {"capacity": {"cpu": 2}}});
    let small = json!({"size": {"cpu": 2}});
    let edits = vec![a_box(8), host("inner.example.com", Lifecycle::Requested, &both)];
    put(&database, edits).await;
    assert_eq!(chosen(&choose(&database).await), ["place inner.example.com on box.example.com"]);
    // It runs by now, and takes machines itself; its own place is still known.
    let active = settled("inner.example.com", Lifecycle::Active);
    let rules = json!({"size": {"cpu": 2}, "placement": {"only": [{"name": "inner.example.com"}]}});
    put(&database, vec![active, host("a.example.com", Lifecycle::Requested, &rules)]).await;
    assert_eq!(chosen(&choose(&database).await), ["place a.example.com on inner.example.com"]);
    let fact = || database.view().facts("inner.example.com")[0].document.value();
    assert_eq!(
        (&fact()["box"], &fact()["holds"]),
        (&json!("box.example.com"), &json!({"a.example.com": {"cpu": 2}}))
    );
    // It is requested again, and anew: what it has given out stays.
    put(&database, vec![settled("inner.example.com", Lifecycle::Retired)]).await;
    assert_eq!(chosen(&choose(&database).await), ["forget inner.example.com on box.example.com"]);
    put(
        &database,
        vec![
            settled("inner.example.com", Lifecycle::Requested),
            host("b.example.com", Lifecycle::Requested, &small),
        ],
    )
    .await;
    assert_eq!(choose(&database).await.chosen.len(), 2);
    assert_eq!(
        (&fact()["box"], &fact()["holds"]),
        (&json!("box.example.com"), &json!({"a.example.com": {"cpu": 2}}))
    );
    // A placed machine that somebody calls a box holds nothing up, and takes nothing.
    let called = json!({"size": {"cpu": 2}, "box": {}});
    put(
        &database,
        vec![
            host("b.example.com", Lifecycle::Placed, &called),
            host("c.example.com", Lifecycle::Requested, &small),
        ],
    )
    .await;
    let placed = choose(&database).await;
    assert_eq!(
        (chosen(&placed), placed.quarantined.len()),
        (vec!["place c.example.com on box.example.com".to_owned()], 0)
    );
}

#[tokio::test]
async fn a_room_whose_fact_is_full_takes_nothing_new_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let mut edits = vec![
        host("a.example.com", Lifecycle::Active, &json!({"box": {"zone": true}})),
        host("b.example.com", Lifecycle::Active, &json!({"box": {"zone": true}})),
    ];
    let names: Vec<String> = (0..6).map(|n| format!("m{n}.example.com")).collect();
    edits.extend(names.iter().map(|name| host(name, Lifecycle::Requested, &json!({"size": {"cpu": 1}}))));
    put(&database, edits).await;
    // Zones whose rows are full.
    let filled = |octets: usize| {
        let one = |n: usize| (format!("old{n:05}.example.com"), json!({"cpu": 1}));
        let each = "\"old00000.example.com\":{\"cpu\":1},".len();
        Document::of(&json!({"holds": (0..octets / each).map(one).collect::<serde_json::Map<_, _>>()}))
            .unwrap()
    };
    let fact = |name: &str| Key::fact(&"placement".parse().unwrap(), name).unwrap();
    for (name, octets) in
        [("a.example.com", shoal_core::MAX_ROW - 100), ("b.example.com", shoal_core::MAX_ROW - 600)]
    {
        put(&database, vec![Edit::Write { key: fact(name), value: filled(octets), expect: Expect::Any }])
            .await;
        let choice = choose(&database).await;
        assert!(choice.chosen.iter().all(|one| !one.with.contains(name)), "{:?}", choice.chosen);
        assert!(choice.quarantined.iter().any(|one| one.what == name && one.why.contains("fills a row")));
    }
    // One that is not full by the row's own measure gets no more in one commit than the row can hold.
    let new: Vec<Edit> = (0..1500)
        .map(|n| {
            host(
                &format!("{n:04}{}.example.com", "x".repeat(59)),
                Lifecycle::Requested,
                &json!({"size": {"cpu": 1}}),
            )
        })
        .collect();
    let room = host("c.example.com", Lifecycle::Active, &json!({"box": {"zone": true}}));
    put(&database, vec![room]).await;
    put(&database, new).await;
    let value = filled(shoal_core::MAX_ROW / 16 * 15 - 1000);
    put(&database, vec![Edit::Write { key: fact("c.example.com"), value, expect: Expect::Any }]).await;
    let many = How { most: 1000, ..how(0) };
    let choice = pass(&database, &Placement::default(), &many).await.unwrap().choice;
    assert!((100..600).contains(&choice.chosen.len()), "{}", choice.chosen.len());
    assert!(choice.behind.iter().any(|one| one.why.ends_with("c.example.com has given out fills a row")));
    assert!(database.view().facts("c.example.com")[0].document.as_str().len() <= shoal_core::MAX_ROW);
    // And then it waits for another room, and is told so.
    let after = pass(&database, &Placement::default(), &many).await.unwrap().choice;
    assert!(
        after.quarantined.iter().any(|one| one.what == "c.example.com" && one.why.contains("fills a row"))
    );
    assert!(
        after.behind.iter().all(|one| one.why.ends_with("3 boxes or zones: closed")),
        "{:?}",
        after.behind[0]
    );
}

#[tokio::test]
async fn what_stood_on_a_dead_box_counts_for_rules_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let room = |state| ("box1.example.com", state, json!({"rack": "r1", "box": {"capacity": {"cpu": 4}}}));
    let put_room = |(name, state, document): (&str, Lifecycle, Value)| host(name, state, &document);
    let rules = json!({"group": "vm/k", "apart": [{"tag": "vm/k", "level": "rack"}]});
    let machine = json!({"size": {"cpu": 1}, "placement": rules});
    let edits =
        vec![put_room(room(Lifecycle::Active)), host("k1.example.com", Lifecycle::Requested, &machine)];
    put(&database, edits).await;
    assert_eq!(chosen(&choose(&database).await), ["place k1.example.com on box1.example.com"]);
    let next =
        host("box2.example.com", Lifecycle::Active, &json!({"rack": "r1", "box": {"capacity": {"cpu": 4}}}));
    let edits =
        vec![put_room(room(Lifecycle::Failed)), next, host("k2.example.com", Lifecycle::Requested, &machine)];
    put(&database, edits).await;
    let waits = choose(&database).await;
    assert_eq!(chosen(&waits), Vec::<String>::new());
    assert!(
        waits.behind[0].why.contains("vm/k is in the rack, and it must be apart from that"),
        "{}",
        waits.behind[0].why
    );
    put(&database, vec![settled("k1.example.com", Lifecycle::Retired)]).await;
    let both = ["forget k1.example.com on box1.example.com", "place k2.example.com on box2.example.com"];
    assert_eq!(chosen(&choose(&database).await), both);
}

#[tokio::test]
async fn who_has_nowhere_to_go_if_its_box_dies_is_named_where_any_may_die() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let room = |name: &str, state| host(name, state, &json!({"box": {"capacity": {"cpu": 4}}}));
    let edits = vec![
        room("box1.example.com", Lifecycle::Active),
        room("box2.example.com", Lifecycle::Active),
        host("a.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 3}})),
    ];
    put(&database, edits).await;
    let policy = Policy { survive: true, ..Policy::default() };
    let safe = Placement::new(Settings { policy, ..Settings::default() }).unwrap();
    let placed = pass(&database, &safe, &how(0)).await.unwrap().choice;
    assert_eq!((placed.chosen.len(), placed.behind.len()), (1, 0));
    let other = if placed.chosen[0].with.contains("box1") { "box2.example.com" } else { "box1.example.com" };
    put(&database, vec![room(other, Lifecycle::Failed)]).await;
    let bare = pass(&database, &safe, &how(0)).await.unwrap().choice;
    let [behind] = &bare.behind[..] else { panic!("{:?}", bare.behind) };
    assert_eq!(behind.key, "a.example.com");
    assert!(behind.why.ends_with("died, there would be no room for it elsewhere"), "{}", behind.why);
    // Where none may, nobody looks, and nothing is kept: both boxes are filled.
    assert_eq!(choose(&database).await.behind, vec![]);
    put(&database, vec![room(other, Lifecycle::Active)]).await;
    put(&database, vec![host("b.example.com", Lifecycle::Requested, &json!({"size": {"cpu": 3}}))]).await;
    assert_eq!(chosen(&choose(&database).await), [format!("place b.example.com on {other}")]);
}
