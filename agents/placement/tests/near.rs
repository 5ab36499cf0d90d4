//! Near to what has a tag: on its box, in its rack, in its site.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod instances;

use instances::named;
use shoal_placement::choose::{Fault, Fleet, Level, Policy, Reason, Request, Room, Rule};

/// A box with eight processors.
fn room(name: &str, site: &str, rack: &str) -> Room {
    Room {
        name: name.to_owned(),
        capacity: named(&[("cpu", 8)]),
        labels: [("site", site), ("rack", rack)].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Room::default()
    }
}

fn machine(name: &str, cpu: u64) -> Request {
    Request { name: name.to_owned(), needs: named(&[("cpu", cpu)]), ..Request::default() }
}

/// A machine of one processor that must be near to what has a tag.
fn near(tag: &str, level: Level) -> Request {
    Request { near: [Rule { tag: tag.to_owned(), level }].into(), ..machine("web", 1) }
}

/// Each box has room. The fullest is chosen where nothing is said, and the farther from the cache a box is, the fuller it is.
fn fleet() -> Fleet {
    let rooms = [("a1", "a", "r1"), ("a2", "a", "r1"), ("a3", "a", "r2"), ("b1", "b", "r1")];
    let rooms = rooms.map(|(name, site, rack)| room(name, site, rack)).to_vec();
    let mut fleet = Fleet::new(rooms, Policy::default()).unwrap();
    let (group, tags) = (Some("vm/cache".to_owned()), ["dns/x".to_owned()].into());
    fleet.stands(&Request { group, tags, ..machine("cache", 1) }, "a1").unwrap();
    for (name, cpu, on) in [("one", 5, "a2"), ("two", 6, "a3"), ("three", 7, "b1")] {
        fleet.stands(&machine(name, cpu), on).unwrap();
    }
    fleet
}

#[test]
fn it_goes_where_what_it_must_be_near_to_is() {
    assert_eq!(fleet().place(&machine("web", 1)).unwrap().room, "b1");
    // A group is as good as any other tag, and a rack is another one in each site.
    for tag in ["vm/cache", "dns/x"] {
        for (level, room) in [(Level::Site, "a3"), (Level::Rack, "a2"), (Level::Box, "a1")] {
            let request = near(tag, level);
            assert_eq!(fleet().place(&request).unwrap().room, room, "{tag}, {level:?}");
            let planned = fleet().plan(std::slice::from_ref(&request)).unwrap().placed;
            assert_eq!(planned[0].room, room, "{tag}, {level:?}");
            let far = Some(Reason::Far(tag.to_owned(), level));
            assert_eq!(fleet().why_not(&request, "b1").unwrap(), far);
        }
    }
}

#[test]
fn what_nobody_has_yet_hinders_nothing_and_what_is_elsewhere_is_said() {
    for (level, within) in
        [(Level::Box, "on the box"), (Level::Rack, "in the rack"), (Level::Site, "in the site")]
    {
        let mut fleet = fleet();
        let first = Request { group: Some("vm/pair".to_owned()), ..near("vm/pair", level) };
        for room in ["a1", "a2", "a3", "b1"] {
            assert_eq!(fleet.why_not(&first, room).unwrap(), None, "{room}, {level:?}");
        }
        assert_eq!(fleet.place(&first).unwrap().room, "b1", "{level:?}");
        // That box is full now, and there is no other in its rack or site.
        let other = Request { name: "other".to_owned(), ..first };
        let Err(Fault::Refused(refusal)) = fleet.place(&other) else { panic!("{level:?}: it has room") };
        let far = Reason::Far("vm/pair".to_owned(), level);
        assert_eq!(refusal.counts, [(Reason::Short("cpu".to_owned()), 1), (far, 3)].into());
        let why = format!("3 boxes or zones: no vm/pair is {within}, and it must be near; 1: too little cpu");
        assert!(refusal.to_string().ends_with(&why), "{refusal}");
        // With the first one gone it is alone.
        fleet.remove("web");
        assert_eq!(fleet.place(&other).unwrap().room, "b1", "{level:?}");
    }
}
