//! What is wanted of tags and hosts, and what is left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shoal_agent::laws::{Broken, Laws};
use shoal_agent::{Agent as _, Blocked, Desired, HostName, Look, Source};
use shoal_core::{Document, Host as DbHost, HostId, Lifecycle, Revision, TagName};

use super::{Commands, Monitoring};
use crate::item::{Host, Item, Key, Subject};
use crate::spec::Spec;
use crate::target::Server;

struct Blind;

impl Look for Blind {
    fn host(&self, _: &str) -> Option<&DbHost> {
        None
    }
}

fn agent() -> Monitoring {
    Monitoring::new([Server::Nagios, Server::Prometheus], Commands::default())
}

/// What a host should be, of which these tags say something.
fn decide_as(state: Lifecycle, host: Value, tags: &[(&str, Value)]) -> Result<Desired<Item>, Blocked> {
    decide_at(Server::Nagios, state, host, tags)
}

/// The same at another server.
fn decide_at(
    server: Server,
    state: Lifecycle,
    host: Value,
    tags: &[(&str, Value)],
) -> Result<Desired<Item>, Blocked> {
    let name: HostName = "web1.example.com".parse().unwrap();
    let host = DbHost {
        name: name.clone(),
        revision: Revision(1),
        id: HostId("0001".into()),
        state,
        owner: Some("ann".into()),
        environment: None,
        expires: None,
        document: Document::from(host),
    };
    let sources: Vec<(TagName, Spec)> = tags
        .iter()
        .map(|(tag, document)| {
            let mut effective = document.clone();
            merge(&mut effective, host.document.value()["monitoring"].clone());
            (format!("monitoring/{tag}").parse().unwrap(), serde_json::from_value(effective).unwrap())
        })
        .collect();
    let sources: Vec<_> = sources
        .iter()
        .map(|(tag, spec)| Source { tag, spec, host: Some(&host), facts: &[], revision: Revision(1) })
        .collect();
    let key = Key { server, subject: Subject::Host(name) };
    agent().desired(&key, &sources, &Blind)
}

fn decide(host: Value, tags: &[(&str, Value)]) -> (Host, Vec<String>) {
    let desired = decide_as(Lifecycle::Active, host, tags).unwrap();
    let left_out =
        desired.left_out.into_iter().map(|Blocked { who, why }| format!("{}: {why}", who.join(" + ")));
    let Some(Item::Host(host)) = desired.item else { panic!("no host") };
    ((*host).clone(), left_out.collect())
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (_, Value::Null) => {}
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field).or_insert(json!(null)), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn calls(host: &Host) -> BTreeMap<&str, String> {
    host.services.iter().map(|(name, service)| (name.as_str(), service.check.to_string())).collect()
}

#[test]
fn several_tags_give_the_union() {
    let base = json!({"host_check": {"command": "check_ping"}, "groups": ["all", "site-{site}"], "contact_groups": ["ops"],
        "checks": {"load": {"command": "check_load", "args": ["{warn}", "{crit}"], "warn": 5.5, "crit": "10"}}});
    let web = json!({"interval": 60, "labels": {"role": "web"}, "contacts": ["ann"], "groups": ["web"],
        "checks": {"http": {"command": "check_http", "args": ["{port}"], "depends_on": ["load"]},
                   "load": {"command": "check_load", "args": ["5.5", "10"]}}});
    let (host, left_out) = decide(
        json!({"address": "192.0.2.1", "site": "ams", "port": 8080, "box": "box1.example.com"}),
        &[("base", base), ("web", web)],
    );
    assert_eq!(left_out, [""; 0]);
    assert_eq!(
        calls(&host),
        BTreeMap::from([("http", "check_http 8080".into()), ("load", "check_load 5.5 10".into())])
    );
    let texts = |names: &std::collections::BTreeSet<crate::Name>| {
        names.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(texts(&host.groups), ["all", "site-ams", "web"]);
    assert_eq!(host.parents.iter().map(|p| p.as_str()).collect::<Vec<_>>(), ["box1.example.com"]);
    assert_eq!(host.check.unwrap().to_string(), "check_ping");
    let load = &host.services[&"load".parse().unwrap()];
    // The same as for the host, which is not said twice.
    assert!(load.timing.is_none());
    let timing = &host.timing;
    assert_eq!(
        (texts(&timing.contacts), texts(&timing.contact_groups)),
        (vec!["ann".into()], vec!["ops".into()])
    );
    // One tag says it, the other nothing.
    assert_eq!((timing.interval, timing.retry, timing.attempts), (60, 60, 3));
}

#[test]
fn clashes_name_both_sides_and_the_first_is_used() {
    let a = json!({"interval": 60, "labels": {"role": "web"}, "checks": {"http": {"command": "check_http", "args": ["80"]}}});
    let b = json!({"interval": 120, "labels": {"role": "db"}, "address": "{outside}",
        "checks": {"http": {"command": "check_http", "args": ["443"]}}});
    let (host, left_out) =
        decide(json!({"address": "192.0.2.1", "outside": "198.51.100.1"}), &[("a", a), ("b", b)]);
    assert_eq!(calls(&host)["http"], "check_http 80");
    assert_eq!(host.address.as_str(), "192.0.2.1");
    let all = left_out.join("\n");
    assert_eq!(left_out.len(), 4, "{all}");
    for part in ["checks.http", "interval", "labels.role", "address"] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    let both = "monitoring/b: web1.example.com + monitoring/a: web1.example.com: ";
    assert!(left_out.iter().all(|line| line.starts_with(both)), "{all}");
    assert!(
        all.contains("says check_http 443, and monitoring/a: web1.example.com says check_http 80"),
        "{all}"
    );
}

#[test]
fn a_host_overrides_skips_and_adds() {
    let a = json!({"interval": 60, "checks": {
        "procs": {"command": "check_procs", "args": ["{warn}", "{crit}"], "warn": 250, "crit": 300},
        "swap": {"command": "check_swap"}}});
    let b = json!({"interval": 300, "checks": {"disk": {"command": "check_disk"}}});
    let own =
        json!({"checks": {"procs": {"crit": 900}, "swap": {"skip": true}, "own": {"command": "check_own"}}});
    let (host, left_out) =
        decide(json!({"address": "192.0.2.1", "monitoring": own}), &[("a", a.clone()), ("b", b)]);
    let expected = [("disk", "check_disk"), ("own", "check_own"), ("procs", "check_procs 250 900")];
    assert_eq!(calls(&host), expected.map(|(name, call)| (name, call.to_owned())).into());
    // The host's own interval differs between the two tags, and only that.
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert!(left_out[0].contains("the host: interval"), "{left_out:?}");
    // A word about a check that no tag has.
    let typo = json!({"address": "192.0.2.1", "monitoring": {"checks": {"prcos": {"crit": 900}}}});
    let (_, left_out) = decide(typo, &[("a", a)]);
    assert_eq!(left_out, ["monitoring/a: web1.example.com: checks.prcos: no tag gives it a command"]);
}

#[test]
fn one_bad_definition_is_left_out_and_the_others_are_not() {
    let tag = json!({"attempts": 0, "groups": ["a b", "{nothing}", "ok"], "labels": {"state": "x", "BIG": "x", "ok": "{address}", "no": "a;b"},
        "parents": ["not a host", "gw.example.com"], "contacts": ["ann,bob"],
        "checks": {
            "bad name": {"command": "check_a"},
            "shell": {"command": "check_a", "args": ["; reboot"]},
            "macro": {"command": "check_a", "args": ["$USER1$"]},
            "option": {"command": "check_a", "args": ["-C"]},
            "lacks": {"command": "check_a", "args": ["{nothing}"]},
            "filled": {"command": "check_a", "args": ["{evil}"]},
            "notify": {"command": "notify_ann"},
            "brace": {"command": "check_a", "args": ["{"]},
            "lost": {"command": "check_a", "depends_on": ["nowhere"]},
            "good": {"command": "check_a", "args": ["a:b"]}}});
    let (host, left_out) = decide(json!({"address": "192.0.2.1", "evil": "a`id`"}), &[("x", tag)]);
    assert_eq!(calls(&host).into_keys().collect::<Vec<_>>(), ["good", "lost"]);
    let all = left_out.join("\n");
    for part in [
        "attempts: 0",
        "\"a b\"",
        "labels.state",
        "labels.BIG",
        "labels.no",
        "\"not a host\"",
        "\"ann,bob\"",
        "checks.bad name",
        "checks.shell.args[0]",
        "checks.macro.args[0]",
        "checks.option.args[0]",
        "checks.lacks.args[0]",
        "checks.filled.args[0]",
        "checks.notify.command",
        "checks.brace.args[0]",
        "checks.lost.depends_on",
    ] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    assert_eq!(left_out.len(), 16, "{all}");
    assert_eq!((host.groups.len(), host.labels.len(), host.parents.len()), (1, 1, 1));
}

#[test]
fn a_field_that_is_filled_in_names_no_secret() {
    let tag = json!({"checks": {
        "filled": {"command": "check_a", "args": ["{evil}"]},
        "half": {"command": "check_a", "args": ["secret:{half}"]},
        "said": {"command": "check_a", "args": ["secret:snmp"]}}});
    let (host, left_out) =
        decide(json!({"address": "192.0.2.1", "evil": "secret:snmp", "half": "snmp"}), &[("x", tag)]);
    assert_eq!(calls(&host).into_keys().collect::<Vec<_>>(), ["said"]);
    let all = left_out.join("\n");
    assert!(all.contains("checks.filled.args[0]") && all.contains("checks.half.args[0]"), "{all}");
}

#[test]
fn addresses_are_addresses() {
    let of = |host: Value, tag: Value| {
        decide_as(Lifecycle::Active, host, &[("x", tag)]).map(|d| {
            let Some(Item::Host(host)) = d.item else { panic!("no host") };
            host.address.to_string()
        })
    };
    assert_eq!(of(json!({"address6": "2001:db8::1"}), json!({})).unwrap(), "2001:db8::1");
    assert_eq!(of(json!({}), json!({})).unwrap(), "web1.example.com");
    assert_eq!(of(json!({}), json!({"address": "{label}.vpn.example.com"})).unwrap(), "web1.vpn.example.com");
    for bad in ["$(id)", "192.0.2.1 -x", "a;b", "-x"] {
        let why = of(json!({"address": bad}), json!({})).unwrap_err();
        assert!(why.why.contains("neither an address nor a name"), "{why:?}");
    }
}

#[test]
fn jobs_of_several_tags_are_together_and_clash_whole() {
    let a = json!({"labels": {"role": "web", "job": "x"}, "scrape": {
        "node": {"port": 9100}, "same": {"port": 1}, "bad": {"port": 2, "path": "no-slash"},
        "evil": {"port": 3, "path": "/{evil}"}, "lost": {"path": "/x"}}});
    let b =
        json!({"scrape": {"node": {"port": 9101}, "same": {"port": 1}, "app": {"port": 80, "interval": 0}}});
    let host = json!({"address": "2001:db8::1", "evil": "a b"});
    let desired = decide_at(Server::Prometheus, Lifecycle::Active, host, &[("a", a), ("b", b)]).unwrap();
    let Some(Item::Targets(jobs)) = desired.item else { panic!("no targets") };
    let targets: Vec<_> = jobs.iter().map(|(job, scrape)| format!("{job} {}", scrape.target)).collect();
    assert_eq!(targets, ["app [2001:db8::1]:80", "node [2001:db8::1]:9100", "same [2001:db8::1]:1"]);
    assert_eq!(jobs[&"node".parse().unwrap()].labels["instance"], "web1.example.com:9100");
    let all: Vec<String> =
        desired.left_out.into_iter().map(|left| format!("{}: {}", left.who.join(" + "), left.why)).collect();
    let all = all.join("\n");
    for part in [
        "labels.job",
        "scrape.bad.path",
        "scrape.evil.path",
        "scrape.lost.port",
        "scrape.app.interval",
        "monitoring/b: web1.example.com + monitoring/a: web1.example.com: scrape.node",
    ] {
        assert!(all.contains(part), "{part} is not in {all}");
    }
    // Only what is scraped is an item there.
    let none = decide_at(Server::Prometheus, Lifecycle::Active, json!({}), &[("a", json!({}))]).unwrap();
    assert!(none.item.is_none());
}

#[test]
fn a_host_that_drains_says_so() {
    let desired =
        decide_as(Lifecycle::Draining, json!({"address": "192.0.2.1"}), &[("x", json!({}))]).unwrap();
    let Some(Item::Host(host)) = desired.item else { panic!("no host") };
    assert!(host.draining);
    assert_eq!(host.labels[&"state".parse().unwrap()].as_str(), "draining");
}

#[test]
fn it_keeps_the_laws() -> Result<(), Broken> {
    let check = |args: &[&str]| json!({"checks": {"one": {"command": "check_one", "args": args}}, "scrape": {"node": {"port": 9100}}});
    Laws::new(agent, "monitoring/all", check(&["{label}"]))
        .then(check(&["other"]))
        .host(|n| json!({"address": format!("192.0.2.{n}")}))
        .edited(|n| json!({"address": format!("198.51.100.{n}")}))
        .check()
}
