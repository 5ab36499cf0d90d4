//! `/api/v2/tags`: reading tags and their members.

use std::sync::Arc;

use axum::extract::{Path, State};
use http::HeaderMap;
use serde::Serialize;
use shoal_core::{HostName, Key, Kind, Member, Namespace, Range, Revision, TagName};
use shoal_store::Query;

use super::hosts::tagged;
use super::{List, missing};
use crate::app::App;
use crate::docs::TagDoc;
use crate::problem::{Answer, Problem};
use crate::reading::{self, Found};
use crate::request::{Params, Shape};

/// `GET /api/v2/tags`: tags without their members.
pub(super) async fn list(State(app): State<Arc<App>>, shape: Shape, params: Params) -> Answer {
    let params = params.only(&["revision", "after", "limit"])?;
    page(&app, shape, &params, None).await
}

/// `GET /api/v2/tags/{ns}`: the tags of one namespace, without their members.
pub(super) async fn list_of(
    State(app): State<Arc<App>>,
    Path(ns): Path<String>,
    shape: Shape,
    params: Params,
) -> Answer {
    let ns: Namespace = ns.parse()?;
    let params = params.only(&["revision", "after", "limit"])?;
    page(&app, shape, &params, Some(ns.as_str())).await
}

async fn page(app: &App, shape: Shape, params: &Params, ns: Option<&str>) -> Answer {
    let limit = params.limit(app)?;
    let after = params.get("after").map(str::parse::<TagName>).transpose()?;
    let view = app.db.as_of(params.revision()?).await?;
    let tags: Box<dyn Iterator<Item = &shoal_core::Tag> + Send> = match ns {
        Some(ns) => Box::new(view.tags_in(ns)),
        None => Box::new(view.tags()),
    };
    let mut items: Vec<TagDoc> = tags
        .skip_while(|tag| after.as_ref().is_some_and(|after| tag.name <= *after))
        .take(limit + 1)
        .map(|tag| TagDoc {
            members: None,
            ..TagDoc::of(tag.name.clone(), tag.record(), Vec::new(), tag.revision)
        })
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|t| t.tag.to_string()) } else { None };
    shape.ok(&List { revision: view.revision(), items, next })
}

/// The tag of a path.
pub(super) fn named(ns: &str, key: &str) -> Answer<TagName> {
    Ok(format!("{ns}/{key}").parse()?)
}

/// `GET /api/v2/tags/{ns}/{key}`: a tag with all its members.
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let name = named(&ns, &key)?;
    let at = params.only(&["revision"])?.revision()?;
    match reading::tag(&**app.db.store(), &name, at).await? {
        Found::Here(doc) => tagged(&headers, doc.revision, shape, &doc),
        gone => Err(missing(&gone, &format!("tag {name}"))),
    }
}

#[derive(Serialize)]
struct Direct {
    member: Member,
    revision: Revision,
}

#[derive(Serialize)]
struct Expanded {
    host: HostName,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    through: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// `GET /api/v2/tags/{ns}/{key}/members`: its own members as they are written; with `?expand`, the hosts that
/// it contains through nesting and rules, and how.
pub(super) async fn members(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    params: Params,
) -> Answer {
    let name = named(&ns, &key)?;
    let params = params.only(&["revision", "after", "limit", "expand"])?;
    let (at, limit, after) = (params.revision()?, params.limit(&app)?, params.get("after"));
    if params.flag("expand")? {
        let after = after.map(str::parse::<HostName>).transpose()?;
        return expanded(&app, shape, &name, at, after.as_ref(), limit).await;
    }
    let after = after.map(str::parse::<Member>).transpose()?;
    let query = Query {
        at,
        after: after.map(|m| Key::member(&name, &m)),
        limit,
        ..Query::new(Range::members(&name))
    };
    let page = app.db.store().read(&query).await?;
    if page.rows.is_empty() {
        let found = reading::row(&**app.db.store(), &Key::tag(&name), Some(page.at)).await?;
        if !matches!(found, Found::Here(_)) {
            return Err(missing(&found, &format!("tag {name}")));
        }
    }
    let member = |key: &Key| match key.kind() {
        Kind::Member(_, member) => Some(member),
        _ => None,
    };
    let items =
        page.rows.iter().filter_map(|row| Some(Direct { member: member(&row.key)?, revision: row.revision }));
    let next = page.next.as_ref().and_then(member).map(|m| m.to_string());
    shape.ok(&List { revision: page.at, items: items.collect(), next })
}

async fn expanded(
    app: &App,
    shape: Shape,
    name: &TagName,
    at: Option<Revision>,
    after: Option<&HostName>,
    limit: usize,
) -> Answer {
    let view = app.db.as_of(at).await?;
    if view.tag(name).is_none() {
        let found = reading::row(&**app.db.store(), &Key::tag(name), Some(view.revision())).await?;
        return Err(missing(&found, &format!("tag {name}")));
    }
    let mut hosts = view.members(name).into_iter().skip_while(|h| after.is_some_and(|after| h <= after));
    let items: Vec<Expanded> = hosts
        .by_ref()
        .take(limit)
        .map(|host| {
            let via = view.via(name, host.as_str());
            Expanded {
                through: via.iter().flat_map(|v| &v.through).map(ToString::to_string).collect(),
                rule: via.and_then(|v| v.rule),
                host,
            }
        })
        .collect();
    let next = if hosts.next().is_some() { items.last().map(|e| e.host.to_string()) } else { None };
    shape.ok(&List { revision: view.revision(), items, next })
}

/// `GET /api/v2/tags/{ns}/{key}/members/{member}`
pub(super) async fn member(
    State(app): State<Arc<App>>,
    Path((ns, key, member)): Path<(String, String, String)>,
    shape: Shape,
    headers: HeaderMap,
    params: Params,
) -> Answer {
    let (name, member) = (named(&ns, &key)?, member.parse::<Member>()?);
    let at = params.only(&["revision"])?.revision()?;
    match reading::row(&**app.db.store(), &Key::member(&name, &member), at).await? {
        Found::Here(row) => {
            tagged(&headers, Some(row.revision), shape, &Direct { member, revision: row.revision })
        }
        gone => Err(missing(&gone, &format!("member {member} of tag {name}"))),
    }
}

/// `GET /api/v2/tags/{ns}/{key}/parents`: the tags that nest it.
pub(super) async fn parents(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    params: Params,
) -> Answer {
    let name = named(&ns, &key)?;
    let view = app.db.as_of(params.only(&["revision"])?.revision()?).await?;
    shape.ok(&List { revision: view.revision(), items: view.tag_parents(&name), next: None })
}

/// `GET /api/v2/effective/{ns}/{key}?host=…`: what the tag says of a member, with the origin of every value; without
/// `host`, its own document.
pub(super) async fn effective(
    State(app): State<Arc<App>>,
    Path((ns, key)): Path<(String, String)>,
    shape: Shape,
    params: Params,
) -> Answer {
    let name = named(&ns, &key)?;
    let params = params.only(&["revision", "host"])?;
    let host = params.get("host").map(str::parse::<HostName>).transpose()?;
    let view = app.db.as_of(params.revision()?).await?;
    match view.effective(&name, host.as_ref()) {
        Some(effective) => shape.ok(&effective),
        None => Err(Problem::not_found(match (&host, view.tag(&name)) {
            (Some(host), Some(_)) => format!("host {host} is not a member of tag {name}"),
            _ => format!("there is no tag {name}"),
        })),
    }
}
