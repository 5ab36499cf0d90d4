//! A server for one test, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use shoal_hostdb::{Limits, Listener, Server};
use shoal_store::{MemoryStore, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// As long as one may wait for what a limit of the test's own cuts: by itself, a server takes half a minute ([`Limits`]).
pub(crate) const SOONER: Duration = Duration::from_secs(28);

pub(crate) struct Running {
    pub(crate) url: String,
    client: reqwest::Client,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new()), Limits::default(), false).await
    }

    /// One that answers HostDB's own interface too.
    pub(crate) async fn with_v1() -> Self {
        Self::start(Arc::new(MemoryStore::new()), Limits::default(), false, true).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, limits: Limits, read_only: bool) -> Self {
        Self::start(store, limits, read_only, false).await
    }

    pub(crate) async fn start(store: Arc<dyn Store>, limits: Limits, read_only: bool, v1: bool) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = listener.at().to_string();
        let stop = CancellationToken::new();
        let server = Server::start(store, limits, read_only, stop.clone()).await.unwrap();
        let task = tokio::spawn(server.with_hostdb_v1(v1).serve(vec![listener]));
        Self { url, client: reqwest::Client::new(), stop, task }
    }

    /// One that asks who may do what.
    pub(crate) async fn guarded(store: Arc<dyn Store>, limits: Limits) -> Self {
        Self::asking(store, limits, false).await
    }

    /// One that asks, and answers HostDB's own interface too.
    pub(crate) async fn guarded_v1(store: Arc<dyn Store>) -> Self {
        Self::asking(store, Limits::default(), true).await
    }

    async fn asking(store: Arc<dyn Store>, limits: Limits, v1: bool) -> Self {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = listener.at().to_string();
        let stop = CancellationToken::new();
        let server = Server::start(store, limits, false, stop.clone()).await.unwrap().with_access();
        let task = tokio::spawn(server.with_hostdb_v1(v1).serve(vec![listener]));
        Self { url, client: reqwest::Client::new(), stop, task }
    }

    pub(crate) fn ask(&self, method: &str, path: &str) -> RequestBuilder {
        self.client
            .request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", self.url))
            .timeout(PATIENCE)
    }

    /// A signed write with a JSON body.
    pub(crate) fn write(&self, method: &str, path: &str, body: &Value) -> RequestBuilder {
        self.ask(method, path).header("shoal-author", "ann").header("shoal-message", "because").json(body)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.ask("GET", path).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let response = self.ask("POST", path).json(body).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{path}: {text}");
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// Stops the server and waits for its end.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it stops in time").unwrap();
    }
}

/// Checks that the answer is a problem of this status and kind, and that its detail says each of `says`.
pub(crate) async fn refused(request: RequestBuilder, status: u16, kind: &str, says: &[&str]) -> Value {
    let response = request.send().await.unwrap();
    problem(response, status, kind, says).await
}

pub(crate) async fn problem(response: Response, status: u16, kind: &str, says: &[&str]) -> Value {
    let found = response.status();
    let media = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert_eq!(found.as_u16(), status, "{text}");
    assert_eq!(media.as_deref(), Some("application/problem+json"), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["type"], format!("urn:shoal:problem:{kind}"), "{text}");
    assert_eq!(body["status"], status);
    assert!(body["title"].as_str().is_some_and(|t| !t.is_empty()), "{text}");
    // Who understood the request and refuses it knows what to do instead.
    assert!(status != 422 || body["hint"].as_str().is_some_and(|h| !h.is_empty()), "{text}");
    for part in says {
        assert!(body["detail"].as_str().unwrap().contains(part), "{part:?} is not in {text}");
    }
    body
}

/// Server-sent events of a response, one by one.
pub(crate) struct Events {
    response: Response,
    buffer: String,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

impl Events {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        Self::of(request.send().await.unwrap())
    }

    /// The events of this answer.
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, buffer: String::new() }
    }

    /// The next event; `None` at the end. Comments are left out.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let block: String = self.buffer.drain(..end + 2).collect();
                let mut event = Event::default();
                for line in block.lines() {
                    match line.split_once(": ") {
                        Some(("event", v)) => event.name = v.to_owned(),
                        Some(("id", v)) => event.id = v.to_owned(),
                        Some(("data", v)) => event.data = serde_json::from_str(v).unwrap(),
                        _ => {}
                    }
                }
                if !event.name.is_empty() {
                    return Some(event);
                }
            }
            let chunk =
                tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("an event in time");
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// The next event of this name.
    pub(crate) async fn next_named(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if event.name == name {
                return event;
            }
        }
    }
}
