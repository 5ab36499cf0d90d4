//! What must change so that what is wanted stands there, and nothing of anybody else is touched.
//!
//! **Who owns what.** The importer remembers what it wrote: `facts/<name>/<host>` lists the fields it set and the groups it put the
//! host in, `facts/<name>/<tag>` the fields and the members. From that:
//!
//! * a field that the inventory has is set, and owned from then on; what people wrote there is overwritten, and the plan says so;
//! * a field that is owned and that the inventory has no more is removed; one that is not owned is never touched;
//! * a membership that the inventory has is made and owned; one that is owned and gone from it is ended;
//! * a host's state is set when the host is made, and never again.
//!
//! **Absence.** The inventory speaks for the hosts it lists. A host or a tag that it does not list any more stays, with its
//! memberships, and is reported; only `--prune` removes it. Of a tag, only when nothing that others put there is left.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shoal_core::{
    BadName, Change, Document, HostId, HostName, HostRecord, Key, Kind, Lifecycle, Member, MemberKind,
    Namespace, Pre, Row, TagName, TagRecord,
};

use super::report::{Line, Report};
use super::wanted::{ENVIRONMENT, OWNER, Wanted, WantedHost, WantedTag};
use super::{ImportError, Note};

/// The rows that an import looks at.
pub type Rows = BTreeMap<Key, Row>;

/// What the importer remembers of a host or tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    #[serde(default)]
    fields: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    groups: BTreeSet<TagName>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    members: BTreeSet<Member>,
}

/// The import as it is being made.
pub(super) struct Merge<'a> {
    name: &'a Namespace,
    rows: &'a Rows,
    marks: BTreeMap<String, Mark>,
    changes: BTreeMap<Key, Option<Document>>,
    report: Report,
}

impl<'a> Merge<'a> {
    pub(super) fn new(name: &'a Namespace, rows: &'a Rows, notes: Vec<Note>) -> Self {
        let mut marks = BTreeMap::new();
        let mut report = Report { name: name.to_string(), notes, ..Report::default() };
        for (key, row) in rows {
            let (Kind::Fact(of, subject), Some(value)) = (key.kind(), &row.value) else { continue };
            if of != *name {
                continue;
            }
            match value.to::<Mark>() {
                Ok(mark) => drop(marks.insert(subject, mark)),
                Err(why) => report.notes.push(Note::new(
                    key.to_string(),
                    format!("not what an import writes ({why}); made anew"),
                )),
            }
        }
        Self { name, rows, marks, changes: BTreeMap::new(), report }
    }

    /// Everything, in one go.
    pub(super) fn run(
        mut self,
        wanted: &Wanted,
        prune: bool,
        id: &mut dyn FnMut() -> HostId,
    ) -> Result<(Vec<Change>, Vec<Pre>, Report), ImportError> {
        for (name, host) in &wanted.hosts {
            self.host(name, host, id)?;
        }
        for (name, tag) in &wanted.tags {
            self.tag(name, tag)?;
        }
        for tag in &wanted.absent {
            if self.marks.contains_key(tag.as_str()) && !wanted.tags.contains_key(tag) {
                self.tag(tag, &WantedTag::default())?;
            }
        }
        self.vanished(wanted, prune)?;
        let pre = self.changes.keys().map(|key| self.precondition(key)).collect();
        let changes =
            self.changes.into_iter().map(|(key, value)| Change { key, value, moved: None }).collect();
        Ok((changes, pre, self.report))
    }

    fn value(&self, key: &Key) -> Option<&'a Document> {
        self.rows.get(key).and_then(|row| row.value.as_ref())
    }

    fn precondition(&self, key: &Key) -> Pre {
        match self.rows.get(key) {
            Some(row) if row.value.is_some() => Pre::At(key.clone(), row.revision),
            _ => Pre::Absent(key.clone()),
        }
    }

    /// Writes, unless it stands there already; answers whether it did.
    fn put(&mut self, key: Key, value: Document) -> bool {
        let new = self.value(&key) != Some(&value);
        if new {
            self.changes.insert(key, Some(value));
        }
        new
    }

    fn delete(&mut self, key: Key) -> bool {
        let there = self.value(&key).is_some();
        if there {
            self.changes.insert(key, None);
        }
        there
    }

    fn line(&mut self, verb: char, what: impl Into<String>, detail: impl Into<String>) {
        self.report.changes.push(Line { verb, what: what.into(), detail: detail.into() });
    }

    fn host(
        &mut self,
        name: &HostName,
        want: &WantedHost,
        id: &mut dyn FnMut() -> HostId,
    ) -> Result<(), ImportError> {
        let key = Key::host(name);
        let before = self.marks.get(name.as_str()).cloned().unwrap_or_default();
        let old = self.value(&key).map(|row| parse::<HostRecord>(&key, row)).transpose()?;
        let fresh = old.is_none();
        let mut record = old.unwrap_or_else(|| HostRecord {
            id: id(),
            state: want.state.unwrap_or(Lifecycle::Active),
            owner: None,
            environment: None,
            expires: None,
            document: Document::empty(),
        });
        let mut edit = Edit::new(record.document.value(), &before, fresh);
        edit.text(OWNER, &mut record.owner, &want.fields, &want.unknown);
        edit.text(ENVIRONMENT, &mut record.environment, &want.fields, &want.unknown);
        edit.document(&want.fields, &want.unknown);
        let (document, owned, said) = edit.done();
        record.document = document;
        let written = self.put(key.clone(), document_of(&key, &record)?);
        self.report.hosts.count(fresh, written);
        if written {
            self.line(if fresh { '+' } else { '~' }, key.as_str(), said);
        }
        let groups = want.groups(&before.groups);
        self.memberships(name, &before.groups, &groups);
        self.mark(name.as_str(), Mark { fields: owned, groups, members: BTreeSet::new() })
    }

    fn memberships(&mut self, host: &HostName, before: &BTreeSet<TagName>, now: &BTreeSet<TagName>) {
        let member = Member::host(host);
        for tag in now {
            if self.put_member(tag, &member) {
                self.line('+', tag.as_str(), host.as_str());
            }
        }
        for tag in before.difference(now) {
            if self.delete(Key::member(tag, &member)) {
                self.report.members.gone += 1;
                self.line('-', tag.as_str(), host.as_str());
            }
        }
    }

    fn put_member(&mut self, tag: &TagName, member: &Member) -> bool {
        // A member row that stands there says nothing in its value: it is left as it is.
        let key = Key::member(tag, member);
        let new = self.value(&key).is_none() && self.put(key, Document::empty());
        self.report.members.count(new, new);
        new
    }

    fn tag(&mut self, name: &TagName, want: &WantedTag) -> Result<(), ImportError> {
        let key = Key::tag(name);
        let before = self.marks.get(name.as_str()).cloned().unwrap_or_default();
        let old = self.value(&key).map(|row| parse::<TagRecord>(&key, row)).transpose()?;
        let fresh = old.is_none();
        let mut record = old.unwrap_or_else(|| TagRecord {
            owner: None,
            environment: None,
            expires: None,
            document: Document::empty(),
        });
        let unknown = BTreeSet::new();
        let mut edit = Edit::new(record.document.value(), &before, fresh);
        edit.text(OWNER, &mut record.owner, &want.fields, &unknown);
        edit.text(ENVIRONMENT, &mut record.environment, &want.fields, &unknown);
        edit.document(&want.fields, &unknown);
        let (document, owned, said) = edit.done();
        record.document = document;
        let written = self.put(key.clone(), document_of(&key, &record)?);
        self.report.tags.count(fresh, written);
        if written {
            self.line(if fresh { '+' } else { '~' }, key.as_str(), said);
        }
        let there =
            |m: &&Member| m.as_tag(name.namespace()).is_some_and(|t| self.value(&Key::tag(&t)).is_some());
        let mut members: BTreeSet<Member> =
            want.members.iter().chain(want.if_there.iter().filter(there)).cloned().collect();
        if want.keep {
            let is_there = |member: &&Member| self.value(&Key::member(name, member)).is_some();
            let kept: Vec<Member> = before.members.difference(&members).filter(is_there).cloned().collect();
            for member in kept {
                let why = format!("{member} stays in: it may be one that could not be told");
                self.report.notes.push(Note::new(name.to_string(), why));
                members.insert(member);
            }
        }
        for member in &members {
            if self.put_member(name, member) {
                self.line('+', name.as_str(), member.as_str());
            }
        }
        for member in before.members.difference(&members) {
            if self.delete(Key::member(name, member)) {
                self.report.members.gone += 1;
                self.line('-', name.as_str(), member.as_str());
            }
        }
        self.mark(name.as_str(), Mark { fields: owned, groups: BTreeSet::new(), members })
    }

    fn mark(&mut self, subject: &str, mark: Mark) -> Result<(), ImportError> {
        let key = Key::fact(self.name, subject)?;
        let value = document_of(&key, &mark)?;
        self.put(key, value);
        Ok(())
    }

    /// Hosts and tags that an earlier import made, and that the inventory does not list any more.
    fn vanished(&mut self, wanted: &Wanted, prune: bool) -> Result<(), ImportError> {
        let marks = std::mem::take(&mut self.marks);
        let (mut hosts, mut tags) = (Vec::new(), Vec::new());
        for subject in marks.keys() {
            if let Ok(tag) = subject.parse::<TagName>() {
                let spoken_of = [&wanted.absent, &wanted.unknown].iter().any(|tags| tags.contains(&tag));
                if !spoken_of && !wanted.tags.contains_key(&tag) {
                    tags.push(tag);
                }
            } else if let Some(host) =
                subject.parse::<HostName>().ok().filter(|h| !wanted.hosts.contains_key(h))
            {
                hosts.push(host);
            }
        }
        self.report.vanished =
            hosts.iter().map(HostName::to_string).chain(tags.iter().map(TagName::to_string)).collect();
        if prune {
            for host in &hosts {
                self.prune_host(host)?;
            }
            for tag in &tags {
                self.prune_tag(tag, marks.get(tag.as_str()))?;
            }
        }
        Ok(())
    }

    fn prune_host(&mut self, host: &HostName) -> Result<(), ImportError> {
        let named = |key: &&Key| key.as_member().is_some_and(|(_, m)| m == host.as_str());
        for key in self.rows.keys().filter(named) {
            self.delete(key.clone());
        }
        if self.delete(Key::host(host)) {
            self.report.hosts.gone += 1;
            self.line('-', Key::host(host).as_str(), "pruned: the inventory does not list it any more");
        }
        self.delete(Key::fact(self.name, host.as_str())?);
        Ok(())
    }

    fn prune_tag(&mut self, tag: &TagName, mark: Option<&Mark>) -> Result<(), ImportError> {
        for member in mark.into_iter().flat_map(|m| &m.members) {
            self.delete(Key::member(tag, member));
        }
        let gone = |key: &Key| matches!(self.changes.get(key), Some(None));
        let left = self.rows.iter().find(|(key, row)| {
            let Some((of, member)) = key.as_member().filter(|_| row.value.is_some() && !gone(key)) else {
                return false;
            };
            of == tag.as_str() || nests(of, member, tag)
        });
        if let Some((key, _)) = left {
            self.report.notes.push(Note::new(
                tag.to_string(),
                format!("not pruned: {key} stands there, and no import made it"),
            ));
            return Ok(());
        }
        if self.delete(Key::tag(tag)) {
            self.report.tags.gone += 1;
            self.line('-', tag.as_str(), "pruned: the inventory does not list it any more");
        }
        self.delete(Key::fact(self.name, tag.as_str())?);
        Ok(())
    }
}

fn nests(of: &str, member: &str, tag: &TagName) -> bool {
    let Ok(member) = member.parse::<Member>() else { return false };
    let namespace = of.split_once('/').map_or("", |(ns, _)| ns);
    matches!(member.kind(), MemberKind::Nested(_) | MemberKind::Foreign(_))
        && member.as_tag(namespace).is_some_and(|t| t == *tag)
}

/// One document being edited: what is set, what is owned afterwards, and a line for people.
struct Edit<'a> {
    map: Map<String, Value>,
    before: &'a Mark,
    owned: BTreeSet<String>,
    said: Vec<String>,
    fresh: bool,
}

impl<'a> Edit<'a> {
    fn new(document: Value, before: &'a Mark, fresh: bool) -> Self {
        let map = match document {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        Self { map, before, owned: BTreeSet::new(), said: Vec::new(), fresh }
    }

    fn say(&mut self, field: &str, old: Option<&Value>, new: Option<&Value>) {
        if !self.fresh && old != new {
            let show = |v: Option<&Value>| v.map_or_else(|| "nothing".to_owned(), Value::to_string);
            self.said.push(format!("{}: {} -> {}", field.trim_start_matches('@'), show(old), show(new)));
        }
    }

    fn text(
        &mut self,
        field: &str,
        at: &mut Option<String>,
        want: &Map<String, Value>,
        unknown: &BTreeSet<String>,
    ) {
        let old = at.clone().map(Value::from);
        if let Some(value) = want.get(field) {
            *at = value.as_str().map(str::to_owned);
            self.owned.insert(field.to_owned());
        } else if unknown.contains(field) {
            self.owned.extend(self.before.fields.get(field).cloned());
        } else if self.before.fields.contains(field) {
            *at = None;
        }
        let new = at.clone().map(Value::from);
        self.say(field, old.as_ref(), new.as_ref());
    }

    fn document(&mut self, want: &Map<String, Value>, unknown: &BTreeSet<String>) {
        for (field, value) in want.iter().filter(|(field, _)| !field.starts_with('@')) {
            let old = self.map.insert(field.clone(), value.clone());
            self.say(field, old.as_ref(), Some(value));
            self.owned.insert(field.clone());
        }
        for field in self.before.fields.iter().filter(|f| !f.starts_with('@') && !want.contains_key(*f)) {
            if unknown.contains(field) {
                self.owned.insert(field.clone());
            } else if let Some(old) = self.map.shift_remove(field) {
                self.say(field, Some(&old), None);
            }
        }
    }

    fn done(self) -> (Document, BTreeSet<String>, String) {
        let said = if self.fresh { format!("with {} fields", self.map.len()) } else { self.said.join(", ") };
        (Value::Object(self.map).into(), self.owned, said)
    }
}

fn parse<T: serde::de::DeserializeOwned>(key: &Key, row: &Document) -> Result<T, ImportError> {
    row.to().map_err(|why| ImportError::Row { key: key.clone(), why })
}

fn document_of<T: Serialize>(key: &Key, value: &T) -> Result<Document, ImportError> {
    Document::of(value).map_err(|why| ImportError::Row { key: key.clone(), why })
}

impl std::convert::From<BadName> for ImportError {
    fn from(why: BadName) -> Self {
        Self::Mapping(why.to_string())
    }
}
