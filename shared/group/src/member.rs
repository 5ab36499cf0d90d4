//! What the document of a member says: what its group says of all, and what its slot has.
//!
//! Who takes a slot over has what people wrote on the host besides; what the group says goes before it, and a reason to be destroyed stays
//! behind with the machine that had it.

use core::net::IpAddr;

use serde_json::{Map, Value, json};
use shoal_core::Document;
use shoal_machine::{DESTROY, NAMESPACE, Network, NetworkSpec, Volume, place};

use crate::ranges::{Held, Ranges};
use crate::read::Group;
use crate::spec::{Addresses, Draw, Layout, MOST, Pick, SlotDisk};

/// Where whoever has a slot is to be, as far as that is known.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The site.
    pub(crate) site: Option<&'a str>,
    /// The box where the slot's disks are.
    pub(crate) room: Option<&'a str>,
}

/// The document of whoever has this slot. What it takes of ranges is theirs from then on.
///
/// # Errors
/// What there is nothing of.
pub(crate) fn document(
    group: &Group,
    ranges: &mut Ranges,
    by: &Held,
    at: Place<'_>,
    before: Option<&Document>,
) -> Result<Document, String> {
    let mut fields: Map<String, Value> = before.and_then(|before| before.to().ok()).unwrap_or_default();
    for (field, value) in &group.spec.host {
        fields.insert(field.clone(), value.clone());
    }
    fields.insert(place::SIZE.to_owned(), json!(group.spec.size));
    for (field, range) in &group.spec.slots.ids {
        let by = Held { field: field.clone(), ..by.clone() };
        let number = ranges.take(range, None, &by)?;
        let number: u64 =
            number.parse().map_err(|_| format!("ranges/{range} has addresses, and {field} is a number"))?;
        fields.insert(field.clone(), number.into());
    }
    let mut networks = Vec::new();
    for (field, Addresses { network, .. }) in &group.spec.slots.addresses {
        let draw =
            group.spec.range_of(field, at.site).ok_or_else(|| format!("there is no range for {field}"))?;
        let address = address(ranges, draw, &Held { field: field.clone(), ..by.clone() })?;
        if let Some(network) = network {
            let prefix = ranges.prefix(&draw.range)?;
            networks.push((network.as_str(), format!("{address}/{prefix}")));
        }
        fields.insert(field.clone(), address.into());
    }
    let mut own = match fields.shift_remove(NAMESPACE) {
        Some(Value::Object(own)) => own,
        _ => Map::new(),
    };
    own.shift_remove(DESTROY);
    if !networks.is_empty() {
        own.insert("networks".to_owned(), joined(&group.networks, &networks)?);
    }
    if !group.spec.slots.disks.is_empty() {
        let before = own.shift_remove("disks");
        own.insert("disks".to_owned(), disks(group, by.slot, before)?);
    }
    if !own.is_empty() {
        fields.insert(NAMESPACE.to_owned(), own.into());
    }
    fields.insert(place::NAMESPACE.to_owned(), rules(group, by.slot, at).into());
    Document::of(&fields).map_err(|e| e.to_string())
}

fn address(ranges: &mut Ranges, draw: &Draw, by: &Held) -> Result<String, String> {
    let offset = draw.offset.map(|offset| u128::from(offset) + u128::from(by.slot));
    let address = ranges.take(&draw.range, offset, by)?;
    match address.parse::<IpAddr>() {
        Ok(_) => Ok(address),
        Err(_) => Err(format!("ranges/{} has numbers, and {} is an address", draw.range, by.field)),
    }
}

/// The slot's disks, beside what people wrote on the host.
fn disks(group: &Group, slot: u32, before: Option<Value>) -> Result<Value, String> {
    let mut disks = match before {
        Some(Value::Object(disks)) => disks,
        _ => Map::new(),
    };
    let volume = Volume::new(group.tag.key(), slot)?;
    for (name, SlotDisk { size, at }) in &group.spec.slots.disks {
        disks.insert(name.clone(), json!({"size": size, "at": at, "volume": volume}));
    }
    Ok(disks.into())
}

/// The networks that the tag says, with a machine's own addresses.
fn joined(networks: &Value, own: &[(&str, String)]) -> Result<Value, String> {
    let mut networks = networks.as_array().cloned().unwrap_or_default();
    for (name, address) in own {
        let found = networks.iter_mut().find(|one| one.get("name").and_then(Value::as_str) == Some(name));
        let network = found
            .and_then(Value::as_object_mut)
            .ok_or_else(|| format!("its document has no network {name:?}"))?;
        match network.entry("addresses").or_insert_with(|| json!([])) {
            Value::Array(addresses) => addresses.push(address.as_str().into()),
            _ => return Err(format!("the `addresses` of its network {name:?} are no list")),
        }
    }
    Ok(networks.into())
}

/// The networks that a member is to be in by what its group says now, with the addresses that it has; `None`: its group gives its members no
/// addresses in networks, or that cannot be told.
pub(crate) fn networks(
    group: &Group,
    ranges: &Ranges,
    site: Option<&str>,
    document: &Document,
) -> Option<Vec<Network>> {
    let mut own = Vec::new();
    for (field, Addresses { network, .. }) in &group.spec.slots.addresses {
        let Some(network) = network else { continue };
        let prefix = ranges.prefix(&group.spec.range_of(field, site)?.range).ok()?;
        own.push((network.as_str(), format!("{}/{prefix}", document.text(field)?)));
    }
    if own.is_empty() {
        return None;
    }
    let specs: Vec<NetworkSpec> = serde_json::from_value(joined(&group.networks, &own).ok()?).ok()?;
    specs.iter().map(|spec| Network::new(spec).ok()).collect()
}

/// What placement is told.
fn rules(group: &Group, slot: u32, Place { site, room }: Place<'_>) -> Map<String, Value> {
    let spec = &group.spec;
    let room = room.filter(|_| !spec.slots.disks.is_empty());
    let only = room.map_or_else(|| spec.only.clone(), |room| [Pick::Name(room.to_owned())].into());
    let mut rules = Map::new();
    rules.insert("group".to_owned(), json!(group.tag));
    rules.insert("slot".to_owned(), slot.into());
    let mut say = |name: &str, said: bool, what: Value| {
        if said {
            rules.insert(name.to_owned(), what);
        }
    };
    say("near", !spec.near.is_empty(), json!(spec.near));
    say("apart", !spec.apart.is_empty(), json!(spec.apart));
    say("only", !only.is_empty(), json!(only));
    say("except", !spec.except.is_empty(), json!(spec.except));
    match (&spec.layout, site) {
        // The group counts by itself how many are where: to placement it is this site, and no other.
        (_, Some(site)) => say("layout", true, json!({"sites": {site: MOST}})),
        (Some(Layout::Spread(_)), None) => say("layout", true, json!(spec.layout)),
        _ => {}
    }
    rules
}
