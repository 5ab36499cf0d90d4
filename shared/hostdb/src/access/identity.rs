//! Who sends a request.
//!
//! A certificate that was shown has to be good, whatever else is shown. A token goes first ([`Authenticator`](super::Authenticator)),
//! whatever the connection is; then a client certificate; then, on a Unix socket, the local user, as the kernel says. Root and the
//! server's own user could write into the database's file, so they administer. Any other local user is the user of that name; see
//! [`Index::local`](shoal_core::access::Index::local) for agents. Whom the kernel cannot name (uid 65534) is nobody. Nothing of it: nobody known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::MatchedPath;
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, Method};
use shoal_core::access::{Denied, Index, Known, Principal};

use super::authenticator::{self, Credential, Vouched};
use super::caller::{Caller, Shown, Somebody};
use super::remembered::digest;
use super::{token, unknown};
use crate::app::App;
use crate::certificate::Named;
use crate::peer::Peer;
use crate::problem::{Answer, Problem};

/// What is answered whoever asks: it says nothing of the database.
const OPEN: [(&str, &str); 5] = [
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/v2/openapi.json"),
    ("POST", "/api/v2/sessions"),
    ("PUT", "/api/v2/password"),
];

/// How long the name of a local user is believed, and of how many.
const BELIEVED: Duration = Duration::from_secs(60);
const MAX_NAMES: usize = 256;
/// The longest origin that is kept, in octets.
const MAX_ORIGIN: usize = 256;

/// What nobody gets who does not say who they are, whatever a rule gives them: no rule is about it.
const CLOSED: [&str; 2] = ["/metrics", "/api/v2/store/head"];
/// Whom the kernel names where it cannot say who it is (another user namespace). It is nobody.
const OVERFLOW: u32 = 65534;

/// Who sends the request, if they may come in at all.
///
/// # Errors
/// Credentials that are shown and not good, and none where there must be some.
pub(crate) async fn admit(app: &App, head: &Parts) -> Answer<Arc<Caller>> {
    let route = head.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    let peer = head.extensions.get::<Peer>();
    if let Some(certificate) = peer.and_then(|peer| peer.certificate.as_ref()) {
        certificate.stands(app.time.now()).map_err(|why| unknown(&why, RENEW))?;
    }
    if app.asks && route.is_some_and(|route| is_open(&head.method, route)) {
        // A probe shows nothing, and who says a password shows it in the body.
        return Ok(Arc::new(Caller::unknown(app.keeper.index(&app.db), peer)));
    }
    // Below `/v1` a session is shown in other ways, and hosts and tags are read without one.
    let v1 = route.is_some_and(|route| route == "/v1" || route.starts_with("/v1/"));
    let caller = match identify(app, &head.headers, peer).await {
        // One that has ended counts as none, as it does in a cookie.
        Err(problem) if v1 && reads_v1(&head.method, route) => {
            app.ignored(Some(&origin_of(head)), &problem);
            Arc::new(Caller::unknown(app.keeper.index(&app.db), peer))
        }
        caller => caller?,
    };
    if v1 {
        return Ok(caller);
    }
    let shut = || route.is_some_and(|route| CLOSED.contains(&route)) || !caller.index.knows_anonymous();
    if caller.asked && caller.who.is_anonymous() && shut() {
        return Err(stranger(&format!("{} {}", head.method, head.uri.path()), peer));
    }
    Ok(caller)
}

/// What a client does whose certificate is good no longer.
pub(crate) const RENEW: &str = "connect anew, with one that is good";

/// Whether it is answered whoever asks.
pub(crate) fn is_open(method: &Method, route: &str) -> bool {
    let method = if method == Method::HEAD { "GET" } else { method.as_str() };
    OPEN.contains(&(method, route))
}

fn reads_v1(method: &Method, route: Option<&str>) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
        && !route.is_some_and(|route| route.starts_with("/v1/auth/"))
}

fn stranger(wanted: &str, peer: Option<&Peer>) -> Problem {
    let hint = match peer.and_then(|peer| peer.uid) {
        Some(uid) if is_nobody(uid) => format!(
            "send `Authorization: Bearer TOKEN` (an administrator makes one: `shoal token create`): the uid {uid} is also whom the kernel cannot name, so it is no \
             local user here"
        ),
        _ => "send `Authorization: Bearer TOKEN` (an administrator makes one: `shoal token create`), or come by the server's Unix socket".to_owned(),
    };
    Denied {
        who: shoal_core::access::ANONYMOUS.to_owned(),
        wanted: wanted.to_owned(),
        rule: "built-in: who does not say who they are reads and writes nothing but what a rule gives `anonymous`".to_owned(),
        hint,
        unknown: true,
    }
    .into()
}

/// Who sends a request with this head, over this connection.
///
/// # Errors
/// Credentials that are shown and not good.
async fn identify(app: &App, headers: &HeaderMap, peer: Option<&Peer>) -> Answer<Arc<Caller>> {
    let certificate = peer.and_then(|peer| peer.certificate.clone());
    if !app.asks {
        let origin = peer.map(ToString::to_string);
        let caller = Caller::unasked(origin);
        return Ok(Arc::new(caller.with(Somebody { certificate, ..(*caller.of).clone() })));
    }
    let index = app.keeper.index(&app.db);
    let token = bearer(headers)?;
    let shown = digest(token);
    if let Some(known) = peer.and_then(|peer| peer.remembered.find(shown.as_ref(), &index, app.time.now())) {
        return Ok(Arc::new(known));
    }
    let caller = match token {
        Some(token) => {
            let vouched = authenticator::ask(&app.authenticators, Credential::Bearer(token), &index).await?;
            Caller::of(vouched, index, peer.map(ToString::to_string))
        }
        None => connected(app, index, peer).await?,
    };
    // Whichever ends first.
    let ends = certificate.as_ref().map(|certificate| certificate.until);
    let until = caller.until.into_iter().chain(ends).min();
    let caller = Arc::new(caller.with(Somebody { until, certificate, ..(*caller.of).clone() }));
    if let Some(peer) = peer {
        peer.remembered.keep(shown, &caller);
    }
    Ok(caller)
}

/// Who it is by the connection alone.
async fn connected(app: &App, index: Arc<Index>, peer: Option<&Peer>) -> Answer<Caller> {
    let Some(peer) = peer else { return Ok(Caller::unknown(index, None)) };
    let origin = Some(peer.to_string());
    if let Some(certificate) = &peer.certificate {
        let vouched = match certificate.named.as_ref() {
            Ok(Named::Agent(namespace)) => match index.agent(namespace) {
                Known::Principal(who) => Vouched { who, by: Shown::Agent(namespace.clone()), until: None },
                Known::Not(why) => return Err(unknown(why, "ask an administrator")),
            },
            Ok(Named::User(name)) => Vouched::named(&index, name, None)?,
            Err(why) => {
                return Err(unknown(why, "docs/access.md says whom a certificate names; or show a token"));
            }
        };
        return Ok(Caller::of(vouched, index, origin));
    }
    let Some(uid) = peer.uid.filter(|uid| !is_nobody(*uid)) else {
        return Ok(Caller::unknown(index, Some(peer)));
    };
    let name = app.names.of(uid).await;
    let origin = Some(format!("unix uid {uid} ({})", name.as_deref().unwrap_or("?")));
    if uid == 0 || uid == app.own_uid {
        let who = Principal::local(name.unwrap_or_else(|| format!("uid {uid}")));
        return Ok(Caller::of(Vouched { who, by: Shown::Place, until: None }, index, origin));
    }
    let Some(name) = name else {
        return Err(unknown(&format!("no local user has the uid {uid}"), "show a token instead"));
    };
    match index.local(&name) {
        Known::Principal(who) => {
            Ok(Caller::of(Vouched { who, by: Shown::Local(name), until: None }, index, origin))
        }
        Known::Not(why) => Err(unknown(why, "ask an administrator")),
    }
}

/// Whether the kernel says by this that it does not know.
fn is_nobody(uid: u32) -> bool {
    static OTHER: OnceLock<u32> = OnceLock::new();
    let other = || std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
    uid == OVERFLOW || uid == *OTHER.get_or_init(|| other().unwrap_or(OVERFLOW))
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

/// From where a request with this head comes, whoever sent it, for the record: with the id of the token that it shows, good or not.
pub(crate) fn origin_of(head: &Parts) -> String {
    let peer = head.extensions.get::<Peer>().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let id = bearer(&head.headers).ok().flatten().and_then(token::id);
    cut(match id {
        Some(id) => format!("{peer}, token {id}"),
        None => peer,
    })
}

/// A text that fits the record.
fn cut(mut text: String) -> String {
    let end = (0..=MAX_ORIGIN.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text
}

impl Caller {
    /// Who was vouched for, from this origin.
    fn of(vouched: Vouched, index: Arc<Index>, origin: Option<String>) -> Self {
        let Vouched { who, by, until } = vouched;
        let origin = match &who.token {
            Some(id) => format!("{}, token {id}", origin.as_deref().unwrap_or("?")),
            None => origin.unwrap_or_default(),
        };
        let origin = Some(cut(origin)).filter(|origin| !origin.is_empty());
        let of = Somebody { who, origin, shown: by, until, asked: true, certificate: None };
        Self { index, of: Arc::new(of) }
    }

    /// The same, who shows this token instead, wherever it was shown.
    ///
    /// # Errors
    /// The token is not good.
    pub(crate) fn showing(&self, app: &App, token: &str) -> Answer<Self> {
        let index = app.keeper.index(&app.db);
        let vouched = token::known(&index, token, app.time.now())?;
        let shown = Self::of(vouched, index, self.origin.clone());
        Ok(shown.with(Somebody { certificate: self.certificate.clone(), ..(*shown.of).clone() }))
    }

    /// The same; who did not say who they are reads as somebody who did, unless a rule names `anonymous`: what HostDB's own
    /// interface promises.
    pub(crate) fn reader(&self) -> Self {
        if !self.asked || !self.who.is_anonymous() { self.clone() } else { self.anybody() }
    }

    /// Whoever comes to HostDB's interface without saying who they are.
    pub(crate) fn anybody(&self) -> Self {
        self.with(Somebody { who: Principal::person(shoal_core::access::ANONYMOUS), ..(*self.of).clone() })
    }

    /// Nobody known.
    pub(super) fn unknown(index: Arc<Index>, peer: Option<&Peer>) -> Self {
        let origin = peer.map(|peer| cut(peer.to_string()));
        let certificate = peer.and_then(|peer| peer.certificate.clone());
        let who = Principal::anonymous();
        let of = Somebody { who, origin, shown: Shown::Place, until: None, asked: true, certificate };
        Self { index, of: Arc::new(of) }
    }

    /// The same as of now: what they were is looked up again.
    ///
    /// # Errors
    /// What vouched for them does so no longer.
    pub(crate) fn again(&self, app: &App) -> Answer<Self> {
        self.now(app).map_err(|(why, hint)| unknown(&why, hint))
    }

    /// [`Caller::again`], for who writes.
    ///
    /// # Errors
    /// The no.
    pub(crate) fn still(&self, app: &App) -> Result<Self, Denied> {
        self.now(app).map_err(|(why, hint)| Denied {
            who: self.who.name.clone(),
            wanted: "write any more".to_owned(),
            rule: format!("built-in: credentials that are shown have to be good: {why}"),
            hint: hint.to_owned(),
            unknown: true,
        })
    }

    /// Who it is by now, or why nobody, and what to do.
    fn now(&self, app: &App) -> Result<Self, (String, &'static str)> {
        if let Some(certificate) = &self.certificate {
            certificate.stands(app.time.now()).map_err(|why| (why, RENEW))?;
        }
        if !self.asked {
            return Ok(self.clone());
        }
        let index = app.keeper.index(&app.db);
        let ended = |why: &str| (why.to_owned(), "show another token");
        let who = match &self.shown {
            Shown::Place => self.who.clone(),
            Shown::Name(_) | Shown::Local(_) | Shown::Agent(_) => {
                let known = match &self.shown {
                    Shown::Local(name) => index.local(name),
                    Shown::Name(name) => index.named(name),
                    Shown::Agent(namespace) => index.agent(namespace),
                    Shown::Place | Shown::Token(..) => Known::Principal(self.who.clone()),
                };
                match known {
                    Known::Principal(who) => who,
                    Known::Not(why) => return Err(ended(why)),
                }
            }
            Shown::Token(id, hash) => {
                if index.token(id).is_none_or(|row| row.hash.0 != *hash) {
                    return Err(ended("its token was revoked"));
                }
                match index.shows(id, app.time.now()) {
                    Known::Principal(who) => who,
                    Known::Not(why) => return Err(ended(why)),
                }
            }
        };
        Ok(Self { index, of: Arc::new(Somebody { who, ..(*self.of).clone() }) })
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
    }

    #[test]
    fn what_is_recorded_fits() {
        let long = cut("é".repeat(300));
        assert!(long.len() <= MAX_ORIGIN && long.chars().all(|c| c == 'é'));
    }
}
