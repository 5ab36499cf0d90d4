//! Who asks, and what they may: the effectful half of [`shoal_core::access`].
//!
//! [`Keeper`] has the rows that decide ready, as of the server's view; [`admit`] finds out who sends a
//! request; [`Caller`] is put into its extensions, and answers for it. Everything that handlers read or write asks it, and what
//! nobody has asked about is refused at the door: who does not say who they are gets nowhere, unless a rule names `anonymous`.
//!
//! What holds:
//!
//! * A right that was taken away is gone for every read that comes after the commit that took it, at whatever server; for writes, and reads that take what is
//!   known, once the view has seen it, and after [`TRUST`](crate::recent::TRUST) at the latest. A write that was let pass before
//!   that, and is still under way, is refused by the store: it is conditional on nothing below `access/` having changed since the rows that it
//!   was judged by. What comes with a body is asked about again when that is there.
//! * A right that was given is there for every request that comes after the commit that gave it, but for reads that take what is known: a write that is
//!   not let pass by what is known is asked about once more, by the newest.
//! * A raw range, and a watch, is answered whole or refused. Lists for people leave out what one may not read, and say how many; not of less
//!   than a namespace, where the number would say what.
//! * What refuses a write is named to who may read it.
//! * Rows below `access/` are part of no wider range, but for administrators; and the hashes in them of none.

mod audit;
mod authenticator;
mod caller;
mod identity;
mod keeper;
mod kept;
mod own;
mod password;
mod places;
mod remembered;
mod token;
mod writes;

pub(crate) use audit::Audit;
pub(crate) use authenticator::Authenticator;
pub(crate) use caller::Caller;
pub(crate) use identity::{Names, admit, is_open, origin_of};
pub(crate) use keeper::Keeper;
pub(crate) use password::AT_ONCE;
pub(crate) use places::peer_of;
pub(crate) use remembered::Remembered;

use std::sync::Arc;

use http::StatusCode;
use shoal_core::access::Denied;

use crate::latest::Latest;
use crate::problem::Problem;

/// The ways to know people that there are, in the order in which they are asked. What has ended is judged by `time`.
pub(crate) fn authenticators(time: Arc<Latest>) -> Vec<Box<dyn Authenticator>> {
    vec![Box::new(token::Tokens(time)), Box::new(password::Passwords::default())]
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let detail = denied.to_string();
        let (status, kind, title) = match denied.unknown {
            true => (StatusCode::UNAUTHORIZED, "unauthenticated", "Say who you are"),
            false => (StatusCode::FORBIDDEN, "denied", "You may not do this"),
        };
        Self::new(status, kind, title, detail)
            .with("rule", denied.rule)
            .with("attempted", denied.wanted)
            .with("principal", denied.who)
            .with("hint", denied.hint)
    }
}

/// Credentials that are shown and not good.
pub(crate) fn unknown(why: &str, hint: &str) -> Problem {
    let detail = format!("the request was not looked at: {why}; {hint}");
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Say who you are", detail)
        .with("rule", "built-in: credentials that are shown have to be good")
        .with("hint", hint)
}
