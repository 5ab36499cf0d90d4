//! What is somebody's own below `access/`, and they see and change without administering: their tokens, and their password.
//!
//! Tokens are shown without their hashes. One that is good for a part alone does not reach beyond itself: it sees and ends itself, so that
//! who finds a narrow one neither learns of the others nor ends them. A password is replaced by whoever says the one of now: a session
//! that was left open is not enough to take somebody's place for good.

use shoal_core::access::{Denied, Principal, Right, Sort, Token, User};
use shoal_core::{ACCESS, Document, Edit, Expect, Key, Pre, Proposal};
use shoal_store::{NewPassword, OwnToken};

use super::{Caller, unknown};
use crate::app::App;
use crate::credentials::{PASSWORD, hash_password};
use crate::problem::{Answer, Problem};

/// Whether the token that somebody shows is good for all their others, too.
fn reaches(who: &Principal, right: Right) -> bool {
    matches!(who.sort, Sort::Person | Sort::Local)
        && who.scope.has(ACCESS)
        && who.scope.data.min(who.scope.members) >= right
}

impl App {
    /// The tokens and sessions of somebody, by id; of who shows a narrow token, that one.
    pub(crate) fn own_tokens(&self, caller: &Caller) -> Vec<OwnToken> {
        let all = reaches(&caller.who, Right::Ro);
        let mine = caller.index.tokens_of(&caller.who.name);
        let shown = |id: &str| caller.who.token.as_deref() == Some(id);
        let mut tokens: Vec<OwnToken> = mine
            .filter(|(id, _)| caller.asked && !caller.who.is_anonymous() && (all || shown(id)))
            .map(|(id, token)| own(id, token))
            .collect();
        tokens.sort_by(|a, b| a.id.cmp(&b.id));
        tokens
    }

    /// Revokes a token that is somebody's own. Costs a commit.
    ///
    /// # Errors
    /// It is not theirs, or the one that they show does not reach it; what the store says.
    pub(crate) async fn revoke_own(&self, caller: &Caller, id: &str, message: &str) -> Answer<()> {
        let who = &caller.who;
        let mine = caller.asked && caller.index.token(id).is_some_and(|token| token.owner == who.name);
        if !mine {
            return Err(Problem::not_found(format!(
                "no token {id} is {}'s: `shoal token list` shows which are",
                who.name
            )));
        }
        if !reaches(who, Right::Rw) && who.token.as_deref() != Some(id) {
            return Err(Denied {
                who: who.name.clone(),
                wanted: format!("revoke the token {id}"),
                rule: format!(
                    "access/tokens/{}: the scope of the token, which ends itself alone",
                    who.token.as_deref().unwrap_or_default()
                ),
                hint: "show a token without a scope, or begin a session with your password".to_owned(),
                unknown: false,
            }
            .into());
        }
        let key = format!("{ACCESS}/tokens/{id}").parse::<Key>()?;
        let edit = Edit::Delete { key, follow: false, expect: Expect::Any };
        let proposal = Proposal {
            principal: Some(who.name.clone()),
            origin: caller.origin.clone(),
            ..Proposal::new(who.name.as_str(), message, vec![edit])
        };
        self.db.transact(proposal).await?;
        Ok(())
    }

    /// Another password for a user who says the one of now. All their sessions end in the same commit.
    ///
    /// # Errors
    /// It is not the password of now, too many are being checked, the new one is none, or the store does not take it.
    pub(crate) async fn change_password(&self, want: NewPassword, origin: Option<String>) -> Answer<()> {
        let NewPassword { user, password, new } = want;
        if !PASSWORD.contains(&new.len()) {
            let hint = format!("a password has {} to {} octets", PASSWORD.start(), PASSWORD.end());
            let detail = format!("nothing was written: {hint}, and the new one has {}", new.len());
            return Err(Problem::invalid(detail, &hint));
        }
        // Before the password is looked at: who goes meanwhile, or gets another one, keeps that.
        let key: Option<Key> = format!("{ACCESS}/users/{user}").parse().ok();
        let seen = key.and_then(|key| self.db.view().revision_of(&key).map(|revision| (key, revision)));
        let name = self.said(&user, &password, origin.as_deref(), "changes their password").await?;
        let row = self.keeper.index(&self.db).user(&user).cloned();
        let (Some((key, revision)), Some(row)) =
            (seen, row.filter(|row| name == user && row.password.is_some()))
        else {
            let why = format!("{name} has no password here");
            return Err(unknown(&why, "change it where it is kept, or ask an administrator for a first one"));
        };
        let turn = self.hashing.acquire().await;
        let hashed = tokio::task::spawn_blocking(move || hash_password(&new)).await;
        drop(turn);
        let hash = hashed.ok().and_then(Result::ok).ok_or_else(|| {
            let (status, title) = (http::StatusCode::INTERNAL_SERVER_ERROR, "The server failed");
            Problem::new(
                status,
                "internal",
                title,
                "nothing was written: the password could not be hashed".to_owned(),
            )
        })?;
        let value =
            Document::of(&User { password: Some(hash), ..row }).map_err(|e| Problem::unwritable(&e))?;
        let _turn = self.write_turn()?;
        let proposal = Proposal {
            principal: Some(user.clone()),
            origin,
            pre: vec![Pre::At(key.clone(), revision)],
            ..Proposal::new(
                user.as_str(),
                "changed the password",
                vec![Edit::Write { key, value, expect: Expect::At(revision) }],
            )
        };
        self.db.transact(proposal).await?;
        Ok(())
    }
}

fn own(id: &str, token: &Token) -> OwnToken {
    OwnToken {
        id: id.to_owned(),
        owner: token.owner.clone(),
        kind: token.kind,
        scope: token.scope.clone(),
        created: token.created,
        expires: token.expires,
        description: token.description.clone(),
    }
}
