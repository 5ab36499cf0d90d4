//! Sessions, what is somebody's own, and who may do what: `/api/v2/sessions`, `/api/v2/password`, `/api/v2/tokens`, `/api/v2/whoami` and `/api/v2/can`.
//!
//! The rows that decide are rows like others: `/api/v2/access`, for administrators.

use axum::body::Body;
use axum::extract::Path;
use http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shoal_core::access::{Denied, Known, Principal, Target, Verb};
use shoal_store::{NewPassword, OwnToken};

use crate::access::Caller;
use crate::problem::{Answer, Problem};
use crate::request::{Accepts, Ask, Text};
use crate::spec::{Routes, delete, get, post, put, query, text};

/// The paths of this module.
pub(super) fn routes(to: Routes) -> Routes {
    let verbs = schemars::json_schema!({"type": "string", "enum": ["read", "write"]});
    let keys = schemars::json_schema!({"type": "string", "examples": ["lb/web/members"], "pattern": r"^[a-z][a-z0-9-]{0,62}/\S*$"});
    let what = "`NAMESPACE/KEY`, `NAMESPACE/KEY/members`, `hosts/FQDN`, or `NAMESPACE/`.";
    to.at(
        "/api/v2/sessions",
        [
            post("Begins a session of somebody who says a password", login)
                .open()
                .body::<Login>()
                .creates::<Began>("The token of the session, shown this once.")
                .refuses(&[401, 403, 507]),
            delete("Ends the session whose token is shown", logout)
                .answers_nothing("It is ended.")
                .refuses(&[404]),
        ],
    )
    .at(
        "/api/v2/password",
        [put("Another password, for a user who says the one of now", password)
            .open()
            .body::<Change>()
            .answers_nothing("It is that from now on, and all sessions of the user have ended.")
            .refuses(&[401, 403, 409, 507])],
    )
    .at(
        "/api/v2/tokens",
        [get("The tokens and sessions of who asks, without their secrets", tokens)
            .answers::<Tokens>("All of them; of who shows a narrow one, that one.")],
    )
    .at(
        "/api/v2/tokens/{id}",
        [delete("Revokes a token of who asks", revoke)
            .takes([query::<String>("message", "Why; it stands in the log.")])
            .answers_nothing("It is good for nothing any more.")
            .refuses(&[403, 404, 507])],
    )
    .at("/api/v2/whoami", [get("Who asks, as the server sees it", whoami).answers::<Who>("Who.")])
    .at(
        "/api/v2/can",
        [get("Whether somebody may do something, and what decides it", can)
            .takes([
                query::<String>("user", "Of whom: a user, or `agent NAMESPACE`; left out: who asks."),
                text("verb", verbs, "What they would do.").required(),
                text("on", keys, what).required(),
            ])
            .answers::<May>("Yes or no.")
            .refuses(&[404, 422])],
    )
}

/// Octets of a login's body: nobody has said yet who they are.
const MAX_LOGIN: usize = 8 << 10;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    #[schemars(length(min = 1, max = 253))]
    user: String,
    #[schemars(length(max = 1024))]
    password: String,
}

#[derive(Serialize, JsonSchema)]
struct Began {
    /// `Authorization: Bearer TOKEN` from now on.
    token: String,
    user: String,
    expires: Timestamp,
}

/// `POST /api/v2/sessions`
async fn login(ask: Ask, body: Body) -> Answer {
    let ask = ask.only(&[])?;
    ask.app.writable()?;
    let read = Text::read(&ask, body, Accepts::Documents, MAX_LOGIN).await?.map();
    let Login { user, password } = read.map_err(|bad| {
        let hint = "send {\"user\": \"NAME\", \"password\": \"TEXT\"}, both as text: a password of digits has quotation marks around it";
        mistaken(&bad, "login", hint)
    })?;
    let began = ask.app.login(&user, &password, ask.caller.origin.clone()).await?;
    let (token, user, expires) = (began.token, began.user, began.expires);
    ask.shape.with(StatusCode::CREATED, &Began { token, user, expires })
}

/// What is wrong with a login, or what else has a password in it, without what was sent: the password may stand anywhere in it.
fn mistaken(bad: &Problem, what: &str, hint: &str) -> Problem {
    let detail = format!("nothing was looked at: the body is no {what}; {hint}");
    let (kind, title) = match bad.status() {
        StatusCode::BAD_REQUEST => ("malformed", "The body is not what its Content-Type says"),
        _ => ("invalid", "What was sent is not what is asked for here"),
    };
    Problem::new(bad.status(), kind, title, detail).with("hint", hint)
}

/// `DELETE /api/v2/sessions`
async fn logout(ask: Ask) -> Answer<StatusCode> {
    let ask = ask.only(&[])?;
    let _turn = ask.app.write_turn()?;
    ask.app.logout(&ask.caller.who, ask.caller.origin.clone()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    #[schemars(length(min = 1, max = 253))]
    user: String,
    /// The one of now.
    #[schemars(length(max = 1024))]
    password: String,
    /// The one from then on.
    #[schemars(length(min = 8, max = 1024))]
    new: String,
}

/// `PUT /api/v2/password`
async fn password(ask: Ask, body: Body) -> Answer<StatusCode> {
    let ask = ask.only(&[])?;
    ask.app.writable()?;
    let read = Text::read(&ask, body, Accepts::Documents, MAX_LOGIN).await?.map();
    let Change { user, password, new } = read.map_err(|bad| {
        let hint =
            "send {\"user\": \"NAME\", \"password\": \"THE ONE OF NOW\", \"new\": \"THE NEXT\"}, all as text";
        mistaken(&bad, "change of a password", hint)
    })?;
    ask.app.change_password(NewPassword { user, password, new }, ask.caller.origin.clone()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, JsonSchema)]
struct Tokens {
    items: Vec<OwnToken>,
}

/// `GET /api/v2/tokens`
async fn tokens(ask: Ask) -> Answer {
    let ask = ask.only(&[])?;
    ask.shape.ok(&Tokens { items: ask.app.own_tokens(&ask.caller) })
}

/// `DELETE /api/v2/tokens/{id}`
async fn revoke(ask: Ask, Path(id): Path<String>) -> Answer<StatusCode> {
    let ask = ask.only(&["message"])?;
    let message = ask.params.get("message").map_or("", str::trim);
    let message = if message.is_empty() { "revoked by its owner" } else { message };
    let _turn = ask.app.write_turn()?;
    ask.app.revoke_own(&ask.caller, &id, message).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, JsonSchema)]
struct Who {
    principal: String,
    groups: Vec<String>,
    administrator: bool,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// When what was shown expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<Timestamp>,
}

/// `GET /api/v2/whoami`
async fn whoami(ask: Ask) -> Answer {
    let ask = ask.only(&[])?;
    let caller = &*ask.caller;
    let (who, index) = (&caller.who, &caller.index);
    ask.shape.ok(&Who {
        principal: who.name.clone(),
        groups: index.groups(&who.name).to_vec(),
        administrator: index.is_admin(who),
        origin: caller.origin.clone(),
        expires: caller.until,
    })
}

#[derive(Serialize, JsonSchema)]
struct May {
    may: bool,
    /// What decides it.
    rule: String,
    /// Of a no: what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Of a yes: the rule that wants a second person for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    review: Option<String>,
}

/// `GET /api/v2/can?user=ann&verb=write&on=lb/web/members`: of oneself anybody may ask, of others administrators.
async fn can(ask: Ask) -> Answer {
    let ask = ask.only(&["user", "verb", "on"])?;
    let caller = &*ask.caller;
    let missing = |name: &str| Problem::bad_request(format!("{name} is missing")).with("field", name);
    let verb = match ask.params.get("verb").ok_or_else(|| missing("verb"))? {
        "read" => Verb::Read,
        "write" => Verb::Write,
        other => {
            return Err(Problem::bad_request(format!("verb={other:?} is neither read nor write"))
                .with("field", "verb"));
        }
    };
    let on = ask.params.get("on").ok_or_else(|| missing("on"))?;
    let who = match ask.params.get("user").filter(|user| *user != caller.who.name) {
        None => caller.who.clone(),
        Some(user) => {
            caller.must_administer()?;
            known(caller, user)?
        }
    };
    let hint = "write NAMESPACE/KEY, NAMESPACE/KEY/members, or NAMESPACE/";
    let target = Target::read(on).map_err(|why| Problem::invalid(why, hint).with("field", "on"))?;
    let answer = match target {
        Some(target) => caller.index.may(&who, verb, target),
        None => caller.index.administers(&who),
    };
    let may = match answer {
        Ok(rule) => {
            let review =
                target.filter(|_| verb == Verb::Write).and_then(|target| caller.index.protected(target));
            May { may: true, rule: rule.to_string(), hint: None, review }
        }
        Err(Denied { rule, hint, .. }) => May { may: false, rule, hint: Some(hint), review: None },
    };
    ask.shape.ok(&may)
}

fn known(caller: &Caller, user: &str) -> Answer<Principal> {
    match caller.index.called(user) {
        Known::Principal(who) => Ok(who),
        Known::Not(why) => Err(Problem::not_found(format!("{user}: {why}"))),
    }
}
