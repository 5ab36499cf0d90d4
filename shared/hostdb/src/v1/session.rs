//! Who asks, as HostDB has it: a session for a user and a password, checked before every write.
//!
//! A server that asks nobody who he is takes any user: the session is then the user's name, and the name the author of what is
//! written. One that asks checks the password, and the session is a token like others. Whoever is known in another way (a
//! token in the head, a local user) needs none.

use shoal_core::access::{Facet, Known, Target, Verb};
use shoal_core::{HostName, Key};

use super::fault::{Answer, Fault};
use super::given::Given;
use super::id::{Object, Resource};
use crate::access::Caller;
use crate::app::App;

/// The longest name of a user, in octets.
const MAX_USER: usize = 256;

/// A session for this user.
pub(super) async fn open(app: &App, caller: &Caller, given: &Given) -> Answer<String> {
    let (Some(user), Some(password)) = (given.get("username"), given.get("password")) else {
        return Err(Fault::bad_request("Missing username or password"));
    };
    let user = checked(user)?;
    if !caller.asked {
        return Ok(user.to_owned());
    }
    Ok(app.login(user, password, caller.origin.clone()).await?.token)
}

/// Who writes, and under which name.
pub(super) fn writer(app: &App, caller: &Caller, session: Option<&str>) -> Answer<(Caller, String)> {
    let none = || Fault::unauthorized("No session: POST username and password to /v1/auth/session");
    if !caller.asked {
        let user = checked(session.ok_or_else(none)?)?.to_owned();
        return Ok((caller.clone(), user));
    }
    let known = match session {
        Some(token) => caller.showing(app, token)?,
        None if caller.who.is_anonymous() => return Err(none()),
        None => caller.clone(),
    };
    let user = known.who.name.clone();
    Ok((known, user))
}

/// Who reads. A session that is no good is as none: clients go on sending those that ended.
pub(super) fn reader(app: &App, caller: &Caller, session: Option<&str>) -> Caller {
    let shown = session.filter(|_| caller.asked).and_then(|token| caller.showing(app, token).ok());
    shown.unwrap_or_else(|| caller.reader())
}

fn checked(user: &str) -> Answer<&str> {
    let fine = !user.trim().is_empty() && user.len() <= MAX_USER && !user.contains(char::is_control);
    if fine { Ok(user) } else { Err(Fault::unauthorized("That is no name of a user")) }
}

/// The right to know what a user may: of oneself, as an administrator, or where anybody may read the resource. HostDB's clients ask without
/// a session.
pub(super) fn may_ask(
    app: &App,
    caller: &Caller,
    session: Option<&str>,
    user: &str,
    of: &Resource,
) -> Answer<()> {
    let asker = reader(app, caller, session);
    let own = asker.who.name == user && user != shoal_core::access::ANONYMOUS;
    if !asker.asked || own || asker.must_administer().is_ok() {
        return Ok(());
    }
    let (anybody, mut ranges) = (asker.anybody(), of.ranges());
    // What no range is about, such as rules.
    if ranges.is_empty() {
        ranges.push(shoal_core::Range::hosts());
    }
    ranges.iter().try_for_each(|range| anybody.reads_range(range)).map_err(|_| {
        Fault::unauthorized(format!(
            "What {user} may do with this is told to {user} and to administrators: POST username and password to /v1/auth/session"
        ))
    })
}

/// Whether the user may write the resource, here and alone.
pub(super) fn may_write(caller: &Caller, user: &str, of: &Resource) -> bool {
    if !caller.asked {
        return true;
    }
    let Known::Principal(who) = caller.index.called(user) else { return false };
    // What takes two people is not done here.
    let one = |target: Target<'_>| {
        caller.index.may(&who, Verb::Write, target).is_ok() && caller.index.protected(target).is_none()
    };
    let may = |key: &Key| Target::of(key).is_some_and(one);
    match of {
        Resource::Object(object) | Resource::Inside(object, _) => may(&object.key()),
        Resource::Members(tag) => {
            let of = Target { facet: Facet::Members, namespace: tag.namespace(), key: Some(tag.key()) };
            one(of)
        }
        Resource::Member(tag, member) => may(&Key::member(tag, member)),
        Resource::Perms(..) => caller.index.administers(&who).is_ok(),
        Resource::Root | Resource::Namespace(_) => false,
    }
}

/// The right to read what is asked for. What is worked out from many rows is for those from whom none of them is kept.
pub(super) fn may_read(app: &App, caller: &Caller, of: &Resource, given: &Given) -> Answer<()> {
    of.ranges().iter().try_for_each(|range| caller.reads_range(range))?;
    if let Resource::Object(Object::Tag(tag)) = of
        && given.get("meta").is_some()
    {
        caller.reads_members(tag)?;
    }
    let gathers = given.get("foreach").is_some();
    let (expands, asks_parents) = match of {
        Resource::Members(tag) => (Some(tag).filter(|_| !given.flag("raw")), false),
        _ => (None, matches!(given.get("meta"), Some("parents" | "derived"))),
    };
    if !caller.restricted() || !gathers && expands.is_none() && !asks_parents {
        return Ok(());
    }
    // Of what was, all could be in it.
    if gathers || given.get("revision").is_some() {
        return Ok(caller.reads_range(&shoal_core::Range::All)?);
    }
    let view = app.db.view();
    match (expands, given.get("from").map(str::parse::<shoal_core::Namespace>)) {
        (Some(tag), _) => {
            caller.reads_nested(&view, tag, &[Facet::Members])?;
            // Who is named stands in lists that they may read. A text cannot say that some are left out.
            let kept = |host: &&HostName| {
                !caller.sees_host(host.as_str())
                    && view.via(tag, host.as_str()).is_none_or(|via| via.rule.is_some())
            };
            match view.members(tag).iter().find(kept) {
                Some(_) => Ok(caller.reads_range(&shoal_core::Range::hosts())?),
                None => Ok(()),
            }
        }
        (None, Some(Ok(from))) => Ok(caller.reads_contents(&view, &from, false)?),
        // It is refused for that.
        (None, _) => Ok(()),
    }
}
