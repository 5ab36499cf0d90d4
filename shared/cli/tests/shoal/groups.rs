//! `shoal scale` and `shoal range`, beyond what [`every`](crate::every) shows.

use serde_json::{Value, json};

use crate::fleet::Fleet;

async fn fleet() -> Fleet {
    let fleet = Fleet::empty();
    let text = "\
tag: ranges/ports
document: {ids: {first: 1, last: 9}}
---
tag: vm/web
document: {group: {count: 3, size: {cpu: 1}, slots: {name: 'n{slot}.example.com', ids: {port: ports}}, budget: {at_once: 2}}}
---
host: n0.example.com
id: n0
document: {port: 1, placement: {group: vm/web, slot: 0}}
---
host: n1.example.com
id: n1
document: {port: 2, placement: {group: vm/web, slot: 1}}
---
host: n2.example.com
id: n2
state: failed
document: {port: 3, placement: {group: vm/web, slot: 2}}
---
host: old.example.com
id: old
state: retired
---
edit: write
key: facts/placement/ranges/ports
value: {held: {'8': {group: vm/gone, slot: 0, field: port, host: old.example.com}, '9': {group: vm/gone, slot: 1, field: port, host: n1.example.com}}}
";
    let file = fleet.file("group.yaml", text);
    fleet.ok(&["apply", "-f", &file, "-m", "a group"]).await;
    fleet
}

#[tokio::test]
async fn scale_says_who_goes_first_and_changes_the_number_alone() {
    let fleet = fleet().await;
    let planned = fleet.run(&["scale", "vm/web", "1", "--plan", "-o", "json"]).await;
    assert_eq!(planned.code, 3, "{}", planned.error);
    let planned: Value = serde_json::from_str(&planned.out).unwrap();
    assert_eq!((&planned["wanted"], &planned["there"]), (&json!(1), &json!(3)));
    let hosts: Vec<&str> =
        planned["steps"].as_array().unwrap().iter().map(|step| step["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["n2.example.com", "n1.example.com"], "the one that failed first");
    let done = fleet.ok(&["scale", "vm/web", "1", "-m", "the sale is over"]).await;
    assert!(done.contains("1 row by ann") && done.contains("drain n2.example.com as slot 2"), "{done}");
    let tag: Value = serde_json::from_str(&fleet.ok(&["get", "vm/web", "-o", "json"]).await).unwrap();
    assert_eq!(tag["document"]["group"]["count"], json!(1));
    assert_eq!(tag["document"]["group"]["budget"], json!({"at_once": 2}));
    assert_eq!(fleet.run(&["scale", "vm/web", "6000", "-m", "too many"]).await.code, 1);
    let told = fleet.fails(1, &["scale", "vm/none", "1", "-m", "x"]).await;
    assert!(told.contains("there is no vm/none"), "{told}");
}

#[tokio::test]
async fn scale_says_once_what_bounds_it_and_what_it_waits_for() {
    let fleet = fleet().await;
    let text = "\
tag: vm/web
document: {group: {count: 4, min: 1, max: 5, size: {cpu: 1}, slots: {name: 'n{slot}.example.com', ids: {port: ports}}}}
---
host: n3.example.com
id: n3
document: {port: 4, placement: {group: vm/web, slot: 3}}
";
    let file = fleet.file("bounds.yaml", text);
    fleet.ok(&["apply", "-f", &file, "-m", "at most five"]).await;
    let more = fleet.run(&["scale", "vm/web", "9", "--plan"]).await.out;
    assert!(more.starts_with("vm/web: 5 wanted, 4 there\n  9 is more than `max: 5`\n"), "{more}");
    assert!(more.contains("  make n4.example.com as slot 4\n") && !more.contains("document"), "{more}");
    assert_eq!(more.matches("max").count(), 1, "{more}");
    // The one that failed goes, one of the others at once, and the next waits for that.
    let less = fleet.run(&["scale", "vm/web", "0", "--plan"]).await.out;
    assert!(less.contains("  0 is less than `min: 1`\n") && !less.contains("document"), "{less}");
    assert!(less.contains("and its budget is `at_once: 1`"), "{less}");
}

#[tokio::test]
async fn scale_says_what_a_group_and_a_number_are() {
    let fleet = fleet().await;
    let told = fleet.fails(2, &["scale", "web", "2", "-m", "x"]).await;
    assert!(told.contains("do you mean vm/web?"), "{told}");
    for odd in ["x", "-1", "1.5"] {
        let told = fleet.fails(2, &["scale", "vm/web", odd, "-m", "x"]).await;
        assert!(told.contains("a number of machines is 0 to 5000"), "{told}");
    }
}

#[tokio::test]
async fn only_what_nobody_can_hold_is_freed() {
    let fleet = fleet().await;
    let shown: Value =
        serde_json::from_str(&fleet.ok(&["range", "show", "ports", "-o", "json"]).await).unwrap();
    let states: Vec<(&str, &str)> = shown
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["by"].as_str().unwrap()))
        .collect();
    let expected = [
        ("1", "active"),
        ("2", "active"),
        ("3", "failed"),
        ("8", "nobody: it can be freed"),
        ("9", "active, and in no slot"),
    ];
    assert_eq!(states, expected, "what members have by their own documents is held");
    let told = fleet.fails(4, &["range", "free", "ports", "9", "-m", "x"]).await;
    assert!(told.contains("n1.example.com holds 9, and is active"), "{told}");
    fleet.ok(&["range", "free", "ports", "8", "-m", "its machine is gone"]).await;
    let told = fleet.fails(1, &["range", "free", "ports", "8", "-m", "again"]).await;
    assert!(told.contains("nobody holds 8 of ports"), "{told}");
    // A slot whose host was deleted keeps what it has: its machine may live.
    let state = "\
edit: write
key: facts/placement/vm/web
value: {slots: {'1': {host: n1.example.com, id: n1}}}
---
edit: write
key: facts/placement/ranges/ports
value: {held: {'2': {group: vm/web, slot: 1, field: port, host: n1.example.com}}}
";
    let file = fleet.file("state.yaml", state);
    fleet.ok(&["apply", "-f", &file, "-m", "what placement remembers"]).await;
    fleet.ok(&["rm", "n1.example.com", "-m", "by mistake"]).await;
    let told = fleet.fails(4, &["range", "free", "ports", "2", "-m", "x"]).await;
    assert!(told.contains("its host n1.example.com is deleted, and its machine may live"), "{told}");
}
