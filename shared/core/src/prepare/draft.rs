//! Edits become rows, one after the other, on a copy of the view.

mod row;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reads::Reads;
use super::refusal::Refusal;
use crate::{
    ACCESS, Approval, Change, Document, Edit, Expect, FACTS, Host, HostId, HostName, HostRecord, Key, Kind,
    Lifecycle, Member, PAUSES, Pause, Revision, Schema, Tag, TagName, TagRecord, View, access,
};

pub(super) struct Draft<'v> {
    base: &'v View,
    /// The base with what the edits so far wrote; rules are not asked.
    view: View,
    changes: BTreeMap<Key, Change>,
    put: BTreeSet<Key>,
    /// Whether any of the changes is below `access/`.
    decides: bool,
    reads: Reads,
    /// Whose each id is; made when the first id is asked for.
    ids: Option<HashMap<HostId, HostName>>,
    /// Hosts that were written as rows, with an id that they did not have.
    fresh: Vec<HostName>,
    new_id: &'v mut dyn FnMut() -> HostId,
}

type Done = Result<(), Refusal>;

/// What a merge patch of a host is applied to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostForm {
    id: HostId,
    #[serde(default)]
    state: Lifecycle,
    owner: Option<String>,
    environment: Option<String>,
    expires: Option<Timestamp>,
    #[serde(default = "Document::empty")]
    document: Document,
}

/// What a merge patch of a tag is applied to; members only where the patch names them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagForm {
    owner: Option<String>,
    environment: Option<String>,
    expires: Option<Timestamp>,
    #[serde(default = "Document::empty")]
    document: Document,
    members: Option<Vec<Member>>,
}

impl<'v> Draft<'v> {
    pub(super) fn new(base: &'v View, new_id: &'v mut dyn FnMut() -> HostId) -> Self {
        let (changes, put, decides, reads) = Default::default();
        Self { base, view: base.clone(), changes, put, decides, reads, ids: None, fresh: Vec::new(), new_id }
    }

    /// The rows that differ from what stands, in key order, and what they rest on.
    pub(super) fn finish(mut self) -> Result<(Vec<Change>, Reads), Refusal> {
        self.check_fresh()?;
        self.end_sessions();
        let stands = |change: &Change| change.moved.is_none() && self.base.row(&change.key) == change.value;
        Ok((self.changes.into_values().filter(|c| !stands(c)).collect(), self.reads))
    }

    /// Sessions end with what they rest on, and none that others begin meanwhile is overlooked.
    fn end_sessions(&mut self) {
        if !self.decides {
            return;
        }
        let Some(ended) = access::ended(self.base, &self.view, &self.changes) else { return };
        self.reads.tokens();
        for key in ended {
            self.write(Change::delete(key));
        }
    }

    pub(super) fn edit(&mut self, edit: &Edit) -> Done {
        match edit {
            Edit::PutHost { host, id, state, owner, environment, expires, document, expect } => {
                let key = Key::host(host);
                self.expect(&key, *expect)?;
                self.once(&key)?;
                let id = self.id_of(host, id.as_ref())?;
                let state = state.or(self.view.host(host.as_str()).map(|h| h.state)).unwrap_or_default();
                let (owner, environment, document) = (owner.clone(), environment.clone(), document.clone());
                self.write_host(
                    host,
                    HostRecord { id, state, owner, environment, expires: *expires, document },
                )
            }
            Edit::PutTag { tag, owner, environment, expires, document, members, expect } => {
                let key = Key::tag(tag);
                self.expect(&key, *expect)?;
                self.once(&key)?;
                let (owner, environment, document) = (owner.clone(), environment.clone(), document.clone());
                self.write_tag(tag, TagRecord { owner, environment, expires: *expires, document })?;
                members.as_ref().map_or(Ok(()), |members| self.set_members(tag, members))
            }
            Edit::Patch { key, patch, expect } => {
                self.expect(key, *expect)?;
                self.patch(key, patch)
            }
            Edit::Delete { key, follow, expect } => {
                self.expect(key, *expect)?;
                self.delete(key, *follow)
            }
            Edit::Rename { from, to, expect } => {
                self.expect(from, *expect)?;
                self.rename(from, to)
            }
            Edit::AddMembers { tag, members } => {
                members.iter().for_each(|member| self.add_member(tag, member));
                Ok(())
            }
            Edit::RemoveMembers { tag, members } => self.remove_members(tag, members),
            Edit::SetMembers { tag, members, expect } => {
                self.expect(&Key::tag(tag), *expect)?;
                self.set_members(tag, members)
            }
            Edit::SetState { host, state, expect } => {
                self.expect(&Key::host(host), *expect)?;
                let record = HostRecord { state: *state, ..self.host(host)?.record() };
                self.write_host(host, record)
            }
            Edit::Row { key, value, moved } => self.row(key, value.as_ref(), moved.as_ref()),
            Edit::Write { key, value, expect } => {
                self.expect(key, *expect)?;
                let value = self.kept(key, value)?;
                check_plain(key, &value)?;
                self.write(Change::put(key.clone(), value));
                Ok(())
            }
        }
    }

    /// The row as it is to stand: a secret that was hidden from who writes it stays what it is.
    fn kept(&mut self, key: &Key, value: &Document) -> Result<Document, Refusal> {
        let now = if key.namespace() == ACCESS { self.view.row(key) } else { None };
        match access::kept(key, value, now.as_ref()).map_err(|why| form(key, why))? {
            Some(kept) => {
                self.reads.row(self.base, key);
                Ok(kept)
            }
            None => Ok(value.clone()),
        }
    }

    /// Checks what the caller expects at a key. What is expected of a revision is of the database, not of the edits
    /// before this one.
    fn expect(&mut self, key: &Key, expect: Expect) -> Done {
        let now = self.view.revision_of(key);
        if expect != Expect::Any {
            self.reads.row(self.base, key);
        }
        match (expect, now) {
            (Expect::Any, _) | (Expect::Absent, None) | (Expect::Exists, Some(_)) => Ok(()),
            (Expect::Absent, Some(revision)) => Err(Refusal::Exists { key: key.clone(), revision }),
            (Expect::Exists | Expect::At(_), None) => Err(self.missing(key)),
            (Expect::At(seen), Some(_)) => {
                let actual = match key.kind() {
                    Kind::Tag(tag) => {
                        self.reads.members(&tag);
                        self.base.tag_revision(&tag)
                    }
                    _ => self.base.revision_of(key),
                };
                match actual {
                    Some(actual) if actual != seen => Err(Refusal::Stale { key: key.clone(), seen, actual }),
                    Some(_) => Ok(()),
                    None => Err(self.missing(key)),
                }
            }
        }
    }

    fn once(&mut self, key: &Key) -> Done {
        if self.put.insert(key.clone()) { Ok(()) } else { Err(Refusal::Twice { key: key.clone() }) }
    }

    fn missing(&self, key: &Key) -> Refusal {
        Refusal::Missing { key: key.clone(), moved: self.view.tombstone(key).and_then(|t| t.moved.clone()) }
    }

    fn host(&self, name: &HostName) -> Result<&Host, Refusal> {
        self.view.host(name.as_str()).ok_or_else(|| self.missing(&Key::host(name)))
    }

    fn tag(&self, name: &TagName) -> Result<&Tag, Refusal> {
        self.view.tag(name).ok_or_else(|| self.missing(&Key::tag(name)))
    }

    fn id_of(&mut self, host: &HostName, asked: Option<&HostId>) -> Result<HostId, Refusal> {
        let refuse = |id: &HostId, why: String| Refusal::Id { host: host.clone(), id: id.clone(), why };
        match (self.view.host(host.as_str()), asked) {
            (Some(now), Some(id)) if now.id != *id => {
                Err(refuse(id, format!("its id is {}, and ids never change; leave the id out", now.id)))
            }
            (Some(now), _) => Ok(now.id.clone()),
            (None, None) => Ok((self.new_id)()),
            (None, Some(id)) => {
                self.reads.all_hosts();
                let ids = |hosts: &View| hosts.hosts().map(|h| (h.id.clone(), h.name.clone())).collect();
                let owner = self.ids.get_or_insert_with(|| ids(self.base)).insert(id.clone(), host.clone());
                let other = owner.filter(|name| self.view.host(name.as_str()).is_some_and(|h| h.id == *id));
                match other {
                    Some(other) => Err(refuse(id, format!("it is {other}'s; leave the id out"))),
                    None => Ok(id.clone()),
                }
            }
        }
    }

    /// Writes a row, on top of what the edits before wrote.
    fn write(&mut self, mut change: Change) {
        if let Some(before) = self.changes.get(&change.key)
            && before.value.is_some() == change.value.is_some()
        {
            change.moved = change.moved.or_else(|| before.moved.clone());
        }
        self.decides |= change.key.namespace() == ACCESS;
        let revision = Revision(self.base.revision().0 + 1);
        self.view.put(&change.key, change.value.as_ref(), change.moved.clone(), revision);
        self.changes.insert(change.key.clone(), change);
    }

    fn write_host(&mut self, name: &HostName, record: HostRecord) -> Done {
        let key = Key::host(name);
        if !record.document.is_map() {
            return Err(form(&key, "its document is a map"));
        }
        self.reads.row(self.base, &key);
        let row = Document::of(&record).map_err(|e| form(&key, e))?;
        self.write(Change::put(key, row));
        Ok(())
    }

    fn write_tag(&mut self, name: &TagName, record: TagRecord) -> Done {
        let key = Key::tag(name);
        if !record.document.is_map() {
            return Err(form(&key, "its document is a map"));
        }
        self.reads.row(self.base, &key);
        let row = Document::of(&record).map_err(|e| form(&key, e))?;
        self.write(Change::put(key, row));
        Ok(())
    }

    fn patch(&mut self, key: &Key, patch: &Value) -> Done {
        match key.kind() {
            Kind::Host(name) => {
                let now = self.host(&name)?.record();
                let mut value = json!({"id": now.id, "state": now.state, "owner": now.owner, "environment": now.environment,
                    "expires": now.expires, "document": now.document});
                json_patch::merge(&mut value, patch);
                let form: HostForm = serde_json::from_value(value).map_err(|e| form(key, e))?;
                let HostForm { id, state, owner, environment, expires, document } = form;
                let id = self.id_of(&name, Some(&id))?;
                self.write_host(&name, HostRecord { id, state, owner, environment, expires, document })
            }
            Kind::Tag(name) => {
                let now = self.tag(&name)?.record();
                let mut value = json!({"owner": now.owner, "environment": now.environment, "expires": now.expires,
                    "document": now.document});
                json_patch::merge(&mut value, patch);
                let form: TagForm = serde_json::from_value(value).map_err(|e| form(key, e))?;
                let TagForm { owner, environment, expires, document, members } = form;
                self.write_tag(&name, TagRecord { owner, environment, expires, document })?;
                members.map_or(Ok(()), |members| self.set_members(&name, &members))
            }
            _ => Err(Refusal::Kind {
                key: key.clone(),
                why: "only hosts and tags can be patched; write the whole",
            }),
        }
    }

    fn delete(&mut self, key: &Key, follow: bool) -> Done {
        if self.view.revision_of(key).is_none() {
            return Err(self.missing(key));
        }
        match key.kind() {
            Kind::Host(name) => {
                self.reads.row(self.base, key);
                self.reads.naming(Member::host(&name));
                for tag in self.view.named_in(&name) {
                    self.write(Change::delete(Key::member(&tag, &Member::host(&name))));
                }
                self.delete_facts(name.as_str());
            }
            Kind::Tag(name) => {
                self.reads.row(self.base, key);
                self.reads.members(&name);
                self.reads.nesting(&name);
                for (member, _) in self.view.direct_members(&name) {
                    self.write(Change::delete(Key::member(&name, &member)));
                }
                for parent in self.view.nested_in(&name).into_iter().filter(|_| follow) {
                    self.write(Change::delete(Key::member(
                        &parent,
                        &Member::nested(&name, parent.namespace()),
                    )));
                }
                self.delete_facts(name.as_str());
            }
            Kind::Member(tag, member) => return self.remove_members(&tag, &[member]),
            Kind::Fact(..) | Kind::Schema(_) | Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {}
        }
        self.write(Change::delete(key.clone()));
        Ok(())
    }

    /// Deletes what is only known about a subject. Its pause stays, if it has one: what is paused stays as it is until
    /// somebody resumes it, and what was made of the subject is still there.
    fn delete_facts(&mut self, subject: &str) {
        for key in self.facts(subject) {
            self.write(Change::delete(key));
        }
    }

    /// The keys of a subject's facts.
    fn facts(&self, subject: &str) -> Vec<Key> {
        let facts = self.view.facts_about(subject);
        facts.iter().filter_map(|f| format!("{FACTS}/{}/{subject}", f.namespace).parse().ok()).collect()
    }

    fn rename(&mut self, from: &Key, to: &Key) -> Done {
        if let Some(revision) = self.view.revision_of(to) {
            return Err(Refusal::Exists { key: to.clone(), revision });
        }
        let Some(row) = self.view.row(from) else { return Err(self.missing(from)) };
        self.reads.row(self.base, from);
        self.reads.row(self.base, to);
        match (from.kind(), to.kind()) {
            (Kind::Host(old), Kind::Host(new)) => {
                self.reads.naming(Member::host(&old));
                for tag in self.view.named_in(&old) {
                    self.write(Change::delete(Key::member(&tag, &Member::host(&old))));
                    self.write(Change::put(Key::member(&tag, &Member::host(&new)), Document::empty()));
                }
                self.move_about((old.as_str(), new.as_str()), "host");
            }
            (Kind::Tag(old), Kind::Tag(new)) if old.namespace() == new.namespace() => {
                self.reads.members(&old);
                self.reads.nesting(&old);
                for (member, _) in self.view.direct_members(&old) {
                    self.write(Change::delete(Key::member(&old, &member)));
                    self.write(Change::put(Key::member(&new, &member), Document::empty()));
                }
                for parent in self.view.nested_in(&old) {
                    let named =
                        |tag: &TagName| Key::member(&parent, &Member::nested(tag, parent.namespace()));
                    self.write(Change::delete(named(&old)));
                    self.write(Change::put(named(&new), Document::empty()));
                }
                self.move_about((old.as_str(), new.as_str()), "tag");
            }
            _ => {
                let why = "only a host can be renamed to a host, and a tag to a tag of the same namespace";
                return Err(Refusal::Kind { key: from.clone(), why });
            }
        }
        self.write(Change { key: from.clone(), value: None, moved: Some(to.clone()) });
        self.write(Change { key: to.clone(), value: Some(row), moved: Some(from.clone()) });
        Ok(())
    }

    /// Moves the facts and the pause of a subject.
    fn move_about(&mut self, (old, new): (&str, &str), what: &str) {
        let pause = format!("{PAUSES}/{what}/{old}");
        let pause =
            self.view.plain(&pause).find(|(key, _)| key.as_str() == pause).map(|(key, _)| key.clone());
        for key in self.facts(old).into_iter().chain(pause) {
            let moved =
                key.as_str().strip_suffix(old).and_then(|place| format!("{place}{new}").parse::<Key>().ok());
            if let (Some(to), Some(row)) = (moved, self.view.row(&key)) {
                self.write(Change { key: key.clone(), value: None, moved: Some(to.clone()) });
                self.write(Change { key: to, value: Some(row), moved: Some(key) });
            }
        }
    }

    fn add_member(&mut self, tag: &TagName, member: &Member) {
        let key = Key::member(tag, member);
        if self.view.revision_of(&key).is_none() {
            self.write(Change::put(key, Document::empty()));
        }
    }

    fn remove_members(&mut self, tag: &TagName, members: &[Member]) -> Done {
        self.tag(tag)?;
        for member in members {
            let key = Key::member(tag, member);
            if self.view.revision_of(&key).is_none() {
                return Err(Refusal::NoMember { tag: tag.clone(), member: member.clone() });
            }
            self.write(Change::delete(key));
        }
        Ok(())
    }

    fn set_members(&mut self, tag: &TagName, members: &[Member]) -> Done {
        self.tag(tag)?;
        self.reads.members(tag);
        let wanted: BTreeSet<Key> = members.iter().map(|m| Key::member(tag, m)).collect();
        for (member, _) in self.view.direct_members(tag) {
            let key = Key::member(tag, &member);
            if !wanted.contains(&key) {
                self.write(Change::delete(key));
            }
        }
        for key in wanted {
            if self.view.revision_of(&key).is_none() {
                self.write(Change::put(key, Document::empty()));
            }
        }
        Ok(())
    }
}

/// Whether a fact, a schema, a pause, an approval, or what decides who may do what, is one.
fn check_plain(key: &Key, value: &Document) -> Done {
    let parsed = match key.kind() {
        Kind::Fact(..) if value.is_map() => Ok(()),
        Kind::Fact(..) => return Err(form(key, "facts are a map")),
        Kind::Schema(_) => value.to::<Schema>().map(drop),
        Kind::Pause(_) => value.to::<Pause>().map(drop),
        Kind::Approval(..) => value.to::<Approval>().map(drop),
        Kind::Access(_) => return access::check(key, value).map_err(|why| form(key, why)),
        Kind::Host(_) | Kind::Tag(_) | Kind::Member(..) => {
            let why = "hosts, tags and members have edits of their own";
            return Err(Refusal::Kind { key: key.clone(), why });
        }
    };
    parsed.map_err(|e| form(key, e))
}

fn form(key: &Key, why: impl ToString) -> Refusal {
    Refusal::Form { key: key.clone(), why: why.to_string() }
}
