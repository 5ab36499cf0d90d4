//! Which of the rooms that would do is chosen: by what they cost, how full they get, what stays free, and where others of the group are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod instances;

use std::collections::BTreeMap;

use instances::named;
use shoal_placement::choose::{
    Fault, Fit, Fleet, Layout, Level, Percent, Policy, Reason, Request, Room, State,
};

/// A box with so many processors.
fn room(name: &str, site: &str, rack: &str, cpu: u64) -> Room {
    Room {
        name: name.to_owned(),
        capacity: named(&[("cpu", cpu)]),
        labels: [("site", site), ("rack", rack)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Room::default()
    }
}

fn machine(name: &str, cpu: u64) -> Request {
    Request { name: name.to_owned(), needs: named(&[("cpu", cpu)]), ..Request::default() }
}

/// Machines of one processor, of one group.
fn group(count: usize, layout: Option<Layout>) -> Vec<Request> {
    let one = |n: usize| Request {
        group: Some("vm/g".to_owned()),
        layout: layout.clone(),
        ..machine(&format!("g-{n}"), 1)
    };
    (0..count).map(one).collect()
}

/// How many of a group are where, for each of the domains that there are.
fn counts(fleet: &Fleet, of: impl Fn(&Room) -> String) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for room in fleet.rooms() {
        let own = fleet.machines_in(&room.name).into_iter().filter(|machine| machine.group.is_some());
        *counts.entry(of(room)).or_default() += own.count();
    }
    counts
}

fn domain(room: &Room, level: Level) -> String {
    match level {
        Level::Box => room.name.clone(),
        Level::Rack => format!("{} {}", room.labels["site"], room.labels["rack"]),
        Level::Site => room.labels["site"].clone(),
    }
}

/// Two sites of two racks of two boxes. By how full they are, one site is better than the other, and in it one rack.
fn two_sites() -> Fleet {
    let places = ["a1", "a2", "b1", "b2"].into_iter().flat_map(|rack| [(rack, "x"), (rack, "y")]);
    let rooms = places.map(|(rack, n)| room(&format!("{rack}{n}"), &rack[..1], &rack[1..], 16));
    let mut fleet = Fleet::new(rooms.collect(), Policy::default()).unwrap();
    for (on, cpu) in [("a1x", 10), ("a1y", 10), ("a2x", 6), ("a2y", 6)] {
        fleet.stands(&machine(&format!("on {on}"), cpu), on).unwrap();
    }
    fleet
}

#[test]
fn a_spread_group_has_one_more_in_a_domain_than_in_another_at_most() {
    let all = [Level::Site, Level::Rack, Level::Box];
    for levels in [&all[..1], &all[1..2], &all[2..], &all[..2], &all] {
        let requests = group(8, Some(Layout::Spread(levels.to_vec())));
        let even = |fleet: &Fleet, placed: usize| {
            for level in levels {
                let counts = counts(fleet, |room| domain(room, *level));
                assert_eq!(counts.values().sum::<usize>(), placed);
                let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                assert!(most - least <= 1, "{levels:?}: {counts:?}");
            }
        };
        // One after the other, and all at once.
        let mut fleet = two_sites();
        for (n, request) in requests.iter().enumerate() {
            fleet.place(request).unwrap();
            even(&fleet, n + 1);
        }
        let mut fleet = two_sites();
        assert_eq!(fleet.plan(&requests).unwrap().refused, vec![]);
        even(&fleet, requests.len());
    }
}

/// A box with nothing on it, and one with room for one processor more, which is better packed.
fn airy_and_full(policy: Policy) -> Fleet {
    let rooms = ["airy", "full"].map(|name| room(name, "a", "r", 8)).to_vec();
    let mut fleet = Fleet::new(rooms, policy).unwrap();
    fleet.stands(&machine("there", 7), "full").unwrap();
    fleet
}

#[test]
fn headroom_is_left_where_there_is_some_and_is_no_reason_to_refuse() {
    for (headroom, best, points) in [(0, "full", 1000), (25, "airy", 1000)] {
        let policy = Policy { headroom: Percent(headroom), ..Policy::default() };
        let mut fleet = airy_and_full(policy.clone());
        let decision = fleet.place(&machine("m", 1)).unwrap();
        assert_eq!((decision.room.as_str(), decision.points.headroom), (best, points), "{headroom} %");
        // Several at once leave it, too: six, and it is a quarter of the box.
        let mut fleet = airy_and_full(policy);
        let several: Vec<Request> = (0..6).map(|n| machine(&format!("m{n}"), 1)).collect();
        let placed = fleet.plan(&several).unwrap().placed;
        assert_eq!(placed.iter().any(|one| one.room == "full"), headroom == 0, "{headroom} %: {placed:?}");
    }
    let mut fleet = airy_and_full(Policy { headroom: Percent(25), ..Policy::default() });
    fleet.set_state("airy", State::Closed).unwrap();
    let decision = fleet.place(&machine("m", 1)).unwrap();
    assert_eq!((decision.room.as_str(), decision.points.headroom), ("full", 0));
}

#[test]
fn what_costs_nothing_goes_first_then_the_cheapest_up_to_its_limit() {
    let zone = |name: &str, price: u64| Room {
        name: name.to_owned(),
        zone: true,
        price: named(&[("cpu", price)]),
        ..Room::default()
    };
    let cheap = Room { capacity: named(&[("cpu", 8)]), ..zone("z-cheap", 2) };
    let rooms = vec![zone("a-dear", 5), cheap, room("own", "a", "r", 4)];
    let mut fleet = Fleet::new(rooms, Policy::default()).unwrap();
    let mut planned = fleet.clone();
    let machines: Vec<Request> = (0..5).map(|n| machine(&format!("m{n}"), 4)).collect();
    let placed = machines.iter().map(|machine| {
        let decision = fleet.place(machine).unwrap();
        (decision.room, decision.points.cost)
    });
    let placed: Vec<(String, u64)> = placed.collect();
    let wanted = [("own", 0_u64), ("z-cheap", 8), ("z-cheap", 8), ("a-dear", 20), ("a-dear", 20)];
    assert_eq!(placed, wanted.map(|(room, cost)| (room.to_owned(), cost)));
    let short = Some(Reason::Short("cpu".to_owned()));
    assert_eq!(fleet.why_not(&machine("more", 4), "z-cheap").unwrap(), short);
    // All at once it is the same.
    assert_eq!(planned.plan(&machines).unwrap().refused, vec![]);
    for (room, count) in [("own", 1), ("z-cheap", 2), ("a-dear", 2)] {
        assert_eq!(planned.machines_in(room).len(), count, "{room}");
    }
}

#[test]
fn boxes_are_packed_or_have_room_as_the_policy_says() {
    let machines: Vec<Request> = (0..8).map(|n| machine(&format!("m{n}"), 1)).collect();
    for (fit, each) in [(Fit::Pack, vec![0, 0, 0, 8]), (Fit::Spread, vec![2, 2, 2, 2])] {
        let rooms = ["b1", "b2", "b3", "b4"].map(|name| room(name, "a", "r", 8)).to_vec();
        let mut single = Fleet::new(rooms, Policy { fit, ..Policy::default() }).unwrap();
        let mut together = single.clone();
        for machine in &machines {
            single.place(machine).unwrap();
        }
        together.plan(&machines).unwrap();
        for fleet in [single, together] {
            let mut there: Vec<usize> =
                fleet.rooms().map(|room| fleet.machines_in(&room.name).len()).collect();
            there.sort_unstable();
            assert_eq!(there, each, "{fit:?}");
        }
    }
}

/// Nobody has to say so: a box that dies, or a rack, takes as few of a group with it as can be.
#[test]
fn a_group_is_on_other_boxes_and_in_other_racks_by_preference() {
    let rooms = [("a1", "r1"), ("a2", "r1"), ("a3", "r2")];
    let rooms = rooms.map(|(name, rack)| room(name, "a", rack, 8)).to_vec();
    let mut fleet = Fleet::new(rooms, Policy::default()).unwrap();
    let requests = group(3, None);
    fleet.stands(&requests[0], "a1").unwrap();
    // Who is of no group goes where there is least room.
    assert_eq!(fleet.clone().place(&machine("m", 1)).unwrap().room, "a1");
    assert_eq!(fleet.place(&requests[1]).unwrap().room, "a3");
    assert_eq!(fleet.place(&requests[2]).unwrap().room, "a2");
}

#[test]
fn a_layout_of_sites_is_so_many_in_each_and_none_elsewhere() {
    let rooms = ["a", "b", "c"].map(|site| room(&format!("{site}1"), site, "r", 16)).to_vec();
    let mut fleet = Fleet::new(rooms, Policy::default()).unwrap();
    // It would be best packed where nobody of it may be.
    fleet.stands(&machine("there", 10), "b1").unwrap();
    let layout = Layout::Sites([("a".to_owned(), 1), ("c".to_owned(), 2)].into());
    let requests = group(4, Some(layout));
    let wanted = [("a", 1), ("b", 0), ("c", 2)].map(|(site, count)| (site.to_owned(), count));
    let wanted: BTreeMap<String, usize> = wanted.into();
    let sites = |fleet: &Fleet| counts(fleet, |room| domain(room, Level::Site));
    let mut planned = fleet.clone();
    let plan = planned.plan(&requests).unwrap();
    assert_eq!((sites(&planned), plan.refused.len()), (wanted.clone(), 1));
    for request in &requests[..3] {
        fleet.place(request).unwrap();
    }
    assert_eq!(sites(&fleet), wanted);
    let Err(Fault::Refused(refusal)) = fleet.place(&requests[3]) else { panic!("a fourth has room") };
    assert_eq!(refusal.counts, [(Reason::SiteFull, 3)].into());
    // The place of one that goes is the next one's.
    let gone = fleet.machines_in("c1")[0].name.clone();
    fleet.remove(&gone);
    assert_eq!(fleet.place(&requests[3]).unwrap().room, "c1");
    assert_eq!(sites(&fleet), wanted);
}
