//! How few boxes a plan takes, beside the bound that no plan can beat. `examples/bench_placement.rs` measures the same at full size, with the time.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod instances;

use std::collections::{BTreeMap, BTreeSet};

use instances::{Shapes, boxes, machines, seeds};
use shoal_placement::choose::{Fleet, Policy, Request, Room, lower_bound};

const MACHINES: usize = 2_000;
const BOXES: usize = 200;

/// The largest of demand over capacity, by resource, and of the machines of one service, counted by hand: all boxes are like this one.
fn least(requests: &[Request], one: &Room) -> u64 {
    let mut services: BTreeMap<&str, u64> = BTreeMap::new();
    for request in requests {
        *services.entry(request.group.as_deref().unwrap()).or_default() += 1;
    }
    let filled = one.capacity.iter().map(|(kind, has)| {
        let demand: u64 = requests.iter().map(|request| request.needs[kind]).sum();
        demand.div_ceil(*has)
    });
    filled.chain(services.into_values()).max().unwrap()
}

/// Everybody is somewhere, no box is overfull, and none has two of a service.
fn holds(fleet: &Fleet, rooms: &[Room], shapes: Shapes) {
    let mut machines = 0;
    for room in rooms {
        let there = fleet.machines_in(&room.name);
        for (kind, has) in &room.capacity {
            let used: u64 = there.iter().map(|machine| machine.needs[kind]).sum();
            assert!(used <= *has, "{shapes:?}: {} has given out {used} {kind} of {has}", room.name);
        }
        let services: BTreeSet<_> = there.iter().map(|machine| machine.group.as_deref()).collect();
        assert_eq!(services.len(), there.len(), "{shapes:?}: two of a service on {}", room.name);
        machines += there.len();
    }
    assert_eq!(machines, MACHINES, "{shapes:?}");
}

#[test]
fn a_plan_takes_one_in_a_hundred_boxes_too_many_at_most() {
    for shapes in [Shapes::Flavours, Shapes::Services, Shapes::Each] {
        let seed = seeds(MACHINES, BOXES, shapes).next().unwrap();
        let (rooms, requests) = (boxes(BOXES), machines(MACHINES, shapes, seed));
        let bound = lower_bound(&requests, &rooms);
        assert_eq!(bound as u64, least(&requests, &rooms[0]), "{shapes:?}");
        let mut fleet = Fleet::new(rooms.clone(), Policy::default()).unwrap();
        let plan = fleet.plan(&requests).unwrap();
        assert_eq!((plan.placed.len(), plan.refused.len()), (MACHINES, 0), "{shapes:?}");
        holds(&fleet, &rooms, shapes);
        // One more than a hundredth: there are no parts of a box.
        let used = fleet.rooms_used();
        assert!(
            (bound..=bound + bound / 100 + 1).contains(&used),
            "{shapes:?}, seed {seed}: {used} boxes are used, and {bound} may be enough"
        );
    }
}
