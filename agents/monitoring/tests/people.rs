//! Who is told and when, as tags define it: real servers have it, and nothing undefined goes live.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;

use common::{Icinga, Nagios, Scratch, here, icinga_here, until};
use serde_json::json;

const PEOPLE: &str = r#"
tag: monitoring/people
document:
  define:
    periods:
      work: {days: {monday: "09:00-17:00,18:00-20:00", "2026-12-25": "10:00-11:00"}, exclude: [lunch]}
      lunch: {days: {monday: "12:00-13:00"}}
    contacts:
      bea: {email: bea@example.com, pager: "+31201234567", period: work}
    contact_groups:
      night: {members: [bea, ann]}
---
host: web1.example.com
document: {address: 192.0.2.1}
---
host: web2.example.com
document: {address: 192.0.2.2}
---
tag: monitoring/base
document:
  checks:
    load: {command: check_load, args: ["1"], contacts: [bea], period: work}
    procs: {command: check_procs, args: ["1"], contact_groups: [night]}
members: [web1.example.com, web2.example.com]
"#;

/// What tags may get wrong about people, and a check beside it that is right.
const WRONG: &str = r#"
tag: monitoring/wrong
document:
  define:
    periods: {bad: {days: {monday: "17:00-09:00"}}, hole: {exclude: [nowhere]}}
    contact_groups: {haunted: {members: [ghost]}}
  checks:
    whom: {command: check_load, contacts: [nobody]}
    when: {command: check_load, period: never}
    which: {command: check_load, contact_groups: [haunted], contacts: [ann]}
    right: {command: check_load, contacts: [ann]}
members: [web1.example.com]
---
tag: monitoring/zwei
document: {define: {contacts: {bea: {email: other@example.com}}, contact_groups: {night: {members: [cas]}}}}
"#;

fn told_by(nagios: &Nagios) -> String {
    format!("{}[agent.nagios.notify.mail]\nhost = 'notify'\nservice = 'notify'\n", nagios.table())
}

fn named<'a>(
    all: &'a [std::collections::BTreeMap<String, String>],
    field: &str,
    name: &str,
) -> &'a std::collections::BTreeMap<String, String> {
    all.iter().find(|one| one[field] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

/// Who is in the group, by name.
fn night(nagios: &Nagios) -> Vec<String> {
    let groups = nagios.all("contactgroup");
    let mut members: Vec<String> =
        named(&groups, "contactgroup_name", "night")["members"].split(',').map(str::to_owned).collect();
    members.sort();
    members
}

#[tokio::test(flavor = "multi_thread")]
async fn nagios_has_who_is_told_and_when() {
    if !here("nagios_has_who_is_told_and_when") {
        return;
    }
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&told_by(&nagios));
    scratch.apply(PEOPLE).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.accepts().unwrap();
    nagios.start();
    scratch.converge();
    let contacts = nagios.all("contact");
    let bea = named(&contacts, "contact_name", "bea");
    assert_eq!((&*bea["email"], &*bea["pager"]), ("bea@example.com", "+31201234567"));
    assert_eq!(
        (&*bea["service_notification_period"], &*bea["host_notification_commands"]),
        ("work", "notify")
    );
    assert_eq!(night(&nagios), ["ann", "bea"]);
    let periods = nagios.all("timeperiod");
    let work = named(&periods, "timeperiod_name", "work");
    assert_eq!((&*work["monday"], &*work["exclude"]), ("09:00-17:00,18:00-20:00", "lunch"));
    assert!(work.contains_key("2026-12-25"), "{work:?}");
    let load = nagios.service("web1.example.com", "load");
    assert_eq!((&*load["contacts"], &*load["check_period"]), ("bea", "work"));
    assert_eq!(nagios.service("web2.example.com", "procs")["contact_groups"], "night");

    // An edit of what a tag defines is undone, and a change of it reaches the server.
    let server = nagios.path("shoal/current/server.cfg");
    fs::write(&server, fs::read_to_string(&server).unwrap().replace("email bea@", "email eve@")).unwrap();
    assert_eq!(scratch.run(&["--plan"]).0, 3);
    scratch.converge();
    assert!(fs::read_to_string(&server).unwrap().contains("email bea@example.com\n"));
    scratch.apply(&PEOPLE.replace("bea@example.com", "bea@example.net")).await;
    scratch.converge();
    assert_eq!(named(&nagios.all("contact"), "contact_name", "bea")["email"], "bea@example.net");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_defined_harms_its_check_alone() {
    if !here("what_is_not_defined_harms_its_check_alone") {
        return;
    }
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&told_by(&nagios));
    scratch.apply(PEOPLE).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.start();
    scratch.converge();
    scratch.apply(WRONG).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 1, "{said}");
    for part in ["nobody", "never", "ghost", "nowhere", "web1.example.com"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let status = scratch.status().await;
    for part in ["17:00-09:00", "contact bea: monitoring/zwei says it otherwise than monitoring/people"] {
        assert!(status.contains(part), "{part} is not in: {status}");
    }
    nagios.accepts().unwrap();
    assert_eq!(nagios.service("web1.example.com", "right")["contacts"], "ann");
    for bad in ["whom", "when", "which"] {
        assert!(nagios.service("web1.example.com", bad).is_empty(), "{bad}");
    }
    assert!(nagios.all("contactgroup").iter().all(|group| group["contactgroup_name"] != "haunted"));
    // Of the group of which one tag names somebody who is not there, the other's part cannot be had either: it stays as it was.
    assert_eq!(night(&nagios), ["ann", "bea"]);
    scratch.edit(json!([{"edit": "delete", "key": "monitoring/wrong"}, {"edit": "delete", "key": "monitoring/zwei"}])).await;
    scratch.converge();

    // A check that stood is as it stood, until its tag is right.
    scratch.apply(&PEOPLE.replace("args: [\"1\"], contacts: [bea]", "args: [\"2\"], contacts: [bee]")).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("bee"), "{code} {said}");
    let load = nagios.service("web1.example.com", "load");
    assert_eq!((&*load["contacts"], &*load["check_command"]), ("bea", "check_load!1"));

    // What is still named stays, and who names it is said.
    scratch.apply(PEOPLE).await;
    scratch.converge();
    scratch.edit(json!([{"edit": "delete", "key": "monitoring/people"}])).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code != 0 && said.contains("still names it"), "{code} {said}");
    assert_eq!(nagios.service("web1.example.com", "load")["contacts"], "bea");
    let plain = "tag: monitoring/base\ndocument: {checks: {load: {command: check_load, args: [\"1\"], contacts: [ann]}}}\nmembers: [web1.example.com, web2.example.com]\n";
    scratch.apply(plain).await;
    until("nobody is left", || {
        scratch.run(&["--once", "--wait", "90s"]);
        nagios.all("contact").iter().all(|contact| contact["contact_name"] != "bea")
    });
    nagios.accepts().unwrap();
    scratch.converge();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_the_node_does_not_have_is_said() {
    if !here("a_way_that_the_node_does_not_have_is_said") {
        return;
    }
    let nagios = Nagios::new();
    let scratch = Scratch::new(&format!("{}tell = false\n", nagios.table()));
    // `mail` is there by default, with commands that this server does not have; `pigeon` is not.
    let people = PEOPLE.replace("period: work}\n    contact_groups", "via: [pigeon]}\n    contact_groups");
    scratch.apply(&people).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("[agent.nagios.notify.pigeon]"), "{code} {said}");
    nagios.accepts().unwrap();
    scratch.apply(PEOPLE).await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("notify-service-by-email"), "{code} {said}");
    nagios.accepts().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn icinga_has_who_is_told_and_when() {
    if !icinga_here("icinga_has_who_is_told_and_when") {
        return;
    }
    let mut icinga = Icinga::new();
    let scratch = Scratch::new(&icinga.table());
    scratch.apply(PEOPLE).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    icinga.accepts().unwrap();
    icinga.start();
    scratch.converge();
    let bea = &icinga.objects("users")["bea"];
    assert_eq!((&bea["email"], &bea["period"]), (&json!("bea@example.com"), &json!("work")));
    assert_eq!(bea["groups"], json!(["night"]));
    assert!(icinga.objects("usergroups").contains_key("night"));
    let work = &icinga.objects("timeperiods")["work"];
    assert_eq!(work["ranges"]["monday"], "09:00-17:00,18:00-20:00");
    assert_eq!(work["excludes"], json!(["lunch"]));
    let service = icinga.objects("services");
    assert_eq!(service["web1.example.com!load"]["check_period"], "work");
    // Somebody is told, by the server's own rules.
    assert_eq!(icinga.objects("notifications")["web1.example.com!load!shoal"]["users"], json!(["bea"]));

    scratch.apply(&WRONG.replace("which:", "whose:").replace("haunted", "missing")).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 1, "{said}");
    for part in ["nobody", "never", "nowhere"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    icinga.accepts().unwrap();
    let services = icinga.services();
    assert!(services.contains("web1.example.com!right"), "{services:?}");
    assert!(!services.contains("web1.example.com!whom") && !services.contains("web1.example.com!when"));
    // What it had goes with the tag that said it, once nobody names it.
    scratch.edit(json!([{"edit": "delete", "key": "monitoring/wrong"}, {"edit": "delete", "key": "monitoring/zwei"}])).await;
    scratch.converge();
    assert!(!icinga.objects("usergroups").contains_key("missing"));
}
