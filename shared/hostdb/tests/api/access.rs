//! Who may do what, over HTTP: every route, with and without a token; what refuses; what a revoked token can still do.

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
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
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
            ("schemas/vm", json!({"tag": true, "writes": {"facts": ["power"], "host_fields": ["place", "state"]}})),
        ])
        .await;
        for (id, owner) in
            [("root", "root"), ("ann", "ann"), ("bob", "bob"), ("carl", "carl"), ("dora", "dora"), ("dns", "agent dns"), ("vm", "agent vm")]
        {
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

#[tokio::test]
async fn a_write_is_refused_by_the_rule_that_is_named() {
    let g = Guarded::new().await;
    let done = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": 81}}));
    assert_eq!(done.send().await.unwrap().status(), 200);
    let says = ["carl may not write lb/web", "access/rules/lb: * has data ro", "shoal acl set lb/web"];
    let body = refused(g.write("carl", "PUT", "/api/v2/tags/lb/web", &json!({"document": {}})), 403, "denied", &says).await;
    assert_eq!(body["rule"], "access/rules/lb: * has data ro, members ro");
    assert_eq!((&body["attempted"], &body["principal"]), (&json!("write lb/web"), &json!("carl")));
    // Where no row speaks, too.
    let body = refused(g.write("ann", "PUT", "/api/v2/tags/dns/x", &json!({"document": {}})), 403, "denied", &[]).await;
    assert!(body["rule"].as_str().unwrap().starts_with("built-in:"), "{body}");
    // What follows counts: the host is in a tag that ann may not write.
    let body = refused(g.write("ann", "DELETE", "/api/v2/hosts/web1.example.com", &Value::Null), 403, "denied", &[]).await;
    assert_eq!(body["attempted"], "write the members of dns/example.com");
    assert_eq!(g.write("ann", "DELETE", "/api/v2/hosts/web2.example.com", &Value::Null).send().await.unwrap().status(), 200);
    // A dry run says the same.
    let plan = json!({"edits": [{"edit": "set_state", "host": "web1.example.com", "state": "draining"}]});
    assert_eq!(g.post("carl", "/api/v2/commits?plan", &plan).await.0, 403);
    assert_eq!(g.post("ann", "/api/v2/commits?plan", &plan).await.0, 200);
    g.server.stop().await;
}

/// Of every route of the document: nobody gets in without a token, and who has no rights gets a refusal, or nothing.
#[tokio::test]
async fn no_route_is_forgotten() {
    let g = Guarded::new().await;
    let document = g.server.get("/api/v2/openapi.json").await;
    let open = ["GET /healthz", "GET /readyz", "GET /api/v2/openapi.json", "POST /api/v2/sessions"];
    let (mut opened, mut asked, mut said) = (Vec::new(), 0, Vec::new());
    for (method, path, entry) in operations(&document) {
        let name = format!("{method} {path}");
        let at = example(&document, path, entry);
        let body = body(&name);
        let request = |request: RequestBuilder| {
            let request = request.header("shoal-author", "x").header("shoal-message", "m");
            match (&body, method.as_str()) {
                (Some(body), "PATCH") => request
                    .header("content-type", "application/merge-patch+json")
                    .body(body.to_string()),
                (Some(body), _) => request.json(body),
                (None, _) => request,
            }
        };
        if entry["security"] == json!([]) {
            opened.push(name);
            continue;
        }
        assert_eq!(entry.get("security"), None, "{name}");
        for bad in [None, Some("Bearer nonsense"), Some("Bearer shoal_none_wrong"), Some("Basic x")] {
            let mut asks = request(g.server.ask(&method, &at));
            if let Some(bad) = bad {
                asks = asks.header("authorization", bad);
            }
            let response = asks.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"shoal\"", "{name}");
            let refused = problem(response, 401, "unauthenticated", &[]).await;
            assert!(refused["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{name}: {refused}");
        }
        let query = query(&name);
        let response = request(g.ask("none", &method, &format!("{at}{query}"))).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        let harmless = ["GET /metrics", "GET /api/v2/store/head", "GET /api/v2/whoami", "GET /api/v2/can", "DELETE /api/v2/sessions"];
        match status {
            403 => {
                let refused: Value = serde_json::from_str(&text).unwrap();
                assert!(refused["rule"].as_str().is_some_and(|rule| !rule.is_empty()), "{name}: {text}");
            }
            // Nothing of the database is in it.
            200 | 204 if harmless.contains(&name.as_str()) => {}
            200 => {
                let list: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(list["items"], json!([]), "{name}: {text}");
                // It says that it left something out, where there is something.
                let none = ["GET /api/v2/claims", "GET /api/v2/status", "GET /api/v2/store/claims", "GET /api/v2/store/reports"];
                assert!(none.contains(&name.as_str()) || list["hidden"].as_u64() > Some(0), "{name}: {text}");
                said.push(name.clone());
            }
            _ => panic!("{name}{query}: {status} {text}"),
        }
        // The token ended itself.
        if name == "DELETE /api/v2/sessions" {
            g.token("none", "bob", json!({"scope": {"namespaces": []}})).await;
        }
        assert!(!text.contains("planted"), "{name}: {text}");
        asked += 1;
    }
    opened.sort();
    let mut open: Vec<String> = open.map(str::to_owned).into();
    open.sort();
    assert_eq!(opened, open);
    assert!(asked > 60, "{asked}");
    assert!(said.len() > 5, "{said:?}");
    g.server.stop().await;
}

/// A body that is well formed, for what has one.
fn body(name: &str) -> Option<Value> {
    let key = "hosts/web1.example.com";
    let claim = json!({"name": "unit/dns/a", "slot": 0, "holder": "h", "number": 1, "ttl": null});
    Some(match name {
        "PUT /api/v2/hosts/{fqdn}" | "PUT /api/v2/tags/{ns}/{key}" => json!({"document": {}}),
        "PUT /api/v2/tags/{ns}/{key}/members" => json!([]),
        "POST /api/v2/commits" => json!({"edits": [{"edit": "delete", "key": key}]}),
        "POST /api/v2/rollback" => json!({"to": 1, "keys": [key]}),
        "POST /api/v2/store/read" => json!({"range": "all", "limit": 10}),
        "POST /api/v2/store/log" => json!({"range": "all", "limit": 10}),
        "POST /api/v2/store/watch" => json!({"ranges": ["all"], "after": {"epoch": 1, "revision": 0}}),
        "POST /api/v2/store/commit" => json!({"changes": [{"key": key, "value": null}], "author": "x", "message": "m"}),
        "POST /api/v2/store/claim" => json!({"name": "unit/dns/a", "of": 1, "holder": "h", "ttl": null}),
        "POST /api/v2/store/release" => claim,
        "POST /api/v2/store/ledger/read" => json!({"prefix": "dns/", "limit": 1}),
        "POST /api/v2/store/ledger/write" => json!({"rows": [{"key": "dns/a/0", "value": null}], "held": claim}),
        "POST /api/v2/store/report" => json!({"agent": "dns", "instance": "i", "epoch": 1, "seen": 1,
            "at": "2026-01-01T00:00:00Z", "expires": null, "units": {}}),
        "PUT /api/v2/access/{rest}" => json!({}),
        "PUT /api/v2/pauses/{rest}" => json!({"why": "x"}),
        "PUT /api/v2/schemas/{rest}" => json!({"tag": true}),
        "PUT /api/v2/approvals/{rest}" => json!({"digest": "x"}),
        _ if name.starts_with("PUT") || name.starts_with("PATCH") => json!({}),
        _ => return None,
    })
}

/// What a route cannot do without.
fn query(name: &str) -> &'static str {
    match name {
        "GET /api/v2/diff" => "?from=1",
        "GET /api/v2/search" => "?where=true",
        "GET /api/v2/can" => "?verb=read&on=lb/web",
        _ => "",
    }
}

#[tokio::test]
async fn a_revoked_token_ends_its_watch_and_writes_nothing() {
    let g = Guarded::new().await;
    let mut events = Events::open(g.ask("ann", "GET", "/api/v2/watch?prefix=hosts/")).await;
    g.edits(vec![json!({"edit": "set_state", "host": "web2.example.com", "state": "draining"})]).await;
    events.next_named("commit").await;
    g.delete("access/tokens/ann").await;
    let end = events.next_named("error").await;
    assert_eq!((&end.data["status"], &end.data["type"]), (&json!(401), &json!("urn:shoal:problem:unauthenticated")));
    assert!(end.data["detail"].as_str().unwrap().contains("revoked"), "{}", end.data);
    assert_eq!(events.next().await, None);
    let write = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {}}));
    refused(write, 401, "unauthenticated", &["revoked"]).await;
    // One that expires meanwhile, and one whose rights were taken away.
    let soon = Timestamp::now() + Duration::from_millis(1500);
    g.token("soon", "carl", json!({"expires": soon})).await;
    let mut expires = Events::open(g.ask("soon", "GET", "/api/v2/watch?prefix=hosts/")).await;
    let mut loses = Events::open(g.ask("carl", "GET", "/api/v2/watch?prefix=lb/web/members/")).await;
    assert!(expires.next_named("error").await.data["detail"].as_str().unwrap().contains("expired"));
    g.put(&[("access/rules/lb/web", json!({"allow": {"*": "none"}}))]).await;
    let end = loses.next_named("error").await;
    assert_eq!((&end.data["status"], &end.data["rule"]), (&json!(403), &json!("access/rules/lb/web: * has data none, members none")));
    refused(g.ask("soon", "GET", "/api/v2/hosts"), 401, "unauthenticated", &["expired"]).await;
    g.server.stop().await;
}

/// Ranges are answered whole or not at all; lists leave out and say how many; nobody sees a hash.
#[tokio::test]
async fn what_one_may_not_read_is_refused_or_counted() {
    let g = Guarded::new().await;
    for range in [json!("all"), json!({"prefix": "lb/"}), json!({"key": "lb/secret"}), json!({"naming": "web1.example.com"})] {
        let body = json!({"range": range, "limit": 10});
        let (status, refused) = g.post("carl", "/api/v2/store/read", &body).await;
        assert_eq!(status, 403, "{range}");
        assert!(refused["rule"].as_str().unwrap().starts_with("access/rules/lb/secret: *"), "{refused}");
        assert!(refused["store_error"]["denied"].as_str().unwrap().contains("lb/secret"), "{refused}");
    }
    let (status, page) = g.post("carl", "/api/v2/store/read", &json!({"range": {"prefix": "hosts/"}, "limit": 10})).await;
    assert_eq!((status, page["rows"].as_array().unwrap().len()), (200, 2));
    let tags = g.get("carl", "/api/v2/tags/lb").await;
    assert_eq!((&tags["items"].as_array().unwrap().len(), &tags["hidden"]), (&2, &json!(1)));
    let of = g.get("carl", "/api/v2/hosts/web1.example.com/tags").await;
    assert_eq!((&of["items"].as_array().unwrap().len(), &of["hidden"]), (&2, &json!(1)));
    for path in ["/api/v2/tags/lb/secret", "/api/v2/history/lb/secret", "/api/v2/blame/lb/secret", "/api/v2/effective/lb/secret",
        "/api/v2/tags/lb/secret/members", "/api/v2/tags/lb/secret/members/web1.example.com", "/api/v2/watch?tag=lb/secret"] {
        let body = refused(g.ask("carl", "GET", path), 403, "denied", &[]).await;
        assert!(body["rule"].as_str().unwrap().contains("lb/secret"), "{path}: {body}");
    }
    let setup = format!("/api/v2/commits/{}", g.database.view().revision());
    let all = [g.get("carl", "/api/v2/commits").await, g.get("carl", "/api/v2/diff?from=0").await, g.get("carl", &setup).await];
    for list in &all {
        assert!(!list.to_string().contains("secret"), "{list}");
    }
    assert!(all[0]["hidden"].as_u64().unwrap() > 5 && all[1]["hidden"].as_u64().unwrap() > 5, "{all:?}");
    assert_eq!(all[2]["hidden"], 2, "{all:?}");
    // What is below `access/` is in no wider range, and its hashes in none.
    g.delete("access/rules/lb/secret").await;
    let (_, page) = g.post("carl", "/api/v2/store/read", &json!({"range": "all", "limit": 1000})).await;
    let keys: Vec<&str> = page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"lb/secret") && keys.iter().all(|key| !key.starts_with("access/")), "{keys:?}");
    let hash: String = Sha256::digest(SECRET).iter().map(|b| format!("{b:02x}")).collect();
    let mut watch = Events::open(g.ask("root", "GET", "/api/v2/watch?after=0")).await;
    let mut shown = String::new();
    for (method, path, body) in [
        ("POST", "/api/v2/store/read", json!({"range": "all", "limit": 1000})),
        ("POST", "/api/v2/store/log", json!({"range": {"prefix": "access/"}, "limit": 1000})),
        ("GET", "/api/v2/access", json!(null)),
        ("GET", "/api/v2/access/tokens/ann", json!(null)),
        ("GET", "/api/v2/history/access/tokens/ann", json!(null)),
        ("GET", "/api/v2/diff?from=0&prefix=access/", json!(null)),
        ("GET", "/api/v2/commits", json!(null)),
    ] {
        let response = g.write("root", method, path, &body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        shown += &response.text().await.unwrap();
        let own = path.starts_with("/api/v2/access") || path.contains("/access/tokens") || path.ends_with("/log");
        if own {
            refused(g.write("carl", method, path, &body), 403, "denied", &["access/ is for administrators"]).await;
        }
    }
    for _ in 0..8 {
        shown += &watch.next_named("commit").await.data.to_string();
    }
    assert!(shown.contains("access/tokens/ann") && shown.contains("(hidden)") && !shown.contains(&hash), "{shown}");
    g.server.stop().await;
}

#[tokio::test]
async fn an_agent_writes_its_own_and_what_its_manifest_declares() {
    let g = Guarded::new().await;
    let commit = async |who: &str, key: &str, value: Value| {
        let body = json!({"changes": [{"key": key, "value": value}], "author": "ann", "message": "m"});
        g.post(who, "/api/v2/store/commit", &body).await
    };
    assert_eq!(commit("dns", "facts/dns/web1.example.com", json!({"served": 1})).await.0, 200);
    assert_eq!(commit("dns", "schemas/dns", json!({"tag": {"type": "object"}})).await.0, 200);
    for (who, key, value, rule) in [
        ("dns", "facts/vm/web1.example.com", json!({}), "built-in: an agent"),
        ("dns", "facts/power/web1.example.com", json!({}), "built-in: an agent"),
        ("dns", "schemas/vm", json!({"tag": true}), "built-in: an agent"),
        ("dns", "dns/example.com", json!({}), "built-in: an agent"),
        ("dns", "schemas/dns", json!({"tag": true, "writes": {"host_fields": ["address"]}}), "schemas/dns: an agent does not widen"),
        ("dns", "access/rules/dns", json!({}), "built-in: access/ is for administrators"),
        ("dns", "pauses/host/web2.example.com", json!({"why": "x"}), "built-in: an agent"),
    ] {
        let (status, body) = commit(who, key, value).await;
        assert_eq!(status, 403, "{key}: {body}");
        assert!(body["rule"].as_str().unwrap().starts_with(rule), "{key}: {body}");
    }
    // Fields of hosts.
    let host = |document: Value, state: &str| {
        let rows = g.database.view().row(&"hosts/web1.example.com".parse().unwrap()).unwrap().value();
        json!({"id": rows["id"], "state": state, "document": document})
    };
    let with = |place: &str, address: &str| json!({"address": address, "place": place});
    assert_eq!(commit("vm", "hosts/web1.example.com", host(with("box1", "192.0.2.1"), "draining")).await.0, 200);
    assert_eq!(commit("vm", "facts/power/web1.example.com", json!({"on": true})).await.0, 200);
    let (status, body) = commit("vm", "hosts/web1.example.com", host(with("box2", "192.0.2.9"), "draining")).await;
    assert!(status == 403 && body["rule"].as_str().unwrap().contains("\"address\""), "{body}");
    assert_eq!(commit("vm", "hosts/web2.example.com", Value::Null).await.0, 403);
    assert_eq!(commit("dns", "hosts/web1.example.com", host(with("box3", "192.0.2.1"), "active")).await.0, 403);
    // A token may be narrower than the manifest.
    g.token("narrow", "agent vm", json!({"scope": {"writes": {"host_fields": ["state"]}}})).await;
    assert_eq!(commit("narrow", "hosts/web1.example.com", host(with("box9", "192.0.2.1"), "draining")).await.0, 403);
    assert_eq!(commit("narrow", "hosts/web1.example.com", host(with("box1", "192.0.2.1"), "active")).await.0, 200);
    // Claims, ledger and reports of its own alone; nobody speaks for another.
    let claim = |name: &str| json!({"name": name, "of": 1, "holder": "h", "ttl": {"secs": 60, "nanos": 0}});
    let (status, granted) = g.post("dns", "/api/v2/store/claim", &claim("unit/dns/a")).await;
    assert_eq!(status, 200, "{granted}");
    let held = granted["Granted"].clone();
    for (who, path, body, good) in [
        ("dns", "/api/v2/store/claim", claim("unit/vm/a"), false),
        ("ann", "/api/v2/store/claim", claim("unit/lb/a"), false),
        ("dns", "/api/v2/store/ledger/write", json!({"rows": [{"key": "dns/a/0", "value": "eA=="}], "held": held}), true),
        ("dns", "/api/v2/store/ledger/write", json!({"rows": [{"key": "vm/a/0", "value": "eA=="}], "held": held}), false),
        ("vm", "/api/v2/store/release", held.clone(), false),
        ("dns", "/api/v2/store/release", held.clone(), true),
    ] {
        let (status, body) = g.post(who, path, &body).await;
        assert_eq!(status < 300, good, "{who} {path}: {body}");
        assert!(good || body["rule"].as_str().is_some(), "{body}");
    }
    let log = g.get("root", "/api/v2/history/facts/dns/web1.example.com").await;
    assert_eq!((&log["items"][0]["author"], &log["items"][0]["principal"]), (&json!("agent dns"), &json!("agent dns")));
    assert!(log["items"][0]["origin"].as_str().unwrap().contains("token dns"), "{log}");
    g.server.stop().await;
}

#[tokio::test]
async fn what_is_protected_needs_a_second_person() {
    let g = Guarded::new().await;
    let put = |who: &'static str| g.write(who, "PUT", "/api/v2/tags/lb/gold/members/web1.example.com", &Value::Null);
    for who in ["ann", "root"] {
        let body = refused(put(who), 403, "denied", &["shoal review propose"]).await;
        assert_eq!(body["rule"], "access/rules/lb/gold: protected", "{who}");
    }
    let change = json!({"key": "lb/gold/members/web1.example.com", "value": {}});
    let now = |key: &str| g.database.view().revision_of(&key.parse().unwrap()).unwrap_or_default();
    let review = |proposer: &str, state: &str, reviewer: Option<&str>| {
        let mut row = json!({"proposer": proposer, "message": "more gold", "at": "2026-01-01T00:00:00Z", "changes": [change.clone()],
            "ground": {"lb/gold": now("lb/gold"), "lb/gold/members/web1.example.com": 0}, "state": state});
        if let Some(reviewer) = reviewer {
            row["reviewer"] = reviewer.into();
        }
        row
    };
    let write = |value: Value| json!({"edit": "write", "key": "access/reviews/r1", "value": value});
    let row = json!({"edit": "row", "key": change["key"], "value": {}});
    let commit = async |who: &str, edits: Value| g.post(who, "/api/v2/commits", &json!({"edits": edits})).await;
    // Only what one may write oneself, and under one's own name.
    assert_eq!(commit("carl", json!([write(review("carl", "open", None))])).await.0, 403);
    let (status, body) = commit("ann", json!([write(review("dora", "open", None))])).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(g.get("dora", "/api/v2/access/reviews/r1").await["document"]["proposer"], "ann");
    refused(g.ask("bob", "GET", "/api/v2/access/reviews/r1"), 403, "denied", &[]).await;
    let approve = |who: &str| write(review("ann", "approved", Some(who)));
    for (who, edits, why) in [
        ("ann", json!([approve("ann"), row]), "own proposal"),
        ("carl", json!([approve("carl"), row]), "access/rules/lb: *"),
        ("dora", json!([approve("dora")]), "exactly what was proposed"),
        ("dora", json!([approve("dora"), row, {"edit": "set_state", "host": "web2.example.com", "state": "draining"}]), "exactly"),
    ] {
        let (status, body) = commit(who, edits).await;
        assert_eq!(status, 403, "{who} {body}");
        assert!(body["rule"].as_str().unwrap().contains(why), "{who} {why}: {body}");
    }
    let (status, body) = commit("dora", json!([approve("dora"), row])).await;
    assert_eq!(status, 201, "{body}");
    let log = g.get("root", "/api/v2/history/lb/gold").await;
    assert_eq!((&log["items"][0]["author"], &log["items"][0]["principal"]), (&json!("ann"), &json!("dora")));
    // One whose ground has moved.
    let mut second = review("ann", "open", None);
    second["ground"]["lb/gold"] = json!(1);
    let write = |value: Value| json!({"edit": "write", "key": "access/reviews/r2", "value": value});
    assert_eq!(commit("ann", json!([write(second.clone())])).await.0, 201);
    (second["state"], second["reviewer"]) = (json!("approved"), json!("dora"));
    let (status, body) = commit("dora", json!([write(second), row])).await;
    assert_eq!(status, 403);
    assert!(body["rule"].as_str().unwrap().contains("lb/gold was at revision 1 and is at"), "{body}");
    g.server.stop().await;
}

#[tokio::test]
async fn sessions_begin_with_a_password_and_end() {
    let g = Guarded::new().await;
    // "correct horse", hashed with little effort.
    let hash = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRoZXJl$";
    let hash = format!("{hash}{}", argon2_of());
    g.put(&[("access/users/ann", json!({"password": hash}))]).await;
    let login = async |user: &str, password: &str| {
        let body = json!({"user": user, "password": password});
        g.server.ask("POST", "/api/v2/sessions").json(&body).send().await.unwrap()
    };
    for (user, password) in [("ann", "wrong"), ("ann", ""), ("nobody", "correct horse"), ("carl", "")] {
        problem(login(user, password).await, 401, "unauthenticated", &["this name and this password"]).await;
    }
    let began = login("ann", "correct horse").await;
    assert_eq!(began.status(), 201);
    let began: Value = began.json().await.unwrap();
    let token = began["token"].as_str().unwrap();
    let who = g.server.ask("GET", "/api/v2/whoami").bearer_auth(token).send().await.unwrap();
    assert_eq!(who.json::<Value>().await.unwrap()["principal"], "ann");
    let ended = g.server.ask("DELETE", "/api/v2/sessions").bearer_auth(token).send().await.unwrap();
    assert_eq!(ended.status(), 204);
    refused(g.server.ask("GET", "/api/v2/whoami").bearer_auth(token), 401, "unauthenticated", &[]).await;
    g.server.stop().await;
}

/// The hash part of that password.
fn argon2_of() -> String {
    use argon2::{Algorithm, Argon2, Params, Version};
    let params = Params::new(64, 1, 1, Some(32)).unwrap();
    let mut out = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(b"correct horse", b"somesalthere", &mut out)
        .unwrap();
    data_encoding::BASE64_NOPAD.encode(&out)
}

/// Other ways to write a key are the same key, or none.
#[tokio::test]
async fn tricks_in_paths_lead_nowhere() {
    let g = Guarded::new().await;
    for path in [
        "/api/v2/tags/lb/%73ecret",
        "/api/v2/tags/lb/secret?revision=11",
        "/api/v2/hosts/../tags/lb/secret",
        "/api/v2/tags/lb/x/../secret",
        "/api/v2/tags/lb/x%2F..%2Fsecret",
        "/api/v2/tags/lb%2Fsecret",
        "/api/v2//tags/lb/secret",
        "/api/v2/history/lb/secret/members/web1.example.com",
        "/api/v2/history/lb//secret",
        "/api/v2/facts/../access/tokens/ann",
        "/api/v2/facts/..%2Faccess%2Ftokens%2Fann",
        "/api/v2/facts/vm/..%2F..%2Faccess/tokens/ann",
        "/api/v2/access/tokens/ann",
        "/api/v2/access/tokens%2Fann",
        "/api/v2/history/access/tokens/ann",
        "/api/v2/facts?prefix=access/",
        "/api/v2/schemas?prefix=schemas/../access/",
        "/api/v2/tags/access",
        "/api/v2/tags/access/tokens",
        "/api/v2/watch?prefix=access/",
        "/api/v2/watch?key=access/tokens/ann",
        "/api/v2/commits?prefix=access/",
    ] {
        let response = g.ask("carl", "GET", path).send().await.unwrap();
        let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
        assert!(!text.contains("planted") && !text.contains("hash"), "{path}: {text}");
        let empty = status == 200 && text.contains("\"items\":[]");
        assert!((400..500).contains(&status) || empty, "{path}: {status} {text}");
    }
    // A rule about a host is about it however it is written.
    g.put(&[("access/rules/hosts/WEB1.example.com", json!({"allow": {"*": "none"}}))]).await;
    for path in ["/api/v2/hosts/web1.example.com", "/api/v2/hosts/WEB1.Example.com.", "/api/v2/history/hosts/WEB1.example.com"] {
        let body = refused(g.ask("carl", "GET", path), 403, "denied", &[]).await;
        assert!(body["rule"].as_str().unwrap().starts_with("access/rules/hosts/web1.example.com"), "{path}: {body}");
    }
    g.server.stop().await;
}

#[tokio::test]
async fn anonymous_reads_what_a_rule_gives_them_and_no_more() {
    let g = Guarded::new().await;
    g.put(&[("access/rules/dns", json!({"allow": {"anonymous": {"data": "ro"}, "*": "ro"}}))]).await;
    let status = async |method: &str, path: &str| g.server.write(method, path, &json!({"document": {}})).send().await.unwrap().status().as_u16();
    assert_eq!(status("GET", "/api/v2/effective/dns/example.com").await, 200);
    for (method, path) in [("GET", "/api/v2/tags/dns/example.com/members"), ("GET", "/api/v2/hosts/web1.example.com"),
        ("PUT", "/api/v2/tags/dns/example.com"), ("GET", "/api/v2/access/tokens/ann"), ("GET", "/api/v2/watch")] {
        assert_eq!(status(method, path).await, 401, "{method} {path}");
    }
    g.server.stop().await;
}

/// Below `/v1` reads need no session unless a rule forbids them, and writes need one that may.
#[tokio::test]
async fn hostdb_v1_has_the_same_rules() {
    let mut g = Guarded::new().await;
    let v1 = Running::guarded_v1(g.database.store().clone()).await;
    std::mem::replace(&mut g.server, v1).stop().await;
    let get = async |path: &str| {
        let response = g.server.ask("GET", path).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/v1/hosts/web1.example.com").await.0, 200);
    assert_eq!(get("/v1/dns/example.com/members?raw=true").await, (200, "web1.example.com".to_owned()));
    for path in ["/v1/lb/secret", "/v1/lb/secret/key", "/v1/lb/secret/members?raw=true", "/v1/lb?meta=revisions", "/v1/lb",
        "/v1/lb/secret?meta=revisions", "/v1/lb/secret?meta=blame", "/v1/lb/*?foreach=lb", "/v1/access?meta=revisions",
        "/v1/hosts/web1.example.com?meta=derived&from=lb", "/v1/access/tokens/ann"] {
        let (status, text) = get(path).await;
        assert!([401, 403, 404].contains(&status) && !text.contains("planted"), "{path}: {status} {text}");
    }
    let put = async |session: &str| {
        let form = format!("log=why&value=port: 1&session={session}");
        g.server.ask("PUT", "/v1/lb/web").header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap()
    };
    let status = async |session: &str| put(session).await.status().as_u16();
    assert_eq!((status("").await, status("ann").await, status(&bearer("carl")).await, status(&bearer("ann")).await), (401, 401, 403, 201));
    let reason = put(&bearer("carl")).await.headers()["calltrace"].to_str().unwrap().to_owned();
    assert!(reason.contains("access/rules/lb: * has data ro"), "{reason}");
    assert_eq!(get("/v1/auth/can_modify?user=ann&id=lb/web").await.1, "1");
    assert_eq!(get("/v1/auth/can_modify?user=carl&id=lb/web").await.1, "0");
    g.server.stop().await;
}
