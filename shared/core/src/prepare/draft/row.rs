//! Rows that a program prepared itself, taken as they are: each must be what its key says, and state what it rests on.
//! Whether they can stand together with all the others is checked at the end, as for every edit.

use std::collections::HashMap;

use super::{Done, Draft, check_plain, form};
use crate::prepare::refusal::Refusal;
use crate::{Change, Document, HostId, HostName, HostRecord, Key, Kind, Member, TagRecord};

impl Draft<'_> {
    pub(super) fn row(&mut self, key: &Key, value: Option<&Document>, moved: Option<&Key>) -> Done {
        self.once(key)?;
        let value = value.map(|value| self.kept(key, value)).transpose()?;
        match &value {
            Some(value) => self.stands(key, value)?,
            None => self.goes(key),
        }
        self.write(Change { key: key.clone(), value, moved: moved.cloned() });
        Ok(())
    }

    fn stands(&mut self, key: &Key, value: &Document) -> Done {
        let map = |document: &Document| {
            if document.is_map() { Ok(()) } else { Err(form(key, "its document is a map")) }
        };
        match key.kind() {
            Kind::Host(name) => {
                let record: HostRecord = value.to().map_err(|e| form(key, e))?;
                map(&record.document)?;
                if self.base.host(name.as_str()).is_none_or(|now| now.id != record.id) {
                    self.fresh.push(name);
                }
                self.reads.row(self.base, key);
            }
            Kind::Tag(_) => {
                map(&value.to::<TagRecord>().map_err(|e| form(key, e))?.document)?;
                self.reads.row(self.base, key);
            }
            Kind::Member(..) if *value == Document::empty() => {}
            Kind::Member(..) => return Err(form(key, "the row of a member is an empty map, {}")),
            Kind::Fact(..) | Kind::Schema(_) | Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {
                check_plain(key, value)?;
            }
        }
        Ok(())
    }

    fn goes(&mut self, key: &Key) {
        match key.kind() {
            Kind::Host(name) => {
                self.reads.row(self.base, key);
                self.reads.naming(Member::host(&name));
            }
            Kind::Tag(name) => {
                self.reads.row(self.base, key);
                self.reads.members(&name);
                self.reads.nesting(&name);
            }
            _ => {}
        }
    }

    /// No two hosts have one id. A host that was renamed brings its own.
    pub(super) fn check_fresh(&mut self) -> Done {
        let fresh: Vec<HostName> = std::mem::take(&mut self.fresh);
        let strange = |name: &HostName| !self.brought(name);
        if !fresh.iter().any(strange) {
            return Ok(());
        }
        self.reads.all_hosts();
        let mut owners: HashMap<&HostId, &HostName> = HashMap::new();
        for host in self.view.hosts() {
            if let Some(other) = owners.insert(&host.id, &host.name) {
                let (host, id) = (host.name.clone(), host.id.clone());
                return Err(Refusal::Id {
                    host,
                    id,
                    why: format!("it is {other}'s; give it one of its own"),
                });
            }
        }
        Ok(())
    }

    /// Whether the host has the id of another one that became it in this commit.
    fn brought(&self, name: &HostName) -> bool {
        let moved = self.changes.get(&Key::host(name)).and_then(|change| change.moved.as_ref());
        let Some(Kind::Host(from)) = moved.map(Key::kind) else { return false };
        let id = self.view.host(name.as_str()).map(|host| &host.id);
        self.view.host(from.as_str()).is_none() && self.base.host(from.as_str()).map(|host| &host.id) == id
    }
}
