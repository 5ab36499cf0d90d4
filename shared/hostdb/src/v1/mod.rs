//! HostDB's own interface, `/v1`, so that its clients work unchanged: plain text, YAML values, one resource a path.
//!
//! It stands in docs/hostdb-v1.md with what differs. It is switched on by `--hostdb-v1`, and answers from the same database as
//! `/api/v2`: what one writes the other reads. Its errors are no problem documents: their reason phrase says why ([`fault`]).
//!
//! The interface is that of [HostDB](https://github.com/Flipkart/HostDB), from its API_SPEC.md and what its server does.

mod fault;
mod get;
mod given;
mod id;
mod inside;
mod past;
mod perms;
mod session;
mod set;
mod yaml;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::SemaphorePermit;

use crate::access::{Caller, peer_of};
use crate::app::App;
use crate::held::Place;
use crate::peer::Peer;
use crate::request::Asker;

pub(crate) use fault::Said;
use fault::{Answer, Fault};
use given::Given;
use id::Resource;

const TEXT: &str = "text/plain; charset=utf-8";
/// How long a browser keeps a session, in seconds.
const COOKIE_AGE: u32 = 86_400;
/// Octets of a body that anybody may send.
const SMALL: usize = 8 << 10;

/// The paths of this interface.
pub(crate) fn routes() -> [(&'static str, MethodRouter<Arc<App>>); 6] {
    // What HostDB does not know is refused in its own way.
    let rest = || on(MethodFilter::PATCH.or(MethodFilter::OPTIONS).or(MethodFilter::TRACE), other);
    let any = || rest().get(read).put(write).post(write).delete(write);
    [
        ("/v1", any()),
        ("/v1/", any()),
        ("/v1/{*id}", any()),
        ("/v1/auth/session", rest().post(login).get(whose).put(other).delete(other)),
        ("/v1/auth/session/{session}", rest().get(whose).put(other).post(other).delete(other)),
        ("/v1/auth/can_modify", rest().get(can_modify).put(other).post(other).delete(other)),
    ]
}

/// The path below `/v1`, decoded.
fn path(parts: &Parts) -> Answer<String> {
    let below = parts.uri.path().strip_prefix("/v1").unwrap_or_default();
    let decoded = percent_encoding::percent_decode_str(below).decode_utf8();
    decoded.map(|path| path.into_owned()).map_err(|_| Fault::bad_request("The path is not UTF-8"))
}

async fn read(State(app): State<Arc<App>>, Asker(caller): Asker, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answer = async {
        let (path, given) = (path(&parts)?, Given::in_query(&parts));
        let reader = session::reader(&app, &caller, given.session());
        // With `*` in it, it is no resource, and what is asked for is more than one.
        let of = match Resource::parse(&path) {
            Err(no) if given.get("foreach").is_none() => return Err(no),
            of => of.unwrap_or(Resource::Root),
        };
        session::may_read(&reader, &of, &given)?;
        let place = place(&app, &parts, &given)?;
        session::may_gather(&app, &reader, &path, &of, &given).await?;
        let text = get::text(&app, &reader, &path, &given).await?;
        // Of many keys the first is not more than the others; and of all there is, it would tell of what is kept.
        let of = Resource::parse(&path).ok().filter(|_| given.get("foreach").is_none());
        let of = of.filter(|of| *of != Resource::Root || !reader.restricted());
        let mtime = match of {
            Some(of) => past::mtime(&app, &of, given.revision()?).await,
            None => None,
        };
        let mut response = stamped(said(StatusCode::OK, String::new()), mtime);
        let cut = parts.extensions.get::<Peer>().map(|peer| peer.cut.clone()).unwrap_or_default();
        *response.body_mut() = match place {
            Some(place) => place.keeping(Body::from(text), cut),
            None => Body::from(text),
        };
        Ok(response)
    };
    answer.await.unwrap_or_else(Fault::into_response)
}

/// A place for an answer that is worked out from much. There are few, one peer has half of them, and who reads too slowly loses theirs.
fn place(app: &App, parts: &Parts, given: &Given) -> Answer<Option<Place>> {
    let much = ["foreach", "revision"].iter().any(|name| given.get(name).is_some());
    if !much && given.get("meta") != Some("blame") {
        return Ok(None);
    }
    let busy =
        || Fault::new(StatusCode::SERVICE_UNAVAILABLE, "Too many large answers are under way: try again");
    let from = parts.extensions.get::<Peer>().map(ToString::to_string);
    app.large_answers.take(peer_of(from.as_deref())).map(Some).ok_or_else(busy)
}

async fn write(State(app): State<Arc<App>>, Asker(caller): Asker, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    written(&app, &caller, &parts, body).await.unwrap_or_else(Fault::into_response)
}

async fn written(app: &App, caller: &Caller, parts: &Parts, body: Body) -> Answer {
    if app.read_only {
        return Err(Fault::new(StatusCode::FORBIDDEN, "HostDB is in read-only mode"));
    }
    let _place = stranger(app, caller, parts)?;
    let given = Given::in_form(parts, body, app.limits.document).await?;
    let (caller, user) = session::writer(app, caller, given.session())?;
    let by = set::By { caller, user, log: given.need("log")?.trim().to_owned() };
    let of = Resource::parse(&path(parts)?)?;
    set::may_write(&of, &by.caller)?;
    let _turn = app.write_turn().map_err(Fault::from)?;
    let (status, words) = match parts.method {
        Method::PUT => {
            set::put(app, of.clone(), &given, &by).await?;
            (StatusCode::CREATED, "Object created")
        }
        Method::POST => {
            set::rename(app, of.clone(), &given, &by).await?;
            (StatusCode::CREATED, "Object created")
        }
        _ => {
            set::delete(app, of.clone(), &by).await?;
            (StatusCode::OK, "Object deleted")
        }
    };
    let mut response = stamped(said(status, String::new()), past::mtime(app, &of, None).await);
    response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(words.as_bytes()));
    Ok(response)
}

/// A place for a large body of who has not said yet who they are: the session may stand in it. There are few, so that strangers do not fill the
/// memory.
fn stranger<'a>(app: &'a App, caller: &Caller, parts: &Parts) -> Answer<Option<SemaphorePermit<'a>>> {
    let known = !caller.asked
        || !caller.who.is_anonymous()
        || session::writer(app, caller, Given::in_query(parts).session()).is_ok();
    let length = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if known || length.is_some_and(|octets: usize| octets <= SMALL) || bare(parts) {
        return Ok(None);
    }
    let busy = || {
        Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many large values of unknown senders are being read: try again, or send the session in the query",
        )
    };
    app.strangers.try_acquire().map(Some).map_err(|_| busy())
}

/// Whether there is no body.
fn bare(parts: &Parts) -> bool {
    !parts.headers.contains_key(CONTENT_LENGTH) && !parts.headers.contains_key(TRANSFER_ENCODING)
}

async fn other() -> Response {
    Fault::not_allowed("Only GET, HEAD, PUT, POST and DELETE are known here").into_response()
}

/// `POST /v1/auth/session`: a session, also as a cookie.
async fn login(State(app): State<Arc<App>>, Asker(caller): Asker, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = async {
        let given = Given::in_form(&parts, body, SMALL).await?;
        let session = session::open(&app, &caller, &given).await?;
        let cookie = format!(
            "{}={session}; Max-Age={COOKIE_AGE}; Path=/v1; Secure; HttpOnly; SameSite=Strict",
            given::COOKIE_NAME
        );
        let mut response = said(StatusCode::OK, session);
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        Ok(response)
    };
    answer.await.unwrap_or_else(Fault::into_response)
}

/// `GET /v1/auth/session/ID`: the user of a session; without one in the path, of that in the cookie.
async fn whose(State(app): State<Arc<App>>, Asker(caller): Asker, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answer = || {
        let (path, given) = (path(&parts)?, Given::in_query(&parts));
        let named = path.strip_prefix("/auth/session/").filter(|session| !session.is_empty());
        Ok(said(StatusCode::OK, session::writer(&app, &caller, named.or(given.session()))?.1))
    };
    answer().unwrap_or_else(Fault::into_response)
}

/// `GET /v1/auth/can_modify?user=…&id=…`: 1 or 0. Of others than oneself it is for administrators, but where anybody reads the resource.
async fn can_modify(State(app): State<Arc<App>>, Asker(caller): Asker, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let answer = || {
        if app.read_only {
            return Err(Fault::new(StatusCode::FORBIDDEN, "HostDB is in read-only mode"));
        }
        let given = Given::in_query(&parts);
        let (user, id) = (given.need("user")?, given.need("id")?);
        let of = Resource::parse(id)?;
        session::may_ask(&app, &caller, given.session(), user, &of)?;
        Ok(said(StatusCode::OK, if session::may_write(&caller, user, &of) { "1" } else { "0" }.to_owned()))
    };
    answer().unwrap_or_else(Fault::into_response)
}

fn said(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn stamped(mut response: Response, mtime: Option<i64>) -> Response {
    if let Some(seconds) = mtime {
        response.headers_mut().insert("Mtime", HeaderValue::from(seconds));
    }
    response
}
