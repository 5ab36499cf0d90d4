//! Writing: each request is one commit, by the user of the session, for the reason in `log`.
//!
//! What HostDB's documents do not have (owner, state, when a host may go) stays as it is; the state alone may be said beside one. A change inside a document is made to what
//! stands there at that moment: when somebody else is faster it is made again, a few times.

use serde_json::Value;
use shoal_core::codec::{self, Format};
use shoal_core::{
    BadName, Document, Edit, Expect, HOSTS, Key, Lifecycle, Member, Proposal, Refusal, TagName, View,
};
use shoal_store::{StoreError, TransactError};

use super::fault::{Answer, Fault};
use super::given::Given;
use super::id::{Object, Resource};
use super::{inside, perms};
use crate::access::Caller;
use crate::app::App;
use crate::problem::Problem;

/// How often a change inside a document is tried while others change the same document.
const TRIES: usize = 5;

/// Who writes, and why.
pub(super) struct By {
    pub(super) caller: Caller,
    pub(super) user: String,
    pub(super) log: String,
}

/// The right to write a resource. It is asked before anything of it is looked at: whether a write inside a document fits would tell what stands
/// there.
pub(super) fn may_write(of: &Resource, caller: &Caller) -> Answer<()> {
    let may = match of {
        Resource::Object(object) | Resource::Inside(object, _) => caller.may_write(&object.key()),
        Resource::Members(tag) | Resource::Member(tag, _) => caller.may_write_members(tag),
        Resource::Perms(ns, of) => caller.may_write(&perms::key(ns, of.as_ref())?),
        Resource::Root | Resource::Namespace(_) => Ok(()),
    };
    may.map_err(|denied| Problem::from(denied).into())
}

/// Makes a resource, or says it anew.
pub(super) async fn put(app: &App, of: Resource, given: &Given, by: &By) -> Answer<()> {
    let value = given.get("value").unwrap_or_default();
    match of {
        Resource::Object(object) => {
            let (document, state) = (map(value)?, state(&object, given)?);
            change(app, &object, by, Missing::Made(state), |_| Ok(document.clone())).await
        }
        Resource::Inside(object, path) => {
            let value = parsed(value)?;
            change(app, &object, by, Missing::Refused, |mut document| {
                inside::set(&mut document, &path, value.clone())?;
                Ok(document)
            })
            .await
        }
        Resource::Members(tag) => {
            let members = listed(value)?;
            commit(app, by, vec![Edit::SetMembers { tag, members, expect: Expect::Any }]).await
        }
        Resource::Member(tag, member) => {
            commit(app, by, vec![Edit::AddMembers { tag, members: vec![member] }]).await
        }
        Resource::Perms(ns, of) => {
            let edit = perms::put(app, perms::key(&ns, of.as_ref())?, value).await?;
            commit(app, by, vec![edit]).await
        }
        Resource::Root | Resource::Namespace(_) => Err(no_writes()),
    }
}

/// Gives a resource another name.
pub(super) async fn rename(app: &App, of: Resource, given: &Given, by: &By) -> Answer<()> {
    let to = given.need("newname")?.trim();
    match of {
        Resource::Object(object) => {
            let namespace = match &object {
                Object::Host(_) => HOSTS,
                Object::Tag(name) => name.namespace(),
            };
            let to = Object::of(namespace, to)
                .map_err(|_| Fault::bad_request(format!("{to:?} is no name")))?
                .key();
            commit(app, by, vec![Edit::Rename { from: object.key(), to, expect: Expect::Any }]).await
        }
        Resource::Inside(object, path) => {
            change(app, &object, by, Missing::Refused, |mut document| {
                inside::rename(&mut document, &path, to)?;
                Ok(document)
            })
            .await
        }
        Resource::Member(tag, member) => {
            let to: Member = to.parse().map_err(|_| Fault::bad_request(format!("{to:?} is no name")))?;
            if app.db.fresh_view().await?.exists(&Key::member(&tag, &to)) {
                return Err(Fault::bad_request(format!("Target already exists: {to}")));
            }
            let out = Edit::RemoveMembers { tag: tag.clone(), members: vec![member] };
            commit(app, by, vec![out, Edit::AddMembers { tag, members: vec![to] }]).await
        }
        Resource::Members(_) | Resource::Perms(..) | Resource::Root | Resource::Namespace(_) => {
            Err(no_writes())
        }
    }
}

/// Takes a resource away.
pub(super) async fn delete(app: &App, of: Resource, by: &By) -> Answer<()> {
    match of {
        // What names it follows.
        Resource::Object(object) => {
            commit(app, by, vec![Edit::Delete { key: object.key(), follow: true, expect: Expect::Exists }])
                .await
        }
        Resource::Inside(object, path) => {
            change(app, &object, by, Missing::Refused, |mut document| {
                inside::delete(&mut document, &path)?;
                Ok(document)
            })
            .await
        }
        Resource::Members(tag) => {
            commit(app, by, vec![Edit::SetMembers { tag, members: Vec::new(), expect: Expect::Exists }]).await
        }
        Resource::Member(tag, member) => {
            commit(app, by, vec![Edit::RemoveMembers { tag, members: vec![member] }]).await
        }
        Resource::Perms(ns, of) => {
            let edit = perms::delete(perms::key(&ns, of.as_ref())?);
            commit(app, by, vec![edit]).await
        }
        Resource::Root | Resource::Namespace(_) => Err(no_writes()),
    }
}

fn no_writes() -> Fault {
    Fault::not_allowed("Writes are not allowed here")
}

/// A value as it is sent: YAML, where nothing at all is no value.
fn parsed(text: &str) -> Answer<Value> {
    match text.trim().trim_start_matches("---").trim() {
        "" | "~" | "null" => Ok(Value::Null),
        _ => Ok(codec::read(text.as_bytes(), Format::Yaml)?),
    }
}

/// The document of a host or tag.
fn map(text: &str) -> Answer<Value> {
    match parsed(text)? {
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        map @ Value::Object(_) => Ok(map),
        _ => Err(Fault::bad_request("The value is no map: hosts and tags hold names with values")),
    }
}

/// Members, one a line; comments and empty lines are left out.
fn listed(text: &str) -> Answer<Vec<Member>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut members: Vec<Member> = Vec::new();
    for line in lines {
        members.push(line.parse()?);
    }
    members.sort();
    members.dedup();
    Ok(members)
}

/// Where a new host is to be in its life, where that is said beside its document.
fn state(object: &Object, given: &Given) -> Answer<Option<Lifecycle>> {
    let said = given.get("state").filter(|_| matches!(object, Object::Host(_)));
    said.map(|text| text.parse().map_err(|e: BadName| Fault::bad_request(e.to_string()))).transpose()
}

/// What becomes of what does not exist.
#[derive(Clone, Copy)]
enum Missing {
    /// It is made, in this state where one is said. What stands there stays in its own: the same may be sent again and again, and a machine
    /// that is at work must not be asked for anew by that.
    Made(Option<Lifecycle>),
    /// It is missed.
    Refused,
}

/// Changes a document to what `to` makes of it.
async fn change(
    app: &App,
    object: &Object,
    by: &By,
    missing: Missing,
    to: impl Fn(Value) -> Answer<Value>,
) -> Answer<()> {
    let mut tries = TRIES;
    loop {
        let edit = {
            let view = app.db.fresh_view().await?;
            put_edit(&view, object, missing, &to)?
        };
        tries -= 1;
        match propose(app, by, vec![edit]).await {
            Err(TransactError::Refused(Refusal::Stale { .. } | Refusal::Exists { .. })) if tries > 0 => {}
            Err(TransactError::Store(StoreError::Conflict { .. }) | TransactError::Busy { .. })
                if tries > 0 => {}
            done => return done.map_err(Fault::from),
        }
    }
}

/// The object with another document, and all else as it stands.
fn put_edit(
    view: &View,
    object: &Object,
    missing: Missing,
    to: impl Fn(Value) -> Answer<Value>,
) -> Answer<Edit> {
    let none = || match missing {
        Missing::Made(_) => to(Value::Null),
        Missing::Refused => {
            Err(Fault::not_found(format!("Parent resource {} does not exist.", object.key())))
        }
    };
    match object {
        Object::Host(name) => {
            let now = view.host(name.as_str());
            let document = now.map_or_else(none, |host| to(host.document.value()))?;
            Ok(Edit::PutHost {
                host: name.clone(),
                id: None,
                state: match missing {
                    Missing::Made(state) if now.is_none() => state,
                    Missing::Made(_) | Missing::Refused => None,
                },
                owner: now.and_then(|host| host.owner.clone()),
                environment: now.and_then(|host| host.environment.clone()),
                expires: now.and_then(|host| host.expires),
                document: Document::from(document),
                expect: now.map_or(Expect::Absent, |host| Expect::At(host.revision)),
            })
        }
        Object::Tag(name) => {
            let now = view.tag(name);
            let document = now.map_or_else(none, |tag| to(tag.document.value()))?;
            Ok(Edit::PutTag {
                tag: name.clone(),
                owner: now.and_then(|tag| tag.owner.clone()),
                environment: now.and_then(|tag| tag.environment.clone()),
                expires: now.and_then(|tag| tag.expires),
                document: Document::from(document),
                members: None,
                expect: expected(view, name),
            })
        }
    }
}

/// A tag is compared with its members.
fn expected(view: &View, name: &TagName) -> Expect {
    view.tag_revision(name).map_or(Expect::Absent, Expect::At)
}

async fn commit(app: &App, by: &By, edits: Vec<Edit>) -> Answer<()> {
    Ok(propose(app, by, edits).await?)
}

async fn propose(app: &App, by: &By, edits: Vec<Edit>) -> Result<(), TransactError> {
    app.propose(&by.caller, Proposal::new(by.user.clone(), by.log.clone(), edits)).await.map(drop)
}
