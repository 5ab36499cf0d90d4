//! Who sends a request.
//!
//! A token goes first, whatever the connection is; then a client certificate; then, on a Unix socket, the local user, as the
//! kernel says. Root and the server's own user could write into the database's file, so they administer. Any other local user is
//! the user of that name; see [`Index::named`](shoal_core::access::Index::named) for agents. Nothing of it: nobody known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::MatchedPath;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use shoal_core::access::{Index, Known, Principal};
use subtle::ConstantTimeEq;

use super::caller::{Caller, Shown};
use super::unknown;
use crate::app::App;
use crate::credentials::hash as hash_of;
use crate::peer::Peer;
use crate::problem::{Answer, Problem};

/// What is answered whoever asks: it says nothing of the database.
const OPEN: [(&str, &str); 4] =
    [("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/api/v2/openapi.json"), ("POST", "/api/v2/sessions")];

/// How long the name of a local user is believed, and of how many.
const BELIEVED: Duration = Duration::from_secs(60);
const MAX_NAMES: usize = 256;
/// The longest origin that is kept, in octets.
const MAX_ORIGIN: usize = 256;

/// Who sends the request, if they may come in at all.
///
/// # Errors
/// Credentials that are shown and not good, and none where there must be some.
pub(crate) async fn admit(app: &App, head: &Parts) -> Answer<Caller> {
    let route = head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let peer = head.extensions.get::<Peer>();
    if app.asks && route.is_some_and(|route| is_open(&head.method, route)) {
        // A probe shows nothing, and a login shows it in the body.
        return Ok(Caller::unknown(app.keeper.index(&app.db), peer));
    }
    let caller = identify(app, &head.headers, peer).await?;
    // Below `/v1` a session is shown in other ways, and hosts and tags are read without one.
    if route.is_some_and(|route| route == "/v1" || route.starts_with("/v1/")) {
        return Ok(caller);
    }
    if caller.asked && caller.who.is_anonymous() && !caller.index.knows_anonymous() {
        // HostDB's clients ask for a session by its name.
        let path = head.uri.path();
        let shown = if path.starts_with("/v1/auth/session/") { "/v1/auth/session/…" } else { path };
        let wanted = format!("{} {shown}", head.method);
        return Err(stranger(&wanted));
    }
    Ok(caller)
}

fn is_open(method: &Method, route: &str) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    OPEN.contains(&(method, route))
}

fn stranger(wanted: &str) -> Problem {
    shoal_core::access::Denied {
        who: shoal_core::access::ANONYMOUS.to_owned(),
        wanted: wanted.to_owned(),
        rule: "built-in: who does not say who they are reads and writes nothing".to_owned(),
        hint: "send `Authorization: Bearer TOKEN` (`shoal token create` makes one), or come by the server's Unix socket"
            .to_owned(),
        unknown: true,
    }
    .into()
}

/// Who sends a request with this head, over this connection.
///
/// # Errors
/// Credentials that are shown and not good.
async fn identify(app: &App, headers: &HeaderMap, peer: Option<&Peer>) -> Answer<Caller> {
    if !app.asks {
        return Ok(Caller::unasked(peer.map(ToString::to_string)));
    }
    let index = app.keeper.index(&app.db);
    if let Some(token) = bearer(headers)? {
        return with_token(index, token, peer);
    }
    if let Some(name) = peer.and_then(|peer| peer.certificate.as_deref()) {
        return named(index, name, peer);
    }
    let Some(uid) = peer.and_then(|peer| peer.uid) else { return Ok(Caller::unknown(index, peer)) };
    let name = app.names.of(uid).await;
    let origin = Some(format!("unix uid {uid} ({})", name.as_deref().unwrap_or("?")));
    if uid == 0 || uid == app.own_uid {
        let who = Principal::local(name.unwrap_or_else(|| format!("uid {uid}")));
        return Ok(Caller { who, index, origin, shown: Shown::Place, until: None, asked: true });
    }
    match name {
        Some(name) => named(index, &name, peer).map(|caller| Caller { origin, ..caller }),
        None => Err(unknown(&format!("no local user has the uid {uid}"), "show a token instead")),
    }
}

/// The token of the header, if there is one.
fn bearer(headers: &HeaderMap) -> Answer<Option<&str>> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), next) = (all.next(), all.next()) else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    match (token, next) {
        (Some((_, token)), None) => Ok(Some(token.trim())),
        _ => Err(unknown("its Authorization is not understood", "send one, `Authorization: Bearer TOKEN`")),
    }
}

/// The id and the secret of a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix("shoal_")?.split_once('_')
}

fn with_token(index: Arc<Index>, token: &str, peer: Option<&Peer>) -> Answer<Caller> {
    let hint = "look at it with `shoal token list`, or make another with `shoal token create`";
    let bad = |why: &str| unknown(why, hint);
    let (id, secret) = parts(token).ok_or_else(|| bad("its token is not of the form shoal_ID_SECRET"))?;
    let Some(row) = index.token(id) else { return Err(bad("its token does not exist, or was revoked")) };
    let (hash, until) = (row.hash.0.clone(), row.expires);
    let shown = hash_of(secret);
    if !bool::from(shown.0.as_bytes().ct_eq(hash.to_ascii_lowercase().as_bytes())) {
        return Err(bad("its token does not exist, or was revoked"));
    }
    let who = match index.shows(id, Timestamp::now()) {
        Known::Principal(who) => who,
        Known::Not(why) => return Err(bad(why)),
    };
    let origin =
        Some(cut(format!("{}, token {id}", peer.map_or_else(|| "?".to_owned(), ToString::to_string))));
    let shown = Shown::Token(id.to_owned(), hash);
    Ok(Caller { who, index, origin, shown, until, asked: true })
}

fn named(index: Arc<Index>, name: &str, peer: Option<&Peer>) -> Answer<Caller> {
    match index.named(name) {
        Known::Principal(who) => {
            let (origin, shown) = (peer.map(|peer| cut(peer.to_string())), Shown::Name(name.to_owned()));
            Ok(Caller { who, index, origin, shown, until: None, asked: true })
        }
        Known::Not(why) => Err(unknown(why, "ask an administrator")),
    }
}

/// A text that fits the record.
fn cut(mut text: String) -> String {
    let end = (0..=MAX_ORIGIN.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

impl Caller {
    /// The same, who shows this token instead, wherever it was shown.
    ///
    /// # Errors
    /// The token is not good.
    pub(crate) fn showing(&self, app: &App, token: &str) -> Answer<Self> {
        let mut shown = with_token(app.keeper.index(&app.db), token, None)?;
        let id = shown.who.token.as_deref().unwrap_or_default();
        shown.origin = self.origin.as_ref().map(|origin| cut(format!("{origin}, token {id}")));
        Ok(shown)
    }

    /// The same; who did not say who they are reads as somebody who did, unless a rule names `anonymous`: what HostDB's own
    /// interface promises.
    pub(crate) fn reader(&self) -> Self {
        if !self.asked || !self.who.is_anonymous() {
            return self.clone();
        }
        Self { who: Principal::person(shoal_core::access::ANONYMOUS), ..self.clone() }
    }

    /// Nobody known.
    pub(super) fn unknown(index: Arc<Index>, peer: Option<&Peer>) -> Self {
        let origin = peer.map(|peer| cut(peer.to_string()));
        Self { who: Principal::anonymous(), index, origin, shown: Shown::Place, until: None, asked: true }
    }

    /// The same as of now: what they were is looked up again.
    ///
    /// # Errors
    /// What vouched for them does so no longer.
    pub(crate) fn again(&self, app: &App) -> Answer<Self> {
        if !self.asked {
            return Ok(self.clone());
        }
        let index = app.keeper.index(&app.db);
        let ended = |why: &str| unknown(why, "show another token");
        let who = match &self.shown {
            Shown::Place => self.who.clone(),
            Shown::Name(name) => match index.named(name) {
                Known::Principal(who) => who,
                Known::Not(why) => return Err(ended(why)),
            },
            Shown::Token(id, hash) => {
                if index.token(id).is_none_or(|row| row.hash.0 != *hash) {
                    return Err(ended("its token was revoked"));
                }
                match index.shows(id, Timestamp::now()) {
                    Known::Principal(who) => who,
                    Known::Not(why) => return Err(ended(why)),
                }
            }
        };
        Ok(Self { who, index, ..self.clone() })
    }
}

/// The names of local users, for a while. The system may have to ask others for them.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<u32, (Instant, Option<String>)>>);

impl Names {
    async fn of(&self, uid: u32) -> Option<String> {
        if let Some((at, name)) = self.known().get(&uid)
            && at.elapsed() < BELIEVED
        {
            return name.clone();
        }
        let ask =
            move || uzers::get_user_by_uid(uid).and_then(|user| user.name().to_str().map(str::to_owned));
        let name = tokio::task::spawn_blocking(ask).await.ok().flatten();
        let mut known = self.known();
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.insert(uid, (Instant::now(), name.clone()));
        name
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u32, (Instant, Option<String>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_one_well_formed_token_is_shown() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers)
                .map(|token| token.map(str::to_owned))
                .map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["Bearer shoal_a_b"]), Ok(Some("shoal_a_b".to_owned())));
        assert_eq!(of(&["bearer  x "]), Ok(Some("x".to_owned())));
        for bad in [&["Basic YTpi"][..], &["Bearer"], &["Bearer a", "Bearer b"], &[""]] {
            assert_eq!(of(bad), Err(401), "{bad:?}");
        }
        assert_eq!(parts("shoal_0a_s_x"), Some(("0a", "s_x")));
        assert_eq!((parts("shoal_0a"), parts("other_0a_b")), (None, None));
    }

    #[test]
    fn what_is_recorded_fits() {
        let long = cut("é".repeat(300));
        assert!(long.len() <= MAX_ORIGIN && long.chars().all(|c| c == 'é'));
    }
}
