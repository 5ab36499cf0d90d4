//! Hosts as Nagios reads them, and back.
//!
//! Before each host's objects stands a comment with what they were made from. So what is there is known without
//! guessing it from objects, and whether somebody edited them is seen by making them once more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::HostName;

use crate::item::{Call, Host, Service, Timing};
use crate::name::{Label, Name, Word};

/// How the comment with what the objects were made from begins.
const MADE_FROM: &str = "#= ";
/// The first line of a file.
const HEAD: &str = "# Made by Shoal. Edits are undone; change the tags under monitoring/ instead.\n";

#[derive(Serialize)]
struct MadeFrom<'a> {
    name: &'a HostName,
    host: &'a Host,
}

#[derive(Deserialize)]
struct Read {
    name: HostName,
    host: Host,
}

/// What the objects of a host depend on besides the host.
pub(super) struct Around<'a> {
    /// Seconds in a unit of time.
    pub(super) unit: u32,
    /// Whether the server knows this host.
    pub(super) knows: &'a dyn Fn(&HostName) -> bool,
}

/// A file of these hosts. What is given as text stands there as it is.
pub(super) fn file<'a>(
    hosts: impl Iterator<Item = (&'a HostName, &'a Host, Option<&'a str>)>,
    around: &Around<'_>,
) -> String {
    // As large as most are: a host with five services has about 1.5 KiB.
    let mut out = String::with_capacity(hosts.size_hint().0.clamp(1, 4096) * 1600);
    out.push_str(HEAD);
    for (name, host, as_it_is) in hosts {
        match as_it_is {
            Some(text) => out.push_str(text),
            None => block(name, host, around, &mut out),
        }
    }
    out
}

/// One host's comment and objects.
fn block(name: &HostName, host: &Host, around: &Around<'_>, out: &mut String) {
    out.push_str(MADE_FROM);
    // Nothing in it can fail: maps with text for keys, numbers, text.
    let mut json = Vec::with_capacity(1024);
    let _ = serde_json::to_writer(&mut json, &MadeFrom { name, host });
    out.push_str(&String::from_utf8_lossy(&json));
    out.push_str("\ndefine host {\n");
    line(out, "host_name", name);
    line(out, "address", &host.address);
    if let Some(check) = &host.check {
        call(out, check);
    }
    // The same for most services.
    let mut usual = String::with_capacity(256);
    timing(&mut usual, &host.timing, around.unit);
    out.push_str(&usual);
    list(out, "hostgroups", host.groups.iter().map(Name::as_str));
    list(
        out,
        "parents",
        host.parents.iter().filter(|on| *on != name && (around.knows)(on)).map(HostName::as_str),
    );
    labels(out, &host.labels);
    out.push_str("}\n");
    for on in host.depends_on.iter().filter(|on| *on != name && (around.knows)(on)) {
        out.push_str("define hostdependency {\n");
        line(out, "host_name", on);
        line(out, "dependent_host_name", name);
        out.push_str("notification_failure_criteria d,u\n}\n");
    }
    for (description, each) in &host.services {
        service(out, name, description, each, (&usual, around.unit));
    }
}

fn service(
    out: &mut String,
    host: &HostName,
    description: &Name,
    service: &Service,
    (usual, unit): (&str, u32),
) {
    out.push_str("define service {\n");
    line(out, "host_name", host);
    line(out, "service_description", description);
    call(out, &service.check);
    match &service.timing {
        Some(own) => timing(out, own, unit),
        None => out.push_str(usual),
    }
    list(out, "servicegroups", service.groups.iter().map(Name::as_str));
    labels(out, &service.labels);
    out.push_str("}\n");
    for on in &service.depends_on {
        out.push_str("define servicedependency {\n");
        line(out, "host_name", host);
        line(out, "service_description", on);
        line(out, "dependent_host_name", host);
        line(out, "dependent_service_description", description);
        out.push_str("notification_failure_criteria w,u,c\n}\n");
    }
}

/// The file of the server itself: the groups, and a mark that shows in the server's cache of objects once it has read it.
pub(super) fn server_file<'a>(
    mark: Option<&str>,
    host_groups: impl Iterator<Item = &'a Name>,
    service_groups: impl Iterator<Item = &'a Name>,
) -> String {
    let mut out = HEAD.to_owned();
    if let Some(mark) = mark {
        let _ = write!(out, "define timeperiod {{\ntimeperiod_name {MARK}\nalias {mark}\n}}\n");
    }
    for (kind, groups) in [("host", host_groups.collect::<Vec<_>>()), ("service", service_groups.collect())] {
        for group in groups {
            let _ = write!(out, "define {kind}group {{\n{kind}group_name {group}\nalias {group}\n}}\n");
        }
    }
    out
}

/// The name of the object whose alias is the mark. It sorts before what people call theirs.
pub(super) const MARK: &str = "0-shoal-generation";

fn line(out: &mut String, name: &str, value: &(impl AsText + ?Sized)) {
    out.push_str(name);
    out.push(' ');
    out.push_str(value.as_text());
    out.push('\n');
}

fn call(out: &mut String, call: &Call) {
    out.push_str("check_command ");
    call.write(out);
    out.push('\n');
}

fn timing(out: &mut String, timing: &Timing, unit: u32) {
    span(out, "check_interval ", timing.interval, unit);
    span(out, "retry_interval ", timing.retry, unit);
    number(out, "max_check_attempts ", timing.attempts);
    if let Some(period) = &timing.period {
        line(out, "check_period", period);
        line(out, "notification_period", period);
    }
    list(out, "contacts", timing.contacts.iter().map(Name::as_str));
    list(out, "contact_groups", timing.contact_groups.iter().map(Name::as_str));
}

/// Seconds in the server's units of time.
fn span(out: &mut String, name: &str, seconds: u32, unit: u32) {
    if seconds.is_multiple_of(unit) {
        return number(out, name, seconds / unit);
    }
    // As many digits as a second needs; more would only be noise.
    let _ = writeln!(out, "{name}{:.4}", f64::from(seconds) / f64::from(unit));
}

fn number(out: &mut String, name: &str, number: u32) {
    out.push_str(name);
    let _ = writeln!(out, "{number}");
}

fn list<'a>(out: &mut String, name: &str, mut values: impl Iterator<Item = &'a str>) {
    let Some(first) = values.next() else { return };
    out.push_str(name);
    out.push(' ');
    out.push_str(first);
    for value in values {
        out.push(',');
        out.push_str(value);
    }
    out.push('\n');
}

fn labels(out: &mut String, labels: &BTreeMap<Label, Word>) {
    for (label, value) in labels {
        out.push('_');
        line(out, label.as_str(), value);
    }
}

trait AsText {
    fn as_text(&self) -> &str;
}

impl AsText for HostName {
    fn as_text(&self) -> &str {
        self.as_str()
    }
}

impl AsText for Name {
    fn as_text(&self) -> &str {
        self.as_str()
    }
}

impl AsText for Word {
    fn as_text(&self) -> &str {
        self.as_str()
    }
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each host, with its comment and objects as they stand.
    pub(super) hosts: BTreeMap<HostName, (Arc<Host>, String)>,
    /// Something in it is nobody's: text before the first host, a comment that cannot be read, a host twice.
    pub(super) stray: bool,
}

/// Reads a file back.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    let Some(rest) = text.strip_prefix(HEAD) else {
        found.stray = !text.is_empty();
        return found;
    };
    let mut starts: Vec<usize> = rest
        .match_indices(MADE_FROM)
        .map(|(at, _)| at)
        .filter(|&at| at == 0 || rest.as_bytes()[at - 1] == b'\n')
        .collect();
    found.stray = starts.first().map_or(!rest.is_empty(), |first| *first != 0);
    starts.push(rest.len());
    for ends in starts.windows(2) {
        let block = &rest[ends[0]..ends[1]];
        let comment = block.lines().next().and_then(|line| line.strip_prefix(MADE_FROM));
        match comment.and_then(|json| serde_json::from_str::<Read>(json).ok()) {
            Some(Read { name, host }) => {
                found.stray |= found.hosts.insert(name, (Arc::new(host), block.to_owned())).is_some();
            }
            None => found.stray = true,
        }
    }
    found
}

/// Whether a host's text is what would be written now.
pub(super) fn is_as_made(name: &HostName, host: &Host, text: &str, around: &Around<'_>) -> bool {
    let mut made = String::with_capacity(text.len());
    block(name, host, around, &mut made);
    made == text
}
