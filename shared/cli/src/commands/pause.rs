//! `shoal pause` and `shoal resume`: holds a host, a tag or an agent as it is, and lets it go.

use shoal_core::{Document, Edit, Expect, Key, Kind, Namespace, PAUSES, Pause as Row, Range};
use shoal_hostdb::reading::{Found, row};
use shoal_store::{MAX_PAGE, Query};

use crate::args::Pause;
use crate::failure::{Failure, Outcome};
use crate::names::Scope;
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: Pause, hold: bool) -> Outcome {
    let Pause { scope, sign } = args;
    let mut unknown = None;
    let edit = if hold {
        let scope = meant(session, scope).await?;
        unknown = stranger(session, &scope).await?;
        let value = Document::of(&Row { why: sign.message.clone().unwrap_or_default() })
            .map_err(|e| Failure::Other(anyhow::anyhow!("cannot write the pause: {e}")))?;
        Edit::Write { key: scope.key, value, expect: Expect::Any }
    } else {
        Edit::Delete { key: held(session, scope).await?.key, follow: false, expect: Expect::Exists }
    };
    session.write(&sign, false, vec![edit]).await?;
    match unknown.filter(|_| session.out.is_text()) {
        Some(agent) => session
            .out
            .write(&format!("warning: no agent {agent} has run here yet; `shoal status` shows which have\n")),
        None => Ok(()),
    }
}

/// The agent that is to be held, if none of that name ever ran here: it may be one that is still to come, or a
/// mistyped name.
async fn stranger(session: &Session, scope: &Scope) -> Outcome<Option<Namespace>> {
    let Some(agent) = scope.what.strip_prefix("agent ").and_then(|name| name.parse().ok()) else {
        return Ok(None);
    };
    Ok(if is_agent(session, &agent).await? { None } else { Some(agent) })
}

/// What is to be held. A mistyped name would hold nothing, silently; a word that is no host's may be an agent's.
async fn meant(session: &Session, scope: Scope) -> Outcome<Scope> {
    let Some(key) = subject(&scope) else { return Ok(scope) };
    let found = row(&*session.store, &key, None).await.map_err(Failure::reading(&scope.what))?;
    if matches!(found, Found::Here(_)) {
        return Ok(scope);
    }
    let Some(agent) = &scope.agent else { return Err(session.missing(&found, &key).await) };
    if !is_agent(session, agent).await? {
        return Err(match session.missing(&found, &key).await {
            Failure::Missing(text) => {
                let and = if text.ends_with('?') { " An" } else { "; an" };
                Failure::Missing(format!(
                    "{text}{and} agent that was never seen here is written agent/{agent}"
                ))
            }
            other => other,
        });
    }
    Scope::agent(agent).map_err(|e| Failure::Usage(e.to_string()))
}

/// The host or tag that is to be held; `None`: an agent is.
fn subject(scope: &Scope) -> Option<Key> {
    let rest = scope.key.as_str().strip_prefix(PAUSES)?.strip_prefix('/')?;
    match rest.split_once('/')? {
        ("host", host) => format!("hosts/{host}").parse().ok(),
        ("tag", tag) => tag.parse().ok().filter(|key: &Key| matches!(key.kind(), Kind::Tag(_))),
        _ => None,
    }
}

/// Whether an agent of this name ever ran here.
async fn is_agent(session: &Session, agent: &Namespace) -> Outcome<bool> {
    let reports = session.store.reports().await.map_err(Failure::reading("the agents' reports"))?;
    if reports.iter().any(|report| report.agent == *agent) {
        return Ok(true);
    }
    let schema = row(&*session.store, &Key::schema(agent), None).await;
    Ok(matches!(schema.map_err(Failure::reading(format!("the schema of {agent}")))?, Found::Here(_)))
}

/// What is held under this name, which must be.
async fn held(session: &Session, scope: Scope) -> Outcome<Scope> {
    let agent = scope.agent.as_ref().and_then(|agent| Scope::agent(agent).ok());
    let what = scope.what.clone();
    let agent_of = scope.agent.clone();
    for scope in std::iter::once(scope).chain(agent) {
        let found = row(&*session.store, &scope.key, None).await.map_err(Failure::reading(&scope.what))?;
        if matches!(found, Found::Here(_)) {
            return Ok(scope);
        }
    }
    let either = agent_of.map(|agent| format!("neither {what} nor agent {agent}"));
    let not = either.map_or_else(|| format!("{what} is not paused"), |either| format!("{either} is paused"));
    Err(Failure::Missing(format!("{not}; {}", others(session, &what).await?)))
}

/// The most pauses that a message names.
const NAMED: usize = 5;

/// What is paused instead, as `resume` wants it written; what the name may mean comes first.
async fn others(session: &Session, what: &str) -> Outcome<String> {
    let query = Query { limit: MAX_PAGE, ..Query::new(Range::Prefix(format!("{PAUSES}/"))) };
    let rows = session.store.read(&query).await.map_err(Failure::reading("the pauses"))?.rows;
    let word = what.rsplit(' ').next().unwrap_or(what);
    let written = |row: &shoal_core::Row| {
        let scope = row.key.as_str().strip_prefix(PAUSES)?.strip_prefix('/')?;
        Some(scope.strip_prefix("tag/").or_else(|| scope.strip_prefix("host/")).unwrap_or(scope).to_owned())
    };
    let mut names: Vec<String> = rows.iter().filter_map(written).collect();
    names.sort_by_key(|name| !name.contains(word));
    if names.is_empty() {
        return Ok("nothing is paused".to_owned());
    }
    let more = if names.len() > NAMED { format!(" and {} more", names.len() - NAMED) } else { String::new() };
    let some: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    Ok(format!("what is paused, as `shoal resume` takes it: {}{more}", some.join(", ")))
}
