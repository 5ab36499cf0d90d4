//! The real program in front of a real Icinga 2: what the server checks is what the tags say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{Icinga, Scratch, icinga_here};
use serde_json::json;

const FLEET: &str = r#"
host: web1.example.com
document: {address: 192.0.2.1, site: ams, box: box1.example.com}
---
host: web2.example.com
document: {address: "2001:db8::2", site: fra, monitoring: {checks: {procs: {crit: 900}, load: {skip: true}}}}
---
host: box1.example.com
document: {address: 192.0.2.9, site: ams}
---
tag: monitoring/base
document:
  host_check: {command: check_ping, args: ["100,20%", "500,60%"]}
  interval: 90
  period: always
  contact_groups: [ops]
  groups: ["site-{site}"]
  labels: {site: "{site}"}
  checks:
    procs: {command: check_procs, args: ["{warn}", "{crit}"], warn: 250, crit: 300, groups: [system]}
    load: {command: check_load, args: ["{name}"], depends_on: [procs], contacts: [ann], contact_groups: []}
members: [web1.example.com, web2.example.com, box1.example.com]
"#;

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A server that has read this fleet.
async fn running() -> (Icinga, Scratch) {
    let mut icinga = Icinga::new();
    let scratch = Scratch::new(&icinga.table());
    scratch.apply(FLEET).await;
    // It does not run yet: it gets what was checked, and that is said.
    let (code, said) = scratch.run(&["--once"]);
    assert!(code != 0 && said.contains("it does not run"), "{code} {said}");
    icinga.accepts().unwrap();
    icinga.start();
    scratch.converge();
    (icinga, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn icinga_checks_what_the_tags_say() {
    if !icinga_here("icinga_checks_what_the_tags_say") {
        return;
    }
    let (icinga, scratch) = running().await;
    assert_eq!(
        icinga.hosts(),
        set(["box1.example.com", "monitor.example.com", "web1.example.com", "web2.example.com"])
    );
    assert_eq!(
        icinga.services(),
        set([
            "box1.example.com!load",
            "box1.example.com!procs",
            "web1.example.com!load",
            "web1.example.com!procs",
            "web2.example.com!procs"
        ])
    );
    let hosts = icinga.objects("hosts");
    let web1 = &hosts["web1.example.com"];
    assert_eq!((&web1["address"], &web1["address6"]), (&json!("192.0.2.1"), &json!("")));
    assert_eq!(hosts["web2.example.com"]["address6"], "2001:db8::2");
    assert_eq!((&web1["check_command"], &web1["check_interval"]), (&json!("check_ping"), &json!(90)));
    let vars = json!({"arg1": "100,20%", "arg2": "500,60%", "site": "ams",
        "notification": {"mail": {"users": [], "groups": ["ops"], "period": "always"}}});
    assert_eq!((&web1["vars"], &web1["groups"]), (&vars, &json!(["site-ams"])));
    assert_eq!(web1["check_period"], "always");
    let services = icinga.objects("services");
    let procs = &services["web2.example.com!procs"];
    assert_eq!((&procs["vars"]["arg1"], &procs["vars"]["arg2"]), (&json!("250"), &json!("900")));
    assert_eq!(procs["groups"], json!(["system"]));
    let depends = icinga.objects("dependencies");
    let box1 = &depends["web1.example.com!parent-box1.example.com"];
    assert_eq!(
        (&box1["parent_host_name"], &box1["disable_notifications"]),
        (&json!("box1.example.com"), &json!(true))
    );
    let load = &depends["web1.example.com!load!needs-procs"];
    assert_eq!((&load["parent_service_name"], &load["states"]), (&json!("procs"), &json!(["OK"])));
    assert_eq!(depends.len(), 3);
    let told = icinga.objects("notifications");
    assert_eq!(told["web1.example.com!shoal"]["user_groups"], json!(["ops"]));
    assert_eq!(told["web1.example.com!load!shoal"]["users"], json!(["ann"]));
    // A change writes one file of hosts, and the mark.
    let before = icinga.files();
    scratch
        .apply("{host: web1.example.com, document: {address: 192.0.2.77, site: ams, box: box1.example.com}}")
        .await;
    scratch.converge();
    assert_eq!(icinga.objects("hosts")["web1.example.com"]["address"], "192.0.2.77");
    let after = icinga.files();
    let text =
        |files: &std::collections::BTreeMap<_, String>| files.values().cloned().collect::<BTreeSet<_>>();
    assert_eq!(text(&after).difference(&text(&before)).count(), 2);
    // An edit by hand is undone.
    let (path, made) = after.iter().find(|(_, text)| text.contains("192.0.2.77")).unwrap();
    fs::write(path, made.replace("address = \"192.0.2.77\"", "address = \"192.0.2.66\"")).unwrap();
    let (code, said) = scratch.run(&["--plan"]);
    assert!(code == 3 && said.contains("drift"), "{code} {said}");
    scratch.converge();
    assert_eq!(text(&icinga.files()).iter().filter(|text| text.contains("192.0.2.66")).count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_definition_harms_nobody_else() {
    if !icinga_here("one_bad_definition_harms_nobody_else") {
        return;
    }
    let (icinga, scratch) = running().await;
    // A command that the server does not have, a group and a period that it does not know, a host and a group that somebody
    // else defined, and what Shoal itself refuses.
    let own = icinga.path("icinga2.conf");
    let more = fs::read_to_string(&own).unwrap() + "object HostGroup \"linux\" { }\n";
    fs::write(&own, more).unwrap();
    scratch
        .apply(
            r#"
tag: monitoring/bad
document:
  period: never
  checks:
    none: {command: check_none}
    good: {command: check_echo, args: [good]}
    shell: {command: check_echo, args: ["$(reboot)"]}
  contact_groups: [nobody]
members: [web1.example.com]
---
host: monitor.example.com
document: {address: 127.0.0.1}
---
host: web3.example.com
document: {address: 192.0.2.3}
---
tag: monitoring/more
document: {checks: {one: {command: check_echo, args: [one]}}, groups: [linux]}
members: [monitor.example.com, web3.example.com]
"#,
        )
        .await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 1, "{said}");
    for part in ["check_none", "nobody", "monitor.example.com"] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    assert!(scratch.status().await.contains("$(reboot)"));
    let services = icinga.services();
    for good in ["web1.example.com!good", "web1.example.com!procs", "web3.example.com!one"] {
        assert!(services.contains(good), "{good} is not in {services:?}");
    }
    for bad in ["web1.example.com!none", "web1.example.com!shell", "monitor.example.com!one"] {
        assert!(!services.contains(bad), "{bad} is in {services:?}");
    }
    assert_eq!(icinga.objects("hosts")["web3.example.com"]["groups"], json!(["linux"]));
    // The server gets what it lacked.
    let more = fs::read_to_string(&own).unwrap()
        + "object CheckCommand \"check_none\" { import \"check_echo\" }\nobject UserGroup \"nobody\" { }\n\
           object TimePeriod \"never\" { }\n";
    fs::write(&own, more).unwrap();
    scratch.edit(json!([{"edit": "delete", "key": "hosts/monitor.example.com"}])).await;
    let (code, said) = scratch.run(&["--once"]);
    assert_eq!(code, 0, "{said}");
    assert!(icinga.services().contains("web1.example.com!none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_or_paused_host_has_a_downtime_and_a_retired_one_leaves() {
    if !icinga_here("a_draining_or_paused_host_has_a_downtime_and_a_retired_one_leaves") {
        return;
    }
    let (icinga, scratch) = running().await;
    let ours = |host: &str, services: &[&str]| -> BTreeSet<String> {
        let all = services.iter().chain(&[""]);
        all.map(|service| format!("{host}!{service} draining or paused (Shoal)")).collect()
    };
    let state = |state: &str| json!([{"edit": "set_state", "host": "web1.example.com", "state": state}]);
    icinga.give_downtime("web1.example.com");
    let own = set(["web1.example.com! mine"]);
    scratch.edit(state("draining")).await;
    scratch.converge();
    let both = ours("web1.example.com", &["load", "procs"]).union(&own).cloned().collect::<BTreeSet<_>>();
    assert_eq!(icinga.downtimes(), both);
    assert_eq!(icinga.objects("hosts")["web1.example.com"]["vars"]["state"], "draining");
    // One that somebody ended is made good.
    let body = json!({"type": "Downtime", "filter": "downtime.author == \"shoal\""});
    icinga.ask("/v1/actions/remove-downtime", &body).unwrap();
    assert_eq!(icinga.downtimes(), own);
    scratch.converge();
    assert_eq!(icinga.downtimes(), both);
    scratch.edit(state("active")).await;
    scratch.converge();
    assert_eq!(icinga.downtimes(), own);
    assert!(icinga.objects("hosts")["web1.example.com"]["vars"].get("state").is_none());
    // A pause.
    scratch.pause("web2.example.com", true).await;
    scratch.converge();
    let paused = ours("web2.example.com", &["procs"]).union(&own).cloned().collect::<BTreeSet<_>>();
    assert_eq!(icinga.downtimes(), paused);
    assert_eq!(icinga.objects("hosts")["web2.example.com"]["vars"]["state"], "paused");
    scratch.pause("web2.example.com", false).await;
    scratch.converge();
    assert_eq!(icinga.downtimes(), own);
    scratch.edit(state("retired")).await;
    scratch.converge();
    assert!(!icinga.hosts().contains("web1.example.com"));
    assert!(icinga.files().values().all(|text| !text.contains("web1.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_empties_nothing() {
    if !icinga_here("an_empty_database_empties_nothing") {
        return;
    }
    let (icinga, scratch) = running().await;
    let hosts = icinga.hosts();
    assert!(icinga.files().values().any(|text| text.contains("web1.example.com")));
    empties_nothing(&icinga, &scratch).await;
    assert_eq!(icinga.hosts(), hosts);
}

/// Neither another database nor none at all changes a file; the scratch's own is gone then.
async fn empties_nothing(icinga: &Icinga, scratch: &Scratch) {
    let before = icinga.files();
    // With nothing in it.
    let empty = Scratch::new(&icinga.table());
    empty.apply("{host: other.example.com, document: {}}").await;
    empty.run(&["--once"]);
    assert_eq!(icinga.files(), before);
    // One that wants something else, in the folder of the first.
    empty.apply("{tag: monitoring/x, document: {}, members: [other.example.com]}").await;
    let (code, said) = empty.run(&["--once"]);
    assert!(code != 0 && said.contains("One folder, one database"), "{code} {said}");
    assert_eq!(icinga.files(), before);
    // None at all.
    fs::rename(scratch.path().join("db"), scratch.path().join("away")).unwrap();
    assert_ne!(scratch.run(&["--once"]).0, 0);
    assert_eq!(icinga.files(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_said_and_not_shown() {
    if !icinga_here("a_refused_password_is_said_and_not_shown") {
        return;
    }
    let (icinga, scratch) = running().await;
    fs::write(icinga.path("password"), "hunter2\n").unwrap();
    let before = icinga.objects("hosts");
    scratch.apply("{host: web2.example.com, document: {address: 192.0.2.99}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("401") && said.contains("ApiUser"), "{code} {said}");
    let status = scratch.status().await;
    for secret in ["hunter2", &data_encoding::BASE64.encode(b"shoal:hunter2")] {
        assert!(!said.contains(secret) && !status.contains(secret), "{secret}");
    }
    assert_eq!(icinga.objects("hosts").keys().collect::<Vec<_>>(), before.keys().collect::<Vec<_>>());
    fs::write(icinga.path("password"), "let me in\n").unwrap();
    scratch.converge();
    assert_eq!(icinga.objects("hosts")["web2.example.com"]["address"], "192.0.2.99");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_read_gets_the_last_good_files_back() {
    if !icinga_here("a_server_that_does_not_read_gets_the_last_good_files_back") {
        return;
    }
    let (icinga, scratch) = running().await;
    let before = icinga.files();
    // Its line for Shoal's files leads elsewhere by now, unless it is checked: it reads its configuration, and not these.
    let own = icinga.path("icinga2.conf");
    let text = fs::read_to_string(&own).unwrap();
    fs::create_dir(icinga.path("elsewhere")).unwrap();
    let at = icinga.path("shoal/current").display().to_string();
    fs::write(&own, text.replace(&at, &icinga.path("elsewhere").display().to_string())).unwrap();
    scratch.configure(&format!("{}within = 8\n", icinga.table()));
    scratch.apply("{host: web2.example.com, document: {address: 192.0.2.99}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("the last good files are back"), "{code} {said}");
    assert_eq!(icinga.files(), before);
    fs::write(&own, text).unwrap();
    scratch.configure(&icinga.table());
    scratch.converge();
    assert_eq!(icinga.objects("hosts")["web2.example.com"]["address"], "192.0.2.99");
    empties_nothing(&icinga, &scratch).await;
}
