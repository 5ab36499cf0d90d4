//! What the checker of Nagios complains about.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use shoal_agent::HostName;

use crate::define;
use crate::target::objects::{Blame, Kind};

/// What a complaint blames, with the line that says so. `candidate` is the folder that was read.
pub(super) fn blame(complaint: &str, candidate: &Path) -> BTreeMap<Blame, String> {
    let errors =
        complaint.lines().filter(|line| line.starts_with("Error") || line.contains("Duplicate definition"));
    let mut blames = BTreeMap::new();
    for line in errors {
        if let Some(blame) = unknown(line).or_else(|| place(line, candidate)).or_else(|| named(line)) {
            let said = line.trim_start_matches("Error: ").trim_start_matches("Warning: ");
            blames.entry(blame).or_insert_with(|| without_place(said, candidate));
        }
    }
    blames
}

/// A complaint without a place in the candidate: that is gone when somebody reads it, and what is unknown there is so for other hosts, too.
fn without_place(said: &str, candidate: &Path) -> String {
    let start = format!("(config file '{}", candidate.display());
    match said.split_once(&start) {
        Some((before, rest)) => {
            let after = rest.split_once(')').map_or("", |(_, after)| after);
            format!("{}{after}", before.trim_end())
        }
        None => said.to_owned(),
    }
}

/// The text between the first quotes after `start`.
fn quoted<'t>(line: &'t str, start: &str) -> Option<&'t str> {
    let (_, rest) = line.split_once(start)?;
    rest.strip_prefix('\'')?.split('\'').next()
}

/// `Could not find any contactgroup matching 'x'`, `Service check command 'x' specified in …`, ….
fn unknown(line: &str) -> Option<Blame> {
    const SAID: [(&str, Kind); 13] = [
        ("ervice check command ", Kind::Command),
        ("ost check command ", Kind::Command),
        ("Could not find any contactgroup matching ", Kind::ContactGroup),
        ("Could not find any contact matching ", Kind::Contact),
        ("Could not add contactgroup ", Kind::ContactGroup),
        ("Could not add contact ", Kind::Contact),
        ("heck_period ", Kind::Period),
        ("otification_period ", Kind::Period),
        ("otification period ", Kind::Period),
        ("Excluded time period ", Kind::Period),
        ("Failed to locate check_period ", Kind::Period),
        ("Failed to locate notification_period ", Kind::Period),
        ("Failed to locate notification period ", Kind::Period),
    ];
    for (start, kind) in SAID {
        if let Some(name) = quoted(line, start).and_then(|name| name.parse().ok()) {
            return Some(Blame::Unknown(kind, name));
        }
    }
    let defined = [
        ("Duplicate definition found for contact ", define::Kind::Contact),
        ("Duplicate definition found for contactgroup ", define::Kind::ContactGroup),
        ("Duplicate definition found for timeperiod ", define::Kind::Period),
        ("otification command ", define::Kind::Contact),
    ];
    for (start, kind) in defined {
        // A command that a contact is told by is the contact's.
        let of = if start.starts_with("otif") {
            line.split_once(" specified for").map(|_| "contact ")
        } else {
            Some(start)
        };
        let found = line.contains(start).then_some(of).flatten().and_then(|of| quoted(line, of));
        if let Some(name) = found.and_then(|name| name.parse().ok()) {
            return Some(Blame::Definition(kind, name));
        }
    }
    for (kind, start) in [
        ("host", "Could not find any hostgroup matching "),
        ("service", "Could not find any servicegroup matching "),
    ] {
        if let Some(name) = quoted(line, start).and_then(|name| name.parse().ok()) {
            return Some(Blame::Gone(kind, name));
        }
    }
    for (kind, start) in [
        ("host", "Duplicate definition found for hostgroup "),
        ("service", "Duplicate definition found for servicegroup "),
    ] {
        if let Some(name) = quoted(line, start).and_then(|name| name.parse().ok()) {
            return Some(Blame::Twice(kind, name));
        }
    }
    None
}

/// `… (config file '/…/7/a.cfg', starting on line 12)`: what stands there, if it is the candidate's.
fn place(line: &str, candidate: &Path) -> Option<Blame> {
    let file = Path::new(quoted(line, "config file ")?);
    if !file.starts_with(candidate) {
        return None;
    }
    let (_, number) =
        line.split_once("starting on line ").or_else(|| line.split_once("starting at line "))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    let number: usize = number[..digits].parse().ok()?;
    let text = fs::read_to_string(file).ok()?;
    let object: Vec<&str> =
        text.lines().skip(number.saturating_sub(1)).take_while(|line| *line != "}").collect();
    let value = |name: &str| object.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let host = value("dependent_host_name").or_else(|| value("host_name"))?.parse().ok()?;
    let service = value("dependent_service_description").or_else(|| value("service_description"));
    Some(match service.and_then(|name| name.parse().ok()) {
        Some(service) => Blame::Service(host, service),
        None => Blame::Host(host),
    })
}

/// `… service 'x' … host 'y' …`, by name alone.
fn named(line: &str) -> Option<Blame> {
    let lower = line.to_lowercase();
    let host: HostName = quoted(&lower, "host ")?.parse().ok()?;
    Some(match quoted(&lower, "service ").and(quoted(line, "ervice ")).and_then(|name| name.parse().ok()) {
        Some(service) => Blame::Service(host, service),
        None => Blame::Host(host),
    })
}
