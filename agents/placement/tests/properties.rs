//! What must hold of every choice, tried on fleets by chance and against counting by hand.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod instances;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use shoal_placement::choose::{
    Fault, Fit, Fleet, Layout, Level, Percent, Pick, Policy, Reason, Request, Room, Rule, State,
};

const TAGS: [&str; 4] = ["vm/a", "vm/b", "vm/c", "dns/x"];
const KINDS: [&str; 4] = ["cpu", "memory", "disk", "gpu"];
const LEVELS: [Level; 3] = [Level::Box, Level::Rack, Level::Site];

fn amounts(most: u64) -> impl Strategy<Value = BTreeMap<String, u64>> {
    prop::collection::btree_map(prop::sample::select(&KINDS).prop_map(str::to_owned), 0..=most, 1..=4)
}

fn levels() -> impl Strategy<Value = Level> {
    prop::sample::select(&[Level::Box, Level::Box, Level::Rack, Level::Site])
}

fn tag() -> impl Strategy<Value = String> {
    prop::sample::select(&TAGS).prop_map(str::to_owned)
}

fn rules() -> impl Strategy<Value = BTreeSet<Rule>> {
    prop::collection::btree_set((tag(), levels()).prop_map(|(tag, level)| Rule { tag, level }), 0..=2)
}

fn rooms() -> impl Strategy<Value = Vec<Room>> {
    let room = (amounts(20), 50_u32..300, 0..2_u8, 0..3_u8, 0..20_u8, 0..10_u8);
    prop::collection::vec(room, 1..8).prop_map(|rooms| {
        let one = |(n, (capacity, percent, site, rack, odd, kept))| Room {
            name: format!("room{n}"),
            capacity,
            overcommit: [("cpu".to_owned(), Percent(percent))].into(),
            labels: [("site", format!("s{site}")), ("rack", format!("r{rack}"))]
                .map(|(k, v)| (k.to_owned(), v))
                .into(),
            state: [State::Closed, State::Draining, State::Dead]
                .get(usize::from(odd))
                .copied()
                .unwrap_or_default(),
            dedicated: if kept == 0 { ["vm/a".to_owned()].into() } else { BTreeSet::new() },
            zone: odd == 19,
            price: if odd >= 18 { [("cpu".to_owned(), 5)].into() } else { BTreeMap::new() },
        };
        rooms.into_iter().enumerate().map(one).collect()
    })
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let layout = prop_oneof![
        4 => Just(None),
        1 => Just(Some(Layout::Spread(vec![Level::Site, Level::Rack, Level::Box]))),
        1 => (0_u32..3, 0_u32..3).prop_map(|(a, b)| Some(Layout::Sites([("s0".to_owned(), a), ("s1".to_owned(), b)].into()))),
    ];
    let request = (
        amounts(8),
        prop::option::of(tag()),
        prop::collection::btree_set(tag(), 0..2),
        rules(),
        0..12_u8,
        layout,
    );
    prop::collection::vec(request, 1..25).prop_map(|requests| {
        let one =
            |(n, (needs, group, tags, apart, odd, layout)): (usize, (_, _, _, BTreeSet<Rule>, u8, _))| {
                Request {
                    name: format!("m{n}"),
                    needs,
                    group,
                    tags,
                    near: if odd == 0 {
                        [Rule { tag: "dns/x".to_owned(), level: LEVELS[n % 3] }].into()
                    } else {
                        BTreeSet::new()
                    },
                    apart,
                    only: if odd == 1 {
                        [Pick::Label("site".to_owned(), "s0".to_owned())].into()
                    } else {
                        BTreeSet::new()
                    },
                    except: if odd == 2 { [Pick::Name("room0".to_owned())].into() } else { BTreeSet::new() },
                    layout,
                }
            };
        requests.into_iter().enumerate().map(one).collect()
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    (any::<bool>(), any::<bool>(), 0..4_u64, 0..40_u32).prop_map(|(spread, survive, seed, headroom)| Policy {
        fit: if spread { Fit::Spread } else { Fit::Pack },
        headroom: Percent(headroom),
        survive,
        seed,
    })
}

/// What stands where, as counted by hand.
fn standing<'f>(fleet: &'f Fleet, rooms: &'f [Room]) -> Vec<(&'f Room, Vec<&'f Request>)> {
    rooms.iter().map(|room| (room, fleet.machines_in(&room.name))).collect()
}

fn usable(room: &Room, kind: &str) -> Option<u64> {
    let has = room.capacity.get(kind).copied();
    let given =
        has.map(|has| room.overcommit.get(kind).map_or(has, |percent| has * u64::from(percent.0) / 100));
    if room.zone { given } else { Some(given.unwrap_or(0)) }
}

fn overfull(room: &Room, machines: &[&Request]) -> bool {
    KINDS.iter().any(|kind| {
        let used: u64 = machines.iter().filter_map(|m| m.needs.get(*kind)).sum();
        usable(room, kind).is_some_and(|usable| used > usable)
    })
}

fn has(request: &Request, tag: &str) -> bool {
    request.group.as_deref() == Some(tag) || request.tags.contains(tag)
}

fn together(a: &Room, b: &Room, level: Level) -> bool {
    let same = |label: &str| a.labels.get(label) == b.labels.get(label);
    match level {
        Level::Box => !a.zone && !b.zone && a.name == b.name,
        Level::Rack => !a.zone && !b.zone && same("site") && same("rack"),
        Level::Site => same("site"),
    }
}

fn picked(picks: &BTreeSet<Pick>, room: &Room) -> bool {
    picks.iter().any(|pick| match pick {
        Pick::Name(name) => *name == room.name,
        Pick::Label(label, value) => room.labels.get(label) == Some(value),
    })
}

fn welcome(machine: &Request, room: &Room) -> bool {
    room.dedicated.is_empty() || room.dedicated.iter().any(|tag| has(machine, tag))
}

/// Whether the room is one that it may be in, whoever else is there.
fn suits(machine: &Request, room: &Room) -> bool {
    let among = machine.only.is_empty() || picked(&machine.only, room);
    welcome(machine, room) && among && !picked(&machine.except, room)
}

/// Whether what it must be near to is somewhere, and not there, as far as this rule reaches.
fn far(all: &[(&Room, Vec<&Request>)], one: &Request, room: &Room, rule: &Rule) -> bool {
    let each = all.iter().flat_map(|(at, machines)| machines.iter().map(|m| (*at, *m)));
    let mut having = each.filter(|(_, other)| other.name != one.name && has(other, &rule.tag)).peekable();
    having.peek().is_some() && !having.any(|(at, _)| together(room, at, rule.level))
}

/// Whether its layout wants so many of its group in the room's site, itself among them.
fn sited(all: &[(&Room, Vec<&Request>)], one: &Request, room: &Room) -> bool {
    let (Some(Layout::Sites(sites)), Some(group)) = (&one.layout, &one.group) else { return true };
    let site = all.iter().filter(|(at, _)| together(room, at, Level::Site));
    let count = site.flat_map(|(_, machines)| machines).filter(|machine| has(machine, group)).count();
    sites.get(&room.labels["site"]).is_some_and(|wanted| count <= *wanted as usize)
}

/// Two machines that may not be where they are, if any.
fn clash(all: &[(&Room, Vec<&Request>)]) -> Option<String> {
    let each: Vec<(&Room, &Request)> =
        all.iter().flat_map(|(room, machines)| machines.iter().map(|m| (*room, *m))).collect();
    for (room, one) in &each {
        for (other_room, other) in each.iter().filter(|(_, other)| other.name != one.name) {
            let rule =
                one.apart.iter().find(|rule| has(other, &rule.tag) && together(room, other_room, rule.level));
            if let Some(rule) = rule {
                return Some(format!("{} and {} break {rule:?}", one.name, other.name));
            }
        }
    }
    None
}

fn check(fleet: &Fleet, rooms: &[Room]) -> Result<(), TestCaseError> {
    let all = standing(fleet, rooms);
    for (room, machines) in &all {
        prop_assert!(!overfull(room, machines), "{} is overfull: {machines:?}", room.name);
        for machine in machines {
            prop_assert_eq!(room.state, State::Open);
            prop_assert!(suits(machine, room), "{} is in {}: {machine:?}", machine.name, room.name);
            if let (Some(Layout::Sites(sites)), Some(group)) = (&machine.layout, &machine.group) {
                let site = &room.labels["site"];
                prop_assert!(sites.get(site).is_some_and(|n| *n > 0), "{group} is in {site}, {sites:?}");
            }
        }
    }
    prop_assert_eq!(clash(&all), None);
    Ok(())
}

/// Places a machine: where it is then, nothing speaks against it as things stand. What it must be near to may go later, and others of its
/// group with other layouts may come.
fn place(fleet: &mut Fleet, rooms: &[Room], request: &Request) -> Result<(), TestCaseError> {
    if let Ok(decision) = fleet.place(request) {
        let all = standing(fleet, rooms);
        let (room, _) = all.iter().find(|(room, _)| room.name == decision.room).unwrap();
        let astray = request.near.iter().find(|rule| far(&all, request, room, rule));
        prop_assert!(astray.is_none(), "{} is in {}, and {astray:?}", request.name, room.name);
        prop_assert!(sited(&all, request, room), "{} is in {}: {request:?}", request.name, room.name);
    }
    check(fleet, rooms)
}

/// Places a machine: where it would go if its box died is near to what it must be near to, as far as that lives on.
fn place_to_survive(fleet: &mut Fleet, rooms: &[Room], request: &Request) -> Result<(), TestCaseError> {
    let Ok(decision) = fleet.place(request) else { return Ok(()) };
    let named = |name: &str| rooms.iter().find(|room| room.name == name).unwrap();
    let from = named(&decision.room);
    prop_assert_eq!(decision.fallback.is_none(), from.zone);
    if let Some(fallback) = decision.fallback {
        let to = named(&fallback);
        let mut all = standing(fleet, rooms);
        all.retain(|(room, _)| room.name != from.name);
        let astray = request.near.iter().find(|rule| far(&all, request, to, rule));
        prop_assert!(astray.is_none(), "{} falls back to {fallback}, and {astray:?}", request.name);
    }
    Ok(())
}

/// Whether the machines of a dead box have room in the others, all ways tried. Picked rooms and layouts are left out: that is room enough
/// for those who keep them, and a search among them may have no end.
fn fits_elsewhere(rooms: &[Room], dead: &str, now: &[(String, Vec<Request>)], homeless: &[Request]) -> bool {
    let Some((one, rest)) = homeless.split_first() else { return true };
    let homes: Vec<usize> =
        (0..rooms.len()).filter(|n| rooms[*n].name != dead && rooms[*n].state == State::Open).collect();
    homes.into_iter().any(|n| {
        let mut then = now.to_vec();
        then[n].1.push(one.clone());
        let all: Vec<(&Room, Vec<&Request>)> =
            rooms.iter().zip(&then).map(|(room, (_, machines))| (room, machines.iter().collect())).collect();
        welcome(one, &rooms[n])
            && !overfull(&rooms[n], &all[n].1)
            && clash(&all).is_none()
            && fits_elsewhere(rooms, dead, &then, rest)
    })
}

proptest! {
    /// No box is overfilled and no rule broken, whichever way machines come and go.
    #[test]
    fn choices_keep_the_rules(rooms in rooms(), requests in requests(), policy in policies(), gone in prop::collection::vec(0..25_usize, 0..8)) {
        let mut fleet = Fleet::new(rooms.clone(), policy).unwrap();
        for request in &requests {
            place(&mut fleet, &rooms, request)?;
        }
        for n in gone.into_iter().filter_map(|n| requests.get(n)) {
            fleet.remove(&n.name);
            place(&mut fleet, &rooms, n)?;
        }
    }

    /// So do plans, which are the same in whatever order rooms and requests come.
    #[test]
    fn plans_do_not_depend_on_the_order(rooms in rooms(), requests in requests(), policy in policies(), seed: u64) {
        let mut fleet = Fleet::new(rooms.clone(), policy.clone()).unwrap();
        let plan = fleet.plan(&requests).unwrap();
        check(&fleet, &rooms)?;
        prop_assert_eq!(plan.placed.len() + plan.refused.len(), requests.len());
        for decision in &plan.placed {
            prop_assert_eq!(fleet.room_of(&decision.machine), Some(decision.room.as_str()));
        }
        let (mut other_rooms, mut others) = (rooms, requests);
        let mut chance = instances::Chance(seed);
        chance.shuffle(&mut other_rooms);
        chance.shuffle(&mut others);
        let again = Fleet::new(other_rooms, policy).unwrap().plan(&others).unwrap();
        prop_assert_eq!(plan, again);
    }

    /// A refusal is true: no room would do, and each counts by a reason that holds.
    #[test]
    fn refusals_and_explanations_are_true(rooms in rooms(), requests in requests(), seed in 0..4_u64) {
        let mut fleet = Fleet::new(rooms.clone(), Policy { seed, ..Policy::default() }).unwrap();
        for request in &requests {
            let explained = fleet.explain(request).unwrap();
            prop_assert_eq!(explained.would_do.len() + explained.counts.values().sum::<usize>(), rooms.len());
            for room in &rooms {
                let mut tried = fleet.clone();
                tried.stands(request, &room.name).unwrap();
                let all = standing(&tried, &rooms);
                let (_, there) = all.iter().find(|(r, _)| r.name == room.name).unwrap();
                let why = fleet.why_not(request, &room.name).unwrap();
                let strays = |rule: &Rule| far(&all, request, room, rule);
                match &why {
                    None => {
                        prop_assert!(room.state == State::Open && !overfull(room, there) && clash(&all).is_none());
                        prop_assert!(suits(request, room) && sited(&all, request, room) && !request.near.iter().any(strays));
                    }
                    Some(Reason::Short(_)) => prop_assert!(overfull(room, there)),
                    Some(Reason::Apart(..) | Reason::Shunned(..)) => prop_assert!(clash(&all).is_some()),
                    Some(Reason::Closed) => prop_assert_eq!(room.state, State::Closed),
                    Some(Reason::Draining) => prop_assert_eq!(room.state, State::Draining),
                    Some(Reason::Dead) => prop_assert_eq!(room.state, State::Dead),
                    Some(Reason::Dedicated) => prop_assert!(!welcome(request, room)),
                    Some(Reason::NotAmong) => prop_assert!(!request.only.is_empty() && !picked(&request.only, room)),
                    Some(Reason::Excepted) => prop_assert!(picked(&request.except, room)),
                    Some(Reason::Far(tag, level)) => {
                        let rule = Rule { tag: tag.clone(), level: *level };
                        prop_assert!(request.near.contains(&rule) && strays(&rule));
                    }
                    Some(Reason::SiteFull) => prop_assert!(!sited(&all, request, room)),
                    // Nothing is kept for when a box dies.
                    Some(Reason::Kept(_) | Reason::InTheWay | Reason::NoFallback) => {
                        return Err(TestCaseError::fail(format!("{why:?} in {}", room.name)));
                    }
                }
                prop_assert_eq!(why.is_none(), explained.would_do.iter().any(|(name, _)| *name == room.name));
            }
            match fleet.place(request) {
                Ok(decision) => {
                    let best = explained.would_do.iter().find(|(name, _)| *name == decision.room);
                    prop_assert_eq!(best.map(|(_, points)| *points), Some(decision.points));
                }
                Err(Fault::Refused(refusal)) => {
                    prop_assert!(explained.would_do.is_empty());
                    prop_assert_eq!(refusal.counts, explained.counts);
                }
                Err(Fault::Invalid(invalid)) => return Err(TestCaseError::fail(invalid.to_string())),
            }
        }
    }

    /// Any one box may die: the places to fall back to that are promised hold, each for its machine and all at once, and by trying all ways
    /// there are some.
    #[test]
    fn any_box_may_die(rooms in rooms(), requests in requests(), seed in 0..4_u64, spread: bool) {
        let fit = if spread { Fit::Spread } else { Fit::Pack };
        let mut fleet = Fleet::new(rooms.clone(), Policy { survive: true, seed, fit, ..Policy::default() }).unwrap();
        for request in requests.iter().take(12) {
            place_to_survive(&mut fleet, &rooms, request)?;
        }
        for dead in rooms.iter().filter(|room| !room.zone) {
            let now: Vec<(String, Vec<Request>)> = rooms.iter().map(|room| {
                let there = if room.name == dead.name { Vec::new() } else { fleet.machines_in(&room.name).into_iter().cloned().collect() };
                (room.name.clone(), there)
            }).collect();
            let homeless: Vec<Request> = fleet.machines_in(&dead.name).into_iter().cloned().collect();
            let mut moved = now.clone();
            for machine in &homeless {
                let to = fleet.fallback_of(&machine.name);
                prop_assert!(to.is_some_and(|to| to != dead.name), "{} has nowhere to go", machine.name);
                let at = rooms.iter().position(|room| Some(room.name.as_str()) == to).unwrap();
                let room = &rooms[at];
                prop_assert!(room.state == State::Open && suits(machine, room), "{} is none for {machine:?}", room.name);
                let sited = matches!(machine.layout, Some(Layout::Sites(_)));
                prop_assert!(!sited || room.labels["site"] == dead.labels["site"], "{} leaves its site", machine.name);
                moved[at].1.push(machine.clone());
            }
            let all: Vec<(&Room, Vec<&Request>)> = rooms.iter().zip(&moved).map(|(room, (_, m))| (room, m.iter().collect())).collect();
            for (room, machines) in &all {
                prop_assert!(!overfull(room, machines), "{} cannot take what {} had", room.name, dead.name);
            }
            prop_assert_eq!(clash(&all), None);
            prop_assert!(fits_elsewhere(&rooms, &dead.name, &now, &homeless));
        }
    }
}

proptest! {
    /// Moves of a plan to empty boxes or to mend what is wrong keep the rules, gain what they say, and name each machine once.
    #[test]
    fn moves_keep_the_rules(rooms in rooms(), requests in requests(), policy in policies(), least in 0..60_usize) {
        let mut fleet = Fleet::new(rooms.clone(), policy).unwrap();
        for request in &requests {
            let _ = fleet.place(request);
        }
        let near = requests.iter().any(|request| !request.near.is_empty());
        let used = fleet.rooms_used();
        let steps = fleet.rebalance(least).unwrap();
        let (mut then, mut moved, mut emptied) = (fleet.clone(), BTreeSet::new(), 0);
        for step in &steps {
            prop_assert!(step.percent() >= least);
            emptied += usize::from(matches!(step.gain, shoal_placement::choose::Gain::Emptied(_)));
            for one in &step.moves {
                prop_assert!(moved.insert(one.machine.clone()));
                prop_assert_eq!(then.remove(&one.machine), Some(one.from.clone()));
                then.stands(requests.iter().find(|request| request.name == one.machine).unwrap(), &one.to).unwrap();
            }
        }
        prop_assert!(near || then.rooms_used() + emptied == used);
        check(&then, &rooms)?;
    }
}

/// Where boxes are packed, too.
#[test]
fn a_group_spreads_over_boxes() {
    let room = |name: &str| Room {
        name: name.to_owned(),
        capacity: [("cpu".to_owned(), 8)].into(),
        ..Room::default()
    };
    let request = |n: u32| Request {
        name: format!("resolver-{n}"),
        needs: [("cpu".to_owned(), 1)].into(),
        group: Some("vm/a".to_owned()),
        layout: Some(Layout::Spread(vec![Level::Box])),
        ..Request::default()
    };
    let mut fleet = Fleet::new(vec![room("box1"), room("box2")], Policy::default()).unwrap();
    // Two, and later five more at once.
    let mut on: BTreeMap<String, usize> = BTreeMap::new();
    for several in [0..2_u32, 2..7] {
        let requests: Vec<Request> = several.map(request).collect();
        for decision in fleet.plan(&requests).unwrap().placed {
            *on.entry(decision.room).or_default() += 1;
        }
        let (least, most) = (on.values().min().unwrap(), on.values().max().unwrap());
        assert!(on.len() == 2 && most - least <= 1, "{on:?}");
    }
}

/// However many shapes there are that no box has room for, the others lie as they do without them.
#[test]
fn what_fits_nowhere_stands_in_nobodys_way() {
    const GIB: u64 = 1 << 30;
    let mut rooms = instances::boxes(160);
    for room in rooms.iter_mut().step_by(2) {
        room.capacity = instances::named(&[("cpu", 128_000), ("memory", 128 * GIB), ("disk", 8_000 * GIB)]);
    }
    // Half of them need more than any box has; the others more than any has at once.
    let giant = |n: u64| {
        let (cpu, memory) = if n.is_multiple_of(2) { (128_001 + n, GIB) } else { (100_000, 200 * GIB + n) };
        Request {
            name: format!("{}{n}", if n.is_multiple_of(3) { "a" } else { "z" }),
            needs: instances::named(&[("cpu", cpu), ("memory", memory), ("disk", GIB)]),
            group: Some("vm/giants".to_owned()),
            apart: [Rule { tag: "vm/giants".to_owned(), level: Level::Box }].into(),
            ..Request::default()
        }
    };
    let plan =
        |requests: &[Request]| Fleet::new(rooms.clone(), Policy::default()).unwrap().plan(requests).unwrap();
    let mut requests = instances::machines(900, instances::Shapes::Each, 3);
    let alone = plan(&requests);
    requests.extend((0..600).map(giant));
    let beside = plan(&requests);
    assert!(beside.placed == alone.placed, "{} and {}", beside.placed.len(), alone.placed.len());
    assert_eq!(beside.refused.len(), alone.refused.len() + 600);
    assert!(alone.placed.len() > 800, "{}", alone.placed.len());
}
