//! What an agent does not let go for any reason, and what is reported about its hosts.

use serde_json::json;

use super::agent::{name, rows, toys};
use crate::Verdict;

#[test]
fn what_an_agent_does_not_let_go_stays_until_there_is_a_reason() {
    let mut world = toys();
    world.fleet("kept", 3, "hello");
    world.fleet("other", 3, "hello");
    world.converge();
    for unit in ["kept", "other"] {
        world.set(&format!("toy/{unit}/members/{}", name(0)), json!(null));
    }
    assert_eq!(world.run(), Verdict::Held);
    assert_eq!((world.at("kept", 0), world.at("other", 0)), (Some("hello"), None));
    assert_eq!(world.trouble("kept", 0), "held: that is no reason");
    world.restart();
    world.run();
    assert_eq!(world.at("kept", 0), Some("hello"));
    // Back in its tag it is as it was; and with its host it goes.
    world.set(&format!("toy/kept/members/{}", name(0)), json!({}));
    world.converge();
    assert_eq!(world.trouble("kept", 0), "");
    world.commit(rows(&[
        (&format!("toy/kept/members/{}", name(1)), json!(null)),
        (&format!("toy/other/members/{}", name(1)), json!(null)),
        (&format!("hosts/{}", name(1)), json!(null)),
    ]));
    world.converge();
    assert_eq!((world.at("kept", 0), world.at("kept", 1)), (Some("hello"), None));
    // The tag goes, and one of its hosts with it; the other one stays what it was.
    world.commit(rows(&[
        ("toy/kept", json!(null)),
        (&format!("toy/kept/members/{}", name(0)), json!(null)),
        (&format!("toy/kept/members/{}", name(2)), json!(null)),
        (&format!("hosts/{}", name(2)), json!(null)),
    ]));
    world.run();
    assert_eq!((world.at("kept", 0), world.at("kept", 2)), (Some("hello"), None));
    assert_eq!(world.trouble("kept", 0), "held: that is no reason");
}

#[test]
fn what_is_renamed_out_of_its_tag_is_not_gone() {
    let mut world = toys();
    world.fleet("kept", 2, "hello");
    world.converge();
    let mut changes = rows(&[
        ("toy/kept", json!(null)),
        (&format!("toy/kept/members/{}", name(0)), json!(null)),
        (&format!("toy/kept/members/{}", name(1)), json!(null)),
        (&format!("hosts/{}", name(0)), json!(null)),
        (&format!("hosts/{}", name(9)), super::agent::host(0, json!({}))),
    ]);
    changes[3].moved = Some(changes[4].key.clone());
    changes[4].moved = Some(changes[3].key.clone());
    world.commit(changes);
    world.run();
    assert_eq!((world.at("kept", 0), world.at("kept", 1)), (Some("hello"), Some("hello")));
}

#[test]
fn what_is_of_a_host_that_is_not_there_any_more_goes_also_where_another_has_its_name() {
    let mut world = toys();
    world.fleet("kept", 2, "hello");
    world.converge();
    // Some host that nobody can read may be the one that it is of.
    world.set(&format!("hosts/{}", name(5)), json!("rubbish"));
    world.commit(rows(&[
        (&format!("toy/kept/members/{}", name(0)), json!(null)),
        (&format!("hosts/{}", name(0)), super::agent::host(7, json!({}))),
    ]));
    world.run();
    assert_eq!(world.at("kept", 0), Some("hello"));
    assert_eq!(world.trouble("kept", 0), "held: that is no reason");
    world.set(&format!("hosts/{}", name(5)), json!(null));
    world.engine().resync();
    world.converge();
    assert_eq!((world.at("kept", 0), world.at("kept", 1)), (None, Some("hello")));
}

#[test]
fn what_is_reported_about_a_host_is_read_and_wakes_what_it_feeds() {
    let mut world = toys();
    world.fleet("a", 3, "hello");
    world.converge();
    let before = world.engine().counters();
    world.set(&format!("facts/said/{}", name(1)), json!({"word": " there"}));
    world.converge();
    assert_eq!((world.at("a", 0), world.at("a", 1)), (Some("hello"), Some("hello there")));
    let desired = world.engine().counters().desired - before.desired;
    assert_eq!(desired, 2, "that key, and once more when it is made");
    world.restart();
    world.converge();
    assert_eq!(world.at("a", 1), Some("hello there"));
}
