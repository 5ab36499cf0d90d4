//! What an inventory and a mapping want to stand in the database.
//!
//! Pure: the same two texts give the same answer. What the inventory holds and Shoal cannot say (a name that is no
//! host name, a size that is no size) is left out with a [`Note`]; a field whose value cannot be read is *unknown*, which is
//! not the same as not being there: what an earlier import wrote then stays.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use shoal_core::{HostName, Lifecycle, Member, TagName};

use super::inventory::{Inventory, is_vaulted, plain};
use super::mapping::{Absent, From, Keep, Kind, Mapping, Rename, VARIABLES};
use super::value::convert;
use super::{Note, each};

/// The name under which a host's owner is kept among its fields; no document field starts with `@`.
pub(super) const OWNER: &str = "@owner";
/// Likewise its environment.
pub(super) const ENVIRONMENT: &str = "@environment";

/// Everything that is wanted.
#[derive(Debug, Default)]
pub(in crate::import) struct Wanted {
    pub(super) hosts: BTreeMap<HostName, WantedHost>,
    pub(in crate::import) tags: BTreeMap<TagName, WantedTag>,
    /// Groups that are named and not there: no tag is made, one that stands is emptied and kept.
    pub(super) absent: BTreeSet<TagName>,
    /// Tags of which it cannot be told what they should be: they stay as they are, and have not vanished.
    pub(in crate::import) unknown: BTreeSet<TagName>,
}

/// A host.
#[derive(Debug, Default)]
pub(super) struct WantedHost {
    /// The document's fields, and [`OWNER`] and [`ENVIRONMENT`].
    pub(super) fields: Map<String, Value>,
    /// Fields that have a value which cannot be taken.
    pub(super) unknown: BTreeSet<String>,
    /// The state to make it with.
    pub(super) state: Option<Lifecycle>,
    /// The groups it stands directly in.
    pub(super) groups: BTreeSet<TagName>,
    /// Names of tags with a value in them, of which it is not known which ones it is in.
    pub(super) kept: Vec<String>,
}

/// A tag.
#[derive(Debug, Default)]
pub(in crate::import) struct WantedTag {
    /// The document's fields, and [`OWNER`] and [`ENVIRONMENT`].
    pub(in crate::import) fields: Map<String, Value>,
    /// Members other than the hosts of the group.
    pub(in crate::import) members: BTreeSet<Member>,
    /// Nested tags that are wanted only where they stand already: groups that are named and not there.
    pub(super) if_there: BTreeSet<Member>,
    /// Some members could not be told: what an earlier import put in stays.
    pub(in crate::import) keep: bool,
}

/// Applies the mapping.
pub(super) fn wanted(inventory: &Inventory, mapping: &Mapping, notes: &mut Vec<Note>) -> Wanted {
    let mut out = Wanted::default();
    let names = host_names(inventory, mapping, notes);
    let groups = group_tags(inventory, mapping, &mut out, notes);
    for (name, vars) in &inventory.hosts {
        if let Some(host) = names.get(name) {
            out.hosts.insert(host.clone(), host_of(host, vars, mapping, notes));
        }
    }
    for (name, group) in &inventory.groups {
        let Some(tag) = groups.get(name) else { continue };
        for host in group.hosts.iter().filter_map(|h| names.get(h)) {
            if let Some(host) = out.hosts.get_mut(host) {
                host.groups.insert(tag.clone());
            }
        }
        let mut entry = WantedTag::default();
        for (child, nested) in group.children.iter().filter_map(|child| groups.get_key_value(child)) {
            let absent = inventory.absent.contains(child) && mapping.groups.absent == Absent::LeaveOut;
            let into = if absent { &mut entry.if_there } else { &mut entry.members };
            into.insert(Member::nested(nested, tag.namespace()));
        }
        out.tags.insert(tag.clone(), entry);
    }
    if mapping.groups.absent == Absent::Empty {
        for tag in std::mem::take(&mut out.absent) {
            out.tags.entry(tag).or_default();
        }
    }
    for tag in &mapping.tags {
        let entry = out.tags.entry(tag.tag.clone()).or_default();
        entry.members.extend(tag.members.iter().cloned());
        entry.fields.extend(tag.document.clone());
        if let Some(owner) = &tag.owner {
            entry.fields.insert(OWNER.to_owned(), owner.clone().into());
        }
        if let Some(environment) = &tag.environment {
            entry.fields.insert(ENVIRONMENT.to_owned(), environment.clone().into());
        }
    }
    for (name, vars) in &inventory.hosts {
        let Some(host) = names.get(name) else { continue };
        mapping.each.iter().for_each(|each| each::put(each, host, vars, &mut out, notes));
    }
    boxes_exist(&out, mapping, notes);
    out
}

/// What each host is called here. Of two that would get one name, the first in order of names has it.
fn host_names(inventory: &Inventory, mapping: &Mapping, notes: &mut Vec<Note>) -> BTreeMap<String, HostName> {
    let mut names = BTreeMap::new();
    let mut taken: BTreeMap<HostName, &str> = BTreeMap::new();
    for name in inventory.hosts.keys() {
        match renamed(name, mapping).parse::<HostName>() {
            Err(why) => notes.push(Note::new(name, format!("{why}; the host is left out"))),
            Ok(host) => match taken.get(&host) {
                Some(first) => {
                    notes.push(Note::new(name, format!("{first} is called {host} already; left out")));
                }
                None => {
                    taken.insert(host.clone(), name);
                    names.insert(name.clone(), host);
                }
            },
        }
    }
    names
}

fn renamed(name: &str, mapping: &Mapping) -> String {
    renamed_by(name, &mapping.hosts.rename, mapping.hosts.domain.as_deref())
}

/// What rules make of a name, and a domain of one without a dot that no rule fits.
pub(in crate::import) fn renamed_by(name: &str, rules: &[Rename], domain: Option<&str>) -> String {
    let by_rule = rules.iter().find_map(|Rename { suffix, host, to }| {
        let stem = name.strip_suffix(suffix.as_deref().unwrap_or_default())?;
        match host {
            Some(host) if host != name => None,
            Some(_) => Some(to.clone()),
            None => suffix.as_ref().map(|_| format!("{stem}{to}")),
        }
    });
    match (by_rule, domain) {
        (Some(name), _) => name,
        (None, Some(domain)) if !name.contains('.') => format!("{name}.{domain}"),
        (None, _) => name.to_owned(),
    }
}

fn group_tags(
    inventory: &Inventory,
    mapping: &Mapping,
    out: &mut Wanted,
    notes: &mut Vec<Note>,
) -> BTreeMap<String, TagName> {
    let mut tags = BTreeMap::new();
    for name in inventory.groups.keys().chain(&inventory.absent) {
        if mapping.groups.skip.contains(name) {
            continue;
        }
        match format!("{}/{name}", mapping.groups.namespace).parse::<TagName>() {
            Err(why) => {
                notes.push(Note::new(format!("group {name}"), format!("{why}; the group is left out")));
            }
            Ok(tag) => {
                if inventory.absent.contains(name) {
                    out.absent.insert(tag.clone());
                }
                tags.insert(name.clone(), tag);
            }
        }
    }
    tags
}

fn host_of(
    host: &HostName,
    vars: &Map<String, Value>,
    mapping: &Mapping,
    notes: &mut Vec<Note>,
) -> WantedHost {
    let mut out = WantedHost::default();
    let hosts = &mapping.hosts;
    let envelope = [(OWNER, &hosts.owner), (ENVIRONMENT, &hosts.environment)];
    let envelope =
        envelope.into_iter().filter_map(|(name, from)| from.as_ref().map(|from| (name, from, true)));
    let fields = hosts.fields.iter().map(|(name, from)| (name.as_str(), from, false));
    for (name, from, text) in envelope.chain(fields) {
        match value(from, vars, mapping, text) {
            Ok(Some(value)) => {
                out.fields.insert(name.to_owned(), value);
            }
            Ok(None) => {}
            Err(why) => {
                notes.push(Note::new(
                    host.to_string(),
                    format!("{}: {why}; left as it was", name.trim_start_matches('@')),
                ));
                out.unknown.insert(name.to_owned());
            }
        }
    }
    if let Some(kept) = kept(host, vars, &hosts.variables, notes) {
        out.fields.insert(VARIABLES.to_owned(), Value::Object(kept));
    }
    match hosts.state.as_ref().map(|from| value(from, vars, mapping, true)) {
        None | Some(Ok(None)) => {}
        Some(Ok(Some(state))) => match state.as_str().unwrap_or_default().parse() {
            Ok(state) => out.state = Some(state),
            Err(why) => {
                notes.push(Note::new(host.to_string(), format!("state: {why}; a new host is made active")));
            }
        },
        Some(Err(why)) => {
            notes.push(Note::new(host.to_string(), format!("state: {why}; a new host is made active")));
        }
    }
    out
}

/// What a variable's name has that holds a secret.
const SECRET: [&str; 6] = ["password", "passwd", "secret", "token", "private_key", "_pass"];

/// The variables that are kept as they are.
fn kept(
    host: &HostName,
    vars: &Map<String, Value>,
    keep: &Keep,
    notes: &mut Vec<Note>,
) -> Option<Map<String, Value>> {
    let named = |name: &str| match keep {
        Keep::None => false,
        Keep::All => true,
        Keep::These(names) => names.iter().any(|one| one == name),
    };
    if *keep == Keep::None {
        return None;
    }
    let mut kept = Map::new();
    for (name, value) in vars.iter().filter(|(name, _)| named(name)) {
        let lower = name.to_ascii_lowercase();
        let why = if is_vaulted(value) {
            "it is vaulted: secrets are not imported"
        } else if *keep == Keep::All && SECRET.iter().any(|word| lower.contains(word)) {
            "its name says that it is a secret: hosts.variables keeps it where it is named"
        } else {
            kept.insert(name.clone(), value.clone());
            continue;
        };
        notes.push(Note::new(host.to_string(), format!("variables: {name}: {why}; left out")));
    }
    Some(kept)
}

fn value(
    from: &From,
    vars: &Map<String, Value>,
    mapping: &Mapping,
    text: bool,
) -> Result<Option<Value>, String> {
    let found = from.vars.iter().find_map(|var| vars.get(var).filter(|v| !is_nothing(v)).map(|v| (var, v)));
    let Some((var, raw)) = found else { return Ok(from.default.clone()) };
    let plain = plain(raw).map_err(|why| format!("{var}: {why}"))?;
    let value = convert(from, plain).map_err(|why| format!("{var}: {why}"))?;
    match (from.kind, value) {
        (Kind::Host, Value::String(name)) => match renamed(&name, mapping).parse::<HostName>() {
            Ok(host) => Ok(Some(host.as_str().into())),
            Err(why) => Err(format!("{var}: {why}")),
        },
        (_, Value::String(name)) => Ok(Some(name.into())),
        (_, other) if text => Err(format!("{var}: {other} is not text")),
        (_, other) => Ok(Some(other)),
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// A field that names a host which is nowhere is kept, and said.
fn boxes_exist(out: &Wanted, mapping: &Mapping, notes: &mut Vec<Note>) {
    for (field, _) in mapping.hosts.fields.iter().filter(|(_, from)| from.kind == Kind::Host) {
        for (name, host) in &out.hosts {
            let Some(other) = host.fields.get(field).and_then(Value::as_str) else { continue };
            if !out.hosts.contains_key(other) {
                notes.push(Note::new(
                    name.to_string(),
                    format!("{field}: {other} is not a host of the inventory"),
                ));
            }
        }
    }
}
