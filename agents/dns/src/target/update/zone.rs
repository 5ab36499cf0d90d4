//! Records that a server told, as names.

use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use crate::name::{self, Zone};
use crate::rdata::{self, Rtype};
use crate::record::{Key, Node, RecordSet};

/// What signing makes: RRSIG, NSEC, NSEC3, NSEC3PARAM, and the private type that BIND keeps its progress in.
const SIGNING: [u16; 5] = [46, 47, 50, 51, 65534];

/// The names and record sets of these records, in canonical order. What lies outside the zone or stands under a name that no
/// tag can have is left out: nothing of ours is there.
///
/// # Errors
/// Data that cannot be put into text: then nothing is known of the zone.
pub(super) fn nodes(zone: &Zone, records: &[Record]) -> Result<BTreeMap<Key, Node>, String> {
    type Sets = BTreeMap<Rtype, (u32, Vec<(Vec<u8>, String)>)>;
    let mut names: BTreeMap<Key, Sets> = BTreeMap::new();
    for record in records {
        let rtype = Rtype(record.record_type().into());
        if SIGNING.contains(&rtype.0) {
            continue;
        }
        let Some(key) = key(zone, record) else { continue };
        let data = rdata::of_wire(rtype, octets(record)?)
            .map_err(|why| format!("{rtype} of {}: {why}", record.name))?;
        let (ttl, all) = names.entry(key).or_default().entry(rtype).or_default();
        *ttl = record.ttl;
        all.push((data.wire, data.text));
    }
    let set = |(rtype, (ttl, mut all)): (Rtype, (u32, Vec<_>))| {
        all.sort();
        RecordSet::plain(rtype, ttl, all.into_iter().map(|(_, text)| text).collect())
    };
    let node = |sets: Sets| Node { sets: Arc::new(sets.into_iter().map(set).collect()) };
    Ok(names.into_iter().map(|(key, sets)| (key, node(sets))).collect())
}

fn key(zone: &Zone, record: &Record) -> Option<Key> {
    let wire = record.name.to_bytes().ok()?;
    let (text, _) = name::from_wire(&wire)?;
    Some(Key::new(zone, &name::owner(&text, zone).ok()?))
}

/// The data as it goes over the wire, no name compressed.
fn octets(record: &Record) -> Result<Vec<u8>, String> {
    let mut wire = Vec::new();
    let mut encoder = BinEncoder::new(&mut wire);
    encoder.set_canonical_form(true);
    record.data.emit(&mut encoder).map_err(|e| format!("{}: {e}", record.name))?;
    Ok(wire)
}
