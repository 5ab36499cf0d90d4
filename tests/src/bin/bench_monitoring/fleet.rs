//! The fleet that is measured, as the agent decides it.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use shoal_agent::{Agent as _, HostName, Look, Source};
use shoal_core::{Document, Host, HostId, Lifecycle, Revision, TagName};
use shoal_monitoring::{Commands, Item, Key, Monitoring, Server, Spec, Subject};

/// What every host gets.
fn tag() -> serde_json::Value {
    json!({
        "host_check": {"command": "check_ping", "args": ["100,20%", "500,60%"]},
        "contact_groups": ["operators"],
        "groups": ["site-{site}", "web"],
        "labels": {"site": "{site}"},
        "checks": {
            "procs": {"command": "check_procs", "args": ["{warn}", "{crit}"], "warn": 250, "crit": 300},
            "http": {"command": "check_http", "args": ["80", "/health"]},
            "load": {"command": "check_nrpe", "args": ["5", "10"]},
            "mail": {"command": "check_mail"},
            "ssh": {"command": "check_ssh"},
        },
        "scrape": {"node": {"port": 9100}},
    })
}

struct Blind;

impl Look for Blind {
    fn host(&self, _: &str) -> Option<&Host> {
        None
    }
}

/// The name of the host of this number.
pub(crate) fn name(n: u32) -> Result<HostName> {
    format!("web{n}.example.com").parse().map_err(|why| anyhow!("{why}"))
}

/// The key of a host at a server.
pub(crate) fn key(server: Server, name: HostName) -> Key {
    Key { server, subject: Subject::Host(name) }
}

/// What a server has of the first hosts.
pub(crate) fn items(server: Server, hosts: u32) -> Result<BTreeMap<HostName, Item>> {
    (0..hosts).map(|n| Ok((name(n)?, item(server, n, 0)?))).collect()
}

/// What a server has of a host, which had so many addresses before.
pub(crate) fn item(server: Server, n: u32, moved: u8) -> Result<Item> {
    let [_, a, b, c] = n.to_be_bytes();
    let mut document =
        json!({"address": format!("{}.{a}.{b}.{c}", 10 + moved), "site": format!("s{}", n % 9)});
    if !n.is_multiple_of(30) {
        document["box"] = format!("web{}.example.com", n - n % 30).into();
    }
    let host = Host {
        name: name(n)?,
        revision: Revision(1),
        id: HostId(format!("h{n}")),
        state: Lifecycle::Active,
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(document),
    };
    let spec: Spec = serde_json::from_value(tag())?;
    let tag: TagName = "monitoring/all".parse().map_err(|why| anyhow!("{why}"))?;
    let from = [Source { tag: &tag, spec: &spec, host: Some(&host), facts: &[], revision: Revision(1) }];
    let agent = Monitoring::new([server], Commands::default());
    let desired =
        agent.desired(&key(server, host.name.clone()), &from, &Blind).map_err(|why| anyhow!("{why:?}"))?;
    desired.item.ok_or_else(|| anyhow!("nothing is wanted of a host: {:?}", desired.left_out))
}

/// The processor time of this thread, in seconds.
pub(crate) fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The processor time of this process, in seconds.
pub(crate) fn all_cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

#[allow(clippy::print_stderr, reason = "what is not measured is to be seen")]
pub(crate) fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}
