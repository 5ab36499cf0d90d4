//! A right that is taken away while a request is under way: when its body comes slowly, when others are faster, while it watches.

use std::sync::atomic::{AtomicBool, Ordering};

use shoal_core::{Change, Commit, Committed};
use shoal_store::{Fut, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::harness::PATIENCE;

/// A store where just before the first commit of ann her token is revoked, and what she changes is changed.
struct Racing(MemoryStore, AtomicBool);

impl Racing {
    async fn first(&self) {
        for (key, value) in [("access/tokens/ann", None), ("lb/web", Some(json!({"document": {"port": 82}})))]
        {
            let change = Change { key: key.parse().unwrap(), value: value.map(Document::from), moved: None };
            self.0.commit(Commit::new("root", "faster", vec![change])).await.unwrap();
        }
    }
}

impl Store for Racing {
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        Box::pin(async move {
            if commit.principal.as_deref() == Some("ann") && !self.1.swap(true, Ordering::SeqCst) {
                self.first().await;
            }
            self.0.commit(commit).await
        })
    }

    shoal_store::forward!(0: head, read, log, watch, claim, release, claims, ledger, write_ledger, report, reports);
}

fn port(g: &Guarded) -> Value {
    g.database.view().row(&"lb/web".parse().unwrap()).unwrap().value()["document"]["port"].clone()
}

/// Who was faster also took the right away: what is tried again is judged anew.
#[tokio::test]
async fn a_write_that_is_tried_again_is_judged_by_the_rules_of_then() {
    let store: Arc<dyn Store> = Arc::new(Racing(MemoryStore::new(), AtomicBool::new(false)));
    let g = Guarded::on(store, Limits::default()).await;
    let put = g.write("ann", "PUT", "/api/v2/tags/lb/web", &json!({"document": {"port": 81}}));
    refused(put, 401, "unauthenticated", &["revoked"]).await;
    g.database.wait_for(g.database.store().head().await.unwrap().revision).await;
    assert_eq!(port(&g), 82);
    g.server.stop().await;
}

/// The head and half of the body come, then the right goes, then the rest comes.
async fn halfway(g: &Guarded, who: &str, request: (&str, &str, &str), revoke: impl AsyncFnOnce()) -> String {
    let (head, kind, body) = request;
    let address = g.server.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let (first, rest) = body.split_at(body.len() / 2);
    let (bearer, length) = (bearer(who), body.len());
    let text = format!(
        "{head} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nAuthorization: Bearer {bearer}\r\n\
         Connection: close\r\nContent-Length: {length}\r\n\r\n{first}"
    );
    socket.write_all(text.as_bytes()).await.unwrap();
    // It is let in by now, which nothing shows from outside; where it is not, it is refused all the same.
    tokio::time::sleep(Duration::from_millis(300)).await;
    revoke().await;
    socket.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

impl Guarded {
    /// Takes a token away, and waits until the server has heard of it.
    async fn revoke(&self, id: &str) {
        self.delete(&format!("access/tokens/{id}")).await;
        while self.ask(id, "GET", "/api/v2/whoami").send().await.unwrap().status() != 401 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn who_sends_a_body_slowly_is_asked_about_when_it_is_there() {
    let mut g = Guarded::new().await;
    let (json, claim) = ("application/json", r#"{"name":"unit/dns/a","of":1,"holder":"h","ttl":null}"#);
    let report = r#"{"agent":"dns","instance":"i","epoch":1,"seen":1,"at":"2026-01-01T00:00:00Z","expires":null,"units":{}}"#;
    for (at, (who, head, kind, body)) in [
        ("ann", "PUT /api/v2/tags/lb/web?message=m", json, r#"{"document":{"port":81}}"#),
        ("ann", "POST /api/v2/store/read", json, r#"{"range":{"prefix":"lb/web/"},"limit":10}"#),
        (
            "ann",
            "POST /api/v2/commits?plan",
            json,
            r#"{"edits":[{"edit":"put_tag","tag":"lb/new","document":{}}]}"#,
        ),
        ("agent dns", "POST /api/v2/store/claim", json, claim),
        ("agent dns", "POST /api/v2/store/report", json, report),
        ("ann", "PUT /v1/lb/web", "application/x-www-form-urlencoded", "log=why&value=port: 83"),
    ]
    .into_iter()
    .enumerate()
    {
        if head.contains("/v1/") {
            let v1 = Running::guarded_v1(g.database.store().clone()).await;
            std::mem::replace(&mut g.server, v1).stop().await;
        }
        let id = format!("slow{at}");
        g.token(&id, who, json!({})).await;
        while g.ask(&id, "GET", "/api/v2/whoami").send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = halfway(&g, &id, (head, kind, body), async || g.revoke(&id).await).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{head}: {answer}");
    }
    assert_eq!(port(&g), 80);
    assert!(g.database.store().claims("unit/").await.unwrap().is_empty());
    g.server.stop().await;
}

/// Who administers no longer sees no more of what is below `access/`, also by a watch that was open.
#[tokio::test]
async fn a_watch_shows_what_who_watches_may_see_by_then() {
    let g = Guarded::new().await;
    g.delete("access/rules/lb/secret").await;
    g.put(&[("access/groups/admins", json!({"members": ["root", "carl"]}))]).await;
    let administers = async |is: bool| {
        while g.get("carl", "/api/v2/whoami").await["administrator"] != is {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    administers(true).await;
    let mut watch = Events::open(g.ask("carl", "GET", "/api/v2/watch?stop_after=20")).await;
    g.put(&[("access/users/first", json!({}))]).await;
    assert!(watch.next_named("commit").await.data.to_string().contains("access/users/first"));
    g.put(&[("access/groups/admins", json!({"members": ["root"]}))]).await;
    administers(false).await;
    g.put(&[("access/users/planted", json!({}))]).await;
    g.edits(vec![json!({"edit": "put_tag", "tag": "lb/last", "document": {}})]).await;
    let mut shown = String::new();
    while !shown.contains("lb/last") {
        shown += &watch.next_named("commit").await.data.to_string();
    }
    assert!(!shown.contains("planted"), "{shown}");
    g.server.stop().await;
}
