//! Record data: from text as zone files write it, to wire octets, and back to one canonical text.
//!
//! What stands in an item, in a file and in an answer must be the same thing, or drift is seen where there is
//! none. So all text goes through the wire form: parse, check against the type's [`fields`](types), print. Equal data has
//! equal text. A type that is not in the table is carried in the generic form of
//! [RFC 3597](https://www.rfc-editor.org/rfc/rfc3597) (`TYPE65280`, `\# 2 abcd`), which every type also accepts.
//!
//! hickory's own printing is not used: it writes TXT without quotes and cannot read several types back.
//! Its parser does SVCB and HTTPS, whose parameters are a language of their own; they are printed generically.

mod field;
mod regexp;
mod shape;
mod tokens;
mod type_name;
mod types;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use tokens::{Token, tokens};
pub use type_name::TypeName;

use crate::name::{Base, Zone};

/// A record type: a number, written by name where it has one, else `TYPEnnn`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Rtype(pub u16);

impl Rtype {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// A name server.
    pub const NS: Self = Self(2);
    /// Another name for the owner.
    pub const CNAME: Self = Self(5);
    /// The start of a zone.
    pub const SOA: Self = Self(6);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// Text.
    pub const TXT: Self = Self(16);
    /// A rule for rewriting names.
    pub(crate) const NAPTR: Self = Self(35);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Another name for everything below the owner.
    pub const DNAME: Self = Self(39);

    /// Whether a tag may ask for records of it: not for the SOA, which has its own place, nor for what servers and
    /// signers make, or what only exists in questions and messages; nor for what servers no longer load (MD, MF, NXT, A6).
    #[must_use]
    pub fn is_plain(self) -> bool {
        !matches!(self.0, 0 | 3 | 4 | 6 | 24 | 30 | 38 | 41 | 46 | 47 | 50 | 51 | 128..=255)
    }

    /// Whether a name has at most one record of it.
    pub(crate) fn is_single(self) -> bool {
        matches!(self, Self::CNAME | Self::DNAME | Self::SOA)
    }
}

impl fmt::Display for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match types::name(*self) {
            Some(name) => f.pad(name),
            None => f.pad(&format!("TYPE{}", self.0)),
        }
    }
}

impl fmt::Debug for Rtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        if let Some(rtype) = types::by_name(&upper) {
            return Ok(rtype);
        }
        upper
            .strip_prefix("TYPE")
            .and_then(|number| number.parse().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not a record type; write one that is not known as TYPEnnn"))
    }
}

impl TryFrom<String> for Rtype {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Serialize for Rtype {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match types::name(*self) {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(self),
        }
    }
}

/// The data of one record. Compares as its wire octets, which is the canonical order of RFC 4034, section 6.3.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rdata {
    /// The octets, names uncompressed and in lower case.
    pub(crate) wire: Vec<u8>,
    /// The one text form.
    pub(crate) text: String,
}

/// Reads the data of one record as a zone file writes it. For TXT, text that does not start with a quote is one
/// string as it stands, so that `v=spf1 mx -all` means what it says.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn parse(rtype: Rtype, text: &str, zone: &Zone) -> Result<Rdata, String> {
    if rtype == Rtype::TXT && !text.trim_start().starts_with(['"', '\\']) {
        return finish(rtype, field::strings([text.as_bytes()])?);
    }
    parse_tokens(rtype, &tokens(text)?, Base::Tag(zone))
}

/// The data of an A or AAAA record.
pub(crate) fn address(ip: IpAddr) -> Rdata {
    let wire = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Rdata { wire, text: ip.to_string() }
}

/// As [`parse`], from words.
pub(crate) fn parse_tokens(rtype: Rtype, tokens: &[Token], base: Base<'_>) -> Result<Rdata, String> {
    if tokens.first().is_some_and(|t| !t.quoted && t.raw == "\\#") {
        return finish(rtype, generic(&tokens[1..])?);
    }
    if matches!(rtype.0, 64 | 65) {
        return finish(rtype, service(rtype, tokens, base)?);
    }
    let Some(fields) = types::fields(rtype) else {
        return Err(format!("{rtype} data is written in the generic form: \\# LENGTH HEX"));
    };
    finish(rtype, field::encode(fields, tokens, base)?)
}

/// The canonical form of wire octets.
///
/// # Errors
/// Octets that are not data of this type.
fn finish(rtype: Rtype, wire: Vec<u8>) -> Result<Rdata, String> {
    if wire.len() > usize::from(u16::MAX) {
        return Err(format!("{rtype} data of {} octets is longer than 65535", wire.len()));
    }
    if matches!(rtype.0, 64 | 65) {
        service_reads(rtype, &wire)?;
    }
    digest(rtype, &wire)?;
    shape::check(rtype, &wire)?;
    let (wire, text) = match types::fields(rtype) {
        Some(fields) => {
            field::decode(fields, wire).ok_or_else(|| format!("the octets are not {rtype} data"))?
        }
        None => {
            let text = generic_text(&wire);
            (wire, text)
        }
    };
    Ok(Rdata { wire, text })
}

/// The data of these wire octets, names uncompressed.
///
/// # Errors
/// Octets that are not data of this type.
pub(crate) fn of_wire(rtype: Rtype, wire: Vec<u8>) -> Result<Rdata, String> {
    finish(rtype, wire)
}

/// The wire octets of canonical text, as [`parse`] made it.
pub(crate) fn wire(rtype: Rtype, text: &str) -> Result<Vec<u8>, String> {
    parse_tokens(rtype, &tokens(text)?, Base::Root).map(|data| data.wire)
}

/// `LENGTH HEX…` after `\#`.
fn generic(tokens: &[Token]) -> Result<Vec<u8>, String> {
    let (len, hex) = tokens.split_first().ok_or("after \\# comes a length")?;
    let len: usize = len.raw.parse().map_err(|_| format!("after \\# comes a length, not {:?}", len.raw))?;
    let hex: String = hex.iter().map(|t| t.raw.as_str()).collect();
    let octets = field::hex(&hex)?;
    if octets.len() != len {
        return Err(format!("\\# says {len} octets and {} follow", octets.len()));
    }
    Ok(octets)
}

fn generic_text(wire: &[u8]) -> String {
    let hex = data_encoding::HEXLOWER.encode(wire);
    if hex.is_empty() { "\\# 0".to_owned() } else { format!("\\# {} {hex}", wire.len()) }
}

/// SVCB and HTTPS, by hickory.
fn service(rtype: Rtype, tokens: &[Token], base: Base<'_>) -> Result<Vec<u8>, String> {
    use hickory_proto::rr::{RData, RecordType};
    use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};

    let mut text = String::new();
    for (n, token) in tokens.iter().enumerate() {
        let word = if n == 1 {
            crate::name::from_wire(&crate::name::target(&token.raw, base)?)
                .map_or_else(String::new, |(name, _)| name)
        } else {
            token.raw.clone()
        };
        if n > 0 {
            text.push(' ');
        }
        if word.chars().any(|c| c.is_control() || c == '"') {
            return Err(format!("{rtype} parameters hold no control characters or quotes"));
        }
        text.push_str(&word);
    }
    let data = RData::try_from_str(RecordType::from(rtype.0), &text).map_err(|e| e.to_string())?;
    let mut wire = Vec::new();
    data.emit(&mut BinEncoder::new(&mut wire)).map_err(|e| e.to_string())?;
    Ok(wire)
}

/// Digests whose length their type says; servers refuse a zone with another.
fn digest(rtype: Rtype, wire: &[u8]) -> Result<(), String> {
    let (kind, found, lengths): (u8, usize, &[usize]) = match (rtype.0, wire) {
        // SHA-1, SHA-256, GOST, SHA-384.
        (43 | 59 | 32768 | 32769, [_, _, _, kind, hash @ ..]) => (*kind, hash.len(), &[0, 20, 32, 32, 48]),
        // SHA-1, SHA-256.
        (44, [_, kind, hash @ ..]) => (*kind, hash.len(), &[0, 20, 32]),
        _ => return Ok(()),
    };
    match lengths.get(usize::from(kind)) {
        Some(&needed) if needed != 0 && found != needed => {
            Err(format!("a digest of type {kind} has {needed} octets, not {found}"))
        }
        _ => Ok(()),
    }
}

/// Whether octets are SVCB or HTTPS data: parsed as a record that holds them.
fn service_reads(rtype: Rtype, wire: &[u8]) -> Result<(), String> {
    use hickory_proto::rr::Record;
    use hickory_proto::serialize::binary::BinDecodable;

    // The root, the type, class IN, no TTL, the length.
    let mut record = vec![0];
    record.extend(rtype.0.to_be_bytes());
    record.extend([0, 1, 0, 0, 0, 0]);
    record.extend(u16::try_from(wire.len()).map_err(|e| e.to_string())?.to_be_bytes());
    record.extend(wire);
    Record::from_bytes(&record).map(drop).map_err(|_| format!("the octets are not {rtype} data"))
}

#[cfg(test)]
mod tests;
