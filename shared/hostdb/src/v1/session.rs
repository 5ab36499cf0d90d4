//! Who asks, as HostDB has it: a session for a user and a password, checked before every write.
//!
//! A server that asks nobody who he is takes any user: the session is then the user's name, and the name the author of what is
//! written. One that asks checks the password, and the session is a token like others. Whoever is known in another way (a
//! token in the head, a local user) needs none.

use shoal_core::access::{Facet, Known, Target, Verb};
use shoal_core::{HostName, Key, Namespace, Range, TagName, View};

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
        // Its value may have come slowly.
        None => caller.again(app)?,
    };
    let user = known.who.name.clone();
    Ok((known, user))
}

/// Who reads. A session that is no good is as none: clients go on sending those that ended.
pub(super) fn reader(app: &App, caller: &Caller, session: Option<&str>) -> Caller {
    let shown = session.filter(|_| caller.asked).map(|token| caller.showing(app, token));
    match shown {
        Some(Ok(shown)) => shown,
        Some(Err(problem)) => {
            app.ignored(caller.origin.as_deref(), &problem);
            caller.reader()
        }
        None => caller.reader(),
    }
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
        ranges.push(Range::hosts());
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

/// The right to read what is asked for, as far as the path says it.
pub(super) fn may_read(caller: &Caller, of: &Resource, given: &Given) -> Answer<()> {
    match of {
        // Its names are sifted, and with `*` in the path it is no resource; but its revisions are those of all there is.
        Resource::Root if given.get("meta").is_none() => {}
        // Hosts and tags are promised to everybody, and not why each fact was written.
        Resource::Root if caller.asked && caller.who.name == shoal_core::access::ANONYMOUS => {
            return Err(Fault::unauthorized(
                "The revisions of everything are told to who says who they are: POST username and password to /v1/auth/session",
            ));
        }
        of => of.ranges().iter().try_for_each(|range| caller.reads_range(range))?,
    }
    if let Resource::Object(Object::Tag(tag)) = of
        && given.get("meta").is_some()
    {
        caller.reads_members(tag)?;
    }
    Ok(())
}

/// The right to read what is worked out from many rows: for those from whom none of them is kept. Of what was, as it was then. Costs the view
/// of that revision, where anything is kept from them.
pub(super) async fn may_gather(
    app: &App,
    caller: &Caller,
    path: &str,
    of: &Resource,
    given: &Given,
) -> Answer<()> {
    let (list, expands) = (given.get("foreach"), matches!(of, Resource::Members(_)) && !given.flag("raw"));
    let asks_parents = matches!(given.get("meta"), Some("parents" | "derived"));
    if !caller.restricted() || list.is_none() && !expands && !asks_parents {
        return Ok(());
    }
    let view = app.db.as_of(given.revision()?).await?;
    if let Some(list) = list {
        return may_gather_each(caller, &view, path, &Resource::parse(list)?);
    }
    match (of, given.get("from").map(str::parse::<Namespace>)) {
        (Resource::Members(tag), _) => may_expand(caller, &view, tag),
        (_, Some(Ok(from))) => Ok(caller.reads_contents(&view, &from, false)?),
        // It is refused for that.
        _ => Ok(()),
    }
}

/// The right to what `foreach` puts together: the list, and what the path says of each of its keys.
fn may_gather_each(caller: &Caller, view: &View, path: &str, list: &Resource) -> Answer<()> {
    match list {
        Resource::Members(tag) => may_expand(caller, view, tag)?,
        Resource::Namespace(_) => list.ranges().iter().try_for_each(|range| caller.reads_range(range))?,
        // It is refused for that.
        _ => return Ok(()),
    }
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    // What is no namespace holds nothing.
    let Some(Ok(namespace)) = parts.next().map(str::parse::<Namespace>) else { return Ok(()) };
    match parts.nth(1) {
        Some("members") => Ok(caller.reads_contents(view, &namespace, false)?),
        _ => Ok(caller.reads_range(&Range::namespace(namespace.as_str()))?),
    }
}

/// The right to the hosts that a tag contains, through whatever.
fn may_expand(caller: &Caller, view: &View, tag: &TagName) -> Answer<()> {
    caller.reads_nested(view, tag, &[Facet::Members])?;
    // Who is named stands in lists that they may read. A text cannot say that some are left out.
    let kept = |host: &&HostName| {
        !caller.sees_host(host.as_str()) && view.via(tag, host.as_str()).is_none_or(|via| via.rule.is_some())
    };
    match view.members(tag).iter().find(kept) {
        Some(_) => Ok(caller.reads_range(&Range::hosts())?),
        None => Ok(()),
    }
}
