//! What the checker of Icinga complains about.
//!
//! `[…] critical/config: Error: Validation failed for object 'web1.example.com!http' of type 'Service'; Attribute 'check_command':
//! Object 'check_http' of type 'CheckCommand' does not exist.`, and behind it where that stands.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use shoal_agent::HostName;

use crate::define;
use crate::target::objects::{Blame, Kind};

/// What a complaint blames, with the line that says so. `candidate` is the folder that was read.
pub(super) fn blame(complaint: &str, candidate: &Path) -> BTreeMap<Blame, String> {
    let mut blames = BTreeMap::new();
    let mut lines = complaint.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((_, said)) = line.split_once("Error: ") else { continue };
        let place = lines.peek().and_then(|next| next.strip_prefix("Location: in "));
        let blame = unknown(said)
            .or_else(|| twice(said, candidate))
            .or_else(|| object(said))
            .or_else(|| place.and_then(|place| at(place, candidate)));
        if let Some(blame) = blame {
            blames.entry(blame).or_insert_with(|| said.to_owned());
        }
    }
    blames
}

/// `Object 'x' of type 'Y'`, the first after `start`: the name and the type.
fn named<'t>(said: &'t str, start: &str) -> Option<(&'t str, &'t str)> {
    let (_, rest) = said.split_once(start)?;
    let (name, rest) = rest.split_once("' of type '")?;
    Some((name, rest.split('\'').next()?))
}

/// What the server does not have.
fn unknown(said: &str) -> Option<Blame> {
    let missing = said.strip_suffix('.').unwrap_or(said).ends_with("does not exist");
    let (name, kind) = named(said, ": Object '").filter(|_| missing)?;
    let kind = match kind {
        "CheckCommand" => Kind::Command,
        "User" => Kind::Contact,
        "UserGroup" => Kind::ContactGroup,
        "TimePeriod" => Kind::Period,
        "HostGroup" => return Some(Blame::Gone("host", name.parse().ok()?)),
        "ServiceGroup" => return Some(Blame::Gone("service", name.parse().ok()?)),
        _ => return None,
    };
    Some(Blame::Unknown(kind, name.parse().ok()?))
}

/// A group that the server has already. The one that is read first is not the one that is complained about.
fn twice(said: &str, candidate: &Path) -> Option<Blame> {
    if !said.contains("re-defined") || !said.contains(&*candidate.to_string_lossy()) {
        return None;
    }
    let (name, kind) = named(said, "Object '")?;
    let kind = match kind {
        "HostGroup" => "host",
        "ServiceGroup" => "service",
        "User" => return Some(Blame::Definition(define::Kind::Contact, name.parse().ok()?)),
        "UserGroup" => return Some(Blame::Definition(define::Kind::ContactGroup, name.parse().ok()?)),
        "TimePeriod" => return Some(Blame::Definition(define::Kind::Period, name.parse().ok()?)),
        _ => return object(&said.replacen("Object '", "object '", 1)),
    };
    Some(Blame::Twice(kind, name.parse().ok()?))
}

/// `object 'host'`, `object 'host!service'`, `object 'host!service!dependency'`.
fn object(said: &str) -> Option<Blame> {
    let (name, kind) = named(said, "object '")?;
    let defined = match kind {
        "User" => Some(define::Kind::Contact),
        "UserGroup" => Some(define::Kind::ContactGroup),
        "TimePeriod" => Some(define::Kind::Period),
        _ => None,
    };
    if let Some(kind) = defined {
        return Some(Blame::Definition(kind, name.parse().ok()?));
    }
    let mut parts = name.split('!');
    let host: HostName = parts.next()?.parse().ok()?;
    let service = match (kind, parts.next(), parts.next()) {
        ("Service", Some(service), _) | ("Dependency" | "Notification", Some(service), Some(_)) => {
            service.parse().ok()
        }
        _ => None,
    };
    Some(service.map_or(Blame::Host(host.clone()), |service| Blame::Service(host, service)))
}

/// `FILE: 12:3-12:30`: what stands there, if it is the candidate's.
fn at(place: &str, candidate: &Path) -> Option<Blame> {
    let (file, span) = place.rsplit_once(": ")?;
    let file = Path::new(file);
    if !file.starts_with(candidate) {
        return None;
    }
    let line: usize = span.split(':').next()?.parse().ok()?;
    let text = fs::read_to_string(file).ok()?;
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.get(..line)?.iter().rposition(|line| line.starts_with("object "))?;
    let mut words = lines[start].split('"');
    let (kind, name) = (words.next()?, words.next()?);
    let value = |field: &str| {
        let own = lines[start..].iter().take_while(|line| **line != "}");
        own.filter_map(|line| line.strip_prefix(field)?.strip_prefix(" = \"")?.strip_suffix('"')).next()
    };
    Some(match kind.trim() {
        "object Host" => Blame::Host(name.parse().ok()?),
        "object Service" => Blame::Service(value("host_name")?.parse().ok()?, name.parse().ok()?),
        _ => match (value("child_host_name")?.parse().ok()?, value("child_service_name")) {
            (host, Some(service)) => Blame::Service(host, service.parse().ok()?),
            (host, None) => Blame::Host(host),
        },
    })
}
