//! The servers, and how long and how often each is tried.

use std::borrow::Cow;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use rand::Rng;
use serde::Serialize;
use shoal_store::{MAX_COMMIT, Result, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access::{Access, Credentials};
use crate::address::{Address, BadAddress};
use crate::answer::{self, Loss, Response, Trouble};
use crate::connect::{Client, client};

/// Who is asking, and how long things may take. The defaults fit a server on the same machine or in the same building.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is shown to servers, and whom they must have their certificates from.
    pub access: Access,
    /// Until a connection stands, and TLS on it.
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
    /// Whether what a server knows is enough of hosts, tags and searches, which is answered at once and may be older than what was
    /// acknowledged. Rows, histories and writes are never that.
    pub stale: bool,
    /// The first and the longest pause between two rounds over all servers; up to all of it is left out by chance.
    pub pauses: (Duration, Duration),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            access: Access::default(),
            connect: Duration::from_secs(3),
            answer: Duration::from_secs(75),
            hung: Duration::from_secs(3),
            silence: Duration::from_secs(30),
            largest: MAX_COMMIT + (MAX_COMMIT >> 2),
            heartbeat: Duration::from_secs(45),
            patience: Duration::from_secs(10),
            stale: false,
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
    method: Method,
    /// Below `/api/v2`.
    path: Cow<'static, str>,
    query: Vec<(&'static str, String)>,
    /// JSON; a copy of it costs nothing.
    body: Option<Bytes>,
    again: Again,
}

impl Call {
    /// A question without a body.
    pub(crate) fn get(
        what: &'static str,
        path: impl Into<Cow<'static, str>>,
        query: Vec<(&'static str, String)>,
    ) -> Self {
        Self { what, method: Method::GET, path: path.into(), query, body: None, again: Again::Always }
    }

    /// The same, sent again only if it was surely not done.
    pub(crate) fn once(self) -> Self {
        Self { again: Again::IfUnsent, ..self }
    }

    /// The same with another method.
    pub(crate) fn by(self, method: Method) -> Self {
        Self { method, ..self }
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
        let method = Method::POST;
        Ok(Self { what, method, path: path.into(), query: Vec::new(), body: Some(body.into()), again })
    }

    /// The same for who takes what the server knows, if it is a read.
    fn stale(mut self) -> Self {
        if self.method == Method::GET {
            self.query.push(("stale", "true".to_owned()));
        }
        self
    }

    fn request(&self, at: &Address, token: Option<HeaderValue>) -> Result<Request<Full<Bytes>>, Trouble> {
        let bad = || Trouble::Said(StoreError::Invalid(format!("{at} has no path {}", self.path)));
        let mut request = Request::new(Full::new(self.body.clone().unwrap_or_default()));
        *request.uri_mut() = at.url(&self.path, &self.query).ok_or_else(bad)?;
        *request.method_mut() = self.method.clone();
        if self.body.is_some() {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        request.headers_mut().extend(token.map(|token| (AUTHORIZATION, token)));
        Ok(request)
    }
}

struct Server {
    address: Address,
    client: RwLock<Client>,
    /// Tells watches that it answers nothing.
    hung: Notify,
}

impl Server {
    fn client(&self) -> Client {
        self.client.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The servers of one database.
pub(crate) struct Link {
    servers: Vec<Server>,
    credentials: Credentials,
    /// Who is asked first: who answered last.
    first: AtomicUsize,
    /// Whether anybody ever was there.
    met: AtomicBool,
    pub(crate) options: Options,
}

impl Link {
    pub(crate) fn new(addresses: Vec<Address>, options: Options) -> Result<Self, BadAddress> {
        let credentials = Credentials::new(options.access.clone(), &addresses)?;
        let tls = credentials.papers().tls;
        let server = |address: Address| {
            let client = RwLock::new(client(&address, tls.as_ref(), options.connect));
            Server { address, client, hung: Notify::new() }
        };
        let servers = addresses.into_iter().map(server).collect();
        let (first, met) = (AtomicUsize::new(0), AtomicBool::new(false));
        Ok(Self { servers, credentials, first, met, options })
    }

    /// Takes over a token and certificates that changed; whether there were any. What is under way goes on with the old ones.
    fn renew(&self, urgent: bool) -> bool {
        let Some(papers) = self.credentials.renewed(urgent) else { return false };
        for server in self.servers.iter().filter(|server| server.address.is_tls()) {
            let new = client(&server.address, papers.tls.as_ref(), self.options.connect);
            *server.client.write().unwrap_or_else(PoisonError::into_inner) = new;
        }
        true
    }

    /// The answer of the first server that has one.
    pub(crate) async fn ask(&self, call: Call) -> Result<Vec<u8>> {
        let call = if self.options.stale { call.stale() } else { call };
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
            if let Some(error) = elsewhere.take_if(|_| failures.is_empty()) {
                return Err(error);
            }
            let wait = after.unwrap_or_default() + pauses.next();
            if !self.met() || begun.elapsed() + wait > self.options.patience {
                return Err(match elsewhere {
                    // That one is there, and what is wrong with it can be mended.
                    Some(denied @ StoreError::Denied { .. }) => denied,
                    _ => self.dead(call.what, &failures),
                });
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

    /// One attempt at one server, up to where the body begins; a second one with a token or a certificate that changed
    /// just now.
    async fn head(&self, at: usize, call: &Call) -> Result<Response, Trouble> {
        self.renew(false);
        match self.attempt(at, call).await {
            Err(Trouble::Said(StoreError::Denied { .. }) | Trouble::Elsewhere(StoreError::Denied { .. }))
                if self.renew(true) =>
            {
                self.attempt(at, call).await
            }
            answer => answer,
        }
    }

    async fn attempt(&self, at: usize, call: &Call) -> Result<Response, Trouble> {
        let address = &self.servers[at].address;
        let request = call.request(address, self.credentials.papers().token)?;
        let patient = self.unless_hung(at, self.servers[at].client().request(request));
        let answer = match tokio::time::timeout(self.options.answer, patient).await {
            Err(_) => Err(Loss::sent(format!("no answer within {:?}", self.options.answer))),
            Ok(None) => Err(Loss::sent(format!("no answer, to nothing, within {:?}", self.options.hung))),
            Ok(Some(Err(error))) => Err(answer::broken(&error, address, call.what)),
            Ok(Some(Ok(response))) if response.status().is_success() => Ok(response),
            Ok(Some(Ok(response))) => Err(self.refused(response, address, call.what).await),
        };
        if !matches!(&answer, Err(Trouble::Lost(Loss { sent: false, after: None, .. }))) {
            self.met.store(true, Ordering::Relaxed);
        }
        if let Err(Trouble::Lost(loss)) = &answer {
            tracing::debug!(server = %address, attempted = call.what, "no answer: {}", loss.why);
        }
        answer
    }

    /// What an answer that is no success means; of who may not, also what to do about it.
    async fn refused(&self, response: Response, at: &Address, what: &str) -> Trouble {
        let unknown = response.status() == StatusCode::UNAUTHORIZED;
        let Access { token_file, cert, .. } = &self.credentials.access;
        let next = match (token_file, cert) {
            _ if !unknown => String::new(),
            (Some(path), _) => format!("; the token is the one in {}: put another there", path.display()),
            (None, Some(path)) => {
                format!("; it was shown the certificate in {} and no token", path.display())
            }
            (None, None) => {
                "; show a token with --token-file FILE (SHOAL_TOKEN_FILE, or `token_file` in a configuration)"
                    .to_owned()
            }
        };
        match answer::refusal(response, at, self.options.silence).await {
            Trouble::Said(StoreError::Denied { place, why }) => {
                Trouble::Said(StoreError::Denied { place, why: format!("cannot {what}: {why}{next}") })
            }
            trouble => trouble,
        }
    }

    /// The answer to what was asked of a server, for as long as it takes, unless the server does not even say how far it is.
    async fn unless_hung<T>(&self, at: usize, answer: impl Future<Output = T>) -> Option<T> {
        let Server { address, hung, .. } = &self.servers[at];
        let mut answer = pin!(answer);
        loop {
            if let Ok(answer) = tokio::time::timeout(self.options.hung, &mut answer).await {
                return Some(answer);
            }
            let asking = Call::get("ask whether it lives", "/store/head", Vec::new());
            let asking = asking.request(address, self.credentials.papers().token).ok()?;
            let lives = tokio::time::timeout(self.options.hung, self.servers[at].client().request(asking));
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
