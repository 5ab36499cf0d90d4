//! Tokens: `shoal_<id>_<secret>`, of which a row has the hash.

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use shoal_core::access::{Index, Known};
use subtle::ConstantTimeEq;

use super::authenticator::{Answer, Authenticator, Credential, Vouched};
use super::caller::Shown;
use super::unknown;
use crate::credentials::hash as hash_of;
use crate::latest::Latest;
use crate::problem::Problem;

/// Knows whoever shows a token of the database that has not ended by this time.
pub(crate) struct Tokens(pub(super) Arc<Latest>);

impl Authenticator for Tokens {
    fn knows<'a>(&'a self, shown: Credential<'a>, index: &'a Arc<Index>) -> BoxFuture<'a, Answer> {
        let answer = match shown {
            Credential::Bearer(token) if token.starts_with(PREFIX) => match known(index, token, self.0.now())
            {
                Ok(vouched) => Answer::Is(vouched),
                Err(problem) => Answer::No(problem),
            },
            _ => Answer::Pass,
        };
        Box::pin(std::future::ready(answer))
    }
}

const PREFIX: &str = "shoal_";
/// The longest id that is said in the log; those that are made here have 12 characters.
const MAX_ID: usize = 32;

/// The id and the secret of a token.
fn parts(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(PREFIX)?.split_once('_')
}

/// The id that a text has if it is of the form of a token: a secret is longer.
pub(super) fn id(token: &str) -> Option<&str> {
    let (id, _) = parts(token)?;
    let fine = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    fine.then_some(id)
}

/// Whose token it is at `now`.
///
/// # Errors
/// It is not good.
pub(super) fn known(index: &Index, token: &str, now: Timestamp) -> Result<Vouched, Problem> {
    let hint = "ask an administrator for another (`shoal token create`; `shoal token list` shows them all)";
    let bad = |why: &str| unknown(why, hint);
    let (id, secret) = parts(token).ok_or_else(|| bad("its token is not of the form shoal_ID_SECRET"))?;
    let Some(row) = index.token(id) else { return Err(bad("its token does not exist, or was revoked")) };
    let (hash, until) = (row.hash.0.clone(), row.expires);
    let shown = hash_of(secret);
    if !bool::from(shown.0.as_bytes().ct_eq(hash.to_ascii_lowercase().as_bytes())) {
        return Err(bad("its token does not exist, or was revoked"));
    }
    match index.shows(id, now) {
        Known::Principal(who) => Ok(Vouched { who, by: Shown::Token(id.to_owned(), hash), until }),
        Known::Not(why) => Err(bad(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_two_parts() {
        assert_eq!(parts("shoal_0a_s_x"), Some(("0a", "s_x")));
        assert_eq!((id("shoal_0a_b"), id("shoal_0a\n_b"), id("other_0a_b")), (Some("0a"), None, None));
        assert_eq!(id(&format!("shoal_{}_x", "a".repeat(64))), None);
        assert_eq!((parts("shoal_0a"), parts("other_0a_b")), (None, None));
    }
}
