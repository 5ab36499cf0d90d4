//! A host's objects in the language of Icinga 2.
//!
//! Everything in quotes is a [`Name`], a [`Label`], a [`Word`](crate::Word) or a host's name: none of them has a quote, a backslash, a `$` or a newline, so
//! nothing is escaped.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::net::Ipv6Addr;

use shoal_agent::HostName;

use crate::define::Definition;
use crate::item::{Call, Host, Service, Timing};
use crate::name::{Label, Name, Word};
use crate::target::objects::{Around, Slot};

/// The constant whose value is the mark.
pub(super) const MARK: &str = "ShoalGeneration";

/// The function that answers a secret.
const SECRET: &str = "ShoalSecret";

/// Appends the objects of a host.
pub(super) fn objects(out: &mut String, name: &HostName, host: &Host, around: &Around<'_>) {
    begin(out, "Host", name);
    text(out, "address", &host.address);
    if host.address.as_str().parse::<Ipv6Addr>().is_ok() {
        text(out, "address6", &host.address);
    }
    labels(out, &host.labels);
    match &host.check {
        Some(check) => call(out, check),
        // It is taken for up. Part of the template library that every Icinga has.
        None => text(out, "check_command", &"dummy"),
    }
    let mut usual = String::with_capacity(256);
    timing(&mut usual, &host.timing);
    out.push_str(&usual);
    list(out, "groups", &host.groups);
    out.push_str("}\n");
    for on in around.known(name, &host.parents) {
        dependency(out, ("parent", on), (on, None), (name, None));
    }
    for on in around.known(name, &host.depends_on) {
        dependency(out, ("needs", on), (on, None), (name, None));
    }
    for (description, each) in &host.services {
        service(out, name, description, each, &usual);
    }
}

fn service(out: &mut String, host: &HostName, description: &Name, service: &Service, usual: &str) {
    begin(out, "Service", description);
    text(out, "host_name", host);
    labels(out, &service.labels);
    call(out, &service.check);
    match &service.timing {
        Some(own) => timing(out, own),
        None => out.push_str(usual),
    }
    list(out, "groups", &service.groups);
    out.push_str("}\n");
    for on in &service.depends_on {
        dependency(out, ("needs", on), (host, Some(on)), (host, Some(description)));
    }
}

/// Nobody is told of the second while the first is not well.
fn dependency(
    out: &mut String,
    (kind, on): (&str, &dyn Display),
    parent: (&HostName, Option<&Name>),
    child: (&HostName, Option<&Name>),
) {
    let _ = writeln!(out, "object Dependency \"{kind}-{on}\" {{");
    for (side, (host, service)) in [("parent", parent), ("child", child)] {
        let _ = writeln!(out, "{side}_host_name = \"{host}\"");
        if let Some(service) = service {
            let _ = writeln!(out, "{side}_service_name = \"{service}\"");
        }
    }
    if parent.1.is_some() {
        out.push_str("states = [ OK ]\n");
    }
    out.push_str("}\n");
}

/// Appends what a tag defines.
pub(super) fn definition(out: &mut String, name: &Name, definition: &Definition) {
    match definition {
        Definition::Period(period) => {
            begin(out, "TimePeriod", name);
            let day = |(day, hours)| format!("\"{day}\" = \"{hours}\"");
            let days: Vec<String> = period.days.iter().map(day).collect();
            let _ = writeln!(out, "ranges = {{ {} }}", days.join(", "));
            list(out, "excludes", &period.exclude);
        }
        Definition::Contact(contact) => {
            begin(out, "User", name);
            for (field, value) in [("email", &contact.email), ("pager", &contact.pager)] {
                if let Some(value) = value {
                    text(out, field, value);
                }
            }
            if let Some(period) = &contact.period {
                text(out, "period", period);
            }
            let _ = writeln!(out, "vars.via = {}", array(&contact.via));
        }
        Definition::ContactGroup(members) => {
            begin(out, "UserGroup", name);
            if !members.is_empty() {
                let _ = writeln!(out, "assign where user.name in {}", array(members));
            }
        }
    }
    out.push_str("}\n");
}

/// Appends the values of secrets: what gives one by its name, and shows none. Of a dictionary the API would show all.
pub(super) fn secrets(out: &mut String, all: &[(&str, Slot, &str)]) {
    out.push_str("var values = {}\n");
    for (name, _, value) in all {
        // It has neither a quote nor a backslash.
        let _ = writeln!(out, "values[\"{name}\"] = \"{value}\"");
    }
    let _ = writeln!(out, "const {SECRET} = function(name) use (values) {{ return values[name] }}");
}

/// Appends a mark that shows as a constant once the server has read it, the groups, and what names the files of hosts.
pub(super) fn server_file(
    out: &mut String,
    mark: Option<&str>,
    host_groups: &[&Name],
    service_groups: &[&Name],
) {
    if let Some(mark) = mark {
        let _ = writeln!(out, "const {MARK} = \"{mark}\"");
    }
    for (kind, groups) in [("Host", host_groups), ("Service", service_groups)] {
        for group in groups {
            let _ = writeln!(out, "object {kind}Group \"{group}\" {{ }}");
        }
    }
    out.push_str("include \"*/*.conf\"\n");
}

fn begin(out: &mut String, kind: &str, name: &dyn Display) {
    let _ = writeln!(out, "object {kind} \"{name}\" {{");
}

fn text(out: &mut String, name: &str, value: &dyn Display) {
    let _ = writeln!(out, "{name} = \"{value}\"");
}

fn list(out: &mut String, name: &str, values: &std::collections::BTreeSet<Name>) {
    if !values.is_empty() {
        let _ = writeln!(out, "{name} = {}", array(values));
    }
}

fn array(values: &std::collections::BTreeSet<Name>) -> String {
    let quoted: Vec<String> = values.iter().map(|name| format!("\"{name}\"")).collect();
    format!("[ {} ]", quoted.join(", "))
}

/// What is called, and its arguments as `$arg1$`, `$arg2$`, ….
fn call(out: &mut String, call: &Call) {
    text(out, "check_command", &call.command);
    for (at, arg) in call.args.iter().enumerate() {
        let at = at + 1;
        // Asked for when the check is made, so that no object has it.
        let _ = match arg.secret() {
            Some(secret) => writeln!(out, "vars[\"arg{at}\"] = {{{{ {SECRET}(\"{}\") }}}}", secret.name()),
            None => writeln!(out, "vars[\"arg{at}\"] = \"{arg}\""),
        };
    }
}

fn timing(out: &mut String, timing: &Timing) {
    let _ = writeln!(
        out,
        "check_interval = {}\nretry_interval = {}\nmax_check_attempts = {}",
        timing.interval, timing.retry, timing.attempts
    );
    if let Some(period) = &timing.period {
        text(out, "check_period", period);
    }
    if !timing.contacts.is_empty() || !timing.contact_groups.is_empty() {
        let _ = write!(
            out,
            "vars.notification[\"mail\"] = {{ users = {}, groups = {}",
            array(&timing.contacts),
            array(&timing.contact_groups)
        );
        if let Some(period) = &timing.period {
            let _ = write!(out, ", period = \"{period}\"");
        }
        out.push_str(" }\n");
    }
}

fn labels(out: &mut String, labels: &BTreeMap<Label, Word>) {
    for (label, value) in labels {
        let _ = writeln!(out, "vars[\"{label}\"] = \"{value}\"");
    }
}
