//! Passwords and sessions.

use super::*;
use crate::harness::PATIENCE;

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

/// "correct horse", hashed with little effort; another salt is another hash.
fn hashed() -> String {
    format!("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHRoZXJl${}", argon2_of())
}

/// A session of ann's, by her password.
async fn begun(g: &Guarded) -> String {
    let body = json!({"user": "ann", "password": "correct horse"});
    let response = g.server.ask("POST", "/api/v2/sessions").json(&body).send().await.unwrap();
    let (status, text) = (response.status().as_u16(), response.text().await.unwrap());
    assert_eq!(status, 201, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["token"].as_str().unwrap().to_owned()
}

async fn good(g: &Guarded, token: &str) -> bool {
    let who = g.server.ask("GET", "/api/v2/whoami").bearer_auth(token).send().await.unwrap();
    who.status() == 200
}

/// The rows of sessions that are there.
fn kept(g: &Guarded) -> usize {
    let view = g.database.view();
    view.plain("access/tokens/").filter(|(_, row)| row.document.as_str().contains("\"session\"")).count()
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_goes() {
    let g = Guarded::new().await;
    g.put(&[("access/users/ann", json!({"password": hashed()}))]).await;
    let mut all = Vec::new();
    for _ in 0..23 {
        all.push(begun(&g).await);
    }
    g.database.wait_for(g.database.store().head().await.unwrap().revision).await;
    assert_eq!(kept(&g), 20);
    for (at, token) in all.iter().enumerate() {
        assert_eq!(good(&g, token).await, at >= 3, "{at}");
    }
    // The token that an administrator made is none of them.
    assert_eq!(g.get("ann", "/api/v2/whoami").await["principal"], "ann");
    // All at once are not more.
    let many = futures::future::join_all((0..12).map(|_| begun(&g))).await;
    g.database.wait_for(g.database.store().head().await.unwrap().revision).await;
    assert!(kept(&g) <= 20 && many.len() == 12, "{}", kept(&g));
    g.server.stop().await;
}

#[tokio::test]
async fn another_password_ends_the_sessions_of_the_old_one() {
    let g = Guarded::new().await;
    let user = |more: Value| [("access/users/ann", more)];
    g.put(&user(json!({"password": hashed()}))).await;
    let old = begun(&g).await;
    assert!(good(&g, &old).await);
    // By whatever way it is changed, in the same commit.
    let body = json!({"password": "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$AAAA"});
    let put = g.write("root", "PUT", "/api/v2/access/users/ann", &body).send().await.unwrap();
    assert_eq!(put.status(), 200);
    assert!(!good(&g, &old).await && kept(&g) == 0);
    for change in [json!({"disabled": true, "password": hashed()}), json!({})] {
        g.put(&user(json!({"password": hashed()}))).await;
        let old = begun(&g).await;
        g.put(&user(change.clone())).await;
        g.put(&user(json!({"password": hashed()}))).await;
        let now = g.database.store().head().await.unwrap().revision;
        assert_eq!(kept(&g), 0, "{change} at {now}");
        refused(g.server.ask("GET", "/api/v2/whoami").bearer_auth(&old), 401, "unauthenticated", &[]).await;
    }
    // What has nothing to do with it leaves them: what is hidden stays what it is.
    let stays = begun(&g).await;
    let same = json!({"password": "(hidden)", "agent": null});
    let put = g.write("root", "PUT", "/api/v2/access/users/ann", &same).send().await.unwrap();
    assert_eq!(put.status(), 200);
    assert!(good(&g, &stays).await);
    g.delete("access/users/ann").await;
    refused(g.server.ask("GET", "/api/v2/whoami").bearer_auth(&stays), 401, "unauthenticated", &[]).await;
    assert_eq!(kept(&g), 0);
    g.server.stop().await;
}

/// However it came to be that a session has no user any more.
#[tokio::test]
async fn a_session_needs_its_user() {
    let g = Guarded::new().await;
    g.token("left", "gone", json!({"kind": "session"})).await;
    refused(g.ask("left", "GET", "/api/v2/whoami"), 401, "unauthenticated", &["no row of a user"]).await;
    // A token that was made for somebody needs none.
    assert_eq!(g.get("carl", "/api/v2/whoami").await["principal"], "carl");
    g.server.stop().await;
}

/// A connection that is kept remembers who it is for no longer than it is so.
#[tokio::test]
async fn what_a_connection_remembers_ends_with_the_token() {
    let g = Guarded::new().await;
    for round in 0..3 {
        g.token("short", "carl", json!({})).await;
        for _ in 0..5 {
            assert_eq!(g.get("short", "/api/v2/whoami").await["principal"], "carl", "{round}");
            assert_eq!(g.get("ann", "/api/v2/whoami").await["principal"], "ann", "{round}");
        }
        refused(g.server.ask("GET", "/api/v2/whoami"), 401, "unauthenticated", &[]).await;
        g.delete("access/tokens/short").await;
        g.post(
            "root",
            "/api/v2/commits",
            &json!({"edits": [{"edit": "set_state", "host": "web2.example.com", "state":
            if round % 2 == 0 { "draining" } else { "active" }}], "author": "root", "message": "m"}),
        )
        .await;
        refused(g.ask("short", "GET", "/api/v2/whoami"), 401, "unauthenticated", &["revoked"]).await;
    }
    // So do rights, groups, and the end of a token.
    g.put(&[("access/groups/web", json!({"members": ["ann", "carl"]}))]).await;
    let groups = g.get("carl", "/api/v2/whoami").await;
    assert_eq!(groups["groups"], json!(["web"]));
    g.put(&[("access/groups/web", json!({"members": ["ann"]}))]).await;
    let head = g.database.store().head().await.unwrap();
    let marks = g.write("root", "PUT", "/api/v2/tags/dns/mark", &json!({"document": {"at": head.revision}}));
    assert_eq!(marks.send().await.unwrap().status(), 201);
    assert_eq!(g.get("carl", "/api/v2/whoami").await["groups"], json!([]));
    let soon = Timestamp::now() + Duration::from_secs(2);
    g.token("soon", "carl", json!({"expires": soon})).await;
    loop {
        let answer = g.ask("soon", "GET", "/api/v2/whoami").send().await.unwrap();
        if answer.status() != 200 {
            break;
        }
        assert_eq!(answer.json::<Value>().await.unwrap()["principal"], "carl");
        assert!(Timestamp::now() < soon + PATIENCE, "it never ends");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(Timestamp::now() > soon, "it is refused before its end");
    refused(g.ask("soon", "GET", "/api/v2/whoami"), 401, "unauthenticated", &["expired"]).await;
    g.server.stop().await;
}

/// A password is replaced by who says the one of now, whatever token is shown, and the sessions of the old one end with it.
#[tokio::test]
async fn users_change_their_own_password() {
    let g = Guarded::new().await;
    g.put(&[("access/users/ann", json!({"password": hashed()}))]).await;
    g.put(&[("access/users/carl", json!({}))]).await;
    let old = begun(&g).await;
    let change = async |user: &str, password: &str, new: &str| {
        let body = json!({"user": user, "password": password, "new": new});
        g.server.ask("PUT", "/api/v2/password").json(&body).send().await.unwrap()
    };
    for (user, password) in
        [("ann", "wrong horse"), ("carl", ""), ("nobody", "correct horse"), ("../ann", "x")]
    {
        let refused = change(user, password, "a new horse").await;
        assert_eq!(refused.status(), 401, "{user}");
        let said = refused.text().await.unwrap();
        assert!(!said.contains("horse"), "{said}");
    }
    problem(change("ann", "correct horse", "short").await, 422, "invalid", &["8 to 1024"]).await;
    assert!(good(&g, &old).await);
    assert_eq!(change("ann", "correct horse", "a new horse").await.status(), 204);
    assert!(!good(&g, &old).await && kept(&g) == 0);
    problem(change("ann", "correct horse", "a third horse").await, 401, "unauthenticated", &[]).await;
    let log = g.get("root", "/api/v2/history/access/users/ann?limit=1").await;
    let last = &log["items"][0];
    assert_eq!((&last["author"], &last["message"]), (&json!("ann"), &json!("changed the password")), "{log}");
    assert!(last["origin"].as_str().is_some_and(|origin| origin.starts_with("127.0.0.1")), "{log}");
    // What else the row says stays.
    g.put(&[("access/users/ann", json!({"password": hashed(), "disabled": true}))]).await;
    problem(change("ann", "correct horse", "a new horse").await, 401, "unauthenticated", &[]).await;
    g.server.stop().await;
}

#[tokio::test]
async fn users_see_and_revoke_their_own_tokens() {
    let g = Guarded::new().await;
    g.put(&[("access/users/ann", json!({"password": hashed()}))]).await;
    g.token("ann2", "ann", json!({"scope": {"namespaces": ["lb"]}, "description": "narrow"})).await;
    let session = begun(&g).await;
    let list = g.get("ann", "/api/v2/tokens").await;
    let ids: Vec<&str> = list["items"].as_array().unwrap().iter().filter_map(|t| t["id"].as_str()).collect();
    assert!(ids.len() == 3 && ids.contains(&"ann") && ids.contains(&"ann2"), "{list}");
    assert!(list["items"].as_array().unwrap().iter().all(|token| token.get("hash").is_none()), "{list}");
    let narrow = g.get("ann2", "/api/v2/tokens").await;
    assert_eq!((narrow["items"].as_array().unwrap().len(), &narrow["items"][0]["id"]), (1, &json!("ann2")));
    let revoke = async |who: &str, id: &str| {
        let asked = g.ask(who, "DELETE", &format!("/api/v2/tokens/{id}?message=lost"));
        asked.send().await.unwrap().status().as_u16()
    };
    let own = session.split('_').nth(1).unwrap();
    for (who, id, status) in [
        ("carl", "ann2", 404),
        ("ann", "root", 404),
        ("ann", "nosuch", 404),
        ("ann2", "ann", 403),
        ("dns", "vm", 404),
        ("none", "bob", 403),
        ("ann", own, 204),
        ("ann2", "ann2", 204),
        ("dns", "dns", 204),
    ] {
        assert_eq!(revoke(who, id).await, status, "{who} {id}");
    }
    assert!(!good(&g, &session).await);
    refused(g.ask("ann2", "GET", "/api/v2/whoami"), 401, "unauthenticated", &["revoked"]).await;
    refused(g.server.ask("GET", "/api/v2/tokens"), 401, "unauthenticated", &[]).await;
    let log = g.get("root", "/api/v2/commits?prefix=access/&limit=10").await;
    assert!(log.to_string().contains("lost"), "{log}");
    g.server.stop().await;
}
