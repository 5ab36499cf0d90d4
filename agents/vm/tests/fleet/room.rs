//! A box or a zone with the real agent in virtual time: what the agent and its target write stands for both, and each hears of it.
#![allow(dead_code, reason = "each user takes some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use serde_json::{Value, json};
use shoal_agent::{Change, HostName, Millis};
use shoal_core::{Commit, Key, Range, Row};
use shoal_engine::model::{Place, World};
use shoal_store::{MemoryStore, Query, Store};
use shoal_vm::Vm;

pub(crate) const ROOM: &str = "b1.example.com";

/// The box, its database and its agent.
pub(crate) struct Room<P> {
    pub(crate) world: World<Vm, P>,
    /// The agent hears nothing of what is written.
    pub(crate) deaf: bool,
    /// What the target reads.
    pub(crate) store: Arc<MemoryStore>,
}

impl<P: Place<Vm>> Room<P> {
    /// A tag `vm/all`, and nothing in it.
    pub(crate) fn on(store: Arc<MemoryStore>, place: P) -> Self {
        let room: HostName = ROOM.parse().unwrap();
        let world = World::new(Arc::new(Vm { rooms: [room].into(), starting: 600_000, unseen: 0 }), place);
        let mut room = Self { world, deaf: false, store };
        room.commit(&[
            ("vm/all", json!({"document": {}})),
            (&format!("hosts/{ROOM}"), row("b1", "active", json!({}))),
        ]);
        room
    }

    /// What was made may be there for so long before it is seen, in milliseconds. Said before anything is done.
    pub(crate) fn sees_within(&mut self, unseen: Millis) {
        self.world.agent = Arc::new(Vm { unseen, ..Vm::clone(&self.world.agent) });
    }

    /// Writes rows where the agent and the target both see them; `null` deletes.
    pub(crate) fn commit(&mut self, rows: &[(&str, Value)]) {
        let changes = World::<Vm, P>::rows(rows);
        assert_eq!(changes.len(), rows.len(), "some key is none");
        self.put(changes.clone());
        if !self.deaf {
            self.world.commit(changes);
        }
    }

    fn put(&self, changes: Vec<Change>) {
        let done = self.store.commit(Commit::new("ann", "a test", changes));
        done.now_or_never().unwrap().unwrap();
    }

    fn stored(&self, prefix: &str) -> Vec<Row> {
        let query = Query::new(Range::Prefix(prefix.to_owned()));
        self.store.read(&query).now_or_never().unwrap().unwrap().rows
    }

    /// What the agent reported stands where its target reads it, and it hears what its target wrote. Whether there was anything.
    pub(crate) fn hear(&mut self) -> bool {
        let stored = self.stored("facts/vm/").into_iter();
        let mut before: BTreeMap<Key, _> = stored.map(|row| (row.key, row.value)).collect();
        let mut news = self.world.live_rows();
        news.retain(|row| {
            row.key.as_str().starts_with("facts/vm/") && before.remove(&row.key).as_ref() != Some(&row.value)
        });
        news.extend(before.into_keys().map(Change::delete));
        if !news.is_empty() {
            self.put(news);
        }
        if self.deaf {
            return false;
        }
        self.learn("hosts/")
    }

    /// The agent hears what stands in its database below this, whoever wrote it. Whether there was anything new.
    pub(crate) fn learn(&mut self, below: &str) -> bool {
        let known: BTreeMap<_, _> =
            self.world.live_rows().into_iter().map(|row| (row.key, row.value)).collect();
        let mut news = self.stored(below);
        news.retain(|row| known.get(&row.key) != Some(&row.value));
        let heard = !news.is_empty();
        if heard {
            let change = |row: Row| Change { key: row.key, value: row.value, moved: None };
            self.world.commit(news.into_iter().map(change).collect());
        }
        heard
    }

    /// A member of `vm/all` that was placed here.
    pub(crate) fn place(&mut self, n: usize, vm: Value) {
        let host = name(n);
        self.commit(&[
            (&format!("hosts/{host}"), machine(n, "placed", vm)),
            (&format!("vm/all/members/{host}"), json!({})),
            (&format!("facts/placement/{host}"), json!({"box": ROOM})),
        ]);
    }

    /// A member of `vm/all` that stands here by its own word.
    pub(crate) fn stand(&mut self, n: usize, state: &str, vm: Value) {
        let mut host = machine(n, state, vm);
        host["document"]["placement"] = json!({"on": ROOM});
        self.commit(&[
            (&format!("hosts/{}", name(n)), host),
            (&format!("vm/all/members/{}", name(n)), json!({})),
        ]);
    }

    pub(crate) fn set(&mut self, n: usize, state: &str, vm: Value) {
        self.commit(&[(&format!("hosts/{}", name(n)), machine(n, state, vm))]);
    }

    pub(crate) fn state(&self, n: usize) -> String {
        self.row(&format!("hosts/{}", name(n)))["state"].as_str().unwrap_or("gone").to_owned()
    }

    /// What stands in a row, as the agent knows it.
    pub(crate) fn row(&self, key: &str) -> Value {
        let rows = self.world.live_rows();
        let row = rows.into_iter().find(|row| row.key.as_str() == key);
        row.and_then(|row| row.value).map_or(Value::Null, |value| value.value())
    }

    /// What is said of a machine that is not as it should be.
    pub(crate) fn trouble(&mut self, n: usize) -> String {
        let key = format!("{ROOM}/{}", id(n));
        let all = self.world.engine().troubles();
        all.into_iter().find(|(_, item, _)| *item == key).map(|(_, _, why)| why).unwrap_or_default()
    }

    /// The process dies, and another one takes over when the claim has run out.
    pub(crate) fn restart(&mut self) {
        self.world.crash();
        let ttl = self.world.options.ttl;
        self.world.advance(ttl + 1_000);
    }
}

pub(crate) fn name(n: usize) -> String {
    format!("web{n}.example.com")
}

pub(crate) fn id(n: usize) -> String {
    format!("id-{n}")
}

fn row(id: &str, state: &str, document: Value) -> Value {
    json!({"id": id, "state": state, "document": document})
}

pub(crate) fn machine(n: usize, state: &str, vm: Value) -> Value {
    row(&id(n), state, json!({"image": "debian-12", "size": {"cpu": 1}, "vm": vm}))
}
