//! The servers, and how long and how often each is tried.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Request, Response, redirect};
use serde::Serialize;
use shoal_store::{MAX_COMMIT, Result, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::address::{Address, BadAddress};
use crate::answer::{self, Loss, Trouble};

/// How many connections without work are kept to each server.
const IDLE: usize = 64;
/// How long one is kept: less than servers keep theirs (30 s), or a request would meet a closed one.
const IDLE_FOR: Duration = Duration::from_secs(20);
/// How soon a machine that is gone without a word is noticed.
const PROBE: Duration = Duration::from_secs(15);

/// How long things may take. The defaults fit a server on the same machine or in the same building.
#[derive(Clone, Debug)]
pub struct Options {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until an answer begins. Longer than the server's own bound, so that the server can say what was wrong.
    pub answer: Duration,
    /// After how long without an answer the server is asked whether it answers anything, and how long that may take. One that
    /// does not is passed over; one that does has this much more time, again and again.
    pub hung: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
    /// The largest answer and the largest event, in octets.
    pub largest: usize,
    /// Between two signs of life of a watch: several times the server's heartbeat.
    pub heartbeat: Duration,
    /// How long a server that once answered may be gone before that is an error.
    pub patience: Duration,
    /// The first and the longest pause between two rounds over all servers; up to all of it is left out by chance.
    pub pauses: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(75),
            hung: Duration::from_secs(3),
            silence: Duration::from_secs(30),
            largest: MAX_COMMIT + (MAX_COMMIT >> 2),
            heartbeat: Duration::from_secs(45),
            patience: Duration::from_secs(10),
            pauses: (Duration::from_millis(50), Duration::from_secs(2)),
        }
    }
}

/// When a lost request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Whenever: it says the same twice.
    Always,
    /// Only if it was surely not done.
    IfUnsent,
}

/// One request to whichever server answers.
#[derive(Debug)]
pub(crate) struct Call {
    /// What is attempted, as in "cannot …".
    pub(crate) what: &'static str,
    /// Below `/api/v2`.
    path: &'static str,
    query: Vec<(&'static str, String)>,
    /// JSON, for `POST`; `None`: `GET`. A copy of it costs nothing.
    body: Option<Bytes>,
    again: Again,
}

impl Call {
    /// A question without a body.
    pub(crate) fn get(what: &'static str, path: &'static str, query: Vec<(&'static str, String)>) -> Self {
        Self { what, path, query, body: None, again: Again::Always }
    }

    /// A request with a body.
    ///
    /// # Errors
    /// The body cannot be written as JSON.
    pub(crate) fn post(
        what: &'static str,
        path: &'static str,
        body: &impl Serialize,
        again: Again,
    ) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|e| {
            StoreError::Invalid(format!("cannot {what}: it cannot be written as JSON: {}", answer::root(&e)))
        })?;
        Ok(Self { what, path, query: Vec::new(), body: Some(body.into()), again })
    }

    fn request(&self, at: &Address) -> Result<Request, Trouble> {
        let bad = || Trouble::Said(StoreError::Invalid(format!("{at} has no path {}", self.path)));
        let mut url = at.url(self.path).ok_or_else(bad)?;
        // Without a pair it would still leave a question mark.
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        let Some(body) = &self.body else { return Ok(Request::new(Method::GET, url)) };
        let mut request = Request::new(Method::POST, url);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.clone().into());
        Ok(request)
    }
}

struct Server {
    address: Address,
    client: Client,
    /// Tells watches that it answers nothing.
    hung: Notify,
}

/// The servers of one database.
pub(crate) struct Link {
    servers: Vec<Server>,
    /// Who is asked first: who answered last.
    first: AtomicUsize,
    /// Whether anybody ever was there.
    met: AtomicBool,
    pub(crate) options: Options,
}

impl Link {
    pub(crate) fn new(addresses: Vec<Address>, options: Options) -> Result<Self, BadAddress> {
        let server = |address: Address| {
            let mut builder = Client::builder()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .connect_timeout(options.connect)
                .pool_max_idle_per_host(IDLE)
                .pool_idle_timeout(IDLE_FOR)
                .tcp_keepalive(PROBE)
                .tcp_user_timeout(PROBE * 2);
            if let Some(path) = &address.socket {
                builder = builder.unix_socket(path.clone());
            }
            let unusable = |e| BadAddress::Unusable(address.to_string(), answer::root(&e));
            let client = builder.build().map_err(unusable)?;
            Ok(Server { address, client, hung: Notify::new() })
        };
        let servers = addresses.into_iter().map(server).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { servers, first: AtomicUsize::new(0), met: AtomicBool::new(false), options })
    }

    /// The answer of the first server that has one.
    pub(crate) async fn ask(&self, call: Call) -> Result<Vec<u8>> {
        let (begun, mut pauses) = (Instant::now(), Pauses::new(self.options.pauses));
        loop {
            let (mut failures, mut after, mut elsewhere) = (Vec::new(), None, None);
            let first = self.first.load(Ordering::Relaxed);
            for n in 0..self.servers.len() {
                let at = (first + n) % self.servers.len();
                match self.whole(at, &call).await {
                    Ok(body) => {
                        self.first.store(at, Ordering::Relaxed);
                        return Ok(body);
                    }
                    Err(Trouble::Said(error)) => return Err(error),
                    Err(Trouble::Elsewhere(error)) => elsewhere = Some(error),
                    Err(Trouble::Lost(loss)) if loss.sent && call.again == Again::IfUnsent => {
                        return Err(self.unknown(at, call.what, &loss.why));
                    }
                    Err(Trouble::Lost(loss)) => {
                        after = after.max(loss.after);
                        failures.push((at, loss.why));
                    }
                }
            }
            // All who are there say no.
            if let (Some(error), true) = (elsewhere, failures.is_empty()) {
                return Err(error);
            }
            let wait = after.unwrap_or_default() + pauses.next();
            if !self.met() || begun.elapsed() + wait > self.options.patience {
                return Err(self.dead(call.what, &failures));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The beginning of the answer of the server that is asked first, for streams, and which server that is.
    pub(crate) async fn open(&self, call: &Call) -> (usize, Result<Response, Trouble>) {
        let at = self.first.load(Ordering::Relaxed);
        (at, self.head(at, call).await)
    }

    /// Another server is asked first from now on, unless that was seen to already.
    pub(crate) fn pass_over(&self, at: usize) {
        let next = (at + 1) % self.servers.len();
        // Failing means that somebody else was faster.
        let _ = self.first.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether any server ever was there.
    pub(crate) fn met(&self) -> bool {
        self.met.load(Ordering::Relaxed)
    }

    async fn whole(&self, at: usize, call: &Call) -> Result<Vec<u8>, Trouble> {
        let mut response = self.head(at, call).await?;
        answer::body(&mut response, self.options.largest, self.options.silence).await
    }

    /// One attempt at one server, up to where the body begins.
    async fn head(&self, at: usize, call: &Call) -> Result<Response, Trouble> {
        let Server { address, client, .. } = &self.servers[at];
        let request = call.request(address)?;
        let patient = self.unless_hung(at, client.execute(request));
        let answer = match tokio::time::timeout(self.options.answer, patient).await {
            Err(_) => Err(Loss::sent(format!("no answer within {:?}", self.options.answer))),
            Ok(None) => Err(Loss::sent(format!("no answer, to nothing, within {:?}", self.options.hung))),
            Ok(Some(Err(error))) => Err(answer::broken(&error, self.options.connect)),
            Ok(Some(Ok(response))) if response.status().is_success() => Ok(response),
            Ok(Some(Ok(response))) => Err(answer::refusal(response, address, self.options.silence).await),
        };
        if !matches!(&answer, Err(Trouble::Lost(Loss { sent: false, after: None, .. }))) {
            self.met.store(true, Ordering::Relaxed);
        }
        if let Err(Trouble::Lost(loss)) = &answer {
            tracing::debug!(server = %address, attempted = call.what, "no answer: {}", loss.why);
        }
        answer
    }

    /// The answer to what was asked of a server, for as long as it takes, unless the server does not even say how far it is.
    async fn unless_hung<T>(&self, at: usize, answer: impl Future<Output = T>) -> Option<T> {
        let Server { address, client, hung } = &self.servers[at];
        let mut answer = pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(self.options.hung, &mut answer).await {
                return Some(answer);
            }
            let url = address.url("/store/head")?;
            let lives = tokio::time::timeout(self.options.hung, client.get(url).send());
            tokio::select! {
                answer = &mut answer => return Some(answer),
                // Whatever it says.
                lives = lives => if !matches!(lives, Ok(Ok(_))) {
                    tracing::warn!(server = %address, "it answers nothing");
                    hung.notify_waiters();
                    return None;
                },
            }
        }
    }

    /// Ends when the server is found to answer nothing any more.
    pub(crate) async fn is_hung(&self, at: usize) {
        self.servers[at].hung.notified().await;
    }

    /// The error that nobody answered.
    pub(crate) fn dead(&self, what: &str, failures: &[(usize, String)]) -> StoreError {
        let name = |at: &usize| self.servers[*at].address.to_string();
        let next =
            "is shoal-hostdb running there? start it, or name the address of one that runs as the store";
        match failures {
            [(at, why)] => StoreError::Unavailable {
                place: format!("the server {}", name(at)),
                why: format!("cannot {what}: {why}; {next}"),
            },
            all => {
                let each: Vec<_> = all.iter().map(|(at, why)| format!("{}: {why}", name(at))).collect();
                StoreError::Unavailable {
                    place: format!("any of {} servers", all.len()),
                    why: format!("cannot {what}: {}; {next}", each.join("; ")),
                }
            }
        }
    }

    /// The error that nobody knows whether it was done.
    fn unknown(&self, at: usize, what: &str, why: &str) -> StoreError {
        StoreError::Unavailable {
            place: format!("the server {}", self.servers[at].address),
            why: format!(
                "the answer was lost ({why}), so it may have been done or not to {what}; look what stands there \
                 before you do it again"
            ),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|s| s.address.to_string())).finish()
    }
}

/// Pauses that grow, each of any length up to its bound, so that clients that lost a server together come back apart.
#[derive(Debug)]
pub(crate) struct Pauses {
    bound: Duration,
    most: Duration,
}

impl Pauses {
    pub(crate) fn new((first, most): (Duration, Duration)) -> Self {
        Self { bound: first.min(most), most }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.bound.mul_f64(rand::rng().random_range(0.0..1.0));
        self.bound = (self.bound * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_differ() {
        let (first, most) = (Duration::from_millis(50), Duration::from_secs(2));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..50 {
            let mut pauses = Pauses::new((first, most));
            for n in 0..12 {
                let bound = first.saturating_mul(1 << n).min(most);
                let pause = pauses.next();
                assert!(pause < bound, "{pause:?} of {bound:?}");
                seen.insert(pause);
            }
        }
        assert!(seen.len() > 500, "clients that lose a server together do not come back together");
        assert!(seen.last().unwrap() > &Duration::from_secs(1), "the bound is reached");
    }
}
