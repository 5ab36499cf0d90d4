//! What the octets of a type must be whose data has no text here, or whose text does not say all.
//!
//! The generic form of RFC 3597 gives octets for any type, also for one that servers know. They parse it then, and refuse
//! the whole zone for octets that are not data of that type. So each type that BIND knows has its shape here or its
//! fields in the [table](super::types), and what does not fit is left out before any server sees it: the same on every
//! target. Where BIND is more generous than the type's own document, the document counts.
//!
//! A test compares this with `named-checkzone`, type by type.

use super::{Rtype, regexp};
use crate::name;

/// One part of a type's data.
enum Part {
    /// As many octets.
    Octets(usize),
    /// A name, not compressed.
    Name,
    /// A character string.
    Str,
    /// One or more character strings, to the end.
    Strs,
    /// One or more octets, to the end.
    Some,
    /// Anything, to the end.
    Any,
    /// What this function says of the rest.
    Rest(fn(&[u8]) -> bool),
}

use Part::{Any, Name, Octets, Rest, Some as More, Str, Strs};

/// By number; types that are not here may hold anything.
const SHAPES: &[(u16, &[Part])] = &[
    (7, &[Name]),                       // MB
    (8, &[Name]),                       // MG
    (9, &[Name]),                       // MR
    (11, &[Octets(5), Rest(services)]), // WKS
    (14, &[Name, Name]),                // MINFO
    (19, &[Rest(x25)]),
    (20, &[Rest(isdn)]),
    (21, &[Octets(2), Name]), // RT
    (22, &[More]),            // NSAP
    (23, &[Name]),            // NSAP-PTR
    (25, &[Rest(key)]),
    (26, &[Octets(2), Name, Name]),        // PX
    (27, &[Str, Str, Str]),                // GPOS
    (29, &[Rest(location)]),               // LOC
    (31, &[More]),                         // EID
    (32, &[More]),                         // NIMLOC
    (34, &[Rest(atm)]),                    // ATMA
    (40, &[Octets(3), Any]),               // SINK
    (42, &[Rest(prefixes)]),               // APL
    (45, &[Rest(ipsec)]),                  // IPSECKEY
    (48, &[Octets(3), Rest(public_key)]),  // DNSKEY
    (55, &[Rest(host_identity)]),          // HIP
    (56, &[Strs]),                         // NINFO
    (57, &[Rest(resource_key)]),           // RKEY
    (58, &[Name, Name]),                   // TALINK
    (60, &[Octets(3), Rest(public_key)]),  // CDNSKEY
    (62, &[Octets(6), Rest(bitmap)]),      // CSYNC
    (63, &[Octets(4), Rest(zone_digest)]), // ZONEMD
    (64, &[Rest(service)]),
    (65, &[Rest(service)]),
    (66, &[Octets(5), Name]), // DSYNC
    (67, &[Strs]),
    (68, &[Strs]),
    (104, &[Octets(10)]),             // NID
    (105, &[Octets(6)]),              // L32
    (106, &[Octets(10)]),             // L64
    (107, &[Octets(2), Name]),        // LP
    (108, &[Octets(6)]),              // EUI48
    (109, &[Octets(8)]),              // EUI64
    (258, &[Strs]),                   // AVC
    (259, &[Octets(9), Str, Any]),    // DOA
    (260, &[Octets(1), Rest(relay)]), // AMTRELAY
    (261, &[Strs]),
    (262, &[Strs]),
    (32768, &[Octets(4), More]), // TA
    (32769, &[Octets(4), More]), // DLV
];

/// Whether octets can be data of their type.
///
/// # Errors
/// They cannot.
pub(super) fn check(rtype: Rtype, wire: &[u8]) -> Result<(), String> {
    if rtype == Rtype::NAPTR {
        return naptr(wire);
    }
    let Ok(at) = SHAPES.binary_search_by_key(&rtype.0, |(number, _)| *number) else { return Ok(()) };
    match fits(SHAPES[at].1, wire) {
        Some(()) => Ok(()),
        None => Err(format!("the octets are not {rtype} data")),
    }
}

/// What the fields of NAPTR do not say. Octets that are not even its fields are told elsewhere.
fn naptr(wire: &[u8]) -> Result<(), String> {
    let at = wire.get(4..).and_then(after_string).and_then(after_string);
    let Some((text, after)) = at.and_then(|at| at.get(1..).zip(after_string(at))) else { return Ok(()) };
    regexp::check(&text[..text.len() - after.len()])
}

fn fits(parts: &[Part], wire: &[u8]) -> Option<()> {
    let mut rest = wire;
    for part in parts {
        rest = match part {
            Octets(count) => rest.split_at_checked(*count)?.1,
            Name => after_name(rest)?,
            Str => after_string(rest)?,
            Strs => {
                let mut tail = after_string(rest)?;
                while !tail.is_empty() {
                    tail = after_string(tail)?;
                }
                tail
            }
            More if rest.is_empty() => return None,
            More | Any => &[],
            Rest(holds) if holds(rest) => &[],
            Rest(_) => return None,
        };
    }
    rest.is_empty().then_some(())
}

fn after_name(wire: &[u8]) -> Option<&[u8]> {
    let (_, used) = name::from_wire(wire)?;
    Some(&wire[used..])
}

fn after_string(wire: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = wire.split_first()?;
    Some(rest.split_at_checked(usize::from(len))?.1)
}

/// WKS: a bit for each port, without zeros at the end.
fn services(ports: &[u8]) -> bool {
    ports.len() <= 8192 && ports.last() != Some(&0)
}

fn x25(wire: &[u8]) -> bool {
    wire.split_first().is_some_and(|(&len, digits)| {
        usize::from(len) == digits.len() && digits.len() >= 4 && digits.iter().all(u8::is_ascii_digit)
    })
}

fn isdn(wire: &[u8]) -> bool {
    after_string(wire).is_some_and(|rest| rest.is_empty() || after_string(rest).is_some_and(<[u8]>::is_empty))
}

/// LOC, RFC 1876: version 0, three sizes of a digit and a power of ten, latitude, longitude, altitude.
fn location(wire: &[u8]) -> bool {
    let [0, size, across, down, place @ ..] = wire else { return false };
    let (Some((north, place)), true) = (place.split_first_chunk::<4>(), place.len() == 12) else {
        return false;
    };
    let Some((east, _)) = place.split_first_chunk::<4>() else { return false };
    let fits = |degrees: u32, at: &[u8; 4]| u32::from_be_bytes(*at).abs_diff(1 << 31) <= degrees * 3_600_000;
    let length = |octet: &u8| *octet == 0 || (1..=9).contains(&(octet >> 4)) && octet & 15 <= 9;
    [size, across, down].into_iter().all(length) && fits(90, north) && fits(180, east)
}

fn atm(wire: &[u8]) -> bool {
    match wire {
        [0, address @ ..] => !address.is_empty(),
        [1, digits @ ..] => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// APL, RFC 3123.
fn prefixes(mut wire: &[u8]) -> bool {
    while let [family_high, family_low, prefix, len, rest @ ..] = wire {
        let len = usize::from(len & 127);
        let Some((address, tail)) = rest.split_at_checked(len) else { return false };
        let (bits, octets) = match (family_high, family_low) {
            (0, 1) => (32, 4),
            (0, 2) => (128, 16),
            _ => return false,
        };
        if *prefix > bits || len > octets || address.last() == Some(&0) {
            return false;
        }
        wire = tail;
    }
    wire.is_empty()
}

/// What follows a gateway of this kind: none, IPv4, IPv6, a name.
fn after_gateway(kind: u8, wire: &[u8]) -> Option<&[u8]> {
    match kind {
        0 => Some(wire),
        1 => wire.split_at_checked(4).map(|(_, rest)| rest),
        2 => wire.split_at_checked(16).map(|(_, rest)| rest),
        3 => after_name(wire),
        _ => None,
    }
}

/// IPSECKEY, RFC 4025. Without a key it would be good too, but BIND does not load it.
fn ipsec(wire: &[u8]) -> bool {
    let [_, gateway, _, rest @ ..] = wire else { return false };
    after_gateway(*gateway, rest).is_some_and(|key| !key.is_empty())
}

fn relay(wire: &[u8]) -> bool {
    wire.split_first()
        .is_some_and(|(kind, rest)| after_gateway(kind & 127, rest).is_some_and(<[u8]>::is_empty))
}

/// HIP, RFC 8005: a tag, a key, then rendezvous servers.
fn host_identity(wire: &[u8]) -> bool {
    let [tag, _, high, low, rest @ ..] = wire else { return false };
    let (tag, key) = (usize::from(*tag), usize::from(u16::from_be_bytes([*high, *low])));
    let Some((_, mut servers)) = rest.split_at_checked(tag + key).filter(|_| tag > 0 && key > 0) else {
        return false;
    };
    while !servers.is_empty() {
        match after_name(servers) {
            Some(rest) => servers = rest,
            None => return false,
        }
    }
    true
}

/// An algorithm's number and a key of it. Private algorithms are named at its beginning, RFC 4034, appendix A.1.1.
fn public_key(wire: &[u8]) -> bool {
    match wire {
        [253, key @ ..] => after_name(key).is_some_and(|key| !key.is_empty()),
        [254, len, key @ ..] => {
            key.split_at_checked(usize::from(*len)).is_some_and(|(id, key)| object_id(id) && !key.is_empty())
        }
        [254] => false,
        [_, key @ ..] => !key.is_empty(),
        [] => false,
    }
}

/// An object identifier in DER: numbers in groups of seven bits, none of which begins with zeros.
fn object_id(id: &[u8]) -> bool {
    let [6, len, groups @ ..] = id else { return false };
    let mut begins = true;
    for group in groups {
        if begins && *group == 0x80 {
            return false;
        }
        begins = group & 0x80 == 0;
    }
    usize::from(*len) == groups.len() && *len < 128 && !groups.is_empty() && begins
}

/// KEY, RFC 2535: flags may say that there is none, and then text has no place for one.
fn key(wire: &[u8]) -> bool {
    matches!(wire, [flags, _, _, rest @ ..] if flags & 0xc0 != 0xc0 && public_key(rest))
}

/// SVCB and HTTPS, RFC 9460: a priority, a name, and parameters, none for an alias.
fn service(wire: &[u8]) -> bool {
    let [high, low, rest @ ..] = wire else { return false };
    let Some(mut rest) = after_name(rest) else { return false };
    if (*high, *low) == (0, 0) {
        return rest.is_empty();
    }
    let mut found: Vec<(u16, &[u8])> = Vec::new();
    while let [key_high, key_low, len_high, len_low, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*len_high, *len_low]));
        let Some((value, tail)) = tail.split_at_checked(len) else { return false };
        let key = u16::from_be_bytes([*key_high, *key_low]);
        if found.last().is_some_and(|(last, _)| *last >= key) || !parameter(key, value) {
            return false;
        }
        found.push((key, value));
        rest = tail;
    }
    let has = |wanted: u16| found.iter().any(|(key, _)| *key == wanted);
    let mandatory = found.iter().filter(|(key, _)| *key == 0).flat_map(|(_, keys)| keys.as_chunks::<2>().0);
    rest.is_empty() && mandatory.copied().map(u16::from_be_bytes).all(has) && (!has(2) || has(1))
}

/// What a parameter holds: the keys that must be understood, protocols, nothing, a port, addresses.
fn parameter(key: u16, value: &[u8]) -> bool {
    let several = |size: usize| !value.is_empty() && value.len().is_multiple_of(size);
    match key {
        0 => {
            let keys = value.as_chunks::<2>().0;
            several(2) && keys.is_sorted_by(|a, b| a < b) && keys[0] != [0, 0]
        }
        1 => {
            let mut rest = value;
            while let Some((&len, tail)) = rest.split_first() {
                match tail.split_at_checked(usize::from(len)).filter(|_| len > 0) {
                    Some((_, tail)) => rest = tail,
                    None => return false,
                }
            }
            !value.is_empty()
        }
        2 => value.is_empty(),
        3 => value.len() == 2,
        4 => several(4),
        6 => several(16),
        _ => true,
    }
}

fn resource_key(wire: &[u8]) -> bool {
    matches!(wire, [0, 0, _, rest @ ..] if public_key(rest))
}

/// A set of types, RFC 4034, section 4.1.2.
fn bitmap(mut wire: &[u8]) -> bool {
    let mut least = 0;
    while let [window, len, rest @ ..] = wire {
        let Some((bits, tail)) = rest.split_at_checked(usize::from(*len)) else { return false };
        if u16::from(*window) < least || !(1..=32).contains(len) || bits.last() == Some(&0) {
            return false;
        }
        least = u16::from(*window) + 1;
        wire = tail;
    }
    wire.is_empty()
}

/// ZONEMD, RFC 8976, after the serial: scheme, algorithm, and a digest of its length.
fn zone_digest(wire: &[u8]) -> bool {
    match wire {
        [_, 1, digest @ ..] => digest.len() == 48,
        [_, 2, digest @ ..] => digest.len() == 64,
        [_, _, digest @ ..] => digest.len() >= 12,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(SHAPES.is_sorted_by_key(|shape| shape.0));
    }
}
