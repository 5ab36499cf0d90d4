//! A server that its database does not answer any more goes on believing who asks for a while, and no longer.

use shoal_core::Epoch;
use tokio::time::Instant;

use super::*;
use crate::far::Far;
use crate::harness::PATIENCE;

/// For how long rights are believed, as docs/access.md says.
const TRUST: Duration = Duration::from_secs(10);

/// A server that its database may be far from or cut off from, beside which others write who are not.
async fn apart(late: Duration) -> (MemoryStore, Far, Guarded) {
    let memory = MemoryStore::new();
    let far = Far::new(&memory, late);
    let mut g = Guarded::on(Arc::new(far.clone()), Limits::default()).await;
    g.database = Database::open(Arc::new(memory.clone())).await.unwrap();
    (memory, far, g)
}

/// Changes a host, for the `n`th time.
async fn turn(g: &Guarded, n: u64) {
    let state = if n.is_multiple_of(2) { "draining" } else { "active" };
    g.edits(vec![json!({"edit": "set_state", "host": "web2.example.com", "state": state})]).await;
}

#[tokio::test]
async fn a_token_that_was_revoked_elsewhere_is_not_believed_for_long() {
    let (_, far, g) = apart(Duration::ZERO).await;
    let path = "/api/v2/tags/lb/web?stale=true";
    assert_eq!(g.ask("ann", "GET", path).send().await.unwrap().status(), 200);
    far.cut(true);
    let cut = Instant::now();
    g.delete("access/tokens/ann").await;
    let mut believed = None;
    let refusal = loop {
        let asked = cut.elapsed();
        let answer = g.ask("ann", "GET", path).send().await.unwrap();
        match answer.status().as_u16() {
            200 => believed = Some(asked),
            _ => break answer,
        }
        assert!(asked < TRUST + PATIENCE, "it is believed for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // What is known is answered meanwhile, by the rights that are known.
    assert!(believed.is_some_and(|last| last <= TRUST + Duration::from_secs(1)), "{believed:?}");
    assert!(refusal.headers().contains_key("retry-after"));
    // Not that nobody knows them: that nobody can tell.
    problem(refusal, 503, "unavailable", &["another server"]).await;
    let put = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": 81}}));
    refused(put, 503, "unavailable", &[]).await;
    let read =
        g.ask("ann", "POST", "/api/v2/store/read").json(&json!({"range": {"prefix": "lb/"}, "limit": 1}));
    refused(read, 503, "unavailable", &[]).await;
    refused(g.ask("nobody", "GET", path), 503, "unavailable", &[]).await;
    assert_eq!(g.server.ask("GET", "/healthz").send().await.unwrap().status(), 200);
    // Whoever looks after it is told that, and how long it has been so.
    let counters = g.ask("carl", "GET", "/metrics").send().await.unwrap();
    assert_eq!(counters.status(), 200);
    let counters = counters.text().await.unwrap();
    let age = counters.lines().find_map(|line| line.strip_prefix("shoal_hostdb_view_age_seconds "));
    assert!(age.expect(&counters).parse::<u64>().unwrap() >= TRUST.as_secs(), "{counters}");
    far.cut(false);
    refused(g.ask("ann", "GET", path.trim_end_matches("?stale=true")), 401, "unauthenticated", &["revoked"])
        .await;
    assert_eq!(g.ask("carl", "GET", path).send().await.unwrap().status(), 200);
    g.server.stop().await;
}

/// What was made or taken away through another server counts here, however late this one hears of it.
#[tokio::test]
async fn who_was_let_in_elsewhere_is_let_in_here() {
    let (_, _, g) = apart(Duration::from_millis(200)).await;
    for n in 0..5 {
        let id = format!("new{n}");
        g.token(&id, "ann", json!({})).await;
        // A write does not wait for the newest, but nobody is turned away for what is not known yet.
        let put = g.write(&id, "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": n}}));
        assert_eq!(put.send().await.unwrap().status(), 200);
        g.delete(&format!("access/tokens/{id}")).await;
        refused(g.ask(&id, "GET", "/api/v2/whoami"), 401, "unauthenticated", &[]).await;
    }
    g.server.stop().await;
}

/// So does a right: nobody is refused a write by what was so a moment ago.
#[tokio::test]
async fn a_right_that_was_given_elsewhere_counts_here() {
    let (_, _, g) = apart(Duration::from_millis(200)).await;
    let members = async |group: &str, members: Value| {
        g.put(&[(&format!("access/groups/{group}"), json!({"members": members}))]).await;
    };
    let port = |n: u8| json!({"port": n});
    let patch = |n: u8| json!({"edit": "patch", "key": "lb/web", "patch": {"document": port(n)}});
    let claim = json!({"name": "unit/lb/web", "of": 1, "holder": "h", "ttl": null});
    for (n, (method, path, body)) in [
        ("PUT", "/api/v2/tags/lb/web", json!({"document": port(1)})),
        ("POST", "/api/v2/commits", json!({"edits": [patch(2)]})),
        ("POST", "/api/v2/commits?plan", json!({"edits": [patch(3)]})),
        ("POST", "/api/v2/store/claim", claim),
    ]
    .into_iter()
    .enumerate()
    {
        members("web", json!(["ann", "dora", "carl"])).await;
        members("admins", json!(["root", "carl"])).await;
        let (status, said) = status_of(g.write("carl", method, path, &body)).await;
        assert!((200..300).contains(&status), "{n} {path}: {status} {said}");
        members("web", json!(["ann", "dora"])).await;
        members("admins", json!(["root"])).await;
        // A read waits until the server knows; then a no is one, and says what refuses it.
        assert_eq!(g.get("carl", "/api/v2/whoami").await["groups"], json!([]));
        refused(g.write("carl", method, path, &body), 403, "denied", &[]).await;
    }
    g.server.stop().await;
}

/// HostDB's clients show a session within a write, at whichever server.
#[tokio::test]
async fn a_session_that_was_begun_elsewhere_writes_here() {
    let memory = MemoryStore::new();
    let far = Far::new(&memory, Duration::from_millis(200));
    let g = Guarded::on(Arc::new(memory), Limits::default()).await;
    let late = Running::guarded_v1(Arc::new(far)).await;
    for n in 0..5 {
        let id = format!("new{n}");
        g.token(&id, "ann", json!({})).await;
        let put = late.ask("PUT", "/v1/lb/web").header("content-type", "application/x-www-form-urlencoded");
        let put = put.body(format!("log=why&value=port: {n}&session={}", bearer(&id)));
        let (status, said) = status_of(put).await;
        assert!(status < 300, "{status} {said}");
        g.delete(&format!("access/tokens/{id}")).await;
        let put = late.ask("DELETE", &format!("/v1/lb/web?log=why&session={}", bearer(&id)));
        assert_eq!(status_of(put).await.0, 401);
    }
    late.stop().await;
    g.server.stop().await;
}

async fn status_of(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// A right is taken away, and then something changes, while a server hears of nothing: once it hears of both, who watches is told of neither.
#[tokio::test]
async fn what_came_after_a_right_was_taken_away_is_not_sent() {
    let (_, far, g) = apart(Duration::ZERO).await;
    for n in 0..5 {
        let id = format!("eye{n}");
        g.token(&id, "carl", json!({})).await;
        let mut events = Events::open(g.ask(&id, "GET", "/api/v2/watch?prefix=hosts/")).await;
        let mut kept = Events::open(g.ask("root", "GET", "/api/v2/watch?prefix=hosts/")).await;
        far.hold(true);
        g.delete(&format!("access/tokens/{id}")).await;
        turn(&g, n).await;
        far.hold(false);
        while let Some(event) = events.next().await {
            assert_ne!(event.name, "commit", "{event:?}");
        }
        // Others are told.
        kept.next_named("commit").await;
    }
    g.server.stop().await;
}

/// The same after a backup was restored: what comes next is judged by what the new life of the database says, and not by what was known of the old one.
#[tokio::test]
async fn what_came_after_a_restored_backup_is_judged_by_it() {
    let (memory, far, g) = apart(Duration::ZERO).await;
    for n in 0..5 {
        let id = format!("eye{n}");
        g.token(&id, "carl", json!({})).await;
        let mut events = Events::open(g.ask(&id, "GET", "/api/v2/watch?prefix=hosts/")).await;
        far.hold(true);
        let epoch = Epoch(1000 + n);
        memory.set_epoch(epoch);
        let follows = async {
            while g.database.epoch() != epoch {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, follows).await.unwrap();
        g.delete(&format!("access/tokens/{id}")).await;
        turn(&g, n).await;
        far.hold(false);
        while let Some(event) = events.next().await {
            assert_ne!(event.name, "commit", "{event:?}");
        }
    }
    g.server.stop().await;
}

/// A right is taken away and given back at once, and something changes in between: who watches is told of it or sent away, and not left to wait for nothing.
#[tokio::test]
async fn a_right_that_comes_back_at_once_leaves_no_watch_silent() {
    let (_, far, g) = apart(Duration::ZERO).await;
    for n in 0..10 {
        let id = format!("eye{n}");
        g.token(&id, "carl", json!({})).await;
        let mut events = Events::open(g.ask(&id, "GET", "/api/v2/watch?prefix=hosts/")).await;
        far.hold(true);
        g.delete(&format!("access/tokens/{id}")).await;
        turn(&g, n).await;
        g.token(&id, "carl", json!({})).await;
        far.hold(false);
        let told = async {
            while let Some(event) = events.next().await {
                if event.name == "commit" {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("it is told, or it ends");
    }
    g.server.stop().await;
}
