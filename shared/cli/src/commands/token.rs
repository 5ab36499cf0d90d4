//! `shoal token`: how people and programs are known to a server.

use jiff::Timestamp;
use serde::Serialize;
use shoal_core::access::{Manifest, Right, Scope, Token, TokenKind};
use shoal_core::{Edit, Expect};
use shoal_hostdb::credentials::new_token;
use shoal_store::{OwnToken, StoreError};

use super::access::{by_name, key, put, row, unused, warn};
use super::people::is_known;
use crate::args::{NewToken, Revoke, Sign, TokenCommand, TokenWork, When};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: TokenCommand) -> Outcome {
    match args.work {
        TokenWork::Create(args) => create(session, *args).await,
        TokenWork::List => list(session).await,
        TokenWork::Revoke(args) => revoke(session, args).await,
    }
}

async fn create(session: &mut Session, args: NewToken) -> Outcome {
    let now = (session.env.now)();
    let owner = match (&args.owner, &args.agent) {
        (Some(owner), _) => owner.clone(),
        (None, Some(agent)) => format!("agent {agent}"),
        (None, None) => {
            return Err(Failure::Usage("say whose it is: --owner NAME or --agent NAMESPACE".to_owned()));
        }
    };
    let expires = match &args.expires {
        None => None,
        Some(When::At(time)) => Some(*time),
        Some(When::In(span)) => Some(now.saturating_add(*span).unwrap_or(Timestamp::MAX)),
    };
    if expires.is_some_and(|end| end <= now) {
        return Err(Failure::Usage(
            "the token would have expired already: --expires is in the past".to_owned(),
        ));
    }
    let mut doubts = Vec::new();
    for namespace in &args.namespaces {
        doubts.extend(unused(session, namespace.as_str()).await?);
    }
    if args.owner.is_some() && !owner.starts_with("agent ") && !is_known(session, &owner).await? {
        doubts.push(format!(
            "nothing speaks of a user {owner} yet: the token is good all the same, for what everybody may"
        ));
    }
    let new = new_token().map_err(|e| Failure::Other(e.into()))?;
    let token = Token {
        kind: TokenKind::Token,
        owner,
        hash: new.hash,
        scope: scope(&args),
        created: now,
        expires,
        description: args.sign.message.clone().unwrap_or_default(),
    };
    let edit = put(key("tokens", &new.id)?, &token, None)?;
    let (_, done) = session.write_quietly(&args.sign, vec![edit]).await?;
    let revision = done.committed.revision;
    let value = serde_json::json!({"token": new.text, "id": new.id, "owner": token.owner, "expires": expires, "revision": revision});
    session.out.print(&value, |_| {
        let until = expires.map(|end| format!(", until {end}")).unwrap_or_default();
        format!(
            "{}\nthis is shown once: {} of {}{until} (revision {revision})\n",
            new.text, new.id, token.owner
        )
    })?;
    warn(session, &doubts)
}

fn scope(args: &NewToken) -> Scope {
    let most = if args.read_only { Right::Ro } else { Right::Rw };
    let names = args.namespaces.iter().map(ToString::to_string).collect();
    let writes = Manifest {
        facts: args.facts.iter().cloned().collect(),
        host_fields: args.host_fields.iter().cloned().collect(),
        ..Manifest::default()
    };
    Scope {
        namespaces: (!args.namespaces.is_empty()).then_some(names),
        data: args.data.unwrap_or(most),
        members: args.members.unwrap_or(most),
        writes: (writes != Manifest::default()).then_some(writes),
    }
}

#[derive(Serialize)]
struct Listed {
    id: String,
    owner: String,
    kind: TokenKind,
    scope: Scope,
    created: Timestamp,
    expires: Option<Timestamp>,
    expired: bool,
    description: String,
}

async fn list(session: &mut Session) -> Outcome {
    let now = (session.env.now)();
    let of = |OwnToken { id, owner, kind, scope, created, expires, description }| {
        let expired = expires.is_some_and(|end: Timestamp| end <= now);
        Listed { id, owner, kind, scope, created, expires, expired, description }
    };
    let all: Vec<Listed> = match by_name(session, "tokens").await {
        Ok(rows) => rows
            .into_iter()
            // Shown through a server it has no hash, and needs none.
            .filter_map(|(id, row)| Some((id, row.value?.to::<Token>().ok()?)))
            .map(|(id, Token { kind, owner, scope, created, expires, description, .. })| {
                of(OwnToken { id, owner, kind, scope, created, expires, description })
            })
            .collect(),
        Err(refused) => own(session, refused).await?.into_iter().map(of).collect(),
    };
    session.out.print(&all, |out| {
        let row = |token: &Listed| {
            let kind = if token.kind == TokenKind::Session { "session" } else { "" };
            let end = match (token.expires, token.expired) {
                (Some(_), true) => "expired".to_owned(),
                (Some(end), false) => end.strftime("%Y-%m-%d %H:%M").to_string(),
                (None, _) => String::new(),
            };
            let created = token.created.strftime("%Y-%m-%d %H:%M").to_string();
            vec![
                token.id.clone(),
                token.owner.clone(),
                kind.to_owned(),
                narrow(&token.scope),
                created,
                end,
                token.description.clone(),
            ]
        };
        let header = ["ID", "OWNER", "KIND", "SCOPE", "CREATED", "ENDS", "FOR"];
        out.table(&header, all.iter().map(row).collect(), "no tokens: make one with `shoal token create`")
    })
}

/// The tokens of who asks, where all of them are not theirs to see.
async fn own(session: &Session, refused: Failure) -> Outcome<Vec<OwnToken>> {
    if !matches!(refused, Failure::Store { error: StoreError::Denied { .. }, .. }) {
        return Err(refused);
    }
    let own = session.store.own_tokens().await.map_err(Failure::reading("your tokens"))?;
    own.ok_or(refused)
}

/// A scope in a few words.
fn narrow(scope: &Scope) -> String {
    let mut words = Vec::new();
    if let Some(all) = &scope.namespaces {
        words.push(all.iter().cloned().collect::<Vec<_>>().join(" "));
    }
    match (scope.data, scope.members) {
        (Right::Rw, Right::Rw) => {}
        (Right::Ro, Right::Ro) => words.push("read only".to_owned()),
        (data, members) => words.push(format!("data {data}, members {members}")),
    }
    if let Some(Manifest { facts, host_fields, makes_hosts, members }) = &scope.writes {
        let facts = facts.iter().map(|ns| format!("facts/{ns}"));
        let makes = makes_hosts.then(|| "hosts/".to_owned());
        let members = members.iter().map(|ns| format!("members of {ns}/"));
        let all = facts.chain(host_fields.iter().cloned()).chain(makes).chain(members);
        words.push(all.collect::<Vec<_>>().join(" "));
    }
    words.join("; ")
}

async fn revoke(session: &mut Session, args: Revoke) -> Outcome {
    // People paste the whole token: its secret is nobody's business here.
    let id = args.id.strip_prefix("shoal_").and_then(|rest| rest.split('_').next()).unwrap_or(&args.id);
    let key = key("tokens", id)?;
    let there = match row(session, &key).await {
        Ok(row) => row.is_some(),
        Err(refused @ Failure::Store { error: StoreError::Denied { .. }, .. }) => {
            return revoke_own(session, id, &args.sign, refused).await;
        }
        Err(failure) => return Err(failure),
    };
    if !there {
        return Err(Failure::Missing(format!("there is no token {id}; `shoal token list` shows all")));
    }
    session.write(&args.sign, false, vec![Edit::Delete { key, follow: false, expect: Expect::Any }]).await
}

/// Revokes a token of who asks, who does not administer.
async fn revoke_own(session: &mut Session, id: &str, sign: &Sign, refused: Failure) -> Outcome {
    if sign.review {
        return Err(refused);
    }
    let (_, message) = session.signed(sign, false).await?;
    let failed = |error| Failure::Store { what: "nothing was written".to_owned(), error };
    if !session.store.revoke_own(id, &message).await.map_err(failed)? {
        return Err(refused);
    }
    let value = serde_json::json!({"id": id, "revoked": true});
    session.out.print(&value, |_| format!("revoked your token {id}\n"))
}
