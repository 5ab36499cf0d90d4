//! One question in, one answer out.
//!
//! Authoritative only: no recursion, REFUSED outside the zones, referrals at cuts. Answers that do not fit are cut
//! and say so, and the asker comes back by TCP.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::NULL;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

use super::transfer::{self, Access};
use super::zone::{Found, Set, Stored, ZoneData, wire_name};
use crate::name::{self, Zone};
use crate::rdata::Rtype;
use crate::target::tsig::{self, Signature};

/// The most octets in one answer by UDP ([RFC 9715](https://www.rfc-editor.org/rfc/rfc9715)).
const MAX_UDP: u16 = 1232;
/// What is said without EDNS.
const PLAIN_UDP: u16 = 512;
/// How often an alias leads on.
const MAX_ALIASES: usize = 8;
/// How many names pointed at are answered for unasked.
const MAX_ADDITIONAL: usize = 16;

/// The zones that are served.
#[derive(Debug, Default)]
pub(super) struct Zones {
    by_name: RwLock<HashMap<Box<str>, Arc<RwLock<ZoneData>>>>,
    /// Who may have them whole.
    pub(super) access: Access,
}

impl Zones {
    /// None yet.
    pub(super) fn new(access: Access) -> Self {
        Self { by_name: RwLock::default(), access }
    }

    /// A zone by its name.
    pub(super) fn get(&self, zone: &Zone) -> Option<Arc<RwLock<ZoneData>>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(zone.as_str()).cloned()
    }

    /// Adds a zone, unless it is there.
    pub(super) fn add(&self, data: ZoneData) -> Arc<RwLock<ZoneData>> {
        let mut zones = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let name = data.zone.as_str().into();
        zones.entry(name).or_insert_with(|| Arc::new(RwLock::new(data))).clone()
    }

    /// The closest zone above a name. A question for DS is the parent's, where the parent is here.
    fn above(&self, name: &str, rtype: RecordType) -> Option<Arc<RwLock<ZoneData>>> {
        let zones = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let served = |name: &str| {
            zones.get(name).filter(|zone| zone.read().unwrap_or_else(PoisonError::into_inner).soa().is_some())
        };
        let mut found = None;
        let mut rest = name;
        loop {
            if let Some(zone) = served(rest) {
                found = Some(zone.clone());
                if rtype != RecordType::DS || rest != name {
                    return found;
                }
            }
            match rest.split_once('.') {
                Some((_, tail)) => rest = tail,
                None => return found,
            }
        }
    }
}

/// The answer to what came in; nothing for what must not be answered.
pub(super) fn answer(zones: &Zones, octets: &[u8], udp: bool) -> Option<Vec<u8>> {
    let query = match Message::from_vec(octets) {
        Ok(query) => query,
        Err(_) => return garbled(octets),
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.queries.clone_from(&query.queries);
    let signature = match Signature::of(zones.access.key.as_ref(), octets, &query) {
        Signature::Bad(context) => return tsig::refuse(reply, context),
        good => good,
    };
    let mut limit = if udp { PLAIN_UDP } else { u16::MAX };
    let mut version = 0;
    if let Some(edns) = &query.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(MAX_UDP).set_version(0).set_dnssec_ok(edns.flags().dnssec_ok);
        reply.edns = Some(ours);
        version = edns.version();
        if udp {
            limit = edns.max_payload().clamp(PLAIN_UDP, MAX_UDP);
        }
    }
    let mut extra = Vec::new();
    match (&query.metadata.op_code, query.queries.as_slice()) {
        _ if version > 0 => reply.metadata.response_code = ResponseCode::BADVERS,
        // Asked for again by TCP.
        (OpCode::Query, _) if udp && transfer::is_asked(&query) => reply.metadata.truncation = true,
        (OpCode::Query, [question]) => extra = respond(zones, question, &mut reply),
        (OpCode::Query, _) => reply.metadata.response_code = ResponseCode::FormErr,
        _ => reply.metadata.response_code = ResponseCode::NotImp,
    }
    sign(signature, |room| fit(reply, extra, limit - room))
}

/// Signs an answer as its question was, having said how much room that takes.
pub(super) fn sign(signature: Signature, encode: impl FnOnce(u16) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let Signature::Good(mut chain) = signature else { return encode(0) };
    let mut octets = encode(tsig::ROOM)?;
    chain.sign(&mut octets)?;
    Some(octets)
}

/// What cannot be read is answered, if it has a header.
fn garbled(octets: &[u8]) -> Option<Vec<u8>> {
    let (&[a, b, flags, ..], true) = (octets, octets.len() >= 12) else { return None };
    if flags & 0x80 != 0 {
        return None;
    }
    let op_code = OpCode::from_u8((flags >> 3) & 15);
    Message::error_msg(u16::from_be_bytes([a, b]), op_code, ResponseCode::FormErr).to_vec().ok()
}

/// The message in as many octets as may be: without what is only helpful, else cut.
fn fit(mut reply: Message, extra: Vec<Record>, limit: u16) -> Option<Vec<u8>> {
    let needed = reply.additionals.len();
    reply.additionals.extend(extra);
    let full = encode(&reply, limit)?;
    if !is_cut(&full) {
        return Some(full);
    }
    reply.additionals.truncate(needed);
    let bare = encode(&reply, limit)?;
    if !is_cut(&bare) {
        return Some(bare);
    }
    // Nothing but the question: half an answer is of no use, and EDNS must still be there.
    reply.answers.clear();
    reply.authorities.clear();
    reply.additionals.clear();
    reply.metadata.truncation = true;
    encode(&reply, limit)
}

fn encode(reply: &Message, limit: u16) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(512);
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_max_size(limit);
    match reply.emit(&mut encoder) {
        Ok(()) => Some(octets),
        Err(error) => {
            tracing::warn!("an answer could not be encoded: {error}");
            Message::error_msg(reply.metadata.id, OpCode::Query, ResponseCode::ServFail).to_vec().ok()
        }
    }
}

fn is_cut(octets: &[u8]) -> bool {
    octets.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// Fills in the answer; what would only be helpful is returned.
fn respond(zones: &Zones, question: &Query, reply: &mut Message) -> Vec<Record> {
    let refused = |meta: &mut Metadata| {
        meta.response_code = ResponseCode::Refused;
        Vec::new()
    };
    let rtype = question.query_type;
    if question.query_class != DNSClass::IN || matches!(rtype, RecordType::AXFR | RecordType::IXFR) {
        return refused(&mut reply.metadata);
    }
    let Some(asked) = text_of(&question.name) else { return refused(&mut reply.metadata) };
    let Some(zone) = zones.above(&asked, rtype) else { return refused(&mut reply.metadata) };
    let zone = zone.read().unwrap_or_else(PoisonError::into_inner);
    let mut response = Response { zone: &zone, reply, extra: Vec::new() };
    response.reply.metadata.authoritative = true;
    response.follow(question.name.clone(), asked, rtype);
    response.extra
}

/// A name as our owner names are written, without the trailing dot.
pub(super) fn text_of(name: &Name) -> Option<String> {
    let mut wire = Vec::with_capacity(64);
    name.emit(&mut BinEncoder::new(&mut wire)).ok()?;
    name::from_wire(&wire).map(|(text, _)| text.trim_end_matches('.').to_owned())
}

struct Response<'a> {
    zone: &'a ZoneData,
    reply: &'a mut Message,
    extra: Vec<Record>,
}

impl Response<'_> {
    /// Answers for a name, and for what its aliases lead to inside the zone.
    fn follow(&mut self, mut name: Name, mut text: String, rtype: RecordType) {
        for _ in 0..=MAX_ALIASES {
            let zone = self.zone;
            let Some(owner) = owner_in(&text, &zone.zone) else { return };
            let next = match zone.find(owner, Rtype(rtype.into())) {
                Found::Records(stored) => self.records(&name, stored, owner, rtype),
                Found::Renamed(stored) => {
                    // Who asks for the alias itself has it now.
                    self.renamed(&name, &text, stored).filter(|_| rtype != RecordType::CNAME)
                }
                Found::Elsewhere(stored) => return self.referral(stored),
                Found::Empty => return self.negative(ResponseCode::NoError),
                Found::Missing => return self.negative(ResponseCode::NXDomain),
            };
            let Some(next) = next else { return };
            let Some(wire) = name::to_wire(&next).ok().and_then(|wire| wire_name(&wire).ok()) else { return };
            (name, text) = (wire, next);
        }
    }

    /// Records of the type that is asked for; else the alias to follow.
    fn records(
        &mut self,
        name: &Name,
        stored: &Arc<Stored>,
        owner: &str,
        rtype: RecordType,
    ) -> Option<String> {
        let alias = stored.set(Rtype::CNAME);
        if rtype == RecordType::ANY {
            self.any(name, alias);
            return None;
        }
        let soa = (rtype == RecordType::SOA && owner == "@").then(|| self.zone.soa()).flatten();
        if let Some(set) = soa.or_else(|| stored.set(Rtype(rtype.into()))) {
            add(&mut self.reply.answers, name, set, set.ttl);
            self.point_at(set);
            return None;
        }
        let Some(alias) = alias else {
            self.negative(ResponseCode::NoError);
            return None;
        };
        add(&mut self.reply.answers, name, alias, alias.ttl);
        alias.targets.first().cloned()
    }

    /// The least that answers ANY ([RFC 8482](https://www.rfc-editor.org/rfc/rfc8482#section-4.2)).
    fn any(&mut self, name: &Name, alias: Option<&Set>) {
        if let Some(alias) = alias {
            return add(&mut self.reply.answers, name, alias, alias.ttl);
        }
        let data = RData::Unknown { code: RecordType::HINFO, rdata: NULL::with(b"\x07RFC8482\x00".to_vec()) };
        self.reply.answers.push(Record::from_rdata(name.clone(), 3600, data));
    }

    /// Everything below a DNAME has the same name below another
    /// ([RFC 6672](https://www.rfc-editor.org/rfc/rfc6672#section-3.1)).
    fn renamed(&mut self, name: &Name, text: &str, stored: &Arc<Stored>) -> Option<String> {
        let set = stored.set(Rtype::DNAME)?;
        let above = text_of(&stored.name)?;
        let next = format!("{}{}", text.strip_suffix(&above)?, set.targets.first()?);
        add(&mut self.reply.answers, &stored.name, set, set.ttl);
        let Ok(wire) = name::to_wire(&next) else {
            self.reply.metadata.response_code = ResponseCode::YXDomain;
            return None;
        };
        let data = RData::Unknown { code: RecordType::CNAME, rdata: NULL::with(wire) };
        self.reply.answers.push(Record::from_rdata(name.clone(), set.ttl, data));
        Some(next)
    }

    /// Says who knows, and where they are if they are below the cut.
    fn referral(&mut self, stored: &Arc<Stored>) {
        // After an alias the answer so far is ours, and stays so.
        self.reply.metadata.authoritative = !self.reply.answers.is_empty();
        let Some(set) = stored.set(Rtype::NS) else { return };
        add(&mut self.reply.authorities, &stored.name, set, set.ttl);
        self.point_at(set);
        // Without these addresses nobody finds the servers.
        self.reply.additionals.append(&mut self.extra);
    }

    fn negative(&mut self, code: ResponseCode) {
        self.reply.metadata.response_code = code;
        if let (Some(apex), Some(soa)) = (self.zone.apex(), self.zone.soa()) {
            add(&mut self.reply.authorities, &apex.name, soa, self.zone.negative_ttl());
        }
    }

    /// The addresses of names that the set points at, as far as they are in the zone.
    fn point_at(&mut self, set: &Set) {
        if set.rtype == Rtype::CNAME {
            return;
        }
        for target in set.targets.iter().take(MAX_ADDITIONAL) {
            let Some(stored) = owner_in(target, &self.zone.zone).and_then(|owner| self.zone.at(owner)) else {
                continue;
            };
            for rtype in [Rtype::A, Rtype::AAAA] {
                if let Some(set) = stored.set(rtype) {
                    add(&mut self.extra, &stored.name, set, set.ttl);
                }
            }
        }
    }
}

fn owner_in<'t>(text: &'t str, zone: &Zone) -> Option<&'t str> {
    name::within(text, zone).map(|owner| if owner.is_empty() { "@" } else { owner })
}

fn add(section: &mut Vec<Record>, name: &Name, set: &Set, ttl: u32) {
    section.extend(set.data.iter().map(|data| Record::from_rdata(name.clone(), ttl, data.clone())));
}
