//! The store over HTTP, row by row.

use serde_json::json;

use crate::harness::{Events, Running, refused};

fn put(key: &str, value: serde_json::Value) -> serde_json::Value {
    json!({"changes": [{"key": key, "value": value}], "author": "ann", "message": "m"})
}

#[tokio::test]
async fn rows_are_committed_read_and_logged() {
    let server = Running::new().await;
    let done = server.post("/api/v2/store/commit", &put("facts/vm/web1", json!({"a": 1}))).await;
    assert_eq!(done["revision"], 1);
    let page = server.post("/api/v2/store/read", &json!({"range": "all", "limit": 10})).await;
    assert_eq!(page["rows"][0]["key"], "facts/vm/web1");
    assert_eq!(page["rows"][0]["value"], json!({"a": 1}));
    assert_eq!(server.get("/api/v2/store/head").await["revision"], 1);
    let log = server.post("/api/v2/store/log", &json!({"range": {"prefix": "facts/"}, "limit": 5})).await;
    assert_eq!(log[0]["author"], "ann");
    server.stop().await;
}

#[tokio::test]
async fn refusals_carry_the_error_of_the_store() {
    let server = Running::new().await;
    let mut commit = put("facts/vm/web1", json!({}));
    commit["pre"] = json!([{"exists": "facts/vm/web1"}]);
    let request = server.ask("POST", "/api/v2/store/commit").json(&commit);
    let problem = refused(request, 409, "conflict", &["facts/vm/web1 does not exist"]).await;
    assert_eq!(problem["store_error"]["conflict"]["pre"]["exists"], "facts/vm/web1");
    let request = server.ask("POST", "/api/v2/store/commit").json(&put("hosts/web1", json!({"a": 1})));
    refused(request, 422, "invalid", &["hosts/web1", "unknown field `a`"]).await;
    let request = server.ask("POST", "/api/v2/store/commit").json(&put("nonsense", json!({})));
    refused(request, 422, "invalid", &["changes[0].key", "namespace/key"]).await;
    server.stop().await;
}

#[tokio::test]
async fn claims_and_the_ledger_travel_whole() {
    let server = Running::new().await;
    let want = json!({"name": "unit/dns/a", "of": 1, "holder": "me", "ttl": null});
    let claim = server.post("/api/v2/store/claim", &want).await["Granted"].clone();
    assert_eq!(claim["holder"], "me");
    assert_eq!(server.get("/api/v2/claims?name=unit/").await["items"][0]["number"], claim["number"]);
    // Octets that are not text survive.
    let write = json!({"rows": [{"key": "dns/a/0", "value": "AP9h"}], "held": claim});
    server.post("/api/v2/store/ledger/write", &write).await;
    let page = server.post("/api/v2/store/ledger/read", &json!({"prefix": "dns/", "limit": 5})).await;
    assert_eq!(page, json!({"rows": [{"key": "dns/a/0", "value": "AP9h"}], "more": false}));
    server.post("/api/v2/store/release", &claim).await;
    let request = server.ask("POST", "/api/v2/store/ledger/write").json(&write);
    refused(request, 409, "fenced", &["no longer held"]).await;
    server.stop().await;
}

#[tokio::test]
async fn reports_come_back_as_they_were_said() {
    let server = Running::new().await;
    let status = json!({
        "agent": "dns", "instance": "i1", "epoch": 1, "seen": 3, "at": "2026-01-01T00:00:00Z", "expires": null,
        "units": {"dns/a": {"items": 1, "behind": [], "behind_total": 0, "held_total": 0, "left_out_total": 0, "clashes_total": 0}},
        "quarantined": [], "quarantined_total": 0
    });
    server.post("/api/v2/store/report", &status).await;
    assert_eq!(server.get("/api/v2/status").await, json!({"revision": 0, "items": [status]}));
    server.stop().await;
}

/// Every item once, in pages of two.
async fn turned(server: &Running, path: &str, mark: char) -> Vec<serde_json::Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}{mark}limit=2{after}")).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2 && page["revision"] == 0, "{page}");
        all.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('#', "%23")),
            None => return all,
        }
    }
}

#[tokio::test]
async fn claims_and_reports_come_in_pages() {
    let server = Running::new().await;
    for (name, holder) in
        [("unit/b", "x"), ("unit/a#1", "x"), ("slots", "x"), ("slots", "y"), ("unit/a", "x")]
    {
        let want = json!({"name": name, "of": 2, "holder": holder, "ttl": null});
        server.post("/api/v2/store/claim", &want).await;
    }
    for (agent, instance) in [("lb", "a"), ("dns", "z"), ("dns", "a/b"), ("dns", "a")] {
        let status = json!({
            "agent": agent, "instance": instance, "epoch": 1, "seen": 3, "at": "2026-01-01T00:00:00Z", "expires": null,
            "units": {}
        });
        server.post("/api/v2/store/report", &status).await;
    }
    let claims = turned(&server, "/api/v2/claims?name=", '&').await;
    let claims: Vec<_> = claims.iter().map(|c| format!("{} {}", c["name"], c["slot"])).collect();
    assert_eq!(claims, ["\"slots\" 0", "\"slots\" 1", "\"unit/a\" 0", "\"unit/a#1\" 0", "\"unit/b\" 0"]);
    assert_eq!(turned(&server, "/api/v2/store/claims?name=unit/a", '&').await.len(), 2);
    let reports = turned(&server, "/api/v2/status", '?').await;
    let reports: Vec<_> = reports.iter().map(|r| format!("{}/{}", r["agent"], r["instance"])).collect();
    assert_eq!(reports, ["\"dns\"/\"a\"", "\"dns\"/\"a/b\"", "\"dns\"/\"z\"", "\"lb\"/\"a\""]);
    for bad in ["/api/v2/claims?after=unit", "/api/v2/claims?after=unit%23x", "/api/v2/status?after=dns"] {
        refused(server.ask("GET", bad), 400, "bad-request", &["is not the `next` of an earlier page"]).await;
    }
    refused(server.ask("GET", "/api/v2/status?limit=0"), 400, "bad-request", &["out of bounds"]).await;
    server.stop().await;
}

/// An instance with very many units says much; a page of such reports ends early.
#[tokio::test]
async fn a_page_of_large_reports_ends_early() {
    let server = Running::new().await;
    let why = "x".repeat(1_900_000);
    for n in 0..12 {
        let status = json!({
            "agent": "dns", "instance": format!("i{n:02}"), "epoch": 1, "seen": 3, "at": "2026-01-01T00:00:00Z",
            "expires": null, "units": {}, "quarantined": [{"what": "a", "why": why, "since": 1}]
        });
        server.post("/api/v2/store/report", &status).await;
    }
    let page = server.get("/api/v2/status").await;
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (8, &json!("dns/i07")));
    let rest = server.get("/api/v2/status?after=dns/i07").await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 4);
    server.stop().await;
}

#[tokio::test]
async fn a_watch_of_rows_starts_where_it_is_told() {
    let server = Running::new().await;
    server.post("/api/v2/store/commit", &put("facts/vm/a", json!({"n": 1}))).await;
    server.post("/api/v2/store/commit", &put("facts/dns/a", json!({"n": 2}))).await;
    let head = server.get("/api/v2/store/head").await;
    let body =
        json!({"ranges": [{"prefix": "facts/dns/"}], "after": {"epoch": head["epoch"], "revision": 0}});
    let mut events = Events::open(server.ask("POST", "/api/v2/store/watch").json(&body)).await;
    let event = events.next().await.unwrap();
    assert_eq!((event.name.as_str(), &event.data["changes"][0]["key"]), ("commit", &json!("facts/dns/a")));
    assert_eq!(event.id, format!("{}-2", head["epoch"]));
    assert_eq!(events.next().await.unwrap().name, "upto");
    server.stop().await;
    assert_eq!(events.next().await, None, "a watch ends with its server");
}

/// Rows are checked as every other write is: nobody makes nonsense by this way round.
#[tokio::test]
async fn rows_that_mean_nonsense_are_refused_whole() {
    let server = Running::new().await;
    let host = |id: &str| json!({"id": id, "document": {}});
    let rows = |list: serde_json::Value| json!({"changes": list, "author": "ann", "message": "m"});
    let fleet = json!([
        {"key": "hosts/web1", "value": host("h1")},
        {"key": "dns/a", "value": {"document": {"ttl": 1}}},
        {"key": "dns/a/members/web1", "value": {}},
        {"key": "dns/b", "value": {"document": {}}},
        {"key": "dns/b/members/@a", "value": {}},
        {"key": "schemas/dns", "value": {"tag": {"type": "object", "properties": {"ttl": {"type": "integer"}}}}}
    ]);
    assert_eq!(server.post("/api/v2/store/commit", &rows(fleet)).await["changed"], 6);
    let fine = json!({"key": "facts/vm/web1", "value": {"a": 1}});
    for (code, says, bad) in [
        ("cycle", "dns/b", json!({"key": "dns/a/members/@b", "value": {}})),
        ("unknown-member", "web9", json!({"key": "dns/a/members/web9", "value": {}})),
        ("missing", "dns/none", json!({"key": "dns/none/members/web1", "value": {}})),
        ("bad-rule", "dns/a", json!({"key": "dns/a/members/select: site ==", "value": {}})),
        ("tag-breaks-schema", "/ttl", json!({"key": "dns/a", "value": {"document": {"ttl": "soon"}}})),
        ("bad-schema", "schemas/dns", json!({"key": "schemas/dns", "value": {"tag": {"type": 7}}})),
        ("named", "dns/a", json!({"key": "hosts/web1", "value": null})),
        ("nested", "dns/b", json!({"key": "dns/a", "value": null})),
        ("form", "members must go", json!({"key": "dns/b", "value": null})),
        ("form", "empty map", json!({"key": "dns/b/members/web1", "value": {"x": 1}})),
        ("id", "h1", json!({"key": "hosts/web2", "value": host("h1")})),
        ("twice", "facts/vm/web1", fine.clone()),
    ] {
        let request = server.ask("POST", "/api/v2/store/commit").json(&rows(json!([fine, bad])));
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let problem: serde_json::Value = response.json().await.unwrap();
        assert_eq!(problem["code"], code, "{problem}");
        assert!(matches!(status, 404 | 409 | 422), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says) || problem["key"] == says, "{problem}");
        assert!(problem["store_error"]["invalid"].is_string(), "{problem}");
    }
    let half = json!([{"key": "hosts/web1", "value": null, "moved": "hosts/web3"}]);
    let half = server.ask("POST", "/api/v2/store/commit").json(&rows(half));
    refused(half, 422, "invalid", &["hosts/web3", "rename"]).await;
    assert_eq!(server.get("/api/v2/store/head").await["revision"], 1, "nothing was written");

    // What hangs together may go together, under any name.
    let whole = json!([
        {"key": "hosts/web1", "value": null, "moved": "hosts/web2"},
        {"key": "hosts/web2", "value": host("h1"), "moved": "hosts/web1"},
        {"key": "dns/a/members/web1", "value": null},
        {"key": "dns/a/members/web2", "value": {}}
    ]);
    server.post("/api/v2/store/commit", &rows(whole)).await;
    assert_eq!(server.get("/api/v2/hosts/web2").await["id"], "h1");
    server.stop().await;
}

#[tokio::test]
async fn rows_that_are_sent_again_are_done_once() {
    let server = Running::new().await;
    let mut first = put("facts/vm/web1", json!({"a": 1}));
    first["idempotency"] = json!("k");
    let done = server.post("/api/v2/store/commit", &first).await;
    server.post("/api/v2/store/commit", &put("facts/vm/web1", json!({"a": 2}))).await;
    let again = server.post("/api/v2/store/commit", &first).await;
    assert_eq!((&again["replayed"], &again["revision"]), (&json!(true), &done["revision"]));
    // Derived anew from a newer database, it is the same.
    let mut derived = put("facts/vm/web1", json!({"a": 3}));
    (derived["idempotency"], derived["intent"]) = (json!("k2"), json!("count web1"));
    server.post("/api/v2/store/commit", &derived).await;
    derived["changes"][0]["value"] = json!({"a": 4});
    assert_eq!(server.post("/api/v2/store/commit", &derived).await["replayed"], true);
    server.stop().await;
}
