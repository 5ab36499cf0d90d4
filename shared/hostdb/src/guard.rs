//! What every request passes on its way in and every answer on its way out.
//!
//! In: what is known is made as new as the request needs ([`crate::recent`]), and who asks is found out ([`crate::access`]). The `Host` header must be a name of this machine where no certificate vouches for it ([`Door`]), so that a web page
//! that points its own name here cannot make a visitor's browser write. On loopback and Unix sockets those are the names of
//! loopback. Plain HTTP from anywhere also takes addresses, which nobody can point elsewhere, and this machine's own name. By
//! TLS every name is served: a browser that asked for another has been refused by the certificate. The time of a request
//! is bounded. Out: requests are
//! counted and timed by route, and an answer of axum or hyper that is not a problem yet becomes one.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::access::{origin_of, peer_of};
use crate::app::App;
use crate::held::Room;
use crate::peer::{Door, Peer};
use crate::problem::{PROBLEM_JSON, Problem, Refused};
use crate::recent;
use crate::squeeze::squeezed;
use crate::v1::Said;

/// The longest text of an answer that is carried over into a problem.
const MAX_TEXT: usize = 2048;

/// Wraps one request.
pub(crate) async fn around(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let uri = request.uri().clone();
    let peer = request.extensions().get::<Peer>().cloned();
    let coding = request.headers().get(ACCEPT_ENCODING).cloned();
    // Who came through no door at all is treated as through the narrowest.
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Loopback);
    let answer = if is_ours(door, request.headers(), &uri) {
        match tokio::time::timeout(app.limits.request_timeout, asked(&app, request, next)).await {
            Ok(response) => response,
            Err(_) => late(&app).into_response(),
        }
    } else {
        misdirected(door).into_response()
    };
    let answer = if answer.status().as_u16() >= 400 && answer.extensions().get::<Said>().is_none() {
        as_problem(answer, &method, &uri).await
    } else {
        answer
    };
    let cut = peer.as_ref().map(|peer| peer.cut.clone()).unwrap_or_default();
    let from = || peer_of(peer.map(|peer| peer.to_string()).as_deref());
    let taken = app.room.take(answer.body().size_hint().exact(), from).await;
    let answer = match &taken {
        // It is not there any more for longer than it takes to say so.
        Err(_) => Response::default(),
        Ok(_) => squeezed(answer, coding).await,
    };
    let answer = Room::kept(answer, taken, cut);
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let status = answer.status();
    let verb = known(&method);
    app.metrics.requests.with_label_values(&[verb, route, status.as_str()]).inc();
    app.metrics.seconds.with_label_values(&[verb, route]).observe(start.elapsed().as_secs_f64());
    // Queries and sessions are not for the log: HostDB's clients put the latter there.
    tracing::debug!(%method, route, status = status.as_u16(), "request");
    answer
}

/// Finds out who asks, and lets the request through if they may come in at all. What is refused, here or behind it, is said in the
/// log and counted.
async fn asked(app: &App, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let (method, route) = (parts.method.clone(), parts.extensions.get::<MatchedPath>().cloned());
    let (origin, answer) = match recent::enter(app, &mut parts).await {
        Ok((caller, told)) => {
            parts.extensions.insert(caller.clone());
            let mut answer = next.run(Request::from_parts(parts, body)).await;
            if let Some(told) = told {
                told.say(answer.headers_mut());
            }
            (caller.origin.clone(), answer)
        }
        Err(problem) => {
            let mut refusal = problem.into_response();
            // Who has a new certificate shows it on a new connection, and has to begin one.
            if parts.extensions.get::<Peer>().is_some_and(|peer| peer.certificate.is_some()) {
                refusal.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            (Some(origin_of(&parts)), refusal)
        }
    };
    if let Some(Refused { kind, detail, login }) = answer.extensions().get::<Refused>() {
        app.metrics.denied.with_label_values(&[kind]).inc();
        app.audit.line(|more| {
            // Not the path: sessions stand in some.
            let (user, route) = (login.as_deref(), route.as_ref().map(MatchedPath::as_str));
            tracing::warn!(target: "audit", origin, user, %method, route, more, "{detail}");
        });
    }
    answer
}

/// The method as a label: clients may invent any number of them.
fn known(method: &http::Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "PUT" | "POST" | "PATCH" | "DELETE" | "OPTIONS") => known,
        _ => "other",
    }
}

fn late(app: &App) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "timeout",
        "It took too long",
        format!(
            "the request did not finish within {} seconds; whether a write happened is not known: send it again \
             with the same Idempotency-Key",
            app.limits.request_timeout.as_secs()
        ),
    )
    .retry_after(1)
}

fn misdirected(door: Door) -> Problem {
    let (title, detail) = match door {
        Door::Plain => (
            "This server answers plain HTTP only for addresses and this machine's own name",
            format!(
                "the Host header names another machine: use an address or {}, or have the server listen on https://",
                node_name()
            ),
        ),
        _ => (
            "This server answers only for this machine's loopback names",
            "the Host header names another machine: use localhost, 127.0.0.1 or [::1]".to_owned(),
        ),
    };
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", title, detail)
}

fn node_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}

/// Whether a request that came through this door may carry the name it does.
fn is_ours(door: Door, headers: &HeaderMap, uri: &Uri) -> bool {
    if door == Door::Tls {
        return true;
    }
    let named = match uri.host() {
        Some(host) => Some(host),
        None => headers.get(HOST).map(|h| h.to_str().unwrap_or("?")),
    };
    let Some(named) = named else { return true };
    let host = if named.starts_with('[') {
        named.split_inclusive(']').next().unwrap_or(named)
    } else {
        named.split(':').next().unwrap_or(named)
    };
    let v4 = host.parse::<Ipv4Addr>().ok();
    if matches!(host, "" | "localhost" | "[::1]") || v4.is_some_and(|a| a.is_loopback()) {
        return true;
    }
    let v6 = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let own = || {
        let own = node_name();
        host.eq_ignore_ascii_case(&own) || own.split('.').next().is_some_and(|o| host.eq_ignore_ascii_case(o))
    };
    door == Door::Plain && (v4.is_some() || v6().is_some() || own())
}

async fn as_problem(answer: Response, method: &http::Method, uri: &Uri) -> Response {
    if answer.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes() == PROBLEM_JSON.as_bytes()) {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    let problem = match parts.status {
        StatusCode::NOT_FOUND => Problem::not_found(format!(
            "{} is not a path of this server: see docs/api.md for all of them",
            uri.path()
        )),
        // The list itself is written after this, by the router.
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            parts.status,
            "method-not-allowed",
            "This resource has no such method",
            format!("{} does not take {method}: the Allow header says what it takes", uri.path()),
        ),
        status => {
            let text = to_bytes(body, MAX_TEXT).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let title = status.canonical_reason().unwrap_or("The request failed");
            Problem::new(status, "request", title, if text.is_empty() { title.to_owned() } else { text })
        }
    };
    let mut response = problem.into_response();
    let own = response.headers().get(CONTENT_TYPE).cloned();
    for (name, value) in &parts.headers {
        if name != CONTENT_LENGTH && name != CONTENT_TYPE {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().insert(CONTENT_TYPE, own.unwrap_or(HeaderValue::from_static(PROBLEM_JSON)));
    let (mut parts, body) = response.into_parts();
    if method == http::Method::HEAD {
        parts.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(door: Door, host: &str) -> bool {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(host).unwrap())]);
        is_ours(door, &headers, &Uri::from_static("/healthz"))
    }

    #[test]
    fn only_names_of_loopback_are_served() {
        for door in [Door::Loopback, Door::Unix] {
            for good in ["localhost", "localhost:80", "127.0.0.1:8053", "127.1.2.3", "[::1]:80", "[::1]", ""]
            {
                assert!(served(door, good), "{good}");
            }
            for bad in ["example.com", "127.0.0.1.example.com", "192.0.2.1:80", "[::2]", "localhost.example"]
            {
                assert!(!served(door, bad), "{bad}");
            }
            assert!(is_ours(door, &HeaderMap::new(), &Uri::from_static("/healthz")));
            let elsewhere = Uri::from_static("http://evil.example/healthz");
            assert!(
                !is_ours(door, &HeaderMap::new(), &elsewhere),
                "the whole URL counts more than the header"
            );
        }
    }

    #[test]
    fn elsewhere_the_certificate_vouches_for_names_or_nobody_can_point_them_here() {
        let own = node_name();
        for good in ["192.0.2.1:80", "[2001:db8::1]:80", "localhost", &own, &format!("{own}:8053")] {
            assert!(served(Door::Plain, good), "{good}");
        }
        for bad in ["evil.example", "192.0.2.1.evil.example", "[evil]", &format!("{own}.evil.example")] {
            assert!(!served(Door::Plain, bad), "{bad}");
            assert!(served(Door::Tls, bad), "{bad}");
        }
    }
}
