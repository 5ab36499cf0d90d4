//! A host's objects in the language of Nagios.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use shoal_agent::HostName;

use super::settings::WaySettings;
use crate::define::Definition;
use crate::item::{Call, Host, Service, Timing};
use crate::name::{Label, Name, Word};
use crate::target::objects::Around;

/// The name of the object whose alias is the mark. It sorts before what people call theirs.
pub(super) const MARK: &str = "0-shoal-generation";

/// Appends the objects of a host.
pub(super) fn objects(out: &mut String, name: &HostName, host: &Host, around: &Around<'_>) {
    out.push_str("define host {\n");
    line(out, "host_name", name);
    line(out, "address", &host.address);
    if let Some(check) = &host.check {
        call(out, check, around);
    }
    // The same for most services.
    let mut usual = String::with_capacity(256);
    timing(&mut usual, &host.timing, around.unit);
    out.push_str(&usual);
    list(out, "hostgroups", host.groups.iter().map(Name::as_str));
    list(out, "parents", around.known(name, &host.parents).map(HostName::as_str));
    labels(out, &host.labels);
    out.push_str("}\n");
    for on in around.known(name, &host.depends_on) {
        out.push_str("define hostdependency {\n");
        line(out, "host_name", on);
        line(out, "dependent_host_name", name);
        out.push_str("notification_failure_criteria d,u\n}\n");
    }
    for (description, each) in &host.services {
        service(out, name, description, each, (&usual, around));
    }
}

fn service(
    out: &mut String,
    host: &HostName,
    description: &Name,
    service: &Service,
    (usual, around): (&str, &Around<'_>),
) {
    out.push_str("define service {\n");
    line(out, "host_name", host);
    line(out, "service_description", description);
    call(out, &service.check, around);
    match &service.timing {
        Some(own) => timing(out, own, around.unit),
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

/// Appends what a tag defines.
pub(super) fn definition(
    out: &mut String,
    name: &Name,
    definition: &Definition,
    ways: &BTreeMap<Name, WaySettings>,
) {
    match definition {
        Definition::Period(period) => {
            let _ = write!(out, "define timeperiod {{\ntimeperiod_name {name}\nalias {name}\n");
            for (day, hours) in &period.days {
                let _ = writeln!(out, "{day} {hours}");
            }
            list(out, "exclude", period.exclude.iter().map(Name::as_str));
        }
        Definition::Contact(contact) => {
            let _ = write!(out, "define contact {{\ncontact_name {name}\nalias {name}\n");
            for (field, value) in [("email", &contact.email), ("pager", &contact.pager)] {
                if let Some(value) = value {
                    line(out, field, value);
                }
            }
            if let Some(period) = &contact.period {
                line(out, "host_notification_period", period);
                line(out, "service_notification_period", period);
            }
            let ways: Vec<&WaySettings> = contact.via.iter().filter_map(|way| ways.get(way)).collect();
            list(out, "host_notification_commands", ways.iter().map(|way| way.host.as_str()));
            list(out, "service_notification_commands", ways.iter().map(|way| way.service.as_str()));
        }
        Definition::ContactGroup(members) => {
            let _ = write!(out, "define contactgroup {{\ncontactgroup_name {name}\nalias {name}\n");
            list(out, "members", members.iter().map(Name::as_str));
        }
    }
    out.push_str("}\n");
}

/// Appends the groups, and a mark that shows in the server's cache of objects once it has read it.
pub(super) fn server_file(
    out: &mut String,
    mark: Option<&str>,
    host_groups: &[&Name],
    service_groups: &[&Name],
) {
    if let Some(mark) = mark {
        let _ = write!(out, "define timeperiod {{\ntimeperiod_name {MARK}\nalias {mark}\n}}\n");
    }
    for (kind, groups) in [("host", host_groups), ("service", service_groups)] {
        for group in groups {
            let _ = write!(out, "define {kind}group {{\n{kind}group_name {group}\nalias {group}\n}}\n");
        }
    }
}

fn line(out: &mut String, name: &str, value: &(impl AsText + ?Sized)) {
    out.push_str(name);
    out.push(' ');
    out.push_str(value.as_text());
    out.push('\n');
}

/// A secret is a macro of the server's, whose value is in the file of secrets.
fn call(out: &mut String, call: &Call, around: &Around<'_>) {
    out.push_str("check_command ");
    out.push_str(call.command.as_str());
    for arg in &call.args {
        out.push('!');
        match arg.secret().and_then(|secret| (around.slot)(&secret)) {
            Some(slot) => drop(write!(out, "$USER{slot}$")),
            None => out.push_str(arg.as_str()),
        }
    }
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
