//! Files of hosts: each host's objects, in the server's language, under a comment with what they were made from.
//!
//! So what is there is known without guessing it from objects, and whether somebody edited them is seen by making them once
//! more. Both servers take `#` for the beginning of a comment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::HostName;
use shoal_agent::secrets::SecretRef;

use super::Dialect;
use super::vault::Slot;
use crate::define::{self, Definition};
use crate::item::Host;
use crate::name::Name;

/// How the comment with what the objects were made from begins.
const MADE_FROM: &str = "#= ";
/// The first line of a file.
pub(in crate::target) const HEAD: &str =
    "# Made by Shoal. Edits are undone; change the tags under monitoring/ instead.\n";

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
pub(in crate::target) struct Around<'a> {
    /// Seconds in the server's unit of time.
    pub(in crate::target) unit: u32,
    /// Whether the server knows this host.
    pub(in crate::target) knows: &'a dyn Fn(&HostName) -> bool,
    /// The number of a secret.
    pub(in crate::target) slot: &'a dyn Fn(&SecretRef) -> Option<Slot>,
}

impl<'a> Around<'a> {
    /// Those of these hosts that the server knows, and that are not `name` itself.
    pub(in crate::target) fn known<'h>(
        &'a self,
        name: &'h HostName,
        hosts: impl IntoIterator<Item = &'h HostName> + 'h,
    ) -> impl Iterator<Item = &'h HostName>
    where
        'a: 'h,
    {
        hosts.into_iter().filter(move |on| *on != name && (self.knows)(on))
    }
}

/// A file of these hosts. What is given as text stands there as it is.
pub(in crate::target) fn file<'a, D: Dialect>(
    hosts: impl Iterator<Item = (&'a HostName, &'a Host, Option<&'a str>)>,
    around: &Around<'_>,
) -> String {
    // As large as most are: a host with five services has less than 2 KiB. How many there are at least, nobody knows of what is filtered.
    let (least, most) = hosts.size_hint();
    let mut out = String::with_capacity(most.unwrap_or(least).clamp(1, 16_384) * 2048);
    out.push_str(HEAD);
    for (name, host, as_it_is) in hosts {
        match as_it_is {
            Some(text) => out.push_str(text),
            None => block::<D>(name, host, around, &mut out),
        }
    }
    out
}

/// One host's comment and objects.
fn block<D: Dialect>(name: &HostName, host: &Host, around: &Around<'_>, out: &mut String) {
    out.push_str(MADE_FROM);
    // Nothing in it can fail: maps with text for keys, numbers, text.
    let mut json = Vec::with_capacity(1024);
    let _ = serde_json::to_writer(&mut json, &MadeFrom { name, host });
    out.push_str(&String::from_utf8_lossy(&json));
    out.push('\n');
    D::objects(out, name, host, around);
}

/// What the server's own file says besides objects.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// What tags define.
    pub(super) definitions: BTreeMap<(define::Kind, Name), Arc<Definition>>,
    /// Groups that the server has from elsewhere.
    pub(super) elsewhere: BTreeSet<(&'static str, Name)>,
}

#[derive(Serialize, Deserialize)]
struct DefinedFrom<D> {
    kind: define::Kind,
    name: Name,
    is: D,
}

/// How the comment with a group of the server's own begins.
const ELSEWHERE: &str = "#- ";

/// The server's own file: what is defined, the mark, and the groups, but for those that the server has from elsewhere.
pub(super) fn server<D: Dialect>(
    dialect: &D,
    mark: Option<&str>,
    own: &Own,
    groups: [&[&Name]; 2],
) -> String {
    let mut out = HEAD.to_owned();
    for ((kind, name), definition) in &own.definitions {
        let from = DefinedFrom { kind: *kind, name: name.clone(), is: &**definition };
        out.push_str(MADE_FROM);
        // Nothing in it can fail: maps with text for keys, text.
        out.push_str(&serde_json::to_string(&from).unwrap_or_default());
        out.push('\n');
        dialect.definition(&mut out, name, definition);
    }
    let mut ours = [Vec::new(), Vec::new()];
    for ((kind, all), ours) in GROUPS.into_iter().zip(groups).zip(&mut ours) {
        for &name in all {
            if own.elsewhere.contains(&(kind, name.clone())) {
                out.push_str(&format!("{ELSEWHERE}{kind} {name}\n"));
            } else {
                ours.push(name);
            }
        }
    }
    D::server_file(&mut out, mark, &ours[0], &ours[1]);
    out
}

/// The kinds of groups.
const GROUPS: [&str; 2] = ["host", "service"];

/// Reads the server's own file back, as far as it can be understood.
pub(super) fn read_server(text: &str) -> Own {
    let mut own = Own::default();
    for line in text.lines() {
        if let Some(json) = line.strip_prefix(MADE_FROM) {
            if let Ok(DefinedFrom { kind, name, is }) = serde_json::from_str::<DefinedFrom<Definition>>(json)
            {
                own.definitions.insert((kind, name), Arc::new(is));
            }
        } else if let Some((kind, name)) = line.strip_prefix(ELSEWHERE).and_then(|line| line.split_once(' '))
            && let (Some(kind), Ok(name)) = (GROUPS.into_iter().find(|one| *one == kind), name.parse())
        {
            own.elsewhere.insert((kind, name));
        }
    }
    own
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
pub(super) fn is_as_made<D: Dialect>(name: &HostName, host: &Host, text: &str, around: &Around<'_>) -> bool {
    let mut made = String::with_capacity(text.len());
    block::<D>(name, host, around, &mut made);
    made == text
}
