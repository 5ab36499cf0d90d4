//! Reading: what a resource is, and what is known of it.

use std::sync::Arc;

use serde_json::{Map, Value};
use shoal_core::{HOSTS, HostName, Key, Member, Namespace, Revision, TagName, View};

use super::fault::{Answer, Fault};
use super::given::Given;
use super::id::{Object, Resource};
use super::yaml::yaml;
use super::{inside, past, perms};
use crate::access::Caller;
use crate::app::App;
use crate::reading::{self, Found};

/// Octets of an answer about many keys.
const MOST: usize = 16 << 20;

/// What a resource says, as text.
pub(super) async fn text(app: &App, caller: &Caller, path: &str, given: &Given) -> Answer<String> {
    let text = match (given.get("meta"), given.get("foreach")) {
        (Some("revisions"), _) => past::revisions(app, caller, &Resource::parse(path)?, given).await?,
        (Some("blame"), _) => past::blame(app, &Resource::parse(path)?, given.revision()?).await?,
        (Some("parents"), _) => {
            lines(parents(app, &Resource::parse(path)?, given).await?.iter().map(TagName::key))
        }
        (Some("derived"), _) => derived(app, caller, &Resource::parse(path)?, given).await?,
        (Some(other), _) => {
            return Err(Fault::bad_request(format!(
                "Unknown meta: {other} (parents, derived, revisions, blame)"
            )));
        }
        (None, Some(list)) => each(app, path, list, given).await?,
        (None, None) => plain(app, caller, &Resource::parse(path)?, given).await?,
    };
    match given.get("search") {
        Some(pattern) => matching(&text, pattern),
        None => Ok(text),
    }
}

/// The lines that a pattern matches.
fn matching(text: &str, pattern: &str) -> Answer<String> {
    let regex = regex::RegexBuilder::new(pattern).size_limit(1 << 20).dfa_size_limit(1 << 20).build();
    let regex = regex.map_err(|e| Fault::bad_request(format!("search is no regular expression: {e}")))?;
    Ok(lines(text.lines().filter(|line| regex.is_match(line))))
}

/// Lines, without an end after the last.
pub(super) fn lines<'t>(all: impl IntoIterator<Item = &'t str>) -> String {
    let mut text = String::new();
    for line in all {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    text
}

async fn plain(app: &App, caller: &Caller, of: &Resource, given: &Given) -> Answer<String> {
    let at = given.revision()?;
    match of {
        Resource::Root => {
            let view = app.db.as_of(at).await?;
            // One that holds nothing for them is none to them.
            let sees = |ns: &String| view.tags_in(ns).any(|tag| caller.sees(&Key::tag(&tag.name)));
            let mut all: Vec<String> = view.namespaces().into_iter().filter(sees).collect();
            all.push(HOSTS.to_owned());
            all.sort();
            Ok(lines(all.iter().map(String::as_str)))
        }
        Resource::Namespace(ns) => {
            let view = app.db.as_of(at).await?;
            Ok(lines(keys(&view, ns)?.iter().map(String::as_str)))
        }
        Resource::Object(object) => yaml(&document(app, caller, object, at).await?),
        Resource::Inside(object, path) => {
            let document = document(app, caller, object, at).await?;
            let missing =
                || Fault::not_found(format!("Resource {}/{} does not exist.", object.key(), path.join("/")));
            yaml(inside::get(&document, path).ok_or_else(missing)?)
        }
        Resource::Members(tag) => {
            let view = app.db.as_of(at).await?;
            Ok(if given.flag("raw") {
                lines(raw(&view, tag)?.iter().map(Member::as_str))
            } else {
                expanded(app, &view, tag)?
            })
        }
        Resource::Member(tag, member) => {
            let found = reading::row(&**app.db.store(), &Key::member(tag, member), at).await?;
            match found {
                Found::Here(_) => Ok(member.to_string()),
                gone => {
                    let gone = gone.seen_by(|to| caller.sees(to));
                    Err(Fault::not_found(capital(&gone.missing(&format!("member {member} of tag {tag}")))))
                }
            }
        }
        Resource::Perms(ns, of) => perms::get(app, &perms::key(ns, of.as_ref())?, of.as_ref(), at).await,
    }
}

/// The keys of a namespace, by name.
fn keys(view: &View, ns: &Namespace) -> Answer<Vec<String>> {
    if ns.as_str() == HOSTS {
        let mut all: Vec<String> = view.hosts().map(|host| host.name.to_string()).collect();
        all.sort_unstable();
        return Ok(all);
    }
    let all: Vec<String> = view.tags_in(ns.as_str()).map(|tag| tag.name.key().to_owned()).collect();
    if all.is_empty() { Err(Fault::not_found(format!("Resource {ns} does not exist."))) } else { Ok(all) }
}

/// What people wrote of a host or tag.
async fn document(app: &App, caller: &Caller, object: &Object, at: Option<Revision>) -> Answer<Value> {
    let store = &**app.db.store();
    let view = app.db.view();
    let now = match object {
        Object::Host(name) if at.is_none() => view.host(name.as_str()).map(|host| host.document.clone()),
        Object::Tag(name) if at.is_none() => view.tag(name).map(|tag| tag.document.clone()),
        _ => None,
    };
    if let Some(document) = now {
        return Ok(document.value());
    }
    // The store knows what was, and what became of it.
    let found = match object {
        Object::Host(name) => reading::host(store, name, at).await?.map(|doc| doc.document),
        Object::Tag(name) => reading::tag(store, name, at, 0).await?.map(|doc| doc.document),
    };
    match found.seen_by(|to| caller.sees(to)) {
        Found::Here(document) => Ok(document.value()),
        // A key is written as it is, also at the beginning.
        Found::Never => Err(Fault::not_found(capital(&Found::<()>::Never.missing(object.key().as_str())))),
        gone => Err(Fault::not_found(capital(&gone.missing(&format!("resource {}", object.key()))))),
    }
}

/// A sentence.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(['.']).collect()
}

pub(super) fn known(view: &View, tag: &TagName) -> Answer<()> {
    let missing = || Fault::not_found(format!("Resource {tag} does not exist."));
    view.tag(tag).map(drop).ok_or_else(missing)
}

/// The members as they are written.
fn raw(view: &View, tag: &TagName) -> Answer<Vec<Member>> {
    known(view, tag)?;
    Ok(view.direct_members(tag).into_iter().map(|(member, _)| member).collect())
}

/// The hosts that the members come to.
fn expanded(app: &App, view: &Arc<View>, tag: &TagName) -> Answer<String> {
    known(view, tag)?;
    Ok(lines(app.db.members(view, tag, app.limits.max_page).iter().map(HostName::as_str)))
}

/// The tags of the namespace `from` that a host is in, through whatever.
async fn parents(app: &App, of: &Resource, given: &Given) -> Answer<Vec<TagName>> {
    let from: Namespace = given.need("from")?.parse()?;
    let Resource::Object(Object::Host(name)) = of else {
        return Err(match of {
            Resource::Namespace(ns) if ns.as_str() == HOSTS => Fault::bad_request("Hostname missing."),
            _ => Fault::not_allowed("Only hosts have parents: ask for hosts/NAME"),
        });
    };
    let excerpt = app.db.excerpt(given.revision()?, Some(name), None).await?;
    if excerpt.host().is_none() {
        return Err(Fault::not_found(format!("Resource {HOSTS}/{name} does not exist.")));
    }
    let all = excerpt.memberships().into_iter().map(|(tag, _)| tag);
    Ok(all.filter(|tag| tag.namespace() == from.as_str()).collect())
}

/// What each of those tags says.
async fn derived(app: &App, caller: &Caller, of: &Resource, given: &Given) -> Answer<String> {
    let at = given.revision()?;
    let mut all = Map::new();
    for tag in parents(app, of, given).await? {
        all.insert(tag.key().to_owned(), document(app, caller, &Object::Tag(tag), at).await?);
    }
    yaml(&Value::Object(all))
}

/// The same resource of many keys: the `*` of `path` stands for each of what `list` gives.
async fn each(app: &App, path: &str, list: &str, given: &Given) -> Answer<String> {
    let view = app.db.as_of(given.revision()?).await?;
    let keys = match Resource::parse(list)? {
        Resource::Members(tag) => {
            known(&view, &tag)?;
            app.db.members(&view, &tag, app.limits.max_page).iter().map(HostName::to_string).collect()
        }
        Resource::Namespace(ns) => keys(&view, &ns)?,
        _ => {
            return Err(Fault::bad_request(format!(
                "foreach takes NAMESPACE or NAMESPACE/KEY/members, not {list}"
            )));
        }
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.get(1) != Some(&"*") {
        return Err(Fault::bad_request("Put * in the place of the key, as in hosts/*/Network/IP"));
    }
    let (namespace, rest) = (parts[0].to_owned(), parts[2..].join("/"));
    let all = tokio::task::spawn_blocking(move || gathered(&view, &namespace, &rest, keys, MOST)).await;
    yaml(&Value::Object(
        all.map_err(|_| Fault::new(http::StatusCode::INTERNAL_SERVER_ERROR, "The server failed"))??,
    ))
}

/// What a resource below each of `keys` says, by key; nothing where it does not exist. At most `most` octets.
fn gathered(
    view: &View,
    namespace: &str,
    rest: &str,
    keys: Vec<String>,
    most: usize,
) -> Answer<Map<String, Value>> {
    let (mut all, mut size) = (Map::new(), 0);
    for key in keys {
        let value = one(view, &format!("{namespace}/{key}/{rest}")).unwrap_or(Value::Null);
        size += key.len() + value.to_string().len();
        if size > most {
            return Err(Fault::bad_request(format!(
                "The answer has more than {most} octets: ask for less of each, or for fewer"
            )));
        }
        all.insert(key, value);
    }
    Ok(all)
}

fn one(view: &View, path: &str) -> Option<Value> {
    let document = |object: &Object| match object {
        Object::Host(name) => view.host(name.as_str()).map(|host| host.document.value()),
        Object::Tag(name) => view.tag(name).map(|tag| tag.document.value()),
    };
    match Resource::parse(path).ok()? {
        Resource::Object(object) => document(&object),
        Resource::Inside(object, path) => inside::get(&document(&object)?, &path).cloned(),
        Resource::Members(tag) => {
            view.tag(&tag)?;
            let hosts = view.members(&tag);
            Some(Value::String(hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(" ")))
        }
        _ => None,
    }
}
