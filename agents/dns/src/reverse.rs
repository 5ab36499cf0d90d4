//! Which reverse zone holds an address, and under which name.
//!
//! IPv4 zones cut at octets (`2.0.192.in-addr.arpa`) or inside the last one, as
//! [RFC 2317](https://www.rfc-editor.org/rfc/rfc2317) delegates them: `0-25.2.0.192.in-addr.arpa` is 192.0.2.0/25,
//! `64-26` is 64 to 127, and any other pair is a first and a last address (`10-20`). IPv6 zones cut at nibbles.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::name::Zone;

/// The reverse zone of several that holds the address most closely, and the owner name there.
pub(crate) fn place<'a>(ip: IpAddr, zones: impl IntoIterator<Item = &'a Zone>) -> Option<(&'a Zone, String)> {
    zones.into_iter().filter_map(|zone| owner(ip, zone).map(|owner| (zone, owner))).max_by_key(
        |(zone, owner)| {
            // The deeper zone; of two classless ones of equal depth the name decides, so that it is the same each time.
            (zone.as_str().split('.').count(), owner.clone(), zone.as_str())
        },
    )
}

/// The owner name of an address in a reverse zone; `None` where the zone does not hold it.
fn owner(ip: IpAddr, zone: &Zone) -> Option<String> {
    let full = full(ip);
    if let Some(owner) = full.strip_suffix(zone.as_str()).and_then(|rest| rest.strip_suffix('.')) {
        return Some(owner.to_owned());
    }
    // The address itself as a zone: its PTR stands at the top.
    if full == zone.as_str() {
        return Some("@".to_owned());
    }
    let IpAddr::V4(v4) = ip else { return None };
    let (range, rest) = zone.as_str().split_once('.')?;
    let (first, last) = classless(range)?;
    let octet = v4.octets()[3];
    ((first..=last).contains(&octet) && full.split_once('.')?.1 == rest).then(|| octet.to_string())
}

/// The first and last address of a label like `0-25` or `10-20`.
fn classless(label: &str) -> Option<(u8, u8)> {
    let (first, second) = label.split_once('-')?;
    let (first, second): (u8, u8) = (first.parse().ok()?, second.parse().ok()?);
    if (25..=31).contains(&second) {
        let size = 1u8 << (32 - second);
        if first % size == 0 {
            return Some((first, first + (size - 1)));
        }
    }
    (first <= second).then_some((first, second))
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

    fn found(ip: &str, zones: &[&str]) -> Option<String> {
        let zones: Vec<Zone> = zones.iter().map(|zone| Zone::parse(zone).unwrap()).collect();
        place(ip.parse().unwrap(), &zones).map(|(zone, owner)| format!("{owner} in {zone}"))
    }

    #[test]
    fn the_closest_zone_gets_the_address() {
        let zones = ["0.192.in-addr.arpa", "2.0.192.in-addr.arpa", "0-25.2.0.192.in-addr.arpa"];
        assert_eq!(found("192.0.2.7", &zones).unwrap(), "7 in 0-25.2.0.192.in-addr.arpa");
        assert_eq!(found("192.0.2.200", &zones).unwrap(), "200 in 2.0.192.in-addr.arpa");
        assert_eq!(found("192.0.3.1", &zones).unwrap(), "1.3 in 0.192.in-addr.arpa");
        assert_eq!(found("198.51.100.1", &zones), None);
        assert_eq!(found("1.2.0.192", &["2.0.192.in-addr.arpa"]), None);
    }

    #[test]
    fn classless_zones_are_a_prefix_or_a_range() {
        assert_eq!(
            found("192.0.2.15", &["10-20.2.0.192.in-addr.arpa"]).unwrap(),
            "15 in 10-20.2.0.192.in-addr.arpa"
        );
        assert_eq!(found("192.0.2.21", &["10-20.2.0.192.in-addr.arpa"]), None);
        assert_eq!(
            found("192.0.2.127", &["64-26.2.0.192.in-addr.arpa"]).unwrap(),
            "127 in 64-26.2.0.192.in-addr.arpa"
        );
        assert_eq!(
            found("192.0.2.128", &["128-25.2.0.192.in-addr.arpa"]).unwrap(),
            "128 in 128-25.2.0.192.in-addr.arpa"
        );
        assert_eq!(found("192.0.2.1", &["x.2.0.192.in-addr.arpa", "9-1.2.0.192.in-addr.arpa"]), None);
    }

    #[test]
    fn ipv6_is_cut_at_nibbles() {
        assert_eq!(
            found("2001:db8::1", &["8.b.d.0.1.0.0.2.ip6.arpa"]).unwrap(),
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 in 8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }
}
