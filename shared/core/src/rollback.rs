//! The edits that bring back what stood at an old revision.
//!
//! A rollback is a new proposal like any other: checked, with author and message, in the history. It brings back what
//! people wrote: hosts, tags and members. Facts say what is, pauses and approvals what somebody wants just now, and schemas
//! belong to the programs that run: a rollback of everything leaves them alone. Who may do what is never rolled back, not even by
//! name: a right that was taken away stays taken away.

use std::collections::{BTreeSet, HashMap};

use crate::{Edit, Expect, Host, HostId, HostName, Key, Kind, Member, TagName, View};

/// What is brought back.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// All hosts and tags.
    Everything,
    /// One row; a tag comes with its members. Of a host the tags that name it stay as they are.
    Key(&'a Key),
}

/// The edits that make `scope` in `now` what it is in `then`. For one key, `then` needs only the rows of that key and,
/// for a tag, of its members. No edits: it is so already.
#[must_use]
pub fn rollback(now: &View, then: &View, scope: Scope<'_>) -> Vec<Edit> {
    match scope {
        Scope::Everything => everything(now, then),
        Scope::Key(key) => one(now, then, key),
    }
}

fn everything(now: &View, then: &View) -> Vec<Edit> {
    let today: HashMap<&HostId, &HostName> = now.hosts().map(|h| (&h.id, &h.name)).collect();
    let is_itself = |host: &Host| now.host(host.name.as_str()).is_some_and(|h| h.id == host.id);
    let mut edits = Vec::new();
    // Tags that an edit of a host takes it out of, and that are to name it as before.
    let mut again: BTreeSet<TagName> = BTreeSet::new();
    let mut kept: BTreeSet<&HostName> = BTreeSet::new();
    // Where another host has the name today, that one goes first.
    for host in sorted(then).into_iter().filter(|h| !is_itself(h) && now.host(h.name.as_str()).is_some()) {
        again.extend(now.named_in(&host.name));
        edits.push(delete(Key::host(&host.name)));
    }
    for host in sorted(then).into_iter().filter(|h| !is_itself(h)) {
        // A host that was renamed since is renamed back, unless its name of today belongs to another again.
        if let Some(name) = today.get(&host.id).filter(|name| then.host(name.as_str()).is_none()) {
            kept.insert(name);
            again.extend(now.named_in(name));
            edits.push(Edit::Rename {
                from: Key::host(name),
                to: Key::host(&host.name),
                expect: Expect::Any,
            });
        }
    }
    let differs = |host: &Host| now.host(host.name.as_str()).map(Host::record) != Some(host.record());
    edits.extend(sorted(then).into_iter().filter(|h| differs(h)).map(put_host));
    for tag in then.tags() {
        let members =
            |view: &View| view.direct_members(&tag.name).into_iter().map(|(m, _)| m).collect::<Vec<_>>();
        let same =
            now.tag(&tag.name).is_some_and(|t| t.record() == tag.record()) && members(now) == members(then);
        if !same || again.contains(&tag.name) {
            edits.extend(put_tag(then, &tag.name));
        }
    }
    edits.extend(now.tags().filter(|t| then.tag(&t.name).is_none()).map(|t| delete(Key::tag(&t.name))));
    let gone =
        sorted(now).into_iter().filter(|h| then.host(h.name.as_str()).is_none() && !kept.contains(&h.name));
    edits.extend(gone.map(|h| delete(Key::host(&h.name))));
    edits
}

fn one(now: &View, then: &View, key: &Key) -> Vec<Edit> {
    if matches!(key.kind(), Kind::Access(_)) {
        return Vec::new();
    }
    let (is, was) = (now.row(key), then.row(key));
    let members =
        |view: &View, tag: &TagName| view.direct_members(tag).into_iter().map(|(m, _)| m).collect::<Vec<_>>();
    let same = is == was
        && match key.kind() {
            Kind::Tag(tag) => members(now, &tag) == members(then, &tag),
            _ => true,
        };
    if same {
        return Vec::new();
    }
    let Some(was) = was else { return vec![delete(key.clone())] };
    match key.kind() {
        Kind::Host(name) => then.host(name.as_str()).map(put_host).into_iter().collect(),
        Kind::Tag(tag) => put_tag(then, &tag).into_iter().collect(),
        Kind::Member(tag, member) => vec![Edit::AddMembers { tag, members: vec![member] }],
        Kind::Fact(..) | Kind::Schema(_) | Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {
            vec![Edit::Write { key: key.clone(), value: was, expect: Expect::Any }]
        }
    }
}

fn sorted(view: &View) -> Vec<&Host> {
    let mut all: Vec<&Host> = view.hosts().collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn delete(key: Key) -> Edit {
    Edit::Delete { key, follow: true, expect: Expect::Any }
}

fn put_host(host: &Host) -> Edit {
    Edit::host(host.name.clone(), host.record())
}

fn put_tag(then: &View, name: &TagName) -> Option<Edit> {
    let members: Vec<Member> = then.direct_members(name).into_iter().map(|(m, _)| m).collect();
    Some(Edit::tag(name.clone(), then.tag(name)?.record(), Some(members)))
}
