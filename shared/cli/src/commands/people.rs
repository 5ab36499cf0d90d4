//! `shoal user` and `shoal group`.

use std::collections::BTreeSet;
use std::io::{BufRead, Read};
use std::path::Path;

use serde::Serialize;
use shoal_core::access::{ADMINS, Group, Token, User};
use shoal_core::{Edit, Expect, Namespace};
use shoal_hostdb::credentials::hash_password;
use shoal_store::{NewPassword, StoreError};

use super::access::{by_name, key, put, read, row};
use crate::args::{GroupCommand, GroupWork, Password, UserCommand, UserWork};
use crate::failure::{Failure, Outcome};
use crate::session::Session;

/// How much is read of a file with passwords, in octets.
const LINE: u64 = 4096;

/// `user`
pub(crate) async fn user(session: &mut Session, args: UserCommand) -> Outcome {
    match args.work {
        UserWork::Add { name, agent, sign } => {
            let key = key("users", &name)?;
            let seen = row(session, &key).await?;
            let have: User = read(seen.as_ref());
            let user = User { agent: agent.or(have.agent), disabled: false, ..have };
            let edit = put(key, &user, seen.as_ref())?;
            session.write(&sign, false, vec![edit]).await
        }
        UserWork::Password(args) => password(session, args).await,
        UserWork::Disable { name, last, sign } => {
            // An agent is stopped by the row of its local user, however it shows who it is.
            let name = name.strip_prefix("agent ").map_or(name.clone(), |agent| format!("{LOCAL}{agent}"));
            let key = key("users", &name)?;
            let seen = row(session, &key).await?;
            let agent: Option<Namespace> = name.strip_prefix(LOCAL).and_then(|agent| agent.parse().ok());
            if agent.is_none() && !is_known(session, &name).await? {
                return Err(Failure::Missing(format!(
                    "there is no user {name}; `shoal user list` shows all"
                )));
            }
            if !last {
                administered(session, &[&name]).await?;
            }
            let have = seen.as_ref().map_or(User { agent, ..User::default() }, |row| read(Some(row)));
            let user = User { disabled: true, ..have };
            let edit = put(key, &user, seen.as_ref())?;
            session.write(&sign, false, vec![edit]).await
        }
        UserWork::Remove { name, last, sign } => {
            if !last {
                administered(session, &[&name]).await?;
            }
            let edits = removal(session, &name).await?;
            session.write(&sign, false, edits).await
        }
        UserWork::List => list(session).await,
    }
}

async fn password(session: &mut Session, args: Password) -> Outcome {
    let Password { name, file, old, sign } = args;
    if let Some(old) = old {
        return own_password(session, name, &file, &old).await;
    }
    let key = key("users", &name)?;
    let seen = match row(session, &key).await {
        Err(Failure::Store { what, error: StoreError::Denied { place, why } }) => {
            let why =
                format!("{why}; your own password you change with --old FILE, which has the one of now");
            return Err(Failure::Store { what, error: StoreError::Denied { place, why } });
        }
        row => row?,
    };
    if seen.is_none() {
        return Err(Failure::Missing(format!(
            "there is no user {name}: make one with `shoal user add {name}`"
        )));
    }
    let said = lines(&file, 1)?.pop().unwrap_or_default();
    let hash = hash_password(&said).map_err(|e| Failure::Usage(format!("nothing was written: {e}")))?;
    let user = User { password: Some(hash), ..read(seen.as_ref()) };
    let edit = put(key, &user, seen.as_ref())?;
    session.write(&sign, false, vec![edit]).await
}

/// Has a server replace a password, for who knows the one of now.
async fn own_password(session: &mut Session, user: String, file: &Path, old: &Path) -> Outcome {
    let (password, new) = if file == old {
        let mut both = lines(file, 2)?;
        let new = both.pop().unwrap_or_default();
        (both.pop().unwrap_or_default(), new)
    } else {
        (lines(old, 1)?.pop().unwrap_or_default(), lines(file, 1)?.pop().unwrap_or_default())
    };
    let change = NewPassword { user, password, new };
    let failed = |error| Failure::Store { what: "the password was not changed".to_owned(), error };
    if !session.store.change_password(&change).await.map_err(failed)? {
        return Err(Failure::Usage(
            "nothing was written: no server is asked here, and who can write the database needs no old password; leave out --old".to_owned(),
        ));
    }
    let value = serde_json::json!({"user": change.user, "changed": true});
    session.out.print(&value, |_| {
        format!("{} has another password from now on; all sessions of the old one have ended\n", change.user)
    })
}

/// The first lines of a file, or of standard input: as many as these, empty where it has fewer.
fn lines(path: &Path, count: usize) -> Outcome<Vec<String>> {
    let failed = |error| Failure::File { path: path.display().to_string(), error };
    let from: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut from = std::io::BufReader::new(from.take(LINE));
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let mut line = String::new();
        from.read_line(&mut line).map_err(failed)?;
        all.push(line.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(all)
}

/// What local users of agents are called, before the agent's namespace.
const LOCAL: &str = "shoal-";

/// Whether anything speaks of a user.
pub(super) async fn is_known(session: &Session, name: &str) -> Outcome<bool> {
    if row(session, &key("users", name)?).await?.is_some() {
        return Ok(true);
    }
    let groups = by_name(session, "groups").await?;
    if groups.values().any(|row| read::<Group>(Some(row)).members.contains(name)) {
        return Ok(true);
    }
    let tokens = by_name(session, "tokens").await?;
    Ok(tokens.values().any(|row| {
        row.value.as_ref().and_then(|value| value.to::<Token>().ok()).is_some_and(|token| token.owner == name)
    }))
}

/// That somebody still administers without these.
async fn administered(session: &Session, without: &[&str]) -> Outcome {
    let admins: Group = read(row(session, &key("groups", ADMINS)?).await?.as_ref());
    let users = by_name(session, "users").await?;
    let stays = |name: &String| {
        !without.contains(&name.as_str())
            && !users.get(name).is_some_and(|row| read::<User>(Some(row)).disabled)
    };
    if without.iter().all(|name| !admins.members.contains(*name)) || admins.members.iter().any(stays) {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "nothing was written: without {} nobody administers but root and the server's own user, on its machine; put somebody else into \
         {ADMINS} first (`shoal group add {ADMINS} NAME`), or say --last",
        without.join(", ")
    )))
}

/// A user goes with all that is theirs.
async fn removal(session: &Session, name: &str) -> Outcome<Vec<Edit>> {
    let mut edits = Vec::new();
    let user = key("users", name)?;
    let gone = |key| Edit::Delete { key, follow: false, expect: Expect::Any };
    if row(session, &user).await?.is_some() {
        edits.push(gone(user));
    }
    for row in by_name(session, "tokens").await?.into_values() {
        let token = row.value.as_ref().and_then(|value| value.to::<Token>().ok());
        if token.is_some_and(|token| token.owner == name) {
            edits.push(gone(row.key));
        }
    }
    for row in by_name(session, "groups").await?.into_values() {
        let mut group: Group = read(Some(&row));
        if group.members.remove(name) {
            edits.push(put(row.key.clone(), &group, Some(&row))?);
        }
    }
    if edits.is_empty() {
        return Err(Failure::Missing(format!("there is no user {name}; `shoal user list` shows all")));
    }
    Ok(edits)
}

#[derive(Serialize)]
struct Listed {
    name: String,
    groups: Vec<String>,
    password: bool,
    tokens: usize,
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
}

async fn list(session: &mut Session) -> Outcome {
    let groups = by_name(session, "groups").await?;
    let groups: Vec<(String, Group)> =
        groups.into_iter().map(|(name, row)| (name, read(Some(&row)))).collect();
    let tokens: Vec<Token> = by_name(session, "tokens")
        .await?
        .into_values()
        .filter_map(|row| row.value.as_ref()?.to().ok())
        .collect();
    let users = by_name(session, "users").await?;
    // Who has a row of their own, and who is only spoken of.
    let mut names: BTreeSet<String> = users.keys().cloned().collect();
    names.extend(groups.iter().flat_map(|(_, group)| group.members.iter().cloned()));
    names.extend(tokens.iter().map(|token| token.owner.clone()));
    let of = |name: String| {
        let user: User = read(users.get(&name));
        let mine = groups.iter().filter(|(_, group)| group.members.contains(&name));
        Listed {
            groups: mine.map(|(group, _)| group.clone()).collect(),
            password: user.password.is_some(),
            tokens: tokens.iter().filter(|token| token.owner == name).count(),
            disabled: user.disabled,
            agent: user.agent.map(|agent| agent.to_string()),
            name,
        }
    };
    let all: Vec<Listed> = names.into_iter().map(of).collect();
    session.out.print(&all, |out| {
        let row = |user: &Listed| {
            let is = if user.disabled { "disabled" } else { "" };
            let by = if user.password { "password" } else { "" };
            let agent = user.agent.as_ref().map(|agent| format!("agent {agent}")).unwrap_or_default();
            vec![
                user.name.clone(),
                user.groups.join(" "),
                by.to_owned(),
                user.tokens.to_string(),
                agent,
                is.to_owned(),
            ]
        };
        let header = ["NAME", "GROUPS", "PASSWORD", "TOKENS", "AGENT", "STATE"];
        out.table(&header, all.iter().map(row).collect(), "no users: make one with `shoal user add`")
    })
}

/// `group`
pub(crate) async fn group(session: &mut Session, args: GroupCommand) -> Outcome {
    match args.work {
        GroupWork::Add { group, users, sign } => {
            let key = key("groups", &group)?;
            let seen = row(session, &key).await?;
            let mut now: Group = read(seen.as_ref());
            now.members.extend(users);
            let edit = put(key, &now, seen.as_ref())?;
            session.write(&sign, false, vec![edit]).await
        }
        GroupWork::Remove { group, users, last, sign } => {
            if group == ADMINS && !last {
                let gone: Vec<&str> = users.iter().map(String::as_str).collect();
                administered(session, &gone).await?;
            }
            let key = key("groups", &group)?;
            let seen = row(session, &key).await?;
            let mut now: Group = read(seen.as_ref());
            if let Some(other) = users.iter().find(|user| !now.members.remove(*user)) {
                return Err(Failure::Missing(format!(
                    "{other} is not in {group}; `shoal group list` shows who is"
                )));
            }
            let edit = put(key, &now, seen.as_ref())?;
            session.write(&sign, false, vec![edit]).await
        }
        GroupWork::List => {
            let all = by_name(session, "groups").await?;
            let all: std::collections::BTreeMap<String, Group> =
                all.into_iter().map(|(name, row)| (name, read(Some(&row)))).collect();
            session.out.print(&all, |out| {
                let row = |(name, group): (&String, &Group)| {
                    vec![name.clone(), group.members.iter().cloned().collect::<Vec<_>>().join(" ")]
                };
                let empty = "no groups: nobody administers but root and the server's own user; `shoal group add admins NAME`";
                out.table(&["GROUP", "MEMBERS"], all.iter().map(row).collect(), empty)
            })
        }
    }
}
