//! Passwords, and the sessions that they begin.
//!
//! A session is a token like any other, made by the server for somebody who said their password, and short-lived. What has ended
//! is swept up when its owner begins another. That a user has a bounded number of them, and none after another password, is what
//! [`prepare`](shoal_core::prepare()) sees to, whichever way the rows are written. A session needs its user's row, whoever vouched for them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use shoal_core::access::{Index, Principal, Scope, Secret, Token, TokenKind};
use shoal_core::{Document, Edit, Expect, Key, Pre, Proposal};
use tokio::sync::Semaphore;

use super::authenticator::{self, Answer, Authenticator, Credential, Vouched};
use super::caller::Shown;
use super::places::{Places, peer_of};
use super::unknown;
use crate::app::App;
use crate::credentials::{PASSWORD, new_token, verify};
use crate::problem::{Answer as Answered, Problem};

/// How many passwords are checked at once: each takes 19 MiB and some 20 ms of a processor.
pub(crate) const AT_ONCE: usize = 2;
/// How long a session lasts.
const LASTS: Duration = Duration::from_secs(12 * 3600);
/// How many ended sessions are swept up at a time.
const SWEPT: usize = 100;

/// Compared where a user has no password, so that the answer takes as long: nobody has the password of it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2hvYWwtbm9ib2R5ISE$5Jp8KIAtn8mJ7bq5fkBnd3ssvCkKFhIfTpcoP7lzuXo";

/// A session that began.
pub(crate) struct Session {
    /// The token, shown this once.
    pub(crate) token: String,
    /// Whose it is.
    pub(crate) user: String,
    /// When it ends.
    pub(crate) expires: Timestamp,
}

/// Knows whoever says the password that a user's row has, few at a time.
pub(crate) struct Passwords {
    turns: Semaphore,
    places: Places,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), places: Places::default() }
    }
}

impl Authenticator for Passwords {
    fn knows<'a>(&'a self, shown: Credential<'a>, index: &'a Arc<Index>) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Credential::Password { user, password, from } = shown else { return Answer::Pass };
            match self.compare(user, password, from, index).await {
                // Not a no: another way may know them.
                Ok(false) => Answer::Pass,
                Ok(true) => match Vouched::named(index, user, None) {
                    Ok(vouched) => Answer::Is(vouched),
                    Err(problem) => Answer::No(problem),
                },
                Err(problem) => Answer::No(problem),
            }
        })
    }
}

impl Passwords {
    /// Whether this is the user's password. Takes as long where there is no such user.
    async fn compare(&self, user: &str, password: &str, from: &str, index: &Index) -> Answered<bool> {
        let row = index.user(user).filter(|user| !user.disabled).and_then(|user| user.password.clone());
        let known = row.is_some();
        let hash = row.unwrap_or_else(|| Secret(NOBODY.to_owned()));
        let busy = || Problem::busy("too many passwords are being checked: try again");
        let _place = self.places.take(user, from).ok_or_else(busy)?;
        let _turn = self.turns.acquire().await.map_err(|_| busy())?;
        let said = password.to_owned();
        let right = tokio::task::spawn_blocking(move || verify(&hash, &said)).await.unwrap_or(false);
        Ok(known && right && password.len() <= *PASSWORD.end())
    }
}

impl App {
    /// The user who says this password, for `what` (in the record).
    ///
    /// # Errors
    /// It is nobody's, or too many are being checked.
    pub(super) async fn said(
        &self,
        user: &str,
        password: &str,
        origin: Option<&str>,
        what: &str,
    ) -> Answered<String> {
        let index = self.keeper.index(&self.db);
        let from = peer_of(origin);
        let shown = Credential::Password { user, password, from: &from };
        let refused = match authenticator::ask(&self.authenticators, shown, &index).await {
            Ok(Vouched { by: Shown::Name(name), .. }) => {
                tracing::info!(target: "audit", user = name, origin, "{what}");
                return Ok(name);
            }
            Ok(_) => unknown("it names no user", "a session is a user's: show a token instead"),
            Err(problem) => problem,
        };
        // Who is turned away because others are many said nothing wrong.
        let wrong = refused.status() == http::StatusCode::UNAUTHORIZED;
        Err(if wrong { refused.of_login(user) } else { refused })
    }

    /// Begins a session of a user who says their password. The session is committed before it is answered.
    ///
    /// # Errors
    /// The password is not that user's, too many are being checked, or the store does not take the session.
    pub(crate) async fn login(
        &self,
        user: &str,
        password: &str,
        origin: Option<String>,
    ) -> Answered<Session> {
        // Before the password is looked at: a user who goes, or gets another one, while it is compared has no session.
        let revision = |name: &str| {
            let key = format!("access/users/{name}").parse::<Key>().ok()?;
            self.db.view().revision_of(&key).map(|revision| (key, revision))
        };
        let seen = revision(user);
        let name = self.said(user, password, origin.as_deref(), "began a session").await?;
        let seen = if name == user { seen } else { revision(&name) };
        let Some((key, revision)) = seen else {
            let why = format!("{name} has no row of a user, and a session needs one");
            return Err(unknown(&why, "an administrator makes it: `shoal user add`"));
        };
        let (stands, user) = (Pre::At(key, revision), name.as_str());
        let _turn = self.write_turn()?;
        let new = new_token().map_err(|error| {
            let (status, title) = (http::StatusCode::INTERNAL_SERVER_ERROR, "The server failed");
            Problem::new(status, "internal", title, error.to_string())
        })?;
        let created = self.time.now();
        let expires = created.saturating_add(LASTS).unwrap_or(created);
        let row = Token {
            kind: TokenKind::Session,
            owner: user.to_owned(),
            hash: new.hash,
            scope: Scope::default(),
            created,
            expires: Some(expires),
            description: String::new(),
        };
        let key = |id: &str| format!("access/tokens/{id}").parse::<Key>();
        let value = Document::of(&row).map_err(|e| Problem::unwritable(&e))?;
        let mut edits = vec![Edit::Write { key: key(&new.id)?, value, expect: Expect::Absent }];
        let index = self.keeper.index(&self.db);
        for (ended, token) in index.ended(user, created).take(SWEPT) {
            if token.kind == TokenKind::Session {
                edits.push(Edit::Delete { key: key(ended)?, follow: false, expect: Expect::Any });
            }
        }
        let proposal = Proposal {
            principal: Some(user.to_owned()),
            origin,
            pre: vec![stands],
            ..Proposal::new(user, "began a session", edits)
        };
        self.db.transact(proposal).await?;
        Ok(Session { token: new.text, user: user.to_owned(), expires })
    }

    /// Ends the session that somebody shows. A token that was made is revoked by an administrator.
    ///
    /// # Errors
    /// No session was shown, or the store does not take it.
    pub(crate) async fn logout(&self, who: &Principal, origin: Option<String>) -> Answered<()> {
        let index = self.keeper.index(&self.db);
        let session = |id: &&String| index.token(id).is_some_and(|token| token.kind == TokenKind::Session);
        let Some(id) = who.token.as_ref().filter(session) else {
            return Err(Problem::not_found("no session is shown, so there is none to end: send its token"));
        };
        let key = format!("access/tokens/{id}").parse::<Key>()?;
        let edit = Edit::Delete { key, follow: false, expect: Expect::Any };
        let proposal = Proposal {
            principal: Some(who.name.clone()),
            origin,
            ..Proposal::new(who.name.as_str(), "ended a session", vec![edit])
        };
        self.db.transact(proposal).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_the_password_of_nobody() {
        let nobody = Secret(NOBODY.to_owned());
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODY).is_ok());
        assert!(!verify(&nobody, "") && !verify(&nobody, "nobody"));
    }
}
