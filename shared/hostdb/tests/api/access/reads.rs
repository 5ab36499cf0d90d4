//! What one may not read, and watches that end.

use super::*;
use crate::harness::PATIENCE;

#[tokio::test]
async fn a_revoked_token_ends_its_watch_and_writes_nothing() {
    let g = Guarded::new().await;
    let mut events = Events::open(g.ask("ann", "GET", "/api/v2/watch?prefix=hosts/")).await;
    g.edits(vec![json!({"edit": "set_state", "host": "web2.example.com", "state": "draining"})]).await;
    events.next_named("commit").await;
    g.delete("access/tokens/ann").await;
    let end = events.next_named("error").await;
    assert_eq!(
        (&end.data["status"], &end.data["type"]),
        (&json!(401), &json!("urn:shoal:problem:unauthenticated"))
    );
    assert!(end.data["detail"].as_str().unwrap().contains("revoked"), "{}", end.data);
    assert_eq!(events.next().await, None);
    let write = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {}}));
    refused(write, 401, "unauthenticated", &["revoked"]).await;
    // One that expires meanwhile, and one whose rights were taken away.
    // Where a machine stalls, it may have expired before the watch began: then another one has twice as long.
    let mut life = Duration::from_secs(8);
    let (soon, mut expires) = loop {
        let id = format!("soon{}", life.as_secs());
        g.token(&id, "carl", json!({"expires": Timestamp::now() + life})).await;
        let answer = g.ask(&id, "GET", "/api/v2/watch?prefix=hosts/").send().await.unwrap();
        if answer.status().as_u16() != 401 {
            break (id, Events::of(answer));
        }
        life *= 2;
        assert!(life < 2 * PATIENCE, "it expires before a watch begins");
    };
    let mut loses = Events::open(g.ask("carl", "GET", "/api/v2/watch?prefix=lb/web/members/")).await;
    assert!(expires.next_named("error").await.data["detail"].as_str().unwrap().contains("expired"));
    g.put(&[("access/rules/lb/web", json!({"allow": {"*": "none"}}))]).await;
    let end = loses.next_named("error").await;
    assert_eq!(
        (&end.data["status"], &end.data["rule"]),
        (&json!(403), &json!("access/rules/lb/web: * has data none, members none"))
    );
    refused(g.ask(&soon, "GET", "/api/v2/hosts"), 401, "unauthenticated", &["expired"]).await;
    g.server.stop().await;
}

/// Ranges are answered whole or not at all; lists leave out and say how many; nobody sees a hash.
#[tokio::test]
async fn what_one_may_not_read_is_refused_or_counted() {
    let g = Guarded::new().await;
    for range in [
        json!("all"),
        json!({"prefix": "lb/"}),
        json!({"key": "lb/secret"}),
        json!({"naming": "web1.example.com"}),
    ] {
        let body = json!({"range": range, "limit": 10});
        let (status, refused) = g.post("carl", "/api/v2/store/read", &body).await;
        assert_eq!(status, 403, "{range}");
        assert!(refused["rule"].as_str().unwrap().starts_with("access/rules/lb/secret: *"), "{refused}");
    }
    let (status, page) =
        g.post("carl", "/api/v2/store/read", &json!({"range": {"prefix": "hosts/"}, "limit": 10})).await;
    assert_eq!((status, page["rows"].as_array().unwrap().len()), (200, 2));
    let tags = g.get("carl", "/api/v2/tags/lb").await;
    assert_eq!((&tags["items"].as_array().unwrap().len(), &tags["hidden"]), (&2, &json!(1)));
    let of = g.get("carl", "/api/v2/hosts/web1.example.com/tags").await;
    assert_eq!((&of["items"].as_array().unwrap().len(), &of["hidden"]), (&2, &json!(1)));
    for path in [
        "/api/v2/tags/lb/secret",
        "/api/v2/history/lb/secret",
        "/api/v2/blame/lb/secret",
        "/api/v2/effective/lb/secret",
        "/api/v2/tags/lb/secret/members",
        "/api/v2/tags/lb/secret/members/web1.example.com",
        "/api/v2/watch?tag=lb/secret",
    ] {
        let body = refused(g.ask("carl", "GET", path), 403, "denied", &[]).await;
        assert!(body["rule"].as_str().unwrap().contains("lb/secret"), "{path}: {body}");
    }
    let setup = format!("/api/v2/commits/{}", g.database.view().revision());
    let all = [
        g.get("carl", "/api/v2/commits").await,
        g.get("carl", "/api/v2/diff?from=0").await,
        g.get("carl", &setup).await,
    ];
    for list in &all {
        assert!(!list.to_string().contains("secret"), "{list}");
    }
    assert!(all[0]["hidden"].as_u64().unwrap() > 5 && all[1]["hidden"].as_u64().unwrap() > 5, "{all:?}");
    assert_eq!(all[2]["hidden"], 2, "{all:?}");
    g.server.stop().await;
}

/// What is below `access/` is in no wider range, and its hashes in none.
#[tokio::test]
async fn nobody_sees_a_hash_and_only_administrators_the_rows() {
    let g = Guarded::new().await;
    g.delete("access/rules/lb/secret").await;
    let (_, page) = g.post("carl", "/api/v2/store/read", &json!({"range": "all", "limit": 1000})).await;
    let keys: Vec<&str> =
        page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect();
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
        let own =
            path.starts_with("/api/v2/access") || path.contains("/access/tokens") || path.ends_with("/log");
        if own {
            refused(g.write("carl", method, path, &body), 403, "denied", &["access/ is for administrators"])
                .await;
        }
    }
    for _ in 0..8 {
        shown += &watch.next_named("commit").await.data.to_string();
    }
    assert!(
        shown.contains("access/tokens/ann") && shown.contains("(hidden)") && !shown.contains(&hash),
        "{shown}"
    );
    g.server.stop().await;
}
