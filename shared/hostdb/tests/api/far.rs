//! Two servers on one database, of which one hears of commits late: what is read is never older than what was acknowledged, unless the
//! reader takes that.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};
use shoal_client::{HttpStore, Options};
use shoal_core::{Commit, Committed, LogEntry, Range, Revision, Status};
use shoal_hostdb::Limits;
use shoal_store::{
    Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Flow, Fut, Head, LedgerPage, LedgerWrite, MemoryStore,
    Page, Position, Query, Result, Store,
};
use tokio::sync::watch;

use crate::harness::{PATIENCE, Running, problem};

/// A store on the other side of a network: what it tells watchers comes late or is held up, and it may fall silent.
#[derive(Clone)]
pub(crate) struct Far {
    inner: MemoryStore,
    /// How long each message to a watcher takes.
    late: Duration,
    /// Whether messages to watchers stay on their way.
    held: Arc<watch::Sender<bool>>,
    /// Whether nothing is answered.
    silent: Arc<watch::Sender<bool>>,
}

impl Far {
    pub(crate) fn new(inner: &MemoryStore, late: Duration) -> Self {
        let shut = || Arc::new(watch::Sender::new(false));
        Self { inner: inner.clone(), late, held: shut(), silent: shut() }
    }

    pub(crate) fn hold(&self, on: bool) {
        self.held.send_replace(on);
    }

    /// Nothing gets through in either direction, or all of it does again.
    pub(crate) fn cut(&self, on: bool) {
        self.hold(on);
        self.silent.send_replace(on);
    }

    /// Asks the store, once it answers.
    fn ask<T: Send + 'static>(
        &self,
        ask: impl for<'s> FnOnce(&'s MemoryStore) -> Fut<'s, T> + Send + 'static,
    ) -> Fut<'static, T> {
        let Self { inner, silent, .. } = self.clone();
        Box::pin(async move {
            opened(&silent).await;
            ask(&inner).await
        })
    }
}

async fn opened(shut: &watch::Sender<bool>) {
    let _ = shut.subscribe().wait_for(|shut| !shut).await;
}

impl Store for Far {
    fn head(&self) -> Fut<'_, Result<Head>> {
        self.ask(|store| store.head())
    }
    fn read(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let query = query.clone();
        self.ask(move |store| store.read(&query))
    }
    fn commit(&self, commit: Commit) -> Fut<'_, Result<Committed>> {
        self.ask(move |store| store.commit(commit))
    }
    fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Fut<'_, Result<Vec<LogEntry>>> {
        let range = range.clone();
        self.ask(move |store| store.log(&range, before, limit))
    }
    fn watch(&self, filter: Filter, after: Position) -> Flow<Result<Feed>> {
        let (held, late) = (self.held.clone(), self.late);
        let told = move |feed| {
            let held = held.clone();
            async move {
                // What it stands for: the way takes that long, whatever is awaited at its end.
                tokio::time::sleep(late).await;
                opened(&held).await;
                feed
            }
        };
        Box::pin(self.inner.watch(filter, after).then(told))
    }
    fn claim(&self, want: &ClaimRequest) -> Fut<'_, Result<ClaimAnswer>> {
        let want = want.clone();
        self.ask(move |store| store.claim(&want))
    }
    fn release(&self, claim: &Claim) -> Fut<'_, Result<()>> {
        let claim = claim.clone();
        self.ask(move |store| store.release(&claim))
    }
    fn claims(&self, prefix: &str) -> Fut<'_, Result<Vec<Claim>>> {
        let prefix = prefix.to_owned();
        self.ask(move |store| store.claims(&prefix))
    }
    fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> Fut<'_, Result<LedgerPage>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.ask(move |store| store.ledger(&prefix, after.as_deref(), limit))
    }
    fn write_ledger(&self, rows: Vec<LedgerWrite>, held: &Claim) -> Fut<'_, Result<()>> {
        let held = held.clone();
        self.ask(move |store| store.write_ledger(rows, &held))
    }
    fn report(&self, status: Status) -> Fut<'_, Result<()>> {
        self.ask(move |store| store.report(status))
    }
    fn reports(&self) -> Fut<'_, Result<Vec<Status>>> {
        self.ask(|store| store.reports())
    }
}

/// A server that hears at once, one that does not, and what is between that one and the database.
async fn two(late: Duration) -> (Running, Running, Far) {
    let memory = MemoryStore::new();
    let far = Far::new(&memory, late);
    let near = Running::on(Arc::new(memory), Limits::default(), false).await;
    let late = Running::on(Arc::new(far.clone()), Limits::default(), false).await;
    (near, late, far)
}

/// Writes a host, and answers the revision.
async fn put(server: &Running, n: u64) -> u64 {
    let body = json!({"document": {"n": n, "s": format!("v{n}")}});
    let answer = server.write("PUT", "/api/v2/hosts/web1.example.com", &body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    answer.json::<Value>().await.unwrap()["revision"].as_u64().unwrap()
}

fn header(answer: &Response, name: &str) -> u64 {
    answer.headers()[name].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_one_server_acknowledged_the_other_answers() {
    let (near, late, _) = two(Duration::from_millis(20)).await;
    for n in 0..30 {
        let revision = put(&near, n).await;
        let host = late.get("/api/v2/hosts/web1.example.com").await;
        assert_eq!((&host["document"]["n"], &host["revision"]), (&json!(n), &json!(revision)));
        let list = late.get("/api/v2/hosts").await;
        assert_eq!(list["items"][0]["document"]["n"], n, "{list}");
        let found = late.get(&format!("/api/v2/search?where=s%3D%3D%27v{n}%27")).await;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1), "{found}");
    }
    // Both ways: what is written by the one that hears late is read at the other.
    for n in 100..110 {
        put(&late, n).await;
        assert_eq!(near.get("/api/v2/hosts/web1.example.com").await["document"]["n"], n);
    }
    for server in [near, late] {
        server.stop().await;
    }
}

#[tokio::test]
async fn a_reader_who_takes_it_is_told_how_old_it_is() {
    let (near, late, far) = two(Duration::ZERO).await;
    let path = "/api/v2/hosts/web1.example.com";
    let first = put(&near, 1).await;
    assert_eq!(late.get(path).await["revision"], first);
    let tag = format!("\"r{first}\"");
    far.hold(true);
    let second = put(&near, 2).await;
    // It does not know of it, and says up to when it does.
    let answer = late.ask("GET", &format!("{path}?stale=true")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), header(&answer, "shoal-revision")), (200, first));
    assert!(header(&answer, "age") <= 60);
    assert_eq!(answer.json::<Value>().await.unwrap()["document"]["n"], 1);
    for list in ["hosts", "tags", "search?where=s%3D%3D%27v1%27"] {
        let sign = if list.contains('?') { '&' } else { '?' };
        let page = late.get(&format!("/api/v2/{list}{sign}stale")).await;
        assert_eq!(page["revision"], first, "{list}: {page}");
    }
    let takes = Options { stale: true, ..Options::default() };
    let listed = HttpStore::with(&late.url, takes).unwrap().list_hosts(None, None).await.unwrap().unwrap();
    assert_eq!(listed.revision.0, first);
    let same = late.ask("GET", &format!("{path}?stale=true")).header("if-none-match", &tag);
    assert_eq!(same.send().await.unwrap().status().as_u16(), 304);
    // Who does not take that waits, also with what it was in hand.
    let mut waits = tokio::spawn(late.ask("GET", path).header("if-none-match", &tag).send());
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut waits).await.is_err(), "it did not wait");
    far.hold(false);
    let answer = tokio::time::timeout(PATIENCE, waits).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert!(!answer.headers().contains_key("age"));
    let host = answer.json::<Value>().await.unwrap();
    assert_eq!((&host["document"]["n"], &host["revision"]), (&json!(2), &json!(second)));
    // A word that it is not is not taken for it.
    let odd = late.ask("GET", &format!("{path}?stale=perhaps")).send().await.unwrap();
    problem(odd, 400, "bad-request", &["stale"]).await;
    for server in [near, late] {
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_cannot_tell_what_is_newest_says_so() {
    let (near, late, far) = two(Duration::ZERO).await;
    let path = "/api/v2/hosts/web1.example.com";
    put(&near, 1).await;
    let tag = json!({"document": {}, "members": ["web1.example.com"]});
    let made = near.write("PUT", "/api/v2/tags/lb/web", &tag).send().await.unwrap();
    assert!(made.status().is_success());
    assert_eq!(late.get("/api/v2/tags/lb/web/members").await["items"][0]["member"], "web1.example.com");
    far.cut(true);
    let answer = late.ask("GET", path).send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    problem(answer, 503, "unavailable", &["stale=true", "another server"]).await;
    // What is known is there all the same, where nobody has to be asked what somebody may.
    for (known, what) in [
        (path, "/document/n"),
        ("/api/v2/hosts", "/items/0/document/n"),
        ("/api/v2/hosts/web1.example.com/tags", "/items/0/tag"),
        ("/api/v2/tags/lb/web", "/members/0"),
        ("/api/v2/tags/lb/web/members", "/items/0/member"),
        ("/api/v2/tags/lb/web/members/web1.example.com", "/member"),
    ] {
        let answer = late.get(&format!("{known}?stale=true")).await;
        assert!(answer.pointer(what).is_some(), "{known}: {answer}");
    }
    let none = late.ask("GET", "/api/v2/hosts/none.example.com?stale=true").send().await.unwrap();
    problem(none, 404, "not-found", &["none.example.com"]).await;
    assert_eq!(late.ask("GET", "/healthz").send().await.unwrap().status().as_u16(), 200);
    far.cut(false);
    assert_eq!(late.get(path).await["document"]["n"], 1);
    for server in [near, late] {
        server.stop().await;
    }
}

/// A server in front of another one asks it once for all who ask at once.
#[tokio::test]
async fn a_server_in_front_asks_once_for_many() {
    const READERS: usize = 30;
    let memory = MemoryStore::new();
    let far = Far::new(&memory, Duration::ZERO);
    let behind = Running::on(Arc::new(far.clone()), Limits::default(), false).await;
    put(&behind, 1).await;
    let front = Arc::new(HttpStore::new(&behind.url).unwrap());
    let front = Running::on(front, Limits::default(), false).await;
    let path = "/api/v2/hosts/web1.example.com";
    assert_eq!(front.get(path).await["document"]["n"], 1);
    let questions = async || counted(&behind, "shoal_http_requests_total", "/api/v2/store/head").await;
    let before = questions().await;
    // While the database is silent they gather.
    far.cut(true);
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(front.ask("GET", path).send())).collect();
    let gathered = async {
        while counted(&front, "shoal_http_connections ", "").await < READERS as u64 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gathered).await.unwrap();
    // For as long as that takes, a silent one is asked again and again. What is still asked counts when it is answered.
    let gathering = questions().await;
    far.cut(false);
    for reader in readers {
        let answer = tokio::time::timeout(PATIENCE, reader).await.unwrap().unwrap().unwrap();
        // On a machine that is too busy for them to gather in time they are told so.
        assert!([200, 503].contains(&answer.status().as_u16()), "{}", answer.status());
    }
    let all = questions().await;
    assert!(all > before, "nobody asked");
    let asked = all - gathering;
    assert!(asked < READERS as u64 / 2, "{asked} questions for {READERS} readers");
    for server in [front, behind] {
        server.stop().await;
    }
}

/// The sum of a counter, of the lines that say this.
async fn counted(server: &Running, name: &str, says: &str) -> u64 {
    let text = server.ask("GET", "/metrics").send().await.unwrap().text().await.unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(says));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
