//! A fleet of any size, shaped like a real one.
//!
//! The proportions are those of a public inventory of 361 machines: nine sites of very uneven size, seven
//! machines in ten on a box, one box for seven of them, three addresses for four machines and an IPv6 address for one
//! in twelve, groups of four on average, two and a half groups a machine, nested, and documents of about 460
//! octets. Names and addresses are made up. Equal sizes give equal fleets.

use serde_json::{Value, json};
use shoal_core::{
    BadName, Change, Document, HostId, HostName, HostRecord, Key, Lifecycle, Member, TagName, TagRecord,
};

/// The zone that all machines have their names in.
pub const ZONE: &str = "fleet.example";

/// Sites and their share of the fleet, in thousandths.
const SITES: [(&str, u32); 9] = [
    ("east", 787),
    ("cloud", 97),
    ("lab", 61),
    ("ibis", 28),
    ("nord", 8),
    ("sud", 8),
    ("alpha", 5),
    ("beta", 3),
    ("gamma", 3),
];

/// What of a fleet there is to write, in an order in which every row stands on those before it.
///
/// # Errors
/// Never for sizes below 16 million; the names are made to be good.
pub fn fleet(size: u32) -> Result<Vec<Change>, BadName> {
    let mut out = Vec::with_capacity(size as usize * 4);
    for n in 0..size {
        out.push(Change::put(Key::host(&host(n)?), record(n)));
    }
    let mut tags = std::collections::BTreeSet::new();
    for n in 0..size {
        let name = host(n)?;
        for tag in groups(n) {
            let tag: TagName = format!("tags/{tag}").parse()?;
            out.push(Change::put(Key::member(&tag, &Member::host(&name)), Document::empty()));
            tags.insert(tag);
        }
    }
    let all: TagName = "tags/all".parse()?;
    for (site, _) in SITES {
        let tag: TagName = format!("tags/site-{site}").parse()?;
        out.push(Change::put(Key::member(&all, &Member::nested(&tag, "tags")), Document::empty()));
        tags.insert(tag);
    }
    tags.insert(all);
    out.extend(tags.iter().map(|tag| Change::put(Key::tag(tag), tag_record(&json!({})))));
    Ok(out)
}

/// A fleet, its zone and the reverse zone of all its addresses, for the DNS agent.
///
/// # Errors
/// As for [`fleet`].
pub fn zoned(size: u32) -> Result<Vec<Change>, BadName> {
    let mut rows = fleet(size)?;
    let zone: TagName = format!("dns/{ZONE}").parse()?;
    let soa = json!({"primary": "ns1.fleet.example."});
    let document = json!({"soa": soa, "reverse": ["10.in-addr.arpa"],
        "static": [{"name": "ns1", "type": "A", "data": "192.0.2.53"}]});
    rows.push(Change::put(Key::tag(&zone), tag_record(&document)));
    let member: Member = "@tags/all".parse()?;
    rows.push(Change::put(Key::member(&zone, &member), Document::empty()));
    let reverse: TagName = "dns/10.in-addr.arpa".parse()?;
    rows.push(Change::put(Key::tag(&reverse), tag_record(&json!({"soa": soa}))));
    Ok(rows)
}

/// The row of a tag with this document.
#[must_use]
pub fn tag_record(document: &Value) -> Document {
    let record =
        TagRecord { owner: None, environment: None, expires: None, document: document.clone().into() };
    Document::of(&record).unwrap_or_else(|_| Document::empty())
}

/// The name of machine `n`.
///
/// # Errors
/// Never; the name is made to be good.
pub fn host(n: u32) -> Result<HostName, BadName> {
    format!("m{n:06}.{}.{ZONE}", site(n)).parse()
}

/// The address of machine `n`, where it has one.
#[must_use]
pub fn address(n: u32) -> Option<String> {
    (n % 4 != 3).then(|| format!("10.{}.{}.{}", (n >> 16) & 255, (n >> 8) & 255, n & 255))
}

/// The row of machine `n`.
#[must_use]
pub fn record(n: u32) -> Document {
    let record = HostRecord {
        id: HostId(format!("00000000-0000-7000-8000-{n:012}")),
        state: Lifecycle::Active,
        owner: None,
        environment: Some(if n.is_multiple_of(5) { "staging" } else { "production" }.to_owned()),
        expires: None,
        document: document(n).into(),
    };
    Document::of(&record).unwrap_or_else(|_| Document::empty())
}

/// What people wrote of machine `n`.
#[must_use]
pub fn document(n: u32) -> Value {
    let mut doc = json!({
        "site": site(n),
        "memory": pick(&[2048, 4096, 8192, 16384, 32768], n),
        "cpus": pick(&[2, 4, 8], n),
        "disk": pick(&[20_000, 30_000, 51_200, 102_400], n),
        "bridge": "br0",
        "freezes": !n.is_multiple_of(3),
        "backup": {"databases": []},
        "checks": {"mail": n.is_multiple_of(2), "nrpe": true, "ping": true, "sshd": true, "swap": false, "raid": false},
        "reachable": true,
        "processes": {"warn": 250, "critical": 300},
        "ports": {"tcp": [22, 80, 443], "udp": []},
        "group": format!("group-{}", n / 4),
        "vpn": false,
        "deployment": "production",
        "comment": "asset 000000, warranty until 2029",
    });
    if let (Some(map), true) = (doc.as_object_mut(), n % 10 < 7) {
        map.insert("box".to_owned(), json!(format!("box{:05}.{}.{ZONE}", n / 7, site(n))));
        map.insert("volume_group".to_owned(), json!("/dev/vg_guests"));
    }
    if let (Some(map), Some(address)) = (doc.as_object_mut(), address(n)) {
        map.insert("address".to_owned(), json!(address));
        if n.is_multiple_of(12) {
            map.insert("address6".to_owned(), json!(format!("2001:db8::{:x}:{:x}", n >> 16, n & 0xffff)));
        }
    }
    doc
}

fn pick(from: &[u32], n: u32) -> u32 {
    from[n as usize % from.len()]
}

fn site(n: u32) -> &'static str {
    // A multiplicative hash spreads the sites evenly over the numbers.
    let at = n.wrapping_mul(2_654_435_761) % 1000;
    let mut sum = 0;
    for (name, share) in SITES {
        sum += share;
        if at < sum {
            return name;
        }
    }
    SITES[0].0
}

fn groups(n: u32) -> Vec<String> {
    let mut out = vec![format!("site-{}", site(n)), format!("group-{}", n / 4)];
    if n.is_multiple_of(2) {
        out.push(format!("role-{}", n % 41));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_that_of_the_real_fleet() {
        let rows = fleet(3610).unwrap();
        let hosts: Vec<_> = rows.iter().filter(|c| c.key.namespace() == "hosts").collect();
        assert_eq!(hosts.len(), 3610);
        let size: usize = (0..3610).map(|n| document(n).to_string().len()).sum();
        assert!((400..520).contains(&(size / 3610)), "{} octets a document", size / 3610);
        assert_eq!(rows, fleet(3610).unwrap());
        let keys: std::collections::BTreeSet<_> = rows.iter().map(|c| &c.key).collect();
        assert_eq!(keys.len(), rows.len(), "one change a key");
    }
}
