//! Which reverse zone holds an address, and under which name.
//!
//! IPv4 zones are cut at octets (`2.0.192.in-addr.arpa`) or inside the last one, as
//! [RFC 2317](https://www.rfc-editor.org/rfc/rfc2317) delegates them; IPv6 zones at nibbles. The name of a classless zone is a
//! matter of taste: `64-26.2.0.192.in-addr.arpa` can only be a prefix and `10-20` only a range, but `16-30` may be
//! 192.0.2.16/30 or 16 to 30, and `customer-a` anything. So an address goes into such a zone when every reading of
//! its name holds it, and is reported where they differ, until a tag says what the zone `holds`. A PTR record in
//! the wrong zone is found by nobody, and nothing tells.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};

use crate::name::Zone;

/// Which addresses of its /24 a classless zone holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u8,
    last: u8,
}

impl Span {
    fn holds(self, octet: u8) -> bool {
        (self.first..=self.last).contains(&octet)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

/// A zone that maps addresses to names, and which addresses those are.
#[derive(Clone, Debug)]
pub(crate) struct Reverse {
    zone: Zone,
    /// What its first label may mean, or what a tag says that it holds. None: the zone is cut at octets or nibbles, and its
    /// name says it all.
    spans: Option<(Span, Span)>,
}

/// Where the PTR record of an address belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In none of the zones.
    Nowhere,
    /// In this zone, under this name.
    At(&'a Zone, String),
    /// Perhaps in this zone: its name can be read as these addresses, or as those.
    Unclear(&'a Zone, String),
}

impl Reverse {
    /// Reads the name of a reverse zone; `holds` is what a tag says of the addresses in it.
    ///
    /// # Errors
    /// A name that is no reverse zone's or holds no address, or addresses that cannot lie in it.
    pub(crate) fn parse(zone: Zone, holds: Option<&str>) -> Result<Self, String> {
        if !zone.is_reverse() {
            return Err(format!("{zone} lies under neither in-addr.arpa nor ip6.arpa"));
        }
        let spans = match (holds, plain(&zone)) {
            (None, true) => None,
            (Some(_), true) => {
                return Err(format!("the name of {zone} says which addresses it holds; drop holds for it"));
            }
            (Some(text), false) => {
                let span = said(&zone, text)?;
                Some((span, span))
            }
            (None, false) => Some(readings(&zone)?),
        };
        Ok(Self { zone, spans })
    }

    /// The owner name of an address here, and whether it surely lies here.
    fn owner(&self, ip: IpAddr) -> Option<(String, bool)> {
        let full = full(ip);
        let zone = self.zone.as_str();
        let Some((one, other)) = self.spans else {
            if let Some(owner) = full.strip_suffix(zone).and_then(|rest| rest.strip_suffix('.')) {
                return Some((owner.to_owned(), true));
            }
            // The address itself as a zone: its PTR stands at the top.
            return (full == zone).then(|| ("@".to_owned(), true));
        };
        let IpAddr::V4(v4) = ip else { return None };
        let octet = v4.octets()[3];
        if full.split_once('.')?.1 != zone.split_once('.')?.1 {
            return None;
        }
        let (in_one, in_other) = (one.holds(octet), other.holds(octet));
        (in_one || in_other).then(|| (octet.to_string(), in_one && in_other))
    }

    /// What to do about a name that can be read in two ways.
    fn unclear(&self) -> String {
        let zone = &self.zone;
        let Some((prefix, range)) = self.spans else { return String::new() };
        let (label, net) = zone.as_str().split_once('.').unwrap_or_default();
        let (_, length) = label.split_once('-').unwrap_or_default();
        let net = network(net).unwrap_or_default();
        format!(
            "{zone} may be a /{length} ({prefix}) or the addresses {range}; say which: holds: {{{zone}: {net}.{}/{length}}} or \
             holds: {{{zone}: {net}.{}-{net}.{}}}",
            prefix.first, range.first, range.last
        )
    }
}

/// The reverse zone of several that holds the address most closely, and the owner name there. Where the closest one holds it in
/// one reading of its name and not in the other, it goes nowhere: the zone above most likely leads to the closer one
/// with a CNAME, so that a PTR record there would be wrong too.
pub(crate) fn place(ip: IpAddr, zones: &[Reverse]) -> Place<'_> {
    let holding = zones.iter().filter_map(|reverse| reverse.owner(ip).map(|found| (reverse, found)));
    let closest = holding.max_by_key(|(reverse, (owner, sure))| {
        // The deeper zone; of two classless ones of equal depth the one that surely holds it, then the name decides, so
        // that it is the same each time.
        (reverse.zone.as_str().split('.').count(), *sure, owner.clone(), reverse.zone.as_str())
    });
    match closest {
        None => Place::Nowhere,
        Some((reverse, (owner, true))) => Place::At(&reverse.zone, owner),
        Some((reverse, (_, false))) => Place::Unclear(&reverse.zone, reverse.unclear()),
    }
}

/// Whether the name alone says what the zone holds: whole octets, or nibbles.
fn plain(zone: &Zone) -> bool {
    let Some(octets) = zone.as_str().strip_suffix(".in-addr.arpa") else {
        return zone.as_str().strip_suffix(".ip6.arpa").is_some_and(|nibbles| {
            nibbles.split('.').all(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_hexdigit()))
        });
    };
    octets.split('.').count() <= 4 && octets.split('.').all(|octet| octet_of(octet).is_some())
}

/// An octet as reverse names write it: no leading zeros.
fn octet_of(text: &str) -> Option<u8> {
    text.parse().ok().filter(|octet: &u8| octet.to_string() == text)
}

/// `192.0.2` of `2.0.192.in-addr.arpa`.
fn network(zone: &str) -> Option<String> {
    let octets = zone.strip_suffix(".in-addr.arpa")?;
    let mut octets = octets.split('.').map(octet_of).collect::<Option<Vec<u8>>>()?;
    octets.reverse();
    let [a, b, c] = octets.as_slice() else { return None };
    Some(format!("{a}.{b}.{c}"))
}

/// Both readings of the first label of a classless zone; mostly they are the same.
///
/// [RFC 2317](https://www.rfc-editor.org/rfc/rfc2317) leaves the label to whoever delegates the zone. In use are the first
/// address with the length of the prefix (its own examples, with a dash for the slash) and the first with the last address.
fn readings(zone: &Zone) -> Result<(Span, Span), String> {
    let unknown = || {
        format!(
            "the name of {zone} does not say which addresses it holds; say it: holds: {{{zone}: 192.0.2.0/28}}, or as \
             192.0.2.1-192.0.2.14"
        )
    };
    let (label, net) = zone.as_str().split_once('.').ok_or_else(unknown)?;
    let (first, second) = label.split_once('-').ok_or_else(unknown)?;
    let (Some(first), Some(second)) = (octet_of(first), octet_of(second)) else { return Err(unknown()) };
    network(net).ok_or_else(unknown)?;
    let range = (first <= second).then_some(Span { first, last: second });
    let prefix = (25..=31).contains(&second).then(|| prefix(first, second)).flatten();
    match (prefix, range) {
        (Some(prefix), Some(range)) => Ok((prefix, range)),
        (Some(only), None) | (None, Some(only)) => Ok((only, only)),
        (None, None) => Err(unknown()),
    }
}

/// The addresses of a prefix inside a /24.
fn prefix(first: u8, length: u8) -> Option<Span> {
    let size = (25..=32).contains(&length).then(|| 1u8 << (32 - length))?;
    first.is_multiple_of(size).then(|| Span { first, last: first + (size - 1) })
}

/// What a tag says that a classless zone holds: `192.0.2.16/28`, or `192.0.2.16-192.0.2.30`.
fn said(zone: &Zone, text: &str) -> Result<Span, String> {
    let bad = || format!("holds: {text:?} is neither like 192.0.2.16/28 nor like 192.0.2.16-192.0.2.30");
    let (_, net) = zone.as_str().split_once('.').unwrap_or_default();
    let octet = |text: &str| {
        let ip: Ipv4Addr = text.trim().parse().map_err(|_| bad())?;
        let above = full(ip.into());
        let inside = above.split_once('.').is_some_and(|(_, above)| above == net);
        inside
            .then(|| ip.octets()[3])
            .ok_or_else(|| format!("holds: {ip} does not lie in {net}, as {zone} does"))
    };
    let span = if let Some((first, length)) = text.split_once('/') {
        octet(first).and_then(|first| {
            length.trim().parse().ok().and_then(|length| prefix(first, length)).ok_or_else(bad)
        })?
    } else {
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        Span { first: octet(first)?, last: octet(last)? }
    };
    if span.first > span.last { Err(bad()) } else { Ok(span) }
}

/// The whole reverse name of an address.
fn full(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let mut name = String::with_capacity(72);
            for octet in ip.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", octet & 15, octet >> 4);
            }
            name.push_str("ip6.arpa");
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(zones: &[(&str, Option<&str>)]) -> Result<Vec<Reverse>, String> {
        zones.iter().map(|(zone, holds)| Reverse::parse(Zone::parse(zone).unwrap(), *holds)).collect()
    }

    fn at(ip: &str, named: &[(&str, Option<&str>)]) -> Option<String> {
        match place(ip.parse().unwrap(), &zones(named).unwrap()) {
            Place::Nowhere => None,
            Place::At(zone, owner) => Some(format!("{owner} in {zone}")),
            Place::Unclear(_, why) => Some(why),
        }
    }

    fn found(ip: &str, named: &[&str]) -> Option<String> {
        at(ip, &named.iter().map(|&zone| (zone, None)).collect::<Vec<_>>())
    }

    #[test]
    fn the_closest_zone_gets_the_address() {
        let zones = ["0.192.in-addr.arpa", "2.0.192.in-addr.arpa", "64-26.2.0.192.in-addr.arpa"];
        assert_eq!(found("192.0.2.70", &zones).unwrap(), "70 in 64-26.2.0.192.in-addr.arpa");
        assert_eq!(found("192.0.2.200", &zones).unwrap(), "200 in 2.0.192.in-addr.arpa");
        assert_eq!(found("192.0.3.1", &zones).unwrap(), "1.3 in 0.192.in-addr.arpa");
        assert_eq!(found("198.51.100.1", &zones), None);
        assert_eq!(found("1.2.0.192", &["2.0.192.in-addr.arpa"]), None);
        assert_eq!(found("192.0.2.1", &["1.2.0.192.in-addr.arpa"]).unwrap(), "@ in 1.2.0.192.in-addr.arpa");
    }

    #[test]
    fn classless_zones_are_a_prefix_or_a_range() {
        for (label, holds) in
            [("10-20", 10..=20), ("64-26", 64..=127), ("128-25", 128..=255), ("0-127", 0..=127)]
        {
            let zone = format!("{label}.2.0.192.in-addr.arpa");
            for octet in 0..=255u8 {
                let expected = holds.contains(&octet).then(|| format!("{octet} in {zone}"));
                assert_eq!(found(&format!("192.0.2.{octet}"), &[&zone]), expected, "{label}");
            }
        }
    }

    #[test]
    fn what_only_one_reading_of_the_name_holds_goes_nowhere() {
        // A /30 or the usable addresses of a /28; a /31 or all of a /27.
        for (label, both, one) in
            [("16-30", 16..=19, 20..=30), ("0-31", 0..=1, 2..=31), ("0-25", 0..=25, 26..=127)]
        {
            let zone = format!("{label}.2.0.192.in-addr.arpa");
            for octet in 0..=255u8 {
                let place = found(&format!("192.0.2.{octet}"), &["2.0.192.in-addr.arpa", &zone]).unwrap();
                if both.contains(&octet) {
                    assert_eq!(place, format!("{octet} in {zone}"));
                } else if one.contains(&octet) {
                    assert!(place.contains("say which: holds:"), "{place}");
                } else {
                    assert_eq!(place, format!("{octet} in 2.0.192.in-addr.arpa"));
                }
            }
        }
        assert_eq!(
            found("192.0.2.25", &["16-30.2.0.192.in-addr.arpa"]).unwrap(),
            "16-30.2.0.192.in-addr.arpa may be a /30 (16 to 19) or the addresses 16 to 30; say which: holds: \
             {16-30.2.0.192.in-addr.arpa: 192.0.2.16/30} or holds: {16-30.2.0.192.in-addr.arpa: 192.0.2.16-192.0.2.30}"
        );
    }

    #[test]
    fn a_tag_says_what_a_zone_holds() {
        let of = |octet: u8, holds| {
            at(&format!("192.0.2.{octet}"), &[("16-30.2.0.192.in-addr.arpa", Some(holds))])
        };
        assert!(of(20, "192.0.2.16/30").is_none() && of(19, "192.0.2.16/30").is_some());
        assert!(of(20, "192.0.2.16-192.0.2.30").is_some() && of(31, "192.0.2.16 - 192.0.2.30").is_none());
        let named = [("customer-a.2.0.192.in-addr.arpa", Some("192.0.2.8/29"))];
        assert_eq!(at("192.0.2.9", &named).unwrap(), "9 in customer-a.2.0.192.in-addr.arpa");
        assert_eq!(at("192.0.3.9", &named), None);
    }

    #[test]
    fn what_cannot_hold_addresses_says_so() {
        for (zone, holds, why) in [
            ("x.2.0.192.in-addr.arpa", None, "does not say which addresses"),
            ("9-1.2.0.192.in-addr.arpa", None, "does not say which addresses"),
            ("0-300.2.0.192.in-addr.arpa", None, "does not say which addresses"),
            ("016-30.2.0.192.in-addr.arpa", None, "does not say which addresses"),
            ("1-2.0.192.in-addr.arpa", None, "does not say which addresses"),
            ("2.0.192.in-addr.arpa", Some("192.0.2.0/24"), "drop holds"),
            ("x.2.0.192.in-addr.arpa", Some("192.0.3.0/28"), "does not lie in 2.0.192.in-addr.arpa"),
            ("x.2.0.192.in-addr.arpa", Some("192.0.2.1/28"), "is neither like"),
            ("x.2.0.192.in-addr.arpa", Some("192.0.2.9-192.0.2.1"), "is neither like"),
            ("x.2.0.192.in-addr.arpa", Some("all"), "is neither like"),
            ("example.com", None, "lies under neither"),
        ] {
            let found = zones(&[(zone, holds)]).unwrap_err();
            assert!(found.contains(why), "{zone}: {found}");
        }
    }

    #[test]
    fn ipv6_is_cut_at_nibbles() {
        assert_eq!(
            found("2001:db8::1", &["8.b.d.0.1.0.0.2.ip6.arpa"]).unwrap(),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 in 8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
