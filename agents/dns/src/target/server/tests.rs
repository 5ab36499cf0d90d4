//! The look-up against a plain model, and questions that nobody should ask.

use std::collections::{BTreeMap, BTreeSet};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use proptest::prelude::*;

use super::answer::answer;
use super::*;
use crate::rdata::Rtype;
use crate::record::{Node, RecordSet};

fn zone() -> Zone {
    Zone::parse("example.com").unwrap()
}

fn node(sets: &[(Rtype, &str)]) -> Arc<Stored> {
    let sets = sets.iter().map(|(rtype, data)| RecordSet::plain(*rtype, 60, vec![(*data).to_owned()]));
    let node = Node { sets: Arc::new(sets.collect()) };
    Arc::new(Stored::new(&Key::new(&zone(), "x"), Arc::new(node)).unwrap())
}

/// A zone with an address at each of these names.
pub(super) fn data(owners: &BTreeSet<String>) -> ZoneData {
    let mut data = ZoneData::new(zone(), 0);
    let soa = "ns.example.com. h.example.com. 0 1 1 1 30";
    let apex = Node { sets: vec![RecordSet::plain(Rtype::SOA, 60, vec![soa.to_owned()])].into() };
    let apex = Stored::new(&Key::apex(&zone()), Arc::new(apex)).unwrap();
    data.put("@", Some(Arc::new(apex)));
    for owner in owners {
        data.put(owner, Some(node(&[(Rtype::A, "192.0.2.1")])));
    }
    data.seal(1).unwrap();
    data
}

/// It alone.
fn zones(owners: &BTreeSet<String>) -> Zones {
    let zones = Zones::default();
    zones.add(data(owners));
    zones
}

fn ask(zones: &Zones, name: &str) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    Message::from_vec(&answer(zones, &query.to_vec().unwrap(), true).unwrap()).unwrap()
}

/// What RFC 4592 says, from the whole list of names: the closest encloser is found by trying.
fn model(owners: &BTreeSet<String>, asked: &str) -> (ResponseCode, usize) {
    let exists =
        |name: &str| name.is_empty() || owners.iter().any(|o| o == name || o.ends_with(&format!(".{name}")));
    if owners.contains(asked) {
        return (ResponseCode::NoError, 1);
    }
    if exists(asked) {
        return (ResponseCode::NoError, 0);
    }
    let mut encloser = asked;
    while !exists(encloser) {
        encloser = encloser.split_once('.').map_or("", |(_, rest)| rest);
    }
    let wildcard = if encloser.is_empty() { "*".to_owned() } else { format!("*.{encloser}") };
    match (owners.contains(&wildcard), exists(&wildcard)) {
        (true, _) => (ResponseCode::NoError, 1),
        (false, true) => (ResponseCode::NoError, 0),
        (false, false) => (ResponseCode::NXDomain, 0),
    }
}

fn owner() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 1..4).prop_map(|labels| labels.join("."))
}

proptest! {
    #[test]
    fn every_name_is_found_as_the_rfc_says(owners in prop::collection::btree_set(owner(), 0..8), gone in prop::collection::btree_set(owner(), 0..4), asked in owner()) {
        // Some come and go again: what is left must not remember them.
        let all = owners.union(&gone).cloned().collect();
        let zones = zones(&all);
        {
            let data = zones.get(&zone()).unwrap();
            let mut data = data.write().unwrap();
            for owner in gone.difference(&owners) {
                data.put(owner, None);
            }
        }
        let found = ask(&zones, &format!("{asked}.example.com."));
        prop_assert_eq!((found.metadata.response_code, found.answers.len()), model(&owners, &asked), "{:?} {}", owners, asked);
        prop_assert!(found.metadata.authoritative && (found.answers.len() == 1 || found.authorities.len() == 1));
    }

    #[test]
    fn no_octets_panic(octets in prop::collection::vec(any::<u8>(), 0..80), udp in any::<bool>()) {
        let zones = zones(&BTreeSet::from(["a".to_owned()]));
        if let Some(reply) = answer(&zones, &octets, udp) {
            prop_assert!(octets.len() >= 12 && reply.len() >= 12 && reply[2] & 0x80 != 0);
            prop_assert_eq!(&reply[..2], &octets[..2]);
        }
    }

    #[test]
    fn no_question_panics(mut name in "[ -~]{0,30}", rtype in any::<u16>(), class in any::<u16>(), edns in any::<bool>()) {
        name.retain(|c| c != '\\' && c != '.');
        let label: Vec<u8> = name.bytes().take(63).collect();
        let mut octets = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
        octets.push(label.len() as u8);
        octets.extend(&label);
        if !label.is_empty() {
            octets.extend(b"\x07example\x03com\0");
        }
        octets.extend(rtype.to_be_bytes());
        octets.extend(class.to_be_bytes());
        if edns {
            octets.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        }
        let zones = zones(&BTreeSet::from(["a".to_owned(), "*".to_owned()]));
        let reply = answer(&zones, &octets, true).unwrap();
        prop_assert!(reply.len() <= 1232);
        prop_assert!(Message::from_vec(&reply).is_ok());
    }
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    let names: BTreeSet<String> = ["a.b.c", "b.c", "x"].map(str::to_owned).into();
    let zones = zones(&names);
    let data = zones.get(&zone()).unwrap();
    let mut data = data.write().unwrap();
    for owner in &names {
        data.put(owner, None);
    }
    assert_eq!(data.nodes().count(), 1);
    assert!(matches!(data.find("c", Rtype::A), zone::Found::Missing));
    let left: BTreeMap<_, _> = data.nodes().collect();
    assert!(left.keys().all(Key::is_apex));
}
