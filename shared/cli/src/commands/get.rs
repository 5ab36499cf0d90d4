//! `shoal get`: hosts, tags and anything else, now or as they were.

use serde::Serialize;
use serde_json::Value;
use shoal_core::docs::{HostDoc, TagDoc};
use shoal_core::{HostName, Key, Kind, Namespace, RESERVED, Range, Revision, SCHEMAS, View};
use shoal_hostdb::reading::{self, Found};
use shoal_store::{MAX_PAGE, Query, Store, StoreError};

use crate::args::Get;
use crate::failure::{Failure, Outcome};
use crate::names::{Name, shown};
use crate::out::plain;
use crate::partly::{self, Of, Seen};
use crate::session::Session;

pub(crate) async fn run(session: &mut Session, args: Get) -> Outcome {
    let at = args.revision;
    match args.names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["hosts" | "hosts/"] => hosts(session, at).await,
        ["tags"] => tags(session, at, None).await,
        [area] if area.ends_with('/') => list(session, at, area).await,
        [word] if !word.contains('/') => match RESERVED.contains(&word) {
            true => list(session, at, &format!("{word}/")).await,
            false => host_or_tags(session, at, word).await,
        },
        // What is below access/ has kinds, which are no rows themselves.
        [kind] if kind.strip_prefix("access/").is_some_and(|kind| !kind.contains('/')) => {
            list(session, at, &format!("{kind}/")).await
        }
        _ => some(session, at, &args.names).await,
    }
}

async fn some(session: &mut Session, at: Option<u64>, names: &[String]) -> Outcome {
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        let Name(key) = name.parse().map_err(|e: shoal_core::BadName| Failure::Usage(e.to_string()))?;
        all.push(one(session, at, &key).await?);
    }
    session.out.documents(&all)
}

/// A host; where none is called so, the tags of that namespace.
async fn host_or_tags(session: &mut Session, at: Option<u64>, word: &str) -> Outcome {
    let Ok(Name(key)) = word.parse() else { return some(session, at, &[word.to_owned()]).await };
    // Looked for before it is said that there is no such host: what else may be meant takes thousands of rows to find.
    if word.parse::<Namespace>().is_ok()
        && matches!(
            reading::row(&*session.store, &key, at.map(Revision)).await,
            Ok(Found::Gone { .. } | Found::Never)
        )
    {
        let range = Range::Prefix(format!("{word}/"));
        let query = Query { at: at.map(Revision), limit: 1, ..Query::new(range) };
        match session.store.read(&query).await {
            Ok(page) if page.rows.is_empty() => {
                if let Some(all) = listed(word) {
                    let text = format!("there is no host {word}; do you mean `shoal get {all}`?");
                    return Err(Failure::Missing(text));
                }
            }
            // Where not all of it is for them, a list says what is.
            Ok(_) | Err(StoreError::Denied { .. }) => return tags(session, at, Some(word)).await,
            Err(error) => return Err(Failure::reading(word)(error)),
        }
    }
    let host = one(session, at, &key).await?;
    session.out.documents(&[host])
}

/// The list that a word in the singular may mean.
fn listed(word: &str) -> Option<String> {
    let many = format!("{word}s");
    (many == "tags" || RESERVED.contains(&many.as_str())).then_some(many)
}

async fn one(session: &Session, at: Option<u64>, key: &Key) -> Outcome<Value> {
    let (store, at) = (&*session.store, at.map(Revision));
    let failed = Failure::reading(shown(key));
    let value = |doc: &dyn erased::Doc| doc.value();
    match key.kind() {
        Kind::Host(name) => match reading::host(store, &name, at).await.map_err(failed)? {
            Found::Here(doc) => value(&doc),
            gone => Err(missing(session, at, &gone, key).await),
        },
        Kind::Tag(name) => match reading::tag(store, &name, at, usize::MAX).await.map_err(failed)? {
            Found::Here(doc) => value(&doc),
            gone => Err(missing(session, at, &gone, key).await),
        },
        _ => match reading::row(store, key, at).await.map_err(failed)? {
            Found::Here(row) => value(&row),
            gone => Err(missing(session, at, &gone, key).await),
        },
    }
}

/// The failure that nothing stands there, or stood there then.
async fn missing<T>(session: &Session, at: Option<Revision>, gone: &Found<T>, key: &Key) -> Failure {
    match (at, gone) {
        (Some(at), Found::Never) => Failure::Missing(format!(
            "there is no {} at revision {at}; `shoal log {}` shows since when there is, if ever",
            shown(key),
            key.as_str().strip_prefix("hosts/").unwrap_or(key.as_str())
        )),
        _ => session.missing(gone, key).await,
    }
}

/// Documents of different kinds in one list.
mod erased {
    use crate::failure::{Failure, Outcome};
    use serde::Serialize;
    use serde_json::Value;

    pub(super) trait Doc {
        fn value(&self) -> Outcome<Value>;
    }

    impl<T: Serialize> Doc for T {
        fn value(&self) -> Outcome<Value> {
            serde_json::to_value(self)
                .map_err(|e| Failure::Other(anyhow::anyhow!("cannot print the result: {e}")))
        }
    }
}

async fn hosts(session: &mut Session, at: Option<u64>) -> Outcome {
    let (mut all, mut hidden) = (Vec::new(), 0);
    match every_host(&*session.store, at.map(Revision)).await {
        Ok(hosts) => all = hosts,
        Err(denied @ StoreError::Denied { .. }) => {
            let (mut at, mut after) = (at.map(Revision), None::<String>);
            loop {
                let page = session.store.list_hosts(at, after.as_deref()).await;
                let Some(page) = page.map_err(Failure::reading("the hosts"))? else {
                    return Err(Failure::reading("the hosts")(denied));
                };
                (hidden, at) = (hidden + page.hidden, Some(page.revision));
                all.extend(page.items);
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Err(error) => return Err(Failure::reading("the hosts")(error)),
    }
    left_out(hidden, "host");
    session.out.print(&all, |out| {
        let rows = all.iter().map(|host| {
            let fields = host.document.value().as_object().map_or(0, serde_json::Map::len);
            vec![
                host.host.to_string(),
                host.state.unwrap_or_default().to_string(),
                host.owner.clone().unwrap_or_default(),
                host.environment.clone().unwrap_or_default(),
                fields.to_string(),
                host.revision.unwrap_or_default().to_string(),
            ]
        });
        let header = ["HOST", "STATE", "OWNER", "ENVIRONMENT", "FIELDS", "REVISION"];
        out.table(&header, rows.collect(), "no hosts yet; `shoal put NAME … -m WHY` makes one")
    })
}

async fn every_host(store: &dyn Store, at: Option<Revision>) -> Result<Vec<HostDoc>, StoreError> {
    let (mut all, mut at, mut after) = (Vec::new(), at, None::<HostName>);
    loop {
        let (revision, hosts, next) = reading::hosts(store, at, after.as_ref(), MAX_PAGE).await?;
        all.extend(hosts);
        at = Some(revision);
        match next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

#[derive(Serialize)]
struct TagLine {
    tag: String,
    owner: Option<String>,
    environment: Option<String>,
    /// As they are written; `None`: that is not for who asks.
    members: Option<usize>,
    /// Through nesting and rules; `None`: some of that is not.
    hosts: Option<usize>,
    revision: Revision,
}

async fn tags(session: &mut Session, at: Option<u64>, ns: Option<&str>) -> Outcome {
    let view = match ns {
        Some(ns) => session.contents(&Of::Namespace(ns), at).await,
        None => session.view(at).await,
    };
    let all = match view {
        Ok(view) => all_tags(&view, ns),
        Err(Failure::Store { what, error: error @ StoreError::Denied { .. } }) => {
            let namespace: Option<Namespace> = ns.and_then(|ns| ns.parse().ok());
            let seen = partly::seen(&*session.store, namespace.as_ref(), at.map(Revision)).await;
            match seen.map_err(Failure::reading("the tags"))? {
                Some(seen) => {
                    left_out(seen.hidden, "tag");
                    seen_tags(&seen)
                }
                None => return Err(Failure::Store { what, error }),
            }
        }
        Err(failure) => return Err(failure),
    };
    session.out.print(&all, |out| {
        let rows = all.iter().map(|t| {
            let text = |o: &Option<String>| o.clone().unwrap_or_default();
            let count = |o: Option<usize>| o.map_or_else(|| "?".to_owned(), |count| count.to_string());
            let (members, hosts) = (count(t.members), count(t.hosts));
            vec![t.tag.clone(), members, hosts, text(&t.owner), text(&t.environment), t.revision.to_string()]
        });
        let header = ["TAG", "MEMBERS", "HOSTS", "OWNER", "ENVIRONMENT", "REVISION"];
        out.table(&header, rows.collect(), "no tags here; `shoal put NAMESPACE/KEY … -m WHY` makes one")
    })
}

fn all_tags(view: &View, ns: Option<&str>) -> Vec<TagLine> {
    let line = |tag: &shoal_core::Tag| TagLine {
        tag: tag.name.to_string(),
        owner: tag.owner.clone(),
        environment: tag.environment.clone(),
        members: Some(view.direct_members(&tag.name).len()),
        hosts: Some(view.members(&tag.name).len()),
        revision: view.tag_revision(&tag.name).unwrap_or(tag.revision),
    };
    match ns {
        Some(ns) => view.tags_in(ns).map(line).collect(),
        None => view.tags().map(line).collect(),
    }
}

/// The same of what a server lists.
fn seen_tags(seen: &Seen) -> Vec<TagLine> {
    let line = |doc: &TagDoc| {
        let name = &doc.tag;
        TagLine {
            tag: name.to_string(),
            owner: doc.owner.clone(),
            environment: doc.environment.clone(),
            members: seen.members(name),
            hosts: seen.hosts(name),
            revision: doc.revision.max(seen.view.tag_revision(name)).unwrap_or_default(),
        }
    };
    seen.tags.iter().map(line).collect()
}

/// Says on standard error that a list is not whole.
pub(super) fn left_out(hidden: usize, what: &str) {
    if hidden > 0 {
        let s = if hidden == 1 { " is" } else { "s are" };
        let said = format!("note: {hidden} {what}{s} not for you to read, and left out\n");
        let _ = std::io::Write::write_all(&mut anstream::stderr(), said.as_bytes());
    }
}

/// Everything under a prefix: tags of a namespace, or rows of facts, schemas, pauses, approvals.
async fn list(session: &mut Session, at: Option<u64>, area: &str) -> Outcome {
    let ns = area.trim_end_matches('/');
    if ns.parse::<Namespace>().is_ok_and(|ns| !ns.is_reserved()) {
        return tags(session, at, Some(ns)).await;
    }
    let mut query = Query { at: at.map(Revision), ..Query::new(Range::Prefix(area.to_owned())) };
    let mut all = Vec::new();
    loop {
        let page = session.store.read(&query).await.map_err(Failure::reading(area))?;
        all.extend(page.rows);
        query.at = Some(page.at);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    if ns == SCHEMAS {
        return session.out.print(&all, |out| {
            // A schema is pages long: whose it is says more than its first words.
            let rows = all.iter().map(|row| {
                let agent = row.value.as_ref().and_then(|value| value.field("agent"));
                let agent = agent.map(|agent| plain(&agent)).unwrap_or_default();
                vec![row.key.to_string(), row.revision.to_string(), agent]
            });
            let shows = all.first().map(|row| format!("`shoal get {}` shows that one\n", row.key));
            out.table(&["KEY", "REVISION", "AGENT"], rows.collect(), &format!("nothing under {area}"))
                + &shows.unwrap_or_default()
        });
    }
    session.out.print(&all, |out| {
        let widest = all.iter().map(|row| row.key.as_str().len()).max().unwrap_or_default();
        let rows = all.iter().map(|row| {
            let value = row.value.as_ref().map(|value| plain(&value.value())).unwrap_or_default();
            let (key, revision) = (row.key.to_string(), row.revision.to_string());
            let taken = u16::try_from(widest + "REVISION".len() + 4).unwrap_or(u16::MAX);
            vec![key, revision, out.glance(&value, taken)]
        });
        out.table(&["KEY", "REVISION", "VALUE"], rows.collect(), &format!("nothing under {area}"))
    })
}
