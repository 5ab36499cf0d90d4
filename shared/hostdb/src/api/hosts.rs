//! `/api/v2/hosts`: reading hosts.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ETAG;
use schemars::JsonSchema;
use serde::Serialize;
use shoal_core::{HostName, Key, Range, Revision, TagName};

use super::write::{self, Done, Sent};
use super::{List, missing, sifted};
use crate::etag::{Wish, etag_of};
use crate::problem::Answer;
use crate::reading::{self, Found};
use crate::request::{Ask, Named};
use crate::spec::{Routes, delete, get, patch, put, query, shared};
use shoal_core::docs::HostDoc;

/// The paths of this module.
pub(super) fn routes(to: Routes) -> Routes {
    let etag = "The revision that wrote it now.";
    let page = ["revision", "limit"].map(shared);
    let listed = get("Hosts, by name", list).takes(page).refuses(&[404]);
    let listed = listed.takes([query::<HostName>("after", "`next` of the page before.")]);
    let page = ["revision", "limit"].map(shared);
    let of = get("What a host is in, and through what", tags).takes(page).refuses(&[404]);
    let of = of.takes([query::<TagName>("after", "`next` of the page before.")]);
    to.at("/api/v2/hosts", [listed.answers::<List<HostDoc>>("A page of hosts.")])
        .at(
            "/api/v2/hosts/{fqdn}",
            [
                get("A host", one).answers::<HostDoc>("The host.").tagged(),
                put("Makes a host, or says all of it anew", write::put_host)
                    .writes()
                    .body::<Sent<HostDoc>>()
                    .answers::<Done>("It was so, or is now.")
                    .with_header("ETag", etag)
                    .creates::<Done>("It was made.")
                    .with_header("ETag", etag),
                patch("Changes some of a host", write::patch_host)
                    .writes()
                    .patches()
                    .answers::<Done>("It is so now.")
                    .with_header("ETag", etag),
                delete("Deletes a host with its memberships and facts", write::delete_host)
                    .writes()
                    .answers::<Done>("It is gone."),
            ],
        )
        .at("/api/v2/hosts/{fqdn}/tags", [of.answers::<List<Membership>>("A page of tags.")])
}

/// `GET /api/v2/hosts`
async fn list(ask: Ask) -> Answer {
    let ask = ask.only(&["revision", "after", "limit"])?;
    let (at, limit) = (ask.params.revision()?, ask.params.limit(&ask.app)?);
    let after = ask.params.get("after").map(str::parse::<HostName>).transpose()?;
    if (ask.stale && at.is_none()) || ask.caller.reads_range(&Range::hosts()).is_err() {
        // What is known stands in the view; and what is kept from somebody is sifted there before it is cut into pages: where one ends
        // would name a host that is kept from them.
        let view = ask.app.db.as_of(at).await?;
        let (seen, hidden) = sifted(view.hosts(), |host| ask.caller.sees_host(host.name.as_str()));
        let docs = seen.into_iter().map(|host| HostDoc::of(host.name.clone(), host.record(), host.revision));
        return ask.page(view.revision(), (docs.collect(), hidden), |doc: &HostDoc| doc.host.clone(), after);
    }
    let (revision, items, next) = reading::hosts(ask.store(), at, after.as_ref(), limit).await?;
    ask.shape.ok(&List { revision, items, next: next.map(|n| n.to_string()), hidden: 0 })
}

/// `GET /api/v2/hosts/{fqdn}`. Answered from the view: costs no call of the store.
async fn one(ask: Ask, Named(name): Named<HostName>) -> Answer {
    let ask = ask.only(&["revision"])?;
    ask.caller.reads_host(&name)?;
    let at = ask.params.revision()?;
    let found = match at {
        Some(_) => reading::host(ask.store(), &name, at).await?,
        None => {
            let view = ask.app.db.view();
            match view.host(name.as_str()) {
                Some(host) => Found::Here(HostDoc::of(host.name.clone(), host.record(), host.revision)),
                None if ask.stale => reading::left(&view, &Key::host(&name)),
                // The store knows what became of it.
                None => reading::host(ask.store(), &name, None).await?,
            }
        }
    };
    match found {
        Found::Here(doc) => tagged(&ask, doc.revision, &doc),
        gone => Err(missing(&ask.caller, gone, &format!("host {name}"))),
    }
}

/// An answer with an ETag, or 304 if the client has it already.
pub(super) fn tagged<T: Serialize>(ask: &Ask, revision: Option<Revision>, value: &T) -> Answer<Response> {
    let (revision, yaml) = (revision.unwrap_or_default(), ask.shape.is_yaml());
    if Wish::of(&ask.headers)?.is_fresh(revision, yaml) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag_of(revision, yaml))]).into_response());
    }
    let mut response = ask.shape.ok(value)?;
    response.headers_mut().insert(ETAG, etag_of(revision, yaml));
    Ok(response)
}

#[derive(Serialize, JsonSchema)]
struct Membership {
    tag: TagName,
    /// The nested tags from the tag down to the one that holds the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    through: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    revision: Revision,
}

/// `GET /api/v2/hosts/{fqdn}/tags`
async fn tags(ask: Ask, Named(name): Named<HostName>) -> Answer {
    let ask = ask.only(&["revision", "after", "limit"])?;
    ask.caller.reads_host(&name)?;
    let after = ask.params.get("after").map(str::parse::<TagName>).transpose()?;
    let excerpt = ask.app.db.excerpt(ask.params.revision()?, Some(&name), None).await?;
    if excerpt.host().is_none() {
        let found = match ask.stale {
            true => reading::left(&ask.app.db.view(), &Key::host(&name)),
            false => reading::host(ask.store(), &name, Some(excerpt.revision())).await?,
        };
        return Err(missing(&ask.caller, found, &format!("host {name}")));
    }
    let all = excerpt.memberships().into_iter().map(|(tag, via)| {
        let through = via.through.iter().map(ToString::to_string).collect();
        (via.through, Membership { tag, through, rule: via.rule, revision: via.revision })
    });
    // The way is told as well: each tag on it says who is in it.
    let all: Vec<(Vec<TagName>, Membership)> = all.collect();
    let (seen, hidden) = sifted(all, |(through, membership)| {
        ask.caller.sees_members(&membership.tag) && through.iter().all(|tag| ask.caller.sees_members(tag))
    });
    let all = (seen.into_iter().map(|(_, membership)| membership).collect(), hidden);
    ask.page(excerpt.revision(), all, |membership| membership.tag.clone(), after)
}
