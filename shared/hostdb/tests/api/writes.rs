//! Writing hosts, tags, members and facts: every verb, what it answers, and what it refuses.

use serde_json::{Value, json};

use crate::harness::{Running, refused};

const WEB1: &str = "/api/v2/hosts/web1.example.com";
const ZONE: &str = "/api/v2/tags/dns/example.com";

async fn ok(server: &Running, method: &str, path: &str, body: Value) -> Value {
    let response = server.write(method, path, &body).send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{method} {path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// One host and one tag with it.
async fn small() -> Running {
    let server = Running::new().await;
    ok(&server, "PUT", WEB1, json!({"document": {"address": "192.0.2.1"}})).await;
    ok(&server, "PUT", ZONE, json!({"document": {"ttl": 300}, "members": ["web1.example.com"]})).await;
    server
}

#[tokio::test]
async fn a_host_lives_and_dies() {
    let server = Running::new().await;
    let made = server
        .write("PUT", WEB1, &json!({"document": {"a": 1, "b": 2}, "owner": "web"}))
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    assert_eq!(made.headers()["etag"], "\"r1\"");
    let done: Value = made.json().await.unwrap();
    assert_eq!((&done["revision"], &done["changed"]), (&json!(1), &json!(1)));
    let host = server.get(WEB1).await;
    assert_eq!((&host["state"], &host["owner"]), (&json!("active"), &json!("web")));

    let again = ok(&server, "PUT", WEB1, json!({"document": {"a": 1, "b": 2}, "owner": "web"})).await;
    assert_eq!(again["changed"], 0, "what stands there already is no commit");

    let patch = server
        .write("PATCH", WEB1, &json!({"document": {"b": null, "c": 3}, "state": "draining"}))
        .header("content-type", "application/merge-patch+json");
    // The JSON helper set another type first; the last one counts.
    let mut patch = patch.build().unwrap();
    patch.headers_mut().insert("content-type", "application/merge-patch+json".parse().unwrap());
    let patched = reqwest::Client::new().execute(patch).await.unwrap();
    assert_eq!(patched.status(), 200);
    let host = server.get(WEB1).await;
    assert_eq!((&host["document"], &host["state"]), (&json!({"a": 1, "c": 3}), &json!("draining")));
    assert_eq!(host["owner"], "web");

    let gone = server.ask("DELETE", &format!("{WEB1}?author=ann&message=old")).send().await.unwrap();
    assert_eq!(gone.status(), 200);
    refused(server.ask("GET", WEB1), 404, "not-found", &["deleted in revision 3"]).await;
    let log = server.get("/api/v2/commits").await;
    assert_eq!(log["items"][0]["message"], "old");
    server.stop().await;
}

#[tokio::test]
async fn yaml_is_as_good_as_json() {
    let server = Running::new().await;
    let body = "document:\n  address: 192.0.2.1\n  note: no\nexpires: 2027-01-01T00:00:00Z\n";
    let put = server.ask("PUT", WEB1).header("shoal-author", "ann").header("shoal-message", "m");
    let put = put.header("content-type", "application/yaml").body(body).send().await.unwrap();
    assert_eq!(put.status(), 201);
    assert_eq!(server.get(WEB1).await["document"]["note"], "no");
    server.stop().await;
}

#[tokio::test]
async fn nobody_and_no_reason_are_refused() {
    let server = Running::new().await;
    let body = json!({"document": {}});
    let nobody = server.ask("PUT", WEB1).header("shoal-message", "m").json(&body);
    refused(nobody, 400, "unsigned", &["author is missing", "Shoal-Author"]).await;
    let silent = server.ask("PUT", WEB1).header("shoal-author", "ann").json(&body);
    refused(silent, 400, "unsigned", &["message is missing", "Shoal-Message"]).await;
    let empty =
        server.ask("POST", "/api/v2/commits").json(&json!({"author": "ann", "message": " ", "edits": []}));
    refused(empty, 400, "unsigned", &["message"]).await;
    assert_eq!(server.get("/api/v2/hosts").await["items"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn two_writers_do_not_overwrite_each_other() {
    let server = small().await;
    let if_match =
        |etag: &'static str| server.write("PUT", WEB1, &json!({"document": {}})).header("if-match", etag);
    let stale =
        refused(if_match("\"r0\""), 412, "precondition-failed", &["\"r0\"", "revision 1", "read it again"])
            .await;
    assert_eq!((&stale["expected"], &stale["actual"]), (&json!("\"r0\""), &json!(1)));
    assert_eq!(if_match("\"r1\"").send().await.unwrap().status(), 200);
    refused(if_match("\"r1\""), 412, "precondition-failed", &["revision 3"]).await;
    let new = |path| server.write("PUT", path, &json!({"document": {}})).header("if-none-match", "*");
    refused(new(WEB1), 412, "precondition-failed", &["exists already", "revision 3"]).await;
    assert_eq!(new("/api/v2/hosts/web2.example.com").send().await.unwrap().status(), 201);
    // What was read, edited and sent back carries its revision.
    let mut doc = server.get(WEB1).await;
    doc["revision"] = json!(1);
    refused(server.write("PUT", WEB1, &doc), 412, "precondition-failed", &["you saw revision 1", "now at 3"])
        .await;
    doc["revision"] = json!(3);
    ok(&server, "PUT", WEB1, doc).await;
    // A member that came or went is a change of the tag.
    ok(&server, "PUT", &format!("{ZONE}/members/web2.example.com"), Value::Null).await;
    let tag = server.write("PUT", ZONE, &json!({"document": {}})).header("if-match", "\"r2\"");
    refused(tag, 412, "precondition-failed", &["dns/example.com"]).await;
    server.stop().await;
}

#[tokio::test]
async fn members_come_and_go_one_by_one() {
    let server = small().await;
    let rule = format!("{ZONE}/members/select:%20site%20==%20'a'");
    assert_eq!(server.write("PUT", &rule, &Value::Null).send().await.unwrap().status(), 201);
    ok(&server, "DELETE", &format!("{ZONE}/members/web1.example.com"), Value::Null).await;
    assert_eq!(server.get(ZONE).await["members"], json!(["select: site == 'a'"]));
    let member = format!("{ZONE}/members/web1.example.com");
    let stale = server.write("PUT", &member, &Value::Null).header("if-match", "\"r1\"");
    refused(stale, 412, "precondition-failed", &["web1.example.com", "does not exist"]).await;
    let body = json!({"author": "a", "message": "m", "edits": []});
    let vague = server.ask("POST", "/api/v2/commits").json(&body).header("if-match", "*");
    refused(vague, 400, "bad-request", &["expect"]).await;
    let twice = server.write("DELETE", &format!("{ZONE}/members/web1.example.com"), &Value::Null);
    refused(twice, 409, "conflict", &["web1.example.com", "no member"]).await;
    ok(&server, "PUT", &format!("{ZONE}/members"), json!(["web1.example.com"])).await;
    assert_eq!(server.get(ZONE).await["members"], json!(["web1.example.com"]));
    let unknown = server.write("PUT", &format!("{ZONE}/members/web9.example.com"), &Value::Null);
    let problem =
        refused(unknown, 422, "invalid", &["web9.example.com", "no such host", "make it first"]).await;
    assert_eq!(problem["code"], "unknown-member");
    let bad = server.write("PUT", &format!("{ZONE}/members/select:%20site%20=="), &Value::Null);
    assert_eq!(refused(bad, 422, "invalid", &["dns/example.com"]).await["code"], "bad-rule");
    server.stop().await;
}

#[tokio::test]
async fn a_cycle_is_refused_with_its_path() {
    let server = small().await;
    ok(&server, "PUT", "/api/v2/tags/dns/inner", json!({"members": ["@example.com"]})).await;
    let cycle = server.write("PUT", &format!("{ZONE}/members/@inner"), &Value::Null);
    refused(cycle, 422, "invalid", &["dns/example.com", "dns/inner", "contain itself"]).await;
    assert_eq!(server.get(ZONE).await["members"], json!(["web1.example.com"]), "nothing half done");
    server.stop().await;
}

#[tokio::test]
async fn a_schema_is_kept_and_says_where_it_is_broken() {
    let server = small().await;
    let schema = json!({"tag": {
        "type": "object", "additionalProperties": false,
        "properties": {"ttl": {"type": "integer", "minimum": 1}}
    }});
    ok(&server, "PUT", "/api/v2/schemas/dns", schema).await;
    let unknown = server.write("PUT", ZONE, &json!({"document": {"ttll": 3}}));
    refused(unknown, 422, "invalid", &["dns/example.com", "ttll"]).await;
    let wrong = server.write("PUT", ZONE, &json!({"document": {"ttl": "soon"}}));
    let problem = refused(wrong, 422, "invalid", &["/ttl"]).await;
    assert_eq!(problem["field"], "/ttl");
    assert!(problem["expected"].as_str().unwrap().contains("integer"), "{problem}");
    assert!(problem["found"].as_str().unwrap().contains("soon"), "{problem}");
    server.stop().await;
}

#[tokio::test]
async fn a_transaction_is_done_whole_or_not_at_all() {
    let server = small().await;
    let body = |last: &str| {
        json!({
            "author": "ann", "message": "replace web1",
            "documents": [{"host": "web2.example.com", "document": {"address": "192.0.2.2"}}],
            "edits": [
                {"edit": "add_members", "tag": "dns/example.com", "members": ["web2.example.com"]},
                {"edit": "delete", "key": last}
            ]
        })
    };
    let bad = server.ask("POST", "/api/v2/commits").json(&body("hosts/web7.example.com"));
    refused(bad, 404, "not-found", &["hosts/web7.example.com"]).await;
    refused(server.ask("GET", "/api/v2/hosts/web2.example.com"), 404, "not-found", &["no host"]).await;

    let plan = server.ask("POST", "/api/v2/commits?plan").json(&body("hosts/web1.example.com"));
    let plan: Value = plan.send().await.unwrap().json().await.unwrap();
    assert_eq!(plan["changes"].as_array().unwrap().len(), 4, "{plan}");
    let head = server.get("/api/v2/store/head").await["revision"].clone();
    assert_eq!(head, 2, "a plan writes nothing");

    let done =
        server.ask("POST", "/api/v2/commits").json(&body("hosts/web1.example.com")).send().await.unwrap();
    assert_eq!(done.status(), 201);
    assert_eq!(done.headers()["location"], "/api/v2/commits/3");
    assert_eq!(server.get(ZONE).await["members"], json!(["web2.example.com"]));
    let unknown = json!({"author": "a", "message": "m", "edits": [{"edit": "explode"}]});
    refused(server.ask("POST", "/api/v2/commits").json(&unknown), 422, "invalid", &["edits[0]", "explode"])
        .await;
    let doc = json!({"author": "a", "message": "m", "documents": [{"host": "x", "documnt": {}}]});
    refused(server.ask("POST", "/api/v2/commits").json(&doc), 422, "invalid", &["documents[0]", "documnt"])
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_retry_with_its_key_is_done_once() {
    let server = small().await;
    let add = || {
        server
            .write("PUT", "/api/v2/hosts/web5", &json!({"document": {"a": 1}}))
            .header("idempotency-key", "k1")
    };
    let first: Value = add().send().await.unwrap().json().await.unwrap();
    ok(&server, "DELETE", "/api/v2/hosts/web5", Value::Null).await;
    let second: Value = add().send().await.unwrap().json().await.unwrap();
    assert_eq!((&second["replayed"], &second["revision"]), (&json!(true), &first["revision"]));
    let other = server.write("PUT", "/api/v2/hosts/web6", &json!({})).header("idempotency-key", "k1");
    refused(other, 422, "key-reused", &["k1", "use a new one"]).await;
    server.stop().await;
}

#[tokio::test]
async fn bodies_that_contradict_their_path_are_refused() {
    let server = small().await;
    let other = server.write("PUT", WEB1, &json!({"host": "web2.example.com"}));
    refused(other, 422, "invalid", &["web2.example.com", "rename"]).await;
    refused(server.write("PUT", WEB1, &json!([1])), 422, "invalid", &["a host is a map"]).await;
    refused(server.write("PUT", WEB1, &json!({"docment": {}})), 422, "invalid", &["unknown field `docment`"])
        .await;
    refused(
        server.write("PUT", WEB1, &json!({"document": "x"})),
        422,
        "invalid",
        &["expected a map, found text"],
    )
    .await;
    refused(server.write("PUT", WEB1, &json!({"state": "up"})), 422, "invalid", &["state"]).await;
    let nested = server.write("PUT", "/api/v2/tags/dns/outer", &json!({"members": ["@example.com"]}));
    nested.send().await.unwrap();
    let delete = server.write("DELETE", ZONE, &Value::Null);
    assert_eq!(refused(delete, 409, "conflict", &["dns/outer"]).await["code"], "nested");
    ok(&server, "DELETE", &format!("{ZONE}?follow"), Value::Null).await;
    assert_eq!(server.get("/api/v2/tags/dns/outer").await["members"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn facts_and_pauses_are_written_as_they_are() {
    let server = small().await;
    ok(&server, "PUT", "/api/v2/facts/vm/web1.example.com", json!({"box": "b1"})).await;
    ok(&server, "PUT", "/api/v2/pauses/tag/dns/example.com", json!({"why": "x"})).await;
    refused(
        server.write("PUT", "/api/v2/pauses/tag/dns/example.com", &json!({"wy": "x"})),
        422,
        "invalid",
        &["pauses/tag/dns/example.com", "wy"],
    )
    .await;
    ok(&server, "DELETE", "/api/v2/facts/vm/web1.example.com", Value::Null).await;
    refused(
        server.write("DELETE", "/api/v2/facts/vm/web1.example.com", &Value::Null),
        404,
        "not-found",
        &["facts/vm"],
    )
    .await;
    server.stop().await;
}

#[tokio::test]
async fn what_was_is_compared_blamed_and_brought_back() {
    let server = small().await;
    ok(&server, "PUT", ZONE, json!({"document": {"ttl": 60}})).await;
    ok(&server, "DELETE", &format!("{ZONE}/members/web1.example.com"), Value::Null).await;
    let diff = server.get("/api/v2/diff?from=2&tag=dns/example.com").await;
    assert_eq!((&diff["to"], diff["items"].as_array().unwrap().len()), (&json!(4), 2));
    assert_eq!(diff["items"][0]["before"]["document"], json!({"ttl": 300}));
    assert_eq!(
        diff["items"][1],
        json!({"key": "dns/example.com/members/web1.example.com", "before": {}, "after": null})
    );
    let blame = server.get("/api/v2/blame/dns/example.com").await;
    assert_eq!(
        (&blame["values"][0]["path"], &blame["values"][0]["by"]["revision"]),
        (&json!("/document/ttl"), &json!(3))
    );
    refused(server.ask("GET", "/api/v2/blame/dns/none"), 404, "not-found", &["there is no dns/none"]).await;
    refused(server.ask("GET", "/api/v2/diff"), 400, "bad-request", &["from=REVISION"]).await;

    let first = server.get("/api/v2/diff?from=2&limit=1").await;
    assert_eq!((&first["items"][0], &first["next"]), (&diff["items"][0], &json!("dns/example.com")));
    let rest = server.get("/api/v2/diff?from=2&limit=1&after=dns/example.com").await;
    assert_eq!((&rest["items"][0], &rest["next"]), (&diff["items"][1], &Value::Null));

    let back = json!({"to": 2, "keys": ["dns/example.com"], "author": "ann", "message": "as it was"});
    // Whoever only looks signs nothing.
    let unsigned = json!({"to": 2, "keys": ["dns/example.com"]});
    let plan = server.post("/api/v2/rollback?plan", &unsigned).await;
    refused(server.ask("POST", "/api/v2/rollback").json(&unsigned), 400, "unsigned", &["author"]).await;
    assert_eq!(plan["changes"].as_array().unwrap().len(), 2);
    server.post("/api/v2/rollback", &back).await;
    assert_eq!(server.get("/api/v2/diff?from=2").await["items"], json!([]));
    let future =
        server.ask("POST", "/api/v2/rollback").json(&json!({"to": 99, "author": "a", "message": "m"}));
    refused(future, 404, "no-such-revision", &["99"]).await;
    let typo = json!({"to": 2, "keys": ["dns/exmaple.com"], "author": "a", "message": "m"});
    refused(
        server.ask("POST", "/api/v2/rollback").json(&typo),
        404,
        "not-found",
        &["dns/exmaple.com never was"],
    )
    .await;
    server.stop().await;
}
