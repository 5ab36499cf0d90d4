//! `/api/v2/tags`: reading tags and their members.

use axum::extract::Path;
use schemars::JsonSchema;
use serde::Serialize;
use shoal_core::access::Facet;
use shoal_core::{HostName, Key, Kind, Member, Namespace, Range, Revision, Tag, TagName};
use shoal_store::Query;

use super::hosts::tagged;
use super::write::{self, Done, Sent};
use super::{List, missing, sifted};
use crate::problem::{Answer, Problem};
use crate::reading::{self, Found};
use crate::request::{Ask, Named};
use crate::spec::{Routes, delete, flag, get, patch, put, query, shared};
use shoal_core::docs::TagDoc;

/// What an ETag of an answer to a write is.
const NOW: &str = "The revision that wrote it now.";

/// The paths of this module.
pub(super) fn routes(to: Routes) -> Routes {
    let paged = |op: crate::spec::Op| {
        let after = query::<TagName>("after", "`next` of the page before.");
        op.takes(["revision", "limit"].map(shared)).takes([after]).refuses(&[404])
    };
    let of = query::<HostName>("host", "Of which member; left out: what the tag itself says.");
    to.at(
        "/api/v2/tags",
        [paged(get("Tags, without their members", list)).answers::<List<TagDoc>>("A page of tags.")],
    )
    .at(
        "/api/v2/tags/{ns}",
        [paged(get("The tags of one namespace", list_of)).answers::<List<TagDoc>>("A page of tags.")],
    )
    .at("/api/v2/tags/{ns}/{key}", whole())
    .at("/api/v2/tags/{ns}/{key}/members", all_members())
    .at("/api/v2/tags/{ns}/{key}/members/{member}", one_member())
    .at(
        "/api/v2/tags/{ns}/{key}/parents",
        [paged(get("The tags that nest it", parents)).answers::<List<TagName>>("A page of tags.")],
    )
    .at(
        "/api/v2/effective/{ns}/{key}",
        [get("What a tag says of a member, each value with its origin", effective)
            .takes([shared("revision"), of])
            .answers::<shoal_core::Effective>("The effective document.")
            .refuses(&[404])],
    )
}

fn whole() -> [crate::spec::Op; 4] {
    let follow = flag("follow", "Takes it out of the tags that nest it, too.");
    [
        get("A tag with its members, or with how many they are", one).answers::<TagDoc>("The tag.").tagged(),
        put("Makes a tag, or says all of it anew", write::put_tag)
            .writes()
            .body::<Sent<TagDoc>>()
            .answers::<Done>("It was so, or is now.")
            .with_header("ETag", NOW)
            .creates::<Done>("It was made.")
            .with_header("ETag", NOW),
        patch("Changes some of a tag", write::patch_tag)
            .writes()
            .patches()
            .answers::<Done>("It is so now.")
            .with_header("ETag", NOW),
        delete("Deletes a tag", write::delete_tag).writes().takes([follow]).answers::<Done>("It is gone."),
    ]
}

fn all_members() -> [crate::spec::Op; 2] {
    let after = query::<Member>("after", "`next` of the page before.");
    let expand = flag("expand", "The hosts that they come to, through nesting and rules.");
    [
        get("The members of a tag", members)
            .takes([shared("revision"), after, shared("limit"), expand])
            .answers::<List<Listed>>("A page of members; with `expand`, of hosts.")
            .refuses(&[404]),
        put("The tag has exactly these members from now on", write::set_members)
            .writes()
            .body::<Vec<Member>>()
            .answers::<Done>("It is so now.")
            .with_header("ETag", NOW),
    ]
}

fn one_member() -> [crate::spec::Op; 3] {
    [
        get("One member", member).answers::<Direct>("It is one.").tagged(),
        put("Adds a member", write::put_member)
            .writes()
            .answers::<Done>("It is one.")
            .with_header("ETag", NOW)
            .creates::<Done>("It is one from now on.")
            .with_header("ETag", NOW),
        delete("Takes a member out", write::delete_member).writes().answers::<Done>("It is none."),
    ]
}

/// A member as it is written, or a host that it comes to.
#[derive(JsonSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described: which of the two it is, the request says")]
enum Listed {
    Direct(Direct),
    Expanded(Expanded),
}

/// `GET /api/v2/tags`: tags without their members.
async fn list(ask: Ask) -> Answer {
    page(ask, None).await
}

/// `GET /api/v2/tags/{ns}`: the tags of one namespace, without their members.
async fn list_of(ask: Ask, Path(ns): Path<String>) -> Answer {
    page(ask, Some(ns.parse()?)).await
}

async fn page(ask: Ask, ns: Option<Namespace>) -> Answer {
    let Ask { app, shape, params, caller, .. } = ask.only(&["revision", "after", "limit"])?;
    let limit = params.limit(&app)?;
    let after = params.get("after").map(str::parse::<TagName>).transpose()?;
    let view = app.db.as_of(params.revision()?).await?;
    let tags: Box<dyn Iterator<Item = &Tag> + Send> = match &ns {
        Some(ns) => Box::new(view.tags_in(ns.as_str())),
        None => Box::new(view.tags()),
    };
    // Of the whole list, and once: how many stand after a freely chosen name would spell theirs.
    let (tags, hidden) = match (&after, caller.restricted()) {
        (None, true) => sifted(tags, |tag| caller.sees(&Key::tag(&tag.name))),
        _ => {
            let later = |tag: &&Tag| after.as_ref().is_none_or(|after| tag.name > *after);
            let seen = tags.filter(later).filter(|tag| caller.sees(&Key::tag(&tag.name)));
            (seen.take(limit + 1).collect(), 0)
        }
    };
    let mut items: Vec<TagDoc> = tags
        .into_iter()
        .take(limit + 1)
        .map(|tag| TagDoc {
            members: None,
            ..TagDoc::of(tag.name.clone(), tag.record(), Vec::new(), tag.revision)
        })
        .collect();
    let more = items.len() > limit;
    items.truncate(limit);
    let next = if more { items.last().map(|t| t.tag.to_string()) } else { None };
    shape.ok(&List { revision: view.revision(), items, next, hidden })
}

/// `GET /api/v2/tags/{ns}/{key}`: a tag with its members, if they fit one page; else with how many they are.
async fn one(ask: Ask, Named(name): Named<TagName>) -> Answer {
    let ask = ask.only(&["revision"])?;
    ask.caller.reads(&Key::tag(&name))?;
    ask.caller.reads_members(&name)?;
    let (at, most) = (ask.params.revision()?, ask.app.limits.max_page);
    let found = match at {
        None if ask.stale => reading::known_tag(&ask.app.db.view(), &name, most),
        at => reading::tag(ask.store(), &name, at, most).await?,
    };
    match found {
        Found::Here(doc) => tagged(&ask, doc.revision, &doc),
        gone => Err(missing(&ask.caller, gone, &format!("tag {name}"))),
    }
}

#[derive(Serialize, JsonSchema)]
struct Direct {
    member: Member,
    revision: Revision,
}

#[derive(Serialize, JsonSchema)]
struct Expanded {
    host: HostName,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    through: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
}

/// `GET /api/v2/tags/{ns}/{key}/members`: its own members as they are written; with `?expand`, the hosts that
/// it contains through nesting and rules, and how.
async fn members(ask: Ask, Named(name): Named<TagName>) -> Answer {
    let ask = ask.only(&["revision", "after", "limit", "expand"])?;
    ask.caller.reads_members(&name)?;
    if ask.params.flag("expand")? {
        return expanded(&ask, &name).await;
    }
    let after = ask.params.get("after").map(str::parse::<Member>).transpose()?;
    let at = ask.params.revision()?;
    if ask.stale && at.is_none() {
        return known_members(&ask, &name, after);
    }
    let Ask { app, shape, params, caller, .. } = ask;
    let limit = params.limit(&app)?;
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
            return Err(missing(&caller, found, &format!("tag {name}")));
        }
    }
    let member = |key: &Key| match key.kind() {
        Kind::Member(_, member) => Some(member),
        _ => None,
    };
    let items =
        page.rows.iter().filter_map(|row| Some(Direct { member: member(&row.key)?, revision: row.revision }));
    let next = page.next.as_ref().and_then(member).map(|m| m.to_string());
    shape.ok(&List { revision: page.at, items: items.collect(), next, hidden: 0 })
}

/// The same as this server knows it.
fn known_members(ask: &Ask, name: &TagName, after: Option<Member>) -> Answer {
    let view = ask.app.db.view();
    if view.tag(name).is_none() {
        let found = reading::left::<()>(&view, &Key::tag(name));
        return Err(missing(&ask.caller, found, &format!("tag {name}")));
    }
    let direct = |(member, revision)| Direct { member, revision };
    let all = view.direct_members(name).into_iter().map(direct).collect();
    ask.page(view.revision(), (all, 0), |one: &Direct| one.member.clone(), after)
}

async fn expanded(ask: &Ask, name: &TagName) -> Answer {
    let Ask { app, shape, params, caller, .. } = ask;
    let limit = params.limit(app)?;
    let after = params.get("after").map(str::parse::<HostName>).transpose()?;
    let view = app.db.as_of(params.revision()?).await?;
    if view.tag(name).is_none() {
        let found = match ask.stale {
            true => reading::left(&view, &Key::tag(name)),
            false => reading::row(ask.store(), &Key::tag(name), Some(view.revision())).await?,
        };
        return Err(missing(caller, found, &format!("tag {name}")));
    }
    caller.reads_nested(&view, name, &[Facet::Members])?;
    let hosts = app.db.members(&view, name, limit);
    // Whom a rule selects says what is in them; who is named stands in a list that they may read.
    let shown = |host: &&HostName| {
        caller.sees_host(host.as_str()) || view.via(name, host.as_str()).is_some_and(|via| via.rule.is_none())
    };
    let all = hosts.len();
    let hosts: std::sync::Arc<[HostName]> = match caller.restricted() {
        true => hosts.iter().filter(shown).cloned().collect(),
        false => hosts,
    };
    let hidden = if after.is_none() { all - hosts.len() } else { 0 };
    let from = after.map_or(0, |after| hosts.partition_point(|host| *host <= after));
    let to = hosts.len().min(from.saturating_add(limit));
    let item = |host: &HostName| {
        let via = view.via(name, host.as_str());
        Expanded {
            through: via.iter().flat_map(|v| &v.through).map(ToString::to_string).collect(),
            rule: via.and_then(|v| v.rule),
            host: host.clone(),
        }
    };
    let items: Vec<Expanded> = hosts[from..to].iter().map(item).collect();
    let next = if to < hosts.len() { items.last().map(|e| e.host.to_string()) } else { None };
    shape.ok(&List { revision: view.revision(), items, next, hidden })
}

/// `GET /api/v2/tags/{ns}/{key}/members/{member}`
async fn member(ask: Ask, Named((name, member)): Named<(TagName, Member)>) -> Answer {
    let ask = ask.only(&["revision"])?;
    ask.caller.reads_members(&name)?;
    let key = Key::member(&name, &member);
    let found = match ask.params.revision()? {
        None if ask.stale => {
            let view = ask.app.db.view();
            view.revision_of(&key).map_or_else(|| reading::left(&view, &key), Found::Here)
        }
        at => reading::row(ask.store(), &key, at).await?.map(|row| row.revision),
    };
    match found {
        Found::Here(revision) => tagged(&ask, Some(revision), &Direct { member, revision }),
        gone => Err(missing(&ask.caller, gone, &format!("member {member} of tag {name}"))),
    }
}

/// `GET /api/v2/tags/{ns}/{key}/parents`: the tags that nest it.
async fn parents(ask: Ask, Named(name): Named<TagName>) -> Answer {
    let ask = ask.only(&["revision", "after", "limit"])?;
    ask.caller.reads(&Key::tag(&name))?;
    let after = ask.params.get("after").map(str::parse::<TagName>).transpose()?;
    let excerpt = ask.app.db.excerpt(ask.params.revision()?, None, Some(&name)).await?;
    let parents = sifted(excerpt.parents(), |tag| ask.caller.sees_members(tag));
    ask.page(excerpt.revision(), parents, |tag| tag.clone(), after)
}

/// `GET /api/v2/effective/{ns}/{key}?host=…`: what the tag says of a member, with the origin of every value; without
/// `host`, its own document.
async fn effective(ask: Ask, Named(name): Named<TagName>) -> Answer {
    let Ask { app, shape, params, caller, .. } = ask.only(&["revision", "host"])?;
    let host = params.get("host").map(str::parse::<HostName>).transpose()?;
    // What it says of a host also says that the host is in it, and what the host itself says.
    match &host {
        Some(host) => {
            caller.reads_host(host)?;
            caller.reads(&Key::tag(&name))?;
            let view = app.db.as_of(params.revision()?.filter(|_| caller.restricted())).await?;
            caller.reads_nested(&view, &name, &[Facet::Data, Facet::Members])?;
        }
        None => caller.reads(&Key::tag(&name))?,
    }
    let excerpt = app.db.excerpt(params.revision()?, host.as_ref(), Some(&name)).await?;
    match excerpt.effective() {
        Some(effective) => shape.ok(&effective),
        None => Err(Problem::not_found(match (&host, excerpt.tag()) {
            (Some(host), Some(_)) => format!("host {host} is not a member of tag {name}"),
            _ => format!("there is no tag {name}"),
        })),
    }
}
