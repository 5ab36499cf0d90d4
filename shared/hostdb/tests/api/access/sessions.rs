//! Passwords and sessions.

use super::*;

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
