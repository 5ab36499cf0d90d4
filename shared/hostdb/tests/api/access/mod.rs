//! Who may do what, over HTTP: people, rules and tokens, and a server that asks.

mod around;
mod certificates;
mod counted;
mod cut_off;
mod guesses;
mod kept;
mod reads;
mod revoked;
mod routes;
mod sessions;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shoal_core::{Document, Edit, Expect, Proposal};
use shoal_hostdb::Limits;
use shoal_store::{Database, MemoryStore, Store};

use crate::harness::{Events, Running, problem, refused};
use crate::openapi::{example, operations};

/// The secret part of all tokens here.
const SECRET: &str = "5ecre7";

/// A server that asks, on a database with people: `root` administers, `ann` writes `lb/`, `bob` has no rights at all, `carl` reads,
/// and there are agents of `dns` and `vm`.
struct Guarded {
    server: Running,
    database: Database,
}

impl Guarded {
    async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    async fn with(limits: Limits) -> Self {
        Self::on(Arc::new(MemoryStore::new()), limits).await
    }

    async fn on(store: Arc<dyn Store>, limits: Limits) -> Self {
        let database = Database::open(store.clone()).await.unwrap();
        let this = Self { server: Running::guarded(store, limits).await, database };
        this.put(&[
            ("access/groups/admins", json!({"members": ["root"]})),
            ("access/groups/web", json!({"members": ["ann", "dora"]})),
            ("access/users/ann", json!({})),
            ("access/rules/lb", json!({"allow": {"@web": "rw", "*": "ro", "bob": "none"}})),
            ("access/rules/hosts", json!({"allow": {"@web": "rw", "*": "ro", "bob": "none"}})),
            ("access/rules/lb/secret", json!({"allow": {"root": "rw", "*": "none"}})),
            ("access/rules/lb/gold", json!({"protected": true})),
            (
                "schemas/vm",
                json!({"tag": true, "writes": {"facts": ["power"], "host_fields": ["place", "state"]}}),
            ),
        ])
        .await;
        for (id, owner) in [
            ("root", "root"),
            ("ann", "ann"),
            ("bob", "bob"),
            ("carl", "carl"),
            ("dora", "dora"),
            ("dns", "agent dns"),
            ("vm", "agent vm"),
        ] {
            this.token(id, owner, json!({})).await;
        }
        // To whom nothing is open, not even what no rule speaks of.
        this.token("none", "bob", json!({"scope": {"namespaces": []}})).await;
        this.edits(vec![
            json!({"edit": "put_host", "host": "web1.example.com", "document": {"address": "192.0.2.1"}}),
            json!({"edit": "put_host", "host": "web2.example.com", "document": {}}),
            json!({"edit": "put_tag", "tag": "lb/web", "document": {"port": 80}, "members": ["web1.example.com"]}),
            json!({"edit": "put_tag", "tag": "lb/secret", "document": {"key": "planted"}, "members": ["web1.example.com"]}),
            json!({"edit": "put_tag", "tag": "lb/gold", "document": {}, "members": []}),
            json!({"edit": "put_tag", "tag": "dns/example.com", "document": {"ttl": 300}, "members": ["web1.example.com"]}),
            json!({"edit": "write", "key": "facts/vm/web1.example.com", "value": {"up": true}}),
            json!({"edit": "write", "key": "pauses/host/web1.example.com", "value": {"why": "x"}}),
            json!({"edit": "write", "key": "approvals/dns", "value": {"digest": "x"}}),
            json!({"edit": "write", "key": "schemas/dns", "value": {"tag": true}}),
        ])
        .await;
        this
    }

    /// Writes rows as whoever can write the file does.
    async fn put(&self, rows: &[(&str, Value)]) {
        let edit = |(key, value): &(&str, Value)| Edit::Write {
            key: key.parse().unwrap(),
            value: Document::from(value.clone()),
            expect: Expect::Any,
        };
        self.commit(rows.iter().map(edit).collect()).await;
    }

    async fn edits(&self, edits: Vec<Value>) {
        self.commit(edits.into_iter().map(|edit| serde_json::from_value(edit).unwrap()).collect()).await;
    }

    async fn commit(&self, edits: Vec<Edit>) {
        self.database.transact(Proposal::new("setup", "setup", edits)).await.unwrap();
    }

    async fn token(&self, id: &str, owner: &str, more: Value) {
        let hash: String = Sha256::digest(SECRET).iter().map(|b| format!("{b:02x}")).collect();
        let mut row = json!({"owner": owner, "hash": hash, "created": Timestamp::now()});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.put(&[(&format!("access/tokens/{id}"), row)]).await;
    }

    async fn delete(&self, key: &str) {
        let edit = Edit::Delete { key: key.parse().unwrap(), follow: false, expect: Expect::Any };
        self.commit(vec![edit]).await;
    }

    fn ask(&self, who: &str, method: &str, path: &str) -> RequestBuilder {
        self.server.ask(method, path).bearer_auth(bearer(who))
    }

    fn write(&self, who: &str, method: &str, path: &str, body: &Value) -> RequestBuilder {
        self.server.write(method, path, body).bearer_auth(bearer(who))
    }

    async fn get(&self, who: &str, path: &str) -> Value {
        let response = self.ask(who, "GET", path).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status.as_u16(), 200, "{who} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn post(&self, who: &str, path: &str, body: &Value) -> (u16, Value) {
        let response = self.write(who, "POST", path, body).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

fn bearer(who: &str) -> String {
    format!("shoal_{who}_{SECRET}")
}
