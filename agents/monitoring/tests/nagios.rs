//! The real program in front of a real Nagios: what the server checks is what the tags say.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;

use common::{Nagios, Scratch, here, until};
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
  contact_groups: [ops]
  groups: ["site-{site}"]
  labels: {site: "{site}"}
  checks:
    procs: {command: check_echo, args: ["{warn}", "{crit}"], warn: 250, crit: 300, groups: [system]}
    load: {command: check_echo, args: ["{name}"], depends_on: [procs], contacts: [ann], contact_groups: []}
members: [web1.example.com, web2.example.com, box1.example.com]
"#;

fn set<const N: usize>(names: [&str; N]) -> std::collections::BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nagios_checks_what_the_tags_say() {
    if !here("nagios_checks_what_the_tags_say") {
        return;
    }
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&nagios.table());
    scratch.apply(FLEET).await;
    // It does not run yet: it gets what was checked, and that is said.
    let (code, said) = scratch.run(&["--once"]);
    assert!(code != 0 && said.contains("it does not run"), "{code} {said}");
    nagios.start();
    scratch.converge();
    until("the status", || nagios.hosts().len() == 4);
    assert_eq!(
        nagios.hosts(),
        set(["box1.example.com", "monitor.example.com", "web1.example.com", "web2.example.com"])
    );
    assert_eq!(
        nagios.services(),
        set([
            "box1.example.com/load",
            "box1.example.com/procs",
            "monitor.example.com/self",
            "web1.example.com/load",
            "web1.example.com/procs",
            "web2.example.com/procs"
        ])
    );
    let web1 = nagios.host("web1.example.com");
    assert_eq!(web1["address"], "192.0.2.1");
    assert_eq!(web1["check_command"], "check_ping!100,20%!500,60%");
    assert_eq!(web1["parents"], "box1.example.com");
    assert_eq!(web1["check_interval"], "1.500000");
    assert_eq!(web1["_SITE"], "ams");
    assert_eq!(web1["contact_groups"], "ops");
    assert_eq!(nagios.service("web1.example.com", "procs")["check_command"], "check_echo!250!300");
    assert_eq!(nagios.service("web2.example.com", "procs")["check_command"], "check_echo!250!900");
    assert_eq!(nagios.service("web1.example.com", "load")["contacts"], "ann");
    let group = |kind: &str, name: &str| {
        let field = format!("{kind}group_name");
        nagios.all(&format!("{kind}group")).into_iter().find(|group| group[&field] == name).unwrap()["members"].clone()
    };
    assert_eq!(group("host", "site-ams"), "box1.example.com,web1.example.com");
    assert_eq!(group("service", "system").split(',').count(), 6);
    let depends = nagios.all("servicedependency");
    assert_eq!(depends.len(), 2);
    assert_eq!(depends[0]["service_description"], "procs");
    // Arguments reach the plugin as they were written.
    nagios.tell("SCHEDULE_FORCED_SVC_CHECK;web2.example.com;procs;1");
    until("a check", || nagios.output("web2.example.com", "procs") == "args 250 900");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_writes_one_small_file() {
    if !here("a_change_writes_one_small_file") {
        return;
    }
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&nagios.table());
    let hosts: String = (0..300)
        .map(|n| format!("host: web{n}.example.com\ndocument: {{address: 192.0.2.1}}\n---\n"))
        .collect();
    let members: Vec<String> = (0..300).map(|n| format!("web{n}.example.com")).collect();
    let checks = "checks: {a: {command: check_echo}, b: {command: check_echo}}";
    scratch
        .apply(&format!(
            "{hosts}tag: monitoring/web\ndocument: {{{checks}}}\nmembers: [{}]\n",
            members.join(", ")
        ))
        .await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.start();
    scratch.converge();
    let before = nagios.files();
    scratch.apply("{host: web7.example.com, document: {address: 192.0.2.77}}").await;
    scratch.converge();
    assert_eq!(nagios.host("web7.example.com")["address"], "192.0.2.77");
    let after = nagios.files();
    let written: Vec<_> = after
        .iter()
        .filter(|(path, (inode, _))| before.get(*path).is_none_or(|(old, _)| old != inode))
        .collect();
    // The shard, and the mark.
    assert_eq!(written.len(), 2, "{:?}", written.iter().map(|(path, _)| path).collect::<Vec<_>>());
    assert!(written.iter().all(|(_, (_, text))| text.len() < 10_000));
    // What was before is gone.
    let count = |folder: &str| fs::read_dir(nagios.path(folder)).unwrap().count();
    assert_eq!((count("shoal/gens"), count("shoal/sets")), (1, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_definition_harms_nobody_else() {
    if !here("one_bad_definition_harms_nobody_else") {
        return;
    }
    let mut nagios = Nagios::new();
    let scratch = Scratch::new(&nagios.table());
    scratch.apply(FLEET).await;
    assert_ne!(scratch.run(&["--once"]).0, 0);
    nagios.start();
    scratch.converge();
    // A command that the server does not have, a group that it does not know, a host that somebody else defined, and what
    // Shoal itself refuses.
    scratch
        .apply(
            r#"
tag: monitoring/bad
document:
  checks:
    none: {command: check_none}
    good: {command: check_echo, args: [good]}
    shell: {command: check_echo, args: ["$(reboot)"]}
    notify: {command: notify}
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
    let status = scratch.status().await;
    for part in ["$(reboot)", "notify is none of the commands"] {
        assert!(status.contains(part), "{part} is not in: {status}");
    }
    until("the status", || nagios.hosts().len() == 5);
    assert_eq!(nagios.service("web1.example.com", "good")["check_command"], "check_echo!good");
    assert_eq!(nagios.service("web3.example.com", "one")["check_command"], "check_echo!one");
    for bad in ["none", "shell", "notify"] {
        assert!(nagios.service("web1.example.com", bad).is_empty(), "{bad}");
    }
    // The server gets what it lacked.
    let library = nagios.path("library.cfg");
    let more = "define command {\n command_name check_none\n command_line /bin/true\n}\n\
                define contactgroup {\n contactgroup_name nobody\n alias nobody\n}\n";
    fs::write(&library, fs::read_to_string(&library).unwrap() + more).unwrap();
    scratch.edit(json!([{"edit": "delete", "key": "hosts/monitor.example.com"}])).await;
    scratch.converge();
    assert_eq!(nagios.service("web1.example.com", "none")["check_command"], "check_none");
    // And loses it again, for all that use it.
    fs::write(&library, fs::read_to_string(&library).unwrap().replace("check_none", "check_other")).unwrap();
    scratch.apply("{host: web3.example.com, document: {address: 192.0.2.33}}").await;
    let (code, said) = scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("check_none"), "{code} {said}");
    assert_eq!(nagios.host("web3.example.com")["address"], "192.0.2.33");
    assert!(nagios.service("web1.example.com", "none").is_empty());
}
