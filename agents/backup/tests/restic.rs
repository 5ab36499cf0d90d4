//! Backups and restores with real restic: what is made, what is told, and what comes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;

use serde_json::json;
use support::{HOST, Scratch, here};

#[tokio::test]
async fn what_is_backed_up_comes_back_octet_for_octet() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"fresh": "26h", "verify": {"restore": "720h", "sample": 5}})).await;
    // A plan writes nothing, not even a folder.
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 3, "{said}");
    assert!(!scratch.path("state").exists());
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let fact = &scratch.fact().await["nightly@main"];
    assert_eq!(fact["snapshot"], json!(scratch.snapshots()[0]), "{fact}");
    assert!(fact["bytes"].as_u64().unwrap() > 100_000 && fact["files"] == json!(30), "{fact}");
    assert!(fact["restored"] != json!("never"), "the restore test ran: {fact}");
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 0, "{said}");
    // Nothing is due: nothing is made.
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let before = now();
    let (code, said) = scratch.restore(&[HOST], "one");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "one");

    // As of a time; one file alone; never over something.
    scratch.fill("files", 31, 2);
    scratch.age(48);
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2);
    let (code, said) = scratch.restore(&[HOST], "two");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "two");
    let one = scratch.text("files/file 1");
    let (code, said) = scratch.restore(&[HOST, &one, "--at", &before], "three");
    assert_eq!(code, 0, "{said}");
    let three = scratch.path("three");
    let old = fs::read(three.join(one.trim_start_matches('/'))).unwrap();
    let first = scratch.path("one").join(one.trim_start_matches('/'));
    assert_eq!(old, fs::read(first).unwrap());
    assert_eq!(support::tree(&three).len(), 1, "one file was asked for");
    let (code, said) = scratch.restore(&[HOST], "one");
    assert!(code == 1 && said.contains("not empty"), "{said}");
    let (code, said) = scratch.restore(&["web2.example.com"], "four");
    assert!(code == 1 && said.contains("nothing of it"), "{said}");
}

/// The time as restic's snapshots have it, between two of them.
fn now() -> String {
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let out = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn dumps_are_backed_up_and_half_of_one_is_not() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    let dump = "[agent.dumps]\nsql = [\"sh\", \"-c\", \"seq 1000; echo $0\", \"{name}\"]\n\
                bad = [\"sh\", \"-c\", \"seq 1000; exit 3\"]\n";
    scratch.configure("", dump);
    scratch.policy(json!({"dumps": {"sql": ["koji", "bodhi"]}})).await;
    scratch.converge();
    let listed = scratch.restic(&["ls", "latest"]);
    assert!(listed.contains("/sql.koji") && listed.contains("/sql.bodhi"), "{listed}");
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    let held = support::tree(&scratch.path("out"));
    let koji = held.iter().find(|(path, _)| path.ends_with("sql.koji")).unwrap().1;
    assert!(String::from_utf8_lossy(koji).ends_with("1000\nkoji\n"));
    assert!(
        !scratch.path("state/hosts").join(HOST).join("spool/nightly@main").exists(),
        "it is cleared away"
    );
    scratch.policy(json!({"dumps": {"bad": []}})).await;
    scratch.age(48);
    scratch.fails_with("make the dump bad");
    assert_eq!(scratch.snapshots().len(), 1);
}

#[tokio::test]
async fn a_host_that_leaves_keeps_its_snapshots() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch.converge();
    scratch.edit(json!([{"edit": "delete", "key": format!("backup/nightly/members/{HOST}")}])).await;
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
}

#[tokio::test]
async fn another_hosts_files_are_not_these() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch
        .edit(json!([
            {"edit": "put_host", "host": "web2.example.com", "document": {}},
            {"edit": "put_tag", "tag": "backup/nightly",
             "document": {"paths": [scratch.text("files")], "repositories": ["main"]},
             "members": [HOST, "web2.example.com"]},
        ]))
        .await;
    scratch.fails_with("back up web2.example.com: its files are not here");
    assert_eq!(scratch.snapshots().len(), 1, "only its own");
}
