//! A database with hosts, and one that chooses: for tests.
#![allow(dead_code, unreachable_pub, reason = "each user takes some of it")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use shoal_agent::chooser::{Choice, How, pass};
use shoal_core::{Document, Edit, Expect, Key, Lifecycle, Proposal};
use shoal_placement::agent::Placement;
use shoal_store::Database;
use shoal_store_sqlite::SqliteStore;

pub async fn open(path: &Path) -> Database {
    Database::open(Arc::new(SqliteStore::open(path).await.unwrap())).await.unwrap()
}

pub fn host(name: &str, state: Lifecycle, document: &Value) -> Edit {
    Edit::PutHost {
        host: name.parse().unwrap(),
        id: None,
        state: Some(state),
        owner: None,
        environment: None,
        expires: None,
        document: Document::of(document).unwrap(),
        expect: Expect::Any,
    }
}

/// A box with room for so many processors.
pub fn a_box(cpu: u64) -> Edit {
    host("box.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": cpu}}}))
}

pub async fn put(database: &Database, edits: Vec<Edit>) {
    database.transact(Proposal::new("ann", "a fleet", edits)).await.unwrap();
}

pub fn how(instance: u64) -> How {
    How { author: format!("placement-{instance}"), instance, most: 7, attempts: 200, only: None, at: None }
}

pub fn chosen(choice: &Choice) -> Vec<String> {
    choice.chosen.iter().map(|one| format!("{} {} {}", one.verb, one.host, one.with)).collect()
}

pub fn settled(host: &str, state: Lifecycle) -> Edit {
    Edit::SetState { host: host.parse().unwrap(), state, expect: Expect::Any }
}

pub async fn choose(database: &Database) -> Choice {
    pass(database, &Placement::default(), &how(0)).await.unwrap().choice
}

pub fn renamed(from: &str, to: &str) -> Edit {
    let key = |name: &str| Key::host(&name.parse().unwrap());
    Edit::Rename { from: key(from), to: key(to), expect: Expect::Any }
}

pub fn deleted(host: &str) -> Edit {
    Edit::Delete { key: Key::host(&host.parse().unwrap()), follow: false, expect: Expect::Any }
}
