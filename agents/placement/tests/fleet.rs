//! A real fleet: what stands is accepted and explained, and of each box it is said where its machines go if it dies, or which cannot.
//!
//! The inventory has no capacities. They are made up here: what each box has given out, and 15 % more.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by it; what cannot run says so"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shoal_placement::choose::{Fleet, Pick, Policy, Reason, Request, Room};

/// The folder of a real inventory, where there is one.
fn real_fleet() -> Option<PathBuf> {
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let dir =
        named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/fedora"));
    dir.join("inventory.json").exists().then_some(dir)
}

/// A size in MiB, or a text with a unit, in octets.
fn disk(value: &Value) -> u64 {
    const MIB: f64 = 1048576.0;
    let number = |text: &str| text.trim().parse::<f64>().unwrap();
    let octets = match value {
        Value::Number(n) => n.as_f64().unwrap() * MIB,
        Value::String(text) => match text.to_lowercase() {
            t if t.ends_with('t') => number(t.trim_end_matches('t')) * MIB * 1048576.0,
            t if t.ends_with('g') => number(t.trim_end_matches('g')) * MIB * 1024.0,
            t => number(&t) * MIB,
        },
        _ => 0.0,
    };
    octets as u64
}

/// The machines with their boxes.
fn machines(inventory: &Value) -> Vec<(Request, String)> {
    let hosts = inventory["_meta"]["hostvars"].as_object().unwrap();
    let one = |(name, vars): (&String, &Value)| {
        let room = vars["vmhost"].as_str()?;
        let site = hosts.get(room).and_then(|vars| vars["datacenter"].as_str()).unwrap_or("unknown");
        let needs = [
            ("cpu", vars["num_cpus"].as_u64().unwrap_or(1)),
            ("memory", vars["mem_size"].as_u64().unwrap_or(0) << 20),
            ("disk", disk(&vars["lvm_size"])),
        ];
        let request = Request {
            name: name.clone(),
            needs: needs.map(|(kind, n)| (kind.to_owned(), n)).into(),
            tags: vars["host_group"].as_str().map(str::to_owned).into_iter().collect(),
            only: [Pick::Label("site".to_owned(), site.to_owned())].into(),
            ..Request::default()
        };
        Some((request, room.to_owned()))
    };
    hosts.iter().filter_map(one).collect()
}

/// The boxes, with what they have given out and 15 % more.
fn boxes(inventory: &Value, machines: &[(Request, String)]) -> Vec<Room> {
    let mut used: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    for (request, room) in machines {
        let sum = used.entry(room).or_default();
        request.needs.iter().for_each(|(kind, n)| *sum.entry(kind.clone()).or_default() += n);
    }
    let one = |(name, used): (&str, BTreeMap<String, u64>)| Room {
        name: name.to_owned(),
        capacity: used.into_iter().map(|(kind, n)| (kind, (n * 115).div_ceil(100))).collect(),
        labels: [(
            "site".to_owned(),
            inventory["_meta"]["hostvars"][name]["datacenter"].as_str().unwrap_or("unknown").to_owned(),
        )]
        .into(),
        ..Room::default()
    };
    used.into_iter().map(one).collect()
}

#[test]
fn the_real_fleet_is_accepted_and_explained() {
    let Some(dir) = real_fleet() else {
        println!(
            "SKIPPED: the_real_fleet_is_accepted_and_explained: no inventory (SHOAL_FLEET names its folder)"
        );
        return;
    };
    let inventory: Value =
        serde_json::from_slice(&std::fs::read(dir.join("inventory.json")).unwrap()).unwrap();
    let machines = machines(&inventory);
    let boxes = boxes(&inventory, &machines);
    let mut fleet = Fleet::new(boxes.clone(), Policy::default()).unwrap();
    for (request, room) in &machines {
        fleet.stands(request, room).unwrap();
    }
    assert_eq!((machines.len(), boxes.len()), (250, 35), "machines on boxes, of the whole inventory");
    // What stands is as it may be, and its own room is among those that would do.
    assert_eq!(fleet.broken(), vec![]);
    for (request, room) in &machines {
        let explained = fleet.explain(request).unwrap();
        assert!(explained.would_do.iter().any(|(name, _)| name == room), "{}: {explained:?}", request.name);
        assert_eq!(explained.would_do.len() + explained.counts.values().sum::<usize>(), boxes.len());
    }
    let (mut found, mut stuck) = (0, 0);
    for dead in &boxes {
        let evacuation = fleet.evacuate(&dead.name).unwrap();
        let there = machines.iter().filter(|(_, room)| *room == dead.name).count();
        assert_eq!(evacuation.moves.len() + evacuation.stuck.len(), there, "{}", dead.name);
        found += evacuation.moves.len();
        stuck += evacuation.stuck.len();
        holds(&boxes, &machines, dead, &evacuation);
    }
    println!("when each box dies in turn, {found} machines find room and {stuck} do not");
    assert_eq!(found + stuck, machines.len());
    assert!(found > 0);
    let broken = fleet.breaks().unwrap();
    assert_eq!(broken.values().map(|evacuation| evacuation.stuck.len()).sum::<usize>(), stuck);
}

/// The moves fit, and each that is stuck fits into no box of its site, as counted by hand; its reasons count every box.
fn holds(
    boxes: &[Room],
    machines: &[(Request, String)],
    dead: &Room,
    evacuation: &shoal_placement::choose::Evacuation,
) {
    let mut free: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for room in boxes {
        free.insert(&room.name, room.capacity.iter().map(|(kind, n)| (kind.as_str(), *n)).collect());
    }
    let named: BTreeMap<&str, &Request> = machines.iter().map(|(r, _)| (r.name.as_str(), r)).collect();
    let mut take = |request: &Request, room: &str| {
        for (kind, n) in &request.needs {
            let free = free.get_mut(room).unwrap().get_mut(kind.as_str()).unwrap();
            *free = free
                .checked_sub(*n)
                .unwrap_or_else(|| panic!("{room} has too little {kind} for {}", request.name));
        }
    };
    machines.iter().filter(|(_, room)| *room != dead.name).for_each(|(request, room)| take(request, room));
    for step in &evacuation.moves {
        assert!(step.to != dead.name);
        take(named[step.machine.as_str()], &step.to);
    }
    for refusal in &evacuation.stuck {
        let request = named[refusal.machine.as_str()];
        for room in
            boxes.iter().filter(|room| room.name != dead.name && room.labels["site"] == dead.labels["site"])
        {
            let short = request.needs.iter().any(|(kind, n)| free[room.name.as_str()][kind.as_str()] < *n);
            assert!(short, "{} has room for {}", room.name, request.name);
        }
        assert_eq!(refusal.counts.values().sum::<usize>(), boxes.len(), "{refusal}");
        assert_eq!(refusal.counts.get(&Reason::Draining), Some(&1), "{refusal}");
    }
}
