//! Zone transfers to secondaries: whole ([RFC 5936](https://www.rfc-editor.org/rfc/rfc5936)), or what changed since the
//! version that the secondary has ([RFC 1995](https://www.rfc-editor.org/rfc/rfc1995)).
//!
//! Who may have them says [`Access`]. A transfer is of one version: what is sent is taken under the zone's lock, by reference,
//! and put into messages one by one, so that a slow secondary holds nobody up and costs one message of memory.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, TSigner};
use ipnet::IpNet;
use serde::Deserialize;
use shoal_agent::Fault;

use super::answer::{Zones, sign, text_of};
use super::zone::{Set, Stored, ZoneData};
use crate::name::Zone;
use crate::rdata::Rtype;
use crate::target::serial::newer;
use crate::target::tsig::{KeySettings, Signature};

/// About how many octets of records go in one message.
const MESSAGE: usize = 16 * 1024;
/// More than this does not go in one message, with its head and its signature.
const MOST: usize = 60_000;

/// `[agent.server.transfer]` in the node's configuration: who may have whole zones, and who is told of changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransferSettings {
    /// Secondaries that are told when a zone changes. They may have the zones.
    pub notify: Vec<SocketAddr>,
    /// Addresses and networks that may have the zones, too: `192.0.2.7`, `2001:db8::/64`.
    pub allow: Vec<String>,
    /// The key that they must ask with, and that what they are told is signed with.
    pub key: Option<KeySettings>,
}

/// Who may have whole zones.
#[derive(Clone, Default)]
pub(super) struct Access {
    pub(super) notify: Vec<SocketAddr>,
    allow: Vec<IpNet>,
    pub(super) key: Option<TSigner>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Access")
            .field("notify", &self.notify)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

impl Access {
    pub(super) fn new(settings: &TransferSettings) -> Result<Self, Fault> {
        let network = |text: &String| {
            text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| {
                Fault::new(
                    "read the configuration",
                    format!("[agent.server.transfer] allow: {text:?} is neither an address nor a network (192.0.2.0/24)"),
                )
                .permanent()
            })
        };
        Ok(Self {
            notify: settings.notify.clone(),
            allow: settings.allow.iter().map(network).collect::<Result<_, _>>()?,
            key: settings.key.as_ref().map(KeySettings::signer).transpose()?,
        })
    }

    /// Whether somebody at this address, who signed so, may have whole zones.
    fn admits(&self, peer: IpAddr, signature: &Signature) -> bool {
        let peer = peer.to_canonical();
        let known = self.allow.iter().any(|network| network.contains(&peer))
            || self.notify.iter().any(|secondary| secondary.ip().to_canonical() == peer);
        known && (self.key.is_none() || signature.is_good())
    }
}

/// Whether this asks for a transfer.
pub(super) fn is_asked(query: &Message) -> bool {
    let transfer = |question: &hickory_proto::op::Query| {
        matches!(question.query_type, RecordType::AXFR | RecordType::IXFR)
    };
    query.metadata.op_code == OpCode::Query && query.queries.iter().any(transfer)
}

/// What a transfer says, name by name or step by step, not yet made into records.
type Rest = Box<dyn Iterator<Item = Vec<Record>> + Send>;

/// A transfer that may be sent: its messages, one after the other.
pub(super) struct Transfer {
    head: Message,
    rest: Rest,
    records: Vec<Record>,
    signature: Signature,
}

/// What is to be sent for a question that asks for a transfer.
///
/// # Errors
/// The answer that refuses it.
pub(super) fn begin(
    zones: &Zones,
    peer: IpAddr,
    query: &Message,
    signature: Signature,
) -> Result<Transfer, Option<Vec<u8>>> {
    let mut head = Message::response(query.metadata.id, OpCode::Query);
    head.queries.clone_from(&query.queries);
    match content(zones, peer, query, &signature) {
        Ok((soas, rest)) => {
            head.metadata.authoritative = true;
            Ok(Transfer { head, rest, records: soas, signature })
        }
        Err(code) => {
            head.metadata.response_code = code;
            Err(sign(signature, |_| head.to_vec().ok()))
        }
    }
}

/// The SOA, and what comes after it.
fn content(
    zones: &Zones,
    peer: IpAddr,
    query: &Message,
    signature: &Signature,
) -> Result<(Vec<Record>, Rest), ResponseCode> {
    let [question] = query.queries.as_slice() else { return Err(ResponseCode::FormErr) };
    if !zones.access.admits(peer, signature) {
        return Err(ResponseCode::Refused);
    }
    let zone = text_of(&question.name).and_then(|name| zones.get(&Zone::parse(&name).ok()?));
    let zone = zone.ok_or(ResponseCode::NotAuth)?;
    let zone = zone.read().unwrap_or_else(PoisonError::into_inner);
    let (Some(apex), Some(soa)) = (zone.apex(), zone.soa()) else { return Err(ResponseCode::NotAuth) };
    let mut soas = Vec::new();
    set(&mut soas, &apex.name, soa);
    let rest = match (question.query_type, has(query)) {
        (RecordType::IXFR, Some(serial)) => since(&zone, serial, &soas),
        (RecordType::IXFR, None) => return Err(ResponseCode::FormErr),
        _ => whole(&zone, &soas),
    };
    Ok((soas, rest))
}

/// The serial that the asker says it has.
fn has(query: &Message) -> Option<u32> {
    query.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

/// After the SOA: what changed since this serial, and the SOA again; nothing where that is the newest.
fn since(zone: &ZoneData, serial: u32, soas: &[Record]) -> Rest {
    if !newer(zone.serial, serial) {
        return Box::new(std::iter::empty());
    }
    match zone.journal().since(serial) {
        Some(steps) => Box::new(steps.into_iter().map(|step| step.records()).chain([soas.to_vec()])),
        None => whole(zone, soas),
    }
}

/// After the SOA: every name, and the SOA again.
fn whole(zone: &ZoneData, soas: &[Record]) -> Rest {
    let names: Vec<Arc<Stored>> = zone.all().cloned().collect();
    Box::new(names.into_iter().map(|stored| of(&stored)).chain([soas.to_vec()]))
}

impl Iterator for Transfer {
    type Item = Vec<u8>;

    /// The next message, encoded and signed.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut octets: usize = self.records.iter().map(size).sum();
        while octets < MESSAGE {
            let Some(more) = self.rest.next() else { break };
            octets += more.iter().map(size).sum::<usize>();
            self.records.extend(more);
        }
        if self.records.is_empty() {
            return None;
        }
        // A name with many records, or a step of many names, may be more than fits.
        let mut room = MOST;
        let fits = self.records.iter().take_while(|record| {
            room = room.saturating_sub(size(record));
            room > 0
        });
        let rest = self.records.split_off(fits.count().max(1));
        self.head.answers = std::mem::replace(&mut self.records, rest);
        let encoded = self.head.to_vec();
        // Only the first needs to say what was asked.
        self.head.queries.clear();
        let mut octets =
            encoded.inspect_err(|error| tracing::warn!("a transfer could not be encoded: {error}")).ok()?;
        if let Signature::Good(chain) = &mut self.signature {
            chain.sign(&mut octets)?;
        }
        Some(octets)
    }
}

/// The records of a name, without the SOA, which begins and ends the transfer.
fn of(stored: &Stored) -> Vec<Record> {
    let mut records = Vec::new();
    let others = stored.sets.iter().filter(|set| set.rtype != Rtype::SOA);
    others.for_each(|one| set(&mut records, &stored.name, one));
    records
}

fn set(records: &mut Vec<Record>, name: &Name, set: &Set) {
    records.extend(set.data.iter().map(|data| Record::from_rdata(name.clone(), set.ttl, data.clone())));
}

/// Octets of a record, no name compressed.
fn size(record: &Record) -> usize {
    let data = match &record.data {
        RData::Unknown { rdata, .. } => rdata.anything.len(),
        _ => 64,
    };
    record.name.len() + 10 + data
}
