//! How new what a request rests on is.
//!
//! Reads are linearizable: before one is answered, the server asks the database how far it is, for all who ask at once, and waits until
//! its view has come there. So whatever was acknowledged before a request came, by this server or another, is in its answer. Where that cannot be found out
//! in time the answer is 503, never what was true a while ago.
//!
//! A read that says `stale` is answered at once with what this server knows, and told of which revision that is and how old at most.
//!
//! Who asks, and what they may, is looked up in the same view. For a read that is as new as the read. A write rests on what is known, if
//! that is not older than [`TRUST`], and so does a read that says `stale`: a server that is cut off from its database believes a token that was revoked no longer than
//! that, and then refuses with 503 whatever needs a right. What a write changes is judged once more by the database: it
//! is on the condition that no right was changed since. Nor is a write refused by what is known alone: whoever shows what nobody knows, and whoever
//! lacks a right, is looked up again in the newest, once. HostDB's clients show who they are within a write, often at another server than the one that let them in, so theirs
//! rest on the newest as well. Counters rest on nothing: they are wanted most while the database is silent. What a watch sends comes by the same way as what takes its right
//! away, so who watches a server that is cut off is sent nothing new.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::MatchedPath;
use http::header::AGE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shoal_core::Revision;
use shoal_core::access::Denied;
use shoal_store::{StoreError, TransactError};

use crate::access::{Caller, admit, is_open};
use crate::app::App;
use crate::problem::{Answer, Problem};

/// The parameter that a read says it with.
pub(crate) const STALE: &str = "stale";
/// For how long at most what was known decides who asks and what they may.
pub(crate) const TRUST: Duration = Duration::from_secs(10);
/// How long a read waits until this server knows all that was committed before it. It is as long as a restart of etcd may take unnoticed.
const LEARN: Duration = Duration::from_secs(10);
/// How long it takes at most where what is known is too old: who waits does not want the newest, and the database mostly does not answer.
const ASK: Duration = Duration::from_secs(2);
/// The revision that a stale read has at least.
const REVISION: &str = "shoal-revision";

/// Reads whose question stands in a body.
const ASKED_IN_BODY: [&str; 4] =
    ["/api/v2/store/read", "/api/v2/store/log", "/api/v2/store/watch", "/api/v2/store/ledger/read"];

/// What a request rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rests {
    /// Nothing of the database.
    Nothing,
    /// What this server knows.
    Known,
    /// All that was committed before it came.
    Newest,
}

/// Goes with a read that takes what is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stale;

/// What goes with the answer to such a read: how new it is at least.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    revision: Revision,
    age: Duration,
}

/// Waits until the view is new enough for a request, and finds out who sends it.
///
/// # Errors
/// It cannot be found out how new the view is; and as for [`admit`].
pub(crate) async fn enter(app: &App, parts: &mut Parts) -> Answer<(Arc<Caller>, Option<Told>)> {
    let (rests, stale) = rests(parts)?;
    app.rests(rests).await?;
    let caller = match admit(app, parts).await {
        // A token may have been made a moment ago, through another server. As long as a read would wait: it is all that is left to find out.
        Err(problem) if problem.status() == StatusCode::UNAUTHORIZED && rests == Rests::Known && app.asks => {
            app.db.refresh(LEARN).await.map_err(|error| unsure(app, error))?;
            admit(app, parts).await?
        }
        caller => caller?,
    };
    if !stale {
        return Ok((caller, None));
    }
    parts.extensions.insert(Stale);
    // Before it is answered: what it says is as new, or newer.
    Ok((caller, Some(Told { revision: app.db.view().revision(), age: app.db.age() })))
}

/// What a request rests on, and whether it says that it takes what is known.
fn rests(parts: &Parts) -> Answer<(Rests, bool)> {
    let Some(route) = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str) else {
        return Ok((Rests::Nothing, false));
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let reads = parts.method == Method::POST && ASKED_IN_BODY.contains(&route);
        // A session of these is looked up by the handler.
        let newest = reads || route == "/v1" || route.starts_with("/v1/");
        return Ok((if newest { Rests::Newest } else { Rests::Known }, false));
    }
    // Counters are of this server, and wanted most where it is in trouble: one of them says how old what it knows is. Whoever was let in last may have them.
    if is_open(&parts.method, route) || route == "/metrics" {
        return Ok((Rests::Nothing, false));
    }
    let stale = route.starts_with("/api/") && says_stale(parts.uri.query())?;
    Ok((if stale { Rests::Known } else { Rests::Newest }, stale))
}

fn says_stale(query: Option<&str>) -> Answer<bool> {
    let Some(query) = query else { return Ok(false) };
    let mut said = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == STALE);
    match said.next().as_ref().map(|(_, value)| &**value) {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => {
            let detail = format!("the parameter {STALE}={other:?} is not true or false");
            Err(Problem::bad_request(detail).with("field", STALE))
        }
    }
}

impl App {
    /// Waits until the view is as new as what rests on it needs.
    async fn rests(&self, on: Rests) -> Answer<()> {
        match on {
            Rests::Nothing => Ok(()),
            Rests::Newest => self.db.refresh(LEARN).await.map_err(|error| unsure(self, error)),
            Rests::Known => self.trusted().await,
        }
    }

    /// Makes sure that what decides who asks, and what they may, is not older than [`TRUST`]. Costs a reading of the clock.
    ///
    /// # Errors
    /// It is, and the database does not say anything newer.
    pub(crate) async fn trusted(&self) -> Answer<()> {
        if !self.asks || self.db.age() <= TRUST {
            return Ok(());
        }
        self.db.refresh(ASK).await.map_err(|error| unsure(self, error))
    }

    /// Who sends a write, if they have this right. It may have been given a moment ago, through another server: a no by what is known here is asked
    /// about once more, by the newest. A yes costs nothing, a no what a read costs.
    ///
    /// # Errors
    /// The no; it cannot be found out what is newest; what vouched for them does so no longer.
    pub(crate) async fn let_pass(
        &self,
        caller: &Caller,
        right: impl Fn(&Caller) -> Result<(), Denied>,
    ) -> Result<Caller, TransactError> {
        let no = |denied: Denied| TransactError::Denied(Box::new(denied));
        match right(caller) {
            Ok(()) => return Ok(caller.clone()),
            Err(denied) if denied.unknown => return Err(no(denied)),
            Err(_) => {}
        }
        self.db.refresh(LEARN).await.map_err(|error| TransactError::Store(doubted(self, error)))?;
        let caller = caller.still(self).map_err(no)?;
        right(&caller).map_err(no)?;
        Ok(caller)
    }
}

/// Keeps what is known of the database's newest revision from growing old where nobody asks; for ever.
pub(crate) async fn follow(app: Arc<App>) {
    let often = TRUST / 4;
    loop {
        if app.db.age() >= often {
            // Whoever needs it asks again, and is told.
            if let Err(error) = app.db.refresh(often).await {
                tracing::debug!(%error, "how new the view is cannot be found out");
            }
        }
        tokio::time::sleep(often).await;
    }
}

impl Told {
    /// Says it.
    pub(crate) fn say(self, headers: &mut HeaderMap) {
        headers.insert(REVISION, HeaderValue::from(self.revision.0));
        headers.insert(AGE, HeaderValue::from(seconds(self.age)));
    }
}

/// Whole seconds, and never fewer than have passed.
fn seconds(age: Duration) -> u64 {
    age.as_secs() + u64::from(age.subsec_nanos() > 0)
}

/// That this server cannot tell whether what it knows is the newest.
fn unsure(app: &App, error: StoreError) -> Problem {
    doubted(app, error).into()
}

/// The same, as the store would say it.
fn doubted(app: &App, error: StoreError) -> StoreError {
    let StoreError::Unavailable { place, why } = error else { return error };
    let why = format!(
        "{why}; so this server cannot tell whether what it knows, which is at most {} s old, is still so. Nothing was done. Ask another server, or again; a read that says \
         `stale=true` is answered all the same, for {} s where rights are asked about",
        seconds(app.db.age()),
        TRUST.as_secs()
    );
    StoreError::Unavailable { place, why }
}
