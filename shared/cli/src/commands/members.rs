//! `shoal members`, `shoal parents` and `shoal effective`: who is in what, how, and what it comes to.

use serde::Serialize;
use shoal_core::{HostName, Key, Kind, Member, Revision, TagName, Via, View};
use shoal_hostdb::reading;

use crate::args::{Effective, Members, Parents};
use crate::failure::{Failure, Outcome};
use crate::partly::Of;
use crate::session::Session;

/// Why a host is in a tag.
#[derive(Serialize)]
pub(crate) struct Way {
    pub(crate) through: Vec<TagName>,
    pub(crate) rule: Option<String>,
    pub(crate) revision: Revision,
}

impl Way {
    pub(crate) fn of(via: Via) -> Self {
        Self { through: via.through, rule: via.rule, revision: via.revision }
    }

    pub(crate) fn text(&self) -> String {
        let mut text: String = self.through.iter().map(|tag| format!("@{tag} > ")).collect();
        match &self.rule {
            Some(rule) => text.push_str(&format!("select: {rule}")),
            None => text.push_str("named"),
        }
        text
    }
}

#[derive(Serialize)]
struct HostIn {
    host: HostName,
    #[serde(flatten)]
    way: Way,
}

#[derive(Serialize)]
struct Written {
    member: Member,
    revision: Revision,
}

pub(crate) async fn members(session: &mut Session, args: Members) -> Outcome {
    let Members { tag, direct, revision } = args;
    session.exists(&Key::tag(&tag), revision).await?;
    if direct {
        let all = reading::direct(&*session.store, &tag, revision.map(Revision)).await;
        let all = all.map_err(Failure::reading(format!("tag {tag}")))?;
        let all: Vec<Written> =
            all.into_iter().map(|(member, revision)| Written { member, revision }).collect();
        return session.out.print(&all, |out| {
            let rows = all.iter().map(|w| vec![w.member.to_string(), w.revision.to_string()]).collect();
            out.table(&["MEMBER", "SINCE"], rows, &format!("tag {tag} has no members"))
        });
    }
    let view = session.contents(&Of::Tag(&tag), revision).await?;
    let way = |host: &HostName| view.via(&tag, host.as_str()).map(Way::of);
    let hosts = view.members(&tag).into_iter().filter_map(|host| Some(HostIn { way: way(&host)?, host }));
    let all: Vec<HostIn> = hosts.collect();
    session.out.print(&all, |out| {
        let rows = all.iter().map(|h| {
            // A host that is not for who asks has no revision, and no state that is known.
            let host = view.host(h.host.as_str()).filter(|host| host.revision > Revision::default());
            let state = host.map(|host| host.state.to_string()).unwrap_or_default();
            vec![h.host.to_string(), state, h.way.text(), h.way.revision.to_string()]
        });
        out.table(&["HOST", "STATE", "HOW", "REVISION"], rows.collect(), &format!("no host is in tag {tag}"))
    })
}

#[derive(Serialize)]
pub(crate) struct TagOf {
    pub(crate) tag: TagName,
    #[serde(flatten)]
    pub(crate) way: Way,
}

/// The tags that a host is in, with how.
pub(crate) fn tags_of(view: &View, host: &HostName) -> Vec<TagOf> {
    let all = view.memberships(host.as_str()).into_iter();
    all.map(|(tag, via)| TagOf { tag, way: Way::of(via) }).collect()
}

pub(crate) async fn parents(session: &mut Session, args: Parents) -> Outcome {
    let key = args.name.0;
    session.exists(&key, args.revision).await?;
    match key.kind() {
        Kind::Host(host) => {
            let view = session.around(&host, args.revision).await?;
            let all = tags_of(&view, &host);
            session.out.print(&all, |out| {
                let row = |t: &TagOf| vec![t.tag.to_string(), t.way.text(), t.way.revision.to_string()];
                let rows = all.iter().map(row).collect();
                out.table(&["TAG", "HOW", "REVISION"], rows, &format!("host {host} is in no tag"))
            })
        }
        Kind::Tag(tag) => {
            let all = reading::nesting(&*session.store, &tag, args.revision.map(Revision)).await;
            let all = all.map_err(Failure::reading(format!("tag {tag}")))?;
            session.out.print(&all, |out| {
                let rows = all.iter().map(|t| vec![t.to_string()]).collect();
                out.table(&["TAG"], rows, &format!("no tag nests {tag}"))
            })
        }
        _ => Err(Failure::Usage(format!("{key} is neither a host nor a tag"))),
    }
}

pub(crate) async fn effective(session: &mut Session, args: Effective) -> Outcome {
    let Effective { tag, host, revision } = args;
    session.exists(&Key::tag(&tag), revision).await?;
    if let Some(host) = &host {
        session.exists(&Key::host(host), revision).await?;
    }
    let view = match &host {
        Some(host) => session.around(host, revision).await?,
        None => {
            let view = reading::tag_alone(&*session.store, &tag, revision.map(Revision)).await;
            view.map_err(Failure::reading(format!("tag {tag}")))?
        }
    };
    let Some(effective) = view.effective(&tag, host.as_ref()) else {
        let host = host.map(|h| h.to_string()).unwrap_or_default();
        return Err(Failure::Missing(format!(
            "host {host} is not a member of tag {tag}; `shoal parents {host}` shows what it is in"
        )));
    };
    session.out.print(&effective, |out| {
        let mut text = out.table(&VALUES, values(&effective), &format!("tag {tag} says nothing"));
        text.push_str(&conflicts(&effective));
        text
    })
}

/// The columns of [`values`]. What may be very wide is last: whatever stood behind it would be out of sight.
pub(crate) const VALUES: [&str; 4] = ["FIELD", "FROM", "REVISION", "VALUE"];

/// The values of an effective document, one a line, with who said each.
pub(crate) fn values(effective: &shoal_core::Effective) -> Vec<Vec<String>> {
    let row = |(path, origin): (&String, &shoal_core::Origin)| {
        let value = effective.value.pointer(path).map(crate::out::plain).unwrap_or_default();
        let (field, from) = (super::history::plain(path), crate::names::shown(&origin.key));
        vec![field, from, origin.revision.to_string(), value]
    };
    effective.origins.iter().map(row).collect()
}

/// What the tags do not agree upon, as text.
pub(crate) fn conflicts(effective: &shoal_core::Effective) -> String {
    let said = |s: &shoal_core::Said| {
        format!("{} says {}", crate::names::shown(&s.origin.key), crate::out::plain(&s.value))
    };
    let line = |c: &shoal_core::Conflict| {
        let between: Vec<String> = c.between.iter().map(said).collect();
        format!("conflict at {}: {}; the last is used\n", c.path, between.join(", "))
    };
    effective.conflicts.iter().map(line).collect()
}
