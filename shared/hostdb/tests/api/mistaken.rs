//! Requests that are wrong in themselves, as a tool that reads the OpenAPI document found them.

use serde_json::json;

use crate::harness::{Running, refused};

#[tokio::test]
async fn what_is_wrong_in_itself_is_not_told_that_it_is_late() {
    let server = Running::new().await;
    let path = "/api/v2/hosts/web1";
    // Nothing is there, so `If-Match` fails in each; and each has another fault, which comes first.
    let late = |request: reqwest::RequestBuilder| request.header("if-match", "\"r7\"");
    refused(late(server.ask("PUT", path).json(&json!({}))), 400, "unsigned", &["author"]).await;
    refused(
        late(server.ask("DELETE", &format!("{path}?author=%20&message=m"))),
        400,
        "bad-request",
        &["author"],
    )
    .await;
    let list = server.ask("PATCH", &format!("{path}?author=a&message=m")).body("[null, null]");
    let list = late(list.header("content-type", "application/merge-patch+json"));
    refused(list, 422, "invalid", &["a map"]).await;
    let pause = late(server.write("PUT", "/api/v2/pauses/host/web1", &json!({"why": true})));
    refused(pause, 422, "invalid", &["pauses/host/web1", "why"]).await;
    refused(late(server.write("PUT", path, &json!({}))), 412, "precondition-failed", &["r7"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_list_is_not_a_map_with_fields_in_order() {
    let server = Running::new().await;
    let send = |path: &str, kind: &str, body: &'static str| {
        server.ask("POST", path).header("content-type", kind).body(body)
    };
    for path in ["/api/v2/commits?plan", "/api/v2/rollback?plan", "/api/v2/store/log"] {
        refused(send(path, "application/json", " [null, null]"), 422, "invalid", &["a map"]).await;
        refused(send(path, "application/yaml", "- null\n- null\n"), 422, "invalid", &["a map"]).await;
    }
    let patch = server.ask("PATCH", "/api/v2/hosts/web1?author=a&message=m");
    let patch = patch.header("content-type", "application/merge-patch+json").body("[]");
    refused(patch, 422, "invalid", &["a map"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_signature_that_is_there_says_something() {
    let server = Running::new().await;
    let plan = json!({"edits": []});
    for (path, body) in
        [("/api/v2/commits?plan&message=", &plan), ("/api/v2/rollback?plan&author=%20", &json!({"to": 0}))]
    {
        refused(server.write("POST", path, body), 400, "bad-request", &["says nothing"]).await;
    }
    let blank = server.ask("POST", "/api/v2/commits?plan").json(&plan).header("shoal-message", " ");
    refused(blank, 400, "bad-request", &["shoal-message", "says nothing"]).await;
    let body = json!({"edits": [], "author": ""});
    refused(server.ask("POST", "/api/v2/commits?plan").json(&body), 400, "bad-request", &["says nothing"])
        .await;
    server.stop().await;
}

/// What is reported about something that can be neither a host nor a tag has an ETag, too, and conditions hold for it.
#[tokio::test]
async fn facts_about_anything_are_written_on_conditions() {
    let server = Running::new().await;
    let path = "/api/v2/facts/vm/%F0%9E%BD%B3m";
    let put =
        server.write("PUT", path, &json!({"up": true})).header("if-none-match", "*").send().await.unwrap();
    assert_eq!((put.status().as_u16(), &put.headers()["etag"]), (201, &"\"r1\"".parse().unwrap()));
    let again = server.write("PUT", path, &json!({"up": false})).header("if-none-match", "*");
    refused(again, 412, "precondition-failed", &["exists already"]).await;
    server.stop().await;
}

#[tokio::test]
async fn pages_of_nothing_and_positions_that_are_none_are_refused() {
    let server = Running::new().await;
    let log = json!({"range": "all", "limit": 0});
    refused(server.ask("POST", "/api/v2/store/log").json(&log), 422, "invalid", &["at least 1"]).await;
    let ledger = json!({"prefix": "", "limit": 0});
    refused(server.ask("POST", "/api/v2/store/ledger/read").json(&ledger), 422, "invalid", &["at least 1"])
        .await;
    let watch = server.ask("GET", "/api/v2/watch?after=x").header("last-event-id", "1-0");
    refused(watch, 400, "bad-request", &["no position"]).await;
    refused(server.ask("GET", "/api/v2/watch?stop_after=0"), 400, "bad-request", &["out of bounds"]).await;
    server.stop().await;
}
