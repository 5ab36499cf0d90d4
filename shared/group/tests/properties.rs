//! Whatever happens: no number and no address is ever two machines', a slot is nobody else's while its machine may live, and where all goes
//! well in the end there are as many as were wanted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]

mod world;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_core::{Document, Edit, Expect, HostId, HostName, Lifecycle};
use shoal_machine::Life;
use world::{World, kafka};

/// What happens to a group.
#[derive(Clone, Debug)]
enum Event {
    Scale(u32),
    /// Machines are made of what was requested.
    Made,
    /// What is to be destroyed is.
    Destroyed,
    /// It fails, and lives.
    Fails(usize),
    /// Somebody deletes the host; the machine lives.
    Deleted(usize),
    /// Of a deleted host: the machine dies, and somebody says so.
    Gone(usize),
    /// A person drains it, or has it serve again.
    Drained(usize),
    Later(i64),
    Step,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u32..8).prop_map(Event::Scale),
        Just(Event::Made),
        Just(Event::Destroyed),
        (0_usize..8).prop_map(Event::Fails),
        (0_usize..8).prop_map(Event::Deleted),
        (0_usize..8).prop_map(Event::Gone),
        (0_usize..8).prop_map(Event::Drained),
        (1_i64..200).prop_map(Event::Later),
        Just(Event::Step),
        Just(Event::Step),
    ]
}

/// What a machine has, by the id of its host: machines live apart from what the database says of them.
type Machines = BTreeMap<HostId, (HostName, Value, Value)>;

struct Play {
    world: World,
    machines: Machines,
    deleted: Vec<HostId>,
}

impl Play {
    fn set(&mut self, host: &HostName, state: Lifecycle) {
        self.world.state(host.as_str(), state);
    }

    /// The hosts of machines, in order.
    fn hosts(&self) -> Vec<(HostId, HostName, Lifecycle, bool)> {
        let wished = |host: &shoal_core::Host| Life::of(host).unwrap().wish.is_some();
        let mut all: Vec<_> = self
            .world
            .view
            .hosts()
            .map(|host| (host.id.clone(), host.name.clone(), host.state, wished(host)))
            .collect();
        all.sort();
        all
    }

    fn made(&mut self) {
        for (id, host, ..) in self.hosts().into_iter().filter(|host| host.2 == Lifecycle::Requested) {
            let has = (
                host.clone(),
                self.world.field(host.as_str(), "broker_id"),
                self.world.field(host.as_str(), "address"),
            );
            for (other, theirs) in &self.machines {
                assert_ne!(*other, id, "{host} is made while its predecessor lives");
                assert!(
                    theirs.1 != has.1 && theirs.2 != has.2,
                    "{host} and {} have the same: {has:?}",
                    theirs.0
                );
            }
            self.machines.insert(id, has);
            self.set(&host, Lifecycle::Active);
        }
    }

    fn destroyed(&mut self) {
        let goes = |host: &(HostId, HostName, Lifecycle, bool)| host.2 == Lifecycle::Draining && host.3;
        for (id, host, ..) in self.hosts().into_iter().filter(goes) {
            self.machines.remove(&id);
            self.set(&host, Lifecycle::Retired);
        }
    }

    fn gone(&mut self, at: usize) {
        if self.deleted.is_empty() {
            return;
        }
        let id = self.deleted.remove(at % self.deleted.len());
        let Some((host, ..)) = self.machines.remove(&id) else { return };
        let document = Document::empty();
        let (owner, environment, expires) = (None, None, None);
        let (id, state, expect) = (Some(id), Some(Lifecycle::Retired), Expect::Any);
        self.world.commit(vec![Edit::PutHost {
            host,
            id,
            state,
            owner,
            environment,
            expires,
            document,
            expect,
        }]);
    }

    fn happens(&mut self, event: &Event) {
        let of = |play: &Self, at: usize, states: &[Lifecycle]| {
            let some: Vec<_> = play.hosts().into_iter().filter(|host| states.contains(&host.2)).collect();
            (!some.is_empty()).then(|| some[at % some.len()].clone())
        };
        match event {
            Event::Scale(count) => self.world.group("vm/kafka", &json!({"count": count})),
            Event::Made => self.made(),
            Event::Destroyed => self.destroyed(),
            Event::Fails(at) => {
                if let Some((_, host, ..)) = of(self, *at, &[Lifecycle::Active]) {
                    self.set(&host, Lifecycle::Failed);
                }
            }
            Event::Deleted(at) => {
                if let Some((id, host, ..)) = of(self, *at, &[Lifecycle::Active, Lifecycle::Failed]) {
                    let key = shoal_core::Key::host(&host);
                    self.world.commit(vec![Edit::Delete { key, follow: false, expect: Expect::Any }]);
                    self.deleted.push(id);
                }
            }
            Event::Gone(at) => self.gone(*at),
            Event::Drained(at) => {
                if let Some((_, host, state, _)) = of(self, *at, &[Lifecycle::Active, Lifecycle::Draining]) {
                    match state {
                        Lifecycle::Active => self.set(&host, Lifecycle::Draining),
                        _ => self.set(&host, Lifecycle::Active),
                    }
                }
            }
            Event::Later(seconds) => self.world.later(*seconds),
            Event::Step => drop(self.world.step()),
        }
    }

    /// All goes well from now on.
    fn ends(&mut self, wanted: usize) {
        self.world.group("vm/kafka", &json!({"count": wanted, "replace": {"alarm": 100, "after": "0"}}));
        while !self.deleted.is_empty() {
            self.gone(0);
        }
        for (_, host, state, wished) in self.hosts() {
            if state == Lifecycle::Draining && !wished {
                self.set(&host, Lifecycle::Active);
            }
        }
        for _ in 0..60 {
            self.world.step();
            self.made();
            self.destroyed();
            self.world.later(60);
        }
        assert_eq!(self.world.step(), Vec::<String>::new(), "{:?}", self.world.waits);
        let active = self.hosts().into_iter().filter(|host| host.2 == Lifecycle::Active).count();
        assert_eq!((active, self.machines.len()), (wanted, wanted), "{:?}", self.world.waits);
        assert_eq!(self.world.held("brokers").len(), wanted);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_two_machines_ever_have_the_same(events in prop::collection::vec(event(), 1..60), wanted in 0_usize..7) {
        let mut play = Play { world: kafka(), machines: Machines::new(), deleted: Vec::new() };
        for event in &events {
            play.happens(event);
        }
        play.ends(wanted);
    }
}
