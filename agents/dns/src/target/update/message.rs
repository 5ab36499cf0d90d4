//! Changes as an UPDATE message ([RFC 2136](https://www.rfc-editor.org/rfc/rfc2136)).
//!
//! A message is done as a whole or not at all. For each name it first says what must stand there, record set by record set with
//! its data (section 2.4.2), and what must not (2.4.3, 2.4.5); then what goes and what comes, and nothing that stays. So a change is made of
//! what was looked at or not at all, and what others wrote beside it is not even named.

use hickory_proto::ProtoError;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use shoal_agent::Edit;

use crate::Dns;
use crate::name::{self, Zone};
use crate::rdata::{self, Rtype};
use crate::record::{Key, Node, RecordSet, is_of_the_host};
use crate::target::server::wire_name;

/// An empty UPDATE message for a zone. `id` is to be hard to guess.
pub(super) fn update(id: u16, zone: &Zone) -> Result<Message, String> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Update);
    message.add_query(Query::query(zone_name(zone)?, RecordType::SOA));
    Ok(message)
}

/// A question about a name or a whole zone.
pub(super) fn question(id: u16, name: &str, rtype: RecordType) -> Result<Message, String> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(wire_name(&name::to_wire(name)?)?, rtype));
    Ok(message)
}

fn zone_name(zone: &Zone) -> Result<Name, String> {
    wire_name(&name::to_wire(zone.as_str())?)
}

/// Nothing must stand at this name.
pub(super) fn require_nothing(message: &mut Message, key: &Key) -> Result<(), String> {
    message.add_answer(empty(&owner(key)?, RecordType::ANY, DNSClass::NONE));
    Ok(())
}

/// Adds a change. What it is made from must stand there.
pub(super) fn change(message: &mut Message, edit: &Edit<Dns>) -> Result<(), String> {
    let name = owner(&edit.key)?;
    let before = sets(&edit.key, edit.from.as_ref().map(|have| &have.records));
    let after = sets(&edit.key, edit.to.as_ref());
    for set in &before {
        for data in &set.data {
            message.add_answer(full(&name, 0, set.rtype, data, DNSClass::IN)?);
        }
    }
    let alias = after.iter().any(|set| set.rtype == Rtype::CNAME);
    if before.is_empty() && alias {
        // Servers say nothing about an alias beside other data, and do nothing (section 3.4.2.2).
        require_nothing(message, &edit.key)?;
    }
    if before.is_empty() && !alias {
        // The same the other way round.
        message.add_answer(empty(&name, RecordType::CNAME, DNSClass::NONE));
    }
    for set in after.iter().filter(|set| of(&before, set.rtype).is_none()) {
        message.add_answer(empty(&name, RecordType::from(set.rtype.0), DNSClass::NONE));
    }
    for old in &before {
        let new = of(&after, old.rtype);
        if new.is_none_or(|new| new.ttl != old.ttl || old.rtype.is_single() && new.data != old.data) {
            message.add_authority(empty(&name, RecordType::from(old.rtype.0), DNSClass::ANY));
            continue;
        }
        for data in old.data.iter().filter(|data| new.is_some_and(|new| !new.data.contains(data))) {
            message.add_authority(full(&name, 0, old.rtype, data, DNSClass::NONE)?);
        }
    }
    for new in &after {
        let stays = of(&before, new.rtype)
            .filter(|old| old.ttl == new.ttl && (!new.rtype.is_single() || old.data == new.data));
        for data in new.data.iter().filter(|data| stays.is_none_or(|old| !old.data.contains(data))) {
            message.add_authority(full(&name, new.ttl, new.rtype, data, DNSClass::IN)?);
        }
    }
    Ok(())
}

/// Whether the message would change anything.
pub(super) fn changes_something(message: &Message) -> bool {
    !message.authorities.is_empty()
}

/// Whether it can be sent, with so much room left for a signature. What cannot would not be refused by the encoder: it leaves out the
/// records that do not fit, and the rest would be done.
pub(super) fn fits(message: &Message, room: u16) -> Result<bool, String> {
    match message.to_vec() {
        // The bit for a message that was cut.
        Ok(octets) if octets.get(2).is_some_and(|flags| flags & 2 != 0) => Ok(false),
        Ok(octets) => Ok(octets.len() <= usize::from(u16::MAX - room)),
        Err(ProtoError::MaxBufferSizeExceeded(_)) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// What the server's answer to an update means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All of it was done.
    Done,
    /// What stands there is not what the changes were made for; nothing was done.
    Stale,
    /// A record is not one for this server; nothing was done.
    Malformed,
    /// It may not be done at all; nothing was done.
    Refused,
    /// It could not be done now.
    Failed,
}

pub(super) fn verdict(code: ResponseCode) -> Verdict {
    match code {
        ResponseCode::NoError => Verdict::Done,
        ResponseCode::YXDomain | ResponseCode::YXRRSet | ResponseCode::NXRRSet | ResponseCode::NXDomain => {
            Verdict::Stale
        }
        ResponseCode::FormErr => Verdict::Malformed,
        ResponseCode::Refused | ResponseCode::NotAuth | ResponseCode::NotZone | ResponseCode::NotImp => {
            Verdict::Refused
        }
        _ => Verdict::Failed,
    }
}

/// The record sets that Shoal may change: not the start of the zone, nor its name servers, which belong to whoever made the
/// zone at the server.
fn sets<'a>(key: &Key, node: Option<&'a Node>) -> Vec<&'a RecordSet> {
    let all = node.into_iter().flat_map(|node| node.sets.iter());
    all.filter(|set| !(key.is_apex() && is_of_the_host(set.rtype))).collect()
}

fn of<'a>(sets: &[&'a RecordSet], rtype: Rtype) -> Option<&'a RecordSet> {
    sets.iter().find(|set| set.rtype == rtype).copied()
}

fn owner(key: &Key) -> Result<Name, String> {
    wire_name(&name::to_wire(&key.name())?)
}

fn empty(name: &Name, rtype: RecordType, class: DNSClass) -> Record {
    let mut record = Record::update0(name.clone(), 0, rtype);
    record.dns_class = class;
    record
}

fn full(name: &Name, ttl: u32, rtype: Rtype, data: &str, class: DNSClass) -> Result<Record, String> {
    let wire = rdata::wire(rtype, data)?;
    let rdata = if wire.is_empty() { NULL::new() } else { NULL::with(wire) };
    let data = RData::Unknown { code: RecordType::from(rtype.0), rdata };
    let mut record = Record::from_rdata(name.clone(), ttl, data);
    record.dns_class = class;
    Ok(record)
}
