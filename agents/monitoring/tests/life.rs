//! What becomes of hosts, files and the server over time: drains, removals, edits, kills, refusals.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::process::Command;
use std::time::Duration;

use common::{Daemon, Nagios, Scratch, here, until};
use serde_json::json;

/// This many hosts with two checks each, in one tag.
fn fleet(hosts: usize) -> String {
    let documents: String = (0..hosts)
        .map(|n| format!("host: web{n}.example.com\ndocument: {{address: 192.0.2.{n}}}\n---\n"))
        .collect();
    let members: Vec<String> = (0..hosts).map(|n| format!("web{n}.example.com")).collect();
    let checks = "{a: {command: check_echo}, b: {command: check_echo}}";
    format!(
        "{documents}tag: monitoring/web\ndocument: {{checks: {checks}}}\nmembers: [{}]\n",
        members.join(", ")
    )
}

/// A server that has read this fleet.
async fn running(hosts: usize) -> (Nagios, Scratch) {
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&nagios.table());
    scratch.apply(&fleet(hosts)).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.start();
    scratch.converge();
    until("the status", || nagios.hosts().len() == hosts + 1);
    (nagios, scratch)
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

async fn state(scratch: &Scratch, host: &str, state: &str) {
    scratch.edit(json!([{"edit": "set_state", "host": host, "state": state}])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_host_has_a_downtime_and_a_retired_one_leaves() {
    if !here("a_draining_host_has_a_downtime_and_a_retired_one_leaves") {
        return;
    }
    let (nagios, scratch) = running(3).await;
    // Somebody's own.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    nagios.tell(&format!("SCHEDULE_HOST_DOWNTIME;web1.example.com;{now};{};1;0;0;ann;mine", now + 3600));
    until("a downtime", || nagios.downtimes().contains("web1.example.com"));
    state(&scratch, "web1.example.com", "draining").await;
    scratch.converge();
    until("downtimes", || nagios.downtimes().len() == 3);
    assert_eq!(nagios.host("web1.example.com")["_STATE"], "draining");
    assert!(nagios.downtimes().contains("web1.example.com/a"));
    // Once seen, nothing is done again, and one that somebody ended is made good.
    nagios.goes_on();
    scratch.converge();
    assert_eq!(nagios.all("host").len(), 4);
    nagios.tell("DEL_DOWNTIME_BY_HOST_NAME;web1.example.com;;;draining or paused (Shoal)");
    until("no downtime of Shoal's", || !nagios.downtimes().contains("web1.example.com/a"));
    nagios.goes_on();
    scratch.converge();
    until("downtimes again", || nagios.downtimes().contains("web1.example.com/a"));
    // Back at work: the other one's stays.
    nagios.goes_on();
    state(&scratch, "web1.example.com", "active").await;
    scratch.converge();
    until("one downtime", || !nagios.downtimes().contains("web1.example.com/a"));
    assert!(nagios.downtimes().contains("web1.example.com"));
    assert!(!nagios.host("web1.example.com").contains_key("_STATE"));
    state(&scratch, "web2.example.com", "retired").await;
    scratch.converge();
    until("it has left", || !nagios.hosts().contains("web2.example.com"));
    assert!(nagios.files().values().all(|(_, text)| !text.contains("web2.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_host_has_a_downtime_and_changes_no_further() {
    if !here("a_paused_host_has_a_downtime_and_changes_no_further") {
        return;
    }
    let (nagios, scratch) = running(3).await;
    scratch.pause("web1.example.com", true).await;
    scratch.converge();
    until("downtimes", || nagios.downtimes().len() == 3);
    assert!(nagios.downtimes().contains("web1.example.com/a"));
    assert_eq!(nagios.host("web1.example.com")["_STATE"], "paused");
    // What is said of it meanwhile is planned, and waits; an edit by hand stays.
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.99}}").await;
    scratch.apply("{host: web2.example.com, document: {address: 192.0.2.98}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 4 && said.contains("hands off"), "{code} {said}");
    assert_eq!(nagios.host("web1.example.com")["address"], "192.0.2.1");
    assert_eq!(nagios.host("web2.example.com")["address"], "192.0.2.98");
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 4 && said.contains("192.0.2.99") || said.contains("web1.example.com"), "{code} {said}");
    scratch.pause("web1.example.com", false).await;
    scratch.converge();
    until("no downtime", || nagios.downtimes().is_empty());
    assert_eq!(nagios.host("web1.example.com")["address"], "192.0.2.99");
    assert!(!nagios.host("web1.example.com").contains_key("_STATE"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_empties_nothing() {
    if !here("an_empty_database_empties_nothing") {
        return;
    }
    let (nagios, scratch) = running(20).await;
    let before = nagios.files();
    // Another database, with nothing in it.
    let empty = Scratch::new(&nagios.table());
    empty.apply("{host: other.example.com, document: {}}").await;
    empty.run(&["--once"]);
    assert_eq!(nagios.files(), before);
    // One that wants something else, in the folder of the first.
    empty.apply("{tag: monitoring/x, document: {}, members: [other.example.com]}").await;
    let (code, said) = empty.run(&["--once"]);
    assert!(code != 0 && said.contains("One folder, one database"), "{code} {said}");
    assert_eq!(nagios.files(), before);
    // None at all.
    fs::rename(scratch.path().join("db"), scratch.path().join("away")).unwrap();
    assert_ne!(scratch.run(&["--once"]).0, 0);
    assert_eq!(nagios.files(), before);
    fs::rename(scratch.path().join("away"), scratch.path().join("db")).unwrap();
    // Nearly everybody leaves in one commit: a person has to agree.
    let gone: Vec<_> = (0..19)
        .map(|n| json!({"edit": "set_state", "host": format!("web{n}.example.com"), "state": "retired"}))
        .collect();
    scratch.edit(json!(gone)).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!((code, nagios.files()), (4, before), "{said}");
    scratch.approve("nagios").await;
    scratch.converge();
    until("they have left", || nagios.hosts().len() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_gets_the_last_good_files_back() {
    if !here("a_server_that_does_not_read_gets_the_last_good_files_back") {
        return;
    }
    let (nagios, scratch) = running(3).await;
    scratch.configure(&format!("{}within = 2\n", nagios.table()));
    let before = nagios.files();
    signal("-STOP", nagios.pid());
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.99}}").await;
    let (code, said) = scratch.run(&["--once"]);
    signal("-CONT", nagios.pid());
    assert!(code == 1 && said.contains("the last good files are back"), "{code} {said}");
    assert_eq!(nagios.files(), before);
    // It reads what it was told to, and the change is made at the next attempt.
    scratch.configure(&nagios.table());
    scratch.converge();
    assert_eq!(nagios.host("web1.example.com")["address"], "192.0.2.99");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_by_hand_is_undone() {
    if !here("an_edit_by_hand_is_undone") {
        return;
    }
    let (nagios, scratch) = running(3).await;
    let file = |text: &str| {
        let found = nagios.files().into_iter().find(|(_, (_, have))| have.contains(text)).unwrap().0;
        nagios.path("shoal/current").join(found)
    };
    let edit = |from: &str, to: &str| {
        let path = file(from);
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(from, to)).unwrap();
    };
    edit("address 192.0.2.1\n", "address 192.0.2.66\n");
    edit("host_name web2.example.com\n", "host_name web2.example.com\nnotes mine\n");
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    assert!(
        nagios.files().values().all(|(_, text)| !text.contains("192.0.2.66") && !text.contains("notes mine"))
    );
    assert_eq!(nagios.host("web1.example.com")["address"], "192.0.2.1");
    // What cannot be read back at all is written anew, and what is nobody's goes.
    edit("#= {\"name\":\"web0.example.com\"", "#= {\"name\":\"web0 example com\"");
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("web0.example.com"), "{code} {said}");
    scratch.converge();
    assert!(nagios.files().values().all(|(_, text)| !text.contains("web0 example com")));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_it_ends_right() {
    if !here("killed_anywhere_it_ends_right") {
        return;
    }
    let (nagios, scratch) = running(30).await;
    scratch.configure(&format!("claim = '3s'\n{}", nagios.table()));
    for round in 0..8u64 {
        let address = format!("198.51.100.{round}");
        let hosts: String = (0..5)
            .map(|n| format!("---\nhost: web{n}.example.com\ndocument: {{address: {address}}}\n"))
            .collect();
        scratch.apply(hosts.trim_start_matches("---\n")).await;
        // The claim of the one before has run out.
        std::thread::sleep(Duration::from_millis(3100));
        let mut child = scratch.command(&["--once"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(round * 20));
        let _ = child.kill();
        child.wait().unwrap();
        // What the server would read if it were started now is sound.
        let config = nagios.path("nagios.cfg");
        let check = Command::new("/usr/sbin/nagios4").arg("-v").arg(config).output().unwrap();
        assert!(
            check.status.success(),
            "after {} ms: {}",
            round * 20,
            String::from_utf8_lossy(&check.stdout)
        );
    }
    // The claim of one that was killed has to run out, or its instance is another.
    until("it converges", || scratch.run(&["--once"]).0 == 0);
    scratch.converge();
    assert_eq!(nagios.host("web4.example.com")["address"], "198.51.100.7");
    let count = |folder: &str| fs::read_dir(nagios.path(folder)).unwrap().count();
    assert_eq!(count("shoal/gens"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_follows() {
    if !here("the_daemon_follows") {
        return;
    }
    let (nagios, scratch) = running(3).await;
    let _daemon = Daemon::start(&scratch);
    scratch.apply("{host: web1.example.com, document: {address: 192.0.2.99}}").await;
    until("the change", || nagios.host("web1.example.com").get("address").is_some_and(|a| a == "192.0.2.99"));
    // A tag goes, with all that it wanted: few, so nobody is asked.
    scratch.edit(json!([{"edit": "delete", "key": "monitoring/web"}])).await;
    until("they have left", || nagios.hosts().len() == 1);
}
